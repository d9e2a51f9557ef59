// SPDX-License-Identifier: GPL-2.0

//! Copies of what programs have read from their connections, so that it can still go with them.
//!
//! A setting names an address and port and a number of bytes. Of a connection to it, what a program
//! reads is copied while it is read, from the first byte on, until there would be more than that;
//! then the copy is let go. So a copy is always all that was read, or there is none.

use crate::{
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
            Atomic,
            Relaxed, //
        },
        rcu,
        Arc, //
    }, //
};
use nlb::{
    net::tcp::{
        JustRead,
        Reader,
        SocketId, //
    },
    sync::{
        family_table::{
            ByFamily,
            FamilyKey,
            FamilyTable, //
        },
        lock::SpinLockBh,
        rhashtable::InsertError,
    },
    wire::addr::{
        Addr,
        FourTuple, //
    }, //
};

/// Settings of a namespace.
const MAX_SETTINGS: u32 = 256;
/// Connections of a namespace of which something is kept.
const MAX_CONNECTIONS: u32 = 65_536;
/// Memory of all copies of a namespace, in bytes.
const MAX_TOTAL: usize = 16 << 20;
/// Least and most bytes of a piece of memory: requests are short, and nothing large is asked for
/// where one cannot wait for it.
const PIECE: (usize, usize) = (256, 4096);

/// What clients connect to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Vip {
    pub(crate) addr: Addr,
    pub(crate) port: u16,
}

impl Vip {
    fn of(tuple: &FourTuple) -> Self {
        Self {
            addr: tuple.vip(),
            port: tuple.vip_port(),
        }
    }
}

impl FamilyKey for Vip {
    type V4 = [u32; 2];
    type V6 = [u32; 5];

    #[inline]
    fn by_family(&self) -> ByFamily<[u32; 2], [u32; 5]> {
        let port = u32::from(self.port);
        match self.addr.to_v4() {
            Some(octets) => ByFamily::V4([u32::from_be_bytes(octets), port]),
            None => {
                let [a, b, c, d] = self.addr.words();
                ByFamily::V6([a, b, c, d, port])
            }
        }
    }
}

/// What to keep.
#[derive(Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) vip: Vip,
    /// Bytes of a connection.
    pub(crate) bytes: u32,
}

/// All bytes that were read from a connection.
struct Bytes {
    memory: Counted,
    /// Full but for the last.
    pieces: KVec<KVec<u8>>,
    len: u32,
    /// The sequence number behind them.
    end: u32,
}

impl Bytes {
    /// Room for at least one more byte; no more than for `want`, if that is not little.
    fn grow(&mut self, want: u32) -> Result<(), Lost> {
        let size = (want as usize).clamp(PIECE.0, PIECE.1);
        let Counted { total, size: own } = &mut self.memory;
        if total.load(Relaxed).saturating_add(size) > MAX_TOTAL {
            return Err(Counter::DropKeepTotal);
        }
        let full = |_| Counter::DropKeepTotal;
        let piece = KVec::with_capacity(size, GFP_NOWAIT).map_err(full)?;
        self.pieces.push(piece, GFP_NOWAIT).map_err(full)?;
        total.add(size, Relaxed);
        *own = own.saturating_add(size);
        Ok(())
    }
}

/// Memory that is counted, as long as this lives.
struct Counted {
    total: Arc<Atomic<usize>>,
    size: usize,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let _ = self.total.fetch_sub(self.size, Relaxed);
    }
}

/// The copy of one connection.
#[pin_data]
pub(crate) struct Kept {
    socket: SocketId,
    vip: Vip,
    #[pin]
    bytes: SpinLockBh<Bytes>,
}

/// Why a copy was let go.
type Lost = Counter;

impl Kept {
    fn new(socket: SocketId, vip: Vip, total: &Arc<Atomic<usize>>) -> Result<Arc<Self>, Lost> {
        let kept = pin_init!(Self {
            socket,
            vip,
            bytes <- nlb::new_spinlock_bh!(
                Bytes {
                    memory: Counted {
                        total: total.clone(),
                        size: 0,
                    },
                    pieces: KVec::new(),
                    len: 0,
                    end: 0,
                },
                "nlb_migrator::Kept"
            ),
        });
        Arc::pin_init(kept, GFP_NOWAIT).map_err(|_| Counter::DropKeepTotal)
    }

    /// Appends what has just been read, so that the copy is complete again.
    fn complete(&self, read: &mut JustRead<'_>, limit: u32) -> Result<(), Lost> {
        let mut bytes = self.bytes.lock();
        // Less than was kept: not the connection it was.
        let new = read.total().checked_sub(bytes.len.into());
        let new = u32::try_from(new.ok_or(Counter::DropKeepMissed)?).unwrap_or(u32::MAX);
        if new == 0 {
            // It has peeked.
            return Ok(());
        }
        if new > limit.saturating_sub(bytes.len) {
            return Err(Counter::DropKeepBytes);
        }
        if read.is_urgent_since(read.end().wrapping_sub(new)) {
            return Err(Counter::DropKeepMissed);
        }
        let mut left = new;
        while left != 0 {
            let room = |piece: &KVec<u8>| piece.capacity().saturating_sub(piece.len());
            if bytes.pieces.last().map_or(0, room) == 0 {
                bytes.grow(left)?;
            }
            let piece = bytes.pieces.last_mut().ok_or(Counter::DropKeepTotal)?;
            let count = room(piece).min(left as usize);
            let old = piece.len();
            let full = |_| Counter::DropKeepTotal;
            piece.extend_with(count, 0, GFP_NOWAIT).map_err(full)?;
            let to = piece.get_mut(old..).ok_or(Counter::DropKeepMissed)?;
            read.copy(left, to).map_err(|_| Counter::DropKeepMissed)?;
            // CAST: Not more than `left`.
            left = left.saturating_sub(count as u32);
        }
        bytes.len = bytes.len.saturating_add(new);
        bytes.end = read.end();
        Ok(())
    }

