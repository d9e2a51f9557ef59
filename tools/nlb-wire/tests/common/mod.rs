// SPDX-License-Identifier: GPL-2.0

//! Generators shared by the property tests.

#![allow(dead_code)] // Each test binary uses some of them.

use nlb_wire::{
    addr::{Addr, FourTuple, Proto},
    flow_id::FlowId,
    ipv4, ipv6,
    record::{
        CongestionControl, ConnectionState, Range, Ranges, SocketOptions, MAX_OUT_OF_ORDER,
        MAX_SACKS,
    },
    tcp, udp,
};
use proptest::{collection::vec, prelude::*};

/// A unicast IPv4 address.
pub(crate) fn unicast() -> impl Strategy<Value = [u8; 4]> {
    (1..224u8, any::<[u8; 3]>()).prop_map(|(a, [b, c, d])| [a, b, c, d])
}

pub(crate) fn flow_id() -> impl Strategy<Value = FlowId> {
    any::<u32>().prop_map(FlowId::nth)
}

pub(crate) fn proto() -> impl Strategy<Value = Proto> {
    prop_oneof![Just(Proto::Tcp), Just(Proto::Udp)]
}

pub(crate) fn tuple(proto: impl Strategy<Value = Proto>) -> impl Strategy<Value = FourTuple> {
    (unicast(), 1..=u16::MAX, unicast(), 1..=u16::MAX, proto).prop_map(
        |(client, cport, vip, vport, proto)| FourTuple::v4(client, cport, vip, vport, proto),
    )
}

/// An IPv6 address that a router forwards packets with.
pub(crate) fn unicast_v6() -> impl Strategy<Value = Addr> {
    any::<[u8; 16]>()
        .prop_map(Addr::v6)
        .prop_filter("unicast IPv6", |addr| addr.is_unicast() && !addr.is_v4())
}

pub(crate) fn tuple_v6(proto: impl Strategy<Value = Proto>) -> impl Strategy<Value = FourTuple> {
    let ports = (1..=u16::MAX, 1..=u16::MAX);
    (unicast_v6(), unicast_v6(), ports, proto).prop_map(|(client, vip, (cport, vport), proto)| {
        FourTuple::new(client, cport, vip, vport, proto).unwrap()
    })
}

/// A forwarder for a connection of that family.
pub(crate) fn forwarder_of(connection: &ConnectionState, v4: [u8; 4], v6: Addr) -> Addr {
    if connection.tuple.is_v4() {
        Addr::v4(v4)
    } else {
        v6
    }
}

/// A whole packet of a connection, checksums right: IP options or extension headers, TCP options,
/// any payload, link-layer padding behind it; a UDP checksum may be absent.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) tuple: FourTuple,
    pub(crate) bytes: Vec<u8>,
}

/// IPv4 or IPv6.
pub(crate) fn packet() -> impl Strategy<Value = Sample> {
    prop_oneof![packet_v4(), packet_v6()]
}

pub(crate) fn packet_v6() -> impl Strategy<Value = Sample> {
    // Hop-by-hop options, destination options, a routing header at its end, an atomic fragment.
    let extension = prop_oneof![Just(0u8), Just(60), Just(43), Just(44)];
    let ip = (vec((extension, 0..3u8), 0..4), 2..=255u8, any::<[u8; 4]>());
    let l4 = (
        0..=10usize,
        any::<[u8; 8]>(),
        vec(any::<u8>(), 0..200),
        any::<bool>(),
    );
    (tuple_v6(proto()), ip, l4, 0..10usize).prop_map(
        |(tuple, (extensions, limit, label), (tcp_words, numbers, data, no_check), padding)| {
            let l4 = match tuple.proto() {
                Proto::Tcp => tcp_segment(&tuple, tcp_words, numbers, &data),
                Proto::Udp => udp_datagram(&tuple, &data, no_check),
            };
            let mut payload = Vec::new();
            let mut next = extensions.iter().skip(1).map(|(kind, _)| *kind);
            for (kind, units) in &extensions {
                let units = if *kind == 44 { 0 } else { *units };
                payload.push(next.next().unwrap_or(tuple.proto().number()));
                payload.push(units);
                payload.extend([0; 6]);
                payload.extend(std::iter::repeat_n(0, usize::from(units) * 8));
            }
            payload.extend(&l4);
            let first = extensions.first().map(|(kind, _)| *kind);
            let mut bytes = vec![0x60 | label[0] & 0xf, label[1], label[2], label[3]];
            bytes.extend((payload.len() as u16).to_be_bytes());
            bytes.extend([first.unwrap_or(tuple.proto().number()), limit]);
            bytes.extend(tuple.client().octets());
            bytes.extend(tuple.vip().octets());
            bytes.extend(&payload);
            bytes.extend(std::iter::repeat_n(0xee, padding));
            Sample { tuple, bytes }
        },
    )
}

