// SPDX-License-Identifier: GPL-2.0

//! Connections that have moved on from this host to another one.
//!
//! Their packets still come here, by the flow ids of forwarders that do not know of it, and are sent on:
//! this machine is the forwarder of a mapping of its own to the other host. Meanwhile each of the forwarders
//! is told, by MOVED, until it says GONE: then it sends to the other host by itself, and this machine may go.
//! How it finds out that the host has the connection is in [`reroute`](crate::reroute).

use crate::{
    control,
    icmp,
    mapping::host::{
        HostKey,
        HostMapping, //
    },
    state::Tunnel,
    stats::Counter, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        rcu,
        Arc, //
    },
};
use nlb::{
    net::{
        ip::Route,
        netfilter::{
            HookState,
            Verdict, //
        },
        skbuff::{
            DropReason,
            SkBuff, //
        },
        Net, //
    },
    random::Secret,
    sync::{
        family_table::FamilyTable,
        read_once, //
    },
    time,
    wire::{
        addr::{
            Addr,
            FourTuple, //
        },
        flow_id::FlowId, //
    },
};

/// Seconds between the first two MOVED for a mapping, each time twice as long, and at most.
const FIRST_SECS: u64 = 1;
const DOUBLINGS: u32 = 6;

/// Seconds without a packet after which a relay goes, and the same where nobody will say the end of its
/// connection: as `MIGRATION_WATCHED` and `MIGRATION_UNWATCHED` of `nlb_fwd`.
const WATCHED_SECS: u64 = 5 * 24 * 3600;
const UNWATCHED_SECS: u64 = (2 * 60 + 4) * 60;

/// Where a forwarder has been told that a connection has moved on: part of its mapping.
pub(crate) struct Told {
    /// The relay that it was told of.
    number: Atomic<u64>,
    /// When it is told again, in jiffies.
    next: Atomic<u64>,
    times: Atomic<u32>,
}

/// As a number of times: the forwarder says that it sends elsewhere.
const GONE: u32 = u32::MAX;

impl Told {
    /// It was not.
    pub(crate) const fn new() -> Self {
        Self {
            number: Atomic::new(0),
            next: Atomic::new(0),
            times: Atomic::new(0),
        }
    }

    /// Whether it is to be told of the relay with this number at `now` (jiffies); then it counts as told.
    fn is_due(&self, number: u64, now: u64) -> bool {
        if self.number.load(Relaxed) != number {
            self.number.store(number, Relaxed);
            if !self.is_gone() {
                self.forget();
            }
        }
        let times = self.times.load(Relaxed);
        if times == GONE || now < self.next.load(Relaxed) {
            return false;
        }
        let after = times.saturating_add(1).min(DOUBLINGS.saturating_add(1));
        // Or it has said so just now.
        if self.times.cmpxchg(times, after, Relaxed).is_err() {
            return false;
        }
        let secs = FIRST_SECS << times.min(DOUBLINGS);
        self.next
            .store(now.saturating_add(secs.saturating_mul(time::HZ)), Relaxed);
        true
    }

    /// It sends elsewhere.
    pub(crate) fn gone(&self) {
        self.times.store(GONE, Relaxed);
    }

    /// Whether it does.
    pub(crate) fn is_gone(&self) -> bool {
        self.times.load(Relaxed) == GONE
    }

    /// It sends here, and may be told again.
    pub(crate) fn forget(&self) {
        if self.times.load(Relaxed) != 0 {
            self.next.store(0, Relaxed);
            self.times.store(0, Relaxed);
        }
    }
}

/// A connection that has moved on, or is about to.
pub(crate) struct Relay {
    /// The other host.
    host: Addr,
    /// What its mapping is found by.
    flow_id: FlowId,
    /// Whether that is given back with the relay.
    owns: bool,
    /// When the last packet was sent on, in jiffies.
    used: Atomic<u64>,
    /// The mapping by which its packets came here when it moved; of several, one.
    by: HostKey,
    /// How many relays there have been with this one.
    number: u64,
    /// The other host has the connection.
    settled: Atomic<bool>,
    /// Nobody will say when it has ended there.
    unwatched: Atomic<bool>,
}

impl Relay {
    /// The other host.
    pub(crate) fn host(&self) -> Addr {
        self.host
    }

    fn is_settled(&self) -> bool {
        self.settled.load(Relaxed)
    }

    fn is_expired(&self, now: u64) -> bool {
        let idle = now.saturating_sub(self.used.load(Relaxed));
        let secs = match self.unwatched.load(Relaxed) {
            true => UNWATCHED_SECS,
            false => WATCHED_SECS,
        };
        idle > secs.saturating_mul(time::HZ)
    }
}

/// The relays of a namespace.
#[pin_data]
pub(crate) struct Relays {
    #[pin]
    table: FamilyTable<FourTuple, Arc<Relay>>,
    made: Atomic<u64>,
    cookies: Secret,
}

