// SPDX-License-Identifier: GPL-2.0

//! What other modules do with the tunnel.

use crate::{
    decap,
    device,
    icmp,
    mapping::{
        forwarder::Mapping,
        host::{
            self,
            HostKey,
            Kind, //
        },
    },
    state::STATE,
    target::Target, //
};
use kernel::{
    prelude::*,
    sync::{
        rcu,
        Arc, //
    },
};
use nlb::{
    net::{
        netdevice::NetDevice,
        netfilter::HookState,
        skbuff::{
            Arrival,
            DropReason,
            SkBuff, //
        },
        Net, //
    },
    sync::object::{
        Object,
        ObjectRef,
        PartRef, //
    },
    wire::{
        addr::{
            Addr,
            FourTuple, //
        },
        flow_id::FlowId,
        parse::Parsed,
        report::Report, //
    },
};

/// The way from this machine to `host`, from `source` or the address that routing chooses now.
///
/// Make one for each endpoint or peer and share it: it remembers the route on every CPU. Any
/// context. Errors: `EHOSTUNREACH` if no route leads there, `EADDRNOTAVAIL` if `source` is no
/// address of this machine, `EINVAL` if `host` is no unicast address, `EAFNOSUPPORT` if `source` is
/// of another family, `ENOMEM`.
pub fn target(net: &Net, host: Addr, source: Option<Addr>) -> Result<Arc<Target>> {
    Target::new(net, host, source)
}

/// The way from this machine to `host`, a neighbour, for packets to anywhere: they are handed to it
/// on their link as they are.
///
/// As [`target`]; `EHOSTUNREACH` also if a gateway leads there.
pub fn neighbour(net: &Net, host: Addr) -> Result<Arc<Target>> {
    Target::neighbour(net, host)
}

/// Gives a free flow id to the mapping of an object, which may go into the tunnel
/// ([`check_family`](crate::check_family)), and has none.
///
/// It stays until [`release`], and must be released before the module goes that has made the object.
/// Any context. Errors: `ENOSPC`, `ENOMEM`, `EINVAL` if it has one, or had, `ESRCH` if the namespace is
/// going away.
pub fn assign<T: Object<Part = Mapping>>(
    net: &Net,
    guard: &rcu::Guard,
    object: &ObjectRef<T>,
) -> Result {
    STATE.get(net, guard).ok_or(ESRCH)?.assign(net, object)
}

/// Gives a free flow id to a connection of a migration to that host, which has the mapping already,
/// so that packets take the compact form at once.
///
/// The mapping stays until [`release`]. Any context. Errors as [`assign`], and `EAFNOSUPPORT` if the
/// host is of another family than the connection.
pub fn allocate(net: &Net, tuple: &FourTuple, target: &Arc<Target>) -> Result<PartRef<Mapping>> {
    STATE
        .get(net, &rcu::read_lock())
        .ok_or(ESRCH)?
        .allocate(net, tuple, target)
}

/// Puts the mapping of an object, which is from [`Mapping::heir`], in the place of the one whose heir
/// it is. False if that has been released. Any context.
pub fn replace<T: Object<Part = Mapping>>(
    net: &Net,
    mapping: &Mapping,
    heir: &ObjectRef<T>,
) -> bool {
    STATE
        .get(net, &rcu::read_lock())
        .is_some_and(|tunnel| tunnel.replace(mapping, heir.to_part()))
}

/// Gives a flow id back. Packets under way with it are still sent. Does nothing if that was done
/// before, or the mapping has none. Any context.
pub fn release(net: &Net, mapping: &Mapping) {
    if let Some(tunnel) = STATE.get(net, &rcu::read_lock()) {
        tunnel.release(net, mapping);
    }
}

/// The mapping of a flow id that was given here, for as long as the RCU read side is held. Any
/// context.
pub fn mapping<'a>(net: &'a Net, flow_id: FlowId, guard: &'a rcu::Guard) -> Option<&'a Mapping> {
    STATE.get(net, guard)?.flows.get(guard, flow_id)
}

/// Reads the headers of a packet whose data starts at the IP header, making them linear. `None` for
/// everything that is not a whole TCP or UDP packet: other protocols, fragments, and what is
/// malformed.
#[inline]
pub fn parse(skb: &mut SkBuff) -> Option<Parsed> {
    decap::parse(skb)
}

