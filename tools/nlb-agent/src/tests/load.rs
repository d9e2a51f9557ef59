// SPDX-License-Identifier: MIT OR Apache-2.0

//! Load that is measured, of real files and sockets.

use super::{check, Saved, Scene, GOOD, ROOT};
use crate::load::{Measure, Measured};
use serde_json::json;
use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::PathBuf,
    time::{Duration, Instant},
};

const NOTHING: Measure = Measure {
    pressure: None,
    queue: false,
    connections: None,
    addresses: [
        std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)),
        std::net::IpAddr::V4(Ipv4Addr::LOCALHOST),
    ],
    port: 0,
    interval: Duration::from_secs(5),
};

#[test]
fn pressure_is_read() {
    let path = std::env::temp_dir().join(format!("nlb-agent-pressure-{}", std::process::id()));
    let measure = Measure {
        pressure: Some(path.clone()),
        ..NOTHING
    };
    assert!(measure.take().unwrap_err().contains("No such file"));
    let full = "full avg10=99.00 avg60=99.00 avg300=99.00 total=7\n";
    for (avg10, expected) in [
        ("0.00", Some(0)),
        ("12.51", Some(13)),
        ("100.00", Some(100)),
        ("100.01", None),
        ("-1.00", None),
        ("NaN", None),
        ("", None),
    ] {
        let text = format!("some avg10={avg10} avg60=50.00 avg300=50.00 total=123\n{full}");
        std::fs::write(&path, text).unwrap();
        assert_eq!(measure.take().ok(), expected, "{avg10:?}");
    }
    for text in [full.as_bytes(), b"", b"\xff", &[b'x'; 100_000]] {
        std::fs::write(&path, text).unwrap();
        measure.take().unwrap_err();
    }
    std::fs::remove_file(&path).unwrap();
    let measure = Measure {
        pressure: Some("/dev/null".into()),
        ..NOTHING
    };
    assert!(measure.take().unwrap_err().contains("not a file"));
    // The kernel's own, where there is one.
    let own = PathBuf::from("/proc/pressure/cpu");
    if std::fs::read(&own).is_ok() {
        let measure = Measure {
            pressure: Some(own),
            ..NOTHING
        };
        assert!(measure.take().unwrap() <= 100);
    }
}

#[test]
fn connections_are_counted() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let local = listener.local_addr().unwrap();
    let take = |queue, connections| {
        let measure = Measure {
            queue,
            connections,
            port: local.port(),
            ..NOTHING
        };
        measure.take()
    };
    assert_eq!(take(true, Some(10)), Ok(0));
    let clients = [(); 3].map(|()| TcpStream::connect(local).unwrap());
    // A client may be through before the server's side is.
    let deadline = Instant::now() + Duration::from_secs(20);
    while take(false, Some(10)) != Ok(30) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(take(false, Some(10)), Ok(30));
    assert_eq!(take(false, Some(3)), Ok(100));
    assert_eq!(take(false, Some(2)), Ok(100));
    // A queue has room for a hundred or more of them, and the larger one counts.
    assert!(take(true, None).unwrap() <= 3);
    assert_eq!(take(true, Some(10)), Ok(30));
    let taken = [(); 3].map(|()| listener.accept().unwrap());
    assert_eq!(take(true, None), Ok(0));
    assert_eq!(take(true, Some(10)), Ok(30));
    drop((clients, taken, listener));
    let nobody = take(true, None).unwrap_err();
    assert!(nobody.contains("nothing listens"), "{nobody}");
}

#[test]
fn measured_load_counts_if_none_is_reported() {
    let text = GOOD.replace(
        "capacity = 7",
        "load = { pressure = \"/proc/pressure/cpu\" }",
    );
    let mut scene = Scene::of(&text, &Saved::default());
    let measures: Vec<_> = scene.host.measures().map(|(app, _)| app).collect();
    assert_eq!(measures, ["plain"]);
    let measured = |scene: &mut Scene, load| {
        scene.now += Duration::from_secs(30);
        let measured = Measured {
            app: "plain".to_owned(),
            generation: scene.host.generation(),
            load,
        };
        scene.host.measured(scene.now, &measured);
        let now = scene.now;
        scene.host.agent.handle_timeout(now);
        scene.app("plain")["load"].as_u64().unwrap()
    };
    assert_eq!(measured(&mut scene, 40), 40);
    // It is smoothed: after three times the time constant, 95 % of the step.
    assert_eq!(measured(&mut scene, 100), 97);
    scene.now += Duration::from_secs(30);
    let report = json!({"command": "load", "app": "plain", "load": 0});
    scene.say(ROOT, report);
    assert_eq!(measured(&mut scene, 100), 5);
    // Nobody has reported anything for a minute.
    let again = measured(&mut scene, 100);
    assert!(again > 90, "{again}");
    // Another reading of the configuration measures anew.
    let old = Measured {
        app: "plain".to_owned(),
        generation: scene.host.generation(),
        load: 0,
    };
    scene.host.reload(scene.now, check(GOOD).unwrap());
    assert_eq!(scene.host.measures().count(), 0);
    scene.now += Duration::from_secs(100);
    scene.host.measured(scene.now, &old);
    assert_eq!(scene.app("plain")["load"], again);
    // What nobody measures any more, and nobody has reported, is not as it was last.
    let mut scene = Scene::of(&text, &Saved::default());
    assert_eq!(measured(&mut scene, 99), 99);
    scene.host.reload(scene.now, check(&text).unwrap());
    assert_eq!(scene.app("plain")["load"], 99);
    scene.host.reload(scene.now, check(GOOD).unwrap());
    assert_eq!(scene.app("plain")["load"], 0);
}
