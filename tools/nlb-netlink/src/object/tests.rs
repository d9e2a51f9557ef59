// SPDX-License-Identifier: MIT OR Apache-2.0

use proptest::prelude::*;

use super::*;
use crate::attr::{
    put,
    NLA_F_NESTED, //
};

fn attrs(list: &[(u16, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, payload) in list {
        assert!(put(&mut out, *kind, payload));
    }
    out
}

fn json(object: impl Serialize) -> serde_json::Value {
    serde_json::to_value(object).unwrap()
}

#[test]
fn a_route_as_the_kernel_sends_it() {
    use uapi::fwd::route::*;

    let bytes = attrs(&[
        (PROTO, &6u32.to_ne_bytes()),
        (CLIENT_ADDR, &[198, 51, 100, 7]),
        (CLIENT_PORT, &40000u16.to_be_bytes()),
        (VIP_ADDR, &[192, 0, 2, 10]),
        (VIP_PORT, &80u16.to_be_bytes()),
        (HOST_ADDR, &[10, 0, 2, 2]),
        (FORWARDER_ADDR, &[10, 0, 1, 1]),
        (FLOW_ID, &0xee48_0001u32.to_ne_bytes()),
        (STATE, &3u32.to_ne_bytes()),
        (ORIGIN, &2u32.to_ne_bytes()),
        // A `uint` has 4 bytes when that is enough, else 8.
        (EXPIRES, &119_000u32.to_ne_bytes()),
        (PACKETS, &(1u64 << 33).to_ne_bytes()),
        (99, b"of a newer kernel"),
    ]);
    let route = Route::decode(&bytes).unwrap();
    assert_eq!(route.key().client, "198.51.100.7:40000".parse().unwrap());
    assert_eq!(
        json(route),
        serde_json::json!({
            "proto": "tcp",
            "client_addr": "198.51.100.7", "client_port": 40000,
            "vip_addr": "192.0.2.10", "vip_port": 80,
            "host_addr": "10.0.2.2", "forwarder_addr": "10.0.1.1",
            "flow_id": "0xee480001", "state": "fin-wait", "origin": "migration",
            "expires": 119_000, "packets": 1u64 << 33,
        })
    );
}

#[test]
fn a_flag_is_there_or_not() {
    use uapi::tunnel::mapping::*;

    let side = 2u32.to_ne_bytes();
    let id = 1u32.to_ne_bytes();
    let learnt = Mapping::decode(&attrs(&[(SIDE, &side), (FLOW_ID, &id)])).unwrap();
    assert!(!learnt.is_static);
    let by_hand = Mapping::decode(&attrs(&[(SIDE, &side), (FLOW_ID, &id), (STATIC, &[])])).unwrap();
    assert!(by_hand.is_static);
    assert_eq!(
        json(by_hand),
        serde_json::json!({"side": "host", "flow_id": "0x00000001", "static": true})
    );
}

#[test]
fn what_identifies_an_object_must_be_there() {
    use uapi::fwd::service::*;

    let vip: (u16, &[u8]) = (VIP_ADDR, &[0x20; 16]);
    let port = (VIP_PORT, &80u16.to_be_bytes()[..]);
    let proto = (PROTO, &17u32.to_ne_bytes()[..]);
    let service = Service::decode(&attrs(&[vip, port, proto])).unwrap();
    assert!(service.key().vip.is_ipv6());
    assert_eq!(service.mode, None);
    assert_eq!(
        Service::decode(&attrs(&[vip, port])),
        Err(Malformed::Missing("proto"))
    );
    assert_eq!(Service::decode(&[]), Err(Malformed::Missing("vip-addr")));
    for (id, payload, name) in [
        (VIP_ADDR, &[1, 2, 3][..], "vip-addr"),
        (VIP_PORT, &[80], "vip-port"),
        (MODE, &[1], "mode"),
        (BYTES, &[1, 2, 3, 4, 5], "bytes"),
    ] {
        let bytes = attrs(&[vip, port, proto, (id, payload)]);
        assert_eq!(Service::decode(&bytes), Err(Malformed::Value(name)));
    }
}

#[test]
fn a_value_of_a_newer_kernel_is_kept() {
    use uapi::migrator::peer::*;

    let peer = Peer::decode(&attrs(&[
        (ADDR, &[10, 0, 2, 2]),
        (STATE, &9u32.to_ne_bytes()),
    ]));
    assert_eq!(peer.unwrap().state, Some(Named::Unknown(9)));
}

#[test]
fn counters_keep_their_order() {
    use uapi::fwd::{
        counter::*,
        stats::COUNTER, //
    };

    let first = attrs(&[(NAME, b"forwarded\0"), (VALUE, &5u32.to_ne_bytes())]);
    let second = attrs(&[(NAME, b"drop-ttl\0"), (VALUE, &u64::MAX.to_ne_bytes())]);
    let bytes = attrs(&[
        (COUNTER | NLA_F_NESTED, &first),
        (COUNTER | NLA_F_NESTED, &second),
    ]);
    let stats = Stats::decode("nlb-fwd", &bytes).unwrap();
    assert_eq!(stats.get("drop-ttl"), Some(u64::MAX));
    assert_eq!(stats.get("drop"), None);
    assert_eq!(
        serde_json::to_string(&stats).unwrap(),
        r#"{"family":"nlb-fwd","counters":{"forwarded":5,"drop-ttl":18446744073709551615}}"#
    );
    let broken = attrs(&[(COUNTER, &attrs(&[(NAME, b"x")]))]);
    assert_eq!(
        Stats::decode("nlb-fwd", &broken),
        Err(Malformed::Missing("value"))
    );
}

proptest! {
    #[test]
    fn no_answer_panics(list in proptest::collection::vec(
        (0u16..24, proptest::collection::vec(any::<u8>(), 0..20)), 0..24), cut in any::<usize>()) {
        let list: Vec<_> = list.iter().map(|(id, payload)| (*id, &payload[..])).collect();
        let mut bytes = attrs(&list);
        bytes.truncate(cut % (bytes.len() + 1));
        let _ = Service::decode(&bytes).map(|service| json(service).to_string());
        let _ = Endpoint::decode(&bytes).map(|endpoint| json(endpoint).to_string());
        let _ = Route::decode(&bytes).map(|route| json(route).to_string());
        let _ = Forwarder::decode(&bytes).map(|forwarder| json(forwarder).to_string());
        let _ = Mapping::decode(&bytes).map(|mapping| json(mapping).to_string());
        let _ = Peer::decode(&bytes).map(|peer| json(peer).to_string());
        let _ = Keep::decode(&bytes).map(|keep| json(keep).to_string());
        let _ = Migration::decode(&bytes).map(|migration| json(migration).to_string());
        let _ = Stats::decode("x", &bytes).map(|stats| json(stats).to_string());
    }
}
