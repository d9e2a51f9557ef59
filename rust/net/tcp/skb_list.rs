// SPDX-License-Identifier: GPL-2.0

//! Socket buffers that belong to nobody else yet.

use core::{
    ptr,
    ptr::NonNull, //
};

use crate::bindings;

use super::{
    sock,
    sock::tcp_skb_cb, //
};

/// A list of buffers on their way to the queue of a new socket.
///
/// # Invariants
///
/// `head` is a list of buffers chained by `next` alone, each owned and not shared, with nothing but
/// zeroes where the stack keeps destructor and route; `tail` is its last one, or null like `head`.
pub(super) struct SkbList {
    head: *mut bindings::sk_buff,
    tail: *mut bindings::sk_buff,
    /// The memory that the buffers are accounted with, which is so from their allocation on.
    truesize: usize,
}

// SAFETY: The buffers are owned, and belong to no device or socket.
unsafe impl Send for SkbList {}

impl SkbList {
    /// No buffer.
    pub(super) const fn new() -> SkbList {
        // INVARIANT: The list is empty.
        SkbList {
            head: ptr::null_mut(),
            tail: ptr::null_mut(),
            truesize: 0,
        }
    }

    /// Appends a buffer of which nothing is filled in yet, for bytes from `seq` on.
    ///
    /// # Safety
    ///
    /// The buffer comes from the allocator, and the caller gives it away.
    pub(super) unsafe fn push(&mut self, skb: NonNull<bindings::sk_buff>, seq: u32) {
        let skb = skb.as_ptr();
        // SAFETY: The buffer is valid and ours; all but its data is clear. As tcp_skb_entail() and
        // tcp_queue_rcv() leave it.
        unsafe {
            let cb = tcp_skb_cb(skb);
            (*cb).seq = seq;
            (*cb).end_seq = seq;
            (*cb).tcp_flags = sock::TCPHDR_ACK;
            self.truesize = self.truesize.saturating_add((*skb).truesize as usize);
        }
        if self.tail.is_null() {
            self.head = skb;
        } else {
            // SAFETY: By the type invariants the buffer is valid and ours.
            unsafe { (*self.tail).__bindgen_anon_1.__bindgen_anon_1.next = skb };
        }
        // INVARIANT: `skb` is new, its `next` null.
        self.tail = skb;
    }

    /// The last buffer, valid and ours alone for as long as it is in the list.
    pub(super) fn last(&self) -> Option<NonNull<bindings::sk_buff>> {
        NonNull::new(self.tail)
    }

    /// The last buffer, if its bytes end before `seq`.
    pub(super) fn last_before(&self, seq: u32) -> Option<NonNull<bindings::sk_buff>> {
        let skb = self.last()?;
        // SAFETY: By the type invariants the buffer is valid.
        let end = unsafe { (*tcp_skb_cb(skb.as_ptr())).end_seq };
        (end == seq).then_some(skb)
    }

    /// The memory that the buffers are accounted with.
    pub(super) fn truesize(&self) -> usize {
        self.truesize
    }

    /// Takes the first buffer off, which belongs to the caller then.
    pub(super) fn pop(&mut self) -> Option<NonNull<bindings::sk_buff>> {
        let skb = NonNull::new(self.head)?;
        // SAFETY: By the type invariants the buffer is valid and ours.
        unsafe {
            let link = &raw mut (*skb.as_ptr()).__bindgen_anon_1.__bindgen_anon_1.next;
            // INVARIANT: The rest of the list stays.
            self.head = *link;
            *link = ptr::null_mut();
            let truesize = (*skb.as_ptr()).truesize as usize;
            self.truesize = self.truesize.saturating_sub(truesize);
        }
        if self.head.is_null() {
            self.tail = ptr::null_mut();
        }
        Some(skb)
    }
}

impl Drop for SkbList {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the buffers are ours.
        unsafe { sock::free_skb_list(self.head) };
    }
}
