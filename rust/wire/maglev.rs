// SPDX-License-Identifier: GPL-2.0

//! Consistent hashing by a table, as in Maglev (Eisenbud et al., "Maglev: A Fast and Reliable Software
//! Network Load Balancer", NSDI 2016, section 3.4).
//!
//! When the endpoints change, [`fill`] lays out a table of [`SLOTS`] slots; a connection belongs to
//! the slot its client's address and port hash to ([`pick`]). Every endpoint has an order of its own
//! in which it wants the slots. So each gets its share of them, and when one of the endpoints goes
//! the others keep nearly all they had.
//!
//! Nothing here depends on the machine, on the order in which endpoints were added or on chance: two
//! machines with the same endpoints make the same table and send a connection to the same one.
//!
//! In the paper a turn ends with a slot; so everybody's pace depends on what all others have taken,
//! and with weights more than 1 % of the slots may change needlessly when one endpoint goes. Here a
//! turn is a look at one slot, taken or not. That makes the table a race that is the same for those
//! who stay, up to the point where somebody has its share; only what is left then, a few percent, is
//! given out as in the paper. Measured with 3 to 1000 endpoints, equal and unequal: less than 0.7 %.

use super::{
    addr::{
        Addr,
        FourTuple, //
    },
    wrr::{
        self,
        Share, //
    },
};

/// Slots of a table: a prime, so that every step through it visits all of them.
pub const SLOTS: usize = 65537;

/// [`SLOTS`], for sums.
const MODULUS: u32 = SLOTS as u32;

/// Weights as they are set, times the steps of a slow start, and then some: sums of any number of products with
/// [`SLOTS`] fit into 64 bits.
const MAX_WEIGHT: u32 = 1 << 24;

/// What is in a slot that is still free.
const FREE: u16 = u16::MAX;

/// How often each slot is looked at in the race, on an average, if nobody stops: less than 1 % of the
/// slots are missed.
const LOOKS: u64 = 5;

/// One endpoint: who it is, its weight, and room for [`fill`] to work.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    host: Addr,
    port: u16,
    index: u16,
    weight: u32,
    share: Share,
    /// Slots it may still take.
    left: u32,
    /// How many it has looked at, which one it wants next, and how far it is to the one after that.
    seen: u32,
    wanted: u32,
    step: u32,
    /// Earned in each round of the race; a look has its price.
    credit: u64,
}

impl Entry {
    /// The endpoint with this address and port (0 if it has none of its own), which stands in the table as
    /// `index`; weight 0 gets no slots. Weights above 2^24 count as that.
    pub fn new(index: u16, (host, port): (Addr, u16), weight: u32) -> Entry {
        let weight = weight.min(MAX_WEIGHT);
        Entry {
            host,
            port,
            index,
            weight,
            share: Share::new(weight),
            left: 0,
            seen: 0,
            wanted: 0,
            step: 0,
            credit: 0,
        }
    }

    /// Puts the endpoint at its start.
    fn prepare(&mut self, scale: u32) {
        let (high, low) = halves(self.host);
        // Whoever is elsewhere on the host wants slots of its own.
        let port = u64::from(self.port);
        let number = |seed, limit| below(hash(seed ^ port, [high, low]), limit);
        self.left = self.share.slots();
        self.seen = 0;
        self.wanted = number(OFFSET, MODULUS);
        self.step = number(STEP, MODULUS.wrapping_sub(1)).wrapping_add(1);
        // Somewhere before its first look, or those of light endpoints would all be in one round.
        self.credit = u64::from(number(CREDIT, scale)).wrapping_mul(u64::from(MODULUS));
    }

    /// Looks at the slot it wants next, and takes it if it is free.
    fn look(&mut self, table: &mut [u16]) {
        let slot = table.get_mut(self.wanted as usize);
        self.seen = self.seen.wrapping_add(1);
        self.wanted = self.wanted.wrapping_add(self.step);
        if self.wanted >= MODULUS {
            self.wanted = self.wanted.wrapping_sub(MODULUS);
        }
        if let Some(slot) = slot.filter(|slot| **slot == FREE) {
            *slot = self.index;
            self.left = self.left.wrapping_sub(1);
        }
    }

    /// One round of the race: the looks that its weight pays for. The more it has seen the fewer they
    /// are. So the time it gets to a given slot is distributed exponentially, and who of several is
    /// there first is a matter of weight, however many they are.
    fn race(&mut self, table: &mut [u16], scale: u32) {
        let unseen = u64::from(MODULUS.saturating_sub(self.seen));
        self.credit = self
            .credit
            .wrapping_add(unseen.wrapping_mul(u64::from(self.weight)));
        let price = u64::from(scale).wrapping_mul(u64::from(MODULUS));
        while self.credit >= price && self.left > 0 {
            self.credit = self.credit.wrapping_sub(price);
            self.look(table);
        }
    }

