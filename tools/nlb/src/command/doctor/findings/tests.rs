// SPDX-License-Identifier: MIT OR Apache-2.0

//! One thing wrong at a time, on a load balancing unit and on a host that are right.

mod ways;

use nlb_netlink::{
    Counter,
    EndpointState,
    Forwarder,
    LinkAddr,
    Peer,
    PeerKey,
    Service,
    ServiceMode,
    Stats,
    Way, //
};

use super::{
    super::facts::{
        Module,
        FAR_AWAY,
        MODULES, //
    },
    *,
};

const VIP: [u8; 4] = [192, 0, 2, 10];
const HOST: [u8; 4] = [10, 0, 2, 2];
const LBU: [u8; 4] = [10, 0, 2, 1];

fn link(index: u32, name: &str, kind: &str) -> Link {
    Link {
        index,
        name: name.to_owned(),
        kind: Some(kind.to_owned()),
        mtu: 1500,
        up: true,
        running: true,
        arp: kind != "nlb",
        loopback: false,
    }
}

fn addr(index: u32, addr: [u8; 4]) -> LinkAddr {
    LinkAddr {
        index,
        addr: addr.into(),
    }
}

fn way(index: u32) -> Result<Way, String> {
    Ok(Way {
        index,
        source: None,
        mtu: None,
        local: false,
    })
}

fn peer(addr: [u8; 4]) -> Peer {
    Peer {
        addr: addr.into(),
        port: Some(4770),
        state: Some(Named::Known(PeerState::Up)),
        migrations_out: None,
        migrations_in: None,
        refused: None,
        bad_records: None,
        unauthenticated: false,
        keys: vec![PeerKey {
            send_id: 1,
            recv_id: 1,
            algorithm: None,
            sending: None,
            good: Some(5),
            bad: Some(0),
            preferred: true,
        }],
    }
}

fn counters(drops: u64) -> Vec<Stats> {
    vec![Stats {
        family: "nlb-tunnel",
        cpu: None,
        counters: vec![Counter {
            name: "drop-no-vip".to_owned(),
            value: drops,
        }],
    }]
}

