// SPDX-License-Identifier: GPL-2.0

//! The generic netlink family `nlb-tunnel`.

use crate::{
    forwarder::Forwarder,
    mapping::{
        forwarder::Mapping,
        host::{
            HostKey,
            HostMapping,
            Kind, //
        },
    },
    state::{
        Tunnel,
        STATE, //
    },
    stats::Counter,
    uapi::{
        self,
        cmd,
        mapping,
        MappingSide,
        MappingState, //
    },
};
use kernel::{
    prelude::*,
    sync::{
        rcu,
        Arc, //
    },
};
use nlb::{
    errno::EAFNOSUPPORT,
    net::{
        genetlink::{
            Dump,
            Family,
            MulticastGroup,
            Op,
            Ops,
            Request,
            Writer, //
        },
        Net, //
    },
    wire::{
        addr::FourTuple,
        flow_id::FlowId, //
    },
};

static GROUPS: [MulticastGroup; 1] = [MulticastGroup::new(uapi::MCGRP_MAPPINGS)];

/// Place of the group `mappings` in [`GROUPS`].
const GROUP_MAPPINGS: u8 = 0;

static OPS: Ops<10> = Ops::new([
    Op::doit(cmd::FORWARDER_NEW, &uapi::FORWARDER_NEW_DO, forwarder_new).admin(),
    Op::doit(cmd::FORWARDER_DEL, &uapi::FORWARDER_DEL_DO, forwarder_del).admin(),
    Op::doit(cmd::FORWARDER_GET, &uapi::FORWARDER_GET_DO, forwarder_get),
    Op::dump(
        cmd::FORWARDER_GET,
        &uapi::FORWARDER_GET_DUMP,
        forwarder_dump,
    ),
    Op::doit(cmd::MAPPING_NEW, &uapi::MAPPING_NEW_DO, mapping_new).admin(),
    Op::doit(cmd::MAPPING_DEL, &uapi::MAPPING_DEL_DO, mapping_del).admin(),
    Op::doit(cmd::MAPPING_GET, &uapi::MAPPING_GET_DO, mapping_get),
    Op::dump(cmd::MAPPING_GET, &uapi::MAPPING_GET_DUMP, mapping_dump),
    Op::doit(cmd::STATS_GET, &uapi::STATS_GET_DO, stats_get),
    Op::dump(cmd::STATS_GET, &uapi::STATS_GET_DUMP, stats_dump),
]);

pub(crate) static FAMILY: Family = Family::new(uapi::FAMILY, 1, &OPS, &GROUPS);

/// The state of the namespace that the request came from.
fn tunnel(req: &Request<'_>) -> Result<Arc<Tunnel>> {
    STATE
        .get_arc(req.net())
        .ok_or_else(|| req.error(ESRCH, c"the network namespace is going away"))
}

/// The flow id in an attribute.
fn flow_id(req: &Request<'_>) -> Result<FlowId> {
    let value = req.require_u32(mapping::FLOW_ID)?;
    FlowId::new(value)
        .ok_or_else(|| req.bad_attr(ERANGE, mapping::FLOW_ID, c"flow id out of range"))
}

fn forwarder_new(req: &Request<'_>) -> Result {
    let tunnel = tunnel(req)?;
    let addr = req.require_unicast(uapi::forwarder::ADDR)?;
    match tunnel.add_forwarder(addr) {
        Err(EEXIST) => Err(req.bad_attr(EEXIST, uapi::forwarder::ADDR, c"forwarder exists")),
        Err(ENOSPC) => Err(req.error(ENOSPC, c"too many forwarders")),
        other => other,
    }
}

fn forwarder_del(req: &Request<'_>) -> Result {
    let tunnel = tunnel(req)?;
    let addr = req.require_addr(uapi::forwarder::ADDR)?;
    if !tunnel.remove_forwarder(req.net(), addr) {
        return Err(no_forwarder(req, uapi::forwarder::ADDR));
    }
    Ok(())
}

fn no_forwarder(req: &Request<'_>, id: u16) -> Error {
    req.bad_attr(ENOENT, id, c"no such forwarder")
}

fn forwarder_get(req: &Request<'_>) -> Result {
    let tunnel = tunnel(req)?;
    let addr = req.require_addr(uapi::forwarder::ADDR)?;
    let forwarder = tunnel
        .forwarder(addr)
        .ok_or_else(|| no_forwarder(req, uapi::forwarder::ADDR))?;
    req.reply(|w| fill_forwarder(w, &forwarder))
}

