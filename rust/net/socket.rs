// SPDX-License-Identifier: GPL-2.0

//! TCP sockets of the kernel, and sockets of processes.
//!
//! C header: [`include/linux/net.h`](srctree/include/linux/net.h).

pub mod auth;

use crate::{
    bindings,
    errno::{
        EAFNOSUPPORT,
        EALREADY,
        ECONNABORTED,
        ECONNRESET,
        EINPROGRESS,
        ESHUTDOWN, //
    },
    net::netns::Net,
    time,
    wire::addr::Addr, //
};
use core::{
    net::{
        IpAddr,
        Ipv4Addr,
        Ipv6Addr,
        SocketAddr, //
    },
    ptr::NonNull, //
};
use kernel::{
    error::to_result,
    prelude::*,
    sync::atomic::{
        Acquire,
        Atomic,
        Release, //
    },
    time::{
        delay::fsleep,
        msecs_to_jiffies,
        Delta, //
    }, //
};

/// Address family of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketFamily {
    /// IPv4.
    V4,
    /// IPv6 (and, unless [`Socket::set_v6only`] says otherwise, IPv4 as the `bindv6only` sysctl
    /// goes).
    V6,
}

impl SocketFamily {
    /// The family for connections with `addr`.
    pub fn of(addr: &Addr) -> Self {
        if addr.is_v4() {
            Self::V4
        } else {
            Self::V6
        }
    }
}

/// A `struct sockaddr_storage` with an IP address and port.
#[repr(C, align(8))]
struct RawAddr([u8; 128]);

impl RawAddr {
    /// `sizeof(struct sockaddr_in)`.
    const LEN_V4: usize = 16;
    /// `sizeof(struct sockaddr_in6)`.
    const LEN_V6: usize = 28;

    fn empty() -> Self {
        Self([0; 128])
    }

    /// The C form, and how many bytes of it count.
    fn new(addr: SocketAddr) -> (Self, c_int) {
        let mut raw = Self::empty();
        let mut set = |at: usize, bytes: &[u8]| {
            for (to, from) in raw.0.iter_mut().skip(at).zip(bytes) {
                *to = *from;
            }
        };
        set(2, &addr.port().to_be_bytes());
        let len = match addr {
            SocketAddr::V4(v4) => {
                set(0, &(bindings::AF_INET as u16).to_ne_bytes());
                set(4, &v4.ip().octets());
                Self::LEN_V4
            }
            SocketAddr::V6(v6) => {
                set(0, &(bindings::AF_INET6 as u16).to_ne_bytes());
                set(8, &v6.ip().octets());
                set(24, &v6.scope_id().to_ne_bytes());
                Self::LEN_V6
            }
        };
        (raw, len as c_int)
    }

    fn get<const N: usize>(&self, at: usize) -> Result<[u8; N]> {
        let bytes = self.0.get(at..at + N).ok_or(EINVAL)?;
        bytes.try_into().map_err(|_| EINVAL)
    }

    fn parse(&self) -> Result<SocketAddr> {
        let family = u32::from(u16::from_ne_bytes(self.get(0)?));
        let ip = match family {
            bindings::AF_INET => IpAddr::V4(Ipv4Addr::from(self.get::<4>(4)?)),
            bindings::AF_INET6 => IpAddr::V6(Ipv6Addr::from(self.get::<16>(8)?)),
            _ => return Err(EAFNOSUPPORT.into()),
        };
        Ok(SocketAddr::new(ip, u16::from_be_bytes(self.get(2)?)))
    }
}

/// `MAX_SCHEDULE_TIMEOUT`.
const FOREVER: c_long = c_long::MAX;

/// How long a sender whom a signal keeps from waiting sleeps between two attempts, in milliseconds.
const INTERRUPTED_MS: i64 = 5;

/// Jiffies of a timeout in milliseconds.
fn jiffies(ms: u32) -> c_long {
    c_long::try_from(msecs_to_jiffies(ms)).unwrap_or(FOREVER)
}

/// Jiffies of a timeout in milliseconds, where 0 is none.
fn timeout(ms: u32) -> c_long {
    match ms {
        0 => FOREVER,
        ms => jiffies(ms),
    }
}

