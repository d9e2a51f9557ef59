// SPDX-License-Identifier: MIT OR Apache-2.0

//! HAProxy's runtime API: what it answers goes in, byte by byte as HAProxy 3.0 does, and what it is asked comes out.

use super::{
    plans::{self, PANIC},
    Pair,
};
use crate::health::{
    allot::Orders,
    balancer::{apply, Applied, Balancer},
    follower::{Follower, Kind},
    haproxy::{answers, process, servers, Address, Entry, Haproxy, Server},
    plan::{Gone, Known, Place},
};
use nlb_health::row::{Directive, Health, Status};
use nlb_netlink::EndpointState;
use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

const INFO: &str = "Name: HAProxy\nVersion: 3.0.11-1+deb13u4\nNbthread: 2\nPid: 25051\nUptime: 0d 0h00m02s\n\
    Uptime_sec: 2\nnode: vm\nStopping: 0\nJobs: 6\nUnstoppable Jobs: 0\nStart_time_sec: 1795961315\n";
const HEAD: &str = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight \
    srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state \
    srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port \
    srv_check_addr srv_agent_addr srv_agent_port\n";
const ASK: &str = "show info; show servers state web\n";

use EndpointState::{Active, Draining, Inactive};

/// What is shown of servers 10.0.0.1:80 and 10.0.0.2:80.
fn shown(info: &str, one: (u32, u32), two: (u32, u32)) -> String {
    let line = |number: u32, (admin, weight): (u32, u32)| {
        format!(
            "3 web {number} s{number} 10.0.0.{number} 2 {admin} {weight} 1 2 1 0 2 0 0 0 0 - 80 - 0 0 - - 0\n"
        )
    };
    format!("{info}\n{HEAD}{}{}\n", line(1, one), line(2, two))
}

