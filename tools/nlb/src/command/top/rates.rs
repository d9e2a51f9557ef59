// SPDX-License-Identifier: MIT OR Apache-2.0

//! What happened between two looks at the counters, per second.

use std::{
    cmp::Ordering,
    collections::HashMap,
    time::{
        Duration,
        Instant, //
    },
};

use nlb_netlink::{
    Endpoint,
    Error,
    Forwarder,
    Fwd,
    Migrator,
    Service,
    Stats,
    Tunnel, //
};
use serde::Serialize;

use crate::{
    cli::SortBy,
    output::maybe, //
};

/// The counters at one moment.
pub(super) struct Sample {
    at: Instant,
    services: Vec<Service>,
    endpoints: Vec<Endpoint>,
    forwarders: Vec<Forwarder>,
    stats: Vec<Stats>,
}

impl Sample {
    /// The counters of all modules that are loaded.
    pub(super) fn take() -> Result<Self, Error> {
        let mut sample = Self {
            at: Instant::now(),
            services: Vec::new(),
            endpoints: Vec::new(),
            forwarders: Vec::new(),
            stats: Vec::new(),
        };
        let mut missing = None;
        let mut loaded = |read: &mut dyn FnMut() -> Result<(), Error>| match read() {
            Err(error @ Error::FamilyMissing(_)) => {
                missing.get_or_insert(error);
                Ok(())
            }
            other => other,
        };
        loaded(&mut || {
            let mut fwd = Fwd::open()?;
            sample.services = fwd.services()?;
            sample.endpoints = fwd.endpoints(None)?;
            sample.stats.push(fwd.stats()?);
            Ok(())
        })?;
        loaded(&mut || {
            let mut tunnel = Tunnel::open()?;
            sample.forwarders = tunnel.forwarders()?;
            sample.stats.push(tunnel.stats()?);
            Ok(())
        })?;
        loaded(&mut || {
            sample.stats.push(Migrator::open()?.stats()?);
            Ok(())
        })?;
        match missing {
            Some(error) if sample.stats.is_empty() => Err(error),
            _ => Ok(sample),
        }
    }
}

/// A service, one of its endpoints, or a forwarder. Rates are per second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Row {
    /// What tells it from others; the service for an endpoint.
    pub(super) name: String,
    /// The host of an endpoint, and its port, with half-nat and nat.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) host: Option<String>,
    /// State of an endpoint, mode of a service.
    pub(super) state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) weight: Option<u32>,
    /// Routes of connections that are not being closed, now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) active_routes: Option<u32>,
    pub(super) connections: f64,
    pub(super) packets: f64,
    pub(super) bytes: f64,
}

/// A reason for drops that has occurred.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Dropped {
    pub(super) family: &'static str,
    pub(super) reason: String,
    /// Packets per second.
    pub(super) rate: f64,
    /// Since the module was loaded.
    pub(super) total: u64,
}

/// All that is shown.
#[derive(Serialize)]
pub(super) struct Rates {
    /// Services, each followed by its endpoints; forwarders.
    pub(super) rows: Vec<Row>,
    pub(super) drops: Vec<Dropped>,
}

/// Connections, packets and bytes so far.
#[derive(Clone, Copy, Default)]
struct Traffic([u64; 3]);

impl Traffic {
    fn new(connections: Option<u64>, packets: Option<u64>, bytes: Option<u64>) -> Self {
        Self([connections, packets, bytes].map(Option::unwrap_or_default))
    }
}

