// SPDX-License-Identifier: GPL-2.0

//! Random numbers, good enough for secrets.
//!
//! C header: [`include/linux/random.h`](srctree/include/linux/random.h).

use crate::{
    bindings,
    wire::siphash::siphash13, //
};

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

/// Makes numbers of others that nobody can guess who does not have it.
pub struct Secret([u64; 2]);

impl Secret {
    /// A new one. May be called in any context.
    #[expect(clippy::new_without_default, reason = "each is another one")]
    pub fn new() -> Self {
        Self([u64(), u64()])
    }

    /// The number that goes with `word`, always the same.
    #[inline]
    pub fn number(&self, word: u64) -> u64 {
        siphash13(self.0, word)
    }
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

    #[test]
    fn secrets_differ() {
        let (one, other) = (Secret::new(), Secret::new());
        assert_eq!(one.number(7), one.number(7));
        assert!(one.number(7) != one.number(8));
        assert!(one.number(7) != other.number(7));
    }
}
