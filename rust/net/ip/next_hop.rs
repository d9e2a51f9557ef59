// SPDX-License-Identifier: GPL-2.0

//! The way to a neighbour, past the network layer.
//!
//! C header: [`include/net/neighbour.h`](srctree/include/net/neighbour.h)

use super::{
    super::{
        netdevice::NetDevice,
        skbuff::{
            Arrival,
            DropReason,
            SkBuff, //
        },
        Net, //
    },
    in6_addr,
    route::sent,
    Route, //
};
use crate::{
    bindings,
    wire::{
        addr::Addr,
        parse::Parsed, //
    }, //
};
use core::ptr::{
    self,
    NonNull, //
};
use kernel::{
    prelude::*,
    sync::rcu, //
};

/// The neighbour that a route leads to, whose link-layer address is known.
///
/// # Invariants
///
/// The destination entry of the route, the device that this leaves by and the neighbour are valid for
/// `'a`, during which the RCU read side is held.
pub struct NextHop<'a> {
    dst: NonNull<bindings::dst_entry>,
    dev: &'a NetDevice,
    neighbour: NonNull<bindings::neighbour>,
    /// Every link carries packets of so many bytes.
    always: u32,
}

/// Why packets cannot be handed to the next hop without the network layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoNextHop {
    /// There is something to be done on the way: IPsec, a lightweight tunnel.
    Work,
    /// A hook of `POST_ROUTING` wants to see them.
    PostRouting,
    /// The link is no Ethernet.
    Link,
    /// Its link-layer address is not known.
    Neighbour,
}

impl Route {
    /// The next hop, if packets can be handed to it without the network layer: it is a neighbour on
    /// an Ethernet whose address is known, there is nothing to be done on the way (IPsec,
    /// lightweight tunnels), and no hook of `POST_ROUTING` in `net` wants to see them.
    pub fn next_hop<'a>(
        &'a self,
        net: &'a Net,
        guard: &'a rcu::Guard,
    ) -> Result<NextHop<'a>, NoNextHop> {
        // SAFETY: It is that of a route to there, to which `self` has a reference.
        unsafe { NextHop::new(self.dst().as_non_null(), self.destination(), net, guard) }
    }

    /// Index of the device that packets leave by.
    pub fn ifindex(&self, _guard: &rcu::Guard) -> u32 {
        // SAFETY: The route is valid.
        unsafe { dev_of(self.as_raw()) }.ifindex()
    }
}

/// What every link carries that the kernel lets have addresses: RFC 791 section 3.2, RFC 8200
/// section 5; `inetdev_valid_mtu()`, `addrconf_notify()`.
const IPV4_MIN_MTU: u32 = 68;
const IPV6_MIN_MTU: u32 = 1280;

type Output =
    unsafe extern "C" fn(*mut bindings::net, *mut bindings::sock, *mut bindings::sk_buff) -> c_int;

impl<'a> NextHop<'a> {
    /// See [`Route::next_hop`].
    ///
    /// # Safety
    ///
    /// `dst` is the destination entry of a route to `destination`, valid for `'a`.
    #[inline(always)]
    pub(super) unsafe fn new(
        dst: NonNull<bindings::dst_entry>,
        destination: Addr,
        net: &'a Net,
        guard: &'a rcu::Guard,
    ) -> Result<Self, NoNextHop> {
        // Each family for itself, so that it is asked for once.
        // SAFETY: By the safety requirements; the device is that of the entry.
        unsafe {
            match destination.to_v4() {
                Some(octets) => {
                    let dev = way_of(dst, true, net, guard)?;
                    let neighbour = neighbour_ipv4(dst.as_ptr(), dev, octets);
                    Self::by(dst, dev, neighbour, IPV4_MIN_MTU)
                }
                None => {
                    let dev = way_of(dst, false, net, guard)?;
                    let neighbour = neighbour_ipv6(dst.as_ptr(), dev, &destination);
                    Self::by(dst, dev, neighbour, IPV6_MIN_MTU)
                }
            }
        }
    }

