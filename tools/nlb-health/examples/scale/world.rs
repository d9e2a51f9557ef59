// SPDX-License-Identifier: MIT OR Apache-2.0

//! Many machines and the network between them. Unlike the simulation that tests the protocol, it looks only at machines
//! to which something happens.

use nlb_health::{
    agent::{Agent, AgentConfig, GroupConfig},
    lbu::{Lbu, LbuConfig},
    row::{AppId, AppType, Directive, Health, Identity, Row, Status},
    seal::Keys,
    Transmit,
};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

/// Hosts of a group.
pub(crate) const MEMBERS: usize = 50;
/// IPv4 and UDP.
const HEADERS: u64 = 28;
/// Of ten thousand datagrams so many are lost, and so many microseconds at most one is under way.
const LOST: u64 = 10;
const DELAY_US: u64 = 2000;
/// An application measures its load anew.
const BUSY: Duration = Duration::from_secs(5);

#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) hosts: usize,
    pub(crate) lbus: usize,
    pub(crate) apps: usize,
    pub(crate) is_grouped: bool,
    /// Leaders say only of what has changed what it is.
    pub(crate) changes: bool,
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Traffic {
    pub(crate) datagrams: u64,
    pub(crate) bytes: u64,
}

impl Traffic {
    fn add(&mut self, datagram: &[u8]) {
        self.datagrams += 1;
        self.bytes += HEADERS + datagram.len() as u64;
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Datagram(SocketAddr, Arc<[u8]>),
    Timeout,
    Load,
}

/// By time, then in the order in which they were put.
type Coming = Reverse<(Instant, u64, usize, What)>;

pub(crate) struct World {
    now: Instant,
    size: Size,
    keys: Keys,
    random: u64,
    order: u64,
    coming: BinaryHeap<Coming>,
    // Hosts, and behind them units, by number; and when each is woken.
    agents: Vec<Option<Agent>>,
    lbus: Vec<Lbu>,
    woken: Vec<Option<Instant>>,
    numbers: HashMap<SocketAddr, usize>,
    pub(crate) is_busy: bool,
    pub(crate) to_units: Traffic,
    pub(crate) by_hosts: Traffic,
}

fn host(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, (number >> 8) as u8, number as u8], 4772))
}

fn unit(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 1, 0, number as u8], 4771))
}

impl World {
    pub(crate) fn new(size: Size, seed: u64) -> Self {
        let mut world = Self {
            now: Instant::now(),
            size,
            keys: Keys::new(1, b"a secret of all machines").expect("a key"),
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            order: 0,
            coming: BinaryHeap::new(),
            agents: (0..size.hosts).map(|_| None).collect(),
            lbus: Vec::new(),
            woken: vec![None; size.hosts + size.lbus],
            numbers: HashMap::new(),
            is_busy: false,
            to_units: Traffic::default(),
            by_hosts: Traffic::default(),
        };
        for number in 0..size.lbus {
            world.numbers.insert(unit(number), size.hosts + number);
            let lbu = world.lbu(number, 1);
            world.lbus.push(lbu);
        }
        // They do not all start at once.
        let begin = world.now;
        for number in 0..size.hosts {
            world.numbers.insert(host(number), number);
            let at = begin + world.up_to(1_000_000);
            world.put(at, number, What::Load);
        }
        world
    }

    fn lbu(&mut self, number: usize, epoch: u64) -> Lbu {
        let config = LbuConfig {
            in_force_at_once: true,
            ..LbuConfig::new(number as u32 + 1, epoch)
        };
        Lbu::new(config, self.keys.clone(), self.seed())
    }

    fn start(&mut self, number: usize) {
        let lbus = (0..self.size.lbus).map(unit).collect();
        let config = AgentConfig::new(number as u32 + 1, 1, lbus);
        let first = number - number % MEMBERS;
        let seeds = (first..self.size.hosts.min(first + 3)).map(host).collect();
        let group = (number / MEMBERS) as u32 + 1;
        let group = GroupConfig {
            changes: self.size.changes,
            ..GroupConfig::new(group, host(number), seeds, config.heartbeat_interval)
        };
        let config = AgentConfig {
            name: Some(format!("host{number}.example.com")),
            group: self.size.is_grouped.then_some(group),
            ..config
        };
        let seed = self.seed();
        let mut agent = Agent::new(self.now, config, self.keys.clone(), seed);
        for app in 0..self.size.apps {
            let identity = Identity {
                app_type: AppType {
                    vip: SocketAddr::from(([192, 0, 2, app as u8], 80)),
                    transport: 6,
                    protocol: "http".to_owned(),
                    detail: String::new(),
                },
                physical: SocketAddr::new(host(number).ip(), 8000 + app as u16),
            };
            let status = Status {
                health: Health::Healthy,
                load: 20,
                capacity: 50,
                target: Directive::Active,
                current: Directive::Active,
            };
            let row = Row { identity, status };
            agent.add(self.now, row).expect("a row");
        }
        self.agents[number] = Some(agent);
    }

