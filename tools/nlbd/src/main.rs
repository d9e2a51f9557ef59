// SPDX-License-Identifier: MIT OR Apache-2.0

//! `nlbd`: the daemon of a load balancing unit.
//!
//! `nlbd classify` is the classifier of services in mode `peek`: it accepts connections on the VIP,
//! looks at the first HTTP/1.x request without taking it, picks an endpoint by its rules, and asks
//! the kernel to migrate the connection there.

#![forbid(unsafe_code)]

mod classify;
mod config;
mod http;
mod migrate;
mod peek;
mod pool;
mod rules;
mod stats;

#[cfg(test)]
mod tests;

use crate::config::Config;
use clap::{
    Parser,
    Subcommand, //
};
use std::{
    io::IsTerminal,
    path::PathBuf,
    process::ExitCode, //
};
use tracing_subscriber::EnvFilter;

/// Daemon of an nlb load balancing unit.
#[derive(Parser)]
#[command(version, about, max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Accept connections on the VIP, peek at the first request, migrate to an endpoint.
    ///
    /// SIGTERM and SIGINT end it, SIGHUP reads the configuration again (all but `listen`,
    /// `max_connections` and `workers`), SIGUSR1 logs the counters. The environment variable
    /// NLBD_LOG sets what is logged: error, warn, info, debug.
    Classify {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Check a configuration file.
    Check {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let (path, run) = match &args.command {
        Command::Classify { config } => (config, true),
        Command::Check { config } => (config, false),
    };
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("Error: {error}");
            return ExitCode::from(2);
        }
    };
    if !run {
        println!("{}: no mistakes", path.display());
        return ExitCode::SUCCESS;
    }
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::try_from_env("NLBD_LOG").unwrap_or_else(|_| EnvFilter::new("info")),
        )
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
    match classify::run(path, config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}
