// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests: pure parts here, connections on the loopback device in [`connections`].

mod connections;

use crate::{
    config::{
        Config,
        Failed, //
    },
    endpoints::Services,
    http::{
        parse,
        Head,
        Request, //
    },
    pool::{
        Pool,
        Weights, //
    }, //
};
use nlb_daemon::config::Source;
use nlb_netlink::{
    Endpoint,
    EndpointState,
    Named,
    ServiceKey, //
};
use proptest::prelude::*;
use std::{
    collections::BTreeMap,
    net::IpAddr, //
};

fn request(method: &str, path: &str, host: Option<&str>) -> Request {
    Request {
        method: method.into(),
        path: path.into(),
        host: host.map(Into::into),
    }
}

#[test]
fn heads() {
    let whole = [
        (
            "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "GET",
            "/",
            Some("a.example"),
        ),
        ("POST /x?y=1 HTTP/1.0\r\n\r\nbody", "POST", "/x?y=1", None),
        (
            "GET /x HTTP/1.1\r\nhOST:  A.Example:8080 \r\n\r\n",
            "GET",
            "/x",
            Some("a.example"),
        ),
        (
            "GET http://u@B.example:81/p?q HTTP/1.1\r\nHost: ignored\r\n\r\n",
            "GET",
            "/p?q",
            Some("b.example"),
        ),
        (
            "GET http://b.example HTTP/1.1\r\n\r\n",
            "GET",
            "/",
            Some("b.example"),
        ),
        (
            "GET / HTTP/1.1\r\nHost: [2001:DB8::1]:80\r\n\r\n",
            "GET",
            "/",
            Some("[2001:db8::1]"),
        ),
        (
            "GET / HTTP/1.1\r\nHost: a.example.\r\n\r\n",
            "GET",
            "/",
            Some("a.example"),
        ),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", "GET", "/", None),
        ("OPTIONS * HTTP/1.1\r\n\r\n", "OPTIONS", "*", None),
    ];
    for (text, method, path, host) in whole {
        assert_eq!(
            parse(text.as_bytes()),
            Head::Request(request(method, path, host)),
            "{text:?}"
        );
        // Every beginning of a good head is the beginning of one.
        let end = text.find("\r\n\r\n").unwrap() + 4;
        for at in 0..end {
            assert_eq!(
                parse(&text.as_bytes()[..at]),
                Head::Partial,
                "{text:?} up to {at}"
            );
        }
    }
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200));
    let other: [&[u8]; 7] = [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\n: none\r\n\r\n",
        b"\0",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        many.as_bytes(),
    ];
    for bytes in other {
        assert_eq!(parse(bytes), Head::Other, "{bytes:?}");
    }
}

proptest! {
    #[test]
    fn no_head_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        parse(&bytes);
        let mut line = b"GET /".to_vec();
        line.extend_from_slice(&bytes);
        parse(&line);
    }
}

const GOOD: &str = r#"
listen = ["127.0.0.1:80"]
default = "app"
[pool.app]
hosts = ["10.0.0.1"]
[pool.img]
hosts = [{ addr = "10.0.0.2", weight = 2 }, { addr = "10.0.0.3" }]
[[rule]]
host = "*.img.example"
pool = "img"
[[rule]]
path = "/images/"
method = "GET"
pool = "img"
"#;

#[test]
fn rules_in_order() {
    let config = Config::parse(&Source::new("f", GOOD)).unwrap();
    let place = |method, path, host| {
        let pool = config.rules.place(&request(method, path, host)).unwrap();
        pool.turn(None).len() == 2
    };
    assert!(place("GET", "/", Some("a.img.example")));
    assert!(place("GET", "/images/a", None));
    assert!(!place("GET", "/", Some("img.example")));
    assert!(!place("GET", "/", Some("aimg.example")));
    assert!(!place("POST", "/images/a", None));
    assert!(!place("GET", "/image", Some("b.example")));
}

#[test]
fn defaults() {
    let config = Config::parse(&Source::new("f", GOOD)).unwrap();
    assert_eq!(config.peek_bytes, 16384);
    assert_eq!(config.peek_timeout.as_millis(), 5000);
    assert_eq!(config.failed, Failed::Answer);
    assert!(config.rules.unplaced.is_none());
}

