// SPDX-License-Identifier: GPL-2.0

//! Which endpoint gets a new connection.
//!
//! What can be worked out beforehand is in a table that is made when the endpoints change, in process
//! context; a choice is a load from it. Only the schedulers that look at connections go through the
//! endpoints, as those of IPVS do, and begin where round robin would, so that endpoints without
//! connections get them by turns.
//!
//! An endpoint that has as many connections as it may have is passed over. That is looked at when it
//! is its turn, for limits and loads change with every packet: then the next ones in the table are
//! tried, a few of them, and if that does not help all endpoints.

#[cfg(CONFIG_KUNIT = "y")]
pub(crate) mod tests;

use crate::{
    endpoint::Place,
    uapi::Scheduler, //
};
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
    addr::FourTuple,
    least::{
        least,
        CONNECTION, //
    },
    maglev::{
        self,
        By, //
    },
    slow_start::STEPS,
    two,
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
    fn place(&self) -> Place;

    /// Its share of new connections, 0 if it takes none.
    fn share(&self) -> u32;

    /// How much it has to do, by [`nlb::wire::least::load`].
    fn load(&self) -> u64;

    /// Whether it has no connection that is active.
    fn is_idle(&self) -> bool;

    /// Of [`STEPS`], how much of its share counts, as long as it has a slow start.
    fn step(&self) -> u32;

    /// Whether it gets only connections that no other can take.
    fn is_backup(&self) -> bool;

    /// Whether it has fewer connections than it may have.
    fn has_room(&self) -> bool;

    /// Whether a packet can be sent to it of which nothing is remembered.
    fn does_without_routes(&self) -> bool {
        true
    }

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
    /// The one that would have the least load in proportion with the connection, but before it, if so
    /// wanted, one that is idle.
    ShortestDelay { turns: KVec<u16>, idle: bool },
    /// The one with less load in proportion, of two that are drawn by their weights.
    Two(KVec<u16>),
    /// By the client's address, and maybe its port.
    Hash(VVec<u16>),
    /// In this order.
    Order(KVec<u16>),
}

/// Why there is no endpoint for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoEndpoint {
    /// None takes new connections.
    Nobody,
    /// Those that do have as many as they may have.
    Overflow,
}

/// How many slots are tried before all endpoints are.
pub(crate) const LOOKS: u32 = 16;

/// The endpoints of a service, prepared for its scheduler. Never changes: it is replaced.
pub(crate) struct Schedule<E> {
    endpoints: KVec<Arc<E>>,
    /// What of a connection is hashed, where hashes decide.
    by: By,
    regular: Choice,
    backups: Choice,
    /// For connections without a route, if there are any.
    stateless: Option<VVec<u16>>,
    /// Counts the turns of backups.
    overflow: Atomic<u32>,
}

impl<E: Candidate> Schedule<E> {
    /// Prepares these endpoints, at most 65535, and if `stateless` for connections without a route,
    /// too. May sleep. `ENOMEM`; `E2BIG` if there are too many.
    pub(crate) fn new(
        scheduler: Scheduler,
        endpoints: KVec<Arc<E>>,
        stateless: bool,
    ) -> Result<Arc<Self>> {
        let regular = Choice::new(scheduler, &endpoints, regular)?;
        let backups = Choice::new(scheduler, &endpoints, backup)?;
        let stateless = match stateless {
            true => Some(stateless_table(&endpoints)?),
            false => None,
        };
        let schedule = Self {
            endpoints,
            by: match scheduler {
                Scheduler::Sh => By::Client,
                _ => By::ClientAndPort,
            },
            regular,
            backups,
            stateless,
            overflow: Atomic::new(0),
        };
        Ok(Arc::new(schedule, GFP_KERNEL)?)
    }

    /// All endpoints, in the order they were added.
    pub(crate) fn endpoints(&self) -> &[Arc<E>] {
        &self.endpoints
    }

