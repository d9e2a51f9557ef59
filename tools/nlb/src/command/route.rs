// SPDX-License-Identifier: MIT OR Apache-2.0

//! `nlb route`.

use std::net::IpAddr;

use nlb_netlink::{
    EndpointId,
    Error,
    Fwd,
    Route,
    ServiceKey, //
};

use super::{
    connection,
    socket,
    Outcome, //
};
use crate::{
    cli::RouteCommand,
    output::{
        left,
        maybe,
        milliseconds,
        right,
        Column,
        Format, //
    },
    prefix::Prefix,
};

const ENOENT: i32 = 2;

const COLUMNS: &[Column<Route>] = &[
    left("CLIENT", |route| route.key().client.to_string()),
    left("SERVICE", |route| route.key().service().to_string()),
    left("HOST", |route| socket(route.host_addr, route.host_port)),
    left("FORWARDER", |route| {
        socket(route.forwarder_addr, route.forwarder_port) //
    }),
    left("FLOW-ID", way),
    left("STATE", |route| maybe(route.state)),
    left("ORIGIN", |route| maybe(route.origin)),
    right("EXPIRES", |route| milliseconds(route.expires)),
    right("PACKETS", |route| maybe(route.packets)),
    right("BYTES", |route| maybe(route.bytes)),
];

/// The flow id, or how packets get to the host without one.
fn way(route: &Route) -> String {
    match route.flow_id {
        Some(id) => id.to_string(),
        None => maybe(route.forward),
    }
}

pub(super) fn run(command: Option<&RouteCommand>, format: Format) -> Outcome {
    let mut fwd = Fwd::open()?;
    match command {
        Some(RouteCommand::Add {
            service,
            client,
            host,
            port,
        }) => {
            let endpoint = EndpointId::new(*host, *port);
            fwd.route_add(&connection(service, *client)?, endpoint)?;
        }
        Some(RouteCommand::Del { service, client }) => {
            fwd.route_del(&connection(service, *client)?)?
        }
        Some(RouteCommand::Show {
            service: Some(service),
            client: Some(client),
            from: None,
            host: None,
            port: None,
        }) if service.socket().is_some() => {
            format.list(&[fwd.route(&connection(service, *client)?)?], COLUMNS)?;
        }
        Some(RouteCommand::Show {
            service,
            client,
            from,
            host,
            port,
        }) => {
            let mut routes = select(fwd.routes()?, service.as_ref(), *from, (*host, *port));
            routes.retain(|route| client.is_none_or(|client| route.key().client == client));
            format.list(&routes, COLUMNS)?;
        }
        Some(RouteCommand::Flush {
            service,
            from,
            host,
            port,
        }) => {
            for route in select(fwd.routes()?, service.as_ref(), *from, (*host, *port)) {
                match fwd.route_del(&route.key()) {
                    // It expired meanwhile.
                    Err(Error::Refused(refusal)) if refusal.errno == ENOENT => {}
                    other => other?,
                }
            }
        }
        None => format.list(&fwd.routes()?, COLUMNS)?,
    }
    Ok(())
}

/// The routes that were asked for.
fn select(
    mut routes: Vec<Route>,
    of: Option<&ServiceKey>,
    from: Option<Prefix>,
    (host, port): (Option<IpAddr>, Option<u16>),
) -> Vec<Route> {
    routes.retain(|route| {
        let is_of = |of: &ServiceKey| {
            of.vip == route.vip_addr && of.ports.contains(route.vip_port) && of.proto == route.proto
        };
        of.is_none_or(is_of)
            && from.is_none_or(|from| from.contains(route.client_addr))
            && host.is_none_or(|host| route.host_addr == Some(host))
            && port.is_none_or(|port| route.host_port == Some(port))
    });
    routes
}
