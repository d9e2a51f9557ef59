// SPDX-License-Identifier: GPL-2.0

//! ICMP (RFC 792) and ICMPv6 (RFC 4443): echo, and errors with the packet they quote.

use super::{
    addr::Addr,
    checksum,
    error::DropReason,
    field,
    parse::{
        parse_quoted,
        Parsed, //
    }, //
};

/// Bytes of the header; in errors the quoted packet follows it.
pub const HEADER_LEN: usize = 8;

/// Offset of the checksum in the header.
pub const CHECKSUM: usize = 2;

/// IP protocol number of ICMP.
pub const PROTOCOL_V4: u8 = 1;

/// IP protocol number of ICMPv6.
pub const PROTOCOL_V6: u8 = 58;

/// The two protocols: same layout, other numbers and another checksum.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Version {
    /// ICMP.
    V4,
    /// ICMPv6.
    V6,
}

/// What a message is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Echo request.
    EchoRequest,
    /// Echo reply.
    EchoReply,
    /// Destination unreachable, any code but "packet too big".
    Unreachable,
    /// The packet does not fit the link: IPv4 "fragmentation needed", IPv6 "packet too big".
    TooBig {
        /// MTU of the next hop; 0 if an old router did not say (RFC 1191 section 3).
        mtu: u32,
    },
    /// Time exceeded.
    TimeExceeded,
    /// Parameter problem.
    ParameterProblem,
    /// Any other message.
    Other,
}

impl Kind {
    /// Whether the message quotes the packet that it is about.
    pub const fn is_error(self) -> bool {
        matches!(
            self,
            Kind::Unreachable | Kind::TooBig { .. } | Kind::TimeExceeded | Kind::ParameterProblem
        )
    }
}

/// A view of an ICMP or ICMPv6 message. The buffer ends where the message ends.
#[derive(Clone, Debug)]
pub struct Packet<T: AsRef<[u8]>> {
    buffer: T,
    version: Version,
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// A view of `buffer`, if it holds the 8 bytes of the header.
    pub fn new_checked(buffer: T, version: Version) -> Result<Packet<T>, DropReason> {
        if buffer.as_ref().len() < HEADER_LEN {
            return Err(DropReason::Truncated);
        }
        Ok(Packet { buffer, version })
    }

    /// The buffer back.
    pub fn into_inner(self) -> T {
        self.buffer
    }

    /// The type field.
    pub fn message_type(&self) -> u8 {
        field::u8(self.buffer.as_ref(), 0)
    }

    /// The code field.
    pub fn code(&self) -> u8 {
        field::u8(self.buffer.as_ref(), 1)
    }

    /// The checksum field.
    pub fn checksum(&self) -> u16 {
        field::u16(self.buffer.as_ref(), CHECKSUM)
    }

    /// What the message is.
    pub fn kind(&self) -> Kind {
        let bytes = self.buffer.as_ref();
        match (self.version, self.message_type(), self.code()) {
            (Version::V4, 8, _) | (Version::V6, 128, _) => Kind::EchoRequest,
            (Version::V4, 0, _) | (Version::V6, 129, _) => Kind::EchoReply,
            (Version::V4, 3, 4) => Kind::TooBig {
                mtu: u32::from(field::u16(bytes, 6)),
            },
            (Version::V6, 2, _) => Kind::TooBig {
                mtu: field::u32(bytes, 4),
            },
            (Version::V4, 3, _) | (Version::V6, 1, _) => Kind::Unreachable,
            (Version::V4, 11, _) | (Version::V6, 3, _) => Kind::TimeExceeded,
            (Version::V4, 12, _) | (Version::V6, 4, _) => Kind::ParameterProblem,
            _ => Kind::Other,
        }
    }

    /// Identifier and sequence number of an echo request or reply.
    pub fn echo(&self) -> Option<(u16, u16)> {
        let bytes = self.buffer.as_ref();
        matches!(self.kind(), Kind::EchoRequest | Kind::EchoReply)
            .then(|| (field::u16(bytes, 4), field::u16(bytes, 6)))
    }

    /// Whether the checksum is right; the addresses matter for ICMPv6 only.
    pub fn verify_checksum(&self, source: Addr, destination: Addr) -> bool {
        let bytes = self.buffer.as_ref();
        match self.version {
            Version::V4 => checksum::verify(bytes),
            Version::V6 => checksum::transport(source, destination, PROTOCOL_V6, bytes) == 0,
        }
    }

    /// What follows the header: echo data, or the packet that an error quotes.
    pub fn payload(&self) -> &[u8] {
        let bytes = self.buffer.as_ref();
        field::range(bytes, HEADER_LEN, bytes.len())
    }

    /// The packet that an error quotes, as much of it as there is: what follows the header up to
    /// extensions (RFC 4884 section 4).
    pub fn quote(&self) -> &[u8] {
        let bytes = self.buffer.as_ref();
        let unit = match (self.version, self.message_type()) {
            (Version::V4, 3 | 11 | 12) => usize::from(field::u8(bytes, 5)).saturating_mul(4),
            (Version::V6, 1 | 3) => usize::from(field::u8(bytes, 4)).saturating_mul(8),
            _ => 0,
        };
        let payload = self.payload();
        match unit {
            0 => payload,
            len => payload.get(..len).unwrap_or(payload),
        }
    }

