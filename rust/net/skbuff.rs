// SPDX-License-Identifier: GPL-2.0

//! Packets.
//!
//! C header: [`include/linux/skbuff.h`](srctree/include/linux/skbuff.h)

mod arrival;
mod datagram;
mod offload;
mod reason;
mod rewrite;
#[cfg(CONFIG_KUNIT = "y")]
mod tests;

pub use arrival::Arrival;
pub use reason::DropReason;
pub use rewrite::Rewrite;

use crate::{
    alloc::gfp,
    bindings,
    wire::parse::Frame, //
};
use core::{
    mem::ManuallyDrop,
    ptr::NonNull,
    slice, //
};
use kernel::{
    alloc::Flags,
    error::to_result,
    prelude::*, //
};

/// How far the checksum of a packet's transport layer has been dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// Nothing is known: it is in the packet, and unverified (or, on the way out, complete).
    None,
    /// The device has verified it.
    Unnecessary,
    /// The device has summed up the whole packet.
    Complete,
    /// Only the pseudo header is in it; the device, or `skb_checksum_help()`, does the rest.
    Partial,
}

/// A packet, `struct sk_buff`, that belongs to the holder.
///
/// Dropping it counts as a packet lost for no reason given: use [`SkBuff::drop_reason`] for a
/// packet that was refused, and [`SkBuff::consume`] for one that has done its service.
///
/// # Invariants
///
/// Points to a valid `sk_buff`, of which nobody else changes the metadata. The bytes from `data` to
/// `tail` (the linear part) are readable.
#[repr(transparent)]
pub struct SkBuff(NonNull<bindings::sk_buff>);

// SAFETY: A packet may be handled and freed on any CPU.
unsafe impl Send for SkBuff {}

// SAFETY: What takes `&self` only reads.
unsafe impl Sync for SkBuff {}

impl SkBuff {
    /// Takes over a packet from C.
    ///
    /// # Safety
    ///
    /// `ptr` must be a valid packet which the caller owns, not shared with anybody
    /// (`skb_share_check()`), and outside of all lists.
    #[inline]
    pub(crate) unsafe fn from_raw(ptr: *mut bindings::sk_buff) -> Self {
        // INVARIANT: By the safety requirements.
        // SAFETY: A valid pointer is not null.
        Self(unsafe { NonNull::new_unchecked(ptr) })
    }

    /// Hands the packet over to C.
    #[inline]
    pub(crate) fn into_raw(self) -> *mut bindings::sk_buff {
        ManuallyDrop::new(self).0.as_ptr()
    }

    /// The C object.
    #[inline]
    pub(crate) fn as_raw(&self) -> *mut bindings::sk_buff {
        self.0.as_ptr()
    }

    /// Makes a packet without data that has room for `headroom` bytes before and `len` bytes after
    /// what [`SkBuff::push`] and [`SkBuff::put`] add. Errors: `ENOMEM`.
    pub fn alloc(headroom: u16, len: u16, flags: Flags) -> Result<Self> {
        let size = u32::from(headroom) + u32::from(len);
        // SAFETY: A plain call; the size is small.
        let skb = unsafe { bindings::alloc_skb(size, gfp(flags)) };
        let skb = NonNull::new(skb).ok_or(ENOMEM)?;
        // SAFETY: The packet is empty and has room for it.
        unsafe { bindings::skb_reserve(skb.as_ptr(), c_int::from(headroom)) };
        // INVARIANT: It is new, and nobody else has it.
        Ok(Self(skb))
    }

    /// Makes a second packet of the same bytes, which are copied when one of the two is written.
    /// Errors: `ENOMEM`.
    pub fn try_clone(&self, flags: Flags) -> Result<Self> {
        // SAFETY: By the type invariants.
        let skb = unsafe { bindings::skb_clone(self.as_raw(), gfp(flags)) };
        // INVARIANT: The clone has metadata of its own.
        Ok(Self(NonNull::new(skb).ok_or(ENOMEM)?))
    }

    /// Frees the packet, which is lost for `reason`.
    #[inline]
    pub fn drop_reason(self, reason: DropReason) {
        // SAFETY: The packet is ours, and handed over.
        unsafe {
            bindings::sk_skb_reason_drop(core::ptr::null(), self.into_raw(), reason.as_raw())
        };
    }

    /// Frees the packet, which has done its service.
    #[inline]
    pub fn consume(self) {
        // SAFETY: The packet is ours, and handed over.
        unsafe { bindings::consume_skb(self.into_raw()) };
    }

