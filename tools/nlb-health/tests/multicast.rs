// SPDX-License-Identifier: MIT OR Apache-2.0

//! A host that reaches load balancing units by a multicast group: what goes there, what does not, and for whom it waits.

mod rows;

use nlb_health::{
    agent::{Agent, AgentConfig, Event},
    lbu::{Lbu, LbuConfig},
    row::{AppId, Directive},
    seal::Keys,
    Counters,
};
use rows::healthy;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

const HEARTBEAT: u8 = 1;
const GOODBYE: u8 = 2;
const ROW_CHANGE: u8 = 3;
const GET: u8 = 4;
const SNAPSHOT: u8 = 5;
const POSTULATE: u8 = 6;
const UNITS: u8 = 2;

fn group() -> SocketAddr {
    "239.192.0.71:4771".parse().unwrap()
}

fn host() -> SocketAddr {
    "10.0.0.100:4772".parse().unwrap()
}

fn unit(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 4771))
}

fn count(counters: &Counters, name: &str) -> u64 {
    let mut all = counters.iter();
    all.find(|(of, _)| *of == name)
        .map_or(0, |(_, count)| count)
}

fn keys() -> Keys {
    Keys::new(1, b"0123456789abcdef").unwrap()
}

/// Units 1 and 2, of which those in `joined` hear the group.
struct Scene {
    now: Instant,
    agent: Agent,
    app: AppId,
    lbus: BTreeMap<u8, Lbu>,
    joined: Vec<u8>,
    /// Units that nothing for their own address reaches.
    unreached: Vec<u8>,
    /// Datagrams of the host, by type and address.
    sent: BTreeMap<(u8, SocketAddr), u64>,
    events: Vec<Event>,
}