    /// With what was found of it.
    ///
    /// # Safety
    ///
    /// Both are valid for `'a`, and so is the neighbour if there is one.
    #[inline(always)]
    unsafe fn by(
        dst: NonNull<bindings::dst_entry>,
        dev: &'a NetDevice,
        neighbour: *mut bindings::neighbour,
        always: u32,
    ) -> Result<Self, NoNextHop> {
        let neighbour = NonNull::new(neighbour).ok_or(NoNextHop::Neighbour)?;
        // SAFETY: By the safety requirements; the state is written in one piece.
        let state = unsafe { (&raw const (*neighbour.as_ptr()).nud_state).read_volatile() };
        if u32::from(state) & bindings::NUD_VALID == 0 {
            return Err(NoNextHop::Neighbour);
        }
        // INVARIANT: By the safety requirements.
        Ok(Self {
            dst,
            dev,
            neighbour,
            always,
        })
    }

    /// Whether an arrived packet with these headers is not longer than what may go this way:
    /// [`Arrival::fits_mtu`]. Of the packets of clients, most are ACKs, which fit everywhere.
    #[inline]
    pub fn carries(&self, packet: &Arrival, parsed: &Parsed) -> bool {
        packet.len() <= self.always || packet.fits_mtu(self.mtu(), parsed)
    }

    /// Whether a packet of so many bytes may go this way.
    #[inline]
    pub fn carries_len(&self, len: u32) -> bool {
        len <= self.mtu()
    }

    /// `dst_mtu()`, without a call where nothing but the device bounds it.
    #[inline]
    fn mtu(&self) -> u32 {
        /// `IP_MAX_MTU`.
        const MAX: u32 = 0xfff0;
        let dst = self.dst.as_ptr();
        if self.always == IPV4_MIN_MTU {
            // CAST: The destination entry is the first field.
            let route = dst.cast::<bindings::rtable>();
            // SAFETY: By the type invariants, it is an IPv4 route, whose metrics are there under RCU; all is
            // written in one piece.
            let (learnt, set) = unsafe {
                let metrics = (&raw const (*dst)._metrics).read_volatile();
                let metrics = (metrics & !(bindings::DST_METRICS_FLAGS as c_ulong)) as *const u32;
                // Both in one word, which would be put together bit by bit otherwise.
                let learnt = (&raw const (*route)._bitfield_1).cast::<u32>();
                (
                    learnt.read_volatile(),
                    metrics.add(bindings::RTAX_MTU as usize - 1).read_volatile(),
                )
            };
            if learnt | set == 0 {
                return self.dev.mtu().min(MAX);
            }
        }
        // SAFETY: By the type invariants.
        unsafe { bindings::dst_mtu(dst) }
    }

    /// Sends an arrived packet, whose data starts at its IP header, as the payload of a datagram, past
    /// the hooks of `LOCAL_OUT` and `POST_ROUTING`. With softirqs disabled.
    ///
    /// `write` writes the datagram before that, from an IP header of the packet's family on. Its UDP header
    /// is at `l4`, with the sum of the pseudo header as its checksum. The packet is consumed. Errors:
    /// `ENOMEM`, or the stack's; `EMSGSIZE` if `write` has none.
    #[inline(always)]
    pub fn send_udp<const N: usize>(
        self,
        mut skb: SkBuff,
        l4: u16,
        write: impl FnOnce(&mut [u8; N]) -> Option<()>,
    ) -> Result {
        let link = u16::try_from(self.dev.link_headroom()).unwrap_or(u16::MAX);
        skb.clear_hash();
        if let Err(e) = skb.push_udp(l4, link, write) {
            skb.drop_reason(DropReason::NOMEM);
            return Err(e);
        }
        self.output(skb)
    }

    /// Hands an arrived packet, which has been readdressed and whose data starts at its IP header,
    /// to the queue of the device. With softirqs disabled.
    ///
    /// The packet is consumed. Errors: `ENOMEM`, or the stack's.
    #[inline]
    pub fn output(self, mut skb: SkBuff) -> Result {
        let headroom = self.dev.link_headroom();
        if skb.headroom() < headroom {
            if let Err(e) = skb.cow_head(u16::try_from(headroom).unwrap_or(u16::MAX)) {
                skb.drop_reason(DropReason::NOMEM);
                return Err(e);
            }
        }
        skb.forward_csum();
        skb.clear_tstamp();
        skb.set_dev_raw(self.dev.as_raw());
        // SAFETY: By the type invariants; there is room for the header. The packet is handed over.
        sent(unsafe { bindings::neigh_output(self.neighbour.as_ptr(), skb.into_raw(), false) })
    }
}

