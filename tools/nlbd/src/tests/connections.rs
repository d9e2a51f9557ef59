// SPDX-License-Identifier: MIT OR Apache-2.0

//! Real connections on the loopback device. Only the last step, the kernel's migration, is replaced
//! by one that notes what it was asked for: what the kernel does is tested in the guest.

use crate::{
    classify::Classifier,
    config::Config,
    migrate::Migrate, //
};
use nlb_daemon::config::Source;
use std::{
    io::{
        Read,
        Write, //
    },
    net::{
        IpAddr,
        Shutdown,
        SocketAddr,
        TcpStream, //
    },
    sync::{
        atomic::{
            AtomicU64,
            Ordering, //
        },
        mpsc,
        Arc, //
    },
    thread,
    time::{
        Duration,
        Instant, //
    },
};
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    sync::Semaphore, //
};

/// Says what it was asked to move, with the bytes that were left in the socket; refuses hosts that
/// end in `.9`.
struct Noted(mpsc::Sender<(IpAddr, Vec<u8>)>);

impl Migrate for Noted {
    fn migrate(&mut self, socket: &TcpStream, host: IpAddr, _: Duration) -> Result<(), String> {
        if host.to_string().ends_with(".9") {
            return Err("not today".into());
        }
        let mut bytes = vec![0; 1 << 17];
        let length = socket.peek(&mut bytes).unwrap();
        bytes.truncate(length);
        self.0
            .send((host, bytes))
            .map_err(|error| error.to_string())
    }
}

struct Running {
    addr: SocketAddr,
    classifier: Arc<Classifier>,
    moved: mpsc::Receiver<(IpAddr, Vec<u8>)>,
    _runtime: Runtime,
}

fn start(changes: &[(&str, &str)]) -> Running {
    let mut text = r#"
listen = ["127.0.0.1:1"]
peek_bytes = 4096
peek_timeout_ms = 60000
max_connections = 5000
default = "app"
unplaced = "close"
[pool.app]
hosts = ["10.0.0.1"]
[pool.sick]
hosts = ["10.0.0.9"]
[pool.other]
hosts = ["10.0.0.3"]
[[rule]]
path = "/other"
pool = "other"
[[rule]]
path = "/sick"
pool = "sick"
"#
    .to_owned();
    for (old, new) in changes {
        assert!(text.contains(old));
        text = text.replace(old, new);
    }
    let config = Config::parse(&Source::new("test", &text)).unwrap();
    let room = Arc::new(Semaphore::new(config.max_connections));
    let (sender, moved) = mpsc::channel();
    let migrators = (0..4)
        .map(|_| Box::new(Noted(sender.clone())) as Box<dyn Migrate>)
        .collect();
    let classifier = Classifier::new(config, migrators).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let addr = listener.local_addr().unwrap();
    runtime.spawn(Arc::clone(&classifier).accept(listener, room));
    Running {
        addr,
        classifier,
        moved,
        _runtime: runtime,
    }
}

const PATIENCE: Duration = Duration::from_secs(60);

impl Running {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    fn moved(&self) -> (String, Vec<u8>) {
        let (host, bytes) = self.moved.recv_timeout(PATIENCE).unwrap();
        (host.to_string(), bytes)
    }

    fn count(&self, counter: fn(&Classifier) -> &AtomicU64) -> u64 {
        counter(&self.classifier).load(Ordering::Relaxed)
    }

