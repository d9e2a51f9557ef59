// SPDX-License-Identifier: GPL-2.0

//! ICMP errors about the tunnel, on the forwarder: those about its packets to hosts, of which the
//! clients hear what they need, and those about hosts' replies, which are carried to the hosts.

use crate::{
    control,
    device,
    mapping::{
        forwarder::Mapping,
        host::is_vip, //
    },
    state::{
        Tunnel,
        STATE, //
    },
    stats::Counter,
    target::Target, //
};
use kernel::{
    prelude::*,
    sync::rcu, //
};
use nlb::{
    net::{
        ip::{
            self,
            IcmpError, //
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
            FourTuple,
            Proto, //
        },
        control::PORT,
        error,
        flow_id::FlowId,
        icmp::Kind,
        ipv4,
        ipv6,
        report::{
            self,
            About,
            Report,
            MAX_LEN, //
        },
        udp, //
    },
};

/// Reads the ICMP error in a packet whose data starts at the IP header, and makes as much of it
/// linear as that takes. `None` for everything else.
pub(crate) fn parse(skb: &mut SkBuff) -> Option<Report> {
    parse_reason(skb).ok()
}

fn parse_reason(skb: &mut SkBuff) -> Result<Report, error::DropReason> {
    let len = skb.len();
    skb.may_pull(len.min(MAX_LEN as u32))
        .map_err(|_| error::DropReason::NoSpace)?;
    Report::parse(skb.data(), len as usize)
}

/// Takes an ICMP error about a packet that this machine has sent to a host through the tunnel.
///
/// All others are left to the local stack, which asks its sockets; but it would believe one about UDP
/// that looks like the tunnel's and is not, for no socket has these ports.
#[cold]
pub(crate) fn receive(state: &HookState<'_>, mut skb: SkBuff) -> Verdict {
    let Some(in_dev) = state.in_dev().filter(|dev| !device::is_nlb(dev)) else {
        return Verdict::Accept(skb);
    };
    if !skb.is_for_host() {
        return Verdict::Accept(skb);
    }
    let Some(report) = parse(&mut skb) else {
        return Verdict::Accept(skb);
    };
    let Some(about) = report.about(skb.data()) else {
        return Verdict::Accept(skb);
    };
    let Some(tunnel) = STATE.get(state.net(), state.rcu()) else {
        return Verdict::Accept(skb);
    };
    let net = state.net();
    // In transit to another machine, or about packets that somebody else has sent, or about those of
    // a VIP, which may have any port.
    let here = &report.destination;
    if *here != report.quoted.tuple.client()
        || !ip::is_local_address(net, here)
        || is_vip(net, here, state.rcu())
    {
        return Verdict::Accept(skb);
    }
    let mapping = tunnel.reported(&report, &about, state.rcu());
    let Some(mapping) = mapping.filter(|_| is_valid(&mut skb, &report)) else {
        tunnel.stats.inc(Counter::IcmpStrange);
        return match report.quoted.tuple.proto() {
            Proto::Tcp => Verdict::Accept(skb),
            Proto::Udp => Verdict::Drop(skb, DropReason::NO_SOCKET),
        };
    };
    tunnel.stats.inc(Counter::IcmpReceived);
    if let Ok(error) = examine(net, &mut skb, &report, &about, mapping) {
        ip::send_icmp_error_about(net, &mut skb, in_dev, error, state.rcu());
        tunnel.stats.inc(Counter::IcmpTold);
    }
    skb.consume();
    Verdict::Stolen
}

/// Draws the conclusions of a report for this machine. Returns what the client is to hear, and
/// leaves of the packet what the client is to hear it about: its own packet, as much of that as is
/// quoted. `EINVAL` if the client need not hear of it, or too little is quoted.
fn examine(
    net: &Net,
    skb: &mut SkBuff,
    report: &Report,
    about: &About,
    mapping: &Mapping,
) -> Result<IcmpError> {
    quote_only(skb, report)?;
    let error = judge(net, skb, report, mapping.target(), 0)?;
    let packet_len = match about {
        About::Compact(_) => report.quoted.total_len,
        About::Learn(_, Some(inner)) => inner.parsed.total_len,
        About::Learn(_, None) => return Err(EINVAL),
    };
    if is_no_news(error, packet_len) {
        return Err(EINVAL);
    }
    as_sent(skb, report, about, mapping.tuple()).map(|()| error)
}

/// Whether a packet that is too big is not: it was longer inside another one, or somebody claims what
/// cannot be.
fn is_no_news(error: IcmpError, packet_len: usize) -> bool {
    matches!(error, IcmpError::TooBig { mtu } if packet_len <= mtu as usize)
}

/// As [`examine`], of a report about a packet that this machine has sent to `target` with a client's
/// packet inside, behind a header of `overhead` bytes.
fn examine_inner(
    net: &Net,
    skb: &mut SkBuff,
    report: &Report,
    target: &Target,
    overhead: u16,
) -> Result<IcmpError> {
    quote_only(skb, report)?;
    let error = judge(net, skb, report, target, overhead)?;
    if is_no_news(error, report.quoted.total_len) {
        return Err(EINVAL);
    }
    skb.pull(overhead).map(|()| error)
}

