// SPDX-License-Identifier: GPL-2.0

//! Which endpoint gets a new connection: weighted round robin over a table.

use crate::endpoint::Endpoint;
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
pub(crate) struct Schedule {
    endpoints: KVec<Arc<Endpoint>>,
    table: KVec<u16>,
}

impl Schedule {
    /// Lays out the round of these endpoints by their weights. `ENOMEM`; `E2BIG` if there are more
    /// of them than slots.
    pub(crate) fn new(endpoints: KVec<Arc<Endpoint>>) -> Result<Arc<Self>> {
        let mut shares = KVec::with_capacity(endpoints.len(), GFP_KERNEL)?;
        let mut total = 0u32;
        for endpoint in &endpoints {
            let weight = endpoint.weight();
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
    pub(crate) fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// The endpoint for connection number `counter`. None if no endpoint takes new connections.
    #[inline]
    pub(crate) fn pick(&self, counter: u32) -> Option<&Arc<Endpoint>> {
        let index = wrr::pick(&self.table, counter)?;
        self.endpoints.get(usize::from(index))
    }
}
