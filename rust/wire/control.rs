// SPDX-License-Identifier: GPL-2.0

//! The datagrams by which a host learns a mapping: UDP port 4770, in both directions.
//!
//! ```text
//!  0               1               2               3
//! +-------+-------+---------------+-------------------------------+
//! |version| type  |   protocol    |          reserved, 0          |
//! +-------+-------+---------------+-------------------------------+
//! |                            flow id                            |
//! +---------------------------------------------------------------+
//! |                            cookie                             |
//! |                           (64 bits)                           |
//! +---------------------------------------------------------------+
//! ```
//!
//! All fields are big-endian. A LEARN goes on with the 4-tuple (client address, VIP, client port,
//! VIP port: 12 bytes, or 36 bytes in the LEARN6 of an IPv6 connection) and, if it fits, with the
//! whole inner packet. A CARRY goes on with a whole IP packet.

use super::{
    addr::{
        Addr,
        FourTuple,
        Proto, //
    },
    checksum,
    error::DropReason,
    field,
    flow_id::FlowId,
    ipv4,
    ipv6,
    parse::{
        parse,
        Frame, //
    },
    report::Report,
    udp, //
};

/// The UDP port of forwarders and hosts.
pub const PORT: u16 = 4770;

/// Bytes of CONFIRM and UNKNOWN, and of CARRY in front of the inner packet.
pub const HEADER_LEN: usize = 16;

/// Bytes of LEARN in front of the inner packet.
pub const LEARN_LEN: usize = 28;

/// Bytes of LEARN6 in front of the inner packet; no message is longer there.
pub const LEARN6_LEN: usize = 52;

/// Bytes of a LEARN's datagram in front of the inner packet.
pub const DATAGRAM_LEN: usize = ipv4::HEADER_LEN + udp::HEADER_LEN + LEARN_LEN;

/// The same of a LEARN6.
pub const DATAGRAM6_LEN: usize = ipv6::HEADER_LEN + udp::HEADER_LEN + LEARN6_LEN;

/// Time to live, or hop limit, of a LEARN's datagram.
const TTL: u8 = 64;

const UDP: u8 = 17;

const VERSION: u8 = 1;
const LEARN: u8 = 1;
const CONFIRM: u8 = 2;
const UNKNOWN: u8 = 3;
const LEARN6: u8 = 4;
const CARRY: u8 = 5;

/// A control datagram without the inner packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Message {
    /// Forwarder to host: this flow id is this connection.
    Learn(Learn),
    /// Host to forwarder: the mapping is in place.
    Confirm {
        /// The flow id.
        flow_id: FlowId,
        /// The cookie of the LEARN.
        cookie: u64,
    },
    /// Host to forwarder: a packet came with this flow id and there is no mapping.
    Unknown {
        /// The flow id.
        flow_id: FlowId,
    },
    /// Forwarder to host: an ICMP error about what the host sent to the client of this connection.
    Carry {
        /// The flow id.
        flow_id: FlowId,
    },
}

/// What a LEARN says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Learn {
    /// The flow id.
    pub flow_id: FlowId,
    /// A random number of the mapping, which the CONFIRM echoes.
    pub cookie: u64,
    /// The connection.
    pub tuple: FourTuple,
}

#[inline(always)]
fn header(kind: u8, protocol: u8, flow_id: FlowId, cookie: u64) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    let first = u32::from(VERSION << 4 | kind) << 24 | u32::from(protocol) << 16;
    field::put(&mut bytes, 0, first.to_be_bytes());
    field::put(&mut bytes, 4, flow_id.value().to_be_bytes());
    field::put(&mut bytes, 8, cookie.to_be_bytes());
    bytes
}

/// Writes the header of a LEARN's datagram of `len` bytes, whose checksum is `check` so far.
#[inline(always)]
fn put_udp(to: &mut [u8], at: usize, len: u16, check: u16) {
    let ports = u32::from(PORT) << 16 | u32::from(PORT);
    let rest = u32::from(len) << 16 | u32::from(check);
    field::put(to, at, ports.to_be_bytes());
    field::put(to, at.saturating_add(4), rest.to_be_bytes());
}

