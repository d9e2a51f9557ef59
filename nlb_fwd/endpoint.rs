// SPDX-License-Identifier: GPL-2.0

//! Hosts that serve the connections of a service.

use crate::{
    room::Room,
    scheduler::Candidate,
    stats::Traffic,
    uapi::{
        EndpointState,
        Forward, //
    },
    way::Way, //
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
use nlb::{
    sync::add32,
    wire::{
        addr::{
            Addr,
            FourTuple, //
        },
        carrier::Carrier,
        least,
        ports::Ports,
        slow_start::{
            self,
            STEPS, //
        }, //
    }, //
};
use nlb_tunnel::Target;

/// Largest weight, that of IPVS.
pub(crate) const MAX_WEIGHT: u32 = 65535;

/// What new connections an endpoint shall get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Share of them, while the endpoint is active.
    pub(crate) weight: u32,
    /// What may be sent to it at all.
    pub(crate) state: EndpointState,
    /// Active routes with which it gets no more, 0 for no limit.
    pub(crate) max_routes: u32,
    /// If it has had so many, it gets more when it has fewer than this, 0 for fewer than `max_routes`.
    pub(crate) resume_routes: u32,
    /// Whether it gets only those that no other endpoint can take.
    pub(crate) backup: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            weight: 1,
            state: EndpointState::Active,
            max_routes: 0,
            resume_routes: 0,
            backup: false,
        }
    }
}

/// What tells an endpoint from the others of its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) host: Addr,
    /// Its port; 0 for the one that packets are for anyway.
    pub(crate) port: u16,
}

impl Place {
    /// That of an endpoint of a service with these ports.
    pub(crate) fn new(host: Addr, port: Option<u16>, ports: &Ports) -> Self {
        let other = port.filter(|port| Some(*port) != ports.single());
        Self {
            host,
            port: other.unwrap_or(0),
        }
    }
}

/// How packets get to an endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Method {
    pub(crate) forward: Forward,
    /// The port of the host, where that is another one than they have.
    pub(crate) host_port: Option<u16>,
    /// What they travel in; where they do not, what they would without a route.
    pub(crate) carrier: Carrier,
}

/// A host, with its share of a service's new connections.
pub(crate) struct Endpoint {
    target: Arc<Target>,
    place: Place,
    forward: Forward,
    /// What the way of forwarding changes it to.
    host_port: Option<u16>,
    /// What packets travel in that are sent inside of others.
    carrier: Carrier,
    weight: Atomic<u32>,
    /// 0 or 1.
    backup: Atomic<u32>,
    /// Number of the [`EndpointState`], with [`DELETED`].
    state: Atomic<u32>,
    /// Jiffies at which its slow start began; 0 if it has none, or had one.
    since: Atomic<u64>,
    /// Of [`STEPS`], how much of its weight counts.
    step: Atomic<u32>,
    routes: Atomic<u32>,
    room: Room,
    /// Connections, packets and bytes since the endpoint was added.
    pub(crate) traffic: Traffic,
}

/// In an endpoint's state, that it is none of its service any more.
const DELETED: u32 = 1 << 8;

