// SPDX-License-Identifier: GPL-2.0

//! Tests of the hash table.

use super::{
    key::jhash2,
    InsertError,
    ObjectTable,
    Position,
    RcuHashTable,
    Scan, //
};
use crate::{
    bindings,
    sync::object::{
        Object,
        ObjectRef, //
    }, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        rcu,
        Arc, //
    }, //
};

#[kunit_tests(nlb_core_rhashtable)]
mod cases {
    use super::*;

    /// Counts how many of it have been dropped.
    struct Counted(Arc<Atomic<i32>>, u32);

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    type Table = RcuHashTable<[u32; 4], Counted>;

    /// An object of this key, and a number.
    struct Thing([u32; 4], u32);

    impl Object for Thing {
        type Key = [u32; 4];
        type Part = u32;

        fn key(&self) -> &[u32; 4] {
            &self.0
        }

        fn part(&self) -> &u32 {
            &self.1
        }
    }

    impl Table {
        /// Lets a resize that is under way end.
        fn finish_resize(&self) {
            // SAFETY: The table is initialised; process context.
            unsafe {
                bindings::irq_work_sync(&raw mut (*self.ht.get()).run_irq_work);
                bindings::flush_work(&raw mut (*self.ht.get()).run_work);
            }
        }
    }

    fn key(n: u32) -> [u32; 4] {
        [n, 0xc000_0201, 0, n.wrapping_mul(7)]
    }

    #[test]
    fn hash_is_the_kernels() {
        let words = [1, 2, 3, 4, 5, 6, 7, 8];
        for len in 1..=words.len() {
            let part = words.get(..len).unwrap_or(&[]);
            // SAFETY: The slice has `len` words.
            let expected = unsafe { bindings::jhash2(part.as_ptr(), len as u32, 42) };
            assert_eq!(jhash2(part, 42), expected);
        }
    }

    #[test]
    fn life_of_an_entry() -> Result {
        let dropped = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        let table = KBox::pin_init(Table::new(10), GFP_KERNEL)?;
        let generation = table.generation();
        assert!(table
            .insert(key(1), Counted(dropped.clone(), 11), GFP_KERNEL)
            .is_ok());
        assert!(table.generation() != generation);
        let again = table.insert(key(1), Counted(dropped.clone(), 12), GFP_KERNEL);
        assert_eq!(again, Err(InsertError::Exists));
        assert_eq!(dropped.load(Relaxed), 1);
        assert_eq!(table.len(), 1);
        {
            let guard = rcu::Guard::new();
            assert_eq!(table.get(&guard, &key(1)).map(|v| v.1), Some(11));
            assert!(table.get(&guard, &key(2)).is_none());
            // A reader keeps what it has found.
            let found = table.get(&guard, &key(1));
            assert!(!table.remove_if(&key(1), |v| v.1 == 12));
            assert!(table.remove_if(&key(1), |v| v.1 == 11));
            assert!(table.get(&guard, &key(1)).is_none());
            assert_eq!(found.map(|v| v.1), Some(11));
            assert_eq!(dropped.load(Relaxed), 1);
        }
        assert!(!table.remove(&key(1)));
        assert!(table.is_empty());
        drop(table);
        // Dropping the table has waited for the entry.
        assert_eq!(dropped.load(Relaxed), 2);
        Ok(())
    }

    #[test]
    fn bound_holds() -> Result {
        let dropped = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        let table = KBox::pin_init(Table::new(3), GFP_KERNEL)?;
        for n in 0..3 {
            assert!(table
                .insert(key(n), Counted(dropped.clone(), n), GFP_ATOMIC)
                .is_ok());
        }
        let full = table.insert(key(3), Counted(dropped.clone(), 3), GFP_ATOMIC);
        assert_eq!(full, Err(InsertError::Full));
        assert!(table.remove(&key(0)));
        assert!(table
            .insert(key(3), Counted(dropped.clone(), 3), GFP_ATOMIC)
            .is_ok());
        assert_eq!(table.len(), 3);
        drop(table);
        assert_eq!(dropped.load(Relaxed), 5);
        Ok(())
    }

    #[test]
    fn objects_are_replaced_in_their_place() -> Result {
        let table = KBox::pin_init(ObjectTable::<Thing>::new(8), GFP_KERNEL)?;
        let thing = |n, number| ObjectRef::new(Thing(key(n), number), GFP_KERNEL);
        let (first, second, other) = (thing(1, 10)?, thing(1, 11)?, thing(2, 20)?);
        table.insert(&first)?;
        table.insert(&other)?;
        let generation = table.generation();
        // Not by one of another key.
        assert!(!table.replace(&first, &thing(3, 30)?));
        assert_eq!(table.generation(), generation);
        assert!(table.replace(&first, &second));
        assert!(table.generation() != generation);
        assert_eq!(table.len(), 2);
        let found = |n| {
            let guard = rcu::Guard::new();
            table.get(&guard, &key(n)).map(|thing| thing.1)
        };
        assert_eq!((found(1), found(2), found(3)), (Some(11), Some(20), None));
        // What is not there any more is not replaced, nor is anything by what was there once.
        assert!(!table.replace(&first, &thing(1, 12)?));
        assert!(!table.replace(&second, &first));
        assert!(!table.remove(&first));
        assert!(table.remove(&second));
        assert_eq!((found(1), table.len()), (None, 1));
        Ok(())
    }

    #[test]
    fn thousands_are_found_and_scanned() -> Result {
        const N: u32 = 5000;
        let dropped = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        let table = KBox::pin_init(Table::new(N), GFP_KERNEL)?;
        for n in 0..N {
            assert!(table
                .insert(key(n), Counted(dropped.clone(), n), GFP_KERNEL)
                .is_ok());
        }
        for n in 0..N {
            let guard = rcu::Guard::new();
            assert_eq!(table.get(&guard, &key(n)).map(|v| v.1), Some(n));
        }
        // Stopping at every entry must neither lose one nor show one twice, when the table rests.
        table.finish_resize();
        let (mut position, mut seen, mut sum) = (Position::default(), 0u32, 0u64);
        loop {
            let mut fresh = true;
            let done = table.scan(&rcu::Guard::new(), &mut position, |pair| {
                if !fresh {
                    return Scan::Stop;
                }
                fresh = false;
                seen += 1;
                sum += u64::from(pair.value().1);
                Scan::Continue
            });
            if done {
                break;
            }
        }
        assert_eq!(seen, N);
        let (mut position, mut steps) = (Position::default(), 1);
        while !table.scan(&rcu::Guard::new(), &mut position, |_| Scan::Continue) {
            steps += 1;
        }
        assert!(steps > 1);
        assert_eq!(table.steps(&rcu::Guard::new()), steps);
        assert_eq!(sum, u64::from(N) * u64::from(N - 1) / 2);
        // Removing while scanning.
        table.retain(|pair| pair.value().1 % 10 == 0);
        table.finish_resize();
        table.retain(|pair| pair.value().1 % 10 == 0);
        assert_eq!(table.len(), N / 10);
        let mut left = 0;
        table.for_each(|_| left += 1);
        assert_eq!(left, N / 10);
        drop(table);
        assert_eq!(dropped.load(Relaxed), N as i32);
        Ok(())
    }
}