pub(crate) fn packet_v4() -> impl Strategy<Value = Sample> {
    let ip = (0..=10usize, 2..=255u8, any::<u8>(), any::<u16>());
    let l4 = (
        0..=10usize,
        any::<[u8; 8]>(),
        vec(any::<u8>(), 0..200),
        any::<bool>(),
    );
    (tuple(proto()), ip, l4, 0..10usize).prop_map(
        |(tuple, (ip_words, ttl, tos, ident), (tcp_words, numbers, data, no_check), padding)| {
            let l4 = match tuple.proto() {
                Proto::Tcp => tcp_segment(&tuple, tcp_words, numbers, &data),
                Proto::Udp => udp_datagram(&tuple, &data, no_check),
            };
            let repr = ipv4::Repr {
                source: tuple.client().to_v4().unwrap(),
                destination: tuple.vip().to_v4().unwrap(),
                protocol: tuple.proto().number(),
                payload_len: l4.len() as u16,
                ident,
                dont_fragment: ident & 1 != 0,
                tos,
                ttl,
            };
            let mut bytes = repr.emit().unwrap().to_vec();
            bytes.extend(std::iter::repeat_n(1, ip_words * 4));
            bytes.extend(&l4);
            bytes[0] = 0x45 + ip_words as u8;
            let total = bytes.len() as u16;
            bytes[2..4].copy_from_slice(&total.to_be_bytes());
            bytes.extend(std::iter::repeat_n(0xee, padding));
            let mut ip = ipv4::Packet::new_checked(bytes).unwrap();
            ip.fill_checksum();
            let bytes = ip.into_inner();
            Sample { tuple, bytes }
        },
    )
}

fn tcp_segment(tuple: &FourTuple, words: usize, numbers: [u8; 8], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 20];
    bytes[4..12].copy_from_slice(&numbers);
    bytes[12] = ((5 + words) as u8) << 4;
    bytes[13] = numbers[0];
    bytes.extend(std::iter::repeat_n(1, words * 4));
    bytes.extend(data);
    let mut tcp = tcp::Packet::new_checked(bytes).unwrap();
    tcp.set_source_port(tuple.client_port());
    tcp.set_destination_port(tuple.vip_port());
    tcp.fill_checksum(tuple.client(), tuple.vip());
    tcp.into_inner()
}

fn udp_datagram(tuple: &FourTuple, data: &[u8], no_check: bool) -> Vec<u8> {
    let header = udp::emit(tuple.client_port(), tuple.vip_port(), data.len() as u16);
    let mut bytes = header.unwrap().to_vec();
    bytes.extend(data);
    let mut udp = udp::Packet::new_checked(bytes).unwrap();
    if !no_check {
        udp.fill_checksum(tuple.client(), tuple.vip());
    }
    udp.into_inner()
}

