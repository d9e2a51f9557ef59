// SPDX-License-Identifier: MIT OR Apache-2.0

//! The load balancing unit's side: the health and load handler 314, which keeps the consolidated cache and repairs
//! it by itself.
//!
//! Two lives of a host may be known at a time. The rows of the present one are in the cache. Of one that is said to
//! be later, rows are gathered aside; it takes the first one's place when all its chunks are here, which the host has
//! sent in answer to a random number: so it cannot be an old one that somebody plays again.

mod changes;
mod config;
mod life;
mod postulates;
mod relayed;

pub use config::{Down, Event, InForce, LbuConfig};

use crate::{
    cache::{Cache, Full, RowChange},
    random::Random,
    row::AppId,
    seal::{Keys, Opener, Sealer},
    wire::{
        Change, GetSnapshot, Heard, HeardPart, Heartbeat, Message, Operation, Route, Snapshot,
        SAME_MAX,
    },
    Counters, Transmit,
};
use life::Life;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    time::Instant,
};

/// Events that may wait for [`Lbu::poll_event`].
const EVENTS_MAX: usize = 65536;
/// Datagrams that may wait for [`Lbu::poll_transmit`].
const QUEUE_MAX: usize = 65536;

#[derive(Debug, Default)]
struct Host {
    /// The life whose rows are in the cache.
    current: Option<Life>,
    /// The life that says it is later.
    next: Option<Life>,
    /// A life that has ended with a goodbye, and until when late datagrams of it may come.
    gone: Option<(u64, Instant)>,
}

impl Host {
    fn deadline(&self) -> Option<Instant> {
        let current = self.current.iter();
        let current = current.flat_map(|life| [life.get_at, Some(life.expiry())]);
        // Its chunks grow old only when they are used.
        let next = self.next.iter();
        let next = next.flat_map(|life| [life.get_at, Some(life.heard + life.age_limit)]);
        let gone = self.gone.map(|(_, until)| until);
        current.chain(next).flatten().chain(gone).min()
    }
}

/// A load balancing unit's state machine. See the crate's documentation for how it is driven.
#[derive(Debug)]
pub struct Lbu {
    config: LbuConfig,
    keys: Keys,
    sealer: Sealer,
    opener: Opener,
    random: Random,
    hosts: BTreeMap<u32, Host>,
    // Of each host, when something has to be done, and the same by time.
    deadlines: BTreeMap<u32, Instant>,
    timers: BTreeSet<(Instant, u32)>,
    cache: Cache,
    in_force: Vec<InForce>,
    refused: BTreeSet<(u32, AppId)>,
    counters: Counters,
    out: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

/// Calls `$call` of the cache with a report that makes events of changes.
macro_rules! in_cache {
    ($lbu:ident, $method:ident, $($argument:expr),*) => {{
        let events = &mut $lbu.events;
        $lbu.cache.$method($($argument,)* &mut |host, app, change, version| {
            push(events, Event::Row { host, app, change, version }, version)
        })
    }};
}

fn push(events: &mut VecDeque<Event>, event: Event, version: u64) {
    if events.len() >= EVENTS_MAX {
        events.clear();
        events.push_back(Event::Overflow { version });
    } else {
        events.push_back(event);
    }
}

impl Lbu {
    /// A load balancing unit begins a life with an empty cache. `seed` is secret and random.
    pub fn new(config: LbuConfig, keys: Keys, seed: [u8; 32]) -> Self {
        Self {
            sealer: Sealer::new(config.lbu, config.epoch),
            opener: Opener::new(Route::ToLbus, config.limits.hosts),
            random: Random::new(seed),
            hosts: BTreeMap::new(),
            deadlines: BTreeMap::new(),
            timers: BTreeSet::new(),
            cache: Cache::new(config.limits),
            in_force: vec![InForce::all(0)],
            refused: BTreeSet::new(),
            counters: Counters::default(),
            out: VecDeque::new(),
            events: VecDeque::new(),
            config,
            keys,
        }
    }

    /// The cache.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// What happened how often.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The keys, to rotate them.
    pub fn keys_mut(&mut self) -> &mut Keys {
        &mut self.keys
    }

    /// The name of a host, if it has one.
    pub fn name(&self, host: u32) -> Option<&str> {
        self.hosts.get(&host)?.current.as_ref()?.name.as_deref()
    }

    /// Where a host was last heard from.
    pub fn address(&self, host: u32) -> Option<SocketAddr> {
        Some(self.hosts.get(&host)?.current.as_ref()?.from)
    }

