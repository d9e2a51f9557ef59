// SPDX-License-Identifier: GPL-2.0

//! Reading the queues of a locked socket.

use core::{
    ffi::c_void,
    mem::offset_of,
    ptr, //
};

use kernel::{
    error::to_result,
    prelude::*, //
};

use crate::{
    bindings,
    wire::{
        record::{
            Part,
            Range,
            Ranges,
            MAX_OUT_OF_ORDER,
            MAX_SACKS, //
        },
        seq::SeqNum,
    },
};

use super::{
    sock,
    sock::{
        tcp_sk,
        tcp_skb_cb, //
    },
};

/// A queue of a TCP socket. Its buffers are in the order of their sequence numbers.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Queue {
    /// Received and not read: `sk_receive_queue`.
    Receive,
    /// Sent and not acknowledged: `tcp_rtx_queue`.
    Retransmit,
    /// Not sent: `sk_write_queue`.
    Write,
    /// Received beyond a hole: `out_of_order_queue`.
    OutOfOrder,
}

impl Queue {
    /// The queue that holds these bytes.
    fn of(part: Part) -> Queue {
        match part {
            Part::Unread => Queue::Receive,
            Part::Sent => Queue::Retransmit,
            Part::Unsent => Queue::Write,
            Part::OutOfOrder => Queue::OutOfOrder,
        }
    }

    /// Whether there is no buffer.
    ///
    /// # Safety
    ///
    /// `sk` is a valid, locked TCP socket.
    pub(super) unsafe fn is_empty(self, sk: *mut bindings::sock) -> bool {
        // SAFETY: By the function's requirements.
        unsafe { self.next(sk, ptr::null_mut()) }.is_null()
    }

    /// The buffer behind `skb`, the first one for null; null at the end.
    ///
    /// # Safety
    ///
    /// `sk` is a valid, locked TCP socket, and `skb` null or in this queue of it.
    pub(super) unsafe fn next(
        self,
        sk: *mut bindings::sock,
        skb: *mut bindings::sk_buff,
    ) -> *mut bindings::sk_buff {
        // SAFETY: The queues change under the lock only. Lists are rings through their head; the
        // node of a tree is the start of its buffer (rb_to_skb()).
        unsafe {
            match self {
                Queue::Receive => next_of_list(&raw mut (*sk).sk_receive_queue, skb),
                Queue::Write => next_of_list(&raw mut (*sk).sk_write_queue, skb),
                Queue::Retransmit => {
                    next_of_tree(&raw const (*sk).__bindgen_anon_2.tcp_rtx_queue, skb)
                }
                Queue::OutOfOrder => next_of_tree(&raw const (*tcp_sk(sk)).out_of_order_queue, skb),
            }
        }
    }
}

/// # Safety
///
/// `list` is valid and does not change, and `skb` null or in it.
unsafe fn next_of_list(
    list: *mut bindings::sk_buff_head,
    skb: *mut bindings::sk_buff,
) -> *mut bindings::sk_buff {
    // SAFETY: By the function's requirements.
    unsafe {
        let next = if skb.is_null() {
            (*list).__bindgen_anon_1.__bindgen_anon_1.next
        } else {
            (*skb).__bindgen_anon_1.__bindgen_anon_1.next
        };
        if ptr::eq(next.cast::<bindings::sk_buff_head>(), list) {
            ptr::null_mut()
        } else {
            next
        }
    }
}

/// # Safety
///
/// `root` is a tree of socket buffers that does not change, and `skb` null or in it.
unsafe fn next_of_tree(
    root: *const bindings::rb_root,
    skb: *mut bindings::sk_buff,
) -> *mut bindings::sk_buff {
    const { assert!(offset_of!(bindings::sk_buff, __bindgen_anon_1) == 0) };
    // SAFETY: By the function's requirements.
    unsafe {
        if skb.is_null() {
            bindings::rb_first(root).cast()
        } else {
            bindings::rb_next(skb.cast::<bindings::rb_node>()).cast()
        }
    }
}

/// Where reading a queue has come to.
///
/// # Invariants
///
/// `skb` is null or in `queue` of the socket the cursor is used with, whose lock has been held since
/// it was set.
pub(super) struct Cursor {
    queue: Queue,
    skb: *mut bindings::sk_buff,
}

impl Cursor {
    /// At no place.
    pub(super) const fn new() -> Cursor {
        // INVARIANT: Null.
        Cursor {
            queue: Queue::Receive,
            skb: ptr::null_mut(),
        }
    }

