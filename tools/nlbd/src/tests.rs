// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests: pure parts here, connections on the loopback device in [`connections`].

mod connections;

use crate::{
    config::{
        Config,
        Failed, //
    },
    http::{
        parse,
        Head,
        Request, //
    },
    pool::Pool, //
};
use nlb_daemon::config::Source;
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
        pool.turn().len() == 2
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

fn addr(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

proptest! {
    #[test]
    fn turns_follow_the_weights(weights in proptest::collection::vec(0..20u32, 1..6)) {
        prop_assume!(weights.iter().any(|weight| *weight > 0));
        let hosts = weights.iter().zip(0..).map(|(weight, last)| (addr(last), *weight)).collect();
        let pool = Pool::new(hosts).unwrap();
        let total: u32 = weights.iter().sum();
        let mut turns = BTreeMap::new();
        for _ in 0..total * 3 {
            let order = pool.turn();
            let usable = weights.iter().filter(|weight| **weight > 0).count();
            prop_assert_eq!(order.len(), usable);
            *turns.entry(order[0]).or_insert(0) += 1;
        }
        for (weight, last) in weights.iter().zip(0..) {
            prop_assert_eq!(turns.get(&addr(last)).copied().unwrap_or(0), weight * 3);
        }
    }
}
