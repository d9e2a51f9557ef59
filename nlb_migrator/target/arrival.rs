// SPDX-License-Identifier: GPL-2.0

//! A connection on its way here, or living here.

use super::incoming::Incoming;
use crate::{
    hold::Hold,
    machine::{
        Answer,
        Step,
        Target,
        TargetEvent,
        TargetOps,
        TargetState, //
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
    uapi::Phase, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc,
        Mutex, //
    },
};
use nlb::{
    errno,
    net::{
        ip,
        tcp::{
            tuple_in_use,
            ConnectionData,
            Injected,
            Listener, //
        },
        Net, //
    },
    plumb, time,
    wire::{
        addr::Addr,
        flow_id::FlowId,
        record::{
            self,
            Prepare,
            Record, //
        }, //
    },
};

/// How long an ended arrival is remembered at least, to answer doubled records and to swallow what is
/// still on its way here. An origin that waits for an answer gets it for as long as it waits; one
/// that asks later is told that the migration is not known, and so has ended.
const REMEMBER_MS: u64 = 10_000;
/// How long the mapping of a closed connection stays for the client's last packets.
const LINGER_MS: u64 = 5_000;
/// Added to twice the origin's patience, so that the origin gives up first.
const GRACE_MS: u64 = 1_000;
/// Longest time to wait for the origin's next step, whatever it says.
const MAX_PATIENCE_MS: u64 = 90_000;

/// A piece of the state, as it came.
pub(super) struct Piece<'a> {
    pub(super) state: &'a record::State<'a>,
    /// When its decoding began, in nanoseconds of CLOCK_MONOTONIC.
    pub(super) began: u64,
}

struct Inner {
    machine: Target<Reason>,
    /// The connection over which PREPARE came, or a younger one of the same peer.
    link: Option<Arc<Link>>,
    incoming: Incoming,
    listener: Option<Listener>,
    injected: Option<Injected>,
    hold: Option<Arc<Hold>>,
    mapped: bool,
    /// Boot time in milliseconds: of the next step at the latest; once ended, of the end.
    moment: u64,
}

/// A connection on its way here, or living here.
#[pin_data]
pub(crate) struct Arrival {
    pub(super) entry: Arc<Entry>,
    peer: Arc<Peer>,
    pub(super) forwarder: Addr,
    pub(super) flow_id: FlowId,
    /// The nlb device that carries the VIP.
    device: u32,
    /// This machine has sent the connection's packets to the origin.
    returns: bool,
    /// How long to wait for the origin's next step.
    patience_ms: u64,
    #[pin]
    inner: Mutex<Inner>,
}

/// Nanoseconds since `begin`.
fn since(begin: u64) -> u64 {
    time::monotonic_ns().saturating_sub(begin)
}

impl Arrival {
    /// Checks all that can be checked at PREPARE, and has the connection's packets come here and
    /// wait.
    pub(super) fn admit(
        shared: &Shared,
        net: &Net,
        link: &Arc<Link>,
        entry: &Arc<Entry>,
        prepare: &Prepare<'_>,
    ) -> Result<Arc<Self>, Reason> {
        let Prepare {
            forwarder,
            flow_id,
            connection,
            ..
        } = *prepare;
        let tuple = &connection.tuple;
        if !nlb_tunnel::is_forwarder(net, forwarder) {
            return Err(Code::NotForwarder.into());
        }
        let device = nlb_tunnel::vip_device(net, tuple.vip()).ok_or(Code::VipNotHere)?;
        if !ip::is_elsewhere(net, &tuple.client()) {
            return Err(Code::ClientHere.into());
        }
        // It may come back from where its packets are sent.
        let routed = plumb::with(|plumber| plumber.routed_to(net, tuple)).flatten();
        let relayed = nlb_tunnel::relayed_to(net, tuple);
        let returns = routed.is_some() || relayed.is_some();
        let mut hosts = [routed, relayed].into_iter().flatten();
        if hosts.any(|host| host != link.peer().addr) {
            return Err(Code::RoutedThere.into());
        }
        ConnectionData::check(connection)?;
        let listener = Listener::lookup(net, connection, device)?;
        listener.check(connection)?;

        let peer = link.peer();
        let patience_ms = u64::from(prepare.timeout_ms)
            .saturating_mul(2)
            .saturating_add(GRACE_MS)
            .min(MAX_PATIENCE_MS);
        let deadline = time::boottime_ms().saturating_add(patience_ms);
        let arrival = Arc::pin_init(
            pin_init!(Arrival {
                entry: entry.clone(),
                peer: peer.clone(),
                forwarder,
                flow_id,
                device,
                returns,
                patience_ms,
                inner <- new_mutex!(
                    Inner {
                        machine: Target::new(),
                        link: Some(link.clone()),
                        incoming: Incoming::new(&shared.arrivals.staged),
                        listener: Some(listener),
                        injected: None,
                        hold: None,
                        mapped: false,
                        moment: deadline,
                    },
                    "nlb_migrator::Arrival"
                ),
            }),
            GFP_KERNEL,
        )?;
        let mut inner = arrival.inner.lock();
        // The hold comes first: a packet that is let in by the mapping has to find it.
        inner.hold = Some(shared.holds.begin(tuple).map_err(|error| {
            Reason::from(if error == EEXIST {
                Code::TupleBusy
            } else if error == ENOSPC {
                Code::TooMany
            } else {
                Code::NoMemory
            })
        })?);
        // It was here before, perhaps.
        shared.tombstones.end(tuple);
        if let Err(error) = nlb_tunnel::install_host_mapping(net, forwarder, flow_id, tuple) {
            arrival.let_go(&mut inner, shared, net);
            let otherwise = if error == EPERM {
                Code::NotForwarder
            } else if error == errno::EADDRNOTAVAIL {
                Code::VipNotHere
            } else {
                Code::Mapping
            };
            return Err(Reason::or_no_memory(error, otherwise));
        }
        inner.mapped = true;
        drop(inner);
        Ok(arrival)
    }

