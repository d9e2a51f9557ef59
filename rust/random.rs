// SPDX-License-Identifier: GPL-2.0

//! Random numbers, good enough for secrets.
//!
//! C header: [`include/linux/random.h`](srctree/include/linux/random.h).

use crate::bindings;

/// 32 random bits. May be called in any context.
pub fn u32() -> u32 {
    // SAFETY: The function has no preconditions.
    unsafe { bindings::get_random_u32() }
}

/// 64 random bits. May be called in any context.
pub fn u64() -> u64 {
    // SAFETY: The function has no preconditions.
    unsafe { bindings::get_random_u64() }
}

/// Fills `data` with random bytes. May be called in any context.
pub fn fill(data: &mut [u8]) {
    // SAFETY: `data` is valid for as many bytes.
    unsafe { bindings::get_random_bytes(data.as_mut_ptr().cast(), data.len()) };
}

/// A random number below `limit`, 0 if that is 0. The chances of two numbers differ by less than
/// `limit / 2^32`.
pub fn below(limit: u32) -> u32 {
    ((u64::from(u32()) * u64::from(limit)) >> 32) as u32
}

#[kernel::macros::kunit_tests(nlb_random)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(below(0), 0);
        assert_eq!(below(1), 0);
        for _ in 0..1000 {
            assert!(below(7) < 7);
        }
        // Fails once in 2^128 runs.
        let mut bytes = [0u8; 16];
        fill(&mut bytes);
        assert!(bytes != [0; 16]);
        assert!(u64() != u64() || u64() != u64());
    }
}
