// SPDX-License-Identifier: GPL-2.0

//! The forwarder's side of the packet path: into the tunnel.

use crate::{
    control,
    mapping::forwarder::Mapping,
    state::Tunnel,
    stats::Counter, //
};
use kernel::prelude::*;
use nlb::{
    net::{
        ip::{
            permit_fragments,
            send_icmp_error,
            IcmpError,
            Route, //
        },
        netfilter::HookState,
        skbuff::{
            Arrival,
            DropReason,
            Rewrite,
            SkBuff, //
        },
        Net, //
    },
    wire::{
        addr::Addr,
        control::{
            Learn,
            DATAGRAM6_LEN,
            DATAGRAM_LEN,
            LEARN6_LEN,
            LEARN_LEN,
            PORT, //
        },
        error,
        flow_id::FlowId,
        ipv4,
        ipv6,
        parse::Parsed,
        udp, //
    },
};

/// By how much a packet grows inside a LEARN datagram.
const LEARN_OVERHEAD: u32 = (ipv4::HEADER_LEN + udp::HEADER_LEN + LEARN_LEN) as u32;
const LEARN6_OVERHEAD: u32 = (ipv6::HEADER_LEN + udp::HEADER_LEN + LEARN6_LEN) as u32;

/// A packet that does not go into the tunnel, and why.
type Refused = (SkBuff, Counter, DropReason);

/// A packet that is not sent for want of memory.
fn no_memory(skb: SkBuff) -> Refused {
    (skb, Counter::DropNoMemory, DropReason::NOMEM)
}

impl Tunnel {
    /// Sends a client's packet to the host of its mapping, and takes care of it if that fails.
    ///
    /// The packet is in a `PRE_ROUTING` hook: its data starts at the IP header, which `parsed` was
    /// made from, and it has no route yet.
    #[inline]
    pub(crate) fn send(
        &self,
        state: &HookState<'_>,
        mapping: &Mapping,
        skb: SkBuff,
        parsed: &Parsed,
    ) {
        match self.try_send(state, mapping, skb, parsed) {
            Ok(sent) => self.count_sent(mapping, parsed, sent),
            Err((skb, counter, reason)) => {
                self.stats.inc(counter);
                skb.drop_reason(reason);
            }
        }
    }

    /// Counts a packet of a mapping that the network layer was given, and what it said.
    #[inline]
    fn count_sent(&self, mapping: &Mapping, parsed: &Parsed, sent: Result) {
        mapping.usage().count(parsed.total_len);
        self.stats.inc(Counter::EncapPackets);
        self.stats.add(Counter::EncapBytes, parsed.total_len as u64);
        if sent.is_err() {
            self.stats.inc(Counter::DropOutput);
        }
    }

    /// As [`Tunnel::send`], of a packet at the ingress of a device, past the network layer. Gives it
    /// back if that cannot be done, be it that the host may not know the mapping.
    #[inline(always)]
    pub(crate) fn send_at_once(
        &self,
        state: &HookState<'_>,
        mapping: &Mapping,
        packet: Arrival,
        parsed: &Parsed,
    ) -> Result<(), Arrival> {
        if !self.is_known(state, mapping, parsed.flags) {
            return self.learn_at_once(state, mapping, packet, parsed);
        }
        let target = mapping.target();
        let Some(next) = target.next_hop(state, &packet) else {
            return Err(packet);
        };
        if !next.carries(&packet, parsed) {
            return Err(packet);
        }
        let claimed = packet.claim(parsed, |skb| {
            encapsulate_by(mapping, skb, parsed).map_err(|_| ENOMEM)
        });
        self.send_claimed(mapping, parsed, claimed, |skb| next.output(skb));
        Ok(())
    }

    /// Has `send` send a packet of a mapping that was claimed, and counts it, or that it was lost.
    #[inline]
    fn send_claimed(
        &self,
        mapping: &Mapping,
        parsed: &Parsed,
        claimed: Result<SkBuff>,
        send: impl FnOnce(SkBuff) -> Result,
    ) {
        match claimed {
            Ok(skb) => self.count_sent(mapping, parsed, send(skb)),
            Err(_) => self.stats.inc(Counter::DropNoMemory),
        }
    }

