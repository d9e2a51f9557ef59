// SPDX-License-Identifier: GPL-2.0

//! Reasons for losing packets.
//!
//! C header: [`include/net/dropreason-core.h`](srctree/include/net/dropreason-core.h)

use crate::bindings;

/// Why a packet was freed, as the tracepoint `skb:kfree_skb` reports it.
///
/// Subsystems with reasons of their own are numbered by the kernel at compile time, so the closest
/// of the general ones is named, and the modules count their drops in detail themselves.
///
/// # Invariants
///
/// A value of `enum skb_drop_reason` that stands for a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropReason(bindings::skb_drop_reason);

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $value:ident;)*) => {
        // INVARIANT: Each is such a value.
        impl DropReason {
            $($(#[$doc])* pub const $name: Self = Self(bindings::$value);)*
        }
    };
}

reasons! {
    /// None was given.
    NOT_SPECIFIED = skb_drop_reason_SKB_DROP_REASON_NOT_SPECIFIED;
    /// A netfilter hook refused it.
    NETFILTER_DROP = skb_drop_reason_SKB_DROP_REASON_NETFILTER_DROP;
    /// It is shorter than its headers say.
    PKT_TOO_SMALL = skb_drop_reason_SKB_DROP_REASON_PKT_TOO_SMALL;
    /// It is longer than what it has to pass.
    PKT_TOO_BIG = skb_drop_reason_SKB_DROP_REASON_PKT_TOO_BIG;
    /// Its IP header is wrong.
    IP_INHDR = skb_drop_reason_SKB_DROP_REASON_IP_INHDR;
    /// There is no route for it.
    IP_OUTNOROUTES = skb_drop_reason_SKB_DROP_REASON_IP_OUTNOROUTES;
    /// There is no route back to its sender.
    IP_RPFILTER = skb_drop_reason_SKB_DROP_REASON_IP_RPFILTER;
    /// Its destination is no address of this machine.
    IP_INADDRERRORS = skb_drop_reason_SKB_DROP_REASON_IP_INADDRERRORS;
    /// Its time to live has run out.
    TTL_EXCEEDED = skb_drop_reason_SKB_DROP_REASON_IP_INHDR;
    /// A checksum is wrong.
    SKB_CSUM = skb_drop_reason_SKB_DROP_REASON_SKB_CSUM;
    /// A header is malformed.
    HDR_TRUNC = skb_drop_reason_SKB_DROP_REASON_HDR_TRUNC;
    /// It belongs to nothing that is known here.
    NO_SOCKET = skb_drop_reason_SKB_DROP_REASON_NO_SOCKET;
    /// Memory was short.
    NOMEM = skb_drop_reason_SKB_DROP_REASON_NOMEM;
    /// A queue was full.
    QUEUE_FULL = skb_drop_reason_SKB_DROP_REASON_FULL_RING;
    /// Its device is not ready.
    DEV_READY = skb_drop_reason_SKB_DROP_REASON_DEV_READY;
    /// Its tunnel could not be transmitted through.
    TUNNEL_TXINFO = skb_drop_reason_SKB_DROP_REASON_TUNNEL_TXINFO;
    /// Its protocol is not handled.
    UNHANDLED_PROTO = skb_drop_reason_SKB_DROP_REASON_UNHANDLED_PROTO;
}

impl DropReason {
    /// Takes over a reason that a C function returned; `None` if that says that nothing is wrong.
    pub(crate) fn from_raw(reason: bindings::skb_drop_reason) -> Option<Self> {
        match reason {
            bindings::skb_drop_reason_SKB_NOT_DROPPED_YET
            | bindings::skb_drop_reason_SKB_CONSUMED => None,
            reason => Some(Self(reason)),
        }
    }

    #[inline]
    pub(crate) fn as_raw(self) -> bindings::skb_drop_reason {
        self.0
    }
}
