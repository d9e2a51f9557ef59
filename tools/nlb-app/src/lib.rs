// SPDX-License-Identifier: MIT OR Apache-2.0

//! An application behind nlb reports to `nlb-agent` on its host that it is there, whether it works, how busy it is and
//! what it can take; load balancing units send it new connections accordingly.
//!
//! ```no_run
//! use nlb_app::{App, Registration};
//! use std::{thread, time::Duration};
//!
//! let mut shop = App::new(Registration::new("shop", "192.0.2.10:80/tcp"));
//! loop {
//!     let load = 42; // busy workers, in percent of all
//!     if let Err(error) = shop.load(load) {
//!         eprintln!("{error}");
//!     }
//!     thread::sleep(Duration::from_secs(5));
//! }
//! ```
//!
//! [`App`] is what programs need. [`Connection`] and [`Request`] are what it is made of: a line of JSON over the agent's
//! local socket, and one back. Everything blocks, for no longer than the timeout for each answer; nothing starts a
//! thread, and nothing but [`App::new`] and its like has to succeed for a program to go on.

#![forbid(unsafe_code)]

mod app;
mod connection;
mod error;
mod json;
mod request;
mod status;

#[cfg(test)]
mod tests;

pub use crate::{
    app::App,
    connection::Connection,
    error::Error,
    request::{Closed, Health, Registration, Request},
    status::{State, Status},
};

/// Where `nlb-agent` listens, if its configuration names no other path.
pub const DEFAULT_SOCKET: &str = "/run/nlb-agent/socket";