/// An ICMP error, and what the tunnel does with it.
fn read_report(bytes: &[u8], len: usize) {
    use nlb_wire::{control, report};
    let mut shorter = bytes.to_vec();
    if report::decrement_ttl(&mut shorter).is_err() {
        assert_eq!(shorter, bytes);
    }
    if let Ok((report, outer)) = report::Report::parse_carrier(bytes, len) {
        assert!(report.total_len <= len);
        assert!(report.quote_offset + report.quote_len <= bytes.len());
        assert_eq!(report.quoted, outer.parsed);
        // The report's own addresses and both quoted packets are of one family.
        assert_eq!(outer.source.is_v4(), report.source.is_v4());
        assert_eq!(outer.parsed.tuple.is_v4(), report.source.is_v4());
        let ports = outer.offset + outer.parsed.l4_offset + 8;
        assert!(report.quote_offset + ports <= bytes.len());
    }
    let Ok(report) = report::Report::parse(bytes, len) else {
        return;
    };
    translate(bytes, &report);
    assert!(report.total_len <= len);
    assert!(report.quote_offset + report.quote_len <= bytes.len());
    let quote = &bytes[report.quote_offset..][..report.quote_len];
    assert!(report.quoted.l4_offset + 8 <= bytes.len() - report.quote_offset);
    match report.about(bytes) {
        Some(report::About::Learn(learn, Some(inner))) => {
            assert_eq!(inner.parsed.tuple, learn.tuple);
            assert!(inner.offset + inner.parsed.l4_offset + 8 <= bytes.len());
        }
        Some(report::About::Learn(..)) | None => {}
        Some(report::About::Compact(_)) => {
            // There and back again.
            let quoted = &report.quoted;
            let there = match quoted.tuple.is_v4() {
                true => FourTuple::v4(
                    [192, 0, 2, 1],
                    5,
                    [198, 51, 100, 1],
                    6,
                    quoted.tuple.proto(),
                ),
                false => {
                    let v6 = |last| Addr::v6([last; 16]);
                    FourTuple::new(v6(1), 5, v6(2), 6, quoted.tuple.proto()).unwrap()
                }
            };
            let mut changed = quote.to_vec();
            report::restore(&mut changed, quoted, &there).unwrap();
            if let Ok(parsed) = nlb_wire::parse::parse_quoted(&changed) {
                assert_eq!(parsed.tuple, there);
            }
        }
    }
    if let Some(tuple) = report.replied() {
        let _ = control::carried(bytes, len, &tuple);
    }
}

/// What a router that translates addresses makes of an ICMP error.
fn translate(bytes: &[u8], report: &nlb_wire::report::Report) {
    let v6 = |last| Addr::v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    let v4 = |last| Addr::v4([192, 0, 2, last]);
    let proto = report.quoted.tuple.proto();
    for ends in [(v4(1), v4(2)), (v6(1), v6(2)), (v4(1), v6(2))] {
        for (client, vip) in [(v4(3), v4(4)), (v6(3), v6(4))] {
            let quoted = FourTuple::new(client, 5, vip, 6, proto).unwrap();
            let mut changed = bytes.to_vec();
            if nlb_wire::report::translate(&mut changed, report, ends, &quoted).is_err() {
                assert_eq!(changed, bytes);
                continue;
            }
            let outer = nlb_wire::parse::addresses(&changed);
            assert_eq!(outer, Some(ends));
            assert_eq!(changed.len(), bytes.len());
            if let Ok(again) = nlb_wire::report::Report::parse(&changed, report.total_len) {
                assert_eq!(again.quoted.tuple, quoted);
                assert_eq!(again.ttl, report.ttl - 1);
            }
        }
    }
}

/// The headers of a packet, and of one inside it.
fn read_headers(bytes: &[u8], frame: nlb_wire::parse::Frame) {
    use nlb_wire::{ipip, parse, report};
    let parsed = parse::parse(bytes, frame);
    if let Ok(parsed) = parsed {
        assert!(parsed.total_len <= frame.len && parsed.l4_offset < bytes.len());
        if let Some(offset) = parsed.checksum.offset() {
            assert!(offset + 2 <= bytes.len());
        }
    }
    // The fast path must not take a packet for something else than the ordinary one does.
    if let Some(ordinary) = parse::parse_ordinary(bytes, frame) {
        assert_eq!(parsed, Ok(ordinary));
    }
    if let Ok(outer) = ipip::parse(bytes, frame) {
        assert!(outer.offset < bytes.len());
        let len = frame.len - outer.offset;
        let inner = parse::parse(&bytes[outer.offset..], parse::Frame { len, ..frame });
        assert_eq!(inner, Ok(outer.parsed));
        if !frame.gso {
            assert_eq!(outer.offset + outer.parsed.total_len, outer.total_len);
            assert!(outer.total_len <= frame.len);
        }
    }
    if let Ok(outer) = ipip::parse_report(bytes, frame) {
        let inner = &bytes[outer.offset..];
        let report = report::Report::parse(inner, frame.len - outer.offset);
        assert_eq!(report, Ok(outer.parsed));
        assert_eq!(outer.offset + outer.parsed.total_len, outer.total_len);
        assert!(outer.total_len <= frame.len && ipip::parse(bytes, frame).is_err());
    }
}

