// SPDX-License-Identifier: MIT OR Apache-2.0

//! `nlbd health`: the health and load handler 314 of the specification. It keeps the consolidated cache of what hosts
//! say of their applications, and has balancers follow it: the forwarder, and HAProxies (FIG. 17B).
//!
//! A host is told that nobody sends an application new connections when all balancers have taken what says so: the
//! version of the cache that a plan was made of is in force when the plan is carried out.

mod allot;
mod balancer;
mod config;
mod events;
mod follower;
mod forwarder;
mod haproxy;
mod known;
mod memory;
mod metrics;
mod plan;
mod proxies;
mod view;

#[cfg(test)]
mod tests;

pub(crate) use config::Config;

use allot::Orders;
use config::Panic;
use events::Events;
use follower::{finished, Done, Follower, Kind};
use memory::{Memory, Saved};
use metrics::Tally;
use nlb_daemon::{
    api::{self, Admitted, Answer, Message, Server},
    config::tell_others,
    life,
    metrics::serve as serve_metrics,
    state::{self, Keeper},
    udp::{Buffer, Membership, Sockets, Troubles, PORT},
};
use nlb_health::{
    cache::RowChange,
    lbu::{Down, Event, Lbu, LbuConfig},
    row::{AppId, Directive, Health},
    wire::DATAGRAM_MAX,
};
use nlb_netlink::EndpointState;
use plan::Place;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{
    signal::unix::{signal, SignalKind},
    sync::{mpsc, watch},
    task::unconstrained,
};
use tracing::{debug, error, info, warn};

/// Requests that may wait.
const QUEUE: usize = 64;
/// Datagrams that are taken in before anything else: as many as wait where there is most room for them. A flood shall not
/// stop the clock.
const WAITING_MAX: usize = 4096;
/// When there is nothing to wait for.
const NOTHING: Duration = Duration::from_secs(3600);
/// How long after it could not be written the state is written again.
const AGAIN: Duration = Duration::from_secs(1);

/// Runs until a signal says to end.
pub(crate) fn run(path: &Path, config: Config) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(serve(path, config));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// What is known, and what is done about it.
struct Handler {
    lbu: Lbu,
    panic: Panic,
    orders: Arc<Orders>,
    /// The hosts that speak for others.
    proxies: BTreeSet<u32>,
    /// Their rows that were failing, and have not been healthy since.
    sick: BTreeSet<(u32, AppId)>,
    /// The rows as they were seen last, for what becomes of those that go.
    rows: BTreeMap<(u32, AppId), (Place, Directive)>,
    memory: Memory,
    /// The next life may have to know something else.
    is_other: bool,
    followers: Vec<Follower>,
    /// The multicast groups in which hosts are heard, and why they are not.
    memberships: Vec<(Membership, Option<String>)>,
    /// The version of the cache that is in force.
    applied: u64,
    /// The version for which hosts were told last what is in force, if nothing has changed since.
    confirmed: Option<u64>,
    tally: Tally,
    events: Events,
}

