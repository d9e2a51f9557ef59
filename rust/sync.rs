// SPDX-License-Identifier: GPL-2.0

//! Synchronisation, and data that many CPUs share.

pub mod percpu;
pub mod rhashtable;
