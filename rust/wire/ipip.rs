// SPDX-License-Identifier: GPL-2.0

//! IP in IP: the header in front of a packet that travels inside another of its family (RFC 2003
//! for IPv4, RFC 2473 for IPv6).

use super::{
    addr::Addr,
    carrier::Carrier,
    error::DropReason,
    field,
    ipv4,
    ipv6,
    parse::{
        self,
        Frame,
        Parsed, //
    },
    report::Report, //
};

/// IP protocol number of IPv4 inside of a packet.
pub const IPPROTO_IPIP: u8 = 4;

/// IP protocol number of IPv6 inside of a packet.
pub const IPPROTO_IPV6: u8 = 41;

/// Bytes of the longer of the two headers.
pub const MAX_HEADER_LEN: usize = ipv6::HEADER_LEN;

/// Time to live, or hop limit, of the header: the inner packet's own is for the machines on its
/// way, among which a tunnel counts as one.
const TTL: u8 = 64;

/// Bytes by which a packet of this family grows.
pub const fn overhead(is_v4: bool) -> usize {
    if is_v4 {
        ipv4::HEADER_LEN
    } else {
        ipv6::HEADER_LEN
    }
}

/// Writes the header in front of a packet of `len` bytes, of which `inner` has at least the IP
/// header.
///
/// Traffic class and congestion notification are the inner packet's (RFC 6040 section 4.1, normal
/// mode), and so is whether it may be fragmented. The identification is 0. The length is that of
/// the payload alone, as if there were none, where it cannot be said, because the packet is a batch
/// (GSO) of more than 65535 bytes.
///
/// Errors: [`DropReason::Family`] if the addresses and the packet are not all of one family, and
/// what [`ipv4::Packet::new_header`] and [`ipv6::Packet::new_header`] say.
pub fn emit<'a>(
    inner: &[u8],
    len: usize,
    source: Addr,
    destination: Addr,
    buffer: &'a mut [u8; MAX_HEADER_LEN],
) -> Result<&'a [u8], DropReason> {
    let protocol = match destination.is_v4() {
        true => IPPROTO_IPIP,
        false => IPPROTO_IPV6,
    };
    emit_header(inner, len, (source, destination), protocol, buffer)
}

/// As [`emit`], where something else of this protocol is between the two headers: `len` bytes come
/// behind this one.
pub(super) fn emit_header<'a>(
    inner: &[u8],
    len: usize,
    (source, destination): (Addr, Addr),
    protocol: u8,
    buffer: &'a mut [u8; MAX_HEADER_LEN],
) -> Result<&'a [u8], DropReason> {
    if let (Some(source), Some(destination)) = (source.to_v4(), destination.to_v4()) {
        if field::u8(inner, 0) >> 4 == 6 {
            return Err(DropReason::Family);
        }
        let ip = ipv4::Packet::new_header(inner)?;
        let max = usize::from(u16::MAX).saturating_sub(ipv4::HEADER_LEN);
        let header = ipv4::Repr {
            source,
            destination,
            protocol,
            payload_len: if len > max { 0 } else { len as u16 },
            ident: 0,
            dont_fragment: ip.dont_fragment(),
            tos: ip.tos(),
            ttl: TTL,
        }
        .emit()?;
        let (start, _) = buffer.split_first_chunk_mut().ok_or(DropReason::NoSpace)?;
        *start = header;
        return Ok(start);
    }
    if source.is_v4() || destination.is_v4() || field::u8(inner, 0) >> 4 == 4 {
        return Err(DropReason::Family);
    }
    let class = ipv6::Packet::new_header(inner)?.traffic_class();
    *buffer = ipv6::Repr {
        source,
        destination,
        next_header: protocol,
        payload_len: u16::try_from(len).unwrap_or(0),
        hop_limit: TTL,
    }
    .emit();
    field::put(buffer, 0, [0x60 | class >> 4, class << 4]);
    Ok(buffer)
}

/// A packet with another one inside.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Outer<T = Parsed> {
    /// Who put the outer header in front.
    pub source: Addr,
    /// To whom.
    pub destination: Addr,
    /// Bytes of the outer packet, as it says itself.
    pub total_len: usize,
    /// Offset of the inner packet.
    pub offset: usize,
    /// What carries it.
    pub carrier: Carrier,
    /// The headers of the inner packet; offsets count from its own network header.
    pub parsed: T,
}

