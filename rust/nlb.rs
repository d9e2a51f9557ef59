// SPDX-License-Identifier: GPL-2.0

//! Crate `nlb`: safe abstractions over the kernel's network stack for the load balancer modules.
//!
//! The `kernel` crate has no sk_buff, network namespace, netfilter hook or hash table yet. This
//! crate adds them in the same manner, and the wire formats that the modules share. It is compiled
//! into `nlb_core.ko`; the other modules import it and have no `unsafe` code of their own.

use kernel::prelude::*;

mod alloc;
mod bindings;
pub mod bytes;
pub mod completion;
mod crc32c;
pub mod errno;
pub mod kthread;
pub mod net;
pub mod on_return;
pub mod plumb;
pub mod random;
pub mod sync;
pub mod time;
pub mod wire;
pub mod work;

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
        // SAFETY: Called once, when the module is loaded.
        unsafe { plumb::init() };
        Ok(Self)
    }
}
