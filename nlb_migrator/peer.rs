// SPDX-License-Identifier: GPL-2.0

//! The machines that connections may go to and come from.

use crate::{
    auth::{
        Keys,
        Refused, //
    },
    reason::Reason,
    transport::Link,
    uapi::PeerState, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        Arc,
        Mutex, //
    },
};
use nlb::{
    completion::Completion,
    net::socket::{
        auth::Key,
        Socket, //
    },
    time,
    wire::addr::Addr, //
};

/// Peers of a namespace.
const MAX_PEERS: usize = 256;

/// Connections a peer may have open to us: one is normal, more only for a moment after a restart.
const MAX_INBOUND: u32 = 4;

/// Ends of migrations that a peer has not been told of for certain.
const MAX_ABORTS: usize = 1024;

/// An attempt to connect: callers wait for `done`, `socket` is there to break it off.
#[derive(Clone)]
pub(crate) struct Attempt {
    pub(crate) done: Arc<Completion>,
    pub(crate) socket: Arc<Socket>,
}

/// Our own connection to a peer.
pub(crate) enum Outbound {
    /// There is none and none was asked for.
    Idle,
    /// It is being set up.
    Connecting(Attempt),
    /// It can be used.
    Up(Arc<Link>),
    /// The last attempt failed.
    Failed(Reason),
}

/// A migration of which the peer is to be told that it is over.
struct OwedAbort {
    id: u64,
    /// The number of the connection over which that was done last; 0 for none.
    told_over: u64,
}

/// A configured peer.
#[pin_data]
pub(crate) struct Peer {
    /// Place in the order of configuration, the key of a dump.
    index: u64,
    pub(crate) addr: Addr,
    pub(crate) port: u16,
    #[pin]
    pub(crate) keys: Keys,
    removed: Atomic<bool>,
    pub(crate) migrations_out: Atomic<u64>,
    pub(crate) migrations_in: Atomic<u64>,
    pub(crate) refused: Atomic<u64>,
    pub(crate) bad_records: Atomic<u64>,
    /// Connections handed over that live there; while there are any, we stay connected to hear of
    /// their end.
    pub(crate) alive: Atomic<u32>,
    /// Boot time in milliseconds before which a lost connection is not set up again.
    pub(crate) retry_at: Atomic<u64>,
    /// The connection of ours over which the peer was last asked about connections that live there.
    pub(crate) asked_over: Atomic<u64>,
    /// The number of the peer's present life, by its last HELLO.
    pub(crate) nonce: Atomic<u64>,
    /// Connections from the peer that are being served.
    slots: Atomic<u32>,
    #[pin]
    pub(crate) outbound: Mutex<Outbound>,
    #[pin]
    inbound: Mutex<KVec<Arc<Link>>>,
    /// Connections that were reset because nobody knew whether the peer had them. It is told until it
    /// has answered, or it would keep them for ever.
    #[pin]
    aborts: Mutex<KVec<OwedAbort>>,
}

