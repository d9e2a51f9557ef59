// SPDX-License-Identifier: MIT OR Apache-2.0

//! The configuration file.

use super::plans::WEB;
use crate::health::config::Config;
use nlb_daemon::config::Source;
use std::os::unix::fs::PermissionsExt;

#[test]
fn configurations() {
    let directory = std::env::temp_dir().join(format!("nlbd-health-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let secret = directory.join("health.key");
    std::fs::write(&secret, "0123456789abcdef\n").unwrap();
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
    let parse = |text: &str| Config::parse(&Source::new("f", text), &directory.join("f"));
    let good = include_str!("../../../health.toml");
    let config = parse(good).unwrap();
    assert_eq!(config.listen, None);
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
        (
            "lbu = 1\nmetrics = \"here\"",
            "f:8: metrics is \"here\"; write an address and port",
        ),
        (
            "lbu = 1\nforwarder = false",
            "f:8: forwarder is false, and there is no",
        ),
    ] {
        let Err(mistake) = parse(&good.replacen("lbu = 1", new, 1)) else {
            panic!("{new:?} is taken");
        };
        assert!(mistake.to_string().contains(expected), "{new:?}: {mistake}");
    }
    let with = |socket: &str, backend: &str, vip: &str, more: &str| {
        let entry = format!("socket = {socket:?}\nbackend = {backend:?}\nvip = {vip:?}\n{more}");
        parse(&good.replacen("lbu = 1", &format!("lbu = 1\n[[haproxy]]\n{entry}"), 1))
    };
    let (socket, vip) = ("/run/haproxy/admin.sock", "192.0.2.10:80/tcp");
    assert_eq!(with(socket, "web", vip, "").unwrap().balancers.len(), 2);
    assert_eq!(
        with("[::1]:99", "web", "192.0.2.10:80", "")
            .unwrap()
            .balancers
            .len(),
        2
    );
    let same = format!("[[haproxy]]\nsocket = \"{socket}\"\nbackend = \"web\"\nvip = \"{vip}\"");
    let long = format!("/{}", "x".repeat(107));
    for (socket, backend, vip, more, expected) in [
        (
            "admin.sock",
            "web",
            vip,
            "",
            "f:9: socket is \"admin.sock\"; write",
        ),
        (
            "10.0.0.1:99",
            "web",
            vip,
            "",
            "f:9: socket is \"10.0.0.1:99\"; write",
        ),
        ("127.0.0.1:0", "web", vip, "", "f:9: socket is"),
        (&long, "web", vip, "", "f:9: socket is"),
        (socket, "web; shutdown", vip, "", "f:10: backend is no name"),
        (socket, "", vip, "", "f:10: backend is no name"),
        (socket, "web", "192.0.2.10", "", "f:11: vip: "),
        (
            socket,
            "web",
            "192.0.2.10:80/udp",
            "",
            "f:11: vip is 192.0.2.10:80/udp; name one",
        ),
        (socket, "web", "192.0.2.10:*/tcp", "", "f:11: vip is"),
        (socket, "web", "192.0.2.10:80-90", "", "f:11: vip is"),
        (
            socket,
            "web",
            vip,
            "timeout_ms = 1",
            "f:12: timeout_ms is 1; choose",
        ),
        (
            socket,
            "web",
            vip,
            "weight = true",
            "f:12: unknown field `weight`",
        ),
        (
            socket,
            "web",
            vip,
            &same,
            "f:14: backend \"web\" is there twice",
        ),
    ] {
        let Err(mistake) = with(socket, backend, vip, more) else {
            panic!("{socket:?} {backend:?} {vip:?} {more:?} is taken");
        };
        assert!(mistake.to_string().contains(expected), "{mistake}");
    }
    let web = "[[allotment]]\nservice = \"192.0.2.10:80/tcp\"\n";
    let tokens = format!("{web}scheme = \"tokens\"\n");
    let lines = good.lines().count();
    let behind = |more: &str| parse(&format!("{good}{more}"));
    let other =
        format!("[[haproxy]]\nsocket = \"{socket}\"\nbackend = \"web\"\nvip = \"{vip}\"\n{tokens}");
    let alone = good.replacen("lbu = 1", "lbu = 1\nforwarder = false", 1);
    let mistake = parse(&format!("{alone}{other}")).err().unwrap();
    let expected = format!("f:{}: forwarder is false, and allotments", lines + 7);
    assert!(mistake.to_string().starts_with(&expected), "{mistake}");
    assert!(behind(&other).is_ok());
    let config = behind(&format!("{tokens}age_ms = 2000\n")).unwrap();
    let order = config.allotments[&WEB.parse().unwrap()];
    assert_eq!((order.total, order.age.as_millis()), (1000, 2000));
    let config = behind(&format!("{web}scheme = \"percentages\"\n")).unwrap();
    assert_eq!(config.allotments[&WEB.parse().unwrap()].total, 100);
    for (more, line, expected) in [
        (
            tokens.replace("192.0.2.10:80/tcp", "web"),
            2,
            "is not a service",
        ),
        (
            format!("{web}scheme = \"coins\""),
            3,
            "is none of tokens, percentages",
        ),
        (
            format!("{web}scheme = \"percentages\"\ntokens = 3"),
            4,
            "percentages have no",
        ),
        (format!("{tokens}tokens = 0"), 4, "tokens is 0; choose"),
        (format!("{tokens}age_ms = 999"), 4, "age_ms is 999; choose"),
        (
            format!("{tokens}{tokens}"),
            5,
            "192.0.2.10:80/tcp is allotted twice",
        ),
    ] {
        let Err(mistake) = behind(&more) else {
            panic!("{more:?} is taken");
        };
        let mistake = mistake.to_string();
        let place = format!("f:{}: ", lines + line);
        assert!(
            mistake.starts_with(&place) && mistake.contains(expected),
            "{mistake}"
        );
    }
    std::fs::remove_dir_all(&directory).unwrap();
}
