// SPDX-License-Identifier: GPL-2.0

//! Work that is done later, once or again and again.
//!
//! The `kernel` crate has work items that are given away to the queue. What a namespace owns has to
//! end with the namespace instead; so here the owner keeps the item, and its drop cancels it.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h).

use crate::{
    bindings,
    time,
    wire::sweep, //
};
use core::{
    cell::UnsafeCell,
    ptr::NonNull, //
};
use kernel::{
    container_of,
    prelude::*,
    static_lock_class,
    sync::Arc,
    time::msecs_to_jiffies,
    types::Opaque, //
};

/// A closure whose type was forgotten.
struct Body {
    data: NonNull<c_void>,
    call: unsafe fn(NonNull<c_void>, &Trigger),
    free: unsafe fn(NonNull<c_void>),
}

impl Body {
    fn new<F: FnMut(&Trigger)>(work: F) -> Result<Self> {
        let data = KBox::into_raw(KBox::new(work, GFP_KERNEL)?);
        Ok(Self {
            // SAFETY: It came from a box.
            data: unsafe { NonNull::new_unchecked(data.cast()) },
            call: call::<F>,
            free: free::<F>,
        })
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        // SAFETY: `data` is ours, and of the type that `free` was made for.
        unsafe { (self.free)(self.data) };
    }
}

/// # Safety
///
/// `data` must be a valid `F` that nobody else uses.
unsafe fn call<F: FnMut(&Trigger)>(data: NonNull<c_void>, trigger: &Trigger) {
    // SAFETY: By the contract of this function.
    let work = unsafe { data.cast::<F>().as_mut() };
    work(trigger);
}

/// # Safety
///
/// `data` must be a boxed `F` that is not used afterwards.
unsafe fn free<F>(data: NonNull<c_void>) {
    // SAFETY: By the contract of this function.
    drop(unsafe { KBox::from_raw(data.cast::<F>().as_ptr()) });
}

/// Starts the timer of a [`DelayedWork`], from anywhere.
///
/// # Invariants
///
/// `body` is only used by the work function, which never runs twice at once, and by the drop of
/// the owner, after which the work is disabled for good.
#[pin_data]
pub struct Trigger {
    #[pin]
    work: Opaque<bindings::delayed_work>,
    body: UnsafeCell<Option<Body>>,
}

// SAFETY: The workqueue functions may be called from any thread. The closure is `Send` and used by
// one thread at a time, by the type invariant.
unsafe impl Send for Trigger {}
// SAFETY: As above.
unsafe impl Sync for Trigger {}

impl Trigger {
    // Not generic: lockdep wants one name, at one address, for each class, and a generic function
    // has its strings in every module that uses it.
    fn new(body: Body) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                work <- Opaque::ffi_init(|slot: *mut bindings::delayed_work| {
                    // SAFETY: `slot` is valid and going to be pinned; `run` is a work function for
                    // it, and the timer is what a delayed work needs, as in
                    // `INIT_DELAYED_WORK()`.
                    unsafe {
                        bindings::init_work_with_key(
                            &raw mut (*slot).work,
                            Some(run),
                            false,
                            c"nlb::DelayedWork".as_char_ptr(),
                            static_lock_class!().as_ptr(),
                        );
                        bindings::timer_init_key(
                            &raw mut (*slot).timer,
                            Some(bindings::delayed_work_timer_fn),
                            bindings::TIMER_IRQSAFE,
                            c"nlb::DelayedWork timer".as_char_ptr(),
                            static_lock_class!().as_ptr(),
                        );
                    }
                }),
                body: UnsafeCell::new(Some(body)),
            }),
            GFP_KERNEL,
        )
    }

    /// Has the work done in `ms` milliseconds, in process context. `false`, and no change, if it is
    /// waiting already, or if the owner is gone. May be called in any context.
    pub fn schedule(&self, ms: u32) -> bool {
        // SAFETY: The work is initialized, and lives until it was disabled.
        unsafe {
            bindings::queue_delayed_work_on(
                bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int,
                bindings::system_dfl_wq,
                self.work.get(),
                msecs_to_jiffies(ms),
            )
        }
    }

    /// Has the work done in `ms` milliseconds, even if another time was set before. May be called
    /// in any context but hard interrupts.
    pub fn reschedule(&self, ms: u32) {
        // SAFETY: As in `schedule`.
        unsafe {
            bindings::mod_delayed_work_on(
                bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int,
                bindings::system_dfl_wq,
                self.work.get(),
                msecs_to_jiffies(ms),
            )
        };
    }

    /// Does one run of a sweep that has `all` steps, and has the work done again: for the next run, or
    /// when it is time for another sweep. See [`sweep`]. To be called by the work. A step is true when
    /// it was the last one; then this is.
    pub fn sweep(&self, all: u32, mut step: impl FnMut() -> bool) -> bool {
        let begun = time::jiffies();
        let mut done = false;
        for _ in 0..sweep::steps(all) {
            done = step();
            if done {
                break;
            }
            // SAFETY: A plain call; works are done in process context.
            unsafe { bindings::cond_resched() };
        }
        let took = time::jiffies().saturating_sub(begun);
        self.schedule(match done {
            true => sweep::INTERVAL_MS,
            false => sweep::pause_ms(time::jiffies_to_ms(took)),
        });
        done
    }
}

