// SPDX-License-Identifier: GPL-2.0

//! ICMP errors: what somebody on the way reports about a packet between forwarder and host, or about
//! a host's reply to a client.

use super::{
    addr::{
        Addr,
        FourTuple,
        Proto, //
    },
    checksum,
    control::{
        Learn,
        Message,
        PORT, //
    },
    encap::Rewrite,
    error::DropReason,
    field,
    flow_id::FlowId,
    icmp::{
        self,
        Kind,
        Version, //
    },
    ipip::{
        self,
        Outer, //
    },
    ipv4,
    ipv6,
    parse::{
        parse_quoted,
        Parsed, //
    },
    udp, //
};

/// How many bytes from the network header on are worth making linear for [`Report::parse`]: no
/// error is longer (RFC 4443 section 2.4; RFC 1812 section 4.3.2.3 has 576).
pub const MAX_LEN: usize = 1280;

/// An IP packet with an ICMP error in it. Offsets count from its network header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Report {
    /// Who reports.
    pub source: Addr,
    /// Who is told.
    pub destination: Addr,
    /// What happened.
    pub kind: Kind,
    /// The code, which says more about the kind.
    pub code: u8,
    /// Time to live, or hop limit, of the report.
    pub ttl: u8,
    /// Bytes of IP header and payload.
    pub total_len: usize,
    /// Offset of the ICMP header.
    pub icmp_offset: usize,
    /// Offset of the quoted packet.
    pub quote_offset: usize,
    /// How many bytes of that packet are quoted.
    pub quote_len: usize,
    /// The headers of the quoted packet; offsets count from its own network header, and the
    /// `client` is who sent it.
    pub quoted: Parsed,
}

/// The packet of the tunnel that a report is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum About {
    /// One in the compact form, with this flow id.
    Compact(FlowId),
    /// A LEARN datagram, with a client's packet inside or without.
    Learn(Learn, Option<Inner>),
}

/// A client's packet inside a quoted LEARN datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Inner {
    /// Offset from the network header of the report.
    pub offset: usize,
    /// Its headers.
    pub parsed: Parsed,
}

/// An IP packet with an ICMP message.
struct Head<'a> {
    source: Addr,
    destination: Addr,
    ttl: u8,
    total_len: usize,
    icmp_offset: usize,
    message: icmp::Packet<&'a [u8]>,
}

impl<'a> Head<'a> {
    /// See [`Report::parse`].
    fn read(header: &'a [u8], len: usize) -> Result<Self, DropReason> {
        let (version, number, source, destination, protocol, icmp_offset, total_len, ttl);
        match field::u8(header, 0) >> 4 {
            6 => {
                let ip = ipv6::Packet::new_header(header)?;
                (version, number) = (Version::V6, icmp::PROTOCOL_V6);
                (source, destination) = (ip.source(), ip.destination());
                (protocol, icmp_offset) = ip.upper_layer()?;
                (total_len, ttl) = (ip.total_len(), ip.hop_limit());
                if source.is_v4() || destination.is_v4() {
                    return Err(DropReason::BadValue);
                }
            }
            _ => {
                let ip = ipv4::Packet::new_header(header)?;
                (version, number) = (Version::V4, icmp::PROTOCOL_V4);
                (source, destination) = (ip.source(), ip.destination());
                (protocol, icmp_offset) = (ip.protocol(), ip.header_len());
                (total_len, ttl) = (ip.total_len(), ip.ttl());
                if ip.is_fragment() {
                    return Err(DropReason::Fragment);
                }
            }
        }
        if protocol != number {
            return Err(DropReason::Protocol);
        }
        if total_len > len {
            return Err(DropReason::Truncated);
        }
        let end = total_len.min(header.len());
        let message = header.get(icmp_offset..end).ok_or(DropReason::BadLength)?;
        Ok(Head {
            source,
            destination,
            ttl,
            total_len,
            icmp_offset,
            message: icmp::Packet::new_checked(message, version)?,
        })
    }