    #[inline]
    pub(crate) fn raw(&self) -> &bindings::sk_buff {
        // SAFETY: By the type invariants, nobody writes to it while it is borrowed.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    pub(crate) fn raw_mut(&mut self) -> &mut bindings::sk_buff {
        // SAFETY: By the type invariants, nobody else accesses it while it is borrowed.
        unsafe { self.0.as_mut() }
    }

    /// The metadata that packets copied from each other share (`skb->headers`).
    #[inline]
    fn headers(&self) -> &bindings::sk_buff__bindgen_ty_4__bindgen_ty_2 {
        // SAFETY: The group overlays the same fields outside of it; all are numbers.
        unsafe { self.raw().__bindgen_anon_4.headers.as_ref() }
    }

    #[inline]
    fn headers_mut(&mut self) -> &mut bindings::sk_buff__bindgen_ty_4__bindgen_ty_2 {
        // SAFETY: As above.
        unsafe { self.raw_mut().__bindgen_anon_4.headers.as_mut() }
    }

    /// Number of bytes from the data pointer on, linear and paged.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a packet is no container")]
    pub fn len(&self) -> u32 {
        self.raw().len
    }

    /// Bytes of memory that the packet takes, its metadata included.
    #[inline]
    pub fn truesize(&self) -> u32 {
        self.raw().truesize
    }

    /// Number of bytes in the linear part.
    #[inline]
    pub fn headlen(&self) -> u32 {
        let skb = self.raw();
        skb.len - skb.data_len
    }

    /// The linear part, from the data pointer on.
    #[inline]
    pub fn data(&self) -> &[u8] {
        // SAFETY: By the type invariants. The bytes may be shared with clones, whose owners copy
        // them before they write.
        unsafe { slice::from_raw_parts(self.raw().data, self.headlen() as usize) }
    }

    /// The first `len` bytes for writing: makes them linear and private to this packet.
    ///
    /// Errors: `EINVAL` if the packet is shorter, `ENOMEM`.
    #[inline]
    pub fn data_mut(&mut self, len: u16) -> Result<&mut [u8]> {
        self.ensure_writable(len)?;
        // SAFETY: The bytes are linear, and not shared with a clone any more.
        Ok(unsafe { slice::from_raw_parts_mut(self.raw().data, usize::from(len)) })
    }

    /// Makes the first `len` bytes linear, so that [`SkBuff::data`] has them.
    ///
    /// Errors: `EINVAL` if the packet is shorter (or memory is short).
    #[inline]
    pub fn may_pull(&mut self, len: u32) -> Result {
        if len <= self.headlen() {
            return Ok(());
        }
        // SAFETY: By the type invariants; the function refuses more than there is.
        if unsafe { bindings::pskb_may_pull(self.as_raw(), len) } {
            Ok(())
        } else {
            Err(EINVAL)
        }
    }

    /// Makes the first `len` bytes linear and private to this packet.
    ///
    /// Errors: `EINVAL` if the packet is shorter, `ENOMEM`.
    #[inline(always)]
    pub fn ensure_writable(&mut self, len: u16) -> Result {
        self.may_pull(u32::from(len))?;
        if !self.is_cloned() {
            return Ok(());
        }
        // SAFETY: By the type invariants; there are `len` bytes.
        to_result(unsafe { bindings::skb_ensure_writable(self.as_raw(), u32::from(len)) })
    }

    /// Copies `to.len()` bytes from `offset` on. Errors: `EFAULT` if there are fewer.
    pub fn copy_bits(&self, offset: u32, to: &mut [u8]) -> Result {
        let offset = c_int::try_from(offset).map_err(|_| EFAULT)?;
        let len = c_int::try_from(to.len()).map_err(|_| EFAULT)?;
        // SAFETY: By the type invariants; the buffer has `len` bytes, and the function checks that
        // the packet has them.
        to_result(unsafe {
            bindings::skb_copy_bits(self.as_raw(), offset, to.as_mut_ptr().cast(), len)
        })
    }

    /// The linear part from the network header on; empty if no network header is set or it lies
    /// behind the linear part.
    pub fn network_header(&self) -> &[u8] {
        let skb = self.raw();
        // SAFETY: By the type invariants; `head..tail` is the linear buffer, and headers lie in it.
        unsafe {
            let start = bindings::skb_network_header(skb);
            let tail = bindings::skb_tail_pointer(skb);
            match tail.offset_from(start) {
                len if len > 0 => slice::from_raw_parts(start, len as usize),
                _ => &[],
            }
        }
    }

