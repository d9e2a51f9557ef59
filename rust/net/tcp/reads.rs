// SPDX-License-Identifier: GPL-2.0

//! What programs read from their connections, seen while they read it.
//!
//! TCP frees received bytes as they are read. It offers one place to see them before: the tracepoint
//! `tcp_rcv_space_adjust`, passed under the socket lock when recvmsg() has copied bytes of a buffer
//! to the program and counted them, and before it frees the buffer. Nothing of the socket is changed
//! to be there: no callback, no clone of a buffer that would keep TCP from merging others into it.
//! So the socket neither needs this module nor notices when it goes.
//!
//! Ways to read that do not stop there with the bytes at hand (splice(), TCP_ZEROCOPY_RECEIVE, MSG_OOB)
//! are noticed: the bytes that are missing then have numbers.
//!
//! C headers: [`include/linux/tracepoint.h`](srctree/include/linux/tracepoint.h),
//! [`include/trace/events/tcp.h`](srctree/include/trace/events/tcp.h).

use core::{
    marker::PhantomData,
    ptr, //
};

use kernel::{
    error::to_result,
    prelude::*,
    sync::Arc, //
};

use crate::{
    bindings,
    errno::EOPNOTSUPP,
    net::Net,
    wire::{
        addr::{
            FourTuple,
            Proto, //
        },
        record::Part,
        seq::SeqNum, //
    },
};

use super::{
    queue::Cursor,
    sock,
    sock::{
        inet_csk,
        tcp_sk, //
    },
};

/// Tells a socket from others that exist at the same time; nothing more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SocketId(usize);

impl SocketId {
    pub(super) fn of(sk: *const bindings::sock) -> SocketId {
        SocketId(sk.addr())
    }
}

/// Is told what programs of a network namespace read, and when their connections end.
pub trait Reader: Send + Sync + 'static {
    /// A program has read from a connection, or peeked. Must not sleep, nor use the socket.
    ///
    /// Bytes may have been read before without a call.
    fn read(&self, read: &mut JustRead<'_>);

    /// The socket has no connection any more that could be read from and written to. Any context but
    /// hard interrupts.
    fn ended(&self, socket: SocketId, tuple: &FourTuple);
}

/// A connection from which a program is just reading.
///
/// # Invariants
///
/// `sk` is a full TCP socket in a connected state, whose lock is held, and has been since `cursor`
/// was made.
pub struct JustRead<'a> {
    sk: *mut bindings::sock,
    cursor: Cursor,
    total: u64,
    end: u32,
    _socket: PhantomData<&'a bindings::sock>,
}

impl JustRead<'_> {
    /// Which socket it is.
    pub fn socket(&self) -> SocketId {
        SocketId::of(self.sk)
    }

    /// The connection's addresses and ports.
    pub fn tuple(&self) -> FourTuple {
        // SAFETY: By the type invariant.
        unsafe { sock::tuple(self.sk) }
    }

    /// How many bytes have been read since the connection began.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The sequence number behind the last of them.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// Whether there was, or is to come, urgent data at or behind `start`: recv() leaves that out.
    pub fn is_urgent_since(&self, start: u32) -> bool {
        let tp = tcp_sk(self.sk);
        // SAFETY: By the type invariant.
        let (now, last) = unsafe { ((*tp).urg_data != 0, (*tp).urg_seq) };
        // `urg_seq` stays when urgent data has been read. Without any it is zero, which may be one of
        // these numbers, too: what is not kept can be asked for, what is wrong cannot.
        now || !SeqNum(last).before(SeqNum(start)) && SeqNum(last).before(SeqNum(self.end))
    }

    /// Whether bytes have been read, and all that were since the connection began can still be
    /// copied.
    pub fn has_all(&mut self) -> bool {
        match u32::try_from(self.total) {
            Ok(all) if all != 0 => self.copy(all, &mut [0]).is_ok(),
            _ => false,
        }
    }

    /// Copies the bytes that begin `back` bytes before [`Self::end`]. Going on where the last call
    /// ended is cheap. An error if they are not there any more, or have never been there for the
    /// processor to read.
    pub fn copy(&mut self, back: u32, to: &mut [u8]) -> Result {
        if to.len() > back as usize {
            return Err(EINVAL);
        }
        let seq = self.end.wrapping_sub(back);
        // SAFETY: By the type invariant.
        unsafe { self.cursor.copy(self.sk, Part::Unread, seq, to) }
    }
}

