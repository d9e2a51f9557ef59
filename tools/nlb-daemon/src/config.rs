// SPDX-License-Identifier: MIT OR Apache-2.0

//! Configuration files in TOML. What is wrong with one is said with file, line and remedy.

use serde::de::DeserializeOwned;
use std::{
    fmt,
    ops::{Range, RangeInclusive},
    path::Path,
    time::Duration,
};
use toml::Spanned;
use tracing::warn;

/// What is wrong with a file, and where.
#[derive(Debug)]
pub struct Mistake(String);

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Mistake {}

/// A text with a name, to point into.
#[derive(Debug)]
pub struct Source {
    name: String,
    text: String,
}

impl Source {
    /// The text of a file called `name`.
    pub fn new(name: &str, text: &str) -> Self {
        Self {
            name: name.to_owned(),
            text: text.to_owned(),
        }
    }

    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, Mistake> {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Self { name, text }),
            Err(error) => Err(Mistake(format!("cannot read {name}: {error}"))),
        }
    }

    /// What the text says.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Mistake> {
        toml::from_str(&self.text).map_err(|error| self.mistake(error.span(), error.message()))
    }

    /// `what` is wrong, at these bytes.
    pub fn mistake(&self, at: Option<Range<usize>>, what: impl fmt::Display) -> Mistake {
        let Some(range) = at else {
            return Mistake(format!("{}: {what}", self.name));
        };
        let before = self.text.get(..range.start).unwrap_or(&self.text);
        let line = before.matches('\n').count() + 1;
        Mistake(format!("{}:{line}: {what}", self.name))
    }

    /// A number, its default where it is absent.
    pub fn number(
        &self,
        key: &str,
        entry: &Option<Spanned<u64>>,
        default: u64,
        bounds: RangeInclusive<u64>,
    ) -> Result<u64, Mistake> {
        let Some(entry) = entry else {
            return Ok(default);
        };
        let value = *entry.get_ref();
        if bounds.contains(&value) {
            return Ok(value);
        }
        let (least, most) = bounds.into_inner();
        let what = format!("{key} is {value}; choose a number from {least} to {most}");
        Err(self.mistake(Some(entry.span()), what))
    }

    /// The same for a number of milliseconds.
    pub fn milliseconds(
        &self,
        key: &str,
        entry: &Option<Spanned<u64>>,
        default: u64,
        bounds: RangeInclusive<u64>,
    ) -> Result<Duration, Mistake> {
        self.number(key, entry, default, bounds)
            .map(Duration::from_millis)
    }
}

/// A key whose value another reading of a file does not change, and the value.
pub type Fixed = (&'static str, String);

/// Says what of another reading is not taken. Returns how many that are.
pub fn tell_others(old: &[Fixed], new: &[Fixed]) -> usize {
    let others = new.iter().filter(|fixed| !old.contains(fixed));
    let others: Vec<_> = others.map(|(key, _)| *key).collect();
    if !others.is_empty() {
        warn!(
            "what needs a restart stays as it was: {}",
            others.join(", ")
        );
    }
    others.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_restart_is_told() {
        let old = [("host", "1".to_owned()), ("name", "a".to_owned())];
        assert_eq!(tell_others(&old, &old), 0);
        let new = [("host", "1".to_owned()), ("name", "b".to_owned())];
        assert_eq!(tell_others(&old, &new), 1);
    }
}
