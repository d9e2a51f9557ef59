// SPDX-License-Identifier: GPL-2.0

//! Packets sent inside other IP packets, to machines with the kernel's device `ipip` or `ip6tnl`, and
//! taken out of them.
//!
//! C headers: [`include/net/ip_tunnels.h`](srctree/include/net/ip_tunnels.h),
//! [`include/net/inet_ecn.h`](srctree/include/net/inet_ecn.h)

use super::{
    super::{
        skbuff::{
            DropReason,
            SkBuff, //
        },
        Net, //
    },
    route::{
        clear_ipv4_control_block,
        clear_ipv6_control_block,
        Route,
        LINK_HEADROOM, //
    },
};
use crate::{
    bindings,
    wire::{
        addr::Addr,
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

impl Route {
    /// Sends a packet of the route's family, whose data starts at its IP header and whose transport
    /// header is at `l4_offset`, inside an IP packet on this way. Any context but hard interrupts.
    ///
    /// The inner packet goes as it is, without what the link layer may have added behind it. A
    /// batch of segments stays one, and a checksum that is left to the device stays so. The packet
    /// is consumed in any case; errors: `EINVAL` if it is not of the route's family, `ENOMEM`, or
    /// the stack's.
    pub fn send_ipip(self, net: &Net, mut skb: SkBuff, l4_offset: u16) -> Result {
        if let Err(e) = self.push_ipip(net, &mut skb, l4_offset) {
            skb.drop_reason(DropReason::NOMEM);
            return Err(e);
        }
        self.local_out(net, skb)
    }

    fn push_ipip(&self, net: &Net, skb: &mut SkBuff, l4_offset: u16) -> Result {
        let (source, destination) = (self.source(), self.destination());
        push_header(skb, source, destination, l4_offset)?;
        if destination.is_v4() {
            clear_ipv4_control_block(skb);
            // SAFETY: The packet has an IPv4 header.
            unsafe { bindings::ip_select_ident(net.as_raw(), skb.as_raw(), ptr::null_mut()) };
        } else {
            clear_ipv6_control_block(skb);
        }
        Ok(())
    }
}

/// Puts the header in front of a packet, which becomes one of this machine's own.
fn push_header(skb: &mut SkBuff, source: Addr, destination: Addr, l4_offset: u16) -> Result {
    let mut buffer = [0; ipip::MAX_HEADER_LEN];
    let len = skb.len() as usize;
    let header =
        ipip::emit(skb.data(), len, source, destination, &mut buffer).map_err(|_| EINVAL)?;
    // CAST: 20 or 40.
    let header_len = header.len() as u16;
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
    skb.cow_head(header_len + LINK_HEADROOM)?;
    let (gso, protocol) = if destination.is_v4() {
        (bindings::SKB_GSO_IPXIP4, ipip::IPPROTO_IPIP)
    } else {
        (bindings::SKB_GSO_IPXIP6, ipip::IPPROTO_IPV6)
    };
    // CAST: A bit that C has as a number without a sign.
    // SAFETY: The packet is valid, and its headers' places are set.
    to_result(unsafe { bindings::iptunnel_handle_offloads(skb.as_raw(), gso as c_int) })?;
    // SAFETY: By the type invariants of the packet.
    unsafe { bindings::skb_set_inner_ipproto(skb.as_raw(), protocol) };
    skb.push(header_len)?.copy_from_slice(header);
    skb.reset_network_header();
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
        parse::{
            parse,
            Frame, //
        },
        vectors::{
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
            push_header(&mut skb, source, destination, parsed.l4_offset as u16)?;
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
            assert_eq!(push_header(&mut skb, end, end, 20), Err(EINVAL));
            assert_eq!(skb.data(), inner);
            skb.consume();
        }
        Ok(())
    }
}
