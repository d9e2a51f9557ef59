// SPDX-License-Identifier: GPL-2.0

//! The fast path: packets of known connections, past the network layer in both directions, and first
//! packets that open one.
//!
//! What needs anything but other addresses, ports and a lower TTL is left to the hook that all
//! packets come to behind the network layer, [`crate::hook`].

use crate::{
    route::Route,
    state::{
        Forwarder,
        STATE, //
    },
    stats::Counter,
    uapi::ServiceMode, //
};
use kernel::prelude::*;
use nlb::{
    net::{
        netdevice::NetDevice,
        netfilter::{
            HookState,
            IngressHook, //
        },
        skbuff::{
            Arrival,
            DropReason, //
        },
    },
    wire::{
        addr::Proto,
        parse::{
            parse_ordinary,
            Parsed, //
        }, //
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

    #[inline(always)]
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
        let route = self.route_of(&parsed.tuple, state.rcu());
        if parsed.flags.is_initial_syn() {
            return match route {
                None => self.arrive_first(state, packet, &parsed),
                Some(_) => Err(packet),
            };
        }
        let Some(route) = route else {
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
        self.count_fast(route, &parsed);
        Ok(())
    }

    #[inline(always)]
    fn count_fast(&self, route: &Route, parsed: &Parsed) {
        self.stats.inc(Counter::FastPackets);
        self.count(route, parsed);
    }

    /// As [`Forwarder::arrive`], of a SYN without a route. If there is one afterwards, the ordinary
    /// path finds it.
    fn arrive_first(
        &self,
        state: &HookState<'_>,
        packet: Arrival,
        parsed: &Parsed,
    ) -> Result<(), Arrival> {
        let service = self
            .service_of(&parsed.tuple, state.rcu())
            .filter(|service| service.mode() == ServiceMode::L4);
        let Some(service) = service else {
            return Err(packet);
        };
        // Where someone filters what leaves, there is no fast path, and filters ahead of the ordinary
        // one shall see a connection before it has a route.
        if state
            .net()
            .has_post_routing(parsed.tuple.is_v4(), state.rcu())
        {
            return Err(packet);
        }
        // The ordinary path knows what to do without room. What answers a route's packets is
        // no new connection.
        if !self.has_room(Proto::Tcp)
            || self.route_answered(&parsed.tuple, state.rcu()).is_some()
            || !parsed.tuple.client().is_unicast()
            || nlb_tunnel::may_be_tunnelled(state, parsed)
        {
            return Err(packet);
        }
        let Ok(rule) = self.accepting(state.rcu(), &parsed.tuple) else {
            return Err(packet);
        };
        let opened = match self.open(state, service, parsed) {
            Ok(Some(route)) => Ok(route),
            // The ordinary path does what is to be done.
            Ok(None)
            | Err(
                Counter::PassNoEndpoint
                | Counter::DropOverflow
                | Counter::DropTableFull
                | Counter::DropNoFlowId
                | Counter::DropNoMemory,
            ) => return Err(packet),
            Err(counter) => Err(counter),
        };
        if let Some(rule) = rule {
            rule.count(parsed.total_len);
        }
        match opened {
            Ok(route) => {
                self.send_at_once(state, &route, packet, parsed)?;
                self.count_fast(&route, parsed);
            }
            Err(counter) => {
                self.stats.inc(counter);
                packet.drop_reason(DropReason::NOMEM);
            }
        }
        Ok(())
    }
}
