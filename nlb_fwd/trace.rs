// SPDX-License-Identifier: GPL-2.0

//! What would happen to a packet that opens a connection, or is a reply, for somebody who asks.
//!
//! It goes the way of [`crate::hook`] and changes nothing: no turn passes, no token is taken, nothing
//! is counted, no client remembered.

use crate::{
    endpoint::Endpoint,
    route::Route,
    rule::Rule,
    scheduler::{
        Candidate,
        NoEndpoint, //
    },
    service::Service,
    state::Forwarder,
    uapi::{
        AllotmentState,
        Forward,
        RouteState,
        RuleAction,
        ServiceMode,
        TraceChoice,
        TraceOutcome,
        TraceSlow, //
    },
    way::Way, //
};
use kernel::sync::{
    rcu,
    Arc, //
};
use nlb::{
    net::{
        ip::{
            self,
            NoNextHop, //
        },
        Net, //
    },
    time,
    wire::{
        addr::{
            Addr,
            FourTuple,
            Proto, //
        },
        tcp::Flags,
        tcp_state::{
            State,
            Step, //
        },
    },
};
use nlb_tunnel::Target;

/// The way to a host, or of its replies to the client.
pub(crate) struct WayOut {
    /// How packets get to the host.
    pub(crate) forward: Forward,
    /// The host.
    pub(crate) host: Addr,
    /// Its port, if that is another one than the service's may be.
    pub(crate) port: Option<u16>,
    /// The address of this machine that it is reached from.
    pub(crate) source: Addr,
    /// Index of the device that they leave by, and the longest one that fits, as it comes; none if no
    /// route leads there.
    pub(crate) link: Option<(u32, u32)>,
    /// Why they do not take the fast path, once the connection has a route.
    pub(crate) slow: Option<TraceSlow>,
}

/// What a packet meets. All that is there lives as long as the RCU read side is held.
pub(crate) struct Trace<'a> {
    pub(crate) outcome: TraceOutcome,
    pub(crate) service: Option<&'a Arc<Service>>,
    /// The rule that decides about it.
    pub(crate) rule: Option<&'a Arc<Rule>>,
    /// The route of its connection; with another outcome, one that gives way.
    pub(crate) route: Option<&'a Route>,
    /// The route that it answers.
    pub(crate) answered: Option<&'a Route>,
    /// Where the client's last connection went, and for how many milliseconds that counts.
    pub(crate) affinity: Option<(&'a Arc<Endpoint>, u64)>,
    /// How the service's allotment is.
    pub(crate) allotment: Option<AllotmentState>,
    /// Who has picked the endpoint.
    pub(crate) choice: Option<TraceChoice>,
    pub(crate) way: Option<WayOut>,
}

