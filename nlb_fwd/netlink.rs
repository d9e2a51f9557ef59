// SPDX-License-Identifier: GPL-2.0

//! The generic netlink family `nlb-fwd`.

mod allotments;
mod fill;
mod forward;
mod misses;
mod rules;
mod services;
mod trace;

pub(crate) use fill::{
    is_anybody_asked,
    notify_allotment,
    notify_limits,
    notify_miss,
    notify_route,
    notify_route_end, //
};

use crate::{
    endpoint::{
        Endpoint,
        Settings,
        MAX_WEIGHT, //
    },
    forward::NoRoute,
    route::Route,
    service::{
        Service,
        ServiceKey, //
    },
    slow_start,
    state::{
        Forwarder,
        STATE, //
    },
    uapi::{
        self,
        cmd,
        endpoint,
        route,
        service,
        EndpointState,
        RouteEnd,
        RouteOrigin, //
    },
};
use allotments::{
    allotment_del,
    allotment_dump,
    allotment_dump_start,
    allotment_get,
    allotment_set, //
};
use fill::{
    changes_source,
    fill_counters,
    fill_endpoint,
    fill_route,
    notify_endpoint, //
};
use kernel::{
    prelude::*,
    sync::{
        rcu,
        Arc, //
    },
};
use misses::{
    miss_dump,
    miss_get,
    miss_set, //
};
use nlb::{
    errno::{
        EADDRINUSE,
        EADDRNOTAVAIL,
        EAFNOSUPPORT,
        EHOSTDOWN,
        EHOSTUNREACH,
        ENOTUNIQ, //
    },
    net::genetlink::{
        Dump,
        Family,
        MulticastGroup,
        Op,
        Ops,
        Request, //
    },
    sync::rhashtable::{
        InsertError,
        Position,
        Scan, //
    },
    wire::{
        addr::{
            Addr,
            FourTuple, //
        },
        ports::Ports,
        tcp::Flags,
    },
};
use nlb_tunnel::Target;
use rules::{
    rule_del,
    rule_dump,
    rule_flush,
    rule_get,
    rule_new, //
};
use services::{
    service_del,
    service_dump,
    service_get,
    service_new,
    service_set,
    service_zero, //
};
use trace::trace_get;

static GROUPS: [MulticastGroup; 3] = [
    MulticastGroup::new(uapi::MCGRP_EVENTS),
    MulticastGroup::new(uapi::MCGRP_ROUTES),
    MulticastGroup::new(uapi::MCGRP_MISSES),
];

static OPS: Ops<30> = Ops::new([
    Op::doit(cmd::SERVICE_NEW, &uapi::SERVICE_NEW_DO, service_new).admin(),
    Op::doit(cmd::SERVICE_DEL, &uapi::SERVICE_DEL_DO, service_del).admin(),
    Op::doit(cmd::SERVICE_GET, &uapi::SERVICE_GET_DO, service_get),
    Op::dump(cmd::SERVICE_GET, &uapi::SERVICE_GET_DUMP, service_dump),
    Op::doit(cmd::ENDPOINT_NEW, &uapi::ENDPOINT_NEW_DO, endpoint_new).admin(),
    Op::doit(cmd::ENDPOINT_SET, &uapi::ENDPOINT_SET_DO, endpoint_set).admin(),
    Op::doit(cmd::ENDPOINT_DEL, &uapi::ENDPOINT_DEL_DO, endpoint_del).admin(),
    Op::doit(cmd::ENDPOINT_GET, &uapi::ENDPOINT_GET_DO, endpoint_get),
    Op::dump(cmd::ENDPOINT_GET, &uapi::ENDPOINT_GET_DUMP, endpoint_dump).start(endpoint_dump_start),
    Op::doit(cmd::ROUTE_NEW, &uapi::ROUTE_NEW_DO, route_new).admin(),
    Op::doit(cmd::ROUTE_DEL, &uapi::ROUTE_DEL_DO, route_del).admin(),
    Op::doit(cmd::ROUTE_GET, &uapi::ROUTE_GET_DO, route_get),
    Op::dump(cmd::ROUTE_GET, &uapi::ROUTE_GET_DUMP, route_dump),
    Op::doit(cmd::STATS_GET, &uapi::STATS_GET_DO, stats_get),
    Op::dump(cmd::STATS_GET, &uapi::STATS_GET_DUMP, stats_dump),
    Op::doit(cmd::SERVICE_SET, &uapi::SERVICE_SET_DO, service_set).admin(),
    Op::doit(cmd::ALLOTMENT_SET, &uapi::ALLOTMENT_SET_DO, allotment_set)
        .admin()
        .repeat(uapi::allotment::SHARE),
    Op::doit(cmd::ALLOTMENT_DEL, &uapi::ALLOTMENT_DEL_DO, allotment_del).admin(),
    Op::doit(cmd::ALLOTMENT_GET, &uapi::ALLOTMENT_GET_DO, allotment_get),
    Op::dump(
        cmd::ALLOTMENT_GET,
        &uapi::ALLOTMENT_GET_DUMP,
        allotment_dump,
    )
    .start(allotment_dump_start),
    Op::doit(cmd::MISS_GET, &uapi::MISS_GET_DO, miss_get),
    Op::dump(cmd::MISS_GET, &uapi::MISS_GET_DUMP, miss_dump),
    Op::doit(cmd::MISS_SET, &uapi::MISS_SET_DO, miss_set).admin(),
    Op::doit(cmd::RULE_NEW, &uapi::RULE_NEW_DO, rule_new).admin(),
    Op::doit(cmd::RULE_DEL, &uapi::RULE_DEL_DO, rule_del).admin(),
    Op::doit(cmd::RULE_FLUSH, &uapi::RULE_FLUSH_DO, rule_flush).admin(),
    Op::doit(cmd::RULE_GET, &uapi::RULE_GET_DO, rule_get),
    Op::dump(cmd::RULE_GET, &uapi::RULE_GET_DUMP, rule_dump),
    Op::doit(cmd::TRACE_GET, &uapi::TRACE_GET_DO, trace_get),
    Op::doit(cmd::SERVICE_ZERO, &uapi::SERVICE_ZERO_DO, service_zero).admin(),
]);

