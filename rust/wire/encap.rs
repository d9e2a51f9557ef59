// SPDX-License-Identifier: GPL-2.0

//! The flow-id tunnel: addresses and ports of a packet replaced in place.
//!
//! On the way to a host the client's address becomes the forwarder's, the VIP the host's, and the
//! ports the flow id; the host puts the 4-tuple back. The packet never grows.
//!
//! The decision what changes is [`Rewrite::edits`]. The functions on byte slices here are its
//! reference use; the kernel makes the same edits on an `sk_buff` by
//! `inet_proto_csum_replace*()`, which also know about checksum offload.

use super::{
    addr::{
        Addr,
        FourTuple, //
    },
    checksum,
    error::DropReason,
    field,
    flow_id::FlowId,
    ipv4,
    parse::{
        parse_ipv4,
        Frame,
        L4Checksum,
        Parsed, //
    },
};

/// One field that changes, in network byte order, at an offset from the network header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Change<const N: usize> {
    /// Where the field is.
    pub offset: usize,
    /// What it holds.
    pub from: [u8; N],
    /// What it is to hold.
    pub to: [u8; N],
}

/// Everything that changes in an IPv4 packet.
///
/// The addresses are in the IP header's checksum and, by the pseudo header, in the transport
/// checksum; the ports in the transport checksum; the TTL in the IP header's checksum.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Edits {
    /// Source and destination address. C: `csum_replace4()` on `iphdr.check` and
    /// `inet_proto_csum_replace4(.., pseudohdr = true)`.
    pub addresses: [Change<4>; 2],
    /// Source and destination port. C: `inet_proto_csum_replace2(.., pseudohdr = false)`.
    pub ports: [Change<2>; 2],
    /// Whether the TTL goes down by one. C: `ip_decrease_ttl()`.
    pub decrement_ttl: bool,
    /// The transport checksum.
    pub checksum: L4Checksum,
}

/// New addresses and ports for a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rewrite {
    /// Source address.
    pub source: Addr,
    /// Destination address.
    pub destination: Addr,
    /// Source port, host byte order.
    pub source_port: u16,
    /// Destination port, host byte order.
    pub destination_port: u16,
    /// Whether this machine counts as a router on the packet's way.
    pub decrement_ttl: bool,
}

impl Rewrite {
    /// Into the tunnel: from the forwarder's address to the host's, ports by flow id. The
    /// forwarder is a router on the packet's way, so the TTL goes down.
    #[inline]
    pub const fn encapsulate(forwarder: Addr, host: Addr, id: FlowId) -> Rewrite {
        Rewrite {
            source: forwarder,
            destination: host,
            source_port: id.source(),
            destination_port: id.destination(),
            decrement_ttl: true,
        }
    }

    /// Out of the tunnel: the 4-tuple of the connection comes back.
    #[inline]
    pub const fn decapsulate(tuple: &FourTuple) -> Rewrite {
        Rewrite {
            source: tuple.client(),
            destination: tuple.vip(),
            source_port: tuple.client_port(),
            destination_port: tuple.vip_port(),
            decrement_ttl: false,
        }
    }

    /// What changes in the packet that `parsed` describes.
    ///
    /// Errors: [`DropReason::TtlExpired`] if the TTL has to go down and is 1 or 0 already (an ICMP
    /// time exceeded is due), [`DropReason::Family`] if any address is not IPv4.
    #[inline]
    pub fn edits(&self, parsed: &Parsed) -> Result<Edits, DropReason> {
        let old = &parsed.tuple;
        let (Some(from_source), Some(from_destination), Some(source), Some(destination)) = (
            old.client().to_v4(),
            old.vip().to_v4(),
            self.source.to_v4(),
            self.destination.to_v4(),
        ) else {
            return Err(DropReason::Family);
        };
        if self.decrement_ttl && parsed.ttl <= 1 {
            return Err(DropReason::TtlExpired);
        }
        Ok(Edits {
            addresses: [
                Change {
                    offset: ipv4::SOURCE,
                    from: from_source,
                    to: source,
                },
                Change {
                    offset: ipv4::DESTINATION,
                    from: from_destination,
                    to: destination,
                },
            ],
            ports: [
                Change {
                    offset: parsed.l4_offset,
                    from: old.client_port().to_be_bytes(),
                    to: self.source_port.to_be_bytes(),
                },
                Change {
                    offset: parsed.l4_offset.saturating_add(2),
                    from: old.vip_port().to_be_bytes(),
                    to: self.destination_port.to_be_bytes(),
                },
            ],
            decrement_ttl: self.decrement_ttl,
            checksum: parsed.checksum,
        })
    }

