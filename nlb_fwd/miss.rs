// SPDX-License-Identifier: GPL-2.0

//! Misses: packets from the middle of connections that have no route here.
//!
//! Another machine may know the connection: the one that it came by until now, or the host that it
//! was migrated to. So user space is asked, and packets wait for the answer, within bounds. Then
//! they arrive once more. A route that is made for the connection is an answer, too.

use crate::{
    netlink,
    route::Route,
    service::Service,
    state::{
        Forwarder,
        STATE, //
    },
    stats::{
        Counter,
        Stats, //
    },
    uapi::{
        MissState,
        RouteOrigin, //
    },
};
use kernel::{
    prelude::*,
    sync::{
        rcu,
        Arc, //
    },
};
use nlb::{
    net::{
        netdevice::NetDevice,
        netfilter::{
            HeldPacket,
            HeldQueue,
            HeldTotal,
            HookState,
            Room,
            Verdict, //
        },
        netns::WeakNet,
        skbuff::{
            DropReason,
            SkBuff, //
        },
        tcp::tuple_in_use,
        Net, //
    },
    sync::{
        family_table::FamilyTable,
        lock::SpinLockBh,
        rhashtable::{
            InsertError,
            Position,
            Scan, //
        },
    },
    time,
    wire::{
        addr::{
            FourTuple,
            Proto, //
        },
        parse::Parsed, //
    },
    work::{
        DelayedWork,
        Trigger, //
    },
};

/// Connections that a namespace asks about at a time, or remembers the answer for.
const MAX_MISSES: u32 = 4096;
/// What may wait.
const ROOM: Room = Room {
    packets: 16,
    bytes: 256 << 10,
    total: 4 << 20,
};
/// For how long an answer holds. By then a connection that nobody knows has been reset.
const MEMORY_MS: u32 = 10_000;
/// How often is looked whose time is over.
const INTERVAL_MS: u32 = 50;

/// What becomes of a connection's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// What user space knows, too.
    Is(MissState),
    /// They have a route, and this is on its way out of the table.
    Routed,
}

struct Waiting {
    fate: Fate,
    held: HeldQueue,
    /// When it was asked or answered, in jiffies.
    since: u64,
}

/// A connection that is asked about.
#[pin_data]
pub(crate) struct Miss {
    tuple: FourTuple,
    /// Jiffies for which an answer is waited for.
    timeout: u64,
    #[pin]
    waiting: SpinLockBh<Waiting>,
}

/// How a miss is, for user space.
pub(crate) struct Shown {
    pub(crate) state: MissState,
    pub(crate) held: u32,
    pub(crate) age_ms: u64,
}

/// What becomes of one packet.
enum Taken {
    /// It waits.
    Held,
    /// It goes on its way without us.
    Pass(SkBuff),
    /// It is dropped.
    Dropped(SkBuff),
    /// There is a route.
    Routed(SkBuff),
}

impl Miss {
    fn new(tuple: &FourTuple, timeout: u64) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                tuple: *tuple,
                timeout,
                waiting <- nlb::new_spinlock_bh!(
                    Waiting {
                        fate: Fate::Is(MissState::Asked),
                        held: HeldQueue::new(),
                        since: time::jiffies(),
                    },
                    "nlb_fwd::Miss"
                ),
            }),
            GFP_ATOMIC,
        )
    }

    /// The connection.
    pub(crate) fn tuple(&self) -> &FourTuple {
        &self.tuple
    }

    /// How it is.
    pub(crate) fn shown(&self) -> Shown {
        let waiting = self.waiting.lock();
        Shown {
            state: match waiting.fate {
                Fate::Is(state) => state,
                // For a moment.
                Fate::Routed => MissState::Pass,
            },
            held: u32::try_from(waiting.held.len()).unwrap_or(u32::MAX),
            age_ms: time::jiffies_to_ms(time::jiffies().saturating_sub(waiting.since)),
        }
    }

    fn take(&self, state: &HookState<'_>, skb: SkBuff, total: &HeldTotal) -> Taken {
        let mut waiting = self.waiting.lock();
        match waiting.fate {
            Fate::Is(MissState::Asked) => match waiting.held.push(state, skb, &ROOM, total) {
                Ok(()) => Taken::Held,
                // The client sends it again.
                Err((skb, _)) => Taken::Dropped(skb),
            },
            Fate::Is(MissState::Pass) => Taken::Pass(skb),
            Fate::Is(MissState::Drop) => Taken::Dropped(skb),
            Fate::Routed => Taken::Routed(skb),
        }
    }

    /// Decides, and returns what has waited.
    fn decide(&self, fate: Fate, total: &HeldTotal) -> KVec<HeldPacket> {
        let mut waiting = self.waiting.lock();
        waiting.fate = fate;
        waiting.since = time::jiffies();
        waiting.held.take(total)
    }

    /// Decides that packets pass if nobody has answered in time, and then returns what has waited.
    /// False if the answer is to be forgotten.
    fn expire(&self, now: u64, total: &HeldTotal) -> (bool, KVec<HeldPacket>) {
        let mut waiting = self.waiting.lock();
        let age = now.saturating_sub(waiting.since);
        match waiting.fate {
            Fate::Is(MissState::Asked) if age > self.timeout => {
                waiting.fate = Fate::Is(MissState::Pass);
                waiting.since = now;
                (true, waiting.held.take(total))
            }
            Fate::Is(MissState::Asked) => (true, KVec::new()),
            _ => (age <= time::ms_to_jiffies(MEMORY_MS), KVec::new()),
        }
    }
}

