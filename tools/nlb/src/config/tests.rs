// SPDX-License-Identifier: MIT OR Apache-2.0

//! Files, good and bad, and plans.

mod model;

use clap::CommandFactory;

use super::{
    file,
    machine::words_of,
    plan::plan,
    table::{
        Kind,
        SHAPES, //
    },
    Config, //
};
use crate::cli::Cli;

const EXAMPLE: &str = r#"
[[forwarder]]
addr = "10.0.2.1"

[[peer]]
addr = "10.0.2.2"

[[peer.key]]
id = 1
secret-file = "/etc/nlb.key"

[[keep]]
vip = "192.0.2.10:80"
bytes = 4096

[[rule]]
priority = 10
action = "reject"
from = "198.51.100.0/24"
to = "192.0.2.10:80-81"

[[rule]]
priority = 9
action = "drop"
proto = "udp"

[[service]]
vip = "192.0.2.10:80"
mode = "peek"
classifier = 8080

[[service.endpoint]]
host = "10.0.2.2"

[[service]]
vip = "[2001:DB8::1]:53/17"
scheduler = "maglev"

[[service.endpoint]]
host = "2001:db8:2:0::2"
weight = 3
state = "draining"
source = "2001:db8:2::1"
"#;

fn parsed(text: &str) -> Config {
    file::parse("f", text).unwrap_or_else(|failure| panic!("{}\n{text}", failure.text()))
}

fn commands(have: &Config, want: &Config) -> Vec<String> {
    let steps = plan(have, want).unwrap_or_else(|impossible| panic!("{}", impossible.what));
    let line = |step: &super::plan::Step| {
        let was = step.was.iter().map(|was| format!("  # was {was}"));
        words_of(&step.words) + &was.collect::<String>()
    };
    steps.iter().map(line).collect()
}

