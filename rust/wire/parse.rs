// SPDX-License-Identifier: GPL-2.0

//! From the headers of a packet to its connection: the step every hook begins with.

mod ordinary;
#[cfg(test)]
mod tests;

pub use ordinary::parse_ordinary;

use super::{
    addr::{
        Addr,
        FourTuple,
        Proto, //
    },
    error::DropReason,
    field,
    flow_id::FlowId,
    ipv4,
    ipv6,
    tcp,
    udp, //
};

/// How many bytes from the network header on [`parse_ipv4`] can need: a header with all options
/// and a TCP header without. Enough for [`parse_ipv6`] but for rare extension headers.
pub const MAX_HEADER_LEN: usize = 60 + tcp::HEADER_LEN;

/// How many bytes from the network header on are worth making linear for [`parse_ipv6`]. Packets
/// with longer extension headers are not for the load balancer.
pub const MAX_EXTENDED_LEN: usize = 256;

/// What is known about a packet besides its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Bytes from the network header to the end of the packet. C: `skb->len` in a hook.
    pub len: usize,
    /// The packet is a batch (GSO), so its length may be beyond what the IP header can say.
    pub gso: bool,
    /// The checksum field holds the pseudo-header sum only, the device or
    /// `skb_checksum_help()` does the rest. C: `skb->ip_summed == CHECKSUM_PARTIAL`.
    pub csum_partial: bool,
}

impl Frame {
    /// An ordinary packet of `len` bytes whose checksums are complete.
    pub const fn complete(len: usize) -> Frame {
        Frame {
            len,
            gso: false,
            csum_partial: false,
        }
    }
}

/// What is to be done about the transport checksum when addresses or ports change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum L4Checksum {
    /// Nothing: a UDP datagram without checksum. Over IPv6 its receiver has to permit that.
    Absent,
    /// Update the field at this offset from the network header.
    Tcp(u16),
    /// Update the field at this offset from the network header; a zero result becomes all ones.
    Udp(u16),
}

impl L4Checksum {
    /// Offset of the field from the network header, if it is to be updated.
    #[inline]
    pub const fn offset(self) -> Option<usize> {
        match self {
            L4Checksum::Absent => None,
            L4Checksum::Tcp(offset) | L4Checksum::Udp(offset) => Some(offset as usize),
        }
    }

    /// Whether a zero result is to be written as all ones (`CSUM_MANGLED_0`).
    #[inline]
    pub const fn is_udp(self) -> bool {
        matches!(self, L4Checksum::Udp(_))
    }
}

/// The headers of a TCP or UDP packet. Offsets count from the network header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Parsed {
    /// Source as `client`, destination as `vip`.
    pub tuple: FourTuple,
    /// Offset of the transport header, which is the length of the IP header and its extensions.
    pub l4_offset: usize,
    /// Bytes of IP header and payload.
    pub total_len: usize,
    /// TCP control bits; none set for UDP.
    pub flags: tcp::Flags,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Whether routers must not fragment the packet.
    pub dont_fragment: bool,
    /// What to do about the transport checksum.
    pub checksum: L4Checksum,
}

impl Parsed {
    /// The flow id in the ports, if they are one.
    #[inline]
    pub const fn flow_id(&self) -> Option<FlowId> {
        FlowId::from_ports(self.tuple.client_port(), self.tuple.vip_port())
    }
}

/// Reads the headers of an IPv4 packet.
///
/// `header` are the bytes from the network header on, as many as are at hand, and at least the IP
/// header and the TCP (20 bytes) or UDP (8 bytes) header; [`MAX_HEADER_LEN`] bytes or the whole
/// packet are always enough. Checked are both headers' lengths against [`Frame::len`]. No checksum
/// is judged.
///
/// Errors: [`DropReason::Fragment`] and [`DropReason::Protocol`] stand for good packets that this
/// does not apply to (with a source route that leads on, too, as with IPv6), everything else is malformed; [`DropReason::Truncated`] also if `header` is
/// too short.
#[inline(always)]
pub fn parse_ipv4(header: &[u8], frame: Frame) -> Result<Parsed, DropReason> {
    let ip = ipv4::Packet::new_header(header)?;
    let l4_offset = ip.header_len();
    parse_ipv4_at(ip, header, l4_offset, frame)
}

