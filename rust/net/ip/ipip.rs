// SPDX-License-Identifier: GPL-2.0

//! Packets sent inside other IP packets, to machines with the kernel's device `ipip`, `ip6tnl`, `gre` or
//! `ip6gre`, or its receiver of GUE (`ip fou`), and taken out of those that have nothing between the two
//! headers.
//!
//! C headers: [`include/net/gre.h`](srctree/include/net/gre.h),
//! [`include/net/udp.h`](srctree/include/net/udp.h), [`include/net/ip_tunnels.h`](srctree/include/net/ip_tunnels.h),
//! [`include/net/inet_ecn.h`](srctree/include/net/inet_ecn.h)

use super::{
    super::{
        skbuff::{
            DropReason,
            SkBuff, //
        },
        Net, //
    },
    in6_addr,
    route::{
        clear_ipv4_control_block,
        clear_ipv6_control_block,
        Route,
        LINK_HEADROOM, //
    },
    ETH_P_IP,
    ETH_P_IPV6, //
};
use crate::{
    bindings,
    wire::{
        addr::Addr,
        carrier::{
            Carrier,
            MAX_HEADER_LEN, //
        },
        error,
        ipip::{
            self,
            Outer, //
        },
        ipv4,
        ipv6,
        parse::MAX_EXTENDED_LEN,
        report::{
            self,
            Report, //
        }, //
    }, //
};
use core::ptr;
use kernel::{
    error::to_result,
    prelude::*, //
};

/// Source ports of datagrams with packets inside: where no flow id of the tunnel has one
/// ([`FlowId::SOURCE_MIN`](crate::wire::flow_id::FlowId::SOURCE_MIN)).
const SOURCE_PORTS: (u16, u16) = (32768, 60999);

impl Route {
    /// Sends a packet of the route's family, whose data starts at its IP header and whose transport
    /// header is at `l4_offset`, inside an IP packet on this way. Any context but hard interrupts.
    ///
    /// The inner packet goes as it is, without what the link layer may have added behind it. A
    /// batch of segments stays one, and a checksum that is left to the device stays so. Datagrams of
    /// one connection have one source port, by which machines on the way and the host's queues tell
    /// connections apart. The packet is consumed in any case; errors: `EINVAL` if it is not of the
    /// route's family, `ENOMEM`, or the stack's.
    pub fn send_inside(
        self,
        net: &Net,
        mut skb: SkBuff,
        l4_offset: u16,
        carrier: Carrier,
    ) -> Result {
        if let Err(e) = self.push_carrier(net, &mut skb, l4_offset, carrier) {
            skb.drop_reason(DropReason::NOMEM);
            return Err(e);
        }
        self.local_out(net, skb)
    }

    fn push_carrier(
        &self,
        net: &Net,
        skb: &mut SkBuff,
        l4_offset: u16,
        carrier: Carrier,
    ) -> Result {
        let ends = (self.source(), self.destination());
        let port = match carrier {
            Carrier::Gue { .. } => {
                let (min, max) = (c_int::from(SOURCE_PORTS.0), c_int::from(SOURCE_PORTS.1));
                skb.reset_network_header();
                // SAFETY: The namespace is valid, and the packet, with its network header's place, too.
                let port = unsafe {
                    bindings::udp_flow_src_port(net.as_raw(), skb.as_raw(), min, max, false)
                };
                u16::from_be(port)
            }
            Carrier::Ipip | Carrier::Gre { .. } => 0,
        };
        push_headers(skb, ends, l4_offset, carrier, port)?;
        if ends.1.is_v4() {
            clear_ipv4_control_block(skb);
            // SAFETY: The packet has an IPv4 header.
            unsafe { bindings::ip_select_ident(net.as_raw(), skb.as_raw(), ptr::null_mut()) };
        } else {
            clear_ipv6_control_block(skb);
        }
        Ok(())
    }
}