    /// As [`Tunnel::send_at_once`], of a packet whose mapping the host may not know. What it is sent
    /// in is this machine's own datagram.
    fn learn_at_once(
        &self,
        state: &HookState<'_>,
        mapping: &Mapping,
        packet: Arrival,
        parsed: &Parsed,
    ) -> Result<(), Arrival> {
        let target = mapping.target();
        let Some(next) = target.next_hop(state, &packet) else {
            return Err(packet);
        };
        let Some(learn) = self.flows.learn(mapping) else {
            return Err(packet);
        };
        let inner = parsed.total_len;
        let (from, to) = (target.source(), target.host());
        let (v4, head) = match from.is_v4() {
            true => (true, DATAGRAM_LEN),
            false => (false, DATAGRAM6_LEN),
        };
        // CAST: A packet is not longer.
        if packet.is_gso()
            || !next.carries_len(inner.saturating_add(head) as u32)
            || state.net().has_local_out(v4, state.rcu())
        {
            return Err(packet);
        }
        let claimed = packet.claim(parsed, |skb| {
            skb.checksum_help()?;
            skb.set_ttl(parsed, parsed.ttl.wrapping_sub(1))
        });
        self.send_claimed(mapping, parsed, claimed, |skb| {
            self.stats.inc(Counter::EncapLearning);
            mapping.sent_learning(parsed.flags);
            match (from.to_v4(), to.to_v4()) {
                (Some(from), Some(to)) => next.send_udp(skb, ipv4::HEADER_LEN as u16, |head| {
                    learn.emit_datagram(from, to, inner, head)
                }),
                _ => next.send_udp(skb, ipv6::HEADER_LEN as u16, |head| {
                    learn.emit_datagram6(from, to, inner, head)
                }),
            }
        });
        Ok(())
    }

    /// What the network layer said to the packet, if it came so far.
    #[inline]
    fn try_send(
        &self,
        state: &HookState<'_>,
        mapping: &Mapping,
        mut skb: SkBuff,
        parsed: &Parsed,
    ) -> Result<Result, Refused> {
        let net = state.net();
        let Ok(route) = mapping.target().route(net) else {
            return Err((skb, Counter::DropNoRoute, DropReason::IP_OUTNOROUTES));
        };
        // The client hears of what goes wrong as from any router (RFC 1812 section 4.3.3).
        if parsed.ttl <= 1 {
            tell_client(state, &mut skb, IcmpError::TtlExceeded);
            return Err((skb, Counter::DropTtl, DropReason::IP_INHDR));
        }
        let known = self.is_known(state, mapping, parsed.flags);
        if !skb.fits_mtu(route.mtu()) {
            return self.send_too_big(state, route, mapping, skb, parsed);
        }
        if known {
            return send_compact(state, route, mapping, skb, parsed);
        }
        self.send_learning(state, route, mapping, skb, parsed)
    }

    /// Sends a packet that does not fit the way to the host, in fragments of the compact form.
    #[cold]
    fn send_too_big(
        &self,
        state: &HookState<'_>,
        route: Route,
        mapping: &Mapping,
        mut skb: SkBuff,
        parsed: &Parsed,
    ) -> Result<Result, Refused> {
        let net = state.net();
        if parsed.dont_fragment {
            let mtu = route.mtu();
            tell_client(state, &mut skb, IcmpError::TooBig { mtu });
            return Err((skb, Counter::DropTooBig, DropReason::PKT_TOO_BIG));
        }
        if !mapping.is_confirmed() {
            self.announce(net, mapping);
        }
        let ready = encapsulate_by(mapping, &mut skb, parsed)
            .map_err(|_| ENOMEM)
            .and_then(|()| permit_fragments(net, &mut skb));
        if ready.is_err() {
            return Err(no_memory(skb));
        }
        self.stats.inc(Counter::EncapFragmented);
        Ok(route.output(net, skb))
    }

    /// Sends a LEARN ahead of a packet in the compact form, so that it arrives first unless the
    /// network reorders them.
    fn announce(&self, net: &Net, mapping: &Mapping) {
        let sent = mapping.target().route(net).and_then(|route| {
            let learn = self.flows.learn(mapping).ok_or(EINVAL)?;
            control::send_learn(net, &learn, route)
        });
        if sent.is_ok() {
            self.stats.inc(Counter::LearnSent);
        }
    }

    /// Sends a packet of a mapping that the host may not know.
    #[cold]
    fn send_learning(
        &self,
        state: &HookState<'_>,
        route: Route,
        mapping: &Mapping,
        mut skb: SkBuff,
        parsed: &Parsed,
    ) -> Result<Result, Refused> {
        let net = state.net();
        // Without padding of the link layer.
        if skb.trim(parsed.total_len as u32).is_err() {
            return Err(no_memory(skb));
        }
        if skb.is_gso() || !fits_learning(mapping, skb.len(), &route) {
            self.announce(net, mapping);
            return send_compact(state, route, mapping, skb, parsed);
        }
        let learn = self.flows.learn(mapping);
        if learn.is_none_or(|learn| learn_with(&mut skb, &learn, parsed).is_err()) {
            return Err(no_memory(skb));
        }
        self.stats.inc(Counter::EncapLearning);
        mapping.sent_learning(parsed.flags);
        Ok(route.send_udp(net, skb, PORT, PORT))
    }
}

