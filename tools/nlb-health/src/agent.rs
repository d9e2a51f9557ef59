// SPDX-License-Identifier: MIT OR Apache-2.0

//! The host's side: the health and load infrastructure 1202, which keeps the table and tells load balancing units
//! what changes in it.

mod config;
mod directives;
mod group;
mod heard;
mod multicast;
mod peers;

pub use config::{AgentConfig, Event};
pub use group::GroupConfig;

use crate::{
    load::Smoother,
    random::Random,
    row::{AppId, Directive, Health, Row},
    seal::{Keys, Opener, Sealer},
    table::{Refused, Table},
    wire::{self, Heartbeat, Message, Operation, Route},
    Counters, Transmit,
};
use directives::{Directives, Wish};
use group::Group;
use peers::Peers;
use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

/// Datagrams that may wait for [`Agent::poll_transmit`]; snapshots are not begun beyond it.
const QUEUE_MAX: usize = 2048;
/// Changes that may wait to be put into one message; should the caller never poll, heartbeats repair the rest.
const OPERATIONS_MAX: usize = 4096;
/// How often goodbye is said, and after which time again.
const GOODBYES: u32 = 3;
const GOODBYE_INTERVAL: Duration = Duration::from_millis(100);

/// A host's state machine. See the crate's documentation for how it is driven.
#[derive(Debug)]
pub struct Agent {
    config: AgentConfig,
    keys: Keys,
    sealer: Sealer,
    opener: Opener,
    table: Table,
    loads: BTreeMap<AppId, Smoother>,
    directives: Directives,
    peers: Peers,
    group: Option<Group>,
    counters: Counters,
    // Changes that are not sent yet, and what is to be sent.
    operations: Vec<Operation>,
    out: VecDeque<Transmit>,
    events: VecDeque<Event>,
    beat: u64,
    heartbeat_at: Instant,
    // The table has changed since the last one.
    is_changed: bool,
    // The time of another goodbye, and how many are left.
    leaving: Option<(Instant, u32)>,
    is_gone: bool,
}

impl Agent {
    /// A host begins a life with an empty table. `seed` is secret and random.
    pub fn new(now: Instant, config: AgentConfig, keys: Keys, seed: [u8; 32]) -> Self {
        let random = Random::new(seed);
        let group = config.group.clone();
        let group = group.map(|group| Group::new(now, config.host, config.epoch, group, random));
        Self {
            sealer: Sealer::new(config.host, config.epoch),
            opener: Opener::new(Route::ToHosts, config.max_lbus),
            table: Table::new(config.chunks, config.max_rows),
            loads: BTreeMap::new(),
            directives: Directives::new(now),
            peers: Peers::new(now, &config),
            group,
            counters: Counters::default(),
            operations: Vec::new(),
            out: VecDeque::new(),
            events: VecDeque::new(),
            beat: 0,
            heartbeat_at: now,
            is_changed: false,
            leaving: None,
            is_gone: false,
            config,
            keys,
        }
    }

    /// The table.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// What happened how often.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The keys, to rotate them.
    pub fn keys_mut(&mut self) -> &mut Keys {
        &mut self.keys
    }

    /// From now on load balancing units are at these addresses.
    pub fn set_lbus(&mut self, lbus: Vec<SocketAddr>) {
        self.config.lbus = lbus;
    }

    /// From now on these are the members of the group by which others are found.
    pub fn set_seeds(&mut self, seeds: Vec<SocketAddr>) {
        if let Some(group) = &mut self.group {
            group.set_seeds(seeds);
        }
    }

    /// Who leads the group, as far as is known here.
    pub fn leader(&self) -> Option<u32> {
        self.group.as_ref().map(Group::leader)
    }

    /// How many members of the group are there, with this one, as far as is known here.
    pub fn members(&self) -> Option<usize> {
        self.group.as_ref().map(Group::members)
    }

