// SPDX-License-Identifier: MIT OR Apache-2.0

//! The grammar of what is about the configuration as a whole.

use std::path::PathBuf;

use clap::Args;

/// Arguments of `save`.
#[derive(Args)]
pub(crate) struct SaveArgs {
    /// File that has the secret of every key, to be named in what is printed
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
}

/// Arguments of `apply`.
#[derive(Args)]
pub(crate) struct ApplyArgs {
    /// The file, as save prints one; - for standard input
    pub(crate) file: PathBuf,
    /// Print the commands that would be run, in their order, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}
