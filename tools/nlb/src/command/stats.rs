// SPDX-License-Identifier: MIT OR Apache-2.0

//! `nlb stats`.

use nlb_netlink::{
    Counter,
    Error,
    Fwd,
    Migrator,
    Stats,
    Tunnel, //
};

use super::Outcome;
use crate::{
    cli::StatsCommand,
    output::{
        left,
        right,
        Column,
        Format, //
    },
};

/// A line of the table.
#[derive(serde::Serialize)]
struct Line {
    family: &'static str,
    name: String,
    value: u64,
}

const COLUMNS: &[Column<Line>] = &[
    left("FAMILY", |line| line.family.to_owned()),
    left("COUNTER", |line| line.name.clone()),
    right("VALUE", |line| line.value.to_string()),
];

type Read = fn() -> Result<Stats, Error>;

const MODULES: [(&str, Read); 3] = [
    ("fwd", || Fwd::open()?.stats()),
    ("tunnel", || Tunnel::open()?.stats()),
    ("migrator", || Migrator::open()?.stats()),
];

pub(super) fn run(command: Option<&StatsCommand>, format: Format) -> Outcome {
    let (module, nonzero) = match command {
        Some(StatsCommand::Show { module, nonzero }) => (module.as_deref(), *nonzero),
        None => (None, false),
    };
    let mut all = Vec::new();
    let mut missing = None;
    for (name, read) in MODULES {
        if module.is_some_and(|module| module != name) {
            continue;
        }
        match read() {
            Ok(mut stats) => {
                stats
                    .counters
                    .retain(|counter| !nonzero || counter.value != 0);
                all.push(stats);
            }
            // The first one is the module most machines have.
            Err(error @ Error::FamilyMissing(_)) => missing = missing.or(Some(error)),
            Err(error) => return Err(error.into()),
        }
    }
    match missing {
        Some(error) if all.is_empty() => return Err(error.into()),
        _ => {}
    }
    if format.is_json() {
        format.json(&all)?;
    } else {
        let lines: Vec<_> = all.into_iter().flat_map(lines).collect();
        format.list(&lines, COLUMNS)?;
    }
    Ok(())
}

fn lines(stats: Stats) -> impl Iterator<Item = Line> {
    let family = stats.family;
    let line = move |counter: Counter| Line {
        family,
        name: counter.name,
        value: counter.value,
    };
    stats.counters.into_iter().map(line)
}
