// SPDX-License-Identifier: GPL-2.0

//! Parts of objects by numbers that are given in turn.
//!
//! C header: [`include/linux/xarray.h`](srctree/include/linux/xarray.h)

#[cfg(CONFIG_KUNIT = "y")]
mod tests;

use super::{
    add32,
    object::{
        Header,
        PartRef, //
    },
    rcu,
    read_once,
    rhashtable::{
        InsertError,
        Position,
        Scan, //
    }, //
};
use crate::bindings;
use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    mem::{
        offset_of,
        size_of, //
    },
    ptr::{
        self,
        NonNull, //
    },
};
use kernel::{
    alloc::flags::__GFP_ZERO,
    prelude::*,
    sync::atomic::{
        Acquire,
        Atomic,
        Relaxed,
        Release, //
    },
    types::Opaque, //
};

/// Entries that are looked at under one RCU read side.
const ENTRIES_PER_STEP: u32 = 1024;

/// Numbers of a [`Chunk`], which takes a page of memory.
const SLOTS: u32 = 508;

/// The entries of as many numbers in a row.
#[repr(C)]
struct Chunk {
    /// For who frees it.
    rcu: Opaque<bindings::callback_head>,
    /// How many there are. Under the lock.
    used: UnsafeCell<u32>,
    /// Null, or the header of an object's. Written under the lock.
    slots: [Atomic<*mut Header>; SLOTS as usize],
}

const _: () = assert!(size_of::<Chunk>() <= 4096);

impl Chunk {
    /// The slot of a number.
    #[inline]
    fn slot(&self, id: u32) -> Option<&Atomic<*mut Header>> {
        // CAST: Small.
        self.slots.get((id % SLOTS) as usize)
    }

    /// # Safety
    ///
    /// `rcu` is that of a chunk which nobody can find any more, a grace period ago.
    unsafe extern "C" fn free_callback(rcu: *mut bindings::callback_head) {
        const { assert!(offset_of!(Chunk, rcu) == 0) };
        // SAFETY: By the safety requirements; it is from `kmalloc()`.
        unsafe { bindings::kfree(rcu.cast()) };
    }
}

/// Where the next number is tried.
struct Turn {
    next: u32,
    /// How often all numbers have had their turn.
    turn: u32,
    /// The chunk that was used last, or null; and which it is.
    chunk: *mut Chunk,
    index: u32,
}

/// A table of parts of objects, each at a number of its own, for lookups without locks in any
/// context.
///
/// Numbers are given in turn, and with more numbers than entries, one that has become free is not
/// given again before all others that are free: as many as there are more, or more. How often all
/// have had their turn is told, so that longer numbers may take even longer to return. The table
/// takes some 8 bytes for each number between the ones that are in use, and a page at least for them.
///
/// # Invariants
///
/// `xa` is initialised, and its entries are chunks from `kmalloc()`, which are freed a grace period after they
/// were taken out. What is in their slots is from [`PartRef::into_raw`], with the reference. The chunk of
/// `turn` is null, or in `xa`.
#[pin_data(PinnedDrop)]
pub struct IdTable<P: Send + Sync + 'static> {
    #[pin]
    xa: Opaque<bindings::xarray>,
    /// Numbers are smaller than that.
    numbers: u32,
    /// No more entries.
    max: u32,
    /// Under the lock.
    turn: UnsafeCell<Turn>,
    /// Grows under the lock.
    len: Atomic<u32>,
    /// Changes with each insertion and removal.
    generation: Atomic<u64>,
    /// Whether anything was ever removed.
    removed: Atomic<bool>,
    _parts: PhantomData<PartRef<P>>,
}

// SAFETY: The table does its own locking; parts may be used by all threads.
unsafe impl<P: Send + Sync + 'static> Send for IdTable<P> {}

// SAFETY: As above.
unsafe impl<P: Send + Sync + 'static> Sync for IdTable<P> {}

/// A chunk's index as the kernel has it.
fn slot_index(index: u32) -> c_ulong {
    // CAST: It is as long as a pointer.
    index as c_ulong
}

