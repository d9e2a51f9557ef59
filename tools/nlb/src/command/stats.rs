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
    failure::Failure,
    output::{
        left,
        maybe,
        right,
        Column,
        Format, //
    },
};

/// A line of the table.
#[derive(serde::Serialize)]
struct Line {
    family: &'static str,
    cpu: Option<u32>,
    name: String,
    value: u64,
}

const COLUMNS: &[Column<Line>] = &[
    left("FAMILY", |line| line.family.to_owned()),
    left("COUNTER", |line| line.name.clone()),
    right("VALUE", |line| line.value.to_string()),
];

const COLUMNS_BY_CPU: &[Column<Line>] = &[
    left("FAMILY", |line| line.family.to_owned()),
    right("CPU", |line| maybe(line.cpu)),
    left("COUNTER", |line| line.name.clone()),
    right("VALUE", |line| line.value.to_string()),
];

type Read = fn() -> Result<Vec<Stats>, Error>;

const MODULES: [(&str, Read); 3] = [
    ("fwd", || Ok(vec![Fwd::open()?.stats()?])),
    ("tunnel", || Ok(vec![Tunnel::open()?.stats()?])),
    ("migrator", || Ok(vec![Migrator::open()?.stats()?])),
];

const MODULES_BY_CPU: [(&str, Read); 2] = [
    ("fwd", || Fwd::open()?.stats_by_cpu()),
    ("tunnel", || Tunnel::open()?.stats_by_cpu()),
];

pub(super) fn run(command: Option<&StatsCommand>, format: Format) -> Outcome {
    let (module, nonzero, percpu) = match command {
        Some(StatsCommand::Show {
            module,
            nonzero,
            percpu,
        }) => (module.as_deref(), *nonzero, *percpu),
        None => (None, false, false),
    };
    if percpu && module == Some("migrator") {
        let what = "the migrator is not told by processor, only fwd and tunnel";
        return Err(Failure::Text(what.to_owned()));
    }
    let modules: &[_] = if percpu { &MODULES_BY_CPU } else { &MODULES };
    let mut all = Vec::new();
    let mut missing = None;
    for (name, read) in modules {
        if module.is_some_and(|module| module != *name) {
            continue;
        }
        match read() {
            Ok(mut stats) => {
                for stats in &mut stats {
                    stats
                        .counters
                        .retain(|counter| !nonzero || counter.value != 0);
                }
                all.append(&mut stats);
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
        format.list(&lines, if percpu { COLUMNS_BY_CPU } else { COLUMNS })?;
    }
    Ok(())
}

fn lines(stats: Stats) -> impl Iterator<Item = Line> {
    let (family, cpu) = (stats.family, stats.cpu);
    let line = move |counter: Counter| Line {
        family,
        cpu,
        name: counter.name,
        value: counter.value,
    };
    stats.counters.into_iter().map(line)
}
