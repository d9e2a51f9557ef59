// SPDX-License-Identifier: MIT OR Apache-2.0

//! What load balancing units say to a leader of what it has passed on.

use super::Agent;
use crate::wire::Heard;
use std::{
    net::SocketAddr,
    time::Instant, //
};

impl Agent {
    /// It is about what this host has sent in this life.
    pub(super) fn is_own(&self, heard: &Heard) -> bool {
        (heard.host, heard.epoch) == (self.config.host, self.config.epoch)
    }

    /// A load balancing unit has got a consolidated heartbeat, but what it says of the hosts `missing`.
    pub(super) fn heard(
        &mut self,
        now: Instant,
        (lbu, from): (u32, SocketAddr),
        number: u64,
        missing: &[u32],
    ) {
        // Nobody listens to a leader whose table it has not asked for.
        if !self.peers.is_known(lbu) {
            self.opener.forget(lbu);
            return self.counters.add("message-of-stranger");
        }
        self.peers.heard(now, lbu, from);
        self.in_group(|group, _| group.heard(lbu, number, missing));
    }
}
