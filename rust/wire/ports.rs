// SPDX-License-Identifier: GPL-2.0

//! Ports of a service: one, several in a row, or all.

/// One port or more, in a row. Host byte order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// All that a packet can have; 0 is none.
    pub const ALL: Self = Self {
        first: 1,
        last: u16::MAX,
    };

    /// One port.
    #[inline]
    pub const fn one(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }

    /// Those from the first to the last one. None if the first is 0, or the last is before it.
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first == 0 || last < first {
            return None;
        }
        Some(Self { first, last })
    }

    /// The first one.
    #[inline]
    pub const fn first(&self) -> u16 {
        self.first
    }

    /// The last one.
    pub const fn last(&self) -> u16 {
        self.last
    }

    /// The port, if it is one.
    #[inline]
    pub const fn single(&self) -> Option<u16> {
        if self.first == self.last {
            Some(self.first)
        } else {
            None
        }
    }

    /// Whether it is all of them.
    pub const fn is_all(&self) -> bool {
        self.first == Self::ALL.first && self.last == Self::ALL.last
    }

    /// Whether a port is among them.
    #[inline]
    pub const fn contains(&self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

/// Of ranges in ascending order that do not overlap, what belongs to the one with this port.
#[inline]
pub fn find<T>(ranges: &[(Ports, T)], port: u16) -> Option<&T> {
    let after = ranges.partition_point(|(ports, _)| ports.first <= port);
    let (ports, found) = ranges.get(after.checked_sub(1)?)?;
    ports.contains(port).then_some(found)
}

/// The place of another range among such. None if it overlaps one.
pub fn place<T>(ranges: &[(Ports, T)], ports: Ports) -> Option<usize> {
    let after = ranges.partition_point(|(other, _)| other.first <= ports.last);
    let before = after.checked_sub(1).and_then(|index| ranges.get(index));
    match before {
        Some((other, _)) if other.last >= ports.first => None,
        _ => Some(after),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn bounds() {
        assert_eq!(Ports::new(0, 5), None);
        assert_eq!(Ports::new(6, 5), None);
        assert_eq!(Ports::new(5, 5), Some(Ports::one(5)));
        assert_eq!(Ports::new(1, 65535), Some(Ports::ALL));
        assert!(Ports::ALL.is_all() && !Ports::ALL.contains(0));
        assert_eq!(Ports::ALL.single(), None);
        assert_eq!(Ports::one(7).single(), Some(7));
    }

    /// What a search from one end to the other would find.
    fn slowly(ranges: &[(Ports, usize)], port: u16) -> Option<&usize> {
        let mut all = ranges.iter();
        all.find(|(ports, _)| ports.contains(port))
            .map(|(_, found)| found)
    }

    #[test]
    fn every_port_is_found_where_it_is() {
        let mut ranges: Vec<(Ports, usize)> = Vec::new();
        let mut seed = 1u32;
        let mut refused = 0;
        for index in 0..2000 {
            seed = seed.wrapping_mul(1_103_515_245).wrapping_add(12345);
            let first = (seed >> 16) as u16;
            let ports = Ports::new(first.max(1), first.max(1).saturating_add(index as u16 % 40));
            let ports = ports.unwrap();
            let overlaps = ranges
                .iter()
                .any(|(other, _)| other.first <= ports.last && ports.first <= other.last);
            match place(&ranges, ports) {
                Some(at) => ranges.insert(at, (ports, index)),
                None => refused += 1,
            }
            assert_eq!(ranges.iter().any(|(_, own)| *own == index), !overlaps);
        }
        assert!(refused > 100 && ranges.len() > 100);
        assert!(ranges.windows(2).all(|two| two[0].0.last < two[1].0.first));
        for port in 0..=u16::MAX {
            assert_eq!(find(&ranges, port), slowly(&ranges, port), "{port}");
        }
        assert_eq!(find::<u8>(&[], 80), None);
        assert_eq!(place::<u8>(&[], Ports::ALL), Some(0));
    }
}
