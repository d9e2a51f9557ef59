// SPDX-License-Identifier: MIT OR Apache-2.0

//! Allotments: who gets what, and that nothing old is sent again, in virtual time.

use super::{
    plans::{known, place, seats, web, BAD, GOOD, PANIC, WEB},
    Pair,
};
use crate::{
    health::{
        allot::{act, shares, weights, Act, Order, Orders},
        plan::{plan, Gone, Known},
    },
    tests::endpoint,
};
use nlb_health::row::{Directive, Health};
use nlb_netlink::{
    Allotment, AllotmentScheme, AllotmentState, Endpoint, EndpointState, Named, NewAllotment,
};
use std::time::{Duration, Instant};
use EndpointState::{Active, Draining};

const TOKENS: Order = Order {
    scheme: AllotmentScheme::Tokens,
    total: 40,
    age: Duration::from_secs(4),
};

fn orders() -> Orders {
    [(WEB.parse().unwrap(), TOKENS)].into()
}

/// Last byte of the host, and what it gets.
fn split(parts: &[u32], total: u32) -> Vec<(u8, u32)> {
    let hosts = (1..).map(|last| std::net::IpAddr::from([10, 0, 0, last]).into());
    let own: Vec<_> = hosts.zip(parts.iter().copied()).collect();
    let all = shares(&own, total);
    all.iter()
        .map(|share| match share.host_addr {
            std::net::IpAddr::V4(host) => (host.octets()[3], share.amount),
            other => panic!("{other}"),
        })
        .collect()
}

#[test]
fn shares_are_in_proportion_and_all_is_given() {
    // The specification's example.
    assert_eq!(split(&[40, 35, 25], 100), [(1, 40), (2, 35), (3, 25)]);
    assert_eq!(split(&[60, 20], 40), [(1, 30), (2, 10)]);
    assert_eq!(split(&[1, 1, 1], 100), [(1, 34), (2, 33), (3, 33)]);
    assert_eq!(split(&[2, 1], 2), [(1, 1), (2, 1)]);
    // Nobody who can take something is left out, if there is enough for all.
    assert_eq!(split(&[1, 1000, 1], 100), [(1, 1), (2, 98), (3, 1)]);
    assert_eq!(split(&[5, 5, 5], 2), [(1, 1), (2, 1)]);
    assert_eq!(
        split(&[u32::MAX, u32::MAX], 1_000_000),
        [(1, 500_000), (2, 500_000)]
    );
    assert_eq!(split(&[], 100), []);
    assert_eq!(split(&[0, 0], 100), []);
    assert_eq!(split(&[0, 3], 100), [(2, 100)]);
    for seed in 1..200_u32 {
        let parts: Vec<_> = (1..=seed % 7 + 1).map(|n| seed * n * 7919 % 100).collect();
        let all = split(&parts, seed);
        let given: u32 = all.iter().map(|(_, amount)| amount).sum();
        let sum: u32 = parts.iter().sum();
        assert_eq!(given, if sum == 0 { 0 } else { seed }, "{parts:?}");
    }
}

fn weighed(known: &Known, endpoints: &[Endpoint]) -> Vec<(String, u32)> {
    let services = [WEB.parse().unwrap()];
    let plan = plan(known, PANIC, &services, &seats(endpoints));
    let all = weights(&orders(), known, &plan, endpoints);
    let own = all.into_values().flatten();
    own.map(|(host, weight)| (host.to_string(), weight))
        .collect()
}

#[test]
fn ports_of_a_host_are_allotted_each() {
    let mut endpoints: Vec<_> = (0..4).map(|_| endpoint(WEB, 1, Active, 7)).collect();
    for (endpoint, port) in endpoints.iter_mut().zip([8080, 8081, 8082]) {
        endpoint.host_port = Some(port);
    }
    let at = |port: u16| place("192.0.2.10:80", &format!("10.0.0.1:{port}"));
    let all = known(&[(at(8080), GOOD), (at(8081), BAD)]);
    // Of the other two no row speaks.
    let is = |name: &str, weight| (name.to_owned(), weight);
    assert_eq!(
        weighed(&all, &endpoints),
        [
            is("10.0.0.1:8080", 50),
            is("10.0.0.1:8082", 7),
            is("10.0.0.1", 7)
        ]
    );
    // A row without a port is about all of them.
    let all = known(&[(at(0), GOOD)]);
    let ports = weighed(&all, &endpoints);
    assert!(ports.len() == 4 && ports.iter().all(|(_, weight)| *weight == 50));
}