impl Forwarder {
    /// What would happen to a packet with these addresses and ports now: to a TCP SYN or a datagram of a
    /// client, or to a reply.
    pub(crate) fn trace<'a>(
        &'a self,
        net: &Net,
        tuple: &FourTuple,
        guard: &'a rcu::Guard,
    ) -> Trace<'a> {
        let mut trace = Trace {
            outcome: TraceOutcome::NoService,
            service: None,
            rule: None,
            route: self.route_of(tuple, guard),
            answered: None,
            affinity: None,
            allotment: None,
            choice: None,
            way: None,
        };
        if let Some(route) = trace.route.filter(|route| !gives_way(route)) {
            let to = (&**route.target(), route.host_port());
            let way = way_out(net, to, route.way(), guard);
            trace.service = Some(route.service());
            trace.outcome = trace.leave_by(way, TraceOutcome::Route);
            return trace;
        }
        if trace.route.is_none() {
            trace.answered = self.route_answered(tuple, guard).map(|route| &**route);
        }
        if let Some(route) = trace.answered {
            trace.service = Some(route.service());
            trace.outcome = trace.leave_by(way_back(net, route, guard), TraceOutcome::Reply);
            return trace;
        }
        trace.service = self.service_of(tuple, guard);
        if let Some(service) = trace.service {
            trace.outcome = self.open_trace(&mut trace, net, service, tuple, guard);
        }
        trace
    }

    /// The same, of one that has no route.
    fn open_trace<'a>(
        &'a self,
        trace: &mut Trace<'a>,
        net: &Net,
        service: &'a Service,
        tuple: &FourTuple,
        guard: &'a rcu::Guard,
    ) -> TraceOutcome {
        let rules = self.rules.get(guard);
        trace.rule = rules.and_then(|rules| rules.first(tuple));
        match trace.rule.map(|rule| rule.action()) {
            Some(RuleAction::Drop) => return TraceOutcome::DropRule,
            Some(RuleAction::Reject) => return TraceOutcome::RejectRule,
            Some(RuleAction::Accept) | None => {}
        }
        if service.mode() == ServiceMode::Peek {
            return TraceOutcome::Classifier;
        }
        let now = time::jiffies();
        let allotment = service.allotment(guard);
        trace.allotment = allotment.map(|allotment| allotment.state(now));
        let client = self.affinity_of(service, guard, tuple, now);
        trace.affinity = client.map(|(endpoint, expires)| {
            let left = time::jiffies_to_ms(expires.saturating_sub(now));
            (endpoint, left)
        });
        let client = client.map(|(endpoint, _)| endpoint);
        let allotted = || allotment.and_then(|allotment| allotment.would_pick(now));
        let one_packet = service.is_one_packet();
        let is_full = match trace.route {
            _ if one_packet => false,
            None => !self.has_room(tuple.proto()),
            // A closed route makes way for the new one.
            Some(_) => tuple.proto() == Proto::Tcp && self.half_open.is_full(),
        };
        let hashed = match is_full {
            true => service.pick_by_hash(guard, tuple),
            false if one_packet => None,
            false => service.stateless_endpoint(guard, tuple),
        };
        if is_full && hashed.is_none() {
            return match service.takes_nothing(guard, tuple) {
                true => TraceOutcome::NoEndpoint,
                false => TraceOutcome::TableFull,
            };
        }
        let picked = if let Some(endpoint) = hashed {
            match endpoint.has_room() {
                true => Ok((endpoint, TraceChoice::Hash)),
                false => Err(NoEndpoint::Overflow),
            }
        } else if let Some(endpoint) = client.filter(|endpoint| endpoint.keeps_clients()) {
            Ok((endpoint, TraceChoice::Affinity))
        } else if let Some(endpoint) = allotted() {
            Ok((endpoint, TraceChoice::Allotment))
        } else {
            service.would_pick(guard, tuple).map(|endpoint| {
                let choice = match endpoint.is_backup() {
                    true => TraceChoice::Backup,
                    false => TraceChoice::Scheduler,
                };
                (endpoint, choice)
            })
        };
        let (endpoint, choice) = match picked {
            Ok(picked) => picked,
            Err(NoEndpoint::Nobody) => return TraceOutcome::NoEndpoint,
            Err(NoEndpoint::Overflow) => return TraceOutcome::Overflow,
        };
        trace.choice = Some(choice);
        let way = match is_full || one_packet {
            true => endpoint.stateless_way(),
            false => Some(endpoint.way()),
        };
        let Some(way) = way else {
            return TraceOutcome::NoWay;
        };
        let outcome = match is_full {
            true => TraceOutcome::Stateless,
            false if one_packet => TraceOutcome::OnePacket,
            false => TraceOutcome::NewRoute,
        };
        let to = (&**endpoint.target(), endpoint.host_port());
        trace.leave_by(way_out(net, to, way, guard), outcome)
    }
}

impl Trace<'_> {
    /// Notes the way that the packet takes. What happens to it: `outcome`, if that leads anywhere.
    fn leave_by(&mut self, way: WayOut, outcome: TraceOutcome) -> TraceOutcome {
        let outcome = way.link.map_or(TraceOutcome::NoWay, |_| outcome);
        self.way = Some(way);
        outcome
    }
}

/// Whether a packet that opens a connection takes the place of a route.
fn gives_way(route: &Route) -> bool {
    let state = match route.shown_state() {
        RouteState::SynRecv => State::SynRecv,
        RouteState::Established => State::Established,
        RouteState::FinWait => State::FinWait,
        RouteState::Closed => State::Close,
        RouteState::Udp => State::Udp,
    };
    state.step(Flags::SYN) == Step::Replace
}

/// The way to a host.
fn way_out(
    net: &Net,
    (target, port): (&Target, Option<u16>),
    way: Way,
    guard: &rcu::Guard,
) -> WayOut {
    let forward = way.forward();
    let (host, source) = (target.host(), target.source());
    // As the target has it remembered, but new.
    let next = match forward {
        Forward::Direct => ip::Route::lookup_neighbour(net, Some(source), host),
        _ => ip::Route::lookup(net, Some(source), host),
    };
    let overhead = way.overhead(host.is_v4());
    let next = next.ok();
    let link = next
        .as_ref()
        .map(|next| (next.ifindex(guard), next.mtu().saturating_sub(overhead)));
    let slow = match (forward, &next) {
        (Forward::Ipip | Forward::Gre | Forward::Gue, _) => Some(TraceSlow::Ipip),
        (_, Some(next)) => next.next_hop(net, guard).err().map(|reason| match reason {
            NoNextHop::Work => TraceSlow::Work,
            NoNextHop::PostRouting => TraceSlow::PostRouting,
            NoNextHop::Link => TraceSlow::Link,
            NoNextHop::Neighbour => TraceSlow::Neighbour,
        }),
        (_, None) => None,
    };
    WayOut {
        forward,
        host,
        port,
        source,
        link,
        slow,
    }
}

/// The way of a host's replies with this route.
fn way_back(net: &Net, route: &Route, guard: &rcu::Guard) -> WayOut {
    let next = ip::Route::lookup_reply(net, route.tuple()).ok();
    let link = next.map(|next| (next.ifindex(guard), next.mtu()));
    WayOut {
        forward: route.way().forward(),
        host: route.target().host(),
        port: route.host_port(),
        source: route.target().source(),
        link,
        slow: link.map(|_| TraceSlow::Reply),
    }
}