#[test]
fn the_example_is_right() {
    let config = Config::parse(&Source::new(
        "classify.toml",
        include_str!("../classify.toml"),
    ))
    .unwrap();
    assert_eq!(config.rules.rules.len(), 2);
}

#[test]
fn mistakes_say_where_and_what_to_do() {
    let cases = [
        (
            "listen = [\"127.0.0.1:80\"]",
            "listen = []",
            "f:2: listen is empty; name at least one",
        ),
        (
            "listen = [\"127.0.0.1:80\"]",
            "listen = [\"here\"]",
            "f:2: ",
        ),
        (
            "listen = [\"127.0.0.1:80\"]\n",
            "",
            "missing field `listen`",
        ),
        (
            "default = \"app\"",
            "default = \"none\"",
            "f:3: there is no pool \"none\"; add a section [pool.none]",
        ),
        (
            "default = \"app\"",
            "default = \"app\"\npeek_bytes = 3",
            "f:4: peek_bytes is 3; choose a number from 16 to 65536",
        ),
        (
            "default = \"app\"",
            "default = \"app\"\nworkers = 0",
            "f:4: workers is 0",
        ),
        (
            "default = \"app\"",
            "default = \"app\"\nwrokers = 3",
            "f:4: unknown field `wrokers`",
        ),
        (
            "default = \"app\"",
            "default = \"app\"\nfailed = \"404\"",
            "f:4: unknown variant `404`",
        ),
        (
            "hosts = [\"10.0.0.1\"]",
            "hosts = []",
            "f:5: pool \"app\": it has no hosts",
        ),
        (
            "hosts = [\"10.0.0.1\"]",
            "hosts = [\"10.0.0.1\", \"10.0.0.1\"]",
            "f:5: pool \"app\": host 10.0.0.1 is there twice",
        ),
        (
            "hosts = [\"10.0.0.1\"]",
            "hosts = [\"a\"]",
            "f:5: expected an address",
        ),
        (
            "hosts = [\"10.0.0.1\"]",
            "hosts = [{ addr = \"10.0.0.1\", weight = 0 }]",
            "f:5: pool \"app\": all weights are 0",
        ),
        (
            "host = \"*.img.example\"",
            "host = \"a b\"",
            "f:9: host \"a b\" is no host name",
        ),
        (
            "host = \"*.img.example\"",
            "host = \"a:80\"",
            "f:9: host \"a:80\" is no host name",
        ),
        (
            "host = \"*.img.example\"\n",
            "",
            "f:9: a rule needs a host, a path or a method",
        ),
        (
            "path = \"/images/\"",
            "path = \"images\"",
            "f:12: path \"images\" has to begin with \"/\"",
        ),
        ("[pool.app]", "[pool.app", "f:4: "),
        (
            "[pool.img]",
            "[pool.close]",
            "f:7: a pool can not be called \"close\"",
        ),
    ];
    for (old, new, expected) in cases {
        let text = GOOD.replacen(old, new, 1);
        assert_ne!(text, GOOD, "{old}");
        let mistake = Config::parse(&Source::new("f", &text))
            .unwrap_err()
            .to_string();
        assert!(mistake.contains(expected), "{new:?}: {mistake}");
    }
}

/// An endpoint as the kernel shows it.
pub(crate) fn endpoint(service: &str, last: u8, state: EndpointState, weight: u32) -> Endpoint {
    let key: ServiceKey = service.parse().unwrap();
    let IpAddr::V4(vip) = key.vip else {
        panic!("an IPv4 VIP is expected");
    };
    let mut bytes = vec![8, 0, 1, 0];
    bytes.extend(vip.octets());
    bytes.extend([6, 0, 2, 0]);
    bytes.extend(key.ports.first.to_be_bytes());
    bytes.extend([
        0,
        0,
        8,
        0,
        3,
        0,
        key.proto.0 as u8,
        0,
        0,
        0,
        8,
        0,
        4,
        0,
        10,
        0,
        0,
        last,
    ]);
    let mut endpoint = Endpoint::decode(&bytes).unwrap();
    endpoint.vip_port_last = (key.ports.last != key.ports.first).then_some(key.ports.last);
    endpoint.state = Some(Named::Known(state));
    endpoint.weight = Some(weight);
    assert_eq!(endpoint.service(), key);
    endpoint
}