    /// The endpoint for a new connection, `turn` counting those of the service.
    #[inline]
    pub(crate) fn pick(
        &self,
        turn: &Atomic<u32>,
        tuple: &FourTuple,
    ) -> Result<&Arc<E>, NoEndpoint> {
        self.pick_by(turn, &self.overflow, tuple)
    }

    /// The endpoint for a connection without a route, always the same one as long as the endpoints are.
    /// None if there is none that does without, or the schedule is not for that.
    pub(crate) fn pick_by_hash(&self, tuple: &FourTuple) -> Option<&Arc<E>> {
        let index = maglev::pick(self.stateless.as_ref()?, tuple, self.by)?;
        self.endpoints.get(usize::from(index))
    }

    /// The endpoint that a connection would get which there is not: nobody's turn passes.
    pub(crate) fn would_pick(
        &self,
        turn: &Atomic<u32>,
        tuple: &FourTuple,
    ) -> Result<&Arc<E>, NoEndpoint> {
        let copy = |turn: &Atomic<u32>| Atomic::new(turn.load(Relaxed));
        self.pick_by(&copy(turn), &copy(&self.overflow), tuple)
    }

    #[inline]
    fn pick_by(
        &self,
        turn: &Atomic<u32>,
        overflow: &Atomic<u32>,
        tuple: &FourTuple,
    ) -> Result<&Arc<E>, NoEndpoint> {
        self.pick_of(&self.regular, regular, turn, tuple)
            .or_else(|error| self.pick_backup(overflow, tuple, error))
    }

    /// The endpoint for a connection that only a backup can take, for which there is a reason.
    #[cold]
    fn pick_backup(
        &self,
        overflow: &Atomic<u32>,
        tuple: &FourTuple,
        error: NoEndpoint,
    ) -> Result<&Arc<E>, NoEndpoint> {
        self.pick_of(&self.backups, backup, overflow, tuple)
            .map_err(|backups| match (error, backups) {
                (NoEndpoint::Nobody, NoEndpoint::Nobody) => NoEndpoint::Nobody,
                _ => NoEndpoint::Overflow,
            })
    }

    /// Of the endpoints with such a weight, which this is the choice among.
    #[inline]
    fn pick_of(
        &self,
        choice: &Choice,
        weight: impl Fn(&E) -> u32,
        turn: &Atomic<u32>,
        tuple: &FourTuple,
    ) -> Result<&Arc<E>, NoEndpoint> {
        let next = |turns: &[u16]| wrr::pick(turns, turn.fetch_add(1u32, Relaxed));
        match choice {
            Choice::Turns(turns) => self.first(weight, || next(turns)),
            Choice::Hash(table) => {
                let mut slots = maglev::slots(table, tuple, self.by);
                self.first(weight, || slots.next())
            }
            Choice::Order(order) => self.first_of(order),
            Choice::Least(turns) => {
                let one_or_none = |endpoint: &E| weight(endpoint).min(1);
                self.least(next(turns), stepped(one_or_none), 0)
            }
            Choice::WeightedLeast(turns) => self.least(next(turns), stepped(weight), 0),
            Choice::Two(turns) => {
                let mut draw = two::draws(turns, tuple, turn.fetch_add(1u32, Relaxed));
                let one = self.first(&weight, &mut draw)?;
                let other = self.first(&weight, &mut draw)?;
                let weight = stepped(&weight);
                let both = [one, other].into_iter();
                // With the weights that they have now, if they still have any.
                let least = least(both.map(|own| (own, own.load(), weight(own))));
                Ok(least.unwrap_or(one))
            }
            Choice::ShortestDelay { turns, idle } => {
                let first = next(turns);
                let has_nothing =
                    |one: &&Arc<E>| one.is_idle() && one.has_room() && weight(one) > 0;
                match first.filter(|_| *idle) {
                    Some(first) => self.all_from(first).find(has_nothing),
                    None => None,
                }
                .map_or_else(|| self.least(first, stepped(&weight), CONNECTION), Ok)
            }
        }
    }

