// SPDX-License-Identifier: GPL-2.0

//! Properties of addresses, sequence numbers, checksums, the tunnel and control datagrams.

mod common;

use common::{
    checksums_hold, flow_id, packet, packet_v4, packet_v6, parse_everything, proto, tuple,
    tuple_v6, unicast, unicast_v6, Sample,
};
use nlb_wire::{
    addr::{Addr, FourTuple},
    checksum, control, encap,
    flow_id::FlowId,
    ipv4, ipv6,
    parse::{parse, Frame, L4Checksum},
    seq::SeqNum,
    tcp::{Options, TcpOption},
    wrr,
};
use proptest::{collection::vec, prelude::*};

/// The packet with this hop limit, and an address of its family.
fn expired(sample: &Sample, ttl: u8) -> (Vec<u8>, Addr) {
    let mut bytes = sample.bytes.clone();
    if sample.tuple.is_v4() {
        ipv4::Packet::new_checked(&mut bytes).unwrap().set_ttl(ttl);
        return (bytes, Addr::v4([1; 4]));
    }
    let mut ip = ipv6::Packet::new_checked(&mut bytes).unwrap();
    ip.set_hop_limit(ttl);
    (bytes, Addr::v6([1; 16]))
}

proptest! {
    #[test]
    fn addresses_keep_their_octets(octets in any::<[u8; 16]>(), v4 in any::<[u8; 4]>()) {
        let addr = Addr::from_octets(&v4).unwrap();
        prop_assert!(addr.is_v4());
        prop_assert_eq!(addr.octets(), v4);
        prop_assert_eq!(addr.to_v4(), Some(v4));
        let mapped = octets[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
        match Addr::from_octets(&octets) {
            Some(addr) => prop_assert_eq!(addr.octets(), octets),
            None => prop_assert!(mapped),
        }
    }

    #[test]
    fn tuples_are_equal_exactly_if_their_words_are(a in tuple(proto()), b in tuple(proto())) {
        prop_assert_eq!(a == b, a.v4_words() == b.v4_words());
        prop_assert_eq!(a == b, a.words() == b.words());
        let again = FourTuple::new(a.client(), a.client_port(), a.vip(), a.vip_port(), a.proto());
        prop_assert_eq!(again, Some(a));
    }

    #[test]
    fn ipv6_tuples_are_equal_exactly_if_their_words_are(
        a in tuple_v6(proto()),
        b in tuple_v6(proto()),
        octet in 0..16usize,
    ) {
        prop_assert_eq!(a == b, a.words() == b.words());
        prop_assert_eq!(a.v4_words(), None);
        let mut octets = *a.client().as_bytes();
        octets[octet] ^= 1;
        let near = FourTuple::new(Addr::v6(octets), a.client_port(), a.vip(), a.vip_port(), a.proto());
        prop_assert!(near.is_none_or(|near| near.words() != a.words()));
    }

    #[test]
    fn sequence_numbers(a in any::<u32>(), n in 1..0x8000_0000u32, m in any::<u32>()) {
        let a = SeqNum(a);
        let b = a.add(n);
        prop_assert_eq!(b.sub(n), a);
        prop_assert_eq!(b.distance_from(a), n);
        prop_assert_eq!(b.offset_from(a), n as i32);
        if n < 0x8000_0000 {
            prop_assert!(a.before(b) && !b.before(a));
            prop_assert!(b.after(a) && !a.after(b));
            prop_assert!(a.before_eq(b) && b.after_eq(a) && a.before_eq(a));
        }
        prop_assert_eq!(a.add(m).between(a, b), m <= n);
        // Moving everything changes nothing.
        prop_assert_eq!(a.before(SeqNum(m)), a.add(n).before(SeqNum(m).add(n)));
    }

    #[test]
    fn flow_ids_round_trip(value in any::<u32>()) {
        let (source, destination) = ((value >> 16) as u16, value as u16);
        let id = FlowId::new(value);
        prop_assert_eq!(id.is_some(), source >= 61000 && destination != 0);
        if let Some(id) = id {
            prop_assert_eq!(id.value(), value);
            prop_assert_eq!((id.source(), id.destination()), (source, destination));
        }
        let id = FlowId::nth(value);
        prop_assert_eq!(FlowId::new(id.value()), Some(id));
        prop_assert_eq!(id == FlowId::nth(value.wrapping_add(1)), false);
    }

    #[test]
    fn checksum_delta_is_full_recomputation(
        mut data in vec(any::<u8>(), 6..100),
        at in any::<prop::sample::Index>(),
        new in any::<u32>(),
    ) {
        // Not all zero, or there are two right answers.
        data[0] |= 1;
        let at = (2 + at.index(data.len() - 5)) & !1;
        let old = u32::from_be_bytes(data[at..at + 4].try_into().unwrap());
        let before = checksum::checksum(&data);
        data[at..at + 4].copy_from_slice(&new.to_be_bytes());
        let after = checksum::checksum(&data);
        prop_assert_eq!(checksum::update32(before, old, new), after);
        prop_assert_eq!(checksum::update32(after, new, old), before);
        let (old, new) = (old.to_be_bytes(), new.to_be_bytes());
        prop_assert_eq!(checksum::update_addr(before, Addr::v4(old), Addr::v4(new)), after);
    }

    #[test]
    fn sums_add_up(data in vec(any::<u8>(), 0..100), cut in any::<prop::sample::Index>()) {
        let cut = cut.index(data.len() + 1) & !1;
        let pieces = checksum::sum(&data[cut..], checksum::sum(&data[..cut], 0));
        prop_assert_eq!(checksum::fold(pieces), checksum::fold(checksum::sum(&data, 0)));
        // By the definition, a word at a time.
        let mut sum = 0u32;
        for word in data.chunks(2) {
            sum += u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        prop_assert_eq!(u32::from(checksum::fold(checksum::sum(&data, 0))), sum);
    }

    #[test]
    fn tunnel_round_trip(
        sample in packet_v4(),
        forwarder in unicast(),
        host in unicast(),
        id in flow_id(),
    ) {
        prop_assert!(checksums_hold(&sample.bytes));
        let (forwarder, host) = (Addr::v4(forwarder), Addr::v4(host));
        let mut bytes = sample.bytes.clone();
        encap::encapsulate(&mut bytes, forwarder, host, id).unwrap();

        // In the tunnel: right checksums, the flow id's ports, everything else as it was.
        prop_assert!(checksums_hold(&bytes));
        let frame = Frame::complete(bytes.len());
        let outer = parse(&bytes, frame).unwrap();
        prop_assert_eq!(outer.flow_id(), Some(id));
        prop_assert_eq!((outer.tuple.client(), outer.tuple.vip()), (forwarder, host));
        let inner = parse(&sample.bytes, frame).unwrap();
        prop_assert_eq!(inner.tuple, sample.tuple);
        prop_assert_eq!(outer.ttl, inner.ttl - 1);
        prop_assert_eq!(outer.checksum, inner.checksum);
        let changed: Vec<usize> =
            (0..bytes.len()).filter(|&at| bytes[at] != sample.bytes[at]).collect();
        let l4 = inner.l4_offset;
        for at in changed {
            let check = inner.checksum.offset().is_some_and(|offset| (offset..offset + 2).contains(&at));
            prop_assert!((8..20).contains(&at) && at != 9 || (l4..l4 + 4).contains(&at) || check);
        }

        // And back: the same but for the TTL.
        encap::decapsulate(&mut bytes, &sample.tuple).unwrap();
        let mut ip = ipv4::Packet::new_checked(&mut bytes).unwrap();
        prop_assert!(ip.verify_checksum());
        ip.set_ttl(inner.ttl);
        ip.fill_checksum();
        prop_assert_eq!(bytes, sample.bytes);
    }

    #[test]
    fn tunnel_round_trip_v6(
        sample in packet_v6(),
        forwarder in unicast_v6(),
        host in unicast_v6(),
        id in flow_id(),
    ) {
        prop_assert!(checksums_hold(&sample.bytes));
        let mut bytes = sample.bytes.clone();
        encap::encapsulate(&mut bytes, forwarder, host, id).unwrap();

        prop_assert!(checksums_hold(&bytes));
        let frame = Frame::complete(bytes.len());
        let outer = parse(&bytes, frame).unwrap();
        prop_assert_eq!(outer.flow_id(), Some(id));
        prop_assert_eq!((outer.tuple.client(), outer.tuple.vip()), (forwarder, host));
        let inner = parse(&sample.bytes, frame).unwrap();
        prop_assert_eq!(inner.tuple, sample.tuple);
        prop_assert_eq!(outer.ttl, inner.ttl - 1);
        prop_assert_eq!(outer.checksum, inner.checksum);
        let l4 = inner.l4_offset;
        for at in (0..bytes.len()).filter(|&at| bytes[at] != sample.bytes[at]) {
            let check = inner.checksum.offset().is_some_and(|offset| (offset..offset + 2).contains(&at));
            prop_assert!((7..40).contains(&at) || (l4..l4 + 4).contains(&at) || check);
        }

        encap::decapsulate(&mut bytes, &sample.tuple).unwrap();
        ipv6::Packet::new_checked(&mut bytes).unwrap().set_hop_limit(inner.ttl);
        prop_assert_eq!(bytes, sample.bytes);
    }

    #[test]
    fn broken_checksums_stay_broken(sample in packet(), bit in any::<prop::sample::Index>(), id in flow_id()) {
        let inner = parse(&sample.bytes, Frame::complete(sample.bytes.len())).unwrap();
        // A bit of the segment that is neither port nor length nor in the way of parsing.
        let from = inner.l4_offset + if inner.checksum.is_udp() { 8 } else { 20 };
        if inner.checksum == L4Checksum::Absent || from >= inner.total_len {
            return Ok(());
        }
        let bit = from * 8 + bit.index((inner.total_len - from) * 8);
        let mut bytes = sample.bytes;
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!checksums_hold(&bytes));
        let end = if sample.tuple.is_v4() { Addr::v4([10, 0, 0, 1]) } else { Addr::v6([1; 16]) };
        encap::encapsulate(&mut bytes, end, end, id).unwrap();
        prop_assert!(!checksums_hold(&bytes));
    }

    #[test]
    fn expired_packets_do_not_change(sample in packet(), ttl in 0..2u8, id in flow_id()) {
        let (before, end) = expired(&sample, ttl);
        let mut bytes = before.clone();
        prop_assert!(encap::encapsulate(&mut bytes, end, end, id).is_err());
        prop_assert_eq!(bytes, before);
    }

    #[test]
    fn control_round_trip(sample in packet(), id in flow_id(), cookie in any::<u64>(), whole in any::<bool>()) {
        let learn = control::Learn { flow_id: id, cookie, tuple: sample.tuple };
        let total = parse(&sample.bytes, Frame::complete(sample.bytes.len())).unwrap().total_len;
        let inner = &sample.bytes[..total];
        let mut bytes = learn.emit(&mut [0; control::LEARN6_LEN]).to_vec();
        if whole {
            bytes.extend(inner);
        }
        let want = (control::Message::Learn(learn), whole.then_some(inner));
        prop_assert_eq!(control::Message::parse(&bytes), Ok(want));
        let confirm = control::Message::Confirm { flow_id: id, cookie };
        let bytes = control::confirm(id, cookie);
        prop_assert_eq!(control::Message::parse(&bytes), Ok((confirm, None)));
        let unknown = control::Message::Unknown { flow_id: id };
        let bytes = control::unknown(id);
        prop_assert_eq!(control::Message::parse(&bytes), Ok((unknown, None)));
    }

    #[test]
    fn tcp_options_survive(bytes in vec(any::<u8>(), 0..=40)) {
        let parsed: Vec<_> = Options::new(&bytes).take_while(Result::is_ok).map(Result::unwrap).collect();
        let mut written = [0; 80];
        let mut len = 0;
        for option in &parsed {
            len += option.emit(&mut written[len..]).unwrap();
        }
        prop_assert!(len <= bytes.len());
        let again: Result<Vec<TcpOption<'_>>, _> = Options::new(&written[..len]).collect();
        prop_assert_eq!(again.unwrap(), parsed);
    }

    #[test]
    fn round_robin_is_fair(weights in vec(0..1000u32, 1..40), bits in 6..11u32) {
        let slots = 1usize << bits;
        let total: u32 = weights.iter().sum();
        let mut shares: Vec<_> = weights.iter().copied().map(wrr::Share::new).collect();
        let mut table = vec![0; slots];
        let result = wrr::fill(&mut shares, &mut table);
        if total == 0 {
            prop_assert_eq!(result, Err(wrr::Error::NoEndpoint));
            return Ok(());
        }
        prop_assert_eq!(result, Ok(()));
        let mut counts = vec![0u32; weights.len()];
        for counter in 0..slots as u32 {
            counts[usize::from(wrr::pick(&table, counter).unwrap())] += 1;
        }
        let tiny = weights.iter().filter(|&&w| w > 0 && (w as usize * slots) < total as usize).count();
        for ((weight, count), share) in weights.iter().zip(&counts).zip(&shares) {
            prop_assert_eq!(*count, share.slots());
            prop_assert_eq!(*weight == 0, *count == 0);
            // Rounded by less than a slot, but for what the tiny ones were given.
            let exact = f64::from(*weight) * slots as f64 / f64::from(total);
            prop_assert!((f64::from(*count) - exact).abs() < 1.0 + tiny as f64, "{count} {exact}");
        }
    }

    #[test]
    fn random_bytes_are_survived(bytes in vec(any::<u8>(), 0..300)) {
        parse_everything(&bytes);
    }

    #[test]
    fn mutated_packets_are_survived(
        sample in packet(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = sample.bytes;
        for (at, value) in changes {
            let at = at.index(bytes.len().min(80));
            bytes[at] = value;
        }
        parse_everything(&bytes);
        parse_everything(&bytes[..cut.index(bytes.len() + 1)]);
        let mut datagram = vec![0x11, 6, 0, 0, 0xee, 0x48, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
        datagram.extend(&bytes);
        parse_everything(&datagram);
        datagram[0] = 0x14;
        parse_everything(&datagram);
    }
}
