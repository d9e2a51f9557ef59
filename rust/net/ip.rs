// SPDX-License-Identifier: GPL-2.0

//! IPv4 and IPv6: routes in both directions, ICMP errors, addresses of this machine.
//!
//! C headers: [`include/net/ip.h`](srctree/include/net/ip.h),
//! [`include/net/route.h`](srctree/include/net/route.h),
//! [`include/net/icmp.h`](srctree/include/net/icmp.h),
//! [`include/net/ipv6.h`](srctree/include/net/ipv6.h),
//! [`include/linux/icmpv6.h`](srctree/include/linux/icmpv6.h)

mod cache;
mod dst;
mod fragment;
mod ipip;
mod next_hop;
mod report;
mod route;

pub use cache::RouteCache;
pub use fragment::{
    defragment,
    longest_fragment,
    permit_fragments,
    Defragment, //
};
pub use ipip::{
    parse_ipip,
    parse_ipip_report,
    take_out_ipip, //
};
pub use next_hop::{
    NextHop,
    NoNextHop, //
};
pub use report::{
    icmp_checksum_is_valid,
    send_icmp_error_about,
    update_pmtu, //
};
pub use route::Route;

use super::{
    netdevice::NetDevice,
    skbuff::{
        DropReason,
        SkBuff, //
    },
    Net, //
};
use crate::{
    bindings,
    wire::{
        addr::Addr,
        ipv6, //
    }, //
};
use core::ptr;
use kernel::{
    prelude::*,
    sync::rcu, //
};

/// Length of an IPv4 header without options.
const HEADER_LEN: u16 = 20;
/// Length of a UDP header.
const UDP_HEADER_LEN: u16 = 8;
/// Ethertypes.
const ETH_P_IP: u16 = bindings::ETH_P_IP as u16;
const ETH_P_IPV6: u16 = bindings::ETH_P_IPV6 as u16;

#[cfg(not(CONFIG_IPV6))]
compile_error!("the kernel needs CONFIG_IPV6");

/// Whether the machine has IPv6: with `ipv6.disable=1` nothing of it may be touched.
pub(super) fn has_ipv6() -> bool {
    // SAFETY: A plain call.
    unsafe { bindings::ipv6_mod_enabled() }
}

/// An IPv6 address as C has it.
#[inline]
pub(super) fn in6_addr(address: &Addr) -> bindings::in6_addr {
    let mut raw = bindings::in6_addr::default();
    raw.in6_u.u6_addr8 = *address.as_bytes();
    raw
}

/// Whether `address` is one of this machine's in `net`.
pub fn is_local_address(net: &Net, address: &Addr) -> bool {
    match address.to_v4() {
        Some(address) => {
            let address = u32::from_ne_bytes(address);
            // SAFETY: The namespace is valid; takes RCU itself.
            let kind = unsafe { bindings::inet_addr_type(net.as_raw(), address) };
            kind == bindings::RTN_LOCAL
        }
        None => {
            if !has_ipv6() {
                return false;
            }
            let address = in6_addr(address);
            // SAFETY: The namespace is valid and has IPv6; takes RCU itself. Any device.
            unsafe { bindings::ipv6_chk_addr(net.as_raw(), &address, ptr::null(), 0) != 0 }
        }
    }
}

/// Whether the packet's data starts with an IPv6 header; it is IPv4 otherwise, or none of both.
#[inline]
fn is_ipv6(skb: &SkBuff) -> bool {
    skb.data().first().is_some_and(|first| first >> 4 == 6)
}

/// Makes the network header of a packet start at its data, and checks that an IPv6 header fits.
/// Errors: `EINVAL`.
fn ipv6_header(skb: &mut SkBuff) -> Result {
    skb.may_pull(ipv6::HEADER_LEN as u32)?;
    skb.reset_network_header();
    if is_ipv6(skb) {
        Ok(())
    } else {
        Err(EINVAL)
    }
}

/// Whether `address` can be that of another machine, as `net` sees it: not one of this machine's,
/// nor a broadcast or multicast address.
pub fn is_elsewhere(net: &Net, address: &Addr) -> bool {
    match address.to_v4() {
        Some(octets) => {
            // SAFETY: The namespace is valid; takes RCU itself.
            let kind =
                unsafe { bindings::inet_addr_type(net.as_raw(), u32::from_ne_bytes(octets)) };
            kind == bindings::RTN_UNICAST
        }
        None => has_ipv6() && address.is_unicast() && !is_local_address(net, address),
    }
}

