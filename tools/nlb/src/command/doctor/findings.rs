// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is right and what is not, and what to do about it.

mod hosts;
mod vips;

use nlb_netlink::{
    Endpoint,
    Forward,
    Link,
    Named,
    PeerState, //
};
use serde::Serialize;

use super::facts::Facts;
use hosts::{
    forwarders,
    hosts,
    reverse_paths, //
};
use vips::vips;

/// The least source port of a flow id.
const FLOW_ID_PORT: u32 = 61000;
/// The last port of this machine that `nat` may give to a client's connection.
const NAT_PORT_LAST: u32 = 32767;
/// Length of the packets that clients in the internet send at most.
const CLIENT_MTU: u32 = 1500;
/// Bounds of the modules' tables, in each namespace (or service, or peer).
const MAX_SERVICES: u64 = 4096;
const MAX_ENDPOINTS: u64 = 1024;
const MAX_FORWARDERS: u64 = 1024;
const MAX_PEERS: u64 = 256;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Ok,
    Warn,
    Fail,
}

impl Level {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) level: Level,
    /// What was looked at, in a word.
    pub(super) check: &'static str,
    pub(super) text: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
}

/// The findings so far.
#[derive(Default)]
struct Report(Vec<Finding>);

impl Report {
    fn ok(&mut self, check: &'static str, text: impl Into<String>) {
        self.put(Level::Ok, check, text.into(), None);
    }

    fn warn(&mut self, check: &'static str, text: impl Into<String>, remedy: impl Into<String>) {
        self.put(Level::Warn, check, text.into(), Some(remedy.into()));
    }

    fn fail(&mut self, check: &'static str, text: impl Into<String>, remedy: impl Into<String>) {
        self.put(Level::Fail, check, text.into(), Some(remedy.into()));
    }

    fn put(&mut self, level: Level, check: &'static str, text: String, remedy: Option<String>) {
        self.0.push(Finding {
            level,
            check,
            text,
            remedy,
        });
    }

    /// Say that all is well if nothing was found since `from`.
    fn ok_since(&mut self, from: usize, check: &'static str, text: impl Into<String>) {
        if self.0.len() == from {
            self.ok(check, text);
        }
    }
}

/// Look at everything.
pub(super) fn examine(facts: &Facts) -> Vec<Finding> {
    let mut report = Report::default();
    modules(facts, &mut report);
    if facts.has("nlb_tunnel") {
        devices(facts, &mut report);
        vips(facts, &mut report);
        hosts(facts, &mut report);
        forwarders(facts, &mut report);
        reverse_paths(facts, &mut report);
        ports(facts, &mut report);
        peers(facts, &mut report);
        limits(facts, &mut report);
        drops(facts, &mut report);
    }
    report.0
}

fn modules(facts: &Facts, report: &mut Report) {
    let loaded: Vec<_> = facts
        .modules
        .iter()
        .filter(|module| module.loaded)
        .collect();
    if loaded.is_empty() {
        let remedy = "modprobe nlb_fwd nlb_migrator on a load balancing unit, modprobe nlb_migrator on a host";
        return report.fail("modules", "no module of nlb is loaded", remedy);
    }
    let from = report.0.len();
    for module in &loaded {
        if module.installed == Some(false) {
            report.warn(
                "modules",
                format!("{} is not the one that is installed", module.name),
                "unload the modules of nlb and load them again, at a time without connections",
            );
        }
    }
    if !facts.has("nlb_migrator") {
        let text = "nlb_migrator is not loaded, so no connection can be migrated";
        report.warn(
            "modules",
            text,
            "modprobe nlb_migrator, unless only mode l4 is used",
        );
    }
    let names: Vec<_> = loaded.iter().map(|module| module.name).collect();
    report.ok_since(from, "modules", format!("loaded: {}", names.join(", ")));
}

fn is_nlb(link: &&Link) -> bool {
    link.kind.as_deref() == Some("nlb")
}

/// Whether an endpoint gets its packets this way.
fn goes(endpoint: &Endpoint, way: Forward) -> bool {
    endpoint.forward == Some(Named::Known(way))
}

