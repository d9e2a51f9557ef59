// SPDX-License-Identifier: GPL-2.0

//! The forwarder: services, their endpoints, and the routes of connections.
//!
//! A packet for a service follows the route of its connection to a host. Without a route it
//! goes to the local stack, where the classifier listens (mode `peek`), or the first packet makes
//! one to an endpoint that the service's scheduler picks (mode `l4`).

#![forbid(unsafe_code)]

mod affinity;
mod allotment;
mod endpoint;
mod forward;
mod hook;
mod icmp;
mod ingress;
mod limit;
mod miss;
mod netlink;
mod plumb;
mod ports;
mod reply;
mod room;
mod route;
mod rule;
mod scheduler;
mod service;
mod slow_start;
mod state;
mod stateless;
mod stats;
mod steer;
mod trace;
mod uapi;
mod way;

use kernel::prelude::*;
use nlb::{
    net::{
        genetlink,
        netfilter::IngressRegistration,
        netns, //
    },
    sync::object::CacheRegistration, //
};

module! {
    type: Module,
    name: "nlb_fwd",
    authors: ["nlb developers"],
    description: "Network load balancer: forwarder",
    license: "GPL",
    params: {
        max_routes: u32 {
            default: 1048576,
            description: "Routes that a network namespace may have",
        },
        max_half_open: u32 {
            default: 0,
            description: "Of these, routes of connections that are being opened; 0 for a half of them",
        },
    },
}

/// What the module has registered, dropped in this order: nobody can come in by netlink or from
/// the migrator, then hooks and tables go, and last their memory.
struct Module {
    _netlink: genetlink::Registration,
    _plumber: nlb::plumb::Registration,
    _ingress: IngressRegistration<ingress::Ingress>,
    _netns: netns::Registration<state::Forwarder>,
    _routes: CacheRegistration<route::Route>,
}

impl kernel::Module for Module {
    fn init(module: &'static ThisModule) -> Result<Self> {
        let routes = route::CACHE.register()?;
        let netns = state::STATE.register()?;
        let plumber = nlb::plumb::Registration::new(&plumb::PLUMBER)?;
        let ingress = IngressRegistration::new()?;
        let netlink = netlink::FAMILY.register(module)?;
        Ok(Self {
            _netlink: netlink,
            _plumber: plumber,
            _ingress: ingress,
            _netns: netns,
            _routes: routes,
        })
    }
}