pub(crate) static FAMILY: Family = Family::new(uapi::FAMILY, 1, &OPS, &GROUPS);

/// The state of the namespace that the request came from.
fn forwarder(req: &Request<'_>) -> Result<Arc<Forwarder>> {
    STATE
        .get_arc(req.net())
        .ok_or_else(|| req.error(ESRCH, c"the network namespace is going away"))
}

// Endpoints and allotments have the attributes of their service under the same numbers.
const _: () = assert!(uapi::allotment::VIP_ADDR == service::VIP_ADDR);
const _: () = assert!(uapi::allotment::VIP_PORT == service::VIP_PORT);
const _: () = assert!(uapi::allotment::PROTO == service::PROTO);
const _: () = assert!(endpoint::VIP_ADDR == service::VIP_ADDR);
const _: () = assert!(endpoint::VIP_PORT == service::VIP_PORT);
const _: () = assert!(endpoint::PROTO == service::PROTO);

/// What identifies the service in a request about its endpoints.
fn service_key(req: &Request<'_>) -> Result<ServiceKey> {
    service_key_to(req, endpoint::VIP_PORT_LAST)
}

/// The same in any request, with the last of several ports in attribute `last`.
fn service_key_to(req: &Request<'_>, last: u16) -> Result<ServiceKey> {
    let vip = req.require_unicast(service::VIP_ADDR)?;
    let first = req.require_be16(service::VIP_PORT)?;
    let ports = match req.be16(last) {
        None => Ports::one(first),
        Some(port) => Ports::new(first, port)
            .ok_or_else(|| req.bad_attr(EINVAL, last, c"the last port is before the first"))?,
    };
    let proto = req.require_proto(service::PROTO)?;
    Ok(ServiceKey { vip, ports, proto })
}

fn find_service(
    req: &Request<'_>,
    forwarder: &Forwarder,
    key: &ServiceKey,
) -> Result<Arc<Service>> {
    forwarder.service(key).ok_or_else(|| no_service(req))
}

fn no_service(req: &Request<'_>) -> Error {
    req.error(ENOENT, c"no such service")
}

/// What goes wrong when the way to a host is looked for.
fn target(req: &Request<'_>, host: Addr, source: Option<Addr>) -> Result<Arc<Target>> {
    nlb_tunnel::target(req.net(), host, source).map_err(|error| {
        if error == EHOSTUNREACH {
            req.bad_attr(error, endpoint::HOST_ADDR, c"no route to the host")
        } else if error == EADDRNOTAVAIL {
            req.bad_attr(
                error,
                endpoint::SOURCE_ADDR,
                c"source is not an address of this machine",
            )
        } else {
            error
        }
    })
}