#[test]
fn a_file_becomes_commands() {
    assert_eq!(
        commands(&Config::default(), &parsed(EXAMPLE)),
        [
            "nlb forwarder add 10.0.2.1",
            "nlb keep add 192.0.2.10:80 bytes 4096",
            "nlb peer add 10.0.2.2 port 4770 key 1 recv-id 1 algorithm hmac-sha256 secret-file /etc/nlb.key",
            "nlb rule add priority 10 reject from 198.51.100.0/24 to 192.0.2.10:80-81/tcp",
            "nlb rule add priority 9 drop from any proto udp",
            "nlb service add 192.0.2.10:80/tcp mode peek idle-timeout 0 fin-timeout 0 syn-timeout 0 miss-timeout 0 classifier 8080",
            "nlb endpoint add 192.0.2.10:80/tcp host 10.0.2.2 via tunnel weight 1 state active max-routes 0 resume-routes 0 backup no",
            "nlb service add [2001:db8::1]:53/udp mode l4 scheduler mh affinity 0 prefix 128 slow-start 0 idle-timeout 0 one-packet no",
            "nlb endpoint add [2001:db8::1]:53/udp host 2001:db8:2::2 via tunnel weight 3 state draining max-routes 0 resume-routes 0 backup no source 2001:db8:2::1",
        ]
    );
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let mut wrong = Vec::new();
    let service = "[[service]]\nvip = \"192.0.2.10:80\"\n";
    for (text, what) in [
        (
            "a =",
            "f:1:4: string values must be quoted, expected literal string",
        ),
        (
            "[[servce]]",
            "f:1:3: unknown key `servce`; there are forwarder, peer, keep, rule and service",
        ),
        (
            "[service]",
            "f:1:1: there may be several of them: begin each with [[service]]",
        ),
        ("keep = [1]", "f:1:9: a keep is a table with vip"),
        (
            "\n[[service]]\nmode = \"l4\"",
            "f:2:1: a service needs its vip, like vip = \"192.0.2.10:80/tcp\"",
        ),
        (
            "[[service]]\nvip = \"192.0.2.10\"",
            "f:2:7: `192.0.2.10` is not a service, expected VIP:PORT/PROTO like 192.0.2.10:80/tcp (or 8000-8999 for the port, or * for all)",
        ),
        (
            "[[service]]\nvip = \"192.0.2.10:80\"\none-packet = \"yes\"",
            "f:3:14: only UDP is scheduled packet by packet",
        ),
        (
            "[[service]]\nvip = \"192.0.2.10:80/udp\"\none-packet = \"maybe\"",
            "f:3:14: `maybe` for one-packet is none of yes, no",
        ),
        (
            "[[forwarder]]\naddr = \"10.0.2\"",
            "f:2:8: `10.0.2` for addr: invalid IP address syntax",
        ),
        (
            "[[forwarder]]\naddr = \"10.0.2.1\"\nwieght = 1",
            "f:3:1: unknown key `wieght`; a forwarder has addr",
        ),
        (
            "[[forwarder]]\naddr = 1.5",
            "f:2:8: addr is a text, a number, true or false",
        ),
        (
            "[[keep]]\nvip = \"192.0.2.10:80\"",
            "f:1:1: a keep needs bytes",
        ),
        (
            "[[keep]]\nvip = \"192.0.2.10:80\"\nbytes = 0",
            "f:3:9: `0` for bytes: 0 is not in 1..=32767",
        ),
        (
            "[[peer]]\naddr = \"10.0.2.2\"",
            "f:1:1: a peer has either keys ([[peer.key]]) or unauthenticated = true",
        ),
        (
            "[[peer]]\naddr = \"10.0.2.2\"\nunauthenticated = true\n[[peer.key]]\nid = 1",
            "f:1:1: a peer has either keys ([[peer.key]]) or unauthenticated = true",
        ),
        (
            "[[peer]]\naddr = \"10.0.2.2\"\nunauthenticated = \"yes\"",
            "f:3:19: unauthenticated is `yes`; it is true or false",
        ),
        (
            "[[peer]]\naddr = \"10.0.2.2\"\n[[peer.key]]\nid = 256",
            "f:4:6: `256` for id: 256 is not in 0..=255",
        ),
        (
            "[[peer]]\naddr = \"10.0.2.2\"\n[[peer.key]]\nid = 1\nsecret-file = \"-\"",
            "f:5:15: the secret cannot come from standard input; name a file",
        ),
        (
            "[[peer]]\naddr = \"10.0.2.2\"\n[[peer.key]]\nid = 1\nalgorithm = \"md5\"",
            "f:5:13: `md5` for algorithm is none of hmac-sha256, hmac-sha1, aes-128-cmac",
        ),
        ("[[rule]]\nfrom = \"any\"\naction = \"drop\"", "f:1:1: a rule needs its priority, like priority = 10"),
        ("[[rule]]\npriority = 1\nfrom = \"any\"", "f:1:1: a rule needs action"),
        ("[[rule]]\npriority = 1\naction = \"drop\"", "f:1:1: a rule needs from, to or proto"),
        (
            "[[rule]]\npriority = 1\naction = \"deny\"\nfrom = \"any\"",
            "f:3:10: `deny` for action is none of drop, reject, accept",
        ),
        (
            "[[rule]]\npriority = 1\naction = \"drop\"\nfrom = \"10.0.0.0/33\"",
            "f:4:8: `10.0.0.0/33` is not a prefix, expected ADDR or ADDR/LENGTH",
        ),
        (
            "[[rule]]\npriority = 1\naction = \"drop\"\nto = \"192.0.2.10:80\"\nproto = \"tcp\"",
            "f:5:9: proto is for rules without a port, which has one already",
        ),
    ] {
        wrong.extend(other(text, what));
    }
    for (rest, what) in [
        ("mode = \"l7\"", "f:3:8: `l7` for mode is none of peek, l4"),
        (
            "mode = \"peek\"\nscheduler = \"lc\"",
            "f:4:13: only mode l4 has a scheduler",
        ),
        ("classifier = 80", "f:3:14: only mode peek has a classifier"),
        (
            "[[service.endpoint]]\nhost = \"10.0.2.2\"\nweight = 65536",
            "f:5:10: weight is 65536; the most is 65535",
        ),
        (
            "[[service.endpoint]]\nhost = \"10.0.2.2\"\nweight = -1",
            "f:5:10: `-1` for weight: -1 is not in 0..=4294967295",
        ),
        (
            "[[service.endpoint]]\nhost = \"10.0.2.2\"\nhosts = 1",
            "f:5:1: unknown key `hosts`; an endpoint has host, via, port, tun-port, tun-csum, weight, state, max-routes, resume-routes, backup and source",
        ),
        (
            "[service.endpoint]",
            "f:3:1: there may be several of them: begin each with [[service.endpoint]]",
        ),
        (
            "[[service.endpoint]]\nhost = \"::1\"\n[[service.endpoint]]\nhost = \"0::1\"",
            "f:5:1: endpoint ::1 is in line 3 already; remove one of them",
        ),
        (
            "[[service.endpoint]]\nhost = \"::1\"\nvia = \"nat\"\n[[service.endpoint]]\nhost = \"::1\"\nport = 80",
            "f:6:1: endpoint ::1 is in line 3 already; remove one of them",
        ),
        (
            service,
            "f:3:1: service 192.0.2.10:80/tcp is in line 1 already; remove one of them",
        ),
    ] {
        wrong.extend(other(&format!("{service}{rest}"), what));
    }
    for (vip, what) in [
        ("192.0.2.10:53/udp", "f:1:1: mode peek needs TCP"),
        (
            "192.0.2.10:*",
            "f:1:1: mode peek with several ports needs a classifier",
        ),
    ] {
        let text = format!("[[service]]\nvip = \"{vip}\"\nmode = \"peek\"");
        wrong.extend(other(&text, what));
    }
    assert!(wrong.is_empty(), "{}", wrong.concat());
}