/// Turns the codes that mean "restart the system call" into `EINTR`; there is no system call.
fn interrupted(error: Error) -> Error {
    if error == ERESTARTSYS || error == ERESTARTNOINTR || error == ERESTARTNOHAND {
        EINTR
    } else {
        error
    }
}

/// A TCP socket of the kernel.
///
/// All methods may sleep, and all may be called by several threads at once; which makes sense for
/// [`Self::shutdown`], to have the others return. The socket does not keep its network namespace
/// alive, so it has to be dropped when the namespace exits. What was sent is still delivered after
/// a drop, unless it comes so late that the namespace is on its way out already: the connection is
/// then reset.
///
/// # Invariants
///
/// `raw` is a socket of `sock_create_kern()` or `kernel_accept()` that we own.
pub struct Socket {
    raw: NonNull<bindings::socket>,
    /// [`Self::shutdown`] was called.
    stopped: Atomic<bool>,
}

// SAFETY: The functions that take a `struct socket` may be called from any thread.
unsafe impl Send for Socket {}
// SAFETY: They take the socket's lock where it is needed.
unsafe impl Sync for Socket {}

impl Socket {
    /// Makes a TCP socket in `net`.
    pub fn tcp(net: &Net, family: SocketFamily) -> Result<Self> {
        let family = match family {
            SocketFamily::V4 => bindings::AF_INET,
            SocketFamily::V6 => bindings::AF_INET6,
        };
        let mut raw = core::ptr::null_mut();
        // SAFETY: `net` is a valid namespace, `raw` a place for the result.
        to_result(unsafe {
            bindings::sock_create_kern(
                net.as_raw(),
                family as c_int,
                bindings::sock_type_SOCK_STREAM as c_int,
                bindings::IPPROTO_TCP as c_int,
                &mut raw,
            )
        })?;
        Self::from_raw(raw)
    }

    fn from_raw(raw: *mut bindings::socket) -> Result<Self> {
        // INVARIANT: The callers pass what the functions named there have just made.
        Ok(Self {
            raw: NonNull::new(raw).ok_or(ENOMEM)?,
            stopped: Atomic::new(false),
        })
    }

    fn as_raw(&self) -> *mut bindings::socket {
        self.raw.as_ptr()
    }

    fn sk(&self) -> *mut bindings::sock {
        // SAFETY: By the type invariant; a socket has its `sk` until it is released.
        unsafe { (*self.as_raw()).sk }
    }

    /// The error to report instead of `error`, which `shutdown` may be the reason of.
    fn failure(&self, error: Error) -> Error {
        if self.stopped.load(Acquire) {
            ESHUTDOWN.into()
        } else {
            interrupted(error)
        }
    }

    /// Binds to a local address and port, of which 0 means any.
    pub fn bind(&self, addr: SocketAddr) -> Result {
        let (mut raw, len) = RawAddr::new(addr);
        // SAFETY: The socket is valid, and so are `len` bytes of the address.
        to_result(unsafe { bindings::kernel_bind(self.as_raw(), (&raw mut raw).cast(), len) })
    }

    /// Makes this a listener with room for `backlog` connections that were not accepted yet.
    pub fn listen(&self, backlog: u32) -> Result {
        let backlog = c_int::try_from(backlog).unwrap_or(c_int::MAX);
        // SAFETY: The socket is valid.
        to_result(unsafe { bindings::kernel_listen(self.as_raw(), backlog) })
    }

    /// Waits for a connection. `ESHUTDOWN` after [`Self::shutdown`].
    pub fn accept(&self) -> Result<Self> {
        let mut raw = core::ptr::null_mut();
        // SAFETY: The socket is valid, `raw` a place for the result.
        to_result(unsafe { bindings::kernel_accept(self.as_raw(), &mut raw, 0) })
            .map_err(|error| self.failure(error))?;
        Self::from_raw(raw)
    }

