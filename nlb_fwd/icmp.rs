// SPDX-License-Identifier: GPL-2.0

//! ICMP errors about the packets of connections: to hosts those about what they have sent, to clients
//! those about what has become of their packets on the way from here to the host.
//!
//! Where a host answers straight to the client, it does so from the VIP, whose packets come to this
//! machine: so it gets what a router between host and client has to say, "packet too big" above all.
//! Where addresses are translated, routers on either side know one side's addresses only. No error
//! is made here about an error: one that cannot go on is dropped and counted.

use crate::{
    forward::{
        no_route,
        Refused, //
    },
    hook::is_from_client,
    route::Route,
    state::Forwarder,
    stats::Counter,
    way::Way, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use nlb::{
    net::{
        ip,
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
            FourTuple,
            Proto, //
        },
        report::{
            self,
            Report,
            MAX_LEN, //
        }, //
    },
};
use nlb_tunnel::Target;

/// New ends of an ICMP error and of the packet that it quotes, whose sender is the client.
type Ends = ((Addr, Addr), FourTuple);

impl Forwarder {
    /// Sends an ICMP error about a packet of a connection to who has sent that packet. Everything else
    /// comes back, for the local stack.
    pub(crate) fn icmp_error(
        &self,
        state: &HookState<'_>,
        mut skb: SkBuff,
    ) -> Result<Verdict, SkBuff> {
        if !is_from_client(state, &skb) {
            return Err(skb);
        }
        let Some(report) = nlb_tunnel::parse_icmp_error(&mut skb) else {
            return self.error_about_outer(state, skb);
        };
        let Some(tuple) = report.replied() else {
            return Err(skb);
        };
        let carries = report.quoted.tuple.proto() == Proto::Udp;
        if let Some(route) = self.route_of(&tuple, state.rcu()) {
            // No router forwards packets of such a sender.
            if !report.source.is_unicast() {
                return Err(skb);
            }
            self.stats.inc(Counter::IcmpErrors);
            if route.way() == Way::Tunnel {
                nlb_tunnel::carry(state, route.mapping(), skb, &report);
                return Ok(Verdict::Stolen);
            }
            let ends = (route.target(), route.reply_tuple());
            return Ok(self.passed_on(to_host(state.net(), route.way(), ends, skb, &report)));
        }
        if let Some(route) = self.route_answered(&tuple, state.rcu()) {
            self.stats.inc(Counter::IcmpTold);
            return Ok(self.passed_on(to_client(state.net(), route, skb, &report)));
        }
        match self.stateless_way(state, &tuple) {
            Some((endpoint, way)) if report.source.is_unicast() => {
                self.stats.inc(Counter::IcmpErrors);
                let ends = (endpoint.target(), None);
                Ok(self.passed_on(to_host(state.net(), way, ends, skb, &report)))
            }
            None if carries => self.error_about_outer(state, skb),
            _ => Err(skb),
        }
    }

    /// Takes an ICMP error about a packet that this machine has sent inside another one: the client
    /// hears of it. Everything else comes back, be it that too little is quoted to know the connection.
    fn error_about_outer(&self, state: &HookState<'_>, mut skb: SkBuff) -> Result<Verdict, SkBuff> {
        let Ok((report, outer)) = Report::parse_carrier(skb.data(), skb.len() as usize) else {
            return Err(skb);
        };
        let tuple = &report.quoted.tuple;
        let ends = (report.destination, outer.source, outer.destination);
        let sent_by = match self.route_of(tuple, state.rcu()) {
            Some(route) => Some((route.target(), route.way())),
            None => self
                .one_packet_way(state, tuple, outer.destination, outer.carrier)
                .or_else(|| self.stateless_way(state, tuple))
                .map(|(endpoint, way)| (endpoint.target(), way)),
        };
        let target = sent_by
            .filter(|(_, way)| way.may_be(outer.carrier))
            // No packet from here has more headers.
            .filter(|(_, way)| way.overhead(tuple.is_v4()) as usize == outer.offset)
            .map(|(target, _)| target)
            .filter(|target| (target.source(), target.source(), target.host()) == ends);
        let Some(target) = target else {
            return Err(skb);
        };
        if !nlb_tunnel::is_valid_icmp_error(&mut skb, &report) {
            return Err(skb);
        }
        // CAST: A small number.
        if nlb_tunnel::tell_of_inner(state, &mut skb, &report, target, outer.offset as u16) {
            self.stats.inc(Counter::IcmpTold);
        }
        skb.consume();
        Ok(Verdict::Stolen)
    }

    /// Counts what became of an ICMP error.
    fn passed_on(&self, sent: Result<Result, Refused>) -> Verdict {
        match sent {
            Ok(sent) => {
                if sent.is_err() {
                    self.stats.inc(Counter::DropOutput);
                }
                Verdict::Stolen
            }
            Err((skb, counter, reason)) => {
                self.stats.inc(counter);
                Verdict::Drop(skb, reason)
            }
        }
    }
}

