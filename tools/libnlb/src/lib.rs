// SPDX-License-Identifier: MIT OR Apache-2.0

//! The C library `libnlb`. `include/nlb.h` and `include/nlb-app.h` say what each function does; a Rust
//! program uses `nlb_netlink::handover` and the crate `nlb-app` instead.
//!
//! No panic leaves a function.

#![deny(unsafe_op_in_unsafe_fn)]

pub mod app;
mod last_error;
#[cfg(test)]
mod tests;

use std::{
    any::Any,
    ffi::{
        c_char,
        c_int,
        c_uint,
        CStr, //
    },
    net::IpAddr,
    os::fd::BorrowedFd,
    panic::{
        self,
        AssertUnwindSafe, //
    },
    time::Duration,
};

use nlb_netlink::{
    handover::{
        migrate_with,
        Options,
        Stayed, //
    },
    Error,
    ReadBytes, //
};

const EPERM: c_int = 1;
const EIO: c_int = 5;
const EBADF: c_int = 9;
const EINVAL: c_int = 22;
const ENOSYS: c_int = 38;
const EBADMSG: c_int = 74;

/// `struct nlb_options` of the header.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NlbOptions {
    /// Size of the caller's structure.
    pub size: usize,
    /// Milliseconds to wait for each answer; 0 for the default.
    pub timeout_ms: u32,
    /// The last bytes read, to be taken from the kernel's copy.
    pub read_bytes: u32,
}

/// What a call comes to when it fails: an error number, a text, the number of the reason or 0.
struct Failure {
    errno: c_int,
    text: String,
    reason: u32,
}

impl Failure {
    fn new(errno: c_int, text: &str) -> Self {
        Self {
            errno,
            text: text.to_owned(),
            reason: 0,
        }
    }
}

impl<S> From<Stayed<S>> for Failure {
    fn from(stayed: Stayed<S>) -> Self {
        let is_lost = stayed.connection.is_none();
        let error = stayed.error;
        let (errno, text) = match &error {
            Error::Refused(refusal) if refusal.errno == EPERM && refusal.code.is_none() => {
                let text = "this needs CAP_NET_ADMIN in the network namespace";
                (EPERM, format!("{}; {text}", refusal.message()))
            }
            Error::Refused(refusal) => (refusal.errno, refusal.to_string()),
            Error::FamilyMissing(_) => {
                let text = "the module nlb_migrator is not loaded; load it: modprobe nlb_migrator";
                (ENOSYS, text.to_owned())
            }
            other if is_lost => (EBADMSG, other.to_string()),
            other => (other.errno().unwrap_or(EIO), other.to_string()),
        };
        Self {
            errno,
            text,
            reason: error
                .refusal()
                .and_then(|refusal| refusal.code)
                .unwrap_or(0),
        }
    }
}

/// Runs `call` and makes what it comes to the thread's last error; 0 or a negative error number.
fn at_the_border(call: impl FnOnce() -> Result<(), Failure>) -> c_int {
    // What a panic leaves half done is a socket that the unwinding closed.
    let outcome = panic::catch_unwind(AssertUnwindSafe(call));
    let failure = match outcome {
        Ok(Ok(())) => {
            last_error::set("", 0);
            return 0;
        }
        Ok(Err(failure)) => failure,
        // The kernel may have been asked already.
        Err(panic) => Failure::new(EBADMSG, &format!("internal error: {}", message(&*panic))),
    };
    last_error::set(&failure.text, failure.reason);
    failure.errno.checked_neg().unwrap_or(-EIO)
}

fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panic")
}

/// A structure with options of a caller, if there is one. The caller may know more of them than we do,
/// but must not have set those.
///
/// # Safety
///
/// `options` is null or points to `size` readable bytes, `size` being its first member.
unsafe fn read_known<T: Copy>(options: *const T) -> Result<Option<T>, Failure> {
    let known = size_of::<T>();
    if options.is_null() {
        return Ok(None);
    }
    // SAFETY: By the function's contract; the caller's structure begins with its size.
    let size = unsafe { options.cast::<usize>().read() };
    if !(known..=4096).contains(&size) {
        return Err(Failure::new(EINVAL, "the options have no valid size"));
    }
    // SAFETY: By the function's contract, `size` bytes can be read, which is as much as we know; bytes may
    // be read whatever is in them, a C program initialised them.
    let later =
        unsafe { std::slice::from_raw_parts(options.cast::<u8>().add(known), size - known) };
    if later.iter().any(|&byte| byte != 0) {
        let text = "an option that this version of libnlb does not know";
        return Err(Failure::new(EINVAL, text));
    }
    // SAFETY: The same.
    Ok(Some(unsafe { options.read() }))
}

/// The options of [`nlb_migrate`].
///
/// # Safety
///
/// As [`read_known`].
unsafe fn read_options(options: *const NlbOptions) -> Result<Options<'static>, Failure> {
    // SAFETY: By the function's contract.
    let Some(known) = (unsafe { read_known(options) })? else {
        return Ok(Options::default());
    };
    Ok(Options {
        timeout: match known.timeout_ms {
            0 => None,
            milliseconds => Some(Duration::from_millis(milliseconds.into())),
        },
        read: match known.read_bytes {
            0 => ReadBytes::Nothing,
            count => ReadBytes::Kept(count),
        },
    })
}

/// See the header.
///
/// # Safety
///
/// `target` is null or points to a string that ends with a NUL; `options` is null or points to a
/// structure whose first member is its size.
#[no_mangle]
pub unsafe extern "C" fn nlb_migrate(
    fd: c_int,
    target: *const c_char,
    options: *const NlbOptions,
) -> c_int {
    at_the_border(|| {
        // SAFETY: By the function's contract.
        let options = unsafe { read_options(options) }?;
        if target.is_null() {
            return Err(Failure::new(EINVAL, "no target"));
        }
        // SAFETY: By the function's contract, and not null.
        let target = unsafe { CStr::from_ptr(target) };
        let target: IpAddr = target
            .to_str()
            .ok()
            .and_then(|target| target.parse().ok())
            .ok_or_else(|| Failure::new(EINVAL, "the target is not an IP address"))?;
        if fd < 0 {
            return Err(Failure::new(EBADF, "not an open file descriptor"));
        }
        // SAFETY: The descriptor is not -1. It is only passed to the kernel as a number, which
        // checks it, and is not closed here; the caller keeps it open during the call, and a number
        // that is not open or is no socket is refused.
        let socket = unsafe { BorrowedFd::borrow_raw(fd) };
        migrate_with(socket, target, options).map_err(Failure::from)
    })
}

/// See the header.
#[no_mangle]
pub extern "C" fn nlb_error_text() -> *const c_char {
    last_error::text()
}

/// See the header.
#[no_mangle]
pub extern "C" fn nlb_error_reason() -> c_uint {
    last_error::reason()
}

/// See the header.
#[no_mangle]
pub extern "C" fn nlb_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => panic!(),
        };
    VERSION.as_ptr()
}
