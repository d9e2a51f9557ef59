// SPDX-License-Identifier: MIT OR Apache-2.0

//! What those are told who watch: by the handler alone, and by nlbd's socket.

use super::{
    at,
    plans::{web, WEB},
    row, Pair, HOST,
};
use crate::health::{
    self,
    balancer::{apply, Balancer, Refused, Seen, Trouble},
    config::Config,
    forwarder::Forwarder,
    plan::{Change, Seat},
};
use nlb_daemon::{
    config::Source,
    feed::{Watch, WATCHERS_MAX},
};
use nlb_health::{
    agent::AgentConfig,
    row::{AppId, Health},
    seal::Keys,
    Agent,
};
use nlb_netlink::EndpointState;
use serde_json::{json, Value};
use std::{
    future::Future,
    io::{BufRead, BufReader, Write},
    net::UdpSocket,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    sync::mpsc,
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

/// What there is to be told now, without the time, which is another each time.
fn told(watch: &mut Watch) -> Vec<Value> {
    let mut events = Vec::new();
    loop {
        let next = std::pin::pin!(watch.next());
        let Poll::Ready(line) = next.poll(&mut Context::from_waker(Waker::noop())) else {
            return events;
        };
        events.push(event(&line));
    }
}

fn event(line: &str) -> Value {
    let mut event: Value = serde_json::from_str(line).unwrap();
    let time = event.as_object_mut().unwrap().remove("time");
    assert!(time.is_none_or(|time| time.as_f64().unwrap() > 1e9));
    event
}

/// The kernel's forwarder, with two endpoints.
struct Two([EndpointState; 2]);

impl Balancer for Two {
    fn look(&mut self) -> Result<Seen, Trouble> {
        let all = self.0.iter().zip(1..);
        let all = all.map(|(state, last)| crate::tests::endpoint(WEB, last, *state, 50));
        Ok(Seen {
            services: vec![WEB.parse().unwrap()],
            seats: all.map(|endpoint| Seat::from(&endpoint)).collect(),
            is_new: false,
        })
    }

    fn set(&mut self, change: &Change) -> Result<(), Refused> {
        if let Some(state) = change.change.state {
            self.0[change.number] = state;
        }
        Ok(())
    }
}

/// A plan is made and carried out, as it is with the forwarder.
fn follow(pair: &mut Pair, two: &mut Two, trouble: Option<&str>) {
    let known = pair.handler.known(0);
    let begun = known.gone.clone();
    let version = pair.handler.lbu.cache().version();
    let orders = pair.handler.orders.clone();
    let mut applied = apply(two, known, pair.handler.panic, &orders);
    applied.trouble = trouble.map(str::to_owned);
    let balancer: Box<dyn Balancer> = Box::new(Forwarder::default());
    pair.handler.end(0, version, Ok((balancer, begun, applied)));
    pair.handler.tell_trouble();
}

#[test]
fn all_that_happens_is_told_with_its_cause() {
    use EndpointState::{Active, Draining};
    let mut pair = Pair::new();
    let config = AgentConfig {
        drain_when_failing: false,
        ..AgentConfig::new(HOST, 1, vec![at(1)])
    };
    pair.agent = Some(Agent::new(pair.now, config, keys(), [7; 32]));
    pair.app = pair.add(web(1), "");
    let mut two = Two([Draining, Active]);
    let (begin, watch) = pair.handler.watched(9);
    let mut watch = watch.unwrap();
    let expected = json!({"event": "watching", "lbu": 9, "version": 0, "trouble": null});
    assert_eq!(begin, expected);
    let other = pair.add(web(2), "");
    pair.pass(2000);
    let mut row = json!({
        "event": "row", "change": "added", "host": HOST, "name": null, "id": pair.app.0,
        "vip": WEB, "physical": "10.0.0.1:80", "protocol": "http", "detail": "",
        "health": "healthy", "load": 0, "capacity": 50, "target": "active", "current": "active",
    });
    let events = told(&mut watch);
    assert!(events.contains(&row), "{events:?}");
    let up = json!({"event": "host", "host": HOST, "name": null, "state": "up"});
    assert_eq!((events.len(), &events[2]), (3, &up));
    let endpoint = |last: u8, state: &str, cause: &str| {
        json!({
            "event": "endpoint", "balancer": "the forwarder", "service": WEB,
            "endpoint": format!("10.0.0.{last}"), "state": state, "cause": cause,
        })
    };
    follow(&mut pair, &mut two, None);
    assert_eq!(told(&mut watch), [endpoint(1, "active", "healthy")]);
    // Nothing is another.
    follow(&mut pair, &mut two, None);
    assert_eq!(told(&mut watch), [json!(null); 0]);
    let (app, now) = (pair.app, pair.now);
    pair.agent().set_health(now, app, Health::Failing).unwrap();
    pair.pass(1000);
    row["change"] = "updated".into();
    row["health"] = "failing".into();
    assert_eq!(told(&mut watch), [row.clone()]);
    follow(&mut pair, &mut two, None);
    assert_eq!(told(&mut watch), [endpoint(1, "draining", "failing")]);
    // More than half of them.
    let now = pair.now;
    pair.agent()
        .set_health(now, other, Health::Failing)
        .unwrap();
    pair.pass(1000);
    told(&mut watch);
    follow(&mut pair, &mut two, None);
    let panic = |panic: bool| json!({"event": "panic", "service": WEB, "panic": panic});
    assert_eq!(
        told(&mut watch),
        [endpoint(1, "active", "panic"), panic(true)]
    );
    for app in [app, other] {
        pair.agent().set_health(now, app, Health::Healthy).unwrap();
    }
    pair.pass(1000);
    told(&mut watch);
    follow(&mut pair, &mut two, Some("no room"));
    let trouble = json!({"event": "trouble", "trouble": "the forwarder does not follow: no room"});
    assert_eq!(told(&mut watch), [panic(false), trouble]);
    follow(&mut pair, &mut two, Some("no room"));
    assert_eq!(told(&mut watch), [json!(null); 0]);
    follow(&mut pair, &mut two, None);
    let over = json!({"event": "trouble", "trouble": null});
    assert_eq!(told(&mut watch), [over]);
    // One row goes, and then the host is silent.
    let now = pair.now;
    pair.agent().remove(now, other).unwrap();
    pair.pass(1000);
    let gone = |change: &str, app: AppId, last: u8| {
        let physical = format!("10.0.0.{last}:80");
        json!({
            "event": "row", "change": change, "host": HOST, "id": app.0, "vip": WEB,
            "physical": physical,
        })
    };
    assert_eq!(told(&mut watch), [gone("removed", other, 2)]);
    follow(&mut pair, &mut two, None);
    assert_eq!(told(&mut watch), [endpoint(2, "draining", "gone")]);
    pair.die();
    let down =
        |cause: &str| json!({"event": "host", "host": HOST, "state": "down", "cause": cause});
    assert_eq!(told(&mut watch), [gone("lost", app, 1), down("silent")]);
    pair.start(2);
    pair.pass(2000);
    follow(&mut pair, &mut two, None);
    told(&mut watch);
    pair.leave();
    let app = pair.app;
    assert_eq!(told(&mut watch), [gone("removed", app, 1), down("goodbye")]);
    follow(&mut pair, &mut two, None);
    assert_eq!(told(&mut watch), [endpoint(1, "draining", "gone")]);
}

#[test]
fn so_many_may_watch() {
    let mut pair = Pair::new();
    let watches: Vec<_> = (0..WATCHERS_MAX)
        .map(|_| pair.handler.watched(9).1.unwrap())
        .collect();
    let (refused, none) = pair.handler.watched(9);
    assert!(none.is_none() && refused["error"].is_string());
    drop(watches);
    assert!(pair.handler.watched(9).1.is_some());
}

/// A host, and the nlbd that it speaks to.
struct Scene {
    folder: PathBuf,
    agent: Agent,
    socket: UdpSocket,
    app: AppId,
}

impl Scene {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("nlbd-events-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let secret = folder.join("health.key");
        std::fs::write(&secret, "0123456789abcdef\n").unwrap();
        std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
        // A port that nobody has.
        let lbu = UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let path = |name: &str| folder.join(name).display().to_string();
        let text = format!(
            "lbu = 9\nlisten = [\"{lbu}\"]\nforwarder = false\nsocket = \"{}\"\nstate = \"{}\"\n\
             [[key]]\nid = 1\nsecret_file = \"health.key\"\n\
             [[haproxy]]\nsocket = \"{}\"\nbackend = \"web\"\nvip = \"192.0.2.10:80/tcp\"\n",
            path("socket"),
            path("state"),
            path("nobody"),
        );
        let file = folder.join("health.toml");
        let config = Config::parse(&Source::new("f", &text), &file).unwrap();
        thread::spawn(move || health::run(&file, config));
        let config = AgentConfig::new(HOST, 1, vec![lbu]);
        Self {
            agent: Agent::new(Instant::now(), config, keys(), [7; 32]),
            folder,
            socket: UdpSocket::bind("127.0.0.1:0").unwrap(),
            app: AppId(0),
        }
    }

    /// Somebody watches.
    fn watch(&self) -> BufReader<UnixStream> {
        let path = self.folder.join("socket");
        let mut stream = connect(&path);
        stream.write_all(b"{\"command\":\"events\"}\n").unwrap();
        let mut reader = BufReader::new(stream);
        let begin = next(&mut reader);
        assert_eq!(
            (&begin["event"], &begin["lbu"]),
            (&json!("watching"), &json!(9))
        );
        reader
    }

    /// The host lives for a moment.
    fn pass(&mut self) {
        let mut buffer = [0; 2048];
        self.agent.handle_timeout(Instant::now());
        while let Some(transmit) = self.agent.poll_transmit() {
            self.socket
                .send_to(&transmit.datagram, transmit.to)
                .unwrap();
        }
        let wait = Duration::from_millis(5);
        self.socket.set_read_timeout(Some(wait)).unwrap();
        if let Ok((len, from)) = self.socket.recv_from(&mut buffer) {
            self.agent
                .handle_datagram(Instant::now(), from, &buffer[..len]);
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn keys() -> Keys {
    Keys::new(1, b"0123456789abcdef").unwrap()
}

/// nlbd needs a moment to be there.
fn connect(path: &Path) -> UnixStream {
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return stream,
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn next(reader: &mut BufReader<UnixStream>) -> Value {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    event(&line)
}

/// Who does not read holds up nobody, and is told what it has lost.
#[test]
fn who_reads_and_who_does_not() {
    let mut scene = Scene::new();
    let (mut slow, mut quick) = (scene.watch(), scene.watch());
    let (sender, events) = mpsc::channel();
    thread::spawn(move || loop {
        if sender.send(next(&mut quick)).is_err() {
            return;
        }
    });
    scene.app = scene
        .agent
        .add(Instant::now(), row(web(1), &"x".repeat(255)))
        .unwrap();
    let wait_for = |scene: &mut Scene, is_it: &dyn Fn(&Value) -> bool| loop {
        scene.pass();
        if events.try_iter().any(|event| is_it(&event)) {
            return;
        }
    };
    wait_for(&mut scene, &|event| event["state"] == "up");
    // More than there is room for, of each of which the other one hears.
    let mut capacity = 0;
    for _ in 0..100 {
        for _ in 0..120 {
            capacity = capacity % 99 + 1;
            let (app, now) = (scene.app, Instant::now());
            scene.agent.set_capacity(now, app, capacity).unwrap();
        }
        let is_last = |event: &Value| event["capacity"] == capacity;
        wait_for(&mut scene, &is_last);
    }
    let lost = loop {
        let event = next(&mut slow);
        if event["event"] == "lost" {
            break event["count"].as_u64().unwrap();
        }
    };
    assert!(lost > 0);
    // It hears of what comes then.
    let (app, now) = (scene.app, Instant::now());
    scene.agent.set_health(now, app, Health::Failing).unwrap();
    wait_for(&mut scene, &|event| event["health"] == "failing");
    while next(&mut slow)["health"] != "failing" {}
}
