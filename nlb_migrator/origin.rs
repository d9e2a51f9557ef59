// SPDX-License-Identifier: GPL-2.0

//! Giving a connection away: the `migrate` request, in the thread that sent it.

mod handover;
mod path;
mod read;
mod transfer;

pub(crate) use self::{
    handover::{
        Handovers,
        Wanted, //
    },
    read::ReadData,
    transfer::Transfers, //
};

use crate::{
    machine::{
        OriginEvent,
        OriginOps,
        OriginState,
        Step, //
    },
    reason::{
        Code,
        Reason, //
    },
    registry::Entry,
    state::Shared,
    stats::Counter,
    transport::{
        self,
        Link,
        Use, //
    },
    uapi::Phase, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use nlb::{
    net::{
        ip,
        netfilter::Tracked,
        tcp::{
            Frozen,
            TcpSocket, //
        },
        Net, //
    },
    sync::{
        object::PartRef,
        rcu,
        semaphore::Permit, //
    },
    time,
    wire::{
        addr::Addr,
        record::{
            ConnectionState,
            Prepare,
            Record,
            StateHead,
            CHUNK_MAX, //
        }, //
    },
};
use path::Path;
use transfer::Transfer;

/// Least time between two COMMITs for one connection, in milliseconds.
const ASK_MS: u32 = 250;
/// COMMIT is sent again after this part of the time there is for the answer: a target takes few
/// connections from one peer, and each time may need a new one.
const ASK_PART: u32 = 4;

/// The caller's part of a migration.
struct Mover<'a> {
    shared: &'a Arc<Shared>,
    net: &'a Net,
    link: &'a Link,
    /// Among the connections that stand still.
    permit: Option<Permit<'a>>,
    /// The connection that COMMIT was sent over again.
    again: Option<Use>,
    /// When the answer to what is sent has to be there (CLOCK_MONOTONIC, in milliseconds).
    deadline_ms: u64,
    /// When COMMIT may be sent again.
    ask_ms: u64,
    transfer: &'a Transfer,
    socket: &'a TcpSocket,
    read: &'a ReadData,
    frozen: Option<Frozen<'a>>,
    /// Flow id and mapping, ours until the path owns them.
    mapping: Option<PartRef<nlb_tunnel::Mapping>>,
    plumbed: bool,
    timeout_ms: u32,
    /// The time that went into taking the connection out; waiting for the peer is not in it.
    export_ns: u64,
    /// The state a moment ago; its options do not change.
    outlook: &'a ConnectionState,
    was_reset: bool,
}

impl Mover<'_> {
    fn id(&self) -> u64 {
        self.transfer.entry.id
    }

    fn send(&self, record: &Record<'_>) -> Result<(), Reason> {
        let (stats, id) = (&self.shared.stats, self.id());
        self.link.send_by(stats, self.deadline_ms, id, record)
    }

    /// Reads state and bytes, and sends them in pieces: each is written where it is sent from.
    fn export(&mut self) -> Result<(), Reason> {
        let id = self.id();
        let frozen = self.frozen.as_mut().ok_or(Code::Internal)?;
        let mut export_ns = self.export_ns;
        let (mut room, mut rewound) = (None, None);
        let (mut sent, mut total) = (0u32, 0u32);
        loop {
            let first = sent == 0;
            let encode = |record: &mut [u8]| {
                let begin = time::monotonic_ns();
                if first {
                    let state = frozen.state_into(&mut room);
                    rewound = Some(self.read.rewind(&self.shared.keeps, frozen, state)?);
                    total = state.data_len();
                }
                let state = room.as_ref().ok_or(Code::Internal)?;
                let read = rewound.as_ref().ok_or(Code::Internal)?;
                let head = StateHead {
                    connection: first.then_some(state),
                    offset: sent,
                    total,
                    len: (total.saturating_sub(sent) as usize).min(CHUNK_MAX),
                };
                let len = head.encode(id, record, |data| read.copy(frozen, state, sent, data))?;
                // CAST: CHUNK_MAX at most.
                sent = sent.saturating_add(head.len as u32);
                export_ns = export_ns.saturating_add(since(begin));
                Ok(len)
            };
            let (stats, by_ms) = (&self.shared.stats, self.deadline_ms);
            self.link.send_with(stats, by_ms, encode)?;
            // The connection stands still meanwhile.
            if time::left_ms(self.deadline_ms) == 0 {
                return Err(Code::NoAnswer.into());
            }
            if sent >= total {
                break;
            }
        }
        self.export_ns = export_ns;
        let unread = room.map_or(0, |state| state.unread_len());
        self.transfer.entry.update(|info| {
            info.unread_bytes = unread.into();
            info.export_ns = export_ns;
        });
        Ok(())
    }

    /// The connection that was used last.
    fn current(&self) -> &Link {
        self.again.as_ref().map_or(self.link, |taken| taken.link())
    }

    fn ask_later(&mut self) {
        let pause = (self.timeout_ms / ASK_PART).max(ASK_MS);
        self.ask_ms = time::monotonic_ms().saturating_add(pause.into());
    }

    fn closed(&mut self, closed: nlb::net::tcp::Closed) {
        let dropped = closed.backlog_dropped;
        self.shared
            .stats
            .add(Counter::DropBacklog, u64::from(dropped));
        self.transfer.entry.update(|info| {
            info.freeze_ns = closed.frozen_ns;
            info.export_ns = self.export_ns;
        });
        self.permit = None;
    }
}