    /// The report about a packet of so many bytes, which says so itself.
    fn report(&self, quoted_len: usize, quoted: Parsed) -> Report {
        Report {
            source: self.source,
            destination: self.destination,
            kind: self.message.kind(),
            code: self.message.code(),
            ttl: self.ttl,
            total_len: self.total_len,
            icmp_offset: self.icmp_offset,
            quote_offset: self.icmp_offset.saturating_add(icmp::HEADER_LEN),
            // What lies behind the end of that packet was padding.
            quote_len: self.message.quote().len().min(quoted_len),
            quoted,
        }
    }
}

impl Report {
    /// Reads an IP packet of `len` bytes, of which `header` are the first ones: [`MAX_LEN`] of them
    /// or the whole packet are always enough. Checksums are not judged.
    ///
    /// Errors: [`DropReason::Protocol`] and [`DropReason::BadValue`] if it is no ICMP error,
    /// [`DropReason::Fragment`], or what is wrong with it or with the packet that it quotes.
    pub fn parse(header: &[u8], len: usize) -> Result<Report, DropReason> {
        let head = Head::read(header, len)?;
        let quoted = head.message.quoted()?;
        Ok(head.report(quoted.total_len, quoted))
    }

    /// As [`Report::parse`], of an error about a packet with another one inside, whatever carries it: that
    /// one is `quoted` then, and its place is in [`Outer`].
    pub fn parse_carrier(header: &[u8], len: usize) -> Result<(Report, Outer), DropReason> {
        let head = Head::read(header, len)?;
        if !head.message.kind().is_error() {
            return Err(DropReason::BadValue);
        }
        let outer = ipip::parse_quoted(head.message.quote())?;
        if outer.parsed.tuple.is_v4() != head.source.is_v4() {
            return Err(DropReason::Family);
        }
        Ok((head.report(outer.total_len, outer.parsed), outer))
    }

    /// The quoted packet, in the bytes that the report was read from.
    fn quote<'a>(&self, header: &'a [u8]) -> &'a [u8] {
        let end = self.quote_offset.saturating_add(self.quote_len);
        field::range(header, self.quote_offset, end.min(header.len()))
    }

    /// What the report is about, if it quotes a packet of the tunnel. `header` is what it was read
    /// from.
    ///
    /// Of a LEARN as much has to be quoted as tells the connection. A client's packet in it is
    /// given if its ports are quoted and are those of the connection.
    pub fn about(&self, header: &[u8]) -> Option<About> {
        let tuple = &self.quoted.tuple;
        let ports = (tuple.client_port(), tuple.vip_port());
        if tuple.proto() != Proto::Udp || ports != (PORT, PORT) {
            return self.quoted.flow_id().map(About::Compact);
        }
        let quote = self.quote(header);
        let length = field::u16(quote, self.quoted.l4_offset.saturating_add(4));
        let payload = self.quoted.l4_offset.saturating_add(udp::HEADER_LEN);
        let len = usize::from(length).checked_sub(udp::HEADER_LEN)?;
        let Ok(Message::Learn(learn)) = Message::parse_head(quote.get(payload..)?, len) else {
            return None;
        };
        let offset = payload.saturating_add(learn.head_len());
        let inner = quote
            .get(offset..)
            .and_then(|inner| parse_quoted(inner).ok())
            .filter(|parsed| parsed.tuple == learn.tuple)
            .map(|parsed| Inner {
                offset: self.quote_offset.saturating_add(offset),
                parsed,
            });
        Some(About::Learn(learn, inner))
    }

    /// The connection, if the quoted packet is one from a server to its client: a report to the
    /// server's address about a packet from it.
    pub fn replied(&self) -> Option<FourTuple> {
        let quoted = &self.quoted.tuple;
        if quoted.client() != self.destination {
            return None;
        }
        FourTuple::new(
            quoted.vip(),
            quoted.vip_port(),
            quoted.client(),
            quoted.client_port(),
            quoted.proto(),
        )
    }
}

/// Gives a quoted packet of the compact form its 4-tuple back. `packet` are the bytes from its
/// network header on, as many as are quoted; checksums are made right as far as they are there.
///
/// Error: [`DropReason::Family`] if the tuple is of the other family; nothing has changed then.
pub fn restore(packet: &mut [u8], quoted: &Parsed, tuple: &FourTuple) -> Result<(), DropReason> {
    Rewrite::decapsulate(tuple).apply(packet, quoted)
}

