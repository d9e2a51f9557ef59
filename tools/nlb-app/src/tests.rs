// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is made of agents that do not behave. `tools/nlb-agent/tests/app.rs` has the real one.

use super::*;
use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(50);

/// A socket that is removed when the test ends.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let name = format!("nlb-app-{}-{name}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    /// Serves so many connections, one after the other.
    fn serve(
        &self,
        connections: usize,
        serve: impl Fn(usize, BufReader<UnixStream>) + Send + 'static,
    ) -> thread::JoinHandle<()> {
        let listener = UnixListener::bind(&self.0).unwrap();
        thread::spawn(move || {
            for index in 0..connections {
                serve(index, BufReader::new(listener.accept().unwrap().0));
            }
        })
    }

    fn open(&self, timeout: Duration) -> Connection {
        Connection::open(&self.0, timeout).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn line(stream: &mut BufReader<UnixStream>) -> Option<String> {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    line.pop().map(|_| line)
}

fn status(load: u8) -> String {
    format!(
        r#"{{"app":"shop","health":"failing","why":"it \"said\" so","load":{load},"capacity":50,"target":"draining","current":"active","registered":true}}"#
    ) + "\n"
}

fn app(place: &Path) -> App {
    App::new(Registration::new("shop", "192.0.2.10:80/tcp"))
        .at(place)
        .with_timeout(LONG)
}

/// Lines that nobody has asked for come in their turn, however long that takes, until there is an end.
#[test]
fn what_happens_is_heard() {
    let place = Place::new("listen");
    let (go, wait) = mpsc::channel();
    let agent = place.serve(1, move |_, mut stream| {
        assert_eq!(line(&mut stream).unwrap(), "watch");
        stream.get_mut().write_all(b"watching\none\ntw").unwrap();
        wait.recv().unwrap();
        stream.get_mut().write_all(b"o\n").unwrap();
    });
    let mut connection = place.open(SHORT);
    assert_eq!(connection.ask("watch").unwrap(), "watching");
    assert_eq!(connection.listen().unwrap(), "one");
    // More than it may take to answer.
    thread::spawn(move || {
        thread::sleep(SHORT * 3);
        go.send(()).unwrap();
    });
    assert_eq!(connection.listen().unwrap(), "two");
    assert!(matches!(connection.listen(), Err(Error::Agent { .. })));
    agent.join().unwrap();
}

#[test]
fn requests_are_lines_of_json() {
    let plain = Registration {
        hold: false,
        ..Registration::new("a\"b\n", "v")
    };
    let whole = Registration {
        physical: Some("[2001:db8::1]:80".parse().unwrap()),
        protocol: Some("http".to_owned()),
        detail: Some("/*".to_owned()),
        capacity: Some(60),
        health: Health::Failing,
        ..Registration::new("shop", "v")
    };
    for (request, line) in [
        (
            Request::Register(&plain),
            r#"{"command":"register","app":"a\"b\u000a","vip":"v","health":"healthy","hold":false}"#,
        ),
        (
            Request::Register(&whole),
            r#"{"command":"register","app":"shop","vip":"v","physical":"[2001:db8::1]:80","protocol":"http","detail":"/*","health":"failing","capacity":60,"hold":true}"#,
        ),
        (
            Request::Unregister("a"),
            r#"{"command":"unregister","app":"a"}"#,
        ),
        (
            Request::Health("a", Health::Unknown),
            r#"{"command":"health","app":"a","health":"unknown"}"#,
        ),
        (
            Request::Load("a", 7),
            r#"{"command":"load","app":"a","load":7}"#,
        ),
        (
            Request::Capacity("a", 0),
            r#"{"command":"capacity","app":"a","capacity":0}"#,
        ),
        (
            Request::Drain("a", Closed::Inactive),
            r#"{"command":"drain","app":"a","state":"inactive"}"#,
        ),
        (Request::Undo("a"), r#"{"command":"undo","app":"a"}"#),
        (Request::Show(None), r#"{"command":"show"}"#),
    ] {
        assert_eq!(request.to_string(), line);
    }
}

#[test]
fn what_is_out_of_range_is_not_sent() {
    let place = Place::new("range");
    let _listener = UnixListener::bind(&place.0).unwrap();
    let mut shop = app(&place.0);
    for refused in [shop.load(101), shop.capacity(100)] {
        assert!(matches!(refused, Err(Error::Argument(_))), "{refused:?}");
    }
    let mut connection = place.open(LONG);
    for request in ["a\nb", "\n", &"a".repeat(4096)] {
        let refused = connection.ask(request);
        assert!(matches!(refused, Err(Error::Argument(_))), "{refused:?}");
    }
}

#[test]
fn nobody_is_there() {
    let place = Place::new("nobody");
    let mut shop = app(&place.0);
    let error = shop.register().unwrap_err();
    assert!(error.to_string().contains("does it run here?"), "{error}");
    let is_missing = |error: &Error| matches!(error, Error::Agent { source, .. } if source.kind() == ErrorKind::NotFound);
    assert!(is_missing(&error), "{error:?}");
    // What was said meanwhile is said when somebody is.
    assert!(shop.load(7).is_err() && shop.health(Health::Failing).is_err());
    let (said, lines) = mpsc::channel();
    let server = place.serve(1, move |_, mut stream| {
        while let Some(line) = line(&mut stream) {
            said.send(line).unwrap();
            stream.get_mut().write_all(status(7).as_bytes()).unwrap();
        }
    });
    let status = shop.capacity(3).unwrap();
    assert_eq!(
        status,
        Status {
            health: Health::Failing,
            why: Some("it \"said\" so".to_owned()),
            load: 7,
            capacity: 50,
            target: State::Draining,
            current: State::Active,
            is_registered: true,
        }
    );
    drop(shop);
    server.join().unwrap();
    let lines: Vec<_> = lines.into_iter().collect();
    assert!(lines[0].contains(r#""health":"failing","capacity":3,"hold":true"#));
    assert!(lines[1].contains(r#""load":7"#) && lines[2].contains(r#""capacity":3"#));
    assert_eq!(lines.len(), 3);
}

/// One that stands still, with as many who wait as it has room for, holds up nobody for ever.
#[test]
fn nobody_accepts() {
    let place = Place::new("full");
    let listener = UnixListener::bind(&place.0).unwrap();
    // Room for one.
    rustix::net::listen(&listener, 0).unwrap();
    let first = place.open(LONG);
    let (told, heard) = mpsc::channel();
    let mut shop = app(&place.0).with_timeout(SHORT);
    let waiting = thread::spawn(move || {
        told.send(shop.load(7)).unwrap();
        shop
    });
    let late = heard.recv_timeout(LONG).expect("it does not wait for ever");
    assert!(
        matches!(&late, Err(Error::Timeout { path, after }) if *path == place.0 && *after == SHORT),
        "{late:?}"
    );
    let zero = Connection::open(&place.0, Duration::ZERO);
    assert!(matches!(zero, Err(Error::Timeout { .. })), "{zero:?}");
    // It goes on, and who was refused is heard.
    drop(first);
    let mut shop = waiting.join().unwrap().with_timeout(LONG);
    let agent = thread::spawn(move || {
        drop(listener.accept().unwrap());
        let mut stream = BufReader::new(listener.accept().unwrap().0);
        while line(&mut stream).is_some() {
            stream.get_mut().write_all(status(7).as_bytes()).unwrap();
        }
    });
    assert_eq!(shop.load(8).unwrap().load, 7);
    drop(shop);
    agent.join().unwrap();
}

/// Answers that come in parts, too late, or with others.
#[test]
fn answers_belong_to_their_requests() {
    let place = Place::new("late");
    let (go, may_go) = mpsc::channel();
    let server = place.serve(1, move |_, mut stream| {
        assert_eq!(line(&mut stream).as_deref(), Some("one"));
        stream.get_mut().write_all(b"the fi").unwrap();
        may_go.recv().unwrap();
        stream.get_mut().write_all(b"rst\nthe second\n").unwrap();
        assert_eq!(line(&mut stream).as_deref(), Some("two"));
        assert_eq!(line(&mut stream), None);
    });
    let mut connection = place.open(SHORT);
    for request in ["one", "not said"] {
        let late = connection.ask(request);
        assert!(matches!(late, Err(Error::Timeout { .. })), "{late:?}");
    }
    go.send(()).unwrap();
    // As soon as the other one has come so far.
    let answer = loop {
        match connection.ask("two") {
            Err(Error::Timeout { .. }) => {}
            answer => break answer.unwrap(),
        }
    };
    assert_eq!(answer, "the second");
    drop(connection);
    server.join().unwrap();
}

#[test]
fn what_is_no_answer() {
    let place = Place::new("hostile");
    let answers: [&[u8]; 6] = [b"\n", b"\xff\n", b"{}\n", b"[\"error\"]\n", b"hello\n", b""];
    let count = answers.len();
    let server = place.serve(count + 2, move |index, mut stream| {
        line(&mut stream);
        match answers.get(index) {
            Some(answer) => stream.get_mut().write_all(answer).unwrap(),
            // One without end: it is left before everything is written.
            None if index == count => while stream.get_mut().write_all(&[b'a'; 1 << 20]).is_ok() {},
            None => {
                let refusal = b"{\"error\":\"no room\"}\n";
                stream.get_mut().write_all(refusal).unwrap();
            }
        }
    });
    let mut shop = app(&place.0);
    for index in 0..=count {
        let error = shop.register().unwrap_err();
        match index {
            5 => assert!(matches!(error, Error::Agent { .. }), "{error:?}"),
            _ => assert!(matches!(error, Error::Answer(_)), "{index}: {error:?}"),
        }
    }
    let error = shop.register().unwrap_err();
    assert!(matches!(error, Error::Refused(why) if why == "no room"));
    server.join().unwrap();
}

/// Who may not ask is told so, and not heard; it may have written before or after that.
#[test]
fn a_refusal_before_the_request_is_heard() {
    let place = Place::new("refused");
    let server = place.serve(1, |_, mut stream| {
        let refusal = b"{\"error\":\"too many\"}\n";
        stream.get_mut().write_all(refusal).unwrap();
    });
    let mut connection = place.open(LONG);
    server.join().unwrap();
    assert_eq!(connection.ask("one").unwrap(), r#"{"error":"too many"}"#);
    assert!(matches!(connection.ask("two"), Err(Error::Agent { .. })));
}

/// The agent has ended, or does not know the application any more: it is told everything again, once.
#[test]
fn another_agent_is_told_again() {
    let place = Place::new("again");
    let (said, lines) = mpsc::channel();
    let server = place.serve(2, move |index, mut stream| {
        let mut count = 0;
        while let Some(line) = line(&mut stream) {
            let is_unknown = index == 1 && count == 3;
            said.send((index, line)).unwrap();
            let answer = match is_unknown {
                true => "{\"error\":\"there is no application shop\"}\n".to_owned(),
                false => status(9),
            };
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
            count += 1;
            if index == 0 && count == 3 {
                return;
            }
        }
    });
    let mut shop = app(&place.0);
    shop.load(9).unwrap();
    shop.status().unwrap();
    shop.register().unwrap();
    drop(shop);
    server.join().unwrap();
    let words = |(index, line): (usize, String)| {
        let command = line.split('"').nth(3).unwrap_or_default();
        format!("{index} {command}")
    };
    let lines: Vec<_> = lines.into_iter().map(words).collect();
    let expected = [
        "0 register",
        "0 load",
        "0 load",
        "1 register",
        "1 load",
        "1 show",
        "1 register",
        "1 register",
        "1 load",
        "1 register",
    ];
    assert_eq!(lines, expected);
}
