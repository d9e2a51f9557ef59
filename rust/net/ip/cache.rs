// SPDX-License-Identifier: GPL-2.0

//! Routes that are remembered.
//!
//! C header: [`include/net/dst_cache.h`](srctree/include/net/dst_cache.h)

use super::{
    super::{
        skbuff::Arrival,
        Net, //
    },
    in6_addr,
    route::Route, //
};
use crate::{
    alloc::gfp,
    bindings,
    sync::lock::BottomHalfDisabled,
    wire::addr::Addr, //
};
use core::cell::UnsafeCell;
use kernel::{
    alloc::Flags,
    error::to_result,
    prelude::*, //
};

/// The route between two addresses, remembered by every CPU for as long as it is valid.
///
/// # Invariants
///
/// The cache is initialised and has only routes to `destination`, and each CPU only uses its own part,
/// with softirqs off.
pub struct RouteCache {
    cache: UnsafeCell<bindings::dst_cache>,
    source: Option<Addr>,
    destination: Addr,
    neighbour: bool,
}

// SAFETY: By the type invariants, its parts are not used by two CPUs.
unsafe impl Send for RouteCache {}

// SAFETY: As above.
unsafe impl Sync for RouteCache {}

impl RouteCache {
    /// Makes a cache for packets to `destination`, from `source` or the address that routing
    /// prefers. Errors: `ENOMEM`.
    pub fn new(source: Option<Addr>, destination: Addr, flags: Flags) -> Result<Self> {
        Self::new_to(source, destination, false, flags)
    }

    /// As [`RouteCache::new`], of routes as [`Route::lookup_neighbour`] finds them.
    pub fn to_neighbour(source: Option<Addr>, destination: Addr, flags: Flags) -> Result<Self> {
        Self::new_to(source, destination, true, flags)
    }

    fn new_to(
        source: Option<Addr>,
        destination: Addr,
        neighbour: bool,
        flags: Flags,
    ) -> Result<Self> {
        let mut cache = bindings::dst_cache::default();
        // SAFETY: The structure is valid for writing, and can be moved afterwards: it has a pointer
        // to its parts, nothing points to it.
        to_result(unsafe { bindings::dst_cache_init(&mut cache, gfp(flags)) })?;
        // INVARIANT: As just done.
        Ok(Self {
            cache: UnsafeCell::new(cache),
            source,
            destination,
            neighbour,
        })
    }

    /// The route at the moment; the cached one if it is still valid. Any context but hard
    /// interrupts. Errors: those of [`Route::lookup`].
    #[inline]
    pub fn route(&self, net: &Net) -> Result<Route> {
        let _bh = BottomHalfDisabled::new();
        let route = match self.cached() {
            Some(route) => route,
            None => self.look_up(net)?,
        };
        if self.is_for_next_hop_only() {
            return Route::lookup_neighbour(net, self.source, self.destination);
        }
        Ok(route)
    }

    /// Whether what is cached is good for [`Route::next_hop`] only.
    ///
    /// The kernel makes the route of [`Route::lookup_neighbour`] for the one who asks. With IPv6, this
    /// one keeps the entry that it was made of, and that the device: it must not be kept, or the device
    /// could not be removed. The entry itself is given up by its owner.
    #[inline]
    fn is_for_next_hop_only(&self) -> bool {
        self.neighbour && !self.destination.is_v4()
    }

    /// The cached route if there is one and it is valid, for [`Route::next_hop`] of a packet that is just
    /// arriving.
    #[inline]
    pub fn route_at_hand(&self, _packet: &Arrival) -> Option<Route> {
        // Softirqs are off while it arrives.
        self.cached()
    }

    /// A new route, which is cached. Called with softirqs off.
    fn look_up(&self, net: &Net) -> Result<Route> {
        let (source, destination) = (self.source, self.destination);
        let route = match self.neighbour {
            _ if self.is_for_next_hop_only() => Route::lookup_on_link(net, source, destination, 0)?,
            true => Route::lookup_neighbour(net, source, destination)?,
            false => Route::lookup(net, source, destination)?,
        };
        match route.source().to_v4() {
            // SAFETY: By the type invariants; softirqs are off. The cache takes a reference of its
            // own.
            Some(source) => unsafe {
                bindings::dst_cache_set_ip4(
                    self.cache.get(),
                    route.as_raw(),
                    u32::from_ne_bytes(source),
                )
            },
            // SAFETY: As above; the address is copied.
            None => unsafe {
                bindings::dst_cache_set_ip6(
                    self.cache.get(),
                    route.as_raw(),
                    &in6_addr(&route.source()),
                )
            },
        }
        Ok(route)
    }

    /// What this CPU has in the cache, if it is valid. Called with softirqs off.
    #[inline]
    fn cached(&self) -> Option<Route> {
        if self.destination.is_v4() {
            let mut source = 0;
            // SAFETY: By the type invariants; softirqs are off.
            let route = unsafe { bindings::dst_cache_get_ip4(self.cache.get(), &mut source) };
            let source = Addr::v4(source.to_ne_bytes());
            // CAST: As in `Route::lookup_ipv4`.
            // SAFETY: The reference that was returned is handed over.
            return unsafe { Route::from_raw(route.cast(), source, self.destination) }.ok();
        }
        let mut source = bindings::in6_addr::default();
        // SAFETY: By the type invariants; softirqs are off.
        let dst = unsafe { bindings::dst_cache_get_ip6(self.cache.get(), &mut source) };
        // SAFETY: All variants of the union are plain bytes.
        let source = Addr::v6(unsafe { source.in6_u.u6_addr8 });
        // SAFETY: The reference that was returned is handed over.
        unsafe { Route::from_raw(dst, source, self.destination) }.ok()
    }
}

impl Drop for RouteCache {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, and nobody uses it any more.
        unsafe { bindings::dst_cache_destroy(self.cache.get()) };
    }
}
