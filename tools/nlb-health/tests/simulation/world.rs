// SPDX-License-Identifier: MIT OR Apache-2.0

//! The machines, and the network between them.

mod checks;
mod network;

use crate::truth::Truth;
use network::{Datagram, Faults};
use nlb_health::{
    agent::{self, Agent, AgentConfig, GroupConfig},
    lbu::{self, InForce, Lbu, LbuConfig},
    row::{AppId, Directive, Row},
    seal::Keys,
    wire::{Message, Route},
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    net::SocketAddr,
    time::{Duration, Instant},
};

/// The longest that the network delays anything.
const DELAY_MAX: Duration = Duration::from_millis(250);
pub(crate) const AGE_LIMIT: Duration = Duration::from_millis(2000);
const HEARTBEAT: Duration = Duration::from_millis(500);
/// For so long a leader may stand still without knowing it, and the forwarder lag behind.
const STILL: Duration = Duration::from_millis(500);
const LAG: Duration = Duration::from_millis(100);
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

/// Which hosts reach units by their multicast group.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Multicast {
    None,
    /// Without the units' own addresses.
    All,
    /// A third of them only so, a third by the units' own addresses, too.
    Some,
}

#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) hosts: u32,
    pub(crate) lbus: u32,
    pub(crate) chaos_s: u64,
    /// Of hosts; 0 is none at all.
    pub(crate) groups: u32,
    pub(crate) multicast: Multicast,
    /// Leaders say only of what has changed what it is.
    pub(crate) changes: bool,
}

/// An endpoint of the forwarder: virtual address, transport protocol, physical address.
pub(crate) type Place = (SocketAddr, u8, SocketAddr);

pub(crate) fn place(row: &Row) -> Place {
    let of = &row.identity.app_type;
    (of.vip, of.transport, row.identity.physical)
}

pub(crate) struct Host {
    pub(crate) agent: Option<Agent>,
    pub(crate) epoch: u64,
    /// Endpoints of which the host knows that they get no new connection.
    closed: BTreeSet<Place>,
    /// Those that welcome connections, and since when others do not any more.
    active: BTreeSet<Place>,
    closing: BTreeMap<Place, Instant>,
    /// Until when it stands still, and what waits for it.
    still: Option<Instant>,
    waiting: Vec<Datagram>,
    /// When it stood still last.
    stood_still: Option<Instant>,
}

impl Host {
    /// The agent, if it does not stand still.
    pub(crate) fn running(&mut self) -> Option<&mut Agent> {
        self.agent.as_mut().filter(|_| self.still.is_none())
    }
}

pub(crate) struct Unit {
    pub(crate) lbu: Option<Lbu>,
    epoch: u64,
    /// When that was sent of a host which is the newest that was delivered, by the host or a leader.
    heard: BTreeMap<u32, Instant>,
    /// What the forwarder does: the endpoints of each host to which it sends new connections. It lags behind.
    plane: BTreeMap<(u32, AppId), (Place, Directive)>,
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
    truth: Truth,
}

/// The longest that what a host says is under way: by a leader there are two ways, one behind the other, and it may
/// stand still between them.
fn delay(is_grouped: bool) -> Duration {
    if is_grouped {
        DELAY_MAX * 2 + STILL
    } else {
        DELAY_MAX
    }
}

pub(crate) fn host_address(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, index as u8 + 1], 4771))
}

/// Where the others of its group reach it.
pub(crate) fn member_address(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 3, 0, index as u8 + 1], 4772))
}

