// SPDX-License-Identifier: MIT OR Apache-2.0

//! By which devices packets come and go, what speaks of VIPs, and what suits the ways `direct` and `ipip`.

use super::*;

#[test]
fn an_outer_header_takes_of_the_mtu() {
    let ipip = |mut facts: Facts, mtu: u32| {
        go(&mut facts, Forward::Ipip);
        facts.links[0].mtu = mtu;
        facts
    };
    let text = |bytes: u32, host: &str| {
        format!("packets to host {host} via ipip have up to {bytes} bytes, those of clients 1500")
    };
    let (warn, check) = (Level::Warn, "host");
    one(
        ipip(lbu(), 1500),
        |_| {},
        warn,
        check,
        &text(1480, "10.0.2.2"),
    );
    one(
        ipip(lbu(), 1519),
        |_| {},
        warn,
        check,
        &text(1499, "10.0.2.2"),
    );
    assert_eq!(wrong(&ipip(lbu(), 1520)), []);
    let v6 = |mtu| {
        let mut facts = ipip(lbu(), mtu);
        let addr = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
        facts.endpoints[0].host_addr = addr("2001:db8::2");
        facts.endpoints[0].source_addr = None;
        facts.peers[0].addr = addr("2001:db8::2");
        facts.ways = [(addr("2001:db8::2"), way(2)), (FAR_AWAY, way(3))].into();
        facts
    };
    one(v6(1500), |_| {}, warn, check, &text(1460, "2001:db8::2"));
    assert_eq!(wrong(&v6(1540)), []);
    for (forward, checksum, header) in [
        (Forward::Gre, false, 24),
        (Forward::Gre, true, 28),
        (Forward::Gue, true, 32),
    ] {
        let by = |mtu| {
            let mut facts = ipip(lbu(), mtu);
            go(&mut facts, forward);
            facts.endpoints[0].tun_csum = Some(checksum);
            facts
        };
        let text = text(1499, "10.0.2.2").replace("ipip", &forward.to_string());
        one(by(1499 + header), |_| {}, warn, check, &text);
        assert_eq!(wrong(&by(1500 + header)), []);
    }
    // The same host by two ways is looked at for each.
    let mut facts = lbu();
    let mut second = facts.endpoints[0].clone();
    second.forward = Some(Named::Known(Forward::Ipip));
    facts.endpoints.push(second);
    assert_eq!(wrong(&facts).len(), 1);
}

#[test]
fn devices_without_carrier() {
    let unplug = |facts: &mut Facts| facts.links[0].running = false;
    one(
        lbu(),
        unplug,
        Level::Fail,
        "host",
        "host 10.0.2.2 is behind eth0, which has no carrier",
    );
    one(
        host(),
        unplug,
        Level::Fail,
        "forwarder",
        "forwarder 10.0.2.1 is behind eth0, which has no carrier",
    );
    // One that is down has none either, which need not be said.
    let down = |facts: &mut Facts| (facts.links[0].up, facts.links[0].running) = (false, false);
    one(
        lbu(),
        down,
        Level::Fail,
        "host",
        "host 10.0.2.2 is behind eth0, which is down",
    );
    // That of the other link is not for them.
    let mut facts = host();
    facts.links[1].running = false;
    assert_eq!(wrong(&facts), []);
}

/// A host with the VIP on another device, too, of which the others say nothing if `silent`.
fn twice(device: Link, silent: bool) -> Facts {
    let mut facts = host();
    facts.addrs.push(addr(device.index, VIP));
    facts.links.push(device);
    if silent {
        set(&mut facts, "ipv4/conf/all/arp_ignore", "1");
        set(&mut facts, "ipv4/conf/eth0/arp_announce", "2");
        set(&mut facts, "ipv4/conf/eth1/arp_announce", "2");
    }
    facts
}

