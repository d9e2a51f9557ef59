// SPDX-License-Identifier: GPL-2.0

//! The packet path: every packet that arrives, before it is routed.

use crate::{
    forward::NoRoute,
    route::Route,
    scheduler::Candidate,
    service::Service,
    state::{
        Forwarder,
        STATE, //
    },
    stats::Counter,
    uapi::{
        RouteEnd,
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
        ip::{
            self,
            Defragment, //
        },
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
    sync::{
        object::ObjectRef,
        rhashtable::InsertError, //
    },
    wire::{
        addr::Proto,
        error,
        ipv4,
        ipv6,
        parse::{
            self,
            Parsed, //
        }, //
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
        match nlb_tunnel::parse(&mut skb) {
            Some(parsed) => forwarder.receive(state, skb, &parsed),
            None => forwarder.other(state, skb),
        }
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
    /// A packet with TCP or UDP.
    #[inline]
    fn receive(&self, state: &HookState<'_>, skb: SkBuff, parsed: &Parsed) -> Verdict {
        let Some(route) = self.route_of(&parsed.tuple, state.rcu()) else {
            return match self.route_answered(&parsed.tuple, state.rcu()) {
                Some(route) if is_from_client(state, &skb) => {
                    self.send_back(state, route, skb, parsed)
                }
                _ => self.miss(state, skb, parsed),
            };
        };
        if !is_from_client(state, &skb) {
            return Verdict::Accept(skb);
        }
        if parsed.tuple.proto() == Proto::Tcp && !route.step(parsed.flags) {
            if self.remove_route(state.net(), route, RouteEnd::Replaced) {
                self.stats.inc(Counter::RouteReplaced);
            }
            return self.miss(state, skb, parsed);
        }
        self.forward(state, route, skb, parsed)
    }

    /// Sends a packet the way of its route.
    #[inline]
    pub(crate) fn forward(
        &self,
        state: &HookState<'_>,
        route: &Route,
        skb: SkBuff,
        parsed: &Parsed,
    ) -> Verdict {
        self.count(route, parsed);
        self.send(state, route, skb, parsed);
        Verdict::Stolen
    }

    /// Counts a packet that follows a route.
    #[inline]
    pub(crate) fn count(&self, route: &Route, parsed: &Parsed) {
        self.stats.inc(Counter::Packets);
        self.stats.add(Counter::Bytes, parsed.total_len as u64);
        route.count(parsed.total_len);
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
        let rule = match self.accepting(state.rcu(), &parsed.tuple) {
            Ok(rule) => rule,
            Err(rule) => return self.stop(rule, state, skb, parsed),
        };
        let skb = match self.ask(state, service, skb, parsed) {
            Ok(verdict) => return verdict,
            Err(skb) => skb,
        };
        // Not before: what waits for an answer comes here again.
        if let Some(rule) = rule {
            rule.count(parsed.total_len);
        }
        let skb = match self.mid_stream(state, service, skb, parsed) {
            Ok(verdict) => return verdict,
            Err(skb) => skb,
        };
        if service.mode() == ServiceMode::Peek {
            self.stats.inc(Counter::PassPeek);
            return Verdict::Accept(skb);
        }
        if parsed.tuple.proto() == Proto::Tcp && !parsed.flags.is_initial_syn() {
            self.stats.inc(Counter::PassMidStream);
            return Verdict::Accept(skb);
        }
        if service.is_one_packet() {
            return self.send_one(state, service, skb, parsed);
        }
        match self.open(state, service, parsed) {
            Ok(Some(route)) => return self.forward(state, &route, skb, parsed),
            Ok(None) => {}
            Err(Counter::PassNoEndpoint) => {
                self.stats.inc(Counter::PassNoEndpoint);
                return Verdict::Accept(skb);
            }
            Err(counter) => return self.without_route(state, service, skb, parsed, counter),
        }
        match self.route_of(&parsed.tuple, state.rcu()) {
            Some(route) => self.forward(state, route, skb, parsed),
            None => Verdict::Drop(skb, DropReason::NO_SOCKET),
        }
    }

    /// Chooses an endpoint for a new connection and makes the route. None if another packet of the
    /// connection has just done so. On failure, what to count.
    pub(crate) fn open(
        &self,
        state: &HookState<'_>,
        service: &Arc<Service>,
        parsed: &Parsed,
    ) -> Result<Option<ObjectRef<Route>>, Counter> {
        // Not by the error of the insertion: with a full table there is no need for a flow id, and
        // nobody's turn passes.
        if !self.has_room(parsed.tuple.proto()) {
            return Err(Counter::DropTableFull);
        }
        let endpoint = match service.stateless_endpoint(state.rcu(), &parsed.tuple) {
            Some(endpoint) if endpoint.has_room() => endpoint,
            Some(_) => return Err(Counter::DropOverflow),
            None => self.pick(service, state.rcu(), &parsed.tuple)?,
        };
        let opened = self.open_route(
            (state.net(), state.rcu()),
            &parsed.tuple,
            service,
            Some(endpoint),
            endpoint.target(),
            (RouteOrigin::L4, parsed.flags),
        );
        match opened {
            Ok(route) => Ok(Some(route)),
            Err(NoRoute::Table(InsertError::Exists)) => Ok(None),
            Err(NoRoute::Table(InsertError::Full)) => Err(Counter::DropTableFull),
            Err(NoRoute::FlowId(ENOMEM) | NoRoute::Table(InsertError::NoMemory)) => {
                Err(Counter::DropNoMemory)
            }
            Err(NoRoute::FlowId(_)) => Err(Counter::DropNoFlowId),
            Err(NoRoute::Reply) => Err(Counter::DropNoPort),
        }
    }

    /// A packet that is not TCP or UDP, or is a fragment. An ICMP error about a packet of a connection
    /// goes to who has sent that, and fragments for a VIP and of replies are put together; the rest is
    /// left to the local stack, and counted if it is for a VIP.
    #[cold]
    fn other(&self, state: &HookState<'_>, skb: SkBuff) -> Verdict {
        let skb = match self.icmp_error(state, skb) {
            Ok(verdict) => return verdict,
            Err(skb) => skb,
        };
        let Some((source, destination)) = parse::addresses(skb.data()) else {
            return Verdict::Accept(skb);
        };
        if !is_from_client(state, &skb) {
            return Verdict::Accept(skb);
        }
        let is_for_vip = nlb_tunnel::is_vip(state, destination);
        if is_fragment(skb.data()) && (is_for_vip || self.repliers.may_have(&source)) {
            return self.fragment(state, skb, is_for_vip);
        }
        if is_for_vip {
            self.stats.inc(Counter::PassProtocol);
        }
        Verdict::Accept(skb)
    }

    /// A fragment for a VIP, or of what may be a reply: the packet goes on when it is whole. It may be
    /// fragmented again on its way, because its sender has done so.
    #[cold]
    fn fragment(&self, state: &HookState<'_>, skb: SkBuff, is_for_vip: bool) -> Verdict {
        self.stats.inc(Counter::Fragments);
        let mut skb = match ip::defragment(state.net(), skb) {
            Defragment::Kept => return Verdict::Stolen,
            Defragment::Refused(skb) => {
                self.stats.inc(Counter::DropFragment);
                return Verdict::Drop(skb, DropReason::PKT_TOO_SMALL);
            }
            Defragment::Whole(skb) => skb,
        };
        if let Some(mut parsed) = nlb_tunnel::parse(&mut skb) {
            self.stats.inc(Counter::Defragmented);
            parsed.dont_fragment = false;
            return self.receive(state, skb, &parsed);
        }
        if is_fragment(skb.data()) {
            self.stats.inc(Counter::PassFragment);
        } else if is_for_vip {
            self.stats.inc(Counter::PassProtocol);
        }
        Verdict::Accept(skb)
    }
}

/// Whether an IP packet is a fragment.
fn is_fragment(bytes: &[u8]) -> bool {
    if let Ok(ip) = ipv4::Packet::new_header(bytes) {
        return ip.is_fragment();
    }
    ipv6::Packet::new_header(bytes)
        .is_ok_and(|ip| ip.upper_layer() == Err(error::DropReason::Fragment))
}
