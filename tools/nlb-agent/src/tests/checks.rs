// SPDX-License-Identifier: MIT OR Apache-2.0

//! Checks: what is made of answers, and what is left of commands.

use super::*;
use crate::check::{judge, Get, Miss};
use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
};

#[test]
fn answers_are_judged() {
    let answer = b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\nall is ready";
    for (status, body, is_good) in [
        (&[][..], None, true),
        (&[204], Some("ready"), true),
        (&[200], None, false),
        (&[], Some("y\r\n"), false),
        (&[], Some(""), true),
    ] {
        assert_eq!(
            judge(answer, status, body, true).unwrap().is_ok(),
            is_good,
            "{status:?} {body:?}"
        );
    }
    let moved = b"HTTP/1.1 301 Moved\r\n\r\n";
    assert_eq!(
        judge(moved, &[], None, false),
        Some(Err("status 301".to_owned()))
    );
    for broken in [&b""[..], b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nX: y\r\n"] {
        assert!(judge(broken, &[], None, true).unwrap().is_err());
    }
}

/// As soon as it is clear: not everybody ends the connection.
#[test]
fn answers_are_judged_before_they_end() {
    let of = |head: &str, body: &str| {
        let answer = format!("HTTP/1.1 200 OK\r\n{head}\r\n{body}");
        let verdict = judge(answer.as_bytes(), &[], Some("ready"), false);
        verdict.map(|verdict| verdict.is_ok())
    };
    for (head, body, expected) in [
        ("", "is rea", None),
        ("", "is ready", Some(true)),
        ("Content-Length: 9\r\n", "is not re", Some(false)),
        ("content-length: 9\r\n", "is not r", None),
        ("Content-Length: 5\r\n", "is ready", Some(false)),
        ("Content-Length: x\r\n", "is not", None),
        // The text may be in several chunks.
        (
            "Transfer-Encoding: chunked\r\n",
            "5\r\nis re\r\n3;x\r\nady\r\n",
            Some(true),
        ),
        ("Transfer-Encoding: chunked\r\n", "8\r\nis rea", None),
        (
            "Transfer-Encoding: chunked\r\n",
            "2\r\nis\r\n0\r\nready\r\n",
            Some(false),
        ),
        (
            "Transfer-Encoding: chunked\r\n",
            "ffffffffffffffff\r\nis",
            None,
        ),
        ("Transfer-Encoding: chunked\r\n", "x\r\nready", None),
    ] {
        assert_eq!(of(head, body), expected, "{head:?} {body:?}");
    }
    let begun = b"HTTP/1.1 200 OK\r\nX: y\r\n";
    assert_eq!(judge(begun, &[], None, false), None);
    let other = judge(b"SSH-2.0-x\r\n", &[], None, false);
    assert!(other.unwrap().is_err());
}

pub(super) fn look(probe: &Probe, limit: Duration) -> Option<Result<(), Miss>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let looked = async { tokio::time::timeout(limit, probe.look()).await.ok() };
    runtime.unwrap().block_on(looked)
}

pub(super) const LONG: Duration = Duration::from_secs(60);

/// The agent cannot look, for lack of something: the application is what it was, but not for ever.
#[test]
fn who_cannot_look_knows_nothing_after_a_while() {
    let check = Check {
        probe: Probe::Command(vec!["/none/at/all".to_owned()]),
        interval: LONG,
        timeout: LONG,
        rise: 2,
        fall: 2,
    };
    let blind = || Err(Miss::Blind("no room".to_owned()));
    let mut hysteresis = Hysteresis::after(Health::Healthy);
    for _ in 0..3 {
        let results = (0..19).map(|_| hysteresis.look(&check, blind()));
        assert!(results.flatten().next().is_none());
        assert_eq!(hysteresis.look(&check, Ok(())), None);
    }
    assert!((0..19).all(|_| hysteresis.look(&check, blind()).is_none()));
    let why = Some("cannot look: no room".to_owned());
    assert_eq!(
        hysteresis.look(&check, blind()),
        Some((Health::Unknown, why))
    );
    assert!((0..100).all(|_| hysteresis.look(&check, blind()).is_none()));
    // The first look that comes to something counts.
    let bad = Err(Miss::Bad("away".to_owned()));
    let why = Some("away".to_owned());
    assert_eq!(hysteresis.look(&check, bad), Some((Health::Failing, why)));
    assert_eq!(hysteresis.look(&check, Ok(())), None);
    assert_eq!(
        hysteresis.look(&check, Ok(())),
        Some((Health::Healthy, None))
    );
}

/// The connection stays open, and is reset afterwards.
#[test]
fn who_has_answered_need_not_end() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let probe = Probe::Http {
        address: listener.local_addr().unwrap(),
        tls: None,
        get: Get {
            path: "/".to_owned(),
            host: "x".to_owned(),
            status: Vec::new(),
            body: Some("ready".to_owned()),
        },
    };
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        assert!(stream.read(&mut request).unwrap() > 0);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nready")
            .unwrap();
        // Until the other one has enough of it.
        let _ = stream.read(&mut request);
    });
    assert_eq!(look(&probe, LONG), Some(Ok(())));
    server.join().unwrap();
    // Nobody listens any more.
    assert!(matches!(look(&probe, LONG), Some(Err(Miss::Bad(_)))));
}

#[test]
fn commands_end_with_all_that_they_have_begun() {
    let command = |script: &str| {
        let words = ["/bin/sh", "-c", script];
        Probe::Command(words.map(str::to_owned).to_vec())
    };
    assert_eq!(look(&command("exit 0"), LONG), Some(Ok(())));
    assert!(matches!(
        look(&command("exit 3"), LONG),
        Some(Err(Miss::Bad(_)))
    ));
    let none = Probe::Command(vec!["/none/at/all".to_owned()]);
    assert!(matches!(look(&none, LONG), Some(Err(Miss::Bad(_)))));
    let file = path().with_file_name("child");
    let script = format!("sleep 1000 & echo $! >{}; wait", file.display());
    let mut limit = Duration::from_millis(100);
    let child = loop {
        assert_eq!(look(&command(&script), limit), None);
        // A machine that is busy may not have come so far.
        match fs::read_to_string(&file) {
            Ok(child) if child.ends_with('\n') => break child,
            _ => limit *= 2,
        }
    };
    // It has ended, though perhaps nobody has asked how.
    let is_running = || {
        let status = fs::read_to_string(format!("/proc/{}/stat", child.trim()));
        status.is_ok_and(|status| !status.contains(") Z "))
    };
    for _ in 0..1000 {
        if !is_running() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("process {child} goes on");
}
