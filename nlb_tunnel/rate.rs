// SPDX-License-Identifier: GPL-2.0

//! A bound on what is sent in a second.

use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};
use nlb::time;

/// Counts what is sent in the present second.
pub(crate) struct PerSecond {
    second: Atomic<u64>,
    sent: Atomic<u32>,
}

impl PerSecond {
    /// Nothing was sent yet.
    pub(crate) const fn new() -> Self {
        Self {
            second: Atomic::new(0),
            sent: Atomic::new(0),
        }
    }

    /// Whether another one may be sent now, of at most `max`.
    ///
    /// CPUs that enter a new second at the same moment may begin the count twice, which permits a
    /// few more.
    pub(crate) fn permits(&self, max: u32) -> bool {
        let second = time::boottime_secs();
        if self.second.load(Relaxed) != second {
            self.second.store(second, Relaxed);
            self.sent.store(0, Relaxed);
        }
        self.sent.load(Relaxed) < max && self.sent.fetch_add(1u32, Relaxed) < max
    }
}
