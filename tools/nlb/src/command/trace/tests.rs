// SPDX-License-Identifier: MIT OR Apache-2.0

use nlb_netlink::Proto;

use super::*;

fn trace(outcome: TraceOutcome) -> Trace {
    Trace {
        proto: Proto::TCP,
        client_addr: [198, 51, 100, 7].into(),
        client_port: 40000,
        vip_addr: [192, 0, 2, 10].into(),
        vip_port: 8005,
        outcome: Named::Known(outcome),
        service_port: Some(8000),
        service_port_last: Some(8999),
        rule: None,
        route_state: None,
        affinity_host: None,
        affinity_host_port: None,
        affinity_expires: None,
        allotment_state: None,
        choice: None,
        host_addr: None,
        host_port: None,
        forward: None,
        source_addr: None,
        ifindex: None,
        mtu: None,
        slow: None,
        answered_client_addr: None,
        answered_client_port: None,
        answered_vip_addr: None,
        answered_vip_port: None,
    }
}

fn host(last: u8) -> Endpoint {
    Endpoint {
        vip_addr: [192, 0, 2, 10].into(),
        vip_port: 8000,
        proto: Proto::TCP,
        host_addr: [10, 0, 2, last].into(),
        vip_port_last: Some(8999),
        source_addr: None,
        forward: None,
        host_port: None,
        tun_port: None,
        tun_csum: None,
        weight: Some(1),
        state: Some(Named::Known(EndpointState::Active)),
        routes: Some(0),
        active_routes: Some(5),
        max_routes: Some(0),
        resume_routes: Some(0),
        full: Some(false),
        backup: Some(false),
        slow_start_step: None,
        connections: None,
        packets: None,
        bytes: None,
    }
}

#[test]
fn why_an_endpoint_is_picked_or_not() {
    let of = |change: fn(&mut Endpoint), share, choice| {
        let mut endpoint = host(2);
        change(&mut endpoint);
        standing(&endpoint, false, share, choice)
    };
    let by = |choice| Some(Named::Known(choice));
    let (scheduler, allotment) = (by(TraceChoice::Scheduler), by(TraceChoice::Allotment));
    assert_eq!(of(|_| (), None, scheduler), Standing::Other);
    assert_eq!(standing(&host(2), true, None, scheduler), Standing::Picked);
    let inactive = |own: &mut Endpoint| own.state = Some(Named::Known(EndpointState::Inactive));
    assert_eq!(of(inactive, None, scheduler), Standing::Inactive);
    let draining = |own: &mut Endpoint| own.state = Some(Named::Known(EndpointState::Draining));
    assert_eq!(of(draining, None, scheduler), Standing::Draining);
    assert_eq!(of(|own| own.full = Some(true), None, None), Standing::Full);
    assert_eq!(
        of(|own| own.weight = Some(0), None, scheduler),
        Standing::NoWeight
    );
    assert_eq!(
        of(|own| own.weight = Some(0), Some(1), allotment),
        Standing::Other
    );
    assert_eq!(
        of(|own| own.backup = Some(true), None, scheduler),
        Standing::Backup
    );
    let backup = by(TraceChoice::Backup);
    assert_eq!(
        of(|own| own.backup = Some(true), None, backup),
        Standing::Other
    );
    assert_eq!(of(|_| (), Some(0), allotment), Standing::NoShare);
    assert_eq!(of(|_| (), Some(0), scheduler), Standing::Other);
}

#[test]
fn of_several_ports_one_is_it() {
    let mut trace = trace(TraceOutcome::NewRoute);
    trace.host_addr = Some([10, 0, 2, 2].into());
    let own = |port| {
        let mut endpoint = host(2);
        endpoint.host_port = port;
        endpoint
    };
    for port in [None, Some(8080), Some(8081)] {
        trace.host_port = port;
        let found = [None, Some(8080), Some(8081)].map(|other| is_it(&trace, &own(other)));
        assert_eq!(
            found,
            [None, Some(8080), Some(8081)].map(|other| other == port)
        );
    }
    assert!(!is_it(&trace, &host(3)));
}

