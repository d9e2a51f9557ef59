// SPDX-License-Identifier: MIT OR Apache-2.0

//! What Prometheus is told.

use super::{at, EndpointState, Pair};
use crate::health::metrics::{page, SERIES_MAX};
use nlb_daemon::udp::Traffic;
use nlb_health::{agent::AgentConfig, row::Health, seal::Keys, Agent};
use std::{collections::BTreeMap, time::UNIX_EPOCH};

#[path = "../../../../nlb-daemon/src/metrics/strict.rs"]
mod strict;

/// The samples that begin with the daemon's prefix, without it.
fn read(pair: &Pair) -> BTreeMap<String, f64> {
    let text = page(&pair.handler, &Traffic::default(), UNIX_EPOCH);
    assert!(!text.contains("0123456789abcdef"), "{text}");
    let samples = strict::read(&text).into_iter();
    samples
        .filter_map(|(series, value)| Some((series.strip_prefix("nlbd_health_")?.into(), value)))
        .collect()
}

fn has(pair: &Pair, expected: &[(&str, f64)]) {
    let samples = read(pair);
    for (series, value) in expected {
        assert_eq!(samples.get(*series), Some(value), "{series}: {samples:?}");
    }
}

#[test]
fn metrics_follow_hosts_and_endpoints() {
    let mut pair = Pair::new();
    has(
        &pair,
        &[
            ("hosts{state=\"known\"}", 0.0),
            ("heartbeat_age_max_seconds", 0.0),
            ("services", 0.0),
            ("plans_total{outcome=\"done\"}", 0.0),
        ],
    );
    pair.state = EndpointState::Draining;
    pair.pass(1000);
    pair.apply();
    has(
        &pair,
        &[
            ("hosts{state=\"known\"}", 1.0),
            ("hosts{state=\"stale\"}", 0.0),
            ("rows{health=\"healthy\",target=\"active\"}", 1.0),
            ("rows{health=\"failing\",target=\"active\"}", 0.0),
            ("endpoints{state=\"active\"}", 1.0),
            ("services", 1.0),
            ("panic{service=\"192.0.2.10:80/tcp\"}", 0.0),
            ("panic_services", 0.0),
            ("plans_total{outcome=\"done\"}", 1.0),
            ("applied_changes_total{change=\"state\"}", 1.0),
            ("applied_changes_total{change=\"weight\"}", 0.0),
            ("forwarder_follows", 1.0),
            ("allotments_follow", 1.0),
            ("allotments_total", 0.0),
            ("cache_changes_total", 1.0),
            ("cache_changes_in_force_total", 1.0),
            ("messages_total{type=\"get-snapshot\"}", 1.0),
        ],
    );
    assert!(read(&pair).contains_key("heartbeat_age_seconds{host=\"1\",name=\"\"}"));
    // Nobody else is left, and of it nothing is known.
    pair.is_alone = true;
    let (now, app) = (pair.now, pair.app);
    let unknown = Health::Unknown;
    pair.agent().set_health(now, app, unknown).unwrap();
    pair.pass(1000);
    pair.apply_with(Some("no room"));
    has(
        &pair,
        &[
            ("rows{health=\"unknown\",target=\"active\"}", 1.0),
            ("plans_total{outcome=\"failed\"}", 1.0),
            ("forwarder_follows", 0.0),
            ("cache_changes_in_force_total", 1.0),
        ],
    );
    pair.apply();
    has(
        &pair,
        &[
            ("panic{service=\"192.0.2.10:80/tcp\"}", 1.0),
            ("panic_services", 1.0),
            ("endpoints{state=\"active\"}", 1.0),
            ("forwarder_follows", 1.0),
        ],
    );
    pair.die();
    pair.apply();
    let samples = read(&pair);
    assert!(!samples.keys().any(|series| series.contains("host=\"1\"")));
    has(
        &pair,
        &[
            ("hosts{state=\"known\"}", 0.0),
            ("hosts{state=\"stale\"}", 1.0),
            ("stale_rows", 1.0),
            ("rows{health=\"unknown\",target=\"active\"}", 0.0),
        ],
    );
}

/// However many hosts there are, so many have series of their own.
#[test]
fn hosts_with_series_of_their_own_are_bounded() {
    let mut pair = Pair::new();
    let count = SERIES_MAX + 3;
    for host in 1..=count as u32 {
        let keys = Keys::new(1, b"0123456789abcdef").unwrap();
        let config = AgentConfig::new(host, 1, vec![at(1)]);
        let mut agent = Agent::new(pair.now, config, keys, [3; 32]);
        agent.handle_timeout(pair.now);
        let lbu = &mut pair.handler.lbu;
        loop {
            while let Some(transmit) = agent.poll_transmit() {
                lbu.handle_datagram(pair.now, at(2), &transmit.datagram);
            }
            let Some(transmit) = lbu.poll_transmit() else {
                break;
            };
            agent.handle_datagram(pair.now, at(1), &transmit.datagram);
        }
    }
    let samples = read(&pair);
    assert_eq!(samples["hosts{state=\"known\"}"], count as f64);
    let own = samples
        .keys()
        .filter(|series| series.starts_with("heartbeat_age_seconds{"));
    assert_eq!(own.count(), SERIES_MAX);
}
