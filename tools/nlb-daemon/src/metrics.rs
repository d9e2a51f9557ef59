// SPDX-License-Identifier: MIT OR Apache-2.0

//! Metrics in Prometheus' text format (version 0.0.4), and the socket on which they are asked for.
//!
//! What is counted belongs to the loop around the protocol's machine: [`serve`] asks it for a [`Page`], not more often
//! than once a second, however many ask. A library of metrics would bring counters of its own, and one of HTTP far
//! more than what is answered here; heads of requests are parsed by httparse.

mod serve;

#[cfg(test)]
pub(crate) mod strict;
#[cfg(test)]
mod tests;

pub use serve::{serve, Scrape};

use crate::{
    config::{Mistake, Source},
    udp::Traffic,
};
use nlb_health::{counters, Counters};
use std::{
    fmt::{Display, Write},
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use toml::Spanned;

/// The address of the key `metrics` of a configuration file, if there is one.
pub fn address(
    source: &Source,
    entry: &Option<Spanned<String>>,
) -> Result<Option<SocketAddr>, Mistake> {
    let Some(entry) = entry else {
        return Ok(None);
    };
    let address = entry.get_ref().parse().ok();
    let is_fit = |address: &SocketAddr| address.port() != 0 && !address.ip().is_multicast();
    match address.filter(is_fit) {
        Some(address) => Ok(Some(address)),
        None => {
            let what = format!(
                "metrics is \"{}\"; write an address and port of this machine, \
                 such as \"127.0.0.1:4771\", or leave it out",
                entry.get_ref()
            );
            Err(source.mistake(Some(entry.span()), what))
        }
    }
}

/// What the values of a family are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They only grow, until the program starts again. The name ends with `_total`.
    Counter,
    /// They come and go.
    Gauge,
    /// How many values were how large.
    Histogram,
}

/// A page of metrics.
#[derive(Debug, Default)]
pub struct Page(String);

/// The samples of a family.
#[derive(Debug)]
pub struct Samples<'a> {
    text: &'a mut String,
    name: String,
}

impl Page {
    /// A family, once on a page, and all its samples. `help` is one line without backslashes.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) -> Samples<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // A string takes everything.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Samples {
            text: &mut self.0,
            name: name.to_owned(),
        }
    }

    /// A family of one sample.
    pub fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help).put(&[], value);
    }

    /// What all daemons have: which version it is, and since when it runs.
    pub fn about(&mut self, prefix: &str, version: &str, started: SystemTime) {
        let name = format!("{prefix}_build_info");
        let mut info = self.family(&name, Kind::Gauge, "Always 1; the version is a label.");
        info.put(&[("version", version)], 1);
        let since = started.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.single(
            "process_start_time_seconds",
            Kind::Gauge,
            "Start of the process, in seconds since the epoch.",
            since.as_secs_f64(),
        );
    }

    /// What all daemons that speak the protocol of health and load have. Reasons to drop are there before the first
    /// datagram is dropped.
    pub fn protocol(&mut self, prefix: &str, counters: &Counters, traffic: &Traffic) {
        for (name, help, value) in traffic.all() {
            self.single(&format!("{prefix}_{name}"), Kind::Counter, help, value);
        }
        let named = |name: &str| format!("{prefix}_{name}_total");
        let mut messages = self.family(
            &named("messages"),
            Kind::Counter,
            "Messages of the health protocol, by type.",
        );
        for kind in counters::MESSAGES {
            messages.put(&[("type", kind)], counters.get(kind));
        }
        let mut drops = self.family(
            &named("datagrams_dropped"),
            Kind::Counter,
            "Datagrams of the health protocol that were dropped, by reason.",
        );
        for reason in counters::DROPS {
            drops.put(&[("reason", reason)], counters.get(reason));
        }
        let mut events = self.family(
            &named("protocol_events"),
            Kind::Counter,
            "What else has happened in the health protocol, by the name of its counter.",
        );
        let is_other = |name: &str| {
            let mut shown = counters::MESSAGES.iter().chain(&counters::DROPS);
            shown.all(|other| *other != name)
        };
        for (event, count) in counters.iter().filter(|(name, _)| is_other(name)) {
            events.put(&[("event", event)], count);
        }
    }

    /// The text.
    pub fn text(self) -> String {
        self.0
    }
}

impl Samples<'_> {
    /// A sample. The labels are the same in all samples of the family, with other values.
    pub fn put(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        self.line("", labels, None, value);
        self
    }

    /// The samples of a histogram.
    pub fn histogram(&mut self, labels: &[(&str, &str)], histogram: &Histogram) -> &mut Self {
        let mut count = 0;
        for (bound, more) in BOUNDS.iter().zip(&histogram.counts) {
            count += more;
            self.line("_bucket", labels, Some(&bound.to_string()), count);
        }
        self.line("_bucket", labels, Some("+Inf"), histogram.count);
        self.line("_sum", labels, None, histogram.sum.as_secs_f64());
        self.line("_count", labels, None, histogram.count);
        self
    }

    fn line(
        &mut self,
        suffix: &str,
        labels: &[(&str, &str)],
        bound: Option<&str>,
        value: impl Display,
    ) {
        let (text, name) = (&mut self.text, &self.name);
        let _ = write!(text, "{name}{suffix}");
        let mut mark = '{';
        for (label, value) in labels.iter().copied().chain(bound.map(|le| ("le", le))) {
            let _ = write!(text, "{mark}{label}=\"");
            for c in value.chars() {
                match c {
                    '\\' => text.push_str("\\\\"),
                    '"' => text.push_str("\\\""),
                    '\n' => text.push_str("\\n"),
                    c => text.push(c),
                }
            }
            text.push('"');
            mark = ',';
        }
        if mark == ',' {
            text.push('}');
        }
        let _ = writeln!(text, " {value}");
    }
}

/// Upper bounds of the parts of a [`Histogram`], in seconds.
const BOUNDS: [f64; 8] = [0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 5.0];

/// How long something has taken, each time.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    counts: [u64; BOUNDS.len()],
    count: u64,
    sum: Duration,
}

impl Histogram {
    /// It has taken so long.
    pub fn observe(&mut self, taken: Duration) {
        let seconds = taken.as_secs_f64();
        let part = BOUNDS.iter().position(|bound| seconds <= *bound);
        if let Some(count) = part.and_then(|part| self.counts.get_mut(part)) {
            *count += 1;
        }
        self.count += 1;
        self.sum = self.sum.saturating_add(taken);
    }
}
