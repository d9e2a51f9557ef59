// SPDX-License-Identifier: GPL-2.0

//! The kernel's CRC-32C, which uses what the processor has for it.
//!
//! C header: [`include/linux/crc32.h`](srctree/include/linux/crc32.h).

use crate::bindings;

/// Takes the next bytes into `crc`, which is not inverted before or after.
pub(crate) fn update(crc: u32, data: &[u8]) -> u32 {
    // SAFETY: The bytes are valid for reads.
    unsafe { bindings::crc32c(crc, data.as_ptr().cast(), data.len()) }
}

#[kernel::macros::kunit_tests(nlb_crc32c)]
mod tests {
    use crate::wire::crc32c::{
        crc32c,
        Crc32c, //
    };

    /// RFC 3720 appendix B.4; the others by another implementation.
    #[test]
    fn known_values() {
        assert_eq!(crc32c(&[]), 0);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        // Long enough for vector instructions.
        assert_eq!(crc32c(&[0x5a; 1001]), 0x41bc_f6ae);
        let mut pieces = Crc32c::new();
        pieces.update(&[0x5a; 3]);
        pieces.update(&[0x5a; 998]);
        assert_eq!(pieces.finish(), 0x41bc_f6ae);
    }
}
