// SPDX-License-Identifier: GPL-2.0

//! Filling the queues of a child.

use core::{
    ptr,
    ptr::NonNull, //
};

use crate::{
    bindings,
    wire::{
        record::{
            ConnectionState,
            MIN_MSS, //
        },
        seq::SeqNum, //
    },
};

use super::{
    super::{
        refusal::Refusal,
        request::Segment,
        rx_data::RxData,
        sock,
        sock::{
            tcp_sk,
            tcp_skb_cb, //
        },
        tx_data::TxData, //
    },
    Child, //
};

impl Child {
    /// Puts the unread bytes into the receive queue.
    pub(in super::super) fn queue_unread(
        &self,
        data: &mut RxData,
        state: &ConnectionState,
    ) -> Result<(), Refusal> {
        let sk = self.as_raw();
        let tp = tcp_sk(sk);
        while let Some(skb) = data.pop() {
            self.charge_received(skb, state)?;
            let skb = skb.as_ptr();
            // SAFETY: The child is locked, the buffer is valid and its own now. As tcp_queue_rcv()
            // leaves it; read without the lock by poll(): WRITE_ONCE().
            unsafe {
                bindings::__skb_queue_tail(&raw mut (*sk).sk_receive_queue, skb);
                ptr::write_volatile(&raw mut (*tp).rcv_nxt, (*tcp_skb_cb(skb)).end_seq);
            }
        }
        // SAFETY: The child is locked.
        if unsafe { (*tp).rcv_nxt } != state.rcv_nxt.wrapping_sub(u32::from(state.fin)) {
            return Err(Refusal::InvalidState);
        }
        Ok(())
    }

    /// Puts what has been received beyond holes into the out-of-order queue, and goes on reporting
    /// it: the client need not keep what it has seen in SACK blocks.
    ///
    /// As tcp_data_queue_ofo() leaves it: a tree in the order of the sequence numbers, which no
    /// buffer shares with another, and each buffer charged to the socket.
    pub(in super::super) fn queue_out_of_order(
        &self,
        data: &mut RxData,
        state: &ConnectionState,
    ) -> Result<(), Refusal> {
        let tp = tcp_sk(self.as_raw());
        // Not `ooo_last_skb`: with an empty tree that is whatever the listener's is, which may have
        // been a connection itself, and tcp_disconnect() leaves it as it was.
        let mut last = ptr::null_mut();
        while let Some(skb) = data.pop() {
            self.charge_received(skb, state)?;
            let skb = skb.as_ptr();
            // SAFETY: The child is locked, the buffer is valid and its own now. The last one that
            // was put into the tree has the highest sequence number.
            unsafe {
                append(&raw mut (*tp).out_of_order_queue, last, skb);
                (*tp).ooo_last_skb = skb;
            }
            last = skb;
        }
        // SAFETY: The child is locked.
        unsafe {
            let mut count: u8 = 0;
            for (block, sack) in (*tp).selective_acks.iter_mut().zip(state.sacks.as_slice()) {
                block.start_seq = sack.start;
                block.end_seq = sack.end;
                count = count.saturating_add(1);
            }
            (*tp).rx_opt.num_sacks = count;
        }
        Ok(())
    }

    /// Charges a received buffer to the socket, or frees it.
    fn charge_received(
        &self,
        skb: NonNull<bindings::sk_buff>,
        state: &ConnectionState,
    ) -> Result<(), Refusal> {
        let sk = self.as_raw();
        let skb = skb.as_ptr();
        // SAFETY: The child is locked, the buffer is valid and ours.
        unsafe {
            // CAST: A buffer is small.
            let truesize = (*skb).truesize as i32;
            // sk_mem_charge() in skb_set_owner_r() wants the memory to be reserved before.
            if !bindings::sk_rmem_schedule(sk, skb, truesize) {
                sock::free_skb_list(skb);
                return Err(Refusal::NoMemory);
            }
            (*tcp_skb_cb(skb)).ack_seq = state.snd_una;
            bindings::skb_set_owner_r(skb, sk);
        }
        Ok(())
    }

    /// Has the client's FIN processed, which takes the child to CLOSE_WAIT.
    ///
    /// tcp_fin() does what no module could: the change of state with its counters and BPF programs.
    /// The FIN comes alone, behind the unread bytes. No packet leaves: the receive window has been
    /// set so that nothing but this one number is unacknowledged, which is worth a delayed
    /// acknowledgement only.
    pub(in super::super) fn finish(
        &self,
        fin: Segment,
        state: &ConnectionState,
    ) -> Result<(), Refusal> {
        let sk = self.as_raw();
        let tp = tcp_sk(sk);
        // SAFETY: The child is locked. tcp_v4_do_rcv(), which this is, frees the segment.
        unsafe {
            let edge = SeqNum(state.rcv_wup).add(state.rcv_wnd);
            (*tp).rcv_wup = (*tp).rcv_nxt;
            (*tp).rcv_wnd = u32::try_from(edge.offset_from(SeqNum((*tp).rcv_nxt))).unwrap_or(0);
            (*tp).rcv_mwnd_seq = state.rcv_mwnd_seq;
            let Some(backlog_rcv) = (*sk).sk_backlog_rcv else {
                return Err(Refusal::NoChild);
            };
            backlog_rcv(sk, fin.into_raw());
            if sock::state(sk) != bindings::TCP_CLOSE_WAIT || (*tp).rcv_nxt != state.rcv_nxt {
                return Err(Refusal::InvalidState);
            }
        }
        Ok(())
    }