impl Peer {
    fn new(index: u64, addr: Addr, port: u16, key: Option<Key>) -> Result<Arc<Self>> {
        Arc::pin_init(
            try_pin_init!(Peer {
                index,
                addr,
                port,
                keys <- Keys::new(*addr, key),
                removed: Atomic::new(false),
                migrations_out: Atomic::new(0),
                migrations_in: Atomic::new(0),
                refused: Atomic::new(0),
                bad_records: Atomic::new(0),
                alive: Atomic::new(0),
                retry_at: Atomic::new(0),
                asked_over: Atomic::new(0),
                nonce: Atomic::new(0),
                slots: Atomic::new(0),
                outbound <- new_mutex!(Outbound::Idle, "nlb_migrator::Peer::outbound"),
                inbound <- new_mutex!(KVec::new(), "nlb_migrator::Peer::inbound"),
                aborts <- new_mutex!(KVec::new(), "nlb_migrator::Peer::aborts"),
            }? Error),
            GFP_KERNEL,
        )
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Acquire)
    }

    /// Takes note of a connection the peer has opened. `false` if the peer has been removed
    /// meanwhile.
    pub(crate) fn add_inbound(&self, link: &Arc<Link>) -> Result<bool> {
        let mut inbound = self.inbound.lock();
        if self.is_removed() {
            return Ok(false);
        }
        inbound.push(link.clone(), GFP_KERNEL)?;
        Ok(true)
    }

    pub(crate) fn remove_inbound(&self, link: &Arc<Link>) {
        self.inbound
            .lock()
            .retain(|other| !Arc::ptr_eq(other, link));
    }

    /// The youngest connection that the peer has opened.
    pub(crate) fn inbound(&self) -> Option<Arc<Link>> {
        let inbound = self.inbound.lock();
        let mut links = inbound.iter().rev();
        links.find(|link| link.is_up()).cloned()
    }

    /// Remembers to tell the peer that a migration is over.
    pub(crate) fn owe_abort(&self, id: u64) {
        let mut aborts = self.aborts.lock();
        if aborts.len() >= MAX_ABORTS {
            let _ = aborts.remove(0);
        }
        // Without memory, the peer's connection lives until the client is found gone.
        let _ = aborts.push(OwedAbort { id, told_over: 0 }, GFP_KERNEL);
    }

    /// The peer knows that a migration is over.
    pub(crate) fn aborted(&self, id: u64) {
        self.aborts.lock().retain(|owed| owed.id != id);
    }

    /// A migration that the peer is to be told of, and was not over the connection with this number.
    pub(crate) fn owed_abort(&self, link: u64) -> Option<u64> {
        let aborts = self.aborts.lock();
        let owed = aborts.iter().find(|owed| owed.told_over != link)?;
        Some(owed.id)
    }

    /// It was told over that connection.
    pub(crate) fn told_abort(&self, id: u64, link: u64) {
        let mut aborts = self.aborts.lock();
        if let Some(owed) = aborts.iter_mut().find(|owed| owed.id == id) {
            owed.told_over = link;
        }
    }

    /// Our own connection to the peer.
    pub(crate) fn link(&self) -> Option<Arc<Link>> {
        match &*self.outbound.lock() {
            Outbound::Up(link) => Some(link.clone()),
            _ => None,
        }
    }

    pub(crate) fn state(&self) -> PeerState {
        let outbound = match &*self.outbound.lock() {
            Outbound::Up(link) if link.is_up() => return PeerState::Up,
            Outbound::Connecting(_) => PeerState::Connecting,
            Outbound::Failed(_) => PeerState::Failed,
            Outbound::Up(_) | Outbound::Idle => PeerState::Idle,
        };
        if self.inbound().is_some() {
            PeerState::Up
        } else {
            outbound
        }
    }

    /// Breaks off all connections, for good.
    fn close(&self) {
        {
            let inbound = self.inbound.lock();
            self.removed.store(true, Release);
            inbound.iter().for_each(|link| link.close());
        }
        match &*self.outbound.lock() {
            Outbound::Up(link) => link.close(),
            Outbound::Connecting(attempt) => attempt.socket.shutdown(),
            Outbound::Idle | Outbound::Failed(_) => {}
        }
        self.keys.close();
    }

    /// Whether a lost connection should be set up again now.
    pub(crate) fn wants_reconnect(&self) -> bool {
        !self.is_removed()
            && (self.alive.load(Relaxed) > 0 || !self.aborts.lock().is_empty())
            && time::boottime_ms() >= self.retry_at.load(Relaxed)
            && matches!(&*self.outbound.lock(), Outbound::Idle | Outbound::Failed(_))
    }
}

/// Takes note of a connection with a peer (see [`Keys`]) for as long as it is served.
pub(crate) struct Noted {
    peer: Arc<Peer>,
    socket: Arc<Socket>,
}

impl Noted {
    /// A socket that is to be connected to the peer; it gets the peer's keys.
    pub(crate) fn outgoing(peer: &Arc<Peer>, socket: &Arc<Socket>) -> Result<Self> {
        peer.keys.dress(socket)?;
        Ok(Self {
            peer: peer.clone(),
            socket: socket.clone(),
        })
    }

    /// A connection from the peer that `listener` has accepted; `None` if it has not the peer's
    /// keys.
    pub(crate) fn incoming(
        peer: &Arc<Peer>,
        listener: &Socket,
        socket: &Arc<Socket>,
    ) -> Result<Option<Self>> {
        let good = peer.keys.admit(listener, socket)?;
        Ok(good.then(|| Self {
            peer: peer.clone(),
            socket: socket.clone(),
        }))
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.peer.keys.forget(&self.socket);
    }
}

