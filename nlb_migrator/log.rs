// SPDX-License-Identifier: GPL-2.0

//! Lines in the kernel log that somebody else can provoke, and that therefore must be few.

use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};
use nlb::time;

/// Lines at once, and then one per interval.
const BURST: u64 = 10;
const INTERVAL_MS: u32 = 5000;

/// Lets a line pass now and then.
pub(crate) struct Limit {
    /// Jiffies until which lines are spoken for; one line costs an interval.
    until: Atomic<u64>,
}

impl Limit {
    pub(crate) fn new() -> Self {
        Self {
            until: Atomic::new(0),
        }
    }

    /// Whether a line may be logged. Two at the same moment may count as one.
    pub(crate) fn allow(&self) -> bool {
        let interval = time::ms_to_jiffies(INTERVAL_MS);
        let now = time::jiffies();
        let until = self.until.load(Relaxed).max(now);
        if until.saturating_sub(now) > interval.saturating_mul(BURST) {
            return false;
        }
        self.until.store(until.saturating_add(interval), Relaxed);
        true
    }
}

/// Logs a warning unless there were many lately.
macro_rules! warn_limited {
    ($limit:expr, $($arg:tt)*) => {
        if $limit.allow() {
            // As arguments, so that types of crate `nlb` can be shown.
            kernel::prelude::pr_warn!("{}", core::format_args!($($arg)*));
        }
    };
}
pub(crate) use warn_limited;
