// SPDX-License-Identifier: GPL-2.0

//! What the forwarder knows in one network namespace.

use crate::{
    affinity::{
        Clients,
        MAX_CLIENTS, //
    },
    allotment,
    endpoint::Endpoint,
    forward::NoRoute,
    hook,
    limit,
    miss::Misses,
    module_parameters,
    netlink,
    ports::Wide,
    reply::Repliers,
    route::Route,
    rule::Rules,
    scheduler::has_slots,
    service::{
        Config,
        Service,
        ServiceKey, //
    },
    slow_start,
    stateless::{
        self,
        HalfOpen, //
    },
    stats::{
        Counter,
        Stats, //
    },
    steer,
    uapi::{
        RouteEnd,
        RouteOrigin,
        Scheduler, //
    },
    way::Way, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        rcu,
        Arc,
        Mutex, //
    },
};
use nlb::{
    errno::{EADDRINUSE, EDQUOT},
    net::{
        netfilter::{
            HookOps,
            OverIpv6, //
        },
        netns::{
            PerNet,
            State,
            WeakNet, //
        },
        Net, //
    },
    random,
    sync::{
        family_table::FamilyTable,
        object::ObjectRef,
        rcu::RcuCell,
        rhashtable::{
            InsertError,
            ObjectTable,
            Position,
            Scan, //
        },
    },
    time,
    wire::{
        addr::FourTuple,
        sweep, //
    },
    work::{
        DelayedWork,
        Trigger, //
    }, //
};

/// Services that a namespace may have.
pub(crate) const MAX_SERVICES: u32 = 4096;

/// Services of a namespace that may use consistent hashing, whose tables are large (128 KiB, and as
/// much for backup endpoints); those that have connections without a route count once more.
const MAX_HASHED: u32 = 256;

/// Routes that a namespace may have: what the module was loaded with.
fn max_routes() -> u32 {
    (*module_parameters::max_routes.value()).clamp(1, 1 << 24)
}

/// How many of them may be of connections that are being opened.
fn max_half_open() -> u32 {
    match *module_parameters::max_half_open.value() {
        0 => max_routes().div_ceil(2),
        max => max,
    }
}

/// The state of a namespace.
#[pin_data]
pub(crate) struct Forwarder {
    #[pin]
    pub(crate) services: FamilyTable<ServiceKey, Arc<Service>>,
    /// Those of them that have more than one port, by what their packets have.
    #[pin]
    wide: Wide,
    #[pin]
    pub(crate) clients: Clients<Endpoint>,
    /// None if there is no rule.
    pub(crate) rules: RcuCell<Rules>,
    /// Routes by what their replies have as addresses and ports, where these come here.
    #[pin]
    pub(crate) replies: FamilyTable<FourTuple, ObjectRef<Route>>,
    /// Behind `replies`: fields are dropped in their order, and this one waits until what `replies`
    /// referred to is gone as well. Routes keep entries of the namespace's routing tables.
    #[pin]
    pub(crate) routes: ObjectTable<Route>,
    /// The hosts that these come from.
    pub(crate) repliers: Repliers,
    /// Number of the next port to try for nat.
    pub(crate) next_port: Atomic<u32>,
    /// Connections without a route that user space is asked about.
    #[pin]
    pub(crate) misses: Misses,
    pub(crate) stats: Stats,
    /// Serialises changes of services, endpoints and rules.
    #[pin]
    pub(crate) config: Mutex<()>,
    endpoint_changes: Atomic<u32>,
    pub(crate) rule_changes: Atomic<u32>,
    /// Services whose classifier has a port of its own.
    steered: Atomic<u32>,
    /// Services whose scheduler has a table of slots, and those with a table for connections without a route; changes
    /// under `config`.
    hashed: Atomic<u32>,
    pub(crate) half_open: Arc<HalfOpen>,
    expire: DelayedWork,
    /// Makes tables for connections without a route.
    pub(crate) tables: DelayedWork,
    pub(crate) slow_start: DelayedWork,
    /// Tells user space of allotments that are low or over.
    pub(crate) allotments: DelayedWork,
}

pub(crate) static STATE: State<Forwarder> = State::new();

