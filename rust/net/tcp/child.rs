// SPDX-License-Identifier: GPL-2.0

//! The socket that a listener makes for a connection from elsewhere.

mod queues;

use core::ptr::NonNull;

use kernel::sync::rcu;

use crate::{
    bindings,
    wire::record::{
        ConnectionState,
        MIN_MSS, //
    },
};

use super::{
    options,
    refusal::Refusal,
    request::{
        Request,
        Segment, //
    },
    sock,
    sock::{
        inet_csk,
        tcp_sk,
        SockRef, //
    },
};

/// `TCP_TIMEOUT_INIT`: the retransmission timeout without a sample, in ms (RFC 6298).
const RTO_INIT_MS: u32 = 1000;

/// `TCP_ATO_MIN`: the delay of an acknowledgement to start with, in ms.
const ATO_MIN_MS: u32 = 40;

/// `MAX_TCP_REORDERING` is what `net.ipv4.tcp_max_reordering` starts with.
const REORDERING: core::ops::RangeInclusive<u32> = 3..=300;

/// Most segments in flight that are believed.
const CWND_MAX: u32 = 1 << 16;

/// A new child of a listener, which nobody has seen yet: it has its place in the hash table, but
/// every packet for it waits for its spin lock (`bh_lock_sock()`).
///
/// # Invariants
///
/// `sk` is a full TCP socket that has come from `syn_recv_sock` in this bottom-half section, its
/// spin lock is held, and the two references of sk_clone_lock() are: one is ours, the other belongs
/// to the socket's own life.
pub(super) struct Child {
    sk: NonNull<bindings::sock>,
}

/// What is left of a child that failed: to be destroyed in process context.
pub(super) struct Remains(SockRef);

impl Child {
    /// Has `listener` make a child for the request, in state SYN_RECV.
    ///
    /// # Safety
    ///
    /// `listener` is a valid TCP socket, and bottom halves are disabled until the child is
    /// published or abandoned.
    pub(super) unsafe fn new(
        listener: *mut bindings::sock,
        request: &Request,
        ack: &Segment,
        _rcu: &rcu::Guard,
    ) -> Option<Child> {
        let mut own_req: bindings::bool_ = Default::default();
        // SAFETY: The listener is valid, its `icsk_af_ops` are never null or changed while it
        // listens. tcp_v4_syn_recv_sock() (or tcp_v6_syn_recv_sock(), which hands IPv4 on) wants RCU
        // and disabled bottom halves. It takes over neither the request nor the segment. No `dst`:
        // it finds the route itself (inet_csk_route_child_sock()).
        let sk = unsafe {
            let ops = (*inet_csk(listener)).icsk_af_ops;
            let syn_recv_sock = (*ops).syn_recv_sock?;
            syn_recv_sock(
                listener,
                ack.as_raw(),
                request.as_raw(),
                core::ptr::null_mut(),
                core::ptr::null_mut(),
                &mut own_req,
                None,
            )
        };
        // Null also stands for a duplicate in the hash table: without a request to replace there
        // (`req_unhash`) the child has been destroyed already.
        // INVARIANT: A child comes locked, with two references.
        Some(Child {
            sk: NonNull::new(sk)?,
        })
    }

    fn as_raw(&self) -> *mut bindings::sock {
        self.sk.as_ptr()
    }

    /// Takes the child to ESTABLISHED by way of its own state machine.
    ///
    /// tcp_rcv_state_process() does what no module could: tcp_init_transfer() with the congestion
    /// control, the BPF programs, the buffer sizes. No packet leaves, as there is nothing to
    /// acknowledge and nothing to send.
    pub(super) fn establish(&self, ack: Segment) -> Result<(), Refusal> {
        let sk = self.as_raw();
        // SAFETY: The child is locked. tcp_v4_do_rcv(), which this is, frees the segment.
        unsafe {
            let Some(backlog_rcv) = (*sk).sk_backlog_rcv else {
                return Err(Refusal::NoChild);
            };
            backlog_rcv(sk, ack.into_raw());
            if sock::state(sk) != bindings::TCP_ESTABLISHED {
                // A BPF program may have closed it.
                return Err(Refusal::NoChild);
            }
        }
        Ok(())
    }

    /// Makes the receive buffer large enough for what has been promised to the client.
    ///
    /// A window must never shrink: what the client may have sent already would be dropped for want
    /// of memory, and sent again and again. To be called before [`Child::establish`], which takes
    /// the limits of the window from it.
    pub(super) fn size_rcvbuf(&self, need: i32) {
        let sk = self.as_raw();
        // SAFETY: The child is locked. (The write is WRITE_ONCE() as readers look at it without the
        // lock.)
        unsafe {
            if need > (*sk).sk_rcvbuf {
                core::ptr::write_volatile(&raw mut (*sk).sk_rcvbuf, need);
            }
        }
    }

