// SPDX-License-Identifier: MIT OR Apache-2.0

//! `nlb top`.

mod rates;

use std::{
    io::{
        self,
        IsTerminal,
        Write, //
    },
    sync::{
        atomic::{
            AtomicBool,
            Ordering, //
        },
        Arc, //
    },
    thread,
    time::{
        Duration,
        Instant, //
    },
};

use signal_hook::consts::{
    SIGHUP,
    SIGINT,
    SIGTERM, //
};

use super::{
    screen::{
        Key,
        Screen, //
    },
    Outcome,
};
use crate::{
    cli::{
        SortBy,
        TopArgs, //
    },
    output::{
        left,
        maybe,
        right,
        table,
        Column,
        Format, //
    },
};
use rates::{
    Dropped,
    Rates,
    Row,
    Sample, //
};

const ROWS: &[Column<Row>] = &[
    left("SERVICE", |row| match &row.host {
        Some(host) => format!("  {host}"),
        None => row.name.clone(),
    }),
    left("STATE", |row| row.state.clone()),
    right("WEIGHT", |row| maybe(row.weight)),
    right("ACTIVE", |row| maybe(row.active_routes)),
    right("CONN/s", |row| rates::text(row.connections)),
    right("PACKETS/s", |row| rates::text(row.packets)),
    right("BYTES/s", |row| rates::text(row.bytes)),
];

const DROPS: &[Column<Dropped>] = &[
    left("DROPS", |drop| {
        format!("{} drop-{}", drop.family, drop.reason)
    }),
    right("PER-SECOND", |drop| rates::text(drop.rate)),
    right("TOTAL", |drop| drop.total.to_string()),
];

pub(super) fn run(args: &TopArgs, format: Format) -> Outcome {
    let interval = args.interval;
    let is_live = !args.once && !format.is_json();
    if is_live && io::stdout().is_terminal() && io::stdin().is_terminal() {
        return live(args.sort, interval);
    }
    let before = Sample::take()?;
    thread::sleep(interval);
    let rates = Rates::between(&before, &Sample::take()?, args.sort);
    if format.is_json() {
        return Ok(format.json(&rates)?);
    }
    let mut out = io::stdout().lock();
    out.write_all(text(&rates).as_bytes())?;
    Ok(out.flush()?)
}

fn text(rates: &Rates) -> String {
    let mut text = table(&rates.rows, ROWS);
    if !rates.drops.is_empty() {
        text.push('\n');
        text.push_str(&table(&rates.drops, DROPS));
    }
    text
}

/// Show rates until somebody has seen enough.
fn live(mut sort: SortBy, interval: Duration) -> Outcome {
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&ended))?;
    }
    let mut before = Sample::take()?;
    let screen = Screen::open()?;
    screen.show("nlb top: counting; (q)uit", "")?;
    let mut now: Option<Sample> = None;
    let mut due = Instant::now() + interval;
    while !ended.load(Ordering::Relaxed) {
        match screen.key(due.saturating_duration_since(Instant::now()))? {
            Key::None if Instant::now() >= due => {
                let next = Sample::take()?;
                before = now.replace(next).unwrap_or(before);
                due = Instant::now() + interval;
            }
            Key::None => continue,
            Key::End => break,
            Key::Letter('q' | 'Q') => break,
            Key::Letter(letter) => match SortBy::of_letter(letter) {
                Some(chosen) => sort = chosen,
                None => continue,
            },
        }
        if let Some(now) = &now {
            let rates = Rates::between(&before, now, sort);
            let head = format!(
                "nlb top: every {} s, by {}; (n)ame (a)ctive (c)onnections (p)ackets (b)ytes (q)uit",
                interval.as_secs_f64(),
                sort.name()
            );
            screen.show(&head, &text(&rates))?;
        }
    }
    Ok(())
}
