// SPDX-License-Identifier: GPL-2.0

//! Routes: where the packets of one connection go.

use crate::{
    endpoint::Endpoint,
    service::Service,
    uapi::{
        RouteOrigin,
        RouteState, //
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
    sync::{
        object::{
            Object,
            ObjectCache,
            ObjectRef, //
        },
        read_once, //
    },
    time,
    wire::{
        addr::FourTuple,
        tcp::Flags,
        tcp_state::{
            State,
            Step,
            Timeouts, //
        },
    },
};
use nlb_tunnel::{
    Mapping,
    Target, //
};

/// Seconds that an established connection of a migration may be silent while its host says when it has
/// ended. As long as conntrack keeps such connections.
const MIGRATION_WATCHED: u32 = 5 * 24 * 3600;
/// The same where nothing will be heard of its end: the least that RFC 5382 (REQ-5) allows, so that a
/// keepalive every two hours (RFC 1122 section 4.2.3.6) comes in time.
const MIGRATION_UNWATCHED: u32 = (2 * 60 + 4) * 60;

/// The route of a connection: all that is known of it, in one piece of memory. The table of routes
/// has it, and with some ways another one: that of flow ids, or that of replies.
pub(crate) struct Route {
    mapping: Mapping,
    service: Arc<Service>,
    /// None if the host is no endpoint of the service, which there may only be in the tunnel.
    endpoint: Option<Arc<Endpoint>>,
    way: Way,
    /// Number of the [`State`], with [`GONE`] and [`UNWATCHED`], and the origin from [`ORIGIN`] on.
    state: Atomic<u32>,
}

/// In a route's state, the bits of the [`State`].
const STATE: u32 = 0xff;
/// In a route's state, that the route is not counted (any more) with its endpoint.
const GONE: u32 = 1 << 8;
/// In a route's state, that nothing will be heard of the end of its connection.
const UNWATCHED: u32 = 1 << 9;
/// In a route's state, the first bit of the origin.
const ORIGIN: u32 = 16;

// There may be a million of them: see "What a route takes" in Documentation/forwarding.rst.
const _: () = assert!(size_of::<Route>() <= 104);

/// Memory for routes.
pub(crate) static CACHE: ObjectCache<Route> = ObjectCache::new(c"nlb_route");

impl Object for Route {
    type Key = FourTuple;
    type Part = Mapping;

    #[inline]
    fn key(&self) -> &FourTuple {
        self.mapping.tuple()
    }

    fn part(&self) -> &Mapping {
        &self.mapping
    }
}

impl Route {
    /// A route of the mapping's connection, in the state after a packet with `flags`.
    #[inline(always)]
    pub(crate) fn new(
        (way, mapping): (Way, impl FnOnce() -> Mapping),
        service: &Arc<Service>,
        endpoint: Option<&Arc<Endpoint>>,
        origin: RouteOrigin,
        flags: Flags,
    ) -> Result<ObjectRef<Self>> {
        // Where it stays: it is made for each connection, and not to be moved.
        CACHE.make(GFP_ATOMIC, || {
            let mapping = mapping();
            let state = State::initial(mapping.tuple().proto(), flags);
            Self {
                mapping,
                service: service.clone(),
                endpoint: endpoint.cloned(),
                way,
                state: Atomic::new(state as u32 | GONE | (origin as u32) << ORIGIN),
            }
        })
    }

    /// Another one in the same state, of a connection in the tunnel that another endpoint has now, and confirms
    /// that. Nobody will say when it has ended.
    pub(crate) fn heir_to(&self, endpoint: &Arc<Endpoint>) -> Result<ObjectRef<Self>> {
        CACHE.make(GFP_ATOMIC, || Self {
            mapping: self.mapping.heir_to(endpoint.target()),
            service: self.service.clone(),
            endpoint: Some(endpoint.clone()),
            way: self.way,
            state: Atomic::new(read_once(&self.state) | GONE | UNWATCHED),
        })
    }

    /// The connection.
    #[inline]
    pub(crate) fn tuple(&self) -> &FourTuple {
        self.mapping.tuple()
    }

    /// What to do with its packets.
    #[inline]
    pub(crate) fn way(&self) -> Way {
        self.way
    }

    /// The host, packets and bytes to it, and in the tunnel the flow id.
    #[inline]
    pub(crate) fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// The host.
    pub(crate) fn target(&self) -> &Arc<Target> {
        self.mapping.target()
    }

    /// The service.
    pub(crate) fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// The endpoint, if the host is one of the service.
    pub(crate) fn endpoint(&self) -> Option<&Arc<Endpoint>> {
        self.endpoint.as_ref()
    }

    /// The host's port, if its way may change that.
    pub(crate) fn host_port(&self) -> Option<u16> {
        let endpoint = self.endpoint.as_ref()?;
        // A migrated connection is in the tunnel, however others get to the endpoint.
        let own = (self.way.forward() == endpoint.forward()).then_some(endpoint)?;
        own.port_of(self.mapping.tuple())
    }

    /// Counts the route with its service and endpoint, before it can be found.
    pub(crate) fn added(&self) {
        self.service.route_added();
        if let Some(endpoint) = &self.endpoint {
            endpoint.route_added();
        }
        self.change(|number| number & !GONE);
    }

    /// The opposite of [`Route::added`], once the route can be found no more.
    pub(crate) fn removed(&self) {
        self.service.route_removed();
        if let Some(endpoint) = &self.endpoint {
            endpoint.route_removed();
        }
        self.change(|number| number | GONE);
    }

    /// Changes the state, and with it what the endpoint knows of its connections. Packets and those
    /// who remove the route may come at the same time.
    fn change(&self, next: impl Fn(u32) -> u32) {
        let mut before = read_once(&self.state);
        loop {
            let after = next(before);
            match self.state.cmpxchg(before, after, Relaxed) {
                Ok(_) => return self.recount(before, after),
                Err(other) => before = other,
            }
        }
    }

    fn enter(&self, state: State) {
        self.change(|number| state as u32 | number & !STATE);
    }

    /// Counts what a change of the state's number has changed.
    fn recount(&self, before: u32, after: u32) {
        match (is_half_open(before), is_half_open(after)) {
            (false, true) => self.service.half_open.added(),
            (true, false) => self.service.half_open.removed(),
            _ => {}
        }
        match (&self.endpoint, is_active(before), is_active(after)) {
            (Some(endpoint), false, true) => endpoint.active_added(),
            (Some(endpoint), true, false) => endpoint.active_removed(),
            _ => {}
        }
    }

    /// Counts a connection with the service and the endpoint.
    pub(crate) fn count_connection(&self) {
        self.service.traffic.connection();
        if let Some(endpoint) = &self.endpoint {
            endpoint.traffic.connection();
        }
    }

    /// Who plumbed the route.
    pub(crate) fn origin(&self) -> RouteOrigin {
        RouteOrigin::from_u32(read_once(&self.state) >> ORIGIN).unwrap_or(RouteOrigin::L4)
    }

    fn state(&self) -> State {
        state_of(read_once(&self.state))
    }

    /// The state as user space knows it.
    pub(crate) fn shown_state(&self) -> RouteState {
        match self.state() {
            State::SynRecv => RouteState::SynRecv,
            State::Established => RouteState::Established,
            State::FinWait => RouteState::FinWait,
            State::Close => RouteState::Closed,
            State::Udp => RouteState::Udp,
        }
    }

    /// Follows a packet of the client. False if it opens a new connection, so that this route has
    /// to be forgotten.
    #[inline]
    pub(crate) fn step(&self, flags: Flags) -> bool {
        let before = self.state();
        match before.step(flags) {
            Step::Next(after) => {
                if after != before {
                    self.enter(after);
                }
                true
            }
            Step::Replace => false,
        }
    }

    /// Follows a packet of the server.
    #[inline]
    pub(crate) fn reply(&self, flags: Flags) {
        let before = self.state();
        let after = before.reply(flags);
        if after != before {
            self.enter(after);
        }
        self.mapping.usage().touch();
    }

    /// Whether its connection was reset.
    pub(crate) fn is_reset(&self) -> bool {
        self.state() == State::Close
    }

    /// What its replies have as addresses and ports, the sender as client, if they come here.
    pub(crate) fn reply_tuple(&self) -> Option<FourTuple> {
        self.way.reply_tuple(self.tuple(), self.endpoint.as_ref()?)
    }

    /// The host says that the connection has ended: only its last packets are still to come.
    pub(crate) fn close(&self) {
        self.enter(State::FinWait);
    }

    /// Nobody will say when the connection has ended.
    pub(crate) fn unwatched(&self) {
        self.change(|number| number | UNWATCHED);
    }

    /// Counts a packet with the service and the endpoint.
    #[inline]
    pub(crate) fn count(&self, bytes: usize) {
        self.service.traffic.packet(bytes);
        if let Some(endpoint) = &self.endpoint {
            endpoint.traffic.packet(bytes);
        }
    }

    /// Jiffies without a packet after which the route expires.
    fn timeout(&self) -> u64 {
        let number = read_once(&self.state);
        let state = state_of(number);
        let configured = self.service.timeouts();
        let configured = match state {
            State::SynRecv => configured.syn,
            State::Established | State::Udp => configured.idle,
            State::FinWait => configured.fin,
            State::Close => 0,
        };
        let seconds = match (configured, self.origin(), state) {
            (0, RouteOrigin::Migration, State::Established) if number & UNWATCHED == 0 => {
                MIGRATION_WATCHED
            }
            (0, RouteOrigin::Migration, State::Established) => MIGRATION_UNWATCHED,
            (0, _, state) => Timeouts::DEFAULT.of(state),
            (seconds, _, _) => seconds,
        };
        u64::from(seconds).saturating_mul(time::HZ)
    }

    /// Jiffies until the route expires if no packet comes.
    fn remaining(&self, now: u64) -> u64 {
        let idle = now.saturating_sub(self.mapping.usage().used());
        self.timeout().saturating_sub(idle)
    }

    /// Whether no packet has come for too long at `now` (jiffies).
    pub(crate) fn is_expired(&self, now: u64) -> bool {
        // No timeout is shorter.
        let is_busy = now.saturating_sub(self.mapping.usage().used()) < time::HZ;
        !is_busy && self.remaining(now) == 0
    }

    /// Milliseconds until the route expires if no packet comes.
    pub(crate) fn expires_ms(&self) -> u64 {
        time::jiffies_to_ms(self.remaining(time::jiffies()))
    }
}

/// The state in the number of a route's.
fn state_of(number: u32) -> State {
    // CAST: The bits of `STATE`.
    State::from_number(number as u8).unwrap_or(State::Established)
}

/// Whether a route in this state is counted as one of a connection that is being opened.
fn is_half_open(number: u32) -> bool {
    number & GONE == 0 && state_of(number) == State::SynRecv
}

/// Whether a route in this state is counted as an active connection: as IPVS has it
/// (`tcp_state_active_table` in `net/netfilter/ipvs/ip_vs_proto_tcp.c`), and UDP.
fn is_active(number: u32) -> bool {
    number & GONE == 0
        && match state_of(number) {
            State::SynRecv | State::Established | State::Udp => true,
            State::FinWait | State::Close => false,
        }
}
