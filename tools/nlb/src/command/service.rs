// SPDX-License-Identifier: MIT OR Apache-2.0

//! `nlb service`.

use nlb_netlink::{
    Fwd,
    NewService,
    Service, //
};

use super::Outcome;
use crate::{
    cli::ServiceCommand,
    output::{
        left,
        maybe,
        right,
        Column,
        Format, //
    },
};

const COLUMNS: &[Column<Service>] = &[
    left("SERVICE", |service| service.key().to_string()),
    left("MODE", |service| maybe(service.mode)),
    left("SCHEDULER", |service| maybe(service.scheduler)),
    right("AFFINITY", affinity),
    right("CLASSIFIER", |service| maybe(service.classifier_port)),
    right("ENDPOINTS", |service| maybe(service.endpoints)),
    right("CONNECTIONS", |service| maybe(service.connections)),
    right("PACKETS", |service| maybe(service.packets)),
    right("BYTES", |service| maybe(service.bytes)),
];

/// Seconds, or, if not the whole address counts, seconds and bits, like 300/24.
fn affinity(service: &Service) -> String {
    let whole = if service.vip_addr.is_ipv4() { 32 } else { 128 };
    match (service.affinity_timeout, service.affinity_prefix) {
        (None | Some(0), _) => "-".to_owned(),
        (Some(timeout), Some(prefix)) if prefix != whole => format!("{timeout}/{prefix}"),
        (Some(timeout), _) => timeout.to_string(),
    }
}

pub(super) fn run(command: Option<&ServiceCommand>, format: Format) -> Outcome {
    let mut fwd = Fwd::open()?;
    match command {
        Some(ServiceCommand::Add {
            service,
            mode,
            picking,
            classifier,
        }) => {
            let new = NewService {
                mode: *mode,
                classifier: *classifier,
                picking: picking.into(),
            };
            fwd.service_add(service, &new)?;
        }
        Some(ServiceCommand::Set { service, picking }) => {
            fwd.service_set(service, picking.into())?;
        }
        Some(ServiceCommand::Zero { service }) => fwd.service_zero(service.as_ref())?,
        Some(ServiceCommand::Del { service }) => fwd.service_del(service)?,
        Some(ServiceCommand::Show {
            service: Some(service),
        }) => format.list(&[fwd.service(service)?], COLUMNS)?,
        Some(ServiceCommand::Show { service: None }) | None => {
            format.list(&fwd.services()?, COLUMNS)?;
        }
    }
    Ok(())
}
