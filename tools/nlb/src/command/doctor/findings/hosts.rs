// SPDX-License-Identifier: MIT OR Apache-2.0

//! The ways to hosts, and on these what packets need to arrive.

use std::{
    collections::BTreeSet,
    net::IpAddr, //
};

use nlb_netlink::{
    Endpoint,
    Forward,
    Link,
    Named,
    ServiceMode, //
};

use super::{
    super::facts::FAR_AWAY,
    goes,
    is_host,
    is_nlb,
    vips::{
        is_apart,
        is_link_local, //
    },
    Facts,
    Report,
    CLIENT_MTU, //
};

/// The ways to the hosts of services.
pub(super) fn hosts(facts: &Facts, report: &mut Report) {
    for service in &facts.services {
        let own = |endpoint: &&Endpoint| endpoint.service() == service.key();
        if facts.endpoints.iter().filter(own).count() == 0 {
            let key = service.key();
            report.fail(
                "service",
                format!("{key} has no endpoint"),
                format!("nlb endpoint add {key} host ADDR"),
            );
        }
    }
    let mut seen = BTreeSet::new();
    for endpoint in &facts.endpoints {
        let (header, _) = outer(endpoint);
        if seen.insert((endpoint.host_addr, endpoint.source_addr, header)) {
            host(facts, endpoint, report);
        }
    }
}

/// Bytes in front of packets that travel inside of others, and how messages say that they do.
fn outer(endpoint: &Endpoint) -> (u32, &'static str) {
    let (behind, via) = if goes(endpoint, Forward::Ipip) {
        (0, " via ipip")
    } else if goes(endpoint, Forward::Gre) {
        let checksum = endpoint.tun_csum == Some(true);
        (if checksum { 8 } else { 4 }, " via gre")
    } else if goes(endpoint, Forward::Gue) {
        (12, " via gue")
    } else {
        return (0, "");
    };
    let ip = if endpoint.host_addr.is_ipv4() { 20 } else { 40 };
    (ip + behind, via)
}

/// Whether packets can leave by the device that leads to another machine.
fn works(check: &'static str, addr: IpAddr, link: &Link, report: &mut Report) {
    let name = &link.name;
    if !link.up {
        let text = format!("{check} {addr} is behind {name}, which is down");
        report.fail(check, text, format!("ip link set {name} up"));
    } else if !link.running {
        report.fail(
            check,
            format!("{check} {addr} is behind {name}, which has no carrier"),
            format!("look at what {name} is connected to: cable, switch, other end"),
        );
    }
}

fn host(facts: &Facts, endpoint: &Endpoint, report: &mut Report) {
    let host = endpoint.host_addr;
    let from = report.0.len();
    let way = match facts.ways.get(&host) {
        Some(Ok(way)) => way,
        Some(Err(error)) => {
            let text = format!("no way to host {host}: {error}");
            return report.fail("host", text, format!("give this machine a route to {host}"));
        }
        None => return,
    };
    let device = facts.links.iter().find(|link| link.index == way.index);
    if let Some(link) = device {
        works("host", host, link, report);
    }
    if let Some(source) = endpoint.source_addr {
        if !facts.addrs.iter().any(|own| own.addr == source) {
            report.fail(
                "host",
                format!("packets to host {host} come from {source}, which is not of this machine"),
                format!(
                    "nlb endpoint del {0} host {host}, then nlb endpoint add {0} host {host}",
                    endpoint.service()
                ),
            );
        }
    }
    let mtu = way.mtu.or(device.map(|link| link.mtu));
    let (header, via) = outer(endpoint);
    let mtu = mtu.map_or(CLIENT_MTU, |mtu| mtu.saturating_sub(header));
    if mtu < CLIENT_MTU {
        report.warn(
            "host",
            format!(
                "packets to host {host}{via} have up to {mtu} bytes, those of clients {CLIENT_MTU}"
            ),
            "raise the MTU on the way, or have the application's machine announce a smaller MSS",
        );
    }
    if is_peek(facts, endpoint) && !facts.peers.iter().any(|peer| peer.addr == host) {
        report.fail(
            "host",
            format!(
                "host {host} is no peer, so {} cannot hand it connections",
                endpoint.service()
            ),
            format!("nlb peer add {host} key ID secret-file FILE"),
        );
    }
    let name = device.map_or("?", |link| link.name.as_str());
    report.ok_since(
        from,
        "host",
        format!("{host}{via} is reached by {name}, packets up to {mtu} bytes"),
    );
}

