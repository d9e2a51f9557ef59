// SPDX-License-Identifier: GPL-2.0

//! Tables of keys and values.

use super::{
    InsertError,
    Key,
    Node,
    Table, //
};
use crate::bindings;
use core::{
    mem::offset_of,
    ptr, //
};
use kernel::{
    alloc::Flags,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        rcu, //
    },
    types::Opaque, //
};

/// A key and its value, as they lie in memory.
#[repr(C)]
pub struct Pair<K, V> {
    head: Opaque<bindings::rhash_head>,
    key: K,
    value: V,
    rcu: Opaque<bindings::callback_head>,
    /// The table's count of entries that wait to be freed.
    pending: *const Atomic<i32>,
}

/// A hash table from `K` to `V`.
///
/// See [`Table`]. Its nodes are from [`KBox`].
pub type RcuHashTable<K, V> = Table<Pair<K, V>>;

// SAFETY: Key and value may be used by all threads, and the count is an atomic.
unsafe impl<K: Key, V: Send + Sync> Send for Pair<K, V> {}

// SAFETY: As above.
unsafe impl<K: Key, V: Send + Sync> Sync for Pair<K, V> {}

impl<K, V> Pair<K, V> {
    /// The value.
    #[inline]
    pub fn value(&self) -> &V {
        &self.value
    }

    /// # Safety
    ///
    /// `head` must be the `rcu` of an unlinked node, a grace period ago.
    unsafe extern "C" fn free_callback(head: *mut bindings::callback_head) {
        // SAFETY: `retire` passed the `rcu` of a node.
        let node = unsafe { head.byte_sub(offset_of!(Self, rcu)) }.cast::<Self>();
        // SAFETY: The node is unlinked, and a grace period has passed since: nobody has it.
        let node = unsafe { KBox::from_raw(node) };
        let pending = node.pending;
        drop(node);
        // SAFETY: The table waits until this is zero before it goes.
        unsafe { &*pending }.fetch_sub(1, Full);
    }
}

// SAFETY: As it says, and nobody else has the head.
unsafe impl<K: Key, V: Send + Sync + 'static> Node for Pair<K, V> {
    type Key = K;

    const HEAD: usize = offset_of!(Self, head);

    #[inline]
    fn key(&self) -> &K {
        &self.key
    }

    unsafe fn retire(node: *mut Self, pending: &Atomic<i32>) {
        pending.fetch_add(1, Relaxed);
        // SAFETY: The node is unlinked, and only the caller did it. The table's `drop` waits for the
        // callback, which uses the table.
        unsafe {
            bindings::call_rcu(
                Opaque::cast_into(&raw const (*node).rcu),
                Some(Self::free_callback),
            )
        };
    }

    unsafe fn destroy(node: *mut Self, _pending: &Atomic<i32>) {
        // SAFETY: Nobody else has it, and `insert` made it.
        drop(unsafe { KBox::from_raw(node) });
    }
}

impl<K: Key, V: Send + Sync + 'static> RcuHashTable<K, V> {
    /// The value of `key`, for as long as the RCU read side is held.
    #[inline]
    pub fn get<'a>(&'a self, guard: &'a rcu::Guard, key: &K) -> Option<&'a V> {
        self.find(guard, key).map(|node| &node.value)
    }

    /// Inserts an entry, unless there is one of this key. Any context, with flags that fit to it.
    ///
    /// On an error `value` is dropped.
    pub fn insert(&self, key: K, value: V, flags: Flags) -> Result<(), InsertError> {
        let node = KBox::new(
            Pair {
                head: Opaque::new(bindings::rhash_head {
                    next: ptr::null_mut(),
                }),
                key,
                value,
                rcu: Opaque::uninit(),
                pending: &self.pending,
            },
            flags,
        )
        .map_err(|_| InsertError::NoMemory)?;
        let node = KBox::into_raw(node);
        // SAFETY: The node is new and filled, and ours until it is linked.
        let linked = unsafe { self.link(node) };
        if linked.is_err() {
            // SAFETY: The node did not get into the table, so it is still ours.
            drop(unsafe { KBox::from_raw(node) });
        }
        linked
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
}