/// Reads the headers of a packet and of the one inside it. `header` are its first bytes, as many as
/// [`parse::parse`] needs for both.
///
/// Errors: [`DropReason::Protocol`] if no TCP or UDP packet of the same family is inside,
/// [`DropReason::Fragment`] if either is a fragment, [`DropReason::BadLength`] if the inner one does
/// not fill the outer one, else as there.
pub fn parse(header: &[u8], frame: Frame) -> Result<Outer, DropReason> {
    let outer = parse_whole(header, frame, |inner, frame| {
        let parsed = parse::parse(inner, frame)?;
        Ok((parsed, parsed.tuple.is_v4()))
    })?;
    // A batch may be longer than its headers can say.
    if !outer.is_filled(outer.parsed.total_len) && !frame.gso {
        return Err(DropReason::BadLength);
    }
    Ok(outer)
}

/// As [`parse`], of a packet with an ICMP error inside, of which `header` has at least
/// [`report::MAX_LEN`](super::report::MAX_LEN) bytes or all.
pub fn parse_report(header: &[u8], frame: Frame) -> Result<Outer<Report>, DropReason> {
    let outer = parse_whole(header, frame, |inner, frame| {
        let report = Report::parse(inner, frame.len)?;
        Ok((report, report.source.is_v4()))
    })?;
    match outer.is_filled(outer.parsed.total_len) {
        true => Ok(outer),
        false => Err(DropReason::BadLength),
    }
}

impl<T> Outer<T> {
    /// Whether an inner packet of `len` bytes fills it.
    fn is_filled(&self, len: usize) -> bool {
        self.offset.saturating_add(len) == self.total_len
    }
}

/// Reads the headers of a packet that is no fragment, and has `parse_inner` read those of the one
/// inside it, see [`parse_outer`].
fn parse_whole<T>(
    header: &[u8],
    frame: Frame,
    parse_inner: impl FnOnce(&[u8], Frame) -> Result<(T, bool), DropReason>,
) -> Result<Outer<T>, DropReason> {
    let is_fragment = match ipv4::Packet::new_header(header) {
        Ok(ip) => ip.is_fragment(),
        Err(_) => ipv6::Packet::new_header(header)
            .is_ok_and(|ip| ip.upper_layer() == Err(DropReason::Fragment)),
    };
    if is_fragment {
        return Err(DropReason::Fragment);
    }
    let only_ip = |carrier| match carrier {
        Carrier::Ipip => true,
        Carrier::Gre { .. } | Carrier::Gue { .. } => false,
    };
    parse_outer(header, only_ip, |inner, offset| {
        let len = frame.len.checked_sub(offset).ok_or(DropReason::Truncated)?;
        parse_inner(inner, Frame { len, ..frame })
    })
}

/// Reads the headers of a packet that was cut, as ICMP errors quote it, and of the one inside it,
/// whatever carries it, of which as much has to be there as [`parse::parse_quoted`] needs.
///
/// Errors: [`DropReason::Protocol`] if no packet of the same family is inside, else as there.
pub fn parse_quoted(bytes: &[u8]) -> Result<Outer, DropReason> {
    parse_outer(
        bytes,
        |_| true,
        |inner, _| {
            let parsed = parse::parse_quoted(inner)?;
            Ok((parsed, parsed.tuple.is_v4()))
        },
    )
}