    pub(super) fn step(
        &self,
        shared: &Shared,
        net: &Net,
        link: Option<&Arc<Link>>,
        event: Event<'_>,
    ) {
        let mut inner = self.inner.lock();
        self.step_locked(&mut inner, shared, net, link, event);
    }

    fn step_locked(
        &self,
        inner: &mut Inner,
        shared: &Shared,
        net: &Net,
        link: Option<&Arc<Link>>,
        event: Event<'_>,
    ) {
        if let Some(link) = link {
            inner.link = Some(link.clone());
        }
        // The machine is taken out, so that the operations can use the rest.
        let mut machine = core::mem::replace(&mut inner.machine, Target::new());
        let mut arriving = Arriving {
            shared,
            net,
            arrival: self,
            inner,
        };
        let step = machine.step(&mut arriving, event);
        inner.machine = machine;
        if step == Step::Ignored {
            shared.stats.inc(Counter::RecordsIgnored);
        } else if !inner.machine.state().is_ended() {
            inner.moment = time::boottime_ms().saturating_add(self.patience_ms);
        }
    }

    /// The connection `link` to the origin is lost: drops what has not been injected over it.
    pub(super) fn link_lost(&self, shared: &Shared, net: &Net, link: &Arc<Link>) {
        let mut inner = self.inner.lock();
        if !matches!(&inner.link, Some(other) if Arc::ptr_eq(other, link)) {
            return;
        }
        inner.link = None;
        let state = inner.machine.state();
        if matches!(state, TargetState::Prepared | TargetState::Staged) {
            let event = TargetEvent::Lost(Code::OriginLost.into());
            self.step_locked(&mut inner, shared, net, None, event);
        }
    }

    pub(super) fn state(&self) -> TargetState {
        self.inner.lock().machine.state()
    }

    /// Notices the end of the connection, or that nothing has come for too long. `false` if the
    /// arrival has ended so long ago that it may be forgotten.
    pub(super) fn tidy(&self, shared: &Shared, net: &Net) -> bool {
        let mut inner = self.inner.lock();
        let now = time::boottime_ms();
        match inner.machine.state() {
            TargetState::Prepared | TargetState::Staged => {
                if let Some(hold) = &inner.hold {
                    hold.expire(&shared.stats);
                }
                if now > inner.moment {
                    let event = TargetEvent::Lost(Code::OriginSilent.into());
                    self.step_locked(&mut inner, shared, net, None, event);
                }
            }
            TargetState::Active => {
                let is_closed = inner
                    .injected
                    .as_ref()
                    .is_none_or(|child| child.is_closed());
                if is_closed && !self.has_moved_on(net) {
                    self.step_locked(&mut inner, shared, net, None, TargetEvent::Gone);
                }
            }
            TargetState::Closed | TargetState::Refused | TargetState::Aborted => {
                let ago = now.saturating_sub(inner.moment);
                let remembered = ago <= REMEMBER_MS.max(self.patience_ms);
                // Of what did not come, packets are dropped for as long as the origin may send them here:
                // until it has heard of that, or resets the connection. A RST would end it.
                let closed = inner.machine.state() == TargetState::Closed;
                if !remembered || (closed && ago > LINGER_MS) {
                    self.let_go(&mut inner, shared, net);
                }
                return remembered;
            }
        }
        true
    }

