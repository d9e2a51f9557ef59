// SPDX-License-Identifier: GPL-2.0

//! Keys of a peer (TCP-AO), and the sockets they have to be on.
//!
//! A key is in three sorts of places: in the peer's list, on the listener, and on each connection
//! with the peer. All of them change under the lock of the list, and a connection is entered under
//! it as well, so no connection misses a change. What has a peer that shall not be authenticated is
//! an empty list.

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};
use nlb::{
    net::socket::{
        auth::{
            Algorithm,
            Counters,
            Key, //
        },
        Socket, //
    },
    wire::addr::Addr, //
};

/// Keys of a peer. Two are enough for a rotation.
const MAX_KEYS: usize = 8;

/// Why keys were not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// No such key.
    Unknown,
    /// Another key of the peer has the id for what is sent.
    SendId,
    /// Another key of the peer has the id for what is received.
    RecvId,
    /// The peer has [`MAX_KEYS`].
    TooMany,
    /// It is the peer's last key.
    Last,
    /// An allocation failed, or the listener has no room for the key.
    NoMemory,
    /// The kernel.
    Other(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        if error == ENOMEM {
            Self::NoMemory
        } else {
            Self::Other(error)
        }
    }
}

impl From<kernel::alloc::AllocError> for Refused {
    fn from(_: kernel::alloc::AllocError) -> Self {
        Self::NoMemory
    }
}

/// What can be seen of a key.
#[derive(Clone, Copy)]
pub(crate) struct Shown {
    pub(crate) send_id: u8,
    pub(crate) recv_id: u8,
    pub(crate) algorithm: Algorithm,
    pub(crate) preferred: bool,
    /// Connections on which it signs what is sent.
    pub(crate) sending: u64,
    /// Segments it verified.
    pub(crate) good: u64,
    /// Segments it did not.
    pub(crate) bad: u64,
}

struct Entry {
    key: Key,
    /// Segments of connections that are gone.
    good: u64,
    bad: u64,
}

impl Entry {
    fn new(key: Key) -> Self {
        Self {
            key,
            good: 0,
            bad: 0,
        }
    }
}

struct Inner {
    list: KVec<Entry>,
    /// [`Key::send_id`] of the key that new connections begin with.
    preferred: u8,
    /// Connections with the peer, and attempts.
    sockets: KVec<Arc<Socket>>,
    /// Segments of connections that are gone.
    past: Counters,
}

impl Inner {
    fn preferred(&self) -> Option<&Key> {
        let entry = self
            .list
            .iter()
            .find(|entry| entry.key.send_id == self.preferred)?;
        Some(&entry.key)
    }
}

/// The keys of a peer.
#[pin_data]
pub(crate) struct Keys {
    peer: Addr,
    #[pin]
    inner: Mutex<Inner>,
}

