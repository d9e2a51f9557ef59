// SPDX-License-Identifier: GPL-2.0

//! Hash tables that are read under RCU.
//!
//! C header: [`include/linux/rhashtable.h`](srctree/include/linux/rhashtable.h)

mod key;
mod object;
mod pair;
mod scan;
#[cfg(CONFIG_KUNIT = "y")]
mod tests;

pub use key::Key;
pub use object::ObjectTable;
pub use pair::RcuHashTable;
pub use scan::{
    Position,
    Scan, //
};

use super::read_once;
use crate::bindings;
use core::{
    marker::PhantomData,
    ptr::{
        self,
        NonNull, //
    }, //
};
use kernel::{
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

/// What is in a table.
///
/// # Safety
///
/// `HEAD` is the offset of an `rhash_head` in it, which is the table's.
pub unsafe trait Node: Send + Sync + Sized + 'static {
    /// By what it is found.
    type Key: Key;

    /// Where its `rhash_head` is.
    const HEAD: usize;

    /// Its key, always the same.
    fn key(&self) -> &Self::Key;

    /// Lets go of a node that was taken out of a table, which is freed after an RCU grace period.
    /// `pending` is of the table, and is not zero if the table's end has to wait for that.
    ///
    /// # Safety
    ///
    /// The node was in the table, and only the caller has taken it out.
    unsafe fn retire(node: *mut Self, pending: &Atomic<i32>);

    /// Lets go of a node when nobody else uses the table any more.
    ///
    /// # Safety
    ///
    /// The node was in the table.
    unsafe fn destroy(node: *mut Self, pending: &Atomic<i32>);
}

/// A hash table of nodes, for lookups without locks in any context: an [`RcuHashTable`] or an
/// [`ObjectTable`].
///
/// It grows and shrinks by itself, up to a bound on the number of entries; one for many entries is
/// large from the beginning, and does not shrink, so that entries need not be moved all the time. A removed entry is freed
/// after an RCU grace period, in softirq: dropping it must not sleep. To change an entry in place, it
/// has to have atomics or locks inside.
///
/// # Invariants
///
/// `live` is null, or points to `ht`, which then is initialised. All its entries are heads of `N`,
/// each in the table once. A node that was unlinked is only freed after a grace period.
#[pin_data(PinnedDrop)]
pub struct Table<N: Node> {
    #[pin]
    ht: Opaque<bindings::rhashtable>,
    live: Atomic<*mut bindings::rhashtable>,
    /// Held by who initialises `ht`.
    claimed: Atomic<bool>,
    /// Number of entries, counted before they are linked.
    count: Atomic<i32>,
    max: i32,
    /// Number of entries which wait to be freed, or some other number if that is not known.
    pending: Atomic<i32>,
    /// Changes with each insertion and removal.
    generation: Atomic<u64>,
    _nodes: PhantomData<N>,
}

// SAFETY: The table does its own locking; nodes may be used by all threads.
unsafe impl<N: Node> Send for Table<N> {}

// SAFETY: As above.
unsafe impl<N: Node> Sync for Table<N> {}

impl<N: Node> Table<N> {
    /// Parameters of a table of some size at the beginning, or of a usual one.
    const fn params(first: Option<u16>) -> bindings::rhashtable_params {
        assert!(N::HEAD <= u16::MAX as usize);
        // SAFETY: All zeroes are valid: numbers, `false` and `None`.
        let mut params: bindings::rhashtable_params = unsafe { core::mem::zeroed() };
        params.head_offset = N::HEAD as u16;
        params.hashfn = Some(Self::hash_callback);
        params.obj_hashfn = Some(Self::hash_node_callback);
        params.obj_cmpfn = Some(Self::compare_callback);
        match first {
            Some(first) => params.nelem_hint = first,
            None => params.automatic_shrinking = true,
        }
        params
    }

    const USUAL: bindings::rhashtable_params = Self::params(None);
    /// There is no larger number.
    const LARGE: bindings::rhashtable_params = Self::params(Some(u16::MAX));

