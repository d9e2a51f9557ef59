// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a program says: manual pages, completions, logs, and that a file is right.

use std::{
    fmt::Display,
    fs,
    io::{self, IsTerminal, Write},
    path::Path,
    process::ExitCode,
};
use tracing_subscriber::EnvFilter;

/// Prints a completion script.
pub fn completion(mut program: clap::Command, shell: clap_complete::Shell) -> ExitCode {
    // Into memory first: the generator panics when it cannot write.
    let mut script = Vec::new();
    let name = program.get_name().to_owned();
    clap_complete::generate(shell, &mut program, name, &mut script);
    said(io::stdout().write_all(&script))
}

/// Writes the manual pages, of section 8.
pub fn manual(program: clap::Command, directory: &Path) -> ExitCode {
    let mut program = program.disable_help_subcommand(true);
    program.build();
    said(fs::create_dir_all(directory).and_then(|()| pages(program, directory)))
}

/// A page of section 8 for a command and for each below it.
fn pages(command: clap::Command, directory: &Path) -> io::Result<()> {
    for below in command.get_subcommands() {
        pages(below.clone(), directory)?;
    }
    clap_mangen::Man::new(command)
        .section("8")
        .generate_to(directory)
        .map(drop)
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

/// With a configuration that was read from `path`, does `run`; checks it only, if that is `None`.
pub fn with_config<T, M: Display>(
    path: &Path,
    config: Result<T, M>,
    run: Option<impl FnOnce(T) -> io::Result<()>>,
) -> ExitCode {
    let config = match config {
        Ok(config) => config,
        Err(mistake) => {
            eprintln!("Error: {mistake}");
            return ExitCode::from(2);
        }
    };
    let Some(run) = run else {
        println!("{}: no mistakes", path.display());
        return ExitCode::SUCCESS;
    };
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Logs to standard error what the environment variable `variable` says, or what is of interest.
pub fn log(variable: &str) {
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::try_from_env(variable).unwrap_or_else(|_| EnvFilter::new("info")),
        )
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .with_target(false)
        .init();
}
