// SPDX-License-Identifier: GPL-2.0

//! Objects as messages show them, in replies, dumps and notifications alike.

use super::FAMILY;
use crate::{
    allotment::{
        Allotment,
        Share, //
    },
    endpoint::Endpoint,
    miss::Miss,
    route::Route,
    rule::Rule,
    scheduler::Candidate,
    service::{
        Service,
        ServiceKey, //
    },
    stats::Counter,
    uapi::{
        allotment,
        allotment_share,
        cmd,
        counter,
        endpoint,
        miss,
        route,
        rule,
        service,
        stats,
        AllotmentState,
        Forward,
        RouteEnd,
        ServiceMode, //
    },
};
use kernel::{
    prelude::*,
    sync::rcu, //
};
use nlb::{
    net::{
        genetlink::Writer,
        Net, //
    },
    time,
    wire::{
        addr::{
            FourTuple,
            Proto, //
        },
        carrier::Carrier,
        slow_start, //
    },
};

/// Places of the groups in the family's table.
const GROUP_EVENTS: u8 = 0;
const GROUP_ROUTES: u8 = 1;
const GROUP_MISSES: u8 = 2;

/// What identifies a service, in messages about it and what it has: under the same numbers in all, but
/// for the last of several ports, which is in attribute `last`.
fn fill_key(w: &mut Writer<'_>, key: &ServiceKey, last: u16) -> Result {
    w.put_bytes(service::VIP_ADDR, key.vip.octets())?;
    w.put_be16(service::VIP_PORT, key.ports.first())?;
    if key.ports.single().is_none() {
        w.put_be16(last, key.ports.last())?;
    }
    w.put_u32(service::PROTO, key.proto.number().into())
}

pub(super) fn fill_service(w: &mut Writer<'_>, s: &Service) -> Result {
    let key = s.key();
    let endpoints = s.endpoints(&rcu::read_lock()).len();
    fill_key(w, key, service::VIP_PORT_LAST)?;
    w.put_u32(service::MODE, s.mode() as u32)?;
    if let Some(port) = s.classifier() {
        w.put_be16(service::CLASSIFIER_PORT, port)?;
    }
    if s.mode() == ServiceMode::L4 {
        let affinity = s.affinity();
        w.put_u32(service::SCHEDULER, s.scheduler() as u32)?;
        w.put_u32(service::AFFINITY_TIMEOUT, affinity.timeout)?;
        w.put_u32(service::AFFINITY_PREFIX, affinity.prefix.into())?;
        w.put_u32(service::SLOW_START, s.slow_start())?;
    }
    let timeouts = s.timeouts();
    w.put_u32(service::IDLE_TIMEOUT, timeouts.idle)?;
    if key.proto == Proto::Tcp {
        w.put_u32(service::FIN_TIMEOUT, timeouts.fin)?;
        w.put_u32(service::SYN_TIMEOUT, timeouts.syn)?;
        w.put_u32(service::MISS_TIMEOUT, s.miss_timeout())?;
    }
    if key.proto == Proto::Udp && s.mode() == ServiceMode::L4 {
        w.put_u32(service::ONE_PACKET, s.is_one_packet().into())?;
    }
    w.put_u32(service::ENDPOINTS, endpoints as u32)?;
    w.put_uint(service::CONNECTIONS, s.traffic.connections())?;
    w.put_uint(service::PACKETS, s.traffic.packets())?;
    w.put_uint(service::BYTES, s.traffic.bytes())
}

/// Whether packets to the host are from this machine.
pub(super) fn changes_source(forward: Forward) -> bool {
    match forward {
        Forward::Tunnel | Forward::Ipip | Forward::Gre | Forward::Gue | Forward::Nat => true,
        Forward::Direct | Forward::HalfNat => false,
    }
}

pub(super) fn fill_endpoint(w: &mut Writer<'_>, s: &Service, e: &Endpoint) -> Result {
    let key = s.key();
    let settings = e.settings();
    fill_key(w, key, endpoint::VIP_PORT_LAST)?;
    w.put_bytes(endpoint::HOST_ADDR, e.host().octets())?;
    if changes_source(e.forward()) {
        w.put_bytes(endpoint::SOURCE_ADDR, e.target().source().octets())?;
    }
    if let Some(port) = e.host_port() {
        w.put_be16(endpoint::HOST_PORT, port)?;
    }
    w.put_u32(endpoint::FORWARD, e.forward() as u32)?;
    match e.carrier() {
        Carrier::Ipip => {}
        Carrier::Gre { checksum } => w.put_u32(endpoint::TUN_CSUM, checksum.into())?,
        Carrier::Gue { checksum, port } => {
            w.put_be16(endpoint::TUN_PORT, port)?;
            w.put_u32(endpoint::TUN_CSUM, checksum.into())?;
        }
    }
    w.put_u32(endpoint::WEIGHT, settings.weight)?;
    w.put_u32(endpoint::STATE, settings.state as u32)?;
    w.put_u32(endpoint::MAX_ROUTES, settings.max_routes)?;
    w.put_u32(endpoint::RESUME_ROUTES, settings.resume_routes)?;
    w.put_u32(endpoint::FULL, (!e.has_room()).into())?;
    w.put_u32(endpoint::BACKUP, settings.backup.into())?;
    if e.step() < slow_start::STEPS {
        w.put_u32(endpoint::SLOW_START_STEP, e.step())?;
    }
    w.put_u32(endpoint::ROUTES, e.routes())?;
    w.put_u32(endpoint::ACTIVE_ROUTES, e.active())?;
    w.put_uint(endpoint::CONNECTIONS, e.traffic.connections())?;
    w.put_uint(endpoint::PACKETS, e.traffic.packets())?;
    w.put_uint(endpoint::BYTES, e.traffic.bytes())
}