impl Learn {
    /// Number of bytes in front of the inner packet: [`LEARN_LEN`] or [`LEARN6_LEN`].
    #[inline]
    pub fn head_len(&self) -> usize {
        if self.tuple.is_v4() {
            LEARN_LEN
        } else {
            LEARN6_LEN
        }
    }

    /// Writes the bytes in front of the inner packet to `to`, and returns them.
    pub fn emit<'a>(&self, to: &'a mut [u8; LEARN6_LEN]) -> &'a [u8] {
        match (self.tuple.client().to_v4(), self.tuple.vip().to_v4()) {
            (Some(client), Some(vip)) => self.put_v4(to, 0, (client, vip)),
            _ => self.put_v6(to, 0),
        }
        field::range(to, 0, self.head_len())
    }

    /// Writes the bytes of a LEARN at `at`, where there is room for them.
    #[inline(always)]
    fn put_v4(&self, to: &mut [u8], at: usize, (client, vip): ([u8; 4], [u8; 4])) {
        field::put(to, at.saturating_add(16), client);
        field::put(to, at.saturating_add(20), vip);
        self.put_rest(to, at, LEARN, LEARN_LEN);
    }

    /// As [`Learn::put_v4`], of a LEARN6.
    fn put_v6(&self, to: &mut [u8], at: usize) {
        field::put(to, at.saturating_add(16), *self.tuple.client().as_bytes());
        field::put(to, at.saturating_add(32), *self.tuple.vip().as_bytes());
        self.put_rest(to, at, LEARN6, LEARN6_LEN);
    }

    /// Writes all but the addresses.
    #[inline(always)]
    fn put_rest(&self, to: &mut [u8], at: usize, kind: u8, len: usize) {
        let tuple = &self.tuple;
        let header = header(kind, tuple.proto().number(), self.flow_id, self.cookie);
        field::put(to, at, header);
        let both = u32::from(tuple.client_port()) << 16 | u32::from(tuple.vip_port());
        let ports = at.saturating_add(len).saturating_sub(4);
        field::put(to, ports, both.to_be_bytes());
    }

    /// Writes the whole datagram of an IPv4 connection from `source` to `destination`, but for the inner
    /// packet of `inner` bytes. Where UDP has its checksum there is the sum of the pseudo header, for a
    /// device that does the rest. `None` if the packet is too long, or the connection one of IPv6.
    ///
    /// It must not be fragmented, so it needs no identification (RFC 6864 section 4.1).
    #[inline(always)]
    pub fn emit_datagram(
        &self,
        source: [u8; 4],
        destination: [u8; 4],
        inner: usize,
        to: &mut [u8; DATAGRAM_LEN],
    ) -> Option<()> {
        let len = u16::try_from(inner.checked_add(DATAGRAM_LEN)?).ok()?;
        let udp_len = len.wrapping_sub(ipv4::HEADER_LEN as u16);
        let words = [
            0x4500_0000 | u32::from(len),
            // Don't fragment.
            0x4000,
            u32::from(TTL) << 24 | u32::from(UDP) << 16,
            u32::from_be_bytes(source),
            u32::from_be_bytes(destination),
        ];
        let sum = |words: &[u32]| {
            let add = |sum: u64, word: &u32| sum.wrapping_add(u64::from(*word));
            checksum::fold64(words.iter().fold(0, add))
        };
        let [first, second, third, from, there] = words;
        let check = u32::from(!sum(&words));
        field::put(to, 0, first.to_be_bytes());
        field::put(to, 4, second.to_be_bytes());
        field::put(to, 8, (third | check).to_be_bytes());
        field::put(to, 12, source);
        field::put(to, 16, destination);
        let pseudo = sum(&[from, there, UDP.into(), udp_len.into()]);
        put_udp(to, ipv4::HEADER_LEN, udp_len, pseudo);
        let ends = (self.tuple.client().to_v4()?, self.tuple.vip().to_v4()?);
        self.put_v4(to, ipv4::HEADER_LEN + udp::HEADER_LEN, ends);
        Some(())
    }

    /// As [`Learn::emit_datagram`], of an IPv6 connection. `None` if the packet is too long, or an address
    /// one of IPv4.
    pub fn emit_datagram6(
        &self,
        source: Addr,
        destination: Addr,
        inner: usize,
        to: &mut [u8; DATAGRAM6_LEN],
    ) -> Option<()> {
        if source.is_v4() || destination.is_v4() || self.tuple.is_v4() {
            return None;
        }
        let len = inner.checked_add(udp::HEADER_LEN + LEARN6_LEN)?;
        let udp_len = u16::try_from(len).ok()?;
        let flow = 0x6000_0000u32;
        field::put(to, 0, flow.to_be_bytes());
        field::put(to, 4, udp_len.to_be_bytes());
        field::put(to, 6, [UDP, TTL]);
        field::put(to, ipv6::SOURCE, *source.as_bytes());
        field::put(to, ipv6::DESTINATION, *destination.as_bytes());
        let words = source.words().into_iter().chain(destination.words());
        let sum = words
            .chain([UDP.into(), udp_len.into()])
            .fold(0u64, |sum, word| sum.wrapping_add(word.into()));
        put_udp(to, ipv6::HEADER_LEN, udp_len, checksum::fold64(sum));
        self.put_v6(to, ipv6::HEADER_LEN + udp::HEADER_LEN);
        Some(())
    }

    /// Reads the 4-tuple behind the header.
    fn tuple(kind: u8, proto: Proto, head: &[u8]) -> Result<FourTuple, DropReason> {
        let (client, vip, ports) = match kind {
            LEARN => (
                Addr::v4(field::array(head, 16)),
                Addr::v4(field::array(head, 20)),
                24,
            ),
            _ => (
                Addr::v6(field::array(head, 16)),
                Addr::v6(field::array(head, 32)),
                48usize,
            ),
        };
        let (client_port, vip_port) = (
            field::u16(head, ports),
            field::u16(head, ports.saturating_add(2)),
        );
        let tuple = FourTuple::new(client, client_port, vip, vip_port, proto)
            .filter(|tuple| tuple.is_v4() == (kind == LEARN));
        let unicast = client.is_unicast() && vip.is_unicast();
        if !unicast || client_port == 0 || vip_port == 0 {
            return Err(DropReason::BadValue);
        }
        tuple.ok_or(DropReason::BadValue)
    }
}

