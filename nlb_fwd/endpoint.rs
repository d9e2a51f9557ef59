// SPDX-License-Identifier: GPL-2.0

//! Hosts that serve the connections of a service.

use crate::{
    scheduler::Candidate,
    stats::Traffic,
    uapi::{
        EndpointState,
        Forward, //
    }, //
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
    addr::{
        Addr,
        FourTuple,
        Proto, //
    },
    least, //
};
use nlb_tunnel::Target;

/// A host, with its share of a service's new connections.
pub(crate) struct Endpoint {
    target: Arc<Target>,
    forward: Forward,
    /// Where the way of forwarding changes it.
    host_port: u16,
    weight: Atomic<u32>,
    /// Number of the [`EndpointState`].
    state: Atomic<u32>,
    routes: Atomic<u32>,
    active: Atomic<u32>,
    /// Connections, packets and bytes since the endpoint was added.
    pub(crate) traffic: Traffic,
}

impl Endpoint {
    /// An endpoint without routes.
    pub(crate) fn new(
        target: Arc<Target>,
        (forward, host_port): (Forward, u16),
        weight: u32,
        state: EndpointState,
    ) -> Result<Arc<Self>> {
        Ok(Arc::new(
            Self {
                target,
                forward,
                host_port,
                weight: Atomic::new(weight),
                state: Atomic::new(state as u32),
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

    /// How packets get to the host.
    pub(crate) fn forward(&self) -> Forward {
        self.forward
    }

    /// The host's port, where the way of forwarding changes it.
    pub(crate) fn host_port(&self) -> u16 {
        self.host_port
    }

    /// What the packets have as addresses and ports that the host sends to `to` as answers, the
    /// host as client. None if the two are of different families.
    pub(crate) fn answers(&self, to: (Addr, u16), proto: Proto) -> Option<FourTuple> {
        FourTuple::new(self.host(), self.host_port, to.0, to.1, proto)
    }

    /// The host's address.
    pub(crate) fn host(&self) -> Addr {
        self.target.host()
    }

    /// Share of new connections, while the endpoint is active.
    pub(crate) fn weight(&self) -> u32 {
        self.weight.load(Relaxed)
    }

    /// What may be sent to the endpoint.
    pub(crate) fn state(&self) -> EndpointState {
        EndpointState::from_u32(self.state.load(Relaxed)).unwrap_or(EndpointState::Inactive)
    }

    /// Whether nothing may be sent to it.
    pub(crate) fn is_inactive(&self) -> bool {
        self.state() == EndpointState::Inactive
    }

    /// Changes weight and state; the caller makes the service's schedule anew.
    pub(crate) fn set(&self, weight: u32, state: EndpointState) {
        self.weight.store(weight, Relaxed);
        self.state.store(state as u32, Relaxed);
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
        match self.state() {
            EndpointState::Active => self.weight(),
            EndpointState::Draining | EndpointState::Inactive => 0,
        }
    }

    fn load(&self) -> u64 {
        let active = self.active();
        // Neither is read at the same moment.
        least::load(active, self.routes().saturating_sub(active))
    }
}
