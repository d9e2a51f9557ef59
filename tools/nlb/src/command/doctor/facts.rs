// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is known of this machine, in this network namespace.

use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    path::{
        Path,
        PathBuf, //
    },
};

use nlb_netlink::{
    Endpoint,
    Error,
    Forwarder,
    Fwd,
    Link,
    LinkAddr,
    Links,
    Migrator,
    Peer,
    Service,
    Stats,
    Tunnel,
    Way, //
};

use crate::failure::Failure;

/// An address that only a default route leads to: of TEST-NET-3 (RFC 5737).
pub(super) const FAR_AWAY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 1));

/// The modules, those that others use first.
pub(super) const MODULES: [&str; 4] = ["nlb_core", "nlb_tunnel", "nlb_migrator", "nlb_fwd"];

/// A module.
#[derive(Clone, Debug, Default)]
pub(super) struct Module {
    pub(super) name: &'static str,
    pub(super) loaded: bool,
    /// Whether what is loaded is what is installed; `None` where that cannot be seen.
    pub(super) installed: Option<bool>,
}

/// What is known.
#[derive(Default)]
pub(super) struct Facts {
    pub(super) modules: Vec<Module>,
    pub(super) services: Vec<Service>,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) forwarders: Vec<Forwarder>,
    pub(super) peers: Vec<Peer>,
    pub(super) links: Vec<Link>,
    pub(super) addrs: Vec<LinkAddr>,
    /// How packets to hosts, peers, forwarders and the rest of the world leave; why they cannot.
    pub(super) ways: BTreeMap<IpAddr, Result<Way, String>>,
    /// Settings of the namespace, by their names below `net`.
    pub(super) sysctls: BTreeMap<String, String>,
    /// How many routes there may be.
    pub(super) max_routes: Option<u64>,
    /// The counters, and what they were before.
    pub(super) stats: Vec<Stats>,
    pub(super) before: Vec<Stats>,
}

impl Facts {
    /// All but what changes with time.
    pub(super) fn gather() -> Result<Self, Failure> {
        let mut facts = Self {
            modules: MODULES.into_iter().map(module).collect(),
            max_routes: read("/sys/module/nlb_fwd/parameters/max_routes")
                .and_then(|text| text.parse().ok()),
            ..Self::default()
        };
        loaded(|| {
            let mut fwd = Fwd::open()?;
            facts.services = fwd.services()?;
            facts.endpoints = fwd.endpoints(None)?;
            Ok(())
        })?;
        loaded(|| {
            facts.forwarders = Tunnel::open()?.forwarders()?;
            Ok(())
        })?;
        loaded(|| {
            facts.peers = Migrator::open()?.peers()?;
            Ok(())
        })?;
        let mut links = Links::open()?;
        facts.links = links.links()?;
        facts.addrs = links.addrs()?;
        let hosts = facts
            .endpoints
            .iter()
            .map(|own| (own.host_addr, own.source_addr));
        let peers = facts.peers.iter().map(|own| (own.addr, None));
        let forwarders = facts.forwarders.iter().map(|own| (own.addr, None));
        let all: Vec<_> = hosts.chain(peers).chain(forwarders).collect();
        for (to, from) in all.into_iter().chain([(FAR_AWAY, None)]) {
            let way = || links.way(to, from).map_err(|error| error.to_string());
            facts.ways.entry(to).or_insert_with(way);
        }
        let mut names = vec!["ipv4/ip_local_port_range".to_owned()];
        let devices = facts.links.iter().map(|link| link.name.as_str());
        for device in devices.chain(["all"]) {
            for setting in ["rp_filter", "arp_ignore", "arp_announce"] {
                names.push(format!("ipv4/conf/{device}/{setting}"));
            }
        }
        for name in names {
            if let Some(text) = read(format!("/proc/sys/net/{name}")) {
                facts.sysctls.insert(name, text);
            }
        }
        facts.stats = stats()?;
        Ok(facts)
    }

    /// See what the counters are now.
    pub(super) fn look_again(&mut self) -> Result<(), Failure> {
        self.before = std::mem::replace(&mut self.stats, stats()?);
        Ok(())
    }

    /// What holds for a device, of a setting of which the larger value does: its own, or that of `all`.
    pub(super) fn device_setting(&self, device: &str, name: &str) -> u32 {
        let value = |of: &str| {
            let text = self.sysctls.get(&format!("ipv4/conf/{of}/{name}"))?;
            text.parse().ok()
        };
        value("all").max(value(device)).unwrap_or(0)
    }

    /// Whether a module is loaded.
    pub(super) fn has(&self, name: &str) -> bool {
        let mut modules = self.modules.iter();
        modules.any(|module| module.name == name && module.loaded)
    }
}

fn stats() -> Result<Vec<Stats>, Error> {
    let mut all = Vec::new();
    loaded(|| {
        all.push(Fwd::open()?.stats()?);
        Ok(())
    })?;
    loaded(|| {
        all.push(Tunnel::open()?.stats()?);
        Ok(())
    })?;
    loaded(|| {
        all.push(Migrator::open()?.stats()?);
        Ok(())
    })?;
    Ok(all)
}

/// Read from a module, if it is there.
fn loaded(read: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
    match read() {
        Err(Error::FamilyMissing(_)) => Ok(()),
        other => other,
    }
}

fn module(name: &'static str) -> Module {
    let directory = Path::new("/sys/module").join(name);
    let loaded = directory.exists();
    let installed = || {
        let note = fs::read(directory.join("notes/.note.gnu.build-id")).ok()?;
        let file = fs::read(installed_file(name)?).ok()?;
        Some(contains(&file, &note))
    };
    Module {
        name,
        loaded,
        installed: if loaded { installed() } else { None },
    }
}

/// The file that modprobe would load, unless it is compressed.
fn installed_file(name: &str) -> Option<PathBuf> {
    let release = read("/proc/sys/kernel/osrelease")?;
    let directory = Path::new("/lib/modules").join(release);
    let list = fs::read_to_string(directory.join("modules.dep")).ok()?;
    let mut files = list.lines().filter_map(|line| line.split(':').next());
    let is_wanted = |file: &&str| {
        let file = Path::new(file);
        file.extension().is_some_and(|extension| extension == "ko")
            && file.file_stem().and_then(|stem| stem.to_str()) == Some(name)
    };
    files.find(is_wanted).map(|file| directory.join(file))
}

/// Whether `bytes`, which are some, occur in a file. Its notes are at its beginning.
fn contains(file: &[u8], bytes: &[u8]) -> bool {
    !bytes.is_empty() && file.windows(bytes.len()).any(|window| window == bytes)
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned())
}
