// SPDX-License-Identifier: GPL-2.0

//! LEARN, CONFIRM and UNKNOWN: how a host comes to know a flow id. CARRY: how it hears of ICMP
//! errors about its replies. MOVED, ASK and GONE: how a forwarder comes to know where a connection has
//! moved on to.

use crate::{
    mapping::host::HostKey,
    state::Tunnel,
    stats::Counter, //
};
use kernel::prelude::*;
use nlb::{
    errno::EAFNOSUPPORT,
    net::{
        ip::{
            self,
            Route, //
        },
        netfilter::{
            HookState,
            Verdict, //
        },
        skbuff::{
            DropReason,
            SkBuff, //
        },
        Net, //
    },
    wire::{
        addr::{
            Addr,
            FourTuple, //
        },
        control::{
            self,
            Learn,
            Message,
            HEADER_LEN,
            LEARN6_LEN,
            MOVED_LEN,
            PORT, //
        },
        error,
        flow_id::FlowId,
        ipv4,
        parse::{
            parse,
            Frame,
            Parsed,
            MAX_EXTENDED_LEN, //
        },
        report,
        udp, //
    },
};

/// Sends a datagram that consists of `payload`.
fn send(net: &Net, route: Route, payload: &[u8]) -> Result {
    let len = u16::try_from(payload.len()).map_err(|_| EMSGSIZE)?;
    let headroom = Route::udp_headroom(route.destination().is_v4());
    let mut skb = SkBuff::alloc(headroom, len, GFP_ATOMIC)?;
    skb.put(payload)?;
    route.send_udp(net, skb, PORT, PORT)
}

/// Sends a LEARN without a packet.
pub(crate) fn send_learn(net: &Net, learn: &Learn, route: Route) -> Result {
    send(net, route, learn.emit(&mut [0; LEARN6_LEN]))
}

/// Puts a LEARN in front of a client's packet, whose data starts at its IP header. Its checksum
/// must be complete. `ENOMEM`.
pub(crate) fn push_learn(skb: &mut SkBuff, learn: &Learn) -> Result {
    let v4 = learn.tuple.is_v4();
    push_header(skb, v4, learn.emit(&mut [0; LEARN6_LEN]))
}

/// Makes the data, an IP packet whose checksum is complete, a CARRY's. `ENOMEM`.
pub(crate) fn push_carry(skb: &mut SkBuff, id: FlowId) -> Result {
    push_header(skb, false, &control::carry(id))
}

/// Puts the head of a message in front of the data, and makes room for the headers of a datagram,
/// over IPv4 or over either.
fn push_header(skb: &mut SkBuff, v4: bool, head: &[u8]) -> Result {
    // CAST: At most `LEARN6_LEN`.
    let len = head.len() as u16;
    skb.cow_head(Route::udp_headroom(v4).saturating_add(len))?;
    skb.push(len)?.copy_from_slice(head);
    Ok(())
}

/// Asks a host whether it has a connection.
pub(crate) fn send_ask(net: &Net, learn: &Learn, route: Route) -> Result {
    send(net, route, learn.emit_ask(&mut [0; LEARN6_LEN]))
}

/// Tells a forwarder that the connection of its flow id has moved on to `host`.
pub(crate) fn send_moved(net: &Net, route: Route, id: FlowId, cookie: u64, host: Addr) -> Result {
    let mut room = [0; MOVED_LEN];
    send(net, route, control::moved(id, cookie, host, &mut room))
}

/// Answers a MOVED. Whether it was sent.
pub(crate) fn send_gone(net: &Net, here: Addr, there: Addr, id: FlowId, cookie: u64) -> bool {
    Route::lookup(net, Some(here), there)
        .and_then(|route| send(net, route, &control::gone(id, cookie)))
        .is_ok()
}

/// Answers a packet with a flow id that is not known here. Whether it was sent.
pub(crate) fn send_unknown(net: &Net, here: Addr, there: Addr, id: FlowId) -> bool {
    Route::lookup(net, Some(here), there)
        .and_then(|route| send(net, route, &control::unknown(id)))
        .is_ok()
}

/// Answers a LEARN. Whether it was sent.
fn send_confirm(net: &Net, here: Addr, there: Addr, learn: &Learn) -> bool {
    let confirm = control::confirm(learn.flow_id, learn.cookie);
    Route::lookup(net, Some(here), there)
        .and_then(|route| send(net, route, &confirm))
        .is_ok()
}

