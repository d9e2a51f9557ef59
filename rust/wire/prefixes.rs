// SPDX-License-Identifier: GPL-2.0

//! Which of many prefixes an address has, without looking at all of them.
//!
//! Prefixes are either apart or inside each other. In ascending order, with the shorter of two that
//! begin together first, those of an address are the last one that does not begin behind it and the
//! ones around that: one binary search, and a way outwards that is as long as prefixes are nested.

use super::addr::Addr;

/// A prefix of addresses, or of all of both families.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Prefix {
    first: u128,
    /// Of 128, as IPv4 addresses are kept as IPv6 ones.
    bits: u8,
}

/// By how much prefixes of IPv4 are longer as those of IPv6.
const V4: u8 = 96;

impl Prefix {
    /// All addresses.
    pub const ALL: Self = Self { first: 0, bits: 0 };

    /// The first `bits` bits of an address, and at most all of them. None if others are set.
    pub fn new(network: Addr, bits: u8) -> Option<Self> {
        if network.network(bits) != network {
            return None;
        }
        let bits = match network.is_v4() {
            true => bits.min(32).saturating_add(V4),
            false => bits.min(128),
        };
        let first = u128::from_be_bytes(*network.as_bytes());
        Some(Self { first, bits })
    }

    /// Whether an address begins with it. IPv4 addresses are those of the IPv6 prefixes that they are
    /// kept in.
    #[inline]
    fn contains(&self, address: u128) -> bool {
        let host = 128u32.saturating_sub(self.bits.into());
        (self.first ^ address).checked_shr(host).unwrap_or(0) == 0
    }
}

/// One of many prefixes.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    prefix: Prefix,
    /// Index of the shortest one around it.
    around: Option<u16>,
}

impl Node {
    /// This prefix.
    pub const fn new(prefix: Prefix) -> Self {
        Self {
            prefix,
            around: None,
        }
    }
}

/// Prepares prefixes, which are in ascending order and differ; no more than 65535 of them.
pub fn link(nodes: &mut [Node]) {
    let mut open: Option<u16> = None;
    for index in 0..nodes.len() {
        let Some(prefix) = nodes.get(index).map(|node| node.prefix) else {
            return;
        };
        // The one before, or one around that, or none.
        while let Some(other) = open.and_then(|open| nodes.get(usize::from(open))) {
            if other.prefix.contains(prefix.first) {
                break;
            }
            open = other.around;
        }
        if let Some(node) = nodes.get_mut(index) {
            node.around = open;
        }
        open = u16::try_from(index).ok();
    }
}

/// The indices of the prefixes that an address has, the longest first.
#[inline]
pub fn of(nodes: &[Node], address: Addr) -> impl Iterator<Item = usize> + '_ {
    let address = u128::from_be_bytes(*address.as_bytes());
    let after = nodes.partition_point(|node| node.prefix.first <= address);
    let mut next = after.checked_sub(1);
    core::iter::from_fn(move || loop {
        let index = next?;
        let node = nodes.get(index)?;
        next = node.around.map(usize::from);
        if node.prefix.contains(address) {
            return Some(index);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn v4(text: &str) -> Addr {
        Addr::from(text.parse::<core::net::Ipv4Addr>().unwrap())
    }

    #[test]
    fn a_prefix_has_no_other_bits() {
        assert!(Prefix::new(v4("10.0.0.0"), 8).is_some());
        assert_eq!(Prefix::new(v4("10.0.0.1"), 8), None);
        assert_eq!(
            Prefix::new(v4("10.0.0.1"), 33),
            Prefix::new(v4("10.0.0.1"), 32)
        );
        assert!(Prefix::new(Addr::v6([0; 16]), 0) == Some(Prefix::ALL));
        assert!(Prefix::new(v4("0.0.0.0"), 0)
            .unwrap()
            .contains(0xffff_0a00_0001));
        assert!(!Prefix::new(v4("0.0.0.0"), 0).unwrap().contains(1));
    }

    /// A number that nobody chose.
    fn next(seed: &mut u64) -> u64 {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *seed >> 33
    }

    #[test]
    fn all_are_found_and_no_others() {
        let mut seed = 7;
        for _ in 0..200 {
            let mut prefixes = Vec::new();
            for _ in 0..next(&mut seed) % 60 {
                // Few bits that differ, so that many are inside each other.
                let number = (next(&mut seed) as u32 & 0x3) << 30 | next(&mut seed) as u32 & 0x7;
                let bits = [0, 1, 2, 3, 29, 30, 31, 32][next(&mut seed) as usize % 8];
                let network = Addr::v4(number.to_be_bytes()).network(bits);
                prefixes.push(Prefix::new(network, bits).unwrap());
            }
            if next(&mut seed) % 2 == 0 {
                prefixes.push(Prefix::ALL);
            }
            prefixes.sort();
            prefixes.dedup();
            let mut nodes: Vec<_> = prefixes.iter().copied().map(Node::new).collect();
            link(&mut nodes);
            for _ in 0..100 {
                let number = (next(&mut seed) as u32 & 0x3) << 30 | next(&mut seed) as u32 & 0xf;
                let address = Addr::v4(number.to_be_bytes());
                let bits = u128::from_be_bytes(*address.as_bytes());
                let mut want: Vec<_> = (0..prefixes.len())
                    .filter(|index| prefixes[*index].contains(bits))
                    .collect();
                want.sort_by_key(|index| core::cmp::Reverse(prefixes[*index].bits));
                assert_eq!(of(&nodes, address).collect::<Vec<_>>(), want);
            }
        }
    }

    #[test]
    fn families_are_apart() {
        let v6 = Addr::v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let mut nodes: Vec<_> = [
            Prefix::ALL,
            Prefix::new(v4("10.0.0.0"), 8).unwrap(),
            Prefix::new(v6, 32).unwrap(),
        ]
        .map(Node::new)
        .into();
        link(&mut nodes);
        assert_eq!(of(&nodes, v4("10.9.9.9")).collect::<Vec<_>>(), [1, 0]);
        assert_eq!(of(&nodes, v4("11.0.0.0")).collect::<Vec<_>>(), [0]);
        assert_eq!(of(&nodes, v6).collect::<Vec<_>>(), [2, 0]);
        assert_eq!(of(&[], v6).count(), 0);
    }
}