async fn serve(path: &Path, config: Config) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut user = signal(SignalKind::user_defined1())?;
    let server = Server::bind(&config.socket)?;
    let mut sockets = match &config.listen {
        Some(listen) => Sockets::bind(listen)?,
        None => Sockets::bind_all(PORT)?,
    };
    sockets.hear(&config.multicast);
    let fixed = config.fixed();
    let (queue, mut requests) = mpsc::channel(QUEUE);
    let (admit, admitted) = watch::channel(admitted(&config));
    tokio::spawn(server.serve(admitted, queue));
    let (queue, mut scrapes) = mpsc::channel(1);
    if let Some(address) = config.metrics {
        tokio::spawn(serve_metrics(address, queue));
    }
    let started = SystemTime::now();
    let (change, mut changed) = mpsc::channel(1);
    let mut change = Some(change);
    info!(lbu = config.lbu.lbu, "running");
    let (memory, epoch) = begin_life(&config.state, config.lbu.age_limit)?;
    let own = LbuConfig {
        epoch,
        ..config.lbu
    };
    let mut handler = Handler::new(
        Lbu::new(own.clone(), config.keys, life::seed()?),
        config.panic,
        memory,
        config.balancers,
    );
    handler.proxies = config.proxies;
    handler.orders = config.allotments.into();
    handler.watch(&mut change)?;
    let mut keeper = Keeper::new(config.state, None, AGAIN);
    let mut troubles = Troubles::default();

    let mut buffer: Buffer = [0; DATAGRAM_MAX + 1];
    loop {
        // If this process was not running, hosts were not heard, and not silent: what has come before this moment is
        // taken in before anything is too old.
        let woken = Instant::now();
        if sockets.look(woken) {
            handler.memberships = sockets.memberships();
        }
        tokio::task::yield_now().await;
        for _ in 0..WAITING_MAX {
            tokio::select! {
                biased;
                (len, from) = unconstrained(sockets.receive(&mut buffer)) => {
                    let datagram = buffer.get(..len).unwrap_or_default();
                    handler.lbu.handle_datagram(Instant::now(), from, datagram);
                }
                () = std::future::ready(()) => break,
            }
        }
        handler.lbu.handle_timeout(woken);
        while let Some(transmit) = handler.lbu.poll_transmit() {
            let sent = sockets.send(transmit.to, &transmit.datagram);
            troubles.note(transmit.to, sent);
        }
        let now = Instant::now();
        handler.hear();
        handler.miss(now);
        handler.begin(now);
        handler.confirm();
        handler.tell_trouble();
        if std::mem::take(&mut handler.is_other) {
            keeper.note();
        }
        keeper.begin(now, || handler.saved(epoch));
        let timeouts = [
            handler.lbu.poll_timeout(),
            handler.memory.due(),
            keeper.due(),
            sockets.look_at(now),
        ];
        let looks = handler.followers.iter().filter_map(Follower::due);
        let at = timeouts.into_iter().flatten().chain(looks).min();
        let at = at.unwrap_or(now + NOTHING);
        tokio::select! {
            (len, from) = sockets.receive(&mut buffer) => {
                let datagram = buffer.get(..len).unwrap_or_default();
                handler.lbu.handle_datagram(Instant::now(), from, datagram);
            }
            () = tokio::time::sleep_until(at.into()) => {}
            (number, version, done) = finished(&mut handler.followers) => handler.end(number, version, done),
            Some(message) = requests.recv() => if let Message::Line(_, line, answer) = message {
                let (said, watch) = view::answer(&mut handler, own.lbu, &line);
                // It may be long. Who has asked may be gone.
                tokio::task::spawn_blocking(move || {
                    let line = said.to_string();
                    answer.send(match watch {
                        Some(watch) => Answer::Feed(line, watch),
                        None => Answer::Line(line),
                    })
                });
            },
            Some(scrape) = scrapes.recv() => {
                let page = metrics::page(&handler, sockets.traffic(), started);
                // Who has asked may be gone.
                let _ = scrape.send(page);
            }
            kept = keeper.ended() => if let Err(error) = kept {
                error!("a restart would lose which endpoints are governed: {error}");
            },
            Some(()) = changed.recv() => {
                let mut all = handler.followers.iter_mut();
                if let Some(forwarder) = all.find(|follower| follower.kind == Kind::Forwarder) {
                    forwarder.dirty();
                }
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = user.recv() => info!("{}", handler.lbu.counters()),
            _ = hangup.recv() => match Config::load(path) {
                Ok(config) => {
                    tell_others(&fixed, &config.fixed());
                    admit.send_replace(self::admitted(&config));
                    *handler.lbu.keys_mut() = config.keys;
                    sockets.hear(&config.multicast);
                    handler.memberships = sockets.memberships();
                    handler.panic = config.panic;
                    handler.proxies = config.proxies;
                    handler.orders = config.allotments.into();
                    handler.govern(config.balancers);
                    if let Err(error) = handler.watch(&mut change) {
                        error!("what somebody else changes in the forwarder is seen late: {error}");
                    }
                    info!("configuration read again");
                }
                Err(mistake) => error!("the old configuration stays: {mistake}"),
            },
        }
    }
    info!("{}", handler.lbu.counters());
    keeper.end(handler.saved(epoch)).await
}

/// What the life before has left, and the number of this one. Without the file nothing is worse than at first.
fn begin_life(path: &Path, age_limit: Duration) -> io::Result<(Memory, u64)> {
    let boot = life::boot()?;
    let loaded = state::load(path, "it is written anew");
    let mut saved: Saved = loaded.unwrap_or_else(|error| {
        error!("{error}");
        Saved::default()
    });
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let since = since.map_or(0, |time| {
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
    });
    let moment = (Instant::now(), since);
    saved.epoch = life::epoch(saved.epoch);
    saved.begin(&boot, since, age_limit);
    if let Err(error) = state::save(&saved, path) {
        error!("a restart would lose which endpoints are governed: {error}");
    }
    Ok((Memory::new(&saved, moment), saved.epoch))
}

