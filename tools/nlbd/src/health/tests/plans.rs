// SPDX-License-Identifier: MIT OR Apache-2.0

//! Plans: what is known and what the forwarder has go in, changes come out.

use crate::{
    health::{
        config::Panic,
        plan::{plan, weight, AllGone, Cause, Gone, Known, Place, Plan, Seat},
    },
    tests::endpoint,
};
use nlb_health::row::{Directive, Health, Status};
use nlb_netlink::{Endpoint, EndpointState};
use std::{collections::BTreeSet, net::IpAddr};

pub(super) const PANIC: Panic = Panic {
    threshold: 50,
    stale: true,
};

pub(super) fn host(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

pub(super) fn place(vip: &str, physical: &str) -> Place {
    Place {
        vip: vip.parse().unwrap(),
        transport: 6,
        physical: physical.parse().unwrap(),
    }
}

pub(super) fn web(last: u8) -> Place {
    place("192.0.2.10:80", &format!("10.0.0.{last}:80"))
}

fn status(health: Health, target: Directive) -> Status {
    Status {
        health,
        load: 0,
        capacity: 50,
        target,
        current: Directive::Active,
    }
}

pub(super) const GOOD: (Health, Directive) = (Health::Healthy, Directive::Active);
pub(super) const BAD: (Health, Directive) = (Health::Failing, Directive::Active);

pub(super) fn known(rows: &[(Place, (Health, Directive))]) -> Known {
    Known {
        rows: rows
            .iter()
            .map(|(place, (health, target))| (*place, status(*health, *target)))
            .collect(),
        ..Known::default()
    }
}

/// What is gone of a host whose number is that of its address.
fn is_gone(all: &mut AllGone, last: u8, silent: Option<Directive>, set: Option<EndpointState>) {
    all.insert((web(last), last.into()), Gone { silent, set });
}

fn run(known: &Known, panic: Panic, endpoints: &[Endpoint]) -> Plan {
    let mut services: Vec<_> = endpoints.iter().map(Endpoint::service).collect();
    services.dedup();
    plan(known, panic, &services, &seats(endpoints))
}

pub(super) fn seats(endpoints: &[Endpoint]) -> Vec<Seat> {
    endpoints.iter().map(Seat::from).collect()
}

/// Host, state and weight of each change.
fn changes(plan: &Plan) -> Vec<(u8, Option<EndpointState>, Option<u32>)> {
    let changes = plan.changes.iter();
    changes
        .map(|change| {
            let IpAddr::V4(host) = change.host else {
                panic!("an IPv4 host is expected");
            };
            (host.octets()[3], change.change.state, change.change.weight)
        })
        .collect()
}

pub(super) const WEB: &str = "192.0.2.10:80/tcp";
use EndpointState::{Active, Draining, Inactive};

#[test]
fn weights() {
    for (load, capacity, expected) in [
        (0, 50, 50),
        (50, 50, 25),
        (99, 50, 1),
        (100, 50, 1),
        (0, 0, 0),
        (100, 0, 0),
        (1, 99, 99),
        (33, 10, 7),
    ] {
        let status = Status {
            load,
            capacity,
            ..status(Health::Healthy, Directive::Active)
        };
        assert_eq!(weight(&status), expected, "{load} {capacity}");
    }
}

#[test]
fn a_port_of_a_host_is_set_alone() {
    let mut endpoints: Vec<_> = (0..3).map(|_| endpoint(WEB, 1, Active, 50)).collect();
    endpoints[0].host_port = Some(8080);
    endpoints[1].host_port = Some(8081);
    let at = |port: u16| place("192.0.2.10:80", &format!("10.0.0.1:{port}"));
    let strict = Panic {
        threshold: 100,
        ..PANIC
    };
    let set = |rows: &[_]| -> Vec<_> {
        let plan = run(&known(rows), strict, &endpoints);
        let changes = plan.changes.iter().map(|change| change.endpoint());
        changes.map(|own| (own.to_string(), own.port)).collect()
    };
    let is = |name: &str, port| (name.to_owned(), Some(port));
    assert_eq!(set(&[(at(8081), BAD)]), [is("10.0.0.1:8081", 8081)]);
    // The one without a port of its own is for all that nobody else is for.
    assert_eq!(set(&[(at(80), BAD)]), [is("10.0.0.1", 0)]);
    assert_eq!(set(&[(at(0), BAD)]).len(), 3);
}

#[test]
fn states_follow_health_and_directive() {
    let endpoints: Vec<_> = (1..=6).map(|last| endpoint(WEB, last, Active, 1)).collect();
    let rows = [
        (web(1), GOOD),
        (web(2), BAD),
        (web(3), (Health::Healthy, Directive::Draining)),
        (web(4), (Health::Failing, Directive::Inactive)),
        (web(5), (Health::Unknown, Directive::Active)),
    ];
    let strict = Panic {
        threshold: 100,
        ..PANIC
    };
    let plan = run(&known(&rows), strict, &endpoints);
    // Who gets connections comes first; of the sixth, which nobody reports, nothing is changed.
    assert_eq!(
        changes(&plan),
        [
            (1, None, Some(50)),
            (2, Some(Draining), None),
            (3, Some(Draining), None),
            (4, Some(Inactive), None),
            (5, Some(Draining), None),
        ]
    );
    assert_eq!(plan.effects.len(), 5);
    assert_eq!(plan.effects[&web(4)].state, Inactive);
}

/// Of several reasons the one that decides: what hosts ask for, then the worst of what is said.
#[test]
fn changes_have_a_cause() {
    let endpoints: Vec<_> = (1..=7).map(|last| endpoint(WEB, last, Active, 1)).collect();
    let unknown = (Health::Unknown, Directive::Active);
    let mut all = known(&[
        (web(1), GOOD),
        (web(2), unknown),
        (web(2), BAD),
        (web(2), GOOD),
        (web(3), (Health::Failing, Directive::Draining)),
        (web(4), GOOD),
        (web(4), unknown),
        (web(7), GOOD),
    ]);
    is_gone(&mut all.gone, 5, None, None);
    is_gone(&mut all.gone, 6, Some(Directive::Active), None);
    // It had asked for no connections, and somebody else speaks of it.
    is_gone(&mut all.gone, 7, Some(Directive::Draining), None);
    let causes = |plan: &Plan| -> Vec<_> {
        let of = |last| plan.effects.get(&web(last)).map(|effect| effect.cause);
        (1..=7).filter_map(of).collect()
    };
    let strict = Panic {
        threshold: 100,
        ..PANIC
    };
    let plan = run(&all, strict, &endpoints);
    let expected = [
        Cause::Healthy,
        Cause::Failing,
        Cause::Directive,
        Cause::Unknown,
        Cause::Gone,
        Cause::Silent,
        Cause::Directive,
    ];
    assert_eq!(causes(&plan), expected);
    let changes = plan.changes.iter();
    let changes = changes.filter(|own| own.change.state.is_some());
    assert_eq!(
        changes.map(|own| own.cause).collect::<Vec<_>>(),
        expected[1..]
    );
    // Nobody is healthy: some get connections all the same.
    all.rows.retain(|(place, _)| *place != web(1));
    let plan = run(&all, PANIC, &endpoints[1..]);
    let expected = [
        Cause::Panic,
        Cause::Directive,
        Cause::Panic,
        Cause::Gone,
        Cause::Panic,
        Cause::Directive,
    ];
    assert_eq!(causes(&plan), expected);
}

#[test]
fn what_is_so_already_is_left() {
    let endpoints = [endpoint(WEB, 1, Active, 50), endpoint(WEB, 2, Draining, 1)];
    let known = known(&[(web(1), GOOD), (web(2), BAD)]);
    assert_eq!(changes(&run(&known, PANIC, &endpoints)), []);
}

#[test]
fn when_too_many_are_failing_health_counts_no_more() {
    let endpoints: Vec<_> = (1..=4)
        .map(|last| endpoint(WEB, last, Draining, 50))
        .collect();
    let rows = |bad: usize| {
        let of = |last: u8| if usize::from(last) <= bad { BAD } else { GOOD };
        known(
            &(1..=4)
                .map(|last| (web(last), of(last)))
                .collect::<Vec<_>>(),
        )
    };
    // Half of them are not more than half.
    let plan = run(&rows(2), PANIC, &endpoints);
    assert_eq!(
        changes(&plan),
        [(3, Some(Active), None), (4, Some(Active), None)]
    );
    let plan = run(&rows(3), PANIC, &endpoints);
    assert_eq!(plan.changes.len(), 4);
    assert!(plan.effects[&web(1)].is_panic() && !plan.effects[&web(4)].is_panic());
    let never = Panic {
        threshold: 100,
        ..PANIC
    };
    assert_eq!(changes(&run(&rows(4), never, &endpoints)), []);
    // Endpoints that nobody reports, and that get connections, are healthy ones.
    let mut more = endpoints.clone();
    more.extend((5..=7).map(|last| endpoint(WEB, last, Active, 1)));
    assert_eq!(run(&rows(3), PANIC, &more).changes.len(), 1);
    more.extend((8..=9).map(|last| endpoint(WEB, last, Draining, 1)));
    assert_eq!(run(&rows(4), PANIC, &more).changes.len(), 4);
}

/// Who gets nothing by its weight is none of those that the others could count on.
#[test]
fn a_weight_of_0_is_no_help() {
    let endpoints = [endpoint(WEB, 1, Active, 0), endpoint(WEB, 2, Active, 50)];
    let mut all = known(&[(web(1), GOOD), (web(2), BAD)]);
    all.rows[0].1.capacity = 0;
    let plan = run(&all, PANIC, &endpoints);
    assert_eq!(changes(&plan), []);
    assert!(plan.effects[&web(2)].is_panic());
    // Nor does it keep those from connections that are silent.
    let mut all = known(&[(web(1), GOOD)]);
    all.rows[0].1.capacity = 0;
    is_gone(&mut all.gone, 2, Some(Directive::Active), None);
    assert!(run(&all, PANIC, &endpoints).effects[&web(2)].is_panic());
}

#[test]
fn nobody_gets_connections_by_panic_who_asked_for_none() {
    let endpoints: Vec<_> = (1..=3)
        .map(|last| endpoint(WEB, last, Active, 50))
        .collect();
    let rows = [
        (web(1), BAD),
        (web(2), (Health::Failing, Directive::Draining)),
        (web(3), (Health::Healthy, Directive::Inactive)),
    ];
    let plan = run(&known(&rows), PANIC, &endpoints);
    assert_eq!(
        changes(&plan),
        [(2, Some(Draining), None), (3, Some(Inactive), None)]
    );
    assert!(plan.effects[&web(1)].is_panic());
}

#[test]
fn what_is_gone_gets_no_new_connections() {
    let endpoints: Vec<_> = (1..=4)
        .map(|last| endpoint(WEB, last, Active, 50))
        .collect();
    let mut all = known(&[(web(1), GOOD), (web(2), GOOD)]);
    is_gone(&mut all.gone, 3, None, None);
    is_gone(&mut all.gone, 4, Some(Directive::Active), None);
    let plan = run(&all, PANIC, &endpoints);
    assert_eq!(
        changes(&plan),
        [(3, Some(Draining), None), (4, Some(Draining), None)]
    );
    // A row that is there counts more.
    is_gone(&mut all.gone, 1, None, None);
    assert_eq!(run(&all, PANIC, &endpoints).changes.len(), 2);
    // What gets less already is not opened.
    let inactive = [
        endpoint(WEB, 3, Inactive, 50),
        endpoint(WEB, 4, Inactive, 50),
    ];
    let strict = Panic {
        stale: false,
        ..PANIC
    };
    assert_eq!(changes(&run(&all, strict, &inactive)), []);
}

#[test]
fn silence_of_all_is_no_reason_to_serve_nobody() {
    let mut all = Known::default();
    is_gone(&mut all.gone, 1, Some(Directive::Active), Some(Draining));
    is_gone(&mut all.gone, 2, Some(Directive::Active), None);
    is_gone(&mut all.gone, 3, Some(Directive::Draining), None);
    let endpoints = [
        endpoint(WEB, 1, Draining, 50),
        endpoint(WEB, 2, Active, 50),
        endpoint(WEB, 3, Draining, 50),
    ];
    assert_eq!(
        changes(&run(&all, PANIC, &endpoints)),
        [(1, Some(Active), None)]
    );
    let strict = Panic {
        stale: false,
        ..PANIC
    };
    assert_eq!(
        changes(&run(&all, strict, &endpoints)),
        [(2, Some(Draining), None)]
    );
    // Somebody has decided otherwise since.
    let by_hand = [endpoint(WEB, 1, Inactive, 50)];
    let plan = run(&all, PANIC, &by_hand);
    assert_eq!((changes(&plan), plan.effects.len()), (vec![], 0));
    assert_eq!(plan.by_hand, BTreeSet::from([web(1)]));
}

/// Most of the hosts are dead, and the one that is left is well: nobody sends to the dead.
#[test]
fn silence_of_many_is_no_reason_to_send_to_them() {
    let gone = |all: &mut Known| {
        for last in [2, 3] {
            is_gone(&mut all.gone, last, Some(Directive::Active), Some(Draining));
        }
    };
    let endpoints = [
        endpoint(WEB, 1, Active, 50),
        endpoint(WEB, 2, Draining, 50),
        endpoint(WEB, 3, Draining, 50),
    ];
    let mut all = known(&[(web(1), GOOD)]);
    gone(&mut all);
    let plan = run(&all, PANIC, &endpoints);
    assert_eq!(changes(&plan), []);
    assert!(!plan.effects[&web(2)].is_panic());
    // The last one is failing, or asks for none: then somebody has to.
    for last in [BAD, (Health::Healthy, Directive::Draining)] {
        let mut all = known(&[(web(1), last)]);
        gone(&mut all);
        let plan = run(&all, PANIC, &endpoints);
        let opened = [(2, Some(Active), None), (3, Some(Active), None)];
        assert_eq!(changes(&plan)[..2], opened);
        assert_eq!(plan.effects[&web(1)].is_panic(), last == BAD);
        assert!(plan.effects[&web(2)].is_panic());
        let never = Panic {
            threshold: 100,
            ..PANIC
        };
        assert_eq!(
            changes(&run(&all, never, &endpoints)),
            [(1, Some(Draining), None)]
        );
    }
    // Nor are they a reason to send to others that are not well.
    let mut all = known(&[(web(1), GOOD), (web(4), BAD)]);
    gone(&mut all);
    let mut more = endpoints.to_vec();
    more.push(endpoint(WEB, 4, Active, 50));
    assert_eq!(
        changes(&run(&all, PANIC, &more)),
        [(4, Some(Draining), None)]
    );
}

/// Of two programs at an endpoint one has asked for no connections, and is not heard of any more.
#[test]
fn the_worst_row_counts_when_it_is_silent() {
    let endpoints = [endpoint(WEB, 1, Draining, 50), endpoint(WEB, 2, Active, 50)];
    let mut all = known(&[(web(1), GOOD), (web(2), GOOD)]);
    is_gone(&mut all.gone, 1, Some(Directive::Draining), Some(Draining));
    let plan = run(&all, PANIC, &endpoints);
    assert_eq!((changes(&plan), plan.by_hand.len()), (vec![], 0));
    // One that has asked for them says nothing of the other.
    is_gone(&mut all.gone, 1, Some(Directive::Active), Some(Draining));
    let plan = run(&all, PANIC, &endpoints);
    assert_eq!(changes(&plan), [(1, Some(Active), None)]);
    // Two hosts that were there: the worst, and nobody's decision if one is new.
    let mut all = known(&[]);
    is_gone(&mut all.gone, 1, Some(Directive::Active), Some(Active));
    let second = Gone {
        silent: Some(Directive::Draining),
        set: None,
    };
    all.gone.insert((web(1), 77), second);
    let plan = run(&all, PANIC, &endpoints[..1]);
    assert_eq!((changes(&plan), plan.by_hand.len()), (vec![], 0));
}

#[test]
fn the_worst_row_of_an_endpoint_counts() {
    let endpoints = [
        endpoint("192.0.2.10:80-90/tcp", 1, Active, 1),
        endpoint("192.0.2.10:80-90/tcp", 2, Active, 1),
    ];
    let rows = [
        (place("192.0.2.10:80", "10.0.0.1:80"), GOOD),
        (place("192.0.2.10:85", "10.0.0.1:85"), BAD),
        (place("192.0.2.10:80", "10.0.0.2:80"), GOOD),
        // Not of this service.
        (place("192.0.2.10:91", "10.0.0.2:91"), BAD),
        (place("192.0.2.11:80", "10.0.0.2:80"), BAD),
        (place("192.0.2.10:80", "10.0.0.3:80"), BAD),
    ];
    let plan = run(&known(&rows), PANIC, &endpoints);
    assert_eq!(
        changes(&plan),
        [(2, None, Some(50)), (1, Some(Draining), None)]
    );
    assert_eq!(plan.effects.len(), 3);
}

#[test]
fn services_are_found_as_packets_find_them() {
    let (one, some, all) = (WEB, "192.0.2.10:80-90/tcp", "192.0.2.10:*/tcp");
    let endpoints = [
        endpoint(all, 1, Active, 1),
        endpoint(some, 1, Active, 1),
        endpoint(one, 1, Active, 1),
        endpoint("192.0.2.10:80/udp", 1, Active, 1),
    ];
    for (port, service) in [(80, one), (81, some), (91, all), (0, all)] {
        let own = place(&format!("192.0.2.10:{port}"), "10.0.0.1:80");
        let plan = run(&known(&[(own, GOOD)]), PANIC, &endpoints);
        let services: Vec<_> = plan.changes.iter().map(|change| change.service).collect();
        assert_eq!(services, [service.parse().unwrap()]);
    }
    // A service without endpoints hides those that it is taken from.
    let services = [one.parse().unwrap(), all.parse().unwrap()];
    let plan = plan(
        &known(&[(web(1), GOOD)]),
        PANIC,
        &services,
        &seats(&endpoints[..1]),
    );
    assert!(plan.changes.is_empty() && plan.effects.is_empty());
    // With NAT, the port has to be that of the host.
    let mut nat = endpoint(one, 1, Active, 1);
    nat.host_port = Some(8080);
    let rows = |port: u16| known(&[(place("192.0.2.10:80", &format!("10.0.0.1:{port}")), GOOD)]);
    assert_eq!(run(&rows(80), PANIC, &[nat.clone()]).changes.len(), 0);
    let plan = run(&rows(8080), PANIC, &[nat]);
    assert_eq!(plan.changes[0].host, host(1));
}

/// Of two servers at one address either keeps a row from being in force.
#[test]
fn what_is_refused_concerns_its_own_rows() {
    let endpoints: Vec<_> = (1..=3).map(|last| endpoint(WEB, last, Active, 7)).collect();
    let asks = (Health::Healthy, Directive::Draining);
    let all = known(&[(web(1), asks), (web(2), GOOD), (web(3), asks)]);
    let mut seats = seats(&endpoints);
    seats.push(seats[2]);
    let plan = plan(&all, PANIC, &[WEB.parse().unwrap()], &seats);
    let [heavy, one, three, four] = plan.changes.as_slice() else {
        panic!("{:?}", plan.changes);
    };
    assert_eq!((heavy.number, heavy.change.state), (1, None));
    assert_eq!((one.number, three.number, four.number), (0, 2, 3));
    assert_eq!(plan.refused([one, heavy]), [web(1)].into());
    assert_eq!(plan.refused([three]), [web(3)].into());
    assert_eq!(plan.refused([four]), [web(3)].into());
    assert_eq!(plan.refused([]), [].into());
}
