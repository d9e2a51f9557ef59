// SPDX-License-Identifier: MIT OR Apache-2.0

//! A host that has an agent, and a proxy that looks at it as well.

use super::{left, plans, silent, web, Pair, DRAINING, HOST};
use crate::health::plan::{Gone, Place};
use nlb_health::{
    row::{AppId, Directive, Health},
    Agent,
};
use nlb_netlink::EndpointState;

const PROXY: u32 = 8;

/// Who of the two speaks is in the pair; the other one is here.
struct Both {
    pair: Pair,
    other: Option<Agent>,
    /// Of the proxy.
    app: AppId,
}

impl Both {
    /// Both know the application, and the proxy speaks.
    fn new() -> Self {
        let mut pair = Pair::new();
        pair.handler.proxies = [PROXY].into();
        pair.pass(1000);
        let proxy = pair.agent_of(PROXY, 1);
        let other = pair.agent.replace(proxy);
        let app = pair.add(web(1), "");
        pair.pass(1000);
        pair.apply();
        assert_eq!(pair.state, EndpointState::Active);
        Self { pair, other, app }
    }

    /// The other one speaks.
    fn turn(&mut self) {
        std::mem::swap(&mut self.pair.agent, &mut self.other);
    }

    /// The host begins a life with another application, or none.
    fn start_with(&mut self, place: Option<Place>) {
        self.pair.agent = Some(self.pair.agent_of(HOST, 2));
        if let Some(place) = place {
            self.pair.add(place, "");
        }
    }

    /// The proxy says something that is no reason to do otherwise.
    fn chatter(&mut self, capacity: u8) {
        let now = self.pair.now;
        let agent = self.pair.agent();
        agent.set_capacity(now, self.app, capacity).unwrap();
        self.pair.pass(1000);
        self.pair.apply();
    }

    fn finds(&mut self, health: Health) {
        let now = self.pair.now;
        self.pair.agent().set_health(now, self.app, health).unwrap();
        self.pair.pass(1000);
        self.pair.apply();
    }

    /// nlbd begins anew, and so does what is governed.
    fn restart(&mut self) {
        self.pair.restart(2);
        self.pair.handler.proxies = [PROXY].into();
        self.pair.state = EndpointState::Active;
    }

    fn is(&self, gone: Option<Gone>, state: EndpointState) {
        assert_eq!((self.pair.gone(), self.pair.state), (gone, state));
    }
}

#[test]
fn a_goodbye_holds_whatever_proxies_say() {
    let mut both = Both::new();
    both.turn();
    both.pair.leave();
    both.turn();
    for capacity in [40, 41] {
        both.chatter(capacity);
        both.is(left(DRAINING), EndpointState::Draining);
    }
    // Nor is it forgotten.
    both.restart();
    both.pair.pass(2000);
    both.pair.apply();
    both.is(left(DRAINING), EndpointState::Draining);
    both.pair.is_alone = true;
    both.chatter(42);
    both.is(left(DRAINING), EndpointState::Draining);
    // The machine has gone down; and it is there again, without an agent.
    both.finds(Health::Failing);
    both.is(left(DRAINING), EndpointState::Draining);
    both.finds(Health::Healthy);
    both.is(None, EndpointState::Active);
}

#[test]
fn who_shall_get_nothing_and_is_silent_gets_nothing() {
    let mut both = Both::new();
    both.turn();
    let app = both.pair.app;
    both.pair.drain(app);
    both.pair.pass(1000);
    both.turn();
    both.pair.pass(7000);
    let silent = Some(Directive::Draining);
    let gone = |set| Some(Gone { silent, set });
    both.chatter(40);
    both.is(gone(DRAINING), EndpointState::Draining);
    both.restart();
    both.chatter(41);
    both.is(gone(DRAINING), EndpointState::Draining);
    // Its agent is there again.
    both.pair.start(2);
    both.pair.pass(1000);
    both.pair.apply();
    both.is(None, EndpointState::Active);
}

/// Of a host that is only silent proxies know more; and one that is there may leave it to them.
#[test]
fn proxies_know_the_rest() {
    let mut both = Both::new();
    both.pair.pass(7000);
    assert_eq!(both.pair.gone(), silent(None));
    both.chatter(40);
    both.is(None, EndpointState::Active);
    let mut both = Both::new();
    both.turn();
    let (now, app) = (both.pair.now, both.pair.app);
    both.pair.agent().remove(now, app).unwrap();
    both.pair.pass(1000);
    both.pair.apply();
    assert_eq!(both.pair.state, EndpointState::Active);
    both.turn();
    both.chatter(40);
    both.is(None, EndpointState::Active);
}