/// Puts what carries it in front of a packet, which becomes one of this machine's own. Of a batch, and
/// where the device does so, checksums are filled later.
fn push_headers(
    skb: &mut SkBuff,
    ends: (Addr, Addr),
    l4_offset: u16,
    carrier: Carrier,
    source_port: u16,
) -> Result {
    let mut buffer = [0; MAX_HEADER_LEN];
    let len = skb.len() as usize;
    let header = carrier
        .emit(skb.data(), len, ends, source_port, &mut buffer)
        .map_err(|_| EINVAL)?;
    let is_v4 = ends.1.is_v4();
    let (ip, behind) = header
        .split_at_checked(ipip::overhead(is_v4))
        .ok_or(EINVAL)?;
    // The places of the inner headers, which the offload is told about.
    skb.reset_network_header();
    skb.set_transport_header(l4_offset);
    let may_be_fragmented = skb.ignores_df();
    skb.scrub();
    if may_be_fragmented {
        skb.ignore_df();
    }
    skb.orphan();
    skb.clear_hash();
    skb.clear_tstamp();
    // CAST: Headers are short.
    skb.cow_head(header.len() as u16 + LINK_HEADROOM)?;
    let offload = offload_of(carrier, is_v4);
    // SAFETY: The packet is valid, and its headers' places are set.
    to_result(unsafe { bindings::iptunnel_handle_offloads(skb.as_raw(), offload) })?;
    let inside = if is_v4 {
        ipip::IPPROTO_IPIP
    } else {
        ipip::IPPROTO_IPV6
    };
    // SAFETY: By the type invariants of the packet.
    unsafe { bindings::skb_set_inner_ipproto(skb.as_raw(), inside) };
    // Between the two is no link layer.
    skb.set_inner_mac_header();
    push_behind(skb, ends, carrier, behind)?;
    // CAST: 20 or 40.
    skb.push(ip.len() as u16)?.copy_from_slice(ip);
    skb.reset_network_header();
    Ok(())
}

/// How a batch inside of this carrier is cut into segments.
fn offload_of(carrier: Carrier, is_v4: bool) -> c_int {
    let inner = if is_v4 {
        bindings::SKB_GSO_IPXIP4
    } else {
        bindings::SKB_GSO_IPXIP6
    };
    match carrier {
        Carrier::Ipip => inner,
        Carrier::Gre { checksum: false } => bindings::SKB_GSO_GRE,
        Carrier::Gre { checksum: true } => bindings::SKB_GSO_GRE_CSUM,
        Carrier::Gue {
            checksum: false, ..
        } => inner | bindings::SKB_GSO_UDP_TUNNEL,
        Carrier::Gue { checksum: true, .. } => inner | bindings::SKB_GSO_UDP_TUNNEL_CSUM,
    }
}

/// Puts what is behind the outer IP header in front of a packet, with its checksum, if it has one.
fn push_behind(
    skb: &mut SkBuff,
    (source, destination): (Addr, Addr),
    carrier: Carrier,
    header: &[u8],
) -> Result {
    match carrier {
        Carrier::Ipip => return Ok(()),
        Carrier::Gre { checksum } => {
            let ethertype = if destination.is_v4() {
                ETH_P_IP
            } else {
                ETH_P_IPV6
            };
            // SAFETY: The packet is valid, and there is room in front of it.
            unsafe { bindings::gre_build_header(skb.as_raw(), checksum, ethertype.to_be()) };
            return Ok(());
        }
        Carrier::Gue { .. } => {}
    }
    // CAST: Headers are short.
    skb.push(header.len() as u16)?.copy_from_slice(header);
    skb.set_transport_header(0);
    let nocheck = !matches!(carrier, Carrier::Gue { checksum: true, .. });
    // CAST: As C has the length of a packet.
    let len = skb.len() as c_int;
    match (source.to_v4(), destination.to_v4()) {
        (Some(source), Some(destination)) => {
            let (from, to) = (u32::from_ne_bytes(source), u32::from_ne_bytes(destination));
            // SAFETY: The packet has a UDP header, whose place is set.
            unsafe { bindings::udp_set_csum(nocheck, skb.as_raw(), from, to, len) };
        }
        _ => {
            let (from, to) = (in6_addr(&source), in6_addr(&destination));
            // SAFETY: As above; the addresses are only read.
            unsafe { bindings::udp6_set_csum(nocheck, skb.as_raw(), &from, &to, len) };
        }
    }
    Ok(())
}

