// SPDX-License-Identifier: MIT OR Apache-2.0

//! The grammar of `nlb endpoint`.

use std::net::IpAddr;

use clap::{
    builder::{
        PossibleValuesParser,
        TypedValueParser, //
    },
    Args,
    Subcommand, //
};
use nlb_netlink::{
    EndpointChange,
    EndpointState,
    Forward,
    ServiceKey, //
};

use super::names;

/// Commands of `endpoint`.
#[derive(Subcommand)]
pub(crate) enum EndpointCommand {
    /// Add an endpoint to a service
    ///
    /// Packets get to the host in the flow-id tunnel, unless via says otherwise. direct: as they
    /// are, on a link of this machine. ipip: inside of IP packets. half-nat: to the host's own
    /// address and port; its replies have to come back by this machine. nat: the same, from an
    /// address of this machine. gre: inside of IP packets, with a GRE header. gue: inside of UDP
    /// datagrams. What the host needs for each of them is in
    /// Documentation/forwarding.rst.
    #[command(
        override_usage = "nlb endpoint add VIP:PORT/PROTO host ADDR [via {tunnel|direct|ipip|half-nat|nat|gre|gue}] [port N] [tun-port N] [tun-csum {yes|no}] [weight N] [state {active|draining|inactive}] [max-routes N [resume-routes N]] [backup {yes|no}] [source ADDR]"
    )]
    Add {
        /// The service
        #[arg(value_name = "VIP:PORT/PROTO")]
        service: ServiceKey,
        /// Address of the host
        #[arg(long, value_name = "ADDR")]
        host: IpAddr,
        /// How packets get to the host; tunnel when left out
        #[arg(long, value_parser = names::<Forward>())]
        via: Option<Forward>,
        /// Port of the host, with half-nat and nat; the service's own when left out. A host may have
        /// several endpoints, with a port each
        #[arg(long, value_name = "N")]
        port: Option<u16>,
        /// Port of the host for datagrams with packets inside, with gue; 6080 when left out
        #[arg(long, value_name = "N")]
        tun_port: Option<u16>,
        /// Whether what packets travel in has a checksum, with gre and gue; only gue over IPv6 has
        /// when left out
        #[arg(long, value_parser = yes_or_no())]
        tun_csum: Option<bool>,
        /// What it gets
        #[command(flatten)]
        change: ChangeArgs,
        /// Source address of the packets to the host, where it is not the client's; chosen by
        /// routing when left out
        #[arg(long, value_name = "ADDR")]
        source: Option<IpAddr>,
    },
    /// Change what new connections an endpoint gets; existing routes stay
    ///
    /// A draining endpoint gets no new connections and keeps those it has; an inactive one gets no
    /// packet at all, so that clients of its connections are reset when they send something. The
    /// weight stays, for when it is active again. An endpoint with as many active routes as it may
    /// have is passed over until there are fewer, or fewer than resume-routes.
    #[command(
        override_usage = "nlb endpoint set VIP:PORT/PROTO host ADDR [port N] [weight N] [state {active|draining|inactive}] [max-routes N] [resume-routes N] [backup {yes|no}]",
        group = clap::ArgGroup::new("changes").args(["weight", "state", "max_routes", "resume_routes", "backup"]).required(true).multiple(true)
    )]
    Set {
        /// The service
        #[arg(value_name = "VIP:PORT/PROTO")]
        service: ServiceKey,
        /// Address of the host
        #[arg(long, value_name = "ADDR")]
        host: IpAddr,
        /// Port of the endpoint, if the host has several; 0 for the service's own
        #[arg(long, value_name = "N")]
        port: Option<u16>,
        /// What it gets
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Remove an endpoint; routes of existing connections stay until they end
    #[command(override_usage = "nlb endpoint del VIP:PORT/PROTO host ADDR [port N]")]
    Del {
        /// The service
        #[arg(value_name = "VIP:PORT/PROTO")]
        service: ServiceKey,
        /// Address of the host
        #[arg(long, value_name = "ADDR")]
        host: IpAddr,
        /// Port of the endpoint, if the host has several; 0 for the service's own
        #[arg(long, value_name = "N")]
        port: Option<u16>,
    },
    /// Show one endpoint, those of a service, or all
    #[command(
        visible_aliases = ["list", "ls"],
        override_usage = "nlb endpoint show [VIP:PORT/PROTO [host ADDR [port N]]]"
    )]
    Show {
        /// The service
        #[arg(value_name = "VIP:PORT/PROTO")]
        service: Option<ServiceKey>,
        /// Address of the host
        #[arg(long, value_name = "ADDR", requires = "service")]
        host: Option<IpAddr>,
        /// Port of the endpoint, if the host has several; 0 for the service's own
        #[arg(long, value_name = "N", requires = "host")]
        port: Option<u16>,
    },
}

/// What new connections an endpoint gets.
#[derive(Args)]
pub(crate) struct ChangeArgs {
    /// Share of new connections, 0 to 65535; 1 at first
    #[arg(long, value_name = "N")]
    weight: Option<u32>,
    /// What may be sent to it; active at first
    #[arg(long, value_parser = names::<EndpointState>())]
    state: Option<EndpointState>,
    /// With so many active routes it gets no more; 0, as at first, for no limit
    #[arg(long, value_name = "N")]
    max_routes: Option<u32>,
    /// Once it has had that many, it gets more again when it has fewer than this; 0, as at first, for
    /// as soon as there is room
    #[arg(long, value_name = "N")]
    resume_routes: Option<u32>,
    /// Whether it gets new connections only when no other endpoint can take one; no at first
    #[arg(long, value_parser = yes_or_no())]
    backup: Option<bool>,
}

impl From<&ChangeArgs> for EndpointChange {
    fn from(args: &ChangeArgs) -> Self {
        Self {
            weight: args.weight,
            state: args.state,
            max_routes: args.max_routes,
            resume_routes: args.resume_routes,
            backup: args.backup,
        }
    }
}

/// `yes` or `no`.
pub(super) fn yes_or_no() -> impl TypedValueParser<Value = bool> {
    PossibleValuesParser::new(["yes", "no"]).map(|text| text == "yes")
}