    /// Makes the send buffer large enough for what is in the send queue, or the stack would not split
    /// its buffers (tcp_fragment() has a limit) for retransmission.
    pub(super) fn size_sndbuf(&self, need: usize) {
        let sk = self.as_raw();
        let need = i32::try_from(need).unwrap_or(i32::MAX);
        // SAFETY: The child is locked. (Read without it by the program's side: WRITE_ONCE().)
        unsafe {
            if need > (*sk).sk_sndbuf {
                core::ptr::write_volatile(&raw mut (*sk).sk_sndbuf, need);
            }
        }
    }

    /// Overwrites what the handshake path has guessed.
    ///
    /// After [`Child::establish`], which would reset cwnd, ssthresh and RTO (tcp_init_metrics(),
    /// tcp_init_congestion_control()), and before anyone can see the socket.
    pub(super) fn complete(&self, state: &ConnectionState) {
        let sk = self.as_raw();
        let tp = tcp_sk(sk);
        let icsk = inet_csk(sk);
        // SAFETY: No preconditions.
        let (now, seconds) = unsafe {
            (
                bindings::tcp_jiffies32(),
                bindings::ktime_get_seconds() as i32,
            )
        };
        // SAFETY: The child is locked, and nobody has seen it.
        unsafe {
            options::apply(sk, &state.options);

            // Receiving. The right edge of the window is where the client believes it is
            // (`rcv_wup + rcv_wnd`), and `rcv_mwnd_seq` the farthest that was ever offered:
            // tcp_sequence() drops what lies beyond.
            (*tp).rcv_wup = state.rcv_wup;
            (*tp).rcv_wnd = state.rcv_wnd;
            (*tp).rcv_mwnd_seq = state.rcv_mwnd_seq;
            let space = bindings::tcp_win_from_space(sk, (*sk).sk_rcvbuf);
            let space = u32::try_from(space).unwrap_or(0);
            let window = state.rcv_wnd.max((*tp).rcv_ssthresh);
            let clamp = (*tp)
                .window_clamp
                .max(state.window_clamp.min(space))
                .max(window);
            core::ptr::write_volatile(&raw mut (*tp).window_clamp, clamp);
            (*tp).rcv_ssthresh = state.rcv_ssthresh.max((*tp).rcv_ssthresh).min(clamp);
            let advmss = (*tp).advmss.max(MIN_MSS);
            // tcp_rcvbuf_grow() divides by it, and tcp_init_buffer_space() has made it the least of
            // three values, one being the window: it must not come to zero.
            (*tp).rcvq_space.space = (*tp).rcvq_space.space.max(i32::from(advmss));
            (*icsk).icsk_ack.rcv_mss = state.rcv_mss.clamp(MIN_MSS, advmss);
            (*icsk).icsk_ack.last_seg_size = (*icsk).icsk_ack.rcv_mss;
            (*icsk).icsk_ack.lrcvtime = now;
            (*tp).bytes_received = state.bytes_received;

            // Sending. `snd_wl1` must not be ahead of the client's next segment, or its window
            // would be ignored; the origin's is behind by construction.
            (*tp).snd_wl1 = state.snd_wl1;
            (*tp).snd_wnd = state.snd_wnd;
            (*tp).max_window = state.max_window;
            // tcp_ack() takes an ACK for stale that is older than all that was ever acknowledged,
            // and throws away the data with it.
            (*tp).bytes_acked = state.bytes_acked;
            // tcp_v4_syn_recv_sock() has taken the segment size from the route here, limited by
            // `mss_clamp` and `max_window`, through tcp_sync_mss(). Nothing to add.

            if state.tstamp_ok {
                // The stamp counts seconds since this machine booted.
                (*tp).rx_opt.ts_recent = state.ts_recent;
                let age = i32::try_from(state.ts_recent_age).unwrap_or(i32::MAX);
                (*tp).rx_opt.ts_recent_stamp = seconds.saturating_sub(age);
            }
            if state.ecn_ok && u32::from((*tp).ecn_flags) & sock::ECN_MODE_RFC3168 != 0 {
                // The echo of a congestion mark goes on until the client has answered it.
                (*tp).ecn_flags |= state.ecn_flags & sock::ECN_CARRIED;
            }

            // Round trip and congestion window are the path's, not the machine's.
            if state.srtt_us != 0 {
                (*tp).srtt_us = state.srtt_us;
                (*tp).mdev_us = state.mdev_us;
                (*tp).mdev_max_us = state.mdev_max_us;
                (*tp).rttvar_us = state.rttvar_us;
                (*tp).rtt_seq = state.snd_una;
                for sample in &mut (*tp).rtt_min.s {
                    sample.t = now;
                    sample.v = state.rtt_min_us;
                }
                // tcp_set_rto(), within the limits of this machine.
                let rto = bindings::__tcp_set_rto(tp);
                (*icsk).icsk_rto = rto.max((*icsk).icsk_rto_min).min((*icsk).icsk_rto_max);
            } else {
                // tcp_init_metrics() has made it three seconds, as if the handshake had been
                // retransmitted.
                (*icsk).icsk_rto = bindings::__msecs_to_jiffies(RTO_INIT_MS) as u32;
            }
            let cwnd = state.snd_cwnd.min((*tp).snd_cwnd_clamp).clamp(1, CWND_MAX);
            (*tp).snd_cwnd = cwnd;
            // Read without the lock by tcp_get_info().
            core::ptr::write_volatile(&raw mut (*tp).snd_ssthresh, state.snd_ssthresh.max(2));
            (*tp).snd_cwnd_stamp = now;
            (*tp).reordering = state
                .reordering
                .clamp(*REORDERING.start(), *REORDERING.end());

            // As tcp_update_pacing_rate() at slow start: twice the window per round trip. Without a
            // round trip time it came to nearly infinity above. A congestion control that has its
            // own rate (BBR) keeps it.
            if state.srtt_us != 0 && (*(*icsk).icsk_ca_ops).cong_control.is_none() {
                let rate = u64::from((*tp).mss_cache) * u64::from(cwnd) * (2 * 8 * 1_000_000)
                    / u64::from(state.srtt_us);
                let max = (*sk).sk_max_pacing_rate;
                core::ptr::write_volatile(
                    &raw mut (*sk).sk_pacing_rate,
                    max.min(rate as kernel::ffi::c_ulong),
                );
            }

            // Not zero, or the idle time since the machine has booted would count for keepalive,
            // probes and the restart of the window (tcp_cwnd_restart()).
            (*tp).lsndtime = now;
            (*tp).rcv_tstamp = now;

            self.arm(state);

            // With the window just set, or every packet takes the slow path.
            (*tp).pred_flags = 0;
            bindings::tcp_fast_path_check(sk);

            // An acknowledgement that the origin still owed; or one that tells of holes, for what
            // the origin has told of them may be lost, and the client would wait for a timeout. A
            // timer, not a segment: most often the application answers before, and the answer
            // carries it.
            let holes = !(*tp).out_of_order_queue.rb_node.is_null();
            if state.rcv_nxt != state.rcv_wup || holes {
                (*icsk).icsk_ack.pending |= ACK_SCHED;
                // CAST: A few ticks.
                let ato = bindings::__msecs_to_jiffies(ATO_MIN_MS) as u32;
                AckState::set_ato_raw(&raw mut (*icsk).icsk_ack, ato);
                bindings::inet_csk_reset_delack_timer(sk);
            } else {
                // Forget what Child::finish() has caused: the origin has acknowledged the FIN.
                (*icsk).icsk_ack.pending = 0;
            }
        }
    }

