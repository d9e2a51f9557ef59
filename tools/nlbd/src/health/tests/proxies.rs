// SPDX-License-Identifier: MIT OR Apache-2.0

//! A host that has an agent, and a proxy that looks at it as well.

use super::{left, silent, web, Pair, DRAINING};
use crate::health::plan::Gone;
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
