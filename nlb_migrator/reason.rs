// SPDX-License-Identifier: GPL-2.0

//! Why a migration did not go through: a stable code, an errno for the caller, a text for humans.

use core::fmt::{
    self,
    Write, //
};
use kernel::prelude::*;
use nlb::{
    errno,
    net::tcp::Refusal,
    wire::record, //
};

/// A text of bounded length; what does not fit is cut.
#[derive(Clone, Copy)]
pub(crate) struct Text {
    len: u8,
    bytes: [u8; Self::MAX],
}

impl Text {
    /// Longest text in bytes: what records and the netlink attribute carry, less what would make a
    /// [`Reason`] too large to be returned by value.
    pub(crate) const MAX: usize = 111;

    pub(crate) const fn new() -> Self {
        Self {
            len: 0,
            bytes: [0; Self::MAX],
        }
    }

    /// Text from another machine; whatever is not printable ASCII is replaced.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let mut text = Self::new();
        for (slot, &byte) in text.bytes.iter_mut().zip(bytes) {
            *slot = if byte == b' ' || byte.is_ascii_graphic() {
                byte
            } else {
                b'?'
            };
            text.len = text.len.saturating_add(1);
        }
        text
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }

    pub(crate) fn as_str(&self) -> &str {
        core::str::from_utf8(self.as_bytes()).unwrap_or("")
    }
}

impl Write for Text {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let start = usize::from(self.len);
        if let Some(room) = self.bytes.get_mut(start..) {
            for (slot, byte) in room.iter_mut().zip(s.bytes()) {
                // Texts made here are ASCII; a cut in the middle of a character would not be.
                *slot = if byte.is_ascii() { byte } else { b'?' };
                self.len = self.len.saturating_add(1);
            }
        }
        Ok(())
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $errno:expr, $text:literal;)+) => {
        /// What the migrator itself refuses or fails for. Codes below 128 are those of
        /// [`Refusal`]; a code is never used for something else.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub(crate) enum Code {
            $($(#[$doc])* $name = $code,)+
        }

        impl Code {
            fn from_u32(code: u32) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)+
                    _ => None,
                }
            }

            pub(crate) const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            pub(crate) fn errno(self) -> Error {
                match self {
                    $(Self::$name => $errno.into(),)+
                }
            }
        }
    };
}

codes! {
    // Said by a target.

    /// A record for a migration nobody prepared.
    UnknownMigration = 128, ENOENT, "no such migration";
    /// PREPARE with the id of another migration.
    IdInUse = 129, EEXIST, "migration id is in use";
    /// A second migration of the same connection.
    TupleBusy = 130, EBUSY, "connection is being migrated already";
    /// The forwarder in PREPARE is not configured.
    NotForwarder = 131, EPERM, "forwarder is not configured there";
    /// The VIP is not an address of an nlb device.
    VipNotHere = 132, errno::EADDRNOTAVAIL, "VIP is not on an nlb device there";
    /// No room for the mapping, or it is taken.
    Mapping = 133, ENOSPC, "mapping table is full";
    /// Too many migrations at a time.
    TooMany = 134, ENOSPC, "too many migrations";
    /// COMMIT came before the whole state.
    NoState = 135, EINVAL, "COMMIT without the state";
    /// Pieces of the state do not fit together.
    BadState = 136, errno::EPROTO, "pieces of the state do not fit together";
    // 137 was for too many unread bytes, for which [`Refusal`] has codes.

    /// The state is of another connection than PREPARE announced.
    OtherTuple = 138, errno::EPROTO, "state is of another connection";
    /// Nothing came from the origin for too long.
    OriginSilent = 139, ETIMEDOUT, "origin took too long";
    /// The connection to the origin is lost.
    OriginLost = 140, errno::ECONNABORTED, "connection to the origin lost";
    /// The origin took it back.
    OriginAborted = 141, errno::ECANCELED, "origin took the connection back";
    // 142 was for a module that is about to go, which one in use does not do.

    /// An allocation failed.
    NoMemory = 143, ENOMEM, "out of memory";
    /// An address of a family that is not supported.
    Family = 144, errno::EAFNOSUPPORT, "address family is not supported here";

    /// The client's address is the target's own, or a broadcast address there.
    ClientHere = 146, EINVAL, "client's address is not another machine's";
    /// The target sends the connection's packets on to another machine than the origin.
    RoutedThere = 147, EEXIST, "connection has a route there";
    /// A function of the kernel failed.
    Internal = 145, EIO, "internal error";

    // Found by an origin.

    /// No peer with this address.
    NotPeer = 192, ENOENT, "no such peer";
    /// The peer's migrator cannot be reached.
    Unreachable = 193, errno::EHOSTUNREACH, "peer cannot be reached";
    /// The peer speaks another version.
    Version = 194, errno::EPROTONOSUPPORT, "peer speaks another version";
    /// The peer requires something that is not known here.
    Capability = 210, errno::EPROTONOSUPPORT, "unknown capability is required";
    /// The peer did not answer in time.
    NoAnswer = 195, ETIMEDOUT, "no answer from the target";
    /// The connection to the peer was lost.
    LinkLost = 196, errno::ECONNABORTED, "connection to the target lost";
    /// The calling process was killed.
    Interrupted = 197, EINTR, "interrupted";
    /// nlb_fwd is not loaded.
    NoForwarder = 198, errno::EOPNOTSUPP, "no forwarder here to plumb the route";
    /// nlb_fwd has no service for the connection.
    NoService = 199, ENOENT, "no service for the VIP and port";
    /// The route could not be plumbed.
    NoRoute = 200, EINVAL, "route cannot be plumbed";
    /// There is a route for the connection already.
    RouteExists = 207, EEXIST, "connection has a route already";
    /// The host is an endpoint of the service, and draining or inactive.
    NotActive = 214, errno::EHOSTDOWN, "host is an endpoint that gets no new connections";
    /// No way to the host.
    NoHost = 201, errno::EHOSTUNREACH, "no route to the host";
    /// No free flow id.
    NoFlowId = 202, ENOSPC, "no flow id left";
    /// The connection is handed over already.
    Doubled = 203, EBUSY, "connection is being migrated already";
    /// The state does not fit a record.
    Encode = 204, E2BIG, "state does not fit a record";
    /// The target restarted; what became of the connection is unknown.
    TargetRestarted = 205, errno::ECONNABORTED, "target restarted";
    /// The peer was removed.
    PeerRemoved = 206, errno::ECONNABORTED, "peer was removed";
    /// Bytes given back that nobody can have read.
    NotRead = 208, EINVAL, "more bytes are given back than were read";
    /// The kernel has no complete copy of what was read.
    NotKept = 212, errno::ENODATA, "bytes that were read are not kept";
    /// Too many others wait for the target already.
    Crowded = 213, EBUSY, "too many other connections are on their way to the target";
    /// The peer's address is one of this machine.
    ThisMachine = 209, EINVAL, "peer is this machine";
    // 215 was for connections whose packets come by a forwarder's tunnel.

    /// The tunnel to the peer cannot carry the connection's packets.
    PeerFamily = 211, errno::EAFNOSUPPORT, "peer is not of the connection's address family";
}

