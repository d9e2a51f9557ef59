// SPDX-License-Identifier: GPL-2.0

//! Work that a thread does on its way back from the kernel to user space.
//!
//! A system call that has to wait for long, but is made with locks held that others need, lets go of
//! them first and waits afterwards: in the same thread, which needs no other one to be woken, can be
//! killed while it waits, and is the one that the scheduler and the tools show.
//!
//! It is what closing a file does anyway, so the work is the end of a file that nobody ever sees. The
//! file keeps the module loaded, and it is not the module that lets go of that, but the kernel, behind
//! the work: no instruction of the module is left to be executed then.
//!
//! C headers: [`include/linux/anon_inodes.h`](srctree/include/linux/anon_inodes.h),
//! [`include/linux/file.h`](srctree/include/linux/file.h).

use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    error::from_err_ptr,
    prelude::*,
    task::Task, //
};

/// What [`OnReturn`] is used for: a `static` of the module that has the work done.
pub struct OnReturn(bindings::file_operations);

// SAFETY: Never written after it was built; what it points to lives as long as the module.
unsafe impl Sync for OnReturn {}

/// A closure and how to run it.
#[repr(C)]
struct Work<F> {
    run: unsafe fn(NonNull<c_void>),
    work: F,
}

impl OnReturn {
    /// `module` is the module that the work is in: it stays loaded until the work is done.
    pub const fn new(module: &ThisModule) -> Self {
        // SAFETY: `struct file_operations` consists of integers and of pointers that may be null.
        let mut ops: bindings::file_operations = unsafe { core::mem::zeroed() };
        ops.owner = module.as_ptr();
        ops.release = Some(release);
        Self(ops)
    }

    /// Has the calling thread do `work` when its system call is over, before it is in user space
    /// again. The thread may be about to end by then. (A kernel thread leaves it to a workqueue.)
    ///
    /// Process context. `ENOMEM` or `ENFILE`, and `work` is dropped, if there is no memory.
    pub fn schedule<F: FnOnce() + Send + 'static>(&'static self, work: F) -> Result {
        let work = KBox::new(
            Work {
                run: run::<F>,
                work,
            },
            GFP_KERNEL,
        )?;
        let work = KBox::into_raw(work);
        // SAFETY: The operations are static, in a module that is loaded, and know what the file's private
        // data is, which they own from here on if there is a file.
        let file = from_err_ptr(unsafe {
            bindings::anon_inode_getfile(
                c"[nlb]".as_char_ptr(),
                &raw const self.0,
                work.cast(),
                bindings::O_RDONLY as c_int,
            )
        });
        match file {
            Ok(file) => {
                // SAFETY: The one reference is ours. That was the last, and the end of the file is
                // put off to where the system call is over.
                unsafe { bindings::fput(file) };
                Ok(())
            }
            Err(error) => {
                // SAFETY: It came from a box, and no file has it.
                drop(unsafe { KBox::from_raw(work) });
                Err(error)
            }
        }
    }
}

/// Does the work.
///
/// # Safety
///
/// `data` must be a boxed `Work<F>` that is not used afterwards.
unsafe fn run<F: FnOnce()>(data: NonNull<c_void>) {
    // SAFETY: By the contract of this function.
    let boxed = unsafe { KBox::from_raw(data.cast::<Work<F>>().as_ptr()) };
    let Work { work, .. } = KBox::into_inner(boxed);
    work();
}

/// The end of the file.
///
/// # Safety
///
/// To be called by the kernel alone, for a file that [`OnReturn::schedule`] made.
unsafe extern "C" fn release(_inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
    // SAFETY: The file is valid, its private data not changed since it was made.
    let data = unsafe { (*file).private_data };
    if let Some(data) = NonNull::new(data) {
        // SAFETY: It is a boxed `Work<F>`, of which `run` is the first member; a file ends once.
        unsafe { data.cast::<unsafe fn(NonNull<c_void>)>().read()(data) };
    }
    0
}

/// A thread, to be told from others that live at the same time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ThreadId(usize);

impl ThreadId {
    /// The calling thread.
    pub fn current() -> Self {
        Self(Task::current_raw().addr())
    }
}

#[kunit_tests(nlb_on_return)]
mod tests {
    use super::*;
    use crate::completion::Completion;
    use kernel::sync::Arc;

    static ON_RETURN: OnReturn = OnReturn::new(&crate::THIS_MODULE);

    #[test]
    fn done_later() -> Result {
        let done = Arc::pin_init(Completion::new(), GFP_KERNEL)?;
        let (signal, held) = (done.clone(), KVec::from_elem(7u8, 5000, GFP_KERNEL)?);
        ON_RETURN.schedule(move || {
            if held.iter().all(|&byte| byte == 7) {
                signal.complete_all();
            }
        })?;
        done.wait();
        Ok(())
    }
}
