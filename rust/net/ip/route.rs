// SPDX-License-Identifier: GPL-2.0

//! Routes of packets that leave.
//!
//! C header: [`include/net/dst_cache.h`](srctree/include/net/dst_cache.h)

use super::{
    super::{
        netdevice::NetDevice,
        skbuff::{
            DropReason,
            SkBuff, //
        },
        Net, //
    },
    ipv4_header,
    ETH_P_IP,
    HEADER_LEN,
    UDP_HEADER_LEN, //
};
use crate::{
    alloc::gfp,
    bindings,
    sync::lock::BottomHalfDisabled, //
};
use core::{
    cell::UnsafeCell,
    mem::ManuallyDrop,
    ptr::{
        self,
        NonNull, //
    }, //
};
use kernel::{
    alloc::Flags,
    error::{
        from_err_ptr,
        to_result, //
    },
    prelude::*,
    sync::rcu, //
};

/// Room for a link-layer header, which saves the stack from making it.
const LINK_HEADROOM: u16 = 64;

/// Forgets what layers before have noted in the packet.
pub(super) fn clear_control_block(skb: &mut SkBuff) {
    // SAFETY: The control block is the packet's, which is borrowed; zeroes are valid there.
    unsafe { bindings::IPCB(skb.as_raw()).write_bytes(0, 1) };
}

/// A way for packets from one address to another.
///
/// # Invariants
///
/// Owns a reference to the destination entry of an IPv4 route.
pub struct Route {
    dst: NonNull<bindings::dst_entry>,
    source: [u8; 4],
    destination: [u8; 4],
}

// SAFETY: Destination entries are counted, and used on all CPUs.
unsafe impl Send for Route {}

// SAFETY: As above.
unsafe impl Sync for Route {}

impl Route {
    /// Looks up the route to `destination`, from `source` or (if `None`) the address that routing
    /// prefers. Any context. Errors: `EHOSTUNREACH`, `ENETUNREACH`, `EACCES`, `EINVAL`, …
    pub fn lookup(net: &Net, source: Option<[u8; 4]>, destination: [u8; 4]) -> Result<Self> {
        let mut flow = bindings::flowi4 {
            saddr: source.map_or(0, u32::from_ne_bytes),
            daddr: u32::from_ne_bytes(destination),
            ..Default::default()
        };
        // SAFETY: The namespace and the flow are valid. No socket.
        let route = from_err_ptr(unsafe {
            bindings::ip_route_output_flow(
                net.as_raw(),
                ptr::from_mut(&mut flow).cast(),
                ptr::null(),
            )
        })?;
        // SAFETY: The reference that was returned is handed over.
        unsafe { Self::from_raw(route.cast(), flow.saddr, destination) }
    }

    /// # Safety
    ///
    /// `route` is null, or a reference to a route which the caller gives away.
    unsafe fn from_raw(
        route: *mut bindings::rtable,
        source: u32,
        destination: [u8; 4],
    ) -> Result<Self> {
        // CAST: The destination entry is the first field.
        const { assert!(core::mem::offset_of!(bindings::rtable, dst) == 0) };
        // INVARIANT: By the safety requirements.
        Ok(Self {
            dst: NonNull::new(route.cast()).ok_or(ENOENT)?,
            source: source.to_ne_bytes(),
            destination,
        })
    }

    fn into_raw(self) -> *mut bindings::dst_entry {
        ManuallyDrop::new(self).dst.as_ptr()
    }

    /// The source address.
    pub fn source(&self) -> [u8; 4] {
        self.source
    }

    /// The longest packet that may take this route, in bytes, with its IP header.
    #[inline]
    pub fn mtu(&self) -> u32 {
        // SAFETY: By the type invariants; takes RCU itself.
        unsafe { bindings::dst_mtu(self.dst.as_ptr()) }
    }

