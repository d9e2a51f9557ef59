// SPDX-License-Identifier: MIT OR Apache-2.0

//! `nlbd health`: the health and load handler 314 of the specification. It keeps the consolidated cache of what hosts
//! say of their applications, and has the forwarder follow it.
//!
//! A host is told that nobody sends an application new connections when the forwarder has taken what says so: the
//! version of the cache that a plan was made of is in force when the plan is carried out.

mod config;
mod forwarder;
mod memory;
mod plan;
mod view;

#[cfg(test)]
mod tests;

pub(crate) use config::Config;

use config::Panic;
use forwarder::{Applied, Forwarder};
use memory::{Memory, Saved};
use nlb_daemon::{
    api::{self, Admitted, Message, Server},
    config::tell_others,
    life,
    state::{self, Keeper},
    udp::{Buffer, Sockets, Troubles, PORT},
};
use nlb_health::{
    cache::RowChange,
    lbu::{Down, Event, Lbu, LbuConfig},
    row::{AppId, Directive},
    wire::DATAGRAM_MAX,
};
use nlb_netlink::EndpointState;
use plan::{worse, AllGone, Effect, Gone, Known, Place, Plan};
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    io,
    path::Path,
    time::{Duration, Instant},
};
use tokio::{
    signal::unix::{signal, SignalKind},
    sync::{mpsc, watch},
    task::{unconstrained, JoinHandle},
    time::{interval, MissedTickBehavior},
};
use tracing::{debug, error, info, warn};

/// Requests that may wait.
const QUEUE: usize = 64;
/// Datagrams that are taken in before anything else: as many as wait where there is most room for them. A flood shall not
/// stop the clock.
const WAITING_MAX: usize = 4096;
/// When there is nothing to wait for.
const NOTHING: Duration = Duration::from_secs(3600);
/// Places of rows that are gone, whose endpoints are to get nothing still. As many as rows there may be.
const GONE_MAX: usize = 100_000;
/// How often the forwarder is looked at although nobody has said that anything is another; and after how long again,
/// when it could not be told.
const LOOK: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_secs(1);
/// Between a plan and the next, so that what comes together is done together.
const PAUSE: Duration = Duration::from_millis(20);

/// Runs until a signal says to end.
pub(crate) fn run(path: &Path, config: Config) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(serve(path, config));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// A plan under way, and what was gone when it was begun.
type Job = JoinHandle<(Forwarder, AllGone, Applied)>;

/// What is known, and what is done about it.
struct Handler {
    lbu: Lbu,
    panic: Panic,
    /// The rows as they were seen last, for what becomes of those that go.
    rows: BTreeMap<(u32, AppId), (Place, Directive)>,
    gone: AllGone,
    memory: Memory,
    /// The next life may have to know something else.
    is_other: bool,
    effects: BTreeMap<Place, Effect>,
    is_dirty: bool,
    applied: u64,
    /// Why the forwarder is not as it should be.
    trouble: Option<String>,
    forwarder: Option<Forwarder>,
    job: Option<(u64, Job)>,
    not_before: Instant,
}

