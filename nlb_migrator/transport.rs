// SPDX-License-Identifier: GPL-2.0

//! Connections between migrators: framed records over kernel TCP sockets, port 4770.
//!
//! A connection has roles: who opened it is the origin of the migrations that run over it, who
//! accepted it is the target. Two machines that migrate both ways have two connections. Each side
//! says HELLO first. A record that does not parse, or that its sender has no business to send,
//! closes the connection it came over, and nothing else.

mod hello;
mod link;

pub(crate) use self::link::{
    Link,
    Use, //
};

use crate::{
    log::warn_limited,
    machine::OriginEvent,
    peer::{
        Attempt,
        Noted,
        Outbound,
        Peer,
        Slot, //
    },
    reason::{
        Code,
        Reason, //
    },
    state::Shared,
    stats::Counter, //
};
use core::net::{
    Ipv6Addr,
    SocketAddr, //
};
use hello::hello;
use kernel::{
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    },
};
use nlb::{
    bytes,
    completion::Completion,
    errno,
    net::{
        socket::{
            Socket,
            SocketFamily, //
        },
        Net, //
    },
    time,
    wire::{
        addr::Addr,
        record::{
            self,
            ConnectionState,
            Header,
            Record,
            HEADER_LEN,
            MAX_PAYLOAD, //
        }, //
    },
};

/// How long TCP may try to connect.
const CONNECT_MS: u32 = 5000;
/// How long the other side may take for its HELLO, and for the rest of a record it has begun.
const RECORD_MS: u32 = 5000;
/// How long a peer may be told each second what it has missed.
const CATCH_UP_MS: u64 = 500;
/// Time between two attempts to set up a lost connection again.
const RETRY_MS: u64 = 2000;

/// Why a connection is given up.
enum End {
    /// The other side closed it, it broke, or we closed it.
    Lost,
    /// A record did not parse, or was not the sender's to send.
    Bad,
    /// One side cannot talk to the other.
    Refused(Reason),
    /// The namespace ends.
    Stopping,
}

/// Reads the next record into `payload` and returns its header; `idle`: nothing has to come.
fn read_record(
    shared: &Shared,
    link: &Link,
    payload: &mut KVVec<u8>,
    idle: bool,
) -> Result<Header, End> {
    let mut head = [0; HEADER_LEN];
    loop {
        match link.socket.recv_exact(&mut head) {
            Ok(true) => break,
            Err(EAGAIN) if idle => {}
            // Cut in the middle: what came is no record.
            Err(error) if error == errno::ECONNABORTED || error == ETIMEDOUT => {
                return Err(End::Bad);
            }
            Ok(false) | Err(_) => return Err(End::Lost),
        }
    }
    let header = Header::parse(&head).map_err(|error| report(shared, link, error))?;
    bytes::set_zeros(payload, header.payload_len()).map_err(|_| End::Lost)?;
    if !payload.is_empty() {
        match link.socket.recv_exact(payload) {
            Ok(true) => {}
            // We have closed it.
            Err(_) if !link.is_up() => return Err(End::Lost),
            Ok(false) | Err(_) => return Err(End::Bad),
        }
    }
    Ok(header)
}

/// Checks and decodes what [`read_record`] has read.
fn decode<'a>(
    shared: &Shared,
    link: &Link,
    header: &Header,
    payload: &'a [u8],
    room: &'a mut Option<ConnectionState>,
) -> Result<Record<'a>, End> {
    let record = Record::decode(header, payload, room);
    let record = record.map_err(|error| report(shared, link, error))?;
    shared.stats.inc(Counter::RecordsIn);
    Ok(record)
}

fn report(shared: &Shared, link: &Link, error: record::Error) -> End {
    warn_limited!(
        shared.log,
        "peer {}: bad record ({}), connection closed\n",
        link.peer.addr,
        error
    );
    End::Bad
}

/// Books the end of a connection.
fn book(shared: &Shared, link: &Link, end: &End) {
    if matches!(end, End::Bad) {
        shared.stats.inc(Counter::BadRecords);
        link.peer.bad_records.add(1, Relaxed);
    }
}

