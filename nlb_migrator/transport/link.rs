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
use core::ops::Range;
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

/// Where a record is written, and sent from.
struct Outbox {
    room: KVVec<u8>,
    /// What of it has to be sent before the next record, so that they do not mix.
    unsent: Range<usize>,
    /// When the record was written, or the other side took something of it (CLOCK_MONOTONIC, in
    /// milliseconds).
    moved_ms: u64,
}

/// What becomes of a record of which only a part is sent when its time is over.
#[derive(Clone, Copy)]
enum Rest {
    /// Whoever sends next sends the rest first: the other side gets the record.
    Later,
    /// Nobody sends the rest, and the connection is closed: the other side never gets the record.
    Never,
}

/// A connection to or from a peer's migrator.
#[pin_data]
pub(crate) struct Link {
    id: u64,
    pub(super) peer: Arc<Peer>,
    pub(super) socket: Arc<Socket>,
    /// Held until a record is sent, or its sender has no time left.
    #[pin]
    sending: TimedMutex<Outbox>,
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
        let outbox = Outbox {
            room: bytes::zeros(RECORD_MAX)?,
            unsent: 0..0,
            moved_ms: 0,
        };
        Arc::pin_init(
            pin_init!(Self {
                id,
                peer: peer.clone(),
                socket: socket.clone(),
                sending <- new_timed_mutex!(outbox, "nlb_migrator::Link"),
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
    /// however slowly the other side receives. When sending fails, the other side has got nothing of
    /// the record, or the connection is closed, or the rest comes before the next record.
    pub(crate) fn send_with(
        &self,
        stats: &Stats,
        by_ms: u64,
        encode: impl FnOnce(&mut [u8]) -> Result<usize, Reason>,
    ) -> Result<(), Reason> {
        self.send_or(Rest::Later, stats, by_ms, encode)
    }

    fn send_or(
        &self,
        rest: Rest,
        stats: &Stats,
        by_ms: u64,
        encode: impl FnOnce(&mut [u8]) -> Result<usize, Reason>,
    ) -> Result<(), Reason> {
        let mut outbox = self
            .sending
            .lock_timeout(time::left_ms(by_ms))
            .ok_or_else(|| self.late())?;
        // What another one had no time for.
        self.flush(&mut outbox, by_ms)?;
        let len = encode(&mut outbox.room)?;
        if len > outbox.room.len() {
            return Err(Code::Internal.into());
        }
        outbox.unsent = 0..len;
        outbox.moved_ms = time::monotonic_ms();
        let result = self.flush(&mut outbox, by_ms);
        match (&result, rest) {
            (Ok(()), _) => stats.inc(Counter::RecordsOut),
            (Err(_), _) if outbox.unsent.start == 0 => outbox.unsent = 0..0,
            (Err(_), Rest::Never) => self.close(),
            (Err(_), Rest::Later) => {}
        }
        result
    }

    /// Sends what is unsent of the last record.
    fn flush(&self, outbox: &mut Outbox, by_ms: u64) -> Result<(), Reason> {
        while !outbox.unsent.is_empty() {
            let unsent = outbox.room.get(outbox.unsent.clone());
            let unsent = unsent.ok_or(Code::Internal)?;
            let stalled_ms = outbox.moved_ms.saturating_add(SEND_MS.into());
            // Without time it does not wait.
            let wait = time::left_ms(by_ms.min(stalled_ms));
            match self.socket.send(unsent, wait) {
                Ok(sent) => {
                    outbox.unsent.start = outbox.unsent.start.saturating_add(sent);
                    outbox.moved_ms = time::monotonic_ms();
                }
                Err(EAGAIN) if time::left_ms(stalled_ms) > 0 => return Err(self.late()),
                Err(_) => {
                    self.close();
                    return Err(Code::LinkLost.into());
                }
            }
            if !outbox.unsent.is_empty() && time::left_ms(by_ms) == 0 {
                return Err(self.late());
            }
        }
        Ok(())
    }

    /// There was no time to send.
    fn late(&self) -> Reason {
        self.suspect();
        Code::NoAnswer.into()
    }

    /// Sends a record that is about no connection that stands still. As [`Self::send_with`].
    pub(crate) fn send(&self, stats: &Stats, id: u64, record: &Record<'_>) -> Result<(), Reason> {
        // As long for the others that send as for this one.
        let by_ms = time::monotonic_ms().saturating_add(u64::from(2 * SEND_MS));
        self.send_by(stats, by_ms, id, record)
    }

    /// Sends a record. As [`Self::send_with`], but the rest of COMMIT does not come: whose COMMIT was not
    /// sent has the connection still.
    pub(crate) fn send_by(
        &self,
        stats: &Stats,
        by_ms: u64,
        id: u64,
        record: &Record<'_>,
    ) -> Result<(), Reason> {
        let rest = match record {
            Record::Commit => Rest::Never,
            _ => Rest::Later,
        };
        self.send_or(rest, stats, by_ms, |room| Ok(record.encode(id, room)?))
    }
}
