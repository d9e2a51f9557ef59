// SPDX-License-Identifier: MIT OR Apache-2.0

//! The grammar of `nlb health`.

use std::{
    path::PathBuf,
    time::Duration, //
};

use clap::Args;

use super::operation::seconds;

/// Arguments of `health`.
#[derive(Args)]
pub(crate) struct HealthArgs {
    /// Show it again and again, until q is pressed
    #[arg(long, conflicts_with = "events")]
    pub(crate) watch: bool,
    /// Tell what happens, a line each: hosts that come and go, rows that change, endpoints that get another state
    #[arg(long)]
    pub(crate) events: bool,
    /// End after N events
    #[arg(long, value_name = "N", requires = "events")]
    pub(crate) count: Option<u64>,
    /// Seconds between two looks
    #[arg(long, value_name = "S", default_value = "1", value_parser = seconds)]
    pub(crate) interval: Duration,
    /// Socket of nlbd
    #[arg(long, value_name = "PATH", default_value = "/run/nlbd/health")]
    pub(crate) socket: PathBuf,
}
