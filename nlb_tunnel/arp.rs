// SPDX-License-Identifier: GPL-2.0

//! Silence about VIPs: every machine behind the load balancer has them, one may answer for them.
//!
//! A VIP is an address of an `nlb` device. As long as the device has `IFF_NOARP`, its addresses are
//! not resolvable through this machine, and the machine does not reveal them by asking for others
//! (what the sysctls `arp_ignore` and `arp_announce` do for whole interfaces).

use crate::{
    device,
    state::STATE,
    stats::Counter, //
};
use nlb::{
    net::{
        arp::{
            self,
            Operation,
            Packet, //
        },
        netdevice::NetDevice,
        netfilter::{
            Family,
            Hook,
            HookNum,
            HookState,
            Verdict, //
        },
        skbuff::{
            DropReason,
            SkBuff, //
        },
    },
    wire::addr::Addr, //
};

#[cfg(not(CONFIG_NETFILTER_FAMILY_ARP))]
compile_error!("hosts would answer for VIPs: the kernel needs CONFIG_NETFILTER_FAMILY_ARP");

/// Whether `address` is a VIP that nobody shall learn of by ARP.
fn is_silent(state: &HookState<'_>, address: [u8; 4]) -> bool {
    let (net, guard) = (state.net(), state.rcu());
    let is_silent = |dev: &NetDevice| device::is_nlb(dev) && dev.is_noarp();
    let Some(named) = NetDevice::of_ipv4(net, address, guard) else {
        return false;
    };
    if !named.is_loopback() || address.starts_with(&[127]) {
        return is_silent(named);
    }
    // For `direct` and the like, a VIP may be on the loopback, too.
    NetDevice::find(net, guard, |dev| {
        is_silent(dev) && dev.has_address(net, &Addr::v4(address), guard)
    })
    .is_some()
}

fn count(state: &HookState<'_>, counter: Counter) {
    if let Some(tunnel) = STATE.get(state.net(), state.rcu()) {
        tunnel.stats.inc(counter);
    }
}

/// Requests that come in.
pub(crate) struct In;

impl Hook for In {
    const FAMILY: Family = Family::Arp;
    const HOOKNUM: HookNum = HookNum::ARP_IN;
    const PRIORITY: i32 = 0;

    fn run(state: &HookState<'_>, skb: SkBuff) -> Verdict {
        match Packet::read(&skb) {
            Some(arp) if arp.operation == Operation::Request && is_silent(state, arp.target) => {
                count(state, Counter::ArpSilenced);
                Verdict::Drop(skb, DropReason::NETFILTER_DROP)
            }
            _ => Verdict::Accept(skb),
        }
    }
}

/// What this machine sends.
pub(crate) struct Out;

impl Hook for Out {
    const FAMILY: Family = Family::Arp;
    const HOOKNUM: HookNum = HookNum::ARP_OUT;
    const PRIORITY: i32 = 0;

    fn run(state: &HookState<'_>, mut skb: SkBuff) -> Verdict {
        let Some(arp) = Packet::read(&skb).filter(|arp| is_silent(state, arp.sender)) else {
            return Verdict::Accept(skb);
        };
        if arp.operation == Operation::Request && !arp.is_announcement() {
            let other = state
                .out_dev()
                .and_then(|dev| dev.select_ipv4(arp.target))
                // A device without an address of its own is offered any, the VIP included.
                .filter(|other| !is_silent(state, *other));
            if other.is_some_and(|other| arp::set_sender(&mut skb, other).is_ok()) {
                count(state, Counter::ArpRewritten);
                return Verdict::Accept(skb);
            }
        }
        count(state, Counter::ArpSuppressed);
        Verdict::Drop(skb, DropReason::NETFILTER_DROP)
    }
}
