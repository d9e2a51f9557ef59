// SPDX-License-Identifier: MIT OR Apache-2.0

//! What happened how often.

use std::{
    collections::BTreeMap,
    fmt, //
};

/// Why datagrams are dropped: the names of [`crate::seal::Error`], [`crate::wire::Error`], and of messages that are
/// not for this machine, or not from one that it listens to.
pub const DROPS: [&str; 37] = [
    "body-address",
    "body-age-limit",
    "body-chunk",
    "body-count",
    "body-detail",
    "body-directive",
    "body-generation",
    "body-health",
    "body-id",
    "body-load",
    "body-long",
    "body-member",
    "body-name",
    "body-number",
    "body-operation",
    "body-order",
    "body-part",
    "body-protocol",
    "body-reserved",
    "body-short",
    "body-type",
    "datagram-epoch",
    "datagram-key",
    "datagram-late",
    "datagram-long",
    "datagram-magic",
    "datagram-replay",
    "datagram-reserved",
    "datagram-senders",
    "datagram-short",
    "datagram-tag",
    "datagram-type",
    "datagram-version",
    "message-for-others",
    "message-of-stranger",
    "message-of-the-gone",
    "message-when-leaving",
];

/// Types of messages, each of which has a counter: of those that came, or at load balancing units of the requests for
/// snapshots that were sent.
pub const MESSAGES: [&str; 13] = [
    "changes",
    "consolidated",
    "get-snapshot",
    "goodbye",
    "heard",
    "heard-part",
    "heartbeat",
    "member-heartbeat",
    "passed-on",
    "postulate",
    "postulate-wrong",
    "row-change",
    "snapshot",
];

/// Counters by name: of datagrams that were dropped, each by its reason, and of messages. The names are those of
/// [`crate::seal::Error`], [`crate::wire::Error`] and the ones in `Documentation/health-protocol.rst`.
#[derive(Clone, Debug, Default)]
pub struct Counters(BTreeMap<&'static str, u64>);

impl Counters {
    /// Counts one.
    pub fn add(&mut self, name: &'static str) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// What is documented as a reason to drop is in the list, and nothing else.
    #[test]
    fn drops_are_those_of_the_documentation() {
        let text = include_str!("../../../Documentation/health-protocol.rst");
        let quoted = text.split("``").skip(1).step_by(2);
        let drops: BTreeSet<_> = quoted
            .filter(|name| {
                let kinds = ["body-", "datagram-", "message-"];
                kinds.iter().any(|kind| name.starts_with(kind))
            })
            // It was to be sent.
            .filter(|name| *name != "datagram-not-sent")
            .collect();
        assert_eq!(drops, DROPS.into());
    }
}
