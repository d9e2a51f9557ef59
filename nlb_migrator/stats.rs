// SPDX-License-Identifier: GPL-2.0

//! What a namespace counts, per CPU.

use nlb::net::socket::auth;

/// What sockets have counted of `counter`, if it is one of theirs.
pub(crate) fn of_auth(counters: &auth::Counters, counter: Counter) -> u64 {
    match counter {
        Counter::Verified => counters.good,
        Counter::DropBadMac => counters.bad,
        Counter::DropUnknownKey => counters.unknown_key,
        Counter::DropUnsigned => counters.unsigned,
        _ => 0,
    }
}

nlb::counters! {
    /// Connections that live at a target now or did.
    OutActive = "out-active",
    /// Of them, those that ended there.
    OutClosed = "out-closed",
    /// Migrations the target refused.
    OutRefused = "out-refused",
    /// Migrations rolled back here.
    OutAborted = "out-aborted",
    /// Connections reset because nobody knew who owned them.
    OutReset = "out-reset",
    /// Migrate requests refused before anything changed.
    OutRejected = "out-rejected",
    /// Times a COMMIT was repeated: no answer had come, or none could have come about a connection's
    /// end.
    CommitsRepeated = "commits-repeated",
    /// Connections taken over.
    InActive = "in-active",
    /// Of them, those that ended.
    InClosed = "in-closed",
    /// Migrations refused as a target.
    InRefused = "in-refused",
    /// Migrations prepared and then dropped.
    InAborted = "in-aborted",
    /// Records received whole.
    RecordsIn = "records-in",
    /// Records sent.
    RecordsOut = "records-out",
    /// Records that fit no state: late, doubled, out of order.
    RecordsIgnored = "records-ignored",
    /// Records that did not parse; each closed a connection.
    BadRecords = "bad-records",
    /// Connections to the port from others than peers.
    StrangersRejected = "drop-not-peer",
    /// Connections that had waited while the peer's keys changed.
    StaleRejected = "drop-old-key",
    /// Connections from peers above the limit.
    LinksRejected = "drop-too-many-links",
    /// Segments from peers whose signature was verified.
    Verified = "segments-verified",
    /// Segments to the port or from peers with a wrong signature.
    DropBadMac = "drop-bad-mac",
    /// Segments to the port or from peers signed with a key that is not configured.
    DropUnknownKey = "drop-unknown-key",
    /// Segments without a signature where there has to be one.
    DropUnsigned = "drop-unsigned",
    /// Early packets held.
    Held = "held",
    /// Early packets delivered after the injection.
    HeldDelivered = "held-delivered",
    /// Early packets above the number per connection.
    DropHoldPackets = "drop-hold-packets",
    /// Early packets above the bytes per connection.
    DropHoldBytes = "drop-hold-bytes",
    /// Early packets above the bytes per namespace.
    DropHoldTotal = "drop-hold-total",
    /// Early packets that waited too long.
    DropHoldAge = "drop-hold-age",
    /// Early packets of a migration that ended without the connection.
    DropHoldAborted = "drop-hold-aborted",
    /// Packets of connections whose socket has left here or was reset.
    DropTombstone = "drop-tombstone",
    /// Questions to clients which RST they will take.
    ResetProbes = "reset-probes",
    /// RSTs to clients whose connection nobody knows the owner of.
    ResetsSent = "resets-sent",
    /// Connections for which there was no room for a tombstone.
    TombstonesFull = "tombstones-full",
    /// Packets that waited at the origin's socket when it was closed; the client sends them again.
    DropBacklog = "drop-backlog",
    /// Copies of what was read that would have become longer than the setting says.
    DropKeepBytes = "drop-keep-bytes",
    /// Copies above the bounds of the namespace, or for which there was no memory.
    DropKeepTotal = "drop-keep-total",
    /// Copies of connections from which bytes were read in a way that is not seen, or urgent data.
    DropKeepMissed = "drop-keep-missed",
}

impl Stats {
    /// Adds what a socket has counted that is gone.
    pub(crate) fn add_auth(&self, counters: &auth::Counters) {
        for &counter in Counter::ALL {
            self.add(counter, of_auth(counters, counter));
        }
    }
}