/// Why a migration did not go through.
#[derive(Clone, Copy)]
pub(crate) struct Reason {
    code: u32,
    errno: Error,
    text: Text,
}

impl Reason {
    /// What the target said.
    pub(crate) fn from_target(code: u32, text: &str) -> Self {
        Self::said("target", code, text)
    }

    /// What the peer said about the connection with it.
    pub(crate) fn from_peer(code: u32, text: &str) -> Self {
        Self::said("peer", code, text)
    }

    fn said(who: &str, code: u32, text: &str) -> Self {
        let errno = match (Refusal::from_code(code), Code::from_u32(code)) {
            (Some(refusal), _) => refusal.errno(),
            (None, Some(code)) => code.errno(),
            (None, None) => errno::ECONNREFUSED.into(),
        };
        let mut shown = Text::new();
        // Writing to a text does not fail.
        let _ = write!(
            shown,
            "{who}: {}",
            Text::from_bytes(text.as_bytes()).as_str()
        );
        Self {
            code,
            errno,
            text: shown,
        }
    }

    /// This code, if it was not for want of memory.
    pub(crate) fn or_no_memory(error: Error, otherwise: Code) -> Self {
        let code = if error == ENOMEM {
            Code::NoMemory
        } else {
            otherwise
        };
        code.into()
    }

    /// A code with more to say than its text.
    pub(crate) fn with_detail(code: Code, detail: fmt::Arguments<'_>) -> Self {
        let mut reason = Self::from(code);
        let _ = write!(reason.text, ": {detail}");
        reason
    }

    /// Why a peer cannot be reached.
    pub(crate) fn unreachable(error: Error) -> Self {
        let known = if error == errno::ECONNREFUSED {
            "connection refused"
        } else if error == ETIMEDOUT {
            "no answer"
        } else if error == errno::EHOSTUNREACH || error == errno::ENETUNREACH {
            "no route"
        } else {
            let number = error.to_errno().wrapping_neg();
            return Self::with_detail(Code::Unreachable, fmt!("error {number}"));
        };
        Self::with_detail(Code::Unreachable, fmt!("{known}"))
    }

    /// What goes into a record.
    pub(crate) fn as_record(&self) -> record::Reason<'_> {
        record::Reason {
            code: self.code,
            text: self.text.as_str(),
        }
    }

    pub(crate) fn code(&self) -> u32 {
        self.code
    }

    pub(crate) fn errno(&self) -> Error {
        self.errno
    }

    pub(crate) fn text(&self) -> &Text {
        &self.text
    }
}

impl From<Code> for Reason {
    fn from(code: Code) -> Self {
        let mut text = Text::new();
        let _ = text.write_str(code.text());
        Self {
            code: code as u32,
            errno: code.errno(),
            text,
        }
    }
}

impl From<Refusal> for Reason {
    fn from(refusal: Refusal) -> Self {
        Self {
            code: refusal.code(),
            errno: refusal.errno(),
            text: Text::from_bytes(refusal.text().to_bytes()),
        }
    }
}

impl From<Error> for Reason {
    fn from(error: Error) -> Self {
        if error == ENOMEM {
            return Code::NoMemory.into();
        }
        if error == errno::EAFNOSUPPORT {
            return Code::Family.into();
        }
        Self::with_detail(
            Code::Internal,
            fmt!("error {}", error.to_errno().wrapping_neg()),
        )
    }
}

impl From<record::Error> for Reason {
    fn from(error: record::Error) -> Self {
        Self::with_detail(Code::Encode, format_args!("{error}"))
    }
}

impl From<kernel::alloc::AllocError> for Reason {
    fn from(_: kernel::alloc::AllocError) -> Self {
        Code::NoMemory.into()
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text.as_str())
    }
}