/// Makes the network header of a packet start at its data, and checks that an IPv4 header without
/// options fits. Errors: `EINVAL`.
fn ipv4_header(skb: &mut SkBuff) -> Result<&bindings::iphdr> {
    skb.may_pull(u32::from(HEADER_LEN))?;
    skb.reset_network_header();
    if skb.data().first().ok_or(EINVAL)? >> 4 != 4 {
        return Err(EINVAL);
    }
    let header = skb.data().as_ptr().cast::<bindings::iphdr>();
    // SAFETY: The linear part has so many bytes, all values of which are valid. The kernel aligns
    // network headers to four bytes wherever the machine needs that.
    Ok(unsafe { &*header })
}

/// Looks up the route of an arriving IPv4 packet, whose data starts at the IP header, as if it had
/// come in by `dev`, and sets it on the packet in place of the one it had.
///
/// There is no such thing for IPv6, because nothing of its routing judges the source.
///
/// `dev` decides about the source's validity (`rp_filter`). The route is counted, so the packet may
/// go on to another device, or wait. Error: why such a packet must be dropped.
pub fn route_input(
    skb: &mut SkBuff,
    dev: &NetDevice,
    _guard: &rcu::Guard,
) -> Result<(), DropReason> {
    let header = ipv4_header(skb).map_err(|_| DropReason::IP_INHDR)?;
    // SAFETY: It is a valid header; the addresses are fields of unions of the same layout.
    let (source, destination, dscp) = unsafe {
        let addresses = &header.__bindgen_anon_1.__bindgen_anon_1;
        (
            addresses.saddr,
            addresses.daddr,
            bindings::ip4h_dscp(header),
        )
    };
    skb.drop_dst();
    // SAFETY: The packet has an IP header and no route; the device is kept; under RCU.
    let reason = unsafe {
        bindings::ip_route_input_noref(skb.as_raw(), destination, source, dscp, dev.as_raw())
    };
    if let Some(reason) = DropReason::from_raw(reason) {
        return Err(reason);
    }
    if !skb.has_dst() || !skb.force_dst() {
        return Err(DropReason::IP_INADDRERRORS);
    }
    Ok(())
}

/// Whether the packet's route leads to this machine itself.
pub fn is_routed_here(skb: &SkBuff, _guard: &rcu::Guard) -> bool {
    if !skb.has_dst() || skb.protocol() != ETH_P_IP {
        return false;
    }
    // SAFETY: The packet has a route, of IPv4 as the packet, which RCU keeps.
    unsafe { (*bindings::skb_rtable(skb.as_raw())).rt_type == bindings::RTN_LOCAL as u16 }
}

/// What an ICMP error tells a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// The time to live ran out.
    TtlExceeded,
    /// The packet must not be fragmented and is longer than this.
    TooBig {
        /// Longest packet that would pass, in bytes.
        mtu: u32,
    },
    /// The host cannot be reached.
    HostUnreachable,
    /// Nobody is there at this port.
    PortUnreachable,
    /// A rule forbids it.
    Prohibited,
}

/// Tells the sender of a packet, which arrived by `dev` and whose data starts at the IP header, why
/// it was not passed on. Subject to the kernel's rate limits.
///
/// An IPv4 packet gets the route it arrived by, if it has none. An IPv6 packet is in a hook, behind
/// what `ip6_rcv()` notes in it. Nothing is sent where no error may be (about ICMP errors,
/// broadcasts, later fragments, …).
pub fn send_icmp_error(skb: &mut SkBuff, dev: &NetDevice, error: IcmpError, guard: &rcu::Guard) {
    if is_ipv6(skb) {
        return send_icmpv6_error(skb, dev, error);
    }
    if !skb.has_dst() && route_input(skb, dev, guard).is_err() {
        return;
    }
    if ipv4_header(skb).is_err() {
        return;
    }
    let (kind, code, info) = match error {
        IcmpError::TtlExceeded => (bindings::ICMP_TIME_EXCEEDED, bindings::ICMP_EXC_TTL, 0),
        IcmpError::TooBig { mtu } => (
            bindings::ICMP_DEST_UNREACH,
            bindings::ICMP_FRAG_NEEDED,
            mtu.min(u32::from(u16::MAX)),
        ),
        IcmpError::HostUnreachable => (bindings::ICMP_DEST_UNREACH, bindings::ICMP_HOST_UNREACH, 0),
        IcmpError::PortUnreachable => (bindings::ICMP_DEST_UNREACH, bindings::ICMP_PORT_UNREACH, 0),
        IcmpError::Prohibited => (bindings::ICMP_DEST_UNREACH, bindings::ICMP_PKT_FILTERED, 0),
    };
    skb.set_dev_raw(dev.as_raw());
    route::clear_ipv4_control_block(skb);
    // SAFETY: The packet has a route, an IP header, and a device that is kept for the call.
    unsafe {
        bindings::icmp_send(skb.as_raw(), kind as c_int, code as c_int, info.to_be());
    }
}