    /// Connects to `addr` within `timeout_ms` (0: as long as TCP tries).
    ///
    /// `ETIMEDOUT`; `ESHUTDOWN` after [`Self::shutdown`]; `ECONNREFUSED` and what else TCP says.
    pub fn connect(&self, addr: SocketAddr, timeout_ms: u32) -> Result {
        let (mut raw, len) = RawAddr::new(addr);
        let mut step = |flags: u32| {
            // SAFETY: The socket is valid, and so are `len` bytes of the address.
            to_result(unsafe {
                bindings::kernel_connect(self.as_raw(), (&raw mut raw).cast(), len, flags as c_int)
            })
        };
        if self.stopped.load(Acquire) {
            return Err(ESHUTDOWN.into());
        }
        // First without waiting. A `shutdown()` that came before finds nothing to interrupt, but is
        // seen in `stopped`, for both sides take the socket's lock in between; one that comes
        // afterwards ends the attempt.
        match step(bindings::O_NONBLOCK) {
            Err(error) if error == EINPROGRESS && !self.stopped.load(Acquire) => {}
            Ok(()) if !self.stopped.load(Acquire) => return Ok(()),
            Ok(()) => return Err(ESHUTDOWN.into()),
            Err(error) => return Err(self.failure(error)),
        }
        // SAFETY: `sk` is valid.
        unsafe { bindings::sk_set_sndtimeo(self.sk(), timeout(timeout_ms)) };
        step(0).map_err(|error| {
            if error == EALREADY || error == EINPROGRESS {
                self.failure(ETIMEDOUT)
            } else {
                self.failure(error)
            }
        })
    }

    /// Sends some of `data`, at least one byte: as much as there is room for within `timeout_ms`, whatever
    /// signals the calling thread gets.
    ///
    /// `EAGAIN` if there was no room; it can be tried again. Else the connection is over: `ETIMEDOUT`,
    /// `EPIPE`, `ECONNRESET`, …
    pub fn send(&self, data: &[u8], timeout_ms: u32) -> Result<usize> {
        let by_ms = time::monotonic_ms().saturating_add(timeout_ms.into());
        loop {
            let left = time::left_ms(by_ms);
            // SAFETY: `sk` is valid.
            unsafe { bindings::sk_set_sndtimeo(self.sk(), jiffies(left)) };
            let mut msg = bindings::msghdr {
                msg_flags: bindings::MSG_NOSIGNAL,
                ..Default::default()
            };
            let mut vec = bindings::kvec {
                iov_base: data.as_ptr().cast_mut().cast(),
                iov_len: data.len(),
            };
            // SAFETY: The socket is valid; `vec` describes memory that is only read.
            let sent = unsafe {
                bindings::kernel_sendmsg(self.as_raw(), &mut msg, &mut vec, 1, data.len())
            };
            match self.transferred(sent) {
                // A signal that waits for the thread keeps it from waiting for anything else.
                Err(EINTR) if left > 0 => fsleep(Delta::from_millis(INTERRUPTED_MS)),
                Err(EINTR) => return Err(EAGAIN),
                result => return result,
            }
        }
    }

    /// Number of bytes that a C function has moved, or its error.
    fn transferred(&self, ret: c_int) -> Result<usize> {
        match usize::try_from(ret) {
            Ok(count) => Ok(count),
            Err(_) => Err(self.failure(Error::from_errno(ret))),
        }
    }

    fn recv_flags(&self, data: &mut [u8], flags: u32) -> Result<usize> {
        let mut msg = bindings::msghdr::default();
        let mut vec = bindings::kvec {
            iov_base: data.as_mut_ptr().cast(),
            iov_len: data.len(),
        };
        // SAFETY: The socket is valid; `vec` describes memory that is ours to write.
        let ret = unsafe {
            bindings::kernel_recvmsg(
                self.as_raw(),
                &mut msg,
                &mut vec,
                1,
                data.len(),
                flags as c_int,
            )
        };
        self.transferred(ret)
    }

    /// Receives what is there, at least one byte; 0 is the end of the stream (or an empty `data`).
    /// `EAGAIN` if nothing came in for the receive timeout.
    pub fn recv(&self, data: &mut [u8]) -> Result<usize> {
        self.recv_flags(data, 0)
    }