/// The whole CONFIRM datagram.
pub fn confirm(flow_id: FlowId, cookie: u64) -> [u8; HEADER_LEN] {
    header(CONFIRM, 0, flow_id, cookie)
}

/// The whole UNKNOWN datagram.
pub fn unknown(flow_id: FlowId) -> [u8; HEADER_LEN] {
    header(UNKNOWN, 0, flow_id, 0)
}

/// The bytes of a CARRY in front of the inner packet.
pub fn carry(flow_id: FlowId) -> [u8; HEADER_LEN] {
    header(CARRY, 0, flow_id, 0)
}

/// Reads the inner packet of a CARRY, which has `len` bytes, of which `header` are the first ones,
/// as [`Report::parse`] wants them.
///
/// It has to be an ICMP error as long as that, to the VIP of the connection `tuple`, about a packet
/// from there to the client; with IPv4, the checksum of its header has to be right. What is wrong
/// with it otherwise: [`DropReason::BadValue`] if it is about another connection.
pub fn carried(header: &[u8], len: usize, tuple: &FourTuple) -> Result<Report, DropReason> {
    let report = Report::parse(header, len)?;
    if report.total_len != len {
        return Err(DropReason::BadLength);
    }
    if ipv4::Packet::new_header(header).is_ok_and(|ip| !ip.verify_checksum()) {
        return Err(DropReason::BadChecksum);
    }
    if report.replied() != Some(*tuple) || !report.source.is_unicast() {
        return Err(DropReason::BadValue);
    }
    Ok(report)
}

