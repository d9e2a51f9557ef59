// SPDX-License-Identifier: GPL-2.0

//! Why a packet is refused.

use core::fmt;

/// The reason a packet is not handled; every reason has a counter of its own.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum DropReason {
    /// Fewer bytes than the headers need.
    Truncated,
    /// The version nibble is not the one of this protocol.
    BadVersion,
    /// A header length field is below the minimum or beyond the packet.
    BadHeaderLength,
    /// A length field contradicts the number of bytes there are.
    BadLength,
    /// A checksum is wrong.
    BadChecksum,
    /// A fragment; it cannot be told which connection it belongs to.
    Fragment,
    /// A protocol other than TCP and UDP.
    Protocol,
    /// The hop limit is used up.
    TtlExpired,
    /// The ports are no flow id.
    BadFlowId,
    /// Addresses of two families in one rewrite, or a family this code path does not handle.
    Family,
    /// A TCP option runs beyond the header or has an impossible length.
    BadOption,
    /// A field holds a value the protocol does not allow.
    BadValue,
    /// The given buffer is too small for what is to be written.
    NoSpace,
}

impl DropReason {
    /// Every reason, in the order of its number: `ALL[reason.index()] == reason`.
    pub const ALL: [DropReason; 13] = [
        DropReason::Truncated,
        DropReason::BadVersion,
        DropReason::BadHeaderLength,
        DropReason::BadLength,
        DropReason::BadChecksum,
        DropReason::Fragment,
        DropReason::Protocol,
        DropReason::TtlExpired,
        DropReason::BadFlowId,
        DropReason::Family,
        DropReason::BadOption,
        DropReason::BadValue,
        DropReason::NoSpace,
    ];

    /// The reason's number, for an array of counters.
    #[inline]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The reason's name as counters and messages show it.
    pub const fn as_str(self) -> &'static str {
        match self {
            DropReason::Truncated => "truncated",
            DropReason::BadVersion => "bad-version",
            DropReason::BadHeaderLength => "bad-header-length",
            DropReason::BadLength => "bad-length",
            DropReason::BadChecksum => "bad-checksum",
            DropReason::Fragment => "fragment",
            DropReason::Protocol => "protocol",
            DropReason::TtlExpired => "ttl-expired",
            DropReason::BadFlowId => "bad-flow-id",
            DropReason::Family => "family",
            DropReason::BadOption => "bad-option",
            DropReason::BadValue => "bad-value",
            DropReason::NoSpace => "no-space",
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_match_the_table() {
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), index);
        }
    }
}