fn admitted(config: &Config) -> Admitted {
    api::trusted().union(&config.users).copied().collect()
}

impl Handler {
    fn new(lbu: Lbu, panic: Panic, memory: Memory, balancers: Vec<Kind>) -> Self {
        Self {
            lbu,
            panic,
            orders: Arc::default(),
            proxies: BTreeSet::new(),
            sick: BTreeSet::new(),
            rows: BTreeMap::new(),
            memory,
            is_other: false,
            followers: balancers.into_iter().map(Follower::new).collect(),
            memberships: Vec::new(),
            applied: 0,
            confirmed: None,
            tally: Tally::default(),
            events: Events::default(),
        }
    }

    /// From now on these follow. What is known of those that did already stays; who is gone, the others know, too.
    fn govern(&mut self, balancers: Vec<Kind>) {
        let mut old = std::mem::take(&mut self.followers);
        let gone = old.iter().flat_map(Follower::gone);
        let gone = gone.map(|((place, host), gone)| (*place, *host, gone.silent));
        let gone: Vec<_> = gone.collect();
        let version = self.lbu.cache().version();
        self.is_other = true;
        self.confirmed = None;
        for kind in balancers {
            let known = old.iter().position(|follower| follower.kind == kind);
            let mut follower = match known {
                Some(known) => old.swap_remove(known),
                None => {
                    let mut new = Follower::new(kind);
                    for (place, host, silent) in &gone {
                        new.has_gone(*place, *host, *silent, version);
                    }
                    new
                }
            };
            follower.dirty();
            self.followers.push(follower);
        }
        for follower in old {
            info!(
                "{} follows no more, and goes on as it was told last",
                follower.kind
            );
        }
        for (place, _) in self.rows.values() {
            for follower in &mut self.followers {
                follower.concern(place, version);
            }
        }
    }

    /// From when the forwarder follows it is said by `change` when it is another: until then there may be none.
    fn watch(&self, change: &mut Option<mpsc::Sender<()>>) -> io::Result<()> {
        let mut kinds = self.followers.iter().map(|follower| &follower.kind);
        if !kinds.any(|kind| *kind == Kind::Forwarder) {
            return Ok(());
        }
        change.take().map_or(Ok(()), forwarder::watch)
    }

    /// Takes in what has happened in the cache.
    fn hear(&mut self) {
        let mut gone = Vec::new();
        let mut leaving = BTreeSet::new();
        let mut has_overflown = false;
        while let Some(event) = self.lbu.poll_event() {
            match event {
                Event::HostUp { host } => {
                    self.followers.iter_mut().for_each(Follower::dirty);
                    self.events.host_up(&self.lbu, host);
                    info!(host, "host is up");
                }
                Event::HostDown { host, why } => {
                    if why == Down::Goodbye {
                        leaving.insert(host);
                    }
                    self.events.host_down(host, why);
                    warn!(
                        host,
                        "host is down: {}",
                        match why {
                            Down::Goodbye => "it has said goodbye",
                            Down::Aged => "not heard of for too long",
                        }
                    );
                }
                Event::Name { host, name } => info!(host, name, "host has a name"),
                Event::Row {
                    host, app, change, ..
                } => {
                    let place = self.rows.get(&(host, app)).map(|(place, _)| place);
                    self.events.row(&self.lbu, (host, app), change, place);
                    match change {
                        RowChange::Removed => gone.push((host, app, false)),
                        // Its host may be there; or it is cut off.
                        RowChange::Lost => gone.push((host, app, true)),
                        RowChange::Added | RowChange::Updated => self.see(host, app),
                    }
                }
                Event::Full { host } => error!(host, "more rows than there is room for"),
                Event::Overflow { .. } => {
                    self.events.lost();
                    has_overflown = true;
                }
            }
        }
        if has_overflown {
            self.followers.iter_mut().for_each(Follower::dirty);
            // Which ones, and why, nobody can say any more.
            gone.extend(self.rows.keys().map(|(host, app)| (*host, *app, true)));
            let cache = self.lbu.cache();
            let hosts: Vec<_> = cache.hosts().collect();
            let rows = hosts.iter().flat_map(|host| {
                let rows = cache.host(*host);
                rows.map(move |(app, _)| (*host, app))
            });
            for (host, app) in rows.collect::<Vec<_>>() {
                self.see(host, app);
            }
        }
        for (host, app, is_stale) in gone {
            // It may have come again at once, perhaps as another one.
            if self.lbu.cache().row(host, app).is_some() {
                continue;
            }
            self.sick.remove(&(host, app));
            let Some((place, target)) = self.rows.remove(&(host, app)) else {
                continue;
            };
            self.has_gone(place, host, is_stale.then_some(target));
        }
        if !leaving.is_empty() {
            let all = self.followers.iter_mut();
            all.for_each(|follower| follower.has_left(&leaving));
        }
    }

