// SPDX-License-Identifier: GPL-2.0

//! A counting semaphore for which one waits for a limited time, and in line.
//!
//! `struct semaphore` is one, too, but who waits for it for a limited time cannot be killed.

use crate::completion::Completion;
use kernel::{
    prelude::*,
    rbtree::RBTree,
    sync::{
        Arc,
        LockClassKey,
        Mutex, //
    }, //
};

struct Inner {
    /// Permits that nobody has; none while somebody waits.
    free: u32,
    /// There are permits for everybody.
    open: bool,
    /// Permits given so far.
    given: u64,
    /// Who waits, by a number that grows.
    waiting: RBTree<u64, Arc<Completion>>,
    next: u64,
}

/// Gives a number of permits; those who wait get them in the order in which they began to.
#[pin_data]
pub struct Semaphore {
    #[pin]
    inner: Mutex<Inner>,
}

/// How long to wait, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub enum Patience {
    /// So long, come what may.
    For(u32),
    /// So long, for a process's sake: not if it is killed.
    Killable(u32),
    /// The same, but only if nobody else gets a permit for so long.
    InLine(u32),
}

/// A permit of a [`Semaphore`], which goes to the next when dropped.
pub struct Permit<'a>(&'a Semaphore);

impl Semaphore {
    /// With so many permits; see [`new_semaphore`](crate::new_semaphore).
    pub fn new(
        permits: u32,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self> {
        let inner = Inner {
            free: permits,
            open: false,
            given: 0,
            waiting: RBTree::new(),
            next: 0,
        };
        pin_init!(Self {
            inner <- Mutex::new(inner, name, key),
        })
    }

    /// Gives a permit to everybody, from now on and for good.
    pub fn open(&self) {
        let waiting = {
            let mut inner = self.inner.lock();
            inner.open = true;
            core::mem::replace(&mut inner.waiting, RBTree::new())
        };
        waiting.values().for_each(|turn| turn.complete());
    }

    /// Waits for a permit; `None` if it took too long. May sleep. `EINTR` if the process is killed and
    /// that counts; `ENOMEM`, without having waited.
    pub fn acquire(&self, patience: Patience) -> Result<Option<Permit<'_>>> {
        let (number, turn) = {
            let mut inner = self.inner.lock();
            if inner.open {
                return Ok(Some(Permit(self)));
            }
            if let Some(free) = inner.free.checked_sub(1) {
                inner.free = free;
                inner.given = inner.given.wrapping_add(1);
                return Ok(Some(Permit(self)));
            }
            if let Patience::For(0) = patience {
                return Ok(None);
            }
            let turn = Arc::pin_init(Completion::new(), GFP_KERNEL)?;
            let number = inner.next;
            inner
                .waiting
                .try_create_and_insert(number, turn.clone(), GFP_KERNEL)?;
            inner.next = number.wrapping_add(1);
            (number, turn)
        };
        loop {
            let before = self.inner.lock().given;
            let came = match patience {
                Patience::For(ms) => Ok(turn.wait_timeout(ms)),
                Patience::Killable(ms) | Patience::InLine(ms) => turn.wait_killable_timeout(ms),
            };
            let mut inner = self.inner.lock();
            match came {
                Ok(true) => return Ok(Some(Permit(self))),
                Ok(false) if matches!(patience, Patience::InLine(_)) && inner.given != before => {}
                // It may have come at this very moment.
                _ if inner.waiting.remove(&number).is_none() => return Ok(Some(Permit(self))),
                Ok(false) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    fn release(&self) {
        let mut inner = self.inner.lock();
        let first = inner.waiting.keys().next().copied();
        match first.and_then(|number| inner.waiting.remove(&number)) {
            Some(turn) => {
                inner.given = inner.given.wrapping_add(1);
                turn.complete();
            }
            None => inner.free = inner.free.saturating_add(1),
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// Makes the initialiser of a [`Semaphore`], with a lock class of its own.
#[macro_export]
macro_rules! new_semaphore {
    ($permits:expr $(, $name:literal)? $(,)?) => {
        $crate::sync::semaphore::Semaphore::new(
            $permits,
            ::kernel::optional_name!($($name)?),
            ::kernel::static_lock_class!(),
        )
    };
}

#[kunit_tests(nlb_semaphore)]
mod tests {
    use super::*;

    fn semaphore(permits: u32) -> Result<Arc<Semaphore>> {
        Arc::pin_init(crate::new_semaphore!(permits, "nlb_semaphore"), GFP_KERNEL)
    }

    #[test]
    fn some_at_a_time() -> Result {
        let semaphore = semaphore(2)?;
        let first = semaphore.acquire(Patience::For(0))?;
        let second = semaphore.acquire(Patience::Killable(1))?;
        assert!(first.is_some() && second.is_some());
        for patience in [
            Patience::For(0),
            Patience::For(1),
            Patience::Killable(1),
            Patience::InLine(1),
        ] {
            assert!(semaphore.acquire(patience)?.is_none());
        }
        drop(first);
        // Who has given up is in nobody's way.
        let third = semaphore.acquire(Patience::InLine(1))?;
        assert!(third.is_some());
        assert!(semaphore.acquire(Patience::For(1))?.is_none());
        Ok(())
    }

    #[test]
    fn open() -> Result {
        let semaphore = semaphore(1)?;
        let first = semaphore.acquire(Patience::For(0))?;
        semaphore.open();
        for _ in 0..3 {
            assert!(semaphore.acquire(Patience::For(0))?.is_some());
        }
        drop(first);
        assert!(semaphore.acquire(Patience::For(0))?.is_some());
        Ok(())
    }
}