/// Whether tunnel packets are to come to this machine: nothing is balanced here.
fn is_host(facts: &Facts) -> bool {
    facts.services.is_empty()
}

fn devices(facts: &Facts, report: &mut Report) {
    let devices: Vec<_> = facts.links.iter().filter(is_nlb).collect();
    if devices.is_empty() {
        let remedy = "ip link add nlb0 type nlb; ip addr add VIP/32 dev nlb0; ip link set nlb0 up";
        return report.fail("device", "there is no device of the kind nlb", remedy);
    }
    for Link {
        index,
        name,
        mtu,
        up,
        arp,
        ..
    } in devices
    {
        let from = report.0.len();
        let count = facts.addrs.iter().filter(|own| own.index == *index).count();
        if !up {
            report.fail(
                "device",
                format!("{name} is down"),
                format!("ip link set {name} up"),
            );
        }
        if count == 0 {
            let remedy = format!("ip addr add VIP/32 dev {name}");
            report.fail("device", format!("{name} has no address"), remedy);
        }
        if *mtu < CLIENT_MTU {
            let text =
                format!("{name} has an MTU of {mtu}, clients' packets have up to {CLIENT_MTU}");
            report.warn(
                "device",
                text,
                format!("ip link set {name} mtu {CLIENT_MTU}"),
            );
        }
        if *arp && is_host(facts) {
            report.warn(
                "device",
                format!("{name} answers ARP for its addresses, as one machine may"),
                format!("ip link set {name} arp off, if this is a host"),
            );
        }
        report.ok_since(from, "device", format!("{name} is up, addresses: {count}"));
    }
}

/// The ports that flow ids, and the connections of `nat`, have to themselves.
fn ports(facts: &Facts, report: &mut Report) {
    if is_host(facts) {
        return;
    }
    let range = facts.sysctls.get("ipv4/ip_local_port_range");
    let mut ends = range
        .into_iter()
        .flat_map(|range| range.split_whitespace())
        .map(str::parse::<u32>);
    let (Some(Ok(first)), Some(Ok(last))) = (ends.next(), ends.next()) else {
        return;
    };
    let from = report.0.len();
    let remedy = "sysctl -w net.ipv4.ip_local_port_range=\"32768 60999\"";
    if last >= FLOW_ID_PORT {
        report.fail(
            "ports",
            format!(
                "local ports go up to {last}; those from {FLOW_ID_PORT} on are flow ids to hosts"
            ),
            remedy,
        );
    }
    let mut endpoints = facts.endpoints.iter();
    if first <= NAT_PORT_LAST && endpoints.any(|own| goes(own, Forward::Nat)) {
        report.fail(
            "ports",
            format!(
                "local ports begin at {first}; those up to {NAT_PORT_LAST} are for connections by nat"
            ),
            remedy,
        );
    }
    report.ok_since(
        from,
        "ports",
        format!("local ports are {first} to {last}, flow ids begin at {FLOW_ID_PORT}"),
    );
}

fn peers(facts: &Facts, report: &mut Report) {
    for peer in &facts.peers {
        let addr = peer.addr;
        let from = report.0.len();
        if let Some(Err(error)) = facts.ways.get(&addr) {
            let text = format!("no way to {addr}: {error}");
            report.fail("peer", text, format!("give this machine a route to {addr}"));
        }
        if peer.state == Some(Named::Known(PeerState::Failed)) {
            report.fail(
                "peer",
                format!("the last attempt to connect to {addr} failed"),
                format!(
                    "look on {addr}: is nlb_migrator loaded, is this machine a peer there, does it have \
                     the same key, is TCP port {} let through?",
                    peer.port.unwrap_or(nlb_netlink::uapi::migrator::PORT)
                ),
            );
        }
        if peer.unauthenticated {
            let text =
                format!("{addr} is not authenticated: whoever has its address can do what it may");
            report.warn(
                "peer",
                text,
                format!("nlb peer key add {addr} id ID secret-file FILE"),
            );
        }
        for key in peer
            .keys
            .iter()
            .filter(|key| key.bad.is_some_and(|bad| bad > 0))
        {
            report.warn(
                "peer",
                format!(
                    "segments from {addr} that key {} does not verify: {}",
                    key.send_id,
                    key.bad.unwrap_or(0)
                ),
                "give both machines the same secret under this id",
            );
        }
        let state = crate::output::maybe(peer.state);
        report.ok_since(
            from,
            "peer",
            format!("{addr} is {state}, keys: {}", peer.keys.len()),
        );
    }
}

