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
            Route,
            RouteCache, //
        },
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
    host4: [u8; 4],
    source4: [u8; 4],
    routes: RouteCache,
}

impl Target {
    /// The way to `host` from `source`, or from the address that routing chooses.
    pub(crate) fn new(net: &Net, host: Addr, source: Option<Addr>) -> Result<Arc<Self>> {
        let host4 = host.to_v4().ok_or(EAFNOSUPPORT)?;
        if !host.is_unicast() {
            return Err(EINVAL);
        }
        let source4 = match source {
            Some(source) => {
                let source4 = source.to_v4().ok_or(EAFNOSUPPORT)?;
                if !ip::is_local_address(net, source4) {
                    return Err(EADDRNOTAVAIL.into());
                }
                source4
            }
            // A route by a device without an address has no source for us.
            None => Route::lookup(net, None, host4)
                .map(|route| route.source())
                .ok()
                .filter(|source| *source != [0; 4])
                .ok_or(EHOSTUNREACH)?,
        };
        Ok(Arc::new(
            Self {
                host,
                source: Addr::v4(source4),
                host4,
                source4,
                routes: RouteCache::new(Some(source4), host4, GFP_ATOMIC)?,
            },
            GFP_ATOMIC,
        )?)
    }

    /// The host's address, the destination of tunnel packets.
    pub fn host(&self) -> Addr {
        self.host
    }

    /// The address of this machine, the source of tunnel packets.
    pub fn source(&self) -> Addr {
        self.source
    }

    /// Both as they stand in an IPv4 header: source, host.
    #[inline]
    pub(crate) fn octets(&self) -> ([u8; 4], [u8; 4]) {
        (self.source4, self.host4)
    }

    /// The route, remembered by this CPU as long as it is valid.
    #[inline]
    pub(crate) fn route(&self, net: &Net) -> Result<Route> {
        self.routes.route(net)
    }
}
