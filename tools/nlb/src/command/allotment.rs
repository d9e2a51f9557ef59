// SPDX-License-Identifier: MIT OR Apache-2.0

//! `nlb allotment`.

use nlb_netlink::{
    Allotment,
    Error,
    Fwd,
    NewAllotment,
    ServiceKey, //
};

use super::Outcome;
use crate::{
    cli::AllotmentCommand,
    output::{
        left,
        maybe,
        milliseconds,
        right,
        Column,
        Format, //
    },
};

const ENOENT: i32 = 2;

const COLUMNS: &[Column<Allotment>] = &[
    left("SERVICE", |allotment| allotment.service().to_string()),
    left("SCHEME", |allotment| maybe(allotment.scheme)),
    left("STATE", |allotment| maybe(allotment.state)),
    right("EXPIRES", |allotment| milliseconds(allotment.expires)),
    right("LEFT", |allotment| maybe(allotment.left)),
    left("SHARES", shares),
];

fn shares(allotment: &Allotment) -> String {
    let shares: Vec<_> = allotment
        .shares
        .iter()
        .map(|share| format!("{}={}", share.endpoint(), share.amount))
        .collect();
    shares.join(" ")
}

pub(super) fn run(command: Option<&AllotmentCommand>, format: Format) -> Outcome {
    let mut fwd = Fwd::open()?;
    match command {
        Some(AllotmentCommand::Set {
            service,
            scheme,
            age,
            shares,
        }) => {
            let new = NewAllotment {
                scheme: *scheme,
                age: *age,
                shares: shares.iter().map(|share| share.0.clone()).collect(),
            };
            fwd.allotment_set(service, &new)?;
        }
        Some(AllotmentCommand::Del { service }) => fwd.allotment_del(service)?,
        Some(AllotmentCommand::Show {
            service: Some(service),
        }) => format.list(&[fwd.allotment(service)?], COLUMNS)?,
        Some(AllotmentCommand::Show { service: None }) | None => {
            format.list(&all(&mut fwd)?, COLUMNS)?;
        }
    }
    Ok(())
}

/// Those of all services that have one.
fn all(fwd: &mut Fwd) -> Result<Vec<Allotment>, Error> {
    let keys: Vec<ServiceKey> = fwd
        .services()?
        .iter()
        .map(|service| service.key())
        .collect();
    let mut all = Vec::new();
    for key in keys {
        match fwd.allotment(&key) {
            Ok(allotment) => all.push(allotment),
            // It has none, or is gone itself.
            Err(error) if error.errno() == Some(ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}