fn endpoint_new(req: &Request<'_>) -> Result {
    let forwarder = forwarder(req)?;
    let key = service_key(req)?;
    let host = req.require_unicast(endpoint::HOST_ADDR)?;
    let source = match req.addr(endpoint::SOURCE_ADDR)? {
        Some(_) => Some(req.require_unicast(endpoint::SOURCE_ADDR)?),
        None => None,
    };
    for (addr, id) in [
        (Some(host), endpoint::HOST_ADDR),
        (source, endpoint::SOURCE_ADDR),
    ] {
        if addr.is_some_and(|addr| addr.is_v4() != key.vip.is_v4()) {
            return Err(other_family(req, id));
        }
    }
    let method = forward::method(req, &key, host)?;
    let settings = settings(req, Settings::default())?;
    if host == key.vip {
        return Err(req.bad_attr(
            EINVAL,
            endpoint::HOST_ADDR,
            c"the host's address must not be the VIP",
        ));
    }
    let _lock = forwarder.config.lock();
    let service = find_service(req, &forwarder, &key)?;
    // The one at the service's own port is it, whether that was said or not.
    if service
        .endpoint(host, Some(method.host_port.unwrap_or(0)))
        .is_ok()
    {
        return Err(req.error(EEXIST, c"endpoint exists"));
    }
    forward::check_service(req, &service, method.forward)?;
    let target = forward::target_by(req, method.forward, host, source)?;
    let endpoint = Endpoint::new(target, method, &key.ports, settings)?;
    match service.add_endpoint(endpoint.clone()) {
        Err(EEXIST) => Err(req.error(EEXIST, c"endpoint exists")),
        Err(ENOSPC) => Err(req.error(ENOSPC, c"too many endpoints")),
        Err(error) => Err(error),
        Ok(()) => {
            forwarder.endpoints_changed();
            slow_start::begin(&forwarder, &service);
            notify_endpoint(req.net(), cmd::ENDPOINT_NTF, &service, &endpoint);
            Ok(())
        }
    }
}

/// What a request says of the connections of an endpoint that has had `before`.
fn settings(req: &Request<'_>, before: Settings) -> Result<Settings> {
    let number = |id| req.u32(id);
    let weight = number(endpoint::WEIGHT).unwrap_or(before.weight);
    if weight > MAX_WEIGHT {
        return Err(req.bad_attr(ERANGE, endpoint::WEIGHT, c"at most 65535"));
    }
    let max_routes = number(endpoint::MAX_ROUTES).unwrap_or(before.max_routes);
    let resume_routes = number(endpoint::RESUME_ROUTES).unwrap_or(before.resume_routes);
    if resume_routes > max_routes {
        let id = match req.attr(endpoint::RESUME_ROUTES) {
            Some(_) => endpoint::RESUME_ROUTES,
            None => endpoint::MAX_ROUTES,
        };
        return Err(req.bad_attr(ERANGE, id, c"resume-routes is more than max-routes"));
    }
    Ok(Settings {
        weight,
        state: match number(endpoint::STATE) {
            Some(state) => EndpointState::from_u32(state)
                .ok_or_else(|| req.bad_attr(EINVAL, endpoint::STATE, c"no such state"))?,
            None => before.state,
        },
        max_routes,
        resume_routes,
        backup: number(endpoint::BACKUP).map_or(before.backup, |backup| backup != 0),
    })
}

/// The endpoint that a request names, with its service.
fn find_endpoint(
    req: &Request<'_>,
    forwarder: &Forwarder,
) -> Result<(Arc<Service>, Arc<Endpoint>)> {
    let key = service_key(req)?;
    let host = req.require_unicast(endpoint::HOST_ADDR)?;
    let service = find_service(req, forwarder, &key)?;
    let found = service
        .endpoint(host, req.be16(endpoint::HOST_PORT))
        .map_err(|error| not_named(req, error, endpoint::HOST_ADDR))?;
    Ok((service, found))
}

/// Says why the host in attribute `id` is not the name of an endpoint.
fn not_named(req: &Request<'_>, error: Error, id: u16) -> Error {
    req.bad_attr(error, id, not_named_text(error))
}

fn not_named_text(error: Error) -> &'static CStr {
    if error == ENOTUNIQ {
        c"the host has several endpoints: name the port"
    } else {
        c"no such endpoint"
    }
}