/// As [`parse_ipv4`], of a header that ends at `l4_offset`.
#[inline(always)]
fn parse_ipv4_at(
    ip: ipv4::Packet<&[u8]>,
    header: &[u8],
    l4_offset: usize,
    frame: Frame,
) -> Result<Parsed, DropReason> {
    let total_len = match ip.total_len() {
        // BIG TCP: a batch beyond 65535 bytes has the length zero. C: `iph_totlen()`.
        0 if frame.gso => frame.len,
        len => len,
    };
    let l4_len = total_len
        .checked_sub(l4_offset)
        .ok_or(DropReason::BadLength)?;
    if total_len > frame.len {
        return Err(DropReason::Truncated);
    }
    if ip.is_fragment() {
        return Err(DropReason::Fragment);
    }
    if l4_offset > ipv4::HEADER_LEN && ip.is_source_routed() {
        return Err(DropReason::Protocol);
    }
    let l4 = transport(ip.protocol(), header, l4_offset, l4_len, frame)?;
    Ok(Parsed {
        tuple: FourTuple::v4(
            field::array(header, ipv4::SOURCE),
            l4.source_port,
            field::array(header, ipv4::DESTINATION),
            l4.destination_port,
            l4.proto,
        ),
        l4_offset,
        total_len,
        flags: l4.flags,
        ttl: ip.ttl(),
        dont_fragment: ip.dont_fragment(),
        checksum: l4.checksum,
    })
}

/// Reads the headers of an IPv6 packet, extension headers that do not matter included.
///
/// As [`parse_ipv4`]; a packet whose headers exceed [`MAX_EXTENDED_LEN`] bytes may be refused as
/// [`DropReason::Truncated`]. In addition, IPv4-mapped addresses are a [`DropReason::BadValue`]:
/// they must not be seen on a wire, and mean an IPv4 connection in a [`FourTuple`].
#[inline]
pub fn parse_ipv6(header: &[u8], frame: Frame) -> Result<Parsed, DropReason> {
    let ip = ipv6::Packet::new_header(header)?;
    let total_len = match ip.payload_len() {
        // BIG TCP, as with IPv4. C: `ipv6_payload_len()`.
        0 if frame.gso => frame.len,
        _ => ip.total_len(),
    };
    if total_len > frame.len {
        return Err(DropReason::Truncated);
    }
    let (protocol, l4_offset) = ip.upper_layer()?;
    let l4_len = total_len
        .checked_sub(l4_offset)
        .ok_or(DropReason::BadLength)?;
    let l4 = transport(protocol, header, l4_offset, l4_len, frame)?;
    let (source, destination) = (ip.source(), ip.destination());
    if source.is_v4() || destination.is_v4() {
        return Err(DropReason::BadValue);
    }
    let (client_port, vip_port) = (l4.source_port, l4.destination_port);
    let tuple = FourTuple::new(source, client_port, destination, vip_port, l4.proto);
    Ok(Parsed {
        tuple: tuple.ok_or(DropReason::Family)?,
        l4_offset,
        total_len,
        flags: l4.flags,
        ttl: ip.hop_limit(),
        // No router does.
        dont_fragment: true,
        checksum: l4.checksum,
    })
}

/// Reads the headers of an IPv4 or IPv6 packet, whatever its first byte says.
///
/// [`DropReason::BadVersion`] if that is neither.
#[inline]
pub fn parse(header: &[u8], frame: Frame) -> Result<Parsed, DropReason> {
    match field::u8(header, 0) >> 4 {
        6 => parse_ipv6(header, frame),
        _ => parse_ipv4(header, frame),
    }
}

/// Source and destination of an IP packet, whatever is in it.
pub fn addresses(header: &[u8]) -> Option<(Addr, Addr)> {
    if let Ok(ip) = ipv4::Packet::new_header(header) {
        return Some((ip.source(), ip.destination()));
    }
    let ip = ipv6::Packet::new_header(header).ok()?;
    Some((ip.source(), ip.destination()))
}

