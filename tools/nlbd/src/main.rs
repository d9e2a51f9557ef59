// SPDX-License-Identifier: MIT OR Apache-2.0

//! `nlbd`: the daemon of a load balancing unit.
//!
//! `nlbd classify` is the classifier of services in mode `peek`: it accepts connections on the VIP,
//! looks at the first HTTP/1.x request without taking it, picks an endpoint by its rules, and asks
//! the kernel to migrate the connection there.
//!
//! `nlbd health` hears from hosts how their applications fare, and tells the forwarder, or a HAProxy, which
//! endpoints get new connections.

#![forbid(unsafe_code)]

mod classify;
mod config;
mod endpoints;
mod health;
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
    CommandFactory,
    Parser,
    Subcommand, //
};
use nlb_daemon::papers;
use std::{
    io,
    path::PathBuf,
    process::ExitCode, //
};

/// Only checked.
const NO_RUN: Option<fn(Config) -> io::Result<()>> = None;
const NO_HEALTH: Option<fn(health::Config) -> io::Result<()>> = None;

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
    /// Hear from hosts about the health and load of their applications, and have the forwarder, or a
    /// HAProxy, send new connections to those that can take them.
    ///
    /// SIGTERM and SIGINT end it, and these go on as they were told last; SIGHUP reads the configuration again
    /// (all but `lbu`, `listen`, `socket`, `metrics`, `state` and `age_limit_ms`), SIGUSR1 logs the counters.
    /// NLBD_LOG sets what is logged.
    Health {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Check a configuration file.
    Check {
        /// That of classify.
        #[arg(long, value_name = "FILE", required_unless_present = "health")]
        config: Option<PathBuf>,
        /// That of health.
        #[arg(long, value_name = "FILE", conflicts_with = "config")]
        health: Option<PathBuf>,
    },
    /// Print a completion script for a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages, of section 8.
    Man {
        /// Folder to write them to.
        directory: PathBuf,
    },
}

fn main() -> ExitCode {
    match Args::parse().command {
        Command::Classify { config } => {
            papers::log("NLBD_LOG");
            let run = |loaded| classify::run(&config, loaded);
            papers::with_config(&config, Config::load(&config), Some(run))
        }
        Command::Health { config } => {
            papers::log("NLBD_LOG");
            let run = |loaded| health::run(&config, loaded);
            papers::with_config(&config, health::Config::load(&config), Some(run))
        }
        Command::Check { config, health } => match (config, health) {
            (Some(path), _) => papers::with_config(&path, Config::load(&path), NO_RUN),
            (None, Some(path)) => {
                papers::with_config(&path, health::Config::load(&path), NO_HEALTH)
            }
            (None, None) => ExitCode::from(2),
        },
        Command::Completion { shell } => papers::completion(Args::command(), shell),
        Command::Man { directory } => papers::manual(Args::command(), &directory),
    }
}