/// Sends an ICMP error about a reply, which came to the VIP, to the host that has sent the reply, whose
/// packets have other ends there if there are any. What the network layer said to it.
///
/// With nat it comes from this machine, as everything else that the host gets.
fn to_host(
    net: &Net,
    way: Way,
    (target, reply): (&Arc<Target>, Option<FourTuple>),
    mut skb: SkBuff,
    report: &Report,
) -> Result<Result, Refused> {
    let Ok(next) = target.route(net) else {
        return Err(no_route(skb));
    };
    let source = match way {
        Way::Nat(_) => target.source(),
        _ => report.source,
    };
    let ends = reply.map(|reply| ((source, target.host()), reply));
    let mtu = next.mtu().saturating_sub(way.overhead(source.is_v4()));
    if let Err((counter, reason)) = ready(&mut skb, report, mtu, ends) {
        return Err((skb, counter, reason));
    }
    Ok(match way.carrier() {
        // CAST: Headers are short.
        Some(carrier) => next.send_inside(net, skb, report.icmp_offset as u16, carrier),
        None => next.output(net, skb),
    })
}

/// Sends an ICMP error about a translated packet of a client, which came from the side of its host, to
/// the client. It comes from the VIP, for the client may not know who is behind it.
fn to_client(
    net: &Net,
    route: &Route,
    mut skb: SkBuff,
    report: &Report,
) -> Result<Result, Refused> {
    let tuple = route.tuple();
    let Ok(next) = ip::Route::lookup_reply(net, tuple) else {
        return Err(no_route(skb));
    };
    let ends = ((tuple.vip(), tuple.client()), *tuple);
    match ready(&mut skb, report, next.mtu(), Some(ends)) {
        Ok(()) => Ok(next.output(net, skb)),
        Err((counter, reason)) => Err((skb, counter, reason)),
    }
}

/// Makes an ICMP error ready for a way with this MTU, as a router does, with other ends if there are
/// any. If it cannot go on, what to count.
fn ready(
    skb: &mut SkBuff,
    report: &Report,
    mtu: u32,
    ends: Option<Ends>,
) -> Result<(), (Counter, DropReason)> {
    // CAST: The length of an IP packet.
    let len = report.total_len as u32;
    if report.ttl <= 1 {
        return Err((Counter::DropTtl, DropReason::IP_INHDR));
    }
    if len > mtu {
        return Err((Counter::DropTooBig, DropReason::PKT_TOO_BIG));
    }
    // Without padding of the link layer.
    skb.trim(len)
        .and_then(|()| skb.checksum_help())
        .and_then(|()| readdress(skb, report, ends))
        .map_err(|_| (Counter::DropNoMemory, DropReason::NOMEM))
}

/// Takes one off the TTL, and gives an ICMP error other ends.
fn readdress(skb: &mut SkBuff, report: &Report, ends: Option<Ends>) -> Result {
    // CAST: No more than that.
    let len = skb.len().min(MAX_LEN as u32) as u16;
    let packet = skb.data_mut(len)?;
    match ends {
        Some((ends, quoted)) => report::translate(packet, report, ends, &quoted),
        None => report::decrement_ttl(packet),
    }
    .map_err(|_| EINVAL)?;
    skb.forget_checksum();
    skb.clear_hash();
    Ok(())
}

#[kunit_tests(nlb_fwd_icmp)]
mod tests {
    use super::*;
    use nlb::wire::{
        error,
        vectors::errors, //
    };

    #[test]
    fn exact_bytes() {
        let lost = |_: Error| error::DropReason::NoSpace;
        let passed = errors::check_passed_on(|packet, report, ends| {
            let len = u16::try_from(packet.len()).map_err(|_| error::DropReason::BadLength)?;
            // With padding of the link layer, which is not sent on.
            let mut skb = SkBuff::alloc(0, len + 2, GFP_KERNEL).map_err(lost)?;
            skb.put(packet)
                .and_then(|()| skb.put(&[0xff; 2]))
                .map_err(lost)?;
            let clone = skb.try_clone(GFP_KERNEL).map_err(lost)?;
            ready(&mut skb, report, 1500, ends).map_err(|_| error::DropReason::NoSpace)?;
            let is_private = clone.data().get(..packet.len()) == Some(&*packet);
            clone.consume();
            if !is_private || skb.data().len() != packet.len() {
                return Err(error::DropReason::BadLength);
            }
            packet.copy_from_slice(skb.data());
            skb.consume();
            Ok(())
        });
        assert!(passed.is_ok_and(|passed| passed >= 300));
    }

    #[test]
    fn what_cannot_go_on_does_not_change() {
        let checked = errors::check_passed_on(|packet, report, ends| {
            let mut skb = SkBuff::alloc(0, errors::MAX_LEN as u16, GFP_KERNEL)
                .map_err(|_| error::DropReason::NoSpace)?;
            let is_put = skb.put(packet).is_ok();
            let late = Report { ttl: 1, ..*report };
            let refused = [
                ready(&mut skb, &late, 1500, ends).err(),
                ready(&mut skb, report, report.total_len as u32 - 1, ends).err(),
            ];
            let wanted = [
                Some((Counter::DropTtl, DropReason::IP_INHDR)),
                Some((Counter::DropTooBig, DropReason::PKT_TOO_BIG)),
            ];
            let is_same = skb.data() == packet;
            skb.consume();
            match is_put && is_same && refused.iter().zip(&wanted).all(|(got, want)| is(got, want))
            {
                // As in the other test.
                true => match ends {
                    Some((ends, quoted)) => report::translate(packet, report, ends, &quoted),
                    None => report::decrement_ttl(packet),
                },
                false => Err(error::DropReason::BadValue),
            }
        });
        assert!(checked.is_ok());
    }

    /// Whether both count the same.
    fn is(got: &Option<(Counter, DropReason)>, want: &Option<(Counter, DropReason)>) -> bool {
        match (got, want) {
            (Some((got, _)), Some((want, _))) => *got as u32 == *want as u32,
            _ => false,
        }
    }
}