/// The right to serve a connection from a peer.
pub(crate) struct Slot(Arc<Peer>);

impl Slot {
    /// `None` if there are too many connections already.
    pub(crate) fn take(peer: &Arc<Peer>) -> Option<Self> {
        let before = peer.slots.fetch_add(1, Relaxed);
        // Given back when dropped.
        let slot = Self(peer.clone());
        (before < MAX_INBOUND).then_some(slot)
    }

    pub(crate) fn peer(&self) -> &Arc<Peer> {
        &self.0
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let _ = self.0.slots.fetch_sub(1, Relaxed);
    }
}

/// Why a peer was not added.
pub(crate) enum AddError {
    Exists,
    TooMany,
    /// Its key cannot be used.
    Key(Refused),
}

impl From<Refused> for AddError {
    fn from(refused: Refused) -> Self {
        Self::Key(refused)
    }
}

struct Inner {
    list: KVec<Arc<Peer>>,
    next: u64,
    generation: u32,
}

/// The peers of a namespace.
#[pin_data]
pub(crate) struct Peers {
    #[pin]
    inner: Mutex<Inner>,
}

impl Peers {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- new_mutex!(
                Inner {
                    list: KVec::new(),
                    next: 1,
                    generation: 1,
                },
                "nlb_migrator::Peers"
            ),
        })
    }

    /// Adds a peer; without a key it is not authenticated. The key goes on the listener before
    /// anybody can find the peer.
    pub(crate) fn add(
        &self,
        listener: &Socket,
        addr: Addr,
        port: u16,
        key: Option<Key>,
    ) -> Result<(), AddError> {
        let mut inner = self.inner.lock();
        if inner.list.iter().any(|other| other.addr == addr) {
            return Err(AddError::Exists);
        }
        if inner.list.len() >= MAX_PEERS {
            return Err(AddError::TooMany);
        }
        inner.list.reserve(1, GFP_KERNEL).map_err(Refused::from)?;
        let index = inner.next;
        let peer = Peer::new(index, addr, port, key).map_err(Refused::from)?;
        peer.keys.install(listener)?;
        inner
            .list
            .push_within_capacity(peer)
            .map_err(|_| Refused::NoMemory)?;
        inner.next = index.wrapping_add(1);
        inner.generation = inner.generation.wrapping_add(1);
        Ok(())
    }

    /// Removes a peer and breaks off its connections.
    pub(crate) fn remove(&self, addr: Addr) -> Option<Arc<Peer>> {
        let mut inner = self.inner.lock();
        let place = inner.list.iter().position(|peer| peer.addr == addr)?;
        let peer = inner.list.remove(place).ok()?;
        inner.generation = inner.generation.wrapping_add(1);
        drop(inner);
        peer.close();
        Some(peer)
    }

    /// Whether all peers of a family have keys; `None` if there are no such peers.
    pub(crate) fn authenticate(&self, v4: bool) -> Option<bool> {
        let inner = self.inner.lock();
        let peers = inner.list.iter().filter(|peer| peer.addr.is_v4() == v4);
        peers
            .map(|peer| peer.keys.authenticate())
            .reduce(|all, one| all && one)
    }

    /// Takes note that a peer has changed: a dump that is under way may miss it.
    pub(crate) fn changed(&self) {
        let mut inner = self.inner.lock();
        inner.generation = inner.generation.wrapping_add(1);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.inner.lock().list.is_empty()
    }

    pub(crate) fn find(&self, addr: Addr) -> Option<Arc<Peer>> {
        let inner = self.inner.lock();
        inner.list.iter().find(|peer| peer.addr == addr).cloned()
    }

    /// The first peer whose place is `index` or later, and the place to go on at.
    pub(crate) fn first_from(&self, index: u64) -> Option<(Arc<Peer>, u64)> {
        let inner = self.inner.lock();
        let peer = inner.list.iter().find(|peer| peer.index >= index)?;
        Some((peer.clone(), peer.index.wrapping_add(1)))
    }

    pub(crate) fn generation(&self) -> u32 {
        self.inner.lock().generation
    }

    /// Breaks off all connections of all peers.
    pub(crate) fn close_all(&self) {
        let mut next = 0;
        while let Some((peer, after)) = self.first_from(next) {
            peer.close();
            next = after;
        }
    }
}
