// SPDX-License-Identifier: GPL-2.0

//! Exact bytes of every message, and what is none.

use super::{
    super::{
        checksum, ipv4, udp,
        vectors::{
            FORWARDER,
            FORWARDER_V6,
            HOST,
            HOST_V6,
            VECTORS,
            VECTORS_V6, //
        },
    },
    *, //
};
use std::vec::Vec;

const ID: FlowId = match FlowId::new(0xee48_0102) {
    Some(id) => id,
    None => panic!(),
};
const COOKIE: u64 = 0x0123_4567_89ab_cdef;

fn learn() -> Learn {
    Learn {
        flow_id: ID,
        cookie: COOKIE,
        tuple: VECTORS[0].tuple,
    }
}

const LEARN_BYTES: [u8; 28] = [
    0x11, 6, 0, 0, 0xee, 0x48, 0x01, 0x02, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 192, 0,
    2, 1, 198, 51, 100, 1, 0x9c, 0x40, 0, 80,
];

fn learn6() -> Learn {
    Learn {
        tuple: VECTORS_V6[0].tuple,
        ..learn()
    }
}

const LEARN6_BYTES: [u8; 52] = [
    0x14, 6, 0, 0, 0xee, 0x48, 0x01, 0x02, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x20,
    0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, // The client.
    0x20, 0x01, 0x0d, 0xb8, 0x00, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, // The VIP.
    0x9c, 0x40, 0, 80,
];

/// An ASK is a LEARN but for its type.
fn ask_bytes() -> [u8; 28] {
    let mut bytes = LEARN_BYTES;
    bytes[0] = 0x18;
    bytes
}

fn ask6_bytes() -> [u8; 52] {
    let mut bytes = LEARN6_BYTES;
    bytes[0] = 0x19;
    bytes
}

/// The header of a LEARN, but for type and protocol, and an address.
fn moved_bytes() -> Vec<u8> {
    let host = HOST.to_v4().unwrap();
    [&[0x16, 0], &LEARN_BYTES[2..16], &host[..]].concat()
}

fn moved6_bytes() -> Vec<u8> {
    [&[0x16, 0], &LEARN_BYTES[2..16], &HOST_V6.as_bytes()[..]].concat()
}

#[test]
fn exact_bytes() {
    assert_eq!(learn().emit(&mut [0xff; LEARN6_LEN]), LEARN_BYTES);
    assert_eq!(learn6().emit(&mut [0xff; LEARN6_LEN]), LEARN6_BYTES);
    let mut bytes: [u8; 16] = LEARN_BYTES[..16].try_into().unwrap();
    bytes[..2].copy_from_slice(&[0x12, 0]);
    assert_eq!(confirm(ID, COOKIE), bytes);
    bytes[0] = 0x13;
    bytes[0] = 0x17;
    assert_eq!(gone(ID, COOKIE), bytes);
    let mut room = [0xff; MOVED_LEN];
    assert_eq!(moved(ID, COOKIE, HOST, &mut room), moved_bytes());
    assert_eq!(moved(ID, COOKIE, HOST_V6, &mut room), moved6_bytes());
    bytes[0] = 0x13;
    bytes[8..].fill(0);
    assert_eq!(unknown(ID), bytes);
    assert_eq!(learn().emit_ask(&mut [0xff; LEARN6_LEN]), ask_bytes());
    assert_eq!(learn6().emit_ask(&mut [0xff; LEARN6_LEN]), ask6_bytes());
}

/// The datagram of a LEARN with this packet, as it is when a device has done its part.
fn datagram(learn: Learn, from: Addr, there: Addr, inner: &[u8]) -> Option<Vec<u8>> {
    let (mut to, mut to6) = ([0xff; DATAGRAM_LEN], [0xff; DATAGRAM6_LEN]);
    let (head, l4): (&[u8], _) = match (from.to_v4(), there.to_v4()) {
        (Some(from), Some(there)) => {
            learn.emit_datagram(from, there, inner.len(), &mut to)?;
            (&to, 20)
        }
        _ => {
            learn.emit_datagram6(from, there, inner.len(), &mut to6)?;
            (&to6, 40)
        }
    };
    let mut packet = [head, inner].concat();
    let check = checksum::checksum(&packet[l4..]);
    packet[l4 + 6..l4 + 8].copy_from_slice(&check.to_be_bytes());
    Some(packet)
}