    /// The first `len` bytes of the network header for writing, whether the data pointer is at or
    /// before it.
    ///
    /// Errors: `EINVAL` if there are fewer bytes or the network header lies before the data
    /// pointer, `ENOMEM`.
    pub fn network_header_mut(&mut self, len: u16) -> Result<&mut [u8]> {
        // SAFETY: By the type invariants; both are in the linear buffer.
        let offset =
            unsafe { bindings::skb_network_header(self.as_raw()).offset_from(self.raw().data) };
        let offset = u16::try_from(offset).map_err(|_| EINVAL)?;
        let end = offset.checked_add(len).ok_or(EINVAL)?;
        self.data_mut(end)?
            .get_mut(usize::from(offset)..)
            .ok_or(EINVAL)
    }

    /// Moves the data pointer forward over `len` bytes, which must be linear. Errors: `EINVAL`.
    ///
    /// For a header that is taken off an arriving packet see [`SkBuff::pull_rcsum`].
    pub fn pull(&mut self, len: u16) -> Result {
        self.may_pull(u32::from(len))?;
        // SAFETY: There are `len` linear bytes.
        unsafe { bindings::skb_pull(self.as_raw(), u32::from(len)) };
        Ok(())
    }

    /// Takes a header of `len` bytes off an arriving packet, out of a complete checksum as well.
    /// Errors: `EINVAL` if there are fewer bytes.
    pub fn pull_rcsum(&mut self, len: u16) -> Result {
        self.may_pull(u32::from(len))?;
        // SAFETY: There are `len` linear bytes.
        unsafe { bindings::skb_pull_rcsum(self.as_raw(), u32::from(len)) };
        Ok(())
    }

    /// Puts a zeroed header of `len` bytes in front of the data, making room if there is none.
    /// Errors: `ENOMEM`.
    pub fn push(&mut self, len: u16) -> Result<&mut [u8]> {
        // SAFETY: By the type invariants.
        to_result(unsafe { bindings::skb_cow_head(self.as_raw(), u32::from(len)) })?;
        // SAFETY: There is room for `len` bytes in front, and nobody shares the header.
        let header = unsafe {
            let start = bindings::skb_push(self.as_raw(), u32::from(len)).cast::<u8>();
            start.write_bytes(0, usize::from(len));
            slice::from_raw_parts_mut(start, usize::from(len))
        };
        Ok(header)
    }

    /// Bytes of room in front of the data.
    #[inline]
    pub fn headroom(&self) -> u32 {
        let skb = self.raw();
        // CAST: What is in front of the data is not longer than the buffer.
        (skb.data as usize).wrapping_sub(skb.head as usize) as u32
    }

    /// Makes sure that `len` bytes (headers to come, the link layer's included) fit in front of the
    /// data, and that the header is private to this packet. Errors: `ENOMEM`.
    pub fn cow_head(&mut self, len: u16) -> Result {
        // SAFETY: By the type invariants.
        to_result(unsafe { bindings::skb_cow_head(self.as_raw(), u32::from(len)) })
    }

