// SPDX-License-Identifier: MIT OR Apache-2.0

//! Text tables and JSON, from the same objects.

use std::{
    fmt::Display,
    io::{
        self,
        Write, //
    },
};

use serde::Serialize;

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Aligned columns.
    Text,
    /// JSON on one line.
    Json,
    /// JSON with line breaks.
    Pretty,
}

impl Format {
    /// Whether it is for programs.
    pub(crate) fn is_json(self) -> bool {
        self != Self::Text
    }

    /// Print one value as JSON.
    pub(crate) fn json(self, value: &impl Serialize) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match self {
            Self::Pretty => serde_json::to_writer_pretty(&mut out, value)?,
            _ => serde_json::to_writer(&mut out, value)?,
        }
        writeln!(out)?;
        out.flush()
    }

    /// Print one of the events that come as they happen, each on a line, also where line breaks were asked for.
    pub(crate) fn event<T: Serialize>(
        self,
        event: &T,
        line: impl FnOnce(&T) -> String,
    ) -> io::Result<()> {
        if self.is_json() {
            return Self::Json.json(event);
        }
        let mut out = io::stdout().lock();
        writeln!(out, "{}", line(event))?;
        out.flush()
    }

    /// Print a list of objects as a table or as an array.
    pub(crate) fn list<T: Serialize>(self, objects: &[T], columns: &[Column<T>]) -> io::Result<()> {
        if self.is_json() {
            return self.json(&objects);
        }
        let mut out = io::stdout().lock();
        out.write_all(table(objects, columns).as_bytes())?;
        out.flush()
    }
}

/// A column of a table.
pub(crate) struct Column<T> {
    /// Heading.
    pub(crate) name: &'static str,
    /// Numbers stand at the right.
    pub(crate) right: bool,
    /// Text of a cell.
    pub(crate) cell: fn(&T) -> String,
}

/// A column of words.
pub(crate) const fn left<T>(name: &'static str, cell: fn(&T) -> String) -> Column<T> {
    Column {
        name,
        right: false,
        cell,
    }
}

/// A column of numbers.
pub(crate) const fn right<T>(name: &'static str, cell: fn(&T) -> String) -> Column<T> {
    Column {
        name,
        right: true,
        cell,
    }
}

/// Aligned columns with a heading.
pub(crate) fn table<T>(objects: &[T], columns: &[Column<T>]) -> String {
    let head: Vec<_> = columns
        .iter()
        .map(|column| column.name.to_owned())
        .collect();
    let mut rows = vec![head];
    for object in objects {
        rows.push(columns.iter().map(|column| (column.cell)(object)).collect());
    }
    let width = |index: usize| {
        rows.iter()
            .filter_map(|row| row.get(index))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<_> = (0..columns.len())
        .map(|index| width(index).unwrap_or(0))
        .collect();
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for ((cell, column), width) in row.iter().zip(columns).zip(&widths) {
            if column.right {
                line.push_str(&format!("{cell:>width$}  "));
            } else {
                line.push_str(&format!("{cell:<width$}  "));
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// A value that may be absent.
pub(crate) fn maybe<T: Display>(value: Option<T>) -> String {
    match value {
        Some(value) => value.to_string(),
        None => "-".to_owned(),
    }
}

/// Milliseconds for people.
pub(crate) fn milliseconds(value: Option<u64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(ms @ 0..1000) => format!("{ms}ms"),
        Some(ms @ 1000..10_000) => format!("{}.{}s", ms / 1000, ms % 1000 / 100),
        Some(ms) => format!("{}s", ms / 1000),
    }
}

/// Nanoseconds for people.
pub(crate) fn nanoseconds(value: Option<u64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(ns @ 0..1000) => format!("{ns}ns"),
        Some(ns @ 1000..1_000_000) => format!("{}us", ns / 1000),
        Some(ns) => milliseconds(Some(ns / 1_000_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let columns = [
            left("NAME", |(name, _): &(&str, u32)| name.to_string()),
            right("COUNT", |(_, count)| count.to_string()),
        ];
        let rows = [("a-long-name", 7), ("b", 123_456)];
        assert_eq!(
            table(&rows, &columns),
            "NAME          COUNT\na-long-name       7\nb            123456\n"
        );
        assert_eq!(table(&[], &columns), "NAME  COUNT\n");
    }

    #[test]
    fn times_are_short() {
        for (ms, text) in [(0, "0ms"), (999, "999ms"), (1500, "1.5s"), (60_000, "60s")] {
            assert_eq!(milliseconds(Some(ms)), text);
        }
        for (ns, text) in [
            (5, "5ns"),
            (1500, "1us"),
            (2_000_000, "2ms"),
            (1_500_000_000, "1.5s"),
        ] {
            assert_eq!(nanoseconds(Some(ns)), text);
        }
        assert_eq!(nanoseconds(None), "-");
    }
}
