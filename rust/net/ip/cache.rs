// SPDX-License-Identifier: GPL-2.0

//! Routes that are remembered.
//!
//! As [`net/core/dst_cache.c`](srctree/net/core/dst_cache.c) does it, which takes and gives back a reference
//! for each packet. One that is handed to a neighbour at once needs none.

use super::{
    super::{
        skbuff::Arrival,
        Net, //
    },
    dst::Dst,
    next_hop::NextHop,
    route::Route, //
};
use crate::{
    bindings,
    sync::{
        lock::BottomHalfDisabled,
        percpu::PerCpuWords, //
    },
    wire::addr::Addr, //
};
use core::ptr::NonNull;
use kernel::{
    alloc::Flags,
    prelude::*,
    sync::rcu, //
};

/// The route between two addresses, remembered by every CPU for as long as it is valid.
///
/// # Invariants
///
/// Each CPU's word [`DST`] is 0, or a reference to the destination entry of a route to `destination`
/// that the cache owns, and [`COOKIE`] says when that was found. They are used with softirqs off, so by
/// one at a time.
pub struct RouteCache {
    words: PerCpuWords<2>,
    source: Addr,
    destination: Addr,
    neighbour: bool,
}

/// Whether others on this CPU may come in between while softirqs are off: then nothing is remembered.
const PREEMPTED: bool = cfg!(CONFIG_PREEMPT_RT);

const DST: usize = 0;
const COOKIE: usize = 1;

impl RouteCache {
    /// Makes a cache for packets from `source` to `destination`. Errors: `ENOMEM`.
    pub fn new(source: Addr, destination: Addr, flags: Flags) -> Result<Self> {
        Self::new_to(source, destination, false, flags)
    }

    /// As [`RouteCache::new`], of routes as [`Route::lookup_neighbour`] finds them.
    pub fn to_neighbour(source: Addr, destination: Addr, flags: Flags) -> Result<Self> {
        Self::new_to(source, destination, true, flags)
    }

    fn new_to(source: Addr, destination: Addr, neighbour: bool, flags: Flags) -> Result<Self> {
        // INVARIANT: The words are 0.
        Ok(Self {
            words: PerCpuWords::new(flags)?,
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
        let guard = rcu::Guard::new();
        let route = match self.cached(&guard).and_then(|dst| self.hold(dst)) {
            Some(route) => route,
            None => self.look_up(net)?,
        };
        if self.is_for_next_hop_only() {
            return Route::lookup_neighbour(net, Some(self.source), self.destination);
        }
        Ok(route)
    }

    /// Whether what is cached is good for [`RouteCache::next_hop`] only.
    ///
    /// The kernel makes the route of [`Route::lookup_neighbour`] for the one who asks. With IPv6, this
    /// one keeps the entry that it was made of, and that the device: it must not be kept, or the device
    /// could not be removed. The entry itself is given up by its owner.
    #[inline]
    fn is_for_next_hop_only(&self) -> bool {
        self.neighbour && !self.destination.is_v4()
    }

    /// The next hop on the cached route, if there is one and it is valid, for a packet that is just
    /// arriving: see [`Route::next_hop`].
    #[inline(always)]
    pub fn next_hop<'a>(
        &'a self,
        net: &'a Net,
        guard: &'a rcu::Guard,
        _packet: &Arrival,
    ) -> Option<NextHop<'a>> {
        // Softirqs are off while it arrives.
        let dst = self.cached(guard)?;
        // SAFETY: It is that of a route to there. The cache has a reference, which is given back by nobody
        // but who asks the cache again on this CPU, and that is not done while a packet is handed over.
        unsafe { NextHop::new(dst, self.destination, net, guard) }.ok()
    }

    /// The route with a destination entry that was just found in the cache, under RCU.
    #[inline]
    fn hold(&self, dst: NonNull<bindings::dst_entry>) -> Option<Route> {
        // SAFETY: The cache had a reference when it was found, to that of a route between these.
        Some(unsafe { Route::from_dst(Dst::hold(dst)?, self.source, self.destination) })
    }

    /// A new route, which is cached. Called with softirqs off.
    fn look_up(&self, net: &Net) -> Result<Route> {
        let (source, destination) = (Some(self.source), self.destination);
        let route = match self.neighbour {
            _ if self.is_for_next_hop_only() => Route::lookup_on_link(net, source, destination, 0)?,
            true => Route::lookup_neighbour(net, source, destination)?,
            false => Route::lookup(net, source, destination)?,
        };
        let cookie = match destination.is_v4() {
            true => 0,
            // SAFETY: It is the route of an IPv6 address, whose first field the entry is.
            false => unsafe { bindings::rt6_get_cookie(route.as_raw().cast()) },
        };
        if !PREEMPTED {
            // SAFETY: The route has a reference.
            let dst = unsafe { Dst::hold(route.dst().as_non_null()) };
            self.words.replace(COOKIE, cookie.into());
            self.put(dst);
        }
        Ok(route)
    }

    /// What this CPU has in the cache, if it is valid: `dst_check()`. Called with softirqs off. It stays
    /// until this CPU asks again.
    #[inline(always)]
    fn cached(&self, _guard: &rcu::Guard) -> Option<NonNull<bindings::dst_entry>> {
        if PREEMPTED {
            return None;
        }
        let dst = NonNull::new(self.words.get(DST) as *mut bindings::dst_entry)?;
        // SAFETY: By the type invariants, it is valid; the number is written in one piece.
        if unsafe { (&raw const (*dst.as_ptr()).obsolete).read_volatile() } != 0 {
            // CAST: As it was set.
            let cookie = self.words.get(COOKIE) as u32;
            // SAFETY: As above; its operations are those of its family, and do not change.
            let valid = unsafe {
                let check = (*(*dst.as_ptr()).ops).check?;
                check(dst.as_ptr(), cookie)
            };
            if valid.is_null() {
                self.put(None);
                return None;
            }
        }
        Some(dst)
    }

    /// Replaces what this CPU has. Called with softirqs off.
    #[cold]
    fn put(&self, dst: Option<Dst>) {
        let new = dst.map_or(0, |dst| dst.into_raw().as_ptr() as u64);
        // INVARIANT: The reference is handed over.
        let old = self.words.replace(DST, new) as *mut bindings::dst_entry;
        // SAFETY: By the type invariants, it was null or ours.
        drop(unsafe { Dst::from_raw(old) });
    }
}

impl Drop for RouteCache {
    fn drop(&mut self) {
        for dst in self.words.all(DST) {
            // SAFETY: By the type invariants, it is null or ours, and nobody uses it any more.
            drop(unsafe { Dst::from_raw(dst as *mut bindings::dst_entry) });
        }
    }
}
