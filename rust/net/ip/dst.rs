// SPDX-License-Identifier: GPL-2.0

//! Counted destination entries.
//!
//! C header: [`include/net/dst.h`](srctree/include/net/dst.h)

use crate::bindings;
use core::{
    mem::ManuallyDrop,
    ptr::NonNull, //
};

/// A reference to a destination entry.
///
/// # Invariants
///
/// Owns it.
pub(super) struct Dst(NonNull<bindings::dst_entry>);

// SAFETY: Destination entries are counted, and used on all CPUs.
unsafe impl Send for Dst {}

// SAFETY: As above.
unsafe impl Sync for Dst {}

impl Dst {
    /// None if the pointer is null.
    ///
    /// # Safety
    ///
    /// `dst` is null, or a reference that the caller gives away.
    #[inline]
    pub(super) unsafe fn from_raw(dst: *mut bindings::dst_entry) -> Option<Self> {
        // INVARIANT: By the safety requirements.
        NonNull::new(dst).map(Self)
    }

    /// Another reference, unless the last one is being given back.
    ///
    /// # Safety
    ///
    /// `dst` is valid.
    #[inline]
    pub(super) unsafe fn hold(dst: NonNull<bindings::dst_entry>) -> Option<Self> {
        // INVARIANT: As just taken.
        // SAFETY: By the safety requirements.
        unsafe { bindings::dst_hold_safe(dst.as_ptr()) }.then_some(Self(dst))
    }

    /// The reference, which the caller has to give back.
    pub(super) fn into_raw(self) -> NonNull<bindings::dst_entry> {
        ManuallyDrop::new(self).0
    }

    /// The C object.
    #[inline]
    pub(super) fn as_raw(&self) -> *mut bindings::dst_entry {
        self.0.as_ptr()
    }

    /// As [`Dst::as_raw`].
    #[inline]
    pub(super) fn as_non_null(&self) -> NonNull<bindings::dst_entry> {
        self.0
    }
}

impl Drop for Dst {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the type invariants; the reference is given back.
        unsafe { bindings::dst_release(self.as_raw()) };
    }
}