#[test]
fn whole_datagrams() {
    for (learn, from, there, inner, head) in [
        (learn(), FORWARDER, HOST, VECTORS[0].inner, 56),
        (learn6(), FORWARDER_V6, HOST_V6, VECTORS_V6[0].inner, 100),
    ] {
        let packet = datagram(learn, from, there, inner).unwrap();
        assert_eq!(packet.len(), head + inner.len());
        let parsed = parse(&packet, Frame::complete(packet.len())).unwrap();
        let tuple = FourTuple::new(from, PORT, there, PORT, Proto::Udp);
        assert_eq!(Some(parsed.tuple), tuple);
        assert_eq!(parsed.total_len, packet.len());
        assert!((parsed.ttl, parsed.dont_fragment) == (64, true));
        let len = packet.len() as u8;
        match ipv4::Packet::new_header(&packet[..]) {
            Ok(ip) => {
                assert!(ip.verify_checksum());
                assert_eq!(packet[..10], [0x45, 0, 0, len, 0, 0, 0x40, 0, 64, 17]);
            }
            Err(_) => assert_eq!(packet[..8], [0x60, 0, 0, 0, 0, len - 40, 17, 64]),
        }
        let udp = udp::Packet::new_checked(&packet[parsed.l4_offset..]).unwrap();
        assert!(udp.checksum() != 0 && udp.verify_checksum(from, there));
        let whole = Ok((Message::Learn(learn), Some(inner)));
        assert_eq!(Message::parse(udp.payload()), whole);
    }
}

#[test]
fn datagrams_have_one_family_and_a_bound() {
    for (learn, from, there, most) in [
        (learn(), FORWARDER, HOST, 65535 - 56),
        (learn6(), FORWARDER_V6, HOST_V6, 65535 - 60),
    ] {
        let fits = |len| datagram(learn, from, there, &std::vec![0; len]).is_some();
        assert!(fits(most) && !fits(most + 1));
    }
    for (learn, from, there) in [
        (learn(), FORWARDER_V6, HOST_V6),
        (learn(), FORWARDER, HOST_V6),
        (learn6(), FORWARDER, HOST),
        (learn6(), FORWARDER_V6, HOST),
    ] {
        assert_eq!(datagram(learn, from, there, &[]), None);
    }
}

#[test]
fn round_trip() {
    let flow_id = ID;
    let cookie = COOKIE;
    for (bytes, want) in [
        (&LEARN_BYTES[..], Message::Learn(learn())),
        (&LEARN6_BYTES, Message::Learn(learn6())),
        (&confirm(ID, COOKIE), Message::Confirm { flow_id, cookie }),
        (&unknown(ID), Message::Unknown { flow_id }),
        (&gone(ID, COOKIE), Message::Gone { flow_id, cookie }),
        (&ask_bytes(), Message::Ask(learn())),
        (&ask6_bytes(), Message::Ask(learn6())),
    ] {
        assert_eq!(Message::parse(bytes), Ok((want, None)));
        assert_eq!(Message::parse_head(bytes, bytes.len()), Ok(want));
        for len in 0..bytes.len() {
            assert_eq!(Message::parse(&bytes[..len]), Err(DropReason::Truncated));
        }
    }
    for (bytes, host) in [(moved_bytes(), HOST), (moved6_bytes(), HOST_V6)] {
        let want = Message::Moved {
            flow_id,
            cookie,
            host,
        };
        assert_eq!(Message::parse(&bytes), Ok((want, None)));
        for len in 0..bytes.len() {
            let reason = match len {
                0..HEADER_LEN => DropReason::Truncated,
                // The IPv4 address that an IPv6 one begins with is one.
                MOVED4_LEN => continue,
                _ => DropReason::BadLength,
            };
            assert_eq!(Message::parse(&bytes[..len]), Err(reason));
        }
    }
}

