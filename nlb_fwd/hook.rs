// SPDX-License-Identifier: GPL-2.0

//! The packet path: every packet that arrives, before it is routed.

use crate::{
    forward::NoRoute,
    route::Route,
    service::Service,
    state::{
        Forwarder,
        STATE, //
    },
    stats::Counter,
    uapi::{
        RouteOrigin,
        ServiceMode, //
    },
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use nlb::{
    net::{
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
        }, //
    },
    sync::rhashtable::InsertError,
    wire::{
        addr::{
            Addr,
            Proto, //
        },
        error,
        ipv4,
        ipv6,
        parse::Parsed, //
    },
};

/// Sends packets of known connections to their hosts, and chooses hosts for new ones.
///
/// Behind the tunnel's hook, which takes what comes out of the tunnel, and before
/// defragmentation and conntrack.
pub(crate) struct PreRouting;

impl Hook for PreRouting {
    const FAMILY: Family = Family::Ipv4;
    const HOOKNUM: HookNum = HookNum::PreRouting;
    const PRIORITY: i32 = -490;

    fn run(state: &HookState<'_>, mut skb: SkBuff) -> Verdict {
        let Some(forwarder) = STATE.get(state.net(), state.rcu()) else {
            return Verdict::Accept(skb);
        };
        let Some(parsed) = nlb_tunnel::parse(&mut skb) else {
            return forwarder.other(state, skb);
        };
        let Some(route) = forwarder.route_of(&parsed.tuple, state.rcu()) else {
            return match forwarder.route_answered(&parsed.tuple, state.rcu()) {
                Some(route) if is_from_client(state, &skb) => {
                    forwarder.send_back(state, route, skb, &parsed)
                }
                _ => forwarder.miss(state, skb, &parsed),
            };
        };
        if !is_from_client(state, &skb) {
            return Verdict::Accept(skb);
        }
        if parsed.tuple.proto() == Proto::Tcp && !route.step(parsed.flags) {
            if forwarder.remove_route(state.net(), route) {
                forwarder.stats.inc(Counter::RouteReplaced);
            }
            return forwarder.miss(state, skb, &parsed);
        }
        forwarder.forward(state, route, skb, &parsed)
    }
}

/// Whether a packet came in by a wire and was sent to this machine's link-layer address.
///
/// What comes in by an nlb device has been forwarded already: this machine is its host, too.
#[inline]
pub(crate) fn is_from_client(state: &HookState<'_>, skb: &SkBuff) -> bool {
    skb.is_for_host()
        && state
            .in_dev()
            .is_some_and(|dev| !nlb_tunnel::is_nlb_device(dev))
}

impl Forwarder {
    /// Sends a packet the way of its route.
    #[inline]
    fn forward(
        &self,
        state: &HookState<'_>,
        route: &Route,
        skb: SkBuff,
        parsed: &Parsed,
    ) -> Verdict {
        self.stats.inc(Counter::Packets);
        self.stats.add(Counter::Bytes, parsed.total_len as u64);
        route.count(parsed.total_len);
        self.send(state, route, skb, parsed);
        Verdict::Stolen
    }

    /// A packet without a route.
    fn miss(&self, state: &HookState<'_>, skb: SkBuff, parsed: &Parsed) -> Verdict {
        let Some(service) = self.service_of(&parsed.tuple, state.rcu()) else {
            return Verdict::Accept(skb);
        };
        // No router forwards packets of a link-local sender, and no host could answer it.
        if !is_from_client(state, &skb) || !parsed.tuple.client().is_unicast() {
            return Verdict::Accept(skb);
        }
        if service.mode() == ServiceMode::Peek {
            self.stats.inc(Counter::PassPeek);
            return Verdict::Accept(skb);
        }
        if parsed.tuple.proto() == Proto::Tcp && !parsed.flags.is_initial_syn() {
            self.stats.inc(Counter::PassMidStream);
            return Verdict::Accept(skb);
        }
        match self.open(state, service, parsed) {
            Ok(()) => {}
            Err(Counter::PassNoEndpoint) => {
                self.stats.inc(Counter::PassNoEndpoint);
                return Verdict::Accept(skb);
            }
            Err(counter) => {
                self.stats.inc(counter);
                return Verdict::Drop(skb, DropReason::NOMEM);
            }
        }
        // The one just made, or that of another packet of this connection.
        match self.route_of(&parsed.tuple, state.rcu()) {
            Some(route) => self.forward(state, route, skb, parsed),
            None => Verdict::Drop(skb, DropReason::NO_SOCKET),
        }
    }

    /// Chooses an endpoint for a new connection and makes the route. On failure, what to count.
    fn open(
        &self,
        state: &HookState<'_>,
        service: &Arc<Service>,
        parsed: &Parsed,
    ) -> Result<(), Counter> {
        let endpoint = self.pick(service, state.rcu(), &parsed.tuple)?;
        let net = state.net();
        // Not by the error of the insertion: with a full table there is no need for a flow id.
        if self.routes.is_full() {
            return Err(Counter::DropTableFull);
        }
        let opened = self.open_route(
            net,
            &parsed.tuple,
            service,
            Some(endpoint),
            endpoint.target(),
            (RouteOrigin::L4, parsed.flags),
        );
        match opened {
            Ok(()) | Err(NoRoute::Table(InsertError::Exists)) => Ok(()),
            Err(NoRoute::Table(InsertError::Full)) => Err(Counter::DropTableFull),
            Err(NoRoute::FlowId(ENOMEM) | NoRoute::Table(InsertError::NoMemory)) => {
                Err(Counter::DropNoMemory)
            }
            Err(NoRoute::FlowId(_)) => Err(Counter::DropNoFlowId),
            Err(NoRoute::Reply) => Err(Counter::DropNoPort),
        }
    }

    /// A packet that is not TCP or UDP, or is a fragment: left to the local stack, and counted if
    /// it is for a VIP.
    #[cold]
    fn other(&self, state: &HookState<'_>, skb: SkBuff) -> Verdict {
        if let Some((destination, is_fragment)) = destination(skb.data()) {
            if is_from_client(state, &skb) && is_vip(state, destination) {
                self.stats.inc(if is_fragment {
                    Counter::PassFragment
                } else {
                    Counter::PassProtocol
                });
            }
        }
        Verdict::Accept(skb)
    }
}

/// Where an IP packet goes, and whether it is a fragment.
fn destination(bytes: &[u8]) -> Option<(Addr, bool)> {
    if let Ok(ip) = ipv4::Packet::new_header(bytes) {
        return Some((ip.destination(), ip.is_fragment()));
    }
    let ip = ipv6::Packet::new_header(bytes).ok()?;
    let is_fragment = ip.upper_layer() == Err(error::DropReason::Fragment);
    Some((ip.destination(), is_fragment))
}

/// Whether an address is that of an nlb device.
fn is_vip(state: &HookState<'_>, address: Addr) -> bool {
    nlb_tunnel::vip_device(state.net(), address).is_some()
}