impl PerNet for Forwarder {
    fn state() -> &'static State<Self> {
        &STATE
    }

    const HOOKS: &'static [HookOps] = &[
        HookOps::new::<hook::PreRouting>(),
        HookOps::new::<OverIpv6<hook::PreRouting>>(),
        HookOps::new::<steer::LocalIn>(),
        HookOps::new::<OverIpv6<steer::LocalIn>>(),
    ];

    fn init(_net: &Net, weak: WeakNet) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            services <- FamilyTable::new(MAX_SERVICES),
            wide <- Wide::new(MAX_SERVICES),
            routes <- ObjectTable::for_many(max_routes()),
            clients <- Clients::new(MAX_CLIENTS),
            rules: RcuCell::new(None),
            replies <- FamilyTable::new(max_routes()),
            repliers: Repliers::new(),
            next_port: Atomic::new(random::u32()),
            misses <- Misses::new(weak.clone()),
            stats: Stats::new()?,
            config <- new_mutex!(()),
            endpoint_changes: Atomic::new(0),
            rule_changes: Atomic::new(0),
            steered: Atomic::new(0),
            hashed: Atomic::new(0),
            half_open: HalfOpen::new(max_half_open())?,
            tables: stateless::work(weak.clone())?,
            slow_start: slow_start::work(weak.clone())?,
            allotments: allotment::work(weak.clone())?,
            expire: {
                let (mut positions, mut told) = (Positions::default(), limit::Told::default());
                let work = DelayedWork::new(move |trigger: &Trigger| {
                    run_expire(&weak, &mut positions, &mut told, trigger)
                })?;
                work.schedule(sweep::INTERVAL_MS);
                work
            },
        })
    }

    fn pre_exit(state: &Self, _net: &Net) {
        state.expire.cancel();
        state.slow_start.cancel();
        state.tables.cancel();
        state.allotments.cancel();
        state.misses.cancel();
    }

    fn exit(state: &Self, net: &Net) {
        state.misses.clear();
        // Flow ids are the tunnel's, which may stay. As a table that shrinks meanwhile may
        // hide entries from a scan, once is not always enough.
        while !state.routes.is_empty() {
            state.routes.retain(|route| {
                nlb_tunnel::release(net, route.value().mapping());
                false
            });
        }
    }
}

/// How far the search for what has expired has come.
#[derive(Default)]
struct Positions {
    routes: Position,
    clients: Position,
}

/// Looks for silent routes and clients, and has itself called again.
fn run_expire(
    weak: &WeakNet,
    positions: &mut Positions,
    told: &mut limit::Told,
    trigger: &Trigger,
) {
    let Some(net) = weak.upgrade() else {
        return;
    };
    let steps = {
        let guard = rcu::read_lock();
        let forwarder = STATE.get(&net, &guard);
        forwarder.map_or(0, |forwarder| forwarder.expire_steps(&guard))
    };
    let done = trigger.sweep(steps, || {
        let guard = rcu::read_lock();
        // None before the module's initialisation is over.
        STATE
            .get(&net, &guard)
            .is_none_or(|forwarder| forwarder.expire(&net, &guard, positions))
    });
    if done {
        *positions = Positions::default();
        let guard = rcu::read_lock();
        if let Some(forwarder) = STATE.get(&net, &guard) {
            told.tell(&net, forwarder);
        }
    }
}

