// SPDX-License-Identifier: GPL-2.0

//! Bytes for the client on their way to a send queue.

use core::{
    ffi::c_void,
    ptr::NonNull, //
};

use kernel::prelude::*;

use crate::{
    bindings,
    wire::record::{
        Part,
        Run, //
    },
};

use super::{
    skb_list::SkbList,
    sock::tcp_skb_cb, //
};

/// Most bytes in one buffer: eight pages, about what tcp_sendmsg() gathers before it goes on to
/// the next one, and less than what any device takes as one packet.
pub(super) const CHUNK: u32 = 32 << 10;

/// Bytes for the client in buffers as tcp_stream_alloc_skb() and tcp_sendmsg_locked() make them:
/// room for headers, and the data in pages only, which retransmission and segmentation rely on.
pub(super) struct TxData {
    sent: SkbList,
    unsent: SkbList,
}

impl TxData {
    /// No bytes.
    pub(super) const fn new() -> TxData {
        TxData {
            sent: SkbList::new(),
            unsent: SkbList::new(),
        }
    }

    /// Appends a copy of `bytes`, the first ones of `run`. May sleep.
    ///
    /// `run` goes on where the last one ended. Memory is allocated for what comes, and for the rest
    /// of a buffer at most.
    pub(super) fn push(&mut self, run: &Run, mut bytes: &[u8]) -> Result {
        let list = if run.part == Part::Sent {
            &mut self.sent
        } else {
            &mut self.unsent
        };
        let mut seq = run.seq;
        let mut left = run.len;
        while !bytes.is_empty() {
            let tail = match list.last() {
                Some(tail) if room(tail, seq) != 0 => tail,
                _ => grow(list, seq, left.min(CHUNK))?,
            };
            let room = room(tail, seq);
            let (part, rest) = bytes
                .split_at_checked(bytes.len().min(room as usize))
                .ok_or(EINVAL)?;
            // CAST: Not more than `room`.
            let count = part.len() as u32;
            left = left
                .checked_sub(count)
                .filter(|_| count != 0)
                .ok_or(EINVAL)?;
            // SAFETY: The buffer is ours alone, and has as many bytes from `offset` on as `room`
            // says. CAST: Both are less than CHUNK.
            unsafe {
                let offset = seq.wrapping_sub((*tcp_skb_cb(tail.as_ptr())).seq);
                let err = bindings::skb_store_bits(
                    tail.as_ptr(),
                    offset as i32,
                    part.as_ptr().cast::<c_void>(),
                    count as i32,
                );
                kernel::error::to_result(err)?;
            }
            seq = seq.wrapping_add(count);
            bytes = rest;
        }
        Ok(())
    }

    /// The memory that the buffers are accounted with.
    pub(super) fn truesize(&self) -> usize {
        self.sent.truesize().saturating_add(self.unsent.truesize())
    }

    /// Takes the first buffer of sent bytes off, which belongs to the caller then.
    pub(super) fn pop_sent(&mut self) -> Option<NonNull<bindings::sk_buff>> {
        self.sent.pop()
    }

    /// Takes the first buffer of unsent bytes off, which belongs to the caller then.
    pub(super) fn pop_unsent(&mut self) -> Option<NonNull<bindings::sk_buff>> {
        self.unsent.pop()
    }
}

/// How many bytes from `seq` on fit into the buffer.
fn room(skb: NonNull<bindings::sk_buff>, seq: u32) -> u32 {
    // SAFETY: It is one of a list's, and valid.
    let (start, end) = unsafe {
        let cb = tcp_skb_cb(skb.as_ptr());
        ((*cb).seq, (*cb).end_seq)
    };
    let len = end.wrapping_sub(start);
    len.saturating_sub(seq.wrapping_sub(start))
}

/// Appends a buffer for `len` bytes from `seq` on, whose content comes later.
fn grow(list: &mut SkbList, seq: u32, len: u32) -> Result<NonNull<bindings::sk_buff>> {
    let header = bindings::MAX_TCP_HEADER;
    let mut err = 0;
    // SAFETY: No preconditions; GFP_KERNEL because the caller may sleep. Single pages: larger
    // pieces fail when memory is scattered.
    let skb = unsafe {
        bindings::alloc_skb_with_frags(
            header as kernel::ffi::c_ulong,
            len as kernel::ffi::c_ulong,
            0,
            &mut err,
            bindings::GFP_KERNEL,
        )
    };
    let skb = NonNull::new(skb).ok_or(ENOMEM)?;
    let raw = skb.as_ptr();
    // SAFETY: The buffer is new and ours, its head has room for the headers, its pages for `len`
    // bytes. CAST: A constant of a few hundred.
    unsafe {
        bindings::skb_reserve(raw, header as i32);
        (*raw).len = len;
        (*raw).data_len = len;
        (*raw)
            .__bindgen_anon_4
            .headers
            .as_mut()
            .set_ip_summed(bindings::CHECKSUM_PARTIAL as u8);
        // The stack may change the headers of a clone in place.
        bindings::__skb_header_release(raw);
        list.push(skb, seq);
        (*tcp_skb_cb(raw)).end_seq = seq.wrapping_add(len);
    }
    Ok(skb)
}
