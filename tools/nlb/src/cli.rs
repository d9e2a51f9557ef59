// SPDX-License-Identifier: MIT OR Apache-2.0

//! The grammar: `nlb [OPTIONS] OBJECT COMMAND ...`.
//!
//! Keywords are declared as options; [`crate::keywords`] lets them be written without dashes, as
//! `ip` and `ipvsadm` have it.

mod allotment;
mod app;
mod endpoint;
mod health;
mod keep;
mod migration;
mod miss;
mod operation;
mod peer;
mod rule;
mod service;

pub(crate) use allotment::AllotmentCommand;
pub(crate) use app::{
    AppCommand,
    NameArgs,
    RegisterArgs, //
};
pub(crate) use endpoint::EndpointCommand;
pub(crate) use health::HealthArgs;
pub(crate) use keep::{
    KeepCommand,
    ReadArg, //
};
pub(crate) use migration::{
    DrainArgs,
    MigrationCommand, //
};
pub(crate) use miss::MissCommand;
pub(crate) use operation::{
    ApplyArgs,
    DoctorArgs,
    SaveArgs,
    SortBy,
    TopArgs,
    TraceArgs, //
};
pub(crate) use peer::{
    KeyArgs,
    KeyCommand,
    PeerCommand, //
};
pub(crate) use rule::RuleCommand;
pub(crate) use service::ServiceCommand;

use std::{
    net::{
        IpAddr,
        SocketAddr, //
    },
    path::PathBuf,
    str::FromStr, //
};

use clap::{
    builder::{
        PossibleValuesParser,
        TypedValueParser, //
    },
    Args,
    Parser,
    Subcommand, //
};
use nlb_netlink::{
    Enumeration,
    FlowId,
    MappingSide,
    Proto,
    ServiceKey, //
};

use crate::prefix::Prefix;

/// Configure and watch the nlb load balancer.
///
/// Objects and commands may be shortened, `show` is what happens without a command. Keywords may
/// also be written as options: `weight 3` is `--weight 3`.
///
/// Exit status: 0 done, 1 refused by the kernel or not there, 2 wrong usage.
#[derive(Parser)]
#[command(
    name = "nlb",
    version,
    infer_subcommands = true,
    subcommand_value_name = "OBJECT",
    subcommand_help_heading = "Objects",
    disable_help_subcommand = false
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) object: Object,
}

/// Options of every command.
#[derive(Args)]
pub(crate) struct Global {
    /// Print JSON
    #[arg(short, long, global = true)]
    pub(crate) json: bool,
    /// Print JSON with line breaks
    #[arg(short, long, global = true)]
    pub(crate) pretty: bool,
    /// Work in a network namespace of /var/run/netns
    #[arg(short, long, global = true, value_name = "NAME")]
    pub(crate) netns: Option<String>,
}