/// What both have: eth0 to the other, eth1 to the world.
fn machine(own: [u8; 4], other: [u8; 4]) -> Facts {
    let module = |name| Module {
        name,
        loaded: true,
        installed: Some(true),
    };
    Facts {
        modules: MODULES.into_iter().map(module).collect(),
        peers: vec![peer(other)],
        links: vec![
            link(2, "eth0", "veth"),
            link(3, "eth1", "veth"),
            link(4, "nlb0", "nlb"),
        ],
        addrs: vec![addr(2, own), addr(4, VIP)],
        ways: [(other.into(), way(2)), (FAR_AWAY, way(3))].into(),
        sysctls: [
            ("ipv4/ip_local_port_range", "32768\t60999"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/eth0/rp_filter", "2"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into(),
        max_routes: Some(1000),
        stats: counters(7),
        before: counters(7),
        ..Facts::default()
    }
}

fn lbu() -> Facts {
    let mut facts = machine(LBU, HOST);
    facts.services = vec![Service {
        vip_addr: VIP.into(),
        vip_port: 80,
        vip_port_last: None,
        proto: nlb_netlink::Proto::TCP,
        mode: Some(Named::Known(ServiceMode::Peek)),
        classifier_port: None,
        scheduler: None,
        affinity_timeout: None,
        affinity_prefix: None,
        slow_start: None,
        one_packet: None,
        idle_timeout: None,
        fin_timeout: None,
        syn_timeout: None,
        miss_timeout: None,
        endpoints: Some(1),
        connections: None,
        packets: None,
        bytes: None,
    }];
    facts.endpoints = vec![Endpoint {
        vip_addr: VIP.into(),
        vip_port: 80,
        vip_port_last: None,
        proto: nlb_netlink::Proto::TCP,
        host_addr: HOST.into(),
        forward: None,
        host_port: None,
        tun_port: None,
        tun_csum: None,
        max_routes: None,
        resume_routes: None,
        full: None,
        backup: None,
        slow_start_step: None,
        source_addr: Some(LBU.into()),
        weight: Some(1),
        state: Some(Named::Known(EndpointState::Active)),
        routes: Some(5),
        active_routes: Some(1),
        connections: None,
        packets: None,
        bytes: None,
    }];
    facts
}

fn host() -> Facts {
    let mut facts = machine(HOST, LBU);
    facts.forwarders = vec![Forwarder {
        addr: LBU.into(),
        packets: None,
        bytes: None,
    }];
    facts
}

/// What is not right, as level, check, and beginning of the text.
fn wrong(facts: &Facts) -> Vec<(Level, &'static str, String)> {
    let findings = examine(facts);
    let wrong = findings.into_iter().filter(|own| own.level != Level::Ok);
    wrong
        .map(|own| {
            assert!(own.remedy.is_some(), "{}", own.text);
            (own.level, own.check, own.text)
        })
        .collect()
}

#[test]
fn a_machine_that_is_right_is_not_complained_about() {
    for (facts, lines) in [(lbu(), 8), (host(), 7)] {
        assert_eq!(wrong(&facts), []);
        assert_eq!(examine(&facts).len(), lines);
    }
}

/// The one thing that is wrong with a machine after a change.
fn one(mut facts: Facts, change: impl FnOnce(&mut Facts), level: Level, check: &str, text: &str) {
    change(&mut facts);
    let wrong = wrong(&facts);
    assert_eq!(wrong.len(), 1, "{text}: {wrong:?}");
    let (its_level, its_check, its_text) = &wrong[0];
    assert_eq!(
        (*its_level, *its_check, its_text.as_str()),
        (level, check, text)
    );
}

#[test]
fn modules_that_are_not_there_or_are_others() {
    for module in MODULES {
        one(
            lbu(),
            |facts| {
                let mut modules = facts.modules.iter_mut();
                modules.find(|own| own.name == module).unwrap().installed = Some(false);
            },
            Level::Warn,
            "modules",
            &format!("{module} is not the one that is installed"),
        );
    }
    one(
        host(),
        |facts| facts.modules[2].loaded = false,
        Level::Warn,
        "modules",
        "nlb_migrator is not loaded, so no connection can be migrated",
    );
    let mut facts = host();
    facts
        .modules
        .iter_mut()
        .for_each(|module| module.loaded = false);
    let none = "no module of nlb is loaded".to_owned();
    assert_eq!(wrong(&facts), [(Level::Fail, "modules", none)]);
    assert_eq!(examine(&facts).len(), 1);
}

#[test]
fn devices_and_vips() {
    use Level::{
        Fail,
        Warn, //
    };
    one(
        host(),
        |facts| facts.links[2].up = false,
        Fail,
        "device",
        "nlb0 is down",
    );
    one(
        host(),
        |facts| facts.addrs.truncate(1),
        Fail,
        "device",
        "nlb0 has no address",
    );
    one(
        host(),
        |facts| {
            facts.links.truncate(2);
            facts.addrs.truncate(1);
        },
        Fail,
        "device",
        "there is no device of the kind nlb",
    );
    one(
        host(),
        |facts| facts.links[2].mtu = 1400,
        Warn,
        "device",
        "nlb0 has an MTU of 1400, clients' packets have up to 1500",
    );
    one(
        host(),
        |facts| facts.links[2].arp = true,
        Warn,
        "device",
        "nlb0 answers ARP for its addresses, as one machine may",
    );
    let twice = "192.0.2.10 is on eth1, too, which answers ARP for it";
    one(
        host(),
        |facts| facts.addrs.push(addr(3, VIP)),
        Fail,
        "vip",
        twice,
    );
    one(
        lbu(),
        |facts| facts.addrs.push(addr(3, VIP)),
        Warn,
        "vip",
        twice,
    );
    one(
        lbu(),
        |facts| facts.addrs[1] = addr(4, [192, 0, 2, 11]),
        Fail,
        "vip",
        "192.0.2.10 is on no device of the kind nlb, so the classifier gets no connection",
    );
    one(
        lbu(),
        |facts| {
            facts.addrs[1] = addr(4, [192, 0, 2, 11]);
            facts.services[0].mode = Some(Named::Known(ServiceMode::L4));
        },
        Warn,
        "vip",
        "192.0.2.10 is on no device of the kind nlb",
    );
}

#[test]
fn ways_to_others() {
    use Level::{
        Fail,
        Warn, //
    };
    let none = || Err("No route to host".to_owned());
    let lost = |facts: &mut Facts| {
        facts.ways.insert(HOST.into(), none());
        facts.peers.clear();
    };
    one(
        lbu(),
        lost,
        Fail,
        "host",
        "no way to host 10.0.2.2: No route to host",
    );
    one(
        lbu(),
        |facts| facts.links[0].mtu = 1400,
        Warn,
        "host",
        "packets to host 10.0.2.2 have up to 1400 bytes, those of clients 1500",
    );
    one(
        lbu(),
        |facts| facts.addrs[0] = addr(2, [10, 0, 2, 9]),
        Fail,
        "host",
        "packets to host 10.0.2.2 come from 10.0.2.1, which is not of this machine",
    );
    one(
        lbu(),
        |facts| facts.peers.clear(),
        Fail,
        "host",
        "host 10.0.2.2 is no peer, so 192.0.2.10:80/tcp cannot hand it connections",
    );
    one(
        lbu(),
        |facts| facts.endpoints.clear(),
        Fail,
        "service",
        "192.0.2.10:80/tcp has no endpoint",
    );
    one(
        host(),
        |facts| facts.forwarders.clear(),
        Fail,
        "forwarder",
        "no forwarder is configured, so no tunnel packet is taken",
    );
    let strict = |facts: &mut Facts| {
        let name = "ipv4/conf/eth0/rp_filter".to_owned();
        facts.sysctls.insert(name, "1".to_owned());
    };
    one(
        host(),
        strict,
        Warn,
        "rp_filter",
        "eth0 drops packets of clients that are answered by another device (drop-input): \
         its reverse path filter is strict",
    );
    // Answers leave by it as well; or the looser of two settings holds.
    let mut facts = host();
    strict(&mut facts);
    facts.ways.insert(FAR_AWAY, way(2));
    assert_eq!(wrong(&facts), []);
    let mut facts = host();
    strict(&mut facts);
    facts
        .sysctls
        .insert("ipv4/conf/all/rp_filter".to_owned(), "2".to_owned());
    assert_eq!(wrong(&facts), []);
}

fn set(facts: &mut Facts, name: &str, value: &str) {
    facts.sysctls.insert(name.to_owned(), value.to_owned());
}

fn go(facts: &mut Facts, way: Forward) {
    facts.endpoints[0].forward = Some(Named::Known(way));
}

#[test]
fn local_ports_end_between_those_of_nat_and_flow_ids() {
    const RANGE: &str = "ipv4/ip_local_port_range";
    let high = "local ports go up to 65535; those from 61000 on are flow ids to hosts";
    let low = "local ports begin at 32767; those up to 32767 are for connections by nat";
    for way in [Forward::Tunnel, Forward::HalfNat, Forward::Nat] {
        let lbu = || {
            let mut facts = lbu();
            go(&mut facts, way);
            facts
        };
        one(
            lbu(),
            |facts| set(facts, RANGE, "32768\t65535"),
            Level::Fail,
            "ports",
            high,
        );
        let mut facts = lbu();
        set(&mut facts, RANGE, "32767\t60999");
        let lines: Vec<_> = wrong(&facts).into_iter().map(|(.., text)| text).collect();
        if way == Forward::Nat {
            assert_eq!(lines, [low]);
            set(&mut facts, RANGE, "32767\t65535");
            assert_eq!(wrong(&facts).len(), 2);
            set(&mut facts, RANGE, "32768\t60999");
            assert_eq!(wrong(&facts), []);
        } else {
            assert_eq!(lines, [""; 0]);
        }
        // What is no range says nothing.
        set(&mut facts, RANGE, "1024");
        assert!(examine(&facts).iter().all(|own| own.check != "ports"));
    }
    let mut facts = host();
    set(&mut facts, RANGE, "1024\t65535");
    assert_eq!(wrong(&facts), []);
}

#[test]
fn peers_limits_and_drops() {
    use Level::{
        Fail,
        Warn, //
    };
    one(
        host(),
        |facts| facts.peers[0].state = Some(Named::Known(PeerState::Failed)),
        Fail,
        "peer",
        "the last attempt to connect to 10.0.2.1 failed",
    );
    one(
        host(),
        |facts| facts.peers[0].keys[0].bad = Some(3),
        Warn,
        "peer",
        "segments from 10.0.2.1 that key 1 does not verify: 3",
    );
    one(
        host(),
        |facts| facts.peers[0].unauthenticated = true,
        Warn,
        "peer",
        "10.0.2.1 is not authenticated: whoever has its address can do what it may",
    );
    one(
        lbu(),
        |facts| facts.endpoints[0].routes = Some(900),
        Warn,
        "limits",
        "900 of at most 1000 routes",
    );
    let mut facts = lbu();
    facts.endpoints[0].routes = Some(899);
    assert_eq!(wrong(&facts), []);
    one(
        host(),
        |facts| facts.stats = counters(9),
        Warn,
        "drops",
        "nlb-tunnel drop-no-vip grows: 2 since a moment ago",
    );
}