/// What is told instead of `what`.
fn other(text: &str, what: &str) -> Option<String> {
    let told = match file::parse("f", text) {
        Err(failure) => failure.text(),
        Ok(_) => "nothing".to_owned(),
    };
    (told != what).then(|| format!("{text}\n  told: {told}\n  want: {what}\n"))
}

#[test]
fn a_file_can_say_whatever_the_command_line_can() {
    let mut program = Cli::command();
    program.build();
    for shape in &SHAPES {
        let mut command = &program;
        for word in shape.object.iter().chain(&["add"]) {
            command = command.find_subcommand(word).unwrap();
        }
        let keywords = shape.attributes.keywords();
        let options = command.get_arguments().filter(|own| !own.is_positional());
        for option in options.filter(|own| !own.is_global_set()) {
            let long = option.get_long().unwrap();
            let of_key = shape.kind == Kind::Peer
                && ["key", "recv-id", "algorithm", "secret-file"].contains(&long);
            let known = keywords.contains(&long) || shape.keyword == Some(long) || of_key;
            assert!(
                long == "help" || known,
                "{}: {long} is missing in table.rs",
                shape.table
            );
        }
    }
}

#[test]
fn changes_come_in_an_order_that_does_no_harm() {
    let have = "[[forwarder]]\naddr = \"10.0.2.1\"\n\
        [[service]]\nvip = \"192.0.2.10:80\"\n\
        [[service.endpoint]]\nhost = \"10.0.2.2\"\n\
        [[service.endpoint]]\nhost = \"10.0.3.2\"\nstate = \"draining\"\n\
        [[service.endpoint]]\nhost = \"10.0.4.2\"\nsource = \"10.0.4.1\"\n\
        [[service]]\nvip = \"192.0.2.10:81\"\n\
        [[service]]\nvip = \"192.0.2.10:82\"\n";
    let want = "forwarder = []\n\
        [[service]]\nvip = \"192.0.2.10:80\"\nscheduler = \"wlc\"\n\
        [[service.endpoint]]\nhost = \"10.0.2.2\"\nstate = \"draining\"\nweight = 2\n\
        [[service.endpoint]]\nhost = \"10.0.3.2\"\n\
        [[service.endpoint]]\nhost = \"10.0.4.2\"\nsource = \"10.0.4.9\"\n\
        [[service.endpoint]]\nhost = \"10.0.5.2\"\n\
        [[service]]\nvip = \"192.0.2.10:82\"\nmode = \"peek\"\n";
    assert_eq!(
        commands(&parsed(have), &parsed(want)),
        [
            "nlb endpoint add 192.0.2.10:80/tcp host 10.0.5.2 via tunnel weight 1 state active max-routes 0 resume-routes 0 backup no",
            "nlb service set 192.0.2.10:80/tcp scheduler wlc  # was scheduler wrr",
            "nlb endpoint set 192.0.2.10:80/tcp host 10.0.3.2 state active  # was state draining",
            "nlb endpoint set 192.0.2.10:80/tcp host 10.0.2.2 weight 2 state draining  # was weight 1 state active",
            "nlb endpoint del 192.0.2.10:80/tcp host 10.0.4.2  # was source 10.0.4.1",
            "nlb endpoint add 192.0.2.10:80/tcp host 10.0.4.2 via tunnel weight 1 state active max-routes 0 resume-routes 0 backup no source 10.0.4.9",
            "nlb service del 192.0.2.10:82/tcp  # was mode l4 scheduler wrr affinity 0 prefix 32 slow-start 0",
            "nlb service add 192.0.2.10:82/tcp mode peek idle-timeout 0 fin-timeout 0 syn-timeout 0 miss-timeout 0",
            "nlb forwarder del 10.0.2.1",
            "nlb service del 192.0.2.10:81/tcp",
        ]
    );
    // Without the word, nothing is said of forwarders; a source that is not named will do.
    let rest = want
        .split_once('\n')
        .unwrap()
        .1
        .replace("source = \"10.0.4.9\"\n", "");
    let lines = commands(&parsed(have), &parsed(&rest));
    assert!(!lines
        .iter()
        .any(|line| line.contains("forwarder") || line.contains("10.0.4.2")));
}

