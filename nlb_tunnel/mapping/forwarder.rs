// SPDX-License-Identifier: GPL-2.0

//! The forwarder's side: flow ids given to connections.

use super::Usage;
use crate::{
    netlink,
    state::Tunnel,
    stats::Counter,
    target::Target,
    uapi::cmd, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        rcu,
        Arc, //
    },
};
use nlb::{
    errno::EAFNOSUPPORT,
    net::{
        netfilter::HookState,
        Net, //
    },
    random,
    sync::{
        id_table::IdTable,
        object::{
            Object,
            ObjectRef,
            PartRef, //
        },
        read_once,
        rhashtable::{
            Position,
            Scan, //
        }, //
    },
    wire::{
        addr::{
            Addr,
            FourTuple, //
        },
        flow_id::FlowId, //
    },
};

/// A connection on its way to a host: part of an object that has more to say about it.
///
/// In the flow-id tunnel, a flow id stands for it. Other ways need none.
pub struct Mapping {
    tuple: FourTuple,
    target: Arc<Target>,
    /// The random number that a CONFIRM has to repeat.
    cookie: u64,
    usage: Usage,
    /// Value of the flow id; 0 as long as there is none, [`CLAIMED`] while it gets one.
    flow_id: Atomic<u32>,
    confirmed: Atomic<bool>,
}

/// No flow id has this value.
const CLAIMED: u32 = 1;

impl Mapping {
    fn with(tuple: &FourTuple, target: &Arc<Target>, cookie: u64) -> Self {
        Self {
            tuple: *tuple,
            target: target.clone(),
            cookie,
            usage: Usage::new(),
            flow_id: Atomic::new(0),
            confirmed: Atomic::new(false),
        }
    }

    /// A connection that needs no flow id.
    pub fn plain(tuple: &FourTuple, target: &Arc<Target>) -> Self {
        Self::with(tuple, target, 0)
    }

    /// A connection that shall go into the tunnel, whose host is to learn the flow id.
    /// `EAFNOSUPPORT` if the host is of another family.
    pub fn tunnelled(tuple: &FourTuple, target: &Arc<Target>) -> Result<Self> {
        if tuple.is_v4() != target.host().is_v4() {
            return Err(EAFNOSUPPORT.into());
        }
        Ok(Self::with(tuple, target, random::u64()))
    }

    /// Another one with the flow id of this one, to take its place.
    pub fn heir(&self) -> Self {
        Self {
            flow_id: Atomic::new(read_once(&self.flow_id)),
            confirmed: Atomic::new(self.is_confirmed()),
            ..Self::with(&self.tuple, &self.target, self.cookie)
        }
    }

    /// The flow id, if there is one.
    #[inline]
    pub fn flow_id(&self) -> Option<FlowId> {
        FlowId::new(read_once(&self.flow_id))
    }

    /// The connection.
    #[inline]
    pub fn tuple(&self) -> &FourTuple {
        &self.tuple
    }

    /// The way to the host.
    #[inline]
    pub fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// The random number that a CONFIRM has to repeat.
    pub(crate) fn cookie(&self) -> u64 {
        self.cookie
    }

    /// Whether the host knows the mapping, so that packets carry the flow id alone.
    #[inline]
    pub fn is_confirmed(&self) -> bool {
        read_once(&self.confirmed)
    }

    /// Packets and bytes sent so far; idle since the mapping was made, if none were.
    #[inline]
    pub fn usage(&self) -> &Usage {
        &self.usage
    }
}

/// A mapping of which there is nothing more to say.
struct Alone(Mapping);

impl Object for Alone {
    type Key = FourTuple;
    type Part = Mapping;

    fn key(&self) -> &FourTuple {
        self.0.tuple()
    }

    fn part(&self) -> &Mapping {
        &self.0
    }
}

/// The flow ids of a namespace, and what they stand for.
///
/// Each has a place that it shares with others, of which one at a time is given. Places are given in
/// turn, and in each turn all stand for other flow ids. A fourth of `max` places, or more, is always
/// free, so that each turn gives as many: a flow id does not come back before 25 million others
/// were given (of 297 million, [`FlowId::COUNT`]), be the table ever so full.
#[pin_data]
pub(crate) struct Flows {
    #[pin]
    table: IdTable<Mapping>,
    /// Bits of a flow id's number that say its place.
    bits: u32,
    /// The first turn is any, so that ids from before a reboot are not met again at once.
    first_turn: u32,
}

/// Places for up to `max` mappings.
fn places(max: u32) -> u32 {
    max.saturating_add(max.div_ceil(4))
}