/// Settings of every connection: small records at once, and no waiting for a dead machine.
fn set_up(socket: &Socket) {
    socket.set_nodelay();
    socket.set_recv_timeout(RECORD_MS);
    // Without them a dead machine is noticed later; that is all.
    let _ = socket.set_keepalive(10, 5, 3);
    let _ = socket.set_user_timeout(10_000);
}

/// A buffer for the payload of any record.
fn buffer() -> Result<KVVec<u8>> {
    Ok(KVVec::with_capacity(MAX_PAYLOAD, GFP_KERNEL)?)
}

/// Handles records until the connection ends; `handle` is also told when decoding began, in
/// nanoseconds of CLOCK_MONOTONIC.
fn serve(
    shared: &Shared,
    link: &Arc<Link>,
    payload: &mut KVVec<u8>,
    mut handle: impl FnMut(&Net, u64, &Record<'_>, u64) -> Result<(), End>,
) -> End {
    let mut room = None;
    loop {
        let mut step = || -> Result<(), End> {
            let header = read_record(shared, link, payload, true)?;
            let began = time::monotonic_ns();
            let record = decode(shared, link, &header, payload, &mut room)?;
            match record {
                Record::Ping(number) => link
                    .send(&shared.stats, 0, &Record::Pong(number))
                    .map_err(|_| End::Lost),
                Record::Pong(_) => Ok(()),
                // About no migration, but about the connection.
                Record::Refused(reason) if header.id() == 0 => {
                    let reason = Reason::from_peer(reason.code, reason.text);
                    let text = reason.text();
                    warn_limited!(shared.log, "peer {}: {}\n", link.peer.addr, text.as_str());
                    Err(End::Refused(reason))
                }
                // By reference: a record is large.
                _ => {
                    let net = shared.weak.upgrade().ok_or(End::Stopping)?;
                    handle(&net, header.id(), &record, began)
                }
            }
        };
        if let Err(end) = step() {
            return end;
        }
    }
}

/// A connection from a peer: we are the target.
fn inbound(shared: &Arc<Shared>, peer: &Arc<Peer>, socket: &Arc<Socket>) {
    set_up(socket);
    let (Ok(link), Ok(mut payload)) = (Link::new(shared, peer, socket), buffer()) else {
        return;
    };
    if let Err(end) = hello(shared, &link, &mut payload) {
        return book(shared, &link, &end);
    }
    if !matches!(peer.add_inbound(&link), Ok(true)) {
        return;
    }
    shared.arrivals.link_up(shared, &link);
    let end = serve(shared, &link, &mut payload, |net, id, record, began| {
        if shared
            .arrivals
            .deliver(shared, net, &link, id, record, began)
        {
            Ok(())
        } else {
            Err(End::Bad)
        }
    });
    book(shared, &link, &end);
    link.close();
    peer.remove_inbound(&link);
    if let Some(net) = shared.weak.upgrade() {
        shared.arrivals.link_lost(shared, &net, &link);
    }
}

/// Takes a connection that came in at the port.
pub(crate) fn accept(shared: &Arc<Shared>, listener: &Socket, socket: Socket) {
    let peer = match socket.peer_addr() {
        Ok(SocketAddr::V4(addr)) => shared.peers.find(Addr::from(*addr.ip())),
        Ok(SocketAddr::V6(addr)) => shared.peers.find(Addr::from(*addr.ip())),
        Err(_) => None,
    };
    // Whoever is no peer is told nothing.
    let Some(peer) = peer else {
        return shared.stats.inc(Counter::StrangersRejected);
    };
    let Some(slot) = Slot::take(&peer) else {
        return shared.stats.inc(Counter::LinksRejected);
    };
    let Ok(socket) = Arc::new(socket, GFP_KERNEL) else {
        return;
    };
    let noted = match Noted::incoming(&peer, listener, &socket) {
        Ok(Some(noted)) => noted,
        Ok(None) => return shared.stats.inc(Counter::StaleRejected),
        Err(_) => return shared.stats.inc(Counter::LinksRejected),
    };
    let ours = shared.clone();
    let spawned = shared.sessions.spawn(
        format_args!("nlb-in/{}", peer.addr),
        socket,
        move |socket, _| {
            let _noted = noted;
            inbound(&ours, slot.peer(), socket);
        },
    );
    if spawned.is_err() {
        shared.stats.inc(Counter::LinksRejected);
    }
}

/// Our connection to a peer, from the attempt to its end: we are the origin.
fn outbound(shared: &Arc<Shared>, peer: &Arc<Peer>, socket: &Arc<Socket>) {
    let mut payload = match buffer() {
        Ok(payload) => payload,
        Err(_) => return fail(peer, Code::NoMemory.into()),
    };
    let link = match open(shared, peer, socket, &mut payload) {
        Ok(link) => link,
        Err(reason) => return fail(peer, reason),
    };
    let end = serve(shared, &link, &mut payload, |net, id, record, _| {
        let event = match *record {
            Record::Ready => OriginEvent::Ready,
            Record::Staged => OriginEvent::Staged,
            Record::Injected { inject_ns, held } => {
                shared.transfers.injected(id, inject_ns, held);
                OriginEvent::Injected
            }
            Record::Closed => OriginEvent::Closed,
            Record::Refused(reason) => {
                OriginEvent::Refused(Reason::from_target(reason.code, reason.text))
            }
            Record::Failed(reason) => {
                OriginEvent::Failed(Reason::from_target(reason.code, reason.text))
            }
            Record::Aborted => {
                peer.aborted(id);
                return Ok(());
            }
            _ => return Err(End::Bad),
        };
        shared.transfers.deliver(shared, net, peer, id, event);
        Ok(())
    });
    book(shared, &link, &end);
    // First nothing can be sent any more, then those who wait are told: so nobody begins to wait.
    link.close();
    peer.retry_at
        .store(time::boottime_ms().saturating_add(RETRY_MS), Relaxed);
    {
        let mut outbound = peer.outbound.lock();
        // Another attempt may have begun already.
        if matches!(&*outbound, Outbound::Up(current) if Arc::ptr_eq(current, &link)) {
            *outbound = match end {
                End::Refused(reason) => Outbound::Failed(reason),
                _ => Outbound::Idle,
            };
        }
    }
    if let Some(net) = shared.weak.upgrade() {
        shared.transfers.link_lost(shared, &net, link.id());
    }
}

/// Ends an attempt to connect without a connection.
fn fail(peer: &Peer, reason: Reason) {
    peer.retry_at
        .store(time::boottime_ms().saturating_add(RETRY_MS), Relaxed);
    finish(peer, Outbound::Failed(reason));
}

/// Ends an attempt to connect and wakes those who wait for it.
fn finish(peer: &Peer, result: Outbound) {
    let old = core::mem::replace(&mut *peer.outbound.lock(), result);
    if let Outbound::Connecting(attempt) = old {
        attempt.done.complete_all();
    }
}

/// Connects, exchanges HELLO, and makes the connection known.
fn open(
    shared: &Arc<Shared>,
    peer: &Arc<Peer>,
    socket: &Arc<Socket>,
    payload: &mut KVVec<u8>,
) -> Result<Arc<Link>, Reason> {
    let ip = Ipv6Addr::from(*peer.addr.as_bytes()).to_canonical();
    let addr = SocketAddr::new(ip, peer.port);
    socket.connect(addr, CONNECT_MS).map_err(|error| {
        if error == ETIMEDOUT && peer.keys.authenticate() {
            // Wrong signatures are not answered.
            return Reason::with_detail(Code::Unreachable, fmt!("no answer, do the keys agree?"));
        }
        Reason::unreachable(error)
    })?;
    set_up(socket);
    let link = Link::new(shared, peer, socket)?;
    let nonce = hello(shared, &link, payload).map_err(|end| {
        book(shared, &link, &end);
        match end {
            End::Refused(reason) => reason,
            _ => Code::LinkLost.into(),
        }
    })?;
    peer.nonce.store(nonce, Relaxed);
    finish(peer, Outbound::Up(link.clone()));
    if peer.is_removed() {
        link.close();
    }
    if let Some(net) = shared.weak.upgrade() {
        shared.transfers.peer_restarted(shared, &net, peer, nonce);
    }
    Ok(link)
}

/// Begins to connect to a peer, unless that is done already.
fn begin(shared: &Arc<Shared>, peer: &Arc<Peer>, net: &Net) -> Result<Attempt, Reason> {
    let done = Arc::pin_init(Completion::new(), GFP_KERNEL)?;
    let family = SocketFamily::of(&peer.addr);
    let socket = Arc::new(Socket::tcp(net, family)?, GFP_KERNEL)?;
    let noted = Noted::outgoing(peer, &socket)?;
    let attempt = Attempt {
        done,
        socket: socket.clone(),
    };
    {
        let mut outbound = peer.outbound.lock();
        match &*outbound {
            Outbound::Connecting(other) => return Ok(other.clone()),
            // Another caller's attempt has just come to its end.
            Outbound::Up(link) if link.is_usable() => {
                attempt.done.complete_all();
                return Ok(attempt);
            }
            _ => {}
        }
        if peer.is_removed() {
            return Err(Code::PeerRemoved.into());
        }
        *outbound = Outbound::Connecting(attempt.clone());
    }
    let (ours, theirs) = (shared.clone(), peer.clone());
    let spawned = shared.sessions.spawn(
        format_args!("nlb-out/{}", peer.addr),
        socket,
        move |socket, _| {
            let _noted = noted;
            outbound(&ours, &theirs, socket);
        },
    );
    if let Err(error) = spawned {
        fail(peer, error.into());
    }
    Ok(attempt)
}

/// The connection to `peer`, set up now if there is none.
pub(crate) fn connect(
    shared: &Arc<Shared>,
    peer: &Arc<Peer>,
    net: &Net,
    timeout_ms: u32,
) -> Result<Use, Reason> {
    let begin_ms = time::boottime_ms();
    loop {
        if let Some(link) = peer.link().and_then(|link| link.take()) {
            return Ok(link);
        }
        let attempt = begin(shared, peer, net)?;
        let waited =
            u32::try_from(time::boottime_ms().saturating_sub(begin_ms)).unwrap_or(u32::MAX);
        match attempt
            .done
            .wait_killable_timeout(timeout_ms.saturating_sub(waited))
        {
            Ok(true) => {}
            Ok(false) => return Err(Reason::with_detail(Code::Unreachable, fmt!("no answer"))),
            Err(_) => return Err(Code::Interrupted.into()),
        }
        if let Outbound::Failed(reason) = &*peer.outbound.lock() {
            return Err(*reason);
        }
        // It is there, unless it is lost already.
        if waited >= timeout_ms && !peer.link().is_some_and(|link| link.is_usable()) {
            return Err(Code::LinkLost.into());
        }
    }
}

/// Once for each connection to `peer`: tells it again what migrations are over for it, and asks about the
/// connections that have lived there since before.
pub(crate) fn catch_up(shared: &Shared, peer: &Peer) {
    let Some(link) = peer.link().filter(|link| link.is_up()) else {
        return;
    };
    // Others wait for this thread. What there is no time for is done next time.
    let by_ms = time::monotonic_ms().saturating_add(CATCH_UP_MS);
    while let Some(id) = peer.owed_abort(link.id()) {
        let sent = link.send_by(&shared.stats, by_ms, id, &Record::Abort);
        if sent.is_err() {
            return;
        }
        peer.told_abort(id, link.id());
    }
    if peer.asked_over.load(Relaxed) != link.id()
        && matches!(shared.transfers.ask_about_living(shared, &link), Ok(true))
    {
        peer.asked_over.store(link.id(), Relaxed);
    }
}

/// Sets up again a connection that is needed to hear of the end of connections.
pub(crate) fn reconnect(shared: &Arc<Shared>, peer: &Arc<Peer>, net: &Net) {
    if peer.wants_reconnect() {
        // Tried again later.
        let _ = begin(shared, peer, net);
    }
}
