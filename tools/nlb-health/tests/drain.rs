// SPDX-License-Identifier: MIT OR Apache-2.0

//! When a host believes that nobody sends an application new connections any more, and how soon load balancing units
//! know what they have to know for that: the table in Documentation/health.rst.

mod rows;

use nlb_health::{
    agent::{Agent, AgentConfig},
    lbu::{InForce, Lbu, LbuConfig},
    row::{AppId, Directive, Health},
    seal::Keys,
};
use rows::healthy;
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

struct Scene {
    now: Instant,
    agent: Agent,
    lbu: Option<Lbu>,
    app: AppId,
    /// Types of messages of the host that are lost.
    lost: Vec<u8>,
}

fn at(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 4771))
}

impl Scene {
    /// A host that is asked by a load balancing unit, and is older than its age limit.
    fn new() -> Self {
        let keys = Keys::new(1, b"0123456789abcdef").unwrap();
        let now = Instant::now();
        let config = AgentConfig::new(1, 1, vec![at(9)]);
        let mut agent = Agent::new(now, config, keys.clone(), [1; 32]);
        let row = healthy(SocketAddr::from(([10, 0, 0, 1], 80)));
        let app = agent.add(now, row).unwrap();
        let lbu = Some(Lbu::new(LbuConfig::new(9, 1), keys, [2; 32]));
        let mut scene = Self {
            now,
            agent,
            lbu,
            app,
            lost: Vec::new(),
        };
        scene.pass(10_000);
        scene.apply();
        scene
    }

    fn apply(&mut self) {
        let lbu = self.lbu.as_mut().unwrap();
        let version = lbu.cache().version();
        lbu.in_force(vec![InForce::all(version)]);
    }

    fn pass(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds / 50 {
            self.now += Duration::from_millis(50);
            self.agent.handle_timeout(self.now);
            self.deliver();
            if let Some(lbu) = &mut self.lbu {
                lbu.handle_timeout(self.now);
            }
            self.deliver();
        }
    }

    /// All that is on its way arrives.
    fn deliver(&mut self) {
        loop {
            let sent = self.agent.poll_transmit();
            let answer = self.lbu.as_mut().and_then(Lbu::poll_transmit);
            match (&sent, &mut self.lbu) {
                (Some(sent), Some(lbu)) if !self.lost.contains(&sent.datagram[5]) => {
                    lbu.handle_datagram(self.now, at(1), &sent.datagram);
                }
                _ => {}
            }
            if let Some(answer) = &answer {
                self.agent
                    .handle_datagram(self.now, at(9), &answer.datagram);
            }
            if sent.is_none() && answer.is_none() {
                return;
            }
        }
    }

    /// How the application is, as far as the load balancing unit knows.
    fn known(&self) -> Option<Health> {
        let row = self.lbu.as_ref().unwrap().cache().row(1, self.app)?;
        Some(row.row.status.health)
    }

    fn drain(&mut self) {
        let target = self
            .agent
            .set_target(self.now, self.app, Directive::Draining);
        target.unwrap();
    }

    fn is_drained(&self) -> bool {
        let row = self.agent.table().row(self.app).unwrap();
        row.status.current == Directive::Draining
    }
}

#[test]
fn a_change_is_known_at_once() {
    let mut scene = Scene::new();
    assert_eq!(scene.known(), Some(Health::Healthy));
    let failing = scene
        .agent
        .set_health(scene.now, scene.app, Health::Failing);
    failing.unwrap();
    scene.deliver();
    assert_eq!(scene.known(), Some(Health::Failing));
}

#[test]
fn a_change_that_gets_lost_is_known_after_a_heartbeat() {
    let mut scene = Scene::new();
    // Row changes.
    scene.lost = vec![3];
    let failing = scene
        .agent
        .set_health(scene.now, scene.app, Health::Failing);
    failing.unwrap();
    scene.deliver();
    assert_eq!(scene.known(), Some(Health::Healthy));
    scene.pass(1500);
    assert_eq!(scene.known(), Some(Health::Failing));
}

#[test]
fn silence_is_known_after_the_age_limit() {
    let mut scene = Scene::new();
    scene.lost = (0..=255).collect();
    scene.pass(4000);
    assert_eq!(scene.known(), Some(Health::Healthy));
    scene.pass(1100);
    assert_eq!(scene.known(), None);
}

#[test]
fn who_does_otherwise_is_waited_for() {
    let mut scene = Scene::new();
    scene.drain();
    scene.pass(60_000);
    assert!(!scene.is_drained());
    scene.apply();
    scene.pass(1000);
    assert!(scene.is_drained());
}

/// What it knows grows old, and it must not use that.
#[test]
fn who_is_silent_is_not_waited_for() {
    let mut scene = Scene::new();
    scene.drain();
    scene.pass(60_000);
    scene.lbu = None;
    scene.pass(5000);
    assert!(!scene.is_drained());
    scene.pass(1500);
    assert!(scene.is_drained());
}

#[test]
fn what_is_refused_is_not_confirmed() {
    let mut scene = Scene::new();
    scene.drain();
    scene.pass(1000);
    let row = (1, scene.app);
    scene.lbu.as_mut().unwrap().not_in_force([row].into());
    scene.apply();
    scene.pass(20_000);
    assert!(!scene.is_drained());
    scene
        .lbu
        .as_mut()
        .unwrap()
        .not_in_force([(1, AppId(77))].into());
    scene.pass(1000);
    assert!(scene.is_drained());
}

/// A row takes the place of another one, of whose end the unit does not know: that it follows the second says nothing.
#[test]
fn what_was_there_before_is_not_forgotten() {
    const CHANGE: u8 = 3;
    // By which the unit would find out, and that it lacks.
    const REPAIR: [u8; 2] = [1, 5];
    let mut scene = Scene::new();
    let row = scene.agent.table().row(scene.app).unwrap().clone();
    scene.lost = [&REPAIR[..], &[CHANGE]].concat();
    let before = scene.app;
    scene.agent.remove(scene.now, before).unwrap();
    scene.pass(50);
    scene.lost = REPAIR.to_vec();
    scene.app = scene.agent.add(scene.now, row).unwrap();
    scene.drain();
    let knows = |scene: &Scene| {
        let cache = scene.lbu.as_ref().unwrap().cache();
        cache.row(1, before).is_some()
    };
    for _ in 0..30 {
        scene.pass(100);
        scene.apply();
        assert!(knows(&scene) && !scene.is_drained());
    }
    scene.lost.clear();
    for _ in 0..30 {
        scene.pass(100);
        scene.apply();
        assert!(!scene.is_drained() || !knows(&scene));
    }
    assert!(scene.is_drained());
}
