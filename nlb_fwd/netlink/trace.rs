// SPDX-License-Identifier: GPL-2.0

//! The command that asks what would happen to a packet.

use super::{
    changes_source,
    forwarder,
    tuple, //
};
use crate::{
    trace::Trace,
    uapi::{
        route,
        trace, //
    },
};
use kernel::{
    prelude::*,
    sync::rcu, //
};
use nlb::{
    net::genetlink::{
        Request,
        Writer, //
    },
    wire::addr::FourTuple,
};

// What names the connection has the numbers that it has in requests about routes.
const _: () = assert!(trace::PROTO == route::PROTO);
const _: () = assert!(trace::CLIENT_ADDR == route::CLIENT_ADDR);
const _: () = assert!(trace::CLIENT_PORT == route::CLIENT_PORT);
const _: () = assert!(trace::VIP_ADDR == route::VIP_ADDR);
const _: () = assert!(trace::VIP_PORT == route::VIP_PORT);

pub(super) fn trace_get(req: &Request<'_>) -> Result {
    let forwarder = forwarder(req)?;
    let tuple = tuple(req)?;
    req.reply(|w| {
        let guard = rcu::read_lock();
        fill(w, &tuple, &forwarder.trace(req.net(), &tuple, &guard))
    })
}

fn fill(w: &mut Writer<'_>, tuple: &FourTuple, t: &Trace<'_>) -> Result {
    w.put_u32(trace::PROTO, tuple.proto().number().into())?;
    w.put_bytes(trace::CLIENT_ADDR, tuple.client().octets())?;
    w.put_be16(trace::CLIENT_PORT, tuple.client_port())?;
    w.put_bytes(trace::VIP_ADDR, tuple.vip().octets())?;
    w.put_be16(trace::VIP_PORT, tuple.vip_port())?;
    w.put_u32(trace::OUTCOME, t.outcome as u32)?;
    if let Some(service) = t.service {
        let ports = service.key().ports;
        w.put_be16(trace::SERVICE_PORT, ports.first())?;
        if ports.single().is_none() {
            w.put_be16(trace::SERVICE_PORT_LAST, ports.last())?;
        }
    }
    if let Some(rule) = t.rule {
        w.put_u32(trace::RULE, rule.priority())?;
    }
    if let Some(route) = t.route.or(t.answered) {
        w.put_u32(trace::ROUTE_STATE, route.shown_state() as u32)?;
    }
    if let Some(route) = t.answered {
        let answered = route.tuple();
        w.put_bytes(trace::ANSWERED_CLIENT_ADDR, answered.client().octets())?;
        w.put_be16(trace::ANSWERED_CLIENT_PORT, answered.client_port())?;
        w.put_bytes(trace::ANSWERED_VIP_ADDR, answered.vip().octets())?;
        w.put_be16(trace::ANSWERED_VIP_PORT, answered.vip_port())?;
    }
    if let Some((endpoint, expires)) = t.affinity {
        w.put_bytes(trace::AFFINITY_HOST, endpoint.host().octets())?;
        if let Some(port) = endpoint.host_port() {
            w.put_be16(trace::AFFINITY_HOST_PORT, port)?;
        }
        w.put_uint(trace::AFFINITY_EXPIRES, expires)?;
    }
    if let Some(state) = t.allotment {
        w.put_u32(trace::ALLOTMENT_STATE, state as u32)?;
    }
    if let Some(choice) = t.choice {
        w.put_u32(trace::CHOICE, choice as u32)?;
    }
    let Some(way) = &t.way else {
        return Ok(());
    };
    w.put_bytes(trace::HOST_ADDR, way.host.octets())?;
    if let Some(port) = way.port {
        w.put_be16(trace::HOST_PORT, port)?;
    }
    w.put_u32(trace::FORWARD, way.forward as u32)?;
    if changes_source(way.forward) {
        w.put_bytes(trace::SOURCE_ADDR, way.source.octets())?;
    }
    if let Some((ifindex, mtu)) = way.link {
        w.put_u32(trace::IFINDEX, ifindex)?;
        w.put_u32(trace::MTU, mtu)?;
    }
    match way.slow {
        Some(slow) => w.put_u32(trace::SLOW, slow as u32),
        None => Ok(()),
    }
}