/// The misses of a namespace.
#[pin_data]
pub(crate) struct Misses {
    #[pin]
    table: FamilyTable<FourTuple, Arc<Miss>>,
    total: HeldTotal,
    work: DelayedWork,
}

impl Misses {
    /// None.
    pub(crate) fn new(weak: WeakNet) -> impl PinInit<Self, Error> {
        let mut position = Position::default();
        try_pin_init!(Self {
            table <- FamilyTable::new(MAX_MISSES),
            total: HeldTotal::new(),
            work: DelayedWork::new(move |trigger: &Trigger| {
                run_expire(&weak, &mut position, trigger)
            })?,
        })
    }

    /// All of them.
    pub(crate) fn table(&self) -> &FamilyTable<FourTuple, Arc<Miss>> {
        &self.table
    }

    /// Answers what becomes of a connection. False if nobody has asked.
    pub(crate) fn answer(
        &self,
        net: &Net,
        stats: &Stats,
        tuple: &FourTuple,
        state: MissState,
    ) -> bool {
        let guard = rcu::read_lock();
        let Some(miss) = self.table.get(&guard, tuple) else {
            return false;
        };
        self.send_on(net, stats, miss.decide(Fate::Is(state), &self.total), state);
        true
    }

    /// The connection has a route.
    #[inline]
    pub(crate) fn routed(&self, net: &Net, stats: &Stats, route: &Route) {
        if !self.table.is_empty() {
            self.leave(net, stats, route);
        }
    }

    #[cold]
    fn leave(&self, net: &Net, stats: &Stats, route: &Route) {
        let guard = rcu::read_lock();
        let Some(miss) = self.table.get(&guard, route.tuple()) else {
            return;
        };
        let packets = miss.decide(Fate::Routed, &self.total);
        self.forget(miss);
        // A new connection has nothing to do with what is left of another one.
        let state = match route.origin() {
            RouteOrigin::L4 => MissState::Drop,
            RouteOrigin::Migration | RouteOrigin::Manual => MissState::Pass,
        };
        self.send_on(net, stats, packets, state);
    }

    fn forget(&self, miss: &Arc<Miss>) {
        self.table
            .remove_if(&miss.tuple, |other| Arc::ptr_eq(other, miss));
    }

    fn send_on(&self, net: &Net, stats: &Stats, packets: KVec<HeldPacket>, state: MissState) {
        for packet in packets {
            match state {
                MissState::Asked | MissState::Pass => packet.begin_again(net),
                MissState::Drop => {
                    stats.inc(Counter::DropMiss);
                    packet.drop_reason(DropReason::NETFILTER_DROP);
                }
            }
        }
    }

    /// Drops what waits and has to do with a device that goes.
    pub(crate) fn device_gone(&self, stats: &Stats, dev: &NetDevice) {
        self.table.for_each(|miss| {
            let mut waiting = miss.waiting.lock();
            let dropped = waiting.held.drop_of(dev, &self.total);
            stats.add(Counter::DropMiss, dropped as u64);
        });
    }

