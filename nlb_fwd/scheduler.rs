// SPDX-License-Identifier: GPL-2.0

//! Which endpoint gets a new connection.
//!
//! What can be worked out beforehand is in a table that is made when the endpoints change, in process
//! context; a choice is a load from it. Only the schedulers that look at connections go through the
//! endpoints, as those of IPVS do, and begin where round robin would, so that endpoints without
//! connections get them by turns.

use crate::uapi::Scheduler;
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
};
use nlb::wire::{
    addr::{
        Addr,
        FourTuple, //
    },
    least::least,
    maglev,
    wrr, //
};

/// Bounds of the length of a round, which decides how exactly weights are kept.
const MIN_SLOTS: u32 = 64;
const MAX_SLOTS: u32 = 1 << 14;

/// Slots of a round for each unit of weight, where the bounds permit.
const SLOTS_PER_WEIGHT: u32 = 64;

/// What a scheduler wants to know of an endpoint.
pub(crate) trait Candidate {
    /// Who it is.
    fn host(&self) -> Addr;

    /// Its share of new connections, 0 if it takes none.
    fn share(&self) -> u32;

    /// How much it has to do, by [`nlb::wire::least::load`].
    fn load(&self) -> u64;

    /// Whether a client whose last connection it has may come again.
    fn keeps_clients(&self) -> bool;
}

/// How an endpoint is found.
enum Choice {
    /// By turns: indices of endpoints, one round.
    Turns(KVec<u16>),
    /// The one with the least load, and by turns among equals.
    Least(KVec<u16>),
    /// The same, in proportion to the weights.
    WeightedLeast(KVec<u16>),
    /// By the client's address and port.
    Hash(VVec<u16>),
}

/// The endpoints of a service, prepared for its scheduler. Never changes: it is replaced.
pub(crate) struct Schedule<E> {
    endpoints: KVec<Arc<E>>,
    choice: Choice,
}

impl<E: Candidate> Schedule<E> {
    /// Prepares these endpoints, at most 65535. May sleep. `ENOMEM`; `E2BIG` if there are too many.
    pub(crate) fn new(scheduler: Scheduler, endpoints: KVec<Arc<E>>) -> Result<Arc<Self>> {
        let choice = match scheduler {
            Scheduler::Wrr => Choice::Turns(turns(&endpoints, E::share)?),
            Scheduler::Rr => Choice::Turns(turns(&endpoints, one_or_none)?),
            Scheduler::Lc => Choice::Least(turns(&endpoints, one_or_none)?),
            Scheduler::Wlc => Choice::WeightedLeast(turns(&endpoints, E::share)?),
            Scheduler::Mh => Choice::Hash(hash_table(&endpoints)?),
        };
        Ok(Arc::new(Self { endpoints, choice }, GFP_KERNEL)?)
    }

    /// All endpoints, in the order they were added.
    pub(crate) fn endpoints(&self) -> &[Arc<E>] {
        &self.endpoints
    }

    /// The endpoint for a new connection, `turn` counting those of the service. None if no endpoint
    /// takes new connections.
    #[inline]
    pub(crate) fn pick(&self, turn: &Atomic<u32>, tuple: &FourTuple) -> Option<&Arc<E>> {
        let next = |turns: &[u16]| wrr::pick(turns, turn.fetch_add(1u32, Relaxed));
        match &self.choice {
            Choice::Turns(turns) => self.endpoints.get(usize::from(next(turns)?)),
            Choice::Hash(table) => self.endpoints.get(usize::from(maglev::pick(table, tuple)?)),
            Choice::Least(turns) => self.least(next(turns)?, one_or_none),
            Choice::WeightedLeast(turns) => self.least(next(turns)?, E::share),
        }
    }

    /// The endpoint with the least load for its weight, of several the first from `first` on.
    fn least(&self, first: u16, weight: impl Fn(&E) -> u32) -> Option<&Arc<E>> {
        let (before, from) = self.endpoints.split_at_checked(usize::from(first))?;
        let all = Iterator::chain(from.iter(), before);
        least(all.map(|endpoint| (endpoint, endpoint.load(), weight(endpoint))))
    }
}

/// The weight of schedulers that know no weights.
fn one_or_none<E: Candidate>(endpoint: &E) -> u32 {
    endpoint.share().min(1)
}

