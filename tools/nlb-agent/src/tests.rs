// SPDX-License-Identifier: MIT OR Apache-2.0

//! Configuration, applications and checks, without sockets.

mod bus;
mod checks;
mod groups;
mod grpc;
mod lives;
mod load;
mod metrics;
mod multicast;
mod systemd;
mod tls;
mod unit;
mod users;

use crate::{
    check::{Check, Hysteresis, Probe, Verdict},
    config::Config,
    host::Host,
    state::Saved,
};
use nlb_daemon::{
    api::Caller,
    config::{Mistake, Source},
};
use nlb_health::{agent::AgentConfig, row::Health, Agent};
use serde_json::{json, Value};
use std::{
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::OnceLock,
    time::{Duration, Instant},
};

const GOOD: &str = r#"
host = 1
lbus = ["10.0.2.1:4771"]
addresses = ["10.0.2.2"]
register = [1000]
[[key]]
id = 1
secret_file = "health.key"
[[app]]
name = "web"
vip = "192.0.2.10:80/tcp"
uid = 33
[[app.check]]
kind = "http"
path = "/"
[[app.check]]
kind = "tcp"
[[app]]
name = "plain"
vip = "192.0.2.10:*/udp"
capacity = 7
"#;

/// A folder with a secret, and where a configuration file would be. The tests have it together.
fn path() -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("nlb-agent-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let secret = folder.join("health.key");
        std::fs::write(&secret, "0123456789abcdef\n").unwrap();
        std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
        folder
    });
    folder.join("agent.toml")
}

fn check(text: &str) -> Result<Config, Mistake> {
    Config::check(&Source::new("f", text), &path())
}

#[test]
fn the_example_is_right() {
    let text = include_str!("../agent.toml");
    let config = Config::check(&Source::new("agent.toml", text), &path()).unwrap();
    assert_eq!(config.apps.len(), 1);
    assert_eq!(config.apps[0].spec.physical, "10.0.2.2:80".parse().unwrap());
    assert_eq!(config.bind, ["0.0.0.0:0".parse().unwrap()]);
}

