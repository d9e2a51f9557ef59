// SPDX-License-Identifier: MIT OR Apache-2.0

//! What nlb's daemons share: configuration files that say where they are wrong, keys, the sockets of the
//! health-and-load protocol, local sockets for requests and for what happens, metrics, what restarts must not lose, and what programs
//! say about themselves.

#![forbid(unsafe_code)]

pub mod api;
pub mod config;
pub mod feed;
pub mod keys;
pub mod life;
pub mod metrics;
pub mod papers;
pub mod state;
pub mod udp;