impl Rates {
    /// What happened between two samples.
    pub(super) fn between(before: &Sample, now: &Sample, sort: SortBy) -> Self {
        let time = now.at.saturating_duration_since(before.at);
        let traffic = |own: &Service| Traffic::new(own.connections, own.packets, own.bytes);
        let of_host = |own: &Endpoint| Traffic::new(own.connections, own.packets, own.bytes);
        let of_forwarder = |own: &Forwarder| Traffic::new(None, own.packets, own.bytes);
        let services: HashMap<_, _> = before
            .services
            .iter()
            .map(|own| (own.key(), traffic(own)))
            .collect();
        let endpoints: HashMap<_, _> = before
            .endpoints
            .iter()
            .map(|own| ((own.service(), own.id()), of_host(own)))
            .collect();
        let forwarders: HashMap<_, _> = before
            .forwarders
            .iter()
            .map(|own| (own.addr, of_forwarder(own)))
            .collect();

        let mut hosts: HashMap<_, Vec<Row>> = HashMap::new();
        for own in &now.endpoints {
            let past = endpoints.get(&(own.service(), own.id()));
            let row = Row {
                host: Some(own.id().to_string()),
                weight: own.weight,
                active_routes: own.active_routes,
                ..row(
                    own.service().to_string(),
                    maybe(own.state),
                    past,
                    of_host(own),
                    time,
                )
            };
            hosts.entry(own.service()).or_default().push(row);
        }
        let mut groups = Vec::new();
        for own in &now.services {
            let past = services.get(&own.key());
            let mut parts = hosts.remove(&own.key()).unwrap_or_default();
            parts.sort_by(|a, b| order(sort, a, b));
            let active = parts.iter().filter_map(|part| part.active_routes);
            let service = Row {
                active_routes: Some(active.sum()),
                ..row(
                    own.key().to_string(),
                    maybe(own.mode),
                    past,
                    traffic(own),
                    time,
                )
            };
            groups.push((service, parts));
        }
        for own in &now.forwarders {
            let past = forwarders.get(&own.addr);
            let name = format!("forwarder {}", own.addr);
            let row = row(name, "-".to_owned(), past, of_forwarder(own), time);
            groups.push((row, Vec::new()));
        }
        groups.sort_by(|(a, _), (b, _)| order(sort, a, b));
        let groups = groups.into_iter();
        Self {
            rows: groups
                .flat_map(|(first, parts)| std::iter::once(first).chain(parts))
                .collect(),
            drops: drops(&before.stats, &now.stats, time),
        }
    }
}

fn row(name: String, state: String, past: Option<&Traffic>, now: Traffic, time: Duration) -> Row {
    let Traffic(past) = past.copied().unwrap_or_default();
    let Traffic(now) = now;
    let [connections, packets, bytes] =
        [0, 1, 2].map(|place: usize| match (past.get(place), now.get(place)) {
            (Some(past), Some(now)) => rate(*past, *now, time),
            _ => 0.0,
        });
    Row {
        name,
        host: None,
        state,
        weight: None,
        active_routes: None,
        connections,
        packets,
        bytes,
    }
}

/// By name from A on, by numbers from the largest on.
fn order(sort: SortBy, a: &Row, b: &Row) -> Ordering {
    let name = |row: &Row| row.host.clone().unwrap_or_else(|| row.name.clone());
    let numbers = match sort {
        SortBy::Name => Ordering::Equal,
        SortBy::Active => b.active_routes.cmp(&a.active_routes),
        SortBy::Connections => b.connections.total_cmp(&a.connections),
        SortBy::Packets => b.packets.total_cmp(&a.packets),
        SortBy::Bytes => b.bytes.total_cmp(&a.bytes),
    };
    numbers.then_with(|| name(a).cmp(&name(b)))
}

/// The drops there have been, those that go on first.
fn drops(before: &[Stats], now: &[Stats], time: Duration) -> Vec<Dropped> {
    let mut drops = Vec::new();
    for stats in now {
        let past = before.iter().find(|past| past.family == stats.family);
        for counter in stats.counters.iter().filter(|counter| counter.value > 0) {
            let Some(reason) = counter.name.strip_prefix("drop-") else {
                continue;
            };
            let past = past.and_then(|past| past.get(&counter.name));
            drops.push(Dropped {
                family: stats.family,
                reason: reason.to_owned(),
                rate: rate(past.unwrap_or_default(), counter.value, time),
                total: counter.value,
            });
        }
    }
    // The sort is stable: otherwise the kernel's order.
    drops.sort_by(|a, b| b.rate.total_cmp(&a.rate));
    drops
}

/// How much came per second. What is smaller than before has begun anew.
fn rate(before: u64, now: u64, time: Duration) -> f64 {
    let more = now.checked_sub(before).unwrap_or(now);
    let seconds = time.as_secs_f64();
    if seconds > 0.0 {
        more as f64 / seconds
    } else {
        0.0
    }
}

