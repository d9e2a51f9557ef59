// SPDX-License-Identifier: GPL-2.0

//! What carries a packet inside of another one of its family: nothing but the IP header (RFC 2003,
//! RFC 2473), GRE (RFC 2784), or GUE (draft-ietf-intarea-gue, version 0) over UDP.

use super::{
    addr::Addr,
    error::DropReason,
    field,
    ipip,
    ipv6,
    udp, //
};

/// IP protocol number of GRE.
pub const IPPROTO_GRE: u8 = 47;

/// IP protocol number of UDP.
pub const IPPROTO_UDP: u8 = 17;

/// Port of GUE (RFC 6335 registry).
pub const GUE_PORT: u16 = 6080;

/// Bytes of a GRE header, and of the checksum that may be in it.
const GRE_LEN: usize = 4;
const GRE_CHECKSUM_LEN: usize = 4;
/// In a GRE header, that it has a checksum.
const GRE_CHECKSUM: u16 = 0x8000;
/// Bytes of a GUE header without options.
const GUE_LEN: usize = 4;

/// Ethertypes, by which GRE says what is inside.
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;

/// Bytes of the longest header in front of a packet.
pub const MAX_HEADER_LEN: usize = ipv6::HEADER_LEN + udp::HEADER_LEN + GUE_LEN;

/// What carries a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Carrier {
    /// The IP header alone.
    Ipip,
    /// GRE without key and sequence number.
    Gre {
        /// Whether it has a checksum.
        checksum: bool,
    },
    /// GUE without options.
    Gue {
        /// Whether the datagram has a checksum.
        checksum: bool,
        /// Its destination port.
        port: u16,
    },
}

impl Carrier {
    /// Bytes of the header between the two IP headers.
    pub const fn header_len(self) -> usize {
        match self {
            Self::Ipip => 0,
            Self::Gre { checksum: false } => GRE_LEN,
            Self::Gre { checksum: true } => GRE_LEN + GRE_CHECKSUM_LEN,
            Self::Gue { .. } => udp::HEADER_LEN + GUE_LEN,
        }
    }

    /// Bytes by which a packet of this family grows.
    pub const fn overhead(self, is_v4: bool) -> usize {
        ipip::overhead(is_v4).saturating_add(self.header_len())
    }

    /// What the outer IP header says is behind it.
    const fn protocol(self, is_v4: bool) -> u8 {
        match self {
            Self::Ipip => inner_protocol(is_v4),
            Self::Gre { .. } => IPPROTO_GRE,
            Self::Gue { .. } => IPPROTO_UDP,
        }
    }

    /// Writes all that is in front of a packet of `len` bytes, of which `inner` has at least the IP
    /// header. A datagram comes from `source_port`.
    ///
    /// The IP header is as with [`ipip::emit`]. Checksums of GRE and UDP are zero: whoever has all of
    /// the packet fills them. The length of a datagram is 0 where it cannot be said, because the
    /// packet is a batch (GSO) of more than 65535 bytes.
    ///
    /// Errors as there.
    pub fn emit<'a>(
        self,
        inner: &[u8],
        len: usize,
        (source, destination): (Addr, Addr),
        source_port: u16,
        buffer: &'a mut [u8; MAX_HEADER_LEN],
    ) -> Result<&'a [u8], DropReason> {
        let is_v4 = destination.is_v4();
        let payload = len.saturating_add(self.header_len());
        let mut start = [0; ipip::MAX_HEADER_LEN];
        let protocol = self.protocol(is_v4);
        let ip = ipip::emit_header(inner, payload, (source, destination), protocol, &mut start)?;
        let ip_len = ip.len();
        *buffer = [0; MAX_HEADER_LEN];
        field::put(buffer, 0, start);
        match self {
            Self::Ipip => {}
            Self::Gre { checksum } => {
                let flags = if checksum { GRE_CHECKSUM } else { 0 };
                field::put(buffer, ip_len, flags.to_be_bytes());
                let inside = ethertype(is_v4).to_be_bytes();
                field::put(buffer, ip_len.saturating_add(2), inside);
            }
            Self::Gue { port, .. } => {
                let length = u16::try_from(payload).unwrap_or(0);
                let ([a, b], [c, d]) = (source_port.to_be_bytes(), port.to_be_bytes());
                let [e, f] = length.to_be_bytes();
                field::put(buffer, ip_len, [a, b, c, d, e, f, 0, 0]);
                let gue = ip_len.saturating_add(udp::HEADER_LEN);
                // No version, option, flag, nor control message.
                field::put(buffer, gue, [0, inner_protocol(is_v4), 0, 0]);
            }
        }
        let end = ip_len.saturating_add(self.header_len());
        buffer.get(..end).ok_or(DropReason::NoSpace)
    }

    /// What carries the packet that is behind an IP header with this protocol, as `bytes` say, which
    /// begin there.
    ///
    /// Error: [`DropReason::Protocol`] if it is nothing that [`Carrier::emit`] writes, or not all of it.
    pub(super) fn read(protocol: u8, bytes: &[u8], is_v4: bool) -> Result<Self, DropReason> {
        let carrier = match protocol {
            IPPROTO_GRE => match field::u16(bytes, 0) {
                0 => Self::Gre { checksum: false },
                GRE_CHECKSUM => Self::Gre { checksum: true },
                _ => return Err(DropReason::Protocol),
            },
            IPPROTO_UDP => Self::Gue {
                checksum: field::u16(bytes, 6) != 0,
                port: field::u16(bytes, 2),
            },
            other if other == inner_protocol(is_v4) => return Ok(Self::Ipip),
            _ => return Err(DropReason::Protocol),
        };
        let inside = match carrier {
            Self::Gre { .. } => {
                bytes.len() >= carrier.header_len() && field::u16(bytes, 2) == ethertype(is_v4)
            }
            _ => {
                let gue = field::range(bytes, udp::HEADER_LEN, carrier.header_len());
                gue == [0, inner_protocol(is_v4), 0, 0]
            }
        };
        if inside {
            Ok(carrier)
        } else {
            Err(DropReason::Protocol)
        }
    }
}

