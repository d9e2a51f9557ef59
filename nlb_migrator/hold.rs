// SPDX-License-Identifier: GPL-2.0

//! Early packets: those that reach the target before the connection does.
//!
//! Without a socket they would be answered with a RST. So from PREPARE on, packets of the
//! connection are taken out at LOCAL_IN and wait, in order and within bounds, until the connection
//! is injected; then they go on behind the hook, and those that come meanwhile queue behind them.

use crate::{
    state::{
        Shared,
        State, //
    },
    stats::{
        Counter,
        Stats, //
    }, //
};
use kernel::{
    prelude::*,
    sync::{
        rcu,
        Arc, //
    }, //
};
use nlb::{
    net::{
        netfilter::{
            Family,
            HeldPacket,
            HeldQueue,
            HeldTotal,
            Hook,
            HookNum,
            HookState,
            NoRoom,
            Room,
            Verdict, //
        },
        skbuff::{
            DropReason,
            SkBuff, //
        },
        Net, //
    },
    sync::{
        family_table::FamilyTable,
        lock::SpinLockBh,
        rhashtable::InsertError, //
    },
    time,
    wire::addr::{
        FourTuple,
        Proto, //
    }, //
};

/// How much may be held: of one connection, and in a namespace.
const ROOM: Room = Room {
    packets: 256,
    bytes: 512 << 10,
    total: 16 << 20,
};
/// How long a packet may wait. By then the client has sent it again.
const MAX_AGE_MS: u32 = 3000;

/// What happens to a packet of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// It waits, for the connection or for those before it.
    Hold,
    /// It goes on: the connection is there and the queue empty.
    Pass,
    /// It is dropped: the connection will not come, and a RST must not be sent.
    Drop,
}

struct Queue {
    mode: Mode,
    held: HeldQueue,
    /// When the first of `held` came, in jiffies.
    since: u64,
}

/// The hold of one connection.
#[pin_data]
pub(crate) struct Hold {
    tuple: FourTuple,
    total: Arc<HeldTotal>,
    #[pin]
    queue: SpinLockBh<Queue>,
}

impl Hold {
    /// Whether it only drops what is left of a migration.
    fn is_over(&self) -> bool {
        self.queue.lock().mode == Mode::Drop
    }

    /// Decides about one packet.
    fn take(&self, state: &HookState<'_>, stats: &Stats, skb: SkBuff) -> Verdict {
        let mut queue = self.queue.lock();
        let dropped = |skb, counter| {
            stats.inc(counter);
            Verdict::Drop(skb, DropReason::NETFILTER_DROP)
        };
        match queue.mode {
            Mode::Pass => return Verdict::Accept(skb),
            Mode::Drop => return dropped(skb, Counter::DropHoldAborted),
            Mode::Hold => {}
        }
        let first = queue.held.is_empty();
        if let Err((skb, why)) = queue.held.push(state, skb, &ROOM, &self.total) {
            return dropped(
                skb,
                match why {
                    NoRoom::Packets => Counter::DropHoldPackets,
                    NoRoom::Bytes => Counter::DropHoldBytes,
                    NoRoom::Total => Counter::DropHoldTotal,
                },
            );
        }
        if first {
            queue.since = time::jiffies();
        }
        stats.inc(Counter::Held);
        Verdict::Stolen
    }

    /// Takes the queue, to be worked on without the lock. What follows may change `mode` at once.
    fn swap(&self, change: impl FnOnce(&mut Queue) -> bool) -> KVec<HeldPacket> {
        let mut queue = self.queue.lock();
        if !change(&mut queue) {
            return KVec::new();
        }
        queue.held.take(&self.total)
    }

    /// Sends the held packets on in order, then lets all pass. Returns how many there were.
    fn drain(&self, net: &Net, stats: &Stats) -> u64 {
        let mut count = 0u64;
        loop {
            let packets = self.swap(|queue| {
                if queue.held.is_empty() && queue.mode == Mode::Hold {
                    queue.mode = Mode::Pass;
                }
                true
            });
            if packets.is_empty() {
                stats.add(Counter::HeldDelivered, count);
                return count;
            }
            for packet in packets {
                packet.resume(net);
                count = count.saturating_add(1);
            }
        }
    }

    /// Drops the held packets, and from now on every packet.
    fn refuse(&self, stats: &Stats) {
        let packets = self.swap(|queue| {
            queue.mode = Mode::Drop;
            true
        });
        stats.add(Counter::DropHoldAborted, packets.len() as u64);
        discard(packets);
    }

