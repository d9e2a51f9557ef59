// SPDX-License-Identifier: MIT OR Apache-2.0

//! Multicast groups of the configuration file.

use super::{check, GOOD};

const LBUS: &str = "lbus = [\"10.0.2.1:4771\"]\n";
const FOUR: &str = "{ group = \"239.192.0.71:4771\", interface = \"eth0\" }";
const SIX: &str = "{ group = \"[ff15::71]:4771\", interface = \"eth1\", hops = 4 }";

/// With these groups, behind `lbus` on the line above.
fn with(lbus: &str, groups: &[&str]) -> String {
    assert!(GOOD.contains(LBUS));
    let groups = groups.join(", ");
    GOOD.replace(LBUS, &format!("{lbus}\nmulticast = [{groups}]\n"))
}

#[test]
fn groups_may_be_alone_or_beside_lbus() {
    let config = check(&with("", &[FOUR, SIX])).unwrap();
    assert!(config.agent.lbus.is_empty());
    let groups = ["239.192.0.71:4771", "[ff15::71]:4771"].map(|to| to.parse().unwrap());
    assert_eq!(config.agent.multicast, groups);
    let ways = config.multicast.iter();
    let ways = ways.map(|way| (way.to.group, way.to.interface.as_str(), way.hops));
    assert!(ways.eq([(groups[0], "eth0", 1), (groups[1], "eth1", 4)]));
    // Datagrams are sent from an address of each family.
    let bind = ["0.0.0.0:0", "[::]:0"].map(|at| at.parse().unwrap());
    assert_eq!(config.bind, bind);
    let config = check(&with(LBUS.trim(), &[SIX])).unwrap();
    assert_eq!(config.bind, bind);
    assert_eq!(config.receivers().count(), 2);
    let config = check(&with("lbus = []", &[FOUR])).unwrap();
    assert_eq!(config.bind, bind[..1]);
    let table = "[[multicast]]\ngroup = \"239.1.1.1:1\"\ninterface = \"eth0\"\n[[key]]";
    let text = GOOD.replacen("[[key]]", table, 1);
    assert_eq!(check(&text).unwrap().agent.multicast.len(), 1);
}

#[test]
fn mistakes_say_where_and_what_to_do() {
    let group = |to: &str, more: &str| format!("{{ group = \"{to}\", {more} }}");
    let many = (1..=17).map(|last| group(&format!("239.1.1.{last}:1"), "interface = \"a\""));
    let many: Vec<_> = many.collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let cases = [
        (vec![], "f: lbus names 1 to 64"),
        (
            vec!["{ group = \"239.1.1.1:1\" }"],
            "f:4: missing field `interface`",
        ),
        (
            vec!["{ interface = \"eth0\" }"],
            "f:4: missing field `group`",
        ),
        (
            vec![FOUR, FOUR],
            "f:4: group 239.192.0.71:4771 is there twice; choose",
        ),
        (many, "f:4: there are more than 16 multicast groups; take"),
    ];
    for (groups, expected) in cases {
        let mistake = check(&with("", &groups)).err().expect(expected).to_string();
        assert!(mistake.starts_with(expected), "{mistake}");
    }
    let eth0 = "interface = \"eth0\"";
    for (to, more, expected) in [
        (
            "10.0.2.1:4771",
            eth0,
            "f:4: group is 10.0.2.1:4771; choose one of",
        ),
        (
            "239.1.1.1:0",
            eth0,
            "f:4: group is 239.1.1.1:0; choose one of",
        ),
        (
            "[ff02::71]:1",
            eth0,
            "f:4: group is [ff02::71]:1; choose one of",
        ),
        (
            "239.1.1.1:1",
            "interface = \"\"",
            "f:4: interface is no name of",
        ),
        (
            "239.1.1.1:1",
            "interface = \"a b\"",
            "f:4: interface is no name of",
        ),
        (
            "239.1.1.1:1",
            "interface = \"../x\"",
            "f:4: interface is no name of",
        ),
        (
            "239.1.1.1:1",
            "interface = \"0123456789abcdef\"",
            "f:4: interface is no",
        ),
        (
            "239.1.1.1:1",
            "interface = \"a\", hops = 0",
            "f:4: hops is 0; choose",
        ),
        (
            "239.1.1.1:1",
            "interface = \"a\", hops = 256",
            "f:4: hops is 256; choose",
        ),
        (
            "239.1.1.1:1",
            "interface = \"a\", ttl = 1",
            "f:4: unknown field `ttl`",
        ),
    ] {
        let entry = group(to, more);
        let mistake = check(&with("", &[&entry])).err().expect(&entry).to_string();
        assert!(mistake.starts_with(expected), "{entry}: {mistake}");
    }
    let text = format!("bind = [\"10.0.2.2:4772\"]\n{}", with("", &[SIX]));
    let mistake = check(&text).err().expect("no address for the group");
    assert!(mistake
        .to_string()
        .contains("bind names one address for each"));
}
