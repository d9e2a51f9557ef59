// SPDX-License-Identifier: GPL-2.0

//! Pieces of the sequence space.

use super::super::seq::SeqNum;

/// The sequence numbers from `start` up to, and without, `end`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Range {
    /// The first one.
    pub start: u32,
    /// The first one behind.
    pub end: u32,
}

impl Range {
    /// How many sequence numbers there are.
    pub const fn len(&self) -> u32 {
        self.end.wrapping_sub(self.start)
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether all of `inner` is in here.
    pub const fn contains(&self, inner: &Range) -> bool {
        let (start, end) = (SeqNum(self.start), SeqNum(self.end));
        SeqNum(inner.start).after_eq(start) && SeqNum(inner.end).before_eq(end)
    }
}

/// A list of `MAX` ranges at most.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ranges<const MAX: usize> {
    // Those behind the last are all zero, so that equal lists are equal.
    all: [Range; MAX],
    count: u8,
}

impl<const MAX: usize> Ranges<MAX> {
    /// No range.
    pub const fn new() -> Ranges<MAX> {
        const { assert!(MAX <= u8::MAX as usize) };
        Ranges {
            all: [Range { start: 0, end: 0 }; MAX],
            count: 0,
        }
    }

    /// Appends a range; `None` if there is no room for it.
    pub fn push(&mut self, range: Range) -> Option<()> {
        *self.all.get_mut(usize::from(self.count))? = range;
        self.count = self.count.saturating_add(1);
        Some(())
    }

    /// The ranges.
    pub fn as_slice(&self) -> &[Range] {
        self.all.get(..usize::from(self.count)).unwrap_or(&[])
    }

    /// How many sequence numbers there are in all of them.
    #[inline]
    pub fn sum(&self) -> u32 {
        let ranges = self.as_slice().iter();
        ranges.fold(0, |sum: u32, range| sum.saturating_add(range.len()))
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Appends the ranges of a section: the two numbers of each. Errors are the caller's to find
    /// before: bytes that are no whole range, and ranges beyond `MAX`, are left out.
    pub(super) fn parse(&mut self, value: &[u8]) {
        for bytes in value.chunks_exact(RANGE_LEN) {
            let range = Range {
                start: super::field::u32(bytes, 0),
                end: super::field::u32(bytes, 4),
            };
            if self.push(range).is_none() {
                break;
            }
        }
    }
}

impl<const MAX: usize> Default for Ranges<MAX> {
    fn default() -> Self {
        Self::new()
    }
}

/// Bytes of a range in a section.
pub(super) const RANGE_LEN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_go_across_the_wrap() {
        let range = Range {
            start: u32::MAX - 9,
            end: 10,
        };
        assert_eq!(range.len(), 20);
        assert!(!range.is_empty());
        assert!(range.contains(&range));
        for (start, end, want) in [
            (u32::MAX, 3, true),
            (0, 10, true),
            (0, 11, false),
            (u32::MAX - 10, 3, false),
        ] {
            assert_eq!(range.contains(&Range { start, end }), want);
        }
    }

    #[test]
    fn lists_are_bounded() {
        let mut list: Ranges<2> = Ranges::default();
        assert!(list.is_empty());
        let range = |start| Range {
            start,
            end: start + 1,
        };
        assert_eq!(list.push(range(1)), Some(()));
        assert_eq!(list.push(range(3)), Some(()));
        assert_eq!(list.push(range(5)), None);
        assert_eq!(list.as_slice(), [range(1), range(3)]);
        let bytes = [0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4];
        for value in [&bytes[..], &[bytes, bytes].concat()] {
            let mut parsed = Ranges::new();
            parsed.parse(value);
            assert_eq!(parsed, list);
        }
    }
}
