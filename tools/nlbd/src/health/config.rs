// SPDX-License-Identifier: MIT OR Apache-2.0

//! The configuration file of `nlbd health`.

use super::{
    allot::{Order, Orders},
    follower::Kind,
    haproxy::{self, Address, Entry},
};
use nlb_daemon::{
    config::{Fixed, Mistake, Source},
    keys::{self, KeyEntry},
    metrics,
    udp::{Membership, MULTICAST_MAX},
};
use nlb_health::{lbu::LbuConfig, seal::Keys};
use nlb_netlink::{AllotmentScheme, Proto, ServiceKey};
use serde::Deserialize;
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
};
use toml::Spanned;

/// Backends that may be governed, and bytes of a path of a socket.
const BACKENDS_MAX: usize = 64;
const PATH_MAX: usize = 107;
/// Services that may be allotted.
const ALLOTMENTS_MAX: usize = 256;
/// Most tokens that the forwarder takes for an endpoint.
const TOKENS_MAX: u64 = 1_000_000;

/// A configuration that was found to be right.
pub(crate) struct Config {
    /// How the protocol is spoken; the life is not chosen yet.
    pub(crate) lbu: LbuConfig,
    pub(crate) keys: Keys,
    /// Where hosts are heard; at every address, if none is named.
    pub(crate) listen: Option<Vec<SocketAddr>>,
    /// Multicast groups in which hosts are heard, too.
    pub(crate) multicast: Vec<Membership>,
    pub(crate) socket: PathBuf,
    /// Where metrics are asked for, if anybody may.
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) state: PathBuf,
    /// Users who may ask what is known, beside root.
    pub(crate) users: BTreeSet<u32>,
    pub(crate) panic: Panic,
    /// The hosts that speak for others.
    pub(crate) proxies: BTreeSet<u32>,
    /// Who follows.
    pub(crate) balancers: Vec<Kind>,
    pub(crate) allotments: Orders,
}