/// Holds the lock of a table.
struct Locked<'a>(&'a Opaque<bindings::xarray>);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // SAFETY: It was locked when this was made.
        unsafe { bindings::xa_unlock_bh(self.0.get()) };
    }
}

impl<P: Send + Sync + 'static> IdTable<P> {
    /// Makes an empty table for up to `max` entries at numbers from 0 to `numbers - 1`, which gives
    /// number `first` first. `EINVAL` if `numbers` is 0.
    pub fn new(max: u32, numbers: u32, first: u32) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            turn: UnsafeCell::new(Turn {
                next: first.checked_rem(numbers).ok_or(EINVAL)?,
                turn: 0,
                chunk: ptr::null_mut(),
                index: 0,
            }),
            numbers,
            max,
            len: Atomic::new(0u32),
            generation: Atomic::new(0u64),
            removed: Atomic::new(false),
            _parts: PhantomData,
            xa <- Opaque::ffi_init(|xa| {
                // SAFETY: `xa` is valid for writing.
                unsafe { bindings::xa_init_alloc_bh(xa) };
            }),
        })
    }

    fn lock(&self) -> Locked<'_> {
        // SAFETY: It is initialised.
        unsafe { bindings::xa_lock_bh(self.xa.get()) };
        Locked(&self.xa)
    }

    /// Number of entries.
    pub fn len(&self) -> u32 {
        read_once(&self.len)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A number that has changed whenever entries have come or gone.
    pub fn generation(&self) -> u64 {
        self.generation.load(Acquire)
    }

    /// Inserts a part at the next number that is free, and tells that to `known`: the number, and
    /// how often all of them had had their turn. Any context.
    ///
    /// Others may find it there a moment before. On an error, the reference is given up.
    pub fn insert(
        &self,
        part: PartRef<P>,
        known: impl FnOnce(&P, u32, u32),
    ) -> Result<(), InsertError> {
        let lock = self.lock();
        if self.len() >= self.max {
            return Err(InsertError::Full);
        }
        let (slot, id, turn) = self.free_slot(&lock)?;
        let header = part.into_raw();
        // SAFETY: The reference is ours until it is in the table, and who removes it needs the lock.
        known(unsafe { PartRef::part(header) }, id, turn);
        // INVARIANT: The entry is from `into_raw`, and the reference goes with it.
        slot.store(header.as_ptr(), Release);
        add32(&self.len, 1);
        drop(lock);
        self.generation.fetch_add(1, Release);
        Ok(())
    }

    /// The slot of the next number that is free, which counts as used from now on, the number, and its
    /// turn.
    fn free_slot(
        &self,
        lock: &Locked<'_>,
    ) -> Result<(&Atomic<*mut Header>, u32, u32), InsertError> {
        // SAFETY: The lock is held, and nobody else here has it.
        let at = unsafe { &mut *self.turn.get() };
        // In one round there are all, some of them twice.
        for _ in 0..=self.numbers {
            if at.next >= self.numbers {
                (at.next, at.turn) = (0, at.turn.wrapping_add(1));
            }
            let id = at.next;
            if at.chunk.is_null() || at.index != id / SLOTS {
                self.enter(lock, at, id / SLOTS)?;
            }
            // SAFETY: By the type invariants, it is in the table, from where it is taken under the lock.
            let chunk = unsafe { &*at.chunk };
            let Some(slot) = chunk.slot(id) else {
                break;
            };
            // SAFETY: The lock is held.
            let used = unsafe { &mut *chunk.used.get() };
            if read_once(slot).is_null() {
                *used = used.wrapping_add(1);
                at.next = id.wrapping_add(1);
                return Ok((slot, id, at.turn));
            }
            at.next = match *used {
                SLOTS => at.index.wrapping_add(1).saturating_mul(SLOTS),
                _ => id.wrapping_add(1),
            };
        }
        Err(InsertError::Full)
    }

    /// Makes the chunk of an index the one that numbers are given of.
    #[cold]
    fn enter(&self, lock: &Locked<'_>, at: &mut Turn, index: u32) -> Result<(), InsertError> {
        let mut chunk = self.chunk(index);
        if chunk.is_null() {
            let memory = KBox::<Chunk>::new_uninit(GFP_ATOMIC | __GFP_ZERO);
            let memory = KBox::leak(memory.map_err(|_| InsertError::NoMemory)?);
            // CAST: What is in it may be all zeroes.
            chunk = ptr::from_mut(memory).cast();
            // INVARIANT: It is from `kmalloc()`, and its slots are null.
            // SAFETY: The table is initialised and the lock is held, which is not released meanwhile with
            // these flags; nothing is there.
            let ret = unsafe {
                let (xa, gfp) = (self.xa.get(), bindings::GFP_ATOMIC);
                bindings::__xa_insert(xa, slot_index(index), chunk.cast(), gfp)
            };
            if ret != 0 {
                // SAFETY: It did not get into the table, and is from `kmalloc()`.
                unsafe { bindings::kfree(chunk.cast()) };
                return Err(InsertError::NoMemory);
            }
        }
        let (before, index_before) = (at.chunk, at.index);
        (at.chunk, at.index) = (chunk, index);
        if !before.is_null() && before != chunk {
            self.free_if_empty(lock, before, index_before);
        }
        Ok(())
    }

    /// Frees a chunk that is none any more, unless there is something in it.
    fn free_if_empty(&self, _lock: &Locked<'_>, chunk: *mut Chunk, index: u32) {
        // SAFETY: It is in the table, and the lock is held.
        if unsafe { *(*chunk).used.get() } != 0 {
            return;
        }
        self.removed.store(true, Relaxed);
        // SAFETY: The table is initialised, and the lock is held. Nobody finds it again, and those who have
        // found it are in an RCU read side.
        unsafe {
            bindings::__xa_erase(self.xa.get(), slot_index(index));
            bindings::call_rcu((*chunk).rcu.get(), Some(Chunk::free_callback));
        }
    }

    /// The chunk of an index, or null.
    #[inline]
    fn chunk(&self, index: u32) -> *mut Chunk {
        // SAFETY: The table is initialised.
        unsafe { bindings::xa_load(self.xa.get(), slot_index(index)) }.cast()
    }

    /// The header at a number.
    #[inline]
    fn at(&self, id: u32) -> Option<NonNull<Header>> {
        // SAFETY: By the type invariants; the RCU read side or the lock is held.
        let chunk = unsafe { self.chunk(id / SLOTS).as_ref() }?;
        NonNull::new(read_once(chunk.slot(id)?))
    }

    /// The part at a number, for as long as the RCU read side is held.
    pub fn get<'a>(&'a self, _guard: &'a rcu::Guard, id: u32) -> Option<&'a P> {
        // SAFETY: By the type invariants, it is not freed before the read side is released: the
        // table's reference was there when it was found.
        self.at(id).map(|header| unsafe { PartRef::part(header) })
    }

    /// The header at a number, if that is of this very part. The lock is held.
    fn of(&self, _lock: &Locked<'_>, id: u32, part: &P) -> Option<NonNull<Header>> {
        let is_it = |header: &NonNull<Header>| {
            // SAFETY: It is in the table while the lock is held.
            ptr::eq(unsafe { PartRef::<P>::part(*header) }, part)
        };
        self.at(id).filter(is_it)
    }

    /// Removes this very part from a number. Whether it was there. Any context.
    pub fn remove(&self, id: u32, part: &P) -> bool {
        let lock = self.lock();
        let Some(header) = self.of(&lock, id, part) else {
            return false;
        };
        self.put(&lock, id, ptr::null_mut());
        drop(lock);
        self.len.fetch_sub(1u32, Relaxed);
        self.give_up(header);
        true
    }

    /// Puts another part in the place of this very one. Whether that was there; if not, the
    /// reference is given up. Any context.
    pub fn replace(&self, id: u32, part: &P, other: PartRef<P>) -> bool {
        let lock = self.lock();
        let Some(header) = self.of(&lock, id, part) else {
            drop(lock);
            return false;
        };
        // INVARIANT: The entry is from `into_raw`, and the reference goes with it.
        self.put(&lock, id, other.into_raw().as_ptr());
        drop(lock);
        self.give_up(header);
        true
    }

    /// Puts a header, or null, in the place of one that is at this number.
    fn put(&self, lock: &Locked<'_>, id: u32, header: *mut Header) {
        let index = id / SLOTS;
        let chunk = self.chunk(index);
        // SAFETY: By the type invariants, and the lock is held.
        let Some((slot, used)) = (unsafe {
            let slot = chunk.as_ref().and_then(|chunk| chunk.slot(id));
            slot.map(|slot| (slot, &mut *(*chunk).used.get()))
        }) else {
            return;
        };
        slot.store(header, Release);
        if !header.is_null() {
            return;
        }
        *used = used.wrapping_sub(1);
        // SAFETY: The lock is held.
        if chunk != unsafe { (*self.turn.get()).chunk } {
            self.free_if_empty(lock, chunk, index);
        }
    }

    /// Gives up the reference of an entry that is in the table no more.
    fn give_up(&self, header: NonNull<Header>) {
        self.generation.fetch_add(1, Release);
        self.removed.store(true, Relaxed);
        // SAFETY: It was in the table, with the reference.
        drop(unsafe { PartRef::<P>::from_raw(header) });
    }

    /// The first chunk from `index` on, and its own index. Under RCU, or when nobody else uses the table.
    fn next_chunk(&self, index: u32) -> Option<(u32, NonNull<Chunk>)> {
        let mut at = slot_index(index);
        let (max, present) = (slot_index(self.numbers / SLOTS), bindings::XA_PRESENT);
        // SAFETY: The table is initialised.
        let chunk = unsafe { bindings::xa_find(self.xa.get(), &mut at, max, present) };
        Some((u32::try_from(at).ok()?, NonNull::new(chunk.cast())?))
    }

    /// The first entry from `id` on, and the number behind it. As above.
    fn next(&self, mut id: u32) -> Option<(u32, NonNull<Header>)> {
        loop {
            let (index, chunk) = self.next_chunk(id / SLOTS)?;
            // SAFETY: By the type invariants.
            let chunk = unsafe { chunk.as_ref() };
            let first = index.saturating_mul(SLOTS);
            let end = first.saturating_add(SLOTS);
            for id in id.max(first)..end {
                if let Some(header) = NonNull::new(read_once(chunk.slot(id)?)) {
                    return Some((id.saturating_add(1), header));
                }
            }
            id = end;
        }
    }

    /// Shows entries from `position` on to `f`: a limited number, so that the RCU read side is not
    /// held for long. Any context. To remove one, `f` calls [`IdTable::remove`].
    ///
    /// True when all have been seen; else `position` is where to go on, with another guard.
    pub fn scan(
        &self,
        _guard: &rcu::Guard,
        position: &mut Position,
        mut f: impl FnMut(&P) -> Scan,
    ) -> bool {
        for _ in 0..ENTRIES_PER_STEP {
            let id = u32::try_from(position.0).unwrap_or(u32::MAX);
            let Some((next, header)) = self.next(id) else {
                return true;
            };
            // SAFETY: As in `get`.
            if f(unsafe { PartRef::part(header) }) == Scan::Stop {
                return false;
            }
            position.0 = next.into();
        }
        false
    }
}

#[pinned_drop]
impl<P: Send + Sync + 'static> PinnedDrop for IdTable<P> {
    fn drop(self: Pin<&mut Self>) {
        let mut id = 0;
        while let Some((next, header)) = self.next(id) {
            self.give_up(header);
            id = next;
            // SAFETY: A plain call; nothing is held, and tables are dropped in process context.
            unsafe { bindings::cond_resched() };
        }
        let mut index = 0;
        while let Some((at, chunk)) = self.next_chunk(index) {
            // SAFETY: By the type invariants, and nobody uses it any more.
            unsafe { bindings::kfree(chunk.as_ptr().cast()) };
            index = at.saturating_add(1);
        }
        // SAFETY: The table is initialised, and nobody uses it any more.
        unsafe { bindings::xa_destroy(self.xa.get()) };
        // What the objects have may be needed by nobody else who outlives this.
        if self.removed.load(Relaxed) {
            // SAFETY: A plain call; process context.
            unsafe { bindings::rcu_barrier() };
        }
    }
}
