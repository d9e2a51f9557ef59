// SPDX-License-Identifier: GPL-2.0

//! Migrations on their way out, and connections that live at targets.

use super::path::Path;
use crate::{
    machine::{
        Origin,
        OriginEvent,
        OriginOps,
        OriginState,
        Step, //
    },
    netlink,
    peer::Peer,
    reason::{
        Code,
        Reason, //
    },
    registry::Entry,
    state::Shared,
    stats::Counter,
    transport::Link,
    uapi::{
        Phase,
        Role, //
    }, //
};
use core::convert::Infallible;
use kernel::{
    new_mutex, new_spinlock,
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNodeReservation, //
    },
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex,
        SpinLock, //
    },
};
use nlb::{
    completion::Completion,
    net::Net,
    wire::{
        addr::FourTuple,
        flow_id::FlowId,
        record::Record, //
    },
};

/// Answers that can wait for the caller. A target sends one per step; what is more is dropped.
const INBOX: usize = 8;

/// How long a caller sleeps before it looks around: whether there is a way to ask the target again.
const SLICE_MS: u32 = 100;

struct Inbox {
    /// The caller is there to take the events. Later ones are handled where they arrive.
    attached: bool,
    /// Nothing more is taken: what comes after [`OriginEvent::Forgotten`] is from a life of the
    /// target that knows nothing of this migration.
    closed: bool,
    /// Has room for one more than [`INBOX`].
    events: KVec<OriginEvent<Reason>>,
}

impl Inbox {
    /// Whether there was room for the event.
    fn push(&mut self, event: OriginEvent<Reason>) -> bool {
        let last = matches!(event, OriginEvent::Forgotten(_));
        if self.closed || (!last && self.events.len() >= INBOX) {
            return false;
        }
        self.closed = last;
        self.events.push_within_capacity(event).is_ok()
    }
}

/// A migration on its way, or a connection that lives at a target.
#[pin_data]
pub(crate) struct Transfer {
    pub(super) entry: Arc<Entry>,
    pub(super) peer: Arc<Peer>,
    /// The connection to the peer that the migration runs over.
    link: u64,
    /// The connection to the peer over which the end of the connection can be heard of: the one
    /// above, or a younger one over which the target was asked.
    heard_over: Atomic<u64>,
    /// The life of the target that the connection is in.
    nonce: u64,
    pub(super) flow_id: FlowId,
    pub(super) path: Path,
    #[pin]
    pub(super) machine: Mutex<Origin>,
    #[pin]
    inbox: SpinLock<Inbox>,
    /// Completed once for each event in the inbox.
    #[pin]
    arrived: Completion,
}

impl Transfer {
    /// Hands an event to whoever is in charge of the migration.
    fn deliver(&self, shared: &Shared, net: &Net, event: OriginEvent<Reason>) {
        let mut inbox = self.inbox.lock();
        if inbox.attached {
            if inbox.push(event) {
                drop(inbox);
                self.arrived.complete();
            } else {
                drop(inbox);
                shared.stats.inc(Counter::RecordsIgnored);
            }
            return;
        }
        drop(inbox);
        let mut late = Late {
            shared,
            net,
            transfer: self,
        };
        if self.machine.lock().step(&mut late, event) == Step::Ignored {
            shared.stats.inc(Counter::RecordsIgnored);
        }
    }

    /// The next event, or the end of the caller's part if there is none.
    pub(super) fn next_event_or_detach(&self) -> Option<OriginEvent<Reason>> {
        let mut inbox = self.inbox.lock();
        let event = inbox.events.remove(0).ok();
        inbox.attached = event.is_some();
        event
    }

    /// Waits for an event, but no longer than `left_ms`, and not for long. An error if the caller
    /// cannot wait for another one.
    pub(super) fn wait(
        &self,
        state: OriginState,
        left_ms: u32,
    ) -> Result<Option<OriginEvent<Reason>>, Reason> {
        let slice = left_ms.min(SLICE_MS);
        let arrived = if state == OriginState::Committed {
            // Being killed does not tell who owns the connection.
            self.arrived.wait_timeout(slice)
        } else {
            self.arrived
                .wait_killable_timeout(slice)
                .map_err(|_| Code::Interrupted)?
        };
        if arrived {
            return Ok(self.inbox.lock().events.remove(0).ok());
        }
        Ok(None)
    }