fn forwarder_dump(dump: &mut Dump<'_>) -> Result {
    let tunnel = tunnel(dump.request())?;
    let table = &tunnel.forwarders;
    dump.set_generation(table.generation());
    dump.put_table(
        |guard, position, f| table.scan(guard, position, |forwarder| f(forwarder)),
        fill_forwarder,
    );
    Ok(())
}

fn fill_forwarder(w: &mut Writer<'_>, forwarder: &Forwarder) -> Result {
    w.put_bytes(uapi::forwarder::ADDR, forwarder.addr().octets())?;
    w.put_uint(uapi::forwarder::PACKETS, forwarder.packets())?;
    w.put_uint(uapi::forwarder::BYTES, forwarder.bytes())
}

fn mapping_new(req: &Request<'_>) -> Result {
    let tunnel = tunnel(req)?;
    let forwarder = req.require_addr(mapping::FORWARDER_ADDR)?;
    let flow_id = flow_id(req)?;
    let proto = req.require_proto(mapping::PROTO)?;
    let client = req.require_unicast(mapping::CLIENT_ADDR)?;
    let client_port = req.require_be16(mapping::CLIENT_PORT)?;
    let vip = req.require_unicast(mapping::VIP_ADDR)?;
    let vip_port = req.require_be16(mapping::VIP_PORT)?;
    let tuple = FourTuple::new(client, client_port, vip, vip_port, proto)
        .ok_or_else(|| other_family(req, mapping::CLIENT_ADDR))?;
    match tunnel.install(req.net(), forwarder, flow_id, &tuple, Kind::Static, None) {
        Err(EEXIST) => Err(req.bad_attr(EEXIST, mapping::FLOW_ID, c"mapping exists")),
        Err(EPERM) => Err(no_forwarder(req, mapping::FORWARDER_ADDR)),
        Err(ENOSPC) => Err(req.error(ENOSPC, c"mapping table is full")),
        Err(error) if error == EAFNOSUPPORT => Err(other_family(req, mapping::FORWARDER_ADDR)),
        Err(error) if error == nlb::errno::EADDRNOTAVAIL => Err(req.bad_attr(
            error,
            mapping::VIP_ADDR,
            c"VIP is not an address of an nlb device",
        )),
        other => other,
    }
}

fn other_family(req: &Request<'_>, id: u16) -> Error {
    req.bad_attr(EAFNOSUPPORT, id, c"not of the VIP's address family")
}

fn host_key(req: &Request<'_>) -> Result<HostKey> {
    Ok(HostKey {
        forwarder: req.require_addr(mapping::FORWARDER_ADDR)?,
        flow_id: flow_id(req)?,
    })
}

fn no_mapping(req: &Request<'_>) -> Error {
    req.bad_attr(ENOENT, mapping::FLOW_ID, c"no such mapping")
}

fn mapping_del(req: &Request<'_>) -> Result {
    let tunnel = tunnel(req)?;
    let removed = tunnel
        .host_mapping(&host_key(req)?)
        .is_some_and(|mapping| tunnel.unlink(req.net(), &mapping));
    if !removed {
        return Err(no_mapping(req));
    }
    Ok(())
}

fn mapping_get(req: &Request<'_>) -> Result {
    let tunnel = tunnel(req)?;
    match req.require_u32(mapping::SIDE)? {
        side if side == MappingSide::Forwarder as u32 => {
            let flow_id = flow_id(req)?;
            req.reply(|w| {
                let guard = rcu::read_lock();
                let found = tunnel.flows.get(&guard, flow_id);
                fill_mapping(w, found.ok_or_else(|| no_mapping(req))?)
            })
        }
        _ => {
            let found = tunnel
                .host_mapping(&host_key(req)?)
                .ok_or_else(|| no_mapping(req))?;
            req.reply(|w| fill_host_mapping(w, &tunnel, &found))
        }
    }
}

fn mapping_dump(dump: &mut Dump<'_>) -> Result {
    let tunnel = tunnel(dump.request())?;
    let generation = tunnel
        .flows
        .generation()
        .wrapping_add(tunnel.hosts.generation());
    dump.set_generation(generation);
    let side = dump.request().u32(mapping::SIDE);
    let wanted = |this: MappingSide| side.is_none_or(|side| side == this as u32);
    // The second word of the state counts the tables that are done.
    let [_, tables, ..] = dump.state();
    if *tables == 0 {
        if wanted(MappingSide::Forwarder) {
            let table = &tunnel.flows;
            let done = dump.put_table(
                |guard, position, f| table.scan(guard, position, |mapping| f(mapping)),
                fill_mapping,
            );
            if !done {
                return Ok(());
            }
        }
        let [position, tables, ..] = dump.state();
        (*position, *tables) = (0, 1);
    }
    if wanted(MappingSide::Host) {
        let table = &tunnel.hosts;
        dump.put_table(
            |guard, position, f| table.scan(guard, position, |mapping| f(mapping)),
            |w, mapping| fill_host_mapping(w, &tunnel, mapping),
        );
    }
    Ok(())
}

