// SPDX-License-Identifier: GPL-2.0

//! The host's side of the packet path: out of the tunnel.

use crate::{
    control,
    device,
    icmp,
    ipip,
    mapping::host::{
        vip_device,
        HostKey,
        HostMapping,
        Kind, //
    },
    state::{
        Tunnel,
        STATE, //
    },
    stats::Counter, //
};
use kernel::prelude::*;
use nlb::{
    net::{
        ip,
        netfilter::{
            Family,
            Hook,
            HookNum,
            HookState,
            Verdict, //
        },
        skbuff::{
            DropReason,
            Rewrite,
            SkBuff, //
        },
        tcp, //
    },
    wire::{
        addr::{
            FourTuple,
            Proto, //
        },
        control::PORT,
        error,
        flow_id::FlowId,
        parse::{
            self,
            Parsed,
            MAX_EXTENDED_LEN,
            MAX_HEADER_LEN, //
        },
    },
};

/// Reads the headers of a packet whose data starts at the IP header. `None` for everything that
/// is not a whole TCP or UDP packet.
#[inline]
pub(crate) fn parse(skb: &mut SkBuff) -> Option<Parsed> {
    parse_reason(skb).ok()
}

/// As [`parse`], and says what is wrong.
#[inline]
pub(crate) fn parse_reason(skb: &mut SkBuff) -> Result<Parsed, error::DropReason> {
    match parse_linear(skb, MAX_HEADER_LEN as u32) {
        Err(error::DropReason::Truncated) if skb.len() > MAX_HEADER_LEN as u32 => {
            // Behind extension headers, perhaps.
            parse_linear(skb, MAX_EXTENDED_LEN as u32)
        }
        read => read,
    }
}

/// Reads the headers as far as they are within the first `max` bytes.
#[inline]
fn parse_linear(skb: &mut SkBuff, max: u32) -> Result<Parsed, error::DropReason> {
    let len = skb.len();
    skb.may_pull(len.min(max))
        .map_err(|_| error::DropReason::NoSpace)?;
    parse::parse(skb.data(), skb.frame())
}

/// Puts the 4-tuple back into a packet of the compact form, whose data starts at its IP header.
///
/// On an error nothing has changed: memory is short.
#[inline]
pub(crate) fn decapsulate(
    skb: &mut SkBuff,
    parsed: &Parsed,
    tuple: &FourTuple,
) -> Result<(), error::DropReason> {
    if tuple.is_v4() != parsed.tuple.is_v4() {
        return Err(error::DropReason::Family);
    }
    skb.rewrite(&Rewrite {
        source: tuple.client(),
        destination: tuple.vip(),
        source_port: tuple.client_port(),
        destination_port: tuple.vip_port(),
        ttl: parsed.ttl,
    })
    .map_err(|_| error::DropReason::NoSpace)
}

/// Looks for packets of the tunnel before anything else sees them: their addresses and ports mean
/// nothing to defragmentation, conntrack and routing.
pub(crate) struct PreRouting;

impl Hook for PreRouting {
    const FAMILY: Family = Family::Ipv4;
    const HOOKNUM: HookNum = HookNum::PreRouting;
    const PRIORITY: i32 = -500;

    fn run(state: &HookState<'_>, mut skb: SkBuff) -> Verdict {
        match parse_reason(&mut skb) {
            Ok(parsed) => receive(state, skb, &parsed),
            Err(error::DropReason::Protocol) => receive_other(state, skb),
            Err(error::DropReason::Fragment) => receive_fragment(state, skb),
            Err(_) => Verdict::Accept(skb),
        }
    }
}

/// Whether `receive` may take a packet with these headers.
#[inline]
pub(crate) fn may_be_ours(state: &HookState<'_>, parsed: &Parsed) -> bool {
    if is_control(parsed) {
        return true;
    }
    parsed.flow_id().is_some()
        && STATE
            .get(state.net(), state.rcu())
            .is_none_or(|tunnel| !tunnel.forwarders.is_empty() || !tunnel.hosts.is_empty())
}

/// Whether a packet is one of the tunnel's control protocol.
#[inline]
fn is_control(parsed: &Parsed) -> bool {
    let ports = (parsed.tuple.client_port(), parsed.tuple.vip_port());
    ports == (PORT, PORT) && parsed.tuple.proto() == Proto::Udp
}

