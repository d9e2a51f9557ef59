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
        addr::FourTuple,
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

    fn routes(&self, net: &Net, tuple: &FourTuple) -> bool {
        let guard = rcu::read_lock();
        STATE
            .get(net, &guard)
            .is_some_and(|forwarder| forwarder.route_of(tuple, &guard).is_some())
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
        with_route(net, tuple, flow_id, |forwarder, route| {
            forwarder.remove_route(net, route, RouteEnd::Migration);
        });
    }

    fn closed(&self, net: &Net, tuple: &FourTuple, flow_id: FlowId) {
        with_route(net, tuple, flow_id, |_, route| route.close());
    }

    fn unwatched(&self, net: &Net, tuple: &FourTuple, flow_id: FlowId) {
        with_route(net, tuple, flow_id, |_, route| route.unwatched());
    }
}

/// Calls `f` with the route that sends a connection the way of a flow id, if there is one.
fn with_route(net: &Net, tuple: &FourTuple, flow_id: FlowId, f: impl FnOnce(&Forwarder, &Route)) {
    let guard = rcu::read_lock();
    let Some(forwarder) = STATE.get(net, &guard) else {
        return;
    };
    let route = forwarder
        .route_of(tuple, &guard)
        .filter(|route| route.mapping().flow_id() == Some(flow_id));
    if let Some(route) = route {
        f(forwarder, route);
    }
}