/// Lays out one round by these weights. Empty if nobody has any.
fn turns<E>(endpoints: &[Arc<E>], weight: impl Fn(&E) -> u32) -> Result<KVec<u16>> {
    let mut shares = KVec::with_capacity(endpoints.len(), GFP_KERNEL)?;
    let mut total = 0u32;
    for endpoint in endpoints {
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
    Ok(table)
}

/// Divides the space of hashes by the weights. Empty if nobody has any.
fn hash_table<E: Candidate>(endpoints: &[Arc<E>]) -> Result<VVec<u16>> {
    let mut entries = KVec::with_capacity(endpoints.len(), GFP_KERNEL)?;
    let mut nobody = true;
    for (index, endpoint) in endpoints.iter().enumerate() {
        let index = u16::try_from(index).map_err(|_| E2BIG)?;
        let share = endpoint.share();
        nobody &= share == 0;
        let entry = maglev::Entry::new(index, endpoint.host(), share);
        entries.push(entry, GFP_KERNEL)?;
    }
    let mut table = VVec::new();
    if !nobody {
        table.resize(maglev::SLOTS, 0u16, GFP_KERNEL)?;
        maglev::fill(&mut entries, &mut table).map_err(|_| EINVAL)?;
    }
    Ok(table)
}

#[kunit_tests(nlb_fwd_scheduler)]
mod tests {
    use super::*;
    use nlb::wire::{
        addr::Proto,
        least::load, //
    };

    struct Host {
        number: u32,
        weight: u32,
        active: Atomic<u32>,
    }

    impl Candidate for Host {
        fn host(&self) -> Addr {
            Addr::v4(self.number.to_be_bytes())
        }

        fn share(&self) -> u32 {
            self.weight
        }

        fn load(&self) -> u64 {
            load(self.active.load(Relaxed), 0)
        }

        fn keeps_clients(&self) -> bool {
            true
        }
    }

    fn schedule(scheduler: Scheduler, weights: &[u32]) -> Result<Arc<Schedule<Host>>> {
        let mut hosts = KVec::new();
        for (number, weight) in (0x0a00_0001..).zip(weights) {
            let host = Host {
                number,
                weight: *weight,
                active: Atomic::new(0),
            };
            hosts.push(Arc::new(host, GFP_KERNEL)?, GFP_KERNEL)?;
        }
        Schedule::new(scheduler, hosts)
    }

    /// Connection `number`.
    fn tuple(number: u32) -> FourTuple {
        let [_, high, port @ ..] = number.to_be_bytes();
        let port = u16::from_be_bytes(port);
        FourTuple::v4([10, 1, 0, high], port, [192, 0, 2, 10], 80, Proto::Tcp)
    }

    /// How often each host is picked by so many connections, all of which stay if `stay`.
    fn counts(schedule: &Schedule<Host>, start: u32, number: u32, stay: bool) -> Result<KVec<u32>> {
        let turn = Atomic::new(start);
        let mut counts = KVec::from_elem(0u32, schedule.endpoints().len(), GFP_KERNEL)?;
        for number in 0..number {
            let picked = schedule.pick(&turn, &tuple(number)).ok_or(ENOENT)?;
            picked.active.fetch_add(u32::from(stay), Relaxed);
            for (count, host) in counts.iter_mut().zip(schedule.endpoints()) {
                *count += u32::from(Arc::ptr_eq(host, picked));
            }
        }
        Ok(counts)
    }

    #[test]
    fn round_robin_by_weight() -> Result {
        // What divides the table's length is exact, in every stretch of one round.
        for weights in [&[1u32, 3][..], &[1, 1], &[2, 0, 6], &[1]] {
            let total: u32 = weights.iter().sum();
            for start in [0, 5, u32::MAX - 3] {
                let schedule = schedule(Scheduler::Wrr, weights)?;
                let counts = counts(&schedule, start, total * 16, false)?;
                for (count, weight) in counts.iter().zip(weights) {
                    assert_eq!(*count, weight * 16);
                }
            }
        }
        Ok(())
    }

    #[test]
    fn heavy_endpoints_get_no_bursts() -> Result {
        let schedule = schedule(Scheduler::Wrr, &[1, 3])?;
        let turn = Atomic::new(0);
        let mut row = 0;
        for _ in 0..1000 {
            let picked = schedule.pick(&turn, &tuple(1)).ok_or(ENOENT)?;
            row = if picked.weight == 3 { row + 1 } else { 0 };
            assert!(row <= 3);
        }
        Ok(())
    }

    #[test]
    fn weights_do_not_count() -> Result {
        for scheduler in [Scheduler::Rr, Scheduler::Lc] {
            let schedule = schedule(scheduler, &[1, 7, 0, 100, 3])?;
            assert_eq!(*counts(&schedule, 0, 256, true)?, [64, 64, 0, 64, 64]);
        }
        Ok(())
    }

    #[test]
    fn least_connections() -> Result {
        // Whoever is behind catches up first.
        let schedule = schedule(Scheduler::Lc, &[1, 1, 1])?;
        for (host, active) in schedule.endpoints().iter().zip([100, 0, 40]) {
            host.active.store(active, Relaxed);
        }
        assert_eq!(*counts(&schedule, 0, 40, true)?, [0, 40, 0]);
        assert_eq!(*counts(&schedule, 0, 120, true)?, [0, 60, 60]);
        assert_eq!(*counts(&schedule, 0, 300, true)?, [100, 100, 100]);
        Ok(())
    }

    #[test]
    fn least_connections_by_weight() -> Result {
        let weighted = schedule(Scheduler::Wlc, &[1, 3, 0, 4])?;
        assert_eq!(*counts(&weighted, 0, 800, true)?, [100, 300, 0, 400]);
        // Connections that are gone at once leave everybody equal: by turns, as weighted round robin.
        let idle = schedule(Scheduler::Wlc, &[1, 3, 0, 4])?;
        assert_eq!(*counts(&idle, 0, 800, false)?, [100, 300, 0, 400]);
        Ok(())
    }

    #[test]
    fn consistent_hashing() -> Result {
        let both = schedule(Scheduler::Mh, &[1, 1, 0, 2])?;
        let counts = counts(&both, 0, 4000, true)?;
        // 5 % of 4000 is above seven standard deviations.
        for (count, want) in counts.iter().zip([1000u32, 1000, 0, 2000]) {
            assert!(count.abs_diff(want) <= 200);
            assert!((want == 0) == (*count == 0));
        }
        // Neither turn nor load matters.
        let again = schedule(Scheduler::Mh, &[1, 1, 0, 2])?;
        let turn = Atomic::new(77);
        let without = schedule(Scheduler::Mh, &[1, 0, 0, 2])?;
        let mut moved = 0u32;
        for number in 0..4000 {
            let host = both.pick(&turn, &tuple(number)).ok_or(ENOENT)?.number;
            let same = again.pick(&turn, &tuple(number)).ok_or(ENOENT)?.number;
            let now = without.pick(&turn, &tuple(number)).ok_or(ENOENT)?.number;
            assert_eq!(host, same);
            assert!(now != 0x0a00_0002);
            moved += u32::from(host != 0x0a00_0002 && host != now);
        }
        assert!(moved <= 80);
        Ok(())
    }

    const ALL: [Scheduler; 5] = [
        Scheduler::Wrr,
        Scheduler::Rr,
        Scheduler::Lc,
        Scheduler::Wlc,
        Scheduler::Mh,
    ];

    #[test]
    fn nobody_to_pick() -> Result {
        let turn = Atomic::new(0);
        for scheduler in ALL {
            for weights in [&[][..], &[0, 0]] {
                let schedule = schedule(scheduler, weights)?;
                assert!(schedule.pick(&turn, &tuple(0)).is_none());
                assert_eq!(schedule.endpoints().len(), weights.len());
            }
        }
        Ok(())
    }

    #[test]
    fn many_endpoints() -> Result {
        for scheduler in ALL {
            let schedule = schedule(scheduler, &[100; crate::service::MAX_ENDPOINTS])?;
            let turn = Atomic::new(0);
            for number in 0..MAX_SLOTS {
                let picked = schedule.pick(&turn, &tuple(number)).ok_or(ENOENT)?;
                picked.active.fetch_add(1u32, Relaxed);
            }
            assert!(schedule.endpoints().iter().all(|host| host.load() > 0));
        }
        Ok(())
    }
}
