// SPDX-License-Identifier: GPL-2.0

//! Tables by addresses, in which IPv4 does not pay for the length of IPv6.

use super::rhashtable::{
    InsertError,
    Key,
    Position,
    RcuHashTable,
    Scan, //
};
use crate::wire::addr::{
    Addr,
    FourTuple, //
};
use kernel::{
    alloc::Flags,
    prelude::*,
    sync::rcu, //
};

/// A key with addresses, which is shorter if they are IPv4.
pub trait FamilyKey {
    /// The key of an IPv4 entry.
    type V4: Key;
    /// The key of an IPv6 entry.
    type V6: Key;

    /// The key as one of the two. Two keys give the same if they are equal.
    fn by_family(&self) -> ByFamily<Self::V4, Self::V6>;
}

/// Something of one family or the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByFamily<V4, V6> {
    /// IPv4.
    V4(V4),
    /// IPv6.
    V6(V6),
}

impl FamilyKey for Addr {
    type V4 = u32;
    type V6 = [u32; 4];

    #[inline]
    fn by_family(&self) -> ByFamily<u32, [u32; 4]> {
        match self.to_v4() {
            Some(octets) => ByFamily::V4(u32::from_be_bytes(octets)),
            None => ByFamily::V6(self.words()),
        }
    }
}

impl FamilyKey for FourTuple {
    type V4 = [u32; 4];
    type V6 = [u32; 10];

    #[inline]
    fn by_family(&self) -> ByFamily<[u32; 4], [u32; 10]> {
        match self.v4_words() {
            Some(words) => ByFamily::V4(words),
            None => ByFamily::V6(self.words()),
        }
    }
}

/// In a [`Position`], that the IPv4 entries are done. The bit is free: no table has 2^31 buckets.
const V6: u64 = 1 << 63;

/// A pair of [`RcuHashTable`]s from `K` to `V`, one for each family, under one bound.
#[pin_data]
pub struct FamilyTable<K: FamilyKey, V: Send + Sync + 'static> {
    #[pin]
    v4: RcuHashTable<K::V4, V>,
    #[pin]
    v6: RcuHashTable<K::V6, V>,
}

impl<K: FamilyKey, V: Send + Sync + 'static> FamilyTable<K, V> {
    /// As [`RcuHashTable::new`].
    pub fn new(max: u32) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            v4 <- RcuHashTable::new(max),
            v6 <- RcuHashTable::new(max),
        })
    }

    /// Number of entries of both families, also of those that are just being inserted.
    pub fn len(&self) -> u32 {
        self.v4.len().saturating_add(self.v6.len())
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there are as many entries as there may be.
    pub fn is_full(&self) -> bool {
        self.len() >= self.v4.max()
    }

    /// A number that has changed whenever entries have come or gone.
    pub fn generation(&self) -> u64 {
        self.v4.generation().wrapping_add(self.v6.generation())
    }

    /// As [`RcuHashTable::get`].
    #[inline(always)]
    pub fn get<'a>(&'a self, guard: &'a rcu::Guard, key: &K) -> Option<&'a V> {
        match key.by_family() {
            ByFamily::V4(key) => self.v4.get(guard, &key),
            ByFamily::V6(key) => self.v6.get(guard, &key),
        }
    }

    /// As [`RcuHashTable::insert`]. CPUs that insert entries of different families at the same
    /// moment may exceed the bound by these entries.
    pub fn insert(&self, key: &K, value: V, flags: Flags) -> Result<(), InsertError> {
        if self.is_full() && self.get(&rcu::read_lock(), key).is_none() {
            return Err(InsertError::Full);
        }
        match key.by_family() {
            ByFamily::V4(key) => self.v4.insert(key, value, flags),
            ByFamily::V6(key) => self.v6.insert(key, value, flags),
        }
    }

    /// As [`RcuHashTable::remove`].
    pub fn remove(&self, key: &K) -> bool {
        self.remove_if(key, |_| true)
    }

    /// As [`RcuHashTable::remove_if`].
    pub fn remove_if(&self, key: &K, condition: impl FnOnce(&V) -> bool) -> bool {
        match key.by_family() {
            ByFamily::V4(key) => self.v4.remove_if(&key, condition),
            ByFamily::V6(key) => self.v6.remove_if(&key, condition),
        }
    }

    /// As [`RcuHashTable::steps`], or one fewer.
    pub fn steps(&self, guard: &rcu::Guard) -> u32 {
        self.v4.steps(guard).saturating_add(self.v6.steps(guard))
    }

    /// As [`RcuHashTable::scan`]: first the IPv4 entries, then those of IPv6.
    pub fn scan(
        &self,
        guard: &rcu::Guard,
        position: &mut Position,
        mut f: impl FnMut(&V) -> Scan,
    ) -> bool {
        if position.0 & V6 == 0 {
            if !self.v4.scan(guard, position, |pair| f(pair.value())) {
                return false;
            }
            *position = Position(V6);
        }
        let mut rest = Position(position.0 & !V6);
        let done = self.v6.scan(guard, &mut rest, |pair| f(pair.value()));
        *position = Position(rest.0 | V6);
        done
    }

    /// As [`RcuHashTable::retain`].
    pub fn retain(&self, mut f: impl FnMut(&V) -> bool) {
        self.v4.retain(|pair| f(pair.value()));
        self.v6.retain(|pair| f(pair.value()));
    }

    /// As [`RcuHashTable::for_each`].
    pub fn for_each(&self, mut f: impl FnMut(&V)) {
        self.v4.for_each(|pair| f(pair.value()));
        self.v6.for_each(|pair| f(pair.value()));
    }
}

