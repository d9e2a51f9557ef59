// SPDX-License-Identifier: GPL-2.0

//! Attributes of a received message.
//!
//! Everything here works on byte slices with the lengths checked, so it holds for any input; that
//! the kernel validated the message before is not relied upon.

use super::{
    policy::Policy,
    request::ExtAck, //
};
use crate::bindings;
use kernel::prelude::*;

/// Length of `struct nlattr`.
const HDRLEN: usize = 4;

/// Deepest nest that is looked into; the kernel's `MAX_POLICY_RECURSION_DEPTH`.
const MAX_DEPTH: usize = 10;

/// One attribute.
///
/// # Invariants
///
/// `raw` is the attribute with its header of [`HDRLEN`] bytes, without padding.
#[derive(Clone, Copy)]
pub struct Attr<'a> {
    raw: &'a [u8],
}

impl<'a> Attr<'a> {
    /// Splits the first attribute off `data`; the rest begins after the padding.
    fn split(data: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let len = usize::from(u16::from_ne_bytes(*data.first_chunk()?));
        if len < HDRLEN {
            return None;
        }
        let raw = data.get(..len)?;
        let rest = data.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        // INVARIANT: `len` is the length in the header, and no less than that of the header.
        Some((Self { raw }, rest))
    }

    /// The id, without the flags that share the field with it.
    pub fn id(&self) -> u16 {
        let field = self.raw.get(2..HDRLEN).and_then(|b| b.try_into().ok());
        field.map_or(0, u16::from_ne_bytes) & bindings::NLA_TYPE_MASK as u16
    }

    /// The bytes of the value.
    pub fn bytes(&self) -> &'a [u8] {
        self.raw.get(HDRLEN..).unwrap_or(&[])
    }

    /// Pointer to the `struct nlattr` in the message.
    pub(super) fn as_raw(&self) -> *const bindings::nlattr {
        self.raw.as_ptr().cast()
    }

    fn array<const N: usize>(&self) -> Option<[u8; N]> {
        self.bytes().try_into().ok()
    }

    /// An 8-bit number; `None` if the length is another.
    pub fn u8(&self) -> Option<u8> {
        self.array().map(u8::from_ne_bytes)
    }

    /// A 16-bit number in host byte order; `None` if the length is another.
    pub fn u16(&self) -> Option<u16> {
        self.array().map(u16::from_ne_bytes)
    }

    /// A 32-bit number in host byte order; `None` if the length is another.
    pub fn u32(&self) -> Option<u32> {
        self.array().map(u32::from_ne_bytes)
    }

    /// A 64-bit number in host byte order; `None` if the length is another.
    pub fn u64(&self) -> Option<u64> {
        self.array().map(u64::from_ne_bytes)
    }

    /// A signed 32-bit number in host byte order; `None` if the length is another.
    pub fn s32(&self) -> Option<i32> {
        self.array().map(i32::from_ne_bytes)
    }

    /// A 16-bit number in network byte order, returned in the host's; `None` if the length is
    /// another.
    pub fn be16(&self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// A 32-bit number in network byte order, returned in the host's; `None` if the length is
    /// another.
    pub fn be32(&self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// A number of 32 or 64 bits in host byte order (`uint` of YNL); `None` if the length is
    /// another.
    pub fn uint(&self) -> Option<u64> {
        self.u64().or_else(|| self.u32().map(u64::from))
    }

    /// A string up to its NUL, or to the end when it has none; `None` if it is not UTF-8.
    pub fn string(&self) -> Option<&'a str> {
        let bytes = self.bytes();
        let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
        core::str::from_utf8(bytes.get(..end)?).ok()
    }

    /// The attributes inside.
    pub fn nested(&self) -> Attrs<'a> {
        Attrs { data: self.bytes() }
    }
}

/// Attributes in a row: those of a message, or those in a nest.
#[derive(Clone, Copy)]
pub struct Attrs<'a> {
    data: &'a [u8],
}

macro_rules! getters {
    ($($name:ident -> $ty:ty, $what:literal;)*) => {
        $(
            #[doc = concat!("The value of attribute `id`, ", $what, "; `None` if it is absent.")]
            pub fn $name(&self, id: u16) -> Option<$ty> {
                self.attr(id)?.$name()
            }
        )*
    };
}

