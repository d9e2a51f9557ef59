// SPDX-License-Identifier: GPL-2.0

//! Slow start: the weight of an endpoint that has just come grows to what it shall be.

/// Steps of the way from nearly nothing to the whole weight.
pub const STEPS: u32 = 16;

/// On which step an endpoint is that has been there for `age`, of 1 to [`STEPS`], if the whole way
/// takes `period`: its weight is so many [`STEPS`]ths. Any unit of time.
pub fn step(age: u64, period: u64) -> u32 {
    let done = age.saturating_mul(u64::from(STEPS)).checked_div(period);
    match done.and_then(|done| u32::try_from(done).ok()) {
        Some(done) if done < STEPS => done.saturating_add(1),
        // There, or no way at all.
        _ => STEPS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_even() {
        for period in [16, 160, 16_000] {
            let mut counts = [0u64; STEPS as usize + 1];
            for age in 0..period {
                counts[step(age, period) as usize] += 1;
            }
            assert_eq!(counts[0], 0);
            assert!(counts[1..].iter().all(|n| *n == period / 16), "{counts:?}");
            assert_eq!(step(period, period), STEPS);
        }
    }

    #[test]
    fn extremes() {
        for (age, period, want) in [
            (0, 1, 1),
            (1, 1, STEPS),
            (0, 0, STEPS),
            (7, 0, STEPS),
            (u64::MAX, 1, STEPS),
            (u64::MAX, u64::MAX, 2),
            (0, u64::MAX, 1),
        ] {
            assert_eq!(step(age, period), want, "{age} of {period}");
        }
    }
}
