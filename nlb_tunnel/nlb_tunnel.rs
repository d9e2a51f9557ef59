// SPDX-License-Identifier: GPL-2.0

//! The flow-id tunnel between forwarders and hosts.
//!
//! A packet of a known connection travels between the two as an ordinary packet of the same length:
//! its addresses are those of the forwarder and the host, and its ports a 32-bit flow id. Both sides
//! have a table of mappings; where the host does not know one, the forwarder teaches it
//! (see `Documentation/tunnel.rst`).
//!
//! The module also has the network device that carries virtual IP addresses, `ip link add nlb0 type
//! nlb`, and keeps quiet about them in ARP.
//!
//! `nlb_fwd` and `nlb_migrator` work on the tables by the functions of this crate's root.

#![forbid(unsafe_code)]

mod api;
mod arp;
mod control;
mod decap;
mod device;
mod encap;
mod forwarder;
mod icmp;
mod ipip;
mod mapping;
mod netlink;
mod rate;
mod relay;
mod reroute;
mod state;
mod stats;
mod target;
mod uapi;

pub use api::*;
pub use encap::tell_client;
pub use mapping::{
    forwarder::{
        check_family,
        Mapping, //
    },
    Usage, //
};
pub use target::Target;

use kernel::prelude::*;
use nlb::net::{
    genetlink,
    netns,
    rtnl, //
};

module! {
    type: Module,
    name: "nlb_tunnel",
    authors: ["nlb developers"],
    description: "Network load balancer: flow-id tunnel",
    license: "GPL",
    alias: ["rtnl-link-nlb"],
    params: {
        max_mappings: u32 {
            default: 1048576,
            description: "Mappings that a network namespace may have on each side of the tunnel",
        },
    },
}

/// What the module has registered, dropped in this order: nobody can come in by netlink, then the
/// devices go, then the tables.
struct Module {
    _netlink: genetlink::Registration,
    _link: rtnl::Registration<device::Link>,
    _netns: netns::Registration<state::Tunnel>,
}

impl kernel::Module for Module {
    fn init(module: &'static ThisModule) -> Result<Self> {
        let netns = state::STATE.register()?;
        let link = device::LINK.register()?;
        let netlink = netlink::FAMILY.register(module)?;
        Ok(Self {
            _netlink: netlink,
            _link: link,
            _netns: netns,
        })
    }
}