/// Takes a control datagram, whose data starts at its IP header.
pub(crate) fn receive(
    tunnel: &Tunnel,
    state: &HookState<'_>,
    mut skb: SkBuff,
    parsed: &Parsed,
) -> Verdict {
    let (from, here) = (parsed.tuple.client(), parsed.tuple.vip());
    // In transit to another machine.
    if !ip::is_local_address(state.net(), &here) {
        return Verdict::Accept(skb);
    }
    let l4 = parsed.l4_offset;
    if skb.is_gso() {
        return tunnel.drop(skb, Counter::DropBadControl, DropReason::HDR_TRUNC);
    }
    // The link layer may have padded it.
    if skb.trim(parsed.total_len as u32).is_err() {
        return tunnel.drop(skb, Counter::DropNoMemory, DropReason::NOMEM);
    }
    if !u16::try_from(l4).is_ok_and(|at| ip::udp_checksum_is_valid(&mut skb, at)) {
        return tunnel.drop(skb, Counter::DropBadChecksum, DropReason::SKB_CSUM);
    }
    let start = l4 + udp::HEADER_LEN;
    let Some(len) = parsed.total_len.checked_sub(start) else {
        return tunnel.drop(skb, Counter::DropBadControl, DropReason::HDR_TRUNC);
    };
    let mut head = [0; LEARN6_LEN];
    let head_len = len.min(LEARN6_LEN);
    let message = match head.get_mut(..head_len) {
        Some(head) => match skb.copy_bits(start as u32, head) {
            Ok(()) => Message::parse_head(head, len),
            Err(_) => Err(error::DropReason::Truncated),
        },
        None => Err(error::DropReason::Truncated),
    };
    match message {
        Ok(Message::Learn(learn)) => {
            receive_learn(tunnel, state, skb, &learn, (from, here), start, len)
        }
        Ok(Message::Confirm { flow_id, cookie }) => {
            let known = tunnel.confirm(state, flow_id, cookie, from, here);
            answered(tunnel, skb, known)
        }
        Ok(Message::Unknown { flow_id }) => {
            let known = tunnel.unlearn(state, flow_id, from, here);
            answered(tunnel, skb, known)
        }
        Ok(Message::Moved {
            flow_id,
            cookie,
            host,
        }) => {
            let known = tunnel.receive_moved(state, (from, here), (flow_id, cookie), host);
            answered(tunnel, skb, known)
        }
        Ok(Message::Gone { flow_id, cookie }) => {
            let key = HostKey {
                forwarder: from,
                flow_id,
            };
            let known = tunnel.receive_gone(state, &key, cookie);
            answered(tunnel, skb, known)
        }
        Ok(Message::Ask(learn)) => receive_ask(tunnel, state, skb, &learn, (from, here)),
        Ok(Message::Carry { flow_id }) => {
            let key = HostKey {
                forwarder: from,
                flow_id,
            };
            receive_carry(tunnel, state, skb, &key, start + HEADER_LEN)
        }
        Err(_) => tunnel.drop(skb, Counter::DropBadControl, DropReason::PKT_TOO_SMALL),
    }
}

/// Takes a CARRY, whose inner packet is at `start`.
fn receive_carry(
    tunnel: &Tunnel,
    state: &HookState<'_>,
    mut skb: SkBuff,
    key: &HostKey,
    start: usize,
) -> Verdict {
    let Some(mapping) = tunnel.hosts.get(state.rcu(), key) else {
        let counter = match tunnel.forwarder(key.forwarder) {
            Some(_) => Counter::DropUnknownFlow,
            None => Counter::DropForwarder,
        };
        return tunnel.drop(skb, counter, DropReason::NO_SOCKET);
    };
    if let Err(reason) = expose(&mut skb, mapping.tuple(), start) {
        let counter = match reason {
            error::DropReason::BadValue => Counter::DropStrangeControl,
            _ => Counter::DropBadControl,
        };
        return tunnel.drop(skb, counter, DropReason::IP_INHDR);
    }
    tunnel.stats.inc(Counter::CarryReceived);
    tunnel.receive_client(state, skb, mapping.tuple(), mapping.born())
}