    /// Copies the bytes of `part` from sequence number `seq` on.
    ///
    /// Going on where the last call ended is cheap, anything else is a search from the start of the
    /// queue. An error if the queue does not have what the sequence numbers say.
    ///
    /// # Safety
    ///
    /// `sk` is a valid TCP socket, always the same, and its lock has been held since the cursor was
    /// made.
    pub(super) unsafe fn copy(
        &mut self,
        sk: *mut bindings::sock,
        part: Part,
        seq: u32,
        to: &mut [u8],
    ) -> Result {
        let queue = Queue::of(part);
        let mut seq = seq;
        let mut rest = to;
        // SAFETY: By the type invariant the buffer is null or in that queue.
        let behind = |skb: *mut bindings::sk_buff| unsafe {
            SeqNum(seq).before(SeqNum((*tcp_skb_cb(skb)).seq))
        };
        if self.skb.is_null() || self.queue != queue || behind(self.skb) {
            // SAFETY: The socket is valid and locked.
            self.skb = unsafe { queue.next(sk, ptr::null_mut()) };
            self.queue = queue;
        }
        while !rest.is_empty() {
            if self.skb.is_null() {
                return Err(EIO);
            }
            // SAFETY: By the type invariant the buffer is in a queue of the locked socket.
            let (start, len) = unsafe { ((*tcp_skb_cb(self.skb)).seq, (*self.skb).len) };
            if SeqNum(seq).before(SeqNum(start)) {
                return Err(EIO);
            }
            let skip = seq.wrapping_sub(start);
            // The first buffer of a queue may begin with bytes that are done with, and after
            // retransmissions any with bytes that the one before had.
            let Some(count) = len.checked_sub(skip).filter(|&count| count != 0) else {
                // SAFETY: The socket is valid and locked, the buffer in this queue.
                self.skb = unsafe { queue.next(sk, self.skb) };
                continue;
            };
            let count = rest.len().min(count as usize);
            let (part, more) = rest.split_at_mut_checked(count).ok_or(EINVAL)?;
            // SAFETY: The buffer is valid, `skip + count` is not more than its length, and `part`
            // has `count` bytes. CAST: Both are less than the length of a buffer.
            to_result(unsafe {
                bindings::skb_copy_bits(
                    self.skb,
                    skip as i32,
                    part.as_mut_ptr().cast::<c_void>(),
                    count as i32,
                )
            })?;
            seq = seq.wrapping_add(count as u32);
            rest = more;
        }
        Ok(())
    }
}

/// What stands in the out-of-order queue, besides its ranges.
pub(super) struct OutOfOrder {
    /// The last number of the last range is a FIN.
    pub(super) fin: bool,
    /// There are more ranges than fit.
    pub(super) too_many: bool,
}

/// Appends the ranges of the out-of-order queue to `ranges`: buffers that follow each other, or
/// overlap, are one.
///
/// # Safety
///
/// `sk` is a valid, locked TCP socket.
pub(super) unsafe fn out_of_order(
    sk: *mut bindings::sock,
    ranges: &mut Ranges<MAX_OUT_OF_ORDER>,
) -> OutOfOrder {
    let mut found = OutOfOrder {
        fin: false,
        too_many: false,
    };
    let mut current: Option<Range> = None;
    let mut skb = ptr::null_mut();
    loop {
        // SAFETY: The socket is valid and locked, the buffer null or in the queue.
        skb = unsafe { Queue::OutOfOrder.next(sk, skb) };
        if skb.is_null() {
            break;
        }
        // SAFETY: The buffer is in the queue.
        let (start, end, flags) = unsafe {
            let cb = tcp_skb_cb(skb);
            ((*cb).seq, (*cb).end_seq, (*cb).tcp_flags)
        };
        match &mut current {
            Some(range) if SeqNum(start).before_eq(SeqNum(range.end)) => {
                if SeqNum(end).after(SeqNum(range.end)) {
                    range.end = end;
                    found.fin = false;
                }
            }
            range => {
                let full = range.replace(Range { start, end });
                found.too_many |= full.is_some_and(|full| ranges.push(full).is_none());
                found.fin = false;
            }
        }
        // Nothing comes behind a FIN: it is the end of what has been collected.
        found.fin |= flags & sock::TCPHDR_FIN != 0;
    }
    found.too_many |= current.is_some_and(|range| ranges.push(range).is_none());
    found
}

/// The SACK blocks that the next segment reports, as far as they are of what is in the queue.
///
/// # Safety
///
/// `sk` is a valid, locked TCP socket.
pub(super) unsafe fn sacks(
    sk: *mut bindings::sock,
    ranges: &Ranges<MAX_OUT_OF_ORDER>,
) -> Ranges<MAX_SACKS> {
    let tp = tcp_sk(sk);
    let mut sacks = Ranges::new();
    // SAFETY: The socket is valid and locked.
    let (count, blocks) = unsafe { ((*tp).rx_opt.num_sacks, (*tp).selective_acks) };
    for block in blocks.iter().take(usize::from(count)) {
        let sack = Range {
            start: block.start_seq,
            end: block.end_seq,
        };
        let known = SeqNum(sack.end).after(SeqNum(sack.start))
            && ranges.as_slice().iter().any(|range| range.contains(&sack));
        if known && sacks.push(sack).is_none() {
            break;
        }
    }
    sacks
}

/// Whether bytes in the send queue lie in memory that a program still owns (MSG_ZEROCOPY), or that
/// cannot be read at all (devmem).
///
/// # Safety
///
/// `sk` is a valid, locked TCP socket.
pub(super) unsafe fn sends_zero_copy(sk: *mut bindings::sock) -> bool {
    for queue in [Queue::Retransmit, Queue::Write] {
        let mut skb = ptr::null_mut();
        loop {
            // SAFETY: The socket is valid and locked, the buffer null or in the queue.
            unsafe {
                skb = queue.next(sk, skb);
                if skb.is_null() {
                    break;
                }
                if !bindings::skb_zcopy(skb).is_null() || !bindings::skb_frags_readable(skb) {
                    return true;
                }
            }
        }
    }
    false
}