    /// Some load changes, often by so much that it is told.
    fn load(&mut self, number: usize) {
        if self.agents[number].is_none() {
            return self.start(number);
        }
        if self.is_busy {
            let loads: Vec<_> = (0..self.size.apps).map(|_| self.next() % 101).collect();
            if let Some(agent) = &mut self.agents[number] {
                let apps: Vec<AppId> = agent.table().rows().map(|(app, _)| app).collect();
                for (app, load) in apps.into_iter().zip(loads) {
                    agent.set_load(self.now, app, load as u8).expect("a row");
                }
            }
        }
    }

    fn next(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn up_to(&mut self, us: u64) -> Duration {
        Duration::from_micros(self.next() % (us + 1))
    }

    fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.next().to_be_bytes());
        seed
    }

    fn put(&mut self, at: Instant, number: usize, what: What) {
        self.order += 1;
        self.coming.push(Reverse((at, self.order, number, what)));
    }

    fn send(&mut self, from: SocketAddr, transmit: Transmit) {
        let Some(to) = self.numbers.get(&transmit.to).copied() else {
            return;
        };
        if to >= self.size.hosts {
            self.to_units.add(&transmit.datagram);
        }
        if self.next() % 10_000 < LOST {
            return;
        }
        let at = self.now + self.up_to(DELAY_US);
        self.put(at, to, What::Datagram(from, transmit.datagram));
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self
            .coming
            .peek()
            .is_some_and(|Reverse((at, ..))| *at <= end)
        {
            let Some(Reverse((at, _, number, what))) = self.coming.pop() else {
                break;
            };
            self.now = at;
            if number < self.size.hosts {
                self.host(number, what);
            } else {
                self.unit(number, what);
            }
        }
        self.now = end;
    }

    fn host(&mut self, number: usize, what: What) {
        match (what, &mut self.agents[number]) {
            (What::Load, agent) => {
                // Who is lost stays so.
                if agent.is_some() || self.woken[number].is_none() {
                    self.load(number);
                    let at = self.now + BUSY;
                    self.put(at, number, What::Load);
                }
            }
            (What::Datagram(from, bytes), Some(agent)) => {
                agent.handle_datagram(self.now, from, &bytes);
            }
            (What::Timeout, Some(agent)) => {
                self.woken[number] = None;
                agent.handle_timeout(self.now);
            }
            (_, None) => return,
        }
        let Some(agent) = &mut self.agents[number] else {
            return;
        };
        let sent: Vec<_> = std::iter::from_fn(|| agent.poll_transmit()).collect();
        while agent.poll_event().is_some() {}
        let at = agent.poll_timeout();
        for transmit in sent {
            self.by_hosts.add(&transmit.datagram);
            self.send(host(number), transmit);
        }
        self.wake(number, at);
    }

    fn unit(&mut self, number: usize, what: What) {
        let lbu = &mut self.lbus[number - self.size.hosts];
        match what {
            What::Datagram(from, bytes) => lbu.handle_datagram(self.now, from, &bytes),
            What::Timeout | What::Load => {
                self.woken[number] = None;
                lbu.handle_timeout(self.now);
            }
        }
        let sent: Vec<_> = std::iter::from_fn(|| lbu.poll_transmit()).collect();
        while lbu.poll_event().is_some() {}
        let at = lbu.poll_timeout();
        for transmit in sent {
            self.send(unit(number - self.size.hosts), transmit);
        }
        self.wake(number, at);
    }

    fn wake(&mut self, number: usize, at: Option<Instant>) {
        let Some(at) = at.map(|at| at.max(self.now)) else {
            return;
        };
        if self.woken[number].is_none_or(|woken| woken > at || woken < self.now) {
            self.woken[number] = Some(at);
            self.put(at, number, What::Timeout);
        }
    }

    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    pub(crate) fn units(&self) -> usize {
        self.lbus.len()
    }

    pub(crate) fn rows(&self, unit: usize) -> usize {
        self.lbus[unit].cache().len()
    }

    pub(crate) fn forget_traffic(&mut self) {
        (self.to_units, self.by_hosts) = Default::default();
    }

    fn kill(&mut self, number: usize) {
        self.agents[number] = None;
        // It was there.
        self.woken[number].get_or_insert(self.now);
    }

    /// The leader of the first group is no more; the group.
    pub(crate) fn kill_leader(&mut self) -> usize {
        let leader = self.agents[0].as_ref().and_then(Agent::leader);
        self.kill(leader.expect("a leader") as usize - 1);
        0
    }

    /// Whether all of a group believe in the same leader, who is there.
    pub(crate) fn is_led(&self, group: usize) -> bool {
        let members = self.agents.iter().skip(group * MEMBERS).take(MEMBERS);
        let mut leaders = members.flatten().map(Agent::leader);
        let first = leaders.next().flatten();
        let is_there = first.is_some_and(|host| self.agents[host as usize - 1].is_some());
        is_there && leaders.all(|leader| leader == first)
    }

    /// So many hosts are no more, of all groups; the first host, who leads, of every second one.
    pub(crate) fn kill_hosts(&mut self, count: usize) {
        let every = self.size.hosts / count.max(1);
        (0..count).for_each(|index| self.kill(index * every + index % every));
    }

    /// A unit crashes, and begins anew with an empty cache.
    pub(crate) fn restart_unit(&mut self, number: usize) {
        let lbu = self.lbu(number, 2);
        self.lbus[number] = lbu;
    }
}