    /// Starts the timer for what is in the send queue.
    ///
    /// With SACK the tail is probed at the next tick (TLP, RFC 8985 section 7): whether anything was
    /// lost, and what, the client's answer tells within a round trip, and no timeout is counted.
    /// Without SACK the timer is that of a retransmission. Nothing in flight, but something to be
    /// sent: that may be for a closed window whose opening was lost, so the window is probed
    /// unless [`super::Injected`] finds it open.
    ///
    /// # Safety
    ///
    /// Round trip time and windows have been set.
    unsafe fn arm(&self, state: &ConnectionState) {
        let sk = self.as_raw();
        let tp = tcp_sk(sk);
        // SAFETY: The child is locked.
        unsafe {
            if (*tp).packets_out != 0 {
                // CAST: The number of ticks is as wide as the machine.
                let (what, when) = if state.sack_ok {
                    (bindings::ICSK_TIME_LOSS_PROBE, 1)
                } else {
                    (bindings::ICSK_TIME_RETRANS, (*inet_csk(sk)).icsk_rto)
                };
                bindings::tcp_reset_xmit_timer(sk, what as i32, when as usize);
            } else if !bindings::tcp_write_queue_empty(sk) {
                bindings::tcp_check_probe_timer(sk);
            }
        }
    }

    /// Puts the child on the accept queue, wakes the listener's program, and lets packets in.
    ///
    /// # Safety
    ///
    /// `listener` is the valid socket that made the child from `request`.
    pub(super) unsafe fn publish(
        self,
        listener: *mut bindings::sock,
        request: Request,
    ) -> Result<SockRef, (Child, Refusal)> {
        let sk = self.as_raw();
        let req = request.as_raw();
        // SAFETY: The listener is valid. This is inet_csk_reqsk_queue_add(): the lock protects the
        // queue and makes sure that no close() comes in between.
        unsafe {
            let queue = &raw mut (*inet_csk(listener)).icsk_accept_queue;
            bindings::spin_lock(&raw mut (*queue).rskq_lock);
            let refusal = if sock::state(listener) != bindings::TCP_LISTEN {
                Some(Refusal::ListenerGone)
            } else if bindings::sk_acceptq_is_full(listener) {
                Some(Refusal::AcceptQueueFull)
            } else {
                None
            };
            if let Some(refusal) = refusal {
                bindings::spin_unlock(&raw mut (*queue).rskq_lock);
                return Err((self, refusal));
            }
            // accept() drops this one reference with reqsk_put().
            (*req).__req_common.skc_refcnt.refs.counter = 1;
            (*req).sk = sk;
            (*req).dl_next = core::ptr::null_mut();
            if (*queue).rskq_accept_head.is_null() {
                // Read without the lock by reqsk_queue_empty().
                core::ptr::write_volatile(&raw mut (*queue).rskq_accept_head, req);
            } else {
                (*(*queue).rskq_accept_tail).dl_next = req;
            }
            (*queue).rskq_accept_tail = req;
            bindings::sk_acceptq_added(listener);
            bindings::spin_unlock(&raw mut (*queue).rskq_lock);
            // The queue has the request now.
            let _ = request.into_raw();

            if let Some(data_ready) = (*listener).sk_data_ready {
                data_ready(listener);
            }
            bindings::bh_unlock_sock(sk);
            // The reference that tcp_child_process() leaves to its caller.
            core::mem::forget(self);
            Ok(SockRef::from_raw(NonNull::new_unchecked(sk)))
        }
    }