    /// Those that the life before has governed, and that nobody has spoken of since, are silent.
    fn miss(&mut self, now: Instant) {
        if self.memory.due().is_some_and(|due| due <= now) {
            // Some may have asked for no connections, and somebody else speaks of the endpoint.
            self.followers.iter_mut().for_each(Follower::dirty);
        }
        for ((place, host), silent) in self.memory.silent(now) {
            if silent.is_some() {
                warn!(host, vip = %place.vip, physical = %place.physical, "was governed, and its host is silent");
            }
            self.has_gone(place, host, silent);
        }
    }

    /// What the next life has to know.
    fn saved(&self, epoch: u64) -> Saved {
        let rows = self.rows.iter();
        let rows = rows.map(|((host, _), (place, target))| ((*place, *host), *target));
        let gone = self.followers.iter().flat_map(Follower::gone);
        let age_limit = |host| self.lbu.age_limit(host);
        self.memory.saved(epoch, rows, gone, age_limit)
    }

    /// A row of a host is gone; `silent` is what was to be done, if nobody has said why.
    fn has_gone(&mut self, place: Place, host: u32, silent: Option<Directive>) {
        self.is_other = true;
        let version = self.lbu.cache().version();
        for follower in &mut self.followers {
            follower.has_gone(place, host, silent, version);
        }
    }

    /// There is something new of a place.
    fn concern(&mut self, place: &Place) {
        let version = self.lbu.cache().version();
        for follower in &mut self.followers {
            follower.concern(place, version);
        }
    }

    /// A row is new, or another.
    fn see(&mut self, host: u32, app: AppId) {
        let Some(cached) = self.lbu.cache().row(host, app) else {
            return;
        };
        let (place, status) = (Place::of(&cached.row), cached.row.status);
        debug!(host, %app, physical = %place.physical, health = status.health.name(),
            load = status.load, target = status.target.name(), "row");
        let new = (place, status.target);
        let old = self.rows.insert((host, app), new);
        self.is_other |= old != Some(new);
        if let Some((old, _)) = old.filter(|(old, _)| *old != place) {
            self.has_gone(old, host, None);
        }
        let before = self.memory.speaks(&place, host);
        let is_proxy = self.proxies.contains(&host);
        let is_healthy = status.health == Health::Healthy;
        let is_back = is_healthy && self.sick.remove(&(host, app));
        // Who has not looked yet has seen no failure.
        if is_proxy && status.health == Health::Failing {
            self.sick.insert((host, app));
        }
        // Whoever has left, or shall get nothing and is silent, is not there again because a proxy says something of it,
        // but because that has seen it fail and come back.
        let (lbu, proxies) = (&self.lbu, &self.proxies);
        let stays = |other: u32, silent: Option<Directive>| {
            let is_closed = silent != Some(Directive::Active);
            is_proxy && !is_back && is_closed && !proxies.contains(&other) && !lbu.is_whole(other)
        };
        for follower in &mut self.followers {
            self.is_other |= follower.speaks(place, host, stays);
        }
        let before = before.into_iter();
        let before = before.filter(|(other, silent)| stays(*other, *silent));
        for (other, silent) in before.collect::<Vec<_>>() {
            self.has_gone(place, other, silent);
        }
        self.concern(&place);
    }

    /// Has all told what is to be done, for whom it is time.
    fn begin(&mut self, now: Instant) {
        let version = self.lbu.cache().version();
        for number in 0..self.followers.len() {
            let due = self.followers.get(number).and_then(Follower::due);
            if due.is_none_or(|at| at > now) {
                continue;
            }
            let known = self.known(number);
            if let Some(follower) = self.followers.get_mut(number) {
                follower.begin(known, version, self.panic, self.orders.clone());
            }
        }
    }

    /// One that follows was told.
    fn end(&mut self, number: usize, version: u64, done: Result<Done, String>) {
        if let Some(follower) = self.followers.get_mut(number) {
            self.is_other |= follower.end(version, done, &mut self.tally, &mut self.events);
        }
        self.confirmed = None;
        self.confirm();
    }
}

/// What endpoints do, in words.
fn state_name(state: EndpointState) -> &'static str {
    nlb_netlink::Enumeration::text(state)
}