/// A piece of work that can be scheduled again and again.
///
/// Dropping it waits for a run in progress and drops the closure, so the closure may own what owns
/// a [`Trigger`]. Has to be dropped where sleeping is allowed, and not by the work itself.
pub struct DelayedWork {
    trigger: Arc<Trigger>,
}

impl DelayedWork {
    /// Prepares `work`, without scheduling it. The closure may schedule itself again by the
    /// argument it gets, and is then periodic.
    pub fn new<F>(work: F) -> Result<Self>
    where
        F: FnMut(&Trigger) + Send + 'static,
    {
        let body = Body::new(work)?;
        Ok(Self {
            trigger: Trigger::new(body)?,
        })
    }

    /// See [`Trigger::schedule`].
    pub fn schedule(&self, ms: u32) -> bool {
        self.trigger.schedule(ms)
    }

    /// See [`Trigger::reschedule`].
    pub fn reschedule(&self, ms: u32) {
        self.trigger.reschedule(ms)
    }

    /// Takes back a schedule and waits for a run in progress; what that run schedules is taken
    /// back, too. May sleep.
    pub fn cancel(&self) {
        // SAFETY: The work is initialized.
        unsafe { bindings::cancel_delayed_work_sync(self.trigger.work.get()) };
    }

    /// A handle to schedule the work with. It does nothing any more when `self` has been dropped.
    pub fn trigger(&self) -> Arc<Trigger> {
        self.trigger.clone()
    }
}

impl Drop for DelayedWork {
    fn drop(&mut self) {
        // SAFETY: The work is initialized. After this it neither waits nor runs, and cannot be
        // scheduled again.
        unsafe { bindings::disable_delayed_work_sync(self.trigger.work.get()) };
        // SAFETY: The work function does not run, so nobody uses the closure, by the type invariant
        // of `Trigger`.
        drop(unsafe { (*self.trigger.body.get()).take() });
    }
}

/// Runs the closure.
///
/// # Safety
///
/// `work` must be in a `struct delayed_work` of a [`Trigger`] that was not freed, as all works that
/// have this function are: to be called by the workqueue alone.
unsafe extern "C" fn run(work: *mut bindings::work_struct) {
    // SAFETY: This function is only used for works in a `struct delayed_work` in a `Trigger`, which
    // lives until it was disabled, hence as long as this function runs.
    let trigger = unsafe {
        let delayed = container_of!(work, bindings::delayed_work, work);
        &*container_of!(Opaque::cast_from(delayed), Trigger, work)
    };
    // SAFETY: By the type invariant of `Trigger`, as this is the work function.
    if let Some(body) = unsafe { (*trigger.body.get()).as_ref() } {
        // SAFETY: `data` is of the type that `call` was made for, and as above used by nobody else.
        unsafe { (body.call)(body.data, trigger) };
    }
}

#[kunit_tests(nlb_work)]
mod tests {
    use super::*;
    use crate::completion::Completion;
    use kernel::sync::atomic::{Atomic, Relaxed};

    #[test]
    fn periodic() -> Result {
        let done = Arc::pin_init(Completion::new(), GFP_KERNEL)?;
        let (signal, mut left) = (done.clone(), 3);
        let work = DelayedWork::new(move |trigger: &Trigger| {
            left -= 1;
            if left == 0 {
                signal.complete_all();
            } else {
                trigger.schedule(1);
            }
        })?;
        assert!(work.schedule(1));
        done.wait();
        // Nothing is waiting by now.
        work.cancel();
        drop(work);
        assert!(Arc::into_unique_or_drop(done).is_some());
        Ok(())
    }

    #[test]
    fn a_sweep_in_runs() -> Result {
        let done = Arc::pin_init(Completion::new(), GFP_KERNEL)?;
        let taken = Arc::new(Atomic::new(0u32), GFP_KERNEL)?;
        let (signal, result, mut runs, mut left) = (done.clone(), taken.clone(), 0, 130);
        let work = DelayedWork::new(move |trigger: &Trigger| {
            runs += 1;
            let is_last = trigger.sweep(130, || {
                left -= 1;
                left == 0
            });
            // What comes next, another run or another sweep, waits already.
            if trigger.schedule(0) {
                runs += 100;
            }
            if is_last {
                result.store(runs, Relaxed);
                signal.complete_all();
            }
        })?;
        work.schedule(0);
        done.wait();
        assert_eq!(taken.load(Relaxed), 3);
        Ok(())
    }

    #[test]
    fn dropped() -> Result {
        let runs = Arc::new(Atomic::new(0u32), GFP_KERNEL)?;
        let count = runs.clone();
        let work = DelayedWork::new(move |_: &Trigger| {
            let _ = count.fetch_add(1, Relaxed);
        })?;
        assert!(work.schedule(3_600_000));
        assert!(!work.schedule(1));
        let trigger = work.trigger();
        drop(work);
        assert!(!trigger.schedule(0));
        assert_eq!(runs.load(Relaxed), 0);
        // The closure is gone though the handle is not.
        assert!(Arc::into_unique_or_drop(runs).is_some());
        Ok(())
    }
}
