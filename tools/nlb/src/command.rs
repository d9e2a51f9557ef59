// SPDX-License-Identifier: MIT OR Apache-2.0

//! What each command does.

mod drain;
mod endpoint;
mod forwarder;
mod mapping;
mod migration;
mod monitor;
mod peer;
mod route;
mod service;
mod stats;

use std::net::{
    IpAddr,
    SocketAddr, //
};

use clap::CommandFactory;

use crate::{
    cli::{
        Cli,
        Object, //
    },
    failure::Failure,
    output::Format, //
};

/// Result of a command.
pub(crate) type Outcome = Result<(), Failure>;

/// Carry out a command.
pub(crate) fn run(object: &Object, format: Format) -> Outcome {
    match object {
        Object::Service { command } => service::run(command.as_ref(), format),
        Object::Endpoint { command } => endpoint::run(command.as_ref(), format),
        Object::Route { command } => route::run(command.as_ref(), format),
        Object::Forwarder { command } => forwarder::run(command.as_ref(), format),
        Object::Mapping { command } => mapping::run(command.as_ref(), format),
        Object::Peer { command } => peer::run(command.as_ref(), format),
        Object::Migration { command } => migration::run(command.as_ref(), format),
        Object::Stats { command } => stats::run(command.as_ref(), format),
        Object::Monitor(args) => monitor::run(args, format),
        Object::Completion { shell } => {
            // Into memory first: the generator panics when it cannot write.
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "nlb", &mut script);
            std::io::Write::write_all(&mut std::io::stdout(), &script)?;
            Ok(())
        }
        Object::Man { directory } => {
            let failed = |error| Failure::Text(format!("{}: {error}", directory.display()));
            std::fs::create_dir_all(directory).map_err(failed)?;
            clap_mangen::generate_to(Cli::command(), directory).map_err(failed)
        }
    }
}

/// Address and port where either may be absent.
fn socket(addr: Option<IpAddr>, port: Option<u16>) -> String {
    match (addr, port) {
        (Some(addr), Some(port)) => SocketAddr::new(addr, port).to_string(),
        (Some(addr), None) => addr.to_string(),
        (None, _) => "-".to_owned(),
    }
}
