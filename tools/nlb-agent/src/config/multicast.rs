// SPDX-License-Identifier: MIT OR Apache-2.0

//! Multicast groups of load balancing units.

use nlb_daemon::{
    config::{Mistake, Source},
    udp::{Membership, Multicast, MULTICAST_MAX},
};
use serde::Deserialize;
use std::net::SocketAddr;
use toml::Spanned;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    group: Spanned<SocketAddr>,
    interface: Spanned<String>,
    hops: Option<Spanned<u64>>,
}

/// Each group once, for a datagram leaves by one interface.
pub(super) fn check(source: &Source, entries: &[Entry]) -> Result<Vec<Multicast>, Mistake> {
    let mut all: Vec<Multicast> = Vec::new();
    for entry in entries {
        let to = Membership::check(source, &entry.group, &entry.interface)?;
        let wrong = |what: String| source.mistake(Some(entry.group.span()), what);
        if all.iter().any(|other| other.to.group == to.group) {
            let what = format!(
                "group {} is there twice; choose one for each interface by which there are load balancing units",
                to.group
            );
            return Err(wrong(what));
        }
        if all.len() == MULTICAST_MAX {
            return Err(wrong(format!(
                "there are more than {MULTICAST_MAX} multicast groups; take some out"
            )));
        }
        let hops = source.number("hops", &entry.hops, 1, 1..=255)?;
        all.push(Multicast {
            to,
            hops: u8::try_from(hops).unwrap_or(1),
        });
    }
    Ok(all)
}
