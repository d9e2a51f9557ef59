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
        begin,
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
    if args.events {
        return events(args, format);
    }
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
    ask("nlbd health", &args.socket, json!({ "command": "show" }))
}

/// Tells what happens, for ever or so often.
fn events(args: &HealthArgs, format: Format) -> Outcome {
    let question = json!({ "command": "events" });
    let (begin, mut daemon) = begin("nlbd health", &args.socket, question)?;
    // Who waits for events must know from when on none is missed.
    eprintln!("Watching {}", args.socket.display());
    if let Some(trouble) = trouble(&begin) {
        eprintln!("Warning: {trouble}");
    }
    let mut seen = 0;
    while args.count.is_none_or(|count| seen < count) {
        let event = daemon.listen()?;
        seen += 1;
        format.event(&event, line)?;
    }
    Ok(())
}

/// An event in words.
fn line(event: &Value) -> String {
    let of = |member: &str| cell(event, member);
    let host = match of("name").as_str() {
        "-" => of("host"),
        name => name.to_owned(),
    };
    match of("event").as_str() {
        "host" => match of("cause").as_str() {
            "-" => format!("host {host} {}", of("state")),
            cause => format!("host {host} {}: {cause}", of("state")),
        },
        "row" => {
            let members = ["health", "load", "capacity", "target", "current"];
            let told = members.map(|member| (member, of(member)));
            let told = told.iter().filter(|(_, value)| value != "-");
            let told: String = told
                .map(|(name, value)| format!(" {name} {value}"))
                .collect();
            format!(
                "row {} host {host} vip {} physical {}{told}",
                of("change"),
                of("vip"),
                of("physical")
            )
        }
        "endpoint" => format!(
            "endpoint {} {} {}: {}",
            of("service"),
            of("endpoint"),
            of("state"),
            of("cause")
        ),
        "panic" if event.get("panic") == Some(&Value::Bool(true)) => {
            format!("panic {}", of("service"))
        }
        "panic" => format!("panic {} is over", of("service")),
        "trouble" => match trouble(event) {
            Some(trouble) => format!("trouble: {trouble}"),
            None => "trouble is over".to_owned(),
        },
        "lost" => format!(
            "lost {} events: nlbd is faster than this reader",
            of("count")
        ),
        _ => event.to_string(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_in_words() {
        for (event, words) in [
            (
                json!({"event": "host", "host": 1, "name": "a.example", "state": "up"}),
                "host a.example up",
            ),
            (
                json!({"event": "host", "host": 1, "state": "down", "cause": "silent"}),
                "host 1 down: silent",
            ),
            (
                json!({"event": "row", "change": "updated", "host": 1, "name": null, "id": 3,
                    "vip": "192.0.2.10:80/tcp", "physical": "10.0.2.2:80", "protocol": "http",
                    "detail": "", "health": "failing", "load": 0, "capacity": 50,
                    "target": "active", "current": "active"}),
                "row updated host 1 vip 192.0.2.10:80/tcp physical 10.0.2.2:80 \
                    health failing load 0 capacity 50 target active current active",
            ),
            (
                json!({"event": "row", "change": "lost", "host": 1, "id": 3,
                    "vip": "192.0.2.10:80/tcp", "physical": "10.0.2.2:80"}),
                "row lost host 1 vip 192.0.2.10:80/tcp physical 10.0.2.2:80",
            ),
            (
                json!({"event": "endpoint", "balancer": "the forwarder",
                    "service": "192.0.2.10:80/tcp", "endpoint": "10.0.2.2",
                    "state": "draining", "cause": "failing"}),
                "endpoint 192.0.2.10:80/tcp 10.0.2.2 draining: failing",
            ),
            (
                json!({"event": "panic", "service": "192.0.2.10:80/tcp", "panic": true}),
                "panic 192.0.2.10:80/tcp",
            ),
            (
                json!({"event": "panic", "service": "192.0.2.10:80/tcp", "panic": false}),
                "panic 192.0.2.10:80/tcp is over",
            ),
            (
                json!({"event": "trouble", "trouble": "no room"}),
                "trouble: no room",
            ),
            (
                json!({"event": "trouble", "trouble": null}),
                "trouble is over",
            ),
            (
                json!({"event": "lost", "count": 4}),
                "lost 4 events: nlbd is faster than this reader",
            ),
            // Of a newer nlbd.
            (json!({"event": "other"}), "{\"event\":\"other\"}"),
        ] {
            assert_eq!(line(&event), words);
        }
    }
}