#[test]
fn a_host_has_several_ports() {
    let config = |endpoints: &[&str]| {
        let text = endpoints.iter().map(|rest| {
            format!(
                "[[service.endpoint]]\nhost = \"10.0.2.2\"\n{}\n",
                rest.replace(' ', "\n")
            )
        });
        let text: String = text.collect();
        parsed(&format!("[[service]]\nvip = \"192.0.2.10:80\"\n{text}"))
    };
    let nat = |port: u16, more: &str| format!("via=\"nat\" port={port} {more}");
    let have = config(&["via=\"nat\"", &nat(8080, "weight=2"), &nat(8081, "")]);
    // Its own port is one like others, said or not.
    assert!(commands(
        &have,
        &config(&[&nat(80, ""), &nat(8080, "weight=2"), &nat(8081, "")])
    )
    .is_empty());
    let want = config(&[
        "via=\"nat\" port=0 weight=5",
        &nat(8080, ""),
        &nat(8082, ""),
    ]);
    assert_eq!(
        commands(&have, &want),
        [
            "nlb endpoint add 192.0.2.10:80/tcp host 10.0.2.2 via nat port 8082 weight 1 state active max-routes 0 resume-routes 0 backup no",
            "nlb endpoint set 192.0.2.10:80/tcp host 10.0.2.2 port 0 weight 5  # was weight 1",
            "nlb endpoint set 192.0.2.10:80/tcp host 10.0.2.2 port 8080 weight 1  # was weight 2",
            "nlb endpoint del 192.0.2.10:80/tcp host 10.0.2.2 port 8081",
        ]
    );
    // While there are two, even for a moment, the name is not enough.
    assert_eq!(
        commands(&config(&["weight=3"]), &config(&[&nat(8080, "")])),
        [
            "nlb endpoint add 192.0.2.10:80/tcp host 10.0.2.2 via nat port 8080 weight 1 state active max-routes 0 resume-routes 0 backup no",
            "nlb endpoint del 192.0.2.10:80/tcp host 10.0.2.2 port 0",
        ]
    );
}

/// Services with these ports.
fn services(ports: &[&str]) -> Config {
    let all = ports
        .iter()
        .map(|ports| format!("[[service]]\nvip = \"192.0.2.10:{ports}\"\nidle-timeout = 9\n"));
    parsed(&all.collect::<String>())
}

/// The first words of the commands from one configuration to another.
fn beginnings(have: &Config, want: &Config, words: usize) -> Vec<String> {
    let beginning = |line: String| line.split(' ').take(words).collect::<Vec<_>>().join(" ");
    commands(have, want).into_iter().map(beginning).collect()
}

#[test]
fn a_range_is_split_and_put_together() {
    let whole = services(&["8000-8999"]);
    let parts = services(&["8000-8499", "8500-8999"]);
    let command = |what, ports| format!("nlb service {what} 192.0.2.10:{ports}/tcp");
    assert_eq!(
        beginnings(&whole, &parts, 4),
        [
            command("del", "8000-8999"),
            command("add", "8000-8499"),
            command("add", "8500-8999"),
        ]
    );
    assert_eq!(
        beginnings(&parts, &whole, 4),
        [
            command("del", "8000-8499"),
            command("del", "8500-8999"),
            command("add", "8000-8999"),
        ]
    );
}

