// SPDX-License-Identifier: GPL-2.0

//! Address and port translation of packets, as `nf_nat_proto.c` does it.

use super::{
    Checksum,
    SkBuff, //
};
use crate::{
    bindings,
    wire::{
        addr::Addr,
        ipv6, //
    }, //
};
use kernel::prelude::*;

/// What to write into a packet with TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// Source address, of the packet's family.
    pub source: Addr,
    /// Destination address, of the packet's family.
    pub destination: Addr,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Time to live, or hop limit.
    pub ttl: u8,
}

/// [`Rewrite`] with the addresses of an IPv4 packet.
struct Ipv4Rewrite {
    source: [u8; 4],
    destination: [u8; 4],
    ports: [u8; 4],
    ttl: u8,
}

/// Where the checksum is in a transport header.
const TCP_CHECK: usize = 16;
const UDP_CHECK: usize = 6;

/// Offsets in an IPv4 header.
const IP_TTL: usize = 8;
const IP_PROTOCOL: usize = 9;
const IP_CHECK: usize = 10;
const IP_SOURCE: usize = 12;
const IP_DESTINATION: usize = 16;
const IP_MIN_LEN: usize = 20;

/// Reads `N` bytes of a header.
#[inline]
fn get<const N: usize>(header: &[u8], offset: usize) -> Option<[u8; N]> {
    header.get(offset..)?.first_chunk().copied()
}

/// Writes `N` bytes of a header.
#[inline]
fn set<const N: usize>(header: &mut [u8], offset: usize, value: [u8; N]) -> Option<()> {
    *header.get_mut(offset..)?.first_chunk_mut()? = value;
    Some(())
}

impl SkBuff {
    /// Replaces addresses, ports and time to live of a packet, whose data starts at the IP header.
    ///
    /// Checksums are changed by the difference, so a wrong one stays wrong, and a packet whose
    /// checksum is left to the device, or which stands for many segments, stays so. A UDP packet
    /// without a checksum gets none. The flow hash is forgotten.
    ///
    /// The headers of an IPv6 packet have to be linear already, up to the ports.
    ///
    /// Errors: `EINVAL` if it is not of the addresses' family, has neither TCP nor UDP, is a later
    /// fragment, or is too short (nothing is changed), `ENOMEM`.
    #[inline]
    pub fn rewrite(&mut self, to: &Rewrite) -> Result {
        let [s0, s1] = to.source_port.to_be_bytes();
        let [d0, d1] = to.destination_port.to_be_bytes();
        let ports = [s0, s1, d0, d1];
        match (to.source.to_v4(), to.destination.to_v4()) {
            (Some(source), Some(destination)) => self.rewrite_ipv4(&Ipv4Rewrite {
                source,
                destination,
                ports,
                ttl: to.ttl,
            }),
            (None, None) => self.rewrite_ipv6(to, ports),
            _ => Err(EINVAL),
        }
    }

    #[inline]
    fn rewrite_ipv4(&mut self, to: &Ipv4Rewrite) -> Result {
        self.may_pull(IP_MIN_LEN as u32)?;
        let ip = self.data();
        let [version_ihl] = get(ip, 0).ok_or(EINVAL)?;
        let [protocol] = get(ip, IP_PROTOCOL).ok_or(EINVAL)?;
        let fragment = u16::from_be_bytes(get(ip, 6).ok_or(EINVAL)?);
        let ihl = usize::from(version_ihl & 0xf) * 4;
        if version_ihl >> 4 != 4 || ihl < IP_MIN_LEN || fragment & 0x1fff != 0 {
            return Err(EINVAL);
        }
        let (check, header_len) = match u32::from(protocol) {
            bindings::IPPROTO_TCP => (TCP_CHECK, 20),
            bindings::IPPROTO_UDP => (UDP_CHECK, 8),
            _ => return Err(EINVAL),
        };
        let end = ihl + header_len;
        // At most 80, so no cut.
        self.ensure_writable(end as u16)?;
        self.rewrite_checked(to, ihl, check, protocol).ok_or(EINVAL)
    }

    /// The part of [`SkBuff::rewrite_ipv4`] that writes; `None` is excluded by its checks.
    #[inline]
    fn rewrite_checked(
        &mut self,
        to: &Ipv4Rewrite,
        ihl: usize,
        check: usize,
        protocol: u8,
    ) -> Option<()> {
        let udp = u32::from(protocol) == bindings::IPPROTO_UDP;
        let ip = self.data();
        let old_source: [u8; 4] = get(ip, IP_SOURCE)?;
        let old_destination: [u8; 4] = get(ip, IP_DESTINATION)?;
        let old_ports: [u8; 4] = get(ip, ihl)?;
        let old_ttl: [u8; 2] = get(ip, IP_TTL)?;
        let old_check = u16::from_ne_bytes(get(ip, IP_CHECK)?);
        let mut sum = u16::from_ne_bytes(get(ip, ihl.checked_add(check)?)?);

        let ports = to.ports;
        let ttl = [to.ttl, protocol];

        if !udp || sum != 0 || self.checksum() == Checksum::Partial {
            let skb = self.as_raw();
            let changes = [
                (old_source, to.source, true),
                (old_destination, to.destination, true),
                (old_ports, ports, false),
            ];
            for (old, new, pseudo) in changes {
                // SAFETY: `sum` is a local variable, `skb` is valid by the type invariants.
                unsafe {
                    bindings::inet_proto_csum_replace4(
                        &mut sum,
                        skb,
                        u32::from_ne_bytes(old),
                        u32::from_ne_bytes(new),
                        pseudo,
                    )
                };
            }
            // Zero means that there is no checksum.
            if udp && sum == 0 {
                sum = 0xffff;
            }
        }

        let mut delta = Delta(old_check);
        delta.replace4(old_source, to.source);
        delta.replace4(old_destination, to.destination);
        delta.replace2(old_ttl, ttl);

        let len = ihl.checked_add(check)?.checked_add(2)?;
        let ip = self.data_writable(len)?;
        set(ip, IP_TTL, ttl)?;
        set(ip, IP_CHECK, delta.0.to_ne_bytes())?;
        set(ip, IP_SOURCE, to.source)?;
        set(ip, IP_DESTINATION, to.destination)?;
        set(ip, ihl, ports)?;
        set(ip, ihl.checked_add(check)?, sum.to_ne_bytes())?;
        self.clear_hash();
        Some(())
    }

