// SPDX-License-Identifier: GPL-2.0

//! A spin lock for data that softirqs use, too.

use core::ops::{
    Deref,
    DerefMut, //
};
use kernel::{
    prelude::*,
    sync::{
        lock::spinlock::SpinLockGuard,
        LockClassKey,
        SpinLock, //
    },
    types::NotThreadSafe, //
};

use crate::bindings;

/// Keeps softirqs off this CPU while it lives.
pub struct BottomHalfDisabled(NotThreadSafe);

impl BottomHalfDisabled {
    /// Disables softirqs. Any context but hard interrupts; nests.
    #[expect(clippy::new_without_default, reason = "it does something")]
    #[inline]
    pub fn new() -> Self {
        // SAFETY: A plain call.
        unsafe { bindings::local_bh_disable() };
        Self(NotThreadSafe)
    }
}

impl Drop for BottomHalfDisabled {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: Pairs with the call in `new`.
        unsafe { bindings::local_bh_enable() };
    }
}

/// A spin lock that keeps softirqs off while it is held (`spin_lock_bh()`).
///
/// For what is used in softirq and in process context: without that, a softirq that interrupts the
/// holder on the same CPU would spin for ever.
#[pin_data]
pub struct SpinLockBh<T> {
    #[pin]
    lock: SpinLock<T>,
}

impl<T> SpinLockBh<T> {
    /// Makes a lock; see [`new_spinlock_bh`](crate::new_spinlock_bh).
    pub fn new(
        data: T,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self> {
        pin_init!(Self {
            lock <- SpinLock::new(data, name, key),
        })
    }

    /// Takes the lock. Any context but hard interrupts.
    #[inline]
    pub fn lock(&self) -> GuardBh<'_, T> {
        let bh = BottomHalfDisabled::new();
        GuardBh {
            guard: self.lock.lock(),
            _bh: bh,
        }
    }
}

/// Holds a [`SpinLockBh`].
// The lock is released before softirqs are allowed: fields drop in order.
pub struct GuardBh<'a, T> {
    guard: SpinLockGuard<'a, T>,
    _bh: BottomHalfDisabled,
}

impl<T> Deref for GuardBh<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T: Unpin> DerefMut for GuardBh<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// Makes the initialiser of a [`SpinLockBh`], with a lock class of its own.
#[macro_export]
macro_rules! new_spinlock_bh {
    ($data:expr $(, $name:literal)? $(,)?) => {
        $crate::sync::lock::SpinLockBh::new(
            $data,
            ::kernel::optional_name!($($name)?),
            ::kernel::static_lock_class!(),
        )
    };
}
