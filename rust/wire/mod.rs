// SPDX-License-Identifier: GPL-2.0

//! Wire formats and the logic that needs no kernel: pure functions on bytes.
//!
//! The same files are a module of the kernel crate `nlb` and, as the Cargo crate `nlb-wire`, a
//! library on the host, where their tests run. Hence the rules of this folder: only `core`, no
//! allocation, paths by `super::`, no `unsafe`.
//!
//! Nothing here panics, whatever the bytes: slices are only read by checked access, arithmetic on
//! numbers off the wire wraps or is checked, and the lints below refuse anything else. A view
//! (`Packet`) over bytes from outside comes only from its `new_checked`.

#![forbid(unsafe_code)]
#![cfg_attr(feature = "crate-root", no_std)]
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

#[cfg(test)]
extern crate std;

pub mod addr;
pub mod carrier;
pub mod checksum;
pub mod control;
pub mod crc32c;
pub mod encap;
pub mod error;
mod field;
pub mod flow_id;
pub mod icmp;
pub mod ipip;
pub mod ipv4;
pub mod ipv6;
pub mod least;
pub mod maglev;
pub mod parse;
pub mod ports;
pub mod prefixes;
pub mod record;
pub mod report;
pub mod seq;
pub mod siphash;
pub mod slow_start;
pub mod sweep;
pub mod tcp;
pub mod tcp_state;
pub mod two;
pub mod udp;
pub mod vectors;
pub mod wrr;
