// SPDX-License-Identifier: MIT OR Apache-2.0

//! Multicast groups in which hosts are heard.

use crate::health::{
    config::Config,
    metrics::page,
    tests::Pair,
    view, //
};
use nlb_daemon::{
    config::{Mistake, Source},
    udp::{Membership, Traffic},
};
use std::{os::unix::fs::PermissionsExt, time::UNIX_EPOCH};

fn parse(top: &str) -> Result<Config, Mistake> {
    let directory = std::env::temp_dir().join(format!("nlbd-multicast-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let secret = directory.join("health.key");
    std::fs::write(&secret, "0123456789abcdef\n").unwrap();
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
    let text = format!("lbu = 1\n{top}\n[[key]]\nid = 1\nsecret_file = \"health.key\"\n");
    let result = Config::parse(&Source::new("f", &text), &directory.join("f"));
    std::fs::remove_dir_all(&directory).unwrap();
    result
}

#[test]
fn groups_and_interfaces() {
    let group = |to: &str, at: &str| format!("{{ group = \"{to}\", interface = \"{at}\" }}");
    let four = group("239.192.0.71:4771", "eth0");
    let (other, six) = (
        group("239.192.0.71:4771", "eth1"),
        group("[ff15::71]:4771", "eth0"),
    );
    let config = parse(&format!("multicast = [{four}, {other}, {six}]")).unwrap();
    assert_eq!(config.multicast.len(), 3);
    assert!(parse("").unwrap().multicast.is_empty());
    let listen = "listen = [\"10.0.2.1:4771\"]";
    assert_eq!(
        parse(&format!("{listen}\nmulticast = [{four}]"))
            .unwrap()
            .multicast
            .len(),
        1
    );
    let many: Vec<_> = (0..17)
        .map(|last| group("239.1.1.1:1", &format!("e{last}")))
        .collect();
    for (top, expected) in [
        (
            format!("multicast = [{four}, {four}]"),
            "f:2: multicast group 239.192.0.71:4771 at eth0 is there twice; take",
        ),
        (
            format!("multicast = [{}]", many.join(", ")),
            "f:2: there are more than 16 multicast groups; take",
        ),
        (
            format!("{listen}\nmulticast = [{six}]"),
            "f:3: group is [ff15::71]:4771, and listen has no address of that family",
        ),
        (
            format!("multicast = [{}]", group("10.0.2.1:4771", "eth0")),
            "f:2: group is 10.0.2.1:4771; choose one of",
        ),
        (
            format!("multicast = [{}]", group("239.1.1.1:1", "")),
            "f:2: interface is no name of an interface; write",
        ),
        (
            "multicast = [{ group = \"239.1.1.1:1\", interface = \"a\", hops = 1 }]".to_owned(),
            "f:2: unknown field `hops`",
        ),
    ] {
        let mistake = parse(&top).err().expect(&top).to_string();
        assert!(mistake.starts_with(expected), "{mistake}");
    }
}

/// What is not heard is said where an operator looks.
#[test]
fn a_group_that_is_not_heard_is_told() {
    let mut pair = Pair::new();
    let of = |last: u8| Membership {
        group: ([239, 1, 1, last], 4771).into(),
        interface: "eth0".to_owned(),
    };
    let show = |pair: &mut Pair| {
        let (answer, _) = view::answer(&mut pair.handler, 9, "{\"command\":\"show\"}");
        answer
    };
    pair.handler.memberships = vec![(of(1), None)];
    assert!(show(&mut pair)["trouble"].is_null());
    let why = "interface eth0: No such device";
    pair.handler.memberships.push((of(2), Some(why.to_owned())));
    let trouble =
        "multicast group 239.1.1.2:4771 at eth0 is not heard: interface eth0: No such device";
    assert_eq!(show(&mut pair)["trouble"], trouble);
    let page = page(&pair.handler, &Traffic::default(), UNIX_EPOCH);
    for (last, value) in [(1, 1), (2, 0)] {
        let labels = format!("group=\"239.1.1.{last}:4771\",interface=\"eth0\"");
        let line = format!("nlbd_health_multicast_heard{{{labels}}} {value}\n");
        assert!(page.contains(&line), "{page}");
    }
}