impl Endpoint {
    /// An endpoint without routes, of a service with these ports.
    pub(crate) fn new(
        target: Arc<Target>,
        Method {
            forward,
            host_port,
            carrier,
        }: Method,
        ports: &Ports,
        settings: Settings,
    ) -> Result<Arc<Self>> {
        Ok(Arc::new(
            Self {
                place: Place::new(target.host(), host_port, ports),
                target,
                forward,
                host_port,
                carrier,
                weight: Atomic::new(settings.weight),
                backup: Atomic::new(settings.backup.into()),
                state: Atomic::new(settings.state as u32),
                since: Atomic::new(0),
                step: Atomic::new(STEPS),
                routes: Atomic::new(0),
                room: Room::new(settings.max_routes, settings.resume_routes),
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

    /// The way of packets there, with nat from a port that is not chosen yet.
    pub(crate) fn way(&self) -> Way {
        match self.forward {
            Forward::Tunnel => Way::Tunnel,
            Forward::Direct => Way::Direct,
            Forward::Ipip | Forward::Gre | Forward::Gue => Way::Inside(self.carrier),
            Forward::HalfNat => Way::HalfNat,
            Forward::Nat => Way::Nat(0),
        }
    }

    /// The way there of packets for which nothing is remembered. Into the tunnel they would need a flow id:
    /// they go by IPIP instead, which the host takes from its forwarders. None if there is no such way.
    pub(crate) fn stateless_way(&self) -> Option<Way> {
        match self.forward {
            Forward::Tunnel | Forward::Ipip | Forward::Gre | Forward::Gue => {
                Some(Way::Inside(self.carrier))
            }
            Forward::Direct => Some(Way::Direct),
            Forward::HalfNat | Forward::Nat => None,
        }
    }

    /// What packets travel in that are sent inside of others.
    pub(crate) fn carrier(&self) -> Carrier {
        self.carrier
    }

    /// The host's port, if the way of forwarding makes it another one than the service's.
    #[inline]
    pub(crate) fn host_port(&self) -> Option<u16> {
        self.host_port
    }

    /// The host's port for a connection, if the way of forwarding may change it.
    pub(crate) fn port_of(&self, tuple: &FourTuple) -> Option<u16> {
        match self.forward {
            Forward::HalfNat | Forward::Nat => Some(self.host_port.unwrap_or(tuple.vip_port())),
            Forward::Tunnel | Forward::Direct | Forward::Ipip | Forward::Gre | Forward::Gue => None,
        }
    }

    /// What the packets have as addresses and ports that the host sends to `to` as answers to those of
    /// a connection, the host as client. None if the two are of different families.
    pub(crate) fn answers(&self, tuple: &FourTuple, to: (Addr, u16)) -> Option<FourTuple> {
        let port = self.host_port.unwrap_or(tuple.vip_port());
        FourTuple::new(self.host(), port, to.0, to.1, tuple.proto())
    }

    /// The host's address.
    pub(crate) fn host(&self) -> Addr {
        self.place.host
    }

    /// What tells it from the others of its service.
    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// What new connections it shall get.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            weight: self.weight.load(Relaxed),
            state: self.state(),
            max_routes: self.room.max(),
            resume_routes: self.room.resume(),
            backup: self.is_backup(),
        }
    }

    fn state(&self) -> EndpointState {
        EndpointState::from_u32(self.state.load(Relaxed) & !DELETED)
            .unwrap_or(EndpointState::Inactive)
    }

    /// Whether nothing may be sent to it.
    pub(crate) fn is_inactive(&self) -> bool {
        self.state() == EndpointState::Inactive
    }

    /// Whether it may get new connections.
    pub(crate) fn is_active(&self) -> bool {
        self.state() == EndpointState::Active
    }

    /// Changes that; the caller makes the service's schedule anew.
    pub(crate) fn set(&self, settings: Settings) {
        self.weight.store(settings.weight, Relaxed);
        self.room.set(settings.max_routes, settings.resume_routes);
        self.backup.store(settings.backup.into(), Relaxed);
        self.state.store(settings.state as u32, Relaxed);
    }

    /// Begins a slow start at `now` (jiffies).
    pub(crate) fn start(&self, now: u64) {
        self.since.store(now, Relaxed);
        self.step.store(1, Relaxed);
    }

    /// On which step the endpoint is at `now`, and on which it was when it was asked for the last
    /// time, if a slow start takes `period` jiffies.
    pub(crate) fn steps(&self, now: u64, period: u64) -> (u32, u32) {
        let step = match self.since.load(Relaxed) {
            0 => STEPS,
            since => slow_start::step(now.saturating_sub(since), period),
        };
        (step, self.step())
    }

    /// Takes the step; the caller makes the service's schedule anew.
    pub(crate) fn set_step(&self, step: u32) {
        // Who is there stays there, also if it takes longer from now on.
        if step == STEPS {
            self.since.store(0, Relaxed);
        }
        self.step.store(step, Relaxed);
    }

    /// Notes that the service gives the endpoint up, or, if that fails, that it does not.
    pub(crate) fn set_deleted(&self, deleted: bool) {
        let flag = if deleted { DELETED } else { 0 };
        self.state.store(self.state() as u32 | flag, Relaxed);
    }

    /// Routes that point here now.
    pub(crate) fn routes(&self) -> u32 {
        self.routes.load(Relaxed)
    }

    /// Those of them whose connection is not being closed.
    pub(crate) fn active(&self) -> u32 {
        self.room.active()
    }

    /// A route begins to point here.
    pub(crate) fn route_added(&self) {
        add32(&self.routes, 1);
    }

    /// A route that pointed here is gone.
    pub(crate) fn route_removed(&self) {
        self.routes.fetch_sub(1u32, Relaxed);
    }

    /// The connection of a route begins to be active.
    pub(crate) fn active_added(&self) {
        self.room.added();
    }

    /// The connection of a route is not active any more.
    pub(crate) fn active_removed(&self) {
        self.room.removed();
    }
}

impl Candidate for Endpoint {
    fn place(&self) -> Place {
        self.place
    }

    fn share(&self) -> u32 {
        match self.state() {
            EndpointState::Active => self.weight.load(Relaxed),
            EndpointState::Draining | EndpointState::Inactive => 0,
        }
    }

    fn step(&self) -> u32 {
        self.step.load(Relaxed)
    }

    fn is_backup(&self) -> bool {
        self.backup.load(Relaxed) != 0
    }

    fn has_room(&self) -> bool {
        self.room.is_there()
    }

    fn does_without_routes(&self) -> bool {
        self.stateless_way().is_some()
    }

    /// Weight 0 does not matter, as with IPVS: such an endpoint gets no new clients.
    fn keeps_clients(&self) -> bool {
        let is_active = self.state.load(Relaxed) == EndpointState::Active as u32;
        is_active && !self.is_backup() && self.has_room()
    }

    fn is_idle(&self) -> bool {
        self.active() == 0
    }

    fn load(&self) -> u64 {
        let active = self.active();
        // Neither is read at the same moment.
        least::load(active, self.routes().saturating_sub(active))
    }
}

#[kunit_tests(nlb_fwd_endpoint)]
mod tests {
    use super::*;

    #[test]
    fn the_own_port_of_a_service_is_one_place() -> Result {
        let host = Addr::v4([10, 0, 2, 2]);
        let at = |port, ports| Place::new(host, port, ports);
        let one = Ports::one(80);
        // Said, said by 0, or not said.
        assert_eq!(at(None, &one), at(Some(80), &one));
        assert_eq!(at(None, &one), at(Some(0), &one));
        assert!(at(None, &one) != at(Some(81), &one));
        assert!(at(Some(81), &one) != at(Some(8081), &one));
        let other = Addr::v4([10, 0, 2, 3]);
        assert!(at(None, &one) != Place::new(other, None, &one));
        // Of several, each packet has its own; one that is said is another place.
        let several = Ports::new(80, 89).ok_or(EINVAL)?;
        assert_eq!(at(None, &several), at(Some(0), &several));
        assert!(at(None, &several) != at(Some(80), &several));
        Ok(())
    }
}
