// SPDX-License-Identifier: MIT OR Apache-2.0

//! Netlink attributes: a header of length and type in host byte order, a payload, padding to four
//! bytes (`include/uapi/linux/netlink.h`, `struct nlattr`).

use std::net::IpAddr;

use crate::error::Malformed;

/// Length of an attribute's header.
pub const HEADER_LEN: usize = 4;

/// Flag in the type: the payload is a list of attributes.
pub const NLA_F_NESTED: u16 = 1 << 15;

/// The bits of the type that hold the id.
const TYPE_MASK: u16 = 0x3fff;

/// `len` rounded up to the alignment of messages and attributes.
pub(crate) const fn align(len: usize) -> usize {
    len.saturating_add(3) & !3
}

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr<'a> {
    /// The id, without the flags.
    pub id: u16,
    /// The payload, without the padding.
    pub payload: &'a [u8],
}

/// The attributes of a message or of a nest, in order.
///
/// Ends after the first malformed one. Fewer bytes than a header at the end are padding.
#[derive(Clone, Debug)]
pub struct Attrs<'a> {
    rest: &'a [u8],
}

impl<'a> Attrs<'a> {
    /// The attributes in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = Result<Attr<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let (len, rest) = self.rest.split_first_chunk::<2>()?;
        let (kind, _) = rest.split_first_chunk::<2>()?;
        let len = usize::from(u16::from_ne_bytes(*len));
        let id = u16::from_ne_bytes(*kind) & TYPE_MASK;
        let Some(payload) = self.rest.get(HEADER_LEN..len) else {
            self.rest = &[];
            return Some(Err(Malformed::Attribute));
        };
        self.rest = self.rest.get(align(len)..).unwrap_or_default();
        Some(Ok(Attr { id, payload }))
    }
}

