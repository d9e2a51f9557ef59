// SPDX-License-Identifier: MIT OR Apache-2.0

//! Questions to daemons on this machine: a line of JSON over a socket, and one back.

use std::{
    fmt::Display,
    path::Path,
    time::Duration, //
};

use nlb_app::{
    Connection,
    Error, //
};
use serde_json::Value;

use crate::failure::Failure;

/// How long a daemon may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A daemon that was asked something.
pub(super) struct Daemon<'a> {
    name: &'a str,
    path: &'a Path,
    connection: Connection,
}

/// The answer of the daemon `name`, which listens at `path`, and the daemon, which may say more.
pub(super) fn begin<'a>(
    name: &'a str,
    path: &'a Path,
    question: impl Display,
) -> Result<(Value, Daemon<'a>), Failure> {
    let connection = Connection::open(path, TIMEOUT);
    let connection = connection.map_err(|error| failure(name, path, error))?;
    let mut daemon = Daemon {
        name,
        path,
        connection,
    };
    let line = daemon.connection.ask(question);
    Ok((daemon.value(line)?, daemon))
}

/// The answer of the daemon `name`, which listens at `path`.
pub(super) fn ask(name: &str, path: &Path, question: impl Display) -> Result<Value, Failure> {
    begin(name, path, question).map(|(answer, _)| answer)
}

impl Daemon<'_> {
    /// What it says next.
    pub(super) fn listen(&mut self) -> Result<Value, Failure> {
        let line = self.connection.listen();
        self.value(line)
    }

    fn value(&self, line: Result<String, Error>) -> Result<Value, Failure> {
        let line = line.map_err(|error| failure(self.name, self.path, error))?;
        let value: Result<Value, _> = serde_json::from_str(&line);
        let value = value.map_err(|_| failed(self.name, self.path, &"no answer"))?;
        match value.get("error").and_then(Value::as_str) {
            Some(error) => Err(Failure::Text(error.to_owned())),
            None => Ok(value),
        }
    }
}

fn failure(name: &str, path: &Path, error: Error) -> Failure {
    match error {
        Error::Agent { source, .. } => failed(name, path, &source),
        Error::Timeout { .. } => failed(name, path, &"no answer"),
        other => Failure::Text(other.to_string()),
    }
}

fn failed(name: &str, path: &Path, what: &dyn Display) -> Failure {
    let path = path.display();
    Failure::Text(format!("{name} at {path}: {what}; does it run here?"))
}

/// A member of an object as a cell of a table.
pub(super) fn cell(object: &Value, member: &str) -> String {
    match object.get(member) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) if text.is_empty() => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// The objects of a list.
pub(super) fn list(answer: &Value, member: &str) -> Vec<Value> {
    let list = answer.get(member).and_then(Value::as_array);
    list.cloned().unwrap_or_default()
}