    /// Drops the held packets if the first has waited too long.
    pub(crate) fn expire(&self, stats: &Stats) {
        let now = time::jiffies();
        let packets = self.swap(|queue| {
            now.wrapping_sub(queue.since) > time::ms_to_jiffies(MAX_AGE_MS)
                && !queue.held.is_empty()
        });
        stats.add(Counter::DropHoldAge, packets.len() as u64);
        discard(packets);
    }
}

fn discard(packets: KVec<HeldPacket>) {
    for packet in packets {
        packet.drop_reason(DropReason::NETFILTER_DROP);
    }
}

/// The holds of a namespace.
#[pin_data]
pub(crate) struct Holds {
    #[pin]
    table: FamilyTable<FourTuple, Arc<Hold>>,
    total: Arc<HeldTotal>,
}

impl Holds {
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            table <- FamilyTable::new(crate::registry::MAX_LIVE as u32),
            total: Arc::new(HeldTotal::new(), GFP_KERNEL)?,
        })
    }

    /// Begins to hold the packets of `tuple`.
    ///
    /// A hold that only drops what is left of an earlier migration is replaced; `EEXIST` if the
    /// connection is on its way already.
    pub(crate) fn begin(&self, tuple: &FourTuple) -> Result<Arc<Hold>> {
        let hold = Arc::pin_init(
            pin_init!(Hold {
                tuple: *tuple,
                total: self.total.clone(),
                queue <- nlb::new_spinlock_bh!(
                    Queue {
                        mode: Mode::Hold,
                        held: HeldQueue::new(),
                        since: 0,
                    },
                    "nlb_migrator::Hold"
                ),
            }),
            GFP_KERNEL,
        )?;
        let insert = || self.table.insert(tuple, hold.clone(), GFP_KERNEL);
        match insert() {
            Ok(()) => {}
            Err(InsertError::Exists) => {
                self.table.remove_if(tuple, |old| old.is_over());
                insert()?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(hold)
    }

    /// The connection is there: sends the held packets on. Returns how many there were.
    pub(crate) fn deliver(&self, hold: &Arc<Hold>, net: &Net, stats: &Stats) -> u64 {
        let count = hold.drain(net, stats);
        self.end(hold);
        count
    }

    /// The connection will not come: drops its packets until [`Self::end`].
    pub(crate) fn refuse(&self, hold: &Hold, stats: &Stats) {
        hold.refuse(stats);
    }

    /// Forgets the hold; packets pass.
    pub(crate) fn end(&self, hold: &Arc<Hold>) {
        self.table
            .remove_if(&hold.tuple, |other| Arc::ptr_eq(other, hold));
    }

    /// Packets that are held now.
    pub(crate) fn packets(&self) -> u64 {
        self.total.packets() as u64
    }

    /// Whether nothing is held, the usual case.
    fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    fn find<'a>(&'a self, tuple: &FourTuple, guard: &'a rcu::Guard) -> Option<&'a Arc<Hold>> {
        self.table.get(guard, tuple)
    }
}

/// Holds early packets and drops late ones, just before they would go to the sockets.
pub(crate) struct LocalIn;

impl Hook for LocalIn {
    const FAMILY: Family = Family::Ipv4;
    const HOOKNUM: HookNum = HookNum::LocalIn;
    /// After all that may drop or change a packet. A held packet goes on behind all hooks, so this
    /// one shares the last place with conntrack's confirmation, which comes first if it was there
    /// first (`NF_IP_PRI_CONNTRACK_CONFIRM`).
    const PRIORITY: i32 = i32::MAX;

    fn run(state: &HookState<'_>, mut skb: SkBuff) -> Verdict {
        let Some(here) = crate::state::STATE.get(state.net(), state.rcu()) else {
            return Verdict::Accept(skb);
        };
        let State { shared, .. } = here;
        let Shared {
            holds,
            tombstones,
            stats,
            ..
        } = &**shared;
        if holds.is_empty() && tombstones.is_empty() {
            return Verdict::Accept(skb);
        }
        let Some(parsed) = nlb_tunnel::parse(&mut skb) else {
            return Verdict::Accept(skb);
        };
        if parsed.tuple.proto() != Proto::Tcp {
            return Verdict::Accept(skb);
        }
        match holds.find(&parsed.tuple, state.rcu()) {
            // A new connection, which has come another way.
            Some(hold) if parsed.flags.is_initial_syn() && hold.is_over() => {
                holds.end(hold);
                Verdict::Accept(skb)
            }
            Some(hold) => hold.take(state, stats, skb),
            None => tombstones.take(state.net(), state.rcu(), stats, skb, &parsed),
        }
    }
}
