// SPDX-License-Identifier: MIT OR Apache-2.0

//! Files, good and bad; plans, carried out on a model of the kernel.

use std::collections::{
    BTreeMap,
    BTreeSet, //
};

use clap::CommandFactory;
use nlb_netlink::{
    Error,
    Refusal, //
};
use proptest::prelude::*;

use super::{
    file,
    machine::{
        carry_out,
        words_of, //
    },
    plan::{
        plan,
        Words, //
    },
    print,
    table::{
        Kind,
        SHAPES, //
    },
    Config, //
};
use crate::{
    cli::Cli,
    failure::Failure, //
};

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
            "nlb service add 192.0.2.10:80/tcp mode peek idle-timeout 0 fin-timeout 0 syn-timeout 0 miss-timeout 0 classifier 8080",
            "nlb endpoint add 192.0.2.10:80/tcp host 10.0.2.2 via tunnel weight 1 state active max-routes 0 backup no",
            "nlb service add [2001:db8::1]:53/udp mode l4 scheduler mh affinity 0 prefix 128 slow-start 0 idle-timeout 0",
            "nlb endpoint add [2001:db8::1]:53/udp host 2001:db8:2::2 via tunnel weight 3 state draining max-routes 0 backup no source 2001:db8:2::1",
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
            "f:1:3: unknown key `servce`; there are forwarder, peer, keep and service",
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
            "[[service.endpoint]]\nhost = \"10.0.2.2\"\nweight = 101",
            "f:5:10: weight is 101; the most is 100",
        ),
        (
            "[[service.endpoint]]\nhost = \"10.0.2.2\"\nweight = -1",
            "f:5:10: `-1` for weight: -1 is not in 0..=4294967295",
        ),
        (
            "[[service.endpoint]]\nhost = \"10.0.2.2\"\nhosts = 1",
            "f:5:1: unknown key `hosts`; an endpoint has host, via, port, weight, state, max-routes, backup and source",
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
            "nlb endpoint add 192.0.2.10:80/tcp host 10.0.5.2 via tunnel weight 1 state active max-routes 0 backup no",
            "nlb service set 192.0.2.10:80/tcp scheduler wlc  # was scheduler wrr",
            "nlb endpoint set 192.0.2.10:80/tcp host 10.0.3.2 state active  # was state draining",
            "nlb endpoint set 192.0.2.10:80/tcp host 10.0.2.2 weight 2 state draining  # was weight 1 state active",
            "nlb endpoint del 192.0.2.10:80/tcp host 10.0.4.2  # was source 10.0.4.1",
            "nlb endpoint add 192.0.2.10:80/tcp host 10.0.4.2 via tunnel weight 1 state active max-routes 0 backup no source 10.0.4.9",
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
fn ports_of_a_service_that_goes_are_free() {
    let services = |names: &[&str]| {
        let all = names
            .iter()
            .map(|vip| format!("[[service]]\nvip = \"192.0.2.10:{vip}\"\nidle-timeout = 9\n"));
        parsed(&all.collect::<String>())
    };
    let have = services(&["8000-8999", "9000-9999", "*", "70-79", "80"]);
    let want = services(&["8500-9500", "*", "80-89", "70-79/udp"]);
    let settings = "mode l4 scheduler wrr affinity 0 prefix 32 slow-start 0 idle-timeout 9";
    assert_eq!(
        commands(&have, &want),
        [
            format!("nlb service add 192.0.2.10:80-89/tcp {settings} fin-timeout 0 syn-timeout 0"),
            format!("nlb service add 192.0.2.10:70-79/udp {settings}"),
            "nlb service del 192.0.2.10:8000-8999/tcp".to_owned(),
            "nlb service del 192.0.2.10:9000-9999/tcp".to_owned(),
            format!(
                "nlb service add 192.0.2.10:8500-9500/tcp {settings} fin-timeout 0 syn-timeout 0"
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

/// What the kernel has, as one line for each object: its words, by what identifies it.
#[derive(Clone, Default, PartialEq, Debug)]
struct Model {
    objects: BTreeMap<String, BTreeMap<String, String>>,
    /// The preferred keys.
    used: BTreeSet<String>,
    /// How many more commands it takes.
    patience: Option<usize>,
}

fn refused(errno: i32) -> Failure {
    Failure::Netlink(Error::Refused(Refusal {
        errno,
        text: None,
        attribute: None,
        code: None,
    }))
}

impl Model {
    fn run(&mut self, words: &Words) -> Result<(), Failure> {
        if self.patience == Some(0) {
            self.patience = None;
            return Err(refused(12));
        }
        self.patience = self.patience.map(|left| left - 1);
        let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut kind = words.remove(0);
        if words[0] == "key" {
            kind = "key";
            words.remove(0);
        }
        let verb = words.remove(0);
        let owner = words.remove(0).to_owned();
        let id = match kind {
            "endpoint" | "key" => format!("{kind} {owner} {}", words.drain(..2).nth(1).unwrap()),
            _ => format!("{kind} {owner}"),
        };
        let mut settings = BTreeMap::new();
        while !words.is_empty() {
            let keyword = words.remove(0);
            let value = match keyword {
                "unauthenticated" => "true",
                _ => words.remove(0),
            };
            settings.insert(keyword.to_owned(), value.to_owned());
        }
        let parent = format!("{} {owner}", if kind == "key" { "peer" } else { "service" });
        match verb {
            "add" if self.objects.contains_key(&id) => return Err(refused(17)),
            "add" => {
                let is_part = ["endpoint", "key"].contains(&kind);
                if is_part && !self.objects.contains_key(&parent) {
                    return Err(refused(2));
                }
                if kind == "peer" && settings.contains_key("key") {
                    let mut key = settings.clone();
                    key.remove("port");
                    settings.retain(|keyword, _| keyword == "port");
                    let name = format!("key {owner} {}", key.remove("key").unwrap());
                    self.used.insert(name.clone());
                    self.objects.insert(name, key);
                }
                if kind == "key" {
                    let peer = self.objects.get_mut(&parent).unwrap();
                    if peer.remove("unauthenticated").is_some() {
                        self.used.insert(id.clone());
                    }
                }
                self.objects.insert(id, settings);
            }
            "set" => self
                .objects
                .get_mut(&id)
                .ok_or(refused(2))?
                .extend(settings),
            "use" => {
                self.used
                    .retain(|used| !used.starts_with(&format!("key {owner} ")));
                self.used.insert(id);
            }
            "del" => {
                if self.objects.remove(&id).is_none() {
                    return Err(refused(2));
                }
                let parts = match kind {
                    "peer" => format!("key {owner} "),
                    "service" => format!("endpoint {owner} "),
                    _ => "-".to_owned(),
                };
                self.objects.retain(|own, _| !own.starts_with(&parts));
                self.used.retain(|own| self.objects.contains_key(own));
            }
            _ => panic!("{verb}"),
        }
        Ok(())
    }

    /// How many hosts of a service get connections.
    fn hosts(&self, service: &str) -> usize {
        let hosts = self.objects.iter().filter(|(id, settings)| {
            id.starts_with(&format!("endpoint {service} "))
                && settings["state"] == "active"
                && settings["weight"] != "0"
        });
        hosts.count()
    }
}

/// A model with a configuration in it.
fn model(config: &Config) -> Model {
    let mut model = Model::default();
    for step in plan(&Config::default(), config).unwrap() {
        model.run(&step.words).unwrap();
    }
    model
}

/// The text of some configuration.
fn any_file() -> impl Strategy<Value = String> {
    let endpoint = (
        0u8..4,
        prop_oneof![Just("active"), Just("draining"), Just("inactive")],
        0u8..3,
    )
        .prop_map(|(host, state, weight)| {
            (host, format!("state = \"{state}\"\nweight = {weight}\n"))
        });
    let endpoints = prop::collection::btree_map(0u8..4, endpoint, 0..4);
    let service = (
        prop::bool::ANY,
        prop_oneof![Just("wrr"), Just("lc"), Just("mh")],
        endpoints,
    );
    let services = prop::collection::btree_map(80u16..84, service, 0..4);
    let forwarders = prop::collection::btree_set(1u8..4, 0..4);
    let keeps = prop::collection::btree_map(80u16..83, 1u16..4, 0..3);
    let keys = prop::collection::btree_set(0u8..4, 0..3);
    let peers = prop::collection::btree_map(1u8..4, keys, 0..3);
    (services, forwarders, keeps, peers).prop_map(|(services, forwarders, keeps, peers)| {
        let mut out = String::new();
        for (table, empty) in [
            ("service", services.is_empty()),
            ("forwarder", forwarders.is_empty()),
            ("keep", keeps.is_empty()),
            ("peer", peers.is_empty()),
        ] {
            if empty {
                out += &format!("{table} = []\n");
            }
        }
        for (port, (peek, scheduler, endpoints)) in services {
            let mode = match peek {
                true => "mode = \"peek\"".to_owned(),
                false => format!("scheduler = \"{scheduler}\""),
            };
            out += &format!("[[service]]\nvip = \"192.0.2.10:{port}\"\n{mode}\n");
            for (host, (_, rest)) in endpoints {
                out += &format!("[[service.endpoint]]\nhost = \"10.0.{host}.2\"\n{rest}");
            }
        }
        for host in forwarders {
            out += &format!("[[forwarder]]\naddr = \"10.0.{host}.1\"\n");
        }
        for (port, bytes) in keeps {
            out += &format!("[[keep]]\nvip = \"192.0.2.10:{port}\"\nbytes = {bytes}\n");
        }
        for (host, keys) in peers {
            out += &format!("[[peer]]\naddr = \"10.0.{host}.2\"\n");
            if keys.is_empty() {
                out += "unauthenticated = true\n";
            }
            for id in keys {
                out += &format!("[[peer.key]]\nid = {id}\nsecret-file = \"/a 'b/{id}\"\n");
            }
        }
        out
    })
}

proptest! {
    // Each of them parses many lines of the command line.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_was_saved_changes_nothing(text in any_file()) {
        let config = parsed(&text);
        let saved = print::toml(&config);
        prop_assert!(commands(&config, &parsed(&saved)).is_empty(), "{}", saved);
        prop_assert_eq!(print::toml(&parsed(&saved)), saved);
    }

    #[test]
    fn a_plan_leads_to_what_is_wanted(old in any_file(), new in any_file()) {
        let (old, new) = (parsed(&old), parsed(&new));
        let mut machine = model(&old);
        let steps = plan(&old, &new).unwrap();
        let services: Vec<_> = new.of(Kind::Service).map(|entry| entry.name.clone()).collect();
        let (before, after) = (machine.clone(), model(&new));
        // One that is made anew is without endpoints, one that had or is to have none, too.
        let anew = |name: &str| steps.iter().any(|step| step.words[..3] == ["service", "del", name]);
        let served: Vec<_> = services
            .iter()
            .filter(|name| before.hosts(name) > 0 && after.hosts(name) > 0 && !anew(name))
            .collect();
        let mut run = |words: &Words| {
            machine.run(words)?;
            assert!(served.iter().all(|name| machine.hosts(name) > 0), "{words:?}");
            Ok(())
        };
        prop_assert!(carry_out(&steps, &mut run).is_ok());
        prop_assert_eq!(machine, after);
    }

    #[test]
    fn a_plan_that_breaks_leaves_nothing_behind(
        old in any_file(),
        new in any_file(),
        patience in 0usize..30,
    ) {
        let (old, new) = (parsed(&old), parsed(&new));
        let mut machine = model(&old);
        let before = machine.clone();
        let steps = plan(&old, &new).unwrap();
        machine.patience = Some(patience);
        match carry_out(&steps, &mut |words| machine.run(words)) {
            Ok(()) => prop_assert!(patience >= steps.len()),
            // Secrets of keys that are gone are nowhere.
            Err(broken) if !broken.left.is_empty() => {
                prop_assert!(broken.left.iter().all(|left| left.starts_with("nlb peer")), "{:?}", broken.left);
            }
            Err(_) => prop_assert_eq!(machine, before),
        }
    }
}