    /// All of a host's table is here, as far as anybody has heard: what is in no row of it is not there.
    pub fn is_whole(&self, host: u32) -> bool {
        let current = self.hosts.get(&host).and_then(|host| host.current.as_ref());
        current.is_some_and(|life| !life.is_behind())
    }

    /// These rows are not in force, whatever the version: somebody refuses what they ask for.
    pub fn not_in_force(&mut self, rows: BTreeSet<(u32, AppId)>) {
        self.refused = rows;
    }

    /// What those do who follow the cache, from now on; before the first time, somebody does nothing of it. Postulates
    /// are right when all do what they say whom it concerns. A later call may say less: somebody else may follow.
    pub fn in_force(&mut self, all: Vec<InForce>) {
        self.in_force = all;
    }

    fn tell(&mut self, to: SocketAddr, message: &Message) {
        if self.out.len() >= QUEUE_MAX {
            return self.counters.add("datagram-not-sent");
        }
        let datagram = self.sealer.seal(&self.keys, message).into();
        self.out.push_back(Transmit { to, datagram });
    }

    fn event(&mut self, event: Event) {
        push(&mut self.events, event, self.cache.version());
    }

    /// A datagram has come from `from`. What is too old is taken out by [`Self::handle_timeout`], and not here: it may
    /// have waited because the caller did.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        let opened = match self.opener.open(&self.keys, datagram) {
            Ok(opened) => opened,
            Err(error) => return self.counters.add(error.name()),
        };
        let message = match Message::decode(opened.number, opened.body) {
            Ok(message) => message,
            Err(error) => return self.counters.add(error.name()),
        };
        let (id, epoch) = (opened.sender, opened.epoch);
        // Their number is bounded by that of the senders, and of those that leaders speak for.
        let host = self.hosts.entry(id).or_default();
        if host.gone.is_some_and(|(gone, _)| epoch <= gone) {
            return self.counters.add("message-of-the-gone");
        }
        let is_current = host.current.as_ref().is_some_and(|l| l.epoch == epoch);
        if !is_current && host.next.as_ref().is_none_or(|l| l.epoch != epoch) {
            host.next = Some(Life::new(now, epoch, from, &self.config));
        }
        let retry = self.config.retry;
        if let Some(life) = self.life(id, is_current) {
            life.speaks_from(now, from, retry);
        }
        match message {
            Message::Heartbeat(beat) => self.heartbeat(now, now, id, is_current, beat),
            Message::Goodbye if is_current => self.goodbye(now, id, epoch),
            // It may be an old one. If not, the heartbeats end.
            Message::Goodbye => self.counters.add("goodbye-unproven"),
            Message::RowChange(operations) => self.row_change(now, id, is_current, operations),
            Message::Snapshot(snapshot) => self.snapshot(now, id, is_current, snapshot),
            Message::Postulate(postulate) => {
                let wrong = self.postulate(now, id, epoch, &postulate);
                self.tell(from, &Message::PostulateWrong(wrong));
            }
            Message::Consolidated(consolidated) if is_current => {
                let number = consolidated.number;
                if self.consolidated(now, consolidated) {
                    self.say_heard(from, (id, epoch, number), Vec::new());
                }
            }
            Message::Changes(changes) if is_current => {
                let number = changes.number;
                let missing = self.changes(now, (id, epoch), changes);
                self.say_heard(from, (id, epoch, number), missing);
            }
            // It may be an old one: not even its sender is known to be there.
            Message::Consolidated(_) | Message::Changes(_) => {
                self.counters.add("consolidated-unproven")
            }
            // Nothing else goes to load balancing units.
            _ => {}
        }
        self.arrange(now, id);
    }

    /// Tells a leader that a message has come, but what it says of the hosts `missing`.
    fn say_heard(&mut self, to: SocketAddr, what: (u32, u64, u64), missing: Vec<u32>) {
        if missing.len() > SAME_MAX {
            return;
        }
        let (host, epoch, number) = what;
        let heard = Heard {
            host,
            epoch,
            number,
        };
        let message = if missing.is_empty() {
            Message::Heard(heard)
        } else {
            Message::HeardPart(HeardPart { heard, missing })
        };
        self.tell(to, &message);
    }

    fn life(&mut self, id: u32, is_current: bool) -> Option<&mut Life> {
        let host = self.hosts.get_mut(&id)?;
        if is_current {
            host.current.as_mut()
        } else {
            host.next.as_mut()
        }
    }

    /// A heartbeat, which somebody has had since `at`.
    fn heartbeat(&mut self, now: Instant, at: Instant, id: u32, is_current: bool, beat: Heartbeat) {
        self.counters.add("heartbeat");
        let config = self.config.clone();
        let Some(life) = self.life(id, is_current) else {
            return;
        };
        if beat.beat <= life.beat {
            return self.counters.add("heartbeat-late");
        }
        if !life.describe(beat.age_limit, beat.generations.len(), &config) {
            return self.counters.add("chunks-contradict");
        }
        life.beat = beat.beat;
        life.heard = life.heard.max(at);
        for (chunk, generation) in life.chunks.iter_mut().zip(beat.generations) {
            chunk.heard_of = chunk.heard_of.max(generation);
            if chunk.have == Some(generation) && !chunk.is_behind() {
                chunk.confirmed = chunk.confirmed.max(Some(at));
            }
        }
        life.schedule(now, &config);
        if let Some(name) = beat.name.filter(|name| life.name.as_ref() != Some(name)) {
            life.name = Some(name.clone());
            if is_current {
                self.event(Event::Name { host: id, name });
            }
        }
    }

    fn row_change(&mut self, now: Instant, id: u32, is_current: bool, operations: Vec<Operation>) {
        self.counters.add("row-change");
        for operation in operations {
            let Some(life) = self.life(id, is_current) else {
                return;
            };
            life.heard = now;
            let Some(chunk) = life.chunk_of(operation.app) else {
                continue;
            };
            let generation = operation.generation;
            chunk.heard_of = chunk.heard_of.max(generation);
            // Before all chunks are here, only the next snapshot brings more.
            if !is_current || chunk.have != Some(generation - 1) {
                continue;
            }
            let row = self.cache.row(id, operation.app);
            let fits = match operation.change {
                Change::Add(_) => row.is_none(),
                Change::Update(_) | Change::Delete => row.is_some(),
            };
            let done = match operation.change {
                // A host contradicts itself.
                _ if !fits => Err(Full),
                Change::Add(row) => in_cache!(self, add, id, operation.app, row),
                Change::Update(status) => {
                    in_cache!(self, update, id, operation.app, status);
                    Ok(())
                }
                Change::Delete => {
                    in_cache!(self, remove, id, operation.app);
                    Ok(())
                }
            };
            if done.is_err() && fits {
                self.event(Event::Full { host: id });
            }
            let Some(chunk) = self
                .life(id, is_current)
                .and_then(|l| l.chunk_of(operation.app))
            else {
                continue;
            };
            if done.is_ok() {
                chunk.have = Some(generation);
                if !chunk.is_behind() {
                    chunk.confirmed = Some(now);
                }
            } else {
                // What it had may be used until it is too old.
                chunk.have = None;
                self.counters.add("row-change-refused");
            }
        }
        let config = self.config.clone();
        if let Some(life) = self.life(id, is_current) {
            life.schedule(now, &config);
        }
    }

    fn snapshot(&mut self, now: Instant, id: u32, is_current: bool, snapshot: Snapshot) {
        if snapshot.lbu != self.config.lbu {
            return self.counters.add("message-for-others");
        }
        self.counters.add("snapshot");
        let config = self.config.clone();
        let Some(life) = self.life(id, is_current) else {
            return;
        };
        if !life.has_asked(snapshot.request) {
            return self.counters.add("snapshot-unasked");
        }
        if !life.describe(snapshot.age_limit, usize::from(snapshot.chunks), &config) {
            return self.counters.add("chunks-contradict");
        }
        life.heard = now;
        let (number, chunks) = (u32::from(snapshot.chunk), u32::from(snapshot.chunks));
        let rows = life.part(snapshot, config.limits.rows_per_host);
        if let Some(rows) = rows {
            let is_part = |app: AppId| app.0 % chunks == number;
            let index = number as usize;
            if is_current {
                if in_cache!(self, replace, id, is_part, rows).is_err() {
                    self.empty(id, index);
                    self.event(Event::Full { host: id });
                }
            } else if let Some(life) = self.life(id, false) {
                life.chunks[index].staged = Some(rows);
            }
            if let Some(life) = self.life(id, is_current) {
                let chunk = &mut life.chunks[index];
                chunk.confirmed = chunk.have.map(|_| now);
            }
        }
        if let Some(life) = self.life(id, is_current) {
            life.schedule(now, &config);
            if !is_current && life.chunks.iter().all(|chunk| chunk.staged.is_some()) {
                self.promote(id);
            }
        }
    }

    /// All of the next life is here: it is the current one.
    fn promote(&mut self, id: u32) {
        let Some(host) = self.hosts.get_mut(&id) else {
            return;
        };
        let Some(mut life) = host.next.take() else {
            return;
        };
        self.opener.prove(id, life.epoch);
        let name = life.name.clone();
        let staged = life
            .chunks
            .iter_mut()
            .filter_map(|chunk| chunk.staged.take());
        let rows = staged.flatten().collect();
        host.current = Some(life);
        host.gone = None;
        let all = |_| true;
        let done = in_cache!(self, replace, id, all, rows);
        self.event(Event::HostUp { host: id });
        if let Some(name) = name {
            self.event(Event::Name { host: id, name });
        }
        if done.is_err() {
            let chunks = self.life(id, true).map_or(0, |life| life.chunks.len());
            (0..chunks).for_each(|index| self.empty(id, index));
            self.event(Event::Full { host: id });
        }
    }

    /// Nothing of this chunk of the current life may be used.
    fn empty(&mut self, id: u32, index: usize) {
        let Some(life) = self.life(id, true) else {
            return;
        };
        let chunks = life.chunks.len();
        let Some(chunk) = life.chunks.get_mut(index) else {
            return;
        };
        chunk.have = None;
        chunk.confirmed = None;
        let is_part = |app: AppId| app.0 as usize % chunks == index;
        in_cache!(self, clear, id, is_part, RowChange::Lost);
    }

    fn goodbye(&mut self, now: Instant, id: u32, epoch: u64) {
        self.counters.add("goodbye");
        self.down(id, Down::Goodbye);
        let limit = self.config.age_limit;
        if let Some(host) = self.hosts.get_mut(&id) {
            host.next.take_if(|life| life.epoch <= epoch);
            host.gone = Some((epoch, now + limit));
        }
    }

    fn down(&mut self, id: u32, why: Down) {
        let current = self.hosts.get_mut(&id).and_then(|h| h.current.take());
        if current.is_some() {
            let change = match why {
                Down::Goodbye => RowChange::Removed,
                Down::Aged => RowChange::Lost,
            };
            in_cache!(self, clear, id, |_| true, change);
            self.event(Event::HostDown { host: id, why });
        }
    }

    /// The time of [`Self::poll_timeout`] has come; earlier or later does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, id)) = self.timers.first().copied() {
            if at > now {
                break;
            }
            self.act(now, id);
        }
    }

    /// Takes out what is too old of a host, and does what is due.
    fn act(&mut self, now: Instant, id: u32) {
        self.age(now, id);
        if let Some(host) = self.hosts.get_mut(&id) {
            host.gone.take_if(|(_, until)| *until <= now);
            host.next.take_if(|life| life.heard + life.age_limit <= now);
            if host.current.is_none() && host.next.is_none() && host.gone.is_none() {
                self.hosts.remove(&id);
                self.opener.forget(id);
            }
        }
        self.arrange(now, id);
    }

    /// Asks for what is missing of a host, if it is time, and notes when something is due.
    fn arrange(&mut self, now: Instant, id: u32) {
        let mut gets = Vec::new();
        if let Some(host) = self.hosts.get_mut(&id) {
            for life in [&mut host.current, &mut host.next].into_iter().flatten() {
                if life.get_at.is_some_and(|at| at <= now) {
                    gets.push(life.request(now, &mut self.random, &self.config));
                }
            }
        }
        for (to, request, chunks) in gets {
            self.counters.add("get-snapshot");
            let get = GetSnapshot {
                host: id,
                request,
                chunks,
            };
            self.tell(to, &Message::GetSnapshot(get));
        }
        let deadline = self.hosts.get(&id).and_then(Host::deadline);
        if let Some(old) = self.deadlines.remove(&id) {
            self.timers.remove(&(old, id));
        }
        if let Some(at) = deadline {
            self.deadlines.insert(id, at);
            self.timers.insert((at, id));
        }
    }

    /// Nothing stale is trusted.
    fn age(&mut self, now: Instant, id: u32) {
        let Some(life) = self.life(id, true) else {
            return;
        };
        let limit = life.age_limit;
        let is_old = |confirmed: Instant| confirmed + limit <= now;
        let old: Vec<_> = life
            .chunks
            .iter()
            .enumerate()
            .filter(|(_, chunk)| chunk.confirmed.is_some_and(is_old))
            .map(|(index, _)| index)
            .collect();
        for index in old {
            self.counters.add("chunk-aged");
            self.empty(id, index);
        }
        let config = self.config.clone();
        if let Some(life) = self.life(id, true) {
            if is_old(life.heard) {
                self.down(id, Down::Aged);
            } else {
                life.schedule(now, &config);
            }
        }
    }

    /// When [`Self::handle_timeout`] has to be called, if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The next datagram to be sent.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.out.pop_front()
    }

    /// The next thing that the caller should know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}