/// The device of a destination entry: `dst_dev_rcu()`.
///
/// # Safety
///
/// Under RCU for `'a`, during which `dst` is valid.
#[inline(always)]
unsafe fn dev_of<'a>(dst: *mut bindings::dst_entry) -> &'a NetDevice {
    // SAFETY: By the safety requirements. RCU keeps the device, and the pointer to it is written in one
    // piece.
    unsafe { NetDevice::from_raw((&raw const (*dst).__bindgen_anon_1.dev_rcu).read_volatile()) }
}

/// The device by which a route of IPv4, or else IPv6, leaves, if there is nothing on the way that packets
/// would miss.
///
/// # Safety
///
/// `dst` is the destination entry of a route of this family, valid for `'a`.
#[inline(always)]
unsafe fn way_of<'a>(
    dst: NonNull<bindings::dst_entry>,
    v4: bool,
    net: &'a Net,
    guard: &'a rcu::Guard,
) -> Result<&'a NetDevice, NoNextHop> {
    let entry = dst.as_ptr();
    // What has to be done on the way is in these: IPsec in the one, MPLS and the like in the other,
    // which the network layer looks at on its way out.
    // SAFETY: By the safety requirements; the pointers are written in one piece.
    let (output, tunnel) = unsafe {
        (
            (&raw const (*entry).output)
                .read_volatile()
                .ok_or(NoNextHop::Work)?,
            (&raw const (*entry).lwtstate).read_volatile(),
        )
    };
    let usual = match v4 {
        true => bindings::ip_output as Output,
        false => bindings::ip6_output as Output,
    };
    if !tunnel.is_null() || !ptr::fn_addr_eq(output, usual) {
        return Err(NoNextHop::Work);
    }
    if net.has_post_routing(v4, guard) {
        return Err(NoNextHop::PostRouting);
    }
    // SAFETY: By the safety requirements.
    let dev: &'a NetDevice = unsafe { dev_of(entry) };
    if !dev.is_ethernet() {
        return Err(NoNextHop::Link);
    }
    Ok(dev)
}

/// The neighbour with an IPv4 address, or the gateway to it, or null.
///
/// # Safety
///
/// Under RCU. `dst` is the destination entry of a route to `destination`, whose device is `dev`.
#[inline(always)]
unsafe fn neighbour_ipv4(
    dst: *mut bindings::dst_entry,
    dev: &NetDevice,
    destination: [u8; 4],
) -> *mut bindings::neighbour {
    // CAST: The destination entry is the first field.
    let route = dst.cast::<bindings::rtable>();
    // SAFETY: By the safety requirements; all variants of the union are numbers.
    let (family, gateway) = unsafe { ((*route).rt_gw_family, (*route).__bindgen_anon_1.rt_gw4) };
    let address = match u32::from(family) {
        bindings::AF_INET => gateway,
        // One that the route is connected to.
        0 => u32::from_ne_bytes(destination),
        _ => return ptr::null_mut(),
    };
    // SAFETY: The device is valid, under RCU.
    unsafe { bindings::__ipv4_neigh_lookup_noref(dev.as_raw(), address) }
}

/// As [`neighbour_ipv4`], of an IPv6 address.
///
/// # Safety
///
/// As there.
#[inline]
unsafe fn neighbour_ipv6(
    dst: *mut bindings::dst_entry,
    dev: &NetDevice,
    destination: &Addr,
) -> *mut bindings::neighbour {
    let destination = in6_addr(destination);
    // CAST: The destination entry is the first field.
    // SAFETY: By the safety requirements; there is IPv6, as there is such a route. The device is valid;
    // the address is a local variable or the route's.
    unsafe {
        let next = bindings::rt6_nexthop(dst.cast(), &destination);
        bindings::__ipv6_neigh_lookup_noref(dev.as_raw(), next.cast())
    }
}
