// SPDX-License-Identifier: GPL-2.0

//! Allocation flags for C functions.

use crate::bindings;
use kernel::{
    alloc::Flags,
    prelude::*, //
};

/// The C value of `flags`: the ones that this crate passes on, else `GFP_ATOMIC`, which may be used
/// in any context.
pub(crate) fn gfp(flags: Flags) -> bindings::gfp_t {
    if flags == GFP_KERNEL {
        bindings::GFP_KERNEL
    } else {
        bindings::GFP_ATOMIC
    }
}