/// See [`api::tell_of_inner`](crate::tell_of_inner).
pub(crate) fn tell_of_inner(
    state: &HookState<'_>,
    skb: &mut SkBuff,
    report: &Report,
    target: &Target,
    overhead: u16,
) -> bool {
    let net = state.net();
    let Some(in_dev) = state.in_dev() else {
        return false;
    };
    match examine_inner(net, skb, report, target, overhead) {
        Ok(error) => {
            ip::send_icmp_error_about(net, skb, in_dev, error, state.rcu());
            true
        }
        Err(_) => false,
    }
}

/// Whether the checksum of a report is right.
pub(crate) fn is_valid(skb: &mut SkBuff, report: &Report) -> bool {
    u16::try_from(report.icmp_offset).is_ok_and(|at| ip::icmp_checksum_is_valid(skb, at))
}

/// Makes an ICMP error about a reply a CARRY, as a router on its way: its TTL, which must not be used
/// up, goes down.
fn wrap(skb: &mut SkBuff, report: &Report, id: FlowId) -> Result {
    // CAST: At most `MAX_LEN`.
    let header = skb.data_mut(report.icmp_offset as u16)?;
    report::decrement_ttl(header).map_err(|_| EINVAL)?;
    control::push_carry(skb, id)
}

/// Leaves of an ICMP error nothing but the packet that it quotes.
fn quote_only(skb: &mut SkBuff, report: &Report) -> Result {
    let end = report.quote_offset.saturating_add(report.quote_len);
    skb.trim(u32::try_from(end).map_err(|_| EINVAL)?)?;
    skb.pull(u16::try_from(report.quote_offset).map_err(|_| EINVAL)?)?;
    skb.forget_checksum();
    Ok(())
}

/// Makes a packet of the tunnel, which was quoted, the client's packet as that has sent it. `EINVAL`
/// if too little is quoted.
fn as_sent(skb: &mut SkBuff, report: &Report, about: &About, tuple: &FourTuple) -> Result {
    match about {
        About::Compact(_) => {
            // CAST: No more than that.
            let len = skb.len().min(MAX_LEN as u32) as u16;
            report::restore(skb.data_mut(len)?, &report.quoted, tuple).map_err(|_| EINVAL)
        }
        About::Learn(_, inner) => {
            let inner = inner.as_ref().ok_or(EINVAL)?.offset;
            let front = inner.saturating_sub(report.quote_offset);
            skb.pull(u16::try_from(front).map_err(|_| EINVAL)?)
        }
    }
}

/// What a report means, whose quoted packet starts at the data: for this machine, which remembers
/// the MTU of the path, and for the client, whose packet was `overhead` bytes shorter.
///
/// The client hears what a router would tell it (RFC 1812 section 4.3.3), but nothing that its TCP
/// might take for the end of the connection (RFC 1122 section 4.2.3.9): whatever keeps packets from
/// the host, it hears that the host cannot be reached. `EINVAL` if it is to hear nothing.
fn judge(
    net: &Net,
    skb: &mut SkBuff,
    report: &Report,
    target: &Target,
    overhead: u16,
) -> Result<IcmpError> {
    match (report.kind, report.code) {
        (Kind::TooBig { mtu }, _) => {
            ip::update_pmtu(net, skb, mtu)?;
            // What this machine goes by from now on, whatever was said.
            let mtu = target.route(net)?.mtu().saturating_sub(overhead.into());
            Ok(IcmpError::TooBig { mtu })
        }
        (Kind::Unreachable, _) => Ok(IcmpError::HostUnreachable),
        (Kind::TimeExceeded, 0) => Ok(IcmpError::TtlExceeded),
        _ => Err(EINVAL),
    }
}