/// Whether both checksums of a whole packet are right.
pub(crate) fn checksums_hold(bytes: &[u8]) -> bool {
    if let Ok(ip) = ipv6::Packet::new_checked(bytes) {
        let (protocol, offset) = ip.upper_layer().unwrap();
        let segment = &bytes[offset..ip.total_len()];
        let (source, destination) = (ip.source(), ip.destination());
        return match protocol {
            6 => tcp::Packet::new_checked(segment)
                .unwrap()
                .verify_checksum(source, destination),
            _ => {
                let udp = udp::Packet::new_checked(segment).unwrap();
                udp.checksum() == 0 || udp.verify_checksum(source, destination)
            }
        };
    }
    let ip = ipv4::Packet::new_checked(bytes).unwrap();
    let (source, destination) = (ip.source(), ip.destination());
    ip.verify_checksum()
        && match ip.protocol() {
            6 => tcp::Packet::new_checked(ip.payload())
                .unwrap()
                .verify_checksum(source, destination),
            _ => udp::Packet::new_checked(ip.payload())
                .unwrap()
                .verify_checksum(source, destination),
        }
}

/// A connection state that fits together.
pub(crate) fn connection() -> impl Strategy<Value = ConnectionState> {
    let numbers = (any::<u32>(), any::<u32>(), 0..1u32 << 16, 0..1u32 << 16);
    let queues = (
        0..1u32 << 16,
        0..1u32 << 16,
        any::<bool>(),
        any::<bool>(),
        vec((1..=2000u32, 1..=2000u32), 0..=MAX_OUT_OF_ORDER),
        vec((any::<prop::sample::Index>(), 0..=1999u32), 0..=MAX_SACKS),
    );
    let windows = (
        any::<bool>(),
        0..=14u8,
        0..=14u8,
        0..=0xffffu32,
        0..=0xffffu32,
        0..1u32 << 20,
    );
    let options = (any::<[bool; 4]>(), 88..=65495u16, 1..=65495u16, 0..8u8);
    let times = any::<[u32; 4]>();
    let rtts = proptest::array::uniform4(0..=i32::MAX as u32);
    let congestion = proptest::array::uniform3(1..=i32::MAX as u32);
    let counters = (any::<[u64; 2]>(), socket_options());
    (
        prop_oneof![tuple(Just(Proto::Tcp)), tuple_v6(Just(Proto::Tcp))],
        (numbers, queues),
        windows,
        options,
        times,
        rtts,
        congestion,
        counters,
    )
        .prop_map(
            |(
                tuple,
                (
                    (snd_una, rcv_nxt, unread_len, since_wup),
                    (sent, unsent, fin, out_of_order_fin, gaps, blocks),
                ),
                (wscale_ok, snd_wscale, rcv_wscale, window, less, more),
                ([sack_ok, tstamp_ok, usec_ts, ecn_ok], mss_clamp, rcv_mss, ecn),
                [tsval_now, ts_recent, ts_recent_age, rtt_min_us],
                [srtt_us, mdev_us, mdev_max_us, rttvar_us],
                [snd_cwnd, snd_ssthresh, reordering],
                ([bytes_acked, bytes_received], options),
            )| {
                let (snd_wscale, rcv_wscale) = if wscale_ok {
                    (snd_wscale, rcv_wscale)
                } else {
                    (0, 0)
                };
                let rcv_wup = rcv_nxt.wrapping_sub(since_wup);
                let fin = fin && gaps.is_empty();
                let (out_of_order, sacks) = out_of_order(rcv_nxt, &gaps, &blocks);
                let snd_nxt = snd_una.wrapping_add(sent);
                ConnectionState {
                    tuple,
                    snd_una,
                    snd_nxt,
                    write_seq: snd_nxt.wrapping_add(unsent),
                    rcv_nxt,
                    copied_seq: rcv_nxt.wrapping_sub(unread_len.max(u32::from(fin))),
                    fin,
                    out_of_order,
                    out_of_order_fin: out_of_order_fin && !out_of_order.is_empty(),
                    sacks: if sack_ok { sacks } else { Ranges::new() },
                    rcv_wup,
                    rcv_wnd: less,
                    rcv_mwnd_seq: rcv_wup.wrapping_add(less).wrapping_add(more),
                    snd_wl1: rcv_nxt.wrapping_sub(more),
                    snd_wnd: window.min(less) << snd_wscale,
                    max_window: window << snd_wscale,
                    window_clamp: more + 1,
                    rcv_ssthresh: more,
                    wscale_ok,
                    snd_wscale,
                    rcv_wscale,
                    sack_ok,
                    tstamp_ok,
                    usec_ts: usec_ts && tstamp_ok,
                    ecn_ok,
                    ecn_flags: (ecn << 1) | u8::from(ecn_ok),
                    mss_clamp,
                    rcv_mss,
                    tsval_now,
                    ts_recent,
                    ts_recent_age,
                    srtt_us,
                    mdev_us,
                    mdev_max_us,
                    rttvar_us,
                    rtt_min_us,
                    snd_cwnd,
                    snd_ssthresh,
                    reordering,
                    bytes_acked,
                    bytes_received,
                    options,
                }
            },
        )
}

