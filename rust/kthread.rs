// SPDX-License-Identifier: GPL-2.0

//! Kernel threads.
//!
//! C header: [`include/linux/kthread.h`](srctree/include/linux/kthread.h).

use crate::bindings;
use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    error::from_err_ptr,
    fmt,
    prelude::*,
    str::CString,
    sync::atomic::{
        Acquire,
        Atomic,
        Release, //
    },
    time::msecs_to_jiffies, //
};

/// What a thread and its owner share.
#[repr(C)]
struct Control<F> {
    finished: Atomic<bool>,
    /// Taken by the thread when it begins; left if it is stopped before that.
    body: UnsafeCell<Option<F>>,
}

/// A running thread. Dropping it has the thread stop, and waits until it has.
///
/// The wait is what makes threads safe in a module: no thread outlives its owner, and with the
/// owner in the module's or a namespace's state, none outlives the module's code. So the body has
/// to return soon after [`Current::should_stop`] says so; what it may sleep in, the owner has to
/// wake (a socket: shut it down). A thread that drops its own `Thread` waits for itself, for ever.
///
/// # Invariants
///
/// `task` is a kthread that we hold a reference to. `control` is a `Control<F>` that only the
/// thread and we know; `free` is the function that frees it.
pub struct Thread {
    task: NonNull<bindings::task_struct>,
    control: NonNull<c_void>,
    free: unsafe fn(NonNull<c_void>),
}

// SAFETY: Any thread may stop a kthread, and the body, which it drops if the thread never began,
// is `Send`.
unsafe impl Send for Thread {}
// SAFETY: The only method that takes `&self` reads an atomic.
unsafe impl Sync for Thread {}

impl Thread {
    /// Starts a thread that runs `body`. Of `name`, 15 bytes are shown by tools such as ps.
    pub fn spawn<F>(name: fmt::Arguments<'_>, body: F) -> Result<Self>
    where
        F: FnOnce(&Current) + Send + 'static,
    {
        let name = CString::try_from_fmt(name)?;
        let control = KBox::new(
            Control {
                finished: Atomic::new(false),
                body: UnsafeCell::new(Some(body)),
            },
            GFP_KERNEL,
        )?;
        let control = KBox::into_raw(control);
        // SAFETY: `entry::<F>` takes a pointer to a `Control<F>`. It is freed after the thread has
        // gone. The format takes one string, which is copied.
        let task = from_err_ptr(unsafe {
            bindings::kthread_create_on_node(
                Some(entry::<F>),
                control.cast(),
                bindings::NUMA_NO_NODE,
                c"%s".as_char_ptr(),
                name.as_char_ptr(),
            )
        });
        let task = match task {
            Ok(task) => task,
            Err(error) => {
                // SAFETY: There is no thread, so the control block is ours alone.
                drop(unsafe { KBox::from_raw(control) });
                return Err(error);
            }
        };
        // SAFETY: The thread sleeps until it is woken for the first time, so it exists; the
        // reference is put in `drop()`.
        unsafe {
            bindings::get_task_struct(task);
            bindings::wake_up_process(task);
        }
        // INVARIANT: As just set up; neither pointer is null.
        Ok(Self {
            // SAFETY: `kthread_create_on_node()` returns an error or a task.
            task: unsafe { NonNull::new_unchecked(task) },
            // SAFETY: It came from a box.
            control: unsafe { NonNull::new_unchecked(control.cast()) },
            free: free::<F>,
        })
    }

    /// Whether the body has returned.
    pub fn is_finished(&self) -> bool {
        // SAFETY: `control` is valid by the type invariant; its first field, which is at the
        // pointer's address for any `F`, is an atomic.
        let finished = unsafe { self.control.cast::<Atomic<bool>>().as_ref() };
        finished.load(Acquire)
    }

    /// Has the thread stop and waits until it has; as dropping does.
    pub fn stop(self) {}
}

impl Drop for Thread {
    fn drop(&mut self) {
        // SAFETY: The task is a kthread, and this gives back our reference. After it, the thread
        // does not run any more.
        unsafe { bindings::kthread_stop_put(self.task.as_ptr()) };
        // SAFETY: Nobody else knows the control block by now, and `free` is the right function by
        // the type invariant.
        unsafe { (self.free)(self.control) };
    }
}

/// # Safety
///
/// `control` must be a boxed `Control<F>`, and not be used afterwards.
unsafe fn free<F>(control: NonNull<c_void>) {
    // SAFETY: By the contract of this function.
    drop(unsafe { KBox::from_raw(control.as_ptr().cast::<Control<F>>()) });
}

/// What the kernel runs in the new thread.
///
/// # Safety
///
/// `data` must be a `Control<F>` that stays until this has returned, and whose body nobody else
/// touches.
unsafe extern "C" fn entry<F: FnOnce(&Current)>(data: *mut c_void) -> c_int {
    // SAFETY: By the contract of this function, which `Thread::spawn` keeps.
    let control = unsafe { &*data.cast::<Control<F>>() };
    // SAFETY: The owner looks at the body only after the thread has gone.
    let body = unsafe { (*control.body.get()).take() };
    if let Some(body) = body {
        body(&Current { _here: PhantomData });
    }
    control.finished.store(true, Release);
    0
}

/// The thread that runs, if it is one of [`Thread`].
pub struct Current {
    // It says something about this thread alone.
    _here: PhantomData<*mut ()>,
}

impl Current {
    /// Whether the owner waits for this thread to return.
    pub fn should_stop(&self) -> bool {
        // SAFETY: This is a kthread, for a `Current` is only given to the body of one and cannot
        // leave its thread.
        unsafe { bindings::kthread_should_stop() }
    }

