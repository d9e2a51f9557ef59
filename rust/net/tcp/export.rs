// SPDX-License-Identifier: GPL-2.0

//! The origin: freezing, reading and closing a connection.

use core::{
    marker::PhantomData,
    ptr,
    ptr::NonNull, //
};

use kernel::{
    prelude::*,
    types::NotThreadSafe, //
};

use crate::{
    bindings,
    net::{
        netfilter::Tracked,
        socket::UserSocket,
        Net, //
    },
    wire::{
        addr::FourTuple,
        record::{
            ConnectionState,
            Ranges,
            MAX_MSS,
            MIN_MSS, //
        },
    },
};

use super::{
    child::disconnect_silently,
    data::ConnectionData,
    options, queue,
    queue::Cursor,
    reads::SocketId,
    refusal::Refusal,
    sock,
    sock::{
        inet_csk,
        tcp_sk,
        SockRef, //
    },
};

/// For lockdep: a thread that has frozen a connection goes on using other sockets, whose locks are
/// of the same class. (MPTCP and SMC nest their sockets in subclass 1.)
const FREEZE_SUBCLASS: i32 = 2;

/// How often [`TcpSocket::freeze`] lets the stack empty the backlog before it takes it as it is.
const DRAINS: usize = 8;

/// What keeps the `struct sock` of a [`TcpSocket`].
enum Keep {
    /// The file of a program.
    File { _socket: UserSocket },
    /// A reference of our own.
    Sock { _sk: SockRef },
}

/// A connection that belongs to a program in user space.
///
/// The program may close its descriptor meanwhile; the socket stays until this is dropped.
///
/// # Invariants
///
/// `sk` is a full TCP socket, which stays for as long as `_keep` does.
pub struct TcpSocket {
    sk: NonNull<bindings::sock>,
    _keep: Keep,
}

// SAFETY: What `Keep` holds is `Send`, and keeps `sk`. The socket lock works in every thread.
unsafe impl Send for TcpSocket {}

// SAFETY: Whatever is done through a shared reference happens under the socket lock.
unsafe impl Sync for TcpSocket {}

impl TcpSocket {
    /// The socket behind the file descriptor `fd` of the calling process.
    ///
    /// Only meaningful in the context of that process. `net` is the namespace of the request: its
    /// privilege does not reach to sockets of another one.
    pub fn from_fd(net: &Net, fd: u32) -> Result<TcpSocket, Refusal> {
        let socket = UserSocket::from_fd(fd).map_err(|_| Refusal::NotSocket)?;
        // SAFETY: The socket is valid for as long as `socket` is.
        let sk = unsafe { (*socket.as_raw()).sk };
        let sk = NonNull::new(sk).ok_or(Refusal::NotSocket)?;
        // SAFETY: The pointer has just been read from the socket, whose file is held.
        unsafe { check_kind(sk.as_ptr(), net) }?;
        // INVARIANT: check_kind() says that it is TCP. A descriptor leads to no request or
        // TIME_WAIT socket.
        Ok(TcpSocket {
            sk,
            _keep: Keep::File { _socket: socket },
        })
    }

    /// The connection of a full TCP socket of namespace `net`.
    pub(super) fn from_sock(sk: SockRef, net: &Net) -> Result<TcpSocket, Refusal> {
        // SAFETY: The socket is valid as long as its reference.
        unsafe { check_kind(sk.as_raw(), net) }?;
        // INVARIANT: The reference goes into the result, and the pointer is not null.
        Ok(TcpSocket {
            sk: NonNull::new(sk.as_raw()).ok_or(Refusal::NotSocket)?,
            _keep: Keep::Sock { _sk: sk },
        })
    }

    /// The socket, valid for as long as `self` lives.
    pub(super) fn as_raw(&self) -> *mut bindings::sock {
        self.sk.as_ptr()
    }

    /// The connection's addresses and ports.
    pub fn tuple(&self) -> FourTuple {
        // SAFETY: By the type invariant.
        unsafe { sock::tuple(self.sk.as_ptr()) }
    }

    /// Whether the connection could not be moved now, and why.
    ///
    /// May sleep. The answer may be another one a moment later; [`TcpSocket::freeze`] asks again.
    pub fn refusal(&self) -> Option<Refusal> {
        self.lock().check().err()
    }

