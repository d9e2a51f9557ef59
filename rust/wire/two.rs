// SPDX-License-Identifier: GPL-2.0

//! Two random choices: of two endpoints that are drawn by weight, who has less to do gets the connection
//! (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001).
//!
//! They are drawn from a table of [`wrr`](super::wrr), so that a draw is one load. What decides is a hash of the
//! connection and of the turn that it is: nobody need be asked for random numbers, machines with other clients draw
//! others, and what would be drawn can be told beforehand.

use super::{
    addr::FourTuple,
    maglev::{
        connection,
        hash,
        By, //
    },
    wrr, //
};

/// Where the hash begins: digits of pi, as with Maglev.
const TWO: u64 = 0x4528_21e6_38d0_1377;

/// What the state grows by from draw to draw: that of SplitMix64.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Draws from a table for a connection whose turn it is, again and again. None if the table is empty.
#[inline]
pub fn draws<'a>(
    table: &'a [u16],
    tuple: &FourTuple,
    turn: u32,
) -> impl FnMut() -> Option<u16> + 'a {
    let connection = connection(tuple, By::ClientAndPort);
    let mut state = hash(TWO, [connection, turn.into()]);
    move || {
        state = state.wrapping_add(STEP);
        wrr::pick(table, (hash(state, [0, 0]) >> 32) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::addr::Proto,
        *, //
    };
    use std::vec;

    fn tuple(port: u16) -> FourTuple {
        FourTuple::v4([198, 51, 100, 7], port, [192, 0, 2, 10], 80, Proto::Tcp)
    }

    /// How often each pair of four is drawn, of which the last has as many slots as the others together.
    fn pairs(draw: impl Fn(u16, &[u16]) -> [Option<u16>; 2]) -> [[u32; 4]; 4] {
        let table = [0u16, 1, 2, 3, 3, 3, 0, 3];
        let mut pairs = [[0; 4]; 4];
        for number in 0..32000 {
            let [one, other] = draw(number, &table).map(Option::unwrap);
            pairs[usize::from(one)][usize::from(other)] += 1;
        }
        pairs
    }

    #[test]
    fn both_are_drawn_by_weight_and_do_not_know_of_each_other() {
        let two = |tuple: FourTuple, turn, table: &[u16]| {
            let mut draw = draws(table, &tuple, turn);
            [draw(), draw()]
        };
        // Many connections in one turn, one connection in many turns, and as it is.
        for all in [
            pairs(|number, table| two(tuple(number), 7, table)),
            pairs(|number, table| two(tuple(7), number.into(), table)),
            pairs(|number, table| two(tuple(number), number.into(), table)),
        ] {
            for (one, row) in all.iter().enumerate() {
                for (other, count) in row.iter().enumerate() {
                    let slots = [2, 1, 1, 4];
                    let want = 32000 * slots[one] * slots[other] / 64;
                    // Above five standard deviations.
                    let off = (5.0 * f64::from(want).sqrt()) as u32;
                    assert!(count.abs_diff(want) <= off, "{one} {other}: {all:?}");
                }
            }
        }
    }

    #[test]
    fn draws_are_the_same_again() {
        let table: vec::Vec<u16> = (0..1024).collect();
        let (mut one, mut other) = (draws(&table, &tuple(1), 5), draws(&table, &tuple(1), 5));
        let mut seen = vec![false; 1024];
        for _ in 0..100 {
            let drawn = one().unwrap();
            assert_eq!(Some(drawn), other());
            seen[usize::from(drawn)] = true;
        }
        // They go on as they began.
        assert!(seen.iter().filter(|seen| **seen).count() > 80);
        assert_eq!(draws(&[], &tuple(1), 5)(), None);
    }
}
