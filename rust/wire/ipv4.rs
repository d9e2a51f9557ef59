// SPDX-License-Identifier: GPL-2.0

//! IPv4, RFC 791.

use super::{
    addr::Addr,
    checksum,
    error::DropReason,
    field, //
};

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;

/// Offset of the source address in the header.
pub const SOURCE: usize = 12;

/// Offset of the destination address in the header.
pub const DESTINATION: usize = 16;

const TOTAL_LEN: usize = 2;
const IDENT: usize = 4;
const FRAGMENT: usize = 6;
const TTL: usize = 8;
pub(super) const PROTOCOL: usize = 9;
const CHECKSUM: usize = 10;

const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const LOOSE_ROUTE: u8 = 0x83;
const STRICT_ROUTE: u8 = 0x89;

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// A view of an IPv4 packet.
#[derive(Clone, Debug)]
pub struct Packet<T: AsRef<[u8]>> {
    buffer: T,
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// A view of `buffer`, if it starts with an IPv4 header and holds the whole packet.
    ///
    /// Bytes behind the total length (link-layer padding) are allowed and never part of the
    /// payload. The header checksum is not judged, see [`Packet::verify_checksum`].
    pub fn new_checked(buffer: T) -> Result<Packet<T>, DropReason> {
        let packet = Packet::new_header(buffer)?;
        let total_len = packet.total_len();
        if total_len < packet.header_len() {
            return Err(DropReason::BadLength);
        }
        if total_len > packet.buffer.as_ref().len() {
            return Err(DropReason::Truncated);
        }
        Ok(packet)
    }

    /// A view of `buffer`, if it starts with a whole IPv4 header; the payload may be cut off.
    ///
    /// For the packet quoted in an ICMP error and for packets whose payload is elsewhere.
    pub fn new_header(buffer: T) -> Result<Packet<T>, DropReason> {
        let bytes = buffer.as_ref();
        if bytes.len() < HEADER_LEN {
            return Err(DropReason::Truncated);
        }
        if field::u8(bytes, 0) >> 4 != 4 {
            return Err(DropReason::BadVersion);
        }
        let packet = Packet { buffer };
        let header_len = packet.header_len();
        if header_len < HEADER_LEN {
            return Err(DropReason::BadHeaderLength);
        }
        if header_len > packet.buffer.as_ref().len() {
            return Err(DropReason::Truncated);
        }
        Ok(packet)
    }

    /// A view of `buffer`, whose first byte says that it is an IPv4 header without options.
    pub(super) fn new_plain(buffer: T) -> Packet<T> {
        Packet { buffer }
    }

    /// The buffer back.
    pub fn into_inner(self) -> T {
        self.buffer
    }

