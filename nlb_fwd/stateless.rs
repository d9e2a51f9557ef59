// SPDX-License-Identifier: GPL-2.0

//! What becomes of new connections for which there is no room: they do without a route.
//!
//! Who floods a service with SYNs gets only a share of the routes, those of connections that are
//! being opened. Without room, a packet goes to the endpoint that consistent hashing names for its
//! client's address and port, the same one for each packet of the connection, by a way that needs
//! nothing to be remembered. As long as such connections may live, the service's new ones are spread
//! in that way, whether or not there is room for a route: a SYN that comes again, or the next packet
//! of a connection, must not find another endpoint than the one before.
//!
//! The table for it is made when it is needed for the first time, in process context; until then
//! connections are refused, and clients send their SYNs again.

use crate::{
    endpoint::Endpoint,
    scheduler::Candidate,
    service::Service,
    state::{
        Forwarder,
        STATE, //
    },
    stats::Counter,
    uapi::RouteOrigin,
    way::Way, //
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
    net::{
        netdevice::NetDevice,
        netfilter::{
            HookState,
            Verdict, //
        },
        netns::WeakNet,
        skbuff::{
            DropReason,
            SkBuff, //
        },
        tcp::tuple_in_use, //
    },
    sync::{
        read_once,
        rhashtable::{
            Position,
            Scan, //
        }, //
    },
    time,
    wire::{
        addr::{
            Addr,
            FourTuple,
            Proto, //
        },
        carrier::Carrier,
        parse::Parsed,
        tcp::Flags, //
    },
    work::{
        DelayedWork,
        Trigger, //
    },
};

/// How soon a table is made, and how often is looked whether it is still needed.
const INTERVAL_MS: u32 = 100;

/// Connections that are being opened: routes of whose clients nothing but a SYN has come, or which were
/// made for one that had none.
pub(crate) struct HalfOpen {
    count: Atomic<i32>,
    max: i32,
}

impl HalfOpen {
    /// None, of `max` at most.
    pub(crate) fn new(max: u32) -> Result<Arc<Self>> {
        let half_open = Self {
            count: Atomic::new(0),
            max: i32::try_from(max).unwrap_or(i32::MAX),
        };
        Ok(Arc::new(half_open, GFP_KERNEL)?)
    }

    /// Whether there are as many as there may be. Packets that come at the same moment on several CPUs
    /// may add one each to that.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        read_once(&self.count) >= self.max
    }

    /// There is another one.
    #[inline]
    pub(crate) fn added(&self) {
        self.count.fetch_add(1, Relaxed);
    }

    /// One is open, or gone.
    #[inline]
    pub(crate) fn removed(&self) {
        self.count.fetch_sub(1, Relaxed);
    }
}

/// How a service does without routes.
pub(crate) struct Stateless {
    /// Until when (jiffies) connections without a route may live; 0 if there were none.
    until: Atomic<u64>,
    /// Whether a table is wanted: [`NO_TABLE`], [`WANTED`], [`READY`].
    table: Atomic<u32>,
}

/// Nobody needs a table.
const NO_TABLE: u32 = 0;
/// Connections were refused for want of one.
const WANTED: u32 = 1;
/// The service's schedule has one.
const READY: u32 = 2;

impl Stateless {
    /// All connections have a route.
    pub(crate) const fn new() -> Self {
        Self {
            until: Atomic::new(0),
            table: Atomic::new(NO_TABLE),
        }
    }

    /// Whether there may be connections without a route.
    #[inline]
    fn is_on(&self) -> bool {
        let until = read_once(&self.until);
        until != 0 && time::jiffies() < until
    }

    /// Notes that there is one, which may be silent for this time (jiffies).
    fn lives(&self, idle: u64) {
        let until = time::jiffies().saturating_add(idle);
        // Many packets come in one jiffy.
        if self.until.load(Relaxed) < until {
            self.until.store(until, Relaxed);
        }
    }

    /// Notes that none may be silent for more than this time (jiffies) any more.
    fn shorten(&self, idle: u64) {
        let until = time::jiffies().saturating_add(idle);
        if self.until.load(Relaxed) > until {
            self.until.store(until, Relaxed);
        }
    }