fn limits(facts: &Facts, report: &mut Report) {
    let from = report.0.len();
    let mut look = |what: &str, count: u64, most: u64| {
        if count.saturating_mul(10) >= most.saturating_mul(9) {
            let remedy = match what {
                "routes" => "load nlb_fwd with a larger max_routes, and nlb_tunnel with a larger max_mappings",
                _ => "divide them among several namespaces or machines",
            };
            report.warn(
                "limits",
                format!("{count} of at most {most} {what}"),
                remedy,
            );
        }
    };
    let routes = facts
        .endpoints
        .iter()
        .filter_map(|endpoint| endpoint.routes);
    if let Some(most) = facts.max_routes {
        look("routes", routes.map(u64::from).sum(), most);
    }
    look("services", facts.services.len() as u64, MAX_SERVICES);
    for service in &facts.services {
        let count = service.endpoints.unwrap_or_default();
        look(
            &format!("endpoints of {}", service.key()),
            count.into(),
            MAX_ENDPOINTS,
        );
    }
    look("forwarders", facts.forwarders.len() as u64, MAX_FORWARDERS);
    look("peers", facts.peers.len() as u64, MAX_PEERS);
    report.ok_since(from, "limits", "no table is nearly full");
}

fn drops(facts: &Facts, report: &mut Report) {
    let from = report.0.len();
    for stats in &facts.stats {
        let before = facts
            .before
            .iter()
            .find(|before| before.family == stats.family);
        for counter in stats
            .counters
            .iter()
            // What rules drop shall be dropped.
            .filter(|own| own.name.starts_with("drop-") && own.name != "drop-rule")
        {
            let past = before
                .and_then(|before| before.get(&counter.name))
                .unwrap_or_default();
            if counter.value > past {
                report.warn(
                    "drops",
                    format!(
                        "{} {} grows: {} since a moment ago",
                        stats.family,
                        counter.name,
                        counter.value - past
                    ),
                    remedy(&counter.name),
                );
            }
        }
    }
    report.ok_since(
        from,
        "drops",
        "nothing was dropped while this was looked at",
    );
}

/// What to look at when a counter grows.
fn remedy(counter: &str) -> &'static str {
    match counter {
        "drop-table-full" => {
            "load nlb_fwd with a larger max_routes, or max_half_open if SYNs are many"
        }
        "drop-learn-full" => "load nlb_tunnel with a larger max_mappings",
        "drop-no-flow-id" => "use more source addresses for the endpoints (source ADDR)",
        "drop-no-memory" => "free memory",
        "drop-ttl-expired" => "look for a loop in the routes between clients and hosts",
        "drop-too-big" => "raise the MTU on the way to the host",
        "drop-no-route" => "give this machine a route to the host",
        "drop-output" => "look for a packet filter on the way out of this machine",
        "drop-input" => "set rp_filter to 2 on the device that leads to the forwarder",
        "drop-unknown-flow-id" => {
            "nothing, if it ends: the forwarder learns that mappings are gone"
        }
        "drop-no-vip" | "drop-learn-vip" => {
            "put the VIP on a device of the kind nlb: ip addr add VIP/32 dev nlb0"
        }
        "drop-forwarder" => "nlb forwarder add ADDR, if the sender is a load balancing unit",
        "drop-transmit" => "look for a route that leads into a device of the kind nlb",
        "drop-not-peer" => "nlb peer add ADDR, if the sender is to be one",
        "drop-bad-mac" | "drop-unknown-key" | "drop-unsigned" | "drop-old-key" => {
            "give both peers the same key (nlb peer key show)"
        }
        _ => "see debugging.rst, and nlb stats show on both machines",
    }
}

#[cfg(test)]
mod tests;
