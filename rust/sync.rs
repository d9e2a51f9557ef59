// SPDX-License-Identifier: GPL-2.0

//! Synchronisation, and data that many CPUs share.

pub mod family_table;
pub mod lock;
pub mod percpu;
pub mod rcu;
pub mod rhashtable;
pub mod semaphore;
pub mod timed;

pub use lock::SpinLockBh;
