// SPDX-License-Identifier: MIT OR Apache-2.0

//! A strict reader of Prometheus' text format, for tests, here and (by path) of the daemons: what is not as the
//! conventions have it is a panic.

use std::collections::{BTreeMap, BTreeSet};

/// The samples by name with labels, as they are written.
pub(crate) fn read(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with('\n'));
    let mut samples = BTreeMap::new();
    let mut families = BTreeSet::new();
    let mut family = (String::new(), String::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(help.ends_with('.') && !help.contains('\\'), "{line}");
            let kind = lines.next().unwrap().strip_prefix("# TYPE ").unwrap();
            let kind = kind.strip_prefix(name).unwrap().trim_start();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            // Counters, and nothing else, end with _total; units are those of the base.
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            for unit in ["_ms", "_milliseconds", "_percent", "_kilobytes"] {
                assert!(!name.contains(unit), "{line}");
            }
            assert!(families.insert(name.to_owned()), "{name} is there twice");
            family = (name.to_owned(), kind.to_owned());
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(name.chars().all(is_name), "{line}");
        let suffix = name.strip_prefix(family.0.as_str()).unwrap();
        match family.1.as_str() {
            "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}"),
            _ => assert_eq!(suffix, "", "{line}"),
        }
        labels(&series[name.len()..]);
        let value: f64 = value.parse().unwrap();
        assert!(value.is_finite(), "{line}");
        let old = samples.insert(series.to_owned(), value);
        assert_eq!(old, None, "{series} is there twice");
    }
    samples
}

/// `{name="value",…}`, or nothing.
fn labels(text: &str) {
    if text.is_empty() {
        return;
    }
    let mut rest = text.strip_prefix('{').unwrap();
    let mut names = BTreeSet::new();
    loop {
        let (name, value) = rest.split_once("=\"").unwrap();
        let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
        assert!(!name.is_empty() && name.chars().all(is_name), "{text}");
        assert!(names.insert(name), "{text}");
        let mut chars = value.char_indices();
        let end = loop {
            match chars.next().unwrap() {
                (at, '"') => break at,
                (_, '\\') => assert!(['\\', '"', 'n'].contains(&chars.next().unwrap().1)),
                (_, c) => assert!(!c.is_control(), "{text}"),
            }
        };
        match &value[end + 1..] {
            "}" => return,
            more => rest = more.strip_prefix(',').unwrap(),
        }
    }
}