/// Options of a socket, none of them set every other time.
fn socket_options() -> impl Strategy<Value = SocketOptions> {
    let small = (any::<[bool; 2]>(), 0..=127u8, any::<u8>());
    let large = (0..=32767u32, 0..=32767u32, any::<[u32; 2]>(), any::<u64>());
    let name = prop::option::of("[!-~]{1,15}").prop_map(|name| {
        let mut bytes = [0; 16];
        bytes[..name.as_ref()?.len()].copy_from_slice(name.as_ref()?.as_bytes());
        CongestionControl::new(&bytes)
    });
    let set = (small, large, name).prop_map(
        |(([nodelay, keepalive], count, tos), (idle, interval, [timeout, lowat], rate), name)| {
            SocketOptions {
                nodelay,
                keepalive,
                keepalive_count: count,
                keepalive_idle: idle,
                keepalive_interval: interval,
                tos: tos & !3,
                user_timeout: timeout >> 1,
                notsent_lowat: lowat,
                max_pacing_rate: rate,
                congestion_control: name,
            }
        },
    );
    prop_oneof![Just(SocketOptions::NONE), set]
}

/// Ranges behind `rcv_nxt` from the lengths of the holes and of the data behind each, and SACK
/// blocks that leave out some bytes at their starts.
fn out_of_order(
    rcv_nxt: u32,
    gaps: &[(u32, u32)],
    blocks: &[(prop::sample::Index, u32)],
) -> (Ranges<MAX_OUT_OF_ORDER>, Ranges<MAX_SACKS>) {
    let (mut ranges, mut sacks) = (Ranges::new(), Ranges::new());
    let mut at = rcv_nxt;
    for (hole, len) in gaps {
        let start = at.wrapping_add(*hole);
        at = start.wrapping_add(*len);
        ranges.push(Range { start, end: at }).unwrap();
    }
    if !gaps.is_empty() {
        for (index, less) in blocks {
            let range = ranges.as_slice()[index.index(gaps.len())];
            let less = (*less).min(range.len() - 1);
            let start = range.start.wrapping_add(less);
            sacks.push(Range { start, ..range }).unwrap();
        }
    }
    (ranges, sacks)
}