    /// Rewrites the IPv4 packet that `parsed` was made from. On error nothing has changed.
    pub fn apply(&self, packet: &mut [u8], parsed: &Parsed) -> Result<(), DropReason> {
        let edits = self.edits(parsed)?;
        let mut ip = ipv4::Packet::new_header(&mut *packet)?;
        let mut header_check = ip.checksum();
        if edits.decrement_ttl {
            let old = u16::from_be_bytes([ip.ttl(), ip.protocol()]);
            let ttl = ip.ttl().saturating_sub(1);
            ip.set_ttl(ttl);
            let new = u16::from_be_bytes([ttl, ip.protocol()]);
            header_check = checksum::update16(header_check, old, new);
        }
        let mut l4_check = edits.checksum.offset().map(|at| field::u16(packet, at));
        for change in &edits.addresses {
            let (from, to) = (
                u32::from_be_bytes(change.from),
                u32::from_be_bytes(change.to),
            );
            header_check = checksum::update32(header_check, from, to);
            l4_check = l4_check.map(|check| checksum::update32(check, from, to));
            field::put(packet, change.offset, change.to);
        }
        for change in &edits.ports {
            let (from, to) = (
                u16::from_be_bytes(change.from),
                u16::from_be_bytes(change.to),
            );
            l4_check = l4_check.map(|check| checksum::update16(check, from, to));
            field::put(packet, change.offset, change.to);
        }
        ipv4::Packet::new_header(&mut *packet)?.set_checksum(header_check);
        if let (Some(check), Some(offset)) = (l4_check, edits.checksum.offset()) {
            let check = if edits.checksum.is_udp() {
                checksum::udp_nonzero(check)
            } else {
                check
            };
            field::put(packet, offset, check.to_be_bytes());
        }
        Ok(())
    }
}

/// Puts a whole IPv4 packet from the network header on into the tunnel.
///
/// The checksums must be complete. Errors: those of [`parse_ipv4`] and [`Rewrite::edits`]; the
/// packet has not changed then.
pub fn encapsulate(
    packet: &mut [u8],
    forwarder: Addr,
    host: Addr,
    id: FlowId,
) -> Result<(), DropReason> {
    let parsed = parse_ipv4(packet, Frame::complete(packet.len()))?;
    Rewrite::encapsulate(forwarder, host, id).apply(packet, &parsed)
}

/// Takes a whole IPv4 packet out of the tunnel; the counterpart of [`encapsulate`].
///
/// `tuple` is what the mapping says about the packet's source address and flow id. Errors: those
/// of [`encapsulate`], [`DropReason::BadFlowId`] if the ports are none, [`DropReason::Protocol`]
/// if the packet is not of the mapping's protocol.
pub fn decapsulate(packet: &mut [u8], tuple: &FourTuple) -> Result<(), DropReason> {
    let parsed = parse_ipv4(packet, Frame::complete(packet.len()))?;
    if parsed.flow_id().is_none() {
        return Err(DropReason::BadFlowId);
    }
    if parsed.tuple.proto() != tuple.proto() {
        return Err(DropReason::Protocol);
    }
    Rewrite::decapsulate(tuple).apply(packet, &parsed)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            addr::Proto,
            vectors, //
        },
        *,
    };

    #[test]
    fn vectors_both_ways() {
        assert_eq!(
            vectors::check_encapsulate(encapsulate),
            Ok(vectors::VECTORS.len())
        );
        assert_eq!(
            vectors::check_decapsulate(decapsulate),
            Ok(vectors::VECTORS.len())
        );
        assert_eq!(
            vectors::check_refused(encapsulate),
            Ok(vectors::REFUSED.len())
        );
    }

    #[test]
    fn a_wrong_transformation_is_noticed() {
        assert!(vectors::check_encapsulate(|_, _, _, _| Ok(())).is_err());
        assert!(vectors::check_decapsulate(|_, _| Ok(())).is_err());
        assert!(vectors::check_refused(|_, _, _, _| Ok(())).is_err());
        let reason = DropReason::Family;
        assert!(vectors::check_encapsulate(|_, _, _, _| Err(reason)).is_err());
        assert!(vectors::check_refused(|_, _, _, _| Err(reason)).is_err());
    }

    #[test]
    fn decapsulate_refuses() {
        let vector = &vectors::VECTORS[0];
        let mut bytes = [0; 128];
        let packet = &mut bytes[..vector.outer.len()];
        packet.copy_from_slice(vector.inner);
        let tuple = vector.tuple;
        assert_eq!(decapsulate(packet, &tuple), Err(DropReason::BadFlowId));
        packet.copy_from_slice(vector.outer);
        let udp = FourTuple::new(
            tuple.client(),
            tuple.client_port(),
            tuple.vip(),
            tuple.vip_port(),
            Proto::Udp,
        )
        .unwrap();
        assert_eq!(decapsulate(packet, &udp), Err(DropReason::Protocol));
        let v6 = Addr::v6([1; 16]);
        let v6 = FourTuple::new(v6, 1, v6, 1, Proto::Tcp).unwrap();
        assert_eq!(decapsulate(packet, &v6), Err(DropReason::Family));
        assert_eq!(packet, vector.outer);
    }
}
