// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pages, and how they are asked for over real sockets.

use super::{
    serve::{asked, Asked, Server, CONNECTIONS_MAX, HEAD_MAX},
    *,
};
use std::{
    io::{ErrorKind, Read, Write as _},
    net::{TcpListener, TcpStream},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    sync::mpsc,
};

#[test]
fn pages_are_read_as_they_are_written() {
    let mut page = Page::default();
    page.about("x", "1.2.3", UNIX_EPOCH + Duration::from_millis(1500));
    let mut samples = page.family("x_apps", Kind::Gauge, "Applications.");
    samples
        .put(&[("app", "a\\b\"c\nd é"), ("health", "failing")], 3)
        .put(&[("app", ""), ("health", "failing")], u64::MAX);
    let mut histogram = Histogram::default();
    for milliseconds in [0, 5, 6, 300, 90_000] {
        histogram.observe(Duration::from_millis(milliseconds));
    }
    let mut samples = page.family("x_look_seconds", Kind::Histogram, "Looks.");
    samples.histogram(&[("kind", "tcp")], &histogram);
    let text = page.text();
    let samples = strict::read(&text);
    for (series, value) in [
        ("x_build_info{version=\"1.2.3\"}", 1.0),
        ("process_start_time_seconds", 1.5),
        ("x_apps{app=\"a\\\\b\\\"c\\nd é\",health=\"failing\"}", 3.0),
        ("x_apps{app=\"\",health=\"failing\"}", u64::MAX as f64),
        ("x_look_seconds_bucket{kind=\"tcp\",le=\"0.001\"}", 1.0),
        ("x_look_seconds_bucket{kind=\"tcp\",le=\"0.005\"}", 2.0),
        ("x_look_seconds_bucket{kind=\"tcp\",le=\"0.025\"}", 3.0),
        ("x_look_seconds_bucket{kind=\"tcp\",le=\"0.5\"}", 4.0),
        ("x_look_seconds_bucket{kind=\"tcp\",le=\"5\"}", 4.0),
        ("x_look_seconds_bucket{kind=\"tcp\",le=\"+Inf\"}", 5.0),
        ("x_look_seconds_count{kind=\"tcp\"}", 5.0),
        ("x_look_seconds_sum{kind=\"tcp\"}", 90.311),
    ] {
        assert_eq!(samples.get(series), Some(&value), "{series}\n{text}");
    }
    assert_eq!(samples.len(), 4 + 9 + 2);
}

/// Every counter of the protocol is on the page, and those of drops even if nothing was dropped.
#[test]
fn every_counter_of_the_protocol_is_there() {
    let mut counters = Counters::default();
    let read = |counters: &Counters| {
        let mut page = Page::default();
        page.protocol("x", counters, &Traffic::default());
        strict::read(&page.text())
    };
    let none = read(&counters);
    assert_eq!(
        none["x_datagrams_dropped_total{reason=\"datagram-tag\"}"],
        0.0
    );
    assert!(none.values().all(|value| *value == 0.0));
    let all = counters::DROPS.iter().chain(&counters::MESSAGES);
    for name in all
        .copied()
        .chain(["chunk-aged", "datagram-not-sent", "what comes later"])
    {
        counters.add(name);
        counters.add(name);
    }
    let samples = read(&counters);
    for (name, count) in counters.iter() {
        let label = format!("=\"{name}\"}}");
        let with_it = samples
            .iter()
            .filter(|(series, _)| series.ends_with(&label));
        let values: Vec<_> = with_it.map(|(_, value)| *value).collect();
        assert_eq!(values, [count as f64], "{name}");
    }
}

#[test]
fn requests() {
    let page = |is_head| Some(Asked::Page { is_head });
    let other = |status| Some(Asked::Other(status));
    let not_found = other("404 Not Found");
    for (request, expected) in [
        ("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", page(false)),
        ("GET /metrics?a=b HTTP/1.0\r\n\r\n", page(false)),
        ("HEAD /metrics HTTP/1.1\r\n\r\n", page(true)),
        ("GET / HTTP/1.1\r\n\r\n", not_found),
        ("GET /metrics/x HTTP/1.1\r\n\r\n", not_found),
        (
            "POST /metrics HTTP/1.1\r\n\r\n",
            other("405 Method Not Allowed"),
        ),
        ("GET /metrics HTTP/1.1\r\n", None),
        ("", None),
        ("\x16\x03\x01", other("400 Bad Request")),
    ] {
        assert_eq!(asked(request.as_bytes()), expected, "{request:?}");
    }
    let large = other("431 Request Header Fields Too Large");
    let long = format!("GET /{}", "a".repeat(HEAD_MAX));
    assert_eq!(asked(&long.as_bytes()[..HEAD_MAX - 1]), None);
    assert_eq!(asked(&long.as_bytes()[..HEAD_MAX]), large);
    let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65));
    assert_eq!(asked(many.as_bytes()), large);
}