#[test]
fn lines_of_a_new_connection() {
    let mut slow = host(3);
    slow.slow_start_step = Some(4);
    let candidate = |endpoint, standing| Candidate {
        endpoint,
        share: None,
        standing,
    };
    let traced = Traced {
        trace: Trace {
            choice: Some(Named::Known(TraceChoice::Scheduler)),
            host_addr: Some([10, 0, 2, 2].into()),
            ifindex: Some(7),
            mtu: Some(1500),
            slow: Some(Named::Known(TraceSlow::Neighbour)),
            route_state: Some(Named::Unknown(9)),
            ..trace(TraceOutcome::NewRoute)
        },
        fast_path: Some(false),
        device: Some("eth0".to_owned()),
        of: None,
        by: None,
        endpoints: vec![
            candidate(host(2), Standing::Picked),
            candidate(slow, Standing::Other),
        ],
    };
    let text: Vec<_> = lines(&traced)
        .iter()
        .map(|(what, text)| format!("{what}: {text}"))
        .collect();
    assert_eq!(
        text,
        [
            "packet: 198.51.100.7:40000 > 192.0.2.10:8005/tcp",
            "service: 192.0.2.10:8000-8999/tcp",
            "route: state unknown-9, gives way to a new connection",
            "endpoint: 10.0.2.2 weight 1 active 5: picked by scheduler",
            "endpoint: 10.0.2.3 weight 1 (4/16 by slow start) active 5: another time",
            "way: - to 10.0.2.2 dev eth0 mtu 1500",
            "fast path: no: the link-layer address of the next hop is not known",
            "outcome: makes a route",
        ]
    );
    let json = serde_json::to_value(&traced).unwrap();
    assert_eq!(json["outcome"], "new-route");
    assert_eq!(json["endpoints"][1]["standing"], "other");
    assert_eq!(json["endpoints"][1]["host_addr"], "10.0.2.3");
}

#[test]
fn a_rule_and_no_service() {
    let mut traced = Traced {
        trace: Trace {
            rule: Some(10),
            ..trace(TraceOutcome::RejectRule)
        },
        fast_path: None,
        device: None,
        of: None,
        by: None,
        endpoints: Vec::new(),
    };
    let last = |traced: &Traced| lines(traced).pop().unwrap().1;
    assert_eq!(last(&traced), "refused by the rule (reject-rule)");
    assert!(lines(&traced).contains(&("rule", "priority 10".to_owned())));
    traced.trace = trace(TraceOutcome::NoService);
    traced.trace.service_port = None;
    assert!(lines(&traced).contains(&("service", "none".to_owned())));
}

#[test]
fn lines_of_a_reply() {
    let mut traced = Traced {
        trace: Trace {
            client_addr: [10, 0, 2, 2].into(),
            client_port: 8080,
            vip_addr: [10, 0, 2, 1].into(),
            vip_port: 1024,
            route_state: Some(Named::Unknown(9)),
            host_addr: Some([10, 0, 2, 2].into()),
            source_addr: Some([10, 0, 2, 1].into()),
            ifindex: Some(3),
            mtu: Some(1500),
            slow: Some(Named::Known(TraceSlow::Reply)),
            answered_client_addr: Some([198, 51, 100, 7].into()),
            answered_client_port: Some(40000),
            answered_vip_addr: Some([192, 0, 2, 10].into()),
            answered_vip_port: Some(8005),
            ..trace(TraceOutcome::Reply)
        },
        fast_path: Some(false),
        device: None,
        of: None,
        by: None,
        endpoints: Vec::new(),
    };
    let text: Vec<_> = lines(&traced)
        .iter()
        .map(|(what, text)| format!("{what}: {text}"))
        .collect();
    assert_eq!(
        text,
        [
            "packet: 10.0.2.2:8080 > 10.0.2.1:1024/tcp",
            "service: 192.0.2.10:8000-8999/tcp",
            "answers: 198.51.100.7:40000 > 192.0.2.10:8005/tcp",
            "route: state unknown-9",
            "way: - from 10.0.2.2 back to 198.51.100.7 dev 3 mtu 1500",
            "fast path: no: not for replies",
            "outcome: translated back, goes on as 192.0.2.10:8005 > 198.51.100.7:40000 \
             (reply-packets)",
        ]
    );
    traced.trace.outcome = Named::Known(TraceOutcome::NoWay);
    let last = lines(&traced).pop().unwrap().1;
    assert_eq!(
        last,
        "dropped, no route leads to the client (drop-no-route)"
    );
    assert!(lines(&traced).contains(&("route", "state unknown-9".to_owned())));
}