    /// Sleeps for `ms` milliseconds, or until the thread should stop.
    pub fn sleep(&self, ms: u32) {
        let jiffies = c_long::try_from(msecs_to_jiffies(ms)).unwrap_or(c_long::MAX);
        // SAFETY: The functions may be called where sleeping is allowed, as it is in the body of
        // a thread. The state is set before the flag is read, so that a wake-up is not lost.
        unsafe { bindings::set_current_state(bindings::TASK_INTERRUPTIBLE) };
        if self.should_stop() {
            // SAFETY: As above.
            unsafe { bindings::set_current_state(bindings::TASK_RUNNING) };
        } else {
            // SAFETY: As above; it returns in the running state.
            unsafe { bindings::schedule_timeout(jiffies) };
        }
    }
}

#[kunit_tests(nlb_kthread)]
mod tests {
    use super::*;
    use kernel::sync::Arc;

    #[test]
    fn stop_wakes() -> Result {
        let rounds = Arc::new(Atomic::new(0u32), GFP_KERNEL)?;
        let inside = rounds.clone();
        let thread = Thread::spawn(fmt!("nlb-test"), move |current: &Current| {
            inside.store(1, Release);
            while !current.should_stop() {
                current.sleep(3_600_000);
            }
            inside.store(2, Release);
        })?;
        while rounds.load(Acquire) == 0 {
            kernel::time::delay::fsleep(kernel::time::Delta::from_millis(1));
        }
        assert!(!thread.is_finished());
        thread.stop();
        assert_eq!(rounds.load(Acquire), 2);
        Ok(())
    }

    #[test]
    fn body_is_dropped() -> Result {
        let value = Arc::new(0u32, GFP_KERNEL)?;
        // Whether stopped before it began or not, nothing of the body may remain.
        for _ in 0..16 {
            let inside = value.clone();
            drop(Thread::spawn(fmt!("nlb-test"), move |_: &Current| {
                drop(inside)
            })?);
        }
        assert!(Arc::into_unique_or_drop(value).is_some());
        Ok(())
    }
}