impl Tunnel {
    /// The mapping of the packet that a report is about, if that packet can have been one of it.
    fn reported<'a>(
        &'a self,
        report: &Report,
        about: &About,
        guard: &'a rcu::Guard,
    ) -> Option<&'a Mapping> {
        let (flow_id, learn) = match about {
            About::Compact(flow_id) => (*flow_id, None),
            About::Learn(learn, _) => (learn.flow_id, Some(learn)),
        };
        let mapping = self.flows.get(guard, flow_id)?;
        let quoted = &report.quoted.tuple;
        let fits = match learn {
            None => mapping.tuple().proto() == quoted.proto(),
            Some(learn) => self.flows.learn(mapping).as_ref() == Some(learn),
        };
        let is_between = mapping.target().is_between(quoted.client(), quoted.vip());
        (fits && is_between).then_some(mapping)
    }

    /// Sends an ICMP error about a reply of the host to the host. The packet is in a `PRE_ROUTING`
    /// hook, and `report` is what [`parse`] made of it.
    #[cold]
    pub(crate) fn carry(
        &self,
        state: &HookState<'_>,
        mapping: &Mapping,
        mut skb: SkBuff,
        report: &Report,
    ) {
        let net = state.net();
        let Ok(route) = mapping.target().route(net) else {
            return self.lose(skb, Counter::DropNoRoute, DropReason::IP_OUTNOROUTES);
        };
        // Nobody is told: it is an error itself.
        if report.ttl <= 1 {
            return self.lose(skb, Counter::DropTtl, DropReason::IP_INHDR);
        }
        let ready = mapping.flow_id().ok_or(EINVAL).and_then(|flow_id| {
            skb.trim(report.total_len as u32)?;
            skb.checksum_help()?;
            wrap(&mut skb, report, flow_id)
        });
        if ready.is_err() {
            return self.lose(skb, Counter::DropNoMemory, DropReason::NOMEM);
        }
        let headers = if mapping.tuple().is_v4() {
            ipv4::HEADER_LEN
        } else {
            ipv6::HEADER_LEN
        };
        // CAST: Small numbers.
        let len = skb.len().saturating_add((headers + udp::HEADER_LEN) as u32);
        if len > route.mtu() {
            return self.lose(skb, Counter::DropTooBig, DropReason::PKT_TOO_BIG);
        }
        match route.send_udp(net, skb, PORT, PORT) {
            Ok(()) => self.stats.inc(Counter::CarrySent),
            Err(_) => self.stats.inc(Counter::DropOutput),
        }
    }

    fn lose(&self, skb: SkBuff, counter: Counter, reason: DropReason) {
        self.stats.inc(counter);
        skb.drop_reason(reason);
    }
}

#[kunit_tests(nlb_tunnel_icmp)]
mod tests {
    use super::*;
    use nlb::wire::vectors::{
        errors,
        report::{
            check_carried,
            check_no_reports,
            check_reports,
            CARRIED,
            COUNT,
            NO_REPORTS,
            OTHERS, //
        }, //
    };

    /// A packet of these bytes.
    fn packet(bytes: &[u8]) -> Result<SkBuff> {
        let len = u16::try_from(bytes.len()).map_err(|_| EINVAL)?;
        let mut skb = SkBuff::alloc(128, len, GFP_KERNEL)?;
        skb.put(bytes)?;
        Ok(skb)
    }

    fn expose_on_skb(
        bytes: &mut [u8],
        report: &Report,
        about: &About,
        tuple: &FourTuple,
    ) -> Result<Option<usize>> {
        let mut skb = packet(bytes)?;
        assert_eq!(parse(&mut skb), Some(*report));
        quote_only(&mut skb, report)?;
        let sent = as_sent(&mut skb, report, about, tuple);
        let len = skb.data().len();
        bytes
            .get_mut(..len)
            .ok_or(EINVAL)?
            .copy_from_slice(skb.data());
        skb.consume();
        Ok(sent.ok().map(|()| len))
    }

    fn carry_on_skb(
        bytes: &[u8],
        datagram: &mut [u8],
        report: &Report,
        id: FlowId,
    ) -> Result<usize> {
        let mut skb = packet(bytes)?;
        wrap(&mut skb, report, id)?;
        let len = skb.data().len();
        datagram
            .get_mut(..len)
            .ok_or(EINVAL)?
            .copy_from_slice(skb.data());
        skb.consume();
        Ok(len)
    }

    #[test]
    fn exact_bytes() {
        let lost = |_: Error| error::DropReason::NoSpace;
        assert_eq!(
            check_reports(|bytes, report, about, tuple| {
                expose_on_skb(bytes, report, about, tuple).map_err(lost)
            }),
            Ok(COUNT)
        );
        assert_eq!(
            check_carried(|bytes, datagram, report, id| {
                carry_on_skb(bytes, datagram, report, id).map_err(lost)
            }),
            Ok(CARRIED.len())
        );
        assert_eq!(
            check_no_reports(|bytes| {
                let mut skb = packet(bytes).map_err(lost)?;
                let report = parse_reason(&mut skb);
                skb.consume();
                report
            }),
            Ok(NO_REPORTS.len() + OTHERS.len())
        );
    }

    #[test]
    fn what_is_quoted_of_inner_packets() {
        let lost = |_: Error| error::DropReason::NoSpace;
        let exposed = errors::check_exposed(|bytes, report, outer| {
            let mut skb = packet(bytes).map_err(lost)?;
            quote_only(&mut skb, report).map_err(lost)?;
            skb.pull(outer.offset as u16).map_err(lost)?;
            let len = skb.data().len();
            bytes
                .get_mut(..len)
                .ok_or(error::DropReason::NoSpace)?
                .copy_from_slice(skb.data());
            skb.consume();
            Ok(len)
        });
        assert!(exposed.is_ok_and(|exposed| exposed >= 150));
        let none = errors::check_none(|bytes| {
            let mut skb = packet(bytes).map_err(lost)?;
            let report = parse_reason(&mut skb);
            skb.consume();
            report
        });
        assert!(none.is_ok_and(|none| none >= 40));
    }
}