impl Message {
    /// Reads the front of a datagram of `len` bytes (UDP payload).
    ///
    /// `head` are its first bytes: [`LEARN6_LEN`] of them, or all if there are fewer. The inner
    /// packet is not looked at. Anything not exactly as specified is refused: another version or
    /// type ([`DropReason::BadVersion`], [`DropReason::BadValue`]), reserved bits or an impossible
    /// protocol, cookie, address or port ([`DropReason::BadValue`]), a value that is no flow id
    /// ([`DropReason::BadFlowId`]), a wrong length ([`DropReason::Truncated`],
    /// [`DropReason::BadLength`]).
    pub fn parse_head(head: &[u8], len: usize) -> Result<Message, DropReason> {
        if head.len() < HEADER_LEN || len < HEADER_LEN {
            return Err(DropReason::Truncated);
        }
        let kind = field::u8(head, 0);
        if kind >> 4 != VERSION {
            return Err(DropReason::BadVersion);
        }
        if field::u16(head, 2) != 0 {
            return Err(DropReason::BadValue);
        }
        let flow_id = FlowId::new(field::u32(head, 4)).ok_or(DropReason::BadFlowId)?;
        let cookie = u64::from_be_bytes(field::array(head, 8));
        match (kind & 0x0f, field::u8(head, 1)) {
            (kind @ (LEARN | LEARN6), protocol) => {
                let proto = Proto::from_number(protocol).ok_or(DropReason::BadValue)?;
                let front = match kind {
                    LEARN => LEARN_LEN,
                    _ => LEARN6_LEN,
                };
                if head.len() < front || len < front {
                    return Err(DropReason::Truncated);
                }
                Ok(Message::Learn(Learn {
                    flow_id,
                    cookie,
                    tuple: Learn::tuple(kind, proto, head)?,
                }))
            }
            (CONFIRM | UNKNOWN, _) if len != HEADER_LEN => Err(DropReason::BadLength),
            (CONFIRM, 0) => Ok(Message::Confirm { flow_id, cookie }),
            (UNKNOWN, 0) if cookie == 0 => Ok(Message::Unknown { flow_id }),
            (CARRY, 0) if len == HEADER_LEN => Err(DropReason::Truncated),
            (CARRY, 0) if cookie == 0 => Ok(Message::Carry { flow_id }),
            _ => Err(DropReason::BadValue),
        }
    }

    /// Reads a whole datagram: the message and, for a LEARN that has one, the inner packet.
    ///
    /// An inner packet must parse, be of the connection that the LEARN names and fill the
    /// datagram ([`DropReason::BadLength`] or [`DropReason::BadValue`] otherwise). That of a CARRY
    /// is for [`carried`].
    pub fn parse(datagram: &[u8]) -> Result<(Message, Option<&[u8]>), DropReason> {
        let message = Message::parse_head(datagram, datagram.len())?;
        let Message::Learn(learn) = &message else {
            return Ok((message, None));
        };
        let inner = match datagram.get(learn.head_len()..) {
            None | Some([]) => return Ok((message, None)),
            Some(inner) => inner,
        };
        let parsed = parse(inner, Frame::complete(inner.len()))?;
        if parsed.total_len != inner.len() {
            return Err(DropReason::BadLength);
        }
        if parsed.tuple != learn.tuple {
            return Err(DropReason::BadValue);
        }
        Ok((message, Some(inner)))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::vectors::{
            FORWARDER,
            FORWARDER_V6,
            HOST,
            HOST_V6,
            VECTORS,
            VECTORS_V6, //
        },
        *, //
    };
    use std::vec::Vec;

    const ID: FlowId = match FlowId::new(0xee48_0102) {
        Some(id) => id,
        None => panic!(),
    };
    const COOKIE: u64 = 0x0123_4567_89ab_cdef;

    fn learn() -> Learn {
        Learn {
            flow_id: ID,
            cookie: COOKIE,
            tuple: VECTORS[0].tuple,
        }
    }

    const LEARN_BYTES: [u8; 28] = [
        0x11, 6, 0, 0, 0xee, 0x48, 0x01, 0x02, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 192,
        0, 2, 1, 198, 51, 100, 1, 0x9c, 0x40, 0, 80,
    ];

    fn learn6() -> Learn {
        Learn {
            tuple: VECTORS_V6[0].tuple,
            ..learn()
        }
    }

    const LEARN6_BYTES: [u8; 52] = [
        0x14, 6, 0, 0, 0xee, 0x48, 0x01, 0x02, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
        0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, // The client.
        0x20, 0x01, 0x0d, 0xb8, 0x00, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, // The VIP.
        0x9c, 0x40, 0, 80,
    ];

