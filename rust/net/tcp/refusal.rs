// SPDX-License-Identifier: GPL-2.0

//! Why a connection cannot be moved.

use kernel::{
    macros::kunit_tests,
    prelude::*,
    str::CStr, //
};

use crate::errno::{
    EADDRINUSE,
    EADDRNOTAVAIL,
    ECONNREFUSED,
    EHOSTUNREACH,
    EISCONN,
    ENOBUFS,
    ENOTCONN,
    ENOTSOCK,
    EOPNOTSUPP,
    EPROTONOSUPPORT, //
};

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $errno:ident, $text:literal;)+) => {
        /// A reason for leaving a connection where it is.
        ///
        /// The code is stable: it may be sent to another machine, and none is ever used for
        /// something else.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        #[repr(u32)]
        pub enum Refusal {
            $($(#[$doc])* $name = $code,)+
        }

        impl Refusal {
            /// The reason with this code.
            pub const fn from_code(code: u32) -> Option<Refusal> {
                match code {
                    $($code => Some(Refusal::$name),)+
                    _ => None,
                }
            }

            /// What to tell the user.
            pub const fn text(self) -> &'static CStr {
                match self {
                    $(Refusal::$name => $text,)+
                }
            }

            /// The error number that goes with it.
            pub fn errno(self) -> Error {
                match self {
                    $(Refusal::$name => Error::from($errno),)+
                }
            }
        }
    };
}

