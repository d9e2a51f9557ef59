// SPDX-License-Identifier: GPL-2.0

//! Synchronisation, and data that many CPUs share.

pub mod family_table;
pub mod id_table;
pub mod lock;
pub mod object;
pub mod percpu;
pub mod rcu;
pub mod rhashtable;
pub mod semaphore;
pub mod timed;

pub use lock::SpinLockBh;

use kernel::sync::atomic::{
    Atomic,
    AtomicType, //
};

/// As [`Atomic::load`] with `Relaxed`, which is a function call.
#[inline]
pub fn read_once<T: AtomicType>(atomic: &Atomic<T>) -> T {
    // SAFETY: The pointer is valid and aligned. Others write in one piece, and a volatile read is
    // the memory model's `READ_ONCE()`.
    unsafe { atomic.as_ptr().read_volatile() }
}