/// Makes a report one about the packet that `quoted` says, from `source` to `destination`, as a router
/// that translates addresses does on its way (RFC 5508 section 4.2): its TTL goes down, too.
///
/// `packet` are the bytes that it was read from; whoever sent the quoted packet is the `client` of
/// `quoted`. Checksums are changed by the difference, also those in the quoted headers, as far as
/// they are there; wrong ones stay wrong.
///
/// Errors: [`DropReason::TtlExpired`] if the TTL is used up, [`DropReason::Family`] if an address is
/// of the other family; nothing has changed then.
pub fn translate(
    packet: &mut [u8],
    report: &Report,
    (source, destination): (Addr, Addr),
    quoted: &FourTuple,
) -> Result<(), DropReason> {
    let is_v4 = report.source.is_v4();
    if source.is_v4() != is_v4 || destination.is_v4() != is_v4 {
        return Err(DropReason::Family);
    }
    if report.ttl <= 1 {
        return Err(DropReason::TtlExpired);
    }
    let end = report.quote_offset.saturating_add(report.quote_len);
    let quote = packet
        .get_mut(report.quote_offset..end)
        .ok_or(DropReason::Truncated)?;
    let before = checksum::sum(quote, 0);
    restore(quote, &report.quoted, quoted)?;
    let after = checksum::sum(quote, 0);
    let check = report.icmp_offset.saturating_add(icmp::CHECKSUM);
    let ends = |check: u16| {
        let check = checksum::update_addr(check, report.source, source);
        checksum::update_addr(check, report.destination, destination)
    };
    let mut icmp = field::u16(packet, check);
    icmp = checksum::update16(icmp, checksum::fold(before), checksum::fold(after));
    decrement_ttl(packet)?;
    if let (Some(source), Some(destination)) = (source.to_v4(), destination.to_v4()) {
        let mut ip = ipv4::Packet::new_header(&mut *packet)?;
        ip.set_checksum(ends(ip.checksum()));
        ip.set_source(source);
        ip.set_destination(destination);
    } else {
        // By the pseudo header.
        icmp = ends(icmp);
        let mut ip = ipv6::Packet::new_header(&mut *packet)?;
        ip.set_source(*source.as_bytes());
        ip.set_destination(*destination.as_bytes());
    }
    field::put(packet, check, icmp.to_be_bytes());
    Ok(())
}