    /// Whether a connection whose socket was closed here lives elsewhere, or here by another migration, and its
    /// packets still come by the mapping.
    fn has_moved_on(&self, net: &Net) -> bool {
        let tuple = &self.entry.tuple;
        !nlb_tunnel::is_gone(net, self.forwarder, self.flow_id, tuple)
            && (nlb_tunnel::relayed_to(net, tuple).is_some()
                || tuple_in_use(net, tuple, self.device))
    }

    /// Lets go of everything; a connection that lives here goes on.
    pub(super) fn clear(&self, shared: &Shared, net: &Net) {
        let mut inner = self.inner.lock();
        self.let_go(&mut inner, shared, net);
        inner.incoming.clear();
        inner.listener = None;
        inner.injected = None;
        inner.link = None;
    }

    /// Gives back mapping and hold.
    fn let_go(&self, inner: &mut Inner, shared: &Shared, net: &Net) {
        if core::mem::take(&mut inner.mapped) {
            nlb_tunnel::remove_host_mapping(net, self.forwarder, self.flow_id, &self.entry.tuple);
        }
        if let Some(hold) = inner.hold.take() {
            shared.holds.refuse(&hold, &shared.stats);
            shared.holds.end(&hold);
        }
    }
}

pub(super) type Event<'a> = TargetEvent<Piece<'a>, Reason>;

/// The operations of the target's machine.
struct Arriving<'a> {
    shared: &'a Shared,
    net: &'a Net,
    arrival: &'a Arrival,
    inner: &'a mut Inner,
}

impl Arriving<'_> {
    fn unmap(&mut self) {
        if core::mem::take(&mut self.inner.mapped) {
            nlb_tunnel::remove_host_mapping(
                self.net,
                self.arrival.forwarder,
                self.arrival.flow_id,
                &self.arrival.entry.tuple,
            );
        }
    }

    /// Injects by the listener of PREPARE or, if that was closed meanwhile, by the present one.
    fn child(&mut self) -> Result<(Injected, u64), Reason> {
        let begin = time::monotonic_ns();
        let device = self.arrival.device;
        let Incoming {
            state: Some(state),
            data,
            took_ns,
            ..
        } = &mut self.inner.incoming
        else {
            return Err(Code::NoState.into());
        };
        if data.len() != state.data_len() {
            return Err(Code::NoState.into());
        }
        let listener = match self.inner.listener.take() {
            Some(listener) if listener.is_listening() => listener,
            _ => Listener::lookup(self.net, state, device)?,
        };
        let injected = listener.inject(state, data, device, begin)?;
        Ok((injected, took_ns.saturating_add(since(begin))))
    }
}

impl<'a> TargetOps for Arriving<'a> {
    type Chunk = Piece<'a>;
    type Reason = Reason;

    fn take(&mut self, piece: Piece<'a>) -> Result<bool, Reason> {
        let Piece {
            state: piece,
            began,
        } = piece;
        let inner = &mut *self.inner;
        let incoming = &mut inner.incoming;
        match (&mut incoming.state, piece.connection) {
            (slot @ None, Some(state)) => {
                if state.tuple != self.arrival.entry.tuple {
                    return Err(Code::OtherTuple.into());
                }
                ConnectionData::check(state)?;
                *slot = Some(*state);
            }
            (Some(state), None) if state.data_len() == piece.total => {}
            _ => return Err(Code::BadState.into()),
        }
        // The record itself says that the piece does not reach beyond the total.
        if piece.offset != incoming.data.len() {
            return Err(Code::BadState.into());
        }
        incoming.push(piece.data)?;
        if incoming.data.len() != piece.total {
            incoming.took_ns = incoming.took_ns.saturating_add(since(began));
            return Ok(false);
        }
        let state = incoming.state.as_ref().ok_or(Code::Internal)?;
        let listener = inner.listener.as_ref().ok_or(Code::Internal)?;
        listener.check(state)?;
        let unread = u64::from(state.unread_len());
        incoming.took_ns = incoming.took_ns.saturating_add(since(began));
        self.arrival.entry.update(|info| info.unread_bytes = unread);
        Ok(true)
    }