refusals! {
    // Origin.

    /// The file descriptor is not open, or no socket.
    NotSocket = 1, ENOTSOCK, c"not a socket";
    /// Neither `IPPROTO_TCP` nor a stream.
    NotTcp = 2, EPROTONOSUPPORT, c"not a TCP socket";
    // 3 was IPv6, which is carried now.

    /// The socket is of another network namespace than the request.
    OtherNamespace = 4, EXDEV, c"socket belongs to another network namespace";
    /// The socket belongs to the kernel.
    KernelSocket = 5, EOPNOTSUPP, c"socket belongs to the kernel";
    /// The socket listens.
    Listening = 6, EISCONN, c"socket is a listener, not a connection";
    // 7 was CLOSE_WAIT, which is carried now.

    /// Any other state than `ESTABLISHED` and `CLOSE_WAIT`.
    NotEstablished = 8, ENOTCONN, c"connection is not established";
    /// The application called shutdown().
    Shutdown = 9, EPIPE, c"socket has been shut down";
    /// There is an error to be read from the socket.
    SocketError = 10, EPIPE, c"socket has a pending error";
    /// A subflow of Multipath TCP.
    Mptcp = 11, EOPNOTSUPP, c"MPTCP is not supported";
    /// An upper layer protocol sits on the socket: kernel TLS, espintcp; or PSP beneath it.
    UpperLayer = 12, EOPNOTSUPP, c"socket has an upper layer protocol (kTLS, ...)";
    /// The socket is in a sockmap, or something else has replaced its methods.
    Redirected = 13, EOPNOTSUPP, c"socket is in a sockmap";
    /// TCP-MD5 (RFC 2385) or TCP-AO (RFC 5925).
    Authenticated = 14, EOPNOTSUPP, c"TCP-MD5 and TCP-AO are not supported";
    /// Accurate ECN (RFC 9768) has counters on both ends.
    AccurateEcn = 15, EOPNOTSUPP, c"accurate ECN is not supported";
    /// Urgent data in either direction.
    UrgentData = 16, EBUSY, c"urgent data is pending";
    /// More data towards the client that is not sent or not acknowledged than may be carried.
    DataInFlight = 17, EBUSY, c"too much data in flight towards the client";
    /// More segments behind holes, or more holes, than may be carried.
    OutOfOrder = 18, EBUSY, c"too much out-of-order data is queued";
    /// TCP Fast Open (RFC 7413), whose handshake is not complete.
    FastOpen = 19, EBUSY, c"TCP Fast Open is in progress";
    /// TCP_REPAIR is on: something else moves the connection already.
    Repair = 20, EBUSY, c"socket is in repair mode";
    /// Received bytes that no program may read (devmem), or that user space holds (zero-copy).
    ZeroCopy = 21, EOPNOTSUPP, c"received data is in zero-copy memory";
    /// More unread bytes than may be carried.
    UnreadTooLarge = 22, EFBIG, c"too much unread data";
    /// Bytes to be sent that stay in the program's memory (MSG_ZEROCOPY) or a device's (devmem).
    SendZeroCopy = 23, EBUSY, c"data in flight is in zero-copy memory";
    /// This side has sent its FIN: `FIN_WAIT1`, `FIN_WAIT2`, `CLOSING`, `LAST_ACK`.
    Closing = 24, EPIPE, c"connection is closing";
    /// Connection tracking translates addresses or ports (DNAT, SNAT, REDIRECT).
    Translated = 25, EOPNOTSUPP, c"connection is translated by NAT";
    /// An address of IPv6 that means something on its link only.
    LinkLocal = 26, EADDRNOTAVAIL, c"link-local addresses do not lead to another machine";
    /// The program has set IPv6 extension headers to be sent.
    ExtensionHeaders = 27, EOPNOTSUPP, c"socket sends IPv6 extension headers";
    /// The socket is bound to a device or VRF (SO_BINDTODEVICE): its addresses alone do not name it.
    BoundToDevice = 29, EOPNOTSUPP, c"socket is bound to a device";
    /// A socket of SMC (RFC 7609), or the TCP connection beneath one.
    Smc = 30, EOPNOTSUPP, c"SMC is not supported";
    /// The client has announced an MSS that no path needs, and that the target would not believe.
    SegmentSize = 31, EOPNOTSUPP, c"client wants segments of less than 88 bytes";
    /// No socket has these addresses.
    NoConnection = 48, ENOENT, c"no such connection";
    /// The connection is in a listener's accept queue.
    NotAccepted = 49, EAGAIN, c"no program has accepted the connection yet";

    // Target.

    /// Nothing listens on address and port.
    NoListener = 64, ECONNREFUSED, c"no listener";
    /// The listener uses Multipath TCP.
    ListenerMptcp = 65, EOPNOTSUPP, c"listener uses MPTCP";
    /// The listener uses an upper layer protocol, or replaced methods.
    ListenerUpperLayer = 66, EOPNOTSUPP, c"listener has an upper layer protocol (SMC, ...)";
    /// The listener requires TCP-MD5 or TCP-AO.
    ListenerAuthenticated = 67, EOPNOTSUPP, c"listener uses TCP-MD5 or TCP-AO";
    /// The accept queue is full.
    AcceptQueueFull = 68, ENOBUFS, c"accept queue of the listener is full";
    /// A socket has the 4-tuple already.
    TupleInUse = 69, EADDRINUSE, c"connection exists already";
    /// The virtual address is no local address.
    AddressNotLocal = 70, EADDRNOTAVAIL, c"virtual address is not local";
    /// `net.ipv4.tcp_timestamps` is 0, but the connection uses timestamps.
    TimestampsOff = 71, EOPNOTSUPP, c"connection uses timestamps, net.ipv4.tcp_timestamps is 0";
    /// `net.ipv4.tcp_sack` is 0, but the connection uses SACK.
    SackOff = 72, EOPNOTSUPP, c"connection uses SACK, net.ipv4.tcp_sack is 0";
    /// `net.ipv4.tcp_window_scaling` is 0, but the connection uses window scaling.
    WindowScalingOff = 73, EOPNOTSUPP,
        c"connection uses window scaling, net.ipv4.tcp_window_scaling is 0";
    /// `net.ipv4.tcp_rmem` does not allow the window that the client has been promised.
    ReceiveBuffer = 74, ENOBUFS, c"receive window does not fit net.ipv4.tcp_rmem";
    /// An allocation failed.
    NoMemory = 75, ENOMEM, c"out of memory";
    /// The stack made no socket, most likely for want of a route to the client.
    NoChild = 76, EHOSTUNREACH, c"stack refused the connection (no route to the client?)";
    /// The security module does not allow it.
    SecurityPolicy = 77, EACCES, c"security policy denies the connection";
    /// The listener was closed meanwhile.
    ListenerGone = 78, ECONNREFUSED, c"listener was closed";
    /// The state contradicts itself.
    InvalidState = 79, EINVAL, c"invalid connection state";
    /// The listener is bound to a device, and its children would be: answers would have to leave by
    /// the device that the packets of the tunnel appear on.
    ListenerBound = 80, EOPNOTSUPP, c"listener is bound to a device";
}

impl Refusal {
    /// The stable number.
    pub const fn code(self) -> u32 {
        self as u32
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        refusal.errno()
    }
}

#[kunit_tests(nlb_tcp_refusal)]
mod tests {
    use super::*;

    #[test]
    fn codes_go_there_and_back() {
        let mut count = 0;
        for code in 0..=255 {
            if let Some(refusal) = Refusal::from_code(code) {
                assert_eq!(refusal.code(), code);
                assert!(refusal.errno().to_errno() < 0);
                // An extended acknowledgement is cut at 79 bytes.
                assert!((1..80).contains(&refusal.text().to_bytes().len()));
                count += 1;
            }
        }
        assert_eq!(count, 47);
        assert_eq!(Refusal::from_code(0), None);
        assert_eq!(Refusal::AcceptQueueFull.code(), 68);
    }
}