/// Which all units hear, unless they are deaf.
fn multicast_group() -> SocketAddr {
    SocketAddr::from(([239, 192, 0, 71], 4771))
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
            truth: Truth::default(),
        };
        for index in 0..size.hosts as usize {
            world.hosts.push(Host {
                agent: None,
                epoch: 0,
                closed: BTreeSet::new(),
                active: BTreeSet::new(),
                closing: BTreeMap::new(),
                still: None,
                waiting: Vec::new(),
                stood_still: None,
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
        let seeds = others.take(4).map(member_address).collect();
        let (address, interval) = (member_address(index), HEARTBEAT);
        Some(GroupConfig {
            period: Duration::from_millis(200),
            gather: Duration::from_millis(100),
            answer_wait: Duration::from_millis(50),
            direct_every: 20,
            changes: self.size.changes,
            ..GroupConfig::new(id as u32, address, seeds, interval)
        })
    }

    pub(crate) fn start_host(&mut self, index: usize) {
        let group = self.group(index);
        let (by_address, by_group) = match self.size.multicast {
            Multicast::None => (true, false),
            Multicast::All => (false, true),
            Multicast::Some => (!index.is_multiple_of(3), index % 3 != 1),
        };
        let lbus = (0..self.size.lbus as usize).filter(|_| by_address);
        let lbus = lbus.map(unit_address).collect();
        let seed = self.seed();
        let host = &mut self.hosts[index];
        host.epoch += 1;
        host.closed.clear();
        (host.still, host.stood_still) = (None, None);
        host.waiting.clear();
        let config = AgentConfig {
            name: Some(format!("host{index}.example")),
            name_every: 3,
            heartbeat_interval: HEARTBEAT,
            age_limit: AGE_LIMIT,
            margin: delay(group.is_some()) + LAG,
            group,
            recheck: Duration::from_millis(100),
            postulate_delay: Duration::from_millis(50),
            postulate_interval: Duration::from_millis(200),
            presence_interval: Duration::from_secs(3),
            max_rows: 40,
            multicast: by_group.then(multicast_group).into_iter().collect(),
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

    /// For a while nothing of the host runs.
    pub(crate) fn stand_still(&mut self, index: usize) {
        let time = self.random.up_to(AGE_LIMIT * 3 / 2);
        self.hosts[index].still = Some(self.now + time);
    }

    /// By how much a leader may be wrong.
    fn doubt(&self, index: usize) -> Duration {
        let stood_still = self.hosts[index].stood_still;
        let is_late = stood_still.is_some_and(|at| at + STILL * 3 >= self.now);
        if is_late {
            STILL
        } else {
            Duration::ZERO
        }
    }

    /// Who does not stand still any more finds what has come, or that it is late.
    fn awake(&mut self) {
        for index in 0..self.hosts.len() {
            let host = &mut self.hosts[index];
            if host.still.take_if(|until| *until <= self.now).is_none() {
                continue;
            }
            host.stood_still = Some(self.now);
            let waiting = std::mem::take(&mut host.waiting);
            let Some(agent) = &mut host.agent else {
                continue;
            };
            if self.random.percent(50) {
                agent.handle_timeout(self.now);
            }
            for datagram in waiting {
                agent.handle_datagram(self.now, datagram.from, &datagram.bytes);
            }
        }
    }

    /// Sends what the machines want sent, and hears what they say.
    pub(crate) fn drain(&mut self) {
        for index in 0..self.hosts.len() {
            let mut sent = Vec::new();
            let host = &mut self.hosts[index];
            let rows = host.agent.iter().flat_map(|agent| agent.table().rows());
            let active: BTreeSet<_> = rows
                .filter(|(_, row)| row.status.target == Directive::Active)
                .map(|(_, row)| place(row))
                .collect();
            host.closing.retain(|place, _| !active.contains(place));
            for place in host.active.difference(&active) {
                host.closing.insert(*place, self.now);
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
                            host.closed.insert(place(row));
                        }
                    }
                    agent::Event::Gone => is_gone = true,
                    _ => {}
                }
            }
            // A target that is active again welcomes connections before all know.
            let rows = agent.table().rows();
            for (_, row) in rows.filter(|(_, row)| row.status.target == Directive::Active) {
                host.closed.remove(&place(row));
            }
            if is_gone {
                host.agent = None;
            }
            for transmit in sent {
                let doubt = self.doubt(index);
                self.truth.note(self.now, doubt, &transmit.datagram);
                let number = transmit.datagram[5];
                if Message::route(number) == Some(Route::InGroup) {
                    self.send(member_address(index), transmit);
                } else {
                    *self.sent.entry((index, number)).or_default() += 1;
                    self.send(host_address(index), transmit);
                }
            }
        }
        for index in 0..self.units.len() {
            let mut sent = Vec::new();
            let delay = self.random.up_to(LAG);
            let unit = &mut self.units[index];
            // What is left of a life before grows old, too: it was confirmed last before that life ended, and before the
            // host wanted otherwise.
            unit.left.retain(|key, ended| {
                let host = &self.hosts[key.0 as usize - 1];
                let since = unit.plane.get(key).and_then(|of| host.closing.get(&of.0));
                let last = since.map_or(*ended, |since| *since.min(ended));
                let is_old = last + AGE_LIMIT <= self.now;
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
                        ((host, app), (place(row), row.status.target))
                    });
                unit.plane.extend(rows);
                lbu.in_force(vec![InForce::all(lbu.cache().version())]);
            }
            for transmit in sent {
                self.send(unit_address(index), transmit);
            }
        }
    }

    fn next(&self) -> Option<Instant> {
        let hosts = self.hosts.iter();
        let hosts = hosts.filter_map(|host| match (host.still, &host.agent) {
            (Some(until), _) => Some(until),
            (None, agent) => agent.as_ref()?.poll_timeout(),
        });
        let units = self.units.iter();
        self.net
            .peek()
            .map(|Reverse(datagram)| datagram.at)
            .into_iter()
            .chain(hosts)
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
            self.awake();
            for host in &mut self.hosts {
                if let Some(agent) = host.running() {
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

    /// Everything is up, nothing is lost, but somebody still plays old datagrams.
    pub(crate) fn quiet(&mut self) {
        self.faults = Faults::default();
        for host in &mut self.hosts {
            host.still = host.still.map(|_| self.now);
        }
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
}
