// SPDX-License-Identifier: GPL-2.0

//! nlb_tunnel

#![forbid(unsafe_code)]

use kernel::prelude::*;

module! {
    type: Module,
    name: "nlb_tunnel",
    authors: ["nlb developers"],
    description: "Network load balancer: tunnel",
    license: "GPL",
}

struct Module;

impl kernel::Module for Module {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        pr_info!("loaded, {}\n", nlb::rcu_held());
        Ok(Self)
    }
}
