// SPDX-License-Identifier: GPL-2.0

//! Packets that need nothing special.

use super::{
    super::{
        addr::Proto,
        checksum,
        error::DropReason,
        field,
        ipv4,
        ipv6,
        tcp, //
    },
    parse_ipv4_at,
    parse_ipv6,
    Frame,
    Parsed, //
};

/// As [`parse`](super::parse), of packets that a router passes on by their addresses and ports alone: with the
/// headers at hand, right as far as a router looks at them, without options or extension headers,
/// with a TTL that lasts, and, if it is TCP, a client's first SYN or in the midst of a connection.
#[inline(always)]
pub fn parse_ordinary(header: &[u8], frame: Frame) -> Option<Parsed> {
    const EDGES: u8 = tcp::Flags::SYN.0 | tcp::Flags::FIN.0 | tcp::Flags::RST.0;
    const TCP: u8 = Proto::Tcp.number();
    const UDP: u8 = Proto::Udp.number();
    // With as many bytes as the headers have, where they are is known when this is compiled.
    let (parsed, ip_len) = match field::u8(header, 0) {
        0x45 if checksum::verify_ipv4_header(header.first_chunk()?) => {
            let parsed = match field::u8(header, ipv4::PROTOCOL) {
                TCP => parse_plain_ipv4(header.first_chunk::<40>()?, frame),
                UDP => parse_plain_ipv4(header.first_chunk::<28>()?, frame),
                _ => return None,
            };
            (parsed, ipv4::HEADER_LEN)
        }
        0x60..=0x6f => {
            let parsed = match field::u8(header, ipv6::NEXT_HEADER) {
                TCP => parse_ipv6(header.first_chunk::<60>()?, frame),
                UDP => parse_ipv6(header.first_chunk::<48>()?, frame),
                _ => return None,
            };
            (parsed, ipv6::HEADER_LEN)
        }
        _ => return None,
    };
    let parsed = parsed.ok()?;
    let flags = parsed.flags;
    let is_ordinary = parsed.l4_offset == ip_len
        && parsed.ttl > 1
        && (flags.0 & EDGES == 0 || flags.is_initial_syn());
    is_ordinary.then_some(parsed)
}

/// As [`parse_ipv4`](super::parse_ipv4), of a header without options.
#[inline(always)]
fn parse_plain_ipv4(header: &[u8], frame: Frame) -> Result<Parsed, DropReason> {
    let ip = ipv4::Packet::new_plain(header);
    parse_ipv4_at(ip, header, ipv4::HEADER_LEN, frame)
}