impl<'a> Attrs<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data }
    }

    /// All attributes in the order of the message.
    pub fn iter(&self) -> Iter<'a> {
        Iter { data: self.data }
    }

    /// The (first) attribute with this id.
    pub fn attr(&self, id: u16) -> Option<Attr<'a>> {
        self.iter().find(|attr| attr.id() == id)
    }

    getters! {
        u8 -> u8, "an 8-bit number";
        u16 -> u16, "a 16-bit number in host byte order";
        u32 -> u32, "a 32-bit number in host byte order";
        u64 -> u64, "a 64-bit number in host byte order";
        s32 -> i32, "a signed 32-bit number in host byte order";
        be16 -> u16, "a 16-bit number sent in network byte order";
        be32 -> u32, "a 32-bit number sent in network byte order";
        uint -> u64, "a number of 32 or 64 bits in host byte order";
        string -> &'a str, "a string without its NUL";
    }

    /// Whether attribute `id` is there.
    pub fn flag(&self, id: u16) -> bool {
        self.attr(id).is_some()
    }

    /// The bytes of attribute `id`; `None` if it is absent.
    pub fn bytes(&self, id: u16) -> Option<&'a [u8]> {
        Some(self.attr(id)?.bytes())
    }

    /// The attributes in the nest `id`; `None` if it is absent.
    pub fn nested(&self, id: u16) -> Option<Attrs<'a>> {
        Some(self.attr(id)?.nested())
    }

    /// Refuses a second attribute of one id, here and in nests: the kernel would silently take
    /// the last one. Ids in the set `repeat` may come again, at this level.
    pub(super) fn refuse_duplicates(
        &self,
        table: &[Policy],
        repeat: u64,
        extack: ExtAck<'_>,
        depth: usize,
    ) -> Result {
        let mut seen = 0u64;
        for attr in self.iter() {
            let id = attr.id();
            let bit = 1u64.checked_shl(u32::from(id)).unwrap_or(0);
            if seen & bit & !repeat != 0 {
                extack.set_attr(&attr);
                return Err(extack.error(EINVAL, c"duplicate attribute"));
            }
            seen |= bit;
            let Some(inner) = table.get(usize::from(id)).and_then(Policy::nested_table) else {
                continue;
            };
            if depth < MAX_DEPTH {
                attr.nested()
                    .refuse_duplicates(inner, 0, extack, depth + 1)?;
            }
        }
        Ok(())
    }
}

impl<'a> IntoIterator for Attrs<'a> {
    type Item = Attr<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Iterator over [`Attrs`]; ends at the first thing that is no attribute.
pub struct Iter<'a> {
    data: &'a [u8],
}

impl<'a> Iterator for Iter<'a> {
    type Item = Attr<'a>;

    fn next(&mut self) -> Option<Attr<'a>> {
        let (attr, rest) = Attr::split(self.data)?;
        self.data = rest;
        Some(attr)
    }
}

#[kunit_tests(nlb_genetlink_attr)]
mod tests {
    use super::*;

    // Little-endian, as are the machines that run these tests.
    const MESSAGE: &[u8] = &[
        5, 0, 1, 0, 7, 0, 0, 0, // 1: u8 7, padded
        6, 0, 2, 0, 0x12, 0xa2, 0, 0, // 2: be16 4770, padded
        12, 0, 3, 0, 1, 0, 0, 0, 0, 0, 0, 1, // 3: u64
        8, 0, 4, 0, b'a', b'b', 0, b'c', // 4: string that ends early
        12, 0, 5, 0x80, 8, 0, 1, 0, 9, 0, 0, 0, // 5: nest with 1: u32 9
    ];

    #[test]
    fn getters() -> Result {
        let attrs = Attrs::new(MESSAGE);
        assert_eq!(attrs.iter().count(), 5);
        assert_eq!(attrs.u8(1), Some(7));
        assert_eq!(attrs.u16(1), None);
        assert_eq!(attrs.be16(2), Some(4770));
        assert_eq!(attrs.u64(3), Some(0x0100_0000_0000_0001));
        assert_eq!(attrs.uint(3), Some(0x0100_0000_0000_0001));
        assert_eq!(attrs.string(4), Some("ab"));
        let nest = attrs.nested(5).ok_or(EINVAL)?;
        assert_eq!(nest.u32(1), Some(9));
        assert_eq!(nest.uint(1), Some(9));
        assert!(!attrs.flag(6));
        Ok(())
    }

    #[test]
    fn garbage() -> Result {
        // Length below that of the header, beyond the end, and a lone byte.
        for data in [&[3u8, 0, 1, 0][..], &[9, 0, 1, 0, 0, 0, 0, 0][..], &[1][..]] {
            assert_eq!(Attrs::new(data).iter().count(), 0);
        }
        Ok(())
    }

    #[test]
    fn duplicates() -> Result {
        let table = [
            Policy::reject(),
            Policy::u8(),
            Policy::be16(),
            Policy::u64(),
        ];
        let twice = [5, 0, 1, 0, 7, 0, 0, 0, 5, 0, 1, 0, 7, 0, 0, 0];
        let attrs = Attrs::new(&twice);
        let none = ExtAck::none();
        assert!(attrs.refuse_duplicates(&table, 0, none, 0).is_err());
        assert!(attrs.refuse_duplicates(&table, 1 << 1, none, 0).is_ok());
        assert!(Attrs::new(MESSAGE)
            .refuse_duplicates(&table, 0, none, 0)
            .is_ok());
        Ok(())
    }
}
