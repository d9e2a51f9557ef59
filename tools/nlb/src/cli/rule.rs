// SPDX-License-Identifier: MIT OR Apache-2.0

//! The grammar of `nlb rule`.

use clap::Subcommand;
use nlb_netlink::{
    Destination,
    Proto,
    RuleAction, //
};

use super::names;
use crate::prefix::Source;

/// Commands of `rule`.
#[derive(Subcommand)]
pub(crate) enum RuleCommand {
    /// Add a rule about packets that are for a service and have no route
    ///
    /// Of the rules that are for a packet, the one with the lowest priority decides. drop: the packet
    /// is dropped. reject: its sender is told, by a RST or ICMP "port unreachable". accept: it goes on,
    /// whatever rules behind say. Connections that have a route go on: nlb route flush from PREFIX
    /// cuts them.
    #[command(
        override_usage = "nlb rule add {drop|reject|accept} [priority N] [from {PREFIX|any}] [to VIP[:PORT/PROTO]] [proto {tcp|udp}]",
        group = clap::ArgGroup::new("which").args(["from", "to", "proto"]).required(true).multiple(true)
    )]
    Add {
        /// What happens to the packets
        #[arg(value_parser = names::<RuleAction>())]
        action: RuleAction,
        /// Place among the rules, the lowest comes first; 10 behind the last when left out
        #[arg(long, value_name = "N")]
        priority: Option<u32>,
        /// Where they come from, like 198.51.100.0/24; any when left out
        #[arg(long, value_name = "PREFIX")]
        from: Option<Source>,
        /// Where they go, like 192.0.2.10, or 192.0.2.10:80/tcp as services are named
        #[arg(long, value_name = "VIP")]
        to: Option<Destination>,
        /// Their protocol, where there is no port
        #[arg(long)]
        proto: Option<Proto>,
    },
    /// Remove a rule
    #[command(override_usage = "nlb rule del priority N")]
    Del {
        /// Its priority
        #[arg(long, value_name = "N")]
        priority: u32,
    },
    /// Show one rule, or all in their order
    #[command(
        visible_aliases = ["list", "ls"],
        override_usage = "nlb rule show [priority N]"
    )]
    Show {
        /// Its priority
        #[arg(long, value_name = "N")]
        priority: Option<u32>,
    },
    /// Remove all rules at once
    #[command(override_usage = "nlb rule flush")]
    Flush,
}