    /// Gives the child up: no packet, no trace. Finish with [`Remains::destroy`].
    pub(super) fn abandon(self) -> Remains {
        let sk = self.as_raw();
        // SAFETY: The child is locked. As inet_child_forget(), but without the RST: in repair mode
        // tcp_disconnect() is silent. Packets that have waited for the lock find state CLOSE then,
        // and are discarded without an answer.
        unsafe {
            disconnect_silently(sk, bindings::O_NONBLOCK as i32);
            bindings::bh_unlock_sock(sk);
            core::mem::forget(self);
            Remains(SockRef::from_raw(NonNull::new_unchecked(sk)))
        }
    }
}

/// The delayed acknowledgement of `struct inet_connection_sock`.
type AckState = bindings::inet_connection_sock__bindgen_ty_2;

/// `ICSK_ACK_SCHED`: an acknowledgement is owed.
const ACK_SCHED: u8 = 1;

/// `tcp_disconnect()` without FIN or RST.
///
/// Only the bit of TCP_REPAIR is wanted: the socket option would change `sk_reuse`, too, and probe
/// the window when it is switched off.
///
/// # Safety
///
/// `sk` is a valid TCP socket whose lock, or whose spin lock while nobody owns the lock, is held.
pub(super) unsafe fn disconnect_silently(sk: *mut bindings::sock, flags: i32) {
    let tp = tcp_sk(sk);
    // SAFETY: The socket is valid and locked; its protocol is TCP, whose method this is.
    unsafe {
        bindings::tcp_sock::set_repair_raw(tp, 1);
        if let Some(disconnect) = (*(*sk).__sk_common.skc_prot).disconnect {
            disconnect(sk, flags);
        }
        bindings::tcp_sock::set_repair_raw(tp, 0);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Neither published nor abandoned: only a bug leads here. Unlock at least; the socket leaks.
        // SAFETY: By the type invariant the spin lock is held.
        unsafe { bindings::bh_unlock_sock(self.as_raw()) };
    }
}

impl Remains {
    /// Frees the socket. Process context, bottom halves enabled.
    pub(super) fn destroy(self) {
        let Remains(sk) = self;
        // SAFETY: The socket is in state CLOSE, in no table and no queue, and has never had a file.
        // tcp_close() orphans and destroys it, which drops the reference of the socket's own life;
        // ours goes with `sk`.
        unsafe { bindings::tcp_close(sk.as_raw(), 0) };
    }
}
