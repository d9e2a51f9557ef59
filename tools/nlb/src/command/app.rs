// SPDX-License-Identifier: MIT OR Apache-2.0

//! `nlb app`.

use std::{
    path::Path,
    thread,
    time::{
        Duration,
        Instant, //
    },
};

use nlb_app::{
    Closed,
    Registration,
    Request,
    DEFAULT_SOCKET, //
};
use serde_json::Value;

use super::{
    local::{
        ask,
        cell,
        list, //
    },
    Outcome,
};
use crate::{
    cli::{
        AppCommand,
        NameArgs,
        RegisterArgs, //
    },
    failure::Failure,
    output::{
        left,
        right,
        Column,
        Format, //
    },
};

const COLUMNS: &[Column<Value>] = &[
    left("APP", |app| cell(app, "app")),
    left("VIP", |app| cell(app, "vip")),
    left("PHYSICAL", |app| cell(app, "physical")),
    left("PROTOCOL", |app| cell(app, "protocol")),
    left("DETAIL", |app| cell(app, "detail")),
    left("HEALTH", |app| cell(app, "health")),
    right("LOAD", |app| cell(app, "load")),
    right("CAPACITY", |app| cell(app, "capacity")),
    left("TARGET", |app| cell(app, "target")),
    left("CURRENT", |app| cell(app, "current")),
    left("WHY", |app| cell(app, "why")),
];

/// Between two looks whether something has come to pass.
const LOOK: Duration = Duration::from_millis(200);
/// So long the agent or the application may be away.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn run(command: Option<&AppCommand>, format: Format) -> Outcome {
    let say = |name: &NameArgs, request: Request<'_>| ask("nlb-agent", &name.agent.socket, request);
    match command {
        Some(AppCommand::Register(args)) => {
            say(&args.name, Request::Register(&registration(args)))?;
        }
        Some(AppCommand::Unregister(name)) => {
            say(name, Request::Unregister(&name.app))?;
        }
        Some(AppCommand::Health { name, health }) => {
            say(name, Request::Health(&name.app, *health))?;
        }
        Some(AppCommand::Load { name, load }) => {
            say(name, Request::Load(&name.app, *load))?;
        }
        Some(AppCommand::Capacity { name, capacity }) => {
            say(name, Request::Capacity(&name.app, *capacity))?;
        }
        Some(AppCommand::Drain { name, state, wait }) => {
            say(name, Request::Drain(&name.app, *state))?;
            if *wait {
                reached(name, *state)?;
            }
        }
        Some(AppCommand::Undo(name)) => {
            say(name, Request::Undo(&name.app))?;
        }
        Some(AppCommand::Show {
            app: Some(app),
            agent,
        }) => {
            let app = ask("nlb-agent", &agent.socket, Request::Show(Some(app)))?;
            format.list(&[app], COLUMNS)?;
        }
        Some(AppCommand::Show { app: None, agent }) => show(&agent.socket, format)?,
        None => show(Path::new(DEFAULT_SOCKET), format)?,
    }
    Ok(())
}

fn registration(args: &RegisterArgs) -> Registration {
    Registration {
        physical: args.physical,
        protocol: args.protocol.clone(),
        detail: args.detail.clone(),
        capacity: args.capacity,
        health: args.health,
        // It stays when this program has ended.
        hold: false,
        ..Registration::new(&args.name.app, args.vip.to_string())
    }
}

fn show(socket: &Path, format: Format) -> Outcome {
    let answer = ask("nlb-agent", socket, Request::Show(None))?;
    if format.is_json() {
        format.json(&answer)?;
    } else {
        format.list(&list(&answer, "apps"), COLUMNS)?;
    }
    Ok(())
}

/// Waits until the application is in that state everywhere. The agent may be restarted meanwhile, and the application
/// register again.
fn reached(name: &NameArgs, state: Closed) -> Outcome {
    let (app, state) = (&name.app, state.name());
    let mut missing: Option<Instant> = None;
    let mut gone: Option<Instant> = None;
    loop {
        let now = match ask("nlb-agent", &name.agent.socket, Request::Show(Some(app))) {
            Ok(now) => now,
            Err(failure) => {
                if missing.get_or_insert_with(Instant::now).elapsed() >= PATIENCE {
                    return Err(failure);
                }
                thread::sleep(LOOK);
                continue;
            }
        };
        missing = None;
        if cell(&now, "target") != state {
            let what = format!("somebody wants {app} to be {} now", cell(&now, "target"));
            return Err(Failure::Text(what));
        }
        // Without a row nobody confirms anything: load balancing units may use for a while what they have.
        let is_there = now.get("id").is_some_and(|id| !id.is_null());
        let since = (!is_there).then(|| *gone.get_or_insert_with(Instant::now));
        gone = since;
        if cell(&now, "current") == state && since.is_none_or(|since| since.elapsed() >= PATIENCE) {
            return Ok(());
        }
        thread::sleep(LOOK);
    }
}