    /// Whether it leads to this machine itself.
    pub fn is_local(&self) -> bool {
        // CAST: By the type invariants, it is that of a route.
        let route = self.dst.as_ptr().cast::<bindings::rtable>();
        // SAFETY: By the type invariants.
        unsafe { (*route).rt_type == bindings::RTN_LOCAL as u16 }
    }

    /// Index of the device that packets leave by.
    pub fn oif(&self) -> u32 {
        let _guard = rcu::Guard::new();
        // SAFETY: By the type invariants; RCU keeps the device.
        unsafe { NetDevice::from_raw(bindings::dst_dev_rcu(self.dst.as_ptr())) }.ifindex()
    }

    /// Sends an IPv4 packet on this way, whose data starts at its complete IP header: an arrived
    /// packet that has been readdressed, or one from here. Any context but hard interrupts.
    ///
    /// It does not pass the `LOCAL_OUT` hooks, but those of `POST_ROUTING`. The packet is consumed.
    /// Errors are the stack's, or `EINVAL` for something that is no IPv4 packet.
    #[inline]
    pub fn output(self, net: &Net, mut skb: SkBuff) -> Result {
        if let Err(e) = ipv4_header(&mut skb) {
            skb.drop_reason(DropReason::IP_INHDR);
            return Err(e);
        }
        skb.set_protocol(ETH_P_IP);
        skb.forward_csum();
        skb.clear_tstamp();
        skb.drop_dst();
        clear_control_block(&mut skb);
        // SAFETY: The packet has no route; it is given our reference.
        unsafe { bindings::skb_dst_set(skb.as_raw(), self.into_raw()) };
        // SAFETY: The packet has a route and an IP header, and is handed over.
        sent(unsafe { bindings::dst_output(net.as_raw(), ptr::null_mut(), skb.into_raw()) })
    }

    /// Sends the packet's data as the payload of a UDP datagram, with its checksum and the bit that
    /// forbids fragmentation. Any context but hard interrupts.
    ///
    /// The payload may be a packet that has arrived: it is made one of this machine's own. It must
    /// not be a GSO packet (`EINVAL`). The packet is consumed in any case; errors: `EMSGSIZE` if it
    /// fits not into an IP packet, `ENOMEM`, or the stack's.
    pub fn send_udp(
        self,
        net: &Net,
        mut skb: SkBuff,
        source_port: u16,
        destination_port: u16,
    ) -> Result {
        if let Err(e) = self.push_headers(&mut skb, source_port, destination_port) {
            skb.drop_reason(DropReason::NOMEM);
            return Err(e);
        }
        // SAFETY: The packet has no route; it is given our reference.
        unsafe { bindings::skb_dst_set(skb.as_raw(), self.into_raw()) };
        // SAFETY: The packet has a route and an IP header, whose length and checksum are filled in.
        unsafe { bindings::ip_select_ident(net.as_raw(), skb.as_raw(), ptr::null_mut()) };
        // SAFETY: As above; the packet is handed over.
        sent(unsafe { bindings::ip_local_out(net.as_raw(), ptr::null_mut(), skb.into_raw()) })
    }

