// SPDX-License-Identifier: GPL-2.0

//! The flow-id tunnel: addresses and ports of a packet replaced in place.
//!
//! On the way to a host the client's address becomes the forwarder's, the VIP the host's, and the
//! ports the flow id; the host puts the 4-tuple back. The packet never grows, and stays of its
//! family: IPv4 between IPv4 addresses, IPv6 between IPv6 addresses.
//!
//! This is the reference, on byte slices. The kernel makes the same changes to an `sk_buff` by
//! `inet_proto_csum_replace*()`, which also know about checksum offload; both are held against the
//! same [`vectors`](super::vectors).

use super::{
    addr::{
        Addr,
        FourTuple, //
    },
    checksum,
    error::DropReason,
    field,
    flow_id::FlowId,
    ipv4, ipv6,
    parse::{
        parse,
        Frame,
        Parsed, //
    },
};

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

    /// Rewrites the packet that `parsed` was made from. On error nothing has changed.
    ///
    /// The addresses are in the transport checksum by the pseudo header, with IPv4 in that of the
    /// IP header, too; the ports are in the transport checksum, the TTL in that of an IPv4 header.
    ///
    /// Errors: [`DropReason::TtlExpired`] if the TTL has to go down and is 1 or 0 already (an ICMP
    /// time exceeded is due), [`DropReason::Family`] if the addresses are not of the packet's
    /// family.
    pub fn apply(&self, packet: &mut [u8], parsed: &Parsed) -> Result<(), DropReason> {
        let old = &parsed.tuple;
        if self.source.is_v4() != old.is_v4() || self.destination.is_v4() != old.is_v4() {
            return Err(DropReason::Family);
        }
        if self.decrement_ttl && parsed.ttl <= 1 {
            return Err(DropReason::TtlExpired);
        }
        let ttl = match self.decrement_ttl {
            true => parsed.ttl.saturating_sub(1),
            false => parsed.ttl,
        };
        match (self.source.to_v4(), self.destination.to_v4()) {
            (Some(source), Some(destination)) => {
                let mut ip = ipv4::Packet::new_header(&mut *packet)?;
                let protocol = ip.protocol();
                let (before, after) = ([ip.ttl(), protocol], [ttl, protocol]);
                let mut check = checksum::update16(
                    ip.checksum(),
                    u16::from_be_bytes(before),
                    u16::from_be_bytes(after),
                );
                check = checksum::update_addr(check, old.client(), self.source);
                check = checksum::update_addr(check, old.vip(), self.destination);
                ip.set_ttl(ttl);
                ip.set_source(source);
                ip.set_destination(destination);
                ip.set_checksum(check);
            }
            _ => {
                let mut ip = ipv6::Packet::new_header(&mut *packet)?;
                ip.set_hop_limit(ttl);
                ip.set_source(*self.source.as_bytes());
                ip.set_destination(*self.destination.as_bytes());
            }
        }
        if let Some(offset) = parsed.checksum.offset() {
            let mut check = field::u16(packet, offset);
            check = checksum::update_addr(check, old.client(), self.source);
            check = checksum::update_addr(check, old.vip(), self.destination);
            check = checksum::update16(check, old.client_port(), self.source_port);
            check = checksum::update16(check, old.vip_port(), self.destination_port);
            if parsed.checksum.is_udp() {
                check = checksum::udp_nonzero(check);
            }
            field::put(packet, offset, check.to_be_bytes());
        }
        let ports = parsed.l4_offset;
        field::put(packet, ports, self.source_port.to_be_bytes());
        let destination = self.destination_port.to_be_bytes();
        field::put(packet, ports.saturating_add(2), destination);
        Ok(())
    }
}

/// Puts a whole packet from the network header on into the tunnel.
///
/// The checksums must be complete. Errors: those of [`parse`] and [`Rewrite::apply`]; the packet
/// has not changed then.
pub fn encapsulate(
    packet: &mut [u8],
    forwarder: Addr,
    host: Addr,
    id: FlowId,
) -> Result<(), DropReason> {
    let parsed = parse(packet, Frame::complete(packet.len()))?;
    Rewrite::encapsulate(forwarder, host, id).apply(packet, &parsed)
}

/// Takes a whole packet out of the tunnel; the counterpart of [`encapsulate`].
///
/// `tuple` is what the mapping says about the packet's source address and flow id. Errors: those
/// of [`encapsulate`], [`DropReason::BadFlowId`] if the ports are none, [`DropReason::Protocol`]
/// if the packet is not of the mapping's protocol.
pub fn decapsulate(packet: &mut [u8], tuple: &FourTuple) -> Result<(), DropReason> {
    let parsed = parse(packet, Frame::complete(packet.len()))?;
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
            vectors::{
                self,
                forward::{
                    self,
                    Change, //
                }, //
            }, //
        },
        *,
    };

    #[test]
    fn vectors_both_ways() {
        assert_eq!(vectors::check_encapsulate(encapsulate), Ok(vectors::COUNT));
        assert_eq!(vectors::check_decapsulate(decapsulate), Ok(vectors::COUNT));
        assert_eq!(
            vectors::check_refused(encapsulate),
            Ok(vectors::REFUSED_COUNT)
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
    fn vectors_of_forwarding() {
        let done = forward::check_changes(|change, packet, ends| {
            let parsed = parse(packet, Frame::complete(packet.len()))?;
            let pass = Rewrite {
                decrement_ttl: true,
                ..Rewrite::decapsulate(&ends.tuple)
            };
            let to_host = Rewrite {
                destination: ends.host,
                destination_port: forward::HOST_PORT,
                ..pass
            };
            let rewrite = match change {
                Change::Direct => pass,
                Change::HalfNat => to_host,
                Change::Nat => Rewrite {
                    source: ends.forwarder,
                    source_port: forward::NAT_PORT,
                    ..to_host
                },
                Change::HalfNatReply | Change::NatReply => Rewrite {
                    source: ends.tuple.vip(),
                    destination: ends.tuple.client(),
                    source_port: ends.tuple.vip_port(),
                    destination_port: ends.tuple.client_port(),
                    decrement_ttl: true,
                },
            };
            rewrite.apply(packet, &parsed)
        });
        assert_eq!(done, Ok(3 * forward::COUNT + 2 * forward::REPLY_COUNT));
        assert!(forward::check_changes(|_, _, _| Ok(())).is_err());
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

    #[test]
    fn families_do_not_mix() {
        let (v4, v6) = (vectors::HOST, vectors::HOST_V6);
        for vector in vectors::all() {
            let mut bytes = [0; 128];
            let packet = &mut bytes[..vector.inner.len()];
            packet.copy_from_slice(vector.inner);
            for (forwarder, host) in [(v4, v6), (v6, v4)] {
                let got = encapsulate(packet, forwarder, host, FlowId::nth(0));
                assert_eq!(got, Err(DropReason::Family));
            }
            let other = if vector.tuple.is_v4() { v6 } else { v4 };
            let got = encapsulate(packet, other, other, FlowId::nth(0));
            assert_eq!(got, Err(DropReason::Family));
            assert_eq!(packet, vector.inner);
        }
    }
}
