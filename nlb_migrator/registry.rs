// SPDX-License-Identifier: GPL-2.0

//! What a user can see of migrations: those under way, the living, and the last that ended.

use crate::{
    reason::Reason,
    uapi::{
        Phase,
        Role, //
    }, //
};
use kernel::{
    new_mutex, new_spinlock,
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNodeReservation, //
    },
    sync::{
        Arc,
        Mutex,
        SpinLock, //
    },
};
use nlb::{
    time,
    wire::addr::{
        Addr,
        FourTuple, //
    }, //
};

/// Migrations of a namespace that are under way or alive, both roles together.
pub(crate) const MAX_LIVE: usize = 65_536;

/// Ended migrations that can still be shown.
const MAX_ENDED: usize = 256;

/// What changes in the life of a migration.
#[derive(Clone, Copy)]
pub(crate) struct Info {
    pub(crate) phase: Phase,
    pub(crate) flow_id: u32,
    pub(crate) unread_bytes: u64,
    pub(crate) held_packets: u64,
    pub(crate) export_ns: u64,
    pub(crate) inject_ns: u64,
    pub(crate) freeze_ns: u64,
    pub(crate) total_ns: u64,
    pub(crate) reason: Option<Reason>,
}

/// A migration as users see it.
#[pin_data]
pub(crate) struct Entry {
    /// Place in the order of beginning, the key of a dump.
    index: u64,
    pub(crate) id: u64,
    pub(crate) role: Role,
    pub(crate) peer: Addr,
    pub(crate) tuple: FourTuple,
    /// Boot time in nanoseconds.
    pub(crate) began: u64,
    #[pin]
    info: SpinLock<Info>,
}

impl Entry {
    pub(crate) fn info(&self) -> Info {
        *self.info.lock()
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Info)) {
        change(&mut self.info.lock());
    }

    /// Milliseconds since it began.
    pub(crate) fn age_ms(&self) -> u64 {
        self.elapsed_ns() / 1_000_000
    }

    pub(crate) fn elapsed_ns(&self) -> u64 {
        time::boottime_ns().saturating_sub(self.began)
    }
}

struct Inner {
    entries: RBTree<u64, Arc<Entry>>,
    next: u64,
    live: usize,
    /// Keys of the ended, a ring.
    ended: KVec<u64>,
    oldest: usize,
    generation: u32,
}

/// The table of migrations of a namespace.
#[pin_data]
pub(crate) struct Registry {
    #[pin]
    inner: Mutex<Inner>,
}

impl Registry {
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            inner <- new_mutex!(
                Inner {
                    entries: RBTree::new(),
                    next: 1,
                    live: 0,
                    // Ending a migration must not need memory.
                    ended: KVec::with_capacity(MAX_ENDED, GFP_KERNEL)?,
                    oldest: 0,
                    generation: 1,
                },
                "nlb_migrator::Registry"
            ),
        })
    }

    /// Adds a migration; `None` when the table is full.
    pub(crate) fn begin(
        &self,
        id: u64,
        role: Role,
        peer: Addr,
        tuple: FourTuple,
        flow_id: u32,
    ) -> Result<Option<Arc<Entry>>> {
        let node = RBTreeNodeReservation::new(GFP_KERNEL)?;
        let mut inner = self.inner.lock();
        if inner.live >= MAX_LIVE {
            return Ok(None);
        }
        let index = inner.next;
        let entry = Arc::pin_init(
            pin_init!(Entry {
                index,
                id,
                role,
                peer,
                tuple,
                began: time::boottime_ns(),
                info <- new_spinlock!(
                    Info {
                        phase: Phase::Preparing,
                        flow_id,
                        unread_bytes: 0,
                        held_packets: 0,
                        export_ns: 0,
                        inject_ns: 0,
                        freeze_ns: 0,
                        total_ns: 0,
                        reason: None,
                    },
                    "nlb_migrator::Entry"
                ),
            }),
            GFP_KERNEL,
        )?;
        inner.entries.insert(node.into_node(index, entry.clone()));
        inner.next = index.wrapping_add(1);
        inner.live = inner.live.saturating_add(1);
        inner.generation = inner.generation.wrapping_add(1);
        Ok(Some(entry))
    }

    /// Counts a migration as ended. It can be shown until [`MAX_ENDED`] others have ended.
    pub(crate) fn end(&self, entry: &Entry) {
        // Freed after the lock.
        let forgotten;
        let mut inner = self.inner.lock();
        inner.live = inner.live.saturating_sub(1);
        inner.generation = inner.generation.wrapping_add(1);
        if inner.ended.len() < MAX_ENDED {
            // There is room by construction; a failure would only keep the entry shown.
            let _ = inner.ended.push(entry.index, GFP_KERNEL);
            return;
        }
        let oldest = inner.oldest;
        let Some(slot) = inner.ended.get_mut(oldest) else {
            return;
        };
        let key = core::mem::replace(slot, entry.index);
        inner.oldest = oldest.wrapping_add(1) % MAX_ENDED;
        forgotten = inner.entries.remove_node(&key);
        drop(inner);
        drop(forgotten);
    }

    /// Changes with every migration that begins or ends.
    pub(crate) fn generation(&self) -> u32 {
        self.inner.lock().generation
    }

    /// The first entry whose place is `index` or later, and the place to go on at.
    pub(crate) fn first_from(&self, index: u64) -> Option<(Arc<Entry>, u64)> {
        let inner = self.inner.lock();
        let cursor = inner.entries.cursor_lower_bound(&index)?;
        let (&key, entry) = cursor.current();
        Some((entry.clone(), key.wrapping_add(1)))
    }

    /// The youngest migration with this id and role. A target may have several with one id, from
    /// different origins.
    pub(crate) fn find(&self, id: u64, role: Option<Role>) -> Option<Arc<Entry>> {
        let inner = self.inner.lock();
        let fits = |entry: &&Arc<Entry>| entry.id == id && role.is_none_or(|r| r == entry.role);
        let found = inner.entries.values().filter(fits).last();
        found.cloned()
    }
}