/// Reads the headers of a packet whose data starts at its IP header, and of the one inside it, and
/// makes them linear. Errors as [`ipip::parse`].
pub fn parse_ipip(skb: &mut SkBuff) -> Result<Outer, error::DropReason> {
    let len = skb.len().min(2 * MAX_EXTENDED_LEN as u32);
    skb.may_pull(len).map_err(|_| error::DropReason::NoSpace)?;
    ipip::parse(skb.data(), skb.frame())
}

/// As [`parse_ipip`], with an ICMP error inside. Errors as [`ipip::parse_report`].
pub fn parse_ipip_report(skb: &mut SkBuff) -> Result<Outer<Report>, error::DropReason> {
    let len = skb.len().min((MAX_EXTENDED_LEN + report::MAX_LEN) as u32);
    skb.may_pull(len).map_err(|_| error::DropReason::NoSpace)?;
    ipip::parse_report(skb.data(), skb.frame())
}

/// Takes the packet out that is inside this one, as [`parse_ipip`] or [`parse_ipip_report`] has found
/// it, with `l4_offset` bytes of network headers.
///
/// A congestion mark of the outer header becomes one of the inner header (RFC 6040 section 4.2).
/// `ENOMEM`; `EINVAL` if the outer header has such a mark and the inner one says that the connection
/// does not know it, so that the packet has to be dropped.
pub fn take_out_ipip<T>(skb: &mut SkBuff, outer: &Outer<T>, l4_offset: usize) -> Result {
    // CAST: What is linear is not longer.
    let offset = outer.offset as u16;
    if !skb.is_gso() {
        // CAST: As long as a packet.
        skb.trim(outer.total_len as u32)?;
    }
    // CAST: As above.
    let headers = offset.saturating_add(l4_offset as u16);
    skb.ensure_writable(headers).map_err(|_| ENOMEM)?;
    let marks = traffic_class(skb.data());
    skb.pull_rcsum(offset).map_err(|_| ENOMEM)?;
    skb.reset_network_header();
    skb.clear_hash();
    // SAFETY: By the type invariants of the packet.
    to_result(unsafe { bindings::iptunnel_pull_offloads(skb.as_raw()) })?;
    let inner = traffic_class(skb.data());
    // SAFETY: By the type invariants of the packet, whose network header is set and writable.
    match unsafe { bindings::INET_ECN_decapsulate(skb.as_raw(), marks, inner) } {
        0 | 1 => Ok(()),
        _ => Err(EINVAL),
    }
}

/// The traffic class of a packet, with its congestion mark.
fn traffic_class(header: &[u8]) -> u8 {
    let v4 = ipv4::Packet::new_header(header).map(|ip| ip.tos());
    let v6 = || ipv6::Packet::new_header(header).map(|ip| ip.traffic_class());
    v4.or_else(|_| v6()).unwrap_or(0)
}

#[kunit_tests(nlb_core_ipip)]
mod tests {
    use super::*;
    use crate::wire::{
        checksum,
        parse::{
            addresses,
            parse,
            Frame, //
        },
        vectors::{
            errors,
            forward::{
                FORWARDED,
                FORWARDED_V6, //
            },
            FORWARDER,
            FORWARDER_V6,
            HOST,
            HOST_V6, //
        }, //
    };

    #[test]
    fn exact_bytes() -> Result {
        let families = [
            (FORWARDED, FORWARDER, HOST),
            (FORWARDED_V6, FORWARDER_V6, HOST_V6),
        ];
        for (vector, source, destination) in families
            .iter()
            .flat_map(|(vectors, from, to)| vectors.iter().map(|vector| (vector, *from, *to)))
        {
            let inner = vector.direct;
            let parsed = parse(inner, Frame::complete(inner.len())).map_err(|_| EINVAL)?;
            // Without room in front.
            let mut skb = SkBuff::alloc(0, inner.len() as u16, GFP_KERNEL)?;
            skb.put(inner)?;
            let clone = skb.try_clone(GFP_KERNEL)?;
            push_headers(
                &mut skb,
                (source, destination),
                parsed.l4_offset as u16,
                Carrier::Ipip,
                0,
            )?;
            assert_eq!(skb.data(), vector.ipip);
            assert_eq!(clone.data(), inner);
            clone.consume();
            // And out again.
            skb.set_protocol(if source.is_v4() { 0x0800 } else { 0x86dd });
            let clone = skb.try_clone(GFP_KERNEL)?;
            let outer = parse_ipip(&mut skb).map_err(|_| EINVAL)?;
            take_out_ipip(&mut skb, &outer, outer.parsed.l4_offset)?;
            assert_eq!(skb.data(), inner);
            assert_eq!(clone.data(), vector.ipip);
            clone.consume();
            skb.consume();
        }
        Ok(())
    }

