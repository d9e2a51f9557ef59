// SPDX-License-Identifier: MIT OR Apache-2.0

//! `nlb`: configure and watch the nlb kernel modules.

#![forbid(unsafe_code)]

mod cli;
mod command;
mod config;
mod failure;
mod keywords;
mod netns;
mod output;
mod prefix;

use std::process::ExitCode;

use clap::{
    CommandFactory,
    FromArgMatches, //
};

use crate::{
    cli::Cli,
    output::Format, //
};

fn main() -> ExitCode {
    let mut command = Cli::command();
    let args = keywords::expand(&mut command, std::env::args_os());
    let cli = command
        .try_get_matches_from(args)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match cli {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to standard output with status 0, an error to standard error with 2.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let format = match (cli.global.json, cli.global.pretty) {
        (_, true) => Format::Pretty,
        (true, false) => Format::Json,
        (false, false) => Format::Text,
    };
    let outcome = match &cli.global.netns {
        Some(name) => netns::enter(name),
        None => Ok(()),
    };
    match outcome.and_then(|()| command::run(&cli.object, format)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            if format.is_json() {
                eprintln!("{}", failure.json());
            } else {
                eprintln!("Error: {}", failure.text());
            }
            ExitCode::FAILURE
        }
    }
}
