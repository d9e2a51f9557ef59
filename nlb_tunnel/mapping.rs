// SPDX-License-Identifier: GPL-2.0

//! Encapsulation mappings: what stands for a connection between forwarder and host.

pub(crate) mod forwarder;
pub(crate) mod host;

use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};
use nlb::{
    sync::{
        add,
        read_once, //
    },
    time, //
};

/// Packets and bytes of a connection, and when the last one came.
///
/// A connection's packets come by one CPU as a rule, and this is written with each of them
/// anyhow, so these are plain atomics.
pub struct Usage {
    packets: Atomic<u64>,
    bytes: Atomic<u64>,
    used: Atomic<u64>,
}

impl Usage {
    /// None so far; idle from now on.
    #[expect(clippy::new_without_default, reason = "it begins at a moment")]
    #[inline(always)]
    pub fn new() -> Self {
        Self {
            packets: Atomic::new(0),
            bytes: Atomic::new(0),
            used: Atomic::new(time::jiffies()),
        }
    }

    /// Counts packets, `bytes` together.
    #[inline]
    pub fn count(&self, bytes: usize) {
        add(&self.packets, 1);
        add(&self.bytes, bytes as u64);
        self.touch();
    }

    /// Notes that the connection is in use, without counting a packet.
    #[inline]
    pub fn touch(&self) {
        let now = time::jiffies();
        // Many packets come in one jiffy.
        if read_once(&self.used) != now {
            self.used.store(now, Relaxed);
        }
    }

    /// Packets so far.
    pub fn packets(&self) -> u64 {
        self.packets.load(Relaxed)
    }

    /// Bytes (IP total length) so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// When the last packet came, in jiffies.
    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// Milliseconds since the last packet.
    pub(crate) fn idle_ms(&self) -> u64 {
        // The last packet may have come on another CPU since.
        time::jiffies_to_ms(time::jiffies().saturating_sub(self.used()))
    }
}