impl Keys {
    /// `first` is the first key; without it the peer is not authenticated.
    pub(crate) fn new(peer: Addr, first: Option<Key>) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let preferred = first.as_ref().map_or(0, |key| key.send_id);
            let mut list = KVec::new();
            if let Some(key) = first {
                list.push(Entry::new(key), GFP_KERNEL)?;
            }
            Ok(try_pin_init!(Self {
                peer,
                inner <- new_mutex!(
                    Inner {
                        list,
                        preferred,
                        sockets: KVec::new(),
                        past: Counters::default(),
                    },
                    "nlb_migrator::Keys"
                ),
            }? Error))
        })
    }

    /// Whether the peer has a key.
    pub(crate) fn authenticate(&self) -> bool {
        !self.inner.lock().list.is_empty()
    }

    /// Puts the keys on a listener, all or none.
    pub(crate) fn install(&self, listener: &Socket) -> Result<(), Refused> {
        let inner = self.inner.lock();
        for (place, entry) in inner.list.iter().enumerate() {
            if let Err(error) = listener.auth_add(self.peer, &entry.key, false) {
                for entry in inner.list.iter().take(place) {
                    let _ = listener.auth_remove(self.peer, &entry.key, None);
                }
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Takes the keys off a listener.
    pub(crate) fn withdraw(&self, listener: &Socket) {
        for entry in &self.inner.lock().list {
            // It is there, and a listener signs nothing with it.
            let _ = listener.auth_remove(self.peer, &entry.key, None);
        }
    }

    /// Adds a key here, on the listener and on all connections. One on which there is no room for it
    /// is closed, as is, when it is the first key, each that was not authenticated.
    pub(crate) fn add(&self, listener: &Socket, key: Key) -> Result<(), Refused> {
        let mut inner = self.inner.lock();
        let mut keys = inner.list.iter().map(|entry| &entry.key);
        if keys.clone().any(|other| other.send_id == key.send_id) {
            return Err(Refused::SendId);
        }
        if keys.any(|other| other.recv_id == key.recv_id) {
            return Err(Refused::RecvId);
        }
        if inner.list.len() >= MAX_KEYS {
            return Err(Refused::TooMany);
        }
        inner.list.reserve(1, GFP_KERNEL)?;
        listener.auth_add(self.peer, &key, false)?;
        if inner.list.is_empty() {
            inner.preferred = key.send_id;
        }
        for socket in &inner.sockets {
            if socket.auth_add(self.peer, &key, false).is_err() {
                socket.shutdown();
            }
        }
        inner.list.push(Entry::new(key), GFP_KERNEL)?;
        Ok(())
    }

    /// Removes a key here, from the listener and from all connections, which go on with the
    /// preferred key.
    pub(crate) fn remove(&self, listener: &Socket, send_id: u8) -> Result<(), Refused> {
        let mut inner = self.inner.lock();
        let has_id = |entry: &Entry| entry.key.send_id == send_id;
        let place = inner.list.iter().position(has_id).ok_or(Refused::Unknown)?;
        if inner.list.len() == 1 {
            return Err(Refused::Last);
        }
        let Ok(entry) = inner.list.remove(place) else {
            return Err(Refused::Unknown);
        };
        if inner.preferred == send_id {
            // The oldest of the others.
            let next = inner.list.first().map(|entry| entry.key.send_id);
            inner.preferred = next.unwrap_or_default();
        }
        let _ = listener.auth_remove(self.peer, &entry.key, None);
        let other = inner.preferred();
        for socket in &inner.sockets {
            if socket.auth_remove(self.peer, &entry.key, other).is_err() {
                socket.shutdown();
            }
        }
        Ok(())
    }

    /// Prefers a key.
    pub(crate) fn prefer(&self, send_id: u8) -> Result<(), Refused> {
        let mut inner = self.inner.lock();
        let mut list = inner.list.iter();
        let entry = list.find(|entry| entry.key.send_id == send_id);
        let key = &entry.ok_or(Refused::Unknown)?.key;
        for socket in &inner.sockets {
            // Only a connection that is over does not take it.
            let _ = socket.auth_ask(key);
        }
        inner.preferred = send_id;
        Ok(())
    }

    /// Puts the keys on a socket that is to be connected to the peer, and takes note of it.
    pub(crate) fn dress(&self, socket: &Arc<Socket>) -> Result {
        let mut inner = self.inner.lock();
        inner.sockets.reserve(1, GFP_KERNEL)?;
        for entry in &inner.list {
            let prefer = entry.key.send_id == inner.preferred;
            socket.auth_add(self.peer, &entry.key, prefer)?;
        }
        Ok(inner.sockets.push(socket.clone(), GFP_KERNEL)?)
    }

    /// Takes note of a connection that `listener` has accepted. `false` if it is authenticated
    /// otherwise than it would be now: it has waited while keys changed.
    pub(crate) fn admit(&self, listener: &Socket, socket: &Arc<Socket>) -> Result<bool> {
        let mut inner = self.inner.lock();
        inner.sockets.reserve(1, GFP_KERNEL)?;
        if inner.list.is_empty() {
            let mut keys = 0u32;
            socket.auth_keys(self.peer, |_| keys = keys.saturating_add(1));
            if keys > 0 {
                return Ok(false);
            }
        } else if !socket.auth_agrees(listener) {
            return Ok(false);
        }
        // What the listener got since.
        for entry in &inner.list {
            match socket.auth_add(self.peer, &entry.key, false) {
                Ok(()) | Err(EEXIST) => {}
                Err(error) => return Err(error),
            }
        }
        inner.sockets.push(socket.clone(), GFP_KERNEL)?;
        Ok(true)
    }

    /// Forgets a connection, but for what it counted.
    pub(crate) fn forget(&self, socket: &Arc<Socket>) {
        let mut inner = self.inner.lock();
        let Inner {
            list,
            sockets,
            past,
            ..
        } = &mut *inner;
        let before = sockets.len();
        sockets.retain(|other| !Arc::ptr_eq(other, socket));
        if sockets.len() == before {
            return;
        }
        socket.auth_keys(self.peer, |used| {
            let mut list = list.iter_mut();
            if let Some(entry) = list.find(|entry| entry.key.send_id == used.send_id) {
                entry.good = entry.good.saturating_add(used.good);
                entry.bad = entry.bad.saturating_add(used.bad);
            }
        });
        past.add(&socket.auth_counters());
    }

    /// Breaks off all connections.
    pub(crate) fn close(&self) {
        for socket in &self.inner.lock().sockets {
            socket.shutdown();
        }
    }

    /// What became of the segments of all connections there are and were.
    pub(crate) fn counters(&self) -> Counters {
        let inner = self.inner.lock();
        let mut sum = inner.past;
        for socket in &inner.sockets {
            sum.add(&socket.auth_counters());
        }
        sum
    }

    /// Calls `show` with each key; `listener` is the one that has them, too.
    pub(crate) fn show(
        &self,
        listener: Option<&Socket>,
        show: impl FnMut(&Shown) -> Result,
    ) -> Result {
        let inner = self.inner.lock();
        let mut keys = KVec::with_capacity(inner.list.len(), GFP_KERNEL)?;
        for entry in &inner.list {
            let key = &entry.key;
            let shown = Shown {
                send_id: key.send_id,
                recv_id: key.recv_id,
                algorithm: key.algorithm,
                preferred: key.send_id == inner.preferred,
                sending: 0,
                good: entry.good,
                bad: entry.bad,
            };
            keys.push(shown, GFP_KERNEL)?;
        }
        let sockets = inner.sockets.iter().map(|socket| &**socket);
        for socket in Iterator::chain(sockets, listener) {
            socket.auth_keys(self.peer, |used| {
                let mut keys = keys.iter_mut();
                if let Some(shown) = keys.find(|shown| shown.send_id == used.send_id) {
                    shown.sending = shown.sending.saturating_add(used.sending.into());
                    shown.good = shown.good.saturating_add(used.good);
                    shown.bad = shown.bad.saturating_add(used.bad);
                }
            });
        }
        keys.iter().try_for_each(show)
    }
}