/// A HAProxy that answers exactly this, in turn, and nothing more.
struct Script {
    path: PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Script {
    fn new(name: &str, all: Vec<String>) -> Self {
        let path = std::env::temp_dir().join(format!("nlbd-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        thread::spawn(move || {
            for answer in all {
                let (mut peer, _) = listener.accept().unwrap();
                let mut line = String::new();
                BufReader::new(&peer).read_line(&mut line).unwrap();
                log.lock().unwrap().push(line);
                // Who has read enough is gone.
                let _ = peer.write_all(answer.as_bytes());
            }
        });
        Self { path, asked }
    }

    fn haproxy(&self) -> Haproxy {
        Haproxy::new(entry(Address::Unix(self.path.clone())))
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn entry(address: Address) -> Entry {
    Entry {
        address,
        backend: "web".to_owned(),
        service: "192.0.2.10:80/tcp".parse().unwrap(),
        has_weights: true,
        timeout: Duration::from_secs(20),
    }
}

/// As nlbd does it: beside the runtime.
fn run(mut haproxy: Haproxy, known: &Known) -> (Haproxy, Applied) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let known = known.clone();
    let running = runtime.block_on(async move {
        tokio::task::spawn_blocking(move || {
            let applied = apply(&mut haproxy, known, PANIC, &Orders::new());
            (haproxy, applied)
        })
        .await
    });
    running.unwrap()
}

fn place(last: u8) -> Place {
    super::web(last)
}

fn row(last: u8, health: Health, target: Directive, capacity: u8) -> (Place, Status) {
    let status = Status {
        health,
        load: 0,
        capacity,
        target,
        current: Directive::Active,
    };
    (place(last), status)
}

fn rows(rows: Vec<(Place, Status)>) -> Known {
    Known {
        rows,
        ..Known::default()
    }
}

#[test]
fn states_are_read() {
    let text = format!(
        "{HEAD}\
        3 web 1 a 10.0.0.1 0 1 40 1 0 1 0 0 0 0 0 0 - 80 - 0 0 - - 0\n\
        3 web 2 b 10.0.0.2 0 5 1 1 2 1 0 0 8 0 0 0 - 8080 - 0 0 - - 0\n\
        3 web 3 c-3.x:y_z 10.0.0.3 2 8 1 1 2 1 0 2 0 0 0 0 - 0 - 0 0 - - 0\n\
        3 web 4 d 2001:db8::1 2 4 256 1 2 1 0 2 0 0 0 0 - 80 - 0 0 - - 0\n\
        3 web 5 e - 2 0 1 1 2 1 0 2 0 0 0 0 - 0 - 0 0 - - 0\n\
        3 web 6 f 10.0.0.6 0 32 1 1 2 1 0 2 0 0 0 0 f.example 80 - 0 0 - - 0\n"
    );
    let server = |name: &str, host: &str, port, state, weight| Server {
        name: name.to_owned(),
        host: host.parse().unwrap(),
        port,
        state,
        weight,
    };
    assert_eq!(
        servers(&text, "web"),
        Ok(vec![
            server("a", "10.0.0.1", 80, Inactive, 40),
            server("b", "10.0.0.2", 8080, Inactive, 1),
            server("c-3.x:y_z", "10.0.0.3", 0, Draining, 1),
            server("d", "2001:db8::1", 80, Active, 256),
            server("f", "10.0.0.6", 80, Active, 1),
        ])
    );
    let with = |line: &str| servers(&format!("{HEAD}{line}\n"), "web").unwrap_err();
    for line in [
        "",
        "3 web 1 a 10.0.0.1 0",
        "3 web 1 a 10.0.0.1 0 x 40 1 0 1 0 0 0 0 0 0 - 80 - 0 0 - - 0",
        "3 web 1 a 10.0.0.1 0 1 -1 1 0 1 0 0 0 0 0 0 - 80 - 0 0 - - 0",
        "3 web 1 a 10.0.0.1 0 1 1 1 0 1 0 0 0 0 0 0 - 65536 - 0 0 - - 0",
        "3 web 1 a;quit 10.0.0.1 0 1 1 1 0 1 0 0 0 0 0 0 - 80 - 0 0 - - 0",
        "3 other 1 a 10.0.0.1 0 1 1 1 0 1 0 0 0 0 0 0 - 80 - 0 0 - - 0",
    ] {
        assert!(with(line).contains("not a line of"), "{line}");
    }
    assert!(servers("Can't find backend.", "web")
        .unwrap_err()
        .contains("no backend web"));
    for text in ["", "2\n", "Unknown command: 'show'\n", "Permission denied"] {
        assert!(
            servers(text, "web").unwrap_err().contains("format"),
            "{text}"
        );
    }
}

#[test]
fn answers_are_told_apart() {
    assert_eq!(answers("\n", 1), Some(vec![""]));
    assert_eq!(answers("\n\n", 2), Some(vec!["", ""]));
    let text = "\n\n\nNo such server.\n\n\n";
    assert_eq!(
        answers(text, 5),
        Some(vec!["", "", "", "No such server.", ""])
    );
    assert_eq!(answers("a\nb\n\n", 1), Some(vec!["a\nb"]));
    for (text, count) in [
        ("", 1),
        ("\n", 2),
        ("\n\n", 1),
        ("a", 1),
        ("a\n", 1),
        ("a\n\nb\n", 2),
    ] {
        assert_eq!(answers(text, count), None, "{text:?} {count}");
    }
}

#[test]
fn processes_are_told_apart() {
    let other = INFO.replace("25051", "25052");
    let later = INFO.replace("1795961315", "1795961316");
    let longer = INFO.replace("Uptime_sec: 2", "Uptime_sec: 3");
    assert_eq!(process(INFO), process(&longer));
    assert!(process(INFO) != process(&other) && process(INFO) != process(&later));
    assert!(process(INFO).is_ok() && process("Permission denied").is_err());
    let stopping = INFO.replace("Stopping: 0", "Stopping: 1");
    assert!(process(&stopping).unwrap_err().contains("about to end"));
}

#[test]
fn only_what_differs_is_told() {
    let script = Script::new(
        "differs",
        vec![
            shown(INFO, (0, 1), (1, 40)),
            "\n\n".to_owned(),
            "\n".to_owned(),
            shown(INFO, (8, 1), (0, 40)),
            shown(INFO, (8, 1), (0, 40)),
            "\n\n".to_owned(),
            "\n\n".to_owned(),
        ],
    );
    let known = rows(vec![
        row(1, Health::Failing, Directive::Active, 30),
        row(2, Health::Healthy, Directive::Active, 50),
    ]);
    let (haproxy, applied) = run(script.haproxy(), &known);
    assert_eq!(applied.trouble, None);
    assert_eq!(applied.plan.effects[&place(2)].weight, Some(50));
    // Who gets connections comes first.
    let told = [
        "set server web/s2 weight 50; set server web/s2 state ready\n",
        "set server web/s1 state drain\n",
    ];
    assert_eq!(script.asked(), [ASK, told[0], told[1]]);
    let known = rows(vec![
        row(1, Health::Failing, Directive::Active, 30),
        row(2, Health::Healthy, Directive::Active, 40),
    ]);
    let (haproxy, applied) = run(haproxy, &known);
    assert_eq!(
        (applied.trouble, script.asked()),
        (None, vec![ASK.to_owned()])
    );
    let known = rows(vec![
        row(1, Health::Healthy, Directive::Active, 30),
        row(2, Health::Healthy, Directive::Inactive, 40),
    ]);
    let (_, applied) = run(haproxy, &known);
    assert_eq!(applied.trouble, None);
    let told = [
        "set server web/s1 weight 30; set server web/s1 state ready\n",
        "set server web/s2 state maint; shutdown sessions server web/s2\n",
    ];
    assert_eq!(script.asked(), [ASK, told[0], told[1]]);
}

/// Nobody has said anything of the others, nor of these ports.
#[test]
fn servers_without_rows_are_left_alone() {
    let script = Script::new("alone", vec![shown(INFO, (0, 7), (1, 9))]);
    let mut known = rows(vec![row(3, Health::Healthy, Directive::Active, 30)]);
    let (mut other, status) = row(1, Health::Failing, Directive::Draining, 30);
    other.physical.set_port(8080);
    known.rows.push((other, status));
    let (_, applied) = run(script.haproxy(), &known);
    assert_eq!((applied.trouble, applied.plan.effects.len()), (None, 0));
    assert_eq!(script.asked(), [ASK]);
}

#[test]
fn without_weights() {
    let script = Script::new(
        "weights",
        vec![shown(INFO, (8, 1), (0, 1)), "\n".to_owned()],
    );
    let haproxy = Haproxy::new(Entry {
        has_weights: false,
        ..entry(Address::Unix(script.path.clone()))
    });
    let (_, applied) = run(
        haproxy,
        &rows(vec![row(1, Health::Healthy, Directive::Active, 30)]),
    );
    assert_eq!(
        (applied.trouble, applied.plan.effects[&place(1)].weight),
        (None, None)
    );
    assert_eq!(script.asked(), [ASK, "set server web/s1 state ready\n"]);
}

/// A process that does not know what the one before was told is no decision of somebody's.
#[test]
fn a_new_process_is_told_again() {
    let other = INFO.replace("25051", "25052");
    for silent in [Some(Directive::Active), None] {
        let script = Script::new(
            &format!("process-{}", silent.is_some()),
            vec![
                shown(INFO, (0, 1), (0, 1)),
                "\n".to_owned(),
                shown(INFO, (8, 1), (0, 1)),
                shown(&other, (0, 1), (0, 1)),
                "\n".to_owned(),
                shown(&other, (0, 1), (0, 1)),
            ],
        );
        let mut known = rows(vec![row(2, Health::Healthy, Directive::Active, 1)]);
        let (key, set) = ((place(1), super::HOST), Some(Draining));
        known.gone.insert(key, Gone { silent, set: None });
        let drain = "set server web/s1 state drain\n";
        let mut haproxy = script.haproxy();
        for (told, is_there) in [
            (Some(drain), true),
            (None, true),
            (Some(drain), true),
            (None, false),
        ] {
            let (same, applied) = run(haproxy, &known);
            haproxy = same;
            assert_eq!(applied.trouble, None);
            let mut asked = vec![ASK];
            asked.extend(told);
            assert_eq!(script.asked(), asked);
            // What the same process does otherwise is.
            assert_eq!(applied.plan.effects.contains_key(&place(1)), is_there);
            let after = is_there.then_some(Gone { silent, set });
            assert_eq!(applied.gone.get(&key), after.as_ref());
            known.gone = applied.gone;
        }
    }
}

#[test]
fn what_goes_wrong_is_said() {
    let known = rows(vec![
        row(1, Health::Healthy, Directive::Active, 30),
        row(2, Health::Healthy, Directive::Draining, 30),
    ]);
    let seen = || shown(INFO, (0, 1), (0, 30));
    let all: Vec<(&str, Vec<String>, usize, &str)> = vec![
        ("level", vec![seen(), "Permission denied\n\n".to_owned()], 2, "`level admin`"),
        (
            "static",
            vec![
                seen(),
                "Backend is using a static LB algorithm and only accepts weights '0%' and '100%'.\n\n".to_owned(),
                "\n".to_owned(),
            ],
            3,
            "weights = false",
        ),
        ("backend", vec![format!("{INFO}\nCan't find backend.\n\n")], 1, "no backend web"),
        ("part", vec![seen().replace("- - 0\n\n", "- - 0\n")], 1, "only a part"),
        ("nothing", vec![String::new()], 1, "only a part"),
        ("long", vec!["x".repeat(5 << 20)], 1, "longer than"),
        (
            "removed",
            (0..3)
                .flat_map(|_| [seen(), "No such server.\n\n".to_owned(), "\n".to_owned()])
                .collect(),
            9,
            "removed all the time",
        ),
    ];
    for (name, answers, count, expected) in all {
        let script = Script::new(name, answers);
        let (_, applied) = run(script.haproxy(), &known);
        let trouble = applied.trouble.unwrap();
        assert!(trouble.contains(expected), "{name}: {trouble}");
        assert_eq!(script.asked().len(), count, "{name}");
    }
    // Nobody there; and nobody who answers.
    let nowhere = entry(Address::Unix("/nonexistent/socket".into()));
    let (_, applied) = run(Haproxy::new(nowhere), &known);
    assert!(applied.trouble.unwrap().contains("does it run"));
    let path = std::env::temp_dir().join(format!("nlbd-{}-silent", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    let silent = Entry {
        timeout: Duration::from_millis(100),
        ..entry(Address::Unix(path.clone()))
    };
    // There is a place to wait in only for the second one.
    rustix::net::listen(&listener, 0).unwrap();
    let _waits = UnixStream::connect(&path).unwrap();
    for _ in 0..2 {
        let (_, applied) = run(Haproxy::new(silent.clone()), &known);
        assert!(applied.trouble.unwrap().contains("no answer within 100 ms"));
        rustix::net::listen(&listener, 1).unwrap();
    }
    drop(listener);
    std::fs::remove_file(&path).unwrap();
}

fn kind(vip: &str) -> Kind {
    Kind::Haproxy(Entry {
        service: vip.parse().unwrap(),
        ..entry(Address::Unix("/nonexistent/socket".into()))
    })
}

/// Who has been told nothing of a VIP has nothing to confirm either; who should have been told has.
#[test]
fn hosts_wait_for_all_balancers_that_it_concerns() {
    for (vip, expected) in [
        ("192.0.2.10:81/tcp", Directive::Draining),
        ("192.0.2.10:80/tcp", Directive::Active),
    ] {
        let mut pair = Pair::with(vec![Kind::Forwarder, kind(vip)]);
        pair.pass(8000);
        pair.apply();
        let app = pair.app;
        pair.drain(app);
        pair.pass(1000);
        pair.apply();
        pair.pass(1000);
        assert_eq!(pair.current(app), expected, "{vip}");
        // The second one follows, too.
        follow(&mut pair, 1);
        pair.pass(1000);
        assert_eq!(pair.current(app), Directive::Draining, "{vip}");
    }
}

/// It has been told, too.
fn follow(pair: &mut Pair, number: usize) {
    let known = pair.handler.known(number);
    let version = pair.handler.lbu.cache().version();
    let applied = Applied {
        is_through: true,
        ..Applied::default()
    };
    let done = Ok((kind_balancer(), known.gone, applied));
    pair.handler.end(number, version, done);
}

/// A HAProxy that does not answer is nothing to applications of others, whatever becomes of its own.
#[test]
fn who_does_not_answer_keeps_those_of_others_from_nothing() {
    let mut pair = Pair::with(vec![Kind::Forwarder, kind("192.0.2.10:81/tcp")]);
    let (app, mut other) = (pair.app, plans::place("192.0.2.10:81", "10.0.0.1:81"));
    let of_other = pair.add(other, "");
    other.physical.set_port(82);
    let going = pair.add(other, "");
    pair.pass(8000);
    pair.apply();
    let now = pair.now;
    let agent = pair.agent();
    agent.set_health(now, of_other, Health::Failing).unwrap();
    agent.remove(now, going).unwrap();
    pair.pass(1000);
    pair.apply();
    pair.drain(app);
    pair.drain(of_other);
    pair.pass(1000);
    // Nor is anything confirmed that the forwarder does not have.
    pair.pass(20_000);
    assert_eq!(pair.current(app), Directive::Active);
    pair.apply();
    pair.pass(1000);
    assert_eq!(pair.current(app), Directive::Draining);
    pair.pass(20_000);
    assert_eq!(pair.current(of_other), Directive::Active);
    follow(&mut pair, 1);
    pair.pass(1000);
    assert_eq!(pair.current(of_other), Directive::Draining);
}

/// Who follows instead of one that does not answer has been told nothing, either.
#[test]
fn who_follows_from_now_on_confirms_nothing_before_it_is_told() {
    let mut pair = Pair::with(vec![kind("192.0.2.10:80/tcp")]);
    pair.pass(8000);
    follow(&mut pair, 0);
    let app = pair.app;
    pair.drain(app);
    pair.pass(20_000);
    assert_eq!(pair.current(app), Directive::Active);
    pair.handler.govern(vec![Kind::Forwarder]);
    pair.pass(20_000);
    assert_eq!(pair.current(app), Directive::Active);
    pair.apply();
    pair.pass(1000);
    assert_eq!(pair.current(app), Directive::Draining);
}

fn kind_balancer() -> Box<dyn Balancer> {
    Box::new(Haproxy::new(entry(Address::Unix(
        "/nonexistent/socket".into(),
    ))))
}

/// What is the same goes on with what it knows when the configuration is read again.
#[test]
fn reload() {
    let mut pair = Pair::with(vec![kind("192.0.2.10:80/tcp"), Kind::Forwarder]);
    pair.pass(1000);
    pair.apply();
    pair.die();
    assert!(pair.gone().is_some());
    let new = kind("192.0.2.10:81/tcp");
    pair.handler
        .govern(vec![new.clone(), kind("192.0.2.10:80/tcp")]);
    let followers: &[Follower] = &pair.handler.followers;
    assert_eq!((&followers[0].kind, followers[0].gone().len()), (&new, 0));
    assert_eq!((followers.len(), followers[1].gone().len()), (2, 1));
    // Who comes later knows who is gone, and has done nothing for it yet.
    let all = vec![new, kind("192.0.2.10:80/tcp"), Kind::Forwarder];
    pair.handler.govern(all);
    let gone = pair.handler.followers[2].gone();
    let silent = Some(Directive::Active);
    let after = Gone { silent, set: None };
    assert_eq!(gone.get(&(place(1), super::HOST)), Some(&after));
}
