// SPDX-License-Identifier: MIT OR Apache-2.0

//! The grammar of `nlb service`.

use clap::{
    builder::{
        PossibleValue,
        PossibleValuesParser,
        TypedValueParser, //
    },
    Args,
    Subcommand, //
};
use nlb_netlink::{
    Enumeration,
    Picking,
    Scheduler,
    ServiceKey,
    ServiceMode, //
};

use super::{
    endpoint::yes_or_no,
    names, //
};

/// Commands of `service`.
#[derive(Subcommand)]
pub(crate) enum ServiceCommand {
    /// Add a service
    ///
    /// It may have several ports, like 192.0.2.10:8000-8999/tcp, or all, like 192.0.2.10:*/tcp. A packet
    /// is for the service of its own port, else for that of several with its port, else for that of all.
    #[command(
        override_usage = "nlb service add VIP:PORT/PROTO [mode {peek|l4}] [scheduler {wrr|rr|lc|wlc|mh|sh|sed|nq|fo|twos}] [affinity SECONDS [prefix N]] [slow-start SECONDS] [idle-timeout SECONDS] [fin-timeout SECONDS] [syn-timeout SECONDS] [miss-timeout MS] [one-packet {yes|no}] [classifier PORT]"
    )]
    Add {
        /// The service, like 192.0.2.10:80/tcp; tcp when left out
        #[arg(value_name = "VIP:PORT/PROTO")]
        service: ServiceKey,
        /// Who picks the endpoint: a classifier on this machine, or the kernel
        #[arg(long, value_parser = names::<ServiceMode>(), default_value = "l4")]
        mode: ServiceMode,
        /// How the kernel picks it
        #[command(flatten)]
        picking: PickingArgs,
        /// Port the classifier listens on, so that an application can have the service's own
        #[arg(long, value_name = "PORT")]
        classifier: Option<u16>,
    },
    /// Change how the endpoints of a service are picked, and how long its routes are kept
    ///
    /// Existing routes stay; timeouts hold for them, too.
    ///
    /// wrr: in turn, by weight. rr: in turn. lc: the endpoint with the fewest connections. wlc: the
    /// one with the fewest for its weight. mh: by the client's address and port, with Maglev
    /// consistent hashing. sh: the same by the address alone. sed: the one that would have the
    /// fewest for its weight with the new one. nq: one without connections, else as sed. fo: the
    /// one with the highest weight that has room. twos: of two that are drawn by weight, the one with
    /// fewer for its weight. With each of them an endpoint of weight 0 gets no new clients.
    #[command(
        override_usage = "nlb service set VIP:PORT/PROTO [scheduler {wrr|rr|lc|wlc|mh|sh|sed|nq|fo|twos}] [affinity SECONDS] [prefix N] [slow-start SECONDS] [idle-timeout SECONDS] [fin-timeout SECONDS] [syn-timeout SECONDS] [miss-timeout MS] [one-packet {yes|no}]",
        group = clap::ArgGroup::new("change").args(["scheduler", "affinity", "prefix", "slow_start", "idle_timeout", "fin_timeout", "syn_timeout", "miss_timeout", "one_packet"]).required(true).multiple(true)
    )]
    Set {
        /// The service
        #[arg(value_name = "VIP:PORT/PROTO")]
        service: ServiceKey,
        /// How the kernel picks the endpoint
        #[command(flatten)]
        picking: PickingArgs,
    },
    /// Remove a service with its endpoints and routes
    #[command(override_usage = "nlb service del VIP:PORT/PROTO")]
    Del {
        /// The service
        #[arg(value_name = "VIP:PORT/PROTO")]
        service: ServiceKey,
    },
    /// Have the counters of one service and its endpoints, or of all, begin at zero again
    ///
    /// Connections, packets and bytes; those of routes, of rules and in `nlb stats` go on.
    #[command(override_usage = "nlb service zero [VIP:PORT/PROTO]")]
    Zero {
        /// The service
        #[arg(value_name = "VIP:PORT/PROTO")]
        service: Option<ServiceKey>,
    },
    /// Show one service or all
    #[command(
        visible_aliases = ["list", "ls"],
        override_usage = "nlb service show [VIP:PORT/PROTO]"
    )]
    Show {
        /// The service
        #[arg(value_name = "VIP:PORT/PROTO")]
        service: Option<ServiceKey>,
    },
}

/// How the endpoints of a service in mode l4 are picked.
#[derive(Args)]
pub(crate) struct PickingArgs {
    /// How the kernel picks the endpoint; wrr at first
    #[arg(long, value_parser = schedulers())]
    scheduler: Option<Scheduler>,
    /// For so long after its last new connection, at most 31 days, a client goes to the same
    /// endpoint; 0, as at first, for no affinity
    #[arg(long, value_name = "SECONDS")]
    affinity: Option<u32>,
    /// For affinity, so many bits of their addresses tell clients apart; all of them at first
    #[arg(long, value_name = "N")]
    prefix: Option<u32>,
    /// The weight of an endpoint that was added, or takes connections again, grows for so long, at
    /// most 3600; 0, as at first, for the whole weight at once
    #[arg(long, value_name = "SECONDS")]
    slow_start: Option<u32>,
    /// The route of an established connection or of a flow is kept for so long without a packet, at
    /// most 31 days; 0, as at first, for 900 (UDP: 300, migrated connections: 5 days, or 7440 once
    /// nothing is heard of their end any more)
    #[arg(long, value_name = "SECONDS")]
    idle_timeout: Option<u32>,
    /// The same for TCP connections that are being closed; 0, as at first, for 120
    #[arg(long, value_name = "SECONDS")]
    fin_timeout: Option<u32>,
    /// The same for TCP connections whose handshake is not complete; 0, as at first, for 60
    #[arg(long, value_name = "SECONDS")]
    syn_timeout: Option<u32>,
    /// Packets from the middle of a TCP connection without a route wait for so long for an answer, at
    /// most 5000 (see `nlb miss`); 0, as at first, for not at all
    #[arg(long, value_name = "MS")]
    miss_timeout: Option<u32>,
    /// Whether each datagram is scheduled by itself, and leaves no route; UDP only, and no endpoint by
    /// half-nat or nat; no at first
    #[arg(long, value_parser = yes_or_no())]
    one_packet: Option<bool>,
}

impl From<&PickingArgs> for Picking {
    fn from(args: &PickingArgs) -> Self {
        Self {
            scheduler: args.scheduler,
            affinity_timeout: args.affinity,
            affinity_prefix: args.prefix,
            slow_start: args.slow_start,
            idle_timeout: args.idle_timeout,
            fin_timeout: args.fin_timeout,
            syn_timeout: args.syn_timeout,
            miss_timeout: args.miss_timeout,
            one_packet: args.one_packet,
        }
    }
}

/// The schedulers; one of them has a name that others know it by.
fn schedulers() -> impl TypedValueParser<Value = Scheduler> {
    let names = Scheduler::ALL.iter().map(|value| match value {
        Scheduler::Mh => PossibleValue::new(value.text()).alias("maglev"),
        _ => PossibleValue::new(value.text()),
    });
    PossibleValuesParser::new(names).try_map(|text| match text.as_str() {
        "maglev" => Ok(Scheduler::Mh),
        text => text.parse::<Scheduler>(),
    })
}