fn endpoint_set(req: &Request<'_>) -> Result {
    let forwarder = forwarder(req)?;
    let changes = [
        endpoint::WEIGHT,
        endpoint::STATE,
        endpoint::MAX_ROUTES,
        endpoint::RESUME_ROUTES,
        endpoint::BACKUP,
    ];
    if changes.iter().all(|id| req.attr(*id).is_none()) {
        return Err(req.error(EINVAL, c"nothing to change"));
    }
    let _lock = forwarder.config.lock();
    let (service, endpoint) = find_endpoint(req, &forwarder)?;
    service.set_endpoint(&endpoint, settings(req, endpoint.settings())?)?;
    forwarder.endpoints_changed();
    slow_start::begin(&forwarder, &service);
    if endpoint.is_inactive() {
        forwarder.remove_routes_to(req.net(), &endpoint);
    }
    notify_endpoint(req.net(), cmd::ENDPOINT_NTF, &service, &endpoint);
    Ok(())
}

fn endpoint_del(req: &Request<'_>) -> Result {
    let forwarder = forwarder(req)?;
    let _lock = forwarder.config.lock();
    let (service, endpoint) = find_endpoint(req, &forwarder)?;
    service.remove_endpoint(&endpoint)?;
    forwarder.endpoints_changed();
    forwarder.clients.forget_endpoint(&endpoint);
    notify_endpoint(req.net(), cmd::ENDPOINT_DEL_NTF, &service, &endpoint);
    Ok(())
}

fn endpoint_get(req: &Request<'_>) -> Result {
    let forwarder = forwarder(req)?;
    let (service, endpoint) = find_endpoint(req, &forwarder)?;
    req.reply(|w| fill_endpoint(w, &service, &endpoint))
}

/// The service whose endpoints are to be dumped, `None` for all.
fn endpoint_dump_key(req: &Request<'_>) -> Result<Option<ServiceKey>> {
    let named = [
        endpoint::VIP_ADDR,
        endpoint::VIP_PORT,
        endpoint::VIP_PORT_LAST,
        endpoint::PROTO,
    ];
    if named.iter().all(|id| req.attr(*id).is_none()) {
        return Ok(None);
    }
    service_key(req).map(Some)
}

fn endpoint_dump_start(dump: &mut Dump<'_>) -> Result {
    let req = dump.request();
    let forwarder = forwarder(req)?;
    match endpoint_dump_key(req)? {
        Some(key) => find_service(req, &forwarder, &key).map(|_| ()),
        None => Ok(()),
    }
}

/// Dumps the endpoints of a service from number `next` on. False if the buffer is full.
fn dump_endpoints_of(dump: &mut Dump<'_>, service: &Service, next: &mut u64) -> bool {
    let guard = rcu::read_lock();
    for endpoint in service.endpoints(&guard).iter().skip(*next as usize) {
        if dump
            .put_entry(|w| fill_endpoint(w, service, endpoint))
            .is_break()
        {
            return false;
        }
        *next += 1;
    }
    *next = 0;
    true
}

fn endpoint_dump(dump: &mut Dump<'_>) -> Result {
    let forwarder = forwarder(dump.request())?;
    let key = endpoint_dump_key(dump.request())?;
    // What a chunk shows is of the generation that it is marked with.
    let _lock = forwarder.config.lock();
    dump.set_generation(forwarder.config_generation());
    let [position, next, ..] = dump.state();
    let (mut position, mut next) = (Position(*position), *next);
    if let Some(key) = key {
        if let Some(service) = forwarder.service(&key) {
            dump_endpoints_of(dump, &service, &mut next);
        }
    } else {
        let (mut full, mut done) = (false, false);
        while !done && !full {
            let services = &forwarder.services;
            done = services.scan(&rcu::read_lock(), &mut position, |service| {
                if !dump_endpoints_of(dump, service, &mut next) {
                    full = true;
                    return Scan::Stop;
                }
                Scan::Continue
            });
        }
    }
    let [first, second, ..] = dump.state();
    (*first, *second) = (position.0, next);
    Ok(())
}

/// The connection that a request about a route names.
fn tuple(req: &Request<'_>) -> Result<FourTuple> {
    let proto = req.require_proto(route::PROTO)?;
    let client = req.require_unicast(route::CLIENT_ADDR)?;
    let client_port = req.require_be16(route::CLIENT_PORT)?;
    let vip = req.require_unicast(route::VIP_ADDR)?;
    let vip_port = req.require_be16(route::VIP_PORT)?;
    FourTuple::new(client, client_port, vip, vip_port, proto)
        .ok_or_else(|| other_family(req, route::CLIENT_ADDR))
}

