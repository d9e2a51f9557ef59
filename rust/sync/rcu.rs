// SPDX-License-Identifier: GPL-2.0

//! Pointers that are read under RCU, and waiting for readers.
//!
//! C header: [`include/linux/rcupdate.h`](srctree/include/linux/rcupdate.h)

use crate::bindings;
use core::{
    marker::PhantomData,
    ptr, //
};
use kernel::{
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full,
            Relaxed, //
        },
        Arc, //
    }, //
};

pub use kernel::sync::rcu::{
    read_lock,
    Guard, //
};

/// Waits until all RCU read sides that have begun have ended. May sleep.
pub fn synchronize() {
    // SAFETY: A plain call.
    unsafe { bindings::synchronize_rcu() };
}

/// As [`synchronize`], within microseconds to milliseconds, at the cost of interrupting all CPUs.
pub fn synchronize_expedited() {
    // SAFETY: A plain call.
    unsafe { bindings::wait_rcu_expedited() };
}

/// A value that is read on the fast path and replaced now and then, such as a list in a
/// configuration.
///
/// # Invariants
///
/// The pointer is null, or came from [`Arc::into_raw`], and that reference is owned by the cell. A
/// reference that was replaced is given back after a grace period.
pub struct RcuCell<T: Send + Sync + 'static> {
    ptr: Atomic<*mut T>,
    _value: PhantomData<Arc<T>>,
}

// SAFETY: The value may be used by all threads, and the pointer to it is atomic.
unsafe impl<T: Send + Sync + 'static> Send for RcuCell<T> {}

// SAFETY: As above.
unsafe impl<T: Send + Sync + 'static> Sync for RcuCell<T> {}

impl<T: Send + Sync + 'static> RcuCell<T> {
    fn into_ptr(value: Option<Arc<T>>) -> *mut T {
        value.map_or(ptr::null_mut(), |value| Arc::into_raw(value).cast_mut())
    }

    /// Makes a cell.
    pub fn new(value: Option<Arc<T>>) -> Self {
        // INVARIANT: As it says.
        Self {
            ptr: Atomic::new(Self::into_ptr(value)),
            _value: PhantomData,
        }
    }

    /// The value, for as long as the RCU read side is held.
    #[inline]
    pub fn get<'a>(&'a self, _guard: &'a Guard) -> Option<&'a T> {
        // SAFETY: By the type invariants, the value lives for a grace period at least.
        unsafe { self.ptr.load(Acquire).as_ref() }
    }

    /// The value, counted.
    pub fn get_arc(&self) -> Option<Arc<T>> {
        let guard = Guard::new();
        let value = ptr::from_ref(self.get(&guard)?);
        // SAFETY: By the type invariants, the pointer came from `Arc::into_raw`, and there is a
        // count until after the grace period, which is not given back here.
        let owned = core::mem::ManuallyDrop::new(unsafe { Arc::from_raw(value) });
        Some(Arc::clone(&owned))
    }

    /// Replaces the value; returns when nobody reads the old one any more. May sleep, so not with a
    /// spin lock or the RCU read side held.
    pub fn replace(&self, value: Option<Arc<T>>) {
        // INVARIANT: As it says.
        let old = self.ptr.xchg(Self::into_ptr(value), Full);
        if old.is_null() {
            return;
        }
        synchronize();
        // SAFETY: By the type invariants, the cell owned it, and nobody reads it any more.
        drop(unsafe { Arc::from_raw(old.cast_const()) });
    }
}

impl<T: Send + Sync + 'static> Drop for RcuCell<T> {
    fn drop(&mut self) {
        let value = self.ptr.load(Relaxed);
        if !value.is_null() {
            // SAFETY: By the type invariants; nobody reads it, as the cell is borrowed meanwhile.
            drop(unsafe { Arc::from_raw(value.cast_const()) });
        }
    }
}