    /// The headers of the packet that an error quotes, whose offsets count from there: whoever sent
    /// that packet is the `client` of its tuple, so an error about a reply of the server has the
    /// VIP there.
    ///
    /// Errors: [`DropReason::BadValue`] if the message is no error, [`DropReason::Family`] if the
    /// packet is of the other family, else those of [`parse_quoted`].
    pub fn quoted(&self) -> Result<Parsed, DropReason> {
        if !self.kind().is_error() {
            return Err(DropReason::BadValue);
        }
        let parsed = parse_quoted(self.quote())?;
        if parsed.tuple.is_v4() != (self.version == Version::V4) {
            return Err(DropReason::Family);
        }
        Ok(parsed)
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Sets the checksum field.
    pub fn set_checksum(&mut self, check: u16) {
        field::put(self.buffer.as_mut(), CHECKSUM, check.to_be_bytes());
    }

    /// Computes the checksum and sets it; the addresses matter for ICMPv6 only.
    pub fn fill_checksum(&mut self, source: Addr, destination: Addr) {
        self.set_checksum(0);
        let bytes = self.buffer.as_ref();
        let check = match self.version {
            Version::V4 => checksum::checksum(bytes),
            Version::V6 => checksum::transport(source, destination, PROTOCOL_V6, bytes),
        };
        self.set_checksum(check);
    }

    /// What follows the header.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let end = self.buffer.as_ref().len();
        field::range_mut(self.buffer.as_mut(), HEADER_LEN, end)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            addr::{
                FourTuple,
                Proto, //
            },
            vectors::VECTORS,
        },
        *, //
    };
    use std::vec::Vec;

    const A: Addr = Addr::v6([1; 16]);
    const B: Addr = Addr::v6([2; 16]);

    #[test]
    fn echo() {
        // ping -c 1 -s 4: type 8, identifier 0x0102, sequence 1.
        let bytes = [8, 0, 0x2a, 0x9c, 1, 2, 0, 1, 0x61, 0x62, 0x63, 0x64];
        let mut packet = Packet::new_checked(bytes, Version::V4).unwrap();
        assert_eq!(packet.kind(), Kind::EchoRequest);
        assert_eq!(packet.echo(), Some((0x0102, 1)));
        packet.fill_checksum(A, B);
        assert!(packet.verify_checksum(A, B));
        packet.payload_mut()[0] = 0;
        assert!(!packet.verify_checksum(A, B));
        assert_eq!(packet.quoted(), Err(DropReason::BadValue));
        assert!(Packet::new_checked([8, 0, 0, 0, 1, 2, 0], Version::V4).is_err());
    }

    #[test]
    fn too_big_quotes_the_tunnelled_packet() {
        let vector = &VECTORS[0];
        let mut bytes = Vec::from([3, 4, 0, 0, 0, 0, 0x05, 0x78]);
        // RFC 792: the IP header and the first 64 bits.
        bytes.extend(&vector.outer[..28]);
        let packet = Packet::new_checked(&bytes, Version::V4).unwrap();
        assert_eq!(packet.kind(), Kind::TooBig { mtu: 1400 });
        let quoted = packet.quoted().unwrap();
        assert_eq!(quoted.l4_offset, 20);
        assert_eq!(quoted.tuple.client(), super::super::vectors::FORWARDER);
        assert_eq!(quoted.tuple.vip(), super::super::vectors::HOST);
        assert_eq!(
            (quoted.tuple.client_port(), quoted.tuple.vip_port()),
            (0xee48, 1)
        );
        for len in 8..bytes.len() {
            let packet = Packet::new_checked(&bytes[..len], Version::V4).unwrap();
            assert_eq!(packet.quoted(), Err(DropReason::Truncated));
        }
    }

    #[test]
    fn v6_error() {
        let mut bytes = Vec::from([2, 0, 0, 0, 0, 0, 0x05, 0]);
        bytes.extend([0x60, 0, 0, 0, 0, 100, 17, 64]);
        bytes.extend(A.octets());
        bytes.extend(B.octets());
        bytes.extend([0x13, 0x88, 0, 53, 0, 100, 0, 0]);
        let mut packet = Packet::new_checked(bytes, Version::V6).unwrap();
        packet.fill_checksum(B, A);
        assert!(packet.verify_checksum(B, A) && !packet.verify_checksum(B, B));
        assert_eq!(packet.kind(), Kind::TooBig { mtu: 1280 });
        let want = FourTuple::new(A, 5000, B, 53, Proto::Udp).unwrap();
        assert_eq!(packet.quoted().unwrap().tuple, want);
    }

    #[test]
    fn kinds() {
        for (version, message_type, code, want) in [
            (Version::V4, 0, 0, Kind::EchoReply),
            (Version::V4, 3, 3, Kind::Unreachable),
            (Version::V4, 11, 0, Kind::TimeExceeded),
            (Version::V4, 12, 0, Kind::ParameterProblem),
            (Version::V4, 5, 0, Kind::Other),
            (Version::V6, 1, 4, Kind::Unreachable),
            (Version::V6, 3, 0, Kind::TimeExceeded),
            (Version::V6, 4, 0, Kind::ParameterProblem),
            (Version::V6, 129, 0, Kind::EchoReply),
            (Version::V6, 135, 0, Kind::Other),
        ] {
            let bytes = [message_type, code, 0, 0, 0, 0, 0, 0];
            let packet = Packet::new_checked(bytes, version).unwrap();
            assert_eq!(packet.kind(), want);
        }
    }
}
