// SPDX-License-Identifier: GPL-2.0

//! IP in IP, on the host: packets of connections that have no flow id, be it that the forwarder
//! remembers nothing of them, or sends them this way anyhow.
//!
//! No mapping is made. What is not for a VIP on an nlb device, or neither a packet with ports nor an
//! ICMP error about one that the VIP has sent, is left to the kernel's devices `ipip` and `ip6tnl`.

use crate::{
    device,
    mapping::host::vip_device,
    state::{
        Tunnel,
        STATE, //
    },
    stats::Counter, //
};
use kernel::prelude::*;
use nlb::{
    net::{
        ip,
        netfilter::{
            HookState,
            Verdict, //
        },
        skbuff::{
            DropReason,
            SkBuff, //
        },
    },
    wire::{
        addr::FourTuple,
        error,
        ipip::Outer, //
    }, //
};

/// The packet inside another one: its connection, the bytes of its network headers, and its length.
struct Inner {
    tuple: FourTuple,
    l4_offset: usize,
    total_len: usize,
}

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
    match ip::parse_ipip(&mut skb) {
        Ok(outer) => {
            let inner = Inner {
                tuple: outer.parsed.tuple,
                l4_offset: outer.parsed.l4_offset,
                total_len: outer.parsed.total_len,
            };
            tunnel.take_out(state, skb, &outer, &inner)
        }
        Err(error::DropReason::Protocol) => receive_report(tunnel, state, skb),
        Err(_) => Err(skb),
    }
}

/// Takes an ICMP error about a packet from a VIP, as true as any that arrives, or gives it back.
fn receive_report(
    tunnel: &Tunnel,
    state: &HookState<'_>,
    mut skb: SkBuff,
) -> Result<Verdict, SkBuff> {
    let Ok(outer) = ip::parse_ipip_report(&mut skb) else {
        return Err(skb);
    };
    let report = &outer.parsed;
    match report.replied().filter(|_| report.source.is_unicast()) {
        Some(tuple) => {
            let inner = Inner {
                tuple,
                l4_offset: report.icmp_offset,
                total_len: report.total_len,
            };
            tunnel.take_out(state, skb, &outer, &inner)
        }
        None => Err(skb),
    }
}

impl Tunnel {
    /// Receives the packet inside, if it is of a forwarder and for a VIP; or gives the whole back.
    fn take_out<T>(
        &self,
        state: &HookState<'_>,
        mut skb: SkBuff,
        outer: &Outer<T>,
        inner: &Inner,
    ) -> Result<Verdict, SkBuff> {
        let (net, tuple) = (state.net(), &inner.tuple);
        let Some(forwarder) = self.forwarder(outer.source) else {
            return Err(skb);
        };
        if !ip::is_local_address(net, &outer.destination)
            || !tuple.client().is_unicast()
            || vip_device(net, &tuple.vip(), state.rcu()).is_none()
        {
            return Err(skb);
        }
        match ip::take_out_ipip(&mut skb, outer, inner.l4_offset) {
            Ok(()) => {}
            Err(EINVAL) => {
                return Ok(self.drop(skb, Counter::DropCongestion, DropReason::IP_INHDR))
            }
            Err(_) => return Ok(self.drop(skb, Counter::DropNoMemory, DropReason::NOMEM)),
        }
        forwarder.count(inner.total_len);
        self.stats.inc(Counter::DecapIpip);
        self.stats.inc(Counter::DecapPackets);
        self.stats.add(Counter::DecapBytes, inner.total_len as u64);
        Ok(self.receive_client(state, skb, tuple, 0))
    }
}