#[test]
fn a_vip_may_be_where_nobody_speaks_of_it() {
    let lo = || Link {
        kind: None,
        loopback: true,
        ..link(1, "lo", "")
    };
    let dummy = || link(9, "dummy0", "dummy");
    for device in [lo(), dummy()] {
        let text = format!(
            "192.0.2.10 is on {}, too, which answers ARP for it",
            device.name
        );
        let check = |facts| one(facts, |_| {}, Level::Fail, "vip", &text);
        check(twice(device.clone(), false));
        let right = twice(device.clone(), true);
        assert_eq!(wrong(&right), []);
        let quiet = format!(
            "192.0.2.10 is on a device of the kind nlb, and on {}, which is silent about it",
            device.name
        );
        assert!(examine(&right).iter().any(|own| own.text == quiet));
        // One device that speaks is enough, and so is a question with the VIP as its sender.
        for (name, value) in [
            ("ipv4/conf/all/arp_ignore", "0"),
            ("ipv4/conf/all/arp_ignore", "3"),
            ("ipv4/conf/eth1/arp_announce", "1"),
        ] {
            let mut facts = twice(device.clone(), true);
            set(&mut facts, name, value);
            check(facts);
        }
        // IPv6 speaks of the addresses of a device on that device alone.
        let mut facts = host();
        let vip = "2001:db8::10".parse().unwrap();
        for index in [4, device.index] {
            facts.addrs.push(LinkAddr { index, addr: vip });
        }
        facts.links.push(device);
        assert_eq!(wrong(&facts), []);
    }
    // A link that others are on answers for its own addresses in spite of the settings.
    let eth2 = "192.0.2.10 is on eth2, too, which answers ARP for it";
    let mut facts = twice(link(5, "eth2", "veth"), true);
    set(&mut facts, "ipv4/conf/eth2/arp_announce", "2");
    one(facts, |_| {}, Level::Fail, "vip", eth2);
}

#[test]
fn reverse_paths_of_direct_and_ipip() {
    let text = |device: &str| {
        format!(
            "{device} drops packets of clients that are answered by another device: \
             its reverse path filter is strict"
        )
    };
    // eth2 leads neither to the forwarder nor to the clients.
    let strict = |device: Link| {
        let mut facts = host();
        facts.links.push(link(5, "eth2", "veth"));
        set(
            &mut facts,
            &format!("ipv4/conf/{}/rp_filter", device.name),
            "1",
        );
        facts.links.push(device);
        facts
    };
    let tunnel = || link(6, "ipip-lbu", "ipip");
    let (warn, check) = (Level::Warn, "rp_filter");
    one(strict(tunnel()), |_| {}, warn, check, &text("ipip-lbu"));
    let mut facts = strict(tunnel());
    set(&mut facts, "ipv4/conf/all/rp_filter", "2");
    assert_eq!(wrong(&facts), []);
    let mut facts = strict(tunnel());
    facts.links[4].up = false;
    assert_eq!(wrong(&facts), []);
    // For the tunnel other links do not matter, for direct packets may come in by each.
    let mut facts = strict(link(9, "dummy0", "dummy"));
    set(&mut facts, "ipv4/conf/eth2/rp_filter", "1");
    assert_eq!(wrong(&facts), []);
    let direct = |facts: &mut Facts| facts.addrs.push(addr(9, [192, 0, 2, 11]));
    one(facts, direct, warn, check, &text("eth2"));
    // Clients are answered by eth1.
    let mut facts = strict(link(9, "dummy0", "dummy"));
    set(&mut facts, "ipv4/conf/eth1/rp_filter", "1");
    direct(&mut facts);
    assert_eq!(wrong(&facts), []);
    // A load balancing unit gets packets of clients by the way to them.
    let mut facts = lbu();
    facts.links.push(tunnel());
    set(&mut facts, "ipv4/conf/ipip-lbu/rp_filter", "1");
    assert_eq!(wrong(&facts), []);
}
