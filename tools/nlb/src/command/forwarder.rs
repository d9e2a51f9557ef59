// SPDX-License-Identifier: MIT OR Apache-2.0

//! `nlb forwarder`.

use nlb_netlink::{
    Forwarder,
    Tunnel, //
};

use super::Outcome;
use crate::{
    cli::ForwarderCommand,
    output::{
        left,
        maybe,
        right,
        Column,
        Format, //
    },
};

const COLUMNS: &[Column<Forwarder>] = &[
    left("FORWARDER", |forwarder| forwarder.addr.to_string()),
    right("PACKETS", |forwarder| maybe(forwarder.packets)),
    right("BYTES", |forwarder| maybe(forwarder.bytes)),
];

pub(super) fn run(command: Option<&ForwarderCommand>, format: Format) -> Outcome {
    let mut tunnel = Tunnel::open()?;
    match command {
        Some(ForwarderCommand::Add { addr }) => tunnel.forwarder_add(*addr)?,
        Some(ForwarderCommand::Del { addr }) => tunnel.forwarder_del(*addr)?,
        Some(ForwarderCommand::Show { addr: Some(addr) }) => {
            format.list(&[tunnel.forwarder(*addr)?], COLUMNS)?;
        }
        Some(ForwarderCommand::Show { addr: None }) | None => {
            format.list(&tunnel.forwarders()?, COLUMNS)?;
        }
    }
    Ok(())
}
