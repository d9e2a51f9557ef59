// SPDX-License-Identifier: GPL-2.0

//! Sweeps: at which pace tables are gone through, again and again, for what has expired.
//!
//! A sweep consists of steps, each of a limited number of buckets, and is done in runs with pauses in
//! between. Runs grow with the table, so that what expires in a large one goes about as soon as in a
//! small one. There is a bound to them, and after each nothing is done for as long as it took.

/// Milliseconds between two sweeps.
pub const INTERVAL_MS: u32 = 1000;

/// Runs of a sweep.
const RUNS: u32 = 64;

/// Bounds of the steps in one run. Small tables need fewer runs, the largest ones take more.
const MIN_STEPS: u32 = 64;
const MAX_STEPS: u32 = 512;

/// Milliseconds between two runs.
const PAUSE_MS: u32 = 32;

/// Steps in one run of a sweep that has so many in all.
pub fn steps(all: u32) -> u32 {
    all.div_ceil(RUNS).clamp(MIN_STEPS, MAX_STEPS)
}

/// Milliseconds from the end of a run that took so many until the next one of the same sweep.
pub fn pause_ms(took_ms: u64) -> u32 {
    u32::try_from(took_ms)
        .unwrap_or(u32::MAX)
        .clamp(PAUSE_MS, INTERVAL_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs, and the pauses of one sweep, in all, when runs are short.
    fn sweep(all: u32) -> (u32, u32) {
        let runs = all.div_ceil(steps(all)).max(1);
        (runs, (runs - 1) * pause_ms(0))
    }

    #[test]
    fn large_tables_take_as_long_as_small_ones() {
        assert_eq!(sweep(0), (1, 0));
        assert_eq!(sweep(MIN_STEPS), (1, 0));
        assert_eq!(sweep(MIN_STEPS + 1), (2, 32));
        // A million routes have 2 million buckets, 256 in each step.
        assert_eq!(sweep((1 << 21) / 256), (64, 2016));
        // More than 6 million.
        for all in 0..=(1 << 23) / 256 {
            let (runs, ms) = sweep(all);
            assert!(runs <= RUNS && ms <= 2 * INTERVAL_MS + PAUSE_MS, "{all}");
        }
        // As many as a namespace may have.
        assert_eq!(sweep((1 << 25) / 256), (256, 8160));
    }

    #[test]
    fn runs_have_a_bound() {
        for all in [0, 1, 4095, 4096, 4097, 1 << 15, 1 << 17, u32::MAX] {
            assert!((MIN_STEPS..=MAX_STEPS).contains(&steps(all)), "{all}");
        }
    }

    #[test]
    fn half_of_the_time_nothing_is_done() {
        assert_eq!(pause_ms(0), 32);
        assert_eq!(pause_ms(32), 32);
        assert_eq!(pause_ms(33), 33);
        assert_eq!(pause_ms(999), 999);
        // Whoever is so slow is not kept waiting for ever.
        assert_eq!(pause_ms(u64::MAX), INTERVAL_MS);
    }
}
