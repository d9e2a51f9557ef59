// SPDX-License-Identifier: GPL-2.0

//! Crate `nlb`: safe abstractions over the kernel's network stack for the load balancer modules.
//!
//! The `kernel` crate has no sk_buff, network namespace, netfilter hook or hash table yet. This
//! crate adds them in the same manner, and the wire formats that the modules share. It is compiled
//! into `nlb_core.ko`; the other modules import it and have no `unsafe` code of their own.

use kernel::prelude::*;

mod bindings;

module! {
    type: NlbCore,
    name: "nlb_core",
    authors: ["nlb developers"],
    description: "Network load balancer: shared abstractions and wire formats",
    license: "GPL",
}

struct NlbCore;

impl kernel::Module for NlbCore {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self)
    }
}

/// Tells whether the caller is inside of an RCU read-side section (always, without lockdep).
pub fn rcu_held() -> bool {
    // SAFETY: The function has no preconditions.
    unsafe { bindings::rcu_read_lock_held() }
}
