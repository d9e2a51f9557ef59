// SPDX-License-Identifier: MIT OR Apache-2.0

//! `nlb rule`.

use nlb_netlink::{
    Fwd,
    NewRule,
    Rule, //
};

use super::Outcome;
use crate::{
    cli::RuleCommand,
    failure::Failure,
    output::{
        left,
        maybe,
        right,
        Column,
        Format, //
    },
    prefix::Source,
};

const COLUMNS: &[Column<Rule>] = &[
    right("PRIORITY", |rule| rule.priority.to_string()),
    left("ACTION", |rule| maybe(rule.action)),
    left("FROM", |rule| Source::of(rule).to_string()),
    left("TO", |rule| maybe(rule.to())),
    left("PROTO", |rule| maybe(rule.proto)),
    right("PACKETS", |rule| maybe(rule.packets)),
    right("BYTES", |rule| maybe(rule.bytes)),
];

pub(super) fn run(command: Option<&RuleCommand>, format: Format) -> Outcome {
    let mut fwd = Fwd::open()?;
    match command {
        Some(RuleCommand::Add {
            action,
            priority,
            from,
            to,
            proto,
        }) => {
            if to.is_some_and(|to| to.ports.is_some()) && proto.is_some() {
                let what = "proto is for rules without a port, which has a protocol already";
                return Err(Failure::Text(what.to_owned()));
            }
            let new = NewRule {
                priority: *priority,
                action: *action,
                from: from.and_then(|from| from.network()),
                to: *to,
                proto: *proto,
            };
            fwd.rule_add(&new)?;
        }
        Some(RuleCommand::Del { priority }) => fwd.rule_del(*priority)?,
        Some(RuleCommand::Flush) => fwd.rule_flush()?,
        Some(RuleCommand::Show {
            priority: Some(priority),
        }) => format.list(&[fwd.rule(*priority)?], COLUMNS)?,
        Some(RuleCommand::Show { priority: None }) | None => {
            format.list(&fwd.rules()?, COLUMNS)?;
        }
    }
    Ok(())
}

/// A rule in one line.
pub(super) fn line(rule: &Rule) -> String {
    let to = rule.to().map(|to| format!(" to {to}"));
    let proto = match rule.vip_port {
        None => rule.proto.map(|proto| format!(" proto {proto}")),
        Some(_) => None,
    };
    format!(
        "priority {} {} from {}{}{}",
        rule.priority,
        maybe(rule.action),
        Source::of(rule),
        to.unwrap_or_default(),
        proto.unwrap_or_default()
    )
}
