// SPDX-License-Identifier: MIT OR Apache-2.0

//! The grammar of `nlb miss`.

use std::net::SocketAddr;

use clap::{
    builder::{
        PossibleValuesParser,
        TypedValueParser, //
    },
    Subcommand, //
};
use nlb_netlink::{
    MissState,
    ServiceKey, //
};

/// Commands of `miss`.
#[derive(Subcommand)]
pub(crate) enum MissCommand {
    /// Say what becomes of a connection that is asked about
    ///
    /// pass: its packets are the local stack's, which answers with a RST. drop: they are dropped. To
    /// send the connection to a host, use `nlb route add`. An answer holds for ten seconds.
    #[command(override_usage = "nlb miss set VIP:PORT/PROTO client ADDR:PORT state {pass|drop}")]
    Set {
        /// The service
        #[arg(value_name = "VIP:PORT/PROTO")]
        service: ServiceKey,
        /// Address and port of the client
        #[arg(long, value_name = "ADDR:PORT")]
        client: SocketAddr,
        /// What becomes of its packets
        #[arg(long, value_parser = answers())]
        state: MissState,
    },
    /// Show all connections that are asked about, or were in the last ten seconds
    #[command(visible_aliases = ["list", "ls"], override_usage = "nlb miss show")]
    Show,
}

/// What may be answered.
fn answers() -> impl TypedValueParser<Value = MissState> {
    PossibleValuesParser::new([MissState::Pass.name(), MissState::Drop.name()])
        .try_map(|text| text.parse::<MissState>())
}
