// SPDX-License-Identifier: GPL-2.0

//! Address and port translation of packets, as `nf_nat_proto.c` does it.

use super::{
    Checksum,
    SkBuff, //
};
use crate::{
    bindings,
    wire::{
        addr::{
            Addr,
            Proto, //
        },
        checksum::Delta,
        ipv6,
        parse::Parsed, //
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

impl Rewrite {
    /// Both ports, as they stand in a packet.
    #[inline(always)]
    fn ports(&self) -> [u8; 4] {
        let ports = u32::from(self.source_port) << 16 | u32::from(self.destination_port);
        ports.to_be_bytes()
    }

    /// If it is for a packet of IPv4.
    #[inline(always)]
    fn ipv4(&self) -> Option<Ipv4Rewrite> {
        Some(Ipv4Rewrite {
            source: self.source.to_v4()?,
            destination: self.destination.to_v4()?,
            ports: self.ports(),
            ttl: self.ttl,
        })
    }

    fn is_ipv6(&self) -> bool {
        !self.source.is_v4() && !self.destination.is_v4()
    }
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
    #[inline(always)]
    pub fn rewrite(&mut self, to: &Rewrite) -> Result {
        match to.ipv4() {
            Some(to) => self.rewrite_ipv4(&to),
            None if to.is_ipv6() => self.rewrite_ipv6(to),
            None => Err(EINVAL),
        }
    }

    /// As [`SkBuff::rewrite`], of a packet with these headers.
    ///
    /// Where they are is known when this is compiled, if it is IPv4 without options.
    #[inline(always)]
    pub fn rewrite_parsed(&mut self, parsed: &Parsed, to: &Rewrite) -> Result {
        let Some(ipv4) = to.ipv4().filter(|_| parsed.l4_offset == IP_MIN_LEN) else {
            let (from, other) = (to.source_port, to.destination_port);
            return self.rewrite_others(to.source, to.destination, from, other, to.ttl);
        };
        let proto = parsed.tuple.proto();
        match proto {
            Proto::Tcp => {
                self.ensure_writable((IP_MIN_LEN + 20) as u16)?;
                self.rewrite_checked(&ipv4, IP_MIN_LEN, TCP_CHECK, proto.number())
            }
            Proto::Udp => {
                self.ensure_writable((IP_MIN_LEN + 8) as u16)?;
                self.rewrite_checked(&ipv4, IP_MIN_LEN, UDP_CHECK, proto.number())
            }
        }
        .ok_or(EINVAL)
    }

    /// [`SkBuff::rewrite`] of IPv6, and of IPv4 with options. What it needs is put together here, not for
    /// all packets.
    #[inline(never)]
    fn rewrite_others(
        &mut self,
        source: Addr,
        destination: Addr,
        source_port: u16,
        destination_port: u16,
        ttl: u8,
    ) -> Result {
        self.rewrite(&Rewrite {
            source,
            destination,
            source_port,
            destination_port,
            ttl,
        })
    }

    /// Replaces the time to live of a packet with these headers, whose data starts at its IP header. Only
    /// the checksum of that header is kept right, not one of the whole packet that a device has made.
    /// Errors: `ENOMEM`.
    #[inline]
    pub fn set_ttl(&mut self, parsed: &Parsed, ttl: u8) -> Result {
        if !parsed.tuple.is_v4() {
            let [.., hop_limit] = self.data_mut(8)? else {
                return Err(EINVAL);
            };
            *hop_limit = ttl;
            return Ok(());
        }
        let ip = self.data_mut(IP_MIN_LEN as u16)?;
        let new = [ttl, parsed.tuple.proto().number()];
        let (old, check) = (get(ip, IP_TTL), get(ip, IP_CHECK));
        let (Some(old), Some(check)) = (old, check) else {
            return Err(EINVAL);
        };
        let check = Delta::default().replace2(old, new).check(check);
        set(ip, IP_TTL, new).ok_or(EINVAL)?;
        set(ip, IP_CHECK, check).ok_or(EINVAL)
    }

    #[inline(always)]
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
    #[inline(always)]
    fn rewrite_checked(
        &mut self,
        to: &Ipv4Rewrite,
        ihl: usize,
        check: usize,
        protocol: u8,
    ) -> Option<()> {
        let checksum = self.checksum();
        let len = ihl.checked_add(check)?.checked_add(2)?;
        let (ip, l4) = self.data_writable(len)?.split_at_mut_checked(ihl)?;
        let ip: &mut [u8; IP_MIN_LEN] = ip.first_chunk_mut()?;

        let addresses = Delta::default()
            .replace4(get(ip, IP_SOURCE)?, to.source)
            .replace4(get(ip, IP_DESTINATION)?, to.destination);
        let ports = Delta::default().replace4(get(l4, 0)?, to.ports);
        set(l4, 0, to.ports)?;
        let has_check = rewrite_l4_check(l4, check, protocol, checksum, addresses, ports)?;

        let ttl = [to.ttl, protocol];
        let header = addresses.replace2(get(ip, IP_TTL)?, ttl);
        set(ip, IP_TTL, ttl)?;
        let header_check = header.check(get(ip, IP_CHECK)?);
        set(ip, IP_CHECK, header_check)?;
        set(ip, IP_SOURCE, to.source)?;
        set(ip, IP_DESTINATION, to.destination)?;
        if checksum == Checksum::Complete && has_check {
            // The header's own checksum makes up for the addresses in it, and the transport layer's
            // for the ports and once more for the addresses. `inet_proto_csum_replace4()`.
            // SAFETY: With this state of the checksum, it is there.
            let csum = unsafe { &mut self.headers_mut().__bindgen_anon_1.csum };
            *csum = addresses.complement32(*csum);
        } else if checksum == Checksum::Complete {
            self.forget_checksum();
        }
        self.clear_hash();
        Some(())
    }

    fn rewrite_ipv6(&mut self, to: &Rewrite) -> Result {
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
        self.rewrite_checked_ipv6(to, to.ports(), l4, check, protocol)
            .ok_or(EINVAL)
    }

    /// The part of [`SkBuff::rewrite_ipv6`] that writes, with the transport header at `l4` and its
    /// checksum at `check` in there; `None` is excluded by its checks.
    #[inline]
    fn rewrite_checked_ipv6(
        &mut self,
        to: &Rewrite,
        ports: [u8; 4],
        l4: usize,
        check: usize,
        protocol: u8,
    ) -> Option<()> {
        let checksum = self.checksum();
        let (ip, l4) = self
            .data_writable(l4.checked_add(check)?.checked_add(2)?)?
            .split_at_mut_checked(l4)?;
        let ip: &mut [u8; ipv6::HEADER_LEN] = ip.first_chunk_mut()?;
        let (source, destination) = (to.source.as_bytes(), to.destination.as_bytes());

        let addresses = Delta::default()
            .replace16(&get(ip, ipv6::SOURCE)?, source)
            .replace16(&get(ip, ipv6::DESTINATION)?, destination);
        let changed_ports = Delta::default().replace4(get(l4, 0)?, ports);
        set(l4, 0, ports)?;
        let has_check = rewrite_l4_check(l4, check, protocol, checksum, addresses, changed_ports)?;

        let [old_ttl] = get(ip, ipv6::HOP_LIMIT)?;
        set(ip, ipv6::HOP_LIMIT, [to.ttl])?;
        set(ip, ipv6::SOURCE, *source)?;
        set(ip, ipv6::DESTINATION, *destination)?;
        // The transport layer's checksum makes up for addresses and ports in the sum of the whole
        // packet (`inet_proto_csum_replace16()`). No checksum of the packet's own has the hop limit in
        // it.
        if checksum == Checksum::Complete && !(has_check && old_ttl == to.ttl) {
            self.forget_checksum();
        }
        self.clear_hash();
        Some(())
    }

    /// The first `len` bytes, after [`SkBuff::ensure_writable`] of as many.
    #[inline(always)]
    fn data_writable(&mut self, len: usize) -> Option<&mut [u8]> {
        if len > self.headlen() as usize {
            return None;
        }
        // SAFETY: The bytes are linear, and `ensure_writable` has made them private.
        Some(unsafe { core::slice::from_raw_parts_mut(self.raw().data, len) })
    }
}

/// Changes the checksum in a transport header, at `check`, for other addresses and ports. False if the
/// sender has left it out.
#[inline(always)]
fn rewrite_l4_check(
    l4: &mut [u8],
    check: usize,
    protocol: u8,
    checksum: Checksum,
    addresses: Delta,
    ports: Delta,
) -> Option<bool> {
    let udp = u32::from(protocol) == bindings::IPPROTO_UDP;
    let old: [u8; 2] = get(l4, check)?;
    let new = match checksum {
        // Only the pseudo header is in it, and not in its complement.
        Checksum::Partial => addresses.sum(old),
        _ if udp && old == [0; 2] => return Some(false),
        _ => addresses.and(ports).check(old),
    };
    // Zero means that there is no checksum.
    let none = udp && new == [0; 2];
    set(l4, check, if none { [0xff; 2] } else { new })?;
    Some(true)
}
