// SPDX-License-Identifier: GPL-2.0

//! Tests of reading headers.

use super::{
    super::checksum,
    *, //
};
use std::vec::Vec;

fn packet(proto: u8, l4: &[u8]) -> Vec<u8> {
    let repr = ipv4::Repr {
        source: [192, 0, 2, 1],
        destination: [198, 51, 100, 1],
        protocol: proto,
        payload_len: l4.len() as u16,
        ident: 0,
        dont_fragment: true,
        tos: 0,
        ttl: 64,
    };
    let mut bytes = repr.emit().unwrap().to_vec();
    bytes.extend(l4);
    bytes
}

fn tcp_segment() -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..4].copy_from_slice(&[0x9c, 0x40, 0, 80]);
    bytes[12] = 0x60;
    bytes[13] = 0x18;
    bytes
}

fn parse(bytes: &[u8]) -> Result<Parsed, DropReason> {
    super::parse(bytes, Frame::complete(bytes.len()))
}

#[test]
fn tcp_packet() {
    let bytes = packet(6, &tcp_segment());
    let parsed = parse(&bytes).unwrap();
    let tuple = FourTuple::v4([192, 0, 2, 1], 40000, [198, 51, 100, 1], 80, Proto::Tcp);
    assert_eq!(parsed.tuple, tuple);
    assert_eq!(parsed.l4_offset, 20);
    assert_eq!(parsed.total_len, 44);
    assert_eq!(parsed.flags, tcp::Flags::PSH | tcp::Flags::ACK);
    assert_eq!(parsed.checksum, L4Checksum::Tcp(36));
    assert_eq!(parsed.flow_id(), None);
    // The 40 bytes of the headers are enough, the rest may be elsewhere.
    assert_eq!(parse_ipv4(&bytes[..40], Frame::complete(44)), Ok(parsed));
    for len in 0..40 {
        assert_eq!(
            parse_ipv4(&bytes[..len], Frame::complete(44)),
            Err(DropReason::Truncated)
        );
    }
}

#[test]
fn udp_checksum_rules() {
    let mut l4 = udp::emit(0xee48, 7, 0).unwrap();
    let frame = Frame::complete(28);
    let partial = Frame {
        csum_partial: true,
        ..frame
    };
    let absent = packet(17, &l4);
    assert_eq!(
        parse_ipv4(&absent, frame).unwrap().checksum,
        L4Checksum::Absent
    );
    assert_eq!(
        parse_ipv4(&absent, partial).unwrap().checksum,
        L4Checksum::Udp(26)
    );
    l4[7] = 1;
    let parsed = parse_ipv4(&packet(17, &l4), frame).unwrap();
    assert_eq!(parsed.checksum, L4Checksum::Udp(26));
    assert_eq!(parsed.flow_id(), FlowId::new(0xee48_0007));
}

#[test]
fn batches_beyond_64k() {
    let mut bytes = packet(6, &tcp_segment());
    bytes[2] = 0;
    bytes[3] = 0;
    let frame = Frame {
        len: 100_000,
        gso: true,
        csum_partial: true,
    };
    assert_eq!(parse_ipv4(&bytes, frame).unwrap().total_len, 100_000);
    assert_eq!(
        parse_ipv4(&bytes, Frame::complete(100_000)),
        Err(DropReason::BadLength)
    );
}

#[test]
fn refusals() {
    type Change = fn(&mut Vec<u8>);
    let cases: [(u8, Change, DropReason); 9] = [
        (6, |b| b[6] = 0x20, DropReason::Fragment),
        (6, |b| b[7] = 1, DropReason::Fragment),
        (1, |_| {}, DropReason::Protocol),
        (6, |b| b[32] = 0x40, DropReason::BadHeaderLength),
        (6, |b| b[32] = 0x70, DropReason::Truncated),
        (6, |b| b[3] = 39, DropReason::Truncated),
        (6, |b| b[3] = 45, DropReason::Truncated),
        (17, |b| b[25] = 7, DropReason::BadLength),
        (17, |b| b[25] = 25, DropReason::BadLength),
    ];
    for (index, (proto, change, reason)) in cases.into_iter().enumerate() {
        let mut bytes = packet(proto, &tcp_segment());
        change(&mut bytes);
        assert_eq!(parse(&bytes), Err(reason), "case {index}");
    }
    assert_eq!(parse(&[0x50; 60]), Err(DropReason::BadVersion));
}

