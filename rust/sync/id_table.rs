// SPDX-License-Identifier: GPL-2.0

//! Parts of objects by numbers that are given in turn.
//!
//! C header: [`include/linux/xarray.h`](srctree/include/linux/xarray.h)

use super::{
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
    ptr::{
        self,
        NonNull, //
    },
};
use kernel::{
    error::{
        code,
        to_result, //
    },
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

/// A table of parts of objects, each at a number of its own, for lookups without locks in any
/// context.
///
/// Numbers are given in turn, and with more numbers than entries, one that has become free is not
/// given again before all others that are free: as many as there are more, or more. How often all
/// have had their turn is told, so that longer numbers may take even longer to return. The table
/// takes some 9 bytes for each number between the ones that are in use.
///
/// # Invariants
///
/// `xa` is initialised, and its entries are from [`PartRef::into_raw`], with the reference.
#[pin_data(PinnedDrop)]
pub struct IdTable<P: Send + Sync + 'static> {
    #[pin]
    xa: Opaque<bindings::xarray>,
    /// Numbers are smaller than that.
    numbers: u32,
    /// No more entries.
    max: u32,
    /// The next number to try, and in which turn. Under the lock.
    turn: UnsafeCell<(u32, u32)>,
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

/// A number as the kernel has it.
fn index(id: u32) -> c_ulong {
    // CAST: It is as long as a pointer.
    id as c_ulong
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
            turn: UnsafeCell::new((first.checked_rem(numbers).ok_or(EINVAL)?, 0)),
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
        let limit = bindings::xa_limit {
            min: 0,
            max: self.numbers.wrapping_sub(1),
        };
        let mut id;
        let lock = self.lock();
        if self.len() >= self.max {
            return Err(InsertError::Full);
        }
        let header = part.into_raw();
        // INVARIANT: The entry is from `into_raw`, and the reference goes with it.
        // SAFETY: The table is initialised and the lock is held, which is not released meanwhile
        // with these flags; nobody else has `turn`.
        let ret = unsafe {
            let (next, turn) = &mut *self.turn.get();
            let (xa, entry, gfp) = (self.xa.get(), header.as_ptr().cast(), bindings::GFP_ATOMIC);
            // To look for one that is free costs more than what is usual: the next one is.
            if *next == self.numbers {
                (*next, *turn) = (0, turn.wrapping_add(1));
            }
            id = *next;
            let mut ret = bindings::__xa_insert(xa, index(id), entry, gfp);
            if ret == 0 {
                *next = id.wrapping_add(1);
            } else if Error::from_errno(ret) == code::EBUSY {
                ret = bindings::__xa_alloc_cyclic(xa, &mut id, entry, limit, next, gfp);
                if ret == 1 {
                    *turn = turn.wrapping_add(1);
                }
            }
            if ret >= 0 {
                // It is in the table, and who removes it needs the lock.
                known(PartRef::part(header), id, *turn);
                self.len.fetch_add(1u32, Relaxed);
            }
            ret
        };
        drop(lock);
        if ret < 0 {
            // SAFETY: It did not get into the table.
            drop(unsafe { PartRef::<P>::from_raw(header) });
        }
        match to_result(ret) {
            Ok(()) => {
                self.generation.fetch_add(1, Release);
                Ok(())
            }
            Err(code::EBUSY) => Err(InsertError::Full),
            Err(_) => Err(InsertError::NoMemory),
        }
    }

    /// The header at a number.
    #[inline]
    fn at(&self, id: u32) -> Option<NonNull<Header>> {
        // SAFETY: The table is initialised.
        let entry = unsafe { bindings::xa_load(self.xa.get(), index(id)) };
        NonNull::new(entry.cast())
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
        // SAFETY: The table is initialised, and the lock is held.
        unsafe { bindings::__xa_erase(self.xa.get(), index(id)) };
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
        // SAFETY: The table is initialised, and the lock is held. There is a place, so that no
        // memory is needed, and it cannot fail.
        unsafe {
            bindings::__xa_store(
                self.xa.get(),
                index(id),
                other.into_raw().as_ptr().cast(),
                bindings::GFP_ATOMIC,
            )
        };
        drop(lock);
        self.give_up(header);
        true
    }

    /// Gives up the reference of an entry that is in the table no more.
    fn give_up(&self, header: NonNull<Header>) {
        self.generation.fetch_add(1, Release);
        self.removed.store(true, Relaxed);
        // SAFETY: It was in the table, with the reference.
        drop(unsafe { PartRef::<P>::from_raw(header) });
    }

    /// The first entry from `id` on, and the number behind it.
    fn next(&self, id: u32) -> Option<(u32, NonNull<Header>)> {
        let mut at = index(id);
        let (max, present) = (index(self.numbers), bindings::XA_PRESENT);
        // SAFETY: The table is initialised.
        let entry = unsafe { bindings::xa_find(self.xa.get(), &mut at, max, present) };
        let next = u32::try_from(at.saturating_add(1)).unwrap_or(u32::MAX);
        Some((next, NonNull::new(entry.cast())?))
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
        // SAFETY: The table is initialised, and nobody uses it any more.
        unsafe { bindings::xa_destroy(self.xa.get()) };
        // What the objects have may be needed by nobody else who outlives this.
        if self.removed.load(Relaxed) {
            // SAFETY: A plain call; process context.
            unsafe { bindings::rcu_barrier() };
        }
    }
}

