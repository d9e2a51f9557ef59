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

#[cfg(not(all(CONFIG_X86_64, not(CONFIG_UML))))]
use kernel::sync::atomic::Relaxed;
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

/// As [`Atomic::fetch_add`] with `Relaxed`, which is a function call, for those who do not want the
/// value before.
#[inline]
pub fn add(counter: &Atomic<u64>, n: u64) {
    #[cfg(all(CONFIG_X86_64, not(CONFIG_UML)))]
    // SAFETY: The pointer is valid and aligned. This is what `atomic64_add()` does.
    unsafe {
        core::arch::asm!(
            "lock add qword ptr [{counter}], {n}",
            counter = in(reg) counter.as_ptr(),
            n = in(reg) n,
            options(nostack),
        )
    };
    #[cfg(not(all(CONFIG_X86_64, not(CONFIG_UML))))]
    counter.fetch_add(n, Relaxed);
}

/// As [`add`], of a shorter counter.
#[inline]
pub fn add32(counter: &Atomic<u32>, n: u32) {
    #[cfg(all(CONFIG_X86_64, not(CONFIG_UML)))]
    // SAFETY: The pointer is valid and aligned. This is what `atomic_add()` does.
    unsafe {
        core::arch::asm!(
            "lock add dword ptr [{counter}], {n:e}",
            counter = in(reg) counter.as_ptr(),
            n = in(reg) n,
            options(nostack),
        )
    };
    #[cfg(not(all(CONFIG_X86_64, not(CONFIG_UML))))]
    counter.fetch_add(n, Relaxed);
}