fn addr(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

proptest! {
    #[test]
    fn turns_follow_the_weights(weights in proptest::collection::vec(0..20u32, 1..6)) {
        prop_assume!(weights.iter().any(|weight| *weight > 0));
        let hosts = weights.iter().zip(0..).map(|(weight, last)| (addr(last), *weight)).collect();
        let pool = Pool::new(hosts, Weights::File).unwrap();
        let total: u32 = weights.iter().sum();
        let mut turns = BTreeMap::new();
        for _ in 0..total * 3 {
            // What endpoints can take is nothing to it.
            let order = pool.turn(Some(&[(addr(0), 99)].into()));
            let usable = weights.iter().filter(|weight| **weight > 0).count();
            prop_assert_eq!(order.len(), usable);
            *turns.entry(order[0]).or_insert(0) += 1;
        }
        for (weight, last) in weights.iter().zip(0..) {
            prop_assert_eq!(turns.get(&addr(last)).copied().unwrap_or(0), weight * 3);
        }
    }

    #[test]
    fn turns_follow_endpoints(
        file in proptest::collection::vec(1..20u32, 4),
        before in proptest::collection::vec(0..100u32, 3),
        after in proptest::collection::vec(1..100u32, 3),
    ) {
        let hosts = file.iter().zip(0..).map(|(weight, last)| (addr(last), *weight)).collect();
        let pool = Pool::new(hosts, Weights::Endpoints).unwrap();
        let endpoints = |weights: &[u32]| weights.iter().zip(0..).map(|(w, n)| (addr(n), *w)).collect();
        for _ in 0..150 {
            let order = pool.turn(Some(&endpoints(&before)));
            // The fourth is no endpoint.
            let usable = before.iter().filter(|weight| **weight > 0).count() + 1;
            prop_assert_eq!(order.len(), usable);
        }
        // What was before is soon forgotten.
        let total = after.iter().sum::<u32>() + file[3];
        for _ in 0..total * 2 {
            pool.turn(Some(&endpoints(&after)));
        }
        let mut turns = BTreeMap::new();
        for _ in 0..total * 3 {
            *turns.entry(pool.turn(Some(&endpoints(&after)))[0]).or_insert(0_u32) += 1;
        }
        for (weight, last) in after.iter().chain(&file[3..]).zip(0..) {
            let got = turns.get(&addr(last)).copied().unwrap_or(0);
            prop_assert!(got.abs_diff(weight * 3) <= 2, "{got} of {weight} x 3");
        }
    }
}

#[test]
fn nobody_whose_turn_it_is() {
    let pool = Pool::new(vec![(addr(1), 1), (addr(2), 1)], Weights::Endpoints).unwrap();
    let none = [(addr(1), 0), (addr(2), 0)].into();
    assert!(pool.turn(Some(&none)).is_empty());
    assert_eq!(pool.turn(None).len(), 2);
}

#[test]
fn endpoints_of_a_connection() {
    let (active, draining) = (EndpointState::Active, EndpointState::Draining);
    let mut endpoints = [
        endpoint("192.0.2.10:80/tcp", 1, active, 7),
        endpoint("192.0.2.10:80/tcp", 2, draining, 9),
        endpoint("192.0.2.10:80/tcp", 3, active, 5),
        endpoint("192.0.2.10:*/tcp", 1, draining, 1),
        endpoint("192.0.2.10:*/tcp", 3, active, 5),
        endpoint("192.0.2.10:8000-8999/tcp", 1, active, 3),
        endpoint("192.0.2.10:81/udp", 1, active, 4),
    ];
    for backup in [2, 4] {
        endpoints[backup].backup = Some(true);
    }
    let services = Services::new(&endpoints);
    let of = |vip: &str| {
        let weights = services.of(vip.parse().unwrap())?;
        let all: BTreeMap<_, _> = weights
            .iter()
            .map(|(host, weight)| (*host, *weight))
            .collect();
        Some(all.into_iter().collect::<Vec<_>>())
    };
    let port = Some(vec![(addr(1), 7), (addr(2), 0), (addr(3), 0)]);
    let others = Some(vec![(addr(1), 0), (addr(3), 5)]);
    assert_eq!(of("192.0.2.10:80"), port);
    assert_eq!(of("192.0.2.10:8080"), Some(vec![(addr(1), 3)]));
    assert_eq!(of("192.0.2.10:81"), others);
    assert_eq!(of("192.0.2.11:80"), None);
}
