// SPDX-License-Identifier: GPL-2.0

//! Going through all entries of a table, in bounded steps.

use super::{
    Node,
    Table, //
};
use crate::bindings;
use kernel::sync::rcu;

/// Buckets that are looked at under one RCU read side.
const BUCKETS_PER_STEP: u32 = 256;

/// How far a scan has come; a plain number, so that it can be kept between the calls of a dump.
///
/// It stays meaningful when the table changes. An entry that is there all the time may still be
/// missed, or come twice, if the table was resized meanwhile: then
/// [`Table::generation`] has changed, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position(pub u64);

impl Position {
    fn bucket(self) -> u32 {
        // CAST: The upper half.
        (self.0 >> 32) as u32
    }

    fn skip(self) -> u32 {
        // CAST: The lower half.
        self.0 as u32
    }

    fn at(bucket: u32, skip: u32) -> Self {
        Self(u64::from(bucket) << 32 | u64::from(skip))
    }
}

/// What a scan does after an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// Goes on.
    Continue,
    /// Removes the entry, and goes on.
    Remove,
    /// Ends, to begin with this entry the next time.
    Stop,
}

impl<N: Node> Table<N> {
    /// How many calls of [`Table::scan`] show all entries, as large as the table is now.
    pub fn steps(&self, guard: &rcu::Guard) -> u32 {
        let (mut buckets, mut tbl) = (0u32, self.table(guard));
        while !tbl.is_null() {
            // SAFETY: The table was found under the read side that is held.
            unsafe {
                buckets = buckets.saturating_add((*tbl).size);
                tbl = Self::future_table(tbl);
            }
        }
        buckets.div_ceil(BUCKETS_PER_STEP)
    }

    /// Shows entries from `position` on to `f`: a limited number, so that the RCU read side is not
    /// held for long. Any context.
    ///
    /// True when all have been seen; else `position` is where to go on, with another guard.
    pub fn scan(
        &self,
        guard: &rcu::Guard,
        position: &mut Position,
        mut f: impl FnMut(&N) -> Scan,
    ) -> bool {
        let (mut bucket, mut skip) = (position.bucket(), position.skip());
        let mut left = BUCKETS_PER_STEP;
        // Entries being moved are in either of two tables, counted as one.
        let mut first = 0u32;
        let mut tbl = self.table(guard);
        while !tbl.is_null() {
            // SAFETY: The table was found under the read side that is held.
            let size = unsafe { (*tbl).size };
            while let Some(index) = bucket.checked_sub(first).filter(|index| *index < size) {
                // SAFETY: As above.
                let empty = unsafe { Self::empty(tbl, index, left.min(size - index)) };
                if empty != 0 {
                    (bucket, skip) = (bucket.saturating_add(empty), 0);
                    left -= empty;
                    continue;
                }
                let Some(rest) = left.checked_sub(1) else {
                    *position = Position::at(bucket, skip);
                    return false;
                };
                left = rest;
                // SAFETY: As above.
                match unsafe { self.scan_bucket(guard, tbl, index, skip, &mut f) } {
                    Ok(()) => (bucket, skip) = (bucket.saturating_add(1), 0),
                    Err(stopped) => {
                        *position = Position::at(bucket, stopped);
                        return false;
                    }
                }
            }
            first = first.saturating_add(size);
            if bucket == u32::MAX {
                break;
            }
            // SAFETY: As above.
            tbl = unsafe { Self::future_table(tbl) };
        }
        *position = Position::at(bucket, 0);
        true
    }

    /// How many of the buckets from `index` on, at most `count`, are empty, as most are. None that is
    /// known of, if the table is in pieces.
    ///
    /// # Safety
    ///
    /// `tbl` was found under the RCU read side that is held, and has these buckets.
    unsafe fn empty(tbl: *mut bindings::bucket_table, index: u32, count: u32) -> u32 {
        let mut empty = 0;
        // SAFETY: By the safety requirements; each is written in one piece. The lowest bit is a lock.
        unsafe {
            if (*tbl).nest != 0 {
                return 0;
            }
            let first = Self::bucket(tbl, index);
            while empty < count && first.add(empty as usize).read_volatile() as usize & !1 == 0 {
                empty += 1;
            }
        }
        empty
    }

    /// Shows the entries of one bucket to `f`. `Err`: the number of entries to skip the next time.
    ///
    /// # Safety
    ///
    /// `tbl` was found under the read side of `guard`, and has a bucket `index`.
    unsafe fn scan_bucket(
        &self,
        guard: &rcu::Guard,
        tbl: *mut bindings::bucket_table,
        index: u32,
        skip: u32,
        f: &mut impl FnMut(&N) -> Scan,
    ) -> Result<(), u32> {
        // SAFETY: By the safety requirements.
        let mut entry = unsafe { Self::first(Self::bucket(tbl, index)) };
        let mut number = 0u32;
        while !Self::is_end(entry) {
            // SAFETY: The entry was found under the read side that is held.
            let (node, next) = unsafe { (Self::node(entry), Self::next(entry)) };
            if number < skip {
                number = number.saturating_add(1);
                entry = next;
                continue;
            }
            match f(node) {
                Scan::Continue => number = number.saturating_add(1),
                Scan::Remove => {
                    self.unlink(guard, node);
                }
                Scan::Stop => return Err(number),
            }
            entry = next;
        }
        Ok(())
    }

    /// Keeps the entries of which `f` holds, and removes the others. Process context: reschedules
    /// now and then. `f` must not sleep.
    pub fn retain(&self, mut f: impl FnMut(&N) -> bool) {
        let mut position = Position::default();
        loop {
            let done = self.scan(&rcu::Guard::new(), &mut position, |node| {
                if f(node) {
                    Scan::Continue
                } else {
                    Scan::Remove
                }
            });
            if done {
                return;
            }
            // SAFETY: A plain call; nothing is held.
            unsafe { bindings::cond_resched() };
        }
    }

    /// Shows all entries to `f`. Process context: reschedules now and then. `f` must not sleep.
    pub fn for_each(&self, mut f: impl FnMut(&N)) {
        self.retain(|node| {
            f(node);
            true
        });
    }
}
