// SPDX-License-Identifier: MIT OR Apache-2.0

//! The configuration file.

mod check;
mod multicast;

use self::check::{CheckEntry, Trust};
use crate::{app::Spec, check::Check, load::Measure, systemd};
use nlb_daemon::{
    config::{Fixed, Mistake, Source},
    keys::{self, KeyEntry},
    metrics,
    udp::Multicast,
};
use nlb_health::{
    agent::{AgentConfig, GroupConfig},
    row,
    seal::Keys,
};
use nlb_netlink::{Ports, ServiceKey};
use serde::Deserialize;
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};
use toml::Spanned;

/// Longest name of an application.
const NAME_MAX: usize = 63;
const TCP: u8 = 6;
/// Capacity of an application that names none.
const CAPACITY: u8 = 50;

/// A configuration that was found to be right.
pub(crate) struct Config {
    /// How the protocol is spoken; the life is not chosen yet.
    pub(crate) agent: AgentConfig,
    pub(crate) keys: Keys,
    pub(crate) bind: Vec<SocketAddr>,
    /// How what is for multicast groups leaves.
    pub(crate) multicast: Vec<Multicast>,
    /// Addresses by which load balancing units know this host.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) socket: PathBuf,
    /// Where metrics are asked for, if anybody may.
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) state: PathBuf,
    /// Users who may register applications.
    pub(crate) register: BTreeSet<u32>,
    pub(crate) apps: Vec<FileApp>,
}

