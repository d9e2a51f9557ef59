// SPDX-License-Identifier: MIT OR Apache-2.0

//! A configuration as the text of a file, and as JSON.

use serde_json::{
    Map,
    Value, //
};

use super::{
    table::Kind,
    Config,
    Entry,
    Setting, //
};

/// The text of a file. Keys come without the secrets, which the kernel does not tell.
pub(crate) fn toml(config: &Config) -> String {
    let mut out = format!(
        "# Written by nlb save, version {}\n",
        env!("CARGO_PKG_VERSION")
    );
    for kind in &config.kinds {
        if config.of(*kind).next().is_none() {
            out.push_str(&format!("{} = []\n", kind.shape().table));
        }
    }
    for kind in &config.kinds {
        for entry in config.of(*kind) {
            put(&mut out, entry, "");
        }
    }
    out
}

fn put(out: &mut String, entry: &Entry, owner: &str) {
    let shape = entry.kind.shape();
    let table = format!("{owner}{}", shape.table);
    out.push_str(&format!(
        "\n[[{table}]]\n{} = {}\n",
        shape.name.0,
        value(&entry.name)
    ));
    for Setting {
        keyword,
        value: own,
        ..
    } in &entry.settings
    {
        if let Some(own) = own {
            out.push_str(&format!("{keyword} = {}\n", value(own)));
        } else if *keyword == "secret-file" {
            out.push_str("# secret-file: needed where there is no such key yet\n");
        }
    }
    for part in &entry.parts {
        put(out, part, &format!("{table}."));
    }
}

/// A value; numbers, true and false as they are.
fn value(text: &str) -> String {
    if is_bare(text) {
        return text.to_owned();
    }
    // A string of JSON is one of TOML, but for this character.
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

fn is_bare(text: &str) -> bool {
    text == "true"
        || text
            .parse::<u32>()
            .is_ok_and(|number| number.to_string() == text)
}

/// The same as JSON.
pub(crate) fn json(config: &Config) -> Value {
    let list = |kind: &Kind| config.of(*kind).map(object).collect::<Vec<_>>();
    let lists = config.kinds.iter().map(|kind| {
        let name = kind.shape().table.to_owned();
        (name, Value::from(list(kind)))
    });
    Value::Object(lists.collect())
}

fn object(entry: &Entry) -> Value {
    let shape = entry.kind.shape();
    let mut object = Map::new();
    let value = |text: &str| match text.parse::<u32>() {
        _ if text == "true" => Value::from(true),
        Ok(number) if is_bare(text) => Value::from(number),
        _ => Value::from(text),
    };
    object.insert(shape.name.0.to_owned(), value(&entry.name));
    for setting in &entry.settings {
        if let Some(own) = &setting.value {
            object.insert(setting.keyword.to_owned(), value(own));
        }
    }
    if let Some(part) = shape.part {
        let parts: Vec<_> = entry.parts.iter().map(self::object).collect();
        object.insert(part.shape().table.to_owned(), Value::from(parts));
    }
    Value::Object(object)
}
