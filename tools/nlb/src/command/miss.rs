// SPDX-License-Identifier: MIT OR Apache-2.0

//! `nlb miss`.

use nlb_netlink::{
    Fwd,
    Miss, //
};

use super::{
    connection,
    Outcome, //
};
use crate::{
    cli::MissCommand,
    output::{
        left,
        maybe,
        milliseconds,
        right,
        Column,
        Format, //
    },
};

const COLUMNS: &[Column<Miss>] = &[
    left("CLIENT", |miss| miss.key().client.to_string()),
    left("SERVICE", |miss| miss.key().service().to_string()),
    left("STATE", |miss| maybe(miss.state)),
    right("AGE", |miss| milliseconds(miss.age)),
    right("HELD", |miss| maybe(miss.held)),
];

pub(super) fn run(command: Option<&MissCommand>, format: Format) -> Outcome {
    let mut fwd = Fwd::open()?;
    match command {
        Some(MissCommand::Set {
            service,
            client,
            state,
        }) => fwd.miss_set(&connection(service, *client)?, *state)?,
        Some(MissCommand::Show) | None => format.list(&fwd.misses()?, COLUMNS)?,
    }
    Ok(())
}