/// An application of the file.
pub(crate) struct FileApp {
    pub(crate) name: String,
    pub(crate) spec: Spec,
    /// The user who may report about it, beside root.
    pub(crate) uid: Option<u32>,
    /// The unit of systemd that it is.
    pub(crate) unit: Option<String>,
    pub(crate) checks: Vec<Check>,
    /// How its load is measured.
    pub(crate) measure: Option<Measure>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    host: Spanned<u32>,
    name: Option<Spanned<String>>,
    lbus: Option<Spanned<Vec<SocketAddr>>>,
    #[serde(default)]
    multicast: Vec<multicast::Entry>,
    bind: Option<Spanned<Vec<SocketAddr>>>,
    #[serde(default)]
    addresses: Vec<IpAddr>,
    socket: Option<PathBuf>,
    metrics: Option<Spanned<String>>,
    state: Option<PathBuf>,
    #[serde(default)]
    register: BTreeSet<u32>,
    heartbeat_ms: Option<Spanned<u64>>,
    age_limit_ms: Option<Spanned<u64>>,
    #[serde(default)]
    drain_when_failing: bool,
    group: Option<GroupEntry>,
    #[serde(default)]
    key: Vec<KeyEntry>,
    #[serde(default)]
    app: Vec<AppEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupEntry {
    id: Spanned<u32>,
    address: Spanned<SocketAddr>,
    members: Spanned<Vec<SocketAddr>>,
    changes: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AppEntry {
    name: Spanned<String>,
    vip: Spanned<String>,
    physical: Option<Spanned<SocketAddr>>,
    protocol: Option<Spanned<String>>,
    detail: Option<Spanned<String>>,
    capacity: Option<Spanned<u8>>,
    uid: Option<u32>,
    unit: Option<Spanned<String>>,
    #[serde(default)]
    check: Vec<CheckEntry>,
    load: Option<Spanned<LoadEntry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoadEntry {
    pressure: Option<Spanned<PathBuf>>,
    #[serde(default)]
    queue: bool,
    connections: Option<Spanned<u64>>,
    interval_ms: Option<Spanned<u64>>,
}

impl Config {
    /// Reads and checks a file, and the secrets that it names.
    pub(crate) fn load(path: &Path) -> Result<Self, Mistake> {
        Self::check(&Source::read(path)?, path)
    }

    /// What another reading does not change, by its key.
    pub(crate) fn fixed(&self) -> Vec<Fixed> {
        let agent = &self.agent;
        vec![
            ("host", agent.host.to_string()),
            ("name", format!("{:?}", agent.name)),
            ("bind", format!("{:?}", self.bind)),
            ("socket", format!("{:?}", self.socket)),
            ("metrics", format!("{:?}", self.metrics)),
            ("state", format!("{:?}", self.state)),
            ("heartbeat_ms", format!("{:?}", agent.heartbeat_interval)),
            ("age_limit_ms", format!("{:?}", agent.age_limit)),
            ("drain_when_failing", agent.drain_when_failing.to_string()),
            ("group", format!("{:?}", self.place())),
        ]
    }

    /// Where datagrams for load balancing units go.
    pub(crate) fn receivers(&self) -> impl Iterator<Item = &SocketAddr> {
        self.agent.lbus.iter().chain(&self.agent.multicast)
    }

    /// Where the host is in which group, and how it leads.
    fn place(&self) -> Option<(u32, SocketAddr, bool)> {
        let group = self.agent.group.as_ref()?;
        Some((group.id, group.address, group.changes))
    }

    /// The host stays in the group of `old`, and where it is there; others may be its members.
    pub(crate) fn keep_place(&mut self, old: &Self) {
        if self.place() != old.place() {
            self.agent.group = old.agent.group.clone();
        }
    }

    /// Checks what is in a file at `path`.
    pub(crate) fn check(source: &Source, path: &Path) -> Result<Self, Mistake> {
        let file: File = source.parse()?;
        let wrong = |at: Range<usize>, what: &str| source.mistake(Some(at), what);
        if *file.host.get_ref() == 0 {
            let what = "host is 0; choose a number that no other host has";
            return Err(wrong(file.host.span(), what));
        }
        if let Some(name) = &file.name {
            if !row::is_dns_name(name.get_ref().as_bytes()) {
                let what =
                    "name is no DNS name; write one like \"host1.example.com\", or leave it out";
                return Err(wrong(name.span(), what));
            }
        }
        let lbus: Vec<_> = file
            .lbus
            .iter()
            .flat_map(Spanned::get_ref)
            .copied()
            .collect();
        let is_lbu = |to: &SocketAddr| to.port() != 0 && row::is_address(to);
        if (lbus.is_empty() && file.multicast.is_empty())
            || lbus.len() > 64
            || !lbus.iter().all(is_lbu)
        {
            let what = "lbus names 1 to 64 load balancing units, such as \"10.0.2.1:4771\"; or none, where multicast \
                names a group of them";
            return Err(source.mistake(file.lbus.as_ref().map(Spanned::span), what));
        }
        let multicast = multicast::check(source, &file.multicast)?;
        let groups: Vec<_> = multicast.iter().map(|way| way.to.group).collect();
        let all: Vec<_> = lbus.iter().chain(&groups).copied().collect();
        let bind = bind(source, &file, &all)?;
        let heartbeat =
            source.milliseconds("heartbeat_ms", &file.heartbeat_ms, 1000, 100..=60_000)?;
        let age_limit =
            source.milliseconds("age_limit_ms", &file.age_limit_ms, 5000, 200..=600_000)?;
        if age_limit < heartbeat * 2 {
            let at = file.age_limit_ms.as_ref().or(file.heartbeat_ms.as_ref());
            let what =
                "age_limit_ms is less than two heartbeats; three or more allow for a lost one";
            return Err(source.mistake(at.map(Spanned::span), what));
        }
        let group = file.group.as_ref();
        let group = group.map(|entry| group_of(source, entry, heartbeat, age_limit));
        let group = group.transpose()?;
        let mut apps: Vec<FileApp> = Vec::new();
        let mut trust = Trust::new(path);
        for entry in file.app {
            let at = entry.name.span();
            let app = app(source, entry, &file.addresses, &mut trust)?;
            let is_same = |other: &FileApp| other.name == app.name || other.spec.is_same(&app.spec);
            if let Some(other) = apps.iter().find(|other| is_same(other)) {
                let what = format!(
                    "\"{}\" has the name or the addresses, protocol and detail of \"{}\"",
                    app.name, other.name
                );
                return Err(source.mistake(Some(at), what));
            }
            apps.push(app);
        }
        let agent = AgentConfig {
            name: file.name.map(Spanned::into_inner),
            heartbeat_interval: heartbeat,
            age_limit,
            drain_when_failing: file.drain_when_failing,
            group,
            multicast: groups,
            ..AgentConfig::new(*file.host.get_ref(), 1, lbus)
        };
        if apps.len() > agent.max_rows {
            let what = format!("there are more than {} applications", agent.max_rows);
            return Err(source.mistake(None, what));
        }
        Ok(Self {
            keys: keys::load(source, &file.key, path)?,
            metrics: metrics::address(source, &file.metrics)?,
            agent,
            bind,
            multicast,
            addresses: file.addresses,
            socket: file
                .socket
                .unwrap_or_else(|| "/run/nlb-agent/socket".into()),
            state: file
                .state
                .unwrap_or_else(|| "/var/lib/nlb-agent/state.json".into()),
            register: file.register,
            apps,
        })
    }
}

/// The group that the host is in.
fn group_of(
    source: &Source,
    entry: &GroupEntry,
    heartbeat: Duration,
    age_limit: Duration,
) -> Result<GroupConfig, Mistake> {
    let wrong = |at: Range<usize>, what: &str| source.mistake(Some(at), what);
    let (id, address) = (*entry.id.get_ref(), *entry.address.get_ref());
    if id == 0 {
        let what = "id is 0; choose a number that no other group has";
        return Err(wrong(entry.id.span(), what));
    }
    let is_host = |to: &SocketAddr| to.port() != 0 && row::is_address(to);
    if !is_host(&address) {
        let what = "address is where the other members reach this host, such as \"10.0.2.2:4772\"";
        return Err(wrong(entry.address.span(), what));
    }
    let members = entry.members.get_ref();
    let is_member = |to: &SocketAddr| is_host(to) && to.is_ipv4() == address.is_ipv4();
    if members.is_empty() || members.len() > 64 || !members.iter().all(is_member) {
        let what = "members names 1 to 64 hosts of the group by their addresses there, all of the address family of address";
        return Err(wrong(entry.members.span(), what));
    }
    let group = GroupConfig {
        changes: entry.changes.unwrap_or(true),
        ..GroupConfig::new(id, address, members.clone(), heartbeat)
    };
    if age_limit < group.patience + heartbeat * 2 {
        let what =
            "age_limit_ms is less than four heartbeats: too short to do without a leader in time";
        return Err(wrong(entry.id.span(), what));
    }
    Ok(group)
}

/// Where datagrams are sent from, which go to `lbus`, and answers come.
fn bind(source: &Source, file: &File, lbus: &[SocketAddr]) -> Result<Vec<SocketAddr>, Mistake> {
    let group = file.group.as_ref().map(|group| &group.address);
    let in_group = |v6: bool| group.filter(|own| own.get_ref().is_ipv6() == v6);
    let is_needed = |v6: bool| lbus.iter().any(|to| to.is_ipv6() == v6) || in_group(v6).is_some();
    let Some(bind) = &file.bind else {
        let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let any = any.into_iter().filter(|any| is_needed(any.is_ipv6()));
        let own = |any: IpAddr| in_group(any.is_ipv6()).map(|own| *own.get_ref());
        return Ok(any
            .map(|any| own(any).unwrap_or(SocketAddr::new(any, 0)))
            .collect());
    };
    for v6 in [false, true] {
        let count = bind.get_ref().iter().filter(|own| own.is_ipv6() == v6);
        if count.count() != usize::from(is_needed(v6)) {
            let what =
                "bind names one address for each address family of lbus, multicast and group; or leave it out";
            return Err(source.mistake(Some(bind.span()), what));
        }
    }
    let is_at = |own: &SocketAddr, bound: &SocketAddr| {
        let is_ip = bound.ip() == own.ip() || bound.ip().is_unspecified();
        is_ip && bound.is_ipv4() == own.is_ipv4() && bound.port() == own.port()
    };
    if let Some(own) = group {
        if !bind
            .get_ref()
            .iter()
            .any(|bound| is_at(own.get_ref(), bound))
        {
            let what = "address is not among those of bind: the others would send to nobody";
            return Err(source.mistake(Some(own.span()), what));
        }
    }
    Ok(bind.get_ref().clone())
}

/// Whether it may be the name of an application.
pub(crate) fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=NAME_MAX).contains(&name.len()) && name.chars().all(fits)
}

/// What names an application, as somebody has written it.
pub(crate) struct Named<'a> {
    pub(crate) vip: &'a str,
    pub(crate) physical: Option<SocketAddr>,
    pub(crate) protocol: Option<String>,
    pub(crate) detail: Option<String>,
    pub(crate) capacity: Option<u8>,
}

