// SPDX-License-Identifier: GPL-2.0

//! SipHash-1-3 of one word.
//!
//! With fewer rounds than the kernel's `siphash_1u64()`, for numbers that have to be guessed at once, and that
//! nobody sees whom they keep out.

/// One round.
#[inline(always)]
const fn round([a, b, c, d]: [u64; 4]) -> [u64; 4] {
    let (a, c) = (a.wrapping_add(b), c.wrapping_add(d));
    let (b, d) = (b.rotate_left(13) ^ a, d.rotate_left(16) ^ c);
    let (a, c) = (a.rotate_left(32).wrapping_add(d), c.wrapping_add(b));
    let (b, d) = (b.rotate_left(17) ^ c, d.rotate_left(21) ^ a);
    [a, b, c.rotate_left(32), d]
}

/// The number that goes with `word`, for who has the key.
#[inline]
pub const fn siphash13([first, second]: [u64; 2], word: u64) -> u64 {
    // The word, and behind it how many bytes that was.
    let end = 8u64 << 56;
    let [a, b, c, d] = round([
        first ^ 0x736f_6d65_7073_6575,
        second ^ 0x646f_7261_6e64_6f6d,
        first ^ 0x6c79_6765_6e65_7261,
        second ^ 0x7465_6462_7974_6573 ^ word,
    ]);
    let [a, b, c, d] = round([a ^ word, b, c, d ^ end]);
    let [a, b, c, d] = round(round(round([a ^ end, b, c ^ 0xff, d])));
    a ^ b ^ c ^ d
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::{
        DefaultHasher,
        Hasher, //
    };

    /// The standard library has it with the key 0.
    #[test]
    fn as_the_standard_library() {
        for word in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX, 1 << 63] {
            let mut hasher = DefaultHasher::new();
            hasher.write(&word.to_le_bytes());
            assert_eq!(siphash13([0, 0], word), hasher.finish());
        }
    }

    /// By an implementation in Python.
    #[test]
    fn with_a_key() {
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        assert_eq!(siphash13(key, 0x0706_0504_0302_0100), 0x3690_9511_8d29_9a8e);
    }
}
