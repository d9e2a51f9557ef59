// SPDX-License-Identifier: MIT OR Apache-2.0

//! `nlb peer`.

use nlb_netlink::{
    Migrator,
    Peer, //
};

use super::Outcome;
use crate::{
    cli::PeerCommand,
    output::{
        left,
        maybe,
        right,
        Column,
        Format, //
    },
};

const COLUMNS: &[Column<Peer>] = &[
    left("PEER", |peer| peer.addr.to_string()),
    right("PORT", |peer| maybe(peer.port)),
    left("STATE", |peer| maybe(peer.state)),
    right("OUT", |peer| maybe(peer.migrations_out)),
    right("IN", |peer| maybe(peer.migrations_in)),
    right("REFUSED", |peer| maybe(peer.refused)),
    right("BAD-RECORDS", |peer| maybe(peer.bad_records)),
];

pub(super) fn run(command: Option<&PeerCommand>, format: Format) -> Outcome {
    let mut migrator = Migrator::open()?;
    match command {
        Some(PeerCommand::Add { addr, port }) => migrator.peer_add(*addr, *port)?,
        Some(PeerCommand::Del { addr }) => migrator.peer_del(*addr)?,
        Some(PeerCommand::Show { addr: Some(addr) }) => {
            format.list(&[migrator.peer(*addr)?], COLUMNS)?;
        }
        Some(PeerCommand::Show { addr: None }) | None => {
            format.list(&migrator.peers()?, COLUMNS)?;
        }
    }
    Ok(())
}
