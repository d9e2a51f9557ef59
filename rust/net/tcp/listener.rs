// SPDX-License-Identifier: GPL-2.0

//! The target: a listener, and the connections that are put into its accept queue.

use kernel::sync::rcu;

use crate::{
    bindings,
    net::{
        ip::is_local_address,
        Net, //
    },
    wire::{
        addr::FourTuple,
        record::ConnectionState, //
    },
};

use super::{
    child::{
        disconnect_silently,
        Child, //
    },
    data::ConnectionData,
    refusal::Refusal,
    request::{
        Request,
        Segment,
        TCP_LEN, //
    },
    sock,
    sock::{
        inet_csk,
        tcp_sk,
        SockRef,
        Tuple, //
    },
};

/// A listening socket that can take over a connection.
///
/// # Invariants
///
/// The socket listened when it was found. (It may be closed at any time since.)
pub struct Listener {
    sk: SockRef,
    /// Whose connection it was found for.
    tuple: FourTuple,
    /// What it was found with, and what will complete the handshake.
    ack: Segment,
}

/// What the buffer of a FIN is accounted with at most: header, `struct skb_shared_info`, `sk_buff`.
const FIN_TRUESIZE: usize = 1024;

impl Listener {
    /// The listener that would get the client's SYN of this connection on interface `iif` (0: any).
    ///
    /// It is found as the stack finds it: BPF programs and SO_REUSEPORT have their say. The packet
    /// that they are shown has no SYN and no data. May sleep.
    ///
    /// # Errors
    ///
    /// Anything that would make [`Listener::inject`] fail now. A TIME_WAIT socket of the same tuple
    /// is no obstacle: the client has opened the connection anew.
    pub fn lookup(net: &Net, state: &ConnectionState, iif: u32) -> Result<Listener, Refusal> {
        let tuple = &state.tuple;
        let addrs = Tuple::new(tuple).ok_or(Refusal::InvalidState)?;
        let dif = i32::try_from(iif).map_err(|_| Refusal::NoListener)?;
        if !is_local_address(net, &tuple.vip()) {
            // The child could not send: its source address would be refused.
            return Err(Refusal::AddressNotLocal);
        }
        let segment = Segment::ack(state, &addrs, iif)?;
        let listener = {
            // The lookup wants RCU, and bottom halves disabled as on the receive path.
            let rcu = rcu::read_lock();
            let _bh = BottomHalves::disable();
            // SAFETY: The segment begins at its TCP header, as it does in tcp_v4_rcv().
            unsafe { find_listener(net, segment.as_raw(), &addrs, addrs.vip_port, dif, &rcu) }
        };
        // INVARIANT: It has just been found among the listeners.
        let listener = Listener {
            sk: listener.ok_or(Refusal::NoListener)?,
            tuple: *tuple,
            ack: segment,
        };
        listener.check_kind()?;
        if tuple_in_use(net, tuple, iif) {
            return Err(Refusal::TupleInUse);
        }
        Ok(listener)
    }

    /// Whether it still listens; in the next moment it may not.
    pub fn is_listening(&self) -> bool {
        // SAFETY: The socket is valid.
        unsafe { sock::state(self.sk.as_raw()) == bindings::TCP_LISTEN }
    }

    /// Whether children of this listener are plain TCP sockets, and there is room for one more.
    fn check_kind(&self) -> Result<(), Refusal> {
        let sk = self.sk.as_raw();
        let tp = tcp_sk(sk);
        // SAFETY: The listener is valid. What is read here without its lock is read so on the
        // receive path, too; a change in the next moment makes no difference.
        unsafe {
            if sock::state(sk) != bindings::TCP_LISTEN {
                return Err(Refusal::ListenerGone);
            }
            if (&raw const (*sk).__sk_common.skc_bound_dev_if).read_volatile() != 0 {
                return Err(Refusal::ListenerBound);
            }
            // Subflows come from subflow_syn_recv_sock(), which wants options of the handshake.
            if bindings::sk_is_mptcp(sk) {
                return Err(Refusal::ListenerMptcp);
            }
            // SMC replaces `icsk_af_ops`; a ULP wants to clone itself into the child.
            if !sock::children_are_tcp(sk)
                || bindings::tcp_syn_smc(tp)
                || !(*inet_csk(sk)).icsk_ulp_ops.is_null()
            {
                return Err(Refusal::ListenerUpperLayer);
            }
            if bindings::tcp_has_md5sig_info(tp) || bindings::tcp_has_ao_info(tp) {
                return Err(Refusal::ListenerAuthenticated);
            }
            if bindings::sk_acceptq_is_full(sk) {
                return Err(Refusal::AcceptQueueFull);
            }
        }
        Ok(())
    }