/// What the probes get.
struct Watched<R> {
    /// Only compared.
    net: *const bindings::net,
    reader: Arc<R>,
}

/// The two tracepoints, null if the kernel has none.
struct Tracepoints {
    read: *mut bindings::tracepoint,
    state: *mut bindings::tracepoint,
}

impl Tracepoints {
    /// By name, for they are not exported.
    fn find() -> Result<Tracepoints> {
        let mut found = Tracepoints {
            read: ptr::null_mut(),
            state: ptr::null_mut(),
        };
        // SAFETY: `found` is what `found_one` wants, and lives during the call.
        unsafe {
            bindings::each_tracepoint(Some(found_one), (&raw mut found).cast());
        }
        if found.read.is_null() || found.state.is_null() {
            return Err(EOPNOTSUPP.into());
        }
        Ok(found)
    }
}

/// # Safety
///
/// `tp` is a tracepoint, `found` a [`Tracepoints`] that nobody else uses.
unsafe extern "C" fn found_one(tp: *mut bindings::tracepoint, found: *mut c_void) {
    // SAFETY: By the contract of this function.
    let found = unsafe { &mut *found.cast::<Tracepoints>() };
    // SAFETY: Every tracepoint has a name, which is constant.
    let name = unsafe { CStr::from_char_ptr((*tp).name) };
    match name.to_bytes() {
        b"tcp_rcv_space_adjust" => found.read = tp,
        b"inet_sock_set_state" => found.state = tp,
        _ => {}
    }
}

/// While it lives, a [`Reader`] is told of a namespace's connections.
///
/// # Invariants
///
/// The probes of `R` are registered with both tracepoints, with `watched` as their data, which came
/// from a box.
pub struct ReadWatch<R: Reader> {
    tracepoints: Tracepoints,
    watched: *mut Watched<R>,
}

// SAFETY: Tracepoints belong to the kernel; the functions on them may be called from any thread, and
// what the probes share is `Send` and `Sync`.
unsafe impl<R: Reader> Send for ReadWatch<R> {}

// SAFETY: A shared reference gives nothing.
unsafe impl<R: Reader> Sync for ReadWatch<R> {}

impl<R: Reader> ReadWatch<R> {
    /// Begins to tell `reader` of connections of `net`. May sleep.
    ///
    /// The tracepoints are passed by all sockets of the machine: each pays for a comparison.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` if the kernel was built without tracepoints, `ENOMEM`.
    pub fn start(net: &Net, reader: Arc<R>) -> Result<ReadWatch<R>> {
        let tracepoints = Tracepoints::find()?;
        let watched = KBox::new(
            Watched {
                net: net.as_raw(),
                reader,
            },
            GFP_KERNEL,
        )?;
        let watched = KBox::into_raw(watched);
        let data = watched.cast();
        // SAFETY: The probe is one for this tracepoint (the helper has the compiler check it) and
        // for this data, which stays until it was unregistered.
        let state = to_result(unsafe {
            bindings::probe_inet_sock_set_state(tracepoints.state, Some(on_state::<R>), data)
        });
        if let Err(error) = state {
            // SAFETY: It has just come from the box, and nobody else got it.
            drop(unsafe { KBox::from_raw(watched) });
            return Err(error);
        }
        // SAFETY: As above.
        let read = to_result(unsafe {
            bindings::probe_tcp_rcv_space_adjust(tracepoints.read, Some(on_read::<R>), data)
        });
        if let Err(error) = read {
            // SAFETY: The one was registered, the other was not.
            unsafe {
                unregister(tracepoints.state, on_state::<R> as *mut c_void, data);
                bindings::tracepoint_synchronize_unregister();
                drop(KBox::from_raw(watched));
            }
            return Err(error);
        }
        // INVARIANT: Both have just been registered.
        Ok(ReadWatch {
            tracepoints,
            watched,
        })
    }
}

impl<R: Reader> Drop for ReadWatch<R> {
    /// Waits until no probe runs. May sleep.
    fn drop(&mut self) {
        let data = self.watched.cast();
        // SAFETY: By the type invariant, both are registered. When they are not any more and none
        // runs, nobody has the data, which came from a box.
        unsafe {
            unregister(self.tracepoints.read, on_read::<R> as *mut c_void, data);
            unregister(self.tracepoints.state, on_state::<R> as *mut c_void, data);
            bindings::tracepoint_synchronize_unregister();
            drop(KBox::from_raw(self.watched));
        }
    }
}

