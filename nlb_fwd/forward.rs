// SPDX-License-Identifier: GPL-2.0

//! The ways to a host: how a packet of a client is sent there.

use crate::{
    endpoint::Endpoint,
    route::Route,
    service::Service,
    state::Forwarder,
    stats::Counter,
    uapi::{
        Forward,
        RouteOrigin, //
    },
    way::{
        Flow,
        Way, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use nlb::{
    net::{
        ip::{
            self,
            IcmpError, //
        },
        netfilter::HookState,
        skbuff::{
            DropReason,
            Rewrite,
            SkBuff, //
        },
        Net, //
    },
    sync::rhashtable::InsertError,
    wire::{
        addr::FourTuple,
        ipip,
        parse::Parsed,
        tcp::Flags, //
    },
};
use nlb_tunnel::Target;

/// A packet that is not sent, and why.
type Refused = (SkBuff, Counter, DropReason);

/// Why there is no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoute {
    /// No flow id for it, for this reason.
    FlowId(Error),
    /// It cannot be put into the table.
    Table(InsertError),
}

impl From<InsertError> for NoRoute {
    fn from(error: InsertError) -> Self {
        Self::Table(error)
    }
}

impl Forwarder {
    /// Makes the route of a connection to a host, the way that the endpoint says; the flow-id
    /// tunnel if the host is none. As [`Forwarder::add_route`].
    pub(crate) fn open_route(
        &self,
        net: &Net,
        tuple: &FourTuple,
        service: &Arc<Service>,
        endpoint: Option<&Arc<Endpoint>>,
        target: &Arc<Target>,
        (origin, flags): (RouteOrigin, Flags),
    ) -> Result<(), NoRoute> {
        let add = |way| self.add_route(net, way, service, endpoint, origin, flags);
        let flow = || Flow::new(tuple).map_err(|_| InsertError::NoMemory);
        match endpoint.map_or(Forward::Tunnel, |endpoint| endpoint.forward()) {
            Forward::Tunnel => {
                let mapping = nlb_tunnel::allocate(net, tuple, target, false)
                    .map_err(NoRoute::FlowId)?;
                let added = add(Way::Tunnel(mapping.clone()));
                if added.is_err() {
                    nlb_tunnel::release(net, &mapping);
                }
                added?;
            }
            Forward::Direct => add(Way::Direct(flow()?))?,
            Forward::Ipip => add(Way::Ipip(flow()?))?,
        }
        Ok(())
    }

    /// Sends a packet of a client the way of its route.
    #[inline]
    pub(crate) fn send(
        &self,
        state: &HookState<'_>,
        route: &Route,
        skb: SkBuff,
        parsed: &Parsed,
    ) {
        let net = state.net();
        let sent = match route.way() {
            Way::Tunnel(mapping) => return nlb_tunnel::send(state, mapping, skb, parsed),
            Way::Direct(_) => transmit(state, route, skb, parsed, 0, |next, skb| {
                next.output(net, skb)
            }),
            Way::Ipip(_) => {
                // CAST: Small.
                let overhead = ipip::overhead(parsed.tuple.is_v4()) as u32;
                transmit(state, route, skb, parsed, overhead, |next, mut skb| {
                    // Without padding of the link layer.
                    skb.trim(parsed.total_len as u32)?;
                    next.send_ipip(net, skb, parsed.l4_offset as u16)
                })
            }
        };
        match sent {
            Ok(sent) => {
                route.way().usage().count(parsed.total_len);
                if sent.is_err() {
                    self.stats.inc(Counter::DropOutput);
                }
            }
            Err((skb, counter, reason)) => {
                self.stats.inc(counter);
                skb.drop_reason(reason);
            }
        }
    }
}

/// Has `output` send a packet, as its way changes it, to the host of its route, which gets
/// `overhead` bytes more. What the network layer said to the packet, if it came so far.
#[inline]
fn transmit(
    state: &HookState<'_>,
    route: &Route,
    mut skb: SkBuff,
    parsed: &Parsed,
    overhead: u32,
    output: impl FnOnce(ip::Route, SkBuff) -> Result,
) -> Result<Result, Refused> {
    let Some(next) = route
        .endpoint()
        .and_then(|endpoint| endpoint.target().route(state.net()).ok())
    else {
        return Err((skb, Counter::DropNoRoute, DropReason::IP_OUTNOROUTES));
    };
    let mtu = next.mtu().saturating_sub(overhead);
    if let Err((counter, reason)) = may_pass(state, &mut skb, parsed, mtu) {
        return Err((skb, counter, reason));
    }
    if skb.rewrite(&rewritten(parsed)).is_err() {
        return Err((skb, Counter::DropNoMemory, DropReason::NOMEM));
    }
    Ok(output(next, skb))
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

/// What is in the headers of a client's packet behind this machine, which is a router on its way.
#[inline]
fn rewritten(parsed: &Parsed) -> Rewrite {
    let tuple = &parsed.tuple;
    Rewrite {
        source: tuple.client(),
        destination: tuple.vip(),
        source_port: tuple.client_port(),
        destination_port: tuple.vip_port(),
        ttl: parsed.ttl.wrapping_sub(1),
    }
}