impl Flows {
    /// None for up to `max` mappings, at most 2^24.
    pub(crate) fn new(max: u32) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            table <- IdTable::new(max, places(max), random::u32()),
            bits: u32::BITS.saturating_sub(places(max).saturating_sub(1).leading_zeros()),
            first_turn: random::u32(),
        })
    }

    /// The flow id of a place in its `turn`.
    fn flow_id(&self, place: u32, turn: u32) -> FlowId {
        let turns = FlowId::COUNT >> self.bits;
        let turn = self
            .first_turn
            .wrapping_add(turn)
            .checked_rem(turns)
            .unwrap_or(0);
        FlowId::nth(turn << self.bits | place)
    }

    fn place(&self, flow_id: FlowId) -> u32 {
        flow_id.number() & !(u32::MAX << self.bits)
    }

    /// The mapping of a flow id that was given here.
    pub(crate) fn get<'a>(&'a self, guard: &'a rcu::Guard, flow_id: FlowId) -> Option<&'a Mapping> {
        self.table
            .get(guard, self.place(flow_id))
            .filter(|mapping| mapping.flow_id() == Some(flow_id))
    }

    /// As [`IdTable::generation`].
    pub(crate) fn generation(&self) -> u64 {
        self.table.generation()
    }

    /// As [`IdTable::scan`], of those whose flow ids are known already.
    pub(crate) fn scan(
        &self,
        guard: &rcu::Guard,
        position: &mut Position,
        mut f: impl FnMut(&Mapping) -> Scan,
    ) -> bool {
        self.table.scan(guard, position, |mapping| {
            if mapping.flow_id().is_none() {
                return Scan::Continue;
            }
            f(mapping)
        })
    }
}

impl Tunnel {
    /// Gives a free flow id to an object's mapping. `ENOSPC` if there are too many, `ENOMEM`; `EINVAL`
    /// if it has one, or had. Any context.
    pub(crate) fn assign<T: Object<Part = Mapping>>(
        &self,
        net: &Net,
        object: &ObjectRef<T>,
    ) -> Result {
        let flows = &self.flows;
        let flow_id = &object.part().flow_id;
        if flow_id.cmpxchg(0, CLAIMED, Relaxed).is_err() {
            return Err(EINVAL);
        }
        flows
            .table
            .insert(object.to_part(), |mapping, place, turn| {
                let flow_id = flows.flow_id(place, turn);
                mapping.flow_id.store(flow_id.value(), Relaxed);
            })
            .inspect_err(|_| flow_id.store(0, Relaxed))?;
        netlink::notify_mapping(net, cmd::MAPPING_NTF, object.part());
        Ok(())
    }

    /// Makes a mapping that stands alone, whose host has it already. Errors as
    /// [`Mapping::tunnelled`] and [`Tunnel::assign`].
    pub(crate) fn allocate(
        &self,
        net: &Net,
        tuple: &FourTuple,
        target: &Arc<Target>,
    ) -> Result<PartRef<Mapping>> {
        let mapping = Mapping::tunnelled(tuple, target)?;
        mapping.confirmed.store(true, Relaxed);
        let mapping = ObjectRef::new(Alone(mapping), GFP_ATOMIC)?;
        self.assign(net, &mapping)?;
        Ok(mapping.to_part())
    }

    /// Puts an heir of a mapping in its place. Whether that was there. Any context.
    pub(crate) fn replace(&self, mapping: &Mapping, heir: PartRef<Mapping>) -> bool {
        mapping.flow_id().is_some_and(|flow_id| {
            let place = self.flows.place(flow_id);
            self.flows.table.replace(place, mapping, heir)
        })
    }

    /// Gives a flow id back. Does nothing if that was done before, or there is none.
    pub(crate) fn release(&self, net: &Net, mapping: &Mapping) {
        let Some(flow_id) = mapping.flow_id() else {
            return;
        };
        if self.flows.table.remove(self.flows.place(flow_id), mapping) {
            netlink::notify_mapping(net, cmd::MAPPING_DEL_NTF, mapping);
        }
    }

    /// A host at `from` says to our address `here` that it knows the mapping of a LEARN. Whether
    /// there is such a mapping.
    pub(crate) fn confirm(
        &self,
        state: &HookState<'_>,
        flow_id: FlowId,
        cookie: u64,
        from: Addr,
        here: Addr,
    ) -> bool {
        let Some(mapping) = self
            .flows
            .get(state.rcu(), flow_id)
            .filter(|mapping| mapping.target.is_between(here, from) && mapping.cookie == cookie)
        else {
            return false;
        };
        self.stats.inc(Counter::ConfirmReceived);
        if !mapping.confirmed.xchg(true, Full) {
            netlink::notify_mapping(state.net(), cmd::MAPPING_NTF, mapping);
        }
        true
    }

    /// A host at `from` says to our address `here` that it does not know a flow id. Whether there
    /// is such a mapping.
    pub(crate) fn unlearn(
        &self,
        state: &HookState<'_>,
        flow_id: FlowId,
        from: Addr,
        here: Addr,
    ) -> bool {
        let Some(mapping) = self
            .flows
            .get(state.rcu(), flow_id)
            .filter(|mapping| mapping.target.is_between(here, from))
        else {
            return false;
        };
        self.stats.inc(Counter::UnknownReceived);
        if mapping.confirmed.xchg(false, Full) {
            netlink::notify_mapping(state.net(), cmd::MAPPING_NTF, mapping);
        }
        true
    }
}
