// SPDX-License-Identifier: GPL-2.0

//! Clocks as plain numbers, for tables and records that cannot hold an instant's type.
//!
//! C headers: [`include/linux/jiffies.h`](srctree/include/linux/jiffies.h),
//! [`include/linux/timekeeping.h`](srctree/include/linux/timekeeping.h).

use crate::bindings;

/// Jiffies per second.
pub const HZ: u64 = bindings::HZ as u64;

/// Jiffies since (about) boot. The cheapest clock there is: one load.
#[inline]
pub fn jiffies() -> u64 {
    // SAFETY: The counter always exists. Rust is supported on 64-bit machines, where it is read at
    // once; it changes at any time, hence volatile, as in C.
    unsafe { core::ptr::read_volatile(&raw const bindings::jiffies_64) }
}

/// Jiffies that `ms` milliseconds take, rounded up.
pub const fn ms_to_jiffies(ms: u32) -> u64 {
    (ms as u64 * HZ).div_ceil(1000)
}

/// Milliseconds that `jiffies` take, rounded down; `u64::MAX` if that is more than fits.
pub const fn jiffies_to_ms(jiffies: u64) -> u64 {
    (jiffies / HZ)
        .saturating_mul(1000)
        .saturating_add((jiffies % HZ) * 1000 / HZ)
}

fn nanoseconds(time: bindings::ktime_t) -> u64 {
    u64::try_from(time).unwrap_or(0)
}

/// Nanoseconds since boot, without the time spent suspended (`CLOCK_MONOTONIC`).
pub fn monotonic_ns() -> u64 {
    // SAFETY: The function has no preconditions once time is kept, as it is when modules load.
    nanoseconds(unsafe { bindings::ktime_get() })
}

/// The same in milliseconds.
pub fn monotonic_ms() -> u64 {
    monotonic_ns() / 1_000_000
}

/// Milliseconds until it is `deadline_ms` ([`monotonic_ms`]), 0 if that is past.
pub fn left_ms(deadline_ms: u64) -> u32 {
    let left = deadline_ms.saturating_sub(monotonic_ms());
    u32::try_from(left).unwrap_or(u32::MAX)
}

/// Nanoseconds since boot (`CLOCK_BOOTTIME`).
pub fn boottime_ns() -> u64 {
    // SAFETY: As above.
    nanoseconds(unsafe { bindings::ktime_get_with_offset(bindings::tk_offsets_TK_OFFS_BOOT) })
}

/// The same in milliseconds.
pub fn boottime_ms() -> u64 {
    boottime_ns() / 1_000_000
}

/// Seconds since boot.
pub fn boottime_secs() -> u64 {
    boottime_ns() / 1_000_000_000
}

/// Nanoseconds since 1970 (`CLOCK_REALTIME`), which may jump.
pub fn realtime_ns() -> u64 {
    // SAFETY: As above.
    nanoseconds(unsafe { bindings::ktime_get_with_offset(bindings::tk_offsets_TK_OFFS_REAL) })
}

#[kernel::macros::kunit_tests(nlb_time)]
mod tests {
    use super::*;

    #[test]
    fn conversions() {
        assert_eq!(ms_to_jiffies(0), 0);
        assert_eq!(ms_to_jiffies(1000), HZ);
        // Rounded up.
        assert_eq!(ms_to_jiffies(1), 1);
        assert_eq!(ms_to_jiffies(1001), HZ + 1);
        assert_eq!(jiffies_to_ms(HZ), 1000);
        assert_eq!(jiffies_to_ms(90 * HZ), 90_000);
        assert_eq!(jiffies_to_ms(HZ / 2), 500);
        assert!(jiffies_to_ms(u64::MAX) >= u64::MAX / HZ);
    }

    #[test]
    fn clocks_run() {
        let (before, ticks) = (monotonic_ns(), jiffies());
        assert!(boottime_ns() >= before);
        assert!(monotonic_ns() >= before);
        assert!(jiffies() >= ticks);
    }
}