    /// Lets go of the path of a connection that ended at the target.
    pub(super) fn purge(&self, net: &Net) {
        self.path
            .closed(net, &self.entry.tuple, self.flow_id, self.peer.addr);
    }

    /// Has the path of a connection at the target expire by itself.
    pub(super) fn unwatch(&self, net: &Net) {
        self.path
            .unwatched(net, &self.entry.tuple, self.flow_id, self.peer.addr);
    }

    /// What every change of state means for the tables and the watchers.
    pub(super) fn entered(
        &self,
        shared: &Shared,
        net: &Net,
        state: OriginState,
        reason: Option<&Reason>,
    ) {
        let phase = match state {
            OriginState::New | OriginState::Preparing => Phase::Preparing,
            OriginState::Frozen => Phase::Frozen,
            OriginState::Committed => Phase::Committed,
            OriginState::Active => Phase::Active,
            OriginState::Closed => Phase::Closed,
            OriginState::Refused => Phase::Refused,
            OriginState::Aborted => Phase::Aborted,
            OriginState::Reset => Phase::Reset,
        };
        let lived = {
            let mut lived = false;
            self.entry.update(|info| {
                lived = info.phase == Phase::Active;
                info.phase = phase;
                if reason.is_some() {
                    info.reason = reason.copied();
                }
                if info.total_ns == 0 && (phase == Phase::Active || state.is_ended()) {
                    info.total_ns = self.entry.elapsed_ns();
                }
            });
            lived
        };
        let counter = match state {
            OriginState::Active => Some(Counter::OutActive),
            OriginState::Closed => Some(Counter::OutClosed),
            OriginState::Refused => Some(Counter::OutRefused),
            OriginState::Aborted => Some(Counter::OutAborted),
            OriginState::Reset => Some(Counter::OutReset),
            _ => None,
        };
        if let Some(counter) = counter {
            shared.stats.inc(counter);
        }
        match state {
            OriginState::Active => {
                self.peer.migrations_out.add(1, Relaxed);
                self.peer.alive.add(1, Relaxed);
                self.path.settled(net, &self.entry.tuple, self.flow_id);
            }
            OriginState::Refused => self.peer.refused.add(1, Relaxed),
            _ => {}
        }
        if state.is_ended() {
            if lived {
                let _ = self.peer.alive.fetch_sub(1, Relaxed);
            }
            shared.transfers.remove(self.entry.id);
            shared.registry.end(&self.entry);
        }
        if counter.is_some() {
            netlink::notify(net, &self.entry);
        }
    }
}

/// What is left to do once the connection lives at the target.
struct Late<'a> {
    shared: &'a Shared,
    net: &'a Net,
    transfer: &'a Transfer,
}

impl OriginOps for Late<'_> {
    type Reason = Reason;

    // Nothing of this is late: all but the end of a living connection is the caller's part.

    fn send_prepare(&mut self) -> Result<(), Reason> {
        Err(Code::Interrupted.into())
    }

    fn plumb(&mut self) -> Result<(), Reason> {
        Err(Code::Interrupted.into())
    }

    fn freeze(&mut self) -> Result<(), Reason> {
        Err(Code::Interrupted.into())
    }

    fn send_state(&mut self) -> Result<(), Reason> {
        Err(Code::Interrupted.into())
    }

    fn send_commit(&mut self) -> Result<(), Reason> {
        Err(Code::Interrupted.into())
    }

    fn ask(&mut self) {}

    fn close(&mut self) {}

    fn thaw(&mut self) {}

    fn reset(&mut self) {}

    fn unplumb(&mut self) {}

    fn purge(&mut self) {
        self.transfer.purge(self.net);
    }

    fn unwatch(&mut self) {
        self.transfer.unwatch(self.net);
    }

    fn send_abort(&mut self) {}

    fn entered(&mut self, state: OriginState, reason: Option<&Reason>) {
        self.transfer.entered(self.shared, self.net, state, reason);
    }
}

