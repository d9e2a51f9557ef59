// SPDX-License-Identifier: GPL-2.0

//! One connection to or from a peer, and who sends over it when.

use crate::{
    peer::Peer,
    reason::{
        Code,
        Reason, //
    },
    state::Shared,
    stats::{
        Counter,
        Stats, //
    }, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full,
            Release, //
        },
        Arc, //
    },
};
use nlb::{
    bytes,
    net::socket::Socket,
    new_semaphore, new_timed_mutex,
    sync::{
        semaphore::{
            Patience,
            Permit,
            Semaphore, //
        },
        timed::TimedMutex, //
    },
    time,
    wire::record::{
        Record,
        RECORD_MAX, //
    },
};

/// How long the other side may refuse to take bytes.
const SEND_MS: u32 = 2000;
/// Migrations at a time that are under way over a connection. As a target needs some 10 µs for a
/// record, and a migration three times the way there and back, there is room for thousands in a second
/// where that way takes 10 ms.
const UNDER_WAY: u32 = 256;
/// Those of them whose connection stands still: each waits less than a millisecond for the others.
const STANDING: u32 = 32;

/// A connection to or from a peer's migrator.
#[pin_data]
pub(crate) struct Link {
    id: u64,
    pub(super) peer: Arc<Peer>,
    pub(super) socket: Arc<Socket>,
    /// Where a record is written. Held until it is sent, so that records do not mix.
    #[pin]
    sending: TimedMutex<KVVec<u8>>,
    /// Migrations of ours that run over it.
    users: Atomic<u32>,
    /// An answer did not come: nothing new is begun over it.
    suspect: Atomic<bool>,
    /// Of those who are under way to the target.
    #[pin]
    under_way: Semaphore,
    /// Of those whose connection stands still until the target has it.
    #[pin]
    standing: Semaphore,
}

/// Keeps a suspect connection open, for it may yet bring the answers to what runs over it.
pub(crate) struct Use(Arc<Link>);

impl Use {
    pub(crate) fn link(&self) -> &Link {
        &self.0
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        if self.0.users.fetch_sub(1, Full) == 1 && self.0.suspect.load(Acquire) {
            self.0.close();
        }
    }
}

impl Link {
    pub(super) fn new(
        shared: &Shared,
        peer: &Arc<Peer>,
        socket: &Arc<Socket>,
    ) -> Result<Arc<Self>> {
        let id = shared.next_link();
        let room = bytes::zeros(RECORD_MAX)?;
        Arc::pin_init(
            pin_init!(Self {
                id,
                peer: peer.clone(),
                socket: socket.clone(),
                sending <- new_timed_mutex!(room, "nlb_migrator::Link"),
                users: Atomic::new(0),
                suspect: Atomic::new(false),
                under_way <- new_semaphore!(UNDER_WAY, "nlb_migrator::Link::under_way"),
                standing <- new_semaphore!(STANDING, "nlb_migrator::Link::standing"),
            }),
            GFP_KERNEL,
        )
    }

    /// A number no other connection of this namespace had.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    pub(crate) fn is_up(&self) -> bool {
        !self.socket.is_shut_down()
    }

    /// Whether a migration may be begun over it.
    pub(super) fn is_usable(&self) -> bool {
        self.is_up() && !self.suspect.load(Acquire)
    }

    pub(crate) fn close(&self) {
        self.socket.shutdown();
        // Who waits finds out at once.
        self.under_way.open();
        self.standing.open();
    }

    /// Has later migrations take a new connection: this one may be dead, and TCP takes long to
    /// notice or to recover.
    pub(crate) fn suspect(&self) {
        self.suspect.store(true, Release);
        self.under_way.open();
    }

    /// Waits until this migration may begin; `timeout_ms` without that any other could is too long.
    pub(crate) fn begin(&self, timeout_ms: u32) -> Result<Permit<'_>, Reason> {
        let permit = self.permit(&self.under_way, Patience::InLine(timeout_ms))?;
        if self.suspect.load(Acquire) {
            return Err(Code::Crowded.into());
        }
        Ok(permit)
    }

    /// Waits until the connection of this migration may stand still, but no longer than `timeout_ms`.
    pub(crate) fn stand(&self, timeout_ms: u32) -> Result<Permit<'_>, Reason> {
        self.permit(&self.standing, Patience::Killable(timeout_ms))
    }

    fn permit<'a>(&self, of: &'a Semaphore, patience: Patience) -> Result<Permit<'a>, Reason> {
        let permit = match of.acquire(patience) {
            Ok(permit) => permit.ok_or(Code::Crowded)?,
            Err(EINTR) => return Err(Code::Interrupted.into()),
            Err(error) => return Err(error.into()),
        };
        if !self.is_up() {
            return Err(Code::LinkLost.into());
        }
        Ok(permit)
    }

    /// For one migration, if another one may be begun over it.
    pub(super) fn take(self: &Arc<Self>) -> Option<Use> {
        let _ = self.users.fetch_add(1, Full);
        // From here on, what happens to the connection is not decided without us.
        let taken = Use(self.clone());
        self.is_usable().then_some(taken)
    }

    /// Sends the record that `encode` writes, which gives its length. Without one nothing is sent.
    ///
    /// It is over when it is `by_ms` (CLOCK_MONOTONIC, in milliseconds), whoever else sends and
    /// however slowly the other side receives. When sending fails, the other side cannot have got
    /// all of the record: nothing of it, or the connection is closed.
    pub(crate) fn send_with(
        &self,
        stats: &Stats,
        by_ms: u64,
        encode: impl FnOnce(&mut [u8]) -> Result<usize, Reason>,
    ) -> Result<(), Reason> {
        let late = || {
            self.suspect();
            Reason::from(Code::NoAnswer)
        };
        let mut room = self
            .sending
            .lock_timeout(time::left_ms(by_ms))
            .ok_or_else(late)?;
        let len = encode(&mut room)?;
        let record = room.get(..len).ok_or(Code::Internal)?;
        let left = time::left_ms(by_ms);
        match self.socket.send_all(record, left, SEND_MS) {
            Ok(()) => stats.inc(Counter::RecordsOut),
            // Another one may have had the time.
            Err(EAGAIN) if left < SEND_MS => return Err(late()),
            Err(_) => {
                self.close();
                return Err(Code::LinkLost.into());
            }
        }
        Ok(())
    }

    /// Sends a record that is about no connection that stands still. As [`Self::send_with`].
    pub(crate) fn send(&self, stats: &Stats, id: u64, record: &Record<'_>) -> Result<(), Reason> {
        // As long for the others that send as for this one.
        let by_ms = time::monotonic_ms().saturating_add(u64::from(2 * SEND_MS));
        self.send_by(stats, by_ms, id, record)
    }

    /// Sends a record. As [`Self::send_with`].
    pub(crate) fn send_by(
        &self,
        stats: &Stats,
        by_ms: u64,
        id: u64,
        record: &Record<'_>,
    ) -> Result<(), Reason> {
        self.send_with(stats, by_ms, |room| Ok(record.encode(id, room)?))
    }
}
