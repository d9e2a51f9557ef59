// SPDX-License-Identifier: GPL-2.0

//! Packets that have just come in by a device.

use super::{
    DropReason,
    SkBuff, //
};
use crate::{
    bindings,
    wire::parse::Parsed, //
};
use core::{
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    prelude::*,
    types::NotThreadSafe, //
};

/// A packet at the ingress of a device, whose data starts at its network header.
///
/// Others may have it, too, such as a packet socket. So it can only be read, and nothing in it be
/// moved, before it is claimed.
///
/// # Invariants
///
/// Owns a count of the packet. If others have one, too, nobody changes it. The packet's device is
/// kept. It is on this CPU, where softirqs are off.
pub struct Arrival(SkBuff, NotThreadSafe);

impl Arrival {
    /// Takes over a packet from C.
    ///
    /// # Safety
    ///
    /// `ptr` must be a valid packet outside of all lists, a count of which the caller gives away.
    /// Its device must stay, and softirqs be off, for as long as the result exists.
    #[inline]
    pub(crate) unsafe fn from_raw(ptr: *mut bindings::sk_buff) -> Self {
        // INVARIANT: By the safety requirements.
        // SAFETY: As above. What the packet would have to be besides, not shared, matters to those
        // who change it: only references to what is in here are given away.
        Self(unsafe { SkBuff::from_raw(ptr) }, NotThreadSafe)
    }

    /// Hands the packet over to C.
    #[inline]
    pub(crate) fn into_raw(self) -> *mut bindings::sk_buff {
        self.0.into_raw()
    }

    /// Whether this is an IP packet for this machine that means the device it is at: none of a VLAN,
    /// or of a bond or a bridge above it, and nothing has been noted in it by IPsec or conntrack, or
    /// a route been set.
    #[inline]
    pub fn is_ordinary(&self) -> bool {
        // SAFETY: All variants of the union are numbers of the same size.
        let tag = unsafe { self.headers().__bindgen_anon_2.vlan_all };
        // SAFETY: By the type invariants, it has a device; the pointer is written in one piece.
        let handler = unsafe { (&raw const (*self.dev_raw()).rx_handler).read_volatile() };
        let ethertype = match self.data().first().map(|first| first >> 4) {
            Some(4) => bindings::ETH_P_IP,
            Some(6) => bindings::ETH_P_IPV6,
            _ => return false,
        };
        u32::from(self.protocol()) == ethertype
            && self.is_for_host()
            && tag == 0
            && !self.has_notes()
            && self.headers().redirected() == 0
            && !self.has_dst()
            && !self.is_lro()
            && handler.is_none()
    }

    /// Frees the packet, and tells tracers why.
    pub fn drop_reason(self, reason: DropReason) {
        self.0.drop_reason(reason);
    }

    /// Whether conntrack or IPsec, or what else has extensions, has noted something in it.
    #[inline]
    fn has_notes(&self) -> bool {
        #[cfg(CONFIG_NF_CONNTRACK)]
        if self.raw()._nfct != 0 {
            return true;
        }
        #[cfg(CONFIG_SKB_EXTENSIONS)]
        if self.raw().active_extensions != 0 {
            return true;
        }
        false
    }

    /// As [`SkBuff::fits_mtu`], of a packet with these headers. Of a batch also false if its device
    /// has not said where the transport header is.
    #[inline]
    pub fn fits_mtu(&self, mtu: u32, parsed: &Parsed) -> bool {
        // CAST: Headers are short.
        let l4_offset = parsed.l4_offset as u32;
        let transport = u32::from(self.headers().transport_header);
        self.len() <= mtu
            || transport == self.headroom().wrapping_add(l4_offset) && self.0.fits_mtu(mtu)
    }

    /// Whether somebody else has it, too (`skb_shared()`).
    #[inline]
    fn is_shared(&self) -> bool {
        // SAFETY: By the type invariants; the number is written in one piece.
        unsafe { (&raw const self.raw().users.refs.counter).read_volatile() != 1 }
    }

    /// Whether somebody is told when it is freed, such as the socket that it is from.
    #[inline]
    fn has_destructor(&self) -> bool {
        // SAFETY: The union holds it in packets outside of TCP's queues.
        unsafe { self.raw().__bindgen_anon_3.__bindgen_anon_1.destructor }.is_some()
    }

    /// Takes the packet for oneself, as `ip_rcv_core()` does: others who have it, too, keep the
    /// bytes as they are; it is off its socket, ends where `parsed` says, without padding, and has its
    /// transport header there. Then has `change` work on it.
    ///
    /// If anything fails, the packet is lost for want of memory. Errors: `ENOMEM`, or those of
    /// `change`.
    #[inline]
    pub fn claim(
        self,
        parsed: &Parsed,
        change: impl FnOnce(&mut SkBuff) -> Result,
    ) -> Result<SkBuff> {
        // CAST: A packet is not longer, and its headers are short.
        let (len, l4_offset) = (parsed.total_len as u32, parsed.l4_offset as u16);
        let is_shared = self.is_shared();
        let has_destructor = self.has_destructor();
        let mut skb = self.into_raw();
        if is_shared {
            // SAFETY: The packet is valid, and our count is handed over. The context is that of a
            // device's ingress, which is atomic.
            skb = unsafe { bindings::skb_share_check(skb, bindings::GFP_ATOMIC) };
        }
        // INVARIANT: It is not shared any more.
        let mut skb = SkBuff(NonNull::new(skb).ok_or(ENOMEM)?);
        if has_destructor {
            skb.orphan();
        }
        skb.set_transport_header(l4_offset);
        let trimmed = if len < skb.len() {
            skb.trim(len)
        } else {
            Ok(())
        };
        match trimmed.and_then(|()| change(&mut skb)) {
            Ok(()) => Ok(skb),
            Err(e) => {
                skb.drop_reason(DropReason::NOMEM);
                Err(e)
            }
        }
    }
}

impl Deref for Arrival {
    type Target = SkBuff;

    #[inline]
    fn deref(&self) -> &SkBuff {
        &self.0
    }
}