/// Takes a packet of the tunnel.
#[inline]
fn receive(state: &HookState<'_>, skb: SkBuff, parsed: &Parsed) -> Verdict {
    let flow_id = parsed.flow_id();
    if (flow_id.is_none() && !is_control(parsed)) || !skb.is_for_host() {
        return Verdict::Accept(skb);
    }
    let Some(tunnel) = STATE.get(state.net(), state.rcu()) else {
        return Verdict::Accept(skb);
    };
    // What comes out of an nlb device has been through here.
    if state.in_dev().is_none_or(device::is_nlb) {
        return Verdict::Accept(skb);
    }
    match flow_id {
        Some(flow_id) => tunnel.receive(state, skb, parsed, flow_id),
        None => control::receive(tunnel, state, skb, parsed),
    }
}

/// Takes a fragment that a forwarder sends to this machine: fragments have no ports, so the rest of
/// the packet is waited for. All others are left to the local stack.
#[cold]
fn receive_fragment(state: &HookState<'_>, skb: SkBuff) -> Verdict {
    let Some((from, here)) = parse::addresses(skb.data()) else {
        return Verdict::Accept(skb);
    };
    let net = state.net();
    let Some(tunnel) = STATE.get(net, state.rcu()) else {
        return Verdict::Accept(skb);
    };
    let is_ours = skb.is_for_host()
        && state.in_dev().is_some_and(|dev| !device::is_nlb(dev))
        && tunnel.forwarder(from).is_some()
        && ip::is_local_address(net, &here);
    if !is_ours {
        return Verdict::Accept(skb);
    }
    match ip::defragment(net, skb) {
        ip::Defragment::Kept => Verdict::Stolen,
        ip::Defragment::Refused(skb) => {
            tunnel.drop(skb, Counter::DropFragment, DropReason::PKT_TOO_SMALL)
        }
        ip::Defragment::Whole(mut skb) => match parse(&mut skb) {
            Some(parsed) => {
                tunnel.stats.inc(Counter::Defragmented);
                receive(state, skb, &parsed)
            }
            None => receive_other(state, skb),
        },
    }
}

/// Takes what is neither TCP nor UDP, if it is the tunnel's.
#[cold]
fn receive_other(state: &HookState<'_>, skb: SkBuff) -> Verdict {
    ipip::receive(state, skb).unwrap_or_else(|skb| icmp::receive(state, skb))
}

impl Tunnel {
    /// Takes a packet in the compact form, if it is one.
    #[inline]
    fn receive(
        &self,
        state: &HookState<'_>,
        skb: SkBuff,
        parsed: &Parsed,
        flow_id: FlowId,
    ) -> Verdict {
        let forwarder = parsed.tuple.client();
        let key = HostKey { forwarder, flow_id };
        let Some(mapping) = self.hosts.get(state.rcu(), &key) else {
            return self.receive_unknown(state, skb, parsed, flow_id);
        };
        if !mapping.is_for(state.net(), parsed) {
            return Verdict::Accept(skb);
        }
        if mapping.tuple().proto() != parsed.tuple.proto() {
            return self.drop(skb, Counter::DropProtocol, DropReason::UNHANDLED_PROTO);
        }
        if parsed.flags.is_initial_syn() && self.has_ended(state, mapping) {
            return self.drop(skb, Counter::DropEnded, DropReason::NO_SOCKET);
        }
        mapping.seen(parsed.flags, parsed.total_len);
        self.deliver(state, skb, mapping, parsed)
    }

    /// Whether the connection that the mapping came with is not here (any more).
    ///
    /// A SYN is then for a connection that has to be chosen a host for, and not for who listens
    /// here. The forwarder is about to hear of the end; by the time the client sends the SYN again, it
    /// has.
    #[cold]
    fn has_ended(&self, state: &HookState<'_>, mapping: &HostMapping) -> bool {
        let tuple = mapping.tuple();
        mapping.kind() == Kind::Migrated
            && tuple.proto() == Proto::Tcp
            && !self.is_here(state, tuple)
            && self.relayed_to(tuple).is_none()
    }

    /// Whether there is a socket of a connection.
    pub(crate) fn is_here(&self, state: &HookState<'_>, tuple: &FourTuple) -> bool {
        vip_device(state.net(), &tuple.vip(), state.rcu())
            .is_some_and(|dev| tcp::tuple_in_use(state.net(), tuple, dev.ifindex()))
    }

    /// A packet with a flow id that no mapping is for.
    #[cold]
    fn receive_unknown(
        &self,
        state: &HookState<'_>,
        skb: SkBuff,
        parsed: &Parsed,
        flow_id: FlowId,
    ) -> Verdict {
        let (from, here) = (parsed.tuple.client(), parsed.tuple.vip());
        let Some(forwarder) = self.forwarder(from) else {
            return Verdict::Accept(skb);
        };
        if !ip::is_local_address(state.net(), &here) {
            return Verdict::Accept(skb);
        }
        if forwarder.may_send_unknown() && control::send_unknown(state.net(), here, from, flow_id) {
            self.stats.inc(Counter::UnknownSent);
        }
        self.drop(skb, Counter::DropUnknownFlow, DropReason::NO_SOCKET)
    }

