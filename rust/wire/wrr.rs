// SPDX-License-Identifier: GPL-2.0

//! Weighted round robin by a table.
//!
//! When the endpoints change, [`fill`] lays out one round in a table whose length is a power of
//! two; a pick is then one counter, one mask and one load ([`pick`]). The table holds every
//! endpoint as often as its weight says, rounded to whole slots by the largest remainder, and
//! interleaved as smooth weighted round robin does it (nginx,
//! `ngx_http_upstream_round_robin.c`), so that a heavy endpoint gets no bursts.

/// Slots a table may have.
pub const MAX_SLOTS: usize = 1 << 16;

/// One endpoint: its weight, and room for [`fill`] to work.
#[derive(Clone, Copy, Debug, Default)]
pub struct Share {
    weight: u32,
    slots: u32,
    remainder: u64,
    credit: i64,
}

impl Share {
    /// An endpoint with this weight; 0 gets no new connections.
    pub const fn new(weight: u32) -> Share {
        Share {
            weight,
            slots: 0,
            remainder: 0,
            credit: 0,
        }
    }

    /// How many slots of the table the endpoint got.
    pub const fn slots(&self) -> u32 {
        self.slots
    }
}

/// Why a table cannot be filled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Error {
    /// No endpoint has a weight above zero.
    NoEndpoint,
    /// More endpoints with a weight above zero than slots.
    TooMany,
    /// The table's length is no power of two, or above [`MAX_SLOTS`].
    BadTable,
}

/// Fills `table` with indices into `shares`.
///
/// An endpoint with weight `w` of a sum `W` gets `w / W` of the slots, rounded down or up; never
/// less than one slot if `w > 0`, at the cost of those with the most slots. Takes
/// `table.len() * shares.len()` steps. On error the table has not changed.
pub fn fill(shares: &mut [Share], table: &mut [u16]) -> Result<(), Error> {
    if !table.len().is_power_of_two() || table.len() > MAX_SLOTS {
        return Err(Error::BadTable);
    }
    let slots = table.len() as u32;
    apportion(shares, slots)?;
    for slot in table.iter_mut() {
        let mut best: Option<(usize, i64)> = None;
        for (index, share) in shares.iter_mut().enumerate() {
            share.credit = share.credit.wrapping_add(i64::from(share.slots));
            if share.slots > 0 && best.is_none_or(|(_, credit)| share.credit > credit) {
                best = Some((index, share.credit));
            }
        }
        if let Some((index, _)) = best {
            *slot = index as u16;
            if let Some(share) = shares.get_mut(index) {
                share.credit = share.credit.wrapping_sub(i64::from(slots));
            }
        }
    }
    Ok(())
}

impl AsMut<Share> for Share {
    fn as_mut(&mut self) -> &mut Share {
        self
    }
}

/// Divides `slots` among the shares.
pub(super) fn apportion<T: AsMut<Share>>(shares: &mut [T], slots: u32) -> Result<(), Error> {
    let mut total = 0u64;
    let mut wanting = 0u32;
    for share in shares.iter_mut().map(T::as_mut) {
        total = total.saturating_add(u64::from(share.weight));
        wanting = wanting.saturating_add(u32::from(share.weight > 0));
    }
    if wanting == 0 {
        return Err(Error::NoEndpoint);
    }
    if wanting > slots || shares.len() > MAX_SLOTS {
        return Err(Error::TooMany);
    }
    let mut given = 0u32;
    for share in shares.iter_mut().map(T::as_mut) {
        // 32 bits times 17 bits.
        let exact = u64::from(share.weight).wrapping_mul(u64::from(slots));
        share.slots = exact.checked_div(total).unwrap_or(0) as u32;
        share.remainder = exact.checked_rem(total).unwrap_or(0);
        share.credit = 0;
        if share.weight > 0 && share.slots == 0 {
            share.slots = 1;
            share.remainder = 0;
        }
        given = given.saturating_add(share.slots);
    }
    while given < slots {
        // Fewer slots are left than there are shares with a remainder, so none is served twice.
        let all = shares.iter_mut().map(T::as_mut);
        let Some(share) = all.max_by_key(|share| share.remainder) else {
            break;
        };
        share.slots = share.slots.saturating_add(1);
        share.remainder = 0;
        given = given.saturating_add(1);
    }
    while given > slots {
        // Not all have one slot, or `given` would be `wanting` at most.
        let all = shares.iter_mut().map(T::as_mut);
        let Some(share) = all.max_by_key(|share| share.slots) else {
            break;
        };
        share.slots = share.slots.saturating_sub(1);
        given = given.saturating_sub(1);
    }
    Ok(())
}