/// Sends a client's packet to the host of its mapping, in a `PRE_ROUTING` hook.
///
/// `parsed` is what [`parse`] made of it. Drops are counted, and the client told where a router
/// would tell it.
#[inline]
pub fn send(state: &HookState<'_>, mapping: &Mapping, skb: SkBuff, parsed: &Parsed) {
    match STATE.get(state.net(), state.rcu()) {
        Some(tunnel) => tunnel.send(state, mapping, skb, parsed),
        None => skb.drop_reason(DropReason::DEV_READY),
    }
}

/// As [`send`], of a packet at the ingress of a device: hands it to the next hop past the network
/// layer, if that is all that has to be done. Gives it back if not; then nothing was counted.
///
/// `parsed` is what [`parse::parse`](nlb::wire::parse::parse) made of it.
#[inline]
pub fn send_at_once(
    state: &HookState<'_>,
    mapping: &Mapping,
    packet: Arrival,
    parsed: &Parsed,
) -> Result<(), Arrival> {
    match STATE.get(state.net(), state.rcu()) {
        Some(tunnel) => tunnel.send_at_once(state, mapping, packet, parsed),
        None => Err(packet),
    }
}

/// Whether a packet may be one that the tunnel's own hook takes: its ports are those of one, and
/// this machine is a host.
#[inline]
pub fn may_be_tunnelled(state: &HookState<'_>, parsed: &Parsed) -> bool {
    decap::may_be_ours(state, parsed)
}

/// Reads the ICMP error in a packet whose data starts at the IP header, making it linear. `None` for
/// everything else. Checksums are not judged.
pub fn parse_icmp_error(skb: &mut SkBuff) -> Option<Report> {
    icmp::parse(skb)
}

/// Sends an ICMP error about a reply of a mapping's host to that host, in a `PRE_ROUTING` hook.
///
/// `report` is what [`parse_icmp_error`] made of it. Drops are counted.
pub fn carry(state: &HookState<'_>, mapping: &Mapping, skb: SkBuff, report: &Report) {
    match STATE.get(state.net(), state.rcu()) {
        Some(tunnel) => tunnel.carry(state, mapping, skb, report),
        None => skb.drop_reason(DropReason::DEV_READY),
    }
}

/// Whether the checksum of the ICMP error that [`parse_icmp_error`] has read is right.
pub fn is_valid_icmp_error(skb: &mut SkBuff, report: &Report) -> bool {
    icmp::is_valid(skb, report)
}

/// Tells a client of an ICMP error about a packet that this machine has sent to `target`, with the
/// client's packet in it behind a header of `overhead` bytes; in a `PRE_ROUTING` hook. Whether it was
/// told.
///
/// `report` is what [`Report::parse_carrier`] made of the packet. The MTU of the way is remembered, and
/// the client hears what it hears of errors about the tunnel's packets.
pub fn tell_of_inner(
    state: &HookState<'_>,
    skb: &mut SkBuff,
    report: &Report,
    target: &Target,
    overhead: u16,
) -> bool {
    icmp::tell_of_inner(state, skb, report, target, overhead)
}

/// Adds or replaces what a flow id of a forwarder stands for, on the host.
///
/// It does not expire: who installs it removes it. Any context. Errors: `EPERM` if the forwarder is
/// not configured, `EADDRNOTAVAIL` if the VIP is no address of an nlb device, `EEXIST` if the
/// administrator has given the flow id to another connection, `ENOSPC`, `ENOMEM`, `EAFNOSUPPORT` if
/// the forwarder is of another family than the connection, `ESRCH` if the namespace is going away.
pub fn install_host_mapping(
    net: &Net,
    forwarder: Addr,
    flow_id: FlowId,
    tuple: &FourTuple,
) -> Result {
    STATE.get(net, &rcu::read_lock()).ok_or(ESRCH)?.install(
        net,
        forwarder,
        flow_id,
        tuple,
        Kind::Migrated,
        None,
    )
}

/// Removes what [`install_host_mapping`] added, if it still stands for this connection. Whether it
/// did. Any context.
pub fn remove_host_mapping(net: &Net, forwarder: Addr, flow_id: FlowId, tuple: &FourTuple) -> bool {
    let guard = rcu::read_lock();
    let Some(tunnel) = STATE.get(net, &guard) else {
        return false;
    };
    tunnel
        .host_mapping(&HostKey { forwarder, flow_id })
        .filter(|mapping| mapping.kind() == Kind::Migrated && mapping.tuple() == tuple)
        .is_some_and(|mapping| tunnel.unlink(net, &mapping))
}