    /// Puts the 4-tuple back into a packet of the compact form and receives it by the device that
    /// has the VIP.
    #[inline]
    fn deliver(
        &self,
        state: &HookState<'_>,
        mut skb: SkBuff,
        mapping: &HostMapping,
        parsed: &Parsed,
    ) -> Verdict {
        let tuple = mapping.tuple();
        if decapsulate(&mut skb, parsed, tuple).is_err() {
            return self.drop(skb, Counter::DropNoMemory, DropReason::NOMEM);
        }
        mapping.forwarder().count(parsed.total_len);
        self.stats.inc(Counter::DecapPackets);
        self.stats.add(Counter::DecapBytes, parsed.total_len as u64);
        self.receive_client(state, skb, tuple, mapping.born())
    }

    /// Receives a client's packet, whose data starts at its IP header, by the device that has the
    /// VIP; or sends it on, if its connection has moved on, and it came by a mapping that was made when there
    /// had been `born` relays.
    ///
    /// With IPv4, its route is looked up as of the device it really came by, so that the reverse
    /// path filter judges the real path. IPv6 has no such filter in its routing.
    #[inline]
    pub(crate) fn receive_client(
        &self,
        state: &HookState<'_>,
        mut skb: SkBuff,
        tuple: &FourTuple,
        born: u64,
    ) -> Verdict {
        if let Some(relay) = self.relays.of(state.rcu(), tuple, born) {
            return self.send_on(state, skb, relay);
        }
        let vip = tuple.vip();
        let Some(dev) = vip_device(state.net(), &vip, state.rcu()).filter(|dev| dev.is_up()) else {
            return self.drop(skb, Counter::DropNoVip, DropReason::IP_INADDRERRORS);
        };
        let Some(in_dev) = state.in_dev() else {
            return self.drop(skb, Counter::DropInput, DropReason::NOT_SPECIFIED);
        };
        if !tuple.is_v4() {
            // Of the way to this machine, where it was sent by itself.
            skb.drop_dst();
            dev.receive(skb);
            return Verdict::Stolen;
        }
        match ip::route_input(&mut skb, in_dev, state.rcu()) {
            Ok(()) => {
                dev.receive(skb);
                Verdict::Stolen
            }
            Err(reason) => self.drop(skb, Counter::DropInput, reason),
        }
    }

    /// Counts a packet that is lost.
    pub(crate) fn drop(&self, skb: SkBuff, counter: Counter, reason: DropReason) -> Verdict {
        self.stats.inc(counter);
        Verdict::Drop(skb, reason)
    }
}

#[kunit_tests(nlb_tunnel_decap)]
pub(crate) mod tests {
    use super::*;
    use nlb::wire::vectors;

    /// Lets `f` work on a packet of these bytes, which are what it made of them then.
    pub(crate) fn on_skb(
        packet: &mut [u8],
        f: impl FnOnce(&mut SkBuff) -> Result<(), error::DropReason>,
    ) -> Result<(), error::DropReason> {
        let lost = |_: Error| error::DropReason::NoSpace;
        let len = u16::try_from(packet.len()).map_err(|_| error::DropReason::BadLength)?;
        let mut skb = SkBuff::alloc(64, len, GFP_KERNEL).map_err(lost)?;
        skb.put(packet).map_err(lost)?;
        let result = f(&mut skb);
        if skb.data().len() != packet.len() {
            return Err(error::DropReason::BadLength);
        }
        packet.copy_from_slice(skb.data());
        skb.consume();
        result
    }

    #[test]
    fn exact_bytes() {
        let apply = |packet: &mut [u8], tuple: &FourTuple| {
            on_skb(packet, |skb| {
                let parsed = parse_reason(skb)?;
                decapsulate(skb, &parsed, tuple)
            })
        };
        assert_eq!(vectors::check_decapsulate(apply), Ok(vectors::COUNT));
    }

    #[test]
    fn flow_ids_are_in_the_vectors() {
        for vector in vectors::all() {
            let mut bytes = [0; vectors::MAX_LEN];
            let packet = bytes.get_mut(..vector.outer.len()).unwrap_or_default();
            packet.copy_from_slice(vector.outer);
            let mut found = None;
            let read = on_skb(packet, |skb| {
                found = parse_reason(skb)?.flow_id();
                Ok(())
            });
            assert_eq!(read, Ok(()));
            assert_eq!(found.map(|id| id.value()), Some(vector.flow_id));
        }
    }
}
