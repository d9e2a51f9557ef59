// SPDX-License-Identifier: MIT OR Apache-2.0

//! What happened how often.

use std::{
    collections::BTreeMap,
    fmt, //
};

/// Counters by name: of datagrams that were dropped, each by its reason, and of messages. The names are those of
/// [`crate::seal::Error`], [`crate::wire::Error`] and the ones in `Documentation/health-protocol.rst`.
#[derive(Clone, Debug, Default)]
pub struct Counters(BTreeMap<&'static str, u64>);

impl Counters {
    pub(crate) fn add(&mut self, name: &'static str) {
        *self.0.entry(name).or_default() += 1;
    }

    /// How often `name` has happened.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// All that are not zero, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().map(|(name, count)| (*name, *count))
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut space = "";
        for (name, count) in self.iter() {
            write!(f, "{space}{name}={count}")?;
            space = " ";
        }
        Ok(())
    }
}
