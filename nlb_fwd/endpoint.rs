// SPDX-License-Identifier: GPL-2.0

//! Hosts that serve the connections of a service.

use crate::{
    scheduler::Candidate,
    stats::Traffic, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
};
use nlb::wire::{
    addr::Addr,
    least, //
};
use nlb_tunnel::Target;

/// A host, with its share of a service's new connections.
pub(crate) struct Endpoint {
    target: Arc<Target>,
    weight: Atomic<u32>,
    routes: Atomic<u32>,
    active: Atomic<u32>,
    /// Connections, packets and bytes since the endpoint was added.
    pub(crate) traffic: Traffic,
}

impl Endpoint {
    /// An endpoint without routes.
    pub(crate) fn new(target: Arc<Target>, weight: u32) -> Result<Arc<Self>> {
        Ok(Arc::new(
            Self {
                target,
                weight: Atomic::new(weight),
                routes: Atomic::new(0),
                active: Atomic::new(0),
                traffic: Traffic::new()?,
            },
            GFP_KERNEL,
        )?)
    }

    /// The way to the host.
    pub(crate) fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// The host's address.
    pub(crate) fn host(&self) -> Addr {
        self.target.host()
    }

    /// Share of new connections.
    pub(crate) fn weight(&self) -> u32 {
        self.weight.load(Relaxed)
    }

    /// Changes the share; the caller makes the service's schedule anew.
    pub(crate) fn set_weight(&self, weight: u32) {
        self.weight.store(weight, Relaxed);
    }

    /// Routes that point here now.
    pub(crate) fn routes(&self) -> u32 {
        self.routes.load(Relaxed)
    }

    /// Those of them whose connection is not being closed.
    pub(crate) fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }

    /// A route begins to point here.
    pub(crate) fn route_added(&self) {
        self.routes.fetch_add(1u32, Relaxed);
    }

    /// A route that pointed here is gone.
    pub(crate) fn route_removed(&self) {
        self.routes.fetch_sub(1u32, Relaxed);
    }

    /// The connection of a route begins to be active.
    pub(crate) fn active_added(&self) {
        self.active.fetch_add(1u32, Relaxed);
    }

    /// The connection of a route is not active any more.
    pub(crate) fn active_removed(&self) {
        self.active.fetch_sub(1u32, Relaxed);
    }
}

impl Candidate for Endpoint {
    fn host(&self) -> Addr {
        self.host()
    }

    fn share(&self) -> u32 {
        self.weight()
    }

    fn load(&self) -> u64 {
        let active = self.active();
        // Neither is read at the same moment.
        least::load(active, self.routes().saturating_sub(active))
    }
}
