// SPDX-License-Identifier: GPL-2.0

//! The ways to a host: how a packet of a client is sent there.

use crate::{
    endpoint::Endpoint,
    route::Route,
    service::Service,
    state::Forwarder,
    stats::Counter,
    uapi::RouteOrigin,
    way::{
        nat_port,
        Way, //
    }, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::Relaxed,
        rcu,
        Arc, //
    },
};
use nlb::{
    errno::EADDRINUSE,
    net::{
        ip::{
            self,
            IcmpError, //
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
    sync::{
        object::ObjectRef,
        rhashtable::InsertError, //
    },
    wire::{
        addr::{
            Addr,
            FourTuple, //
        },
        parse::Parsed,
        tcp::Flags, //
    },
};
use nlb_tunnel::{
    Mapping,
    Target, //
};

/// A packet that is not sent, and why.
pub(crate) type Refused = (SkBuff, Counter, DropReason);

/// A packet that no way leads on for.
#[inline]
pub(crate) fn no_route(skb: SkBuff) -> Refused {
    (skb, Counter::DropNoRoute, DropReason::IP_OUTNOROUTES)
}

/// Why there is no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoute {
    /// No flow id for it, for this reason.
    FlowId(Error),
    /// It cannot be put into the table.
    Table(InsertError),
    /// Its replies would be those of another connection.
    Reply,
}

impl From<InsertError> for NoRoute {
    fn from(error: InsertError) -> Self {
        Self::Table(error)
    }
}

impl From<NoRoute> for Error {
    fn from(error: NoRoute) -> Self {
        match error {
            NoRoute::FlowId(error) => error,
            NoRoute::Table(error) => error.into(),
            NoRoute::Reply => EADDRINUSE.into(),
        }
    }
}

/// Ports for nat looked at before a connection is refused.
const TRIES: u32 = 64;

impl Forwarder {
    /// Makes the route of a connection to a host, the way that the endpoint says; the flow-id
    /// tunnel if the host is none. Errors as [`Forwarder::add_route`].
    pub(crate) fn open_route(
        &self,
        (net, guard): (&Net, &rcu::Guard),
        tuple: &FourTuple,
        service: &Arc<Service>,
        endpoint: Option<&Arc<Endpoint>>,
        target: &Arc<Target>,
        (origin, flags): (RouteOrigin, Flags),
    ) -> Result<ObjectRef<Route>, NoRoute> {
        let add = |way| {
            let mapping = || Mapping::plain(tuple, target);
            let route = Route::new((way, mapping), service, endpoint, origin, flags)
                .map_err(|_| InsertError::NoMemory)?;
            self.add_route(net, guard, &route).map(|()| route)
        };
        match endpoint.map(|endpoint| (endpoint.way(), endpoint)) {
            None | Some((Way::Tunnel, _)) => {
                nlb_tunnel::check_family(tuple, target).map_err(NoRoute::FlowId)?;
                add(Way::Tunnel)
            }
            Some((way @ (Way::Direct | Way::Inside(_) | Way::HalfNat), _)) => add(way),
            Some((Way::Nat(_), endpoint)) => {
                for _ in 0..TRIES {
                    let port = nat_port(self.next_port.fetch_add(1u32, Relaxed));
                    let answers = endpoint.answers(tuple, (target.source(), port));
                    if answers.is_some_and(|tuple| self.replies.get(guard, &tuple).is_some()) {
                        continue;
                    }
                    match add(Way::Nat(port)) {
                        // Another CPU has just taken it.
                        Err(NoRoute::Reply) => {}
                        other => return other,
                    }
                }
                Err(NoRoute::Reply)
            }
        }
    }

    /// Sends a packet of a client the way of its route.
    #[inline]
    pub(crate) fn send(&self, state: &HookState<'_>, route: &Route, skb: SkBuff, parsed: &Parsed) {
        let sent = match (route.way(), route.endpoint()) {
            (Way::Tunnel, _) => return nlb_tunnel::send(state, route.mapping(), skb, parsed),
            (way, Some(endpoint)) => transmit(state, endpoint, way, skb, parsed),
            (_, None) => Err(no_route(skb)),
        };
        match sent {
            Ok(sent) => self.count_sent(route, parsed, sent),
            Err(refused) => self.refuse(refused),
        }
    }

    /// Sends a packet of a client to an endpoint that does without routes.
    pub(crate) fn send_stateless(
        &self,
        state: &HookState<'_>,
        endpoint: &Endpoint,
        skb: SkBuff,
        parsed: &Parsed,
    ) {
        let Some(way) = endpoint.stateless_way() else {
            return self.refuse(no_route(skb));
        };
        match transmit(state, endpoint, way, skb, parsed) {
            Ok(Ok(())) => {}
            Ok(Err(_)) => self.stats.inc(Counter::DropOutput),
            Err(refused) => self.refuse(refused),
        }
    }

    /// Drops a packet that is not sent.
    fn refuse(&self, (skb, counter, reason): Refused) {
        self.stats.inc(counter);
        skb.drop_reason(reason);
    }

    /// Counts a packet that the network layer was given, and what it said.
    #[inline]
    fn count_sent(&self, route: &Route, parsed: &Parsed, sent: Result) {
        route.mapping().usage().count(parsed.total_len);
        if sent.is_err() {
            self.stats.inc(Counter::DropOutput);
        }
    }

    /// As [`Forwarder::send`], of a packet at the ingress of a device, past the network layer. Gives
    /// it back if that cannot be done.
    #[inline]
    pub(crate) fn send_at_once(
        &self,
        state: &HookState<'_>,
        route: &Route,
        packet: Arrival,
        parsed: &Parsed,
    ) -> Result<(), Arrival> {
        match route.way() {
            Way::Tunnel => {
                return nlb_tunnel::send_at_once(state, route.mapping(), packet, parsed);
            }
            Way::Inside(_) => return Err(packet),
            Way::Direct | Way::HalfNat | Way::Nat(_) => {}
        }
        let next = route.endpoint().and_then(|endpoint| {
            let next = endpoint.target().next_hop(state, &packet)?;
            Some((next, changed(route.way(), endpoint, parsed)))
        });
        let Some((next, to)) = next else {
            return Err(packet);
        };
        if !next.carries(&packet, parsed) {
            return Err(packet);
        }
        match packet.claim(parsed, |skb| skb.rewrite_parsed(parsed, &to)) {
            Ok(skb) => self.count_sent(route, parsed, next.output(skb)),
            Err(_) => self.stats.inc(Counter::DropNoMemory),
        }
        Ok(())
    }
}

/// What is in the headers of a packet of a client on its way to the host. (In the tunnel it is
/// otherwise.)
#[inline]
fn changed(way: Way, endpoint: &Endpoint, parsed: &Parsed) -> Rewrite {
    let port = || endpoint.host_port().unwrap_or(parsed.tuple.vip_port());
    let host = || (endpoint.host(), port());
    match way {
        Way::Tunnel | Way::Direct | Way::Inside(_) => rewritten(parsed, None, None),
        Way::HalfNat => rewritten(parsed, None, Some(host())),
        Way::Nat(port) => {
            let from = (endpoint.target().source(), port);
            rewritten(parsed, Some(from), Some(host()))
        }
    }
}

/// Sends a packet to an endpoint, not in the tunnel. What the network layer said to the packet, if it
/// came so far.
#[inline]
fn transmit(
    state: &HookState<'_>,
    endpoint: &Endpoint,
    way: Way,
    mut skb: SkBuff,
    parsed: &Parsed,
) -> Result<Result, Refused> {
    let net = state.net();
    let Ok(next) = endpoint.target().route(net) else {
        return Err(no_route(skb));
    };
    let mtu = next
        .mtu()
        .saturating_sub(way.overhead(parsed.tuple.is_v4()));
    let to = changed(way, endpoint, parsed);
    if let Err((counter, reason)) = ready(state, &mut skb, parsed, mtu, &to) {
        return Err((skb, counter, reason));
    }
    let Some(carrier) = way.carrier() else {
        return Ok(next.output(net, skb));
    };
    // Without padding of the link layer.
    match skb.trim(parsed.total_len as u32) {
        Ok(()) => Ok(next.send_inside(net, skb, parsed.l4_offset as u16, carrier)),
        Err(_) => Err((skb, Counter::DropNoMemory, DropReason::NOMEM)),
    }
}

/// Makes a packet ready for a way with this MTU; if it cannot go there, what to count.
#[inline]
pub(crate) fn ready(
    state: &HookState<'_>,
    skb: &mut SkBuff,
    parsed: &Parsed,
    mtu: u32,
    to: &Rewrite,
) -> Result<(), (Counter, DropReason)> {
    may_pass(state, skb, parsed, mtu)?;
    // Not the usual case; whoever has fragmented it before lets this machine do so. With IPv6, no
    // router behind this one could.
    let fragments = !parsed.dont_fragment
        && !skb.fits_mtu(ip::longest_fragment(skb).map_or(mtu, |len| mtu.min(len.into())));
    skb.rewrite(to)
        .and_then(|()| match fragments {
            true => ip::permit_fragments(state.net(), skb),
            false => Ok(()),
        })
        .map_err(|_| (Counter::DropNoMemory, DropReason::NOMEM))
}

/// Whether a router may pass a packet on by a way with this MTU; if not, the sender is told (RFC 1812
/// section 4.3.3), and what to count is returned. What may be fragmented on the way out is.
#[inline]
fn may_pass(
    state: &HookState<'_>,
    skb: &mut SkBuff,
    parsed: &Parsed,
    mtu: u32,
) -> Result<(), (Counter, DropReason)> {
    if parsed.ttl <= 1 {
        nlb_tunnel::tell_client(state, skb, IcmpError::TtlExceeded);
        return Err((Counter::DropTtl, DropReason::IP_INHDR));
    }
    if parsed.dont_fragment && !skb.fits_mtu(mtu) {
        nlb_tunnel::tell_client(state, skb, IcmpError::TooBig { mtu });
        return Err((Counter::DropTooBig, DropReason::PKT_TOO_BIG));
    }
    Ok(())
}

/// An address and a port.
type End = (Addr, u16);

/// What is in the headers of a packet behind this machine, which is a router on its way, and puts
/// itself or another one in the place of its ends.
#[inline]
pub(crate) fn rewritten(parsed: &Parsed, from: Option<End>, to: Option<End>) -> Rewrite {
    let tuple = &parsed.tuple;
    let (source, source_port) = from.unwrap_or((tuple.client(), tuple.client_port()));
    let (destination, destination_port) = to.unwrap_or((tuple.vip(), tuple.vip_port()));
    Rewrite {
        source,
        destination,
        source_port,
        destination_port,
        ttl: parsed.ttl.wrapping_sub(1),
    }
}

#[kunit_tests(nlb_fwd_forward)]
mod tests {
    use super::*;
    use nlb::wire::{
        error,
        vectors::forward::{
            self as vectors,
            Change, //
        }, //
    };

    #[test]
    fn exact_bytes() {
        let lost = |_: Error| error::DropReason::NoSpace;
        let done = vectors::check_changes(|change, packet, ends| {
            let mut skb = SkBuff::alloc(0, packet.len() as u16, GFP_KERNEL).map_err(lost)?;
            skb.put(packet).map_err(lost)?;
            let parsed = nlb_tunnel::parse(&mut skb).ok_or(error::DropReason::Protocol)?;
            let host = Some((ends.host, vectors::HOST_PORT));
            let vip = Some((ends.tuple.vip(), ends.tuple.vip_port()));
            let client = Some((ends.tuple.client(), ends.tuple.client_port()));
            let (from, to) = match change {
                Change::Direct => (None, None),
                Change::HalfNat => (None, host),
                Change::Nat => (Some((ends.forwarder, vectors::NAT_PORT)), host),
                Change::HalfNatReply | Change::NatReply => (vip, client),
            };
            let to = rewritten(&parsed, from, to);
            skb.rewrite_parsed(&parsed, &to).map_err(lost)?;
            packet.copy_from_slice(skb.data());
            skb.consume();
            Ok(())
        });
        assert_eq!(done, Ok(3 * vectors::COUNT + 2 * vectors::REPLY_COUNT));
    }

    #[test]
    fn ports_for_nat_are_no_other_ports() {
        let ports = || (0..100_000u32).map(nat_port);
        assert_eq!(ports().min(), Some(1024));
        assert_eq!(ports().max(), Some(32767));
        assert_eq!(nat_port(31743), 32767);
        assert_eq!(nat_port(31744), 1024);
    }
}