/// Reads the outer header, asks `takes` about what carries the inner packet, and has `parse_inner` read
/// that at its offset, and say whether it is IPv4.
fn parse_outer<T>(
    bytes: &[u8],
    takes: impl FnOnce(Carrier) -> bool,
    parse_inner: impl FnOnce(&[u8], usize) -> Result<(T, bool), DropReason>,
) -> Result<Outer<T>, DropReason> {
    let (source, destination, protocol, start, total_len);
    match field::u8(bytes, 0) >> 4 {
        6 => {
            let ip = ipv6::Packet::new_header(bytes)?;
            (protocol, start) = ip.first_upper_layer()?;
            (source, destination) = (ip.source(), ip.destination());
            total_len = ip.total_len();
            if source.is_v4() || destination.is_v4() {
                return Err(DropReason::BadValue);
            }
        }
        _ => {
            let ip = ipv4::Packet::new_header(bytes)?;
            if ip.is_later_fragment() {
                return Err(DropReason::Fragment);
            }
            (protocol, start) = (ip.protocol(), ip.header_len());
            (source, destination) = (ip.source(), ip.destination());
            total_len = ip.total_len();
        }
    }
    let behind = bytes.get(start..).ok_or(DropReason::Truncated)?;
    let carrier = Carrier::read(protocol, behind, source.is_v4())?;
    if !takes(carrier) {
        return Err(DropReason::Protocol);
    }
    let offset = start.saturating_add(carrier.header_len());
    let inner = bytes.get(offset..).ok_or(DropReason::Truncated)?;
    let (parsed, is_v4) = parse_inner(inner, offset)?;
    if is_v4 != source.is_v4() {
        return Err(DropReason::Protocol);
    }
    Ok(Outer {
        source,
        destination,
        total_len,
        offset,
        carrier,
        parsed,
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::vectors::{
            self,
            errors,
            forward, //
        },
        *, //
    };

    #[test]
    fn vectors() {
        let done = forward::check_ipip(|inner, source, destination, buffer| {
            emit(inner, inner.len(), source, destination, buffer)
        });
        assert_eq!(done, Ok(forward::COUNT));
    }

    #[test]
    fn what_is_inside_is_read() {
        for (vector, from, to) in forward::FORWARDED
            .iter()
            .map(|vector| (vector, vectors::FORWARDER, vectors::HOST))
            .chain(
                forward::FORWARDED_V6
                    .iter()
                    .map(|vector| (vector, vectors::FORWARDER_V6, vectors::HOST_V6)),
            )
        {
            let (packet, inner) = (vector.ipip, vector.direct);
            let outer = parse(packet, Frame::complete(packet.len())).unwrap();
            assert_eq!((outer.source, outer.destination), (from, to));
            assert_eq!(outer.total_len, packet.len());
            assert_eq!(packet[outer.offset..], *inner);
            assert_eq!(
                Ok(outer.parsed),
                parse::parse(inner, Frame::complete(inner.len()))
            );
            // The link layer has padded it.
            let mut padded = packet.to_vec();
            padded.extend([0; 9]);
            assert_eq!(parse(&padded, Frame::complete(padded.len())), Ok(outer));
            for len in 0..packet.len() {
                assert!(parse(&packet[..len], Frame::complete(len)).is_err());
            }
            // What it carries ends ahead of it.
            let mut longer = padded.clone();
            if from.is_v4() {
                longer[3] = longer[3].wrapping_add(1);
            } else {
                longer[5] = longer[5].wrapping_add(1);
            }
            assert_eq!(
                parse(&longer, Frame::complete(longer.len())),
                Err(DropReason::BadLength)
            );
            // Nothing is inside.
            assert_eq!(
                parse(inner, Frame::complete(inner.len())),
                Err(DropReason::Protocol)
            );
        }
        let mut fragment = forward::FORWARDED[0].ipip.to_vec();
        fragment[6] |= 0x20;
        assert_eq!(
            parse(&fragment, Frame::complete(fragment.len())),
            Err(DropReason::Fragment)
        );
    }

    #[test]
    fn a_report_is_inside() {
        let mut count = 0;
        errors::each_packet(|packet| {
            let Ok(report) = Report::parse(packet, packet.len()) else {
                return;
            };
            let own = match report.source.is_v4() {
                true => vectors::HOST,
                false => vectors::HOST_V6,
            };
            let mut buffer = [0; MAX_HEADER_LEN];
            let header = emit(packet, report.total_len, own, own, &mut buffer).unwrap();
            let whole = [header, &packet[..report.total_len]].concat();
            let outer = parse_report(&whole, Frame::complete(whole.len())).unwrap();
            assert_eq!((outer.parsed, outer.total_len), (report, whole.len()));
            let padded = [&whole[..], &[0; 9]].concat();
            let frame = Frame::complete(padded.len());
            assert_eq!(parse_report(&padded, frame), Ok(outer));
            assert_eq!(parse(&padded, frame), Err(DropReason::Protocol));
            for len in 0..whole.len() {
                assert!(parse_report(&whole[..len], Frame::complete(len)).is_err());
            }
            // It ends ahead of what carries it.
            let mut longer = padded;
            let at = if own.is_v4() { 3 } else { 5 };
            longer[at] = longer[at].wrapping_add(1);
            if longer[at] != 0 {
                assert_eq!(parse_report(&longer, frame), Err(DropReason::BadLength));
            }
            count += 1;
        });
        assert!(count > 40);
    }

    #[test]
    fn batches_and_families() {
        let mut buffer = [0; MAX_HEADER_LEN];
        let (v4, v6) = (vectors::HOST, vectors::HOST_V6);
        for vector in vectors::all() {
            let (own, other) = if vector.tuple.is_v4() {
                (v4, v6)
            } else {
                (v6, v4)
            };
            for (source, destination) in [(own, other), (other, own), (other, other)] {
                let got = emit(vector.inner, 100, source, destination, &mut buffer);
                assert_eq!(got, Err(DropReason::Family));
            }
            let header = emit(vector.inner, 65_536, own, own, &mut buffer).unwrap();
            if own.is_v4() {
                assert_eq!(header[2..4], [0, 20]);
            } else {
                assert_eq!(header[4..6], [0, 0]);
            }
            assert_eq!(header.len(), overhead(own.is_v4()));
        }
        assert!(emit(&[], 0, v4, v4, &mut buffer).is_err());
        assert!(emit(&[0x60; 39], 39, v6, v6, &mut buffer).is_err());
    }
}
