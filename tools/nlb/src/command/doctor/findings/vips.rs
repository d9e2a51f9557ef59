// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where the VIPs are, and who speaks of them.

use std::{
    collections::BTreeSet,
    net::IpAddr, //
};

use nlb_netlink::{
    Link,
    Named,
    Service,
    ServiceMode, //
};

use super::{
    is_host,
    is_nlb,
    Facts,
    Report, //
};

/// The addresses that clients connect to: those of services, and on nlb devices.
pub(super) fn vips(facts: &Facts, report: &mut Report) {
    let device = |index: u32| facts.links.iter().find(|link| link.index == index);
    let on_nlb = |vip: IpAddr| {
        let mut addrs = facts.addrs.iter().filter(|own| own.addr == vip);
        addrs.any(|own| device(own.index).as_ref().is_some_and(is_nlb))
    };
    let of_services = facts.services.iter().map(|service| service.vip_addr);
    let of_devices = facts.addrs.iter().map(|own| own.addr);
    let vips: BTreeSet<_> = of_services
        .chain(of_devices.filter(|addr| on_nlb(*addr) && !is_link_local(*addr)))
        .collect();
    for vip in vips {
        let from = report.0.len();
        let mut quiet = Vec::new();
        for own in facts.addrs.iter().filter(|own| own.addr == vip) {
            let Some(link) = device(own.index).filter(|link| !is_nlb(link)) else {
                continue;
            };
            if is_quiet(facts, link, vip) {
                quiet.push(link.name.as_str());
                continue;
            }
            let text = format!("{vip} is on {}, too, which answers ARP for it", link.name);
            let remedy = format!("ip addr del {vip} dev {}", link.name);
            if is_host(facts) {
                report.fail("vip", text, remedy);
            } else {
                report.warn(
                    "vip",
                    text,
                    format!("{remedy}, unless clients are in its subnet"),
                );
            }
        }
        if !on_nlb(vip) {
            let text = format!("{vip} is on no device of the kind nlb");
            let remedy = format!("ip addr add {vip} dev nlb0");
            let peek = |own: &&Service| own.mode == Some(Named::Known(ServiceMode::Peek));
            let mut peeked = facts.services.iter().filter(peek);
            if peeked.any(|own| own.vip_addr == vip)
                && !facts.addrs.iter().any(|own| own.addr == vip)
            {
                let text = format!("{text}, so the classifier gets no connection");
                report.fail("vip", text, remedy);
            } else if report.0.len() == from {
                report.warn("vip", text, remedy);
            }
        }
        let text = match quiet.as_slice() {
            [] => format!("{vip} is on a device of the kind nlb only"),
            names => format!(
                "{vip} is on a device of the kind nlb, and on {}, which is silent about it",
                names.join(" and ")
            ),
        };
        report.ok_since(from, "vip", text);
    }
}

/// Whether no ARP, and nothing of the kind for IPv6, can come in by a device.
pub(super) fn is_apart(link: &Link) -> bool {
    link.loopback || !link.arp || link.kind.as_deref() == Some("dummy")
}

/// Whether nobody is told about an address because it is on this device.
///
/// For IPv6 the kernel answers by the device that has the address alone. For IPv4 it answers by any,
/// and asks with any address, unless the other devices' settings say otherwise
/// (`Documentation/networking/ip-sysctl.rst`).
fn is_quiet(facts: &Facts, link: &Link, vip: IpAddr) -> bool {
    let is_silent = |other: &Link| {
        let ignore = facts.device_setting(&other.name, "arp_ignore");
        let announce = facts.device_setting(&other.name, "arp_announce");
        matches!(ignore, 1 | 2 | 8) && announce >= 2
    };
    let mut others = facts.links.iter().filter(|other| !is_apart(other));
    is_apart(link) && (vip.is_ipv6() || others.all(is_silent))
}

pub(super) fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => addr.is_link_local(),
        IpAddr::V6(addr) => addr.is_unicast_link_local(),
    }
}