fn send_icmpv6_error(skb: &mut SkBuff, dev: &NetDevice, error: IcmpError) {
    if ipv6_header(skb).is_err() {
        return;
    }
    let unreachable = bindings::ICMPV6_DEST_UNREACH;
    let (kind, code, info) = match error {
        IcmpError::TtlExceeded => (
            bindings::ICMPV6_TIME_EXCEED,
            bindings::ICMPV6_EXC_HOPLIMIT,
            0,
        ),
        IcmpError::TooBig { mtu } => (bindings::ICMPV6_PKT_TOOBIG, 0, mtu),
        IcmpError::HostUnreachable => (unreachable, bindings::ICMPV6_ADDR_UNREACH, 0),
        IcmpError::PortUnreachable => (unreachable, bindings::ICMPV6_PORT_UNREACH, 0),
        IcmpError::Prohibited => (unreachable, bindings::ICMPV6_ADM_PROHIBITED, 0),
    };
    skb.set_dev_raw(dev.as_raw());
    // CAST: Numbers of one byte.
    // SAFETY: The packet has an IPv6 header, and a device that is kept for the call.
    unsafe { bindings::icmpv6_send(skb.as_raw(), kind as u8, code as u8, info) };
}

/// Whether the UDP checksum of an arrived packet, whose data starts at the IP header and whose UDP
/// header is at `l4_offset`, is right. So is a missing one with IPv4.
pub fn udp_checksum_is_valid(skb: &mut SkBuff, l4_offset: u16) -> bool {
    let start = u32::from(l4_offset);
    let pulled = skb.may_pull(start.saturating_add(u32::from(UDP_HEADER_LEN)));
    if pulled.is_err() {
        return false;
    }
    let check = usize::from(l4_offset).saturating_add(6);
    if skb.data().get(check..check.saturating_add(2)) == Some(&[0, 0]) {
        return !is_ipv6(skb);
    }
    transport_checksum_is_valid(skb, start, bindings::IPPROTO_UDP)
}

/// Whether the TCP checksum of an arrived packet, whose data starts at the IP header and whose TCP
/// header is at `l4_offset`, is right.
pub fn tcp_checksum_is_valid(skb: &mut SkBuff, l4_offset: u16) -> bool {
    transport_checksum_is_valid(skb, l4_offset.into(), bindings::IPPROTO_TCP)
}

/// Whether the checksum of an arrived packet, whose data starts at the IP header and whose
/// transport header of this protocol is at `start`, is right.
fn transport_checksum_is_valid(skb: &mut SkBuff, start: u32, protocol: u32) -> bool {
    let family = if is_ipv6(skb) {
        ipv6_header(skb).map(|()| bindings::NFPROTO_IPV6)
    } else {
        match ipv4_header(skb) {
            Ok(header) if u32::from(header.ihl()) * 4 == start => Ok(bindings::NFPROTO_IPV4),
            _ => Err(EINVAL),
        }
    };
    let Ok(family) = family else {
        return false;
    };
    // SAFETY: The packet has the headers, and starts at the network header.
    unsafe {
        bindings::nf_checksum(
            skb.as_raw(),
            bindings::nf_inet_hooks_NF_INET_PRE_ROUTING,
            start,
            protocol as u8,
            family as u16,
        ) == 0
    }
}