    /// Freezes the connection: until the result is dropped or closed, no byte of it is taken,
    /// acknowledged or sent.
    ///
    /// The socket lock is the freeze. Packets queue on the socket's backlog in order
    /// (`tcp_add_backlog()`), timers are deferred (`tcp_release_cb()`), system calls block. Unlike
    /// TCP_REPAIR, which goes on acknowledging what arrives after the dump.
    ///
    /// What is in the backlog already is processed first, so that it is part of the state: bytes
    /// left there would be lost with the socket, and cost the client a retransmission timeout.
    /// Make sure that no more arrive: plumb the route to the target before, and wait for a grace
    /// period. May sleep.
    pub fn freeze(&self) -> Result<Frozen<'_>, Refusal> {
        let mut frozen = self.lock();
        for _ in 0..DRAINS {
            if !frozen.has_backlog() {
                break;
            }
            drop(frozen);
            frozen = self.lock();
        }
        frozen.check()?;
        Ok(frozen)
    }

    fn lock(&self) -> Frozen<'_> {
        // SAFETY: The socket is valid by the type invariant, and this is process context. The lock
        // is not held by this thread: `Frozen` stays in the thread that made it, and none of the
        // functions that hold one call this.
        unsafe { bindings::lock_sock_nested(self.sk.as_ptr(), FREEZE_SUBCLASS) };
        // INVARIANT: The lock has just been taken.
        Frozen {
            sk: self.sk.as_ptr(),
            // SAFETY: No preconditions.
            since: unsafe { bindings::ktime_get() },
            cursor: Cursor::new(),
            _socket: PhantomData,
            _not_send: NotThreadSafe,
        }
    }
}

/// What can be told without the lock, because it never changes.
///
/// # Safety
///
/// `sk` is a valid full socket of any protocol.
unsafe fn check_kind(sk: *mut bindings::sock, net: &Net) -> Result<(), Refusal> {
    // SAFETY: The socket is valid. These fields are set at its creation. (`sk_family` may change
    // from AF_INET6 to AF_INET by IPV6_ADDRFORM; both are right.)
    let (kind, protocol, family, kernel, own) = unsafe {
        (
            u32::from((*sk).sk_type),
            u32::from((*sk).sk_protocol),
            u32::from((*sk).__sk_common.skc_family),
            bindings::sock::sk_kern_sock_raw(sk) != 0,
            bindings::sock_net(sk) == net.as_raw(),
        )
    };
    if protocol == bindings::IPPROTO_MPTCP {
        return Err(Refusal::Mptcp);
    }
    if family == bindings::AF_SMC || protocol == bindings::IPPROTO_SMC {
        return Err(Refusal::Smc);
    }
    if kind != bindings::sock_type_SOCK_STREAM
        || protocol != bindings::IPPROTO_TCP
        || !matches!(family, bindings::AF_INET | bindings::AF_INET6)
    {
        return Err(Refusal::NotTcp);
    }
    if !own {
        return Err(Refusal::OtherNamespace);
    }
    // SAFETY: The socket is one of TCP, and a full one.
    if unsafe { bindings::tcp_syn_smc(tcp_sk(sk)) } {
        return Err(Refusal::Smc);
    }
    if kernel {
        return Err(Refusal::KernelSocket);
    }
    Ok(())
}

/// A connection whose socket lock is held.
///
/// Dropping it releases the lock, and the connection goes on as if nothing had happened: packets
/// that have queued are processed, timers that have expired fire.
///
/// System calls on the socket block meanwhile, and not interruptibly: hold it for milliseconds,
/// seconds at most.
///
/// # Invariants
///
/// The lock of the valid TCP socket `sk` is held by this thread, and has been since `cursor` was
/// made, which is used with this socket only.
pub struct Frozen<'a> {
    sk: *mut bindings::sock,
    since: bindings::ktime_t,
    cursor: Cursor,
    _socket: PhantomData<&'a TcpSocket>,
    // Lockdep wants the thread that took the lock to release it.
    _not_send: NotThreadSafe,
}

/// What has become of a connection that was closed here.
#[derive(Clone, Copy, Debug)]
pub struct Closed {
    /// Packets that arrived while the connection was frozen and were thrown away with it. The
    /// client retransmits their bytes.
    pub backlog_dropped: u32,
    /// Nanoseconds from the freeze to the end of the socket.
    pub frozen_ns: u64,
}

