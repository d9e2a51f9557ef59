// SPDX-License-Identifier: MIT OR Apache-2.0

//! The configuration, and what becomes of what a host says; plans are in [`plans`].

mod plans;

use super::{
    config::Config,
    forwarder::{Applied, Forwarder},
    memory::{Memory, Saved},
    plan::{plan, Gone, Place},
    Handler,
};
use nlb_daemon::config::Source;
use nlb_health::{
    agent::AgentConfig,
    lbu::LbuConfig,
    row::{AppId, AppType, Directive, Health, Identity, Row, Status},
    seal::Keys,
    Agent, Lbu,
};
use nlb_netlink::EndpointState;
use plans::{endpoint, web, PANIC, WEB};
use std::{
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

#[test]
fn configurations() {
    let directory = std::env::temp_dir().join(format!("nlbd-health-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let secret = directory.join("health.key");
    std::fs::write(&secret, "0123456789abcdef\n").unwrap();
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
    let parse = |text: &str| Config::parse(&Source::new("f", text), &directory.join("f"));
    let good = include_str!("../../health.toml");
    let config = parse(good).unwrap();
    assert_eq!(config.listen.len(), 2);
    assert_eq!((config.panic.threshold, config.panic.stale), (50, true));
    for (new, expected) in [
        ("lbu = 0", "f:7: lbu is 0; choose"),
        ("lbu = 1\nlisten = []", "f:8: listen names an address"),
        (
            "lbu = 1\nlisten = [\"0.0.0.0:0\"]",
            "f:8: listen names an address",
        ),
        (
            "lbu = 1\nlisten = [\"0.0.0.0:1\", \"127.0.0.1:1\"]",
            "f:8: listen names an address",
        ),
        (
            "lbu = 1\npanic_threshold = 101",
            "f:8: panic_threshold is 101; choose",
        ),
        (
            "lbu = 1\nage_limit_ms = 3",
            "f:8: age_limit_ms is 3; choose",
        ),
        ("lbu = 1\npanic = 3", "f:8: unknown field `panic`"),
    ] {
        let Err(mistake) = parse(&good.replacen("lbu = 1", new, 1)) else {
            panic!("{new:?} is taken");
        };
        assert!(mistake.to_string().contains(expected), "{new:?}: {mistake}");
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

/// A host and a load balancing unit, without a network. The forwarder is told only when the test says so.
struct Pair {
    now: Instant,
    agent: Option<Agent>,
    handler: Handler,
    app: AppId,
    /// State of the endpoint.
    state: EndpointState,
    /// The service has no other endpoint.
    is_alone: bool,
}

impl Pair {
    fn new() -> Self {
        let keys = Keys::new(1, b"0123456789abcdef").unwrap();
        let lbu = Lbu::new(LbuConfig::new(9, 1), keys, [1; 32]);
        let mut pair = Self {
            now: Instant::now(),
            agent: None,
            handler: Handler::new(lbu, PANIC, Memory::new(&Saved::default(), Instant::now())),
            app: AppId(0),
            state: EndpointState::Active,
            is_alone: false,
        };
        pair.start(1);
        pair
    }

    /// The host begins a life, with one application.
    fn start(&mut self, epoch: u64) {
        let keys = Keys::new(1, b"0123456789abcdef").unwrap();
        let config = AgentConfig::new(1, epoch, vec![at(1)]);
        let agent = self
            .agent
            .insert(Agent::new(self.now, config, keys, [2; 32]));
        let place = web(1);
        let row = Row {
            identity: Identity {
                app_type: AppType {
                    vip: place.vip,
                    transport: place.transport,
                    protocol: "http".to_owned(),
                    detail: String::new(),
                },
                physical: place.physical,
            },
            status: Status {
                health: Health::Healthy,
                load: 0,
                capacity: 50,
                target: Directive::Active,
                current: Directive::Active,
            },
        };
        self.app = agent.add(self.now, row).unwrap();
    }

    /// nlbd begins anew, and the forwarder goes on.
    fn restart(&mut self, epoch: u64) {
        let keys = Keys::new(1, b"0123456789abcdef").unwrap();
        let lbu = Lbu::new(LbuConfig::new(9, epoch), keys, [epoch as u8; 32]);
        let text = serde_json::to_string(&self.handler.saved(epoch)).unwrap();
        let saved: Saved = serde_json::from_str(&text).unwrap();
        let memory = Memory::new(&saved, self.now + Duration::from_secs(30));
        self.handler = Handler::new(lbu, PANIC, memory);
    }

    fn agent(&mut self) -> &mut Agent {
        self.agent.as_mut().unwrap()
    }

    fn pass(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds / 50 {
            self.now += Duration::from_millis(50);
            self.handler.lbu.handle_timeout(self.now);
            if let Some(agent) = &mut self.agent {
                agent.handle_timeout(self.now);
            }
            loop {
                let mut sent = Vec::new();
                if let Some(agent) = &mut self.agent {
                    sent.extend(std::iter::from_fn(|| agent.poll_transmit()));
                }
                let is_quiet = sent.is_empty();
                for transmit in sent {
                    let lbu = &mut self.handler.lbu;
                    lbu.handle_datagram(self.now, at(2), &transmit.datagram);
                }
                while let Some(transmit) = self.handler.lbu.poll_transmit() {
                    if let Some(agent) = &mut self.agent {
                        agent.handle_datagram(self.now, at(1), &transmit.datagram);
                    }
                }
                if is_quiet {
                    break;
                }
            }
            self.handler.hear();
            self.handler.miss(self.now);
        }
    }

    /// The forwarder is told.
    fn apply(&mut self) {
        self.apply_with(None);
    }

    /// The same; then something else goes wrong.
    fn apply_with(&mut self, trouble: Option<&str>) {
        let mut known = self.handler.known();
        let begun = known.gone.clone();
        let version = self.handler.lbu.cache().version();
        let mut endpoints = vec![
            endpoint(WEB, 1, self.state, 50),
            endpoint(WEB, 2, EndpointState::Active, 50),
        ];
        if self.is_alone {
            endpoints.truncate(1);
        }
        let plan = plan(&known, PANIC, &[WEB.parse().unwrap()], &endpoints);
        for change in &plan.changes {
            self.state = change.change.state.unwrap_or(self.state);
        }
        known.credit(&plan, &plan.changes);
        let applied = Applied {
            plan,
            gone: known.gone,
            trouble: trouble.map(str::to_owned),
        };
        let done = (Forwarder::default(), begun, applied);
        self.handler.end((version, Ok(done)));
    }

    fn current(&mut self) -> Directive {
        let app = self.app;
        self.agent().table().row(app).unwrap().status.current
    }

    fn gone(&self) -> Option<Gone> {
        let place: Place = web(1);
        self.handler.gone.get(&place).copied()
    }
}

fn at(last: u8) -> SocketAddr {
    ([10, 9, 9, last], 4771).into()
}

#[test]
fn hosts_are_told_when_the_forwarder_has_it() {
    let mut pair = Pair::new();
    pair.pass(8000);
    pair.apply();
    let (now, app) = (pair.now, pair.app);
    pair.agent()
        .set_target(now, app, Directive::Draining)
        .unwrap();
    pair.pass(3000);
    assert_eq!(pair.current(), Directive::Active);
    pair.apply();
    assert_eq!(pair.state, EndpointState::Draining);
    pair.pass(1000);
    assert_eq!(pair.current(), Directive::Draining);
    let now = pair.now;
    pair.agent()
        .set_target(now, app, Directive::Active)
        .unwrap();
    pair.pass(1000);
    pair.apply();
    assert_eq!(pair.state, EndpointState::Active);
}

#[test]
fn who_says_goodbye_is_drained_once() {
    let mut pair = Pair::new();
    pair.pass(1000);
    pair.apply();
    assert_eq!(pair.gone(), None);
    let now = pair.now;
    pair.agent().shut_down(now);
    pair.pass(1000);
    assert_eq!(pair.gone(), Some(Gone::Left));
    pair.apply();
    assert_eq!((pair.gone(), pair.state), (None, EndpointState::Draining));
    // From then on it is whoever's.
    pair.state = EndpointState::Active;
    pair.apply();
    assert_eq!(pair.state, EndpointState::Active);
}

#[test]
fn who_is_silent_is_remembered_until_somebody_decides() {
    let mut pair = Pair::new();
    pair.pass(1000);
    pair.apply();
    pair.agent = None;
    pair.pass(7000);
    let target = Directive::Active;
    assert_eq!(pair.gone(), Some(Gone::Stale { target, set: None }));
    pair.apply();
    let set = Some(EndpointState::Draining);
    assert_eq!(pair.gone(), Some(Gone::Stale { target, set }));
    assert_eq!(pair.state, EndpointState::Draining);
    // It is back.
    pair.start(2);
    pair.pass(1000);
    assert_eq!(pair.gone(), None);
    pair.apply();
    assert_eq!(pair.state, EndpointState::Active);
    // And silent again; somebody has it get connections by hand.
    pair.agent = None;
    pair.pass(7000);
    pair.apply();
    assert_eq!(pair.state, EndpointState::Draining);
    pair.state = EndpointState::Active;
    pair.apply();
    assert_eq!((pair.gone(), pair.state), (None, EndpointState::Active));
}

/// What it has done itself before something went wrong is not taken for somebody's decision.
#[test]
fn who_is_silent_is_remembered_if_something_goes_wrong() {
    let mut pair = Pair::new();
    pair.pass(1000);
    pair.apply();
    pair.agent = None;
    pair.pass(7000);
    let stale = |set| {
        let target = Directive::Active;
        Some(Gone::Stale { target, set })
    };
    pair.apply_with(Some("no room"));
    assert_eq!(pair.state, EndpointState::Draining);
    assert_eq!(pair.gone(), stale(Some(EndpointState::Draining)));
    assert_eq!(pair.handler.trouble.as_deref(), Some("no room"));
    // Nobody else is left.
    pair.is_alone = true;
    pair.apply_with(Some("no room"));
    assert_eq!(pair.state, EndpointState::Active);
    assert_eq!(pair.gone(), stale(Some(EndpointState::Active)));
    pair.apply();
    assert_eq!(pair.gone(), stale(Some(EndpointState::Active)));
    assert_eq!(pair.handler.trouble, None);
    pair.is_alone = false;
    pair.apply();
    assert_eq!(pair.state, EndpointState::Draining);
}

/// Which endpoints are governed is not forgotten by a restart; nor are hosts called silent before they can speak.
#[test]
fn who_does_not_speak_to_the_next_life_is_silent() {
    let mut pair = Pair::new();
    pair.pass(1000);
    pair.apply();
    pair.restart(2);
    pair.apply();
    assert_eq!((pair.gone(), pair.state), (None, EndpointState::Active));
    pair.pass(40_000);
    pair.apply();
    assert_eq!((pair.gone(), pair.state), (None, EndpointState::Active));
    // Now it dies together with nlbd; and once more before anybody could know.
    pair.restart(3);
    pair.agent = None;
    pair.pass(20_000);
    pair.apply();
    assert_eq!((pair.gone(), pair.state), (None, EndpointState::Active));
    pair.restart(4);
    pair.pass(31_000);
    pair.apply();
    assert_eq!(pair.state, EndpointState::Draining);
    let stale = |set| {
        let target = Directive::Active;
        Some(Gone::Stale { target, set })
    };
    assert_eq!(pair.gone(), stale(Some(EndpointState::Draining)));
    // Silent ones are kept as well.
    pair.restart(5);
    pair.pass(31_000);
    assert_eq!(pair.gone(), stale(None));
    // Who has said goodbye is nobody's business.
    pair.start(2);
    pair.pass(2000);
    pair.apply();
    let now = pair.now;
    pair.agent().shut_down(now);
    pair.pass(1000);
    pair.apply();
    pair.agent = None;
    pair.restart(6);
    pair.pass(31_000);
    assert_eq!(pair.gone(), None);
}
