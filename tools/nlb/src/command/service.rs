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
            scheduler,
            classifier,
        }) => {
            let new = NewService {
                mode: *mode,
                classifier: *classifier,
                scheduler: *scheduler,
            };
            fwd.service_add(service, &new)?;
        }
        Some(ServiceCommand::Set { service, scheduler }) => {
            fwd.service_set(service, *scheduler)?;
        }
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