    #[test]
    fn exact_bytes() {
        assert_eq!(learn().emit(&mut [0xff; LEARN6_LEN]), LEARN_BYTES);
        assert_eq!(learn6().emit(&mut [0xff; LEARN6_LEN]), LEARN6_BYTES);
        let mut bytes: [u8; 16] = LEARN_BYTES[..16].try_into().unwrap();
        bytes[..2].copy_from_slice(&[0x12, 0]);
        assert_eq!(confirm(ID, COOKIE), bytes);
        bytes[0] = 0x13;
        bytes[8..].fill(0);
        assert_eq!(unknown(ID), bytes);
    }

    /// The datagram of a LEARN with this packet, as it is when a device has done its part.
    fn datagram(learn: Learn, from: Addr, there: Addr, inner: &[u8]) -> Option<Vec<u8>> {
        let (mut to, mut to6) = ([0xff; DATAGRAM_LEN], [0xff; DATAGRAM6_LEN]);
        let (head, l4): (&[u8], _) = match (from.to_v4(), there.to_v4()) {
            (Some(from), Some(there)) => {
                learn.emit_datagram(from, there, inner.len(), &mut to)?;
                (&to, 20)
            }
            _ => {
                learn.emit_datagram6(from, there, inner.len(), &mut to6)?;
                (&to6, 40)
            }
        };
        let mut packet = [head, inner].concat();
        let check = checksum::checksum(&packet[l4..]);
        packet[l4 + 6..l4 + 8].copy_from_slice(&check.to_be_bytes());
        Some(packet)
    }

    #[test]
    fn whole_datagrams() {
        for (learn, from, there, inner, head) in [
            (learn(), FORWARDER, HOST, VECTORS[0].inner, 56),
            (learn6(), FORWARDER_V6, HOST_V6, VECTORS_V6[0].inner, 100),
        ] {
            let packet = datagram(learn, from, there, inner).unwrap();
            assert_eq!(packet.len(), head + inner.len());
            let parsed = parse(&packet, Frame::complete(packet.len())).unwrap();
            let tuple = FourTuple::new(from, PORT, there, PORT, Proto::Udp);
            assert_eq!(Some(parsed.tuple), tuple);
            assert_eq!(parsed.total_len, packet.len());
            assert!((parsed.ttl, parsed.dont_fragment) == (TTL, true));
            let len = packet.len() as u8;
            match ipv4::Packet::new_header(&packet[..]) {
                Ok(ip) => {
                    assert!(ip.verify_checksum());
                    assert_eq!(packet[..10], [0x45, 0, 0, len, 0, 0, 0x40, 0, 64, 17]);
                }
                Err(_) => assert_eq!(packet[..8], [0x60, 0, 0, 0, 0, len - 40, 17, 64]),
            }
            let udp = udp::Packet::new_checked(&packet[parsed.l4_offset..]).unwrap();
            assert!(udp.checksum() != 0 && udp.verify_checksum(from, there));
            let whole = Ok((Message::Learn(learn), Some(inner)));
            assert_eq!(Message::parse(udp.payload()), whole);
        }
    }

    #[test]
    fn datagrams_have_one_family_and_a_bound() {
        for (learn, from, there, most) in [
            (learn(), FORWARDER, HOST, 65535 - 56),
            (learn6(), FORWARDER_V6, HOST_V6, 65535 - 60),
        ] {
            let fits = |len| datagram(learn, from, there, &std::vec![0; len]).is_some();
            assert!(fits(most) && !fits(most + 1));
        }
        for (learn, from, there) in [
            (learn(), FORWARDER_V6, HOST_V6),
            (learn(), FORWARDER, HOST_V6),
            (learn6(), FORWARDER, HOST),
            (learn6(), FORWARDER_V6, HOST),
        ] {
            assert_eq!(datagram(learn, from, there, &[]), None);
        }
    }