impl Scene {
    fn new(lbus: Vec<SocketAddr>) -> Self {
        let now = Instant::now();
        let config = AgentConfig {
            multicast: vec![group()],
            ..AgentConfig::new(1, 1, lbus)
        };
        let mut agent = Agent::new(now, config, keys(), [1; 32]);
        let row = healthy(SocketAddr::from(([10, 0, 0, 1], 80)));
        let app = agent.add(now, row).unwrap();
        Self {
            now,
            agent,
            app,
            lbus: BTreeMap::new(),
            joined: vec![1, 2],
            unreached: Vec::new(),
            sent: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    fn start(&mut self, number: u8) {
        let config = LbuConfig {
            in_force_at_once: true,
            ..LbuConfig::new(u32::from(number), 1)
        };
        let lbu = Lbu::new(config, keys(), [number; 32]);
        self.lbus.insert(number, lbu);
    }

    /// Two units that know the host, which is older than its age limit.
    fn settled(lbus: Vec<SocketAddr>) -> Self {
        let mut scene = Self::new(lbus);
        (1..=UNITS).for_each(|number| scene.start(number));
        scene.pass(10_000);
        assert!((1..=UNITS).all(|number| scene.knows(number)));
        scene
    }

    fn knows(&self, number: u8) -> bool {
        let cache = self.lbus[&number].cache();
        let (table, cached) = (self.agent.table().row(self.app), cache.row(1, self.app));
        table == cached.map(|cached| &cached.row)
    }

    fn pass(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds / 50 {
            self.now += Duration::from_millis(50);
            self.agent.handle_timeout(self.now);
            while let Some(transmit) = self.agent.poll_transmit() {
                let sent = self.sent.entry((transmit.datagram[5], transmit.to));
                *sent.or_default() += 1;
                let joined = &self.joined;
                let reached = |number: &u8| match transmit.to == group() {
                    true => joined.contains(number),
                    false => transmit.to == unit(*number) && !self.unreached.contains(number),
                };
                for (_, lbu) in self.lbus.iter_mut().filter(|(number, _)| reached(number)) {
                    lbu.handle_datagram(self.now, host(), &transmit.datagram);
                }
            }
            for (number, lbu) in &mut self.lbus {
                lbu.handle_timeout(self.now);
                while let Some(transmit) = lbu.poll_transmit() {
                    assert_eq!(transmit.to, host(), "an answer to somebody else");
                    let (now, from) = (self.now, unit(*number));
                    self.agent.handle_datagram(now, from, &transmit.datagram);
                }
            }
            self.events
                .extend(std::iter::from_fn(|| self.agent.poll_event()));
        }
    }

    fn sent(&self, number: u8, to: SocketAddr) -> u64 {
        self.sent.get(&(number, to)).copied().unwrap_or_default()
    }

    fn target(&mut self, target: Directive) {
        let set = self.agent.set_target(self.now, self.app, target);
        set.unwrap();
    }

    fn is_drained(&self) -> bool {
        let row = self.agent.table().row(self.app).unwrap();
        row.status.current == Directive::Draining
    }
}

/// One datagram is for all of them. What one has asked for goes to it alone.
#[test]
fn what_is_for_all_is_sent_once() {
    let mut scene = Scene::settled(Vec::new());
    assert_eq!(scene.sent(HEARTBEAT, group()), 10);
    assert_eq!(scene.sent(ROW_CHANGE, group()), 1);
    for number in 1..=UNITS {
        assert!(scene.sent(SNAPSHOT, unit(number)) > 0);
        for of in [HEARTBEAT, ROW_CHANGE, GOODBYE] {
            assert_eq!(scene.sent(of, unit(number)), 0);
        }
        let counters = scene.lbus[&number].counters();
        assert_eq!(count(counters, "datagram-replay"), 0);
    }
    assert_eq!(scene.sent(SNAPSHOT, group()), 0);
    scene.agent.shut_down(scene.now);
    scene.pass(1000);
    assert_eq!(scene.sent(GOODBYE, group()), 3);
    assert!((1..=UNITS).all(|number| scene.lbus[&number].cache().is_empty()));
    assert!(scene.events.contains(&Event::Gone));
}

/// Nobody is there: nothing is asked, and a target is reached when nobody can know otherwise any more. Who comes late
/// asks, and is waited for from then on.
#[test]
fn a_group_without_anybody_and_who_comes_late() {
    let mut scene = Scene::new(Vec::new());
    scene.pass(1000);
    scene.target(Directive::Draining);
    scene.pass(4500);
    assert!(!scene.is_drained());
    scene.pass(1000);
    assert!(scene.is_drained());
    assert!(scene.sent.keys().all(|(_, to)| *to == group()));
    assert_eq!(scene.agent.lbus().count(), 0);
    scene.target(Directive::Active);
    scene.start(2);
    scene.pass(1500);
    assert!(scene.knows(2));
    assert!(scene.agent.lbus().eq([2]));
    let found = Event::LbuFound {
        lbu: 2,
        from: unit(2),
    };
    assert!(scene.events.contains(&found));
}

/// All that have asked have to confirm, however many that are, and whatever the group carries.
#[test]
fn all_that_have_asked_are_waited_for() {
    let mut scene = Scene::settled(Vec::new());
    scene.target(Directive::Draining);
    scene.pass(300);
    assert!(scene.is_drained());

    let mut scene = Scene::settled(Vec::new());
    let refused = [(1, scene.app)].into();
    scene.lbus.get_mut(&2).unwrap().not_in_force(refused);
    scene.target(Directive::Draining);
    scene.pass(20_000);
    assert!(!scene.is_drained());
    // It is silent from now on: what it knows grows old.
    scene.lbus.remove(&2);
    scene.pass(5000);
    assert!(!scene.is_drained());
    scene.pass(1500);
    assert!(scene.is_drained());
}

/// A unit that is there and does otherwise is heard, by whichever way it can be asked.
#[test]
fn either_way_is_enough_to_ask() {
    for by_group in [false, true] {
        let mut scene = Scene::settled(Vec::new());
        let refused = [(1, scene.app)].into();
        scene.lbus.get_mut(&2).unwrap().not_in_force(refused);
        if by_group {
            scene.unreached = vec![2];
        } else {
            scene.joined = vec![1];
        }
        scene.sent.clear();
        scene.target(Directive::Draining);
        scene.pass(20_000);
        assert!(!scene.is_drained(), "by the group: {by_group}");
        assert!(scene.sent(POSTULATE, group()) >= 39);
        assert!(scene.sent(POSTULATE, unit(1)) >= 39);
    }
}

/// A unit that is named, too, gets all twice, and takes it once.
#[test]
fn a_unit_may_be_named_and_in_the_group() {
    let mut scene = Scene::settled(vec![unit(1)]);
    assert_eq!(scene.sent(HEARTBEAT, unit(1)), 10);
    assert_eq!(scene.sent(HEARTBEAT, unit(2)), 0);
    let of = |scene: &Scene, number: u8, name: &str| count(scene.lbus[&number].counters(), name);
    assert_eq!(of(&scene, 1, "datagram-replay"), 11);
    assert_eq!(of(&scene, 2, "datagram-replay"), 0);
    assert_eq!(of(&scene, 1, "heartbeat"), of(&scene, 2, "heartbeat"));
    scene.target(Directive::Draining);
    scene.pass(300);
    assert!(scene.is_drained());
    // One way is enough.
    scene.joined.clear();
    scene.pass(10_000);
    assert!(scene.knows(1) && !scene.knows(2));
    scene.joined = vec![1, 2];
    scene.unreached = vec![1];
    scene.pass(2000);
    assert!(scene.knows(1) && scene.knows(2));
}

/// What the group does not carry any more grows old there, and nowhere else.
#[test]
fn who_does_not_hear_the_group_trusts_nothing() {
    let mut scene = Scene::settled(Vec::new());
    scene.joined = vec![1];
    scene.pass(4000);
    assert!(scene.knows(2));
    scene.pass(2000);
    assert!(scene.lbus[&2].cache().is_empty());
    assert!(scene.knows(1));
    scene.joined = vec![1, 2];
    scene.pass(1500);
    assert!(scene.knows(2));
}

/// A group that comes back to a host, or to another one, says nothing there; nor does it to a unit what units say.
#[test]
fn nothing_goes_in_circles() {
    let mut scene = Scene::settled(Vec::new());
    let (now, keys) = (scene.now, keys());
    let config = AgentConfig {
        multicast: vec![group()],
        ..AgentConfig::new(2, 1, Vec::new())
    };
    let mut other = Agent::new(now, config, keys, [3; 32]);
    other.handle_timeout(now);
    let beat = other.poll_transmit().unwrap();
    assert_eq!((beat.to, beat.datagram[5]), (group(), HEARTBEAT));
    for agent in [&mut scene.agent, &mut other] {
        while agent.poll_transmit().is_some() {}
        agent.handle_datagram(now, host(), &beat.datagram);
        assert_eq!(count(agent.counters(), "datagram-type"), 1);
        assert!(agent.poll_transmit().is_none());
    }
    let lbu = scene.lbus.get_mut(&1).unwrap();
    lbu.handle_datagram(now, host(), &beat.datagram);
    let get = lbu.poll_transmit().unwrap();
    assert_eq!(get.datagram[5], GET);
    lbu.handle_datagram(now, unit(1), &get.datagram);
    assert_eq!(count(lbu.counters(), "datagram-type"), 1);
    assert!(lbu.poll_transmit().is_none());
}

/// Another reading of a configuration names another group.
#[test]
fn groups_may_change() {
    let mut scene = Scene::settled(Vec::new());
    scene.sent.clear();
    let other = "[ff15::71]:4771".parse().unwrap();
    scene.agent.set_multicast(vec![other]);
    scene.pass(2000);
    assert_eq!(scene.sent(HEARTBEAT, other), 2);
    assert_eq!(scene.sent(HEARTBEAT, group()), 0);
}
