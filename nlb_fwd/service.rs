// SPDX-License-Identifier: GPL-2.0

//! Services: what is balanced.

use crate::{
    affinity::Affinity,
    allotment::Allotment,
    endpoint::{
        Endpoint,
        Place,
        Settings, //
    },
    scheduler::{
        Candidate,
        NoEndpoint,
        Schedule, //
    },
    stateless::{
        HalfOpen,
        Stateless, //
    },
    stats::Traffic,
    uapi::{
        Forward,
        Scheduler,
        ServiceMode, //
    }, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        rcu,
        Arc, //
    },
};
use nlb::{
    errno::ENOTUNIQ,
    sync::{
        add32,
        family_table::{
            ByFamily,
            FamilyKey, //
        },
        rcu::RcuCell,
        read_once, //
    },
    time,
    wire::{
        addr::{
            Addr,
            FourTuple,
            Proto, //
        },
        ports::Ports,
        slow_start,
        tcp_state::{
            State,
            Timeouts as DefaultTimeouts, //
        },
    },
};

/// Endpoints that a service may have.
pub(crate) const MAX_ENDPOINTS: usize = 1024;

/// What identifies a service.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ServiceKey {
    /// The virtual address.
    pub(crate) vip: Addr,
    /// The port, or ports.
    pub(crate) ports: Ports,
    /// The protocol.
    pub(crate) proto: Proto,
}

/// In a key's word, that the service has more than one port.
const WIDE: u32 = 1 << 7;

impl ServiceKey {
    /// The service of a connection's own port.
    #[inline]
    pub(crate) fn of(tuple: &FourTuple) -> Self {
        Self {
            vip: tuple.vip(),
            ports: Ports::one(tuple.vip_port()),
            proto: tuple.proto(),
        }
    }

    /// What tells services of one VIP apart, in the lower 24 bits: the first port and the protocol. Those
    /// with several ports do not overlap, but for the one that has all, which begins where none else
    /// can.
    #[inline]
    pub(crate) fn word(&self) -> u32 {
        let wide = match self.ports.single() {
            Some(_) => 0,
            None if self.ports.is_all() => return u32::from(self.proto.number()) | WIDE,
            None => WIDE,
        };
        u32::from(self.ports.first()) << 8 | u32::from(self.proto.number()) | wide
    }
}

impl FamilyKey for ServiceKey {
    type V4 = u64;
    type V6 = [u32; 5];

    #[inline]
    fn by_family(&self) -> ByFamily<u64, [u32; 5]> {
        let service = self.word();
        match self.vip.to_v4() {
            Some(octets) => {
                let vip = u32::from_be_bytes(octets);
                ByFamily::V4(u64::from(vip) << 32 | u64::from(service))
            }
            None => {
                let [a, b, c, d] = self.vip.words();
                ByFamily::V6([a, b, c, d, service])
            }
        }
    }
}

/// What somebody wants of a service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    /// What happens to new connections.
    pub(crate) mode: ServiceMode,
    /// The port on which the classifier listens, if not the service's own.
    pub(crate) classifier: Option<u16>,
    /// How the kernel picks the endpoint.
    pub(crate) scheduler: Scheduler,
    /// For how long clients go to one endpoint.
    pub(crate) affinity: Affinity,
    /// Seconds that a slow start takes, 0 for none.
    pub(crate) slow_start: u32,
    /// How long its routes are kept.
    pub(crate) timeouts: Timeouts,
    /// Milliseconds for which packets from the middle of unknown connections wait for an answer, 0
    /// for not at all.
    pub(crate) miss_timeout: u32,
    /// Whether each datagram is scheduled by itself.
    pub(crate) one_packet: bool,
}

/// How long routes are kept after their last packet, in seconds; 0 for what is usual.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timeouts {
    /// Of established connections and UDP flows.
    pub(crate) idle: u32,
    /// Of connections that are being closed.
    pub(crate) fin: u32,
    /// Of connections that are being opened.
    pub(crate) syn: u32,
}