    /// Whether the service's schedule is to have a table.
    pub(crate) fn has_table(&self) -> bool {
        self.table.load(Relaxed) == READY
    }
}

/// What the work is to do about a service's table.
#[derive(Clone, Copy)]
enum Due {
    Make,
    Drop,
}

impl Service {
    /// The endpoint that this connection has to go to, as there may be connections without a route.
    #[inline]
    pub(crate) fn stateless_endpoint<'a>(
        &'a self,
        guard: &'a rcu::Guard,
        tuple: &FourTuple,
    ) -> Option<&'a Arc<Endpoint>> {
        match self.stateless.is_on() {
            true => self.pick_by_hash(guard, tuple),
            false => None,
        }
    }

    /// Jiffies for which a connection may be silent.
    fn idle(&self) -> u64 {
        u64::from(self.idle_timeout()).saturating_mul(time::HZ)
    }

    /// Notes that connections may be silent for another time than before.
    pub(crate) fn idle_changed(&self) {
        self.stateless.shorten(self.idle());
    }

    /// Asks for a table. True for the first one who does.
    fn want_table(&self) -> bool {
        let table = &self.stateless.table;
        table.load(Relaxed) == NO_TABLE && table.cmpxchg(NO_TABLE, WANTED, Relaxed).is_ok()
    }

    /// What is due about the table, and whether the work has to look again.
    fn due(&self) -> (Option<Due>, bool) {
        match self.stateless.table.load(Relaxed) {
            WANTED => (Some(Due::Make), true),
            READY if !self.stateless.is_on() => (Some(Due::Drop), true),
            READY => (None, true),
            _ => (None, false),
        }
    }
}

/// The work of a namespace that makes tables, which waits until one is wanted.
pub(crate) fn work(weak: WeakNet) -> Result<DelayedWork> {
    DelayedWork::new(move |trigger: &Trigger| {
        let Some(net) = weak.upgrade() else {
            return;
        };
        // Not held while tables are made: that waits for readers.
        let Some(forwarder) = STATE.get_arc(&net) else {
            return;
        };
        if forwarder.make_tables() {
            trigger.schedule(INTERVAL_MS);
        }
    })
}

impl Forwarder {
    /// Makes the tables that are wanted, and drops those that nobody needs any more. Whether there
    /// will be more to do.
    fn make_tables(&self) -> bool {
        let mut position = Position::default();
        let mut more = false;
        loop {
            let mut found: Option<(Arc<Service>, Due)> = None;
            let done = self
                .services
                .scan(&rcu::read_lock(), &mut position, |service| {
                    let (due, again) = service.due();
                    more |= again;
                    match due {
                        Some(due) => {
                            found = Some((service.clone(), due));
                            Scan::Stop
                        }
                        None => Scan::Continue,
                    }
                });
            match found {
                // Without memory, the next time.
                Some((service, due)) if self.change_table(&service, due).is_err() => return true,
                Some(_) => {}
                None if done => return more,
                None => {}
            }
        }
    }

    /// Makes or drops the table of a service. If there are too many, whoever wants it has to ask
    /// again. `ENOMEM`.
    fn change_table(&self, service: &Service, due: Due) -> Result {
        let _lock = self.config.lock();
        // Gone meanwhile, and its table was given back, if it had one.
        if self
            .service(service.key())
            .is_none_or(|other| !core::ptr::eq(&*other, service))
        {
            service.stateless.table.store(NO_TABLE, Relaxed);
            return Ok(());
        }
        let table = &service.stateless.table;
        match due {
            Due::Make => {
                if self.claim_table().is_err() {
                    table.store(NO_TABLE, Relaxed);
                    return Ok(());
                }
                // Or it would be dropped again at once.
                service.stateless.lives(service.idle());
                table.store(READY, Relaxed);
                service.refresh().inspect_err(|_| {
                    table.store(WANTED, Relaxed);
                    self.release_table();
                })
            }
            Due::Drop => {
                // A packet has used it meanwhile.
                if service.stateless.is_on() {
                    return Ok(());
                }
                table.store(NO_TABLE, Relaxed);
                service
                    .refresh()
                    .inspect_err(|_| table.store(READY, Relaxed))?;
                self.release_table();
                // The last one to use it needs the same one again.
                if service.stateless.is_on() {
                    table.store(WANTED, Relaxed);
                }
                Ok(())
            }
        }
    }

