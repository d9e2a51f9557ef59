// SPDX-License-Identifier: MIT OR Apache-2.0

//! Questions to daemons on this machine: a line of JSON over a socket, and one back.

use std::{
    io::{
        BufRead,
        BufReader,
        Write, //
    },
    os::unix::net::UnixStream,
    path::Path,
    time::Duration, //
};

use serde_json::Value;

use crate::failure::Failure;

/// How long a daemon may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The answer of `daemon`, which listens at `path`.
pub(super) fn ask(daemon: &str, path: &Path, question: &Value) -> Result<Value, Failure> {
    let failed = |what: &dyn std::fmt::Display| {
        let path = path.display();
        Failure::Text(format!("{daemon} at {path}: {what}; does it run here?"))
    };
    let talk = || {
        let mut stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        // Who is refused at once hears why, although it cannot write any more.
        let written = writeln!(stream, "{question}");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        if line.is_empty() {
            written?;
        }
        Ok::<_, std::io::Error>(line)
    };
    let line = talk().map_err(|error| failed(&error))?;
    let answer: Value = serde_json::from_str(&line).map_err(|_| failed(&"no answer"))?;
    match answer.get("error").and_then(Value::as_str) {
        Some(error) => Err(Failure::Text(error.to_owned())),
        None => Ok(answer),
    }
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
