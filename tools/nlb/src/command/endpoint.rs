// SPDX-License-Identifier: MIT OR Apache-2.0

//! `nlb endpoint`.

use nlb_netlink::{
    Endpoint,
    EndpointId,
    Fwd,
    NewEndpoint, //
};

use super::Outcome;
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
        endpoint.id().to_string() //
    }),
    left("VIA", |endpoint| maybe(endpoint.forward)),
    left("SOURCE", |endpoint| maybe(endpoint.source_addr)),
    right("WEIGHT", |endpoint| maybe(endpoint.weight)),
    left("STATE", |endpoint| maybe(endpoint.state)),
    right("ROUTES", |endpoint| maybe(endpoint.routes)),
    right("ACTIVE", |endpoint| maybe(endpoint.active_routes)),
    right("MAX", limits),
    left("BACKUP", |endpoint| maybe(endpoint.backup.map(yes_or_no))),
    right("CONNECTIONS", |endpoint| maybe(endpoint.connections)),
    right("PACKETS", |endpoint| maybe(endpoint.packets)),
    right("BYTES", |endpoint| maybe(endpoint.bytes)),
];

/// The limit of active routes, and, if it has one, that below which it gets some again, like 1000/750.
fn limits(endpoint: &Endpoint) -> String {
    match (endpoint.max_routes, endpoint.resume_routes) {
        (None | Some(0), _) => "-".to_owned(),
        (Some(max), Some(resume @ 1..)) => format!("{max}/{resume}"),
        (Some(max), _) => max.to_string(),
    }
}

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
            port,
            change,
        }) => fwd.endpoint_set(service, EndpointId::new(*host, *port), change.into())?,
        Some(EndpointCommand::Del {
            service,
            host,
            port,
        }) => fwd.endpoint_del(service, EndpointId::new(*host, *port))?,
        Some(EndpointCommand::Show {
            service: Some(service),
            host: Some(host),
            port,
        }) => {
            let endpoint = fwd.endpoint(service, EndpointId::new(*host, *port))?;
            format.list(&[endpoint], COLUMNS)?;
        }
        Some(EndpointCommand::Show { service, .. }) => {
            format.list(&fwd.endpoints(service.as_ref())?, COLUMNS)?;
        }
        None => format.list(&fwd.endpoints(None)?, COLUMNS)?,
    }
    Ok(())
}