    /// Waits until a counter has this value: a step is counted after others can see it.
    fn counts(&self, counter: fn(&Classifier) -> &AtomicU64, value: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.count(counter) != value {
            assert!(
                Instant::now() < deadline,
                "{} is not {value}",
                self.count(counter)
            );
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Everything the other side sends until it closes.
fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => bytes,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_request_goes_where_its_rule_says_with_all_bytes() {
    let running = start(&[]);
    for (path, host) in [("/", "10.0.0.1"), ("/other/x", "10.0.0.3")] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: h\r\n\r\nand a body");
        running.connect().write_all(head.as_bytes()).unwrap();
        assert_eq!(running.moved(), (host.to_owned(), head.into_bytes()));
    }
}

#[test]
fn a_head_may_come_byte_by_byte() {
    let running = start(&[]);
    let head = b"GET /other HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut stream = running.connect();
    for byte in head {
        stream.write_all(&[*byte]).unwrap();
        thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(running.moved(), ("10.0.0.3".to_owned(), head.to_vec()));
}

#[test]
fn a_head_longer_than_the_first_look_is_read_whole() {
    let running = start(&[]);
    let head = format!("GET /other HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(3500));
    running.connect().write_all(head.as_bytes()).unwrap();
    assert_eq!(running.moved().0, "10.0.0.3");
}

#[test]
fn what_is_no_request_is_closed_or_goes_to_the_pool_for_it() {
    let garbage = b"\x16\x03\x01\x00\xa5\x01\x00".as_slice();
    let long = format!("GET / HTTP/1.1\r\nA: {}", "x".repeat(5000)).into_bytes();
    for bytes in [garbage, &long] {
        let running = start(&[]);
        let mut stream = running.connect();
        stream.write_all(bytes).unwrap();
        assert_eq!(rest(stream), b"");
        running.counts(|c| &c.counters.closed, 1);
        let running = start(&[("unplaced = \"close\"", "unplaced = \"other\"")]);
        running.connect().write_all(bytes).unwrap();
        assert_eq!(running.moved().0, "10.0.0.3");
    }
}

#[test]
fn who_sends_nothing_or_half_a_head_is_closed() {
    let running = start(&[("peek_timeout_ms = 60000", "peek_timeout_ms = 100")]);
    let silent = running.connect();
    let mut slow = running.connect();
    slow.write_all(b"GET / HT").unwrap();
    assert_eq!(rest(silent), b"");
    assert_eq!(rest(slow), b"");
    running.counts(|c| &c.counters.silent, 1);
    running.counts(|c| &c.counters.slow, 1);
}

#[test]
fn who_ends_before_the_head_is_not_moved() {
    let running = start(&[("unplaced = \"close\"", "unplaced = \"app\"")]);
    for bytes in [b"".as_slice(), b"GET / HT"] {
        let mut stream = running.connect();
        stream.write_all(bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(stream), b"");
    }
    running.counts(|c| &c.counters.ended, 2);
    assert_eq!(running.count(|c| &c.counters.migrated), 0);
}

#[test]
fn a_refused_connection_goes_to_the_default() {
    let running = start(&[]);
    running
        .connect()
        .write_all(b"GET /sick HTTP/1.1\r\n\r\n")
        .unwrap();
    assert_eq!(running.moved().0, "10.0.0.1");
    running.counts(|c| &c.counters.refused, 1);
}

#[test]
fn where_everybody_refuses_the_client_is_told() {
    let running = start(&[("\"10.0.0.1\"", "\"10.0.1.9\"")]);
    let mut stream = running.connect();
    let body = vec![b'x'; 60_000];
    stream
        .write_all(b"POST /sick HTTP/1.1\r\nContent-Length: 60000\r\n\r\n")
        .unwrap();
    stream.write_all(&body).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let answer = String::from_utf8(rest(stream)).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    running.counts(|c| &c.counters.failed, 1);
}

#[test]
fn thousands_of_silent_slow_and_garbage_clients_hold_nobody_up() {
    let running = start(&[]);
    let mut idle = Vec::new();
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    // Both ends are ours here.
    let crowd = limit.map_or(2000, |limit| (limit.saturating_sub(200) / 2).min(2000));
    for number in 0..crowd {
        let mut stream = running.connect();
        match number % 3 {
            0 => {}
            1 => stream.write_all(b"GET / HTTP/1.1\r\nA: ").unwrap(),
            _ => stream.write_all(b"\0\xff garbage").unwrap(),
        }
        idle.push(stream);
        if number % 100 == 0 {
            running
                .connect()
                .write_all(b"GET / HTTP/1.1\r\n\r\n")
                .unwrap();
            assert_eq!(running.moved().0, "10.0.0.1");
        }
    }
    // The slow ones were never given up: the rest of a head still counts.
    let number = idle.len() / 3 * 3 - 2;
    idle[number].write_all(b"b\r\n\r\n").unwrap();
    assert_eq!(running.moved().0, "10.0.0.1");
}
