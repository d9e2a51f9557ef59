// SPDX-License-Identifier: MIT OR Apache-2.0

//! What Prometheus is told.

use super::{
    balancer::Applied,
    follower::{self, Follower},
    plan::Effect,
    state_name, Handler,
};
use nlb_daemon::{
    metrics::{Kind, Page},
    udp::Traffic,
};
use nlb_health::row::{Directive, Health};
use nlb_netlink::EndpointState;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Instant, SystemTime},
};

/// Hosts, and services, that have series of their own: those with the lowest numbers, or addresses. Others are in
/// the sums.
pub(super) const SERIES_MAX: usize = 256;

/// What was done in balancers.
#[derive(Debug, Default)]
pub(super) struct Tally {
    plans: u64,
    failed: u64,
    states: u64,
    weights: u64,
    allotments: u64,
}

impl Tally {
    /// A plan was carried out, or something went wrong.
    pub(super) fn count(&mut self, applied: &Applied) {
        match applied.trouble {
            None => self.plans += 1,
            Some(_) => self.failed += 1,
        }
        let allotted = applied.allotted.as_ref();
        self.allotments += allotted.map_or(0, |allotted| allotted.set);
        for made in &applied.made {
            self.states += u64::from(made.change.state.is_some());
            self.weights += u64::from(made.change.weight.is_some());
        }
    }
}

/// The page.
pub(super) fn page(handler: &Handler, traffic: &Traffic, started: SystemTime) -> String {
    let mut page = Page::default();
    page.about("nlbd", env!("CARGO_PKG_VERSION"), started);
    hosts(&mut page, handler);
    rows(&mut page, handler);
    endpoints(&mut page, handler);
    balancers(&mut page, handler);
    memberships(&mut page, handler);
    page.protocol("nlbd_health", handler.lbu.counters(), traffic);
    page.text()
}

fn hosts(page: &mut Page, handler: &Handler) {
    let stale = handler.stale().into_iter();
    let stale: BTreeSet<_> = stale.map(|(_, host)| host).collect();
    let mut hosts = page.family(
        "nlbd_health_hosts",
        Kind::Gauge,
        "Hosts whose tables are known; and those that were governed, and are silent.",
    );
    hosts.put(&[("state", "known")], handler.lbu.heard().count());
    hosts.put(&[("state", "stale")], stale.len());
    let now = Instant::now();
    let ages = || {
        let heard = handler.lbu.heard();
        heard.map(|(host, at)| (host, now.saturating_duration_since(at).as_secs_f64()))
    };
    page.single(
        "nlbd_health_heartbeat_age_max_seconds",
        Kind::Gauge,
        "Of all hosts whose tables are known, the longest time since the newest heartbeat or other message.",
        ages().fold(0.0, |max, (_, age)| f64::max(max, age)),
    );
    let mut series = page.family(
        "nlbd_health_heartbeat_age_seconds",
        Kind::Gauge,
        "Time since the newest heartbeat or other message of a host.",
    );
    for (host, age) in ages().take(SERIES_MAX) {
        let name = handler.lbu.name(host).unwrap_or_default();
        series.put(&[("host", host.to_string().as_str()), ("name", name)], age);
    }
}

fn rows(page: &mut Page, handler: &Handler) {
    let mut counts = BTreeMap::<_, u64>::new();
    let cache = handler.lbu.cache();
    for (_, cached) in cache.hosts().flat_map(|host| cache.host(host)) {
        let status = cached.row.status;
        *counts.entry((status.health, status.target)).or_default() += 1;
    }
    let mut rows = page.family(
        "nlbd_health_rows",
        Kind::Gauge,
        "Applications that are known, by health and by what their hosts ask for.",
    );
    for health in Health::ALL {
        for target in Directive::ALL {
            let count = counts.get(&(health, target)).copied().unwrap_or(0);
            rows.put(
                &[("health", health.name()), ("target", target.name())],
                count,
            );
        }
    }
    page.single(
        "nlbd_health_stale_rows",
        Kind::Gauge,
        "Endpoints that were governed, and of which nothing is known any more.",
        handler.stale().len(),
    );
    page.single(
        "nlbd_health_cache_bytes",
        Kind::Gauge,
        "Bytes of the applications that are known.",
        cache.bytes(),
    );
}