struct Inner {
    by_id: RBTree<u64, Arc<Transfer>>,
    /// Connections that a caller is at work on.
    claimed: RBTree<FourTuple, ()>,
}

/// The transfers of a namespace.
#[pin_data]
pub(crate) struct Transfers {
    #[pin]
    inner: Mutex<Inner>,
}

/// The right to migrate a connection, given back when dropped.
pub(super) struct Claim<'a> {
    transfers: &'a Transfers,
    tuple: FourTuple,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let node = self.transfers.inner.lock().claimed.remove_node(&self.tuple);
        drop(node);
    }
}

impl Transfers {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- new_mutex!(
                Inner {
                    by_id: RBTree::new(),
                    claimed: RBTree::new(),
                },
                "nlb_migrator::Transfers"
            ),
        })
    }

    /// Makes the caller the only one to migrate the connection.
    pub(super) fn claim(&self, tuple: FourTuple) -> Result<Claim<'_>, Reason> {
        let node = RBTreeNodeReservation::new(GFP_KERNEL)?;
        let mut inner = self.inner.lock();
        if inner.claimed.get(&tuple).is_some() {
            return Err(Code::Doubled.into());
        }
        inner.claimed.insert(node.into_node(tuple, ()));
        Ok(Claim {
            transfers: self,
            tuple,
        })
    }

    fn insert(&self, transfer: &Arc<Transfer>) -> Result<(), Reason> {
        let node = RBTreeNodeReservation::new(GFP_KERNEL)?;
        let mut inner = self.inner.lock();
        inner
            .by_id
            .insert(node.into_node(transfer.entry.id, transfer.clone()));
        Ok(())
    }

    fn remove(&self, id: u64) {
        let node = self.inner.lock().by_id.remove_node(&id);
        drop(node);
    }

    /// Hands what a peer said to the migration it is about.
    pub(crate) fn deliver(
        &self,
        shared: &Shared,
        net: &Net,
        peer: &Peer,
        id: u64,
        event: OriginEvent<Reason>,
    ) {
        let transfer = self.inner.lock().by_id.get(&id).cloned();
        match transfer {
            // A peer speaks only for its own connections.
            Some(transfer) if transfer.peer.addr == peer.addr => {
                transfer.deliver(shared, net, event);
            }
            _ => shared.stats.inc(Counter::RecordsIgnored),
        }
    }

    /// Takes down what the target tells about the injection.
    pub(crate) fn injected(&self, id: u64, inject_ns: u64, held: u32) {
        let transfer = self.inner.lock().by_id.get(&id).cloned();
        if let Some(transfer) = transfer {
            transfer.entry.update(|info| {
                info.inject_ns = inject_ns;
                info.held_packets = held.into();
            });
        }
    }

    /// Calls `visit` for each transfer, without the table's lock.
    fn each<E>(&self, mut visit: impl FnMut(&Transfer) -> Result<(), E>) -> Result<(), E> {
        let mut next = Some(0u64);
        while let Some(from) = next {
            let transfer = {
                let inner = self.inner.lock();
                let Some(cursor) = inner.by_id.cursor_lower_bound(&from) else {
                    break;
                };
                let (&id, transfer) = cursor.current();
                next = id.checked_add(1);
                transfer.clone()
            };
            visit(&transfer)?;
        }
        Ok(())
    }

    /// Hands an event to every transfer that `fits`.
    fn deliver_all(
        &self,
        shared: &Shared,
        net: &Net,
        fits: impl Fn(&Transfer) -> bool,
        event: impl Fn() -> OriginEvent<Reason>,
    ) {
        let Ok(()) = self.each(|transfer| -> Result<(), Infallible> {
            if fits(transfer) {
                transfer.deliver(shared, net, event());
            }
            Ok(())
        });
    }

    /// Asks a peer about the connections that live there and whose end may have got lost with an
    /// older connection to the peer: they live there still, have just ended, or ended so long ago
    /// that the target knows nothing of them.
    ///
    /// Not to be called by the thread that reads the answers. `false` if some are about to live
    /// there, of which one has to ask later; an error if the connection is lost.
    pub(crate) fn ask_about_living(&self, shared: &Shared, link: &Link) -> Result<bool, Reason> {
        let (peer, link_id) = (link.peer(), link.id());
        let nonce = peer.nonce.load(Relaxed);
        let mut all = true;
        self.each(|transfer| -> Result<(), Reason> {
            let elsewhere = transfer.peer.addr != peer.addr
                || transfer.nonce != nonce
                || transfer.heard_over.load(Relaxed) == link_id;
            if elsewhere {
                return Ok(());
            }
            match transfer.entry.info().phase {
                Phase::Active => {
                    link.send(&shared.stats, transfer.entry.id, &Record::Commit)?;
                    shared.stats.inc(Counter::CommitsRepeated);
                    transfer.heard_over.store(link_id, Relaxed);
                }
                // INJECTED may have come already, and CLOSED got lost with the connection.
                Phase::Staged | Phase::Committed => all = false,
                _ => {}
            }
            Ok(())
        })?;
        Ok(all)
    }

    /// A connection to a peer is lost: migrations under way over it get no answer.
    pub(crate) fn link_lost(&self, shared: &Shared, net: &Net, link: u64) {
        self.deliver_all(
            shared,
            net,
            |transfer| transfer.link == link && transfer.inbox.lock().attached,
            || OriginEvent::Lost(Code::LinkLost.into()),
        );
    }

    /// The peer lives a new life, and knows nothing of the connections of its last.
    pub(crate) fn peer_restarted(&self, shared: &Shared, net: &Net, peer: &Peer, nonce: u64) {
        self.deliver_all(
            shared,
            net,
            |transfer| transfer.peer.addr == peer.addr && transfer.nonce != nonce,
            || OriginEvent::Forgotten(Code::TargetRestarted.into()),
        );
    }

    /// The peer was removed: nothing will be heard of its connections.
    pub(crate) fn peer_removed(&self, shared: &Shared, net: &Net, peer: &Peer) {
        self.deliver_all(
            shared,
            net,
            |transfer| transfer.peer.addr == peer.addr,
            || OriginEvent::Forgotten(Code::PeerRemoved.into()),
        );
    }
}