    /// Fills all of `data`.
    ///
    /// `false` is the end of the stream before the first byte. `EAGAIN` if nothing came in for the
    /// receive timeout; it can be tried again. If the stream ended (`ECONNABORTED`) or stalled
    /// (`ETIMEDOUT`) in the middle, the rest of it is of no use.
    pub fn recv_exact(&self, data: &mut [u8]) -> Result<bool> {
        let mut done = 0;
        while let Some(rest) = data.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.recv_flags(rest, bindings::MSG_WAITALL) {
                Ok(0) if done == 0 => return Ok(false),
                Ok(0) => return Err(ECONNABORTED.into()),
                // TCP has given the connection up, between two messages.
                Err(ETIMEDOUT) if done == 0 => return Err(ECONNRESET.into()),
                Ok(count) => done += count,
                Err(EAGAIN) if done > 0 => return Err(ETIMEDOUT),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Ends both directions, for good: what was sent is still delivered, threads that wait in a
    /// method of this socket return, and later calls fail.
    pub fn shutdown(&self) {
        self.stopped.store(true, Release);
        // SAFETY: The socket is valid. The only error is that there is no connection.
        unsafe {
            bindings::kernel_sock_shutdown(self.as_raw(), bindings::sock_shutdown_cmd_SHUT_RDWR)
        };
    }

    /// Whether [`Self::shutdown`] was called.
    pub fn is_shut_down(&self) -> bool {
        self.stopped.load(Acquire)
    }

    /// The local address and port.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        let mut raw = RawAddr::empty();
        // SAFETY: The socket is valid; there is room for any address.
        let ret = unsafe { bindings::kernel_getsockname(self.as_raw(), (&raw mut raw).cast()) };
        if ret < 0 {
            return Err(Error::from_errno(ret));
        }
        raw.parse()
    }

    /// The address and port of the other side; `ENOTCONN` if there is none.
    pub fn peer_addr(&self) -> Result<SocketAddr> {
        let mut raw = RawAddr::empty();
        // SAFETY: The socket is valid; there is room for any address.
        let ret = unsafe { bindings::kernel_getpeername(self.as_raw(), (&raw mut raw).cast()) };
        if ret < 0 {
            return Err(Error::from_errno(ret));
        }
        raw.parse()
    }

    /// Limits how long receiving waits for data, in milliseconds; 0 is no limit.
    pub fn set_recv_timeout(&self, ms: u32) {
        // SAFETY: `sk` is valid.
        unsafe { bindings::sk_set_rcvtimeo(self.sk(), timeout(ms)) };
    }

    /// Sends small pieces at once (`TCP_NODELAY`).
    pub fn set_nodelay(&self) {
        // SAFETY: `sk` is valid and of TCP.
        unsafe { bindings::tcp_sock_set_nodelay(self.sk()) };
    }

    /// Lets [`Self::bind`] take a port that old connections still use (`SO_REUSEADDR`).
    pub fn set_reuseaddr(&self) {
        // SAFETY: `sk` is valid.
        unsafe { bindings::sock_set_reuseaddr(self.sk()) };
    }

    /// Lets [`Self::bind`] take an address the machine does not have (yet) (`IP_FREEBIND`).
    pub fn set_freebind(&self) {
        // SAFETY: `sk` is valid and of IP.
        unsafe { bindings::ip_sock_set_freebind(self.sk()) };
    }

    /// Leaves IPv4 to other sockets of the same port (`IPV6_V6ONLY`), of an IPv6 socket before
    /// [`Self::bind`]. `EINVAL` for an IPv4 one, or afterwards.
    pub fn set_v6only(&self) -> Result {
        // SAFETY: `sk` is valid and of IP.
        unsafe {
            if u32::from((*self.sk()).__sk_common.skc_family) != bindings::AF_INET6 {
                return Err(EINVAL);
            }
            to_result(bindings::ip6_sock_set_v6only(self.sk()))
        }
    }

    /// Probes a silent connection after `idle` seconds, every `interval` seconds, and gives it up
    /// after `count` probes. `EINVAL` outside of TCP's limits (1 to 32767 seconds, 1 to 127).
    pub fn set_keepalive(&self, idle: u16, interval: u16, count: u8) -> Result {
        let sk = self.sk();
        // SAFETY: `sk` is valid and of TCP.
        unsafe {
            to_result(bindings::tcp_sock_set_keepidle(sk, idle.into()))?;
            to_result(bindings::tcp_sock_set_keepintvl(sk, interval.into()))?;
            to_result(bindings::tcp_sock_set_keepcnt(sk, count.into()))?;
            bindings::sock_set_keepalive(sk);
        }
        Ok(())
    }

    /// Gives the connection up when data was not acknowledged for so long, in milliseconds
    /// (`TCP_USER_TIMEOUT`); 0 is TCP's own limit.
    pub fn set_user_timeout(&self, ms: u32) -> Result {
        let ms = c_int::try_from(ms).map_err(|_| EINVAL)?;
        // SAFETY: `sk` is valid and of TCP.
        to_result(unsafe { bindings::tcp_sock_set_user_timeout(self.sk(), ms) })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let sk = self.sk();
        // SAFETY: `sk` is valid, and so is the namespace's memory as long as it is. The reference
        // that `maybe_get_net()` gives is put back below.
        let alive = unsafe {
            let net = bindings::sock_net(sk);
            !bindings::maybe_get_net(net).is_null()
        };
        if alive {
            // What is left of the connection after the release, until all is acknowledged and the
            // other side has closed, too, must hold the namespace, as after a process's `close()`:
            // TCP stops the timers of sockets that do not.
            //
            // SAFETY: `sk` is a kernel socket without a reference of this sort, as all that this
            // type owns; the namespace is alive.
            unsafe { bindings::sk_net_refcnt_upgrade(sk) };
        } else {
            // Nothing may be left: reset what is not closed.
            //
            // SAFETY: `sk` is valid.
            unsafe { bindings::sock_no_linger(sk) };
        }
        // SAFETY: `sk` is valid until the release, and gives the namespace that a reference was
        // taken to above, if one was. We own the socket, and nobody uses it afterwards.
        unsafe {
            let net = bindings::sock_net(sk);
            bindings::sock_release(self.as_raw());
            if alive {
                bindings::put_net(net);
            }
        }
    }
}

/// A socket of a process, found by its file descriptor. Keeps the file open.
///
/// # Invariants
///
/// `raw` is the socket of an open file, to which we hold a reference.
pub struct UserSocket {
    raw: NonNull<bindings::socket>,
}

// SAFETY: A file may be used and put by any thread.
unsafe impl Send for UserSocket {}
// SAFETY: As above.
unsafe impl Sync for UserSocket {}

impl UserSocket {
    /// Finds the socket behind a descriptor of the calling process. A `do` of a netlink family, and the
    /// start of a dump, run in that of the sender, later calls of a dump in the reader's. `EBADF` if there is
    /// no such file, `ENOTSOCK` if it is not a socket.
    pub fn from_fd(fd: u32) -> Result<Self> {
        let fd = c_int::try_from(fd).map_err(|_| EBADF)?;
        let mut error = 0;
        // SAFETY: `error` is a place for an error code.
        let raw = unsafe { bindings::sockfd_lookup(fd, &mut error) };
        // INVARIANT: `sockfd_lookup()` gave us a reference.
        match NonNull::new(raw) {
            Some(raw) => Ok(Self { raw }),
            None => Err(Error::from_errno(error)),
        }
    }

    /// The socket, valid as long as `self`.
    pub(crate) fn as_raw(&self) -> *mut bindings::socket {
        self.raw.as_ptr()
    }
}

impl Drop for UserSocket {
    fn drop(&mut self) {
        // SAFETY: The reference is ours by the type invariant.
        unsafe { bindings::sockfd_put(self.as_raw()) };
    }
}

#[kunit_tests(nlb_socket)]
mod tests {
    use super::*;

    #[test]
    fn addresses() -> Result {
        for text in ["192.0.2.1:4770", "0.0.0.0:0", "[2001:db8::1]:65535"] {
            let addr: SocketAddr = text.parse().map_err(|_| EINVAL)?;
            let (raw, len) = RawAddr::new(addr);
            assert_eq!(raw.parse()?, addr);
            assert_eq!(len, if addr.is_ipv4() { 16 } else { 28 });
        }
        let (raw, _) = RawAddr::new(SocketAddr::from(([192, 0, 2, 1], 4770)));
        assert_eq!(&raw.get::<6>(2)?, &[0x12, 0xa2, 192, 0, 2, 1]);
        assert!(RawAddr::empty().parse().is_err());
        Ok(())
    }
}