/// What of it is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Vip,
    Physical,
    Protocol,
    Detail,
    Capacity,
}

impl Named<'_> {
    /// Checks it. `addresses` are the host's.
    pub(crate) fn spec(self, addresses: &[IpAddr]) -> Result<Spec, (Field, String)> {
        let key = self.vip.parse();
        let key: ServiceKey = key.map_err(|error| (Field::Vip, format!("vip: {error}")))?;
        let port = match (key.socket(), key.ports == Ports::ALL) {
            (Some(socket), _) if socket.port() != 0 => socket.port(),
            (_, true) => 0,
            _ => {
                let what = format!("vip {key}: name one port of the service, or * for all");
                return Err((Field::Vip, what));
            }
        };
        let vip = SocketAddr::new(key.vip, port);
        let transport = u8::try_from(key.proto.0).unwrap_or(0);
        let own = |own: &&IpAddr| own.is_ipv4() == vip.is_ipv4();
        let physical = match (self.physical, addresses.iter().find(own)) {
            (Some(physical), _) => physical,
            (None, Some(own)) => SocketAddr::new(*own, port),
            (None, None) => {
                let what = "name its physical address and port, or give the host addresses";
                return Err((Field::Vip, what.to_owned()));
            }
        };
        let spec = Spec {
            vip,
            transport,
            physical,
            protocol: self.protocol.unwrap_or_default(),
            detail: self.detail.unwrap_or_default(),
            capacity: self.capacity.unwrap_or(CAPACITY),
        };
        if transport == 0 || !row::is_address(&vip) {
            return Err((Field::Vip, format!("{key}: no machine can have this")));
        }
        if !row::is_address(&physical) {
            let what = format!("{physical}: no machine can have this");
            return Err((Field::Physical, what));
        }
        if !row::is_protocol(spec.protocol.as_bytes()) {
            let what = "protocol: up to 31 of a-z, 0-9, \"-\", \".\" and \"+\", such as \"http\"";
            return Err((Field::Protocol, what.to_owned()));
        }
        if !row::is_detail(&spec.detail) {
            let what = "detail: up to 255 bytes without control characters";
            return Err((Field::Detail, what.to_owned()));
        }
        check_capacity(spec.capacity).map_err(|what| (Field::Capacity, what))?;
        Ok(spec)
    }
}

