// SPDX-License-Identifier: GPL-2.0

//! The way from this machine to a host.

use kernel::{
    prelude::*,
    sync::Arc, //
};
use nlb::{
    errno::{
        EADDRNOTAVAIL,
        EAFNOSUPPORT,
        EHOSTUNREACH, //
    },
    net::{
        ip::{
            self,
            NextHop,
            Route,
            RouteCache, //
        },
        netfilter::HookState,
        skbuff::Arrival,
        Net, //
    },
    wire::addr::Addr, //
};

/// A host as the far end of the tunnel, with the address of this machine that it knows us by.
///
/// Made once for each endpoint or peer and shared by all its mappings, because it remembers the
/// route on every CPU.
pub struct Target {
    host: Addr,
    source: Addr,
    routes: RouteCache,
}

impl Target {
    /// The way to `host` from `source`, or from the address that routing chooses.
    pub(crate) fn new(net: &Net, host: Addr, source: Option<Addr>) -> Result<Arc<Self>> {
        let source = Self::source_to(net, host, source)?;
        let routes = RouteCache::new(source, host, GFP_ATOMIC)?;
        Self::with_routes(host, source, routes)
    }

    /// The way to `host`, a neighbour, for packets to anywhere.
    pub(crate) fn neighbour(net: &Net, host: Addr) -> Result<Arc<Self>> {
        let source = Self::source_to(net, host, None)?;
        Route::lookup_neighbour(net, Some(source), host).map_err(|_| EHOSTUNREACH)?;
        let routes = RouteCache::to_neighbour(source, host, GFP_ATOMIC)?;
        Self::with_routes(host, source, routes)
    }

    /// The source that packets to `host` have.
    fn source_to(net: &Net, host: Addr, source: Option<Addr>) -> Result<Addr> {
        if !host.is_unicast() {
            return Err(EINVAL);
        }
        Ok(match source {
            Some(source) if source.is_v4() != host.is_v4() => return Err(EAFNOSUPPORT.into()),
            Some(source) if !ip::is_local_address(net, &source) => {
                return Err(EADDRNOTAVAIL.into());
            }
            Some(source) => source,
            // A route by a device without an address has no source for us, nor has one by a device
            // with nothing but a link-local address one that passes a router.
            None => Route::lookup(net, None, host)
                .map(|route| route.source())
                .ok()
                .filter(|source| source.is_unicast())
                .ok_or(EHOSTUNREACH)?,
        })
    }

    fn with_routes(host: Addr, source: Addr, routes: RouteCache) -> Result<Arc<Self>> {
        Ok(Arc::new(
            Self {
                host,
                source,
                routes,
            },
            GFP_ATOMIC,
        )?)
    }

    /// The host's address, the destination of tunnel packets.
    #[inline]
    pub fn host(&self) -> Addr {
        self.host
    }

    /// The address of this machine, the source of tunnel packets.
    #[inline]
    pub fn source(&self) -> Addr {
        self.source
    }

    /// Whether the tunnel's packets from `host` to us have these addresses.
    pub(crate) fn is_between(&self, here: Addr, host: Addr) -> bool {
        self.source == here && self.host == host
    }

    /// The route, remembered by this CPU as long as it is valid. Errors: those of
    /// [`Route::lookup`].
    #[inline]
    pub fn route(&self, net: &Net) -> Result<Route> {
        self.routes.route(net)
    }

    /// The next hop on the route that this CPU remembers, if an arriving packet can be handed to it
    /// at once: see [`Route::next_hop`].
    #[inline(always)]
    pub fn next_hop<'a>(
        &'a self,
        state: &'a HookState<'_>,
        packet: &Arrival,
    ) -> Option<NextHop<'a>> {
        self.routes.next_hop(state.net(), state.rcu(), packet)
    }
}