    #[test]
    fn round_trip() {
        let flow_id = ID;
        let cookie = COOKIE;
        for (bytes, want) in [
            (&LEARN_BYTES[..], Message::Learn(learn())),
            (&LEARN6_BYTES, Message::Learn(learn6())),
            (&confirm(ID, COOKIE), Message::Confirm { flow_id, cookie }),
            (&unknown(ID), Message::Unknown { flow_id }),
        ] {
            assert_eq!(Message::parse(bytes), Ok((want, None)));
            assert_eq!(Message::parse_head(bytes, bytes.len()), Ok(want));
            for len in 0..bytes.len() {
                assert_eq!(Message::parse(&bytes[..len]), Err(DropReason::Truncated));
            }
        }
    }

    #[test]
    fn inner_packet() {
        let inner = VECTORS[0].inner;
        let mut bytes = Vec::from(LEARN_BYTES);
        bytes.extend(inner);
        assert_eq!(
            Message::parse(&bytes),
            Ok((Message::Learn(learn()), Some(inner)))
        );
        bytes.push(0);
        assert_eq!(Message::parse(&bytes), Err(DropReason::BadLength));
        bytes.truncate(bytes.len() - 2);
        assert_eq!(Message::parse(&bytes), Err(DropReason::Truncated));
        let mut bytes = Vec::from(LEARN_BYTES);
        bytes.extend(VECTORS[1].inner);
        assert_eq!(Message::parse(&bytes), Err(DropReason::BadValue));
        let inner = VECTORS_V6[0].inner;
        let mut bytes = Vec::from(LEARN6_BYTES);
        bytes.extend(inner);
        let whole = (Message::Learn(learn6()), Some(inner));
        assert_eq!(Message::parse(&bytes), Ok(whole));
        // A packet of the other family is one of another connection.
        for (front, inner) in [
            (&LEARN6_BYTES[..], VECTORS[0].inner),
            (&LEARN_BYTES, VECTORS_V6[0].inner),
        ] {
            let bytes = [front, inner].concat();
            assert_eq!(Message::parse(&bytes), Err(DropReason::BadValue));
        }
    }

    #[test]
    fn refusals() {
        for (base, offset, value, reason) in [
            (&LEARN_BYTES[..], 0, 0x21, DropReason::BadVersion),
            (&LEARN_BYTES, 0, 0x10, DropReason::BadValue),
            (&LEARN_BYTES[..16], 0, 0x15, DropReason::BadValue),
            // A client that is multicast, no VIP port.
            (&LEARN6_BYTES, 16, 0xff, DropReason::BadValue),
            (&LEARN6_BYTES, 51, 0, DropReason::BadValue),
            // Called the other name, it is too short or has bytes behind it that are no packet.
            (&LEARN_BYTES, 0, 0x14, DropReason::Truncated),
            (&LEARN6_BYTES, 0, 0x11, DropReason::BadValue),
            (&LEARN_BYTES, 1, 0, DropReason::BadValue),
            (&LEARN_BYTES, 1, 1, DropReason::BadValue),
            (&LEARN_BYTES, 2, 1, DropReason::BadValue),
            (&LEARN_BYTES, 3, 1, DropReason::BadValue),
            (&LEARN_BYTES, 4, 0x10, DropReason::BadFlowId),
            (&LEARN_BYTES, 16, 0, DropReason::BadValue),
            (&LEARN_BYTES, 20, 224, DropReason::BadValue),
            (&LEARN_BYTES, 27, 0, DropReason::BadValue),
            (&LEARN_BYTES, 0, 0x12, DropReason::BadLength),
            (&confirm(ID, COOKIE), 1, 6, DropReason::BadValue),
            (&unknown(ID), 15, 1, DropReason::BadValue),
        ] {
            let mut bytes = Vec::from(base);
            bytes[offset] = value;
            assert_eq!(
                Message::parse(&bytes),
                Err(reason),
                "byte {offset} = {value:#x}"
            );
        }
    }

    #[test]
    fn ipv4_in_the_form_of_ipv6_is_refused() {
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
        let mut bytes = LEARN6_BYTES;
        bytes[16..28].copy_from_slice(&mapped);
        assert_eq!(Message::parse(&bytes), Err(DropReason::BadValue));
        bytes[32..44].copy_from_slice(&mapped);
        bytes[44] = 192;
        assert_eq!(Message::parse(&bytes), Err(DropReason::BadValue));
    }
}
