// SPDX-License-Identifier: GPL-2.0

//! Connections whose addresses or ports connection tracking translates.
//!
//! Asked through `nf_ct_hook`, which is part of the kernel proper and empty without connection
//! tracking: no module is needed for it. The answer is for IPv4 and the default zone; it knows
//! nothing of IPv6, where it only can be seen whether there is any translation in the namespace.

use core::ptr;

use kernel::sync::rcu;

use crate::{
    bindings,
    net::{
        netfilter::HookNum,
        Net, //
    }, //
};

use super::{
    refusal::Refusal,
    sock,
    sock::{
        Addrs,
        Tuple, //
    }, //
};

/// Length of an IPv4 header without options, and of the ports behind it.
const IP_LEN: usize = 20;
const PORTS_LEN: usize = 4;

/// Whether connection tracking knows the connection of `sk` by other addresses than its socket.
///
/// The client sends to (or from) an address that the packets on this machine do not show: no host
/// could take them, and the answers would not be recognised.
///
/// # Errors
///
/// [`Refusal::NoMemory`]: it could not be asked. [`Refusal::Ipv6Nat`].
///
/// # Safety
///
/// `sk` is a valid full TCP socket in a connected state, of user space. The caller may sleep.
pub(super) unsafe fn is_translated(sk: *mut bindings::sock) -> Result<bool, Refusal> {
    // SAFETY: No preconditions.
    if !unsafe { bindings::nf_ct_is_loaded() } {
        return Ok(false);
    }
    // SAFETY: By the function's requirements; a socket of user space keeps its namespace.
    let (tuple, net) = unsafe { (sock::tuple(sk), Net::from_raw(bindings::sock_net(sk))) };
    let Some(ours) = Tuple::new(&tuple) else {
        return Ok(false);
    };
    let Addrs::V4 { client, vip } = ours.addrs else {
        return if translates_ipv6(net) {
            Err(Refusal::Ipv6Nat)
        } else {
            Ok(false)
        };
    };
    // What the socket sends looks like this, whichever side of the connection is translated.
    // SAFETY: No preconditions; the caller may sleep.
    let skb = unsafe { bindings::alloc_skb((IP_LEN + PORTS_LEN) as u32, bindings::GFP_KERNEL) };
    if skb.is_null() {
        return Err(Refusal::NoMemory);
    }
    let mut other = bindings::nf_conntrack_tuple::default();
    // SAFETY: The buffer is new, ours, and has room for what is put, suitably aligned as all
    // allocations are and cleared before it is used. `loopback_dev` lives as long as its namespace;
    // the buffer borrows it only to name the namespace. All members of the tuple's unions are plain
    // data.
    let known = unsafe {
        let data = bindings::skb_put(skb, (IP_LEN + PORTS_LEN) as u32).cast::<u8>();
        ptr::write_bytes(data, 0, IP_LEN + PORTS_LEN);
        bindings::skb_reset_network_header(skb);
        let iph = data.cast::<bindings::iphdr>();
        bindings::iphdr::set_version_raw(iph, 4);
        bindings::iphdr::set_ihl_raw(iph, (IP_LEN / 4) as u8);
        (*iph).protocol = bindings::IPPROTO_TCP as u8;
        (*iph).__bindgen_anon_1.__bindgen_anon_1.saddr = vip;
        (*iph).__bindgen_anon_1.__bindgen_anon_1.daddr = client;
        let ports = data.add(IP_LEN).cast::<[u16; 2]>();
        *ports = [ours.vip_port.to_be(), ours.client_port_be];
        let meta = &raw mut (*skb).__bindgen_anon_1.__bindgen_anon_1;
        (*meta).__bindgen_anon_1.dev = (*net.as_raw()).loopback_dev;
        // The tuple of the other direction: what the client's packets look like on the wire.
        let known = bindings::nf_ct_get_tuple_skb(&mut other, skb);
        (*meta).__bindgen_anon_1.dev = ptr::null_mut();
        sock::free_skb_list(skb);
        known
    };
    // SAFETY: All members of the unions are plain data.
    let same = unsafe {
        other.src.u3.ip == client
            && other.src.u.all == ours.client_port_be
            && other.dst.u3.ip == vip
            && other.dst.u.all == ours.vip_port.to_be()
    };
    Ok(known && !same)
}

/// Whether addresses or ports of IPv6 packets are translated in `net`: the hook of nf_nat is there as
/// long as a chain of nftables or ip6tables does so.
///
/// What makes the hook known is its place. Chains of nftables at the same place are marked as such.
fn translates_ipv6(net: &Net) -> bool {
    net.any_hook(false, HookNum::PreRouting, &rcu::read_lock(), |ops| {
        ops.priority == bindings::nf_ip6_hook_priorities_NF_IP6_PRI_NAT_DST
            && ops.hook_ops_type() == bindings::nf_hook_ops_type_NF_HOOK_OP_UNDEFINED
    })
}
