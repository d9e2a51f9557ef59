// SPDX-License-Identifier: GPL-2.0

//! How many active connections an endpoint has, and whether it may have more.

use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};
use nlb::sync::{
    add32,
    read_once, //
};

/// Active connections, and the limit of those.
///
/// With a lower limit, what has been full is so until there are fewer than that, as with IPVS. Nobody holds a lock
/// for it: where two processors count at the same moment, it may be noticed one connection later.
pub(crate) struct Room {
    active: Atomic<u32>,
    /// 0 for no limit.
    max: Atomic<u32>,
    /// 0 for none.
    resume: Atomic<u32>,
    /// 1 from when there were `max` until there are fewer than `resume`; without that, 0.
    full: Atomic<u32>,
}

impl Room {
    /// Nothing yet, with these limits.
    pub(crate) fn new(max: u32, resume: u32) -> Self {
        Self {
            active: Atomic::new(0),
            max: Atomic::new(max),
            resume: Atomic::new(resume),
            full: Atomic::new(0),
        }
    }

    /// Connections with which it is full, 0 for no limit.
    pub(crate) fn max(&self) -> u32 {
        self.max.load(Relaxed)
    }

    /// When it has been full, there have to be fewer than so many; 0 if fewer than that limit will do.
    pub(crate) fn resume(&self) -> u32 {
        self.resume.load(Relaxed)
    }

    /// Changes the limits.
    pub(crate) fn set(&self, max: u32, resume: u32) {
        self.max.store(max, Relaxed);
        self.resume.store(resume, Relaxed);
        let active = self.active();
        let was_full = self.full.load(Relaxed) != 0;
        let full = max > 0 && resume > 0 && (active >= max || was_full && active >= resume);
        self.full.store(full.into(), Relaxed);
    }

    /// Connections now.
    #[inline]
    pub(crate) fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }

    /// Counts one more.
    #[inline]
    pub(crate) fn added(&self) {
        let (max, resume) = (read_once(&self.max), read_once(&self.resume));
        if max == 0 || resume == 0 {
            return add32(&self.active, 1);
        }
        let before = self.active.fetch_add(1u32, Relaxed);
        if before >= max.saturating_sub(1) {
            self.full.store(1, Relaxed);
        } else if before < resume {
            self.no_longer_full();
        }
    }

    /// Counts one less.
    #[inline]
    pub(crate) fn removed(&self) {
        let before = self.active.fetch_sub(1u32, Relaxed);
        if before <= self.resume.load(Relaxed) {
            self.no_longer_full();
        }
    }

    fn no_longer_full(&self) {
        // The line is everybody's, and it hardly ever is.
        if self.full.load(Relaxed) != 0 {
            self.full.store(0, Relaxed);
        }
    }

    /// Whether there may be one more.
    #[inline]
    pub(crate) fn is_there(&self) -> bool {
        let (max, active) = (read_once(&self.max), self.active());
        // What another processor has noted late is no reason to stay full for ever.
        let is_full = || self.full.load(Relaxed) != 0 && active >= self.resume.load(Relaxed);
        max == 0 || (active < max && !is_full())
    }
}

#[cfg(CONFIG_KUNIT = "y")]
#[kernel::macros::kunit_tests(nlb_fwd_room)]
mod tests {
    use super::*;

    /// After each of so many that come, or if negative go: whether there is room.
    fn rooms(room: &Room, change: i32) -> [bool; 12] {
        let mut rooms = [false; 12];
        for place in rooms.iter_mut().take(change.unsigned_abs() as usize) {
            if change > 0 {
                room.added();
            } else {
                room.removed();
            }
            *place = room.is_there();
        }
        rooms
    }

    #[test]
    fn without_a_limit() {
        let room = Room::new(0, 0);
        assert!(rooms(&room, 10).iter().take(10).all(|is| *is));
        assert_eq!(room.active(), 10);
    }

    #[test]
    fn below_the_limit_there_is_room() {
        let room = Room::new(3, 0);
        assert!(room.is_there());
        assert_eq!(rooms(&room, 4)[..4], [true, true, false, false]);
        assert_eq!(rooms(&room, -3)[..3], [false, true, true]);
        assert_eq!(room.active(), 1);
    }

    #[test]
    fn who_was_full_waits_for_the_lower_limit() {
        let room = Room::new(5, 3);
        assert_eq!(rooms(&room, 4)[..4], [true; 4]);
        // It was never full: nothing to wait for.
        assert_eq!(rooms(&room, -1)[..1], [true]);
        assert_eq!(rooms(&room, 2)[..2], [true, false]);
        assert_eq!(rooms(&room, -3)[..3], [false, false, true]);
        // And again from the beginning.
        assert_eq!(rooms(&room, 3)[..3], [true, true, false]);
        assert_eq!(rooms(&room, -2)[..2], [false, false]);
        // Routes by hand come in any case.
        assert_eq!(rooms(&room, 3)[..3], [false, false, false]);
        assert_eq!(rooms(&room, -4)[..4], [false, false, false, true]);
    }

    #[test]
    fn the_same_limit_twice_is_one() {
        let (one, both) = (Room::new(4, 0), Room::new(4, 4));
        for change in [6, -3, 1, -4, 5] {
            assert_eq!(rooms(&one, change), rooms(&both, change));
        }
    }

    #[test]
    fn other_limits() {
        let room = Room::new(0, 0);
        let _ = rooms(&room, 8);
        room.set(8, 4);
        assert!(!room.is_there());
        // It is still above the lower one.
        assert_eq!(rooms(&room, -2)[..2], [false, false]);
        room.set(10, 4);
        assert!(!room.is_there());
        room.set(10, 7);
        assert!(room.is_there());
        // What was forgotten is not remembered.
        room.set(10, 4);
        assert!(room.is_there());
        room.set(6, 4);
        assert!(!room.is_there());
        room.set(0, 0);
        assert!(room.is_there());
        room.set(6, 0);
        assert_eq!(rooms(&room, -1)[..1], [true]);
    }

    #[test]
    fn a_late_note_does_not_last() {
        let room = Room::new(2, 2);
        let _ = rooms(&room, 1);
        // As another processor would that was late.
        room.full.store(1, Relaxed);
        assert!(room.is_there());
        assert_eq!(rooms(&room, 1)[..1], [false]);
        let room = Room::new(9, 4);
        room.full.store(1, Relaxed);
        assert_eq!(rooms(&room, 8)[..8], [true; 8]);
    }
}
