// SPDX-License-Identifier: MIT OR Apache-2.0

//! Health and load of the applications behind nlb: what hosts say about their applications, what load balancing
//! units know of it, and the protocol between them (the specification's "Exemplary Health and Load Handling", FIG.
//! 10 to 18; `Documentation/health-protocol.rst` has the bytes and the rules).
//!
//! Nothing here does IO, reads a clock, or sleeps. [`Agent`] is the host's side, [`Lbu`] the load balancing unit's.
//! Whoever has the sockets calls
//!
//! * `handle_datagram(now, from, bytes)` with whatever arrives,
//! * `handle_timeout(now)` when the time of `poll_timeout()` has come,
//! * and after each call of any kind `poll_transmit()` and `poll_event()` until they have nothing more, then
//!   `poll_timeout()`.
//!
//! What arrives is hostile until [`seal`] has found a key that signed it, and may be wrong after that, too:
//! everything that is kept is bounded, and everything that is dropped is counted by its reason ([`Counters`]).

#![forbid(unsafe_code)]

pub mod agent;
pub mod cache;
pub mod counters;
pub mod lbu;
pub mod load;
pub mod row;
pub mod seal;
pub mod table;
pub mod wire;

mod random;

pub use agent::Agent;
pub use counters::Counters;
pub use lbu::Lbu;

use std::{
    net::SocketAddr,
    sync::Arc, //
};

/// A datagram to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to: an address of a machine, or of a multicast group.
    pub to: SocketAddr,
    /// What; at most [`wire::DATAGRAM_MAX`] bytes.
    pub datagram: Arc<[u8]>,
}