    /// The first endpoint that has room, of those that `next` names, and then of all with a weight.
    #[inline]
    fn first(
        &self,
        weight: impl Fn(&E) -> u32,
        mut next: impl FnMut() -> Option<u16>,
    ) -> Result<&Arc<E>, NoEndpoint> {
        let mut last = 0;
        for _ in 0..LOOKS {
            last = next().ok_or(NoEndpoint::Nobody)?;
            let endpoint = self.endpoints.get(usize::from(last));
            if let Some(endpoint) = endpoint.filter(|endpoint| endpoint.has_room()) {
                return Ok(endpoint);
            }
        }
        self.all_from(last)
            .find(|endpoint| weight(endpoint) > 0 && endpoint.has_room())
            .ok_or(NoEndpoint::Overflow)
    }

    /// The first endpoint that has room, in this order of all with a weight.
    fn first_of(&self, order: &[u16]) -> Result<&Arc<E>, NoEndpoint> {
        let mut error = NoEndpoint::Nobody;
        for index in order {
            error = NoEndpoint::Overflow;
            let endpoint = self.endpoints.get(usize::from(*index));
            if let Some(endpoint) = endpoint.filter(|endpoint| endpoint.has_room()) {
                return Ok(endpoint);
            }
        }
        Err(error)
    }

    /// The endpoint with the least load for its weight, `more` added to each load, of those with room,
    /// and of several the first from `first` on.
    fn least(
        &self,
        first: Option<u16>,
        weight: impl Fn(&E) -> u32,
        more: u64,
    ) -> Result<&Arc<E>, NoEndpoint> {
        let all = self.all_from(first.ok_or(NoEndpoint::Nobody)?);
        let with_room = all.filter(|endpoint| endpoint.has_room());
        let load = |endpoint: &E| endpoint.load().saturating_add(more);
        least(with_room.map(|endpoint| (endpoint, load(endpoint), weight(endpoint))))
            .ok_or(NoEndpoint::Overflow)
    }

    /// All endpoints, beginning with number `first`.
    fn all_from(&self, first: u16) -> impl Iterator<Item = &Arc<E>> {
        let (before, from) = self
            .endpoints
            .split_at_checked(usize::from(first))
            .unwrap_or_default();
        Iterator::chain(from.iter(), before)
    }
}

/// Such a weight, as much as counts of it.
fn stepped<E: Candidate>(weight: impl Fn(&E) -> u32) -> impl Fn(&E) -> u32 {
    move |endpoint| weight(endpoint).saturating_mul(endpoint.step())
}

/// The weight of an endpoint that is no backup.
fn regular<E: Candidate>(endpoint: &E) -> u32 {
    if endpoint.is_backup() {
        0
    } else {
        endpoint.share()
    }
}

/// The weight of a backup endpoint.
fn backup<E: Candidate>(endpoint: &E) -> u32 {
    if endpoint.is_backup() {
        endpoint.share()
    } else {
        0
    }
}

impl Choice {
    /// The choice among endpoints with such a weight.
    fn new<E: Candidate>(
        scheduler: Scheduler,
        endpoints: &[Arc<E>],
        weight: impl Fn(&E) -> u32,
    ) -> Result<Self> {
        // What is the same for all is left out, for shares are exact only where numbers are small.
        let steps = endpoints.iter().any(|endpoint| endpoint.step() < STEPS);
        let counts = |weight: u32, endpoint: &E| match steps {
            true => weight.saturating_mul(endpoint.step()),
            false => weight,
        };
        let one_or_none = |endpoint: &E| counts(weight(endpoint).min(1), endpoint);
        let weight = |endpoint: &E| counts(weight(endpoint), endpoint);
        Ok(match scheduler {
            Scheduler::Wrr => Self::Turns(turns(endpoints, |one| weight(one))?),
            Scheduler::Rr => Self::Turns(turns(endpoints, |one| one_or_none(one))?),
            Scheduler::Lc => Self::Least(turns(endpoints, |one| one_or_none(one))?),
            Scheduler::Wlc => Self::WeightedLeast(turns(endpoints, |one| weight(one))?),
            Scheduler::Mh | Scheduler::Sh => Self::Hash(hash_table(endpoints, weight)?),
            Scheduler::Sed | Scheduler::Nq => Self::ShortestDelay {
                turns: turns(endpoints, |one| weight(one))?,
                idle: scheduler == Scheduler::Nq,
            },
            Scheduler::Fo => Self::Order(order(endpoints, weight)?),
            Scheduler::Twos => Self::Two(turns(endpoints, |one| weight(one))?),
        })
    }
}