#[test]
fn ordinary_packets() {
    let ordinary = |bytes: &[u8]| parse_ordinary(bytes, Frame::complete(bytes.len()));
    let tcp = packet(6, &tcp_segment());
    assert_eq!(ordinary(&tcp), Some(parse(&tcp).unwrap()));
    let udp = packet(17, &udp::emit(1, 2, 0).unwrap());
    assert_eq!(ordinary(&udp), Some(parse(&udp).unwrap()));
    let v6 = packet_v6(6, &tcp_segment());
    assert_eq!(ordinary(&v6), Some(parse(&v6).unwrap()));
    let mut syn = tcp.clone();
    syn[33] = 0x02;
    assert_eq!(ordinary(&syn), Some(parse(&syn).unwrap()));
    // Padding of the link layer is not in the way.
    let padded = [&tcp[..], &[0; 2]].concat();
    assert_eq!(ordinary(&padded), Some(parse(&tcp).unwrap()));

    // The header's checksum is made right again after all of these but the first.
    type Change = fn(&mut Vec<u8>);
    let cases: [Change; 9] = [
        |b| b[10] ^= 1,
        |b| b[8] = 1,
        |b| b[8] = 0,
        |b| b[6] = 0x20,
        |b| b[9] = 1,
        |b| b[33] = 0x12,
        |b| b[33] = 0x11,
        |b| b[33] = 0x04,
        |b| b[3] = 45,
    ];
    for (index, change) in cases.into_iter().enumerate() {
        let mut bytes = tcp.clone();
        change(&mut bytes);
        if index > 0 {
            bytes[10..12].fill(0);
            let check = checksum::checksum(&bytes[..20]);
            bytes[10..12].copy_from_slice(&check.to_be_bytes());
        }
        assert_eq!(ordinary(&bytes), None, "case {index}");
    }
    let mut options = Vec::from([0x46]);
    options.extend(&tcp[1..20]);
    options.extend([1, 1, 1, 0]);
    options.extend(&tcp[20..]);
    options[3] += 4;
    options[10..12].fill(0);
    let check = checksum::checksum(&options[..24]);
    options[10..12].copy_from_slice(&check.to_be_bytes());
    assert!(parse(&options).is_ok());
    assert_eq!(ordinary(&options), None);

    let mut payload = Vec::from([6, 0, 1, 4, 0, 0, 0, 0]);
    payload.extend(tcp_segment());
    let extended = packet_v6(0, &payload);
    assert!(parse(&extended).is_ok());
    assert_eq!(ordinary(&extended), None);
    for len in 0..20 {
        assert_eq!(ordinary(&tcp[..len]), None);
    }
}

fn packet_v6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::from([0x60, 0, 0, 0, 0, payload.len() as u8, next_header, 9]);
    bytes.extend([1; 16]);
    bytes.extend([2; 16]);
    bytes.extend(payload);
    bytes
}

#[test]
fn ipv6_packets() {
    let bytes = packet_v6(6, &tcp_segment());
    let parsed = parse(&bytes).unwrap();
    let (client, vip) = (Addr::v6([1; 16]), Addr::v6([2; 16]));
    let tuple = FourTuple::new(client, 40000, vip, 80, Proto::Tcp).unwrap();
    assert_eq!(parsed.tuple, tuple);
    assert_eq!((parsed.l4_offset, parsed.total_len), (40, 64));
    assert_eq!((parsed.ttl, parsed.dont_fragment), (9, true));
    assert_eq!(parsed.checksum, L4Checksum::Tcp(56));
    assert_eq!(parse_ipv6(&bytes[..60], Frame::complete(64)), Ok(parsed));
    for len in 0..60 {
        let cut = parse_ipv6(&bytes[..len], Frame::complete(64));
        assert_eq!(cut, Err(DropReason::Truncated));
    }
    let mut payload = Vec::from([6, 0, 1, 4, 0, 0, 0, 0]);
    payload.extend(tcp_segment());
    let behind = parse(&packet_v6(0, &payload)).unwrap();
    assert_eq!(behind.tuple, tuple);
    assert_eq!((behind.l4_offset, behind.total_len), (48, 72));
    assert_eq!(behind.checksum, L4Checksum::Tcp(64));
}

#[test]
fn ipv6_batches_beyond_64k() {
    let mut bytes = packet_v6(6, &tcp_segment());
    bytes[5] = 0;
    let frame = Frame {
        len: 100_000,
        gso: true,
        csum_partial: true,
    };
    assert_eq!(parse_ipv6(&bytes, frame).unwrap().total_len, 100_000);
    let frame = Frame::complete(100_000);
    assert_eq!(parse_ipv6(&bytes, frame), Err(DropReason::Truncated));
}

#[test]
fn ipv6_refusals() {
    type Change = fn(&mut Vec<u8>);
    let cases: [(Change, DropReason); 8] = [
        (|b| b[6] = 58, DropReason::Protocol),
        (|b| b[6] = 44, DropReason::Fragment),
        (|b| b[5] = 25, DropReason::Truncated),
        (|b| b[5] = 19, DropReason::Truncated),
        (|b| b[52] = 0x40, DropReason::BadHeaderLength),
        (|b| b[52] = 0x70, DropReason::Truncated),
        // Not on a wire: they would be taken for IPv4.
        (
            |b| b[8..20].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255]),
            DropReason::BadValue,
        ),
        (
            |b| b[24..36].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255]),
            DropReason::BadValue,
        ),
    ];
    for (index, (change, reason)) in cases.into_iter().enumerate() {
        let mut bytes = packet_v6(6, &tcp_segment());
        change(&mut bytes);
        assert_eq!(parse(&bytes), Err(reason), "case {index}");
    }
}
