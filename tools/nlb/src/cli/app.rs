// SPDX-License-Identifier: MIT OR Apache-2.0

//! The grammar of `nlb app`.

use std::{
    net::SocketAddr,
    path::PathBuf, //
};

use clap::{
    builder::{
        PossibleValuesParser,
        TypedValueParser, //
    },
    Args,
    Subcommand, //
};
use nlb_app::{
    Closed,
    Health,
    DEFAULT_SOCKET, //
};
use nlb_netlink::ServiceKey;

/// Commands of `app`.
#[derive(Subcommand)]
pub(crate) enum AppCommand {
    /// Say that there is an application, or anew what it is
    ///
    /// It is healthy, unless something else is said. A restart of the agent does not forget it.
    #[command(
        override_usage = "nlb app register NAME vip VIP:PORT/PROTO [physical ADDR:PORT] [protocol NAME] [detail TEXT] [capacity N] [health {healthy|failing|unknown}] [socket PATH]"
    )]
    Register(RegisterArgs),
    /// Say that it is not there any more
    #[command(override_usage = "nlb app unregister NAME [socket PATH]")]
    Unregister(NameArgs),
    /// Say whether it works
    #[command(override_usage = "nlb app health NAME {healthy|failing|unknown} [socket PATH]")]
    Health {
        /// The application
        #[command(flatten)]
        name: NameArgs,
        /// Whether it handles requests
        #[arg(value_parser = healths())]
        health: Health,
    },
    /// Say how busy it is
    ///
    /// The agent averages this over about ten seconds, and tells it one to four times a minute.
    #[command(override_usage = "nlb app load NAME PERCENT [socket PATH]")]
    Load {
        /// The application
        #[command(flatten)]
        name: NameArgs,
        /// Percent of its capacity, 0 to 100
        #[arg(value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(..=100))]
        load: u8,
    },
    /// Say what it can take, compared with others of its kind
    #[command(override_usage = "nlb app capacity NAME N [socket PATH]")]
    Capacity {
        /// The application
        #[command(flatten)]
        name: NameArgs,
        /// A number from 0 to 99, without unit
        #[arg(value_name = "N", value_parser = clap::value_parser!(u8).range(..=99))]
        capacity: u8,
    },
    /// Have it get no new connections
    ///
    /// With wait, the command ends when no load balancing unit sends it any: then it can be stopped when
    /// it has none left.
    #[command(
        override_usage = "nlb app drain NAME [state {draining|inactive}] [wait] [socket PATH]"
    )]
    Drain {
        /// The application
        #[command(flatten)]
        name: NameArgs,
        /// draining: its connections go on; inactive: they are cut off
        #[arg(long, value_parser = states(), default_value = "draining")]
        state: Closed,
        /// Wait until it is so everywhere
        #[arg(long)]
        wait: bool,
    },
    /// Have it get new connections again
    #[command(override_usage = "nlb app undo NAME [socket PATH]")]
    Undo(NameArgs),
    /// Show one application or all
    #[command(
        visible_aliases = ["list", "ls"],
        override_usage = "nlb app show [NAME] [socket PATH]"
    )]
    Show {
        /// The application
        #[arg(value_name = "NAME")]
        app: Option<String>,
        /// The agent
        #[command(flatten)]
        agent: AgentArgs,
    },
}

fn healths() -> impl TypedValueParser<Value = Health> {
    let all = [Health::Healthy, Health::Failing, Health::Unknown];
    PossibleValuesParser::new(all.map(Health::name)).map(move |name| {
        all.into_iter()
            .find(|own| own.name() == name)
            .unwrap_or_default()
    })
}

fn states() -> impl TypedValueParser<Value = Closed> {
    let all = [Closed::Draining, Closed::Inactive];
    PossibleValuesParser::new(all.map(Closed::name)).map(move |name| {
        all.into_iter()
            .find(|own| own.name() == name)
            .unwrap_or_default()
    })
}

/// The agent that is spoken with.
#[derive(Args)]
pub(crate) struct AgentArgs {
    /// Socket of nlb-agent
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub(crate) socket: PathBuf,
}

/// An application that the agent knows.
#[derive(Args)]
pub(crate) struct NameArgs {
    /// The application
    #[arg(value_name = "NAME")]
    pub(crate) app: String,
    /// The agent
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
}

/// Arguments of `register`.
#[derive(Args)]
pub(crate) struct RegisterArgs {
    /// The application
    #[command(flatten)]
    pub(crate) name: NameArgs,
    /// What it serves, as the service is called; with * for the port, all ports
    #[arg(long, value_name = "VIP:PORT/PROTO")]
    pub(crate) vip: ServiceKey,
    /// Its own address and port; those of the host, and of the service, when left out
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) physical: Option<SocketAddr>,
    /// What is spoken, such as http
    #[arg(long, value_name = "NAME")]
    pub(crate) protocol: Option<String>,
    /// What tells it from others at the same port, such as a pattern of URLs
    #[arg(long, value_name = "TEXT")]
    pub(crate) detail: Option<String>,
    /// What it can take, compared with others of its kind, 0 to 99; 50 when left out
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(..=99))]
    pub(crate) capacity: Option<u8>,
    /// Whether it handles requests
    #[arg(long, value_parser = healths(), default_value = "healthy")]
    pub(crate) health: Health,
}
