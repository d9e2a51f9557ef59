// SPDX-License-Identifier: GPL-2.0

//! Which endpoint gets a new connection: weighted round robin over a table.

use kernel::{
    prelude::*,
    sync::Arc, //
};
use nlb::wire::wrr;

/// Bounds of the table's length, which decides how exactly weights are kept.
const MIN_SLOTS: u32 = 64;
const MAX_SLOTS: u32 = 1 << 14;

/// Slots for each unit of weight, where the bounds permit.
const SLOTS_PER_WEIGHT: u32 = 4;

/// The endpoints of a service and one round of their turns. Never changes: it is replaced.
pub(crate) struct Schedule<E> {
    endpoints: KVec<Arc<E>>,
    table: KVec<u16>,
}

impl<E> Schedule<E> {
    /// Lays out the round of these endpoints by their weights. `ENOMEM`; `E2BIG` if there are more
    /// of them than slots.
    pub(crate) fn new(endpoints: KVec<Arc<E>>, weight: impl Fn(&E) -> u32) -> Result<Arc<Self>> {
        let mut shares = KVec::with_capacity(endpoints.len(), GFP_KERNEL)?;
        let mut total = 0u32;
        for endpoint in &endpoints {
            let weight = weight(endpoint);
            total = total.saturating_add(weight);
            shares.push(wrr::Share::new(weight), GFP_KERNEL)?;
        }
        let mut table = KVec::new();
        if total > 0 {
            let slots = total
                .saturating_mul(SLOTS_PER_WEIGHT)
                .clamp(MIN_SLOTS, MAX_SLOTS)
                .next_power_of_two();
            table.resize(slots as usize, 0u16, GFP_KERNEL)?;
            wrr::fill(&mut shares, &mut table).map_err(|_| E2BIG)?;
        }
        Ok(Arc::new(Self { endpoints, table }, GFP_KERNEL)?)
    }

    /// All endpoints, in the order they were added.
    pub(crate) fn endpoints(&self) -> &[Arc<E>] {
        &self.endpoints
    }

    /// The endpoint for connection number `counter`. None if no endpoint takes new connections.
    #[inline]
    pub(crate) fn pick(&self, counter: u32) -> Option<&Arc<E>> {
        let index = wrr::pick(&self.table, counter)?;
        self.endpoints.get(usize::from(index))
    }
}

#[kunit_tests(nlb_fwd_scheduler)]
mod tests {
    use super::*;

    fn schedule(weights: &[u32]) -> Result<Arc<Schedule<u32>>> {
        let mut endpoints = KVec::new();
        for weight in weights {
            endpoints.push(Arc::new(*weight, GFP_KERNEL)?, GFP_KERNEL)?;
        }
        Schedule::new(endpoints, |weight| *weight)
    }

    #[test]
    fn shares_follow_the_weights() -> Result {
        // What divides the table's length is exact, in every stretch of one round.
        for weights in [&[1u32, 3][..], &[1, 1], &[2, 0, 6], &[1]] {
            let schedule = schedule(weights)?;
            let total: u32 = weights.iter().sum();
            for start in [0, 5, u32::MAX - 3] {
                for (number, weight) in weights.iter().enumerate() {
                    let wanted = schedule.endpoints().get(number).ok_or(EINVAL)?;
                    let picked = (0..total * 16)
                        .filter_map(|turn| schedule.pick(start.wrapping_add(turn)))
                        .filter(|endpoint| Arc::ptr_eq(endpoint, wanted))
                        .count();
                    assert_eq!(picked as u32, weight * 16);
                }
            }
        }
        Ok(())
    }

    #[test]
    fn heavy_endpoints_get_no_bursts() -> Result {
        let schedule = schedule(&[1, 3])?;
        let mut row = 0;
        for turn in 0..1000 {
            let heavy = schedule.pick(turn).is_some_and(|weight| **weight == 3);
            row = if heavy { row + 1 } else { 0 };
            assert!(row <= 3);
        }
        Ok(())
    }

    #[test]
    fn nobody_to_pick() -> Result {
        assert!(schedule(&[])?.pick(0).is_none());
        assert!(schedule(&[0, 0])?.pick(0).is_none());
        assert_eq!(schedule(&[0, 0])?.endpoints().len(), 2);
        Ok(())
    }

    #[test]
    fn many_endpoints() -> Result {
        let schedule = schedule(&[100; crate::service::MAX_ENDPOINTS])?;
        // Every hundredth, for the sake of time.
        for endpoint in schedule.endpoints().iter().step_by(100) {
            assert!((0..MAX_SLOTS).any(|turn| {
                schedule
                    .pick(turn)
                    .is_some_and(|picked| Arc::ptr_eq(picked, endpoint))
            }));
        }
        Ok(())
    }
}