#[test]
fn mistakes_say_where_and_what_to_do() {
    let cases = [
        ("host = 1", "host = 0", "f:2: host is 0; choose"),
        (
            "host = 1",
            "host = 1\nname = \"a b\"",
            "f:3: name is no DNS name",
        ),
        (
            "host = 1",
            "host = 1\nmetrics = \"0.0.0.0\"",
            "f:3: metrics is \"0.0.0.0\"; write an address and port",
        ),
        (
            "host = 1",
            "host = 1\nhots = 2",
            "f:3: unknown field `hots`",
        ),
        ("[\"10.0.2.1:4771\"]", "[]", "f:3: lbus names 1 to 64"),
        (
            "[\"10.0.2.1:4771\"]",
            "[\"10.0.2.1:0\"]",
            "f:3: lbus names 1 to 64",
        ),
        (
            "[\"10.0.2.1:4771\"]",
            "[\"239.0.2.1:4771\"]",
            "f:3: lbus names 1 to 64",
        ),
        (
            "[\"10.0.2.1:4771\"]",
            "[\"0.0.0.0:4771\"]",
            "f:3: lbus names 1 to 64",
        ),
        (
            "host = 1",
            "host = 1\nbind = [\"[::1]:4772\"]",
            "f:3: bind names one address for each",
        ),
        (
            "host = 1",
            "host = 1\nage_limit_ms = 1500",
            "f:3: age_limit_ms is less than two heartbeats",
        ),
        (
            "host = 1",
            "host = 1\nheartbeat_ms = 1",
            "f:3: heartbeat_ms is 1; choose a number from 100 to 60000",
        ),
        ("id = 1", "id = 300", "f:7: "),
        ("health.key", "none.key", "f:8: cannot read the secret in"),
        (
            "name = \"web\"",
            "name = \"w b\"",
            "f:10: a name has 1 to 63",
        ),
        (
            "name = \"plain\"",
            "name = \"web\"",
            "f:19: \"web\" has the name or the addresses",
        ),
        (
            "10:80/tcp",
            "10:80-90/tcp",
            "f:11: \"web\": vip 192.0.2.10:80-90/tcp: name one port",
        ),
        (
            "10:80/tcp",
            "10/tcp",
            "f:11: \"web\": vip: `192.0.2.10/tcp` is not a service",
        ),
        (
            "\"192.0.2.10:80/tcp",
            "\"[2001:db8::1]:80/tcp",
            "f:11: \"web\": name its physical address",
        ),
        (
            "\"192.0.2.10:80/tcp",
            "\"224.0.0.1:80/tcp",
            "no machine can have this",
        ),
        (
            "uid = 33",
            "protocol = \"HTTP\"",
            "f:12: \"web\": protocol: up to 31 of a-z",
        ),
        (
            "uid = 33",
            "detail = \"a\\nb\"",
            "f:12: \"web\": detail: up to 255 bytes",
        ),
        (
            "uid = 33",
            "uid = 33\nphysical = \"0.0.0.0:80\"",
            "f:13: \"web\": 0.0.0.0:80: no machine can have this",
        ),
        (
            "capacity = 7",
            "capacity = 100",
            "f:21: \"plain\": capacity is 100; choose",
        ),
        (
            "kind = \"http\"",
            "kind = \"ftp\"",
            "f:14: unknown variant `ftp`",
        ),
        (
            "path = \"/\"",
            "path = \"x\"",
            "f:14: path begins with \"/\"",
        ),
        (
            "path = \"/\"",
            "command = [\"/bin/true\"]",
            "f:14: a check of kind http has",
        ),
        (
            "kind = \"tcp\"",
            "kind = \"tcp\"\npath = \"/\"",
            "f:17: a check of kind tcp has",
        ),
        (
            "kind = \"tcp\"",
            "kind = \"command\"",
            "f:17: command is a list of words",
        ),
        (
            "kind = \"tcp\"",
            "kind = \"tcp\"\nfall = 0",
            "f:18: fall is 0; choose",
        ),
        (
            "capacity = 7",
            "capacity = 7\n[[app.check]]\nkind = \"tcp\"",
            "f:23: a check needs the address and port",
        ),
        (
            "uid = 33",
            "[app.load]",
            "f:12: load names what is measured",
        ),
        (
            "uid = 33",
            "load = { pressure = \"cpu\" }",
            "f:12: pressure is the path of a file",
        ),
        (
            "uid = 33",
            "load = { connections = 0 }",
            "f:12: connections is 0; choose",
        ),
        (
            "capacity = 7",
            "load = { queue = true }",
            "f:21: queue and connections are those of one port",
        ),
    ];
    for (old, new, expected) in cases {
        let text = GOOD.replacen(old, new, 1);
        assert_ne!(text, GOOD, "{old}");
        let Err(mistake) = check(&text) else {
            panic!("{new:?} is taken");
        };
        assert!(mistake.to_string().contains(expected), "{new:?}: {mistake}");
    }
}

#[test]
fn what_needs_a_restart_is_known() {
    let before = check(GOOD).unwrap().fixed();
    let more = GOOD.replace("capacity = 7", "capacity = 8");
    assert_eq!(check(&more).unwrap().fixed(), before);
    let other = GOOD.replace("host = 1", "host = 2\nage_limit_ms = 9000");
    let after = check(&other).unwrap().fixed();
    let others = after.iter().filter(|fixed| !before.contains(fixed));
    let others: Vec<_> = others.map(|(key, _)| *key).collect();
    assert_eq!(others, ["host", "age_limit_ms"]);
}

/// Of all ports of a VIP none is the name of a site.
#[test]
fn sites_have_the_names_of_their_services() {
    let probe = |vip: &str, physical: &str| {
        let text = format!(
            "host = 1\nlbus = [\"10.0.2.1:4771\"]\n[[key]]\nid = 1\nsecret_file = \"health.key\"\n\
             [[app]]\nname = \"a\"\nvip = \"{vip}\"\nphysical = \"{physical}\"\n\
             [[app.check]]\nkind = \"http\"\n"
        );
        let config = check(&text).unwrap();
        let Probe::Http { get, .. } = &config.apps[0].checks[0].probe else {
            panic!("another check");
        };
        get.host.clone()
    };
    assert_eq!(probe("192.0.2.10:80/tcp", "10.0.2.2:80"), "192.0.2.10:80");
    assert_eq!(probe("192.0.2.10:*/tcp", "10.0.2.2:80"), "192.0.2.10");
    let v6 = probe("[2001:db8::1]:*/tcp", "[2001:db8::2]:80");
    assert_eq!(v6, "[2001:db8::1]");
}

