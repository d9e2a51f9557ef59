// SPDX-License-Identifier: GPL-2.0

//! How many migrations at a time may wait for the same thing of a peer.
//!
//! A target takes the records of a connection one after the other. Without a limit, a thousand
//! callers would have a thousand connections stand still at once, each for as long as all of them take;
//! with one, each stands still only for as long as the few before it.

use crate::reason::{
    Code,
    Reason, //
};
use kernel::{
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};
use nlb::completion::Completion;

/// Admits some at a time; the others wait, in the order in which they came.
#[pin_data]
pub(crate) struct Window {
    /// What may be in it, less what is in it.
    #[pin]
    free: Completion,
    /// How often somebody was let in.
    entered: Atomic<u64>,
}

/// A place in a [`Window`], given back when dropped.
pub(crate) struct Place<'a>(&'a Window);

impl Window {
    /// Nobody is in it yet; call [`Self::open`].
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            free <- Completion::new(),
            entered: Atomic::new(0),
        })
    }

    /// Lets `places` more in.
    pub(crate) fn open(&self, places: u32) {
        for _ in 0..places {
            self.free.complete();
        }
    }

    /// Lets everybody in: what they wait for does not come, and they find out at once.
    pub(crate) fn close(&self) {
        self.free.complete_all();
    }

    /// `None` if there was no place for `timeout_ms`.
    fn wait(&self, timeout_ms: u32) -> Result<Option<Place<'_>>, Reason> {
        match self.free.wait_killable_timeout(timeout_ms) {
            Ok(true) => {
                self.entered.add(1, Relaxed);
                Ok(Some(Place(self)))
            }
            Ok(false) => Ok(None),
            Err(_) => Err(Code::Interrupted.into()),
        }
    }

    /// Waits for a place, but no longer than `timeout_ms`. An error if there was none, or if the
    /// calling process is killed.
    pub(crate) fn enter(&self, timeout_ms: u32) -> Result<Place<'_>, Reason> {
        self.wait(timeout_ms)?.ok_or(Code::Crowded.into())
    }

    /// As [`Self::enter`], but gives up only when for `timeout_ms` nobody else was let in either.
    pub(crate) fn enter_in_turn(&self, timeout_ms: u32) -> Result<Place<'_>, Reason> {
        loop {
            let before = self.entered.load(Relaxed);
            if let Some(place) = self.wait(timeout_ms)? {
                return Ok(place);
            }
            if self.entered.load(Relaxed) == before {
                return Err(Code::Crowded.into());
            }
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.free.complete();
    }
}

#[kunit_tests(nlb_migrator_window)]
mod tests {
    use super::*;
    use kernel::sync::Arc;

    fn window(places: u32) -> Result<Arc<Window>> {
        let window = Arc::pin_init(Window::new(), GFP_KERNEL)?;
        window.open(places);
        Ok(window)
    }

    #[test]
    fn some_at_a_time() -> Result {
        let window = window(2)?;
        let first = window.enter(1);
        let second = window.enter(1);
        assert!(first.is_ok() && second.is_ok());
        assert!(matches!(window.enter(1), Err(reason) if reason.errno() == EBUSY));
        drop(first);
        let third = window.enter(1);
        assert!(third.is_ok());
        assert!(window.enter(1).is_err());
        Ok(())
    }

    #[test]
    fn in_turn() -> Result {
        let window = window(1)?;
        let inside = window.enter_in_turn(1);
        assert!(inside.is_ok());
        assert!(matches!(window.enter_in_turn(1), Err(reason) if reason.errno() == EBUSY));
        drop(inside);
        assert!(window.enter_in_turn(1).is_ok());
        Ok(())
    }

    #[test]
    fn closed() -> Result {
        let window = window(1)?;
        let inside = window.enter(1);
        window.close();
        for _ in 0..3 {
            assert!(window.enter(1).is_ok());
        }
        drop(inside);
        assert!(window.enter(1).is_ok());
        Ok(())
    }
}
