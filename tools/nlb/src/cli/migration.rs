// SPDX-License-Identifier: MIT OR Apache-2.0

//! The grammar of `nlb migration`.

use std::net::{
    IpAddr,
    SocketAddr, //
};

use clap::{
    Args,
    Subcommand, //
};
use nlb_netlink::Role;

use super::{
    names,
    ReadArg, //
};
use crate::prefix::Filter;

/// Commands of `migration`.
#[derive(Subcommand)]
pub(crate) enum MigrationCommand {
    /// Hand a connection to a peer, named by a process's socket or by its addresses
    #[command(
        override_usage = "nlb migration start {pid PID fd FD | client ADDR:PORT vip ADDR:PORT} to ADDR [read {N|all}] [timeout MS]"
    )]
    #[command(group = clap::ArgGroup::new("what").args(["pid", "client"]).required(true))]
    Start {
        /// Process that has the socket
        #[arg(long, value_parser = clap::value_parser!(i32).range(1..), requires = "fd")]
        pid: Option<i32>,
        /// Its file descriptor there
        #[arg(long, value_parser = clap::value_parser!(i32).range(0..), requires = "pid")]
        fd: Option<i32>,
        /// Address and port of the client
        #[arg(long, value_name = "ADDR:PORT", requires = "vip")]
        client: Option<SocketAddr>,
        /// Virtual IP address and port
        #[arg(long, value_name = "ADDR:PORT", requires = "client")]
        vip: Option<SocketAddr>,
        /// Address of the peer
        #[arg(long, value_name = "ADDR")]
        to: IpAddr,
        /// Bytes, of the last that the process has read, that go along: a number, or all
        #[arg(long, value_name = "N|all")]
        read: Option<ReadArg>,
        /// How long to wait for each answer, in milliseconds; 2000 when left out
        #[arg(long, value_name = "MS")]
        timeout: Option<u32>,
    },
    /// Hand all connections of a service to peers, until none is left that can be moved
    ///
    /// Prints how many were moved, stayed (by reason) and were reset, and ends with status 0 if
    /// none stayed. Ctrl-C ends it after the migrations that are under way.
    #[command(
        override_usage = "nlb migration drain from VIP:PORT to ADDR... [filter {client=PREFIX,...|client-port=PORT[-PORT],...}]... [jobs N] [timeout MS] [retry S]"
    )]
    Drain(DrainArgs),
    /// Show the migrations under way, the live ones and the last that ended, or one
    #[command(
        visible_aliases = ["list", "ls"],
        override_usage = "nlb migration show [ID [role {origin|target}]]"
    )]
    Show {
        /// Id of the migration
        id: Option<u64>,
        /// Which end this machine is; origin when left out
        #[arg(long, value_parser = names::<Role>(), requires = "id")]
        role: Option<Role>,
    },
}

/// Arguments of `migration drain`.
#[derive(Args)]
pub(crate) struct DrainArgs {
    /// Local address of the connections; 0.0.0.0:PORT is every one with the port
    #[arg(long, value_name = "VIP:PORT")]
    pub(crate) from: SocketAddr,
    /// Address of a peer; of several, each gets its share
    #[arg(long, value_name = "ADDR", required = true, num_args = 1)]
    pub(crate) to: Vec<IpAddr>,
    /// Only those of some clients: client=10.0.0.0/8,192.0.2.1 or client-port=1024-32767; of several filters, those that
    /// all of them name
    #[arg(long, value_name = "client=PREFIX,...", num_args = 1)]
    pub(crate) filter: Vec<Filter>,
    /// Migrations under way at a time, 8192 at most; each is a thread with a netlink socket
    #[arg(
        long,
        value_name = "N",
        default_value_t = 32,
        value_parser = clap::value_parser!(u16).range(1..=8192)
    )]
    pub(crate) jobs: u16,
    /// How long to wait for each answer, in milliseconds; 2000 when left out
    #[arg(long, value_name = "MS")]
    pub(crate) timeout: Option<u32>,
    /// How long to try again a connection whose obstacle may go away, in seconds
    #[arg(long, value_name = "S", default_value_t = 5)]
    pub(crate) retry: u32,
}
