// SPDX-License-Identifier: MIT OR Apache-2.0

//! What each thread's last call said.

use std::{
    cell::RefCell,
    ffi::{
        c_char,
        CStr,
        CString, //
    },
};

/// Why a call failed.
#[derive(Default)]
pub(crate) struct LastError {
    text: CString,
    reason: u32,
}

thread_local! {
    static LAST: RefCell<LastError> = RefCell::default();
}

/// Keep what [`text`] and [`reason`] tell until the thread's next call.
pub(crate) fn set(text: &str, reason: u32) {
    // A text ends at its first NUL; the kernel's have none.
    let text = text.split('\0').next().unwrap_or_default();
    let last = LastError {
        text: CString::new(text).unwrap_or_default(),
        reason,
    };
    // A thread that is about to end has no place for it any more, and nobody to read it.
    let _ = LAST.try_with(|cell| cell.replace(last));
}

/// The text, valid until the next [`set`] of the thread.
pub(crate) fn text() -> *const c_char {
    const NOTHING: &CStr = c"";
    LAST.try_with(|cell| cell.borrow().text.as_ptr())
        .unwrap_or(NOTHING.as_ptr())
}

/// The number of the reason.
pub(crate) fn reason() -> u32 {
    LAST.try_with(|cell| cell.borrow().reason)
        .unwrap_or_default()
}
