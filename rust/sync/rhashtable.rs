// SPDX-License-Identifier: GPL-2.0

//! Hash tables that are read under RCU.
//!
//! C header: [`include/linux/rhashtable.h`](srctree/include/linux/rhashtable.h)

mod key;
mod scan;
#[cfg(CONFIG_KUNIT = "y")]
mod tests;

pub use key::Key;
pub use scan::{
    Position,
    Scan, //
};

use super::read_once;
use crate::bindings;
use core::{
    marker::PhantomData,
    mem::{
        offset_of,
        size_of, //
    },
    ptr, //
};
use kernel::{
    alloc::Flags,
    error::{
        code,
        to_result, //
    },
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full,
            Relaxed,
            Release, //
        },
        barrier::smp_rmb,
        rcu, //
    },
    types::Opaque, //
};

/// Why an entry was not inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// There is an entry of this key.
    Exists,
    /// The table has as many entries as it may have.
    Full,
    /// Memory was short.
    NoMemory,
}

impl From<InsertError> for Error {
    fn from(error: InsertError) -> Self {
        match error {
            InsertError::Exists => EEXIST,
            InsertError::Full => ENOSPC,
            InsertError::NoMemory => ENOMEM,
        }
    }
}

/// An entry as it lies in memory.
#[repr(C)]
struct Node<K, V> {
    head: bindings::rhash_head,
    key: K,
    value: V,
    rcu: Opaque<bindings::callback_head>,
    /// The table's count of entries that wait to be freed.
    pending: *const Atomic<i32>,
}

/// A hash table from `K` to `V`, for lookups without locks in any context.
///
/// It grows and shrinks by itself, up to a bound on the number of entries. A removed entry is freed
/// after an RCU grace period, in softirq: dropping a `V` must not sleep. To change a value in
/// place, it has to have atomics or locks inside.
///
/// # Invariants
///
/// `ht` is initialised, and all its entries are heads of `Node<K, V>` from [`KBox`], each in the
/// table once. A node that was unlinked is only freed after a grace period.
#[pin_data(PinnedDrop)]
pub struct RcuHashTable<K: Key, V: Send + Sync + 'static> {
    #[pin]
    ht: Opaque<bindings::rhashtable>,
    /// Number of entries, counted before they are linked.
    count: Atomic<i32>,
    max: i32,
    /// Number of entries which wait to be freed.
    pending: Atomic<i32>,
    /// Changes with each insertion and removal.
    generation: Atomic<u64>,
    _entries: PhantomData<(K, V)>,
}

// SAFETY: The table does its own locking; keys and values may be used by all threads.
unsafe impl<K: Key, V: Send + Sync + 'static> Send for RcuHashTable<K, V> {}

// SAFETY: As above.
unsafe impl<K: Key, V: Send + Sync + 'static> Sync for RcuHashTable<K, V> {}