fn is_peek(facts: &Facts, endpoint: &Endpoint) -> bool {
    let mut services = facts.services.iter();
    let service = services.find(|service| service.key() == endpoint.service());
    service.is_some_and(|service| service.mode == Some(Named::Known(ServiceMode::Peek)))
}

/// What a host needs so that tunnel packets arrive.
pub(super) fn forwarders(facts: &Facts, report: &mut Report) {
    if is_host(facts) && facts.forwarders.is_empty() {
        let text = "no forwarder is configured, so no tunnel packet is taken";
        let remedy = "nlb forwarder add ADDR, which nlb route show names on the load balancing unit; on that, nlb service add";
        return report.fail("forwarder", text, remedy);
    }
    for forwarder in &facts.forwarders {
        let addr = forwarder.addr;
        let from = report.0.len();
        let way = match facts.ways.get(&addr) {
            Some(Ok(way)) => way,
            Some(Err(error)) => {
                let text = format!("no way to forwarder {addr}: {error}");
                report.fail(
                    "forwarder",
                    text,
                    format!("give this machine a route to {addr}"),
                );
                continue;
            }
            None => continue,
        };
        let device = facts.links.iter().find(|link| link.index == way.index);
        if let Some(link) = device {
            works("forwarder", addr, link, report);
        }
        report.ok_since(from, "forwarder", format!("packets from {addr} are taken"));
    }
}

/// Clients' addresses are judged by the device that their packets come in by, alone or in others.
pub(super) fn reverse_paths(facts: &Facts, report: &mut Report) {
    if !is_host(facts) && facts.forwarders.is_empty() {
        return;
    }
    let addrs = facts.forwarders.iter().map(|own| own.addr);
    let to_forwarders: BTreeSet<_> = addrs
        .filter(IpAddr::is_ipv4)
        .filter_map(|addr| facts.ways.get(&addr)?.as_ref().ok())
        .map(|way| way.index)
        .collect();
    // A VIP on a device of the kind nlb may be there for the tunnel alone, one on these is for `direct`,
    // `ipip` or `gre`. By which links the former comes is not known here.
    let is_vip = |addr: IpAddr| addr.is_ipv4() && !addr.is_loopback() && !is_link_local(addr);
    let device = |index: u32| facts.links.iter().find(|link| link.index == index);
    let is_direct = is_host(facts)
        && facts.addrs.iter().any(|own| {
            let link = device(own.index).filter(|link| !is_nlb(link));
            is_vip(own.addr) && link.is_some_and(|link| link.loopback || is_kind(link, "dummy"))
        });
    for link in facts.links.iter().filter(|link| link.up) {
        if to_forwarders.contains(&link.index) {
            reverse_path(facts, link, " (drop-input)", report);
        } else if (is_kind(link, "ipip") || is_kind(link, "gre")) && is_host(facts)
            || is_direct && !is_apart(link)
        {
            reverse_path(facts, link, "", report);
        }
    }
}

fn is_kind(link: &Link, kind: &str) -> bool {
    link.kind.as_deref() == Some(kind)
}

fn reverse_path(facts: &Facts, device: &Link, counter: &str, report: &mut Report) {
    let name = &device.name;
    let strict = facts.device_setting(name, "rp_filter") == 1;
    let answers = facts.ways.get(&FAR_AWAY).and_then(|way| way.as_ref().ok());
    let by_it = answers.is_some_and(|way| way.index == device.index);
    let remedy = format!("sysctl -w net.ipv4.conf.{name}.rp_filter=2");
    if strict && !by_it {
        let text = format!(
            "{name} drops packets of clients that are answered by another device{counter}: \
             its reverse path filter is strict"
        );
        report.warn("rp_filter", text, remedy);
    }
}