    /// Bytes of the header, options included.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(field::u8(self.buffer.as_ref(), 0) & 0x0f) << 2
    }

    /// The type-of-service byte: DSCP and ECN.
    pub fn tos(&self) -> u8 {
        field::u8(self.buffer.as_ref(), 1)
    }

    /// The total length field: bytes of header and payload.
    #[inline]
    pub fn total_len(&self) -> usize {
        usize::from(field::u16(self.buffer.as_ref(), TOTAL_LEN))
    }

    /// The identification field.
    pub fn ident(&self) -> u16 {
        field::u16(self.buffer.as_ref(), IDENT)
    }

    /// Whether routers must not fragment the packet.
    pub fn dont_fragment(&self) -> bool {
        field::u16(self.buffer.as_ref(), FRAGMENT) & DONT_FRAGMENT != 0
    }

    /// Whether this is a fragment, the first one included.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        field::u16(self.buffer.as_ref(), FRAGMENT) & (MORE_FRAGMENTS | FRAGMENT_OFFSET) != 0
    }

    /// Whether this is a fragment other than the first: it starts with no transport header.
    pub fn is_later_fragment(&self) -> bool {
        field::u16(self.buffer.as_ref(), FRAGMENT) & FRAGMENT_OFFSET != 0
    }

    /// Time to live.
    #[inline]
    pub fn ttl(&self) -> u8 {
        field::u8(self.buffer.as_ref(), TTL)
    }

    /// The IP protocol number of the payload.
    #[inline]
    pub fn protocol(&self) -> u8 {
        field::u8(self.buffer.as_ref(), PROTOCOL)
    }

    /// The header checksum field.
    pub fn checksum(&self) -> u16 {
        field::u16(self.buffer.as_ref(), CHECKSUM)
    }

    /// Whether the header checksum is right.
    pub fn verify_checksum(&self) -> bool {
        checksum::verify(self.header())
    }

    /// The source address.
    #[inline]
    pub fn source(&self) -> Addr {
        Addr::v4(field::array(self.buffer.as_ref(), SOURCE))
    }

    /// The destination address.
    #[inline]
    pub fn destination(&self) -> Addr {
        Addr::v4(field::array(self.buffer.as_ref(), DESTINATION))
    }

    /// The header, options included.
    pub fn header(&self) -> &[u8] {
        field::range(self.buffer.as_ref(), 0, self.header_len())
    }

    /// The option bytes.
    pub fn options(&self) -> &[u8] {
        field::range(self.buffer.as_ref(), HEADER_LEN, self.header_len())
    }

    /// Whether a source route leads on to other addresses, so that the destination in the header is
    /// not the final one. What stands behind a malformed option is not looked at.
    pub fn is_source_routed(&self) -> bool {
        let mut options = self.options();
        loop {
            match options {
                [] | [END_OF_OPTIONS, ..] | [_] => return false,
                [NO_OPERATION, rest @ ..] => options = rest,
                // The pointer counts from 1, and is beyond the route when that is used up.
                [LOOSE_ROUTE | STRICT_ROUTE, len, pointer, ..] => return pointer <= len,
                [_, len, ..] => match options.get(usize::from(*len)..) {
                    Some(rest) if *len >= 2 => options = rest,
                    _ => return false,
                },
            }
        }
    }

    /// The payload, as far as the buffer holds it.
    pub fn payload(&self) -> &[u8] {
        let bytes = self.buffer.as_ref();
        field::range(bytes, self.header_len(), self.total_len().min(bytes.len()))
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Sets the total length.
    pub fn set_total_len(&mut self, len: u16) {
        field::put(self.buffer.as_mut(), TOTAL_LEN, len.to_be_bytes());
    }

    /// Sets the identification field.
    pub fn set_ident(&mut self, ident: u16) {
        field::put(self.buffer.as_mut(), IDENT, ident.to_be_bytes());
    }

    /// Sets the time to live.
    pub fn set_ttl(&mut self, ttl: u8) {
        field::put(self.buffer.as_mut(), TTL, [ttl]);
    }

    /// Sets the IP protocol number of the payload.
    pub fn set_protocol(&mut self, protocol: u8) {
        field::put(self.buffer.as_mut(), PROTOCOL, [protocol]);
    }

    /// Sets the checksum field.
    pub fn set_checksum(&mut self, check: u16) {
        field::put(self.buffer.as_mut(), CHECKSUM, check.to_be_bytes());
    }

    /// Computes the header checksum and sets it.
    pub fn fill_checksum(&mut self) {
        self.set_checksum(0);
        let check = checksum::checksum(self.header());
        self.set_checksum(check);
    }

    /// Sets the source address.
    pub fn set_source(&mut self, source: [u8; 4]) {
        field::put(self.buffer.as_mut(), SOURCE, source);
    }

    /// Sets the destination address.
    pub fn set_destination(&mut self, destination: [u8; 4]) {
        field::put(self.buffer.as_mut(), DESTINATION, destination);
    }

    /// The payload, as far as the buffer holds it.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let start = self.header_len();
        let end = self.total_len().min(self.buffer.as_ref().len());
        field::range_mut(self.buffer.as_mut(), start, end)
    }
}

/// The fields of a header without options.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Repr {
    /// Source address.
    pub source: [u8; 4],
    /// Destination address.
    pub destination: [u8; 4],
    /// IP protocol number of the payload.
    pub protocol: u8,
    /// Bytes of payload.
    pub payload_len: u16,
    /// Identification.
    pub ident: u16,
    /// Whether routers must not fragment the packet.
    pub dont_fragment: bool,
    /// Type of service.
    pub tos: u8,
    /// Time to live.
    pub ttl: u8,
}

