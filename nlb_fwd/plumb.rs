// SPDX-License-Identifier: GPL-2.0

//! Routes for connections that migrate: what `nlb_migrator` finds in `nlb_core`.

use crate::{
    route::Route,
    state::{
        Forwarder,
        STATE, //
    },
    uapi::{
        RouteEnd,
        RouteOrigin, //
    },
    way::Way, //
};
use kernel::{
    prelude::*,
    sync::rcu, //
};
use nlb::{
    errno::EHOSTDOWN,
    net::Net,
    plumb,
    wire::{
        addr::{
            Addr,
            FourTuple, //
        },
        flow_id::FlowId,
        tcp::Flags, //
    },
};

/// The routes of all namespaces.
pub(crate) struct Plumber;

pub(crate) static PLUMBER: Plumber = Plumber;

impl plumb::Plumber for Plumber {
    fn serves(&self, net: &Net, tuple: &FourTuple) -> bool {
        let guard = rcu::read_lock();
        STATE
            .get(net, &guard)
            .is_some_and(|forwarder| forwarder.service_of(tuple, &guard).is_some())
    }

    fn routed_to(&self, net: &Net, tuple: &FourTuple) -> Option<Addr> {
        let guard = rcu::read_lock();
        let route = STATE.get(net, &guard)?.route_of(tuple, &guard)?;
        Some(route.target().host())
    }

    fn plumb(&self, net: &Net, tuple: &FourTuple, flow_id: FlowId) -> Result {
        let guard = rcu::read_lock();
        let forwarder = STATE.get(net, &guard).ok_or(ESRCH)?;
        let service = forwarder.service_of(tuple, &guard).ok_or(ENOENT)?;
        let mapping = nlb_tunnel::mapping(net, flow_id, &guard).ok_or(ENOENT)?;
        if mapping.tuple() != tuple {
            return Err(ENOENT);
        }
        let endpoint = service.endpoint_of_migrations(mapping.target().host());
        // Whoever picks the host need not know of that; the endpoint's state is what hosts are told.
        if endpoint.as_ref().is_some_and(|e| !e.is_active()) {
            return Err(EHOSTDOWN.into());
        }
        // The connection is established, whatever packet comes next.
        let route = Route::new(
            (Way::Tunnel, || mapping.heir()),
            service,
            endpoint.as_ref(),
            RouteOrigin::Migration,
            Flags::ACK,
        )?;
        // First, so that whoever removes the route finds it among the flow ids.
        if !nlb_tunnel::replace(net, mapping, &route) {
            return Err(ENOENT);
        }
        let added = forwarder.add_route(net, &guard, &route);
        if added.is_err() {
            nlb_tunnel::release(net, route.mapping());
        }
        Ok(added?)
    }

    fn unplumb(&self, net: &Net, tuple: &FourTuple, flow_id: FlowId) {
        with_route(
            net,
            tuple,
            |route| goes_by(route, flow_id),
            |forwarder, route| {
                forwarder.remove_route(net, route, RouteEnd::Migration);
            },
        );
    }

    fn returned(&self, net: &Net, tuple: &FourTuple, host: Addr) {
        with_route(
            net,
            tuple,
            |route| leads_to(route, host),
            |forwarder, route| {
                forwarder.remove_route(net, route, RouteEnd::Migration);
            },
        );
    }

    fn closed(&self, net: &Net, tuple: &FourTuple, flow_id: FlowId, host: Addr) {
        let fits = |route: &Route| goes_by(route, flow_id) && leads_to(route, host);
        with_route(net, tuple, fits, |_, route| route.close());
    }

    fn unwatched(&self, net: &Net, tuple: &FourTuple, flow_id: FlowId, host: Addr) {
        let fits = |route: &Route| goes_by(route, flow_id) && leads_to(route, host);
        with_route(net, tuple, fits, |_, route| route.unwatched());
    }

    fn source_to(&self, net: &Net, tuple: &FourTuple, flow_id: FlowId, host: Addr) -> Option<Addr> {
        let mut source = None;
        with_route(
            net,
            tuple,
            |route| goes_by(route, flow_id),
            |_, route| {
                let endpoint = route.service().endpoint_by_tunnel(host);
                source = endpoint.map(|endpoint| endpoint.target().source());
            },
        );
        source
    }

    fn reroute(&self, net: &Net, tuple: &FourTuple, flow_id: FlowId, host: Addr) -> Result {
        let guard = rcu::read_lock();
        let forwarder = STATE.get(net, &guard).ok_or(ESRCH)?;
        let route = forwarder
            .route_of(tuple, &guard)
            .filter(|route| goes_by(route, flow_id))
            .ok_or(ENOENT)?;
        let endpoint = route.service().endpoint_by_tunnel(host).ok_or(ENOENT)?;
        if leads_to(route, host) {
            return Ok(());
        }
        forwarder.reroute(net, route, &endpoint)
    }
}

fn goes_by(route: &Route, flow_id: FlowId) -> bool {
    route.mapping().flow_id() == Some(flow_id)
}

fn leads_to(route: &Route, host: Addr) -> bool {
    route.target().host() == host
}

/// Calls `f` with the route of a connection, if there is one that fits.
fn with_route(
    net: &Net,
    tuple: &FourTuple,
    fits: impl FnOnce(&Route) -> bool,
    f: impl FnOnce(&Forwarder, &Route),
) {
    let guard = rcu::read_lock();
    let Some(forwarder) = STATE.get(net, &guard) else {
        return;
    };
    if let Some(route) = forwarder
        .route_of(tuple, &guard)
        .filter(|route| fits(route))
    {
        f(forwarder, route);
    }
}