struct Scene {
    host: Host,
    now: Instant,
}

const ROOT: Caller = Caller {
    uid: 0,
    connection: 0,
};
const USER: Caller = Caller {
    uid: 1000,
    connection: 1,
};
const OTHER: Caller = Caller {
    uid: 33,
    connection: 2,
};

impl Scene {
    fn new(saved: &Saved) -> Self {
        Self::of(GOOD, saved)
    }

    fn of(text: &str, saved: &Saved) -> Self {
        let now = Instant::now();
        let mut config = check(text).unwrap();
        let own = AgentConfig {
            epoch: 1,
            ..config.agent.clone()
        };
        let agent = Agent::new(now, own, config.keys.clone(), [7; 32]);
        let host = Host::new(now, &mut config, agent, saved, [0].into());
        Self { host, now }
    }

    fn say(&mut self, caller: Caller, request: Value) -> Value {
        let answer = self.host.request(self.now, caller, &request.to_string());
        serde_json::from_str(&answer).unwrap()
    }

    fn refuses(&mut self, caller: Caller, request: Value, why: &str) {
        let before = self.host.saved(0);
        let answer = self.say(caller, request);
        let error = answer["error"]
            .as_str()
            .unwrap_or_else(|| panic!("{answer}"));
        assert!(error.contains(why), "{error}");
        assert_eq!(self.host.saved(0), before);
    }

    fn app(&mut self, name: &str) -> Value {
        self.say(ROOT, json!({ "command": "show", "app": name }))
    }

    fn found(&mut self, index: usize, health: Health) {
        let verdict = Verdict {
            app: "web".to_owned(),
            index,
            generation: self.host.generation(),
            health,
            why: (health == Health::Failing).then(|| "it is away".to_owned()),
        };
        self.host.verdict(self.now, verdict);
    }
}

fn shop(capacity: u8) -> Value {
    json!({
        "command": "register", "app": "shop", "vip": "192.0.2.11:80", "physical": "10.0.2.2:8080",
        "protocol": "http", "detail": "/shop/*", "capacity": capacity,
    })
}

#[test]
fn applications_say_how_they_are() {
    let mut scene = Scene::new(&Saved::default());
    assert_eq!(scene.app("plain")["health"], "unknown");
    let shop = scene.say(USER, shop(60));
    assert_eq!(shop["health"], "healthy");
    assert_eq!(shop["vip"], "192.0.2.11:80/tcp");
    assert_eq!(shop["capacity"], 60);
    let answer = scene.say(
        USER,
        json!({"command": "health", "app": "shop", "health": "failing"}),
    );
    assert_eq!(answer["health"], "failing");
    assert_eq!(answer["why"], "it was reported");
    let answer = scene.say(USER, json!({"command": "load", "app": "shop", "load": 40}));
    assert_eq!(answer["load"], 40);
    let answer = scene.say(
        USER,
        json!({"command": "capacity", "app": "shop", "capacity": 9}),
    );
    assert_eq!(answer["capacity"], 9);
    let answer = scene.say(USER, json!({"command": "drain", "app": "shop"}));
    assert_eq!(
        (&answer["target"], &answer["current"]),
        (&json!("draining"), &json!("active"))
    );
    let answer = scene.say(
        USER,
        json!({"command": "drain", "app": "shop", "state": "inactive"}),
    );
    assert_eq!(answer["target"], "inactive");
    let answer = scene.say(USER, json!({"command": "undo", "app": "shop"}));
    assert_eq!(answer["target"], "active");
    let all = scene.say(USER, json!({"command": "show"}));
    assert_eq!(all["apps"].as_array().unwrap().len(), 3);
    scene.say(USER, json!({"command": "unregister", "app": "shop"}));
    scene.refuses(
        USER,
        json!({"command": "show", "app": "shop"}),
        "there is no application shop",
    );
}