    /// Puts the bytes for the client into the send queue: those that are sent already among the
    /// ones to be retransmitted, without sending anything.
    ///
    /// As tcp_sendmsg_locked() and tcp_event_new_data_sent() would leave them in repair mode: such
    /// a segment gives no sample of the round trip time (`TCPCB_REPAIRED`).
    pub(in super::super) fn queue_send(
        &self,
        data: &mut TxData,
        state: &ConnectionState,
    ) -> Result<(), Refusal> {
        let sk = self.as_raw();
        let tp = tcp_sk(sk);
        // SAFETY: No preconditions. CAST: The clock is not negative.
        let clock_ns = || unsafe { bindings::ktime_get() } as u64;
        // The segments have been on their way for a round trip by now. RACK (RFC 8985) takes a
        // segment for lost that was sent before one which has arrived; it ignores what arrives
        // sooner after its transmission than anything ever did.
        let rtt_ns = u64::from(state.srtt_us >> 3).saturating_mul(1000);
        let sent_ns = match state.send_len() {
            0 => 0,
            _ => clock_ns().saturating_sub(rtt_ns),
        };
        // SAFETY: The child is locked.
        let mss = unsafe { (*tp).mss_cache }.max(u32::from(MIN_MSS));

        let mut last = ptr::null_mut();
        while let Some(skb) = data.pop_sent() {
            self.charge_sent(skb)?;
            let skb = skb.as_ptr();
            // SAFETY: The child is locked, the buffer is valid and its own now; the last one that
            // was put into the tree has the highest sequence number. The anchor lies where a
            // buffer elsewhere has its destructor and route, of which this one has none.
            unsafe {
                let cb = tcp_skb_cb(skb);
                (*cb).sacked = bindings::tcp_skb_cb_sacked_flags_TCPCB_REPAIRED as u8;
                (*skb).__bindgen_anon_2.skb_mstamp_ns = sent_ns;
                // tcp_set_skb_tso_segs()
                let segments = (*skb).len.div_ceil(mss);
                let gso = &raw mut (*cb).__bindgen_anon_1.__bindgen_anon_1;
                // CAST: A buffer is not larger than 32 KiB, a segment not smaller than 88 bytes.
                (*gso).tcp_gso_segs = segments as u16;
                (*gso).tcp_gso_size = if segments > 1 { mss as u16 } else { 0 };
                (*tp).packets_out = (*tp).packets_out.saturating_add(segments);

                let anchor = &raw mut (*skb).__bindgen_anon_3.tcp_tsorted_anchor;
                bindings::list_add_tail(anchor, &raw mut (*tp).tsorted_sent_queue);
                append(&raw mut (*sk).__bindgen_anon_2.tcp_rtx_queue, last, skb);
                if last.is_null() {
                    (*tp).highest_sack = skb;
                    bindings::tcp_chrono_start(sk, bindings::tcp_chrono_TCP_CHRONO_BUSY);
                }
            }
            last = skb;
        }
        while let Some(skb) = data.pop_unsent() {
            self.charge_sent(skb)?;
            let skb = skb.as_ptr();
            // SAFETY: As above.
            unsafe {
                let anchor = &raw mut (*skb).__bindgen_anon_3.tcp_tsorted_anchor;
                bindings::INIT_LIST_HEAD(anchor);
                bindings::tcp_add_write_queue_tail(sk, skb);
            }
            last = skb;
        }
        // SAFETY: The child is locked; `last` is null or in one of its queues. (Written with
        // WRITE_ONCE() as readers look at these numbers without the lock.)
        unsafe {
            if !last.is_null() {
                let cb = tcp_skb_cb(last);
                (*cb).tcp_flags |= sock::TCPHDR_PSH;
                if (*cb).end_seq != state.write_seq {
                    return Err(Refusal::InvalidState);
                }
            }
            ptr::write_volatile(&raw mut (*tp).snd_nxt, state.snd_nxt);
            ptr::write_volatile(&raw mut (*tp).write_seq, state.write_seq);
            (*tp).pushed_seq = state.write_seq;
        }
        Ok(())
    }

    /// Charges a buffer of the send queue to the socket, or frees it: tcp_skb_entail().
    fn charge_sent(&self, skb: NonNull<bindings::sk_buff>) -> Result<(), Refusal> {
        let sk = self.as_raw();
        let skb = skb.as_ptr();
        // SAFETY: The child is locked, the buffer is valid and ours.
        unsafe {
            // CAST: A buffer is small.
            let truesize = (*skb).truesize as i32;
            if !bindings::sk_wmem_schedule(sk, truesize) {
                sock::free_skb_list(skb);
                return Err(Refusal::NoMemory);
            }
            bindings::sk_wmem_queued_add(sk, truesize);
            bindings::sk_mem_charge(sk, truesize);
        }
        Ok(())
    }
}

/// Appends a buffer to a tree of them, behind `last`, which is null in an empty one.
///
/// # Safety
///
/// The tree is valid, locked, and has socket buffers; `last` is its rightmost one. `skb` is valid
/// and in no list or tree.
unsafe fn append(
    root: *mut bindings::rb_root,
    last: *mut bindings::sk_buff,
    skb: *mut bindings::sk_buff,
) {
    // SAFETY: By the function's requirements; nothing is to the right of the rightmost node.
    unsafe {
        let node = &raw mut (*skb).__bindgen_anon_1.rbnode;
        let (parent, link) = if last.is_null() {
            (ptr::null_mut(), &raw mut (*root).rb_node)
        } else {
            let parent = &raw mut (*last).__bindgen_anon_1.rbnode;
            (parent, &raw mut (*parent).rb_right)
        };
        bindings::rb_link_node(node, parent, link);
        bindings::rb_insert_color(node, root);
    }
}