/// Nanoseconds since `begin`.
fn since(begin: u64) -> u64 {
    time::monotonic_ns().saturating_sub(begin)
}

impl OriginOps for Mover<'_> {
    type Reason = Reason;

    fn send_prepare(&mut self) -> Result<(), Reason> {
        let mapping = self.mapping.as_ref().ok_or(Code::NoFlowId)?;
        self.send(&Record::Prepare(Prepare {
            forwarder: mapping.target().source(),
            flow_id: self.transfer.flow_id,
            timeout_ms: self.timeout_ms,
            connection: self.outlook,
        }))
    }

    fn plumb(&mut self) -> Result<(), Reason> {
        self.transfer
            .entry
            .update(|info| info.phase = Phase::Prepared);
        self.permit = Some(self.link.stand(self.timeout_ms)?);
        // The time for the answer begins now.
        self.deadline_ms = time::monotonic_ms().saturating_add(self.timeout_ms.into());
        let tuple = &self.transfer.entry.tuple;
        let flow_id = self.transfer.flow_id;
        self.transfer.path.plumb(self.net, tuple, flow_id)?;
        self.plumbed = true;
        // The path owns the mapping now.
        self.mapping = None;
        // Whoever did not see the path has passed its packet to the socket when this returns.
        rcu::synchronize_expedited();
        Ok(())
    }

    fn freeze(&mut self) -> Result<(), Reason> {
        let begin = time::monotonic_ns();
        self.frozen = Some(self.socket.freeze()?);
        self.export_ns = since(begin);
        Ok(())
    }

    fn send_state(&mut self) -> Result<(), Reason> {
        self.export()
    }

    fn send_commit(&mut self) -> Result<(), Reason> {
        self.transfer
            .entry
            .update(|info| info.phase = Phase::Staged);
        self.ask_later();
        self.send(&Record::Commit)
    }

    fn ask(&mut self) {
        let link = self.current();
        if link.is_up() {
            if time::monotonic_ms() < self.ask_ms {
                return;
            }
            // It may be dead, and TCP takes long to notice.
            link.suspect();
        }
        let peer = &self.transfer.peer;
        // Without patience: if there is no connection, this has one set up for the next time.
        let Ok(taken) = transport::connect(self.shared, peer, self.net, 0) else {
            return;
        };
        let id = self.id();
        let link = taken.link();
        let stats = &self.shared.stats;
        if link
            .send_by(stats, self.deadline_ms, id, &Record::Commit)
            .is_ok()
        {
            stats.inc(Counter::CommitsRepeated);
            self.again = Some(taken);
            self.ask_later();
        }
    }

    fn close(&mut self) {
        if let Some(frozen) = self.frozen.take() {
            let tuple = &self.transfer.entry.tuple;
            self.shared.tombstones.left(tuple, &self.shared.stats);
            let begin = time::monotonic_ns();
            let closed = frozen.close_silently();
            self.export_ns = self.export_ns.saturating_add(since(begin));
            self.closed(closed);
            // The tracker sees no packet of it here any more, and would keep it for days. What there is
            // no memory for expires then.
            if let Ok(Some(entry)) = Tracked::find(self.net, tuple, GFP_KERNEL) {
                entry.expire();
            }
        }
    }

    fn thaw(&mut self) {
        if let Some(frozen) = self.frozen.take() {
            let ns = frozen.frozen_ns();
            drop(frozen);
            self.transfer.entry.update(|info| info.freeze_ns = ns);
        }
        self.permit = None;
    }

    fn reset(&mut self) {
        self.was_reset = true;
        let Some(frozen) = self.frozen.take() else {
            return;
        };
        let Shared {
            tombstones, stats, ..
        } = &**self.shared;
        let closed = match tombstones.reset(&frozen.state(), stats) {
            Ok(reset) => {
                let closed = frozen.close_silently();
                reset.ask(self.net, stats);
                closed
            }
            // If the target has sent nothing, the client takes this one.
            Err(_) => frozen.reset(),
        };
        self.closed(closed);
    }

    fn unplumb(&mut self) {
        if core::mem::take(&mut self.plumbed) {
            let tuple = &self.transfer.entry.tuple;
            let flow_id = self.transfer.flow_id;
            self.transfer.path.unplumb(self.net, tuple, flow_id);
        }
        if let Some(mapping) = self.mapping.take() {
            nlb_tunnel::release(self.net, &mapping);
        }
    }

    fn purge(&mut self) {
        self.transfer.purge(self.net);
    }

    fn unwatch(&mut self) {
        self.transfer.unwatch(self.net);
    }

    fn send_abort(&mut self) {
        // Before COMMIT, a target that cannot be reached gives up by itself.
        if self.was_reset {
            self.transfer.peer.owe_abort(self.id());
        }
        let (stats, id) = (&self.shared.stats, self.id());
        let _ = self.current().send(stats, id, &Record::Abort);
    }

    fn entered(&mut self, state: OriginState, reason: Option<&Reason>) {
        self.transfer.entered(self.shared, self.net, state, reason);
    }
}