    /// Takes the first of the slots it wants that is free.
    fn take(&mut self, table: &mut [u16]) {
        let before = self.left;
        for _ in 0..SLOTS {
            self.look(table);
            if self.left != before {
                return;
            }
        }
        // Nothing is free.
        self.left = 0;
    }
}

impl AsMut<Share> for Entry {
    fn as_mut(&mut self) -> &mut Share {
        &mut self.share
    }
}

/// Why a table cannot be filled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Error {
    /// No endpoint has a weight above zero.
    NoEndpoint,
    /// More endpoints with a weight above zero than slots.
    TooMany,
    /// The table has not [`SLOTS`] slots.
    BadTable,
}

/// Fills `table` with the indices of the entries, each as often as its weight says, rounded as in
/// [`wrr::fill`]. Reorders the entries.
///
/// Takes some 10 steps for each slot, at worst one for each slot and entry. On error the table has
/// not changed.
pub fn fill(entries: &mut [Entry], table: &mut [u16]) -> Result<(), Error> {
    if table.len() != SLOTS {
        return Err(Error::BadTable);
    }
    entries.sort_unstable_by_key(|entry| (entry.host, entry.port));
    wrr::apportion(entries, MODULUS).map_err(|error| match error {
        wrr::Error::NoEndpoint => Error::NoEndpoint,
        wrr::Error::TooMany | wrr::Error::BadTable => Error::TooMany,
    })?;
    let mut all = retain(entries, |entry| entry.weight > 0);
    let total: u64 = all.iter().map(|entry| u64::from(entry.weight)).sum();
    // A weight near the average is worth a look in a round. As a power of two it hardly ever changes.
    let average = total.checked_div(all.len() as u64).unwrap_or(1);
    let scale = (average as u32).next_power_of_two();
    let rounds = LOOKS
        .wrapping_mul(SLOTS as u64)
        .wrapping_mul(u64::from(scale))
        .checked_div(total)
        .unwrap_or(0);
    table.fill(FREE);
    for entry in all.iter_mut() {
        entry.prepare(scale);
    }
    for _ in 0..rounds {
        all = retain(all, |entry| {
            entry.race(table, scale);
            entry.left > 0
        });
    }
    while !all.is_empty() {
        all = retain(all, |entry| {
            entry.take(table);
            entry.left > 0
        });
    }
    Ok(())
}

/// The entries for which `keep` is true, in their order; the others are behind them then.
fn retain(entries: &mut [Entry], mut keep: impl FnMut(&mut Entry) -> bool) -> &mut [Entry] {
    let mut kept = 0usize;
    for index in 0..entries.len() {
        if entries.get_mut(index).is_some_and(&mut keep) {
            // Both are below the length.
            entries.swap(kept, index);
            kept = kept.wrapping_add(1);
        }
    }
    entries.get_mut(..kept).unwrap_or_default()
}

/// What of a connection names its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The client's address and port.
    ClientAndPort,
    /// The client's address: all of its connections belong to one slot.
    Client,
}

/// The endpoint of a connection. None if the table is empty.
#[inline]
pub fn pick(table: &[u16], tuple: &FourTuple, by: By) -> Option<u16> {
    table.get(slot(tuple, by)).copied()
}

/// The endpoints of a connection in the order in which it wants them, again and again: [`pick`] is the
/// first. None if the table is empty.
///
/// The order goes through all slots, as far apart as the hash says: neighbours of one endpoint's slots
/// are not everybody's by weight.
#[inline]
pub fn slots<'a>(table: &'a [u16], tuple: &FourTuple, by: By) -> impl Iterator<Item = u16> + 'a {
    let hash = connection(tuple, by);
    let step = below(hash << 32, MODULUS.wrapping_sub(1)).wrapping_add(1);
    let mut slot = below(hash, MODULUS);
    core::iter::from_fn(move || {
        let index = table.get(slot as usize).copied();
        slot = slot.wrapping_add(step);
        if slot >= MODULUS {
            slot = slot.wrapping_sub(MODULUS);
        }
        index
    })
}

/// The slot of a connection.
#[inline]
fn slot(tuple: &FourTuple, by: By) -> usize {
    below(connection(tuple, by), MODULUS) as usize
}

/// The hash of a connection.
#[inline]
pub(super) fn connection(tuple: &FourTuple, by: By) -> u64 {
    let (high, low) = halves(tuple.client());
    let port = match by {
        By::ClientAndPort => u64::from(tuple.client_port()),
        By::Client => 0,
    };
    hash(CONNECTION, [high, low ^ (port << 48)])
}

