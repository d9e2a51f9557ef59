// SPDX-License-Identifier: GPL-2.0

//! Connections that move: a live TCP connection leaves a socket of this machine, and a plain
//! `accept()` on another machine returns it.
//!
//! The same module does both parts. As the *origin* it takes an accepted connection by its file
//! descriptor (`migrate`), has the forwarder send the client's packets to the target, freezes the
//! socket, ships its state, and closes it without a packet. As the *target* it holds early packets,
//! injects the connection into the listener's accept queue, and reports its end, whereupon the
//! origin lets go of the route.
//!
//! Everything belongs to a network namespace. Depends on `nlb_core` and `nlb_tunnel`; `nlb_fwd` is
//! found through `nlb::plumb`.

#![forbid(unsafe_code)]

mod auth;
mod hold;
mod keep;
mod log;
mod machine;
mod netlink;
mod origin;
mod peer;
mod reason;
mod registry;
mod state;
mod stats;
mod target;
mod tombstone;
mod transport;
mod uapi;
mod watch;

use kernel::prelude::*;
use nlb::net::{
    genetlink,
    netns, //
};

module! {
    type: Migrator,
    name: "nlb_migrator",
    authors: ["nlb developers"],
    description: "Network load balancer: migrator of TCP connections",
    license: "GPL",
}

/// Fields drop in order: first there are no callers, then no state.
struct Migrator {
    _genl: genetlink::Registration,
    _netns: netns::Registration<state::State>,
}

impl kernel::Module for Migrator {
    fn init(module: &'static ThisModule) -> Result<Self> {
        let netns = state::STATE.register()?;
        let genl = netlink::FAMILY.register(module)?;
        Ok(Self {
            _genl: genl,
            _netns: netns,
        })
    }
}
