// SPDX-License-Identifier: GPL-2.0

//! The forwarders that a host takes tunnel packets from.

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
};
use nlb::{
    sync::percpu::PerCpuCounters,
    time,
    wire::addr::Addr, //
};

/// Forwarders that a namespace may have.
pub(crate) const MAX_FORWARDERS: u32 = 1024;

/// UNKNOWN datagrams that one forwarder gets in a second.
const UNKNOWN_PER_SECOND: u32 = 1000;

/// A forwarder.
pub(crate) struct Forwarder {
    addr: Addr,
    counters: PerCpuCounters<2>,
    mappings: Atomic<u32>,
    /// The second that `unknown` counts in.
    second: Atomic<u64>,
    unknown: Atomic<u32>,
}

impl Forwarder {
    /// A forwarder that nothing came from yet.
    pub(crate) fn new(addr: Addr) -> Result<Arc<Self>> {
        Ok(Arc::new(
            Self {
                addr,
                counters: PerCpuCounters::new()?,
                mappings: Atomic::new(0),
                second: Atomic::new(0),
                unknown: Atomic::new(0),
            },
            GFP_KERNEL,
        )?)
    }

    /// Its address, the source of its tunnel packets.
    pub(crate) fn addr(&self) -> Addr {
        self.addr
    }

    /// Mappings of the forwarder now.
    pub(crate) fn mappings(&self) -> u32 {
        self.mappings.load(Relaxed)
    }

    /// A mapping of the forwarder is made.
    pub(crate) fn mapping_added(&self) {
        self.mappings.fetch_add(1u32, Relaxed);
    }

    /// A mapping of the forwarder is gone.
    pub(crate) fn mapping_removed(&self) {
        self.mappings.fetch_sub(1u32, Relaxed);
    }

    /// Counts a packet, or a batch of segments as one.
    #[inline]
    pub(crate) fn count(&self, bytes: usize) {
        self.counters.inc(0);
        self.counters.add(1, bytes as u64);
    }

    /// Packets so far.
    pub(crate) fn packets(&self) -> u64 {
        self.counters.sum(0)
    }

    /// Bytes (IP total length) so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.counters.sum(1)
    }

    /// Whether another UNKNOWN may be sent now.
    ///
    /// CPUs that enter a new second at the same moment may begin the count twice, which permits a
    /// few more.
    pub(crate) fn may_send_unknown(&self) -> bool {
        let second = time::boottime_secs();
        if self.second.load(Relaxed) != second {
            self.second.store(second, Relaxed);
            self.unknown.store(0, Relaxed);
        }
        self.unknown.load(Relaxed) < UNKNOWN_PER_SECOND
            && self.unknown.fetch_add(1u32, Relaxed) < UNKNOWN_PER_SECOND
    }
}
