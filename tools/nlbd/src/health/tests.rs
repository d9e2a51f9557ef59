// SPDX-License-Identifier: MIT OR Apache-2.0

//! What becomes of what a host says; plans are in [`plans`].

mod allotments;
mod configurations;
mod events;
mod haproxy;
mod metrics;
mod multicast;
mod plans;
mod proxies;
mod restarts;

use super::{
    balancer::{Applied, Balancer},
    follower::Kind,
    forwarder::Forwarder,
    memory::{Memory, Saved},
    plan::{plan, Gone, Place, Seat},
    Handler,
};
use crate::tests::endpoint;
use nlb_health::{
    agent::AgentConfig,
    lbu::LbuConfig,
    row::{AppId, AppType, Directive, Health, Identity, Row, Status},
    seal::Keys,
    Agent, Lbu,
};
use nlb_netlink::EndpointState;
use plans::{host, web, PANIC, WEB};
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// A host and a load balancing unit, without a network. The forwarder is told only when the test says so.
struct Pair {
    begin: Instant,
    now: Instant,
    agent: Option<Agent>,
    handler: Handler,
    app: AppId,
    /// State of the endpoint.
    state: EndpointState,
    /// There is such an endpoint.
    is_there: bool,
    /// It was removed, and made anew.
    is_anew: bool,
    /// The kernel does not take what it is told of it.
    refuses: bool,
    /// State of another one of the service.
    other: EndpointState,
    /// The service has no other endpoint.
    is_alone: bool,
}