    /// Whether a route can be made for a packet that opens a connection, or seems to.
    #[inline]
    pub(crate) fn has_room(&self, proto: Proto) -> bool {
        !self.routes.is_full() && (proto == Proto::Udp || !self.half_open.is_full())
    }

    /// Sends on, or drops, a packet that a route should have been made for, which failed for the reason
    /// that `counter` counts.
    #[cold]
    pub(crate) fn without_route(
        &self,
        state: &HookState<'_>,
        service: &Service,
        skb: SkBuff,
        parsed: &Parsed,
        counter: Counter,
    ) -> Verdict {
        let drop = |skb, counter| {
            self.stats.inc(counter);
            Verdict::Drop(skb, DropReason::NOMEM)
        };
        let lacks_room = matches!(
            counter,
            Counter::DropTableFull | Counter::DropNoFlowId | Counter::DropNoMemory
        );
        if !lacks_room {
            return drop(skb, counter);
        }
        match service.pick_by_hash(state.rcu(), &parsed.tuple) {
            Some(endpoint) if endpoint.has_room() => {
                return self.send_on(state, service, endpoint, skb, parsed);
            }
            Some(_) => return drop(skb, Counter::DropOverflow),
            None => {}
        }
        if service.takes_nothing(state.rcu(), &parsed.tuple) {
            self.stats.inc(Counter::PassNoEndpoint);
            return Verdict::Accept(skb);
        }
        if service.want_table() {
            self.tables.schedule(INTERVAL_MS);
        }
        drop(skb, counter)
    }

    /// Takes a packet from the middle of a connection that has no route, if there may be such as never
    /// had one; gives it back if there are none.
    #[inline]
    pub(crate) fn mid_stream(
        &self,
        state: &HookState<'_>,
        service: &Arc<Service>,
        skb: SkBuff,
        parsed: &Parsed,
    ) -> Result<Verdict, SkBuff> {
        if parsed.tuple.proto() != Proto::Tcp || parsed.flags.is_initial_syn() {
            return Err(skb);
        }
        match endpoint_without_route(state, service, &parsed.tuple) {
            Some(endpoint) => Ok(self.adopt(state, service, endpoint, skb, parsed)),
            None => Err(skb),
        }
    }

    /// Takes a packet from the middle of a connection that had no route until now, and gives it one if
    /// there is room.
    #[cold]
    fn adopt(
        &self,
        state: &HookState<'_>,
        service: &Arc<Service>,
        endpoint: &Arc<Endpoint>,
        skb: SkBuff,
        parsed: &Parsed,
    ) -> Verdict {
        if parsed.flags.contains(Flags::RST) || !self.has_room(parsed.tuple.proto()) {
            return self.send_on(state, service, endpoint, skb, parsed);
        }
        // As if it were being opened: nobody has shown yet that there is such a connection.
        let opened = self.open_route(
            (state.net(), state.rcu()),
            &parsed.tuple,
            service,
            Some(endpoint),
            endpoint.target(),
            (RouteOrigin::L4, Flags::SYN),
        );
        match opened {
            Ok(route) => {
                self.stats.inc(Counter::RouteAdopted);
                self.forward(state, &route, skb, parsed)
            }
            Err(_) => self.send_on(state, service, endpoint, skb, parsed),
        }
    }