    fn push_headers(&self, skb: &mut SkBuff, source_port: u16, destination_port: u16) -> Result {
        const HEADERS: u16 = HEADER_LEN + UDP_HEADER_LEN;
        let payload_max = u32::from(u16::MAX - HEADERS);
        if skb.len() > payload_max {
            return Err(EMSGSIZE);
        }
        // CAST: Just checked.
        let udp_len = skb.len() as u16 + UDP_HEADER_LEN;
        skb.checksum_help()?;
        skb.scrub();
        skb.orphan();
        skb.clear_hash();
        skb.clear_tstamp();
        skb.cow_head(HEADERS + LINK_HEADROOM)?;

        let udp = skb.push(UDP_HEADER_LEN)?;
        for (to, from) in udp.iter_mut().zip(
            [source_port, destination_port, udp_len]
                .iter()
                .flat_map(|field| field.to_be_bytes()),
        ) {
            *to = from;
        }
        skb.set_transport_header(0);
        let (source, destination) = (
            u32::from_ne_bytes(self.source),
            u32::from_ne_bytes(self.destination),
        );
        skb.forget_checksum();
        // SAFETY: The transport header has just been set, and is linear.
        unsafe {
            bindings::udp_set_csum(
                false,
                skb.as_raw(),
                source,
                destination,
                c_int::from(udp_len),
            )
        };

        let ip = skb.push(HEADER_LEN)?;
        // Version and header length; don't fragment; time to live; protocol; addresses. The total
        // length and the checksum are filled in on the way out.
        for (offset, bytes) in [
            (0, &[0x45][..]),
            (6, &[0x40]),
            (8, &[64, bindings::IPPROTO_UDP as u8]),
            (12, &self.source),
            (16, &self.destination),
        ] {
            ip.get_mut(offset..offset + bytes.len())
                .ok_or(EINVAL)?
                .copy_from_slice(bytes);
        }
        skb.reset_network_header();
        skb.set_protocol(ETH_P_IP);
        clear_control_block(skb);
        Ok(())
    }
}

/// What became of a packet: positive numbers say that a queue has dropped it, perhaps later.
#[inline]
fn sent(ret: c_int) -> Result {
    to_result(ret.min(0))
}

impl Drop for Route {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the type invariants; the reference is given back.
        unsafe { bindings::dst_release(self.dst.as_ptr()) };
    }
}

/// The route between two addresses, remembered by every CPU for as long as it is valid.
///
/// # Invariants
///
/// The cache is initialised, and each CPU only uses its own part, with softirqs off.
pub struct RouteCache {
    cache: UnsafeCell<bindings::dst_cache>,
    source: Option<[u8; 4]>,
    destination: [u8; 4],
}

// SAFETY: By the type invariants, its parts are not used by two CPUs.
unsafe impl Send for RouteCache {}

// SAFETY: As above.
unsafe impl Sync for RouteCache {}

impl RouteCache {
    /// Makes a cache for packets to `destination`, from `source` or the address that routing
    /// prefers. Errors: `ENOMEM`.
    pub fn new(source: Option<[u8; 4]>, destination: [u8; 4], flags: Flags) -> Result<Self> {
        let mut cache = bindings::dst_cache::default();
        // SAFETY: The structure is valid for writing, and can be moved afterwards: it has a pointer
        // to its parts, nothing points to it.
        to_result(unsafe { bindings::dst_cache_init(&mut cache, gfp(flags)) })?;
        // INVARIANT: As just done.
        Ok(Self {
            cache: UnsafeCell::new(cache),
            source,
            destination,
        })
    }

    /// The host that packets go to.
    pub fn destination(&self) -> [u8; 4] {
        self.destination
    }

    /// The route at the moment; the cached one if it is still valid. Any context but hard
    /// interrupts. Errors: those of [`Route::lookup`].
    #[inline]
    pub fn route(&self, net: &Net) -> Result<Route> {
        let _bh = BottomHalfDisabled::new();
        let mut source = 0;
        // SAFETY: By the type invariants; softirqs are off.
        let cached = unsafe { bindings::dst_cache_get_ip4(self.cache.get(), &mut source) };
        // SAFETY: The reference that was returned is handed over.
        if let Ok(route) = unsafe { Route::from_raw(cached, source, self.destination) } {
            return Ok(route);
        }
        let route = Route::lookup(net, self.source, self.destination)?;
        // SAFETY: By the type invariants; softirqs are off. The cache takes a reference of its own.
        unsafe {
            bindings::dst_cache_set_ip4(
                self.cache.get(),
                route.dst.as_ptr(),
                u32::from_ne_bytes(route.source),
            )
        };
        Ok(route)
    }
}

impl Drop for RouteCache {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, and nobody uses it any more.
        unsafe { bindings::dst_cache_destroy(self.cache.get()) };
    }
}