#[test]
fn only_those_that_get_connections_are_allotted() {
    let mut endpoints: Vec<_> = (1..=5).map(|last| endpoint(WEB, last, Active, 7)).collect();
    endpoints[4].backup = Some(true);
    let rows = |rows: &[(u8, (Health, Directive))]| {
        let rows: Vec<_> = rows.iter().map(|(last, is)| (web(*last), *is)).collect();
        known(&rows)
    };
    let is = |last: u8, weight: u32| (format!("10.0.0.{last}"), weight);
    let drains = (Health::Healthy, Directive::Draining);
    // The fourth, of which no host speaks, has its own weight.
    let all = rows(&[(1, GOOD), (2, BAD), (3, drains)]);
    assert_eq!(weighed(&all, &endpoints), [is(1, 50), is(4, 7)]);
    endpoints[3] = endpoint(WEB, 4, Draining, 7);
    assert_eq!(weighed(&all, &endpoints), [is(1, 50)]);
    // Too many are failing: health does not count.
    assert_eq!(
        weighed(&rows(&[(1, BAD), (2, BAD), (3, BAD)]), &endpoints),
        []
    );
    // Nobody speaks of any.
    assert_eq!(weighed(&Known::default(), &endpoints), []);
    let mut stale = Known::default();
    let gone = Gone {
        silent: Some(Directive::Active),
        set: None,
    };
    stale.gone.insert((web(1), 1), gone);
    assert_eq!(weighed(&stale, &endpoints), []);
    stale.rows = rows(&[(2, GOOD)]).rows;
    assert_eq!(weighed(&stale, &endpoints), [is(2, 50), is(3, 7)]);
    // Rows of another service say nothing of this one.
    let other = known(&[(place("192.0.2.10:81", "10.0.0.1:81"), GOOD)]);
    assert_eq!(weighed(&other, &endpoints), []);
}

/// What the forwarder does with allotments.
#[derive(Default)]
struct Kernel {
    set: Option<(NewAllotment, Instant)>,
    used: u32,
}

impl Kernel {
    fn shown(&self, now: Instant) -> Option<Allotment> {
        let (set, since) = self.set.as_ref()?;
        let age = Duration::from_millis(set.age.into());
        let expires = (*since + age).saturating_duration_since(now);
        let total: u32 = set.shares.iter().map(|share| share.amount).sum();
        let left = total.saturating_sub(self.used);
        let state = if expires.is_zero() || left == 0 {
            AllotmentState::Over
        } else if expires <= age / 4 || left <= total / 4 {
            AllotmentState::Low
        } else {
            AllotmentState::Valid
        };
        // The service's address, port and protocol.
        let bytes = [
            8, 0, 1, 0, 192, 0, 2, 10, 6, 0, 2, 0, 0, 80, 0, 0, 8, 0, 3, 0, 6, 0, 0, 0,
        ];
        let mut shown = Allotment::decode(&bytes).unwrap();
        assert_eq!(shown.service(), WEB.parse().unwrap());
        shown.state = Some(Named::Known(state));
        shown.expires = Some(expires.as_millis() as u64);
        Some(shown)
    }

    fn is_valid(&self, now: Instant) -> bool {
        let shown = self.shown(now);
        shown.is_some_and(|shown| shown.state == Some(Named::Known(AllotmentState::Valid)))
    }
}

/// A host, a load balancing unit, and its forwarder.
struct Scene {
    pair: Pair,
    kernel: Kernel,
    sent: Option<NewAllotment>,
    sets: u32,
}

impl Scene {
    fn new() -> Self {
        let mut pair = Pair::new();
        pair.pass(1000);
        pair.apply();
        Self {
            pair,
            kernel: Kernel::default(),
            sent: None,
            sets: 0,
        }
    }