/// The range of it.
pub(crate) fn check_capacity(capacity: u8) -> Result<(), String> {
    if capacity > row::CAPACITY_MAX {
        return Err(format!(
            "capacity is {capacity}; choose a number from 0 to {}",
            row::CAPACITY_MAX
        ));
    }
    Ok(())
}

fn app(
    source: &Source,
    entry: AppEntry,
    addresses: &[IpAddr],
    trust: &mut Trust<'_>,
) -> Result<FileApp, Mistake> {
    let name = entry.name.get_ref().clone();
    if !is_name(&name) {
        let what = "a name has 1 to 63 letters, digits, \"-\", \"_\" and \".\"";
        return Err(source.mistake(Some(entry.name.span()), what));
    }
    let of = |field| match field {
        Field::Vip => None,
        Field::Physical => entry.physical.as_ref().map(Spanned::span),
        Field::Protocol => entry.protocol.as_ref().map(Spanned::span),
        Field::Detail => entry.detail.as_ref().map(Spanned::span),
        Field::Capacity => entry.capacity.as_ref().map(Spanned::span),
    };
    let text = |text: &Option<Spanned<String>>| text.as_ref().map(|own| own.get_ref().clone());
    let named = Named {
        vip: entry.vip.get_ref(),
        physical: entry.physical.as_ref().map(|physical| *physical.get_ref()),
        protocol: text(&entry.protocol),
        detail: text(&entry.detail),
        capacity: entry.capacity.as_ref().map(|own| *own.get_ref()),
    };
    let spec = named.spec(addresses).map_err(|(field, what)| {
        let at = of(field).unwrap_or_else(|| entry.vip.span());
        source.mistake(Some(at), format!("\"{name}\": {what}"))
    })?;
    if let Some(unit) = &entry.unit {
        systemd::is_unit(unit.get_ref())
            .map_err(|what| source.mistake(Some(unit.span()), format!("\"{name}\": {what}")))?;
    }
    let measure = entry.load.map(|entry| measure(source, &entry, &spec));
    let checks = entry.check.into_iter();
    let checks = checks.map(|entry| entry.check(source, &spec, trust));
    Ok(FileApp {
        checks: checks.collect::<Result<_, _>>()?,
        measure: measure.transpose()?,
        name,
        spec,
        uid: entry.uid,
        unit: entry.unit.map(Spanned::into_inner),
    })
}

fn measure(source: &Source, entry: &Spanned<LoadEntry>, spec: &Spec) -> Result<Measure, Mistake> {
    let load = entry.get_ref();
    let at = Some(entry.span());
    if load.pressure.is_none() && load.connections.is_none() && !load.queue {
        let what = "load names what is measured: pressure, queue or connections";
        return Err(source.mistake(at, what));
    }
    let has_sockets = load.connections.is_some() || load.queue;
    if has_sockets && (spec.transport != TCP || spec.physical.port() == 0) {
        let what = "queue and connections are those of one port with TCP; measure pressure";
        return Err(source.mistake(at, what));
    }
    if let Some(pressure) = &load.pressure {
        if !pressure.get_ref().is_absolute() {
            let what = "pressure is the path of a file, such as \"/proc/pressure/cpu\"";
            return Err(source.mistake(Some(pressure.span()), what));
        }
    }
    let connections = match &load.connections {
        None => None,
        some => Some(source.number("connections", some, 1, 1..=10_000_000)?),
    };
    Ok(Measure {
        pressure: load.pressure.as_ref().map(|path| path.get_ref().clone()),
        queue: load.queue,
        connections,
        addresses: [spec.physical.ip(), spec.vip.ip()],
        port: spec.physical.port(),
        interval: source.milliseconds("interval_ms", &load.interval_ms, 5000, 100..=60_000)?,
    })
}