#[test]
fn inner_packet() {
    let inner = VECTORS[0].inner;
    let mut bytes = Vec::from(LEARN_BYTES);
    bytes.extend(inner);
    assert_eq!(
        Message::parse(&bytes),
        Ok((Message::Learn(learn()), Some(inner)))
    );
    bytes.push(0);
    assert_eq!(Message::parse(&bytes), Err(DropReason::BadLength));
    bytes.truncate(bytes.len() - 2);
    assert_eq!(Message::parse(&bytes), Err(DropReason::Truncated));
    let mut bytes = Vec::from(LEARN_BYTES);
    bytes.extend(VECTORS[1].inner);
    assert_eq!(Message::parse(&bytes), Err(DropReason::BadValue));
    let inner = VECTORS_V6[0].inner;
    let mut bytes = Vec::from(LEARN6_BYTES);
    bytes.extend(inner);
    let whole = (Message::Learn(learn6()), Some(inner));
    assert_eq!(Message::parse(&bytes), Ok(whole));
    // A packet of the other family is one of another connection.
    for (front, inner) in [
        (&LEARN6_BYTES[..], VECTORS[0].inner),
        (&LEARN_BYTES, VECTORS_V6[0].inner),
    ] {
        let bytes = [front, inner].concat();
        assert_eq!(Message::parse(&bytes), Err(DropReason::BadValue));
    }
}

#[test]
fn refusals() {
    for (base, offset, value, reason) in [
        (&LEARN_BYTES[..], 0, 0x21, DropReason::BadVersion),
        (&LEARN_BYTES, 0, 0x10, DropReason::BadValue),
        (&LEARN_BYTES[..16], 0, 0x15, DropReason::BadValue),
        (&LEARN_BYTES, 0, 0x1a, DropReason::BadValue),
        // With bytes behind it.
        (&LEARN6_BYTES, 0, 0x18, DropReason::BadLength),
        (&ask_bytes(), 1, 0, DropReason::BadValue),
        (&gone(ID, COOKIE), 1, 6, DropReason::BadValue),
        (&moved_bytes(), 1, 6, DropReason::BadValue),
        // A host that is multicast.
        (&moved_bytes(), 16, 224, DropReason::BadValue),
        (&moved6_bytes(), 16, 0xff, DropReason::BadValue),
        // A client that is multicast, no VIP port.
        (&LEARN6_BYTES, 16, 0xff, DropReason::BadValue),
        (&LEARN6_BYTES, 51, 0, DropReason::BadValue),
        // Called the other name, it is too short or has bytes behind it that are no packet.
        (&LEARN_BYTES, 0, 0x14, DropReason::Truncated),
        (&LEARN6_BYTES, 0, 0x11, DropReason::BadValue),
        (&LEARN_BYTES, 1, 0, DropReason::BadValue),
        (&LEARN_BYTES, 1, 1, DropReason::BadValue),
        (&LEARN_BYTES, 2, 1, DropReason::BadValue),
        (&LEARN_BYTES, 3, 1, DropReason::BadValue),
        (&LEARN_BYTES, 4, 0x10, DropReason::BadFlowId),
        (&LEARN_BYTES, 16, 0, DropReason::BadValue),
        (&LEARN_BYTES, 20, 224, DropReason::BadValue),
        (&LEARN_BYTES, 27, 0, DropReason::BadValue),
        (&LEARN_BYTES, 0, 0x12, DropReason::BadLength),
        (&confirm(ID, COOKIE), 1, 6, DropReason::BadValue),
        (&unknown(ID), 15, 1, DropReason::BadValue),
    ] {
        let mut bytes = Vec::from(base);
        bytes[offset] = value;
        assert_eq!(
            Message::parse(&bytes),
            Err(reason),
            "byte {offset} = {value:#x}"
        );
    }
}

#[test]
fn ipv4_in_the_form_of_ipv6_is_refused() {
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    let mut bytes = LEARN6_BYTES;
    bytes[16..28].copy_from_slice(&mapped);
    assert_eq!(Message::parse(&bytes), Err(DropReason::BadValue));
    bytes[32..44].copy_from_slice(&mapped);
    bytes[44] = 192;
    assert_eq!(Message::parse(&bytes), Err(DropReason::BadValue));
}