/// What the command is about.
#[derive(Subcommand)]
pub(crate) enum Object {
    /// Virtual services: VIP, port and protocol
    Service {
        /// What to do
        #[command(subcommand)]
        command: Option<ServiceCommand>,
    },
    /// Hosts that serve a service
    Endpoint {
        /// What to do
        #[command(subcommand)]
        command: Option<EndpointCommand>,
    },
    /// Which endpoints get the next connections of a service, by health and load
    Allotment {
        /// What to do
        #[command(subcommand)]
        command: Option<AllotmentCommand>,
    },
    /// Whose packets services do not take
    Rule {
        /// What to do
        #[command(subcommand)]
        command: Option<RuleCommand>,
    },
    /// Where the packets of each connection go
    Route {
        /// What to do
        #[command(subcommand)]
        command: Option<RouteCommand>,
    },
    /// Connections without a route that an answer is awaited for
    Miss {
        /// What to do
        #[command(subcommand)]
        command: Option<MissCommand>,
    },
    /// Machines whose tunnel packets are accepted
    Forwarder {
        /// What to do
        #[command(subcommand)]
        command: Option<ForwarderCommand>,
    },
    /// Flow ids and the connections behind them
    Mapping {
        /// What to do
        #[command(subcommand)]
        command: Option<MappingCommand>,
    },
    /// Machines that connections are handed to or taken from
    Peer {
        /// What to do
        #[command(subcommand)]
        command: Option<PeerCommand>,
    },
    /// What programs have read from connections, kept to go with them
    Keep {
        /// What to do
        #[command(subcommand)]
        command: Option<KeepCommand>,
    },
    /// Connections on their way to another machine
    Migration {
        /// What to do
        #[command(subcommand)]
        command: Option<MigrationCommand>,
    },
    /// Applications of this host, as nlb-agent tells of them
    App {
        /// What to do
        #[command(subcommand)]
        command: Option<AppCommand>,
    },
    /// Show what nlbd knows of the health and load of applications, and what becomes of it
    #[command(override_usage = "nlb health [watch [interval S] | events [count N]] [socket PATH]")]
    Health(HealthArgs),
    /// Counters of all loaded modules
    Stats {
        /// What to do
        #[command(subcommand)]
        command: Option<StatsCommand>,
    },
    /// Print events as they happen, one a line
    #[command(
        override_usage = "nlb monitor [services] [routes] [misses] [mappings] [migrations] [count N]"
    )]
    Monitor(MonitorArgs),
    /// Print the configuration as a file for apply
    ///
    /// All that the loaded modules have and a person has set, as TOML: forwarders, peers, keeps,
    /// rules, services with their endpoints. Secrets of keys are not in it, for the kernel does not tell them.
    #[command(override_usage = "nlb save [secret-file FILE]")]
    Save(SaveArgs),
    /// Make the configuration what a file says
    ///
    /// What the file does not have is removed, of the kinds it names (forwarder, peer, keep, rule, service):
    /// `keep = []` removes all keeps, a file without that word leaves them alone. Everything is checked
    /// first; if the kernel refuses a change, those before it are taken back. Weights, states and
    /// schedulers are changed in place, so no connection is cut.
    #[command(override_usage = "nlb apply {FILE|-} [dry-run]")]
    Apply(ApplyArgs),
    /// Tell what would happen to a packet, and why
    ///
    /// Of a TCP SYN, or a datagram, from a client to a VIP: service, route, rule, affinity, allotment,
    /// each endpoint, the way to the host, and whether later packets take the fast path. With the
    /// addresses and ports of a host's reply (half-nat and nat): the connection that it answers, and
    /// what it becomes. Nothing changes by it.
    #[command(override_usage = "nlb trace CLIENT:PORT VIP:PORT/PROTO")]
    Trace(TraceArgs),
    /// Show how much there is to do, per second, for each service, endpoint and forwarder
    #[command(
        override_usage = "nlb top [interval S] [sort {name|active|connections|packets|bytes}] [once]"
    )]
    Top(TopArgs),
    /// Look for what is wrong in this network namespace, and say what to do
    ///
    /// Each line begins with OK, WARN or FAIL. Exit status: 1 if there is a FAIL.
    #[command(override_usage = "nlb doctor [interval S]")]
    Doctor(DoctorArgs),
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages, of section 8
    Man {
        /// Folder to write them to
        directory: PathBuf,
    },
}

/// Commands of `route`.
#[derive(Subcommand)]
pub(crate) enum RouteCommand {
    /// Plumb a route for a connection by hand
    #[command(override_usage = "nlb route add VIP:PORT/PROTO client ADDR:PORT host ADDR [port N]")]
    Add {
        /// The service
        #[arg(value_name = "VIP:PORT/PROTO")]
        service: ServiceKey,
        /// Address and port of the client
        #[arg(long, value_name = "ADDR:PORT")]
        client: SocketAddr,
        /// Address of the host
        #[arg(long, value_name = "ADDR")]
        host: IpAddr,
        /// Port of the endpoint, if the host has several; 0 for the service's own
        #[arg(long, value_name = "N")]
        port: Option<u16>,
    },
    /// Remove the route of a connection
    #[command(override_usage = "nlb route del VIP:PORT/PROTO client ADDR:PORT")]
    Del {
        /// The service
        #[arg(value_name = "VIP:PORT/PROTO")]
        service: ServiceKey,
        /// Address and port of the client
        #[arg(long, value_name = "ADDR:PORT")]
        client: SocketAddr,
    },
    /// Show all routes, or those of a service, a client or a host
    #[command(
        visible_aliases = ["list", "ls"],
        override_usage = "nlb route show [VIP:PORT/PROTO] [client ADDR:PORT] [from PREFIX] [host ADDR [port N]]"
    )]
    Show {
        /// The service
        #[arg(value_name = "VIP:PORT/PROTO")]
        service: Option<ServiceKey>,
        /// Address and port of the client
        #[arg(long, value_name = "ADDR:PORT")]
        client: Option<SocketAddr>,
        /// Network of the clients
        #[arg(long, value_name = "PREFIX")]
        from: Option<Prefix>,
        /// Address of the host
        #[arg(long, value_name = "ADDR")]
        host: Option<IpAddr>,
        /// Port that the host gets packets for, with half-nat and nat
        #[arg(long, value_name = "N", requires = "host")]
        port: Option<u16>,
    },
    /// Remove all routes, or those of a service, of clients or a host
    #[command(
        override_usage = "nlb route flush [VIP:PORT/PROTO] [from PREFIX] [host ADDR [port N]]"
    )]
    Flush {
        /// The service
        #[arg(value_name = "VIP:PORT/PROTO")]
        service: Option<ServiceKey>,
        /// Network of the clients
        #[arg(long, value_name = "PREFIX")]
        from: Option<Prefix>,
        /// Address of the host
        #[arg(long, value_name = "ADDR")]
        host: Option<IpAddr>,
        /// Port that the host gets packets for, with half-nat and nat
        #[arg(long, value_name = "N", requires = "host")]
        port: Option<u16>,
    },
}