impl Forwarder {
    /// The service that a connection belongs to: that of its own port, else of a range that its port is
    /// in, else of all ports.
    #[inline]
    pub(crate) fn service_of<'a>(
        &'a self,
        tuple: &FourTuple,
        guard: &'a rcu::Guard,
    ) -> Option<&'a Arc<Service>> {
        let key = ServiceKey::of(tuple);
        let exact = self.services.get(guard, &key);
        exact.or_else(|| self.wide.find(guard, &key))
    }

    /// A service.
    pub(crate) fn service(&self, key: &ServiceKey) -> Option<Arc<Service>> {
        let guard = rcu::read_lock();
        let service = self.services.get(&guard, key)?;
        (service.key() == key).then(|| service.clone())
    }

    /// Changes whenever services or endpoints come or go, or endpoints change.
    pub(crate) fn config_generation(&self) -> u64 {
        let endpoints = self.endpoint_changes.load(Relaxed);
        self.services.generation().wrapping_add(endpoints.into())
    }

    /// Notes that endpoints have come, gone or changed.
    pub(crate) fn endpoints_changed(&self) {
        self.endpoint_changes.fetch_add(1u32, Relaxed);
    }

    /// Adds a service. `EEXIST`, `ENOSPC`, `ENOMEM`; `EADDRINUSE` if another one with several ports has
    /// one of its several; `EDQUOT` if there are too many for consistent hashing.
    pub(crate) fn add_service(&self, key: ServiceKey, config: Config) -> Result<Arc<Service>> {
        let Config {
            classifier,
            scheduler,
            ..
        } = config;
        let service = Service::new(key, config, &self.half_open)?;
        let _lock = self.config.lock();
        if self.service(&key).is_some() {
            return Err(EEXIST);
        }
        self.routes.prepare()?;
        self.claim_table_for(scheduler)?;
        if let Err(error) = self.insert_service(&key, &service) {
            self.release_table_of(scheduler);
            return Err(error);
        }
        if classifier.is_some() {
            self.steered.fetch_add(1u32, Relaxed);
        }
        Ok(service)
    }

    /// Has a service be found by its name, and by packets. The caller holds `config`.
    fn insert_service(&self, key: &ServiceKey, service: &Arc<Service>) -> Result {
        // Of services with several ports, the table tells those apart that begin with different ones.
        self.services
            .insert(key, service.clone(), GFP_KERNEL)
            .map_err(|error| match error {
                InsertError::Exists => EADDRINUSE.into(),
                error => Error::from(error),
            })?;
        if key.ports.single().is_some() {
            return Ok(());
        }
        self.wide.add(service).inspect_err(|_| {
            self.services.remove(key);
        })
    }

    /// Changes the scheduler of a service. The caller holds `config`. `ENOMEM`, `EDQUOT`.
    pub(crate) fn set_scheduler(&self, service: &Service, scheduler: Scheduler) -> Result {
        let before = service.scheduler();
        if scheduler == before {
            return Ok(());
        }
        self.claim_table_for(scheduler)?;
        let result = service.set_scheduler(scheduler);
        // Of the two, the one that is not used now.
        self.release_table_of(if result.is_ok() { before } else { scheduler });
        result
    }

    /// Counts a table for consistent hashing, under `config`. `EDQUOT`.
    pub(crate) fn claim_table(&self) -> Result {
        if self.hashed.fetch_add(1u32, Relaxed) >= MAX_HASHED {
            self.release_table();
            return Err(EDQUOT.into());
        }
        Ok(())
    }

    /// The opposite of [`Forwarder::claim_table`].
    pub(crate) fn release_table(&self) {
        self.hashed.fetch_sub(1u32, Relaxed);
    }

    /// Counts the table of a service with this scheduler, if it has one. As above.
    fn claim_table_for(&self, scheduler: Scheduler) -> Result {
        match has_slots(scheduler) {
            true => self.claim_table(),
            false => Ok(()),
        }
    }

    /// The opposite of [`Forwarder::claim_table_for`].
    fn release_table_of(&self, scheduler: Scheduler) {
        if has_slots(scheduler) {
            self.release_table();
        }
    }

    /// Whether there are services whose classifier has a port of its own.
    #[inline]
    pub(crate) fn steers(&self) -> bool {
        self.steered.load(Relaxed) != 0
    }

    /// Removes a service with its endpoints and routes. `ENOENT` if there is no such service; `ENOMEM`,
    /// and then it stays.
    pub(crate) fn remove_service(&self, net: &Net, key: &ServiceKey) -> Result<Arc<Service>> {
        let _lock = self.config.lock();
        let service = self.service(key).ok_or(ENOENT)?;
        if key.ports.single().is_none() {
            self.wide.remove(key)?;
        }
        self.services.remove(key);
        if service.classifier().is_some() {
            self.steered.fetch_sub(1u32, Relaxed);
        }
        self.release_table_of(service.scheduler());
        if service.stateless.has_table() {
            self.release_table();
        }
        // Packets that found the service before may still be making routes.
        nlb::sync::rcu::synchronize();
        self.remove_routes_of(net, &service);
        self.clients.forget_service(key);
        Ok(service)
    }

    /// The route of a connection.
    #[inline(always)]
    pub(crate) fn route_of<'a>(
        &'a self,
        tuple: &FourTuple,
        guard: &'a rcu::Guard,
    ) -> Option<&'a Route> {
        self.routes.get(guard, tuple)
    }

    /// Adds a route, with a flow id if its way needs one and it has none.
    ///
    /// [`NoRoute::Table`], [`NoRoute::FlowId`], [`NoRoute::Reply`]. Any context; the caller holds the
    /// RCU read side from before it looked up the service.
    pub(crate) fn add_route(
        &self,
        net: &Net,
        guard: &rcu::Guard,
        route: &ObjectRef<Route>,
    ) -> Result<(), NoRoute> {
        let needs_flow_id = route.way() == Way::Tunnel && route.mapping().flow_id().is_none();
        if needs_flow_id {
            nlb_tunnel::assign(net, guard, route).map_err(NoRoute::FlowId)?;
        }
        let added = self.list_route(net, route);
        if added.is_err() && needs_flow_id {
            nlb_tunnel::release(net, route.mapping());
        }
        added
    }

    /// Puts a route into the tables by which its packets find it.
    fn list_route(&self, net: &Net, route: &ObjectRef<Route>) -> Result<(), NoRoute> {
        self.add_reply(net, route)?;
        route.added();
        if let Err(error) = self.routes.insert(route) {
            route.removed();
            self.remove_reply(route);
            return Err(error.into());
        }
        route.count_connection();
        self.stats.inc(match route.origin() {
            RouteOrigin::L4 => Counter::RouteNew,
            RouteOrigin::Migration => Counter::RouteMigration,
            RouteOrigin::Manual => Counter::RouteManual,
        });
        netlink::notify_route(net, route);
        self.misses.routed(net, &self.stats, route);
        Ok(())
    }

    /// Sends the connection of a route in the tunnel to another endpoint, by the same flow id. `ENOENT` if the
    /// route has just been removed, `ENOMEM`. Any context; the caller holds the RCU read side from before it
    /// looked up both.
    pub(crate) fn reroute(&self, net: &Net, route: &Route, endpoint: &Arc<Endpoint>) -> Result {
        let heir = route.heir_to(endpoint)?;
        // First, so that whoever removes the heir finds it among the flow ids.
        if !nlb_tunnel::replace(net, route.mapping(), &heir) {
            return Err(ENOENT);
        }
        heir.added();
        if !self.routes.replace(route, &heir) {
            heir.removed();
            nlb_tunnel::release(net, heir.mapping());
            return Err(ENOENT);
        }
        route.removed();
        self.stats.inc(Counter::RouteMoved);
        netlink::notify_route_end(net, route, RouteEnd::Migration);
        netlink::notify_route(net, &heir);
        Ok(())
    }

    /// Removes this very route and gives back what it has. False if that was done before. Any
    /// context.
    pub(crate) fn remove_route(&self, net: &Net, route: &Route, end: RouteEnd) -> bool {
        let removed = self.routes.remove(route);
        if removed {
            self.forget(net, route, end);
        }
        removed
    }

    /// What is to be done when a route has been removed.
    fn forget(&self, net: &Net, route: &Route, end: RouteEnd) {
        route.removed();
        self.remove_reply(route);
        netlink::notify_route_end(net, route, end);
        nlb_tunnel::release(net, route.mapping());
    }

    /// Removes all routes of a service that gets no more of them. Process context.
    fn remove_routes_of(&self, net: &Net, service: &Arc<Service>) {
        // A table that shrinks meanwhile may hide entries from a scan.
        while service.routes() > 0 {
            self.routes.for_each(|route| {
                let route = route.value();
                if Arc::ptr_eq(route.service(), service) {
                    self.remove_route(net, route, RouteEnd::Service);
                }
            });
        }
    }

    /// Removes all routes to an endpoint that gets no more of them. Process context.
    pub(crate) fn remove_routes_to(&self, net: &Net, endpoint: &Arc<Endpoint>) {
        // As above.
        while endpoint.routes() > 0 {
            self.routes.for_each(|route| {
                let route = route.value();
                let points_there = route
                    .endpoint()
                    .is_some_and(|other| Arc::ptr_eq(other, endpoint));
                if points_there && self.remove_route(net, route, RouteEnd::Inactive) {
                    self.stats.inc(Counter::RouteInactive);
                }
            });
        }
    }

    /// How many calls of [`Forwarder::expire`] look at all routes and clients.
    fn expire_steps(&self, guard: &rcu::Guard) -> u32 {
        let routes = self.routes.steps(guard);
        routes.saturating_add(self.clients.expire_steps(guard))
    }

    /// Removes routes and clients that have been silent for too long, looking at a limited number of
    /// entries. True when all have been looked at.
    fn expire(&self, net: &Net, guard: &rcu::Guard, positions: &mut Positions) -> bool {
        let now = time::jiffies();
        let done = self.routes.scan(guard, &mut positions.routes, |route| {
            let route = route.value();
            if route.is_expired(now) && self.remove_route(net, route, RouteEnd::Expired) {
                self.stats.inc(Counter::RouteExpired);
            }
            Scan::Continue
        });
        done && self.clients.expire(guard, &mut positions.clients, now)
    }
}
