// SPDX-License-Identifier: GPL-2.0

//! Waiting for something to be done or to happen, for a limited time if need be.
//!
//! [`kernel::sync::Completion`] waits without a limit only.
//!
//! C header: [`include/linux/completion.h`](srctree/include/linux/completion.h).

use crate::bindings;
use kernel::{
    prelude::*,
    time::msecs_to_jiffies,
    types::Opaque, //
};

/// Something that is going to be done once ([`Self::complete_all`]), or to happen a number of times
/// ([`Self::complete`]).
#[pin_data]
pub struct Completion {
    #[pin]
    inner: Opaque<bindings::completion>,
}

// SAFETY: A `struct completion` may be used by any thread,
unsafe impl Send for Completion {}
// SAFETY: and by several at once: it has a lock.
unsafe impl Sync for Completion {}

impl Completion {
    /// Not done yet.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- Opaque::ffi_init(|slot: *mut bindings::completion| {
                // SAFETY: `slot` is valid and going to be pinned.
                unsafe { bindings::init_completion(slot) };
            }),
        })
    }

    /// Lets one wait end, now or later. May be called in any context.
    pub fn complete(&self) {
        // SAFETY: The completion is initialized.
        unsafe { bindings::complete(self.inner.get()) };
    }

    /// Says that it is done, to all who wait and will wait. May be called in any context.
    pub fn complete_all(&self) {
        // SAFETY: The completion is initialized.
        unsafe { bindings::complete_all(self.inner.get()) };
    }

    /// Whether it is done.
    pub fn is_done(&self) -> bool {
        // SAFETY: The completion is initialized.
        unsafe { bindings::completion_done(self.inner.get()) }
    }

    /// Waits until it is done.
    pub fn wait(&self) {
        // SAFETY: The completion is initialized.
        unsafe { bindings::wait_for_completion(self.inner.get()) };
    }

    /// Waits until it is done, but no longer than `ms` milliseconds; tells whether it is.
    pub fn wait_timeout(&self, ms: u32) -> bool {
        let jiffies = msecs_to_jiffies(ms);
        // SAFETY: The completion is initialized.
        unsafe { bindings::wait_for_completion_timeout(self.inner.get(), jiffies) > 0 }
    }

    /// As [`Self::wait_timeout`], for a process's sake: `EINTR` if it is killed.
    pub fn wait_killable_timeout(&self, ms: u32) -> Result<bool> {
        let jiffies = msecs_to_jiffies(ms);
        // SAFETY: The completion is initialized.
        let left =
            unsafe { bindings::wait_for_completion_killable_timeout(self.inner.get(), jiffies) };
        if left < 0 {
            return Err(EINTR);
        }
        Ok(left > 0)
    }
}

#[kunit_tests(nlb_completion)]
mod tests {
    use super::*;
    use kernel::sync::Arc;

    #[test]
    fn timeout() -> Result {
        let done = Arc::pin_init(Completion::new(), GFP_KERNEL)?;
        assert!(!done.is_done());
        assert!(!done.wait_timeout(1));
        done.complete_all();
        assert!(done.is_done());
        // Stays done.
        assert!(done.wait_timeout(1));
        assert!(done.wait_killable_timeout(1)?);
        done.wait();
        Ok(())
    }

    #[test]
    fn one_wait_each() -> Result {
        let done = Arc::pin_init(Completion::new(), GFP_KERNEL)?;
        for _ in 0..2 {
            done.complete();
        }
        assert!(done.wait_timeout(1));
        assert!(done.wait_killable_timeout(1)?);
        assert!(!done.wait_timeout(1));
        Ok(())
    }
}
