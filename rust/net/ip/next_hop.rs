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
    dst::Dst,
    in6_addr,
    route::sent,
    Route, //
};
use crate::{
    bindings,
    wire::parse::Parsed, //
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
/// The neighbour, and the device that the route leaves by, are valid for `'a`, during which the RCU
/// read side is held.
pub struct NextHop<'a> {
    dst: Dst,
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
    #[inline]
    pub fn next_hop<'a>(
        self,
        net: &'a Net,
        guard: &'a rcu::Guard,
    ) -> Result<NextHop<'a>, NoNextHop> {
        let v4 = self.destination().is_v4();
        let dst = self.as_raw();
        // What has to be done on the way is in these: IPsec in the one, MPLS and the like in the
        // other, which the network layer looks at on its way out.
        // SAFETY: The route is valid; the pointers are written in one piece.
        let (output, tunnel) = unsafe {
            (
                (&raw const (*dst).output)
                    .read_volatile()
                    .ok_or(NoNextHop::Work)?,
                (&raw const (*dst).lwtstate).read_volatile(),
            )
        };
        let usual = if v4 {
            bindings::ip_output
        } else {
            bindings::ip6_output
        };
        if !tunnel.is_null() || !ptr::fn_addr_eq(output, usual as Output) {
            return Err(NoNextHop::Work);
        }
        if net.has_post_routing(v4, guard) {
            return Err(NoNextHop::PostRouting);
        }
        // SAFETY: The route is valid, and RCU keeps its device.
        let dev: &'a NetDevice = unsafe { NetDevice::from_raw(bindings::dst_dev_rcu(dst)) };
        if !dev.is_ethernet() {
            return Err(NoNextHop::Link);
        }
        let neighbour = NonNull::new(if v4 {
            self.neighbour_ipv4(dev)
        } else {
            self.neighbour_ipv6(dev)
        })
        .ok_or(NoNextHop::Neighbour)?;
        // SAFETY: It was found under RCU; the state is written in one piece.
        let state = unsafe { (&raw const (*neighbour.as_ptr()).nud_state).read_volatile() };
        if u32::from(state) & bindings::NUD_VALID == 0 {
            return Err(NoNextHop::Neighbour);
        }
        // INVARIANT: As just looked up, under RCU.
        Ok(NextHop {
            dst: self.into_dst(),
            dev,
            neighbour,
            always: if v4 { IPV4_MIN_MTU } else { IPV6_MIN_MTU },
        })
    }

    /// Index of the device that packets leave by.
    pub fn ifindex(&self, _guard: &rcu::Guard) -> u32 {
        // SAFETY: The route is valid, and RCU keeps its device.
        let dev: &NetDevice = unsafe { NetDevice::from_raw(bindings::dst_dev_rcu(self.as_raw())) };
        dev.ifindex()
    }

    /// The neighbour on this way by `dev`, which is the route's, or null. Under RCU.
    #[inline]
    fn neighbour_ipv4(&self, dev: &NetDevice) -> *mut bindings::neighbour {
        // CAST: The destination entry is the first field.
        let route = self.as_raw().cast::<bindings::rtable>();
        // SAFETY: It is the route of an IPv4 address; all variants of the union are numbers.
        let (family, gateway) =
            unsafe { ((*route).rt_gw_family, (*route).__bindgen_anon_1.rt_gw4) };
        let address = match u32::from(family) {
            bindings::AF_INET => gateway,
            // One that the route is connected to, where there is an address.
            0 => match self.destination().to_v4() {
                Some(octets) => u32::from_ne_bytes(octets),
                None => return ptr::null_mut(),
            },
            _ => return ptr::null_mut(),
        };
        // SAFETY: The device is valid, under RCU.
        unsafe { bindings::__ipv4_neigh_lookup_noref(dev.as_raw(), address) }
    }

    /// As [`Route::neighbour_ipv4`], for an IPv6 address.
    #[inline]
    fn neighbour_ipv6(&self, dev: &NetDevice) -> *mut bindings::neighbour {
        let destination = in6_addr(&self.destination());
        // CAST: The destination entry is the first field.
        // SAFETY: It is the route of an IPv6 address, so there is IPv6. The device is valid, under
        // RCU; the address is a local variable or the route's.
        unsafe {
            let next = bindings::rt6_nexthop(self.as_raw().cast(), &destination);
            bindings::__ipv6_neigh_lookup_noref(dev.as_raw(), next.cast())
        }
    }
}

/// What every link carries that the kernel lets have addresses: RFC 791 section 3.2, RFC 8200
/// section 5; `inetdev_valid_mtu()`, `addrconf_notify()`.
const IPV4_MIN_MTU: u32 = 68;
const IPV6_MIN_MTU: u32 = 1280;

type Output =
    unsafe extern "C" fn(*mut bindings::net, *mut bindings::sock, *mut bindings::sk_buff) -> c_int;

impl NextHop<'_> {
    /// Whether an arrived packet with these headers is not longer than what may go this way:
    /// [`Arrival::fits_mtu`]. Of the packets of clients, most are ACKs, which fit everywhere.
    #[inline]
    pub fn carries(&self, packet: &Arrival, parsed: &Parsed) -> bool {
        packet.len() <= self.always || packet.fits_mtu(self.dst.mtu(), parsed)
    }

    /// Hands an arrived packet, which has been readdressed and whose data starts at its IP header,
    /// to the queue of the device. With softirqs disabled.
    ///
    /// The packet is consumed. Errors: `ENOMEM`, or the stack's.
    #[inline]
    pub fn output(self, mut skb: SkBuff) -> Result {
        // SAFETY: The device is valid.
        let headroom = unsafe { bindings::LL_RESERVED_SPACE(self.dev.as_raw()) };
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