/// # Safety
///
/// `probe` is registered with tracepoint `tp` and `data`.
unsafe fn unregister(tp: *mut bindings::tracepoint, probe: *mut c_void, data: *mut c_void) {
    // Without memory for a shorter list of probes, the kernel puts a stub in its place: this does
    // not fail for what is registered.
    // SAFETY: By the function's contract.
    unsafe { bindings::unregister_probe(tp, probe, data) };
}

/// Whether the socket is one of TCP in this namespace that a program has.
///
/// # Safety
///
/// `sk` is a valid full socket of any protocol.
unsafe fn is_ours<R>(watched: &Watched<R>, sk: *const bindings::sock) -> bool {
    // SAFETY: The socket is valid; these fields are constant, but for the family, which may change
    // from AF_INET6 to AF_INET.
    unsafe {
        ptr::eq(bindings::sock_net(sk), watched.net)
            && u32::from((*sk).sk_protocol) == bindings::IPPROTO_TCP
            && matches!(
                u32::from((*sk).__sk_common.skc_family),
                bindings::AF_INET | bindings::AF_INET6
            )
            && bindings::sock::sk_kern_sock_raw(sk.cast_mut()) == 0
    }
}

/// Whether a connection of this state can be moved.
fn is_open(state: u32) -> bool {
    matches!(state, bindings::TCP_ESTABLISHED | bindings::TCP_CLOSE_WAIT)
}

/// The probe of `tcp_rcv_space_adjust`.
///
/// # Safety
///
/// `data` is a `Watched<R>`. `sk` is a full socket of TCP whose lock is held.
unsafe extern "C" fn on_read<R: Reader>(data: *mut c_void, sk: *mut bindings::sock) {
    // SAFETY: By the contract of this function, shared with other runs of the probes only.
    let watched = unsafe { &*data.cast::<Watched<R>>() };
    // SAFETY: The socket is valid. With the methods of a sockmap or of TLS, others than the program
    // read from it.
    let is_plain = unsafe {
        is_ours(watched, sk) && is_open(sock::state(sk)) && sock::methods_are_tcp(sk)
        //
    };
    if !is_plain {
        return;
    }
    let tp = tcp_sk(sk);
    // SAFETY: The socket is valid and its lock held.
    let (received, rcv_nxt, end) =
        unsafe { ((*tp).bytes_received, (*tp).rcv_nxt, (*tp).copied_seq) };
    // SAFETY: The same.
    if end == rcv_nxt && unsafe { sock::state(sk) } == bindings::TCP_CLOSE_WAIT {
        // The FIN, which counts as a byte received, has been read as well: nothing is left to come.
        return;
    }
    let Some(total) = received.checked_sub(u64::from(rcv_nxt.wrapping_sub(end))) else {
        return;
    };
    // INVARIANT: It is connected, and the lock is held until this function returns.
    let mut read = JustRead {
        sk,
        cursor: Cursor::new(),
        total,
        end,
        _socket: PhantomData,
    };
    watched.reader.read(&mut read);
}

/// The probe of `inet_sock_set_state`.
///
/// # Safety
///
/// `data` is a `Watched<R>`. `sk` is a full socket of any protocol, whose state is about to change.
unsafe extern "C" fn on_state<R: Reader>(
    data: *mut c_void,
    sk: *const bindings::sock,
    old: c_int,
    new: c_int,
) {
    let is_open = |state: c_int| u32::try_from(state).is_ok_and(is_open);
    if !is_open(old) || is_open(new) {
        return;
    }
    // SAFETY: By the contract of this function, shared with other runs of the probes only.
    let watched = unsafe { &*data.cast::<Watched<R>>() };
    // SAFETY: The socket is valid.
    if !unsafe { is_ours(watched, sk) } {
        return;
    }
    // The port it was bound to is given back before the state changes to TCP_CLOSE; the one that
    // stands in packets stays.
    // SAFETY: It is a full socket of TCP, and was connected until now.
    let (tuple, port) = unsafe {
        let inet = &raw const (*inet_csk(sk.cast_mut())).icsk_inet;
        (sock::tuple(sk), u16::from_be((*inet).inet_sport))
    };
    let (client, client_port) = (tuple.client(), tuple.client_port());
    let tuple = FourTuple::new(client, client_port, tuple.vip(), port, Proto::Tcp);
    if let Some(tuple) = tuple {
        watched.reader.ended(SocketId::of(sk), &tuple);
    }
}