    /// Whether a connection with this state could be injected now. All that matters are the
    /// options, the windows and the number of bytes, of which there must not be more than
    /// [`ConnectionData::check`] takes.
    pub fn check(&self, state: &ConnectionState) -> Result<(), Refusal> {
        self.check_kind()?;
        let sk = self.sk.as_raw();
        // SAFETY: The listener is valid, and a socket of user space keeps its namespace. The
        // settings may change at any time, and are read as READ_ONCE() does.
        unsafe {
            let ipv4 = &raw const (*bindings::sock_net(sk)).ipv4;
            let on = |sysctl: *const u8| sysctl.read_volatile() != 0;
            if state.tstamp_ok && !on(&raw const (*ipv4).sysctl_tcp_timestamps) {
                return Err(Refusal::TimestampsOff);
            }
            if state.sack_ok && !on(&raw const (*ipv4).sysctl_tcp_sack) {
                return Err(Refusal::SackOff);
            }
            if state.wscale_ok && !on(&raw const (*ipv4).sysctl_tcp_window_scaling) {
                return Err(Refusal::WindowScalingOff);
            }
        }
        let received = state.unread_len().saturating_add(state.out_of_order_len());
        self.rcvbuf_for(state, received as usize)?;
        Ok(())
    }

    /// The receive buffer that the connection needs, given the memory of its received bytes.
    fn rcvbuf_for(&self, state: &ConnectionState, truesize: usize) -> Result<i32, Refusal> {
        let sk = self.sk.as_raw();
        // What the client may still send: up to the farthest right edge it has ever seen.
        let edge = state.rcv_wup.wrapping_add(state.rcv_wnd);
        let ahead = |right: u32| i32::max(right.wrapping_sub(state.rcv_nxt) as i32, 0) as u64;
        let window = ahead(edge).max(ahead(state.rcv_mwnd_seq));
        // SAFETY: The listener is valid; a child starts with this ratio (of 256).
        let (ratio, rcvbuf, limit) = unsafe {
            let rmem = &raw const (*bindings::sock_net(sk)).ipv4.sysctl_tcp_rmem[2];
            (
                u64::from((*tcp_sk(sk)).scaling_ratio).max(1),
                (&raw const (*sk).sk_rcvbuf).read_volatile(),
                rmem.read_volatile(),
            )
        };
        // tcp_space_from_win(); not the packet path, so a division is fine.
        let need = (window << bindings::TCP_RMEM_TO_WIN_SCALE) / ratio + 1 + truesize as u64;
        let need = i32::try_from(need).map_err(|_| Refusal::ReceiveBuffer)?;
        // Twice the sysctl, as a child starts with the ratio of one half: the origin may have
        // measured a better one (tcp_measure_rcv_mss()), and promised more within the same limit.
        if need > rcvbuf.max(limit.saturating_mul(2)) {
            return Err(Refusal::ReceiveBuffer);
        }
        Ok(need)
    }

