// SPDX-License-Identifier: GPL-2.0

//! Limits: tells user space which of them have been met, once a second at most.

use crate::{
    netlink,
    state::Forwarder,
    stats::Counter, //
};
use nlb::net::Net;

/// What counts what there was no room for.
const LIMITS: [Counter; 8] = [
    Counter::AffinityFull,
    Counter::PassMissFull,
    Counter::DropOverflow,
    Counter::StatelessPackets,
    Counter::DropTableFull,
    Counter::DropNoFlowId,
    Counter::DropNoPort,
    Counter::DropNoMemory,
];

/// What user space was told last.
#[derive(Default)]
pub(crate) struct Told([u64; LIMITS.len()]);

impl Told {
    /// Tells what has grown since.
    pub(crate) fn tell(&mut self, net: &Net, forwarder: &Forwarder) {
        let now = LIMITS.map(|counter| forwarder.stats.get(counter));
        if now != self.0 {
            let pairs = LIMITS.iter().zip(now.iter().zip(&self.0));
            let grown = pairs.filter(|(_, (now, before))| now != before);
            netlink::notify_limits(net, grown.map(|(counter, (now, _))| (*counter, *now)));
            self.0 = now;
        }
    }
}
