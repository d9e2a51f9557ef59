// SPDX-License-Identifier: MIT OR Apache-2.0

//! Requests to the forwarder, byte by byte.

use super::*;

#[test]
fn service_new_bytes() {
    let key: ServiceKey = "192.0.2.10:80/tcp".parse().unwrap();
    let mut new = NewService::new(ServiceMode::L4);
    let l4 = service_new(&key, &new);
    let bytes = l4.finish(0x23, 5).unwrap();
    #[rustfmt::skip]
    assert_eq!(bytes, [
        52, 0, 0, 0, 0x23, 0, 5, 0, 5, 0, 0, 0, 0, 0, 0, 0,
        1, 1, 0, 0,
        8, 0, 1, 0, 192, 0, 2, 10,
        6, 0, 2, 0, 0, 80, 0, 0,
        8, 0, 3, 0, 6, 0, 0, 0,
        8, 0, 4, 0, 2, 0, 0, 0,
    ]);
    new.picking = Picking {
        scheduler: Some(Scheduler::Mh),
        affinity_timeout: Some(300),
        affinity_prefix: Some(24),
        slow_start: Some(60),
        idle_timeout: Some(3600),
        fin_timeout: Some(30),
        syn_timeout: Some(10),
        miss_timeout: Some(500),
        one_packet: Some(true),
    };
    let bytes = service_new(&key, &new).finish(0x23, 5).unwrap();
    #[rustfmt::skip]
    assert_eq!(bytes[52..], [
        8, 0, 10, 0, 5, 0, 0, 0,
        8, 0, 11, 0, 44, 1, 0, 0,
        8, 0, 12, 0, 24, 0, 0, 0,
        8, 0, 13, 0, 60, 0, 0, 0,
        8, 0, 14, 0, 16, 14, 0, 0,
        8, 0, 15, 0, 30, 0, 0, 0,
        8, 0, 16, 0, 10, 0, 0, 0,
        8, 0, 17, 0, 244, 1, 0, 0,
        8, 0, 19, 0, 1, 0, 0, 0,
    ]);
    let several: ServiceKey = "192.0.2.10:8000-8999/tcp".parse().unwrap();
    let bytes = service_request(cmd::SERVICE_DEL, &several)
        .finish(0x23, 5)
        .unwrap();
    #[rustfmt::skip]
    assert_eq!(bytes[28..], [
        6, 0, 2, 0, 0x1f, 0x40, 0, 0,
        8, 0, 3, 0, 6, 0, 0, 0,
        6, 0, 18, 0, 0x23, 0x27, 0, 0,
    ]);
    let bytes = allotment_request(cmd::ALLOTMENT_DEL, &several)
        .finish(0x23, 5)
        .unwrap();
    assert_eq!(bytes[44..], [6, 0, 10, 0, 0x23, 0x27, 0, 0]);
    let new = NewService {
        classifier: Some(8080),
        ..NewService::new(ServiceMode::Peek)
    };
    let bytes = service_new(&key, &new).finish(0x23, 5).unwrap();
    assert_eq!(bytes[52..], [6, 0, 9, 0, 0x1f, 0x90, 0, 0]);
}

#[test]
fn endpoint_new_bytes() {
    let key: ServiceKey = "[2001:db8::1]:53/udp".parse().unwrap();
    let new = NewEndpoint {
        host: [10, 0, 2, 2].into(),
        forward: None,
        port: None,
        tun_port: None,
        tun_csum: None,
        source: Some([10, 0, 1, 1].into()),
        change: EndpointChange {
            weight: Some(3),
            ..EndpointChange::default()
        },
    };
    let bytes = endpoint_new(&key, &new).finish(0x23, 1).unwrap();
    #[rustfmt::skip]
    assert_eq!(bytes[16..], [
        4, 1, 0, 0,
        20, 0, 1, 0, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
        6, 0, 2, 0, 0, 53, 0, 0,
        8, 0, 3, 0, 17, 0, 0, 0,
        8, 0, 4, 0, 10, 0, 2, 2,
        8, 0, 5, 0, 10, 0, 1, 1,
        8, 0, 6, 0, 3, 0, 0, 0,
    ]);
    let plain = NewEndpoint {
        source: None,
        change: EndpointChange::default(),
        ..new
    };
    let short = endpoint_new(&key, &plain).finish(0x23, 1).unwrap();
    assert_eq!(short[20..], bytes[20..bytes.len() - 16]);
    let draining = NewEndpoint {
        change: EndpointChange {
            weight: None,
            state: Some(EndpointState::Draining),
            max_routes: Some(1000),
            resume_routes: Some(750),
            backup: Some(true),
        },
        ..plain
    };
    let long = endpoint_new(&key, &draining).finish(0x23, 1).unwrap();
    #[rustfmt::skip]
    assert_eq!(long[short.len()..], [
        8, 0, 12, 0, 2, 0, 0, 0,
        8, 0, 15, 0, 0xe8, 3, 0, 0,
        8, 0, 19, 0, 0xee, 2, 0, 0,
        8, 0, 16, 0, 1, 0, 0, 0,
    ]);
    let nat = NewEndpoint {
        forward: Some(Forward::Nat),
        port: Some(8080),
        ..plain
    };
    let long = endpoint_new(&key, &nat).finish(0x23, 1).unwrap();
    #[rustfmt::skip]
    assert_eq!(long[short.len()..], [
        6, 0, 14, 0, 0x1f, 0x90, 0, 0,
        8, 0, 13, 0, 5, 0, 0, 0,
    ]);
    let gue = NewEndpoint {
        forward: Some(Forward::Gue),
        tun_port: Some(6080),
        tun_csum: Some(true),
        ..plain
    };
    let long = endpoint_new(&key, &gue).finish(0x23, 1).unwrap();
    #[rustfmt::skip]
    assert_eq!(long[short.len()..], [
        8, 0, 13, 0, 7, 0, 0, 0,
        6, 0, 21, 0, 0x17, 0xc0, 0, 0,
        8, 0, 22, 0, 1, 0, 0, 0,
    ]);
}

#[test]
fn route_get_bytes() {
    let key = ConnectionKey {
        proto: crate::Proto::TCP,
        client: "198.51.100.7:40000".parse().unwrap(),
        vip: "192.0.2.10:80".parse().unwrap(),
    };
    let bytes = route_request(cmd::ROUTE_GET, &key).finish(0x23, 1).unwrap();
    #[rustfmt::skip]
    assert_eq!(bytes[16..], [
        10, 1, 0, 0,
        8, 0, 1, 0, 6, 0, 0, 0,
        8, 0, 2, 0, 198, 51, 100, 7,
        6, 0, 3, 0, 0x9c, 0x40, 0, 0,
        8, 0, 4, 0, 192, 0, 2, 10,
        6, 0, 5, 0, 0, 80, 0, 0,
    ]);
}
