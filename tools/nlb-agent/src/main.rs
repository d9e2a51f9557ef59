// SPDX-License-Identifier: MIT OR Apache-2.0

//! `nlb-agent`: the daemon of a host. It keeps the host's health and load table (FIG. 13A of the specification) by what
//! applications report and by checks of its own, and tells load balancing units what changes in it.

#![forbid(unsafe_code)]

mod app;
mod check;
mod config;
mod host;
mod load;
mod metrics;
mod request;
mod run;
mod state;
mod systemd;

#[cfg(test)]
mod tests;

use crate::config::Config;
use clap::{CommandFactory, Parser, Subcommand};
use nlb_daemon::papers;
use std::{path::PathBuf, process::ExitCode};

/// Daemon of a host behind an nlb load balancer.
#[derive(Parser)]
#[command(name = "nlb-agent", version, about, max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Tell load balancing units about health and load of this host's applications.
    ///
    /// SIGTERM and SIGINT end it without a word: to be started again within the age limit changes nothing. SIGUSR2
    /// says goodbye, so that the host gets no new connections, and ends it. SIGHUP reads the configuration again (all
    /// but `host`, `name`, `bind`, the group and its address, `socket`, `metrics`, `state`, `drain_when_failing` and
    /// times), SIGUSR1 logs the counters. The environment variable NLB_AGENT_LOG sets what is logged: error, warn, info,
    /// debug.
    Run {
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
        Command::Run { config } => {
            papers::log("NLB_AGENT_LOG");
            let run = |loaded| run::run(&config, loaded);
            papers::with_config(&config, Config::load(&config), Some(run))
        }
        Command::Check { config } => {
            let checked = Config::load(&config);
            papers::with_config(&config, checked, None::<fn(Config) -> std::io::Result<()>>)
        }
        Command::Completion { shell } => papers::completion(Args::command(), shell),
        Command::Man { directory } => papers::manual(Args::command(), &directory),
    }
}