/// Packets stay of the family they are of.
fn other_family(req: &Request<'_>, id: u16) -> Error {
    req.bad_attr(EAFNOSUPPORT, id, c"not of the VIP's address family")
}

fn find_route<'a>(
    req: &Request<'_>,
    forwarder: &'a Forwarder,
    guard: &'a rcu::Guard,
) -> Result<&'a Route> {
    let tuple = tuple(req)?;
    forwarder
        .route_of(&tuple, guard)
        .ok_or_else(|| req.error(ENOENT, c"no such route"))
}

fn route_new(req: &Request<'_>) -> Result {
    let forwarder = forwarder(req)?;
    let tuple = tuple(req)?;
    let host = req.require_unicast(route::HOST_ADDR)?;
    if host.is_v4() != tuple.is_v4() {
        return Err(other_family(req, route::HOST_ADDR));
    }
    // Against the removal of the service.
    let _lock = forwarder.config.lock();
    let service = forwarder
        .service_of(&tuple, &rcu::read_lock())
        .cloned()
        .ok_or_else(|| no_service(req))?;
    if forwarder.route_of(&tuple, &rcu::read_lock()).is_some() {
        return Err(req.error(EEXIST, c"route exists"));
    }
    let port = req.be16(route::HOST_PORT);
    let endpoint = match service.endpoint(host, port) {
        // In the tunnel, a host need not be an endpoint.
        Err(ENOENT) if port.is_none() => None,
        found => Some(found.map_err(|error| not_named(req, error, route::HOST_ADDR))?),
    };
    if endpoint.as_ref().is_some_and(|e| e.is_inactive()) {
        let text = c"the endpoint is inactive";
        return Err(req.bad_attr(EHOSTDOWN, route::HOST_ADDR, text));
    }
    let target = match &endpoint {
        Some(endpoint) => endpoint.target().clone(),
        None => nlb_tunnel::target(req.net(), host, None).map_err(|error| {
            if error == EHOSTUNREACH {
                req.bad_attr(error, route::HOST_ADDR, c"no route to the host")
            } else {
                error
            }
        })?,
    };
    let opened = forwarder.open_route(
        (req.net(), &rcu::read_lock()),
        &tuple,
        &service,
        endpoint.as_ref(),
        &target,
        (RouteOrigin::Manual, Flags::ACK),
    );
    opened.map(drop).map_err(|error| match error {
        NoRoute::FlowId(error) => req.error(error, c"no flow id is free"),
        NoRoute::Table(InsertError::Exists) => req.error(EEXIST, c"route exists"),
        NoRoute::Table(InsertError::Full) => req.error(ENOSPC, c"route table is full"),
        NoRoute::Reply => req.error(EADDRINUSE, c"no port is free"),
        other => other.into(),
    })
}

fn route_del(req: &Request<'_>) -> Result {
    let forwarder = forwarder(req)?;
    let guard = rcu::read_lock();
    let route = find_route(req, &forwarder, &guard)?;
    if !forwarder.remove_route(req.net(), route, RouteEnd::Deleted) {
        return Err(req.error(ENOENT, c"no such route"));
    }
    Ok(())
}

fn route_get(req: &Request<'_>) -> Result {
    let forwarder = forwarder(req)?;
    req.reply(|w| {
        let guard = rcu::read_lock();
        fill_route(w, find_route(req, &forwarder, &guard)?)
    })
}

fn route_dump(dump: &mut Dump<'_>) -> Result {
    let forwarder = forwarder(dump.request())?;
    let table = &forwarder.routes;
    dump.set_generation(table.generation());
    dump.put_table(
        |guard, position, f| table.scan(guard, position, |route| f(route.value())),
        fill_route,
    );
    Ok(())
}

fn stats_get(req: &Request<'_>) -> Result {
    let forwarder = forwarder(req)?;
    req.reply(|w| fill_counters(w, |counter| forwarder.stats.get(counter)))
}

/// Dumps what each CPU has counted.
fn stats_dump(dump: &mut Dump<'_>) -> Result {
    let forwarder = forwarder(dump.request())?;
    dump.put_cpus(|w, cpu| {
        w.put_u32(uapi::stats::CPU, cpu.number())?;
        fill_counters(w, |counter| forwarder.stats.of(cpu, counter))
    });
    Ok(())
}
