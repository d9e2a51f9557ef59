// SPDX-License-Identifier: MIT OR Apache-2.0

//! `nlb service`.

use nlb_netlink::{
    Fwd,
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
    right("CLASSIFIER", |service| maybe(service.classifier_port)),
    right("ENDPOINTS", |service| maybe(service.endpoints)),
    right("CONNECTIONS", |service| maybe(service.connections)),
    right("PACKETS", |service| maybe(service.packets)),
    right("BYTES", |service| maybe(service.bytes)),
];

pub(super) fn run(command: Option<&ServiceCommand>, format: Format) -> Outcome {
    let mut fwd = Fwd::open()?;
    match command {
        Some(ServiceCommand::Add {
            service,
            mode,
            classifier,
        }) => fwd.service_add(service, *mode, *classifier)?,
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