    /// How many bytes there are, if they are all that were read up to the number `end`, `total` in
    /// all.
    pub(crate) fn len(&self, socket: SocketId, end: u32, total: u64) -> Option<u32> {
        let bytes = self.bytes.lock();
        let complete = self.socket == socket && bytes.end == end && u64::from(bytes.len) == total;
        complete.then_some(bytes.len)
    }

    /// Copies bytes from `offset` on.
    pub(crate) fn copy(&self, offset: u32, to: &mut [u8]) -> Result<(), Reason> {
        let bytes = self.bytes.lock();
        let mut skip = offset as usize;
        let mut rest = to;
        for piece in bytes.pieces.iter() {
            let part = match piece.get(skip..) {
                Some(part) => part,
                None => {
                    skip = skip.saturating_sub(piece.len());
                    continue;
                }
            };
            skip = 0;
            let count = part.len().min(rest.len());
            let (room, more) = rest.split_at_mut_checked(count).ok_or(Code::Internal)?;
            room.copy_from_slice(part.get(..count).ok_or(Code::Internal)?);
            rest = more;
            if rest.is_empty() {
                return Ok(());
            }
        }
        if rest.is_empty() {
            Ok(())
        } else {
            Err(Code::NotKept.into())
        }
    }
}

/// The settings and copies of a namespace.
#[pin_data]
pub(crate) struct Keeps {
    #[pin]
    pub(crate) settings: FamilyTable<Vip, Setting>,
    #[pin]
    table: FamilyTable<FourTuple, Arc<Kept>>,
    /// Memory of all copies.
    total: Arc<Atomic<usize>>,
}

impl Keeps {
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            settings <- FamilyTable::new(MAX_SETTINGS),
            table <- FamilyTable::new(MAX_CONNECTIONS),
            total: Arc::new(Atomic::new(0), GFP_KERNEL)?,
        })
    }

    /// Adds a setting.
    pub(crate) fn add(&self, setting: Setting) -> Result<(), InsertError> {
        self.settings.insert(&setting.vip, setting, GFP_KERNEL)
    }

    /// Removes a setting. False if there is none.
    pub(crate) fn remove(&self, vip: &Vip) -> bool {
        self.settings.remove(vip)
    }

    /// Whether there are no settings.
    pub(crate) fn is_empty(&self) -> bool {
        self.settings.is_empty()
    }

    pub(crate) fn find(&self, vip: &Vip) -> Option<Setting> {
        self.settings.get(&rcu::read_lock(), vip).copied()
    }

    /// Lets go of copies of connections that are not to be kept any more. Process context.
    ///
    /// No read that saw such a setting may be under way.
    pub(crate) fn tidy(&self) {
        let is_to_be = |kept: &Arc<Kept>| self.find(&kept.vip).is_some();
        // As a table that shrinks meanwhile may hide entries from a scan, once is not always enough.
        // While there are settings, the ends of connections are still seen.
        loop {
            self.table.retain(is_to_be);
            if self.table.is_empty() || !self.is_empty() {
                return;
            }
        }
    }

    /// The copy of a connection's bytes.
    pub(crate) fn of(&self, tuple: &FourTuple) -> Option<Arc<Kept>> {
        self.table.get(&rcu::read_lock(), tuple).cloned()
    }

    /// Connections of which something is kept.
    pub(crate) fn connections(&self) -> u64 {
        self.table.len().into()
    }

    /// Memory of their copies, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.total.load(Relaxed) as u64
    }

    fn read(&self, stats: &Stats, read: &mut JustRead<'_>) {
        let tuple = read.tuple();
        let guard = rcu::read_lock();
        let Some(setting) = self.settings.get(&guard, &Vip::of(&tuple)) else {
            return;
        };
        let lost = match self.table.get(&guard, &tuple) {
            Some(kept) if kept.socket == read.socket() => {
                let Err(lost) = kept.complete(read, setting.bytes) else {
                    return;
                };
                self.table.remove(&tuple);
                lost
            }
            Some(_) => {
                // Of a socket that had the addresses before.
                self.table.remove(&tuple);
                Counter::DropKeepMissed
            }
            None => {
                // What was not kept from the first byte on is not kept later, either.
                if !read.has_all() {
                    return;
                }
                let Err(lost) = self.begin(&tuple, read, setting) else {
                    return;
                };
                lost
            }
        };
        stats.inc(lost);
    }

    /// Begins to keep what is read from a connection, with what was read just now.
    fn begin(
        &self,
        tuple: &FourTuple,
        read: &mut JustRead<'_>,
        setting: &Setting,
    ) -> Result<(), Lost> {
        let kept = Kept::new(read.socket(), setting.vip, &self.total)?;
        kept.complete(read, setting.bytes)?;
        self.table
            .insert(tuple, kept, GFP_NOWAIT)
            .map_err(|_| Counter::DropKeepTotal)
    }
}

impl Reader for Shared {
    fn read(&self, read: &mut JustRead<'_>) {
        self.keeps.read(&self.stats, read);
    }

    fn ended(&self, socket: SocketId, tuple: &FourTuple) {
        let Keeps { table, .. } = &self.keeps;
        table.remove_if(tuple, |kept| kept.socket == socket);
    }
}
