// SPDX-License-Identifier: GPL-2.0

//! Received bytes on their way to a receive queue.

use core::{
    ptr,
    slice, //
};

use kernel::{
    macros::kunit_tests,
    prelude::*, //
};

use crate::bindings;

use super::sock;

/// Bytes in one buffer, so that data and `struct skb_shared_info` fill a page: the receive queue
/// may be megabytes, and larger allocations fail when memory is in pieces. C: `SKB_MAX_ORDER(0, 0)`.
const CHUNK: usize = 4096 - 320;

/// Received bytes in socket buffers, ready to be put into the receive queue of a new socket.
///
/// All memory is allocated here, in process context, so that nothing can fail for want of it once
/// the socket exists.
///
/// # Invariants
///
/// `head` is a list of buffers chained by `next` alone, each owned, linear and not shared; `tail`
/// is its last one, or null like `head`. `len` is the sum of their lengths.
pub struct RxData {
    head: *mut bindings::sk_buff,
    tail: *mut bindings::sk_buff,
    len: usize,
}

// SAFETY: The buffers are owned, and belong to no device or socket.
unsafe impl Send for RxData {}

impl RxData {
    /// No bytes.
    pub const fn new() -> RxData {
        // INVARIANT: The list is empty.
        RxData {
            head: ptr::null_mut(),
            tail: ptr::null_mut(),
            len: 0,
        }
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends a copy of `bytes`. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `EFBIG` for more than [`super::MAX_UNREAD`]; a part may have been appended then.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result {
        if bytes.len() > super::MAX_UNREAD - self.len.min(super::MAX_UNREAD) {
            return Err(EFBIG);
        }
        while !bytes.is_empty() {
            let room = if self.tail.is_null() {
                0
            } else {
                // SAFETY: By the type invariants the buffer is valid and linear.
                let room = unsafe { bindings::skb_tailroom(self.tail) };
                usize::try_from(room).unwrap_or(0)
            };
            if room == 0 {
                self.grow(bytes.len().min(CHUNK))?;
                continue;
            }
            let count = room.min(bytes.len());
            let (part, rest) = bytes.split_at_checked(count).ok_or(EINVAL)?;
            // SAFETY: The buffer is ours alone and linear, and has `count` bytes of tail room;
            // skb_put() gives the address of those. CAST: Less than the size of a buffer.
            unsafe {
                let to = bindings::skb_put(self.tail, count as u32);
                slice::from_raw_parts_mut(to.cast::<u8>(), count).copy_from_slice(part);
            }
            // INVARIANT: The last buffer has `count` bytes more.
            self.len += count;
            bytes = rest;
        }
        Ok(())
    }

    /// Appends an empty buffer for at least `size` bytes.
    fn grow(&mut self, size: usize) -> Result {
        let size = u32::try_from(size).map_err(|_| EINVAL)?;
        // SAFETY: No preconditions; GFP_KERNEL because the caller may sleep.
        let skb = unsafe { bindings::alloc_skb(size, bindings::GFP_KERNEL) };
        if skb.is_null() {
            return Err(ENOMEM);
        }
        if self.tail.is_null() {
            self.head = skb;
        } else {
            // SAFETY: By the type invariants the buffer is valid and ours.
            unsafe { (*self.tail).__bindgen_anon_1.__bindgen_anon_1.next = skb };
        }
        // INVARIANT: `skb` is new, its `next` null.
        self.tail = skb;
        Ok(())
    }

    /// The memory that the buffers are accounted with.
    pub(super) fn truesize(&self) -> usize {
        let mut sum: usize = 0;
        let mut skb = self.head;
        while !skb.is_null() {
            // SAFETY: By the type invariants the buffer is valid.
            unsafe {
                sum = sum.saturating_add((*skb).truesize as usize);
                skb = (*skb).__bindgen_anon_1.__bindgen_anon_1.next;
            }
        }
        sum
    }

    /// Takes the first buffer off, which belongs to the caller then.
    pub(super) fn pop(&mut self) -> Option<ptr::NonNull<bindings::sk_buff>> {
        let skb = ptr::NonNull::new(self.head)?;
        // SAFETY: By the type invariants the buffer is valid and ours.
        unsafe {
            let link = &raw mut (*skb.as_ptr()).__bindgen_anon_1.__bindgen_anon_1.next;
            // INVARIANT: The rest of the list stays.
            self.head = *link;
            *link = ptr::null_mut();
            self.len -= (*skb.as_ptr()).len as usize;
        }
        if self.head.is_null() {
            self.tail = ptr::null_mut();
        }
        Some(skb)
    }
}

impl Default for RxData {
    fn default() -> RxData {
        RxData::new()
    }
}

impl Drop for RxData {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the buffers are ours.
        unsafe { sock::free_skb_list(self.head) };
    }
}

#[kunit_tests(nlb_tcp_rx_data)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_out_as_they_went_in() -> Result {
        let mut data = RxData::new();
        assert!(data.is_empty());
        assert_eq!(data.truesize(), 0);
        let mut bytes = KVec::new();
        for i in 0..3 * CHUNK {
            bytes.push((i % 251) as u8, GFP_KERNEL)?;
        }
        let mut rest = bytes.as_slice();
        for size in [1, 0, 7, CHUNK - 8, 1, CHUNK + 5].into_iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, more) = rest.split_at(size.min(rest.len()));
            data.push(piece)?;
            rest = more;
        }
        assert_eq!(data.len(), bytes.len());
        assert!(data.truesize() > data.len());

        let mut seen = 0;
        while let Some(skb) = data.pop() {
            // SAFETY: The buffer has just come out of the list, and is linear.
            let piece = unsafe {
                let skb = skb.as_ptr();
                assert!((*skb).__bindgen_anon_1.__bindgen_anon_1.next.is_null());
                slice::from_raw_parts((*skb).data, (*skb).len as usize)
            };
            assert_eq!(bytes.get(seen..seen + piece.len()), Some(piece));
            seen += piece.len();
            // SAFETY: The buffer is ours.
            unsafe { sock::free_skb_list(skb.as_ptr()) };
        }
        assert_eq!(seen, bytes.len());
        assert_eq!(data.len(), 0);
        data.push(b"again")?;
        assert_eq!(data.len(), 5);
        Ok(())
    }
}