/// The endpoint whose turn it is, `counter` counting the connections.
///
/// None if the table is empty.
#[inline]
pub fn pick(table: &[u16], counter: u32) -> Option<u16> {
    let mask = table.len().checked_sub(1)?;
    table.get(counter as usize & mask).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        vec,
        vec::Vec, //
    };

    fn table(weights: &[u32], slots: usize) -> (Vec<u16>, Vec<u32>) {
        let mut shares: Vec<_> = weights.iter().copied().map(Share::new).collect();
        let mut table = vec![u16::MAX; slots];
        fill(&mut shares, &mut table).unwrap();
        let mut counts = vec![0; weights.len()];
        for &index in &table {
            counts[usize::from(index)] += 1;
        }
        let slots: Vec<_> = shares.iter().map(Share::slots).collect();
        assert_eq!(counts, slots, "{weights:?}");
        (table, counts)
    }

    #[test]
    fn proportions() {
        for (weights, slots, want) in [
            (&[1][..], 256, &[256][..]),
            (&[1, 1], 256, &[128, 128]),
            (&[5, 1, 2], 8, &[5, 1, 2]),
            (&[1, 2], 256, &[85, 171]),
            (&[1, 1, 1], 256, &[86, 85, 85]),
            (&[0, 7, 0, 1], 256, &[0, 224, 0, 32]),
            (&[1_000_000, 1], 256, &[255, 1]),
            (&[1_000_000, 1, 1, 1], 4, &[1, 1, 1, 1]),
            (&[u32::MAX, u32::MAX], 65536, &[32768, 32768]),
        ] {
            let (_, mut counts) = table(weights, slots);
            if weights == [1, 1, 1] {
                // Which of equals gets the odd slot does not matter.
                counts.sort_by(|a, b| b.cmp(a));
            }
            assert_eq!(counts, want, "{weights:?}");
        }
    }

    #[test]
    fn smooth() {
        // The sequence of the nginx commit that introduced the algorithm: a a b a c a a.
        // Here with weights that add up to a power of two.
        let (order, _) = table(&[6, 1, 1], 8);
        assert_eq!(order, [0, 0, 1, 0, 0, 2, 0, 0]);
        let (order, _) = table(&[1, 1, 1, 1], 8);
        assert_eq!(order, [0, 1, 2, 3, 0, 1, 2, 3]);
    }

    #[test]
    fn picks_go_round() {
        let (table, _) = table(&[3, 1], 4);
        let mut counts = [0; 2];
        for counter in (u32::MAX - 49..=u32::MAX).chain(0..50) {
            counts[usize::from(pick(&table, counter).unwrap())] += 1;
        }
        assert_eq!(counts, [75, 25]);
        assert_eq!(pick(&[], 7), None);
    }

    #[test]
    fn refusals() {
        for (weights, slots, want) in [
            (&[][..], 8, Error::NoEndpoint),
            (&[0, 0], 8, Error::NoEndpoint),
            (&[1, 1, 1], 2, Error::TooMany),
            (&[1], 0, Error::BadTable),
            (&[1], 3, Error::BadTable),
            (&[1], 1 << 17, Error::BadTable),
        ] {
            let mut shares: Vec<_> = weights.iter().copied().map(Share::new).collect();
            let mut table = vec![9; slots];
            assert_eq!(fill(&mut shares, &mut table), Err(want));
            assert!(table.iter().all(|&slot| slot == 9));
        }
    }
}