#[test]
fn the_worst_of_checks_and_reports_counts() {
    let mut scene = Scene::new(&Saved::default());
    assert!(!scene.host.is_known());
    for (index, health, all) in [
        (0, Health::Healthy, "unknown"),
        (1, Health::Healthy, "healthy"),
        (0, Health::Failing, "failing"),
        (0, Health::Healthy, "healthy"),
    ] {
        scene.found(index, health);
        assert_eq!(scene.app("web")["health"], all);
    }
    assert!(scene.host.is_known());
    scene.say(
        ROOT,
        json!({"command": "health", "app": "web", "health": "failing"}),
    );
    assert_eq!(scene.app("web")["health"], "failing");
    scene.say(
        ROOT,
        json!({"command": "health", "app": "web", "health": "healthy"}),
    );
    scene.found(1, Health::Failing);
    assert_eq!(scene.app("web")["why"], "it is away");
    // There is no such check, or none any more.
    scene.found(2, Health::Healthy);
    assert_eq!(scene.app("web")["health"], "failing");
}

#[test]
fn what_a_connection_holds_ends_with_it() {
    let mut scene = Scene::new(&Saved::default());
    let mut held = shop(1);
    held["hold"] = true.into();
    scene.say(USER, held.clone());
    let again = Caller {
        connection: 9,
        ..USER
    };
    scene.say(again, held);
    scene.host.closed(scene.now, USER);
    assert_eq!(scene.app("shop")["health"], "healthy");
    scene.host.closed(scene.now, again);
    assert!(scene.app("shop")["error"].is_string());
}

#[test]
fn a_new_configuration_leaves_what_is_the_same() {
    let mut scene = Scene::new(&Saved::default());
    scene.say(USER, shop(60));
    scene.found(0, Health::Healthy);
    scene.found(1, Health::Healthy);
    let ids = |scene: &mut Scene| {
        let all = scene.say(ROOT, json!({"command": "show"}));
        let apps = all["apps"].as_array().unwrap().iter();
        apps.map(|app| format!("{} {} {}", app["app"], app["id"], app["health"]))
            .collect::<Vec<_>>()
    };
    let before = ids(&mut scene);
    scene.host.reload(scene.now, check(GOOD).unwrap());
    assert_eq!(ids(&mut scene), before);
    // One that had registered under another name is the same row.
    scene.say(
        ROOT,
        json!({"command": "register", "app": "early", "vip": "192.0.2.12:80"}),
    );
    let late = "[[app]]\nname = \"late\"\nvip = \"192.0.2.12:80/tcp\"\n";
    let more = format!("{GOOD}{late}");
    scene.host.reload(scene.now, check(&more).unwrap());
    assert!(scene.app("early")["error"].is_string());
    assert_eq!(scene.app("late")["registered"], false);
    scene.host.reload(scene.now, check(GOOD).unwrap());
    assert_eq!(ids(&mut scene), before);
    // Another identity is another row; what is not there any more goes; the file takes what had registered.
    let text = GOOD
        .replace("[[app]]\nname = \"plain\"", "[[app]]\nname = \"shop\"")
        .replace("192.0.2.10:80/tcp", "192.0.2.10:81/tcp");
    scene.host.reload(scene.now, check(&text).unwrap());
    let after = ids(&mut scene);
    assert_eq!(after.len(), 2);
    assert!(
        after[0].starts_with("\"shop\"") && after[0].ends_with("\"healthy\""),
        "{after:?}"
    );
    assert!(
        after[1].starts_with("\"web\"") && after[1].ends_with("\"unknown\""),
        "{after:?}"
    );
    scene.refuses(
        USER,
        json!({"command": "undo", "app": "shop"}),
        "not an application of",
    );
}

#[test]
fn results_in_a_row_count() {
    let check = Check {
        probe: Probe::Tcp("10.0.2.2:80".parse().unwrap()),
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        rise: 2,
        fall: 3,
    };
    let mut hysteresis = Hysteresis::after(Health::Unknown);
    let all = [
        (true, Some(true)),
        (false, None),
        (false, None),
        (true, None),
        (false, None),
        (false, None),
        (false, Some(false)),
        (false, None),
        (true, None),
        (false, None),
        (true, None),
        (true, Some(true)),
    ];
    for (index, (result, verdict)) in all.into_iter().enumerate() {
        assert_eq!(hysteresis.take(&check, result), verdict, "{index}");
    }
    let unknown = || Hysteresis::after(Health::Unknown);
    assert_eq!(unknown().take(&check, false), Some(false));
    // What was known before is no result.
    let mut healthy = Hysteresis::after(Health::Healthy);
    let results: Vec<_> = (0..3).map(|_| healthy.take(&check, false)).collect();
    assert_eq!(results, [None, None, Some(false)]);
    assert_eq!(Hysteresis::after(Health::Failing).take(&check, true), None);
}
