// SPDX-License-Identifier: MIT OR Apache-2.0

//! What each command does.

mod allotment;
mod app;
mod apply;
mod doctor;
mod drain;
mod endpoint;
mod forwarder;
mod health;
mod keep;
mod local;
mod mapping;
mod migration;
mod miss;
mod monitor;
mod peer;
mod route;
mod rule;
mod save;
mod screen;
mod service;
mod stats;
mod top;
mod trace;

use std::{
    io,
    net::{
        IpAddr,
        SocketAddr, //
    },
    path::Path, //
};

use clap::CommandFactory;
use nlb_netlink::{
    ConnectionKey,
    ServiceKey, //
};

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
        Object::Allotment { command } => allotment::run(command.as_ref(), format),
        Object::Rule { command } => rule::run(command.as_ref(), format),
        Object::Route { command } => route::run(command.as_ref(), format),
        Object::Miss { command } => miss::run(command.as_ref(), format),
        Object::Forwarder { command } => forwarder::run(command.as_ref(), format),
        Object::Mapping { command } => mapping::run(command.as_ref(), format),
        Object::Peer { command } => peer::run(command.as_ref(), format),
        Object::Keep { command } => keep::run(command.as_ref(), format),
        Object::Migration { command } => migration::run(command.as_ref(), format),
        Object::App { command } => app::run(command.as_ref(), format),
        Object::Health(args) => health::run(args, format),
        Object::Stats { command } => stats::run(command.as_ref(), format),
        Object::Monitor(args) => monitor::run(args, format),
        Object::Save(args) => save::run(args, format),
        Object::Apply(args) => apply::run(args, format),
        Object::Trace(args) => trace::run(args, format),
        Object::Top(args) => top::run(args, format),
        Object::Doctor(args) => doctor::run(args, format),
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
            let mut program = Cli::command().disable_help_subcommand(true);
            program.build();
            man_pages(program, directory).map_err(failed)
        }
    }
}

/// A page of section 8 for a command and for each below it.
fn man_pages(command: clap::Command, directory: &Path) -> io::Result<()> {
    for below in command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
    {
        man_pages(below.clone(), directory)?;
    }
    clap_mangen::Man::new(command)
        .section("8")
        .generate_to(directory)
        .map(drop)
}

/// A client's connection to a port of a service.
fn connection(service: &ServiceKey, client: SocketAddr) -> Result<ConnectionKey, Failure> {
    ConnectionKey::new(service, client).ok_or_else(|| {
        Failure::Text(format!(
            "{service} has several ports; name the one that {client} is connected to"
        ))
    })
}

/// Address and port where either may be absent.
fn socket(addr: Option<IpAddr>, port: Option<u16>) -> String {
    match (addr, port) {
        (Some(addr), Some(port)) => SocketAddr::new(addr, port).to_string(),
        (Some(addr), None) => addr.to_string(),
        (None, _) => "-".to_owned(),
    }
}