/// Whether a packet of `len` bytes can go to the host inside a LEARN by this way.
fn fits_learning(mapping: &Mapping, len: u32, route: &Route) -> bool {
    let overhead = if mapping.tuple().is_v4() {
        LEARN_OVERHEAD
    } else {
        LEARN6_OVERHEAD
    };
    len.saturating_add(overhead) <= route.mtu()
}

/// Makes a client's packet, without padding of the link layer, the payload of a datagram: a LEARN
/// with the packet, which has a valid checksum of its own, and has passed a router. `ENOMEM`.
fn learn_with(skb: &mut SkBuff, learn: &Learn, parsed: &Parsed) -> Result {
    let tuple = &learn.tuple;
    skb.checksum_help()?;
    skb.rewrite(&Rewrite {
        source: tuple.client(),
        destination: tuple.vip(),
        source_port: tuple.client_port(),
        destination_port: tuple.vip_port(),
        ttl: parsed.ttl.wrapping_sub(1),
    })?;
    control::push_learn(skb, learn)
}

/// Gives a packet of a mapping the compact form, as [`encapsulate`].
#[inline(always)]
fn encapsulate_by(
    mapping: &Mapping,
    skb: &mut SkBuff,
    parsed: &Parsed,
) -> Result<(), error::DropReason> {
    let target = mapping.target();
    let id = mapping.flow_id().ok_or(error::DropReason::NoSpace)?;
    encapsulate(skb, parsed, target.source(), target.host(), id)
}

/// Gives a client's packet, whose data starts at its IP header, the compact form.
///
/// On an error nothing has changed: the TTL is used up, or memory is short.
#[inline(always)]
pub(crate) fn encapsulate(
    skb: &mut SkBuff,
    parsed: &Parsed,
    source: Addr,
    destination: Addr,
    id: FlowId,
) -> Result<(), error::DropReason> {
    let ttl = match parsed.ttl {
        0 | 1 => return Err(error::DropReason::TtlExpired),
        ttl => ttl.wrapping_sub(1),
    };
    let to = Rewrite {
        source,
        destination,
        source_port: id.source(),
        destination_port: id.destination(),
        ttl,
    };
    skb.rewrite_parsed(parsed, &to)
        .map_err(|_| error::DropReason::NoSpace)
}

/// Sends a packet in its compact form.
#[inline]
fn send_compact(
    state: &HookState<'_>,
    route: Route,
    mapping: &Mapping,
    mut skb: SkBuff,
    parsed: &Parsed,
) -> Result<Result, Refused> {
    match encapsulate_by(mapping, &mut skb, parsed) {
        Ok(()) => Ok(route.output(state.net(), skb)),
        Err(_) => Err(no_memory(skb)),
    }
}

/// Sends whom a packet in a `PRE_ROUTING` hook is from an ICMP error about it.
#[cold]
pub fn tell_client(state: &HookState<'_>, skb: &mut SkBuff, error: IcmpError) {
    if let Some(dev) = state.in_dev() {
        send_icmp_error(skb, dev, error, state.rcu());
    }
}

#[kunit_tests(nlb_tunnel_encap)]
mod tests {
    use super::*;
    use crate::decap::{
        parse_reason,
        tests::on_skb, //
    };
    use nlb::wire::vectors;

    fn apply(
        packet: &mut [u8],
        forwarder: Addr,
        host: Addr,
        id: FlowId,
    ) -> Result<(), error::DropReason> {
        on_skb(packet, |skb| {
            let parsed = parse_reason(skb)?;
            encapsulate(skb, &parsed, forwarder, host, id)
        })
    }

    #[test]
    fn exact_bytes() {
        assert_eq!(vectors::check_encapsulate(apply), Ok(vectors::COUNT));
    }

    #[test]
    fn refused_packets_do_not_change() {
        assert_eq!(vectors::check_refused(apply), Ok(vectors::REFUSED_COUNT));
    }

    #[test]
    fn a_clone_keeps_its_bytes() -> Result {
        let vector = vectors::VECTORS.first().ok_or(EINVAL)?;
        let mut skb = SkBuff::alloc(64, vector.inner.len() as u16, GFP_KERNEL)?;
        skb.put(vector.inner)?;
        let clone = skb.try_clone(GFP_KERNEL)?;
        let parsed = parse_reason(&mut skb).map_err(|_| EINVAL)?;
        let (forwarder, host) = vector.ends();
        let done = encapsulate(&mut skb, &parsed, forwarder, host, FlowId::nth(0));
        assert!(done.is_ok());
        assert_eq!(clone.data(), vector.inner);
        assert_eq!(skb.data(), vector.outer);
        clone.consume();
        skb.consume();
        Ok(())
    }
}
