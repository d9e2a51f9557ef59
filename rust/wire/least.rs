// SPDX-License-Identifier: GPL-2.0

//! Least connections: who has the smallest load for its weight.

/// The load that an active connection is.
pub const CONNECTION: u64 = 256;

/// The load of an endpoint with so many connections, as IPVS counts it: one that is being closed is
/// 1/256 of an active one (`ip_vs_dest_conn_overhead()` in `include/net/ip_vs.h`).
#[inline]
pub const fn load(active: u32, inactive: u32) -> u64 {
    (active as u64)
        .wrapping_mul(CONNECTION)
        .wrapping_add(inactive as u64)
}

/// The first of the candidates, given with load and weight, that has the smallest quotient of the
/// two. None if no weight is above zero.
#[inline]
pub fn least<T>(candidates: impl Iterator<Item = (T, u64, u32)>) -> Option<T> {
    let mut best: Option<(T, u64, u32)> = None;
    for (candidate, load, weight) in candidates {
        // Of fractions, the smaller one has the smaller product with the other's denominator.
        let is_better = |best: &(T, u64, u32)| {
            load.saturating_mul(u64::from(best.2)) < best.1.saturating_mul(u64::from(weight))
        };
        if weight > 0 && best.as_ref().is_none_or(is_better) {
            best = Some((candidate, load, weight));
        }
    }
    best.map(|(candidate, _, _)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn pick(candidates: &[(u64, u32)]) -> Option<usize> {
        let candidates = candidates.iter().enumerate();
        least(candidates.map(|(index, (load, weight))| (index, *load, *weight)))
    }

    #[test]
    fn smallest_quotient() {
        for (candidates, want) in [
            (&[][..], None),
            (&[(0, 0), (5, 0)], None),
            (&[(5, 1)], Some(0)),
            (&[(5, 1), (4, 1), (4, 1)], Some(1)),
            (&[(0, 0), (7, 1)], Some(1)),
            (&[(0, 1), (0, 100)], Some(0)),
            (&[(256, 1), (700, 3)], Some(1)),
            (&[(256, 1), (768, 3)], Some(0)),
            (&[(256, 1), (769, 3)], Some(0)),
            (&[(u64::MAX, 1), (u64::MAX - 1, 1)], Some(1)),
            (&[(1 << 41, 100), (1 << 41, 99)], Some(0)),
        ] {
            assert_eq!(pick(candidates), want, "{candidates:?}");
        }
    }

    #[test]
    fn closing_connections_weigh_little() {
        assert!(load(1, 0) > load(0, 255));
        assert_eq!(load(2, 3), 515);
        assert_eq!(load(1, 0), CONNECTION);
        assert_eq!(load(u32::MAX, u32::MAX), 0x100_ffff_feff);
    }

    #[test]
    fn long_connections_are_divided_by_weight() {
        let weights = [1, 2, 5];
        let mut active = [0u32; 3];
        for _ in 0..800 {
            let state: Vec<_> = active.iter().map(|n| load(*n, 0)).zip(weights).collect();
            active[pick(&state).unwrap()] += 1;
        }
        assert_eq!(active, [100, 200, 500]);
    }
}