/// The row of a healthy application.
fn row(place: Place, detail: &str) -> Row {
    Row {
        identity: Identity {
            app_type: AppType {
                vip: place.vip,
                transport: place.transport,
                protocol: "http".to_owned(),
                detail: detail.to_owned(),
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
    }
}

impl Pair {
    fn new() -> Self {
        Self::with(vec![Kind::Forwarder])
    }

    fn with(balancers: Vec<Kind>) -> Self {
        let keys = Keys::new(1, b"0123456789abcdef").unwrap();
        let lbu = Lbu::new(LbuConfig::new(9, 1), keys, [1; 32]);
        let begin = Instant::now();
        let mut pair = Self {
            begin,
            now: begin,
            agent: None,
            handler: Handler::new(
                lbu,
                PANIC,
                Memory::new(&Saved::default(), (begin, 0)),
                balancers,
            ),
            app: AppId(0),
            state: EndpointState::Active,
            is_there: true,
            is_anew: false,
            refuses: false,
            other: EndpointState::Active,
            is_alone: false,
        };
        pair.start(1);
        pair
    }

    /// The host begins a life, with one application.
    fn start(&mut self, epoch: u64) {
        self.agent = Some(self.agent_of(HOST, epoch));
        self.app = self.add(web(1), "");
    }

    fn agent_of(&self, host: u32, epoch: u64) -> Agent {
        let keys = Keys::new(1, b"0123456789abcdef").unwrap();
        let config = AgentConfig::new(host, epoch, vec![at(1)]);
        Agent::new(self.now, config, keys, [1 + host as u8; 32])
    }

    /// The host has another application.
    fn add(&mut self, place: Place, detail: &str) -> AppId {
        let now = self.now;
        self.agent().add(now, row(place, detail)).unwrap()
    }

    fn drain(&mut self, app: AppId) {
        let now = self.now;
        let agent = self.agent();
        agent.set_target(now, app, Directive::Draining).unwrap();
    }

    /// The host says goodbye, and is gone.
    fn leave(&mut self) {
        let now = self.now;
        self.agent().shut_down(now);
        self.pass(1000);
        self.agent = None;
    }

    /// Nothing comes of the host any more, and it is noticed.
    fn die(&mut self) {
        self.agent = None;
        self.pass(7000);
    }

    /// nlbd begins anew, and the forwarder goes on.
    fn restart(&mut self, epoch: u64) {
        let since = (self.now - self.begin).as_millis() as u64;
        self.restart_in(epoch, "first", since);
    }

    /// The same, in a boot of the machine; its clock says so many milliseconds.
    fn restart_in(&mut self, epoch: u64, boot: &str, since: u64) {
        let keys = Keys::new(1, b"0123456789abcdef").unwrap();
        let lbu = Lbu::new(LbuConfig::new(9, epoch), keys, [epoch as u8; 32]);
        let text = serde_json::to_string(&self.handler.saved(epoch)).unwrap();
        let mut saved: Saved = serde_json::from_str(&text).unwrap();
        let moment = (self.now, since);
        saved.begin(boot, since, Duration::from_secs(30));
        let memory = Memory::new(&saved, moment);
        self.handler = Handler::new(lbu, PANIC, memory, vec![Kind::Forwarder]);
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
            self.handler.confirm();
        }
    }

    /// The forwarder is told.
    fn apply(&mut self) {
        self.apply_with(None);
    }

    /// The same; then something else goes wrong.
    fn apply_with(&mut self, trouble: Option<&str>) {
        let mut known = self.handler.known(0);
        let begun = known.gone.clone();
        if std::mem::take(&mut self.is_anew) {
            known.forget_made();
        }
        let version = self.handler.lbu.cache().version();
        let mut endpoints = Vec::new();
        if self.is_there {
            endpoints.push(endpoint(WEB, 1, self.state, 50));
        }
        if !self.is_alone {
            endpoints.push(endpoint(WEB, 2, self.other, 50));
        }
        let seats: Vec<_> = endpoints.iter().map(Seat::from).collect();
        let plan = plan(&known, PANIC, &[WEB.parse().unwrap()], &seats);
        let mut made = plan.changes.clone();
        let mut refused = BTreeSet::new();
        if self.refuses && made.iter().any(|change| change.host == host(1)) {
            made.retain(|change| change.host != host(1));
            refused.insert(web(1));
        }
        for change in &made {
            let state = if change.host == host(1) {
                &mut self.state
            } else {
                &mut self.other
            };
            *state = change.change.state.unwrap_or(*state);
        }
        known.credit(&plan, &made);
        let what = trouble.or(refused.first().map(|_| "refused"));
        let applied = Applied {
            made,
            plan,
            gone: known.gone,
            is_through: trouble.is_none(),
            refused,
            trouble: what.map(str::to_owned),
            ..Applied::default()
        };
        let balancer: Box<dyn Balancer> = Box::new(Forwarder::default());
        self.handler.end(0, version, Ok((balancer, begun, applied)));
    }

    fn current(&mut self, app: AppId) -> Directive {
        self.agent().table().row(app).unwrap().status.current
    }

    fn gone(&self) -> Option<Gone> {
        let follower = &self.handler.followers[0];
        follower.gone().get(&(web(1), HOST)).copied()
    }

    fn trouble(&self) -> Option<String> {
        self.handler.followers[0].trouble()
    }
}

const HOST: u32 = 1;

fn at(last: u8) -> SocketAddr {
    ([10, 9, 9, last], 4771).into()
}

/// What is left of a row of which nothing was heard for too long.
fn silent(set: Option<EndpointState>) -> Option<Gone> {
    let silent = Some(Directive::Active);
    Some(Gone { silent, set })
}

/// And of one whose host has said that it goes.
fn left(set: Option<EndpointState>) -> Option<Gone> {
    Some(Gone { silent: None, set })
}

const DRAINING: Option<EndpointState> = Some(EndpointState::Draining);

#[test]
fn hosts_are_told_when_the_forwarder_has_it() {
    let mut pair = Pair::new();
    pair.pass(8000);
    pair.apply();
    let app = pair.app;
    pair.drain(app);
    // However long that takes: it is there, and says that it does otherwise.
    pair.pass(20_000);
    assert_eq!(pair.current(app), Directive::Active);
    pair.apply_with(Some("no room"));
    pair.pass(20_000);
    assert_eq!(pair.current(app), Directive::Active);
    pair.apply();
    assert_eq!(pair.state, EndpointState::Draining);
    pair.pass(1000);
    assert_eq!(pair.current(app), Directive::Draining);
    let now = pair.now;
    pair.agent()
        .set_target(now, app, Directive::Active)
        .unwrap();
    pair.pass(1000);
    pair.apply();
    assert_eq!(pair.state, EndpointState::Active);
}

/// One endpoint that the kernel does not change keeps nothing else from being confirmed.
#[test]
fn what_is_refused_is_not_in_force() {
    let mut pair = Pair::new();
    let (app, other) = (pair.app, pair.add(web(2), ""));
    pair.pass(8000);
    pair.apply();
    pair.refuses = true;
    pair.drain(app);
    pair.drain(other);
    pair.pass(1000);
    pair.apply();
    pair.pass(20_000);
    assert_eq!(pair.current(app), Directive::Active);
    assert_eq!(pair.current(other), Directive::Draining);
    let trouble = Some("the forwarder does not follow: refused");
    assert_eq!(pair.trouble().as_deref(), trouble);
    assert_eq!(pair.handler.followers[0].effect(&web(1)), None);
    pair.refuses = false;
    pair.apply();
    pair.pass(1000);
    assert_eq!(pair.current(app), Directive::Draining);
    assert_eq!(pair.trouble(), None);
}

#[test]
fn who_says_goodbye_is_drained_until_somebody_decides() {
    let mut pair = Pair::new();
    pair.pass(1000);
    pair.apply();
    assert_eq!(pair.gone(), None);
    pair.leave();
    assert_eq!(pair.gone(), left(None));
    for _ in 0..2 {
        pair.apply();
        assert_eq!(
            (pair.gone(), pair.state),
            (left(DRAINING), EndpointState::Draining)
        );
    }
    // Nor does panic open it.
    pair.is_alone = true;
    pair.apply();
    assert_eq!(
        (pair.gone(), pair.state),
        (left(DRAINING), EndpointState::Draining)
    );
    pair.state = EndpointState::Active;
    pair.apply();
    assert_eq!((pair.gone(), pair.state), (None, EndpointState::Active));
}

#[test]
fn who_is_silent_is_remembered_until_somebody_decides() {
    let mut pair = Pair::new();
    pair.pass(1000);
    pair.apply();
    pair.die();
    assert_eq!(pair.gone(), silent(None));
    pair.apply();
    assert_eq!(
        (pair.gone(), pair.state),
        (silent(DRAINING), EndpointState::Draining)
    );
    // It is back.
    pair.start(2);
    pair.pass(1000);
    pair.apply();
    assert_eq!((pair.gone(), pair.state), (None, EndpointState::Active));
    // And silent again; somebody has it get connections by hand.
    pair.die();
    pair.apply();
    assert_eq!(pair.state, EndpointState::Draining);
    pair.state = EndpointState::Active;
    pair.apply();
    assert_eq!((pair.gone(), pair.state), (None, EndpointState::Active));
}

/// The module is loaded anew, and its configuration applied again, in which all are active.
#[test]
fn endpoints_that_are_new_are_nobodys_decision() {
    for end in [Pair::die as fn(&mut Pair), Pair::leave] {
        let mut pair = Pair::new();
        pair.pass(1000);
        pair.apply();
        end(&mut pair);
        pair.apply();
        let after = pair.gone().unwrap();
        assert_eq!(after.set, DRAINING);
        // It was looked at between.
        pair.is_there = false;
        pair.apply();
        assert_eq!(pair.gone(), Some(Gone { set: None, ..after }));
        pair.is_there = true;
        pair.state = EndpointState::Active;
        pair.apply();
        assert_eq!(
            (pair.gone(), pair.state),
            (Some(after), EndpointState::Draining)
        );
        // It was not.
        pair.state = EndpointState::Active;
        pair.is_anew = true;
        pair.apply();
        assert_eq!(
            (pair.gone(), pair.state),
            (Some(after), EndpointState::Draining)
        );
    }
}

/// What it has done itself before something went wrong is not taken for somebody's decision.
#[test]
fn who_is_silent_is_remembered_if_something_goes_wrong() {
    let mut pair = Pair::new();
    pair.pass(1000);
    pair.apply();
    pair.die();
    pair.apply_with(Some("no room"));
    assert_eq!(
        (pair.gone(), pair.state),
        (silent(DRAINING), EndpointState::Draining)
    );
    let trouble = Some("the forwarder does not follow: no room");
    assert_eq!(pair.trouble().as_deref(), trouble);
    // Nobody else is left.
    let active = Some(EndpointState::Active);
    pair.is_alone = true;
    pair.apply_with(Some("no room"));
    assert_eq!(
        (pair.gone(), pair.state),
        (silent(active), EndpointState::Active)
    );
    pair.apply();
    assert_eq!(pair.gone(), silent(active));
    assert_eq!(pair.trouble(), None);
    // What was refused is not done.
    pair.is_alone = false;
    pair.refuses = true;
    pair.apply();
    assert_eq!(
        (pair.gone(), pair.state),
        (silent(active), EndpointState::Active)
    );
    pair.refuses = false;
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
    pair.pass(3000);
    pair.apply();
    assert_eq!((pair.gone(), pair.state), (None, EndpointState::Active));
    // What the host has said counts for 5 s, however often nlbd begins anew.
    pair.restart(4);
    pair.pass(1900);
    pair.apply();
    assert_eq!((pair.gone(), pair.state), (None, EndpointState::Active));
    pair.pass(100);
    pair.apply();
    assert_eq!(
        (pair.gone(), pair.state),
        (silent(DRAINING), EndpointState::Draining)
    );
    // Silent ones are kept as well.
    pair.restart(5);
    pair.pass(31_000);
    assert_eq!(pair.gone(), silent(None));
    // So are those that have said goodbye: after a boot their endpoints are active again.
    pair.start(2);
    pair.pass(2000);
    pair.apply();
    assert_eq!((pair.gone(), pair.state), (None, EndpointState::Active));
    pair.leave();
    pair.apply();
    pair.restart(6);
    pair.state = EndpointState::Active;
    pair.pass(31_000);
    assert_eq!(pair.gone(), left(None));
    pair.apply();
    assert_eq!(
        (pair.gone(), pair.state),
        (left(DRAINING), EndpointState::Draining)
    );
}

/// The host itself says then that the application is not there: it gets nothing, even if nobody else is left.
#[test]
fn who_is_back_without_a_row_has_left() {
    let mut pair = Pair::new();
    let start = |pair: &mut Pair, epoch| {
        pair.start(epoch);
        let (now, app) = (pair.now, pair.app);
        pair.agent().remove(now, app).unwrap();
    };
    pair.is_alone = true;
    pair.pass(1000);
    pair.apply();
    pair.die();
    pair.apply();
    let active = Some(EndpointState::Active);
    assert_eq!(pair.gone(), silent(active));
    start(&mut pair, 2);
    pair.pass(1000);
    pair.apply();
    assert_eq!(
        (pair.gone(), pair.state),
        (left(DRAINING), EndpointState::Draining)
    );
    // The same if nlbd knows of it from an earlier life.
    pair.start(3);
    pair.pass(1000);
    pair.apply();
    assert_eq!((pair.gone(), pair.state), (None, EndpointState::Active));
    pair.restart(2);
    start(&mut pair, 4);
    pair.pass(31_000);
    pair.apply();
    assert_eq!(
        (pair.gone(), pair.state),
        (left(DRAINING), EndpointState::Draining)
    );
}

/// Two programs are at the endpoint, and one has asked for no connections before the host has died.
#[test]
fn of_silent_rows_the_worst_counts() {
    let mut pair = Pair::new();
    pair.add(web(1), "/other/*");
    pair.is_alone = true;
    pair.pass(1000);
    let app = pair.app;
    pair.drain(app);
    pair.pass(1000);
    pair.apply();
    assert_eq!(pair.state, EndpointState::Draining);
    pair.die();
    let silent = Some(Directive::Draining);
    assert_eq!(pair.gone(), Some(Gone { silent, set: None }));
    pair.apply();
    assert_eq!(pair.state, EndpointState::Draining);
    pair.restart(2);
    pair.pass(31_000);
    assert_eq!(pair.gone(), Some(Gone { silent, set: None }));
    pair.apply();
    assert_eq!(pair.state, EndpointState::Draining);
    // Somebody else is at the address now.
    pair.agent = Some(pair.agent_of(HOST + 1, 1));
    pair.add(web(1), "");
    pair.pass(1000);
    pair.apply();
    assert_eq!((pair.gone(), pair.state), (None, EndpointState::Active));
}