    /// Puts the connection with its bytes into the accept queue, so that the program's next
    /// accept() returns it.
    ///
    /// `iif` is the interface that its packets arrive on, `now` the time in nanoseconds of
    /// CLOCK_MONOTONIC, or a moment ago. [`Listener::check`] is to be asked before.
    /// After an error nothing is left: no socket, no request, and no packet has been sent; `data` is
    /// of no more use. Once the connection is there, it sends what its windows allow, and finds out
    /// what has been lost of what was in flight. May sleep.
    pub fn inject(
        mut self,
        state: &ConnectionState,
        data: &mut ConnectionData,
        iif: u32,
        now: u64,
    ) -> Result<Injected, Refusal> {
        state.validate().map_err(|_| Refusal::InvalidState)?;
        if state.data_len() != data.len() {
            return Err(Refusal::InvalidState);
        }
        data.finish(state).map_err(|_| Refusal::NoMemory)?;
        if state.tuple != self.tuple {
            return Err(Refusal::InvalidState);
        }
        let tuple = Tuple::new(&state.tuple).ok_or(Refusal::InvalidState)?;
        self.check_kind()?;
        let rcvbuf = self.rcvbuf_for(state, data.rx_truesize().saturating_add(FIN_TRUESIZE))?;
        let sndbuf = data.send.truesize();

        let listener = self.sk.as_raw();
        // SAFETY: The listener is valid.
        let request = unsafe { Request::new(listener, state, &tuple, now) }?;
        self.ack.renew_ack(state, iif);
        let fin = match state.fin {
            true => Some(Segment::fin(state, &tuple, iif)?),
            false => None,
        };

        let result = {
            let rcu = rcu::read_lock();
            let _bh = BottomHalves::disable();
            // SAFETY: The listener, request and segment are valid.
            let denied = unsafe {
                let ack = self.ack.as_raw();
                bindings::security_inet_conn_request(listener, ack, request.as_raw())
            };
            if denied != 0 {
                return Err(Refusal::SecurityPolicy);
            }
            // SAFETY: The listener is valid and keeps its namespace.
            let net = unsafe { Net::from_raw(bindings::sock_net(listener)) };
            if in_use(net, &tuple, iif, true, &rcu) {
                return Err(Refusal::TupleInUse);
            }
            // SAFETY: The listener is valid; bottom halves are disabled to the end of the block.
            let Some(child) = (unsafe { Child::new(listener, &request, &self.ack, &rcu) }) else {
                return Err(self.why_no_child(net, &tuple, iif, &rcu));
            };
            child.size_rcvbuf(rcvbuf);
            let done = child
                .establish(self.ack)
                .and_then(|()| child.queue_unread(&mut data.unread, state))
                .and_then(|()| fin.map_or(Ok(()), |fin| child.finish(fin, state)))
                .and_then(|()| child.queue_out_of_order(&mut data.out_of_order, state))
                .and_then(|()| child.queue_send(&mut data.send, state));
            match done {
                Ok(()) => {
                    child.size_sndbuf(sndbuf);
                    child.complete(state);
                    // SAFETY: The child is one of this listener, made from this request.
                    unsafe { child.publish(listener, request) }
                }
                Err(refusal) => Err((child, refusal)),
            }
            .map_err(|(child, refusal)| (child.abandon(), refusal))
        };
        match result {
            Ok(sk) => {
                let injected = Injected { sk };
                if state.snd_nxt != state.write_seq {
                    injected.push();
                }
                Ok(injected)
            }
            Err((remains, refusal)) => {
                remains.destroy();
                Err(refusal)
            }
        }
    }

    /// tcp_v4_syn_recv_sock() and tcp_v6_syn_recv_sock() do not say; this is the most likely reason.
    fn why_no_child(&self, net: &Net, tuple: &Tuple, iif: u32, guard: &rcu::Guard) -> Refusal {
        match self.check_kind() {
            Err(refusal) => refusal,
            Ok(()) if in_use(net, tuple, iif, false, guard) => Refusal::TupleInUse,
            Ok(()) => Refusal::NoChild,
        }
    }
}

/// The listener on `port` for packets of the connection. `segment` is what BPF programs are shown to
/// choose by; null for the hash of the addresses.
///
/// # Safety
///
/// `segment` is null, or a valid packet that begins at its TCP header, of [`TCP_LEN`] bytes. Bottom
/// halves are disabled.
pub(super) unsafe fn find_listener(
    net: &Net,
    segment: *mut bindings::sk_buff,
    tuple: &Tuple,
    port: u16,
    dif: i32,
    guard: &rcu::Guard,
) -> Option<SockRef> {
    // SAFETY: By the function's requirements.
    let sk = unsafe { tuple.listener(net, segment, TCP_LEN as i32, port, dif, guard) }?;
    // SAFETY: RCU keeps the memory of a listener (SOCK_RCU_FREE). Its reference count may have come
    // to zero. If not, the reference is ours, and listeners are full sockets.
    unsafe {
        bindings::sk_hold_not_zero(sk.as_ptr()).then(|| SockRef::from_raw(sk)) //
    }
}