/// Whether services with this scheduler have a table of slots.
pub(crate) const fn has_slots(scheduler: Scheduler) -> bool {
    matches!(scheduler, Scheduler::Mh | Scheduler::Sh)
}

/// The indices of those with a weight, the heaviest first, and equals in the order they were added.
fn order<E>(endpoints: &[Arc<E>], weight: impl Fn(&E) -> u32) -> Result<KVec<u16>> {
    // What is missing to the greatest weight there can be, and the index behind it.
    let mut keys = KVec::with_capacity(endpoints.len(), GFP_KERNEL)?;
    for (index, endpoint) in endpoints.iter().enumerate() {
        let index = u16::try_from(index).map_err(|_| E2BIG)?;
        let missing = u32::MAX.saturating_sub(weight(endpoint));
        if missing < u32::MAX {
            keys.push(u64::from(missing) << 16 | u64::from(index), GFP_KERNEL)?;
        }
    }
    keys.sort_unstable();
    let mut order = KVec::with_capacity(keys.len(), GFP_KERNEL)?;
    for key in keys.iter() {
        // CAST: The index.
        order.push(*key as u16, GFP_KERNEL)?;
    }
    Ok(order)
}

/// Lays out one round of these by their weights, with their indices. Empty if nobody has any. `E2BIG`
/// if there are too many, `ENOMEM`.
pub(crate) fn turns<T>(all: &[T], weight: impl Fn(&T) -> u32) -> Result<KVec<u16>> {
    let mut shares = KVec::with_capacity(all.len(), GFP_KERNEL)?;
    let mut total = 0u32;
    for one in all {
        let weight = weight(one);
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

/// Divides the space of hashes among the endpoints that do without routes: by their weights, or those of
/// backups if nobody else has any.
fn stateless_table<E: Candidate>(endpoints: &[Arc<E>]) -> Result<VVec<u16>> {
    let of = |weight: fn(&E) -> u32| {
        hash_table(endpoints, |endpoint| match endpoint.does_without_routes() {
            true => weight(endpoint),
            false => 0,
        })
    };
    let table = of(regular)?;
    if table.is_empty() {
        return of(backup);
    }
    Ok(table)
}

/// Divides the space of hashes by the weights. Empty if nobody has any.
fn hash_table<E: Candidate>(endpoints: &[Arc<E>], weight: impl Fn(&E) -> u32) -> Result<VVec<u16>> {
    let mut entries = KVec::with_capacity(endpoints.len(), GFP_KERNEL)?;
    let mut nobody = true;
    for (index, endpoint) in endpoints.iter().enumerate() {
        let index = u16::try_from(index).map_err(|_| E2BIG)?;
        let share = weight(endpoint);
        nobody &= share == 0;
        let Place { host, port } = endpoint.place();
        let entry = maglev::Entry::new(index, (host, port), share);
        entries.push(entry, GFP_KERNEL)?;
    }
    let mut table = VVec::new();
    if !nobody {
        table.resize(maglev::SLOTS, 0u16, GFP_KERNEL)?;
        maglev::fill(&mut entries, &mut table).map_err(|_| EINVAL)?;
    }
    Ok(table)
}
