// SPDX-License-Identifier: MIT OR Apache-2.0

//! What Prometheus is told.

use super::{shop, Saved, Scene, USER};
use crate::{
    check::Probe,
    metrics::{page, Looks, Outcome},
};
use nlb_daemon::udp::Traffic;
use nlb_health::row::Health;
use serde_json::json;
use std::time::{Duration, UNIX_EPOCH};

#[path = "../../../nlb-daemon/src/metrics/strict.rs"]
mod strict;

#[test]
fn metrics_say_how_applications_are() {
    let mut scene = Scene::new(&Saved::default());
    scene.say(USER, shop(60));
    scene.say(USER, json!({"command": "load", "app": "shop", "load": 40}));
    scene.found(0, Health::Healthy);
    scene.found(1, Health::Failing);
    let looks = Looks::default();
    let probe = Probe::Tcp("10.0.2.2:80".parse().unwrap());
    for (app, outcome, milliseconds) in [
        ("web", Outcome::Good, 2),
        ("web", Outcome::Good, 30),
        ("web", Outcome::Timeout, 1000),
        ("web", Outcome::Blind, 0),
        ("gone", Outcome::Bad, 3),
    ] {
        looks.count(app, &probe, outcome, Duration::from_millis(milliseconds));
    }
    looks.keep(["web"].into());
    let (now, from) = (scene.now, ([10, 0, 2, 1], 4771).into());
    for garbage in [&b""[..], &[b'x'; 44], &[b'x'; 2000]] {
        scene.host.agent.handle_datagram(now, from, garbage);
    }
    let text = page(&scene.host, &looks, &Traffic::default(), UNIX_EPOCH);
    let samples = strict::read(&text);
    for (series, value) in [
        ("apps{health=\"healthy\",target=\"active\"}", 1.0),
        ("apps{health=\"failing\",target=\"active\"}", 1.0),
        ("apps{health=\"unknown\",target=\"active\"}", 1.0),
        ("apps{health=\"healthy\",target=\"draining\"}", 0.0),
        ("app_healthy{app=\"shop\"}", 1.0),
        ("app_healthy{app=\"web\"}", 0.0),
        ("app_load_ratio{app=\"shop\"}", 0.4),
        ("app_capacity{app=\"shop\"}", 60.0),
        ("lbus", 0.0),
        (
            "checks_total{app=\"web\",kind=\"tcp\",outcome=\"good\"}",
            2.0,
        ),
        (
            "checks_total{app=\"web\",kind=\"tcp\",outcome=\"bad\"}",
            0.0,
        ),
        (
            "checks_total{app=\"web\",kind=\"tcp\",outcome=\"timeout\"}",
            1.0,
        ),
        (
            "checks_total{app=\"web\",kind=\"tcp\",outcome=\"blind\"}",
            1.0,
        ),
        ("check_duration_seconds_count{kind=\"tcp\"}", 4.0),
        (
            "check_duration_seconds_bucket{kind=\"tcp\",le=\"0.005\"}",
            2.0,
        ),
        ("datagrams_dropped_total{reason=\"datagram-short\"}", 1.0),
        ("datagrams_dropped_total{reason=\"datagram-magic\"}", 1.0),
        ("datagrams_dropped_total{reason=\"datagram-long\"}", 1.0),
    ] {
        let series = format!("nlb_agent_{series}");
        assert_eq!(samples.get(&series), Some(&value), "{series}\n{text}");
    }
    assert!(!text.contains("app=\"gone\""), "{text}");
    assert!(!text.contains("0123456789abcdef"), "{text}");
}
