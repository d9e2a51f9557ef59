// SPDX-License-Identifier: MIT OR Apache-2.0

//! The configuration file.

use crate::{
    pool::{
        Pool,
        Weights, //
    },
    rules::{
        HostPattern,
        Rule,
        Rules, //
    }, //
};
use nlb_daemon::config::{
    Mistake,
    Source, //
};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    net::{
        IpAddr,
        SocketAddr, //
    },
    path::Path,
    sync::Arc,
    time::Duration, //
};
use toml::Spanned;

/// A configuration that was found to be right.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) peek_bytes: usize,
    pub(crate) peek_timeout: Duration,
    pub(crate) max_connections: usize,
    pub(crate) migrate_timeout: Duration,
    pub(crate) workers: usize,
    pub(crate) failed: Failed,
    pub(crate) rules: Rules,
}

/// What happens when every endpoint has refused.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub(crate) enum Failed {
    /// Answer `503 Service Unavailable`, then close.
    #[default]
    #[serde(rename = "503")]
    Answer,
    /// Close.
    #[serde(rename = "close")]
    Close,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Spanned<Vec<SocketAddr>>,
    peek_bytes: Option<Spanned<u64>>,
    peek_timeout_ms: Option<Spanned<u64>>,
    max_connections: Option<Spanned<u64>>,
    migrate_timeout_ms: Option<Spanned<u64>>,
    workers: Option<Spanned<u64>>,
    default: Spanned<String>,
    unplaced: Option<Spanned<String>>,
    #[serde(default)]
    failed: Failed,
    #[serde(default)]
    pool: BTreeMap<String, PoolEntry>,
    #[serde(default)]
    rule: Vec<RuleEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PoolEntry {
    hosts: Spanned<Vec<HostEntry>>,
    #[serde(default)]
    weights: Weights,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected an address or { addr = \"…\", weight = N }"
)]
enum HostEntry {
    Addr(IpAddr),
    Weighted(WeightedHost),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WeightedHost {
    addr: IpAddr,
    #[serde(default = "one")]
    weight: u32,
}

fn one() -> u32 {
    1
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleEntry {
    host: Option<Spanned<String>>,
    path: Option<Spanned<String>>,
    method: Option<Spanned<String>>,
    pool: Spanned<String>,
}

impl Config {
    /// Reads and checks a file.
    pub(crate) fn load(path: &Path) -> Result<Self, Mistake> {
        Self::parse(&Source::read(path)?)
    }

    /// Whether some pool goes by the weights of endpoints.
    pub(crate) fn follows(&self) -> bool {
        let Rules {
            rules,
            default,
            unplaced,
        } = &self.rules;
        let pools = rules.iter().map(|rule| &rule.pool);
        pools
            .chain(default)
            .chain(unplaced)
            .any(|pool| pool.follows())
    }

    /// Checks the text of a file.
    pub(crate) fn parse(source: &Source) -> Result<Self, Mistake> {
        let file: File = source.parse()?;
        if file.listen.get_ref().is_empty() {
            let what = "listen is empty; name at least one VIP and port, such as \"192.0.2.10:80\"";
            return Err(source.mistake(Some(file.listen.span()), what));
        }
        let pools = pools(source, file.pool)?;
        let find = |entry: &Spanned<String>| -> Result<Arc<Pool>, Mistake> {
            pools.get(entry.get_ref()).cloned().ok_or_else(|| {
                let what = format!(
                    "there is no pool \"{0}\"; add a section [pool.{0}] with its hosts",
                    entry.get_ref()
                );
                source.mistake(Some(entry.span()), what)
            })
        };
        let find_or_close = |entry: &Spanned<String>| match entry.get_ref().as_str() {
            "close" => Ok(None),
            _ => find(entry).map(Some),
        };
        let default = find_or_close(&file.default)?;
        let unplaced = match &file.unplaced {
            Some(entry) => find_or_close(entry)?,
            None => None,
        };
        let mut rules = Vec::new();
        for entry in &file.rule {
            let rule = rule(source, entry, find(&entry.pool)?)?;
            rules.push(rule);
        }
        Ok(Self {
            peek_bytes: source.number("peek_bytes", &file.peek_bytes, 16384, 16..=65536)? as usize,
            peek_timeout: source.milliseconds(
                "peek_timeout_ms",
                &file.peek_timeout_ms,
                5000,
                10..=600_000,
            )?,
            max_connections: source.number(
                "max_connections",
                &file.max_connections,
                10_000,
                1..=1_000_000,
            )? as usize,
            migrate_timeout: source.milliseconds(
                "migrate_timeout_ms",
                &file.migrate_timeout_ms,
                2000,
                10..=30_000,
            )?,
            workers: source.number("workers", &file.workers, 8, 1..=256)? as usize,
            listen: file.listen.into_inner(),
            failed: file.failed,
            rules: Rules {
                rules,
                default,
                unplaced,
            },
        })
    }
}

fn pools(
    source: &Source,
    entries: BTreeMap<String, PoolEntry>,
) -> Result<BTreeMap<String, Arc<Pool>>, Mistake> {
    let mut pools = BTreeMap::new();
    for (name, entry) in entries {
        let span = entry.hosts.span();
        if name == "close" {
            let what = "a pool can not be called \"close\", which stands for closing";
            return Err(source.mistake(Some(span), what));
        }
        let hosts: Vec<_> = entry
            .hosts
            .into_inner()
            .into_iter()
            .map(|host| match host {
                HostEntry::Addr(addr) => (addr, 1),
                HostEntry::Weighted(host) => (host.addr, host.weight),
            })
            .collect();
        let pool = Pool::new(hosts, entry.weights)
            .map_err(|what| source.mistake(Some(span), format!("pool \"{name}\": {what}")))?;
        pools.insert(name, Arc::new(pool));
    }
    Ok(pools)
}

fn rule(source: &Source, entry: &RuleEntry, pool: Arc<Pool>) -> Result<Rule, Mistake> {
    if entry.host.is_none() && entry.path.is_none() && entry.method.is_none() {
        let what = "a rule needs a host, a path or a method; for all requests there is `default`";
        return Err(source.mistake(Some(entry.pool.span()), what));
    }
    if let Some(path) = entry
        .path
        .as_ref()
        .filter(|path| !path.get_ref().starts_with('/'))
    {
        let what = format!("path \"{0}\" has to begin with \"/\"", path.get_ref());
        return Err(source.mistake(Some(path.span()), what));
    }
    let host = match &entry.host {
        Some(host) => Some(HostPattern::new(host.get_ref()).ok_or_else(|| {
            let what = format!(
                "host \"{}\" is no host name; write \"name\" or \"*.suffix\", without a port",
                host.get_ref()
            );
            source.mistake(Some(host.span()), what)
        })?),
        None => None,
    };
    Ok(Rule {
        host,
        path: entry.path.as_ref().map(|path| path.get_ref().clone()),
        method: entry.method.as_ref().map(|method| method.get_ref().clone()),
        pool,
    })
}