    /// GRE and GUE, where the inner checksum is there already, and where it is left to the device.
    #[test]
    fn exact_bytes_of_carriers() {
        for partial in [false, true] {
            let done = errors::check_carried_whole(|carrier, inner, ends, whole| {
                let parsed = parse(inner, Frame::complete(inner.len())).ok()?;
                let mut skb = SkBuff::alloc(0, inner.len() as u16, GFP_KERNEL).ok()?;
                skb.put(inner).ok()?;
                let offset = parsed.checksum.offset().filter(|_| partial);
                if let Some(offset) = offset {
                    leave_checksum(&mut skb, parsed.l4_offset, offset)?;
                }
                let clone = skb.try_clone(GFP_KERNEL).ok()?;
                let before = clone.data().first()? >> 4;
                let l4_offset = parsed.l4_offset as u16;
                push_headers(&mut skb, ends, l4_offset, carrier, errors::GUE_SOURCE).ok()?;
                // As where the device can do nothing.
                skb.checksum_help().ok()?;
                let is_same = skb.data() == whole && clone.data().first()? >> 4 == before;
                clone.consume();
                skb.consume();
                Some(is_same)
            });
            assert!(done.is_ok_and(|done| done >= 80));
        }
    }

    /// Leaves the checksum at this offset, of a packet with the transport header at `l4_offset`, to the
    /// device.
    fn leave_checksum(skb: &mut SkBuff, l4_offset: usize, offset: usize) -> Option<()> {
        let len = skb.len().checked_sub(l4_offset as u32)?;
        let (source, destination) = addresses(skb.data())?;
        let packet = skb.data_mut(skb.len() as u16).ok()?;
        let protocol = match offset.checked_sub(l4_offset)? {
            6 => 17,
            _ => 6,
        };
        let pseudo = checksum::fold(checksum::pseudo_header(source, destination, protocol, len));
        packet
            .get_mut(offset..)?
            .first_chunk_mut::<2>()?
            .copy_from_slice(&pseudo.to_be_bytes());
        skb.leave_checksum(l4_offset as u16, offset.checked_sub(l4_offset)? as u16);
        Some(())
    }

    #[test]
    fn congestion_marks_come_out() -> Result {
        // Which mark the inner header has, and what it has then; CE does not pass to a connection
        // that knows nothing of it.
        for (inner, after) in [(0, None), (1, Some(3)), (2, Some(3)), (3, Some(3))] {
            let packet = FORWARDED[0].ipip;
            let mut skb = SkBuff::alloc(0, packet.len() as u16, GFP_KERNEL)?;
            skb.put(packet)?;
            skb.set_protocol(0x0800);
            let bytes = skb.data_mut(packet.len() as u16)?;
            for (at, mark) in [(1, 3), (21, inner)] {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = *byte & !3 | mark;
                }
            }
            let outer = parse_ipip(&mut skb).map_err(|_| EINVAL)?;
            let taken = take_out_ipip(&mut skb, &outer, outer.parsed.l4_offset);
            assert_eq!(taken.is_ok(), after.is_some());
            assert_eq!(traffic_class(skb.data()) & 3, after.unwrap_or(inner));
            skb.consume();
        }
        Ok(())
    }

    #[test]
    fn families_do_not_mix() -> Result {
        for (vector, end) in [(&FORWARDED[0], HOST_V6), (&FORWARDED_V6[0], HOST)] {
            let inner = vector.direct;
            let mut skb = SkBuff::alloc(64, inner.len() as u16, GFP_KERNEL)?;
            skb.put(inner)?;
            let pushed = push_headers(&mut skb, (end, end), 20, Carrier::Ipip, 0);
            assert_eq!(pushed, Err(EINVAL));
            assert_eq!(skb.data(), inner);
            skb.consume();
        }
        Ok(())
    }
}