/// Enters the migration into the tables.
pub(super) fn prepare(
    shared: &Shared,
    peer: &Arc<Peer>,
    link: &Link,
    (tuple, path): (FourTuple, Path),
    flow_id: FlowId,
) -> Result<Arc<Transfer>, Reason> {
    let events = KVec::with_capacity(INBOX.saturating_add(1), GFP_KERNEL)?;
    let id = shared.next_id();
    let entry = shared
        .registry
        .begin(id, Role::Origin, peer.addr, tuple, flow_id.value())
        .map_err(|_| Code::NoMemory)?
        .ok_or(Code::TooMany)?;
    let shown = entry.clone();
    let transfer = Arc::pin_init(
        pin_init!(Transfer {
            entry: shown,
            peer: peer.clone(),
            heard_over: Atomic::new(link.id()),
            link: link.id(),
            nonce: peer.nonce.load(Relaxed),
            flow_id,
            path,
            machine <- new_mutex!(Origin::new(), "nlb_migrator::Transfer::machine"),
            inbox <- new_spinlock!(
                Inbox {
                    attached: true,
                    closed: false,
                    events,
                },
                "nlb_migrator::Transfer::inbox"
            ),
            arrived <- Completion::new(),
        }),
        GFP_KERNEL,
    );
    let result = match transfer {
        Ok(transfer) => shared.transfers.insert(&transfer).map(|()| transfer),
        Err(_) => Err(Code::NoMemory.into()),
    };
    if let Err(reason) = &result {
        entry.update(|info| {
            info.phase = Phase::Aborted;
            info.reason = Some(*reason);
        });
        shared.registry.end(&entry);
    }
    result
}