/// An allotment as it is now, in this state, without the shares.
pub(super) fn fill_allotment(
    w: &mut Writer<'_>,
    s: &Service,
    a: &Allotment<Endpoint>,
    state: AllotmentState,
) -> Result {
    let key = s.key();
    let now = time::jiffies();
    fill_key(w, key, allotment::VIP_PORT_LAST)?;
    w.put_u32(allotment::SCHEME, a.scheme() as u32)?;
    w.put_u32(allotment::AGE, a.age_ms())?;
    w.put_u32(allotment::STATE, state as u32)?;
    if let Some(left) = a.left() {
        w.put_u32(allotment::LEFT, left)?;
    }
    w.put_uint(allotment::EXPIRES, a.expires_ms(now))
}

/// The same with what one endpoint has of it.
pub(super) fn fill_share(
    w: &mut Writer<'_>,
    s: &Service,
    a: &Allotment<Endpoint>,
    share: &Share<Endpoint>,
) -> Result {
    fill_allotment(w, s, a, a.state(time::jiffies()))?;
    w.nest(allotment::SHARE, |w| {
        w.put_bytes(allotment_share::HOST_ADDR, share.endpoint().host().octets())?;
        if let Some(port) = share.endpoint().host_port() {
            w.put_be16(allotment_share::HOST_PORT, port)?;
        }
        w.put_u32(allotment_share::AMOUNT, share.left())
    })
}

/// What identifies a connection, in messages about it: under the same numbers in all.
fn fill_tuple(w: &mut Writer<'_>, tuple: &FourTuple) -> Result {
    w.put_u32(route::PROTO, tuple.proto().number().into())?;
    w.put_bytes(route::CLIENT_ADDR, tuple.client().octets())?;
    w.put_be16(route::CLIENT_PORT, tuple.client_port())?;
    w.put_bytes(route::VIP_ADDR, tuple.vip().octets())?;
    w.put_be16(route::VIP_PORT, tuple.vip_port())
}

/// How a miss is.
pub(super) fn fill_miss(w: &mut Writer<'_>, m: &Miss) -> Result {
    fill_tuple(w, m.tuple())?;
    let shown = m.shown();
    w.put_u32(miss::STATE, shown.state as u32)?;
    w.put_u32(miss::HELD, shown.held)?;
    w.put_uint(miss::AGE, shown.age_ms)
}

fn fill_counter(w: &mut Writer<'_>, counter: Counter, value: u64) -> Result {
    w.nest(stats::COUNTER, |w| {
        w.put_str(counter::NAME, counter.name())?;
        w.put_uint(counter::VALUE, value)
    })
}

/// All counters, with what `of` says of each.
pub(super) fn fill_counters(w: &mut Writer<'_>, of: impl Fn(Counter) -> u64) -> Result {
    for &counter in Counter::ALL {
        fill_counter(w, counter, of(counter))?;
    }
    Ok(())
}

pub(super) fn fill_route(w: &mut Writer<'_>, r: &Route) -> Result {
    let (way, usage) = (r.way(), r.mapping().usage());
    fill_tuple(w, r.tuple())?;
    w.put_u32(route::FORWARD, way.forward() as u32)?;
    let target = r.target();
    w.put_bytes(route::HOST_ADDR, target.host().octets())?;
    if let Some(port) = r.host_port() {
        w.put_be16(route::HOST_PORT, port)?;
    }
    if changes_source(way.forward()) {
        w.put_bytes(route::FORWARDER_ADDR, target.source().octets())?;
    }
    if let Some(port) = way.port() {
        w.put_be16(route::FORWARDER_PORT, port)?;
    }
    if let Some(flow_id) = r.mapping().flow_id() {
        w.put_u32(route::FLOW_ID, flow_id.value())?;
    }
    w.put_u32(route::STATE, r.shown_state() as u32)?;
    w.put_u32(route::ORIGIN, r.origin() as u32)?;
    w.put_uint(route::EXPIRES, r.expires_ms())?;
    w.put_uint(route::PACKETS, usage.packets())?;
    w.put_uint(route::BYTES, usage.bytes())
}