/// Append one attribute to `out`; `false`, and nothing appended, if the payload is too long.
#[must_use]
pub fn put(out: &mut Vec<u8>, kind: u16, payload: &[u8]) -> bool {
    let Ok(len) = u16::try_from(HEADER_LEN + payload.len()) else {
        return false;
    };
    out.extend_from_slice(&len.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(payload);
    out.resize(align(out.len()), 0);
    true
}

/// An IPv4 or IPv6 address, 4 or 16 bytes in network order.
pub(crate) fn addr(payload: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(payload) {
        return Some(octets.into());
    }
    <[u8; 16]>::try_from(payload).ok().map(IpAddr::from)
}

/// The bytes of an address as [`addr`] reads them.
pub(crate) fn addr_bytes(addr: &IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

/// A `u16` in network order.
pub(crate) fn be16(payload: &[u8]) -> Option<u16> {
    payload.try_into().ok().map(u16::from_be_bytes)
}

/// A byte.
pub(crate) fn u8(payload: &[u8]) -> Option<u8> {
    match payload {
        [value] => Some(*value),
        _ => None,
    }
}

/// A `u16` in host order.
pub(crate) fn u16(payload: &[u8]) -> Option<u16> {
    payload.try_into().ok().map(u16::from_ne_bytes)
}

/// A `u32` in host order.
pub(crate) fn u32(payload: &[u8]) -> Option<u32> {
    payload.try_into().ok().map(u32::from_ne_bytes)
}

/// A `u32` that is 0 or 1.
pub(crate) fn boolean(payload: &[u8]) -> Option<bool> {
    Some(u32(payload)? != 0)
}

/// A `u64` or a `uint`: 4 or 8 bytes in host order.
pub(crate) fn uint(payload: &[u8]) -> Option<u64> {
    if let Some(value) = u32(payload) {
        return Some(value.into());
    }
    payload.try_into().ok().map(u64::from_ne_bytes)
}

/// A string, with or without its terminating NUL.
///
/// Bytes that are not UTF-8 and control characters are replaced: part of some texts comes from
/// another machine, and they end on terminals and in logs.
pub(crate) fn string(payload: &[u8]) -> Option<String> {
    let end = payload.iter().position(|&byte| byte == 0);
    let text = payload.get(..end.unwrap_or(payload.len()))?;
    Some(String::from_utf8_lossy(text).replace(char::is_control, "\u{fffd}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn vectors() {
        let mut out = Vec::new();
        assert!(put(&mut out, 1, &[192, 0, 2, 10]));
        assert!(put(&mut out, 2, &80u16.to_be_bytes()));
        assert!(put(&mut out, 3 | NLA_F_NESTED, &[]));
        let expected = if cfg!(target_endian = "little") {
            [
                8, 0, 1, 0, 192, 0, 2, 10, 6, 0, 2, 0, 0, 80, 0, 0, 4, 0, 3, 128,
            ]
        } else {
            [
                0, 8, 0, 1, 192, 0, 2, 10, 0, 6, 0, 2, 0, 80, 0, 0, 0, 4, 128, 3,
            ]
        };
        assert_eq!(out, expected);
        let attrs: Vec<_> = Attrs::new(&out).map(Result::unwrap).collect();
        assert_eq!(attrs.len(), 3);
        assert_eq!(addr(attrs[0].payload), Some([192, 0, 2, 10].into()));
        assert_eq!(be16(attrs[1].payload), Some(80));
        assert_eq!(attrs[2].id, 3);
    }

    #[test]
    fn bad_lengths_end_the_walk() {
        for (len, have) in [(0u16, 8), (3, 8), (9, 8), (u16::MAX, 8)] {
            let mut bytes = vec![0; have];
            bytes[..2].copy_from_slice(&len.to_ne_bytes());
            let mut attrs = Attrs::new(&bytes);
            assert_eq!(attrs.next(), Some(Err(Malformed::Attribute)));
            assert_eq!(attrs.next(), None);
        }
        assert_eq!(Attrs::new(&[1, 2, 3]).next(), None);
    }

    #[test]
    fn values_of_wrong_length_are_none() {
        assert_eq!(addr(&[1, 2, 3]), None);
        assert_eq!(addr(&[0; 16]), Some(IpAddr::from([0u8; 16])));
        assert_eq!(be16(&[1]), None);
        assert_eq!((u8(&[]), u8(&[7]), u8(&[1, 2])), (None, Some(7), None));
        assert_eq!(u32(&[1, 2, 3, 4, 5]), None);
        assert_eq!(uint(&7u32.to_ne_bytes()), Some(7));
        assert_eq!(uint(&u64::MAX.to_ne_bytes()), Some(u64::MAX));
        assert_eq!(uint(&[1, 2]), None);
        assert_eq!(string(b"abc\0"), Some("abc".into()));
        assert_eq!(string(b"abc"), Some("abc".into()));
        assert_eq!(string(&[0xff]), Some("\u{fffd}".into()));
        assert_eq!(string(b"a\x1b[2J"), Some("a\u{fffd}[2J".into()));
    }

    #[test]
    fn a_payload_that_is_too_long_is_not_put() {
        let mut out = Vec::new();
        assert!(put(&mut out, 1, &vec![0; usize::from(u16::MAX) - 4]));
        let len = out.len();
        assert!(!put(&mut out, 1, &vec![0; usize::from(u16::MAX) - 3]));
        assert_eq!(out.len(), len);
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut total = 0;
            for attr in Attrs::new(&bytes).flatten() {
                total += HEADER_LEN + attr.payload.len();
                let _ = (addr(attr.payload), be16(attr.payload), uint(attr.payload));
                let _ = (string(attr.payload), u32(attr.payload), u16(attr.payload));
            }
            prop_assert!(total <= bytes.len());
        }

        #[test]
        fn what_was_put_is_read(list in proptest::collection::vec(
            (0u16..TYPE_MASK, proptest::collection::vec(any::<u8>(), 0..40)), 0..12)) {
            let mut out = Vec::new();
            for (id, payload) in &list {
                prop_assert!(put(&mut out, *id, payload));
            }
            prop_assert_eq!(out.len() % 4, 0);
            let read: Vec<_> = Attrs::new(&out)
                .map(|attr| attr.map(|attr| (attr.id, attr.payload.to_vec())))
                .collect::<Result<_, _>>()
                .unwrap();
            prop_assert_eq!(read, list);
        }
    }
}
