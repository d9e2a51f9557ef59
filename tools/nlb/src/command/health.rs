// SPDX-License-Identifier: MIT OR Apache-2.0

//! `nlb health`.

use std::{
    io::{
        self,
        IsTerminal, //
    },
    sync::{
        atomic::{
            AtomicBool,
            Ordering, //
        },
        Arc, //
    },
    time::Instant,
};

use serde_json::{
    json,
    Value, //
};
use signal_hook::consts::{
    SIGHUP,
    SIGINT,
    SIGTERM, //
};

use super::{
    local::{
        ask,
        cell,
        list, //
    },
    screen::{
        Key,
        Screen, //
    },
    Outcome,
};
use crate::{
    cli::HealthArgs,
    failure::Failure,
    output::{
        left,
        right,
        table,
        Column,
        Format, //
    },
};

const COLUMNS: &[Column<Value>] = &[
    left("HOST", |row| match cell(row, "name").as_str() {
        "-" => cell(row, "host"),
        name => name.to_owned(),
    }),
    left("VIP", |row| cell(row, "vip")),
    left("PHYSICAL", |row| cell(row, "physical")),
    left("PROTOCOL", |row| cell(row, "protocol")),
    left("DETAIL", |row| cell(row, "detail")),
    left("HEALTH", |row| cell(row, "health")),
    right("LOAD", |row| cell(row, "load")),
    right("CAPACITY", |row| cell(row, "capacity")),
    left("TARGET", |row| cell(row, "target")),
    left("CURRENT", |row| cell(row, "current")),
    left("STATE", |row| match row.get("panic") {
        Some(Value::Bool(true)) => format!("{} (panic)", cell(row, "state")),
        _ => cell(row, "state"),
    }),
    right("WEIGHT", |row| cell(row, "weight")),
];

pub(super) fn run(args: &HealthArgs, format: Format) -> Outcome {
    let is_terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
    if args.watch && is_terminal && !format.is_json() {
        return watch(args);
    }
    let answer = look(args)?;
    if format.is_json() {
        return Ok(format.json(&answer)?);
    }
    format.list(&lines(&answer), COLUMNS)?;
    if let Some(trouble) = trouble(&answer) {
        eprintln!("Warning: {trouble}");
    }
    Ok(())
}

fn look(args: &HealthArgs) -> Result<Value, Failure> {
    ask("nlbd health", &args.socket, &json!({ "command": "show" }))
}

/// The rows, and behind them those of which nothing is known any more.
fn lines(answer: &Value) -> Vec<Value> {
    let mut lines = list(answer, "rows");
    for mut stale in list(answer, "stale") {
        if let Some(row) = stale.as_object_mut() {
            row.insert("health".to_owned(), "stale".into());
        }
        lines.push(stale);
    }
    lines
}

fn trouble(answer: &Value) -> Option<String> {
    Some(answer.get("trouble")?.as_str()?.to_owned())
}

/// Shows it until somebody has seen enough.
fn watch(args: &HealthArgs) -> Outcome {
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&ended))?;
    }
    let mut answer = look(args)?;
    // Why nothing newer is shown: it may be there again.
    let mut missing = None;
    let screen = Screen::open()?;
    let head = format!(
        "nlb health: every {} s; (q)uit",
        args.interval.as_secs_f64()
    );
    while !ended.load(Ordering::Relaxed) {
        let mut text = table(&lines(&answer), COLUMNS);
        if let Some(trouble) = trouble(&answer) {
            text.push_str(&format!("\n{trouble}\n"));
        }
        if let Some(missing) = &missing {
            text.push_str(&format!("\n{missing}\n"));
        }
        screen.show(&head, &text)?;
        let due = Instant::now() + args.interval;
        loop {
            match screen.key(due.saturating_duration_since(Instant::now()))? {
                Key::End | Key::Letter('q' | 'Q') => return Ok(()),
                _ if Instant::now() >= due || ended.load(Ordering::Relaxed) => break,
                _ => {}
            }
        }
        missing = match look(args) {
            Ok(now) => {
                answer = now;
                None
            }
            Err(failure) => Some(failure.text()),
        };
    }
    Ok(())
}