pub(super) fn fill_rule(w: &mut Writer<'_>, r: &Rule) -> Result {
    let selector = r.selector();
    w.put_u32(rule::PRIORITY, r.priority())?;
    w.put_u32(rule::ACTION, r.action() as u32)?;
    if let Some((network, bits)) = selector.from {
        w.put_bytes(rule::FROM_ADDR, network.octets())?;
        w.put_u32(rule::FROM_PREFIX, bits.into())?;
    }
    if let Some(vip) = selector.vip {
        w.put_bytes(rule::VIP_ADDR, vip.octets())?;
    }
    if let Some(ports) = selector.ports {
        w.put_be16(rule::VIP_PORT, ports.first())?;
        if ports.single().is_none() {
            w.put_be16(rule::VIP_PORT_LAST, ports.last())?;
        }
    }
    if let Some(proto) = selector.proto {
        w.put_u32(rule::PROTO, proto.number().into())?;
    }
    let (packets, bytes) = r.traffic();
    w.put_uint(rule::PACKETS, packets)?;
    w.put_uint(rule::BYTES, bytes)
}

// Listeners that miss a notification see their socket's overrun, as with every multicast.

/// Tells listeners about a service.
pub(super) fn notify_service(net: &Net, command: u8, s: &Service) {
    let _ = FAMILY.multicast(net, GROUP_EVENTS, command, GFP_KERNEL, |w| {
        fill_service(w, s)
    });
}

/// Tells listeners how a service's allotment is.
pub(crate) fn notify_allotment(net: &Net, s: &Service, state: AllotmentState) {
    let _ = FAMILY.multicast(net, GROUP_EVENTS, cmd::ALLOTMENT_NTF, GFP_KERNEL, |w| {
        let guard = rcu::read_lock();
        s.allotment(&guard)
            .ok_or(ENOENT)
            .and_then(|allotment| fill_allotment(w, s, allotment, state))
    });
}

/// Tells listeners that a service has no allotment any more.
pub(super) fn notify_no_allotment(net: &Net, s: &Service) {
    let key = s.key();
    let _ = FAMILY.multicast(net, GROUP_EVENTS, cmd::ALLOTMENT_DEL_NTF, GFP_KERNEL, |w| {
        fill_key(w, key, allotment::VIP_PORT_LAST)
    });
}

/// Tells listeners about an endpoint.
pub(super) fn notify_endpoint(net: &Net, command: u8, s: &Service, e: &Endpoint) {
    let _ = FAMILY.multicast(net, GROUP_EVENTS, command, GFP_KERNEL, |w| {
        fill_endpoint(w, s, e)
    });
}

/// Tells listeners about a rule.
pub(super) fn notify_rule(net: &Net, command: u8, r: &Rule) {
    let _ = FAMILY.multicast(net, GROUP_EVENTS, command, GFP_KERNEL, |w| fill_rule(w, r));
}

/// Tells listeners that there is a route. Any context.
pub(crate) fn notify_route(net: &Net, r: &Route) {
    let _ = FAMILY.multicast(net, GROUP_ROUTES, cmd::ROUTE_NTF, GFP_ATOMIC, |w| {
        fill_route(w, r)
    });
}

/// Tells listeners that there is a route no more, and why. Any context.
pub(crate) fn notify_route_end(net: &Net, r: &Route, end: RouteEnd) {
    let _ = FAMILY.multicast(net, GROUP_ROUTES, cmd::ROUTE_DEL_NTF, GFP_ATOMIC, |w| {
        fill_route(w, r)?;
        w.put_u32(route::END, end as u32)
    });
}

/// Whether somebody listens who may know what becomes of misses.
pub(crate) fn is_anybody_asked(net: &Net) -> bool {
    FAMILY.has_listeners(net, GROUP_MISSES)
}

/// Asks what becomes of a connection. Any context.
pub(crate) fn notify_miss(net: &Net, m: &Miss) {
    let _ = FAMILY.multicast(net, GROUP_MISSES, cmd::MISS_NTF, GFP_ATOMIC, |w| {
        fill_miss(w, m)
    });
}

/// Tells listeners which limits refuse something, with what each has refused so far. Any context.
pub(crate) fn notify_limits(net: &Net, limits: impl Iterator<Item = (Counter, u64)>) {
    let _ = FAMILY.multicast(net, GROUP_EVENTS, cmd::LIMIT_NTF, GFP_ATOMIC, |w| {
        for (counter, value) in limits {
            fill_counter(w, counter, value)?;
        }
        Ok(())
    });
}
