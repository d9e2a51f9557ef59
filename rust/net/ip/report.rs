// SPDX-License-Identifier: GPL-2.0

//! What is done about an ICMP error that arrived: its checksum, the path MTU it tells of, and
//! telling somebody else.
//!
//! C headers: [`include/net/route.h`](srctree/include/net/route.h),
//! [`include/net/ip6_route.h`](srctree/include/net/ip6_route.h)

use super::{
    super::{
        netdevice::NetDevice,
        skbuff::SkBuff,
        Net, //
    },
    has_ipv6,
    ipv4_header,
    ipv6_header,
    is_ipv6,
    route::Route,
    send_icmp_error,
    transport_checksum_is_valid,
    IcmpError, //
};
use crate::{
    bindings,
    wire::{
        addr::Addr,
        ipv6, //
    }, //
};
use kernel::{
    prelude::*,
    sync::rcu, //
};

/// Whether the checksum of an arrived ICMP or ICMPv6 message is right. The packet's data starts at
/// its IP header, and the message at `offset`.
pub fn icmp_checksum_is_valid(skb: &mut SkBuff, offset: u16) -> bool {
    let protocol = if is_ipv6(skb) {
        bindings::IPPROTO_ICMPV6
    } else {
        bindings::IPPROTO_ICMP
    };
    transport_checksum_is_valid(skb, u32::from(offset), protocol)
}

/// Notes that a packet of this machine's own, whose IP header starts at the data of `skb`, met a
/// link that takes no more than `mtu` bytes. Any context but hard interrupts.
///
/// As for an ICMP error about a socket's packet: the kernel remembers it for the packet's
/// destination (`net.ipv4.route.mtu_expires`), no MTU below `net.ipv4.route.min_pmtu` or 1280 bytes,
/// and only if it is less than what it knew. Errors: `EINVAL` if there is no IP header.
pub fn update_pmtu(net: &Net, skb: &mut SkBuff, mtu: u32) -> Result {
    if is_ipv6(skb) {
        skb.may_pull(ipv6::HEADER_LEN as u32)?;
        if has_ipv6() {
            // SAFETY: The packet has an IPv6 header at its data; the namespace is valid and has
            // IPv6. Any device, no mark, and the user is the superuser.
            unsafe {
                bindings::ip6_update_pmtu(
                    skb.as_raw(),
                    net.as_raw(),
                    mtu.to_be(),
                    0,
                    0,
                    bindings::kuid_t { val: 0 },
                )
            };
        }
        return Ok(());
    }
    let protocol = ipv4_header(skb)?.protocol;
    // SAFETY: The packet has an IPv4 header at its data; the namespace is valid. Any device.
    unsafe { bindings::ipv4_update_pmtu(skb.as_raw(), net.as_raw(), mtu, 0, protocol) };
    Ok(())
}

/// As [`send_icmp_error`], about a packet that did not arrive as it is: one that an ICMP error
/// quoted, which came in by `dev`. Its data starts at the IP header, and may be cut.
///
/// Nothing is sent if there is no route to the sender.
pub fn send_icmp_error_about(
    net: &Net,
    skb: &mut SkBuff,
    dev: &NetDevice,
    error: IcmpError,
    guard: &rcu::Guard,
) {
    skb.drop_dst();
    if is_ipv6(skb) {
        if ipv6_header(skb).is_err() {
            return;
        }
    } else {
        // The stack wants a route, and this packet came by none: it gets the one of the error.
        let Ok(header) = ipv4_header(skb) else {
            return;
        };
        // SAFETY: The addresses are fields of unions of the same layout.
        let sender = unsafe { header.__bindgen_anon_1.__bindgen_anon_1.saddr };
        let Ok(route) = Route::lookup(net, None, Addr::v4(sender.to_ne_bytes())) else {
            return;
        };
        route.attach(skb);
    }
    send_icmp_error(skb, dev, error, guard);
}
