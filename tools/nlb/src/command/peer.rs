// SPDX-License-Identifier: MIT OR Apache-2.0

//! `nlb peer`.

pub(super) mod secret;

use std::net::IpAddr;

use nlb_netlink::{
    Migrator,
    NewKey,
    Peer,
    PeerKey, //
};
use serde::Serialize;

use super::Outcome;
use crate::{
    cli::{
        KeyArgs,
        KeyCommand,
        PeerCommand, //
    },
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
    left("KEYS", keys),
    right("OUT", |peer| maybe(peer.migrations_out)),
    right("IN", |peer| maybe(peer.migrations_in)),
    right("REFUSED", |peer| maybe(peer.refused)),
    right("BAD-RECORDS", |peer| maybe(peer.bad_records)),
];

/// A key of some peer.
#[derive(Serialize)]
struct KeyOf {
    addr: IpAddr,
    #[serde(flatten)]
    key: PeerKey,
}

const KEY_COLUMNS: &[Column<KeyOf>] = &[
    left("PEER", |of| of.addr.to_string()),
    right("ID", |of| of.key.send_id.to_string()),
    right("RECV-ID", |of| of.key.recv_id.to_string()),
    left("ALGORITHM", |of| maybe(of.key.algorithm)),
    left("PREFERRED", |of| {
        let text = if of.key.preferred { "yes" } else { "no" };
        text.to_owned()
    }),
    right("SENDING", |of| maybe(of.key.sending)),
    right("GOOD", |of| maybe(of.key.good)),
    right("BAD", |of| maybe(of.key.bad)),
];

/// The ids of a peer's keys, the preferred one first.
fn keys(peer: &Peer) -> String {
    if peer.unauthenticated {
        return "unauthenticated".to_owned();
    }
    let mut keys: Vec<_> = peer.keys.iter().collect();
    keys.sort_by_key(|key| !key.preferred);
    let ids: Vec<_> = keys.iter().map(|key| key.send_id.to_string()).collect();
    ids.join(",")
}

pub(super) fn run(command: Option<&PeerCommand>, format: Format) -> Outcome {
    match command {
        Some(PeerCommand::Add {
            addr,
            port,
            key,
            details,
            ..
        }) => {
            let add = |key: Option<&NewKey<'_>>| {
                Migrator::open()?.peer_add(*addr, *port, key)?;
                Ok(())
            };
            match (key, details) {
                (Some(id), Some(details)) => with_key(*id, details, |key| add(Some(key)))?,
                // The parser has seen `unauthenticated`.
                _ => add(None)?,
            }
        }
        Some(PeerCommand::Del { addr }) => Migrator::open()?.peer_del(*addr)?,
        Some(PeerCommand::Show { addr }) => format.list(&peers(*addr)?, COLUMNS)?,
        Some(PeerCommand::Key { command }) => return run_key(command.as_ref(), format),
        None => format.list(&peers(None)?, COLUMNS)?,
    }
    Ok(())
}

fn run_key(command: Option<&KeyCommand>, format: Format) -> Outcome {
    let shown = match command {
        Some(KeyCommand::Add { addr, id, details }) => {
            return with_key(*id, details, |key| {
                Migrator::open()?.peer_key_add(*addr, key)?;
                Ok(())
            });
        }
        Some(KeyCommand::Use { addr, id }) => {
            return Ok(Migrator::open()?.peer_key_use(*addr, *id)?);
        }
        Some(KeyCommand::Del { addr, id }) => {
            return Ok(Migrator::open()?.peer_key_del(*addr, *id)?);
        }
        Some(KeyCommand::Show { addr }) => *addr,
        None => None,
    };
    let mut list = Vec::new();
    for peer in peers(shown)? {
        let addr = peer.addr;
        list.extend(peer.keys.into_iter().map(|key| KeyOf { addr, key }));
    }
    Ok(format.list(&list, KEY_COLUMNS)?)
}

/// One peer or all.
fn peers(addr: Option<IpAddr>) -> nlb_netlink::Result<Vec<Peer>> {
    let mut migrator = Migrator::open()?;
    match addr {
        Some(addr) => Ok(vec![migrator.peer(addr)?]),
        None => migrator.peers(),
    }
}

/// Read the secret and hand the whole key on.
fn with_key(id: u8, details: &KeyArgs, run: impl FnOnce(&NewKey<'_>) -> Outcome) -> Outcome {
    let secret = secret::read(&details.secret_file)?;
    run(&NewKey {
        send_id: id,
        recv_id: details.recv_id,
        algorithm: details.algorithm,
        secret: &secret,
    })
}