    /// A table that has not been set up.
    fn unready(max: u32) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            max: i32::try_from(max).ok().filter(|m| *m > 0).ok_or(EINVAL)?,
            count: Atomic::new(0),
            pending: Atomic::new(0),
            generation: Atomic::new(0),
            _nodes: PhantomData,
            ht: Opaque::uninit(),
            live: Atomic::new(ptr::null_mut()),
            claimed: Atomic::new(false),
        })
    }

    fn set_up(&self, params: &bindings::rhashtable_params) -> Result {
        if self.claimed.xchg(true, Full) {
            return Ok(());
        }
        let ht = self.ht.get();
        // SAFETY: `ht` is valid for writing, nobody else has it, and the parameters fit to the nodes.
        let result = to_result(unsafe { bindings::rhashtable_init(ht, params) });
        match result {
            // INVARIANT: It is initialised.
            Ok(()) => self.live.store(ht, Release),
            Err(_) => self.claimed.store(false, Release),
        }
        result
    }

    /// Makes an empty table for at most `max` entries. May sleep. Errors: `ENOMEM`, `EINVAL` if
    /// `max` is 0 or above 2^31 - 1.
    pub fn new(max: u32) -> impl PinInit<Self, Error> {
        Self::unready(max).pin_chain(|table| table.set_up(&Self::USUAL))
    }

    /// As [`Table::new`], of a table for many entries, which takes no memory yet. Before
    /// [`Table::prepare`] nothing can be inserted: [`InsertError::NoMemory`].
    pub fn for_many(max: u32) -> impl PinInit<Self, Error> {
        Self::unready(max)
    }

    /// Gives a table that is for many entries, and not prepared yet, its memory: one megabyte, with
    /// which some 98,000 entries fit before it grows. Process context. `ENOMEM`.
    ///
    /// Whoever is so at the same moment as another one may return a moment before it is done.
    pub fn prepare(&self) -> Result {
        self.set_up(&Self::LARGE)
    }

    /// The hash table, if it has been set up.
    #[inline]
    fn live(&self) -> Option<NonNull<bindings::rhashtable>> {
        // What it leads to depends on it.
        NonNull::new(read_once(&self.live))
    }

    /// # Safety
    ///
    /// `data` must be a valid key.
    unsafe extern "C" fn hash_callback(data: *const c_void, _len: u32, seed: u32) -> u32 {
        // SAFETY: The table calls this for the key it is asked for.
        unsafe { &*data.cast::<N::Key>() }.hash(seed)
    }

    /// # Safety
    ///
    /// `node` must be a valid node.
    unsafe extern "C" fn hash_node_callback(node: *const c_void, _len: u32, seed: u32) -> u32 {
        // SAFETY: The table calls this for its nodes.
        unsafe { &*node.cast::<N>() }.key().hash(seed)
    }

    /// # Safety
    ///
    /// `arg` must have a valid key, and `node` be a valid node.
    unsafe extern "C" fn compare_callback(
        arg: *mut bindings::rhashtable_compare_arg,
        node: *const c_void,
    ) -> c_int {
        // SAFETY: The table calls this for its nodes and the key it is asked for.
        let (node, key) = unsafe { (&*node.cast::<N>(), &*(*arg).key.cast::<N::Key>()) };
        c_int::from(node.key() != key)
    }

    /// Number of entries, also of those that are just being inserted.
    pub fn len(&self) -> u32 {
        u32::try_from(read_once(&self.count)).unwrap_or(0)
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there are as many entries as there may be.
    pub fn is_full(&self) -> bool {
        self.len() >= self.max()
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
    unsafe fn node<'a>(entry: *mut bindings::rhash_head) -> &'a N {
        // CAST: By the type invariants.
        // SAFETY: By the type invariants, it is not freed before the read side is released.
        unsafe { &*entry.byte_sub(N::HEAD).cast() }
    }

    /// The current bucket table; null if the table has not been set up.
    #[inline]
    fn table(&self, _guard: &rcu::Guard) -> *mut bindings::bucket_table {
        match self.live() {
            // SAFETY: The table is initialised; the pointer is written in one piece.
            Some(ht) => unsafe { ptr::addr_of!((*ht.as_ptr()).tbl).read_volatile() },
            None => ptr::null_mut(),
        }
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
    fn find<'a>(&'a self, guard: &'a rcu::Guard, key: &N::Key) -> Option<&'a N> {
        let mut tbl = self.table(guard);
        while !tbl.is_null() {
            // SAFETY: `tbl` is a table of `self`, and the read side is held; so are the entries.
            unsafe {
                let bucket = Self::bucket(tbl, key.hash((*tbl).hash_rnd));
                loop {
                    let mut entry = Self::first(bucket);
                    while !Self::is_end(entry) {
                        let node = Self::node(entry);
                        if node.key() == key {
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

    /// Links a node, unless there is one of its key or the table is full. Any context.
    ///
    /// # Safety
    ///
    /// The node is valid, in no table, and stays until it is retired or destroyed if it is linked.
    unsafe fn link(&self, node: *mut N) -> Result<(), InsertError> {
        let ht = self.live().ok_or(InsertError::NoMemory)?.as_ptr();
        if self.count.fetch_add(1, Relaxed) >= self.max {
            self.count.fetch_sub(1, Relaxed);
            return Err(InsertError::Full);
        }
        // INVARIANT: By the safety requirements, and `unlink` has it wait before it is freed.
        // SAFETY: The table is initialised, and has its parameters; the node is valid.
        let ret = unsafe {
            bindings::rhashtable_lookup_insert_key(
                ht,
                ptr::from_ref((*node).key()).cast(),
                node.byte_add(N::HEAD).cast(),
                &(*ht).p,
            )
        };
        if ret == 0 {
            self.generation.fetch_add(1, Release);
            return Ok(());
        }
        self.count.fetch_sub(1, Relaxed);
        Err(match Error::from_errno(ret) {
            code::EEXIST => InsertError::Exists,
            code::E2BIG => InsertError::Full,
            _ => InsertError::NoMemory,
        })
    }

    /// Takes a node out of the table; false if somebody else did.
    fn unlink(&self, _guard: &rcu::Guard, node: &N) -> bool {
        let node = ptr::from_ref(node).cast_mut();
        let Some(ht) = self.live().map(NonNull::as_ptr) else {
            return false;
        };
        // SAFETY: The table is initialised, and has its parameters. The node was found under the
        // read side that is held, so it is not freed.
        let ret = unsafe {
            bindings::rhashtable_remove_fast(ht, node.byte_add(N::HEAD).cast(), &(*ht).p)
        };
        if ret != 0 {
            return false;
        }
        self.count.fetch_sub(1, Relaxed);
        self.generation.fetch_add(1, Release);
        // SAFETY: The node is unlinked, and only we did it.
        unsafe { N::retire(node, &self.pending) };
        true
    }

    /// Puts `heir`, of the same key, in the place of a node; false if that is not in the table any more.
    ///
    /// # Safety
    ///
    /// As of [`Self::link`], of `heir`.
    unsafe fn exchange(&self, _guard: &rcu::Guard, node: &N, heir: *mut N) -> bool {
        let node = ptr::from_ref(node).cast_mut();
        let Some(ht) = self.live().map(NonNull::as_ptr) else {
            return false;
        };
        // INVARIANT: By the safety requirements, and the old node is as after `unlink`.
        // SAFETY: As in `unlink`; the heir is valid, and in no table.
        let ret = unsafe {
            bindings::rhashtable_replace_fast(
                ht,
                node.byte_add(N::HEAD).cast(),
                heir.byte_add(N::HEAD).cast(),
                &(*ht).p,
            )
        };
        if ret != 0 {
            return false;
        }
        self.generation.fetch_add(1, Release);
        // SAFETY: The node is unlinked, and only we did it.
        unsafe { N::retire(node, &self.pending) };
        true
    }

    /// # Safety
    ///
    /// `node` must be a node that nobody else has from the table, and `pending` that of the table.
    unsafe extern "C" fn destroy_callback(node: *mut c_void, pending: *mut c_void) {
        // SAFETY: The table calls this for each node, when nobody else uses it any more.
        unsafe { N::destroy(node.cast(), &*pending.cast::<Atomic<i32>>()) };
    }
}

#[pinned_drop]
impl<N: Node> PinnedDrop for Table<N> {
    fn drop(self: Pin<&mut Self>) {
        let Some(ht) = self.live() else {
            return;
        };
        // SAFETY: The table is initialised, and nobody can use it any more: it is borrowed for as
        // long as a value is.
        unsafe {
            bindings::rhashtable_free_and_destroy(
                ht.as_ptr(),
                Some(Self::destroy_callback),
                ptr::from_ref(&self.pending).cast_mut().cast(),
            )
        };
        // The callbacks may write to `pending`, and what the nodes have may be needed by nobody else
        // who outlives this.
        if self.pending.load(Acquire) != 0 {
            // SAFETY: A plain call; process context, as `rhashtable_free_and_destroy()`.
            unsafe { bindings::rcu_barrier() };
        }
    }
}