/// What the endpoints of a service do that have a slow start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SlowStarts {
    /// One has come to another step.
    pub(crate) due: bool,
    /// One is on the way.
    pub(crate) under_way: bool,
}

/// A service.
pub(crate) struct Service {
    key: ServiceKey,
    mode: ServiceMode,
    classifier: Option<u16>,
    /// Number of the [`Scheduler`].
    scheduler: Atomic<u32>,
    /// See [`Affinity`].
    affinity_timeout: Atomic<u32>,
    affinity_prefix: Atomic<u32>,
    slow_start: Atomic<u32>,
    /// See [`Timeouts`].
    idle_timeout: Atomic<u32>,
    fin_timeout: Atomic<u32>,
    syn_timeout: Atomic<u32>,
    miss_timeout: Atomic<u32>,
    /// 0 or 1.
    one_packet: Atomic<u32>,
    schedule: RcuCell<Schedule<Endpoint>>,
    allotment: RcuCell<Allotment<Endpoint>>,
    turn: Atomic<u32>,
    routes: Atomic<u32>,
    /// Those of the namespace, of which this service's are a part.
    pub(crate) half_open: Arc<HalfOpen>,
    pub(crate) stateless: Stateless,
    /// Connections, packets and bytes since the service was added.
    pub(crate) traffic: Traffic,
}

impl Service {
    /// A service without endpoints.
    pub(crate) fn new(
        key: ServiceKey,
        config: Config,
        half_open: &Arc<HalfOpen>,
    ) -> Result<Arc<Self>> {
        Ok(Arc::new(
            Self {
                key,
                mode: config.mode,
                classifier: config.classifier,
                scheduler: Atomic::new(config.scheduler as u32),
                affinity_timeout: Atomic::new(config.affinity.timeout),
                affinity_prefix: Atomic::new(config.affinity.prefix.into()),
                slow_start: Atomic::new(config.slow_start),
                idle_timeout: Atomic::new(config.timeouts.idle),
                fin_timeout: Atomic::new(config.timeouts.fin),
                syn_timeout: Atomic::new(config.timeouts.syn),
                miss_timeout: Atomic::new(config.miss_timeout),
                one_packet: Atomic::new(config.one_packet.into()),
                schedule: RcuCell::new(Some(Schedule::new(config.scheduler, KVec::new(), false)?)),
                allotment: RcuCell::new(None),
                turn: Atomic::new(0),
                routes: Atomic::new(0),
                half_open: half_open.clone(),
                stateless: Stateless::new(),
                traffic: Traffic::new()?,
            },
            GFP_KERNEL,
        )?)
    }

    /// What identifies the service.
    pub(crate) fn key(&self) -> &ServiceKey {
        &self.key
    }

    /// What happens to new connections.
    pub(crate) fn mode(&self) -> ServiceMode {
        self.mode
    }

    /// The port on which the classifier listens, if not the service's own.
    pub(crate) fn classifier(&self) -> Option<u16> {
        self.classifier
    }

    /// How the kernel picks the endpoint.
    pub(crate) fn scheduler(&self) -> Scheduler {
        Scheduler::from_u32(self.scheduler.load(Relaxed)).unwrap_or(Scheduler::Wrr)
    }

    /// For how long clients go to one endpoint.
    pub(crate) fn affinity(&self) -> Affinity {
        let prefix = read_once(&self.affinity_prefix);
        Affinity {
            timeout: read_once(&self.affinity_timeout),
            prefix: u8::try_from(prefix).unwrap_or(u8::MAX),
        }
    }

    /// Changes that. Who reads a part as it was before does no harm: a prefix is in the keys.
    pub(crate) fn set_affinity(&self, affinity: Affinity) {
        self.affinity_prefix.store(affinity.prefix.into(), Relaxed);
        self.affinity_timeout.store(affinity.timeout, Relaxed);
    }