// Where the hashes begin: the first digits of pi, as good as any.
const OFFSET: u64 = 0x243f_6a88_85a3_08d3;
const STEP: u64 = 0x1319_8a2e_0370_7344;
const CONNECTION: u64 = 0xa409_3822_299f_31d0;
const CREDIT: u64 = 0x082e_fa98_ec4e_6c89;

fn halves(addr: Addr) -> (u64, u64) {
    let all = u128::from_be_bytes(*addr.as_bytes());
    ((all >> 64) as u64, all as u64)
}

/// A hash of two words, by the finaliser of SplitMix64 (Steele et al., OOPSLA 2014).
#[inline]
pub(super) fn hash(seed: u64, words: [u64; 2]) -> u64 {
    let mut state = seed;
    for word in words {
        state ^= word;
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        state ^= state >> 31;
    }
    state
}

/// A hash made a number below `limit`, without a division.
#[inline]
fn below(hash: u64, limit: u32) -> u32 {
    ((hash >> 32).wrapping_mul(u64::from(limit)) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            addr::Proto,
            crc32c::crc32c, //
        },
        *, //
    };
    use std::{
        vec,
        vec::Vec, //
    };

    fn host(number: usize) -> Addr {
        Addr::v4([10, 0, (number >> 8) as u8, number as u8])
    }

    fn table(endpoints: &[(usize, u32)]) -> Vec<u16> {
        let mut entries: Vec<_> = endpoints
            .iter()
            .map(|(number, weight)| Entry::new(*number as u16, (host(*number), 0), *weight))
            .collect();
        let mut table = vec![0; SLOTS];
        fill(&mut entries, &mut table).unwrap();
        table
    }

    fn counts(table: &[u16]) -> Vec<usize> {
        let mut counts = vec![0; 1024];
        for &index in table {
            counts[usize::from(index)] += 1;
        }
        counts
    }

    /// Slots that changed though their endpoint is in both tables.
    fn needless(before: &[u16], after: &[u16], gone: u16) -> usize {
        let pairs = before.iter().zip(after);
        pairs.filter(|(b, a)| **b != gone && a != b).count()
    }

    #[test]
    fn slots_are_a_prime() {
        assert!((2..SLOTS).all(|divisor| SLOTS % divisor != 0));
    }

    #[test]
    fn shares_follow_the_weights() {
        for count in [1, 2, 3, 10, 100, 1024] {
            let endpoints: Vec<_> = (0..count).map(|number| (number, 1)).collect();
            let counts = counts(&table(&endpoints));
            let (least, most) = (SLOTS / count, SLOTS.div_ceil(count));
            assert!(counts[..count].iter().all(|n| (least..=most).contains(n)));
        }
        let endpoints = [(0, 1), (1, 3), (2, 0), (3, 100), (4, 46)];
        let counts = counts(&table(&endpoints));
        for (number, weight) in endpoints {
            let exact = f64::from(weight) * SLOTS as f64 / 150.0;
            assert!((counts[number] as f64 - exact).abs() < 1.0, "{number}");
        }
    }

    #[test]
    fn a_connection_comes_round_to_all_slots() {
        let table: Vec<_> = (0..SLOTS).map(|slot| slot as u16).collect();
        for n in 0..16 {
            let client = [198, 51, 100, n];
            let tuple = FourTuple::v4(client, 40000, [192, 0, 2, 10], 80, Proto::Tcp);
            let mut all: Vec<_> = slots(&table, &tuple, By::ClientAndPort)
                .take(SLOTS)
                .collect();
            assert_eq!(
                all.first().copied(),
                pick(&table, &tuple, By::ClientAndPort)
            );
            all.sort_unstable();
            // The last slot is 65536, which is 0 here.
            assert_eq!(all[..2], [0, 0]);
            assert!(all[1..].iter().copied().eq(0..=u16::MAX));
            assert_eq!(slots(&[], &tuple, By::Client).next(), None);
        }
    }

    #[test]
    fn who_is_full_is_passed_over_by_weight() {
        // Whose slots come after those of one endpoint: all others', by their weights.
        let table = table(&[(0, 2), (1, 1), (2, 2), (3, 3)]);
        let mut counts = [0usize; 4];
        for n in 0..20_000u16 {
            let [high, low] = n.to_be_bytes();
            let tuple = FourTuple::v4([10, 0, high, low], 40000, [192, 0, 2, 10], 80, Proto::Tcp);
            let found = slots(&table, &tuple, By::ClientAndPort)
                .find(|index| *index != 0)
                .unwrap();
            if pick(&table, &tuple, By::ClientAndPort) == Some(0) {
                counts[usize::from(found)] += 1;
            }
        }
        // A quarter of them, within 10 %: above four standard deviations.
        for (count, weight) in counts.into_iter().zip([0, 1, 2, 3]) {
            let want = 5000 * weight / 6;
            assert!(count.abs_diff(want) <= want / 10, "{counts:?}");
        }
    }

    #[test]
    fn refusals() {
        let mut entries = [0, 1].map(|number| Entry::new(number, (host(number.into()), 0), 0));
        let mut table = vec![9; SLOTS];
        assert_eq!(fill(&mut entries, &mut table), Err(Error::NoEndpoint));
        assert_eq!(fill(&mut [], &mut table), Err(Error::NoEndpoint));
        assert!(table.iter().all(|&slot| slot == 9));
        entries[0] = Entry::new(0, (host(0), 0), 1);
        assert_eq!(fill(&mut entries, &mut table[1..]), Err(Error::BadTable));
    }

    #[test]
    fn the_table_is_a_promise() {
        // Load balancers of different versions have to agree: what is here must not change.
        let table = table(&[(0, 1), (1, 2), (2, 3)]);
        let bytes: Vec<_> = table.iter().flat_map(|index| index.to_le_bytes()).collect();
        let picked: Vec<_> = (0..16)
            .map(|n| FourTuple::v4([198, 51, 100, n], 40000, [192, 0, 2, 10], 80, Proto::Tcp))
            .map(|tuple| pick(&table, &tuple, By::ClientAndPort).unwrap())
            .collect();
        assert_eq!(crc32c(&bytes), 2_710_735_590);
        assert_eq!(picked, [2, 1, 1, 2, 1, 1, 2, 2, 1, 2, 2, 1, 1, 1, 2, 1]);
    }

    #[test]
    fn ports_of_a_host_are_endpoints_of_their_own() {
        let table = |places: &[(usize, u16)]| {
            let mut entries: Vec<_> = (0..)
                .zip(places)
                .map(|(index, (number, port))| Entry::new(index, (host(*number), *port), 1))
                .collect();
            let mut table = vec![0; SLOTS];
            fill(&mut entries, &mut table).unwrap();
            table
        };
        let places = [(0, 0), (0, 8080), (0, 8081), (1, 8080)];
        let all = table(&places);
        assert!(counts(&all)[..4].iter().all(|n| n.abs_diff(SLOTS / 4) <= 1));
        // In whatever order they were added.
        let mut turned = places;
        turned.rotate_left(3);
        let other = table(&turned);
        let place = |index: &u16, of: &[(usize, u16); 4]| of[usize::from(*index)];
        let same = |(one, two)| place(one, &places) == place(two, &turned);
        assert!(all.iter().zip(&other).all(same));
        // When one goes, its slots are divided among all others.
        let rest = table(&places[..3]);
        assert!(needless(&all, &rest, 3) * 1000 <= SLOTS * 7);
    }

    #[test]
    fn a_client_has_one_slot() {
        let table: Vec<_> = (0..SLOTS).map(|slot| slot as u16).collect();
        let tuple =
            |n, port| FourTuple::v4([198, 51, 100, n], port, [192, 0, 2, 10], 80, Proto::Tcp);
        for n in 0..16 {
            let pick = |port| pick(&table, &tuple(n, port), By::Client);
            assert!((1..1000).all(|port| pick(port) == pick(0)));
            // And it is not everybody's.
            assert_ne!(pick(0), super::pick(&table, &tuple(n + 1, 0), By::Client));
            let mut slots = slots(&table, &tuple(n, 7), By::Client);
            assert_eq!(slots.next(), pick(8));
        }
    }

    #[test]
    fn nobody_loses_much_when_one_goes() {
        // In thousandths of the slots.
        type Weight = fn(usize) -> u32;
        let weights: [(Weight, usize); 5] = [
            (|_| 1, 7),
            (|number| 1 + number as u32 * 37 % 100, 7),
            (|number| if number % 10 == 0 { 100 } else { 1 }, 7),
            (|number| 1 + number as u32 * 40_503 % 65_535, 9),
            (
                |number| (if number % 10 == 0 { 65_535 } else { 9_000 }) * 16,
                9,
            ),
        ];
        for (count, (weight, most)) in [3, 4, 10, 100, 300, 1000]
            .into_iter()
            .flat_map(|count| weights.map(|weight| (count, weight)))
        {
            let all: Vec<_> = (0..count).map(|number| (number, weight(number))).collect();
            let before = table(&all);
            for gone in [0, count / 2, count - 1] {
                let mut rest = all.clone();
                rest.remove(gone);
                let changed = needless(&before, &table(&rest), gone as u16);
                assert!(changed * 1000 <= SLOTS * most, "{count} {gone}: {changed}");
            }
        }
    }
}