impl Relays {
    /// None, of up to `max`.
    pub(crate) fn new(max: u32) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            table <- FamilyTable::new(max),
            made: Atomic::new(0),
            cookies: Secret::new(),
        })
    }

    /// Whether there are none.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// How many have been made so far.
    pub(crate) fn made(&self) -> u64 {
        self.made.load(Relaxed)
    }

    /// Where packets of a connection have to be sent on to, that came by a mapping which was made when there
    /// had been `born` relays.
    ///
    /// By a younger mapping than the relay the connection comes back. What is sent on by both machines
    /// would go round and round.
    #[inline]
    pub(crate) fn of<'a>(
        &'a self,
        guard: &'a rcu::Guard,
        tuple: &FourTuple,
        born: u64,
    ) -> Option<&'a Arc<Relay>> {
        if self.is_empty() {
            return None;
        }
        self.table
            .get(guard, tuple)
            .filter(|relay| born < relay.number)
    }

    /// The number by which a GONE for a mapping is known to come from who was told.
    fn cookie(&self, key: &HostKey) -> u64 {
        let [a, b, c, d] = key.forwarder.words();
        let addr = u64::from(a ^ b ^ c ^ d);
        self.cookies
            .number(u64::from(key.flow_id.value()) << 32 | addr)
    }
}

impl Tunnel {
    /// Sends packets of a connection that come here out of the tunnel on to the host of a flow id, which the relay
    /// may own from now on. `ENOENT` if none come so, or there is no such flow id; `EEXIST`, `ENOSPC`, `ENOMEM`.
    /// Process context.
    pub(crate) fn relay(&self, tuple: &FourTuple, flow_id: FlowId, owns: bool) -> Result {
        let by = self.mapping_of(tuple).ok_or(ENOENT)?;
        let host = {
            let guard = rcu::read_lock();
            let mapping = self.flows.get(&guard, flow_id).ok_or(ENOENT)?;
            mapping.target().host()
        };
        let number = self.relays.made.fetch_add(1u64, Relaxed).wrapping_add(1);
        let relay = Arc::new(
            Relay {
                host,
                flow_id,
                owns,
                used: Atomic::new(time::jiffies()),
                by,
                number,
                settled: Atomic::new(false),
                unwatched: Atomic::new(false),
            },
            GFP_KERNEL,
        )?;
        Ok(self.relays.table.insert(tuple, relay, GFP_KERNEL)?)
    }

    /// The relay of a connection by this flow id of ours.
    fn relay_by(&self, tuple: &FourTuple, flow_id: FlowId) -> Option<Arc<Relay>> {
        self.relays
            .table
            .get(&rcu::read_lock(), tuple)
            .filter(|relay| relay.flow_id == flow_id)
            .cloned()
    }

    /// The connection of a relay lives at the other host: who sends here is told. Process context.
    pub(crate) fn settle_relay(&self, net: &Net, tuple: &FourTuple, flow_id: FlowId) {
        let Some(relay) = self.relay_by(tuple, flow_id) else {
            return;
        };
        relay.settled.store(true, Relaxed);
        let guard = rcu::read_lock();
        if let Some(mapping) = self.hosts.get(&guard, &relay.by) {
            self.tell_moved(net, mapping, &guard, time::jiffies());
        }
    }

    /// Nobody will say when the connection has ended: the relay goes when no packet has come for long.
    pub(crate) fn unwatch_relay(&self, tuple: &FourTuple, flow_id: FlowId) {
        if let Some(relay) = self.relay_by(tuple, flow_id) {
            relay.unwatched.store(true, Relaxed);
        }
    }

    /// Packets of the connection stay here, or the connection has ended. Gives the flow id back that is owned.
    /// Does nothing if the relay is another one.
    pub(crate) fn end_relay(&self, net: &Net, tuple: &FourTuple, flow_id: FlowId) {
        self.end_relay_if(net, tuple, |relay| relay.flow_id == flow_id);
    }

    /// As [`Tunnel::end_relay`], of one that leads to `host`.
    pub(crate) fn end_relay_to(&self, net: &Net, tuple: &FourTuple, host: Addr) {
        self.end_relay_if(net, tuple, |relay| relay.host() == host);
    }

    fn end_relay_if(&self, net: &Net, tuple: &FourTuple, fits: impl Fn(&Relay) -> bool) {
        let guard = rcu::read_lock();
        let Some(relay) = self.relays.table.get(&guard, tuple) else {
            return;
        };
        let this = |other: &Arc<Relay>| Arc::ptr_eq(other, relay);
        if fits(relay) && self.relays.table.remove_if(tuple, this) {
            self.give_back(net, relay, &guard);
        }
    }