    /// The endpoint at `host` that a datagram without a route can have gone to, as its service schedules
    /// each by itself, and a way there with this carrier.
    #[cold]
    pub(crate) fn one_packet_way<'a>(
        &'a self,
        state: &'a HookState<'_>,
        tuple: &FourTuple,
        host: Addr,
        carrier: Carrier,
    ) -> Option<(&'a Arc<Endpoint>, Way)> {
        let service = self.service_of(tuple, state.rcu())?;
        if !service.is_one_packet() {
            return None;
        }
        let ways = service
            .endpoints(state.rcu())
            .iter()
            .filter(|endpoint| endpoint.host() == host)
            .filter_map(|endpoint| Some((endpoint, endpoint.stateless_way()?)));
        ways.into_iter().find(|(_, way)| way.may_be(carrier))
    }

    /// The endpoint that the packets of this connection go to without a route, if there may be such, and
    /// their way there.
    #[cold]
    pub(crate) fn stateless_way<'a>(
        &'a self,
        state: &'a HookState<'_>,
        tuple: &FourTuple,
    ) -> Option<(&'a Arc<Endpoint>, Way)> {
        let service = self.service_of(tuple, state.rcu())?;
        let endpoint = endpoint_without_route(state, service, tuple)?;
        Some((endpoint, endpoint.stateless_way()?))
    }

    /// Sends a datagram of a service that schedules each by itself to an endpoint, and remembers nothing.
    #[cold]
    pub(crate) fn send_one(
        &self,
        state: &HookState<'_>,
        service: &Service,
        skb: SkBuff,
        parsed: &Parsed,
    ) -> Verdict {
        let endpoint = match self.pick(service, state.rcu(), &parsed.tuple) {
            Ok(endpoint) => endpoint,
            Err(counter) => {
                self.stats.inc(counter);
                return match counter {
                    Counter::PassNoEndpoint => Verdict::Accept(skb),
                    _ => Verdict::Drop(skb, DropReason::NOMEM),
                };
            }
        };
        self.stats.inc(Counter::OnePacket);
        for traffic in [&service.traffic, &endpoint.traffic] {
            traffic.connection();
            traffic.packet(parsed.total_len);
        }
        self.send_stateless(state, endpoint, skb, parsed);
        Verdict::Stolen
    }

    /// Sends a packet of a connection without a route to its endpoint.
    fn send_on(
        &self,
        state: &HookState<'_>,
        service: &Service,
        endpoint: &Endpoint,
        skb: SkBuff,
        parsed: &Parsed,
    ) -> Verdict {
        // A stray RST is no sign of life.
        if !parsed.flags.contains(Flags::RST) {
            service.stateless.lives(service.idle());
        }
        self.stats.inc(Counter::StatelessPackets);
        if parsed.flags.is_initial_syn() {
            self.stats.inc(Counter::StatelessSyn);
        }
        service.traffic.packet(parsed.total_len);
        endpoint.traffic.packet(parsed.total_len);
        self.send_stateless(state, endpoint, skb, parsed);
        Verdict::Stolen
    }
}

/// The endpoint that has this connection without a route, if there may be such connections, and it is none
/// that this machine's own stack has.
#[inline]
fn endpoint_without_route<'a>(
    state: &'a HookState<'_>,
    service: &'a Service,
    tuple: &FourTuple,
) -> Option<&'a Arc<Endpoint>> {
    let endpoint = match service.is_one_packet() {
        true => service.hashed(state.rcu(), tuple)?,
        false => service.stateless_endpoint(state.rcu(), tuple)?,
    };
    let iif = state.in_dev().map_or(0, NetDevice::ifindex);
    let is_own = tuple.proto() == Proto::Tcp && tuple_in_use(state.net(), tuple, iif);
    (!is_own).then_some(endpoint)
}

#[kunit_tests(nlb_fwd_stateless)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_routes() -> Result {
        let half_open = HalfOpen::new(2)?;
        for full in [false, false, true, true] {
            assert_eq!(half_open.is_full(), full);
            half_open.added();
        }
        half_open.removed();
        half_open.removed();
        assert!(half_open.is_full());
        half_open.removed();
        assert!(!half_open.is_full());
        // More than can be counted.
        assert!(!HalfOpen::new(u32::MAX)?.is_full());
        Ok(())
    }

    #[test]
    fn it_is_on_as_long_as_connections_may_live() {
        let stateless = Stateless::new();
        assert!(!stateless.is_on() && !stateless.has_table());
        stateless.lives(1000 * time::HZ);
        stateless.lives(0);
        stateless.shorten(2000 * time::HZ);
        assert!(stateless.is_on());
        stateless.shorten(0);
        assert!(!stateless.is_on());
    }
}
