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
    random::{
        self,
        Secret, //
    },
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
        control::Learn,
        flow_id::FlowId,
        tcp::Flags, //
    },
};

/// A connection on its way to a host: part of an object that has more to say about it.
///
/// In the flow-id tunnel, a flow id stands for it. Other ways need none.
pub struct Mapping {
    tuple: FourTuple,
    target: Arc<Target>,
    usage: Usage,
    /// Value of the flow id; 0 as long as there is none, [`CLAIMED`] while it gets one.
    flow_id: Atomic<u32>,
    confirmed: Atomic<bool>,
    /// Whether a SYN of the client has gone to the host in a LEARN.
    opened: Atomic<bool>,
}

/// No flow id has this value.
const CLAIMED: u32 = 1;

impl Mapping {
    /// A connection that has no flow id, and needs none but in the tunnel: see [`check_family`].
    #[inline(always)]
    pub fn plain(tuple: &FourTuple, target: &Arc<Target>) -> Self {
        Self {
            tuple: *tuple,
            target: target.clone(),
            usage: Usage::new(),
            flow_id: Atomic::new(0),
            confirmed: Atomic::new(false),
            opened: Atomic::new(false),
        }
    }

    /// Another one with the flow id of this one, to take its place.
    pub fn heir(&self) -> Self {
        Self {
            confirmed: Atomic::new(self.is_confirmed()),
            opened: Atomic::new(read_once(&self.opened)),
            ..self.heir_to(&self.target)
        }
    }

    /// As [`Mapping::heir`], of a connection that another host says it has now, and confirms the mapping.
    pub fn heir_to(&self, target: &Arc<Target>) -> Self {
        Self {
            flow_id: Atomic::new(read_once(&self.flow_id)),
            confirmed: Atomic::new(true),
            ..Self::plain(&self.tuple, target)
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

    /// Whether the host knows the mapping, so that packets carry the flow id alone.
    #[inline]
    pub fn is_confirmed(&self) -> bool {
        read_once(&self.confirmed)
    }

    /// Notes that a packet of the client goes to the host in a LEARN.
    #[inline]
    pub(crate) fn sent_learning(&self, flags: Flags) {
        if flags.is_initial_syn() {
            self.opened.store(true, Relaxed);
        }
    }

    /// Whether a packet of the client with these control bits says that the host knows the mapping: it
    /// acknowledges what the host has answered to the SYN that was in a LEARN.
    #[inline]
    pub(crate) fn is_answered(&self, flags: Flags) -> bool {
        flags.contains(Flags::ACK)
            && !flags.contains(Flags::SYN)
            && !flags.contains(Flags::RST)
            && read_once(&self.opened)
    }

    /// Packets and bytes sent so far; idle since the mapping was made, if none were.
    #[inline]
    pub fn usage(&self) -> &Usage {
        &self.usage
    }
}

/// Whether the packets of a connection can go to the host in the tunnel. `EAFNOSUPPORT` if that is of
/// another family.
#[inline]
pub fn check_family(tuple: &FourTuple, target: &Target) -> Result {
    match tuple.is_v4() == target.host().is_v4() {
        true => Ok(()),
        false => Err(EAFNOSUPPORT.into()),
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
    cookies: Secret,
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
            cookies: Secret::new(),
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

    /// What the host is to learn of a mapping. `None` if that has no flow id.
    #[inline]
    pub(crate) fn learn(&self, mapping: &Mapping) -> Option<Learn> {
        let (flow_id, tuple) = (mapping.flow_id()?, *mapping.tuple());
        // A flow id is for long another connection's; the rest makes its next owner's number another one.
        let ports = u32::from(tuple.client_port()) << 16 | u32::from(tuple.vip_port());
        let word = u64::from(flow_id.value()) << 32 | u64::from(ports);
        Some(Learn {
            flow_id,
            cookie: self.cookies.number(word),
            tuple,
        })
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
    /// [`check_family`] and [`Tunnel::assign`].
    pub(crate) fn allocate(
        &self,
        net: &Net,
        tuple: &FourTuple,
        target: &Arc<Target>,
    ) -> Result<PartRef<Mapping>> {
        check_family(tuple, target)?;
        let mapping = Mapping::plain(tuple, target);
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

    /// A host at `from` says to our address `here` that it knows the mapping of a LEARN, or that it has the
    /// connection of an ASK. Whether there is such a mapping.
    pub(crate) fn confirm(
        &self,
        state: &HookState<'_>,
        flow_id: FlowId,
        cookie: u64,
        from: Addr,
        here: Addr,
    ) -> bool {
        let Some(mapping) = self.flows.get(state.rcu(), flow_id).filter(|mapping| {
            let learn = self.flows.learn(mapping);
            learn.is_some_and(|learn| learn.cookie == cookie)
        }) else {
            return false;
        };
        if !mapping.target.is_between(here, from) {
            return self.reroutes.answered(flow_id, from);
        }
        self.stats.inc(Counter::ConfirmReceived);
        confirmed(state, mapping);
        true
    }

    /// Whether the host knows a mapping, or a packet of the client with these control bits says so.
    #[inline]
    pub(crate) fn is_known(&self, state: &HookState<'_>, mapping: &Mapping, flags: Flags) -> bool {
        if mapping.is_confirmed() {
            return true;
        }
        let answered = mapping.is_answered(flags);
        if answered {
            self.stats.inc(Counter::ConfirmImplied);
            confirmed(state, mapping);
        }
        answered
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
        // Nor does what the client acknowledges say anything of it any more.
        mapping.opened.store(false, Relaxed);
        if mapping.confirmed.xchg(false, Full) {
            netlink::notify_mapping(state.net(), cmd::MAPPING_NTF, mapping);
        }
        true
    }
}

/// Notes that the host knows a mapping.
fn confirmed(state: &HookState<'_>, mapping: &Mapping) {
    if !mapping.confirmed.xchg(true, Full) {
        netlink::notify_mapping(state.net(), cmd::MAPPING_NTF, mapping);
    }
}