/// Reads the headers of a packet that was cut, as ICMP errors quote it: of the transport header, its
/// ports and the four bytes behind them have to be there (RFC 792, RFC 1812 section 4.3.2.3).
///
/// As [`parse`], with these differences. [`Parsed::total_len`] is what the packet says of itself; it
/// covers these bytes, or it is a [`DropReason::BadLength`]. [`Parsed::checksum`] is [`L4Checksum::Absent`] if the field was
/// cut off, and the flags are none if they were. The first of several fragments has all that, too.
pub fn parse_quoted(bytes: &[u8]) -> Result<Parsed, DropReason> {
    let (source, destination, protocol, l4_offset, total_len, ttl, dont_fragment);
    match field::u8(bytes, 0) >> 4 {
        6 => {
            let ip = ipv6::Packet::new_header(bytes)?;
            (protocol, l4_offset) = ip.first_upper_layer()?;
            (source, destination) = (ip.source(), ip.destination());
            if source.is_v4() || destination.is_v4() {
                return Err(DropReason::BadValue);
            }
            (total_len, ttl, dont_fragment) = (ip.total_len(), ip.hop_limit(), true);
        }
        _ => {
            let ip = ipv4::Packet::new_header(bytes)?;
            if ip.is_later_fragment() {
                return Err(DropReason::Fragment);
            }
            (protocol, l4_offset) = (ip.protocol(), ip.header_len());
            (source, destination) = (ip.source(), ip.destination());
            (total_len, ttl, dont_fragment) = (ip.total_len(), ip.ttl(), ip.dont_fragment());
        }
    }
    let proto = Proto::from_number(protocol).ok_or(DropReason::Protocol)?;
    let l4 = bytes.get(l4_offset..).ok_or(DropReason::Truncated)?;
    if l4.len() < 8 {
        return Err(DropReason::Truncated);
    }
    if total_len < l4_offset.saturating_add(8) {
        return Err(DropReason::BadLength);
    }
    let at = |offset| field_at(l4_offset, offset);
    let has = |offset: usize| l4.len() >= offset.saturating_add(2);
    let checksum = match proto {
        Proto::Tcp if has(tcp::CHECKSUM) => L4Checksum::Tcp(at(tcp::CHECKSUM)?),
        Proto::Udp if field::u16(l4, udp::CHECKSUM) != 0 => L4Checksum::Udp(at(udp::CHECKSUM)?),
        _ => L4Checksum::Absent,
    };
    let flags = match proto {
        Proto::Tcp => tcp::Flags(field::u8(l4, 13)),
        Proto::Udp => tcp::Flags::default(),
    };
    let (client_port, vip_port) = (field::u16(l4, 0), field::u16(l4, 2));
    let tuple = FourTuple::new(source, client_port, destination, vip_port, proto);
    Ok(Parsed {
        tuple: tuple.ok_or(DropReason::Family)?,
        l4_offset,
        total_len,
        flags,
        ttl,
        dont_fragment,
        checksum,
    })
}

/// Where a field of the transport header is, from the network header on.
#[inline(always)]
fn field_at(l4_offset: usize, offset: usize) -> Result<u16, DropReason> {
    u16::try_from(l4_offset.wrapping_add(offset)).map_err(|_| DropReason::BadLength)
}

/// What the transport header says.
struct Transport {
    proto: Proto,
    source_port: u16,
    destination_port: u16,
    flags: tcp::Flags,
    checksum: L4Checksum,
}

/// Reads a TCP or UDP header at `l4_offset`, which begins a segment of `l4_len` bytes.
#[inline(always)]
fn transport(
    protocol: u8,
    header: &[u8],
    l4_offset: usize,
    l4_len: usize,
    frame: Frame,
) -> Result<Transport, DropReason> {
    let proto = Proto::from_number(protocol).ok_or(DropReason::Protocol)?;
    let l4 = header.get(l4_offset..).ok_or(DropReason::Truncated)?;
    let min_len = match proto {
        Proto::Tcp => tcp::HEADER_LEN,
        Proto::Udp => udp::HEADER_LEN,
    };
    if l4.len() < min_len || l4_len < min_len {
        return Err(DropReason::Truncated);
    }
    let (checksum, flags) = match proto {
        Proto::Tcp => {
            let data_offset = usize::from(field::u8(l4, 12) >> 4) << 2;
            if data_offset < tcp::HEADER_LEN {
                return Err(DropReason::BadHeaderLength);
            }
            if data_offset > l4_len {
                return Err(DropReason::Truncated);
            }
            let offset = field_at(l4_offset, tcp::CHECKSUM)?;
            (L4Checksum::Tcp(offset), tcp::Flags(field::u8(l4, 13)))
        }
        Proto::Udp => {
            let length = usize::from(field::u16(l4, 4));
            if length < udp::HEADER_LEN || length > l4_len {
                return Err(DropReason::BadLength);
            }
            let offset = field_at(l4_offset, udp::CHECKSUM)?;
            let checksum = if field::u16(l4, udp::CHECKSUM) == 0 && !frame.csum_partial {
                L4Checksum::Absent
            } else {
                L4Checksum::Udp(offset)
            };
            (checksum, tcp::Flags::default())
        }
    };
    Ok(Transport {
        proto,
        source_port: field::u16(l4, 0),
        destination_port: field::u16(l4, 2),
        flags,
        checksum,
    })
}