    /// Seconds that a slow start takes, 0 for none.
    pub(crate) fn slow_start(&self) -> u32 {
        self.slow_start.load(Relaxed)
    }

    /// Changes that, for the endpoints that come from now on and those that are on the way.
    pub(crate) fn set_slow_start(&self, seconds: u32) {
        self.slow_start.store(seconds, Relaxed);
    }

    /// How long its routes are kept.
    pub(crate) fn timeouts(&self) -> Timeouts {
        Timeouts {
            idle: self.idle_timeout.load(Relaxed),
            fin: self.fin_timeout.load(Relaxed),
            syn: self.syn_timeout.load(Relaxed),
        }
    }

    /// Seconds for which a connection without a packet is remembered.
    pub(crate) fn idle_timeout(&self) -> u32 {
        let state = match self.key.proto {
            Proto::Tcp => State::Established,
            Proto::Udp => State::Udp,
        };
        match self.timeouts().idle {
            0 => DefaultTimeouts::DEFAULT.of(state),
            seconds => seconds,
        }
    }

    /// Changes that, for the routes there are, too.
    pub(crate) fn set_timeouts(&self, timeouts: Timeouts) {
        self.idle_timeout.store(timeouts.idle, Relaxed);
        self.fin_timeout.store(timeouts.fin, Relaxed);
        self.syn_timeout.store(timeouts.syn, Relaxed);
        self.idle_changed();
    }

    /// Milliseconds for which packets from the middle of unknown connections wait for an answer, 0
    /// for not at all.
    pub(crate) fn miss_timeout(&self) -> u32 {
        self.miss_timeout.load(Relaxed)
    }

    /// Changes that, for what is asked from now on.
    pub(crate) fn set_miss_timeout(&self, ms: u32) {
        self.miss_timeout.store(ms, Relaxed);
    }

    /// Whether each datagram is scheduled by itself, and leaves no route.
    #[inline]
    pub(crate) fn is_one_packet(&self) -> bool {
        read_once(&self.one_packet) != 0
    }

    /// Changes that. Flows that have a route keep it.
    pub(crate) fn set_one_packet(&self, one_packet: bool) {
        self.one_packet.store(one_packet.into(), Relaxed);
    }

    /// Routes of the service now.
    pub(crate) fn routes(&self) -> u32 {
        self.routes.load(Relaxed)
    }

    /// A route of the service is made.
    pub(crate) fn route_added(&self) {
        add32(&self.routes, 1);
    }

    /// A route of the service is gone.
    pub(crate) fn route_removed(&self) {
        self.routes.fetch_sub(1u32, Relaxed);
    }

    /// The endpoints, in the order they were added.
    pub(crate) fn endpoints<'a>(&'a self, guard: &'a rcu::Guard) -> &'a [Arc<Endpoint>] {
        self.schedule
            .get(guard)
            .map_or(&[], |schedule| schedule.endpoints())
    }

    /// The endpoint at `host` with this port, 0 for the service's own; if none is said, the only one there.
    /// `ENOENT`; `ENOTUNIQ` if there are several.
    pub(crate) fn endpoint(&self, host: Addr, port: Option<u16>) -> Result<Arc<Endpoint>> {
        let place = port.map(|_| Place::new(host, port, &self.key.ports));
        let is_it = |endpoint: &&Arc<Endpoint>| match place {
            Some(place) => endpoint.place() == place,
            None => endpoint.host() == host,
        };
        let guard = rcu::read_lock();
        let mut found = self.endpoints(&guard).iter().filter(is_it);
        let first = found.next().ok_or(ENOENT)?;
        match found.next() {
            None => Ok(first.clone()),
            Some(_) => Err(ENOTUNIQ.into()),
        }
    }

