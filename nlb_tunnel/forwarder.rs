// SPDX-License-Identifier: GPL-2.0

//! The forwarders that a host takes tunnel packets from.

use crate::rate::PerSecond;
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
    unknown: PerSecond,
}

impl Forwarder {
    /// A forwarder that nothing came from yet.
    pub(crate) fn new(addr: Addr) -> Result<Arc<Self>> {
        Ok(Arc::new(
            Self {
                addr,
                counters: PerCpuCounters::new()?,
                mappings: Atomic::new(0),
                unknown: PerSecond::new(),
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
    pub(crate) fn may_send_unknown(&self) -> bool {
        self.unknown.permits(UNKNOWN_PER_SECOND)
    }
}