/// Leaves of a datagram nothing but the ICMP error at `start`, if it is about a packet to the client
/// of this connection.
fn expose(skb: &mut SkBuff, tuple: &FourTuple, start: usize) -> Result<(), error::DropReason> {
    let truncated = |_| error::DropReason::Truncated;
    let front = u16::try_from(start).map_err(|_| error::DropReason::BadLength)?;
    skb.pull_rcsum(front).map_err(truncated)?;
    let len = skb.len();
    skb.may_pull(len.min(report::MAX_LEN as u32))
        .map_err(truncated)?;
    control::carried(skb.data(), len as usize, tuple)?;
    taken_out(skb);
    Ok(())
}

/// Forgets what was said about a datagram whose inner packet is at the data now.
fn taken_out(skb: &mut SkBuff) {
    // The device's checksum and hash were about the datagram.
    skb.forget_checksum();
    skb.clear_hash();
    skb.reset_network_header();
}

/// A message that was dealt with, or was for no mapping of the machine that sent it.
fn answered(tunnel: &Tunnel, skb: SkBuff, known: bool) -> Verdict {
    if !known {
        return tunnel.drop(skb, Counter::DropStrangeControl, DropReason::NO_SOCKET);
    }
    skb.consume();
    Verdict::Stolen
}

/// The packet of `len` bytes at `start`, inside a LEARN: its headers, if it is whole and of the
/// connection that is to be learnt.
fn inner(skb: &mut SkBuff, learn: &Learn, start: usize, len: usize) -> Option<Parsed> {
    let front = start.checked_add(len.min(MAX_EXTENDED_LEN))?;
    skb.may_pull(u32::try_from(front).ok()?).ok()?;
    let header = skb.data().get(start..front)?;
    let parsed = parse(header, Frame::complete(len)).ok()?;
    // IPv6 has no checksum of its header.
    let wrong = |ip: ipv4::Packet<_>| !ip.verify_checksum();
    if ipv4::Packet::new_header(header).is_ok_and(wrong) {
        return None;
    }
    (parsed.tuple == learn.tuple && parsed.total_len == len).then_some(parsed)
}

/// What to count if a mapping cannot be learnt.
fn not_learnt(error: Error) -> Counter {
    match error {
        EPERM => Counter::DropForwarder,
        ENOSPC => Counter::DropLearnFull,
        ENOMEM => Counter::DropNoMemory,
        EEXIST => Counter::DropStrangeControl,
        e if e == EAFNOSUPPORT => Counter::DropBadControl,
        _ => Counter::DropLearnVip,
    }
}

/// Takes an ASK: the mapping is learnt if the connection is here, and not on its way or gone.
fn receive_ask(
    tunnel: &Tunnel,
    state: &HookState<'_>,
    skb: SkBuff,
    learn: &Learn,
    (forwarder, here): (Addr, Addr),
) -> Verdict {
    if tunnel.forwarder(forwarder).is_none() {
        return tunnel.drop(skb, Counter::DropForwarder, DropReason::NO_SOCKET);
    }
    if tunnel.relayed_to(&learn.tuple).is_some() || !tunnel.is_here(state, &learn.tuple) {
        return tunnel.drop(skb, Counter::DropAsk, DropReason::NO_SOCKET);
    }
    if let Err(e) = tunnel.learn(state, forwarder, here, learn) {
        return tunnel.drop(skb, not_learnt(e), DropReason::NO_SOCKET);
    }
    tunnel.stats.inc(Counter::AskReceived);
    if send_confirm(state.net(), here, forwarder, learn) {
        tunnel.stats.inc(Counter::ConfirmSent);
    }
    skb.consume();
    Verdict::Stolen
}

/// Takes a LEARN, whose payload of `len` bytes is at `start`.
fn receive_learn(
    tunnel: &Tunnel,
    state: &HookState<'_>,
    mut skb: SkBuff,
    learn: &Learn,
    (forwarder, here): (Addr, Addr),
    start: usize,
    len: usize,
) -> Verdict {
    let net = state.net();
    // The message was parsed, so it is as long as that.
    let front = start + learn.head_len();
    let packet = match len.saturating_sub(learn.head_len()) {
        0 => None,
        len => match inner(&mut skb, learn, front, len) {
            Some(packet) => Some(packet),
            None => return tunnel.drop(skb, Counter::DropBadControl, DropReason::IP_INHDR),
        },
    };
    match tunnel.learn(state, forwarder, here, learn) {
        Ok(()) => tunnel.stats.inc(Counter::LearnReceived),
        Err(e) => return tunnel.drop(skb, not_learnt(e), DropReason::NO_SOCKET),
    }
    // The forwarder hears of a SYN by what the client does when it has been answered.
    let opens = packet
        .as_ref()
        .is_some_and(|packet| packet.flags.is_initial_syn());
    if !opens && send_confirm(net, here, forwarder, learn) {
        tunnel.stats.inc(Counter::ConfirmSent);
    }
    let Some(packet) = packet else {
        skb.consume();
        return Verdict::Stolen;
    };
    let pulled = u16::try_from(front)
        .map_err(|_| EINVAL)
        .and_then(|front| skb.pull_rcsum(front));
    if pulled.is_err() {
        return tunnel.drop(skb, Counter::DropBadControl, DropReason::HDR_TRUNC);
    }
    taken_out(&mut skb);
    let born = tunnel.learnt_packet(state, forwarder, learn.flow_id, &packet);
    tunnel.receive_client(state, skb, &learn.tuple, born)
}