async fn serve(path: &Path, config: Config) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut user = signal(SignalKind::user_defined1())?;
    let server = Server::bind(&config.socket)?;
    let sockets = match &config.listen {
        Some(listen) => Sockets::bind(listen)?,
        None => Sockets::bind_all(PORT)?,
    };
    let fixed = config.fixed();
    let (queue, mut requests) = mpsc::channel(QUEUE);
    let (admit, admitted) = watch::channel(admitted(&config));
    tokio::spawn(server.serve(admitted, queue));
    let (change, mut changed) = mpsc::channel(1);
    forwarder::watch(change)?;
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    info!(lbu = config.lbu.lbu, "running");
    let (saved, epoch) = begin_life(&config.state);
    let own = LbuConfig {
        epoch,
        ..config.lbu
    };
    let mut handler = Handler::new(
        Lbu::new(own.clone(), config.keys, life::seed()?),
        config.panic,
        Memory::new(&saved, Instant::now() + own.age_limit),
    );
    let mut keeper = Keeper::new(config.state, None, AGAIN);
    let mut troubles = Troubles::default();

    let mut buffer: Buffer = [0; DATAGRAM_MAX + 1];
    loop {
        // If this process was not running, hosts were not heard, and not silent: what has come before this moment is
        // taken in before anything is too old.
        let woken = Instant::now();
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
        handler.begin();
        if std::mem::take(&mut handler.is_other) {
            keeper.note();
        }
        keeper.begin(now, || handler.saved(epoch));
        let timeouts = [
            handler.lbu.poll_timeout(),
            handler.memory.due(),
            keeper.due(),
        ];
        let at = timeouts.into_iter().flatten().min();
        let mut at = at.unwrap_or(now + NOTHING);
        if handler.is_dirty && handler.job.is_none() {
            at = at.min(handler.not_before);
        }
        tokio::select! {
            (len, from) = sockets.receive(&mut buffer) => {
                let datagram = buffer.get(..len).unwrap_or_default();
                handler.lbu.handle_datagram(Instant::now(), from, datagram);
            }
            () = tokio::time::sleep_until(at.into()) => {}
            done = finished(&mut handler.job) => handler.end(done),
            Some(message) = requests.recv() => if let Message::Line(_, line, answer) = message {
                let said = view::answer(&handler, own.lbu, &line);
                // It may be long. Who has asked may be gone.
                tokio::task::spawn_blocking(move || answer.send(said.to_string()));
            },
            kept = keeper.ended() => if let Err(error) = kept {
                error!("a restart would lose which endpoints are governed: {error}");
            },
            Some(()) = changed.recv() => handler.is_dirty = true,
            _ = look.tick() => handler.is_dirty = true,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = user.recv() => info!("{}", handler.lbu.counters()),
            _ = hangup.recv() => match Config::load(path) {
                Ok(config) => {
                    tell_others(&fixed, &config.fixed());
                    admit.send_replace(self::admitted(&config));
                    *handler.lbu.keys_mut() = config.keys;
                    handler.panic = config.panic;
                    handler.is_dirty = true;
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
fn begin_life(path: &Path) -> (Saved, u64) {
    let loaded = state::load(path, "it is written anew");
    let mut saved: Saved = loaded.unwrap_or_else(|error| {
        error!("{error}");
        Saved::default()
    });
    saved.epoch = life::epoch(saved.epoch);
    if let Err(error) = state::save(&saved, path) {
        error!("a restart would lose which endpoints are governed: {error}");
    }
    let epoch = saved.epoch;
    (saved, epoch)
}

fn admitted(config: &Config) -> Admitted {
    api::trusted().union(&config.users).copied().collect()
}

/// What a plan that is under way has come to; never, if there is none.
async fn finished(job: &mut Option<(u64, Job)>) -> (u64, <Job as Future>::Output) {
    match job {
        Some((version, running)) => {
            let outcome = running.await;
            let version = *version;
            *job = None;
            (version, outcome)
        }
        None => std::future::pending().await,
    }
}

impl Handler {
    fn new(lbu: Lbu, panic: Panic, memory: Memory) -> Self {
        Self {
            lbu,
            panic,
            rows: BTreeMap::new(),
            gone: BTreeMap::new(),
            memory,
            is_other: false,
            effects: BTreeMap::new(),
            is_dirty: true,
            applied: 0,
            trouble: None,
            forwarder: Some(Forwarder::default()),
            job: None,
            not_before: Instant::now(),
        }
    }

    /// Takes in what has happened in the cache.
    fn hear(&mut self) {
        let mut gone = Vec::new();
        let mut leaving = BTreeSet::new();
        let mut has_overflown = false;
        while let Some(event) = self.lbu.poll_event() {
            match event {
                Event::HostUp { host } => {
                    self.is_dirty = true;
                    info!(host, "host is up");
                }
                Event::HostDown { host, why } => {
                    if why == Down::Goodbye {
                        leaving.insert(host);
                    }
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
                    self.is_dirty = true;
                    match change {
                        RowChange::Removed => gone.push((host, app, false)),
                        // Its host may be there; or it is cut off.
                        RowChange::Lost => gone.push((host, app, true)),
                        RowChange::Added | RowChange::Updated => self.see(host, app),
                    }
                }
                Event::Full { host } => error!(host, "more rows than there is room for"),
                Event::Overflow { .. } => has_overflown = true,
            }
        }
        if has_overflown {
            self.is_dirty = true;
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
            let Some((place, target)) = self.rows.remove(&(host, app)) else {
                continue;
            };
            self.has_gone(place, host, is_stale.then_some(target));
        }
        if !leaving.is_empty() {
            // That of which it was silent, too.
            let all = self.gone.iter_mut();
            let all = all.filter(|((_, host), _)| leaving.contains(host));
            all.for_each(|(_, gone)| gone.silent = None);
        }
    }

    /// Those that the life before has governed, and that nobody has spoken of since, are silent.
    fn miss(&mut self, now: Instant) {
        for ((place, host), silent) in self.memory.silent(now) {
            self.is_dirty = true;
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
        self.memory.saved(epoch, rows, &self.gone)
    }

    /// A row of a host is gone; `silent` is what was to be done, if nobody has said why.
    fn has_gone(&mut self, place: Place, host: u32, silent: Option<Directive>) {
        self.is_other = true;
        let key = (place, host);
        if self.gone.len() >= GONE_MAX && !self.gone.contains_key(&key) {
            // Those that have no endpoint here are missed least.
            self.gone.retain(|_, gone| gone.set.is_some());
            if self.gone.len() >= GONE_MAX {
                return;
            }
        }
        let old = self.gone.get(&key).and_then(|gone| gone.silent);
        let silent = match (old, silent) {
            (Some(old), Some(new)) => Some(worse(old, new)),
            (old, new) => new.or(old),
        };
        self.gone.insert(key, Gone { silent, set: None });
    }

    /// There is a row of `host` at a place: nobody else who was there has a say any more.
    fn speaks(&mut self, place: Place, host: u32) {
        let here = self.gone.range((place, 0)..=(place, u32::MAX));
        let over = here.filter(|((_, other), gone)| *other != host || gone.silent.is_none());
        let over: Vec<_> = over.map(|(key, _)| *key).collect();
        for key in over {
            self.gone.remove(&key);
            self.is_other = true;
        }
    }

    /// A host whose table is here is not silent: what is in no row of it has left.
    fn settle(&mut self) {
        if self.gone.is_empty() {
            return;
        }
        let rows = self.rows.iter();
        let rows: BTreeSet<_> = rows
            .map(|((host, _), (place, _))| (*place, *host))
            .collect();
        let (lbu, is_other) = (&self.lbu, &mut self.is_other);
        let mut whole = BTreeMap::new();
        self.gone.retain(|key, gone| {
            if !*whole.entry(key.1).or_insert_with(|| lbu.is_whole(key.1)) {
                return true;
            }
            let is_here = rows.contains(key);
            *is_other |= is_here || gone.silent.is_some();
            gone.silent = None;
            !is_here
        });
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
        self.memory.forget(&place);
        if let Some((old, _)) = old.filter(|(old, _)| *old != place) {
            self.has_gone(old, host, None);
        }
        self.speaks(place, host);
    }

    /// All that a plan is made of.
    fn known(&mut self) -> Known {
        self.settle();
        let cache = self.lbu.cache();
        let rows = cache.hosts().flat_map(|host| cache.host(host));
        Known {
            rows: rows
                .map(|(_, cached)| (Place::of(&cached.row), cached.row.status))
                .collect(),
            gone: self.gone.clone(),
        }
    }

    /// Has the forwarder told what is to be done, if it is time.
    fn begin(&mut self) {
        if !self.is_dirty || self.not_before > Instant::now() {
            return;
        }
        let Some(mut forwarder) = self.forwarder.take() else {
            return;
        };
        self.is_dirty = false;
        let known = self.known();
        let (version, panic) = (self.lbu.cache().version(), self.panic);
        let job = tokio::task::spawn_blocking(move || {
            let gone = known.gone.clone();
            let applied = forwarder.apply(known, panic);
            (forwarder, gone, applied)
        });
        self.job = Some((version, job));
    }

    /// It was told.
    fn end(&mut self, (version, done): (u64, <Job as Future>::Output)) {
        let (begun, applied) = match done {
            Ok((forwarder, begun, applied)) => {
                self.forwarder = Some(forwarder);
                (begun, applied)
            }
            Err(error) => {
                self.forwarder = Some(Forwarder::default());
                let trouble = Some(error.to_string());
                let applied = Applied {
                    trouble,
                    ..Applied::default()
                };
                (BTreeMap::new(), applied)
            }
        };
        let Applied {
            mut plan,
            gone,
            is_through,
            refused,
            trouble,
        } = applied;
        self.note(&begun, &gone);
        self.not_before = Instant::now() + PAUSE;
        if is_through {
            plan.effects.retain(|place, _| !refused.contains(place));
            let rows = self.rows.iter();
            let rows = rows.filter(|(_, (place, _))| refused.contains(place));
            self.lbu.not_in_force(rows.map(|(row, _)| *row).collect());
            self.lbu.applied(version);
            self.applied = version;
            self.tell_panics(&plan);
            self.effects = plan.effects;
        }
        match trouble {
            None => {
                if self.trouble.take().is_some() {
                    info!("the forwarder follows again");
                }
            }
            Some(what) => {
                if self.trouble.as_ref() != Some(&what) {
                    error!("the forwarder does not follow: {what}");
                }
                self.trouble = Some(what);
                self.is_dirty = true;
                self.not_before = Instant::now() + AGAIN;
            }
        }
    }

    /// What was done for what is gone: `begun` is what it was before, `gone` what it is now. Where somebody else has
    /// decided, it is forgotten.
    fn note(&mut self, begun: &AllGone, gone: &AllGone) {
        for (key, before) in begun {
            if self.gone.get(key) != Some(before) {
                continue;
            }
            match gone.get(key) {
                Some(now) => {
                    self.gone.insert(*key, *now);
                }
                None => {
                    self.gone.remove(key);
                    self.is_other = true;
                }
            }
        }
    }

    fn tell_panics(&self, plan: &Plan) {
        let of = |effects: &BTreeMap<Place, Effect>| -> BTreeSet<_> {
            let all = effects.values().filter(|effect| effect.panic);
            all.map(|effect| effect.service).collect()
        };
        let (old, new) = (of(&self.effects), of(&plan.effects));
        for service in new.difference(&old) {
            warn!(%service, "too many endpoints are not healthy: they get connections all the same");
        }
        for service in old.difference(&new) {
            info!(%service, "enough endpoints are healthy again");
        }
    }
}

/// What endpoints do, in words.
fn state_name(state: EndpointState) -> &'static str {
    nlb_netlink::Enumeration::text(state)
}
