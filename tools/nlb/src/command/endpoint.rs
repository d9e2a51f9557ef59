// SPDX-License-Identifier: MIT OR Apache-2.0

//! `nlb endpoint`.

use nlb_netlink::{
    Endpoint,
    Fwd,
    NewEndpoint, //
};

use super::{
    socket,
    Outcome, //
};
use crate::{
    cli::EndpointCommand,
    output::{
        left,
        maybe,
        right,
        Column,
        Format, //
    },
};

const COLUMNS: &[Column<Endpoint>] = &[
    left("SERVICE", |endpoint| endpoint.service().to_string()),
    left("HOST", |endpoint| {
        socket(Some(endpoint.host_addr), endpoint.host_port) //
    }),
    left("VIA", |endpoint| maybe(endpoint.forward)),
    left("SOURCE", |endpoint| maybe(endpoint.source_addr)),
    right("WEIGHT", |endpoint| maybe(endpoint.weight)),
    left("STATE", |endpoint| maybe(endpoint.state)),
    right("ROUTES", |endpoint| maybe(endpoint.routes)),
    right("ACTIVE", |endpoint| maybe(endpoint.active_routes)),
    right("MAX", |endpoint| {
        maybe(endpoint.max_routes.filter(|max| *max > 0))
    }),
    left("BACKUP", |endpoint| maybe(endpoint.backup.map(yes_or_no))),
    right("CONNECTIONS", |endpoint| maybe(endpoint.connections)),
    right("PACKETS", |endpoint| maybe(endpoint.packets)),
    right("BYTES", |endpoint| maybe(endpoint.bytes)),
];

fn yes_or_no(value: bool) -> &'static str {
    if value {
        "yes"
    } else {
        "no"
    }
}

pub(super) fn run(command: Option<&EndpointCommand>, format: Format) -> Outcome {
    let mut fwd = Fwd::open()?;
    match command {
        Some(EndpointCommand::Add {
            service,
            host,
            via,
            port,
            tun_port,
            tun_csum,
            change,
            source,
        }) => {
            let new = NewEndpoint {
                host: *host,
                forward: *via,
                port: *port,
                tun_port: *tun_port,
                tun_csum: *tun_csum,
                source: *source,
                change: change.into(),
            };
            fwd.endpoint_add(service, &new)?;
        }
        Some(EndpointCommand::Set {
            service,
            host,
            change,
        }) => fwd.endpoint_set(service, *host, change.into())?,
        Some(EndpointCommand::Del { service, host }) => fwd.endpoint_del(service, *host)?,
        Some(EndpointCommand::Show {
            service: Some(service),
            host: Some(host),
        }) => format.list(&[fwd.endpoint(service, *host)?], COLUMNS)?,
        Some(EndpointCommand::Show { service, .. }) => {
            format.list(&fwd.endpoints(service.as_ref())?, COLUMNS)?;
        }
        None => format.list(&fwd.endpoints(None)?, COLUMNS)?,
    }
    Ok(())
}