/// IP protocol number of a packet of this family inside of another.
const fn inner_protocol(is_v4: bool) -> u8 {
    if is_v4 {
        ipip::IPPROTO_IPIP
    } else {
        ipip::IPPROTO_IPV6
    }
}

/// Its Ethertype.
const fn ethertype(is_v4: bool) -> u16 {
    if is_v4 {
        ETH_P_IP
    } else {
        ETH_P_IPV6
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            ipip::parse_quoted,
            vectors::{
                errors,
                forward,
                FORWARDER,
                FORWARDER_V6,
                HOST,
                HOST_V6, //
            }, //
        },
        *, //
    };

    #[test]
    fn exact_bytes() {
        let done = errors::check_carried(|carrier, inner, ends, port, buffer| {
            carrier.emit(inner, inner.len(), ends, port, buffer)
        });
        assert!(done.is_ok_and(|done| done >= 80), "{done:?}");
        assert!(errors::check_carried(|_, _, _, _, _| Ok(&[])).is_err());
    }

    #[test]
    fn what_is_written_is_read() {
        let carriers = [false, true].into_iter().flat_map(|checksum| {
            [
                Carrier::Ipip,
                Carrier::Gre { checksum },
                Carrier::Gue { checksum, port: 7 },
            ]
        });
        for carrier in carriers {
            for (vector, ends) in forward::FORWARDED
                .iter()
                .map(|vector| (vector, (FORWARDER, HOST)))
                .chain(
                    forward::FORWARDED_V6
                        .iter()
                        .map(|vector| (vector, (FORWARDER_V6, HOST_V6))),
                )
            {
                let (inner, is_v4) = (vector.direct, ends.0.is_v4());
                let mut buffer = [0; MAX_HEADER_LEN];
                let header = carrier.emit(inner, inner.len(), ends, 9, &mut buffer);
                let header = header.unwrap();
                assert_eq!(header.len(), carrier.overhead(is_v4));
                let packet = [header, inner].concat();
                let outer = parse_quoted(&packet).unwrap();
                // Checksums are not filled here.
                let without = match carrier {
                    Carrier::Gue { port, .. } => Carrier::Gue {
                        checksum: false,
                        port,
                    },
                    other => other,
                };
                assert_eq!((outer.carrier, outer.offset), (without, header.len()));
                assert_eq!((outer.source, outer.destination), ends);
                assert_eq!(outer.total_len, packet.len());
                for len in 0..header.len() {
                    assert!(parse_quoted(&packet[..len]).is_err());
                }
                // With an option, a flag or another version it is something else.
                let start = ipip::overhead(is_v4);
                for at in start..header.len() {
                    let mut other = packet.clone();
                    other[at] ^= 0x41;
                    let read = parse_quoted(&other);
                    let is_free = match carrier {
                        Carrier::Gre { .. } => at >= start + 4,
                        _ => at < start + 8,
                    };
                    assert_eq!(read.is_ok(), is_free, "{carrier:?} {at}");
                }
                // A batch that is longer than its headers can say.
                let header = carrier.emit(inner, 70_000, ends, 9, &mut buffer);
                let header = header.unwrap();
                let length = field::u16(header, start + 4);
                assert!(!matches!(carrier, Carrier::Gue { .. }) || length == 0);
                let mixed = (ends.0, if is_v4 { HOST_V6 } else { HOST });
                let refused = carrier.emit(inner, inner.len(), mixed, 9, &mut buffer);
                assert_eq!(refused, Err(DropReason::Family));
            }
        }
    }
}
