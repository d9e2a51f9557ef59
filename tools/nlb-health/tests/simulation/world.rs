// SPDX-License-Identifier: MIT OR Apache-2.0

//! The machines, the network between them, and what has to hold.

use nlb_health::{
    agent::{self, Agent, AgentConfig, GroupConfig},
    lbu::{self, Lbu, LbuConfig},
    row::{AppId, Directive},
    seal::{Keys, HEADER_LEN, TAG_LEN},
    wire::Message,
    Transmit,
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

/// The longest that the network delays anything.
const DELAY_MAX: Duration = Duration::from_millis(250);
pub(crate) const AGE_LIMIT: Duration = Duration::from_millis(2000);
const HEARTBEAT: Duration = Duration::from_millis(500);
/// Datagrams that are kept to be played again.
const RECORDED: usize = 400;

/// xorshift64*.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.next() as usize % bound.max(1)
    }

    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.next() % (most.as_micros() as u64 + 1))
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) hosts: u32,
    pub(crate) lbus: u32,
    pub(crate) chaos_s: u64,
    /// Of hosts; 0 is none at all.
    pub(crate) groups: u32,
}

/// A datagram under way.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Datagram {
    at: Instant,
    order: u64,
    from: SocketAddr,
    to: SocketAddr,
    bytes: Arc<[u8]>,
}

#[derive(Default)]
pub(crate) struct Faults {
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) late: u64,
    /// From, to.
    pub(crate) cut: BTreeSet<(SocketAddr, SocketAddr)>,
}

pub(crate) struct Host {
    pub(crate) agent: Option<Agent>,
    pub(crate) epoch: u64,
    /// Physical endpoints of which the host knows that they get no new connection.
    closed: BTreeSet<SocketAddr>,
    /// Those that welcome connections, and since when others do not any more.
    active: BTreeSet<SocketAddr>,
    closing: BTreeMap<SocketAddr, Instant>,
}

pub(crate) struct Unit {
    pub(crate) lbu: Option<Lbu>,
    epoch: u64,
    /// When something of a host was last delivered.
    heard: BTreeMap<u32, Instant>,
    /// What the forwarder does: the endpoints of each host to which it sends new connections. It lags behind.
    plane: BTreeMap<(u32, AppId), (SocketAddr, Directive)>,
    /// What in it is of a life before, of hosts of which nothing is known yet, and when that life ended.
    left: BTreeMap<(u32, AppId), Instant>,
    apply_at: Option<Instant>,
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) random: Random,
    pub(crate) faults: Faults,
    pub(crate) hosts: Vec<Host>,
    pub(crate) units: Vec<Unit>,
    size: Size,
    net: BinaryHeap<Reverse<Datagram>>,
    recorded: Vec<Datagram>,
    order: u64,
    keys: Keys,
    /// What was sent to load balancing units, by host and type: datagrams.
    pub(crate) sent: BTreeMap<(usize, u8), u64>,
}

/// What is in a datagram, if it is one.
fn message(bytes: &[u8]) -> Option<Message> {
    let body = bytes.get(HEADER_LEN..bytes.len().checked_sub(TAG_LEN)?)?;
    Message::decode(*bytes.get(5)?, body).ok()
}

pub(crate) fn host_address(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, index as u8 + 1], 4771))
}

pub(crate) fn unit_address(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 1, 0, index as u8 + 1], 4771))
}

impl World {
    pub(crate) fn new(seed: u64, size: Size) -> Self {
        let mut world = Self {
            now: Instant::now(),
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            faults: Faults::default(),
            hosts: Vec::new(),
            units: Vec::new(),
            size,
            net: BinaryHeap::new(),
            recorded: Vec::new(),
            order: 0,
            keys: Keys::new(7, b"a secret of all machines").unwrap(),
            sent: BTreeMap::new(),
        };
        for index in 0..size.hosts as usize {
            world.hosts.push(Host {
                agent: None,
                epoch: 0,
                closed: BTreeSet::new(),
                active: BTreeSet::new(),
                closing: BTreeMap::new(),
            });
            world.start_host(index);
        }
        for index in 0..size.lbus as usize {
            world.units.push(Unit {
                lbu: None,
                epoch: 0,
                heard: BTreeMap::new(),
                plane: BTreeMap::new(),
                left: BTreeMap::new(),
                apply_at: None,
            });
            world.start_unit(index);
        }
        world
    }

    pub(crate) fn chaos_time(&self) -> Duration {
        Duration::from_secs(self.size.chaos_s)
    }

    fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.random.next().to_be_bytes());
        seed
    }

    /// The number of the group of a host, from 1.
    pub(crate) fn group_of(&self, index: usize) -> Option<usize> {
        Some(index.checked_rem(self.size.groups as usize)? + 1)
    }

    fn group(&self, index: usize) -> Option<GroupConfig> {
        let id = self.group_of(index)?;
        let others = (0..self.size.hosts as usize).filter(|i| self.group_of(*i) == Some(id));
        let seeds = others.take(4).map(host_address).collect();
        let (address, interval) = (host_address(index), HEARTBEAT);
        Some(GroupConfig {
            period: Duration::from_millis(200),
            gather: Duration::from_millis(100),
            answer_wait: Duration::from_millis(50),
            direct_every: 20,
            ..GroupConfig::new(id as u32, address, seeds, interval)
        })
    }

    pub(crate) fn start_host(&mut self, index: usize) {
        let group = self.group(index);
        let lbus = (0..self.size.lbus as usize).map(unit_address).collect();
        let seed = self.seed();
        let host = &mut self.hosts[index];
        host.epoch += 1;
        host.closed.clear();
        let config = AgentConfig {
            name: Some(format!("host{index}.example")),
            name_every: 3,
            heartbeat_interval: HEARTBEAT,
            age_limit: AGE_LIMIT,
            // By a leader there are two ways, one behind the other.
            margin: DELAY_MAX * if group.is_some() { 2 } else { 1 },
            group,
            recheck: Duration::from_millis(100),
            postulate_delay: Duration::from_millis(50),
            postulate_interval: Duration::from_millis(200),
            presence_interval: Duration::from_secs(3),
            max_rows: 40,
            ..AgentConfig::new(index as u32 + 1, host.epoch, lbus)
        };
        host.agent = Some(Agent::new(self.now, config, self.keys.clone(), seed));
    }

    pub(crate) fn start_unit(&mut self, index: usize) {
        let seed = self.seed();
        let unit = &mut self.units[index];
        unit.epoch += 1;
        let config = LbuConfig {
            retry_max: Duration::from_secs(1),
            ..LbuConfig::new(index as u32 + 1, unit.epoch)
        };
        unit.lbu = Some(Lbu::new(config, self.keys.clone(), seed));
    }

    /// With its forwarder or, if it is back at once, without.
    pub(crate) fn crash_unit(&mut self, index: usize, with_forwarder: bool) {
        let unit = &mut self.units[index];
        unit.lbu = None;
        unit.heard.clear();
        unit.apply_at = None;
        if with_forwarder {
            unit.plane.clear();
        }
        // Of what is left of the life before that one, nothing was confirmed in it.
        let ended = |key| unit.left.get(key).copied().unwrap_or(self.now);
        unit.left = unit.plane.keys().map(|key| (*key, ended(key))).collect();
    }

    fn send(&mut self, from: SocketAddr, transmit: Transmit) {
        let copies = 1 + u64::from(self.random.percent(self.faults.doubled));
        for _ in 0..copies {
            if self.random.percent(self.faults.lost)
                || self.faults.cut.contains(&(from, transmit.to))
            {
                continue;
            }
            let most = if self.random.percent(self.faults.late) {
                DELAY_MAX
            } else {
                Duration::from_millis(2)
            };
            let at = self.now + self.random.up_to(most);
            self.put(at, from, transmit.to, transmit.datagram.clone());
        }
    }

    fn put(&mut self, at: Instant, from: SocketAddr, to: SocketAddr, bytes: Arc<[u8]>) {
        self.order += 1;
        self.net.push(Reverse(Datagram {
            at,
            order: self.order,
            from,
            to,
            bytes,
        }));
    }

    /// Something that was delivered before comes again, perhaps changed.
    pub(crate) fn replay(&mut self) {
        if self.recorded.is_empty() {
            return;
        }
        let index = self.random.below(self.recorded.len());
        let old = self.recorded[index].clone();
        let mut bytes = old.bytes.to_vec();
        if self.random.percent(30) {
            let at = self.random.below(bytes.len());
            bytes[at] ^= 1 << self.random.below(8);
        }
        // From somewhere else.
        let from = SocketAddr::from(([10, 9, 0, 1], 9));
        self.put(self.now, from, old.to, bytes.into());
    }

    fn deliver(&mut self, datagram: Datagram) {
        let (from, to) = (datagram.from, datagram.to);
        let genuine = !from.ip().to_string().starts_with("10.9.");
        if let Some(index) = (0..self.hosts.len()).find(|i| host_address(*i) == to) {
            if let Some(agent) = &mut self.hosts[index].agent {
                agent.handle_datagram(self.now, from, &datagram.bytes);
            }
        } else if let Some(index) = (0..self.units.len()).find(|i| unit_address(*i) == to) {
            let unit = &mut self.units[index];
            if let Some(lbu) = &mut unit.lbu {
                lbu.handle_datagram(self.now, from, &datagram.bytes);
                if let Some(host) = (0..self.hosts.len()).find(|i| host_address(*i) == from) {
                    unit.heard.insert(host as u32 + 1, self.now);
                    if let Some(Message::Consolidated(relayed)) = message(&datagram.bytes) {
                        for record in relayed.records {
                            let at = self.now - Duration::from_millis(u64::from(record.age));
                            let heard = unit.heard.entry(record.host).or_insert(at);
                            *heard = at.max(*heard);
                        }
                    }
                }
            }
        }
        if genuine {
            if self.recorded.len() < RECORDED {
                self.recorded.push(datagram);
            } else {
                let index = self.random.below(RECORDED);
                self.recorded[index] = datagram;
            }
        }
    }

    fn is_host(&self, address: SocketAddr) -> bool {
        (0..self.hosts.len()).any(|index| host_address(index) == address)
    }

    /// Sends what the machines want sent, and hears what they say.
    pub(crate) fn drain(&mut self) {
        for index in 0..self.hosts.len() {
            let mut sent = Vec::new();
            let host = &mut self.hosts[index];
            let rows = host.agent.iter().flat_map(|agent| agent.table().rows());
            let active: BTreeSet<_> = rows
                .filter(|(_, row)| row.status.target == Directive::Active)
                .map(|(_, row)| row.identity.physical)
                .collect();
            host.closing
                .retain(|physical, _| !active.contains(physical));
            for physical in host.active.difference(&active) {
                host.closing.insert(*physical, self.now);
            }
            host.active = active;
            let Some(agent) = &mut host.agent else {
                continue;
            };
            sent.extend(std::iter::from_fn(|| agent.poll_transmit()));
            let mut is_gone = false;
            while let Some(event) = agent.poll_event() {
                match event {
                    agent::Event::DirectiveReached { app, directive } => {
                        let row = agent.table().row(app).unwrap();
                        assert_eq!(directive, row.status.current);
                        if directive != Directive::Active {
                            host.closed.insert(row.identity.physical);
                        }
                    }
                    agent::Event::Gone => is_gone = true,
                    _ => {}
                }
            }
            // A target that is active again welcomes connections before all know.
            let rows = agent.table().rows();
            for (_, row) in rows.filter(|(_, row)| row.status.target == Directive::Active) {
                host.closed.remove(&row.identity.physical);
            }
            if is_gone {
                host.agent = None;
            }
            for transmit in sent {
                if !self.is_host(transmit.to) {
                    *self.sent.entry((index, transmit.datagram[5])).or_default() += 1;
                }
                self.send(host_address(index), transmit);
            }
        }
        for index in 0..self.units.len() {
            let mut sent = Vec::new();
            let delay = self.random.up_to(Duration::from_millis(100));
            let unit = &mut self.units[index];
            // What is left of a life before grows old, too: it was confirmed last before that life ended, and before the
            // host wanted otherwise.
            unit.left.retain(|key, ended| {
                let host = &self.hosts[key.0 as usize - 1];
                let since = unit.plane.get(key).and_then(|of| host.closing.get(&of.0));
                let is_old = since.is_some_and(|since| *since.min(ended) + AGE_LIMIT <= self.now);
                if is_old {
                    unit.plane.remove(key);
                }
                !is_old
            });
            let Some(lbu) = &mut unit.lbu else {
                continue;
            };
            sent.extend(std::iter::from_fn(|| lbu.poll_transmit()));
            while let Some(event) = lbu.poll_event() {
                assert!(!matches!(event, lbu::Event::Full { .. }));
                if let lbu::Event::Row { .. } = event {
                    unit.apply_at.get_or_insert(self.now + delay);
                }
            }
            if unit.apply_at.is_some_and(|at| at <= self.now) {
                unit.apply_at = None;
                let known: BTreeSet<_> = lbu.cache().hosts().collect();
                unit.left.retain(|(host, _), _| !known.contains(host));
                unit.plane.retain(|key, _| unit.left.contains_key(key));
                let rows = lbu
                    .cache()
                    .hosts()
                    .flat_map(|host| lbu.cache().host(host).map(move |row| (host, row)))
                    .map(|(host, (app, cached))| {
                        let row = &cached.row;
                        ((host, app), (row.identity.physical, row.status.target))
                    });
                unit.plane.extend(rows);
                lbu.applied(lbu.cache().version());
            }
            for transmit in sent {
                self.send(unit_address(index), transmit);
            }
        }
    }

    fn next(&self) -> Option<Instant> {
        let hosts = self.hosts.iter().flat_map(|host| &host.agent);
        let units = self.units.iter();
        self.net
            .peek()
            .map(|Reverse(datagram)| datagram.at)
            .into_iter()
            .chain(hosts.filter_map(Agent::poll_timeout))
            .chain(units.flat_map(|unit| {
                let timeout = unit.lbu.as_ref().and_then(Lbu::poll_timeout);
                [timeout, unit.apply_at].into_iter().flatten()
            }))
            .min()
    }

    /// Until `end`.
    pub(crate) fn run_until(&mut self, end: Instant) {
        self.drain();
        let mut steps = 0;
        while let Some(at) = self.next().filter(|at| *at <= end) {
            // A timeout that stays in the past would go on for ever.
            steps = if at > self.now { 0 } else { steps + 1 };
            assert!(steps < 5000, "time stands still");
            self.now = self.now.max(at);
            while self.net.peek().is_some_and(|Reverse(d)| d.at <= self.now) {
                let Reverse(datagram) = self.net.pop().unwrap();
                self.deliver(datagram);
            }
            for host in &mut self.hosts {
                if let Some(agent) = &mut host.agent {
                    if agent.poll_timeout().is_some_and(|at| at <= self.now) {
                        agent.handle_timeout(self.now);
                    }
                }
            }
            for unit in &mut self.units {
                if let Some(lbu) = &mut unit.lbu {
                    if lbu.poll_timeout().is_some_and(|at| at <= self.now) {
                        lbu.handle_timeout(self.now);
                    }
                }
            }
            self.drain();
            self.check_safe();
        }
        self.now = end;
    }

    /// What holds at every moment.
    fn check_safe(&self) {
        for (index, unit) in self.units.iter().enumerate() {
            let Some(lbu) = &unit.lbu else {
                continue;
            };
            for host in lbu.cache().hosts() {
                let heard = unit.heard.get(&host).expect("a host that never spoke");
                assert!(
                    self.now.duration_since(*heard) <= AGE_LIMIT,
                    "unit {index} uses what host {host} said too long ago"
                );
            }
            // Of several rows of an endpoint the worst one counts: one may be deleted already, and another there.
            let is_open = |host: u32, physical: SocketAddr| {
                let all = unit.plane.iter().filter(|((of, _), _)| *of == host);
                let mut of_it = all.filter(|(_, (other, _))| *other == physical);
                of_it.all(|(_, (_, directive))| *directive == Directive::Active)
            };
            for ((host, app), (physical, _)) in &unit.plane {
                let closed = &self.hosts[*host as usize - 1].closed;
                assert!(
                    !closed.contains(physical) || !is_open(*host, *physical),
                    "unit {index} sends new connections to {app} of host {host}, which believes it does not"
                );
            }
        }
    }

    /// Everything is up, nothing is lost, but somebody still plays old datagrams.
    pub(crate) fn quiet(&mut self) {
        self.faults = Faults::default();
        // Who is leaving leaves.
        self.run_until(self.now + Duration::from_secs(1));
        for index in 0..self.hosts.len() {
            if self.hosts[index].agent.is_none() {
                self.start_host(index);
            }
        }
        for index in 0..self.units.len() {
            if self.units[index].lbu.is_none() {
                self.start_unit(index);
            }
        }
        for _ in 0..60 {
            self.replay();
            self.run_until(self.now + Duration::from_millis(100));
        }
    }

    /// In each group all believe in the same leader, who has lived longest.
    pub(crate) fn check_leaders(&self) {
        for (index, host) in self.hosts.iter().enumerate() {
            let group = self.group_of(index);
            let members = (0..self.hosts.len()).filter(|other| self.group_of(*other) == group);
            let longest = members.min_by_key(|other| (self.hosts[*other].epoch, *other));
            let leader = longest.filter(|_| group.is_some()).map(|i| i as u32 + 1);
            let agent = host.agent.as_ref().unwrap();
            assert_eq!(agent.leader(), leader, "of host {index}");
        }
    }

    pub(crate) fn check_equal(&self) {
        for (index, unit) in self.units.iter().enumerate() {
            let lbu = unit.lbu.as_ref().unwrap();
            for (number, host) in self.hosts.iter().enumerate() {
                let table: Vec<_> = {
                    let agent = host.agent.as_ref().unwrap();
                    let mut rows: Vec<_> = agent.table().rows().collect();
                    rows.sort_by_key(|(app, _)| *app);
                    rows
                };
                let cache: Vec<_> = lbu
                    .cache()
                    .host(number as u32 + 1)
                    .map(|(app, cached)| (app, &cached.row))
                    .collect();
                assert_eq!(cache, table, "unit {index}, host {number}");
                for (app, row) in table {
                    assert_eq!(row.status.target, row.status.current, "{number}: {app}");
                    let mut found = lbu.cache().of_type(&row.identity.app_type);
                    assert!(found.any(|(h, a, _)| (h, a) == (number as u32 + 1, app)));
                }
            }
            // By type, there is nothing else.
            let types = lbu.cache().types();
            let all: usize = types.map(|of| lbu.cache().of_type(of).count()).sum();
            assert_eq!(all, lbu.cache().len());
        }
    }
}
