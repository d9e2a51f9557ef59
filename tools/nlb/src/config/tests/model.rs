// SPDX-License-Identifier: MIT OR Apache-2.0

//! Plans that nobody chose, carried out on a model of the kernel.

use std::collections::{
    BTreeMap,
    BTreeSet, //
};

use nlb_netlink::{
    Error,
    Refusal, //
};
use proptest::prelude::*;

use super::{
    super::{
        machine::carry_out,
        plan::{
            plan,
            Words, //
        },
        print,
        table::Kind,
        Config, //
    },
    commands,
    parsed, //
};
use crate::failure::Failure;

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
        if kind == "rule" {
            // Its name has a keyword.
            words.remove(0);
        }
        let owner = words.remove(0).to_owned();
        let id = match kind {
            "endpoint" => {
                let host = words.drain(..2).nth(1).unwrap();
                match self.endpoint(&format!("endpoint {owner} {host} "), verb, &words) {
                    Ok(id) => id,
                    Err(errno) => return Err(refused(errno)),
                }
            }
            "key" => format!("{kind} {owner} {}", words.drain(..2).nth(1).unwrap()),
            _ => format!("{kind} {owner}"),
        };
        let mut settings = BTreeMap::new();
        while !words.is_empty() {
            let keyword = words.remove(0);
            let value = match keyword {
                "unauthenticated" | "drop" | "reject" | "accept" => "true",
                _ => words.remove(0),
            };
            settings.insert(keyword.to_owned(), value.to_owned());
        }
        if kind == "endpoint" && verb != "add" {
            settings.remove("port");
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

    /// The endpoint at a host that a command names.
    fn endpoint(&self, host: &str, verb: &str, words: &[&str]) -> Result<String, i32> {
        let port = words.iter().skip_while(|word| **word != "port").nth(1);
        if let Some(port) = port.or((verb == "add").then_some(&"0")) {
            return Ok(format!("{host}{port}"));
        }
        let mut there = self.objects.keys().filter(|id| id.starts_with(host));
        match (there.next(), there.next()) {
            (Some(only), None) => Ok(only.clone()),
            (None, _) => Err(2),
            _ => Err(76),
        }
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
        prop_oneof![Just("active"), Just("draining"), Just("inactive")],
        0u8..3,
    )
        .prop_map(|(state, weight)| format!("state = \"{state}\"\nweight = {weight}\n"));
    // Some by a port of its own, of which a host may have several.
    let endpoints = prop::collection::btree_map((0u8..3, 0u8..3), endpoint, 0..5);
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
    let action = prop_oneof![Just("drop"), Just("reject"), Just("accept")];
    let rules = prop::collection::btree_map(8u8..12, (action, 0u8..3), 0..4);
    let all = (services, forwarders, keeps, peers, rules);
    all.prop_map(|(services, forwarders, keeps, peers, rules)| {
        let mut out = String::new();
        for (table, empty) in [
            ("service", services.is_empty()),
            ("forwarder", forwarders.is_empty()),
            ("keep", keeps.is_empty()),
            ("peer", peers.is_empty()),
            ("rule", rules.is_empty()),
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
            for ((host, own), rest) in endpoints {
                out += &format!("[[service.endpoint]]\nhost = \"10.0.{host}.2\"\n{rest}");
                if own > 0 {
                    out += &format!("via = \"nat\"\nport = 808{own}\n");
                }
            }
        }
        for (priority, (action, from)) in rules {
            out += &format!("[[rule]]\npriority = {priority}\naction = \"{action}\"\n");
            out += &format!("from = \"10.{from}.0.0/16\"\n");
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
