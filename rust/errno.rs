// SPDX-License-Identifier: GPL-2.0

//! Error codes of networking that [`kernel::error::code`] does not name.
//!
//! [`kernel::error::Error`] can only be made at run time, so a code is a constant of its own type
//! that turns into an [`Error`] with `?` or `into()`.

use kernel::prelude::*;

/// An error code, positive as in C's `errno.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(u16);

impl From<Errno> for Error {
    fn from(code: Errno) -> Error {
        Error::from_errno(-c_int::from(code.0))
    }
}

impl PartialEq<Errno> for Error {
    fn eq(&self, other: &Errno) -> bool {
        self.to_errno() == -c_int::from(other.0)
    }
}

macro_rules! declare {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        $($(#[$doc])* pub const $name: Errno = Errno($value);)*
    };
}

// Numbers of `include/uapi/asm-generic/errno.h`, the same on every architecture that has Rust.
declare! {
    /// No data available.
    ENODATA = 61;
    /// Protocol error.
    EPROTO = 71;
    /// Not a data message: what arrived is not what the protocol says.
    EBADMSG = 74;
    /// Name not unique on network.
    ENOTUNIQ = 76;
    /// Socket operation on non-socket.
    ENOTSOCK = 88;
    /// Protocol not available.
    ENOPROTOOPT = 92;
    /// Protocol not supported.
    EPROTONOSUPPORT = 93;
    /// Socket type not supported.
    ESOCKTNOSUPPORT = 94;
    /// Operation not supported on transport endpoint.
    EOPNOTSUPP = 95;
    /// Address family not supported by protocol.
    EAFNOSUPPORT = 97;
    /// Address already in use.
    EADDRINUSE = 98;
    /// Cannot assign requested address.
    EADDRNOTAVAIL = 99;
    /// Network is down.
    ENETDOWN = 100;
    /// Network is unreachable.
    ENETUNREACH = 101;
    /// Software caused connection abort.
    ECONNABORTED = 103;
    /// Connection reset by peer.
    ECONNRESET = 104;
    /// No buffer space available.
    ENOBUFS = 105;
    /// Transport endpoint is already connected.
    EISCONN = 106;
    /// Transport endpoint is not connected.
    ENOTCONN = 107;
    /// Cannot send after transport endpoint shutdown.
    ESHUTDOWN = 108;
    /// Connection refused.
    ECONNREFUSED = 111;
    /// Host is down.
    EHOSTDOWN = 112;
    /// No route to host.
    EHOSTUNREACH = 113;
    /// Operation already in progress.
    EALREADY = 114;
    /// Operation now in progress.
    EINPROGRESS = 115;
    /// Quota exceeded.
    EDQUOT = 122;
    /// Operation cancelled.
    ECANCELED = 125;
}