    #[inline]
    fn rewrite_ipv6(&mut self, to: &Rewrite, ports: [u8; 4]) -> Result {
        self.may_pull(ipv6::HEADER_LEN as u32)?;
        let ip = ipv6::Packet::new_header(self.data()).map_err(|_| EINVAL)?;
        let (protocol, l4) = ip.upper_layer().map_err(|_| EINVAL)?;
        let (check, header_len) = match u32::from(protocol) {
            bindings::IPPROTO_TCP => (TCP_CHECK, 20),
            bindings::IPPROTO_UDP => (UDP_CHECK, 8),
            _ => return Err(EINVAL),
        };
        let end = l4.checked_add(header_len).ok_or(EINVAL)?;
        self.ensure_writable(u16::try_from(end).map_err(|_| EINVAL)?)?;
        let udp = u32::from(protocol) == bindings::IPPROTO_UDP;
        self.rewrite_checked_ipv6(to, ports, l4, l4.saturating_add(check), udp)
            .ok_or(EINVAL)
    }

    /// The part of [`SkBuff::rewrite_ipv6`] that writes, with the transport header at `l4` and its
    /// checksum at `check`; `None` is excluded by its checks.
    #[inline]
    fn rewrite_checked_ipv6(
        &mut self,
        to: &Rewrite,
        ports: [u8; 4],
        l4: usize,
        check: usize,
        udp: bool,
    ) -> Option<()> {
        let ip = self.data();
        let old_source: [u8; 16] = get(ip, ipv6::SOURCE)?;
        let old_destination: [u8; 16] = get(ip, ipv6::DESTINATION)?;
        let old_ports: [u8; 4] = get(ip, l4)?;
        let [old_ttl] = get(ip, ipv6::HOP_LIMIT)?;
        let mut sum = u16::from_ne_bytes(get(ip, check)?);

        if !udp || sum != 0 || self.checksum() == Checksum::Partial {
            let changes = [
                (old_source, *to.source.as_bytes()),
                (old_destination, *to.destination.as_bytes()),
            ];
            for (old, new) in changes {
                let (old, new) = (u128::from_ne_bytes(old), u128::from_ne_bytes(new));
                // CAST: Four words each, well aligned.
                // SAFETY: All are local variables, the packet is valid by the type invariants.
                unsafe {
                    bindings::inet_proto_csum_replace16(
                        &mut sum,
                        self.as_raw(),
                        (&raw const old).cast(),
                        (&raw const new).cast(),
                        true,
                    )
                };
            }
            // SAFETY: As above.
            unsafe {
                bindings::inet_proto_csum_replace4(
                    &mut sum,
                    self.as_raw(),
                    u32::from_ne_bytes(old_ports),
                    u32::from_ne_bytes(ports),
                    false,
                )
            };
            // Zero means that there is no checksum.
            if udp && sum == 0 {
                sum = 0xffff;
            }
        }
        // No checksum of the packet's own has the hop limit in it, so nothing makes up for a change
        // in the sum of the whole packet.
        if old_ttl != to.ttl && self.checksum() == Checksum::Complete {
            self.forget_checksum();
        }

        let ip = self.data_writable(check.checked_add(2)?)?;
        set(ip, ipv6::HOP_LIMIT, [to.ttl])?;
        set(ip, ipv6::SOURCE, *to.source.as_bytes())?;
        set(ip, ipv6::DESTINATION, *to.destination.as_bytes())?;
        set(ip, l4, ports)?;
        set(ip, check, sum.to_ne_bytes())?;
        self.clear_hash();
        Some(())
    }

    /// The first `len` bytes, after [`SkBuff::ensure_writable`] of as many.
    #[inline]
    fn data_writable(&mut self, len: usize) -> Option<&mut [u8]> {
        if len > self.headlen() as usize {
            return None;
        }
        // SAFETY: The bytes are linear, and `ensure_writable` has made them private.
        Some(unsafe { core::slice::from_raw_parts_mut(self.raw().data, len) })
    }
}

/// An Internet checksum that follows changes of what it covers (RFC 1624, equation 3).
struct Delta(u16);

impl Delta {
    #[inline]
    fn replace2(&mut self, old: [u8; 2], new: [u8; 2]) {
        let sum = u32::from(!self.0)
            + u32::from(!u16::from_ne_bytes(old))
            + u32::from(u16::from_ne_bytes(new));
        let sum = (sum & 0xffff) + (sum >> 16);
        // The sum of three 16-bit values has at most two carries, of which one is left.
        self.0 = !((sum + (sum >> 16)) as u16);
    }

    #[inline]
    fn replace4(&mut self, old: [u8; 4], new: [u8; 4]) {
        let ([a, b, c, d], [w, x, y, z]) = (old, new);
        self.replace2([a, b], [w, x]);
        self.replace2([c, d], [y, z]);
    }
}