/// When health counts no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Panic {
    /// If more than so many percent of a service's endpoints that should get connections are not healthy.
    pub(crate) threshold: u64,
    /// Whether those of which nothing is known any more get connections when no other endpoint is healthy.
    pub(crate) stale: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    lbu: Spanned<u32>,
    listen: Option<Spanned<Vec<SocketAddr>>>,
    #[serde(default)]
    multicast: Vec<MulticastEntry>,
    socket: Option<PathBuf>,
    metrics: Option<Spanned<String>>,
    state: Option<PathBuf>,
    #[serde(default)]
    users: BTreeSet<u32>,
    panic_threshold: Option<Spanned<u64>>,
    panic_stale: Option<bool>,
    age_limit_ms: Option<Spanned<u64>>,
    #[serde(default)]
    proxies: BTreeSet<u32>,
    forwarder: Option<Spanned<bool>>,
    #[serde(default)]
    key: Vec<KeyEntry>,
    #[serde(default)]
    haproxy: Vec<HaproxyEntry>,
    #[serde(default)]
    allotment: Vec<AllotmentEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MulticastEntry {
    group: Spanned<SocketAddr>,
    interface: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HaproxyEntry {
    socket: Spanned<String>,
    backend: Spanned<String>,
    vip: Spanned<String>,
    weights: Option<bool>,
    timeout_ms: Option<Spanned<u64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AllotmentEntry {
    service: Spanned<String>,
    scheme: Spanned<String>,
    tokens: Option<Spanned<u64>>,
    age_ms: Option<Spanned<u64>>,
}

impl Config {
    /// Reads and checks a file, and the secrets that it names.
    pub(crate) fn load(path: &Path) -> Result<Self, Mistake> {
        Self::parse(&Source::read(path)?, path)
    }

    /// What another reading does not change, by its key.
    pub(crate) fn fixed(&self) -> Vec<Fixed> {
        vec![
            ("lbu", self.lbu.lbu.to_string()),
            ("listen", format!("{:?}", self.listen)),
            ("socket", format!("{:?}", self.socket)),
            ("metrics", format!("{:?}", self.metrics)),
            ("state", format!("{:?}", self.state)),
            ("age_limit_ms", format!("{:?}", self.lbu.age_limit)),
        ]
    }

    /// Checks what is in a file at `path`.
    pub(crate) fn parse(source: &Source, path: &Path) -> Result<Self, Mistake> {
        let file: File = source.parse()?;
        let lbu = *file.lbu.get_ref();
        if lbu == 0 {
            let what = "lbu is 0; choose a number that no other load balancing unit has";
            return Err(source.mistake(Some(file.lbu.span()), what));
        }
        let listen = match file.listen {
            None => None,
            Some(listen) => {
                let v6 = listen.get_ref().iter().filter(|own| own.is_ipv6()).count();
                let v4 = listen.get_ref().len() - v6;
                let is_open = |own: &SocketAddr| own.port() == 0;
                if v4 + v6 == 0 || v4 > 1 || v6 > 1 || listen.get_ref().iter().any(is_open) {
                    let what = "listen names an address and port for each address family, \
                        such as \"0.0.0.0:4771\"; or leave it out";
                    return Err(source.mistake(Some(listen.span()), what));
                }
                Some(listen.into_inner())
            }
        };
        let age_limit =
            source.milliseconds("age_limit_ms", &file.age_limit_ms, 30_000, 200..=600_000)?;
        let threshold = source.number("panic_threshold", &file.panic_threshold, 50, 0..=100)?;
        let balancers = balancers(source, file.forwarder.as_ref(), &file.haproxy)?;
        if let Some(entry) = file.allotment.first() {
            if !balancers.contains(&Kind::Forwarder) {
                let what = "forwarder is false, and allotments are for it alone; take them out";
                return Err(source.mistake(Some(entry.service.span()), what));
            }
        }
        Ok(Self {
            lbu: LbuConfig {
                age_limit,
                ..LbuConfig::new(lbu, 1)
            },
            keys: keys::load(source, &file.key, path)?,
            multicast: multicast(source, &file.multicast, listen.as_deref())?,
            listen,
            metrics: metrics::address(source, &file.metrics)?,
            socket: file.socket.unwrap_or_else(|| "/run/nlbd/health".into()),
            state: file
                .state
                .unwrap_or_else(|| "/var/lib/nlbd/health.json".into()),
            users: file.users,
            allotments: allotments(source, &file.allotment)?,
            panic: Panic {
                threshold,
                stale: file.panic_stale.unwrap_or(true),
            },
            proxies: file.proxies,
            balancers,
        })
    }
}

/// The multicast groups, each once at an interface.
fn multicast(
    source: &Source,
    entries: &[MulticastEntry],
    listen: Option<&[SocketAddr]>,
) -> Result<Vec<Membership>, Mistake> {
    let mut all = Vec::new();
    for entry in entries {
        let of = Membership::check(source, &entry.group, &entry.interface)?;
        let wrong = |what: String| source.mistake(Some(entry.group.span()), what);
        let is_same = |own: &SocketAddr| own.is_ipv4() == of.group.is_ipv4();
        if listen.is_some_and(|listen| !listen.iter().any(is_same)) {
            return Err(wrong(format!(
                "group is {}, and listen has no address of that family, from which its hosts could be asked; add one",
                of.group
            )));
        }
        if all.contains(&of) {
            return Err(wrong(format!("{of} is there twice; take one of them out")));
        }
        if all.len() == MULTICAST_MAX {
            return Err(wrong(format!(
                "there are more than {MULTICAST_MAX} multicast groups; take some out"
            )));
        }
        all.push(of);
    }
    Ok(all)
}

/// Who follows: the forwarder, and each backend once.
fn balancers(
    source: &Source,
    forwarder: Option<&Spanned<bool>>,
    entries: &[HaproxyEntry],
) -> Result<Vec<Kind>, Mistake> {
    let mut all = Vec::new();
    match forwarder {
        Some(no) if !no.get_ref() => {
            if entries.is_empty() {
                let what = "forwarder is false, and there is no [[haproxy]]: nobody would follow; \
                    name one, or leave forwarder out";
                return Err(source.mistake(Some(no.span()), what));
            }
        }
        _ => all.push(Kind::Forwarder),
    }
    let mut seen: Vec<(Address, &str)> = Vec::new();
    for entry in entries {
        let at = entry.backend.span();
        let wrong = |what: String| source.mistake(Some(at.clone()), what);
        if seen.len() == BACKENDS_MAX {
            return Err(wrong(format!(
                "there are more than {BACKENDS_MAX} backends"
            )));
        }
        let own = backend(source, entry)?;
        let name = (own.address.clone(), entry.backend.get_ref().as_str());
        if seen.contains(&name) {
            let what = format!("backend \"{}\" is there twice; name one vip for it", name.1);
            return Err(wrong(what));
        }
        seen.push(name);
        all.push(Kind::Haproxy(own));
    }
    Ok(all)
}

/// Checks a `[[haproxy]]`.
fn backend(source: &Source, entry: &HaproxyEntry) -> Result<Entry, Mistake> {
    let socket = entry.socket.get_ref();
    let address = if socket.starts_with('/') && socket.len() <= PATH_MAX {
        Address::Unix(socket.into())
    } else {
        // Whoever reaches it can do everything with HAProxy.
        let own = socket.parse().ok();
        let own = own.filter(|own: &SocketAddr| own.ip().is_loopback() && own.port() != 0);
        Address::Tcp(own.ok_or_else(|| {
            let what = format!(
                "socket is \"{socket}\"; write the path of HAProxy's `stats socket` (up to {PATH_MAX} bytes), or \
                 its address and port on the loopback, such as \"127.0.0.1:9999\""
            );
            source.mistake(Some(entry.socket.span()), what)
        })?)
    };
    if !haproxy::is_name(entry.backend.get_ref()) {
        let what =
            "backend is no name of a backend: letters, digits, \"-\", \"_\", \".\" and \":\"";
        return Err(source.mistake(Some(entry.backend.span()), what));
    }
    let service: Result<ServiceKey, _> = entry.vip.get_ref().parse();
    let wrong = |what: String| source.mistake(Some(entry.vip.span()), what);
    let service = service.map_err(|error| wrong(format!("vip: {error}")))?;
    let has_port = service.socket().is_some_and(|vip| vip.port() != 0);
    if !has_port || service.proto != Proto::TCP {
        return Err(wrong(format!(
            "vip is {service}; name one port of TCP, as applications do, such as \"192.0.2.10:80/tcp\""
        )));
    }
    Ok(Entry {
        address,
        backend: entry.backend.get_ref().clone(),
        service,
        has_weights: entry.weights.unwrap_or(true),
        timeout: source.milliseconds("timeout_ms", &entry.timeout_ms, 1000, 100..=60_000)?,
    })
}

fn allotments(source: &Source, entries: &[AllotmentEntry]) -> Result<Orders, Mistake> {
    let mut orders = Orders::new();
    for entry in entries {
        let at = Some(entry.service.span());
        let service: ServiceKey = match entry.service.get_ref().parse() {
            Ok(service) => service,
            Err(error) => return Err(source.mistake(at, error)),
        };
        let scheme: AllotmentScheme = match entry.scheme.get_ref().parse() {
            Ok(scheme) => scheme,
            Err(error) => return Err(source.mistake(Some(entry.scheme.span()), error)),
        };
        let total = match (scheme, &entry.tokens) {
            (AllotmentScheme::Tokens, tokens) => {
                source.number("tokens", tokens, 1000, 1..=TOKENS_MAX)?
            }
            (AllotmentScheme::Percentages, None) => 100,
            (AllotmentScheme::Percentages, Some(tokens)) => {
                let what = "percentages have no number of tokens; leave it out";
                return Err(source.mistake(Some(tokens.span()), what));
            }
        };
        let order = Order {
            scheme,
            total: u32::try_from(total).unwrap_or(u32::MAX),
            age: source.milliseconds("age_ms", &entry.age_ms, 10_000, 1000..=3_600_000)?,
        };
        if orders.len() >= ALLOTMENTS_MAX {
            let what = format!("there are more than {ALLOTMENTS_MAX} allotments; take some out");
            return Err(source.mistake(at, what));
        }
        if orders.insert(service, order).is_some() {
            let what = format!("{service} is allotted twice; take one of them out");
            return Err(source.mistake(at, what));
        }
    }
    Ok(orders)
}
