// SPDX-License-Identifier: MIT OR Apache-2.0

//! What Prometheus is told.

use crate::{check::Probe, host::Host, systemd::Phase};
use nlb_daemon::{
    metrics::{Histogram, Kind, Page},
    udp::Traffic,
};
use nlb_health::row::{Directive, Health};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

/// What has come of looking at an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is as it shall be.
    Good,
    /// It is not.
    Bad,
    /// It has not answered in time.
    Timeout,
    /// The agent could not look.
    Blind,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Good, Self::Bad, Self::Timeout, Self::Blind];

    fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Timeout => "timeout",
            Self::Blind => "blind",
        }
    }
}

/// How often it was looked at applications, and what came of it.
#[derive(Debug, Default)]
pub(crate) struct Looks(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// Of each application and kind of check, by outcome. There are as many as the configuration file has.
    outcomes: BTreeMap<(String, &'static str), [u64; Outcome::ALL.len()]>,
    /// Of each kind of check.
    durations: BTreeMap<&'static str, Histogram>,
}

impl Looks {
    fn with<T>(&self, act: impl FnOnce(&mut Counts) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A look has taken so long.
    pub(crate) fn count(&self, app: &str, probe: &Probe, outcome: Outcome, taken: Duration) {
        self.with(|counts| {
            let key = (app.to_owned(), probe.kind());
            let of_app = counts.outcomes.entry(key).or_default();
            if let Some(count) = of_app.get_mut(outcome as usize) {
                *count += 1;
            }
            if outcome != Outcome::Blind {
                let durations = counts.durations.entry(probe.kind()).or_default();
                durations.observe(taken);
            }
        });
    }

    /// There are checks of these applications only.
    pub(crate) fn keep(&self, apps: BTreeSet<&str>) {
        let is_there = |app: &String| apps.contains(app.as_str());
        self.with(|counts| counts.outcomes.retain(|(app, _), _| is_there(app)));
    }
}

/// The page.
pub(crate) fn page(host: &Host, looks: &Looks, traffic: &Traffic, started: SystemTime) -> String {
    let mut page = Page::default();
    page.about("nlb_agent", env!("CARGO_PKG_VERSION"), started);
    apps(&mut page, host);
    units(&mut page, host);
    page.single(
        "nlb_agent_lbus",
        Kind::Gauge,
        "Load balancing units that have asked for the table and were heard of lately.",
        host.agent.lbus().count(),
    );
    looks.with(|counts| {
        let mut checks = page.family(
            "nlb_agent_checks_total",
            Kind::Counter,
            "Looks at applications, by what came of them.",
        );
        for ((app, kind), counts) in &counts.outcomes {
            for (outcome, count) in Outcome::ALL.into_iter().zip(counts) {
                let labels = [
                    ("app", app.as_str()),
                    ("kind", *kind),
                    ("outcome", outcome.name()),
                ];
                checks.put(&labels, count);
            }
        }
        let mut durations = page.family(
            "nlb_agent_check_duration_seconds",
            Kind::Histogram,
            "How long looks at applications have taken.",
        );
        for (kind, histogram) in &counts.durations {
            durations.histogram(&[("kind", *kind)], histogram);
        }
    });
    page.protocol("nlb_agent", host.agent.counters(), traffic);
    page.text()
}

fn apps(page: &mut Page, host: &Host) {
    let mut counts = BTreeMap::<_, u64>::new();
    for (_, status) in host.statuses() {
        *counts.entry((status.health, status.target)).or_default() += 1;
    }
    let mut apps = page.family(
        "nlb_agent_apps",
        Kind::Gauge,
        "Applications in the table, by health and by what the host asks for.",
    );
    for health in Health::ALL {
        for target in Directive::ALL {
            let count = counts.get(&(health, target)).copied().unwrap_or(0);
            let labels = [("health", health.name()), ("target", target.name())];
            apps.put(&labels, count);
        }
    }
    let mut healthy = page.family(
        "nlb_agent_app_healthy",
        Kind::Gauge,
        "Whether an application is healthy: 1, or 0 if it is failing or unknown.",
    );
    for (app, status) in host.statuses() {
        let is_healthy = status.health == Health::Healthy;
        healthy.put(&[("app", app)], u8::from(is_healthy));
    }
    let mut load = page.family(
        "nlb_agent_app_load_ratio",
        Kind::Gauge,
        "Load of an application as it was told last: 1 is all of its capacity.",
    );
    for (app, status) in host.statuses() {
        load.put(&[("app", app)], f64::from(status.load) / 100.0);
    }
    let mut capacity = page.family(
        "nlb_agent_app_capacity",
        Kind::Gauge,
        "Capacity of an application, compared with others of its kind.",
    );
    for (app, status) in host.statuses() {
        capacity.put(&[("app", app)], status.capacity);
    }
}

fn units(page: &mut Page, host: &Host) {
    let mut running = page.family(
        "nlb_agent_unit_running",
        Kind::Gauge,
        "Whether the unit of systemd that an application is runs: 1, or 0 if it does not.",
    );
    for (app, unit, phase) in host.phases() {
        if let Some(phase) = phase {
            let labels = [("app", app), ("unit", unit)];
            running.put(&labels, u8::from(phase == Phase::Running));
        }
    }
    page.single(
        "nlb_agent_units_unknown",
        Kind::Gauge,
        "Applications of whose units nothing is known: systemd cannot be asked.",
        host.phases().filter(|(.., phase)| phase.is_none()).count(),
    );
}