/// That it is not in the host's table is no reason to take it for gone when the host goes later, or nlbd begins anew.
#[test]
fn what_a_host_takes_out_is_left_to_proxies() {
    let takes_out: [fn(&mut Both); 3] = [
        |both| {
            let (now, app) = (both.pair.now, both.pair.app);
            both.pair.agent().remove(now, app).unwrap();
        },
        // Another one has its number in the next life.
        |both| both.start_with(Some(plans::place("192.0.2.10:81", "10.0.0.1:81"))),
        // It was silent between.
        |both| {
            both.pair.die();
            both.pair.apply();
            both.start_with(None);
        },
    ];
    let ends: [fn(&mut Both); 3] = [
        |_| {},
        |both| both.pair.leave(),
        |both| {
            both.pair.restart(2);
            both.pair.handler.proxies = [PROXY].into();
        },
    ];
    for take_out in takes_out {
        for end in ends {
            let mut both = Both::new();
            both.turn();
            take_out(&mut both);
            both.turn();
            both.pair.pass(1000);
            both.turn();
            both.pair.pass(1000);
            both.pair.apply();
            both.is(None, EndpointState::Active);
            end(&mut both);
            both.turn();
            // The host is not heard for so long.
            both.pair.pass(7000);
            both.pair.apply();
            both.is(None, EndpointState::Active);
            both.chatter(40);
            both.is(None, EndpointState::Active);
        }
    }
}

/// Both are proxies; the one that is the host has the application drain, which is in force.
fn drained() -> Both {
    let mut both = Both::new();
    both.pair.handler.proxies = [PROXY, HOST].into();
    both.turn();
    let app = both.pair.app;
    both.pair.drain(app);
    for _ in 0..8 {
        both.pair.pass(1000);
        both.pair.apply();
        both.turn();
        both.pair.pass(1000);
        both.turn();
    }
    assert_eq!(both.pair.current(app), Directive::Draining);
    assert_eq!(both.pair.state, EndpointState::Draining);
    both
}

/// Of those who may be there still nobody knows yet what they want now.
#[test]
fn a_restart_forgets_no_drain() {
    let mut both = drained();
    both.pair.restart(2);
    both.pair.handler.proxies = [PROXY, HOST].into();
    // The machine has been booted.
    both.pair.state = EndpointState::Active;
    both.pair.apply();
    both.is(None, EndpointState::Draining);
    // The other one is heard first.
    both.turn();
    both.chatter(40);
    both.is(None, EndpointState::Draining);
    both.turn();
    both.pair.pass(1000);
    both.pair.apply();
    both.is(None, EndpointState::Draining);
    let (now, app) = (both.pair.now, both.pair.app);
    let agent = both.pair.agent();
    agent.set_target(now, app, Directive::Active).unwrap();
    both.pair.pass(1000);
    both.pair.apply();
    both.is(None, EndpointState::Active);
}

/// It is as if nlbd had not begun anew.
#[test]
fn who_does_not_come_again_has_no_say_where_another_speaks() {
    let mut both = drained();
    both.pair.restart(2);
    both.pair.handler.proxies = [PROXY, HOST].into();
    both.turn();
    both.pair.pass(4900);
    both.pair.apply();
    both.is(None, EndpointState::Draining);
    both.pair.pass(200);
    both.pair.apply();
    both.is(None, EndpointState::Active);
    // Nor is it heard of it again.
    both.pair.restart(3);
    both.pair.handler.proxies = [PROXY, HOST].into();
    both.pair.apply();
    both.is(None, EndpointState::Active);
    both.pair.pass(7000);
    both.pair.apply();
    both.is(None, EndpointState::Active);
}

/// One of two is dead, and nlbd begins anew: that is no reason to take it from service until the other one is heard.
#[test]
fn an_endpoint_is_waited_for_as_long_as_any_of_its_hosts() {
    let mut both = Both::new();
    both.pair.handler.proxies = [PROXY, HOST].into();
    both.pair.pass(7000);
    assert_eq!(both.pair.gone(), silent(None));
    both.pair.restart(2);
    both.pair.handler.proxies = [PROXY, HOST].into();
    let proxy = both.pair.agent.take();
    both.pair.pass(1000);
    both.pair.apply();
    both.is(None, EndpointState::Active);
    both.pair.agent = proxy;
    both.chatter(40);
    both.is(None, EndpointState::Active);
}

/// A proxy that has begun anew does not know yet.
#[test]
fn who_has_not_looked_has_seen_no_failure() {
    let mut both = Both::new();
    both.turn();
    both.pair.leave();
    both.turn();
    both.finds(Health::Unknown);
    both.finds(Health::Healthy);
    both.is(left(DRAINING), EndpointState::Draining);
    both.finds(Health::Failing);
    both.finds(Health::Unknown);
    both.finds(Health::Healthy);
    both.is(None, EndpointState::Active);
}
