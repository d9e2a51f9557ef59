// SPDX-License-Identifier: MIT OR Apache-2.0

//! Load balancing units that are reached by multicast.
//!
//! A group says nothing of who is in it. Who has some of the table, and has to be waited for, is known as ever: those that
//! have asked for it, each from an address of its own.

use super::Agent;
use crate::wire::Message;
use std::net::SocketAddr;

impl Agent {
    /// From now on these are the multicast groups of load balancing units.
    pub fn set_multicast(&mut self, groups: Vec<SocketAddr>) {
        self.config.multicast = groups;
    }

    /// Queues `message`, which is to be answered, for every load balancing unit that may have some of the table.
    ///
    /// The network may carry heartbeats to a unit by a group and nothing by its own address, or the other way round.
    /// Silence must not come from that: the unit knows that the host is there, and may do otherwise all the same. So both
    /// ways are taken, by datagrams of their own, of which one is enough.
    pub(super) fn ask_all(&mut self, message: &Message) {
        let mut all = self.config.lbus.clone();
        let groups = self.config.multicast.clone();
        if !groups.is_empty() {
            let others = self.peers.addresses().filter(|to| !all.contains(to));
            let others: Vec<_> = others.collect();
            all.extend(others);
        }
        self.tell_each(&all, message);
        self.tell_each(&groups, message);
    }
}