fn fill_tuple(w: &mut Writer<'_>, tuple: &FourTuple) -> Result {
    w.put_u32(mapping::PROTO, tuple.proto().number().into())?;
    w.put_bytes(mapping::CLIENT_ADDR, tuple.client().octets())?;
    w.put_be16(mapping::CLIENT_PORT, tuple.client_port())?;
    w.put_bytes(mapping::VIP_ADDR, tuple.vip().octets())?;
    w.put_be16(mapping::VIP_PORT, tuple.vip_port())
}

fn fill_mapping(w: &mut Writer<'_>, m: &Mapping) -> Result {
    let state = if m.is_confirmed() {
        MappingState::Confirmed
    } else {
        MappingState::Learning
    };
    w.put_u32(mapping::SIDE, MappingSide::Forwarder as u32)?;
    w.put_u32(mapping::FLOW_ID, m.flow_id().map_or(0, FlowId::value))?;
    w.put_bytes(mapping::FORWARDER_ADDR, m.target().source().octets())?;
    w.put_bytes(mapping::HOST_ADDR, m.target().host().octets())?;
    fill_tuple(w, m.tuple())?;
    w.put_u32(mapping::STATE, state as u32)?;
    w.put_uint(mapping::IDLE, m.usage().idle_ms())?;
    w.put_uint(mapping::PACKETS, m.usage().packets())?;
    w.put_uint(mapping::BYTES, m.usage().bytes())
}

fn fill_host_mapping(w: &mut Writer<'_>, tunnel: &Tunnel, m: &HostMapping) -> Result {
    w.put_u32(mapping::SIDE, MappingSide::Host as u32)?;
    w.put_u32(mapping::FLOW_ID, m.flow_id().value())?;
    w.put_bytes(mapping::FORWARDER_ADDR, m.forwarder().addr().octets())?;
    if let Some(local) = m.local() {
        w.put_bytes(mapping::HOST_ADDR, local.octets())?;
    }
    fill_tuple(w, m.tuple())?;
    w.put_u32(mapping::STATE, MappingState::Confirmed as u32)?;
    w.put_uint(mapping::IDLE, m.usage.idle_ms())?;
    w.put_uint(mapping::PACKETS, m.usage.packets())?;
    w.put_uint(mapping::BYTES, m.usage.bytes())?;
    if m.kind() == Kind::Static {
        w.put_flag(mapping::STATIC)?;
    }
    if let Some(host) = tunnel.moved_to(m) {
        w.put_bytes(mapping::MOVED_TO, host.octets())?;
    }
    Ok(())
}

/// All counters, with what `of` says of each.
fn fill_counters(w: &mut Writer<'_>, of: impl Fn(Counter) -> u64) -> Result {
    for &counter in Counter::ALL {
        w.nest(uapi::stats::COUNTER, |w| {
            w.put_str(uapi::counter::NAME, counter.name())?;
            w.put_uint(uapi::counter::VALUE, of(counter))
        })?;
    }
    Ok(())
}

fn stats_get(req: &Request<'_>) -> Result {
    let tunnel = tunnel(req)?;
    req.reply(|w| fill_counters(w, |counter| tunnel.stats.get(counter)))
}

/// Dumps what each CPU has counted.
fn stats_dump(dump: &mut Dump<'_>) -> Result {
    let tunnel = tunnel(dump.request())?;
    dump.put_cpus(|w, cpu| {
        w.put_u32(uapi::stats::CPU, cpu.number())?;
        fill_counters(w, |counter| tunnel.stats.of(cpu, counter))
    });
    Ok(())
}

/// Tells listeners about a mapping of this machine as forwarder. Any context.
pub(crate) fn notify_mapping(net: &Net, command: u8, m: &Mapping) {
    // Listeners that miss it see the socket's overrun, as with every multicast.
    let _ = FAMILY.multicast(net, GROUP_MAPPINGS, command, GFP_ATOMIC, |w| {
        fill_mapping(w, m)
    });
}

/// Tells listeners about a mapping of this machine as host. Any context.
pub(crate) fn notify_host_mapping(net: &Net, tunnel: &Tunnel, command: u8, m: &HostMapping) {
    let _ = FAMILY.multicast(net, GROUP_MAPPINGS, command, GFP_ATOMIC, |w| {
        fill_host_mapping(w, tunnel, m)
    });
}
