// SPDX-License-Identifier: GPL-2.0

//! Buffers of bytes.

use kernel::{
    alloc::flags::__GFP_ZERO,
    prelude::*, //
};

/// `len` zeros. May sleep.
///
/// The memory is zero already when it comes; [`KVVec::resize`] would write one byte after the
/// other, with six instructions for each.
pub fn zeros(len: usize) -> Result<KVVec<u8>> {
    let mut bytes = KVVec::with_capacity(len, GFP_KERNEL | __GFP_ZERO)?;
    // SAFETY: The vector is empty, there is room for `len` bytes, and they are zero.
    unsafe { bytes.inc_len(len) };
    Ok(bytes)
}

/// Makes `bytes` `len` zeros, whatever it was, with the memory it has if that is enough. May sleep.
pub fn set_zeros(bytes: &mut KVVec<u8>, len: usize) -> Result {
    bytes.clear();
    bytes.reserve(len, GFP_KERNEL)?;
    let spare = bytes
        .spare_capacity_mut()
        .get_mut(..len)
        .ok_or(ENOMEM)?
        .as_mut_ptr();
    // SAFETY: These are `len` bytes of room, and bytes may be zero.
    unsafe { core::ptr::write_bytes(spare, 0, len) };
    // SAFETY: The vector was empty, there is room for `len` bytes, and they were written.
    unsafe { bytes.inc_len(len) };
    Ok(())
}

#[kernel::macros::kunit_tests(nlb_bytes)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left() -> Result {
        let mut bytes = KVVec::new();
        for len in [0, 1, 5000, 3, 70_000, 0] {
            set_zeros(&mut bytes, len)?;
            assert_eq!(bytes.len(), len);
            assert!(bytes.iter().all(|&byte| byte == 0));
            assert_eq!(&*zeros(len)?, &*bytes);
            bytes.as_mut_slice().fill(0xff);
        }
        Ok(())
    }
}
