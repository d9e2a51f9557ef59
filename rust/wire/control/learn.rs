// SPDX-License-Identifier: GPL-2.0

//! What a forwarder says of a connection: LEARN, with or without its packet, and ASK.

use super::{
    super::{
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
        udp, //
    },
    header,
    ASK,
    ASK6,
    LEARN,
    LEARN6,
    PORT, //
};

/// Bytes of LEARN in front of the inner packet, and of ASK.
pub const LEARN_LEN: usize = 28;

/// Bytes of LEARN6 in front of the inner packet, and of ASK6; no message is longer there.
pub const LEARN6_LEN: usize = 52;

/// Bytes of a LEARN's datagram in front of the inner packet.
pub const DATAGRAM_LEN: usize = ipv4::HEADER_LEN + udp::HEADER_LEN + LEARN_LEN;

/// The same of a LEARN6.
pub const DATAGRAM6_LEN: usize = ipv6::HEADER_LEN + udp::HEADER_LEN + LEARN6_LEN;

/// Time to live, or hop limit, of a LEARN's datagram.
const TTL: u8 = 64;

const UDP: u8 = 17;

/// What a LEARN or ASK says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Learn {
    /// The flow id.
    pub flow_id: FlowId,
    /// A random number of the mapping, which the CONFIRM echoes.
    pub cookie: u64,
    /// The connection.
    pub tuple: FourTuple,
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
        self.emit_as((LEARN, LEARN6), to)
    }

    /// Writes the whole ASK to `to`, and returns it.
    pub fn emit_ask<'a>(&self, to: &'a mut [u8; LEARN6_LEN]) -> &'a [u8] {
        self.emit_as((ASK, ASK6), to)
    }

    fn emit_as<'a>(&self, (kind, kind6): (u8, u8), to: &'a mut [u8; LEARN6_LEN]) -> &'a [u8] {
        match (self.tuple.client().to_v4(), self.tuple.vip().to_v4()) {
            (Some(client), Some(vip)) => self.put_v4(to, 0, kind, (client, vip)),
            _ => self.put_v6(to, 0, kind6),
        }
        field::range(to, 0, self.head_len())
    }

    /// Writes the bytes of a LEARN or ASK at `at`, where there is room for them.
    #[inline(always)]
    fn put_v4(&self, to: &mut [u8], at: usize, kind: u8, (client, vip): ([u8; 4], [u8; 4])) {
        field::put(to, at.saturating_add(16), client);
        field::put(to, at.saturating_add(20), vip);
        self.put_rest(to, at, kind, LEARN_LEN);
    }

    /// As [`Learn::put_v4`], of a LEARN6 or ASK6.
    fn put_v6(&self, to: &mut [u8], at: usize, kind: u8) {
        field::put(to, at.saturating_add(16), *self.tuple.client().as_bytes());
        field::put(to, at.saturating_add(32), *self.tuple.vip().as_bytes());
        self.put_rest(to, at, kind, LEARN6_LEN);
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
        self.put_v4(to, ipv4::HEADER_LEN + udp::HEADER_LEN, LEARN, ends);
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
        self.put_v6(to, ipv6::HEADER_LEN + udp::HEADER_LEN, LEARN6);
        Some(())
    }

    /// Reads the 4-tuple behind the header, of an IPv4 connection or of an IPv6 one. `head` is long
    /// enough for it.
    pub(super) fn tuple(v4: bool, proto: Proto, head: &[u8]) -> Result<FourTuple, DropReason> {
        let (client, vip, ports) = match v4 {
            true => (
                Addr::v4(field::array(head, 16)),
                Addr::v4(field::array(head, 20)),
                24,
            ),
            false => (
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
            .filter(|tuple| tuple.is_v4() == v4);
        let unicast = client.is_unicast() && vip.is_unicast();
        if !unicast || client_port == 0 || vip_port == 0 {
            return Err(DropReason::BadValue);
        }
        tuple.ok_or(DropReason::BadValue)
    }
}