    /// The load balancing units that have asked for the table in this life and were heard of lately.
    pub fn lbus(&self) -> impl Iterator<Item = u32> + '_ {
        self.peers.ids()
    }

    /// An application has started: "a row is added as each application is spun up". The current state is that of
    /// the target: nobody has been told another one.
    pub fn add(&mut self, now: Instant, mut row: Row) -> Result<AppId, Refused> {
        let wanted = row.status.target;
        row.status.target = self.effective(wanted, row.status.health);
        row.status.current = row.status.target;
        let operation = self.table.add(row)?;
        let app = operation.app;
        self.directives.add(app, wanted, operation.generation);
        self.changed(now, operation);
        Ok(app)
    }

    /// It was closed down.
    pub fn remove(&mut self, now: Instant, app: AppId) -> Result<(), Refused> {
        let operation = self.table.delete(app)?;
        self.loads.remove(&app);
        self.directives.remove(app);
        self.changed(now, operation);
        Ok(())
    }

    /// Its health is this now. It is sent at once.
    pub fn set_health(&mut self, now: Instant, app: AppId, health: Health) -> Result<(), Refused> {
        self.set(now, app, Some(health), None, None)
    }

    /// Its capacity is this now.
    pub fn set_capacity(&mut self, now: Instant, app: AppId, capacity: u8) -> Result<(), Refused> {
        self.set(now, app, None, Some(capacity), None)
    }

    /// What load balancing units shall do with it, as far as its health allows. When they all do,
    /// [`Event::DirectiveReached`] says so.
    pub fn set_target(
        &mut self,
        now: Instant,
        app: AppId,
        target: Directive,
    ) -> Result<(), Refused> {
        self.set(now, app, None, None, Some(target))
    }

    /// Its load was measured. It is smoothed, and sent rarely.
    pub fn set_load(&mut self, now: Instant, app: AppId, load: u8) -> Result<(), Refused> {
        if self.table.row(app).is_none() {
            return Err(Refused::Missing);
        }
        let smoother = self.loads.entry(app).or_default();
        smoother.sample(&self.config.load, now, load);
        self.tell_load(now, app);
        Ok(())
    }

    /// Nobody says what its load is any more: there is none, as at first.
    pub fn forget_load(&mut self, now: Instant, app: AppId) -> Result<(), Refused> {
        let status = self.table.row(app).ok_or(Refused::Missing)?.status;
        self.loads.remove(&app);
        let none = crate::row::Status { load: 0, ..status };
        if let Some(operation) = self.table.update(app, none)? {
            self.changed(now, operation);
        }
        Ok(())
    }

    /// The host is about to shut down. Everything that is known of it will be forgotten at once; to lose no new
    /// connection, let the applications drain first. [`Event::Gone`] follows.
    pub fn shut_down(&mut self, now: Instant) {
        if self.leaving.is_none() && !self.is_gone {
            self.flush();
            self.in_group(|group, host| group.leave(host));
            self.leaving = Some((now, GOODBYES));
            self.handle_timeout(now);
        }
    }

    fn effective(&self, wanted: Directive, health: Health) -> Directive {
        if self.config.drain_when_failing
            && health == Health::Failing
            && wanted == Directive::Active
        {
            Directive::Draining
        } else {
            wanted
        }
    }

    fn set(
        &mut self,
        now: Instant,
        app: AppId,
        health: Option<Health>,
        capacity: Option<u8>,
        wanted: Option<Directive>,
    ) -> Result<(), Refused> {
        let mut status = self.table.row(app).ok_or(Refused::Missing)?.status;
        let old = status.target;
        status.health = health.unwrap_or(status.health);
        status.capacity = capacity.unwrap_or(status.capacity);
        let wanted = wanted.unwrap_or_else(|| self.directives.wanted(app));
        status.target = self.effective(wanted, status.health);
        let operation = self.table.update(app, status)?;
        self.directives.want(app, wanted);
        if let Some(operation) = operation {
            if status.target != old {
                let wish = Wish {
                    since: now,
                    generation: operation.generation,
                    target: status.target,
                    differs: status.target != status.current,
                };
                self.directives.change(app, wish, &self.config);
            }
            self.changed(now, operation);
        }
        Ok(())
    }

    fn tell_load(&mut self, now: Instant, app: AppId) {
        let Some(smoother) = self.loads.get_mut(&app) else {
            return;
        };
        let load = smoother.tell(&self.config.load, now);
        if let (Some(load), Some(row)) = (load, self.table.row(app)) {
            let status = crate::row::Status { load, ..row.status };
            if let Ok(Some(operation)) = self.table.update(app, status) {
                self.changed(now, operation);
            }
        }
    }

    /// The table was changed: that is sent when the caller has done all its changes, and a heartbeat soon behind it
    /// finds out where it was lost.
    fn changed(&mut self, now: Instant, operation: Operation) {
        if self.operations.len() < OPERATIONS_MAX {
            self.operations.push(operation);
        } else {
            self.counters.add("changes-not-sent");
        }
        self.heartbeat_at = self.heartbeat_at.min(now + self.config.recheck);
        self.is_changed = true;
    }

    fn in_group<T>(
        &mut self,
        call: impl FnOnce(&mut Group, &mut group::Host<'_>) -> T,
    ) -> Option<T> {
        let mut host = group::Host {
            keys: &self.keys,
            counters: &mut self.counters,
            out: &mut self.out,
        };
        self.group.as_mut().map(|group| call(group, &mut host))
    }

    /// Queues `message` for every load balancing unit.
    fn tell_all(&mut self, message: &Message) {
        let config = &self.config;
        let all: Vec<_> = config
            .lbus
            .iter()
            .chain(&config.multicast)
            .copied()
            .collect();
        self.tell_each(&all, message);
    }

    fn tell_each(&mut self, those: &[SocketAddr], message: &Message) {
        if those.is_empty() {
            return;
        }
        let datagram: Arc<[u8]> = self.sealer.seal(&self.keys, message).into();
        for to in those {
            self.out.push_back(Transmit {
                to: *to,
                datagram: datagram.clone(),
            });
        }
    }

    fn tell(&mut self, to: SocketAddr, message: &Message) {
        let datagram = self.sealer.seal(&self.keys, message).into();
        self.out.push_back(Transmit { to, datagram });
    }

    /// Puts the changes into as few row changes as they need.
    fn flush(&mut self) {
        let mut message = Vec::new();
        let mut len = 2;
        for operation in std::mem::take(&mut self.operations) {
            let more = wire::operation_len(&operation);
            if len + more > wire::BODY_MAX || message.len() == wire::OPERATIONS_MAX {
                let full = std::mem::take(&mut message);
                self.tell_all(&Message::RowChange(full));
                len = 2;
            }
            len += more;
            message.push(operation);
        }
        if !message.is_empty() {
            self.tell_all(&Message::RowChange(message));
        }
    }

    /// A heartbeat for all load balancing units; if somebody else leads the group, by him, except where it is not known
    /// that he reaches them.
    fn heartbeat(&mut self, now: Instant) {
        self.flush();
        let group = self.group.as_ref().filter(|group| !group.leads());
        let direct_every = group.map(|group| group.config().direct_every);
        let every = direct_every.unwrap_or(self.config.name_every);
        let is_named = self.beat.is_multiple_of(u64::from(every.max(1)));
        self.beat += 1;
        let mut beat = Heartbeat {
            beat: self.beat,
            age_limit: self.config.age_limit_ms(),
            forward: false,
            generations: self.table.chunks().iter().map(|c| c.generation).collect(),
            name: self.config.name.clone().filter(|_| is_named),
        };
        let message = Message::Heartbeat(beat.clone());
        let uncovered = self.peers.uncovered(&self.config.lbus);
        match uncovered.filter(|_| direct_every.is_some() && !is_named) {
            Some(uncovered) => self.tell_each(&uncovered, &message),
            None => self.tell_all(&message),
        }
        if direct_every.is_some() {
            beat.forward = self.is_changed;
            beat.name = None;
            self.in_group(|group, host| group.heartbeat(now, beat, host));
        }
        self.is_changed = false;
        self.heartbeat_at = now + self.config.heartbeat_interval;
    }

    /// A datagram has come from `from`.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        if self
            .group
            .as_ref()
            .is_some_and(|group| group.is_for(datagram))
        {
            return self.handle_in_group(now, from, datagram);
        }
        let opened = match self.opener.open(&self.keys, datagram) {
            Ok(opened) => opened,
            Err(error) => return self.counters.add(error.name()),
        };
        // An old request costs an answer at most, and an old answer has the number of no postulate.
        self.opener.prove(opened.sender, opened.epoch);
        let message = match Message::decode(opened.number, opened.body) {
            Ok(message) => message,
            Err(error) => return self.counters.add(error.name()),
        };
        if self.leaving.is_some() || self.is_gone {
            return self.counters.add("message-when-leaving");
        }
        match message {
            Message::GetSnapshot(get) if get.host == self.config.host => {
                self.counters.add("get-snapshot");
                if self.peers.heard(now, opened.sender, from) {
                    self.events.push_back(Event::LbuFound {
                        lbu: opened.sender,
                        from,
                    });
                }
                self.peers.asked(now, opened.sender, &get);
            }
            Message::PostulateWrong(wrong)
                if wrong.host == self.config.host && wrong.epoch == self.config.epoch =>
            {
                self.counters.add("postulate-wrong");
                // Who has never asked for the table has nothing of it, whatever it says.
                if !self.peers.is_known(opened.sender) {
                    self.opener.forget(opened.sender);
                    return self.counters.add("message-of-stranger");
                }
                self.peers.heard(now, opened.sender, from);
                if !self.directives.answer(now, opened.sender, &wrong) {
                    self.counters.add("postulate-forgotten");
                }
            }
            Message::Heard(heard) if self.is_own(&heard) => {
                self.counters.add("heard");
                self.heard(now, (opened.sender, from), heard.number, &[]);
            }
            Message::HeardPart(part) if self.is_own(&part.heard) => {
                self.counters.add("heard-part");
                self.heard(now, (opened.sender, from), part.heard.number, &part.missing);
            }
            _ => return self.counters.add("message-for-others"),
        }
        self.handle_timeout(now);
    }

    fn handle_in_group(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        if self.leaving.is_some() || self.is_gone {
            return self.counters.add("message-when-leaving");
        }
        let heard = self.in_group(|group, host| group.handle_datagram(now, from, datagram, host));
        let patience = self.group.as_ref().map(|group| group.config().patience);
        if let (Some(Some((sent, lbus))), Some(patience)) = (heard, patience) {
            for lbu in lbus {
                self.peers.cover(lbu, sent + patience);
            }
        }
        self.handle_timeout(now);
    }

    /// The time of [`Self::poll_timeout`] has come; earlier or later does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.is_gone {
            return;
        }
        if let Some((at, left)) = self.leaving {
            if at > now {
                return;
            }
            if left == 0 {
                self.leaving = None;
                self.is_gone = true;
                self.events.push_back(Event::Gone);
            } else {
                self.tell_all(&Message::Goodbye);
                self.leaving = Some((now + GOODBYE_INTERVAL, left - 1));
            }
            return;
        }
        let due: Vec<_> = self
            .loads
            .iter()
            .filter(|(_, load)| load.due(&self.config.load).is_some_and(|at| at <= now))
            .map(|(app, _)| *app)
            .collect();
        for app in due {
            self.tell_load(now, app);
        }
        for lbu in self.peers.lost(now, &self.config) {
            self.opener.forget(lbu);
            self.events.push_back(Event::LbuLost { lbu });
        }
        self.settle(now);
        self.group_timeout(now);
        if self.peers.is_exposed(now) || self.heartbeat_at <= now {
            self.heartbeat(now);
        }
        self.answer(now);
        self.postulate(now);
    }

    /// What is due in the group.
    fn group_timeout(&mut self, now: Instant) {
        let consolidated = self.in_group(|group, host| group.handle_timeout(now, host));
        for message in consolidated.into_iter().flatten() {
            self.tell_all(&message);
        }
        if let Some(group) = &mut self.group {
            if let Some(host) = group.new_leader() {
                let members = group.members();
                self.events.push_back(Event::Leader { host, members });
            }
        }
    }

    /// Directives that all load balancing units follow are the current ones.
    fn settle(&mut self, now: Instant) {
        let lbus: Vec<_> = self.peers.ids().collect();
        for app in self.directives.settled(now, &lbus, &self.config) {
            let Some(row) = self.table.row(app) else {
                continue;
            };
            let mut status = row.status;
            status.current = status.target;
            if let Ok(Some(operation)) = self.table.update(app, status) {
                self.changed(now, operation);
            }
            self.events.push_back(Event::DirectiveReached {
                app,
                directive: status.current,
            });
        }
    }

    fn postulate(&mut self, now: Instant) {
        let mut postulates = self.directives.postulates(now, &self.config);
        if self.peers.is_anybody_there(now, &self.config) && postulates.is_empty() {
            postulates.push(self.directives.empty_postulate());
        }
        if !postulates.is_empty() {
            self.flush();
        }
        for postulate in postulates {
            self.ask_all(&Message::Postulate(postulate));
        }
    }

    /// Sends the snapshots whose time has come.
    fn answer(&mut self, now: Instant) {
        while let Some((to, lbu, get)) = self.peers.due(now, &self.config) {
            if self.out.len() > QUEUE_MAX {
                self.counters.add("snapshot-not-sent");
                continue;
            }
            self.flush();
            let age_limit = self.config.age_limit_ms();
            for snapshot in peers::snapshots(&self.table, lbu, &get, age_limit) {
                self.tell(to, &Message::Snapshot(snapshot));
            }
        }
    }

    /// When [`Self::handle_timeout`] has to be called, if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_gone {
            return None;
        }
        if let Some((at, _)) = self.leaving {
            return Some(at);
        }
        let load = self.loads.values().filter_map(|l| l.due(&self.config.load));
        let others = [
            self.directives.timeout(&self.config),
            self.peers.timeout(&self.config),
            self.group.as_ref().and_then(Group::timeout),
        ];
        load.chain(others.into_iter().flatten())
            .chain([self.heartbeat_at])
            .min()
    }

    /// The next datagram to be sent.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.flush();
        self.out.pop_front()
    }

    /// The next thing that the caller should know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}
