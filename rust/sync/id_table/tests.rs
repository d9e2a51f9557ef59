// SPDX-License-Identifier: GPL-2.0

//! Tests of tables of numbers.

use super::*;
use crate::sync::object::{
    Object,
    ObjectRef, //
};
use kernel::sync::Arc;

#[kunit_tests(nlb_core_id_table)]
mod cases {
    use super::*;

    struct Thing {
        before: u64,
        part: Numbered,
        dropped: Arc<Atomic<i32>>,
    }

    struct Numbered {
        name: u32,
        id: Atomic<u32>,
    }

    impl Object for Thing {
        type Key = u32;
        type Part = Numbered;

        fn key(&self) -> &u32 {
            &self.part.name
        }

        fn part(&self) -> &Numbered {
            &self.part
        }
    }

    impl Drop for Thing {
        fn drop(&mut self) {
            assert_eq!(self.before, 42);
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    fn thing(name: u32, dropped: &Arc<Atomic<i32>>) -> Result<ObjectRef<Thing>> {
        let part = Numbered {
            name,
            id: Atomic::new(u32::MAX),
        };
        let thing = Thing {
            before: 42,
            part,
            dropped: dropped.clone(),
        };
        ObjectRef::new(thing, GFP_KERNEL)
    }

    fn note(part: &Numbered, id: u32, turn: u32) {
        part.id.store(id + 100 * turn, Relaxed);
    }

    #[test]
    fn what_is_free_has_to_wait() -> Result {
        let dropped = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        let table = KBox::pin_init(IdTable::<Numbered>::new(2, 5, 0), GFP_KERNEL)?;
        let (stays, goes) = (thing(0, &dropped)?, thing(1, &dropped)?);
        table.insert(stays.to_part(), note)?;
        for id in [1, 2, 3, 4, 101, 102] {
            table.insert(goes.to_part(), note)?;
            assert_eq!(goes.part.id.load(Relaxed), id);
            let more = table.insert(goes.to_part(), note);
            assert_eq!(more, Err(InsertError::Full));
            assert_eq!(table.len(), 2);
            assert!(table.remove(id % 100, &goes.part));
        }
        drop((stays, goes, table));
        assert_eq!(dropped.load(Relaxed), 2);
        Ok(())
    }

    #[test]
    fn pages_go_with_what_was_in_them() -> Result {
        let dropped = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        let table = KBox::pin_init(IdTable::<Numbered>::new(2000, 2000, 0), GFP_KERNEL)?;
        let all = thing(1, &dropped)?;
        for _ in 0..1200 {
            table.insert(all.to_part(), note)?;
        }
        let pages = || {
            let next = |index: u32| table.next_chunk(index).map(|(at, _)| at);
            core::iter::successors(next(0), |at| next(at + 1)).count()
        };
        let seen = || {
            let (mut position, mut seen) = (Position::default(), 0);
            let mut scan = || {
                table.scan(&rcu::read_lock(), &mut position, |_| {
                    seen += 1;
                    Scan::Continue
                })
            };
            while !scan() {}
            seen
        };
        assert_eq!((pages(), seen()), (3, 1200));
        for id in 1..1200 {
            assert!(table.remove(id, &all.part));
        }
        // The first one, and that of which the next number is.
        assert_eq!((pages(), seen()), (2, 1));
        assert!(table.remove(0, &all.part));
        assert_eq!((pages(), seen()), (1, 0));
        // The others of it, and of a page of its own.
        for _ in 1200..2001 {
            table.insert(all.to_part(), note)?;
        }
        assert_eq!(all.part.id.load(Relaxed), 100);
        assert_eq!((pages(), seen()), (3, 801));
        drop((all, table));
        assert_eq!(dropped.load(Relaxed), 1);
        Ok(())
    }

    #[test]
    fn numbers_are_given_in_turn() -> Result {
        let dropped = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        let table = KBox::pin_init(IdTable::<Numbered>::new(4, 4, 6), GFP_KERNEL)?;
        let mut things = KVec::new();
        for (name, id) in [(0, 2), (1, 3), (2, 100), (3, 101)] {
            let thing = thing(name, &dropped)?;
            table.insert(thing.to_part(), note)?;
            assert_eq!(thing.part.id.load(Relaxed), id);
            things.push(thing, GFP_KERNEL)?;
        }
        let more = thing(4, &dropped)?;
        let full = table.insert(more.to_part(), note);
        assert_eq!(full, Err(InsertError::Full));
        assert_eq!(table.len(), 4);
        let Some(second) = things.get(1) else {
            return Err(EINVAL);
        };
        assert!(!table.remove(2, &second.part));
        assert!(table.remove(3, &second.part));
        assert!(!table.remove(3, &second.part));
        table.insert(more.to_part(), note)?;
        assert_eq!(more.part.id.load(Relaxed), 103);
        {
            let guard = rcu::read_lock();
            assert_eq!(table.get(&guard, 3).map(|part| part.name), Some(4));
            assert!(table.get(&guard, 4).is_none());
        }
        assert!(!table.replace(3, &second.part, more.to_part()));
        assert!(table.replace(3, &more.part, second.to_part()));
        let (mut position, mut sum) = (Position::default(), 0);
        assert!(table.scan(&rcu::read_lock(), &mut position, |part| {
            sum += part.name;
            Scan::Continue
        }));
        assert_eq!(sum, 6);
        assert!(table.scan(&rcu::read_lock(), &mut position, |_| Scan::Stop));
        drop((things, more));
        drop(table);
        // Dropping the table has waited for them.
        assert_eq!(dropped.load(Relaxed), 5);
        Ok(())
    }
}