    fn inject(&mut self) -> Result<(), Reason> {
        self.arrival
            .entry
            .update(|info| info.phase = Phase::Committed);
        let (injected, inject_ns) = self.child()?;
        self.inner.incoming.clear();
        self.inner.injected = Some(injected);
        if self.arrival.returns {
            let (tuple, origin) = (&self.arrival.entry.tuple, self.arrival.peer.addr);
            plumb::with(|plumber| plumber.returned(self.net, tuple, origin));
            nlb_tunnel::end_relay_to(self.net, tuple, origin);
        }
        let held = match self.inner.hold.take() {
            Some(hold) => self
                .shared
                .holds
                .deliver(&hold, self.net, &self.shared.stats),
            None => 0,
        };
        self.arrival.entry.update(|info| {
            info.inject_ns = inject_ns;
            info.held_packets = held;
        });
        Ok(())
    }

    fn forget(&mut self) {
        self.inner.incoming.clear();
        self.inner.listener = None;
        // It stays for a while to swallow what is on its way, and so does the mapping, which the
        // forwarder would teach this machine again; see `Arrivals::tidy`.
        if let Some(hold) = &self.inner.hold {
            self.shared.holds.refuse(hold, &self.shared.stats);
        }
    }

    fn kill(&mut self) {
        if let Some(injected) = self.inner.injected.take() {
            // Another connection with these addresses may be on its way here if this one has ended.
            if !injected.is_closed() {
                let tuple = &self.arrival.entry.tuple;
                self.shared.tombstones.killed(tuple, &self.shared.stats);
            }
            injected.abort_silently();
        }
        self.unmap();
    }

    fn ended(&mut self) {
        self.inner.injected = None;
        // The mapping lingers; see `Arrivals::tidy`.
    }

    fn answer(&mut self, answer: Answer<'_, Reason>) {
        let id = self.arrival.entry.id;
        let record = match answer {
            Answer::Ready => Record::Ready,
            Answer::Staged => Record::Staged,
            Answer::Injected => {
                let info = self.arrival.entry.info();
                Record::Injected {
                    inject_ns: info.inject_ns,
                    held: u32::try_from(info.held_packets).unwrap_or(u32::MAX),
                }
            }
            Answer::Refused(reason) => Record::Refused(reason.as_record()),
            Answer::Failed(reason) => Record::Failed(reason.as_record()),
            Answer::Aborted => Record::Aborted,
            Answer::Closed => Record::Closed,
        };
        // The connection it came over or, if that is gone, any other from the same origin. If there
        // is none, the end is told when the origin connects again.
        let link = match &self.inner.link {
            Some(link) if link.is_up() => Some(link.clone()),
            // Looked up anew: the peer may have been removed and added again.
            _ => {
                let peer = self.shared.peers.find(self.arrival.entry.peer);
                peer.and_then(|peer| peer.inbound())
            }
        };
        if let Some(link) = link {
            let _ = link.send(&self.shared.stats, id, &record);
            self.inner.link = Some(link);
        }
    }

    fn entered(&mut self, state: TargetState, reason: Option<&Reason>) {
        let phase = match state {
            TargetState::Prepared => Phase::Prepared,
            TargetState::Staged => Phase::Staged,
            TargetState::Active => Phase::Active,
            TargetState::Closed => Phase::Closed,
            TargetState::Refused => Phase::Refused,
            TargetState::Aborted => Phase::Aborted,
        };
        let entry = &self.arrival.entry;
        entry.update(|info| {
            info.phase = phase;
            if reason.is_some() {
                info.reason = reason.copied();
            }
            if info.total_ns == 0 && (phase == Phase::Active || state.is_ended()) {
                info.total_ns = entry.elapsed_ns();
            }
        });
        let counter = match state {
            TargetState::Active => Counter::InActive,
            TargetState::Closed => Counter::InClosed,
            TargetState::Refused => Counter::InRefused,
            TargetState::Aborted => Counter::InAborted,
            TargetState::Prepared | TargetState::Staged => return,
        };
        self.shared.stats.inc(counter);
        match state {
            TargetState::Active => self.arrival.peer.migrations_in.add(1, Relaxed),
            TargetState::Refused => self.arrival.peer.refused.add(1, Relaxed),
            _ => {}
        }
        if state.is_ended() {
            self.inner.moment = time::boottime_ms();
            self.shared.registry.end(entry);
        }
        netlink::notify(self.net, entry);
    }
}