#[kunit_tests(nlb_tunnel_control)]
mod tests {
    use super::*;
    use nlb::wire::vectors::{
        self,
        report as report_vectors, //
    };

    /// A datagram without IP and UDP header.
    fn datagram(learn: &Learn, inner: &[u8]) -> Result<SkBuff> {
        let mut skb = SkBuff::alloc(64, (LEARN6_LEN + inner.len()) as u16, GFP_KERNEL)?;
        skb.put(learn.emit(&mut [0; LEARN6_LEN]))?;
        skb.put(inner)?;
        Ok(skb)
    }

    fn learn_of(tuple: nlb::wire::addr::FourTuple) -> Learn {
        Learn {
            flow_id: FlowId::nth(7),
            cookie: 42,
            tuple,
        }
    }

    #[test]
    fn inner_packet_must_be_whole_and_of_the_connection() -> Result {
        for vector in vectors::all() {
            let packet = vector.inner;
            let learn = learn_of(vector.tuple);
            let front = learn.head_len();
            let mut skb = datagram(&learn, packet)?;
            let read = inner(&mut skb, &learn, front, packet.len());
            assert_eq!(read.map(|parsed| parsed.tuple), Some(vector.tuple));
            // The datagram is said to be shorter or longer than it is.
            for len in [0, 19, packet.len() - 1, packet.len() + 1] {
                assert!(inner(&mut skb, &learn, front, len).is_none());
            }
            skb.consume();
            // Cut.
            let mut skb = datagram(&learn, packet.get(..packet.len() - 1).unwrap_or_default())?;
            assert!(inner(&mut skb, &learn, front, packet.len() - 1).is_none());
            skb.consume();
            // Of another connection: what the tunnel makes of it.
            let mut skb = datagram(&learn, vector.outer)?;
            assert!(inner(&mut skb, &learn, front, vector.outer.len()).is_none());
            skb.consume();
            if !vector.tuple.is_v4() {
                continue;
            }
            // With a wrong header checksum.
            let mut skb = datagram(&learn, packet)?;
            let at = front + 10;
            let bytes = skb.data_mut((front + packet.len()) as u16)?;
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 0xff;
            }
            assert!(inner(&mut skb, &learn, front, packet.len()).is_none());
            skb.consume();
        }
        Ok(())
    }

    #[test]
    fn learn_goes_in_front() -> Result {
        for vector in vectors::all() {
            let learn = learn_of(vector.tuple);
            let mut skb = SkBuff::alloc(0, vector.inner.len() as u16, GFP_KERNEL)?;
            skb.put(vector.inner)?;
            push_header(&mut skb, false, learn.emit(&mut [0; LEARN6_LEN]))?;
            let (message, packet) = Message::parse(skb.data()).map_err(|_| EINVAL)?;
            assert_eq!(message, Message::Learn(learn));
            assert_eq!(packet, Some(vector.inner));
            skb.consume();
        }
        Ok(())
    }

    #[test]
    fn carried_packets_are_taken_out() -> Result {
        for vector in report_vectors::CARRIED {
            let datagram = vector.datagram;
            let inner = datagram.get(HEADER_LEN..).unwrap_or_default();
            let mut skb = SkBuff::alloc(64, datagram.len() as u16, GFP_KERNEL)?;
            skb.put(datagram)?;
            assert_eq!(expose(&mut skb, &vector.tuple, HEADER_LEN), Ok(()));
            assert_eq!(skb.data(), inner);
            // It is no datagram any more.
            assert!(expose(&mut skb, &vector.tuple, HEADER_LEN).is_err());
            skb.consume();
        }
        Ok(())
    }
}
