// SPDX-License-Identifier: GPL-2.0

//! IP in IP, on the host: packets of connections that have no flow id, be it that the forwarder
//! remembers nothing of them, or sends them this way anyhow.
//!
//! No mapping is made. What is not for a VIP on an nlb device, or no packet with ports, is left to
//! the kernel's devices `ipip` and `ip6tnl`.

use crate::{
    device,
    mapping::host::vip_device,
    state::STATE,
    stats::Counter, //
};
use kernel::prelude::*;
use nlb::net::{
    ip,
    netfilter::{
        HookState,
        Verdict, //
    },
    skbuff::{
        DropReason,
        SkBuff, //
    },
};

/// Takes a packet, whose data starts at its IP header, that a forwarder has put inside another one,
/// or gives it back.
#[cold]
pub(crate) fn receive(state: &HookState<'_>, mut skb: SkBuff) -> Result<Verdict, SkBuff> {
    let is_from_wire = state.in_dev().is_some_and(|dev| !device::is_nlb(dev));
    let Some(tunnel) = STATE.get(state.net(), state.rcu()) else {
        return Err(skb);
    };
    if !is_from_wire || !skb.is_for_host() || tunnel.forwarders.is_empty() {
        return Err(skb);
    }
    let Ok(outer) = ip::parse_ipip(&mut skb) else {
        return Err(skb);
    };
    let tuple = outer.parsed.tuple;
    let Some(forwarder) = tunnel.forwarder(outer.source) else {
        return Err(skb);
    };
    if !ip::is_local_address(state.net(), &outer.destination)
        || !tuple.client().is_unicast()
        || vip_device(state.net(), &tuple.vip(), state.rcu()).is_none()
    {
        return Err(skb);
    }
    match ip::take_out_ipip(&mut skb, &outer) {
        Ok(()) => {}
        Err(EINVAL) => return Ok(tunnel.drop(skb, Counter::DropCongestion, DropReason::IP_INHDR)),
        Err(_) => return Ok(tunnel.drop(skb, Counter::DropNoMemory, DropReason::NOMEM)),
    }
    forwarder.count(outer.parsed.total_len);
    tunnel.stats.inc(Counter::DecapIpip);
    tunnel.stats.inc(Counter::DecapPackets);
    let bytes = outer.parsed.total_len as u64;
    tunnel.stats.add(Counter::DecapBytes, bytes);
    Ok(tunnel.receive_client(state, skb, &tuple))
}
