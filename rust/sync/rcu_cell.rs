// SPDX-License-Identifier: GPL-2.0

//! A value that is read under RCU and replaced as a whole.
//!
//! C header: [`include/linux/rcupdate.h`](srctree/include/linux/rcupdate.h)

use crate::bindings;
use core::marker::PhantomData;
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full, //
        },
        rcu,
        Arc, //
    },
};

/// Holds one value; readers neither lock nor count references.
///
/// Meant for what is read with every packet and changes with the configuration.
///
/// # Invariants
///
/// `value` came from [`Arc::into_raw`] and owns that reference. A value that was taken out is
/// released after an RCU grace period.
pub struct RcuCell<T> {
    value: Atomic<*mut T>,
    _owns: PhantomData<Arc<T>>,
}

// SAFETY: The cell hands out shared references and moves values of type `Arc<T>`.
unsafe impl<T: Send + Sync> Send for RcuCell<T> {}

// SAFETY: As above.
unsafe impl<T: Send + Sync> Sync for RcuCell<T> {}

impl<T> RcuCell<T> {
    /// A cell that holds `value`.
    pub fn new(value: Arc<T>) -> Self {
        // INVARIANT: As just made.
        Self {
            value: Atomic::new(Arc::into_raw(value).cast_mut()),
            _owns: PhantomData,
        }
    }

    /// The value, for as long as the RCU read side is held.
    #[inline]
    pub fn get<'a>(&'a self, _guard: &'a rcu::Guard) -> &'a T {
        // SAFETY: By the type invariants, the pointer is valid, and stays so until a grace period
        // after it was replaced. `Acquire` pairs with the exchange in `swap`.
        unsafe { &*self.value.load(Acquire) }
    }

    /// Puts another value in. The old one is released when the result is dropped.
    #[must_use = "dropping it waits for readers, which must not happen under a spinlock"]
    pub fn swap(&self, value: Arc<T>) -> Retired<T> {
        let old = self.value.xchg(Arc::into_raw(value).cast_mut(), Full);
        // INVARIANT: The new pointer came from `into_raw`, and the reference of the old one is
        // passed on to what waits for a grace period.
        Retired {
            value: old,
            _owns: PhantomData,
        }
    }
}

impl<T> Drop for RcuCell<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the reference is ours. Readers borrow the cell, so there
        // are none.
        drop(unsafe { Arc::from_raw(*self.value.get_mut()) });
    }
}

/// A value that was taken out of an [`RcuCell`] and may still be read.
///
/// Dropping it waits for an RCU grace period, so it needs a context that may sleep.
///
/// # Invariants
///
/// `value` came from [`Arc::into_raw`], and that reference is owned by this object.
pub struct Retired<T> {
    value: *mut T,
    _owns: PhantomData<Arc<T>>,
}

impl<T> Drop for Retired<T> {
    fn drop(&mut self) {
        // SAFETY: A plain call; process context.
        unsafe { bindings::synchronize_rcu() };
        // SAFETY: By the type invariants, and no reader is left.
        drop(unsafe { Arc::from_raw(self.value) });
    }
}

#[kunit_tests(nlb_core_rcu_cell)]
mod tests {
    use super::*;

    #[test]
    fn replaced_value_is_released_once_it_is_retired() -> Result {
        let first = Arc::new(1, GFP_KERNEL)?;
        let cell = RcuCell::new(first.clone());
        let guard = rcu::read_lock();
        assert_eq!(*cell.get(&guard), 1);
        drop(guard);
        let retired = cell.swap(Arc::new(2, GFP_KERNEL)?);
        assert_eq!(*cell.get(&rcu::read_lock()), 2);
        drop(retired);
        // The reference here is the last one.
        assert!(first.into_unique_or_drop().is_some());
        Ok(())
    }
}
