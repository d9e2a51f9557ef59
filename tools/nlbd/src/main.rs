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
    CommandFactory,
    Parser,
    Subcommand, //
};
use std::{
    fs,
    io::{
        self,
        IsTerminal,
        Write, //
    },
    path::{
        Path,
        PathBuf, //
    },
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
        Command::Classify { config } => with_config(&config, true),
        Command::Check { config } => with_config(&config, false),
        Command::Completion { shell } => {
            // Into memory first: the generator panics when it cannot write.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "nlbd", &mut script);
            said(io::stdout().write_all(&script))
        }
        Command::Man { directory } => {
            let mut program = Args::command().disable_help_subcommand(true);
            program.build();
            said(fs::create_dir_all(&directory).and_then(|()| man_pages(program, &directory)))
        }
    }
}

/// The status for what may have failed to write.
fn said(outcome: io::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: cannot write: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A page of section 8 for a command and for each below it.
fn man_pages(command: clap::Command, directory: &Path) -> io::Result<()> {
    for below in command.get_subcommands() {
        man_pages(below.clone(), directory)?;
    }
    clap_mangen::Man::new(command)
        .section("8")
        .generate_to(directory)
        .map(drop)
}

/// Checks the configuration and, with `run`, classifies by it.
fn with_config(path: &Path, run: bool) -> ExitCode {
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
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
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
