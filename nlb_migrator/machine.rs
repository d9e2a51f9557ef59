// SPDX-License-Identifier: GPL-2.0

//! The two state machines of a migration, without a kernel call.
//!
//! What a step does to sockets, routes and the wire is behind a trait ([`OriginOps`],
//! [`TargetOps`]), so that every order of messages can be tried in a test. Together the machines
//! keep one promise: at no instant may both sides transmit, and by the deadline exactly one owns the
//! connection, or the client gets a RST. Documentation/migration.rst has the argument,
//! migration-protocol.rst the tables.
//!
//! ```text
//! origin                                      target
//!   New ── PREPARE ──────────────────────────► (checks) Prepared
//!   Preparing ◄────────────────────── READY ──
//!   plumb, freeze
//!   Frozen ── STATE ─────────────────────────► Staged
//!          ◄───────────────────────── STAGED ──
//!   Committed ── COMMIT ─────────────────────► Active
//!          ◄─────────────────────── INJECTED ──
//!   Active                                      application ends the connection
//!   Closed ◄───────────────────────── CLOSED ── Closed
//! ```
//!
//! COMMIT is the decision: an origin that has not sent it may take the connection back at any time;
//! one that has asks until it knows, and resets the connection if it can never know. An origin that
//! has sent ABORT owns the connection (or has reset it); a target that has answered
//! REFUSED or FAILED does not own it. A record that does not fit the state changes nothing.

pub(crate) mod origin;
pub(crate) mod target;

#[cfg(CONFIG_KUNIT)]
mod tests;

pub(crate) use origin::{Origin, OriginEvent, OriginOps, OriginState};
pub(crate) use target::{Answer, Target, TargetEvent, TargetOps, TargetState};

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It was expected and moved the migration on, or was answered again.
    Taken,
    /// It does not fit the state (late, doubled, out of order); nothing changed.
    Ignored,
}