    /// Appends bytes to a packet from [`SkBuff::alloc`]. Errors: `ENOSPC` if they do not fit.
    pub fn put(&mut self, bytes: &[u8]) -> Result {
        let len = u32::try_from(bytes.len()).map_err(|_| ENOSPC)?;
        if self.raw().data_len != 0 || self.is_cloned() {
            return Err(ENOSPC);
        }
        // SAFETY: By the type invariants.
        if len > unsafe { bindings::skb_tailroom(self.as_raw()) } {
            return Err(ENOSPC);
        }
        // SAFETY: There is room for the bytes at the tail, which is not shared.
        unsafe {
            let to = bindings::skb_put(self.as_raw(), len).cast::<u8>();
            to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        Ok(())
    }

    /// Cuts the packet to `len` bytes, e.g. off the link layer's padding. No effect if it is not
    /// longer. Errors: `ENOMEM`.
    pub fn trim(&mut self, len: u32) -> Result {
        // SAFETY: By the type invariants.
        to_result(unsafe { bindings::pskb_trim_rcsum(self.as_raw(), len) })
    }

    /// Whether the bytes are shared with another packet.
    #[inline]
    pub fn is_cloned(&self) -> bool {
        self.raw().cloned() != 0
    }

    /// What the parsers of packets have to know, of a packet whose data starts at its IP header.
    #[inline]
    pub fn frame(&self) -> Frame {
        Frame {
            len: self.len() as usize,
            gso: self.is_gso(),
            csum_partial: self.checksum() == Checksum::Partial,
        }
    }

    /// What is behind the linear buffer.
    #[inline]
    fn shared_info(&self) -> &bindings::skb_shared_info {
        let skb = self.raw();
        // Where pointers are longer than offsets into the buffer, these are kept.
        const { assert!(size_of::<bindings::sk_buff_data_t>() < size_of::<usize>()) };
        // SAFETY: By the type invariants, it is there, and only changed by those who have all of the
        // packet.
        unsafe { &*skb.head.add(skb.end as usize).cast() }
    }

    /// Whether the packet stands for a row of segments (GSO).
    #[inline]
    pub fn is_gso(&self) -> bool {
        self.gso_size() != 0
    }

    /// Payload bytes per segment of a GSO packet, 0 for any other.
    #[inline]
    pub fn gso_size(&self) -> u16 {
        self.shared_info().gso_size
    }

    /// Whether a device has joined segments in a way that they cannot be told apart any more (LRO,
    /// `skb_warn_if_lro()`): such a packet must not be sent on.
    #[inline]
    pub fn is_lro(&self) -> bool {
        self.is_gso() && self.shared_info().gso_type == 0
    }

    /// Number of segments of a GSO packet, 0 for any other or if it is not known.
    #[inline]
    pub fn gso_segs(&self) -> u16 {
        self.shared_info().gso_segs
    }

    /// Whether each packet that goes out for this one (the segments of a GSO packet, or itself)
    /// fits into `mtu` bytes, network header included.
    #[inline]
    pub fn fits_mtu(&self, mtu: u32) -> bool {
        if self.len() <= mtu {
            return true;
        }
        // SAFETY: By the type invariants; asked of GSO packets only.
        self.is_gso() && unsafe { bindings::skb_gso_validate_network_len(self.as_raw(), mtu) }
    }

    /// The state of the transport layer's checksum.
    #[inline]
    pub fn checksum(&self) -> Checksum {
        match u32::from(self.headers().ip_summed()) {
            bindings::CHECKSUM_UNNECESSARY => Checksum::Unnecessary,
            bindings::CHECKSUM_COMPLETE => Checksum::Complete,
            bindings::CHECKSUM_PARTIAL => Checksum::Partial,
            _ => Checksum::None,
        }
    }

    /// Finishes a [`Checksum::Partial`] in software (`skb_checksum_help()`); nothing to do for any
    /// other. Errors: `EINVAL` for a GSO packet, `ENOMEM`.
    pub fn checksum_help(&mut self) -> Result {
        if self.checksum() != Checksum::Partial {
            return Ok(());
        }
        if self.is_gso() {
            return Err(EINVAL);
        }
        // SAFETY: By the type invariants; the cases that it warns of are excluded.
        to_result(unsafe { bindings::skb_checksum_help(self.as_raw()) })
    }

    /// Prepares the checksum state of an arrived packet for being sent (`skb_forward_csum()`).
    #[inline]
    pub fn forward_csum(&mut self) {
        if self.checksum() == Checksum::Complete {
            self.forget_checksum();
        }
    }

    /// Says that nothing is known of the checksum, because a header has just been put in front or
    /// taken off.
    #[inline]
    pub fn forget_checksum(&mut self) {
        // CAST: A two-bit field.
        self.headers_mut()
            .set_ip_summed(bindings::CHECKSUM_NONE as u8);
    }

    /// Lets this machine fragment the packet, as one of its own.
    pub(crate) fn ignore_df(&mut self) {
        self.headers_mut().set_ignore_df(1);
    }

    /// Whether that was said.
    pub(crate) fn ignores_df(&mut self) -> bool {
        self.headers_mut().ignore_df() != 0
    }

    /// Forgets the flow hash, which depends on addresses and ports.
    #[inline]
    pub fn clear_hash(&mut self) {
        // SAFETY: By the type invariants.
        unsafe { bindings::skb_clear_hash(self.as_raw()) };
    }

    /// Forgets the time of arrival, which the queues of a sender would take for a time of
    /// departure.
    #[inline]
    pub fn clear_tstamp(&mut self) {
        // SAFETY: By the type invariants.
        unsafe { bindings::skb_clear_tstamp(self.as_raw()) };
    }

    /// The protocol number of the link layer (Ethertype).
    #[inline]
    pub fn protocol(&self) -> u16 {
        u16::from_be(self.headers().protocol)
    }

    /// Sets the protocol number of the link layer (Ethertype).
    #[inline]
    pub fn set_protocol(&mut self, ethertype: u16) {
        self.headers_mut().protocol = ethertype.to_be();
    }

    /// Index of the device that the packet arrived by; 0 if it was made here.
    #[inline]
    pub fn iif(&self) -> u32 {
        u32::try_from(self.headers().skb_iif).unwrap_or(0)
    }

    /// The firewall mark.
    #[inline]
    pub fn mark(&self) -> u32 {
        // SAFETY: All variants of the union are numbers of the same size.
        unsafe { self.headers().__bindgen_anon_4.mark }
    }

    /// Sets the firewall mark.
    #[inline]
    pub fn set_mark(&mut self, mark: u32) {
        self.headers_mut().__bindgen_anon_4.mark = mark;
    }

    /// Whether the packet was sent to this machine's link-layer address.
    #[inline]
    pub fn is_for_host(&self) -> bool {
        u32::from(self.headers().pkt_type()) == bindings::PACKET_HOST
    }

    #[inline]
    pub(crate) fn dev_raw(&self) -> *mut bindings::net_device {
        let list = &self.raw().__bindgen_anon_1;
        // SAFETY: The union holds the device, wherever we get packets from: the alternatives are
        // for packets in queues of TCP and of GRO.
        unsafe { list.__bindgen_anon_1.__bindgen_anon_1.dev }
    }

    #[inline]
    pub(crate) fn set_dev_raw(&mut self, dev: *mut bindings::net_device) {
        let list = &mut self.raw_mut().__bindgen_anon_1;
        list.__bindgen_anon_1.__bindgen_anon_1.dev = dev;
    }

    /// Whether the packet has a route.
    #[inline]
    pub fn has_dst(&self) -> bool {
        // SAFETY: The union holds the route, wherever we get packets from: the alternatives are for
        // packets in queues of TCP.
        let refdst = unsafe { self.raw().__bindgen_anon_3.__bindgen_anon_1._skb_refdst };
        // The lowest bit says whether it is counted.
        refdst & !(bindings::SKB_DST_NOREF as c_ulong) != 0
    }

    /// Takes the route off the packet.
    #[inline]
    pub fn drop_dst(&mut self) {
        // SAFETY: By the type invariants.
        unsafe { bindings::skb_dst_drop(self.as_raw()) };
    }

    /// Counts the packet's route, so that the packet may leave the RCU section it came in. False
    /// if the route is going away; then the packet has none any more. True without a route.
    #[inline]
    pub fn force_dst(&mut self) -> bool {
        // SAFETY: By the type invariants; packets with an uncounted route do not leave the RCU
        // section in which they got it.
        !self.has_dst() || unsafe { bindings::skb_dst_force(self.as_raw()) }
    }

    /// Takes the packet off its socket.
    pub fn orphan(&mut self) {
        // SAFETY: By the type invariants.
        unsafe { bindings::skb_orphan(self.as_raw()) };
    }

    /// Takes the packet off its conntrack entry, which is another connection's from now on.
    #[inline]
    pub fn reset_conntrack(&mut self) {
        // SAFETY: By the type invariants.
        unsafe { bindings::nf_reset_ct(self.as_raw()) };
    }

    /// Makes an arrived packet one that arrives anew: no route, conntrack entry, security path or
    /// trace, addressed to this machine (`skb_scrub_packet()` within a namespace).
    pub fn scrub(&mut self) {
        // SAFETY: By the type invariants.
        unsafe { bindings::skb_scrub_packet(self.as_raw(), false) };
    }

    /// Declares that the link-layer header starts at the data.
    #[inline]
    pub fn reset_mac_header(&mut self) {
        // SAFETY: By the type invariants.
        unsafe { bindings::skb_reset_mac_header(self.as_raw()) };
        self.raw_mut().mac_len = 0;
    }

    /// Declares that the network header starts at the data.
    #[inline]
    pub fn reset_network_header(&mut self) {
        // CAST: As in C, where it is an offset of 16 bits.
        self.headers_mut().network_header = self.headroom() as u16;
    }

    /// Declares that the transport header starts `offset` bytes behind the data pointer.
    #[inline]
    pub fn set_transport_header(&mut self, offset: u16) {
        // CAST: Offsets are less than 65536; who asks finds out that there is nothing.
        self.headers_mut().transport_header = self.headroom().wrapping_add(offset.into()) as u16;
    }
}

impl Drop for SkBuff {
    fn drop(&mut self) {
        // SAFETY: The packet is ours, and not used any more.
        unsafe {
            bindings::sk_skb_reason_drop(
                core::ptr::null(),
                self.as_raw(),
                DropReason::NOT_SPECIFIED.as_raw(),
            )
        };
    }
}
