// SPDX-License-Identifier: GPL-2.0

//! A mutex for which one waits for a limited time; `struct mutex` knows no such thing.

use super::semaphore::{
    Patience,
    Permit,
    Semaphore, //
};
use core::ops::{
    Deref,
    DerefMut, //
};
use kernel::{
    prelude::*,
    sync::{
        lock::mutex::MutexGuard,
        LockClassKey,
        Mutex, //
    }, //
};

/// A mutex that is given to those who wait in the order in which they came.
#[pin_data]
pub struct TimedMutex<T> {
    /// Of one permit.
    #[pin]
    turn: Semaphore,
    /// Only taken by the one who has the permit, so without waiting.
    #[pin]
    data: Mutex<T>,
}

impl<T> TimedMutex<T> {
    /// Makes a mutex; see [`new_timed_mutex`](crate::new_timed_mutex).
    pub fn new(
        data: T,
        name: &'static CStr,
        (key, turn_key): (Pin<&'static LockClassKey>, Pin<&'static LockClassKey>),
    ) -> impl PinInit<Self> {
        pin_init!(Self {
            turn <- Semaphore::new(1, name, turn_key),
            data <- Mutex::new(data, name, key),
        })
    }

    /// Takes the mutex, if that is possible within `ms` milliseconds. May sleep. `None` also if others
    /// have it, and there is no memory to wait in line.
    pub fn lock_timeout(&self, ms: u32) -> Option<TimedGuard<'_, T>> {
        let permit = self.turn.acquire(Patience::For(ms)).ok()??;
        Some(TimedGuard {
            data: self.data.lock(),
            _permit: permit,
        })
    }
}

/// Holds a [`TimedMutex`].
// Fields drop in order: the next one takes the inner mutex without waiting.
pub struct TimedGuard<'a, T> {
    data: MutexGuard<'a, T>,
    _permit: Permit<'a>,
}

impl<T> Deref for TimedGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.data
    }
}

impl<T: Unpin> DerefMut for TimedGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.data
    }
}

/// Makes the initialiser of a [`TimedMutex`], with a lock class of its own.
#[macro_export]
macro_rules! new_timed_mutex {
    ($data:expr $(, $name:literal)? $(,)?) => {
        $crate::sync::timed::TimedMutex::new(
            $data,
            ::kernel::optional_name!($($name)?),
            (
                ::kernel::static_lock_class!(),
                ::kernel::static_lock_class!(),
            ),
        )
    };
}

#[kunit_tests(nlb_timed_mutex)]
mod tests {
    use super::*;
    use kernel::sync::Arc;

    #[test]
    fn one_at_a_time() -> Result {
        let mutex = Arc::pin_init(crate::new_timed_mutex!(1, "nlb_timed_mutex"), GFP_KERNEL)?;
        for n in 1..3 {
            let mut held = mutex.lock_timeout(0).ok_or(EBUSY)?;
            assert_eq!(*held, n);
            *held += 1;
            assert!(mutex.lock_timeout(0).is_none());
            assert!(mutex.lock_timeout(2).is_none());
        }
        assert!(mutex.lock_timeout(0).is_some());
        Ok(())
    }
}
