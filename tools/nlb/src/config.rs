// SPDX-License-Identifier: MIT OR Apache-2.0

//! The configuration of a network namespace as a TOML file: `nlb save` and `nlb apply`.
//!
//! An [`Entry`] is an object in the words of the command line. Files are parsed into entries
//! ([`file`]), the kernel is asked for them ([`machine`]), they are printed ([`print`]), and what
//! leads from some entries to others is a list of commands of this program ([`plan`]). What there is
//! of which kind stands in [`table`], and nowhere else.

pub(crate) mod file;
pub(crate) mod machine;
pub(crate) mod plan;
pub(crate) mod print;
pub(crate) mod table;

#[cfg(test)]
mod tests;

use std::fmt;

use nlb_netlink::ServiceKey;
use table::{
    Change,
    Kind, //
};

/// Line and column of a file, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    line: usize,
    column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// An object that is, or is to be.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    /// Its name, as this program writes it.
    pub(crate) name: String,
    /// Of an endpoint, its port, if that is not its service's, or 0: with the name, what tells it from others.
    pub(crate) port: u16,
    /// Whether there are, or will be, others of its name, so that a command has to say the port.
    shares_name: bool,
    /// All that the kind has, in the order of its table.
    pub(crate) settings: Vec<Setting>,
    /// Keys of a peer, the preferred one first; endpoints of a service.
    pub(crate) parts: Vec<Entry>,
    /// Where it begins, if it is from a file.
    pub(crate) place: Option<Place>,
}

/// One attribute of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) keyword: &'static str,
    /// As this program writes it; `true` for a keyword without value.
    pub(crate) value: Option<String>,
    /// Left out by a file, and whatever it is will do.
    pub(crate) any: bool,
    pub(crate) change: Change,
}

impl Entry {
    /// The value of a setting.
    pub(crate) fn get(&self, keyword: &str) -> Option<&str> {
        let setting = self.settings.iter().find(|own| own.keyword == keyword)?;
        setting.value.as_deref()
    }

    /// What tells it from others of its kind and owner.
    fn id(&self) -> (&str, u16) {
        (&self.name, self.port)
    }

    /// Notes the port of an endpoint of the service `owner`: the service's own is it, said or not.
    fn note_port(&mut self, owner: Option<&str>, port: Option<u16>) {
        let own = owner.and_then(|owner| owner.parse::<ServiceKey>().ok());
        let own = own.and_then(|own| own.socket()).map(|own| own.port());
        self.port = port.filter(|_| port != own).unwrap_or(0);
    }

    /// Its settings as words of the command line.
    fn words(&self) -> Vec<String> {
        self.settings.iter().flat_map(Setting::words).collect()
    }
}

impl Setting {
    /// Keyword and value as words of the command line.
    fn words(&self) -> Vec<String> {
        match self.value.as_deref() {
            None => Vec::new(),
            Some("true") => vec![self.keyword.to_owned()],
            Some(value) if self.keyword == table::BARE => vec![value.to_owned()],
            Some(value) => vec![self.keyword.to_owned(), value.to_owned()],
        }
    }

    /// Whether an object with `self` does not have to change to have `wanted`.
    fn satisfies(&self, wanted: &Self) -> bool {
        wanted.any || wanted.change == Change::Unseen || self.value == wanted.value
    }
}

/// A configuration, and of which kinds it says everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    pub(crate) kinds: Vec<Kind>,
    pub(crate) entries: Vec<Entry>,
}

impl Config {
    /// The entries of a kind.
    pub(crate) fn of(&self, kind: Kind) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.kind == kind)
    }

    /// Name the file that has the secrets of all keys.
    pub(crate) fn name_secrets(&mut self, file: &str) {
        let parts = self.entries.iter_mut().flat_map(|entry| &mut entry.parts);
        for setting in parts.flat_map(|part| &mut part.settings) {
            if setting.keyword == "secret-file" {
                setting.value = Some(file.to_owned());
            }
        }
    }
}