/// Runs every parser over bytes; the values do not matter, only that all come back.
pub(crate) fn parse_everything(bytes: &[u8]) {
    use nlb_wire::{carrier, control, encap, icmp, ipip, parse, record};
    if let Ok(ip) = ipv4::Packet::new_header(bytes) {
        let _ = (
            ip.payload(),
            ip.options(),
            ip.verify_checksum(),
            ip.source(),
        );
    }
    if let Ok(ip) = ipv6::Packet::new_header(bytes) {
        let _ = (ip.payload(), ip.upper_layer(), ip.total_len());
    }
    if let Ok(tcp) = tcp::Packet::new_checked(bytes) {
        assert!(tcp.options().count() <= 40);
        let _ = (tcp.payload(), tcp.sequence_len());
    }
    if let Ok(udp) = udp::Packet::new_checked(bytes) {
        let _ = (
            udp.payload(),
            udp.verify_checksum(Addr::v4([0; 4]), Addr::v6([0; 16])),
        );
    }
    for version in [icmp::Version::V4, icmp::Version::V6] {
        if let Ok(icmp) = icmp::Packet::new_checked(bytes, version) {
            let _ = (icmp.kind(), icmp.echo(), icmp.quoted(), icmp.payload());
        }
    }
    if let Ok(parsed) = parse::parse_quoted(bytes) {
        assert!(parsed.l4_offset + 8 <= bytes.len());
        assert!(parsed.l4_offset + 8 <= parsed.total_len);
    }
    if let Ok(outer) = ipip::parse_quoted(bytes) {
        let inner = parse::parse_quoted(&bytes[outer.offset..]);
        assert_eq!(inner, Ok(outer.parsed));
        assert_eq!(outer.parsed.tuple.is_v4(), outer.source.is_v4());
    }
    for len in [0, bytes.len(), bytes.len() * 2] {
        read_report(bytes, len);
    }
    for (gso, csum_partial) in [(false, false), (true, false), (false, true), (true, true)] {
        for len in [0, bytes.len(), bytes.len() * 2, usize::MAX] {
            let frame = parse::Frame {
                len,
                gso,
                csum_partial,
            };
            read_headers(bytes, frame);
        }
    }
    let v6 = |last| Addr::v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    let v4 = |last| Addr::v4([10, 0, 0, last]);
    for (forwarder, host) in [(v4(1), v4(2)), (v6(1), v6(2)), (v4(1), v6(2))] {
        let mut changed = bytes.to_vec();
        if encap::encapsulate(&mut changed, forwarder, host, FlowId::nth(7)).is_err() {
            assert_eq!(changed, bytes);
        }
        let mut buffer = [0; ipip::MAX_HEADER_LEN];
        if let Ok(header) = ipip::emit(bytes, bytes.len(), forwarder, host, &mut buffer) {
            assert_eq!(parse::addresses(header), Some((forwarder, host)));
        }
        let gre = carrier::Carrier::Gre { checksum: true };
        let gue = carrier::Carrier::Gue {
            checksum: false,
            port: 6080,
        };
        for carrier in [gre, gue] {
            let mut buffer = [0; carrier::MAX_HEADER_LEN];
            let ends = (forwarder, host);
            if let Ok(header) = carrier.emit(bytes, bytes.len(), ends, 1, &mut buffer) {
                assert_eq!(parse::addresses(header), Some(ends));
                // What they carry is quoted as if there were nothing in between.
                let outer = ipip::parse_quoted(&[header, bytes].concat());
                let inner = parse::parse_quoted(bytes)
                    .ok()
                    .filter(|inner| inner.tuple.is_v4() == host.is_v4());
                assert_eq!(outer.ok().map(|outer| outer.parsed), inner);
            }
        }
        for proto in [Proto::Tcp, Proto::Udp] {
            let Some(tuple) = FourTuple::new(forwarder, 5, host, 6, proto) else {
                continue;
            };
            let mut changed = bytes.to_vec();
            if encap::decapsulate(&mut changed, &tuple).is_err() {
                assert_eq!(changed, bytes);
            }
        }
    }
    if let Ok((message, inner)) = control::Message::parse(bytes) {
        assert_eq!(
            control::Message::parse_head(bytes, bytes.len()),
            Ok(message)
        );
        if let (control::Message::Learn(learn), Some(inner)) = (&message, inner) {
            assert_eq!(inner.len() + learn.head_len(), bytes.len());
        }
    }
    if let Ok((header, payload)) = record::parse(bytes) {
        decode_and_encode(&header, payload);
    }
}

/// What a payload means must survive being written again.
pub(crate) fn decode_and_encode(header: &nlb_wire::record::Header, payload: &[u8]) {
    use nlb_wire::record::{parse, Record, RECORD_MAX};
    let mut room = None;
    let Ok(record) = Record::decode(header, payload, &mut room) else {
        return;
    };
    let mut bytes = vec![0; RECORD_MAX];
    let len = record.encode(header.id(), &mut bytes).unwrap();
    let (again, payload) = parse(&bytes[..len]).unwrap();
    assert_eq!(again.kind(), header.kind());
    assert_eq!(again.id(), header.id());
    assert_eq!(Record::decode(&again, payload, &mut None), Ok(record));
}