impl Frozen<'_> {
    /// Whether packets wait for the lock to be released.
    fn has_backlog(&self) -> bool {
        // SAFETY: The socket is valid. Other CPUs write the field under a spin lock which is not
        // held here; a volatile read is READ_ONCE(), and the answer is a hint only.
        unsafe { !ptr::read_volatile(&raw const (*self.sk).sk_backlog.tail).is_null() }
    }

    /// Whether the connection can be moved as it is now.
    fn check(&self) -> Result<(), Refusal> {
        let sk = self.sk;
        let tp = tcp_sk(sk);
        // SAFETY: The socket is valid, and its lock is held by the type invariant.
        unsafe {
            if !sock::methods_are_tcp(sk) {
                // A socket in a sockmap has `tcp_bpf_prots`, one with kernel TLS `tls_prots`.
                return Err(if (*inet_csk(sk)).icsk_ulp_ops.is_null() {
                    Refusal::Redirected
                } else {
                    Refusal::UpperLayer
                });
            }
            let shutdown = match sock::state(sk) {
                bindings::TCP_ESTABLISHED => 0,
                // tcp_fin() has closed the direction of the client.
                bindings::TCP_CLOSE_WAIT => bindings::RCV_SHUTDOWN,
                bindings::TCP_LISTEN => return Err(Refusal::Listening),
                bindings::TCP_FIN_WAIT1
                | bindings::TCP_FIN_WAIT2
                | bindings::TCP_CLOSING
                | bindings::TCP_LAST_ACK => return Err(Refusal::Closing),
                // accept() returns it before its handshake is complete.
                bindings::TCP_SYN_RECV if !(*tp).fastopen_rsk.is_null() => {
                    return Err(Refusal::FastOpen);
                }
                _ => return Err(Refusal::NotEstablished),
            };
            if !sock::is_ipv4(sk) {
                let tuple = sock::tuple(sk);
                // Multicast addresses have no connections.
                if !tuple.client().is_unicast() || !tuple.vip().is_unicast() {
                    return Err(Refusal::LinkLocal);
                }
                let np = sock::ipv6(sk);
                // Only compared; changes under the lock, which is held.
                if np.is_null() || !(&raw const (*np).opt).read_volatile().is_null() {
                    return Err(Refusal::ExtensionHeaders);
                }
            }
            // Another connection with these addresses may be bound to another device, and a route of
            // the forwarder does not tell them apart.
            if (*sk).__sk_common.skc_bound_dev_if != 0 {
                return Err(Refusal::BoundToDevice);
            }
            if bindings::sk_is_mptcp(sk) {
                return Err(Refusal::Mptcp);
            }
            // PSP encrypts below TCP, with keys of the device.
            if !(*inet_csk(sk)).icsk_ulp_ops.is_null() || bindings::sk_has_psp(sk) {
                return Err(Refusal::UpperLayer);
            }
            if bindings::tcp_has_md5sig_info(tp) || bindings::tcp_has_ao_info(tp) {
                return Err(Refusal::Authenticated);
            }
            if bindings::tcp_ecn_mode_accecn(tp) {
                return Err(Refusal::AccurateEcn);
            }
            if bindings::tcp_sock::repair_raw(tp) != 0 {
                return Err(Refusal::Repair);
            }
            if !(*tp).fastopen_rsk.is_null() || !(*tp).fastopen_req.is_null() {
                return Err(Refusal::FastOpen);
            }
            if u32::from((*sk).sk_shutdown) != shutdown {
                return Err(Refusal::Shutdown);
            }
            if (*sk).sk_err != 0 {
                return Err(Refusal::SocketError);
            }
            // `tcp_urg_mode()`: `snd_up` is ahead of `snd_una`.
            if (*tp).urg_data != 0 || (*tp).snd_up != (*tp).snd_una {
                return Err(Refusal::UrgentData);
            }
            if queue::sends_zero_copy(sk) {
                return Err(Refusal::SendZeroCopy);
            }
            if (*tp).rx_opt.mss_clamp < MIN_MSS {
                return Err(Refusal::SegmentSize);
            }
            // Buffers of devmem that user space has not given back.
            if !(*sk).sk_user_frags.xa_head.is_null() {
                return Err(Refusal::ZeroCopy);
            }
        }
        // SAFETY: The socket is valid and locked.
        unsafe {
            let mut out_of_order = 0;
            if !queue::Queue::OutOfOrder.is_empty(sk) {
                let mut ranges = Ranges::new();
                let found = queue::out_of_order(sk, &mut ranges);
                if found.too_many {
                    return Err(Refusal::OutOfOrder);
                }
                out_of_order = ranges.sum().saturating_sub(u32::from(found.fin));
            }
            let fin = sock::state(sk) == bindings::TCP_CLOSE_WAIT;
            let unread = (*tp).rcv_nxt.wrapping_sub((*tp).copied_seq);
            let unread = unread.saturating_sub(u32::from(fin));
            let send = (*tp).write_seq.wrapping_sub((*tp).snd_una);
            ConnectionData::check_lens(unread, send, out_of_order)?;
        }
        if Tracked::is_possible() {
            self.check_translation()?;
        }
        Ok(())
    }

    /// Whether the client sends to (or from) an address that the packets on this machine do not show: no
    /// host could take them, and its answers would not be recognised.
    #[inline(never)]
    fn check_translation(&self) -> Result<(), Refusal> {
        let sk = self.sk;
        // SAFETY: The socket is valid, connected as was checked before, and of user space by
        // check_kind(), which keeps its namespace.
        let (tuple, net) = unsafe { (sock::tuple(sk), Net::from_raw(bindings::sock_net(sk))) };
        // The lock may be slept under.
        let tracked = Tracked::find(net, &tuple, GFP_KERNEL).map_err(|_| Refusal::NoMemory)?;
        if tracked.is_some_and(|entry| entry.is_translated()) {
            return Err(Refusal::Translated);
        }
        Ok(())
    }

    /// Which socket it is.
    pub fn socket(&self) -> SocketId {
        SocketId::of(self.sk)
    }

    /// Copies the bytes that go along with `state`, which is that of [`Frozen::state`] since the
    /// freeze, from `offset` on.
    ///
    /// Going on where the last call ended is cheap, anything else is a search from the start.
    ///
    /// # Errors
    ///
    /// `EINVAL` beyond their end; `EIO` if the queues do not have what the sequence numbers say.
    pub fn copy_data(&mut self, state: &ConnectionState, offset: u32, to: &mut [u8]) -> Result {
        let mut offset = offset;
        let mut rest = to;
        while !rest.is_empty() {
            let run = state.run_at(offset).ok_or(EINVAL)?;
            let count = rest.len().min(run.len as usize);
            let (part, more) = rest.split_at_mut_checked(count).ok_or(EINVAL)?;
            // SAFETY: By the type invariant the socket is valid and locked since the cursor was
            // made for it.
            unsafe { self.cursor.copy(self.sk, run.part, run.seq, part) }?;
            // CAST: Not more than `run.len`.
            offset = offset.saturating_add(count as u32);
            rest = more;
        }
        Ok(())
    }

    /// Everything about the connection except for its bytes.
    pub fn state(&self) -> ConnectionState {
        *self.state_into(&mut None)
    }

    /// [`Frozen::state`], put where it is to stay: it is large.
    pub fn state_into<'a>(&self, room: &'a mut Option<ConnectionState>) -> &'a mut ConnectionState {
        let sk = self.sk;
        let tp = tcp_sk(sk);
        // SAFETY: No preconditions.
        let (clock_ns, seconds) = unsafe { (bindings::ktime_get(), bindings::ktime_get_seconds()) };
        // SAFETY: The socket is valid and locked.
        unsafe {
            let opt = &raw const (*tp).rx_opt;
            type Opt = bindings::tcp_options_received;
            let wscale_ok = Opt::wscale_ok_raw(opt) != 0;
            let tstamp_ok = Opt::tstamp_ok_raw(opt) != 0;
            let usec_ts = bindings::tcp_sock::tcp_usec_ts_raw(tp) != 0;
            // TSval of a segment sent now: `tcp_time_stamp_ts() + tsoffset`. From the clock, not
            // from the `tcp_mstamp` of the last segment: it must never be less than what was sent.
            // CAST: The clock is never negative.
            let tsval = bindings::tcp_ns_to_ts(usec_ts, clock_ns as u64);
            // `ts_recent_stamp` counts the seconds since this machine has booted, so only the age
            // means anything elsewhere.
            // CAST: The kernel keeps the seconds in 32 bits here.
            let ts_recent_age = (seconds as i32).wrapping_sub((*opt).ts_recent_stamp).max(0) as u32;
            let fin = sock::state(sk) == bindings::TCP_CLOSE_WAIT;
            // The next program has not seen the FIN, even if the one here has.
            let unread = (*tp).rcv_nxt.wrapping_sub((*tp).copied_seq);
            let copied_seq = (*tp).rcv_nxt.wrapping_sub(unread.max(u32::from(fin)));
            let state = room.insert(ConnectionState {
                tuple: sock::tuple(sk),
                snd_una: (*tp).snd_una,
                snd_nxt: (*tp).snd_nxt,
                write_seq: (*tp).write_seq,
                rcv_nxt: (*tp).rcv_nxt,
                copied_seq,
                fin,
                out_of_order: Ranges::new(),
                out_of_order_fin: false,
                sacks: Ranges::new(),
                rcv_wup: (*tp).rcv_wup,
                rcv_wnd: (*tp).rcv_wnd,
                rcv_mwnd_seq: (*tp).rcv_mwnd_seq,
                snd_wl1: (*tp).snd_wl1,
                snd_wnd: (*tp).snd_wnd,
                max_window: (*tp).max_window,
                window_clamp: (*tp).window_clamp,
                rcv_ssthresh: (*tp).rcv_ssthresh,
                wscale_ok,
                // CAST: Four bits.
                snd_wscale: Opt::snd_wscale_raw(opt) as u8,
                rcv_wscale: Opt::rcv_wscale_raw(opt) as u8,
                sack_ok: Opt::sack_ok_raw(opt) != 0,
                tstamp_ok,
                usec_ts,
                ecn_ok: u32::from((*tp).ecn_flags) & sock::ECN_MODE_RFC3168 != 0,
                ecn_flags: (*tp).ecn_flags & (sock::ECN_MODE_RFC3168 as u8 | sock::ECN_CARRIED),
                // Over links of 64 KiB it is more than ever fits.
                mss_clamp: (*opt).mss_clamp.min(MAX_MSS),
                rcv_mss: (*inet_csk(sk)).icsk_ack.rcv_mss.min(MAX_MSS),
                tsval_now: tsval.wrapping_add((*tp).tsoffset),
                ts_recent: (*opt).ts_recent,
                ts_recent_age,
                srtt_us: (*tp).srtt_us,
                mdev_us: (*tp).mdev_us,
                mdev_max_us: (*tp).mdev_max_us,
                rttvar_us: (*tp).rttvar_us,
                rtt_min_us: (*tp).rtt_min.s[0].v,
                snd_cwnd: (*tp).snd_cwnd,
                snd_ssthresh: (*tp).snd_ssthresh,
                reordering: (*tp).reordering,
                bytes_acked: (*tp).bytes_acked,
                bytes_received: (*tp).bytes_received,
                options: options::read(sk),
            });
            if !queue::Queue::OutOfOrder.is_empty(sk) {
                state.out_of_order_fin = queue::out_of_order(sk, &mut state.out_of_order).fin;
                state.sacks = queue::sacks(sk, &state.out_of_order);
            }
            state
        }
    }

    /// Nanoseconds since the freeze.
    pub fn frozen_ns(&self) -> u64 {
        // SAFETY: No preconditions.
        let now = unsafe { bindings::ktime_get() };
        // CAST: The clock does not go back.
        now.saturating_sub(self.since) as u64
    }

    /// Ends the connection here without a packet: another machine has it now.
    ///
    /// The program reads ECONNABORTED from the socket, and EPOLLHUP.
    pub fn close_silently(self) -> Closed {
        // SAFETY: The socket is valid and locked.
        unsafe { disconnect_silently(self.sk, 0) };
        self.finish()
    }

    /// Ends the connection with one RST to the client.
    ///
    /// Its sequence number is `snd_nxt`. If the client has not got all that is in flight, it expects
    /// another one and answers with a challenge ACK (RFC 5961 section 3.2), for which the stack has
    /// the right RST once the route does not point to the target any more. The program reads
    /// ECONNRESET from the socket.
    pub fn reset(self) -> Closed {
        // SAFETY: The socket is valid and locked; `sk_prot` is `tcp_prot` or `tcpv6_prot`, whose
        // method this is: tcp_disconnect(), which calls tcp_send_active_reset() in state
        // ESTABLISHED. tcp_abort() would do as well, but takes the lock itself: in between, the
        // connection would go on.
        unsafe {
            if let Some(disconnect) = (*(*self.sk).__sk_common.skc_prot).disconnect {
                disconnect(self.sk, 0);
            }
        }
        self.finish()
    }

    /// Throws the backlog away and releases the lock.
    fn finish(self) -> Closed {
        let frozen_ns = self.frozen_ns();
        let sk = self.sk;
        // SAFETY: The socket is valid, and its lock held. Packets are put on the backlog under
        // the spin lock, and taken off by the owner of the lock, which is this thread.
        let list = unsafe {
            bindings::sk_slock_lock_bh(sk);
            let list = (*sk).sk_backlog.head;
            (*sk).sk_backlog.head = ptr::null_mut();
            (*sk).sk_backlog.tail = ptr::null_mut();
            (*sk).sk_backlog.len = 0;
            bindings::sk_slock_unlock_bh(sk);
            list
        };
        // What comes between this and the end of the lock is discarded without an answer: that is
        // what tcp_rcv_state_process() does in state CLOSE.
        // SAFETY: The list has just become ours.
        let backlog_dropped = unsafe { sock::free_skb_list(list) };
        drop(self);
        Closed {
            backlog_dropped,
            frozen_ns,
        }
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this thread holds the lock.
        unsafe { bindings::release_sock(self.sk) };
    }
}