impl Repr {
    /// The header, its checksum included.
    ///
    /// Errors with [`DropReason::BadLength`] if header and payload exceed 65535 bytes.
    pub fn emit(&self) -> Result<[u8; HEADER_LEN], DropReason> {
        let mut header = [0; HEADER_LEN];
        let total_len = self
            .payload_len
            .checked_add(HEADER_LEN as u16)
            .ok_or(DropReason::BadLength)?;
        field::put(&mut header, 0, [0x45, self.tos]);
        if self.dont_fragment {
            field::put(&mut header, FRAGMENT, DONT_FRAGMENT.to_be_bytes());
        }
        let mut packet = Packet {
            buffer: &mut header,
        };
        packet.set_total_len(total_len);
        packet.set_ident(self.ident);
        packet.set_ttl(self.ttl);
        packet.set_protocol(self.protocol);
        packet.set_source(self.source);
        packet.set_destination(self.destination);
        packet.fill_checksum();
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPR: Repr = Repr {
        source: [192, 0, 2, 1],
        destination: [198, 51, 100, 1],
        protocol: 17,
        payload_len: 2,
        ident: 0x1234,
        dont_fragment: true,
        tos: 0x10,
        ttl: 64,
    };

    fn packet() -> [u8; 24] {
        let mut bytes = [0xaa; 24];
        bytes[..20].copy_from_slice(&REPR.emit().unwrap());
        bytes
    }

    #[test]
    fn fields_and_padding() {
        let packet = Packet::new_checked(packet()).unwrap();
        assert!(packet.verify_checksum());
        assert_eq!(packet.header_len(), 20);
        assert_eq!(packet.total_len(), 22);
        assert_eq!(packet.payload(), [0xaa; 2]);
        assert_eq!(packet.ident(), 0x1234);
        assert_eq!(packet.tos(), 0x10);
        assert_eq!(packet.source(), Addr::v4(REPR.source));
        assert_eq!(packet.destination(), Addr::v4(REPR.destination));
        assert!(packet.dont_fragment() && !packet.is_fragment());
        assert!(packet.options().is_empty());
    }

    #[test]
    fn source_routes() {
        for (options, want) in [
            (&[0x83, 7, 4, 10, 0, 0, 1, 0][..], true),
            (&[0x89, 7, 4, 10, 0, 0, 1, 0], true),
            // Used up: it lies behind.
            (&[0x83, 7, 8, 10, 0, 0, 1, 0], false),
            (&[1, 0x94, 4, 0, 0, 0x83, 3, 4], false),
            (&[1, 0x94, 4, 0, 0, 0x83, 7, 4, 10, 0, 0, 1], true),
            (&[0, 0x83, 7, 4, 10, 0, 0, 1], false),
            // Lengths that cannot be.
            (&[0x94, 1, 0x83, 7], false),
            (&[0x94, 0, 0, 0], false),
            (&[0x94, 40, 0, 0], false),
            (&[1, 1, 0x83, 7], false),
            (&[1, 1, 1, 0x83], false),
        ] {
            let mut bytes = REPR.emit().unwrap().to_vec();
            bytes.extend(options);
            bytes[0] = 0x45 + (options.len() / 4) as u8;
            let packet = Packet::new_header(bytes).unwrap();
            assert_eq!(packet.is_source_routed(), want, "{options:?}");
        }
    }

    #[test]
    fn bad_headers_are_refused() {
        type Change = fn(&mut [u8; 24]);
        let cases: [(Change, DropReason); 6] = [
            (|b| b[0] = 0x65, DropReason::BadVersion),
            (|b| b[0] = 0x44, DropReason::BadHeaderLength),
            (|b| b[0] = 0x4f, DropReason::Truncated),
            (|b| b[0] = 0x46, DropReason::BadLength),
            (|b| b[3] = 19, DropReason::BadLength),
            (|b| b[3] = 25, DropReason::Truncated),
        ];
        for (change, reason) in cases {
            let mut bytes = packet();
            change(&mut bytes);
            assert_eq!(Packet::new_checked(bytes).err(), Some(reason));
        }
        for len in 0..20 {
            assert!(Packet::new_checked(&packet()[..len]).is_err());
        }
        let mut bytes = packet();
        bytes[6] = 0x20;
        let view = Packet::new_checked(bytes).unwrap();
        assert!(view.is_fragment() && !view.is_later_fragment() && !view.verify_checksum());
    }

    #[test]
    fn too_long_is_refused() {
        let repr = Repr {
            payload_len: 65516,
            ..REPR
        };
        assert_eq!(repr.emit(), Err(DropReason::BadLength));
    }
}