#[kunit_tests(nlb_core_id_table)]
mod tests {
    use super::*;
    use crate::sync::object::{
        Object,
        ObjectRef, //
    };
    use kernel::sync::Arc;

    struct Thing {
        before: u64,
        part: Numbered,
        dropped: Arc<Atomic<i32>>,
    }

    struct Numbered {
        name: u32,
        id: Atomic<u32>,
    }

    impl Object for Thing {
        type Key = u32;
        type Part = Numbered;

        fn key(&self) -> &u32 {
            &self.part.name
        }

        fn part(&self) -> &Numbered {
            &self.part
        }
    }

    impl Drop for Thing {
        fn drop(&mut self) {
            assert_eq!(self.before, 42);
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    fn thing(name: u32, dropped: &Arc<Atomic<i32>>) -> Result<ObjectRef<Thing>> {
        let part = Numbered {
            name,
            id: Atomic::new(u32::MAX),
        };
        let thing = Thing {
            before: 42,
            part,
            dropped: dropped.clone(),
        };
        ObjectRef::new(thing, GFP_KERNEL)
    }

    fn note(part: &Numbered, id: u32, turn: u32) {
        part.id.store(id + 100 * turn, Relaxed);
    }

    #[test]
    fn what_is_free_has_to_wait() -> Result {
        let dropped = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        let table = KBox::pin_init(IdTable::<Numbered>::new(2, 5, 0), GFP_KERNEL)?;
        let (stays, goes) = (thing(0, &dropped)?, thing(1, &dropped)?);
        table.insert(stays.to_part(), note)?;
        for id in [1, 2, 3, 4, 101, 102] {
            table.insert(goes.to_part(), note)?;
            assert_eq!(goes.part.id.load(Relaxed), id);
            let more = table.insert(goes.to_part(), note);
            assert_eq!(more, Err(InsertError::Full));
            assert_eq!(table.len(), 2);
            assert!(table.remove(id % 100, &goes.part));
        }
        drop((stays, goes, table));
        assert_eq!(dropped.load(Relaxed), 2);
        Ok(())
    }

    #[test]
    fn numbers_are_given_in_turn() -> Result {
        let dropped = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        let table = KBox::pin_init(IdTable::<Numbered>::new(4, 4, 6), GFP_KERNEL)?;
        let mut things = KVec::new();
        for (name, id) in [(0, 2), (1, 3), (2, 100), (3, 101)] {
            let thing = thing(name, &dropped)?;
            table.insert(thing.to_part(), note)?;
            assert_eq!(thing.part.id.load(Relaxed), id);
            things.push(thing, GFP_KERNEL)?;
        }
        let more = thing(4, &dropped)?;
        let full = table.insert(more.to_part(), note);
        assert_eq!(full, Err(InsertError::Full));
        assert_eq!(table.len(), 4);
        let Some(second) = things.get(1) else {
            return Err(EINVAL);
        };
        assert!(!table.remove(2, &second.part));
        assert!(table.remove(3, &second.part));
        assert!(!table.remove(3, &second.part));
        table.insert(more.to_part(), note)?;
        assert_eq!(more.part.id.load(Relaxed), 103);
        {
            let guard = rcu::read_lock();
            assert_eq!(table.get(&guard, 3).map(|part| part.name), Some(4));
            assert!(table.get(&guard, 4).is_none());
        }
        assert!(!table.replace(3, &second.part, more.to_part()));
        assert!(table.replace(3, &more.part, second.to_part()));
        let (mut position, mut sum) = (Position::default(), 0);
        assert!(table.scan(&rcu::read_lock(), &mut position, |part| {
            sum += part.name;
            Scan::Continue
        }));
        assert_eq!(sum, 6);
        assert!(table.scan(&rcu::read_lock(), &mut position, |_| Scan::Stop));
        drop((things, more));
        drop(table);
        // Dropping the table has waited for them.
        assert_eq!(dropped.load(Relaxed), 5);
        Ok(())
    }
}