    /// The endpoint that a migration to `host` is for: the one that the tunnel leads to, else one that takes
    /// connections.
    pub(crate) fn endpoint_of_migrations(&self, host: Addr) -> Option<Arc<Endpoint>> {
        let guard = rcu::read_lock();
        let own = self.endpoints(&guard).iter();
        own.filter(|endpoint| endpoint.host() == host)
            .min_by_key(|one| (one.forward() != Forward::Tunnel, !one.is_active()))
            .cloned()
    }

    /// The endpoint at a host that packets go to by the tunnel, unless nothing may be sent there.
    pub(crate) fn endpoint_by_tunnel(&self, host: Addr) -> Option<Arc<Endpoint>> {
        self.endpoint_of_migrations(host)
            .filter(|endpoint| endpoint.forward() == Forward::Tunnel && !endpoint.is_inactive())
    }

    /// Which endpoints get the next connections, if somebody has said so.
    pub(crate) fn allotment<'a>(
        &'a self,
        guard: &'a rcu::Guard,
    ) -> Option<&'a Allotment<Endpoint>> {
        self.allotment.get(guard)
    }

    /// Replaces that. Waits for readers; the caller excludes other changes.
    pub(crate) fn set_allotment(&self, allotment: Option<Arc<Allotment<Endpoint>>>) {
        self.allotment.replace(allotment);
    }

    /// The endpoint for a new connection, by the scheduler.
    pub(crate) fn pick<'a>(
        &'a self,
        guard: &'a rcu::Guard,
        tuple: &FourTuple,
    ) -> Result<&'a Arc<Endpoint>, NoEndpoint> {
        let schedule = self.schedule.get(guard).ok_or(NoEndpoint::Nobody)?;
        schedule.pick(&self.turn, tuple)
    }

    /// As [`Service::pick`], for a connection that there is not.
    pub(crate) fn would_pick<'a>(
        &'a self,
        guard: &'a rcu::Guard,
        tuple: &FourTuple,
    ) -> Result<&'a Arc<Endpoint>, NoEndpoint> {
        let schedule = self.schedule.get(guard).ok_or(NoEndpoint::Nobody)?;
        schedule.would_pick(&self.turn, tuple)
    }

    /// The endpoint that the scheduler always names for this connection, if it goes by a hash.
    pub(crate) fn hashed<'a>(
        &'a self,
        guard: &'a rcu::Guard,
        tuple: &FourTuple,
    ) -> Option<&'a Arc<Endpoint>> {
        match self.scheduler() {
            Scheduler::Mh | Scheduler::Sh => self.would_pick(guard, tuple).ok(),
            _ => None,
        }
    }

    /// The endpoint for a connection without a route: see [`Schedule::pick_by_hash`].
    pub(crate) fn pick_by_hash<'a>(
        &'a self,
        guard: &'a rcu::Guard,
        tuple: &FourTuple,
    ) -> Option<&'a Arc<Endpoint>> {
        self.schedule.get(guard)?.pick_by_hash(tuple)
    }

    /// Whether no endpoint takes connections, be there room or not.
    pub(crate) fn takes_nothing(&self, guard: &rcu::Guard, tuple: &FourTuple) -> bool {
        matches!(self.would_pick(guard, tuple), Err(NoEndpoint::Nobody))
    }

    /// Replaces the schedule. Waits for readers; the caller excludes other changes.
    fn set_schedule(&self, scheduler: Scheduler, endpoints: KVec<Arc<Endpoint>>) -> Result {
        let schedule = Schedule::new(scheduler, endpoints, self.stateless.has_table())?;
        self.schedule.replace(Some(schedule));
        Ok(())
    }

    /// Replaces the endpoints. As above.
    fn set_endpoints(&self, endpoints: KVec<Arc<Endpoint>>) -> Result {
        self.set_schedule(self.scheduler(), endpoints)
    }

    /// Makes the schedule anew. As above.
    pub(crate) fn refresh(&self) -> Result {
        self.set_endpoints(self.copy_endpoints(None)?)
    }

    /// Changes the scheduler. As with changes of endpoints.
    pub(crate) fn set_scheduler(&self, scheduler: Scheduler) -> Result {
        self.set_schedule(scheduler, self.copy_endpoints(None)?)?;
        self.scheduler.store(scheduler as u32, Relaxed);
        Ok(())
    }

    /// The endpoints but `without`, with room for one more.
    fn copy_endpoints(&self, without: Option<&Endpoint>) -> Result<KVec<Arc<Endpoint>>> {
        // The caller excludes changes, so there will not be more of them.
        let count = self.endpoints(&rcu::read_lock()).len();
        let mut copy = KVec::with_capacity(count.saturating_add(1), GFP_KERNEL)?;
        let guard = rcu::read_lock();
        for endpoint in self.endpoints(&guard) {
            if without.is_none_or(|without| endpoint.place() != without.place()) {
                copy.push_within_capacity(endpoint.clone())
                    .map_err(|_| ENOMEM)?;
            }
        }
        Ok(copy)
    }

    /// Adds an endpoint. `EEXIST` if its host has one with this port, `ENOSPC` if there are too many.
    ///
    /// Like all changes of endpoints, waits for readers, and the caller excludes other changes.
    pub(crate) fn add_endpoint(&self, endpoint: Arc<Endpoint>) -> Result {
        let Place { host, port } = endpoint.place();
        if self.endpoint(host, Some(port)).is_ok() {
            return Err(EEXIST);
        }
        let mut endpoints = self.copy_endpoints(None)?;
        if endpoints.len() >= MAX_ENDPOINTS {
            return Err(ENOSPC);
        }
        if self.slow_start() > 0 {
            endpoint.start(time::jiffies());
        }
        endpoints.push(endpoint, GFP_KERNEL)?;
        self.set_endpoints(endpoints)
    }

    /// Changes what an endpoint of this service gets. When this returns, no packet sees it as it was.
    pub(crate) fn set_endpoint(&self, endpoint: &Endpoint, settings: Settings) -> Result {
        let before = endpoint.settings();
        let (had_share, step) = (endpoint.share() > 0, endpoint.step());
        endpoint.set(settings);
        if self.slow_start() > 0 && !had_share && endpoint.share() > 0 {
            endpoint.start(time::jiffies());
        }
        let result = self.refresh();
        if result.is_err() {
            endpoint.set(before);
            endpoint.set_step(step);
        }
        result
    }

    /// Whether an endpoint's slow start has come to another step at `now` (jiffies), and whether one is
    /// on the way.
    pub(crate) fn slow_starts(&self, guard: &rcu::Guard, now: u64) -> SlowStarts {
        let period = u64::from(self.slow_start()).saturating_mul(time::HZ);
        let mut all = SlowStarts::default();
        for endpoint in self.endpoints(guard) {
            let (step, before) = endpoint.steps(now, period);
            all.due |= step != before;
            all.under_way |= before < slow_start::STEPS;
        }
        all
    }

    /// Has the endpoints take their steps. As with changes of endpoints.
    pub(crate) fn step(&self, now: u64) -> Result {
        let period = u64::from(self.slow_start()).saturating_mul(time::HZ);
        let endpoints = self.copy_endpoints(None)?;
        for endpoint in &endpoints {
            let (step, _) = endpoint.steps(now, period);
            endpoint.set_step(step);
        }
        self.set_endpoints(endpoints)
    }

    /// Removes an endpoint of this service. Routes to it stay.
    pub(crate) fn remove_endpoint(&self, endpoint: &Endpoint) -> Result {
        let endpoints = self.copy_endpoints(Some(endpoint))?;
        endpoint.set_deleted(true);
        let result = self.set_endpoints(endpoints);
        if result.is_err() {
            endpoint.set_deleted(false);
        }
        result
    }
}
