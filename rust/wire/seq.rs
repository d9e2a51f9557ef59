// SPDX-License-Identifier: GPL-2.0

//! TCP sequence numbers, RFC 9293 section 3.4.

use core::fmt;

/// A sequence number: an unsigned 32-bit number that wraps around.
///
/// There is no `Ord` on purpose: "smaller" means something only for two numbers less than 2^31
/// apart, and is not transitive. C: `before()` and `after()` in `include/net/tcp.h`.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
#[repr(transparent)]
pub struct SeqNum(pub u32);

impl SeqNum {
    /// Whether `self` comes before `other`.
    #[inline]
    pub const fn before(self, other: SeqNum) -> bool {
        self.offset_from(other) < 0
    }

    /// Whether `self` comes after `other`.
    #[inline]
    pub const fn after(self, other: SeqNum) -> bool {
        other.before(self)
    }

    /// Whether `self` does not come after `other`.
    #[inline]
    pub const fn before_eq(self, other: SeqNum) -> bool {
        !self.after(other)
    }

    /// Whether `self` does not come before `other`.
    #[inline]
    pub const fn after_eq(self, other: SeqNum) -> bool {
        !self.before(other)
    }

    /// Whether `self` lies in `low..=high`, going upwards from `low`. C: `between()`.
    #[inline]
    pub const fn between(self, low: SeqNum, high: SeqNum) -> bool {
        high.distance_from(low) >= self.distance_from(low)
    }

    /// The number `count` bytes further on.
    #[inline]
    #[must_use]
    pub const fn add(self, count: u32) -> SeqNum {
        SeqNum(self.0.wrapping_add(count))
    }

    /// The number `count` bytes further back.
    #[inline]
    #[must_use]
    pub const fn sub(self, count: u32) -> SeqNum {
        SeqNum(self.0.wrapping_sub(count))
    }

    /// Bytes from `earlier` up to `self`, modulo 2^32.
    #[inline]
    pub const fn distance_from(self, earlier: SeqNum) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// The signed way from `other` to `self`; negative if `self` comes before `other`.
    #[inline]
    pub const fn offset_from(self, other: SeqNum) -> i32 {
        self.0.wrapping_sub(other.0) as i32
    }
}

impl From<u32> for SeqNum {
    #[inline]
    fn from(value: u32) -> SeqNum {
        SeqNum(value)
    }
}

impl From<SeqNum> for u32 {
    #[inline]
    fn from(value: SeqNum) -> u32 {
        value.0
    }
}

impl fmt::Display for SeqNum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for SeqNum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_across_the_wrap() {
        for (low, high) in [
            (0, 1),
            (u32::MAX, 0),
            (u32::MAX - 5, 10),
            (0x7fff_ffff, 0x8000_0000),
            (0, 0x7fff_ffff),
        ] {
            let (low, high) = (SeqNum(low), SeqNum(high));
            assert!(low.before(high) && !high.before(low), "{low} {high}");
            assert!(high.after(low) && !low.after(high), "{low} {high}");
            assert!(low.before_eq(high) && high.after_eq(low));
            assert!(low.before_eq(low) && low.after_eq(low));
            assert!(low.between(low, high) && high.between(low, high));
            assert!(!high.add(1).between(low, high));
            assert_eq!(low.add(high.distance_from(low)), high);
            assert_eq!(high.sub(high.distance_from(low)), low);
        }
    }
}
