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

use serde_json::{
    json,
    Value, //
};

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
        RegisterArgs,
        DEFAULT_SOCKET, //
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
    let say = |socket: &Path, question: Value| ask("nlb-agent", socket, &question);
    match command {
        Some(AppCommand::Register(args)) => {
            say(&args.name.agent.socket, register(args))?;
        }
        Some(AppCommand::Unregister(name)) => {
            let question = json!({ "command": "unregister", "app": name.app });
            say(&name.agent.socket, question)?;
        }
        Some(AppCommand::Health { name, health }) => {
            let question = json!({ "command": "health", "app": name.app, "health": health });
            say(&name.agent.socket, question)?;
        }
        Some(AppCommand::Load { name, load }) => {
            let question = json!({ "command": "load", "app": name.app, "load": load });
            say(&name.agent.socket, question)?;
        }
        Some(AppCommand::Capacity { name, capacity }) => {
            let question = json!({ "command": "capacity", "app": name.app, "capacity": capacity });
            say(&name.agent.socket, question)?;
        }
        Some(AppCommand::Drain { name, state, wait }) => {
            let question = json!({ "command": "drain", "app": name.app, "state": state });
            say(&name.agent.socket, question)?;
            if *wait {
                reached(&name.agent.socket, &name.app, state)?;
            }
        }
        Some(AppCommand::Undo(name)) => {
            let question = json!({ "command": "undo", "app": name.app });
            say(&name.agent.socket, question)?;
        }
        Some(AppCommand::Show {
            app: Some(app),
            agent,
        }) => {
            let question = json!({ "command": "show", "app": app });
            let app = say(&agent.socket, question)?;
            format.list(&[app], COLUMNS)?;
        }
        Some(AppCommand::Show { app: None, agent }) => show(&agent.socket, format)?,
        None => show(Path::new(DEFAULT_SOCKET), format)?,
    }
    Ok(())
}

fn register(args: &RegisterArgs) -> Value {
    json!({
        "command": "register",
        "app": args.name.app,
        "vip": args.vip.to_string(),
        "physical": args.physical,
        "protocol": args.protocol,
        "detail": args.detail,
        "capacity": args.capacity,
        "health": args.health,
    })
}

fn show(socket: &Path, format: Format) -> Outcome {
    let answer = ask("nlb-agent", socket, &json!({ "command": "show" }))?;
    if format.is_json() {
        format.json(&answer)?;
    } else {
        format.list(&list(&answer, "apps"), COLUMNS)?;
    }
    Ok(())
}

/// Waits until the application is in that state everywhere. The agent may be restarted meanwhile, and the application
/// register again.
fn reached(socket: &Path, app: &str, state: &str) -> Outcome {
    let question = json!({ "command": "show", "app": app });
    let mut missing: Option<Instant> = None;
    loop {
        let now = match ask("nlb-agent", socket, &question) {
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
        if cell(&now, "current") == state {
            return Ok(());
        }
        thread::sleep(LOOK);
    }
}