/// Commands of `forwarder`.
#[derive(Subcommand)]
pub(crate) enum ForwarderCommand {
    /// Accept tunnel packets from a forwarder
    #[command(override_usage = "nlb forwarder add ADDR")]
    Add {
        /// Address the tunnel packets come from
        #[arg(value_name = "ADDR")]
        addr: IpAddr,
    },
    /// Stop accepting them; the forwarder's mappings go too
    #[command(override_usage = "nlb forwarder del ADDR")]
    Del {
        /// Address of the forwarder
        #[arg(value_name = "ADDR")]
        addr: IpAddr,
    },
    /// Show one forwarder or all
    #[command(
        visible_aliases = ["list", "ls"],
        override_usage = "nlb forwarder show [ADDR]"
    )]
    Show {
        /// Address of the forwarder
        #[arg(value_name = "ADDR")]
        addr: Option<IpAddr>,
    },
}

/// Commands of `mapping`.
#[derive(Subcommand)]
pub(crate) enum MappingCommand {
    /// Add a static mapping on the host side
    #[command(
        override_usage = "nlb mapping add forwarder ADDR id ID client ADDR:PORT vip ADDR:PORT [proto {tcp|udp}]"
    )]
    Add {
        /// Source address of the tunnel packets
        #[arg(long, value_name = "ADDR")]
        forwarder: IpAddr,
        /// Flow id, like 0xee480001: upper half 61000 to 65535, lower half 1 to 65535
        #[arg(long, value_name = "ID")]
        id: FlowId,
        /// Address and port of the client
        #[arg(long, value_name = "ADDR:PORT")]
        client: SocketAddr,
        /// Virtual IP address and port
        #[arg(long, value_name = "ADDR:PORT")]
        vip: SocketAddr,
        /// Protocol
        #[arg(long, default_value = "tcp")]
        proto: Proto,
    },
    /// Remove a mapping of the host side
    #[command(override_usage = "nlb mapping del forwarder ADDR id ID")]
    Del {
        /// Source address of the tunnel packets
        #[arg(long, value_name = "ADDR")]
        forwarder: IpAddr,
        /// Flow id
        #[arg(long, value_name = "ID")]
        id: FlowId,
    },
    /// Show all mappings, those of one side, or one
    #[command(
        visible_aliases = ["list", "ls"],
        override_usage = "nlb mapping show [side {forwarder|host}] [id ID] [forwarder ADDR]"
    )]
    Show {
        /// Only those where this machine is the forwarder, or the host
        #[arg(long, value_parser = names::<MappingSide>())]
        side: Option<MappingSide>,
        /// Flow id
        #[arg(long, value_name = "ID")]
        id: Option<FlowId>,
        /// Source address of the tunnel packets
        #[arg(long, value_name = "ADDR")]
        forwarder: Option<IpAddr>,
    },
}

/// Commands of `stats`.
#[derive(Subcommand)]
pub(crate) enum StatsCommand {
    /// Show the counters of one module or of all that are loaded
    #[command(
        visible_aliases = ["list", "ls"],
        override_usage = "nlb stats show [fwd|tunnel|migrator] [nonzero] [percpu]"
    )]
    Show {
        /// The module
        #[arg(value_parser = ["fwd", "tunnel", "migrator"])]
        module: Option<String>,
        /// Leave out counters that are 0
        #[arg(long)]
        nonzero: bool,
        /// What each processor has counted, of fwd and tunnel, which handle packets
        #[arg(long)]
        percpu: bool,
    },
}

/// Arguments of `monitor`.
#[derive(Args)]
pub(crate) struct MonitorArgs {
    /// What to watch; everything but misses when left out
    #[arg(value_parser = ["services", "routes", "misses", "mappings", "migrations"])]
    pub(crate) groups: Vec<String>,
    /// End after so many events
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
}

/// Parser of an enum of the specification, which shows the names in the help text.
fn names<T>() -> impl TypedValueParser<Value = T>
where
    T: Enumeration + FromStr<Err = nlb_netlink::ParseError> + Send + Sync,
{
    PossibleValuesParser::new(T::ALL.iter().map(|value| value.text()))
        .try_map(|text| text.parse::<T>())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }
}