fn endpoints(page: &mut Page, handler: &Handler) {
    // Several rows may be about one endpoint.
    let all = handler.followers.iter().enumerate();
    let all = all.flat_map(|(number, own)| own.effects().map(move |effect| (number, effect)));
    let all = all.map(|(number, effect)| ((number, effect.number), effect));
    let all: BTreeMap<_, &Effect> = all.collect();
    let mut services = BTreeMap::<_, bool>::new();
    for effect in all.values() {
        *services.entry(effect.service).or_default() |= effect.is_panic();
    }
    let states = [
        EndpointState::Active,
        EndpointState::Draining,
        EndpointState::Inactive,
    ];
    let mut series = page.family(
        "nlbd_health_endpoints",
        Kind::Gauge,
        "Endpoints that are governed, by what they do.",
    );
    for state in states {
        let count = all.values().filter(|effect| effect.state == state).count();
        series.put(&[("state", state_name(state))], count);
    }
    page.single(
        "nlbd_health_services",
        Kind::Gauge,
        "Services of which endpoints are governed.",
        services.len(),
    );
    page.single(
        "nlbd_health_panic_services",
        Kind::Gauge,
        "Services in which health does not count, for too many endpoints are not healthy.",
        services.values().filter(|panic| **panic).count(),
    );
    let mut series = page.family(
        "nlbd_health_panic",
        Kind::Gauge,
        "Whether health does not count in a service.",
    );
    for (service, panic) in services.iter().take(SERIES_MAX) {
        let service = service.to_string();
        series.put(&[("service", service.as_str())], u8::from(*panic));
    }
}

fn balancers(page: &mut Page, handler: &Handler) {
    let tally = &handler.tally;
    let mut plans = page.family(
        "nlbd_health_plans_total",
        Kind::Counter,
        "How often it was looked at a balancer and carried out what had to be done.",
    );
    plans.put(&[("outcome", "done")], tally.plans);
    plans.put(&[("outcome", "failed")], tally.failed);
    let mut changes = page.family(
        "nlbd_health_applied_changes_total",
        Kind::Counter,
        "Changes of endpoints in balancers, by what was changed.",
    );
    changes.put(&[("change", "state")], tally.states);
    changes.put(&[("change", "weight")], tally.weights);
    page.single(
        "nlbd_health_allotments_total",
        Kind::Counter,
        "Allotments that the forwarder was given.",
        tally.allotments,
    );
    let mut forwarder = page.family(
        "nlbd_health_forwarder_follows",
        Kind::Gauge,
        "Whether the forwarder has taken all that it was told: 1, or 0.",
    );
    for follower in &handler.followers {
        if follower.kind == follower::Kind::Forwarder {
            forwarder.put(&[], u8::from(follower.trouble().is_none()));
        }
    }
    let mut haproxies = page.family(
        "nlbd_health_haproxy_follows",
        Kind::Gauge,
        "Whether a backend of a HAProxy has taken all that it was told: 1, or 0.",
    );
    for follower in &handler.followers {
        if let follower::Kind::Haproxy(entry) = &follower.kind {
            let socket = entry.address.to_string();
            let (socket, backend) = (socket.as_str(), entry.backend.as_str());
            let labels = [("socket", socket), ("backend", backend)];
            haproxies.put(&labels, u8::from(follower.trouble().is_none()));
        }
    }
    page.single(
        "nlbd_health_allotments_follow",
        Kind::Gauge,
        "Whether the forwarder has taken all allotments: 1, or 0.",
        u8::from(handler.followers.iter().all(Follower::is_allotted)),
    );
    page.single(
        "nlbd_health_cache_changes_total",
        Kind::Counter,
        "Changes of the cache.",
        handler.lbu.cache().version(),
    );
    page.single(
        "nlbd_health_cache_changes_in_force_total",
        Kind::Counter,
        "Changes of the cache that all balancers have taken.",
        handler.applied,
    );
}

fn memberships(page: &mut Page, handler: &Handler) {
    let mut series = page.family(
        "nlbd_health_multicast_heard",
        Kind::Gauge,
        "Whether a multicast group of hosts is joined at its interface: 1, or 0.",
    );
    for (of, trouble) in &handler.memberships {
        let group = of.group.to_string();
        let labels = [
            ("group", group.as_str()),
            ("interface", of.interface.as_str()),
        ];
        series.put(&labels, u8::from(trouble.is_none()));
    }
}