    /// No packet comes here any more, and no answer.
    pub(crate) fn clear(&self) {
        // A table that shrinks meanwhile may hide entries from a scan.
        while !self.table.is_empty() {
            self.table.retain(|miss| {
                drop(miss.decide(Fate::Routed, &self.total));
                false
            });
        }
    }

    /// Ends the work.
    pub(crate) fn cancel(&self) {
        self.work.cancel();
    }
}

/// Looks whose time is over, and has itself called again while there are any.
fn run_expire(weak: &WeakNet, position: &mut Position, trigger: &Trigger) {
    let Some(net) = weak.upgrade() else {
        return;
    };
    let guard = rcu::read_lock();
    let Some(forwarder) = STATE.get(&net, &guard) else {
        return;
    };
    let (misses, stats) = (&forwarder.misses, &forwarder.stats);
    let now = time::jiffies();
    let done = misses.table.scan(&guard, position, |miss| {
        let (stays, packets) = miss.expire(now, &misses.total);
        if !stays {
            misses.forget(miss);
        }
        misses.send_on(&net, stats, packets, MissState::Pass);
        Scan::Continue
    });
    if done {
        *position = Position::default();
    }
    if !misses.table.is_empty() {
        trigger.schedule(if done { INTERVAL_MS } else { 1 });
    }
}

impl Forwarder {
    /// A client's packet from the middle of a connection without a route: holds it, if the service
    /// asks about such, and does what was answered. What is the local stack's comes back.
    #[cold]
    pub(crate) fn ask(
        &self,
        state: &HookState<'_>,
        service: &Service,
        skb: SkBuff,
        parsed: &Parsed,
    ) -> Result<Verdict, SkBuff> {
        let timeout = service.miss_timeout();
        if timeout == 0 || parsed.tuple.proto() != Proto::Tcp || parsed.flags.is_initial_syn() {
            return Err(skb);
        }
        let tuple = &parsed.tuple;
        // Without room, nobody is asked about each of the packets that have no route.
        if !self.has_room(Proto::Tcp) && service.stateless_endpoint(state.rcu(), tuple).is_some() {
            return Err(skb);
        }
        let iif = state.in_dev().map_or(0, NetDevice::ifindex);
        if tuple_in_use(state.net(), tuple, iif) {
            return Err(skb);
        }
        if let Some(miss) = self.misses.table.get(state.rcu(), tuple) {
            return self.hold(state, miss, skb, parsed);
        }
        if !netlink::is_anybody_asked(state.net()) {
            return Err(skb);
        }
        let timeout = time::ms_to_jiffies(timeout);
        let miss = Miss::new(tuple, timeout).map_err(|_| InsertError::NoMemory);
        let inserted = miss.and_then(|miss| {
            let inserted = self.misses.table.insert(tuple, miss.clone(), GFP_ATOMIC);
            inserted.map(|()| miss)
        });
        match inserted {
            Ok(miss) => {
                self.stats.inc(Counter::Misses);
                let result = self.hold(state, &miss, skb, parsed);
                netlink::notify_miss(state.net(), &miss);
                self.misses.work.schedule(INTERVAL_MS);
                result
            }
            // Another CPU has just asked.
            Err(InsertError::Exists) => match self.misses.table.get(state.rcu(), tuple) {
                Some(miss) => self.hold(state, miss, skb, parsed),
                None => Err(skb),
            },
            Err(InsertError::Full | InsertError::NoMemory) => {
                self.stats.inc(Counter::PassMissFull);
                Err(skb)
            }
        }
    }

    fn hold(
        &self,
        state: &HookState<'_>,
        miss: &Miss,
        skb: SkBuff,
        parsed: &Parsed,
    ) -> Result<Verdict, SkBuff> {
        match miss.take(state, skb, &self.misses.total) {
            Taken::Held => {
                self.stats.inc(Counter::MissHeld);
                Ok(Verdict::Stolen)
            }
            Taken::Pass(skb) => Err(skb),
            Taken::Dropped(skb) => Ok(self.drop_miss(skb)),
            Taken::Routed(skb) => match self.route_of(&parsed.tuple, state.rcu()) {
                Some(route) => Ok(self.forward(state, route, skb, parsed)),
                None => Err(skb),
            },
        }
    }

    fn drop_miss(&self, skb: SkBuff) -> Verdict {
        self.stats.inc(Counter::DropMiss);
        Verdict::Drop(skb, DropReason::NETFILTER_DROP)
    }
}