    /// What `nlbd health` does once.
    fn look(&mut self) -> Act {
        let known = self.pair.handler.known(0);
        let endpoints = [
            endpoint(WEB, 1, self.pair.state, 50),
            endpoint(WEB, 2, Active, 50),
        ];
        let plan = plan(&known, PANIC, &[WEB.parse().unwrap()], &seats(&endpoints));
        let weights = weights(&orders(), &known, &plan, &endpoints);
        let now = self.pair.now;
        let present = self.kernel.shown(now);
        let own = weights.get(&WEB.parse().unwrap());
        let act = act(&TOKENS, own, self.sent.as_ref(), present.as_ref());
        match &act {
            Act::Set(next) => {
                self.sets += 1;
                self.sent = Some(next.clone());
                self.kernel = Kernel {
                    set: Some((next.clone(), now)),
                    used: 0,
                };
            }
            Act::Delete | Act::Nothing => {
                self.sent = None;
                if act == Act::Delete {
                    self.kernel.set = None;
                }
            }
            Act::Wait(after) => assert!(!after.is_zero() && *after < TOKENS.age),
        }
        act
    }
}

#[test]
fn allotments_are_renewed_before_they_are_too_old() {
    let mut scene = Scene::new();
    assert!(matches!(scene.look(), Act::Set(_)));
    let mut waits = 0;
    for _ in 0..200 {
        scene.pair.pass(100);
        assert!(scene.kernel.is_valid(scene.pair.now));
        waits += u32::from(matches!(scene.look(), Act::Wait(_)));
    }
    // 20 s, and each holds 4 s: every 2 s, and not more often.
    assert_eq!((scene.sets, waits), (11, 190));
    // It is time when it says so.
    let Act::Wait(after) = scene.look() else {
        panic!("one is due already");
    };
    scene.pair.pass(after.as_millis() as u64);
    assert!(matches!(scene.look(), Act::Set(_)));
}

#[test]
fn tokens_that_are_used_up_and_other_loads_bring_another_one() {
    let mut scene = Scene::new();
    scene.look();
    scene.kernel.used = 29;
    assert!(matches!(scene.look(), Act::Wait(_)));
    scene.kernel.used = 30;
    assert!(matches!(scene.look(), Act::Set(_)));
    assert_eq!(scene.kernel.used, 0);
    scene.kernel.used = 40;
    assert!(matches!(scene.look(), Act::Set(_)));
    // Somebody has taken it back.
    scene.kernel.set = None;
    assert!(matches!(scene.look(), Act::Set(_)));
    let (now, app) = (scene.pair.now, scene.pair.app);
    scene.pair.agent().set_capacity(now, app, 30).unwrap();
    scene.pair.pass(200);
    let Act::Set(next) = scene.look() else {
        panic!("the capacity is another");
    };
    let amounts: Vec<_> = next.shares.iter().map(|share| share.amount).collect();
    assert_eq!(amounts, [15, 25]);
    assert!(matches!(scene.look(), Act::Wait(_)));
    // Who asks for nothing, or is failing, gets nothing of the next one.
    scene
        .pair
        .agent()
        .set_health(now, app, Health::Failing)
        .unwrap();
    scene.pair.pass(200);
    let Act::Set(next) = scene.look() else {
        panic!("one is failing");
    };
    assert_eq!(next.shares.len(), 1);
}

#[test]
fn nothing_stale_is_allotted() {
    let mut scene = Scene::new();
    scene.look();
    let Some((_, since)) = scene.kernel.set.clone() else {
        panic!("nothing is allotted");
    };
    // The unit ends: its word holds as long as it has said.
    assert!(scene.kernel.is_valid(since + TOKENS.age / 2));
    let end = since + TOKENS.age;
    let shown = scene.kernel.shown(end).unwrap();
    assert_eq!(shown.state, Some(Named::Known(AllotmentState::Over)));
    // The only host that speaks is silent: what it has said is taken back when it is too old, and not said again.
    scene.pair.agent = None;
    for _ in 0..60 {
        scene.pair.pass(100);
        scene.look();
    }
    assert!(scene.kernel.set.is_none());
    let sets = scene.sets;
    for _ in 0..100 {
        scene.pair.pass(100);
        assert_eq!(scene.look(), Act::Nothing);
    }
    assert_eq!(scene.sets, sets);
    // What somebody else has set is left.
    let other = NewAllotment {
        scheme: AllotmentScheme::Percentages,
        age: 60_000,
        shares: shares(&[(std::net::IpAddr::from([10, 0, 0, 2]).into(), 1)], 100),
    };
    scene.kernel.set = Some((other, scene.pair.now));
    assert_eq!(scene.look(), Act::Nothing);
    // The host is back.
    scene.pair.start(2);
    scene.pair.pass(1000);
    assert!(matches!(scene.look(), Act::Set(_)));
}