/// Moves the connection of a socket to `peer`, and with it bytes that its program has read.
///
/// Returns when the connection lives there, or when it stayed and works as before, or, as the last
/// resort, when it was reset. The phase of the result tells which, and its reason why. An error
/// says that nothing was begun.
fn migrate(
    shared: &Arc<Shared>,
    net: &Net,
    socket: &TcpSocket,
    read: &ReadData,
    peer: Addr,
    timeout_ms: u32,
) -> Result<Arc<Entry>, Reason> {
    // Refused here, nothing has been touched.
    let outlook = {
        let frozen = socket.freeze()?;
        let mut state = frozen.state();
        read.rewind(&shared.keeps, &frozen, &mut state)?;
        state
    };
    let tuple = outlook.tuple;
    let peer = shared.peers.find(peer).ok_or(Code::NotPeer)?;
    if peer.addr.is_v4() != tuple.is_v4() {
        return Err(Code::PeerFamily.into());
    }
    // The socket would be in the way of its own successor.
    if ip::is_local_address(net, &peer.addr) {
        return Err(Code::ThisMachine.into());
    }
    let _claim = shared.transfers.claim(tuple)?;
    let path = Path::of(net, &tuple)?;
    let taken = transport::connect(shared, &peer, net, timeout_ms)?;
    let link = taken.link();
    let _permit = link.begin(timeout_ms)?;

    let target = nlb_tunnel::target(net, peer.addr, None)
        .map_err(|error| Reason::or_no_memory(error, Code::NoHost))?;
    let mapping = nlb_tunnel::allocate(net, &tuple, &target)
        .map_err(|error| Reason::or_no_memory(error, Code::NoFlowId))?;
    let flow_id = mapping.flow_id().ok_or(Code::NoFlowId)?;
    let transfer = match transfer::prepare(shared, &peer, link, (tuple, path), flow_id) {
        Ok(transfer) => transfer,
        Err(reason) => {
            nlb_tunnel::release(net, &mapping);
            return Err(reason);
        }
    };

    let mut mover = Mover {
        shared,
        net,
        link,
        permit: None,
        again: None,
        deadline_ms: 0,
        ask_ms: 0,
        transfer: &transfer,
        socket,
        read,
        frozen: None,
        mapping: Some(mapping),
        plumbed: false,
        timeout_ms,
        export_ns: 0,
        outlook: &outlook,
        was_reset: false,
    };
    run(&transfer, &mut mover, timeout_ms);
    Ok(transfer.entry.clone())
}

/// Drives the machine until the caller has nothing more to do.
///
/// Every step has `timeout_ms` from the moment it begins until its answer is there, sending included; the
/// second, before it begins, as long again for its turn, while the connection works. So the socket is
/// locked for twice that at most.
fn run(transfer: &Transfer, mover: &mut Mover<'_>, timeout_ms: u32) {
    let deadline = || time::monotonic_ms().saturating_add(timeout_ms.into());
    let mut machine = transfer.machine.lock();
    mover.deadline_ms = deadline();
    machine.start(mover);
    while machine.state().is_waiting() {
        let state = machine.state();
        let event = match transfer.wait(state, time::left_ms(mover.deadline_ms)) {
            Ok(Some(event)) => event,
            Ok(None) if time::left_ms(mover.deadline_ms) == 0 => {
                mover.current().suspect();
                OriginEvent::Expired(Code::NoAnswer.into())
            }
            Ok(None) if state == OriginState::Committed => OriginEvent::Lost(Code::NoAnswer.into()),
            Ok(None) => continue,
            Err(reason) => OriginEvent::Expired(reason),
        };
        let before = mover.deadline_ms;
        // To ask again is no new step.
        if !(state == OriginState::Committed && matches!(event, OriginEvent::Lost(_))) {
            mover.deadline_ms = deadline();
        }
        if machine.step(mover, event) == Step::Ignored {
            mover.shared.stats.inc(Counter::RecordsIgnored);
        }
        if machine.state() == state {
            mover.deadline_ms = before;
        }
    }
    while let Some(event) = transfer.next_event_or_detach() {
        if machine.step(mover, event) == Step::Ignored {
            mover.shared.stats.inc(Counter::RecordsIgnored);
        }
    }
}