/// Whether a socket or an unfinished handshake has this tuple, as packets from `iif` find it.
///
/// TIME_WAIT does not count.
pub fn tuple_in_use(net: &Net, tuple: &FourTuple, iif: u32) -> bool {
    let Some(tuple) = Tuple::new(tuple) else {
        return false;
    };
    let rcu = rcu::read_lock();
    let _bh = BottomHalves::disable();
    in_use(net, &tuple, iif, false, &rcu)
}

/// As [`tuple_in_use`], with bottom halves disabled. With `evict` a TIME_WAIT socket goes at once,
/// as a SYN would have it (`TCP_TW_SYN` in tcp_v4_rcv()).
fn in_use(net: &Net, tuple: &Tuple, iif: u32, evict: bool, guard: &rcu::Guard) -> bool {
    let dif = i32::try_from(iif).unwrap_or(0);
    let Some(sk) = tuple.established(net, dif, guard) else {
        return false;
    };
    let sk = sk.as_ptr();
    // SAFETY: It is a socket of any sort, with a reference that is ours.
    unsafe {
        if sock::state(sk) != bindings::TCP_TIME_WAIT {
            bindings::sock_gen_put(sk);
            return true;
        }
        if evict {
            // Drops the reference as well.
            bindings::inet_twsk_deschedule_put(sk.cast());
        } else {
            bindings::sock_gen_put(sk);
        }
        false
    }
}

/// A connection that was put into an accept queue here.
///
/// Dropping it changes nothing for the connection.
///
/// It keeps the memory of the socket and its network namespace, even when program and connection
/// are long gone: drop it soon after [`Injected::is_closed`] says so.
pub struct Injected {
    sk: SockRef,
}

impl Injected {
    /// Whether the socket is closed for good. Any context.
    ///
    /// True in TIME_WAIT, too: a smaller socket has taken its place then (tcp_time_wait()).
    pub fn is_closed(&self) -> bool {
        // SAFETY: The socket is valid.
        unsafe { sock::state(self.sk.as_raw()) == bindings::TCP_CLOSE }
    }

    /// Sends what has not been sent yet, as far as the windows allow. May sleep.
    ///
    /// Nothing that does so is exported. But release_sock() makes up for what a full queue of the
    /// device, or an owner of the lock, has kept a socket from doing (tcp_release_cb()), and that
    /// is this very thing.
    fn push(&self) {
        let sk = self.sk.as_raw();
        // SAFETY: The socket is valid; this is process context, and the lock is not held here. The
        // bit comes with a reference, which tcp_release_cb() drops; it looks at the state itself.
        unsafe {
            bindings::lock_sock_nested(sk, 0);
            if !bindings::tcp_write_queue_empty(sk)
                && !bindings::sk_tsq_test_and_set(sk, bindings::tsq_enum_TCP_TSQ_DEFERRED)
            {
                bindings::sock_hold(sk);
            }
            bindings::release_sock(sk);
        }
    }

    /// Ends the connection without a packet. May sleep.
    ///
    /// Whether the program has accepted it or not: it finds ECONNABORTED. (In the accept queue it
    /// stays, as a connection does that the client resets before it is accepted.)
    pub fn abort_silently(self) {
        let sk = self.sk.as_raw();
        // SAFETY: The socket is valid; this is process context, and the lock is not held here.
        unsafe {
            bindings::lock_sock_nested(sk, 0);
            if sock::state(sk) != bindings::TCP_CLOSE {
                disconnect_silently(sk, 0);
            }
            bindings::release_sock(sk);
        }
    }

    /// Ends the connection with one RST to the client. May sleep.
    pub fn reset(self) {
        // SAFETY: The socket is valid, this is process context. An error says that it is closed.
        unsafe {
            bindings::tcp_abort(self.sk.as_raw(), bindings::ECONNABORTED as i32);
        }
    }
}

/// Bottom halves are disabled on this CPU while it lives.
pub(super) struct BottomHalves(kernel::types::NotThreadSafe);

impl BottomHalves {
    pub(super) fn disable() -> BottomHalves {
        // SAFETY: No preconditions; enabled again in drop().
        unsafe { bindings::local_bh_disable() };
        BottomHalves(kernel::types::NotThreadSafe)
    }
}

impl Drop for BottomHalves {
    fn drop(&mut self) {
        // SAFETY: disable() has disabled them in this thread.
        unsafe { bindings::local_bh_enable() };
    }
}