/// Takes one off the time to live, or hop limit, of an IP packet.
///
/// Errors: [`DropReason::TtlExpired`] if it is used up, or those of the header's view; nothing has
/// changed then.
pub fn decrement_ttl(packet: &mut [u8]) -> Result<(), DropReason> {
    let used_up = |ttl: u8| match ttl {
        0 | 1 => Err(DropReason::TtlExpired),
        ttl => Ok(ttl.wrapping_sub(1)),
    };
    if field::u8(packet, 0) >> 4 == 6 {
        let mut ip = ipv6::Packet::new_header(packet)?;
        ip.set_hop_limit(used_up(ip.hop_limit())?);
        return Ok(());
    }
    let mut ip = ipv4::Packet::new_header(packet)?;
    let (before, protocol) = (ip.ttl(), ip.protocol());
    let after = used_up(before)?;
    ip.set_ttl(after);
    ip.set_checksum(checksum::update16(
        ip.checksum(),
        u16::from_be_bytes([before, protocol]),
        u16::from_be_bytes([after, protocol]),
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            control,
            vectors::report::{
                all,
                check_carried,
                check_no_reports,
                check_reports,
                CARRIED,
                COUNT,
                NO_REPORTS,
                OTHERS, //
            }, //
        },
        *,
    };

    /// The reference of what the forwarder does with an error about one of its packets.
    fn expose(
        packet: &mut [u8],
        report: &Report,
        about: &About,
        tuple: &FourTuple,
    ) -> Result<Option<usize>, DropReason> {
        let end = report.quote_offset + report.quote_len;
        let start = match about {
            About::Compact(_) => {
                restore(&mut packet[report.quote_offset..end], &report.quoted, tuple)?;
                report.quote_offset
            }
            About::Learn(_, Some(inner)) => inner.offset,
            About::Learn(_, None) => return Ok(None),
        };
        packet.copy_within(start..end, 0);
        Ok(Some(end - start))
    }

    #[test]
    fn exact_bytes() {
        assert_eq!(check_reports(expose), Ok(COUNT));
        let parse = |packet: &[u8]| Report::parse(packet, packet.len());
        assert_eq!(check_no_reports(parse), Ok(NO_REPORTS.len() + OTHERS.len()));
        let carry = |packet: &[u8], to: &mut [u8], _: &Report, flow_id| {
            let to = &mut to[..control::HEADER_LEN + packet.len()];
            to[..control::HEADER_LEN].copy_from_slice(&control::carry(flow_id));
            to[control::HEADER_LEN..].copy_from_slice(packet);
            decrement_ttl(&mut to[control::HEADER_LEN..]).map(|()| to.len())
        };
        assert_eq!(check_carried(carry), Ok(CARRIED.len()));
    }

    #[test]
    fn a_used_up_ttl_stays() {
        for (offset, vector) in [(8, &CARRIED[0]), (7, &CARRIED[4])] {
            for ttl in [0, 1] {
                let mut packet = vector.report.to_vec();
                packet[offset] = ttl;
                let before = packet.clone();
                assert_eq!(decrement_ttl(&mut packet), Err(DropReason::TtlExpired));
                assert_eq!(packet, before);
            }
        }
    }

    /// What a host does not take out of a CARRY.
    #[test]
    fn carried_packets_must_fit() {
        for vector in CARRIED {
            let inner = &vector.datagram[control::HEADER_LEN..];
            let tuple = &vector.tuple;
            let mut longer = inner.to_vec();
            longer.push(0);
            let refused = control::carried(&longer, longer.len(), tuple);
            assert_eq!(refused, Err(DropReason::BadLength));
            for len in 0..inner.len() {
                assert!(control::carried(&inner[..len], len, tuple).is_err());
            }
            // What lies behind it is not of it.
            let mut padded = inner.to_vec();
            padded.extend([0; 40]);
            assert!(control::carried(&padded, inner.len(), tuple).is_ok());
            // About somebody else's packet: another port, protocol, direction.
            let (client, vip) = (tuple.client(), tuple.vip());
            let (cport, vport, proto) = (tuple.client_port(), tuple.vip_port(), tuple.proto());
            let not = match proto {
                Proto::Tcp => Proto::Udp,
                Proto::Udp => Proto::Tcp,
            };
            for other in [
                FourTuple::new(client, cport ^ 1, vip, vport, proto),
                FourTuple::new(client, cport, vip, vport ^ 1, proto),
                FourTuple::new(client, cport, vip, vport, not),
                FourTuple::new(vip, vport, client, cport, proto),
            ] {
                let refused = control::carried(inner, inner.len(), &other.unwrap());
                assert_eq!(refused, Err(DropReason::BadValue));
            }
            if tuple.is_v4() {
                let mut wrong = inner.to_vec();
                wrong[10] ^= 1;
                let refused = control::carried(&wrong, wrong.len(), tuple);
                assert_eq!(refused, Err(DropReason::BadChecksum));
            }
            // A sender that no router lets pass.
            let mut wrong = inner.to_vec();
            let at = if tuple.is_v4() { 12 } else { ipv6::SOURCE };
            wrong[at] = 0xff;
            if let Ok(mut ip) = ipv4::Packet::new_header(&mut wrong[..]) {
                ip.fill_checksum();
            }
            let refused = control::carried(&wrong, wrong.len(), tuple);
            assert_eq!(refused, Err(DropReason::BadValue));
        }
    }

    #[test]
    fn only_the_tunnels_packets_are_about_it() {
        for vector in CARRIED {
            let report = Report::parse(vector.report, vector.report.len()).unwrap();
            assert_eq!(report.about(vector.report), None);
        }
        for vector in all() {
            let report = Report::parse(vector.report, vector.report.len()).unwrap();
            // As one about a reply it would be of the connection between forwarder and host.
            assert!(report.replied().is_some_and(|tuple| tuple != vector.tuple));
        }
    }
}
