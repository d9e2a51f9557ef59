// SPDX-License-Identifier: GPL-2.0

//! The fast path: packets of known connections, past the network layer in both directions.
//!
//! What needs anything but other addresses, ports and a lower TTL is left to the hook that all
//! packets come to behind the network layer, [`crate::hook`].

use crate::{
    state::{
        Forwarder,
        STATE, //
    },
    stats::Counter, //
};
use kernel::prelude::*;
use nlb::{
    net::{
        netdevice::NetDevice,
        netfilter::{
            HookState,
            IngressHook, //
        },
        skbuff::Arrival, //
    },
    wire::{
        addr::Proto,
        parse::parse_ordinary, //
    },
};

/// Looks for packets of known connections at the ingress of devices.
pub(crate) struct Ingress;

impl IngressHook for Ingress {
    /// Behind all that others do there.
    const PRIORITY: i32 = i32::MAX;

    fn is_for(dev: &NetDevice) -> bool {
        dev.is_ethernet() && !dev.is_loopback() && !nlb_tunnel::is_nlb_device(dev)
    }

    fn gone(dev: &NetDevice) {
        if let Some(forwarder) = STATE.get_arc(dev.net()) {
            forwarder.misses.device_gone(&forwarder.stats, dev);
        }
    }

    fn run(state: &HookState<'_>, packet: Arrival) -> Result<(), Arrival> {
        match STATE.get(state.net(), state.rcu()) {
            Some(forwarder) if !forwarder.routes.is_empty() => forwarder.arrive(state, packet),
            _ => Err(packet),
        }
    }
}

impl Forwarder {
    /// Sends a packet the way of its route at once, or gives it back.
    #[inline]
    fn arrive(&self, state: &HookState<'_>, packet: Arrival) -> Result<(), Arrival> {
        if !packet.is_ordinary() {
            return Err(packet);
        }
        let Some(parsed) = parse_ordinary(packet.data(), packet.frame()) else {
            return Err(packet);
        };
        let Some(route) = self.route_of(&parsed.tuple, state.rcu()) else {
            return Err(packet);
        };
        if nlb_tunnel::may_be_tunnelled(state, &parsed) {
            return Err(packet);
        }
        self.send_at_once(state, route, packet, &parsed)?;
        // It neither opens nor closes a connection, so it cannot be told that the route is to go.
        if parsed.tuple.proto() == Proto::Tcp {
            route.step(parsed.flags);
        }
        self.stats.inc(Counter::FastPackets);
        self.count(route, &parsed);
        Ok(())
    }
}
