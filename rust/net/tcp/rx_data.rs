// SPDX-License-Identifier: GPL-2.0

//! Received bytes on their way to a receive queue or an out-of-order queue.

use core::{
    ptr::NonNull,
    slice, //
};

use kernel::prelude::*;

use crate::bindings;

use super::{
    skb_list::SkbList,
    sock,
    sock::tcp_skb_cb, //
};

/// Bytes in one buffer, so that data and `struct skb_shared_info` fill a page: the receive queue
/// may be megabytes, and larger allocations fail when memory is in pieces. C: `SKB_MAX_ORDER(0, 0)`.
pub(super) const CHUNK: usize = 4096 - 320;

/// Received bytes in linear buffers, one behind the other where their sequence numbers are.
pub(super) struct RxData(SkbList);

impl RxData {
    /// No bytes.
    pub(super) const fn new() -> RxData {
        RxData(SkbList::new())
    }

    /// Appends a copy of `bytes`, whose sequence numbers begin with `seq`. May sleep.
    pub(super) fn push(&mut self, seq: u32, mut bytes: &[u8]) -> Result {
        let mut seq = seq;
        while !bytes.is_empty() {
            let tail = match self.0.last_before(seq) {
                Some(tail) if room(tail) != 0 => tail,
                _ => self.grow(seq, bytes.len().min(CHUNK))?,
            };
            let count = room(tail).min(bytes.len());
            let (part, rest) = bytes.split_at_checked(count).ok_or(EINVAL)?;
            if part.is_empty() {
                return Err(EINVAL);
            }
            // SAFETY: The buffer is ours alone and linear, and has `count` bytes of tail room;
            // skb_put() gives the address of those. CAST: Less than the size of a buffer.
            unsafe {
                let to = bindings::skb_put(tail.as_ptr(), count as u32);
                slice::from_raw_parts_mut(to.cast::<u8>(), count).copy_from_slice(part);
                seq = seq.wrapping_add(count as u32);
                (*tcp_skb_cb(tail.as_ptr())).end_seq = seq;
            }
            bytes = rest;
        }
        Ok(())
    }

    /// Appends the client's FIN, with the number `seq`, to the bytes before it or, if they are not
    /// here, alone. May sleep.
    pub(super) fn push_fin(&mut self, seq: u32) -> Result {
        let tail = match self.0.last_before(seq) {
            Some(tail) => tail,
            None => self.grow(seq, 0)?,
        };
        // SAFETY: The buffer is ours.
        unsafe {
            let cb = tcp_skb_cb(tail.as_ptr());
            (*cb).end_seq = seq.wrapping_add(1);
            (*cb).tcp_flags |= sock::TCPHDR_FIN;
        }
        Ok(())
    }

    /// Appends an empty buffer for at least `size` bytes.
    fn grow(&mut self, seq: u32, size: usize) -> Result<NonNull<bindings::sk_buff>> {
        let size = u32::try_from(size).map_err(|_| EINVAL)?;
        // SAFETY: No preconditions; GFP_KERNEL because the caller may sleep.
        let skb = unsafe { bindings::alloc_skb(size, bindings::GFP_KERNEL) };
        let skb = NonNull::new(skb).ok_or(ENOMEM)?;
        // SAFETY: The buffer is new and ours.
        unsafe { self.0.push(skb, seq) };
        Ok(skb)
    }

    /// The memory that the buffers are accounted with.
    pub(super) fn truesize(&self) -> usize {
        self.0.truesize()
    }

    /// Takes the first buffer off, which belongs to the caller then.
    pub(super) fn pop(&mut self) -> Option<NonNull<bindings::sk_buff>> {
        self.0.pop()
    }
}

/// How many bytes still fit into the buffer.
fn room(skb: NonNull<bindings::sk_buff>) -> usize {
    // SAFETY: It is one of a list's, valid and linear.
    usize::try_from(unsafe { bindings::skb_tailroom(skb.as_ptr()) }).unwrap_or(0)
}