    fn give_back(&self, net: &Net, relay: &Relay, guard: &rcu::Guard) {
        if let Some(mapping) = self.flows.get(guard, relay.flow_id).filter(|_| relay.owns) {
            self.release(net, mapping);
        }
    }

    /// Where the packets of a connection are sent on to.
    pub(crate) fn relayed_to(&self, tuple: &FourTuple) -> Option<Addr> {
        let guard = rcu::read_lock();
        self.relays.table.get(&guard, tuple).map(|r| r.host())
    }

    /// Where packets that come by a mapping are sent on to, until its forwarder knows better.
    pub(crate) fn moved_to(&self, mapping: &HostMapping) -> Option<Addr> {
        let guard = rcu::read_lock();
        let relay = self.relays.of(&guard, mapping.tuple(), mapping.born())?;
        (relay.is_settled() && !mapping.told.is_gone()).then(|| relay.host())
    }

    /// Ends relays that are idle. Process context.
    pub(crate) fn expire_relays(&self, net: &Net) {
        if self.relays.is_empty() {
            return;
        }
        let now = time::jiffies();
        self.relays.table.retain(|relay| {
            let expired = relay.is_expired(now);
            if expired {
                self.give_back(net, relay, &rcu::read_lock());
            }
            !expired
        });
    }

    /// Sends a packet of a client, or an ICMP error about a reply to it, on to where its connection is. Its
    /// data starts at its IP header.
    #[cold]
    pub(crate) fn send_on(&self, state: &HookState<'_>, mut skb: SkBuff, relay: &Relay) -> Verdict {
        let Some(mapping) = self.flows.get(state.rcu(), relay.flow_id) else {
            // The route was taken away that has owned it.
            return self.drop(skb, Counter::DropNoRoute, DropReason::IP_OUTNOROUTES);
        };
        relay.used.store(time::jiffies(), Relaxed);
        if let Some(parsed) = crate::decap::parse(&mut skb) {
            self.stats.inc(Counter::RelayPackets);
            self.send(state, mapping, skb, &parsed);
            return Verdict::Stolen;
        }
        match icmp::parse(&mut skb) {
            Some(report) => self.carry(state, mapping, skb, &report),
            None => return self.drop(skb, Counter::DropInput, DropReason::IP_INHDR),
        }
        Verdict::Stolen
    }

    /// Tells a forwarder that the connection of a mapping has moved on, if it has, and is due.
    pub(crate) fn tell_moved(
        &self,
        net: &Net,
        mapping: &HostMapping,
        guard: &rcu::Guard,
        now: u64,
    ) {
        let Some(relay) = self
            .relays
            .of(guard, mapping.tuple(), mapping.born())
            .filter(|relay| relay.is_settled())
        else {
            return;
        };
        if !mapping.told.is_due(relay.number, now) {
            return;
        }
        let key = mapping.key();
        let cookie = self.relays.cookie(&key);
        let sent = Route::lookup(net, mapping.local(), key.forwarder)
            .and_then(|route| control::send_moved(net, route, key.flow_id, cookie, relay.host()));
        if sent.is_ok() {
            self.stats.inc(Counter::MovedSent);
        }
    }

    /// A forwarder says that it sends nothing more by this mapping. Whether it was asked.
    pub(crate) fn receive_gone(&self, state: &HookState<'_>, key: &HostKey, cookie: u64) -> bool {
        let guard = state.rcu();
        let Some(mapping) = self.hosts.get(guard, key) else {
            return false;
        };
        let moved = self
            .relays
            .of(guard, mapping.tuple(), mapping.born())
            .is_some_and(|relay| relay.is_settled());
        if !moved || self.relays.cookie(key) != cookie || read_once(&mapping.told.times) == 0 {
            return false;
        }
        self.stats.inc(Counter::GoneReceived);
        mapping.told.gone();
        true
    }
}

#[kunit_tests(nlb_tunnel_relay)]
mod tests {
    use super::*;

    #[test]
    fn forwarders_are_told_less_and_less_often() {
        let told = Told::new();
        let begin = time::jiffies();
        let mut times = 0;
        // Ten minutes.
        for tick in 0..600 {
            times += u32::from(told.is_due(1, begin + tick * time::HZ));
        }
        // Of the next relay at once.
        assert!(told.is_due(2, begin + 600 * time::HZ));
        // After 0, 1, 3, 7, 15, 31, 63 seconds, and each 64 seconds from then on.
        assert_eq!(times, 7 + (599 - 63) / 64);
        assert!(!told.is_gone());
    }

    #[test]
    fn who_sends_elsewhere_is_told_no_more() {
        let told = Told::new();
        assert!(told.is_due(1, 1));
        told.gone();
        assert!(told.is_gone() && !told.is_due(1, u64::MAX) && !told.is_due(2, u64::MAX));
        told.forget();
        assert!(!told.is_gone() && told.is_due(2, 1));
    }
}