impl<K: Key, V: Send + Sync + 'static> RcuHashTable<K, V> {
    const PARAMS: bindings::rhashtable_params = {
        assert!(size_of::<K>() <= u16::MAX as usize);
        assert!(offset_of!(Node<K, V>, key) <= u16::MAX as usize);
        // SAFETY: All zeroes are valid: numbers, `false` and `None`.
        let mut params: bindings::rhashtable_params = unsafe { core::mem::zeroed() };
        params.key_len = size_of::<K>() as u16;
        params.key_offset = offset_of!(Node<K, V>, key) as u16;
        params.head_offset = offset_of!(Node<K, V>, head) as u16;
        params.automatic_shrinking = true;
        params.hashfn = Some(Self::hash_callback);
        params
    };

    /// Makes an empty table for at most `max` entries. May sleep. Errors: `ENOMEM`, `EINVAL` if
    /// `max` is 0 or above 2^31 - 1.
    pub fn new(max: u32) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            max: i32::try_from(max).ok().filter(|m| *m > 0).ok_or(EINVAL)?,
            count: Atomic::new(0),
            pending: Atomic::new(0),
            generation: Atomic::new(0),
            _entries: PhantomData,
            ht <- Opaque::try_ffi_init(|ht| {
                // SAFETY: `ht` is valid for writing, and the parameters fit to the nodes.
                to_result(unsafe { bindings::rhashtable_init(ht, &Self::PARAMS) })
            }),
        })
    }

    /// # Safety
    ///
    /// `data` must be a valid key.
    unsafe extern "C" fn hash_callback(data: *const c_void, _len: u32, seed: u32) -> u32 {
        // SAFETY: The table calls this for the key of a node, or the one it is asked for.
        unsafe { &*data.cast::<K>() }.hash(seed)
    }

    /// Number of entries, also of those that are just being inserted.
    pub fn len(&self) -> u32 {
        u32::try_from(read_once(&self.count)).unwrap_or(0)
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bound on the number of entries.
    pub fn max(&self) -> u32 {
        self.max.unsigned_abs()
    }

    /// A number that has changed whenever entries have come or gone.
    pub fn generation(&self) -> u64 {
        self.generation.load(Acquire)
    }

    /// The bucket of the chain for hash `hash`, and its address as a chain's end has it.
    ///
    /// # Safety
    ///
    /// `tbl` must be a bucket table of `self` and the RCU read side be held.
    #[inline]
    unsafe fn bucket(
        tbl: *mut bindings::bucket_table,
        hash: u32,
    ) -> *const *mut bindings::rhash_lock_head {
        // SAFETY: By the safety requirements.
        unsafe {
            if (*tbl).nest != 0 {
                return bindings::rht_bucket_const(tbl, hash).cast();
            }
            let index = hash & ((*tbl).size - 1);
            ptr::addr_of!((*tbl).buckets)
                .cast::<*mut bindings::rhash_lock_head>()
                .add(index as usize)
        }
    }

    /// What `RHT_NULLS_MARKER()` makes of a bucket's address: the end of its chain.
    #[inline]
    fn end_of(bucket: *const *mut bindings::rhash_lock_head) -> *mut bindings::rhash_head {
        (bucket as usize | 1) as *mut bindings::rhash_head
    }

    /// The first entry of a chain, or its end.
    ///
    /// # Safety
    ///
    /// `bucket` is from [`Self::bucket`], under the same RCU read side.
    #[inline]
    unsafe fn first(bucket: *const *mut bindings::rhash_lock_head) -> *mut bindings::rhash_head {
        // SAFETY: By the safety requirements; written in one piece.
        let first = unsafe { bucket.read_volatile() } as usize;
        // The lowest bit is a lock.
        match first & !1 {
            0 => Self::end_of(bucket),
            entry => entry as *mut bindings::rhash_head,
        }
    }

    /// Whether a chain ends here: the mark is odd, entries are aligned.
    #[inline]
    fn is_end(entry: *mut bindings::rhash_head) -> bool {
        entry as usize & 1 != 0
    }

    /// The entry after `entry`, or the end of the chain.
    ///
    /// # Safety
    ///
    /// `entry` is an entry found under the RCU read side that is held.
    #[inline]
    unsafe fn next(entry: *mut bindings::rhash_head) -> *mut bindings::rhash_head {
        // SAFETY: By the safety requirements; written in one piece.
        unsafe { ptr::addr_of!((*entry).next).read_volatile() }
    }

    /// # Safety
    ///
    /// `entry` is an entry found under the RCU read side `'a`.
    #[inline]
    unsafe fn node<'a>(entry: *mut bindings::rhash_head) -> &'a Node<K, V> {
        // CAST: By the type invariants, and `head` is the first field.
        // SAFETY: By the type invariants, it is not freed before the read side is released.
        unsafe { &*entry.cast() }
    }

    /// The current bucket table.
    #[inline]
    fn table(&self, _guard: &rcu::Guard) -> *mut bindings::bucket_table {
        // SAFETY: The table is initialised; the pointer is written in one piece.
        unsafe { ptr::addr_of!((*self.ht.get()).tbl).read_volatile() }
    }

    /// The table that entries of `tbl` are being moved to, or null.
    ///
    /// # Safety
    ///
    /// `tbl` is a bucket table found under the RCU read side that is held.
    #[inline]
    unsafe fn future_table(tbl: *mut bindings::bucket_table) -> *mut bindings::bucket_table {
        // SAFETY: By the safety requirements.
        unsafe { ptr::addr_of!((*tbl).future_tbl).read_volatile() }
    }

    /// `rhashtable_lookup()`, with the hash function and the comparison compiled in.
    #[inline]
    fn find<'a>(&'a self, guard: &'a rcu::Guard, key: &K) -> Option<&'a Node<K, V>> {
        let mut tbl = self.table(guard);
        while !tbl.is_null() {
            // SAFETY: `tbl` is a table of `self`, and the read side is held; so are the entries.
            unsafe {
                let bucket = Self::bucket(tbl, key.hash((*tbl).hash_rnd));
                loop {
                    let mut entry = Self::first(bucket);
                    while !Self::is_end(entry) {
                        let node = Self::node(entry);
                        if node.key == *key {
                            return Some(node);
                        }
                        entry = Self::next(entry);
                    }
                    // An entry on the way may have been moved to another chain, whose end this is.
                    if entry == Self::end_of(bucket) {
                        break;
                    }
                }
                // Pairs with the writer that linked the new table before it moved entries.
                smp_rmb();
                tbl = Self::future_table(tbl);
            }
        }
        None
    }

    /// The value of `key`, for as long as the RCU read side is held.
    #[inline]
    pub fn get<'a>(&'a self, guard: &'a rcu::Guard, key: &K) -> Option<&'a V> {
        self.find(guard, key).map(|node| &node.value)
    }

    /// Inserts an entry, unless there is one of this key. Any context, with flags that fit to it.
    ///
    /// On an error `value` is dropped.
    pub fn insert(&self, key: K, value: V, flags: Flags) -> Result<(), InsertError> {
        if self.count.fetch_add(1, Relaxed) >= self.max {
            self.count.fetch_sub(1, Relaxed);
            return Err(InsertError::Full);
        }
        let result = self.insert_counted(key, value, flags);
        if result.is_err() {
            self.count.fetch_sub(1, Relaxed);
        } else {
            self.generation.fetch_add(1, Release);
        }
        result
    }

    fn insert_counted(&self, key: K, value: V, flags: Flags) -> Result<(), InsertError> {
        let node = KBox::new(
            Node {
                head: bindings::rhash_head {
                    next: ptr::null_mut(),
                },
                key,
                value,
                rcu: Opaque::uninit(),
                pending: &self.pending,
            },
            flags,
        )
        .map_err(|_| InsertError::NoMemory)?;
        let node = KBox::into_raw(node);
        // INVARIANT: It is such a node, new, and `remove` waits before it frees it.
        // SAFETY: The table is initialised with the same parameters, the node is filled.
        let ret = unsafe {
            bindings::rhashtable_lookup_insert_fast(
                self.ht.get(),
                ptr::addr_of_mut!((*node).head),
                &Self::PARAMS,
            )
        };
        if ret == 0 {
            return Ok(());
        }
        // SAFETY: The node did not get into the table, so it is still ours.
        drop(unsafe { KBox::from_raw(node) });
        Err(match Error::from_errno(ret) {
            code::EEXIST => InsertError::Exists,
            code::E2BIG => InsertError::Full,
            _ => InsertError::NoMemory,
        })
    }

    /// Removes the entry of `key`. False if there is none. Any context.
    pub fn remove(&self, key: &K) -> bool {
        self.remove_if(key, |_| true)
    }

    /// Removes the entry of `key` if `condition` holds of its value. Whether it did. Any context.
    pub fn remove_if(&self, key: &K, condition: impl FnOnce(&V) -> bool) -> bool {
        let guard = rcu::Guard::new();
        match self.find(&guard, key) {
            Some(node) if condition(&node.value) => self.unlink(&guard, node),
            _ => false,
        }
    }

    /// Takes a node out of the table; false if somebody else did.
    fn unlink(&self, _guard: &rcu::Guard, node: &Node<K, V>) -> bool {
        let node = ptr::from_ref(node).cast_mut();
        // SAFETY: The table is initialised with the same parameters. The node was found under the
        // read side that is held, so it is not freed.
        let ret = unsafe {
            bindings::rhashtable_remove_fast(
                self.ht.get(),
                ptr::addr_of_mut!((*node).head),
                &Self::PARAMS,
            )
        };
        if ret != 0 {
            return false;
        }
        self.count.fetch_sub(1, Relaxed);
        self.generation.fetch_add(1, Release);
        self.pending.fetch_add(1, Relaxed);
        // SAFETY: The node is unlinked, and only we did it. `drop` waits for the callback, which
        // uses the table.
        unsafe {
            bindings::call_rcu(
                Opaque::cast_into(&raw const (*node).rcu),
                Some(Self::free_callback),
            )
        };
        true
    }

    /// # Safety
    ///
    /// `head` must be the `rcu` of an unlinked node, a grace period ago.
    unsafe extern "C" fn free_callback(head: *mut bindings::callback_head) {
        // SAFETY: `unlink` passed the `rcu` of a node.
        let node = unsafe { head.byte_sub(offset_of!(Node<K, V>, rcu)) }.cast::<Node<K, V>>();
        // SAFETY: The node is unlinked, and a grace period has passed since: nobody has it.
        let node = unsafe { KBox::from_raw(node) };
        let pending = node.pending;
        drop(node);
        // SAFETY: The table waits until this is zero before it goes.
        unsafe { &*pending }.fetch_sub(1, Full);
    }

    /// # Safety
    ///
    /// `node` must be a node that nobody else has.
    unsafe extern "C" fn destroy_callback(node: *mut c_void, _arg: *mut c_void) {
        // SAFETY: The table calls this for each node, when nobody else uses it any more.
        drop(unsafe { KBox::from_raw(node.cast::<Node<K, V>>()) });
    }
}

#[pinned_drop]
impl<K: Key, V: Send + Sync + 'static> PinnedDrop for RcuHashTable<K, V> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: The table is initialised, and nobody can use it any more: it is borrowed for as
        // long as a value is.
        unsafe {
            bindings::rhashtable_free_and_destroy(
                self.ht.get(),
                Some(Self::destroy_callback),
                ptr::null_mut(),
            )
        };
        // The callbacks write to `pending`.
        if self.pending.load(Acquire) != 0 {
            // SAFETY: A plain call; process context, as `rhashtable_free_and_destroy()`.
            unsafe { bindings::rcu_barrier() };
        }
    }
}