#[test]
fn rules_come_first_unless_there_is_no_room() {
    let rules = |priorities: std::ops::Range<u32>| {
        let all = priorities.map(|priority| {
            format!("[[rule]]\npriority = {priority}\naction = \"drop\"\nfrom = \"10.0.0.0/8\"\n")
        });
        parsed(&all.collect::<String>())
    };
    let what = |have: u32, want: u32| {
        let lines = beginnings(&rules(0..have), &rules(have..have + want), 3);
        let dels = lines.iter().filter(|line| *line == "nlb rule del").count();
        assert_eq!((lines.len() - dels, dels), (want as usize, have as usize));
        lines.first().cloned()
    };
    assert_eq!(what(512, 512).as_deref(), Some("nlb rule add"));
    assert_eq!(what(512, 513).as_deref(), Some("nlb rule del"));
}

#[test]
fn ports_of_a_service_that_goes_are_free() {
    let have = services(&["8000-8999", "9000-9999", "*", "70-79", "80"]);
    let want = services(&["8500-9500", "*", "80-89", "70-79/udp"]);
    let settings = "mode l4 scheduler wrr affinity 0 prefix 32 slow-start 0 idle-timeout 9";
    assert_eq!(
        commands(&have, &want),
        [
            format!("nlb service add 192.0.2.10:80-89/tcp {settings} fin-timeout 0 syn-timeout 0 miss-timeout 0"),
            format!("nlb service add 192.0.2.10:70-79/udp {settings} one-packet no"),
            "nlb service del 192.0.2.10:8000-8999/tcp".to_owned(),
            "nlb service del 192.0.2.10:9000-9999/tcp".to_owned(),
            format!(
                "nlb service add 192.0.2.10:8500-9500/tcp {settings} fin-timeout 0 syn-timeout 0 miss-timeout 0"
            ),
            "nlb service del 192.0.2.10:70-79/tcp".to_owned(),
            "nlb service del 192.0.2.10:80/tcp".to_owned(),
        ]
    );
}

#[test]
fn keys_are_exchanged_without_a_moment_without() {
    let peer = "[[peer]]\naddr = \"10.0.2.2\"\n";
    let key = |id: u8| format!("[[peer.key]]\nid = {id}\n");
    let with_file = |id: u8| format!("{}secret-file = \"f{id}\"\n", key(id));
    let old = parsed(&format!("{peer}{}{}", key(1), key(2)));
    let new = parsed(&format!("{peer}{}{}", with_file(3), key(2)));
    assert_eq!(
        commands(&old, &new),
        [
            "nlb peer key add 10.0.2.2 id 3 recv-id 3 algorithm hmac-sha256 secret-file f3",
            "nlb peer key use 10.0.2.2 id 3  # was id 1",
            "nlb peer key del 10.0.2.2 id 1",
        ]
    );
    let open = parsed(&format!("{peer}unauthenticated = true\n"));
    let signed = parsed(&format!("{peer}{}{}", with_file(1), with_file(2)));
    assert_eq!(
        commands(&open, &signed),
        [
            "nlb peer key add 10.0.2.2 id 1 recv-id 1 algorithm hmac-sha256 secret-file f1  # was unauthenticated",
            "nlb peer key add 10.0.2.2 id 2 recv-id 2 algorithm hmac-sha256 secret-file f2",
        ]
    );
    assert_eq!(
        commands(&signed, &open),
        [
            "nlb peer del 10.0.2.2  # was no unauthenticated",
            "nlb peer add 10.0.2.2 port 4770 unauthenticated",
        ]
    );
    for (want, line, what) in [
        (
            format!("{peer}{}", key(9)),
            3,
            "peer 10.0.2.2 has not this key 9 yet: name its secret-file",
        ),
        (
            format!("{peer}port = 1\n{}{}", with_file(1), key(2)),
            7,
            "peer 10.0.2.2 has not this key 2 yet: name its secret-file",
        ),
        (
            format!("{peer}{}algorithm = \"hmac-sha1\"\n{}", key(1), key(2)),
            3,
            "key 1 of peer 10.0.2.2 has algorithm hmac-sha256 there, and keys do not change: \
             give the new one another id",
        ),
    ] {
        let impossible = plan(&old, &parsed(&want)).unwrap_err();
        let place = impossible.place.unwrap().to_string();
        assert_eq!(
            (place, impossible.what.as_str()),
            (format!("{line}:1"), what)
        );
    }
}