/// A rate in a few characters.
pub(super) fn text(rate: f64) -> String {
    let units = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")];
    match units.iter().find(|(from, _)| rate >= *from) {
        Some((_, "k")) => format!("{:.1}k", rate / 1e3),
        Some((unit, letter)) => format!("{:.1}{letter}", rate / unit),
        None if rate == 0.0 => "0".to_owned(),
        None if rate < 100.0 => format!("{rate:.1}"),
        None => format!("{rate:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use nlb_netlink::Counter;

    use super::*;

    fn endpoint(host: u8, connections: u64, active: u32) -> Endpoint {
        let mut endpoint = Endpoint::decode(&[
            8, 0, 1, 0, 192, 0, 2, 10, 6, 0, 2, 0, 0, 80, 0, 0, 8, 0, 3, 0, 6, 0, 0, 0, 8, 0, 4, 0,
            10, 0, host, 2,
        ])
        .unwrap();
        endpoint.connections = Some(connections);
        endpoint.active_routes = Some(active);
        endpoint
    }

    fn sample(at: Instant, hosts: &[(u8, u64, u32)], drops: u64) -> Sample {
        let mut service = Service::decode(&[
            8, 0, 1, 0, 192, 0, 2, 10, 6, 0, 2, 0, 0, 80, 0, 0, 8, 0, 3, 0, 6, 0, 0, 0,
        ])
        .unwrap();
        service.packets = Some(
            hosts
                .iter()
                .map(|(_, connections, _)| 10 * connections)
                .sum(),
        );
        let counter = |name: &str, value| Counter {
            name: name.to_owned(),
            value,
        };
        Sample {
            at,
            services: vec![service],
            endpoints: hosts.iter().map(|(a, b, c)| endpoint(*a, *b, *c)).collect(),
            forwarders: Vec::new(),
            stats: vec![Stats {
                family: "nlb-fwd",
                cpu: None,
                counters: vec![
                    counter("route-expired", 7),
                    counter("drop-no-memory", 0),
                    counter("drop-ttl-expired", 3),
                    counter("drop-table-full", drops),
                ],
            }],
        }
    }

    #[test]
    fn rates_are_differences_per_second() {
        let start = Instant::now();
        let before = sample(start, &[(2, 100, 1), (3, 50, 9)], 4);
        let later = start + Duration::from_secs(2);
        let now = sample(later, &[(2, 110, 1), (3, 90, 9), (4, 8, 0)], 5);
        let rates = Rates::between(&before, &now, SortBy::Connections);
        let rows: Vec<_> = rates
            .rows
            .iter()
            .map(|row| {
                (
                    row.host.as_deref(),
                    row.active_routes,
                    row.connections,
                    row.packets,
                )
            })
            .collect();
        assert_eq!(
            rows,
            [
                (None, Some(10), 0.0, 290.0),
                (Some("10.0.3.2"), Some(9), 20.0, 0.0),
                (Some("10.0.2.2"), Some(1), 5.0, 0.0),
                (Some("10.0.4.2"), Some(0), 4.0, 0.0),
            ]
        );
        let drops: Vec<_> = rates
            .drops
            .iter()
            .map(|drop| (drop.reason.as_str(), drop.rate, drop.total))
            .collect();
        assert_eq!(drops, [("table-full", 0.5, 5), ("ttl-expired", 0.0, 3)]);
        let by_name = Rates::between(&before, &now, SortBy::Name);
        assert_eq!(by_name.rows[1].host.as_deref(), Some("10.0.2.2"));
        // It was removed and added meanwhile, or its counters were zeroed.
        let again = sample(later, &[(2, 6, 1)], 0);
        let rates = Rates::between(&before, &again, SortBy::Name);
        assert_eq!(rates.rows[1].connections, 3.0);
    }

    #[test]
    fn rates_are_short() {
        for (rate, short) in [
            (0.0, "0"),
            (0.26, "0.3"),
            (99.94, "99.9"),
            (100.4, "100"),
            (9999.0, "9999"),
            (10_000.0, "10.0k"),
            (1.26e6, "1.3M"),
            (2e9, "2.0G"),
            (3e13, "30.0T"),
        ] {
            assert_eq!(text(rate), short);
        }
    }
}