#[kunit_tests(nlb_core_family_table)]
mod tests {
    use super::*;

    type Table = FamilyTable<Addr, u32>;

    fn addr(number: u32, v4: bool) -> Addr {
        let [a, b, c, d] = number.to_be_bytes();
        if v4 {
            Addr::v4([a, b, c, d])
        } else {
            Addr::v6([0x20, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d])
        }
    }

    fn filled(each: u32) -> Result<Pin<KBox<Table>>> {
        let table = KBox::pin_init(Table::new(2 * each), GFP_KERNEL)?;
        for number in 0..each {
            table.insert(&addr(number, true), number, GFP_KERNEL)?;
            table.insert(&addr(number, false), number + each, GFP_KERNEL)?;
        }
        Ok(table)
    }

    #[test]
    fn families_are_apart_under_one_bound() -> Result {
        let table = filled(3)?;
        assert_eq!(table.len(), 6);
        assert!(table.is_full());
        let guard = rcu::read_lock();
        assert_eq!(table.get(&guard, &addr(1, true)), Some(&1));
        assert_eq!(table.get(&guard, &addr(1, false)), Some(&4));
        for v4 in [true, false] {
            let new = table.insert(&addr(9, v4), 9, GFP_ATOMIC);
            assert_eq!(new, Err(InsertError::Full));
        }
        drop(guard);
        assert!(!table.remove_if(&addr(2, false), |value| *value == 2));
        assert!(table.remove_if(&addr(2, false), |value| *value == 5));
        assert!(table.remove(&addr(2, true)));
        assert!(!table.is_full());
        let again = table.insert(&addr(1, false), 9, GFP_KERNEL);
        assert_eq!(again, Err(InsertError::Exists));
        table.retain(|value| *value == 0);
        assert_eq!(table.len(), 1);
        Ok(())
    }

    #[test]
    fn a_scan_in_steps_shows_each_entry_once() -> Result {
        // So few that the tables do not grow meanwhile.
        const EACH: u32 = 40;
        let table = filled(EACH)?;
        let mut seen = KVec::from_elem(0u8, 2 * EACH as usize, GFP_KERNEL)?;
        let mut position = Position::default();
        let mut budget = 0;
        loop {
            // Stops every now and then, as a full message does.
            budget += 7;
            let done = table.scan(&rcu::read_lock(), &mut position, |value| {
                if budget == 0 {
                    return Scan::Stop;
                }
                budget -= 1;
                if let Some(count) = seen.get_mut(*value as usize) {
                    *count += 1;
                }
                Scan::Continue
            });
            if done {
                break;
            }
        }
        assert!(seen.iter().all(|count| *count == 1));
        // The end stays the end.
        assert!(table.scan(&rcu::read_lock(), &mut position, |_| panic!("an entry")));
        Ok(())
    }
}
