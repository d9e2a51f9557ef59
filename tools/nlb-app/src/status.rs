// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the agent answers.

use crate::{json::Value, Error, Health};

/// Whether an application gets new connections, as far as somebody asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It does, if it is healthy.
    Active,
    /// It does not; those that it has go on.
    Draining,
    /// It does not, and those that it had are cut off.
    Inactive,
}

impl State {
    fn named(name: &str) -> Option<Self> {
        match name {
            "active" => Some(Self::Active),
            "draining" => Some(Self::Draining),
            "inactive" => Some(Self::Inactive),
            _ => None,
        }
    }
}

/// An application as it is in the agent's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The worst that was reported, or found by checks.
    pub health: Health,
    /// Why it is not healthy, in words.
    pub why: Option<String>,
    /// Percent of its capacity, averaged, as load balancing units were told last.
    pub load: u8,
    /// What it can take, 0 to 99.
    pub capacity: u8,
    /// What somebody asks for.
    pub target: State,
    /// What all load balancing units do. When it is [`State::Draining`], no new connection comes any more.
    pub current: State,
    /// It is there because it has registered, and is not one of the agent's configuration file.
    pub is_registered: bool,
}

/// What is in an answer, unless the agent refuses.
pub(crate) fn accepted(line: &str) -> Result<Value, Error> {
    let answer = Value::read(line).ok_or(Error::Answer("it is no line of JSON"))?;
    match answer.get("error").and_then(Value::text) {
        Some(why) => Err(Error::Refused(why.to_owned())),
        None => Ok(answer),
    }
}

impl Status {
    pub(crate) fn read(line: &str) -> Result<Self, Error> {
        let answer = accepted(line)?;
        let text = |name| answer.get(name).and_then(Value::text);
        let read = || {
            // Those of an application that is in no table now, as its unit does not run, are null.
            let health = answer.get("health")?;
            let health = health.text().map_or(Some(Health::Unknown), Health::named);
            let number = |name| Some(answer.get(name)?.plain().unwrap_or(0));
            Some(Self {
                health: health?,
                why: text("why").map(str::to_owned),
                load: number("load")?,
                capacity: number("capacity")?,
                target: State::named(text("target")?)?,
                current: State::named(text("current")?)?,
                is_registered: answer.get("registered")?.plain()?,
            })
        };
        read().ok_or(Error::Answer("it is no application"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_may_be_in_no_table() {
        let line = r#"{"app": "web", "id": null, "health": null, "why": "unit web.service is inactive (dead)",
            "load": null, "capacity": null, "target": "draining", "current": "draining", "registered": false}"#;
        let status = Status::read(line).unwrap();
        assert_eq!(
            (status.health, status.load, status.capacity),
            (Health::Unknown, 0, 0)
        );
        assert_eq!(
            status.why.as_deref(),
            Some("unit web.service is inactive (dead)")
        );
        for line in [r#"{"health": "fine"}"#, r#"{"error": "no"}"#, "{}"] {
            assert!(Status::read(line).is_err(), "{line}");
        }
    }
}
