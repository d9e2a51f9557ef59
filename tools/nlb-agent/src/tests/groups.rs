// SPDX-License-Identifier: MIT OR Apache-2.0

//! The group of the configuration file.

use super::{check, GOOD};
use std::time::Duration;

const GROUP: &str = r#"
[group]
id = 7
address = "10.0.2.2:4772"
members = ["10.0.2.2:4772", "10.0.2.3:4772"]
"#;

/// With `top` in front of the file and `old` replaced in the group.
fn with(top: &str, old: &str, new: &str) -> String {
    assert!(GROUP.contains(old));
    format!("{top}{GOOD}{}", GROUP.replace(old, new))
}

#[test]
fn a_group_binds_to_its_address() {
    let config = check(&with("", "", "")).unwrap();
    let group = config.agent.group.unwrap();
    assert_eq!((group.id, group.seeds.len()), (7, 2));
    assert_eq!(group.patience, Duration::from_secs(2));
    assert!(group.changes);
    let all = check(&with("", "id = 7", "id = 7\nchanges = false")).unwrap();
    assert!(!all.agent.group.unwrap().changes);
    assert_eq!(config.bind, ["10.0.2.2:4772".parse().unwrap()]);
    // Load balancing units are reached by any address of the other family.
    let six = with("", "", "").replace("10.0.2.1:4771", "[2001:db8::1]:4771");
    let config = check(&six).unwrap();
    let bind = ["10.0.2.2:4772", "[::]:0"].map(|to| to.parse().unwrap());
    assert_eq!(config.bind, bind);
    for bind in ["10.0.2.2:4772", "0.0.0.0:4772"] {
        let top = format!("bind = [\"{bind}\"]\n");
        assert_eq!(check(&with(&top, "", "")).unwrap().bind.len(), 1);
    }
    assert!(check(GOOD).unwrap().agent.group.is_none());
}

/// With another group all that is not of it is taken.
#[test]
fn another_group_needs_a_restart() {
    let old = check(&with("", "", "")).unwrap();
    let fixed = |config: &crate::config::Config| config.fixed().pop().unwrap();
    let all = "id = 7\nchanges = false";
    for (of, to) in [
        ("id = 7", "id = 8"),
        ("2:4772\"\n", "3:4772\"\n"),
        ("id = 7", all),
    ] {
        let mut new = check(&with("", of, to)).unwrap();
        assert_ne!(fixed(&new), fixed(&old), "{to}");
        new.keep_place(&old);
        assert_eq!(fixed(&new), fixed(&old), "{to}");
    }
    let mut new = check(GOOD).unwrap();
    assert_ne!(fixed(&new), fixed(&old));
    new.keep_place(&old);
    assert_eq!(new.agent.group.unwrap().seeds.len(), 2);
    // Its members are another thing.
    let mut new = check(&with("", "3:4772", "4:4772")).unwrap();
    assert_eq!(fixed(&new), fixed(&old));
    new.keep_place(&old);
    let member = "10.0.2.4:4772".parse().unwrap();
    assert!(new.agent.group.unwrap().seeds.contains(&member));
}

#[test]
fn mistakes_in_groups_say_where_and_what_to_do() {
    let cases = [
        ("", "id = 7", "id = 0", "id is 0; choose"),
        (
            "",
            "\"10.0.2.2:4772\"\n",
            "\"10.0.2.2:0\"\n",
            "address is where",
        ),
        (
            "",
            "\"10.0.2.2:4772\"\n",
            "\"0.0.0.0:1\"\n",
            "address is where",
        ),
        ("", "10.0.2.3:4772", "10.0.2.3:0", "members names 1 to 64"),
        ("", "10.0.2.3:4772", "[::1]:4772", "members names 1 to 64"),
        (
            "",
            "[\"10.0.2.2:4772\", \"10.0.2.3:4772\"]",
            "[]",
            "members names 1 to 64",
        ),
        (
            "bind = [\"10.0.2.2:4773\"]\n",
            "id",
            "id",
            "address is not among those of bind",
        ),
        (
            "bind = [\"10.0.2.9:4772\"]\n",
            "id",
            "id",
            "address is not among those of bind",
        ),
        (
            "age_limit_ms = 3000\n",
            "id",
            "id",
            "age_limit_ms is less than four heartbeats",
        ),
    ];
    for (top, old, new, what) in cases {
        let text = with(top, old, new);
        let line = text.lines().position(|line| line == "[group]").unwrap() + 1;
        let mistake = check(&text).err().unwrap().to_string();
        let at = mistake
            .strip_prefix("f:")
            .and_then(|rest| rest.split_once(": "));
        let (at, said) = at.unwrap();
        let at: usize = at.parse().unwrap();
        assert!((line..line + 4).contains(&at), "{mistake}");
        assert!(said.starts_with(what), "{mistake}");
    }
}
