// SPDX-License-Identifier: GPL-2.0

//! Fragments: those that arrive put together, and packets that may leave in several.
//!
//! C headers: [`include/net/ip.h`](srctree/include/net/ip.h),
//! [`include/net/netfilter/ipv6/nf_defrag_ipv6.h`](srctree/include/net/netfilter/ipv6/nf_defrag_ipv6.h)

use super::{
    super::{
        skbuff::SkBuff,
        Net, //
    },
    has_ipv6,
    ipv4_header,
    ipv6_header,
    is_ipv6,
    HEADER_LEN, //
};
use crate::{
    bindings,
    errno::EINPROGRESS,
    sync::lock::BottomHalfDisabled, //
};
use kernel::{
    error::to_result,
    prelude::*, //
};

/// The offset of flags and fragment offset in an IPv4 header.
const FRAGMENT: usize = 6;

/// What became of a fragment.
#[must_use]
pub enum Defragment {
    /// The same packet, whole now: it was the last fragment that was missing. (An IPv6 packet that
    /// the kernel does not take for a fragment comes back as it was.)
    Whole(SkBuff),
    /// The kernel keeps it, or has dropped it.
    Kept,
    /// It is good for nothing.
    Refused(SkBuff),
}

/// Puts a fragment, which is in a `PRE_ROUTING` hook and whose data starts at its IP header, together
/// with those that came before.
///
/// They wait where those of conntrack do, in the kernel's bounds of time and memory
/// (`net.ipv4.ipfrag_*`, `net.netfilter.nf_conntrack_frag6_*`).
pub fn defragment(net: &Net, mut skb: SkBuff) -> Defragment {
    let _bh = BottomHalfDisabled::new();
    if is_ipv6(&skb) {
        if !has_ipv6() || ipv6_header(&mut skb).is_err() {
            return Defragment::Whole(skb);
        }
        // SAFETY: The packet has an IPv6 header at its data, which is its network header, and is the
        // kernel's if that says so.
        let gathered = to_result(unsafe {
            bindings::frag6_gather(
                net.as_raw(),
                skb.as_raw(),
                bindings::ip6_defrag_users_IP6_DEFRAG_CONNTRACK_IN,
            )
        });
        return match gathered {
            Ok(()) => Defragment::Whole(skb),
            Err(e) if e == EINPROGRESS => {
                let _ = skb.into_raw();
                Defragment::Kept
            }
            Err(_) => Defragment::Refused(skb),
        };
    }
    if ipv4_header(&mut skb).is_err() {
        return Defragment::Refused(skb);
    }
    let raw = skb.into_raw();
    // SAFETY: The packet has an IPv4 header at its data, which is its network header, and a device,
    // as it has arrived; it is the kernel's from now on unless the result is zero.
    let gathered = unsafe {
        bindings::ip_defrag(
            net.as_raw(),
            raw,
            bindings::ip_defrag_users_IP_DEFRAG_CONNTRACK_IN,
        )
    };
    if gathered != 0 {
        return Defragment::Kept;
    }
    // SAFETY: It has come back, whole, and is nobody else's.
    let mut skb = unsafe { SkBuff::from_raw(raw) };
    // As nf_ct_ipv4_gather_frags() does: its fragments may have had DF, and it has it then.
    skb.ignore_df();
    Defragment::Whole(skb)
}

/// The length of the longest fragment that an arrived packet was put together from, which no router on
/// the way would make shorter: with IPv6. `None` for all others.
///
/// The packet is in a hook, behind what `ip6_rcv()` notes in it.
pub fn longest_fragment(skb: &SkBuff) -> Option<u16> {
    if !is_ipv6(skb) {
        return None;
    }
    // SAFETY: The control block is the packet's, which is borrowed, and IPv6's.
    match unsafe { (*bindings::IP6CB(skb.as_raw())).frag_max_size } {
        0 => None,
        len => Some(len),
    }
}

/// Has an IPv6 packet that may leave in fragments leave in such, if it is longer than this. Its way must
/// carry them.
pub(super) fn limit_fragments(skb: &mut SkBuff, longest: u16) {
    // SAFETY: As above; nobody else changes it.
    unsafe { (*bindings::IP6CB(skb.as_raw())).frag_max_size = longest };
}

/// Lets a packet, whose data starts at its complete IP header, leave in fragments if it is too long
/// for its way. It counts as sent by the source address in it, so it gets an identification that is
/// none of that source's other packets'. Errors: `EINVAL`, `ENOMEM`.
pub fn permit_fragments(net: &Net, skb: &mut SkBuff) -> Result {
    if is_ipv6(skb) {
        // The fragment header is made when it leaves.
        skb.ignore_df();
        return Ok(());
    }
    ipv4_header(skb)?;
    let segments = c_int::from(skb.gso_segs().max(1));
    let header = skb.data_mut(HEADER_LEN)?;
    if let Some(flags) = header.get_mut(FRAGMENT..FRAGMENT + 2) {
        flags.fill(0);
    }
    // The options count for the checksum.
    let len = header.first().map_or(0, |first| u16::from(first & 0xf) * 4);
    let header = skb.data_mut(len)?.as_mut_ptr().cast::<bindings::iphdr>();
    // SAFETY: The linear part has a header as long as it says, private to this packet; the kernel
    // aligns network headers to four bytes wherever the machine needs that.
    unsafe {
        bindings::__ip_select_ident(net.as_raw(), header, segments);
        bindings::ip_send_check(header);
    }
    Ok(())
}
