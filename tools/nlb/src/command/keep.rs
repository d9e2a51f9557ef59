// SPDX-License-Identifier: MIT OR Apache-2.0

//! `nlb keep`.

use nlb_netlink::{
    Keep,
    Migrator, //
};

use super::{
    socket,
    Outcome, //
};
use crate::{
    cli::KeepCommand,
    output::{
        left,
        maybe,
        right,
        Column,
        Format, //
    },
};

const COLUMNS: &[Column<Keep>] = &[
    left("VIP", |keep| {
        socket(Some(keep.vip_addr), Some(keep.vip_port))
    }),
    right("BYTES", |keep| maybe(keep.bytes)),
];

pub(super) fn run(command: Option<&KeepCommand>, format: Format) -> Outcome {
    let mut migrator = Migrator::open()?;
    match command {
        Some(KeepCommand::Add { vip, bytes }) => migrator.keep_add(*vip, *bytes)?,
        Some(KeepCommand::Del { vip }) => migrator.keep_del(*vip)?,
        Some(KeepCommand::Show { vip: Some(vip) }) => {
            format.list(&[migrator.keep(*vip)?], COLUMNS)?;
        }
        Some(KeepCommand::Show { vip: None }) | None => {
            format.list(&migrator.keeps()?, COLUMNS)?;
        }
    }
    Ok(())
}