/// Whether the forwarder of such a mapping has said that it sends to another host, which the connection has
/// moved on to. Any context.
pub fn is_gone(net: &Net, forwarder: Addr, flow_id: FlowId, tuple: &FourTuple) -> bool {
    STATE
        .get(net, &rcu::read_lock())
        .and_then(|tunnel| tunnel.host_mapping(&HostKey { forwarder, flow_id }))
        .is_some_and(|mapping| mapping.tuple() == tuple && mapping.told.is_gone())
}

/// Sends packets of a connection that come here out of the tunnel on to the host of a flow id of this
/// machine's. With `owns`, that is from [`allocate`], and the relay's from now on; else a route's.
///
/// Until [`end_relay`]. A mapping that is installed later is one by which the connection comes back:
/// what comes by it is for this machine. Process context. Errors: `ENOENT` if no mapping of this host is for the
/// connection, `EEXIST` if it has a relay, `ENOSPC`, `ENOMEM`, `ESRCH` if the namespace is going away.
pub fn relay(net: &Net, tuple: &FourTuple, flow_id: FlowId, owns: bool) -> Result {
    STATE.get_arc(net).ok_or(ESRCH)?.relay(tuple, flow_id, owns)
}

/// The connection of a relay lives at the other host: forwarders are told. Process context.
pub fn settle_relay(net: &Net, tuple: &FourTuple, flow_id: FlowId) {
    if let Some(tunnel) = STATE.get_arc(net) {
        tunnel.settle_relay(net, tuple, flow_id);
    }
}

/// Nobody will say when the connection of a relay has ended: it goes after 124 minutes without a packet. Any
/// context.
pub fn unwatch_relay(net: &Net, tuple: &FourTuple, flow_id: FlowId) {
    if let Some(tunnel) = STATE.get(net, &rcu::read_lock()) {
        tunnel.unwatch_relay(tuple, flow_id);
    }
}

/// Ends a relay, and gives its flow id back, if it owns that. Does nothing if the connection has none by this flow id. Any
/// context.
pub fn end_relay(net: &Net, tuple: &FourTuple, flow_id: FlowId) {
    if let Some(tunnel) = STATE.get(net, &rcu::read_lock()) {
        tunnel.end_relay(net, tuple, flow_id);
    }
}

/// As [`end_relay`], of one that leads to `host`, from where the connection has come back. Any context.
pub fn end_relay_to(net: &Net, tuple: &FourTuple, host: Addr) {
    if let Some(tunnel) = STATE.get(net, &rcu::read_lock()) {
        tunnel.end_relay_to(net, tuple, host);
    }
}

/// The host that packets of a connection are sent on to by a relay. Any context.
pub fn relayed_to(net: &Net, tuple: &FourTuple) -> Option<Addr> {
    STATE.get(net, &rcu::read_lock())?.relayed_to(tuple)
}

/// Whether tunnel packets are taken from this address. Any context.
pub fn is_forwarder(net: &Net, addr: Addr) -> bool {
    STATE
        .get(net, &rcu::read_lock())
        .is_some_and(|tunnel| tunnel.forwarder(addr).is_some())
}

/// Index of the nlb device that has this VIP. Any context.
pub fn vip_device(net: &Net, vip: Addr) -> Option<u32> {
    host::vip_device(net, &vip, &rcu::read_lock()).map(|dev| dev.ifindex())
}

/// Whether an nlb device has this address, for packets of anybody: if another device has it, too, the one
/// that was given it last counts.
pub fn is_vip(state: &HookState<'_>, address: Addr) -> bool {
    host::is_vip(state.net(), &address, state.rcu())
}

/// Whether the flow id of some forwarder stands for this connection here, so that its packets come out of
/// the tunnel. Looks at all mappings. Process context.
pub fn is_mapped(net: &Net, tuple: &FourTuple) -> bool {
    STATE
        .get_arc(net)
        .is_some_and(|tunnel| tunnel.mapping_of(tuple).is_some())
}

/// Whether this is an nlb device: what comes in by it has come out of the tunnel.
#[inline]
pub fn is_nlb_device(dev: &NetDevice) -> bool {
    device::is_nlb(dev)
}