#[test]
fn pages_are_served_to_some_at_a_time() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (queue, mut scrapes) = mpsc::channel::<Scrape>(1);
    let address = {
        let _inside = runtime.enter();
        let server = Server::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = server.local_addr().unwrap();
        runtime.spawn(server.serve(queue));
        address
    };
    runtime.spawn(async move {
        while let Some(scrape) = scrapes.recv().await {
            let _ = scrape.send("x_apps 1\n".to_owned());
        }
    });
    let begin = |request: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    };
    let end = |mut stream: TcpStream| {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let get = "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
    let answer = end(begin(get));
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("Content-Length: 9\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nx_apps 1\n"), "{answer}");
    let answer = end(begin("HEAD /metrics HTTP/1.1\r\n\r\n"));
    assert!(answer.contains("Content-Length: 9\r\n"), "{answer}");
    assert!(answer.ends_with("close\r\n\r\n"), "{answer}");
    let answer = end(begin("PUT /metrics HTTP/1.1\r\n\r\n"));
    assert!(answer.contains("\r\nAllow: GET, HEAD\r\n"), "{answer}");
    // As many as there may be, of whom none has asked for anything yet; who comes later waits for one of them.
    let mut idle: Vec<_> = (0..CONNECTIONS_MAX).map(|_| begin("GET ")).collect();
    let waits = begin(get);
    // Whoever is not kept waiting has an answer by then.
    let while_others_idle = Duration::from_millis(200);
    waits.set_read_timeout(Some(while_others_idle)).unwrap();
    let mut byte = [0];
    let none = (&waits).read(&mut byte).unwrap_err();
    assert_eq!(none.kind(), ErrorKind::WouldBlock);
    waits.set_read_timeout(None).unwrap();
    idle.truncate(CONNECTIONS_MAX - 1);
    assert!(end(waits).ends_with("x_apps 1\n"));
}

/// That somebody else has the port keeps the daemon from nothing, and metrics only for so long.
#[test]
fn a_port_that_is_taken_is_waited_for() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (queue, mut scrapes) = mpsc::channel::<Scrape>(1);
    let serves = runtime.spawn(serve(address, queue));
    runtime.block_on(async {
        tokio::task::yield_now().await;
        assert!(!serves.is_finished());
        drop(taken);
        let mut stream = loop {
            let own = TcpSocket::new_v4().unwrap();
            // From there nobody reaches himself.
            own.bind(([127, 0, 0, 2], 0).into()).unwrap();
            if let Ok(stream) = own.connect(address).await {
                break stream;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let request = b"GET /metrics HTTP/1.1\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let scrape = scrapes.recv().await.unwrap();
        scrape.send("x_apps 1\n".to_owned()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("x_apps 1\n"), "{answer}");
    });
}

#[test]
fn addresses() {
    let read = |text: &str| {
        let source = Source::new("f", text);
        let file: std::collections::BTreeMap<String, Spanned<String>> = source.parse().unwrap();
        address(&source, &file.get("metrics").cloned()).map_err(|mistake| mistake.to_string())
    };
    assert_eq!(read("").unwrap(), None);
    let own = Some(([127, 0, 0, 1], 4771).into());
    assert_eq!(read("metrics = \"127.0.0.1:4771\"").unwrap(), own);
    assert!(read("metrics = \"[::]:4771\"").unwrap().is_some());
    for text in [
        "",
        "4771",
        "127.0.0.1",
        "127.0.0.1:0",
        "239.1.1.1:4771",
        "localhost:4771",
    ] {
        let mistake = read(&format!("\nmetrics = \"{text}\"")).unwrap_err();
        let expected = format!("f:2: metrics is \"{text}\"; write an address");
        assert!(mistake.starts_with(&expected), "{mistake}");
    }
}
