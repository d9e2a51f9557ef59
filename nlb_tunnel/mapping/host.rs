// SPDX-License-Identifier: GPL-2.0

//! The host's side: what the flow ids of each forwarder stand for.

use super::Usage;
use crate::{
    device,
    forwarder::Forwarder,
    netlink,
    state::Tunnel,
    stats::Counter,
    uapi::cmd, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        rcu,
        Arc, //
    },
};
use nlb::{
    errno::{
        EADDRNOTAVAIL,
        EAFNOSUPPORT, //
    },
    net::{
        ip,
        netdevice::NetDevice,
        netfilter::HookState,
        Net, //
    },
    sync::rhashtable::{
        InsertError,
        Position,
        Scan, //
    },
    time,
    wire::{
        addr::{
            Addr,
            FourTuple, //
        },
        control::Learn,
        flow_id::FlowId,
        parse::Parsed,
        tcp::Flags,
        tcp_state::{
            State,
            Step,
            Timeouts, //
        },
    },
};

/// Attempts to put a mapping in the place of others that come at the same time.
const TRIES: u32 = 4;

/// Key of the table: the forwarder's IPv4 address and the flow id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostKey(u64);

impl HostKey {
    /// `None` if the address is not IPv4.
    #[inline]
    pub(crate) fn new(forwarder: Addr, flow_id: FlowId) -> Option<Self> {
        let address = u32::from_be_bytes(forwarder.to_v4()?);
        Some(Self(u64::from(address) << 32 | u64::from(flow_id.value())))
    }

    /// The key as the table has it.
    #[inline]
    pub(crate) fn value(&self) -> &u64 {
        &self.0
    }
}

/// Where a mapping comes from, and so who removes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// From a LEARN; expires when it is idle.
    Learnt,
    /// From a migration, which removes it.
    Migrated,
    /// From the administrator, who removes it.
    Static,
}

/// What a flow id of a forwarder stands for.
pub(crate) struct HostMapping {
    key: HostKey,
    flow_id: FlowId,
    tuple: FourTuple,
    forwarder: Arc<Forwarder>,
    kind: Kind,
    /// The address of this machine that the packets come to, 0 until it is known.
    local: Atomic<u32>,
    /// Number of the [`State`].
    state: Atomic<u32>,
    pub(crate) usage: Usage,
}

impl HostMapping {
    /// The flow id.
    pub(crate) fn flow_id(&self) -> FlowId {
        self.flow_id
    }

    /// The connection.
    #[inline]
    pub(crate) fn tuple(&self) -> &FourTuple {
        &self.tuple
    }

    /// The forwarder.
    #[inline]
    pub(crate) fn forwarder(&self) -> &Forwarder {
        &self.forwarder
    }

    /// Where the mapping comes from.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// The address of this machine that the packets come to, if one came.
    pub(crate) fn local(&self) -> Option<[u8; 4]> {
        match self.local.load(Relaxed) {
            0 => None,
            local => Some(local.to_be_bytes()),
        }
    }

    fn state(&self) -> State {
        u8::try_from(self.state.load(Relaxed))
            .ok()
            .and_then(State::from_number)
            .unwrap_or(State::Established)
    }

    /// Whether a packet with this key came to this machine, and not through it to another.
    #[inline]
    pub(crate) fn is_for(&self, net: &Net, parsed: &Parsed) -> bool {
        let Some(here) = parsed.tuple.vip().to_v4() else {
            return false;
        };
        let number = u32::from_be_bytes(here);
        match self.local.load(Relaxed) {
            0 if ip::is_local_address(net, here) => {
                self.local.store(number, Relaxed);
                true
            }
            known => known == number,
        }
    }

    /// Counts a packet of the client.
    #[inline]
    pub(crate) fn seen(&self, flags: Flags, bytes: usize) {
        self.usage.count(bytes);
        let before = self.state();
        let after = match before.step(flags) {
            Step::Next(state) => state,
            Step::Replace => State::SynRecv,
        };
        if after != before {
            self.state.store(after as u32, Relaxed);
        }
    }

    /// Whether the mapping has been idle for too long at `now` (jiffies).
    fn is_expired(&self, now: u64) -> bool {
        let idle = now.saturating_sub(self.usage.used());
        self.kind == Kind::Learnt
            && idle > u64::from(Timeouts::DEFAULT.of(self.state())).saturating_mul(time::HZ)
    }
}

impl Tunnel {
    /// Adds or replaces a mapping.
    ///
    /// `EPERM` if the forwarder is not configured, `EADDRNOTAVAIL` if the VIP is on no nlb device,
    /// `EEXIST` if a static mapping for another connection is in the way, `ENOSPC`, `ENOMEM`,
    /// `EAFNOSUPPORT`. Any context.
    pub(crate) fn install(
        &self,
        net: &Net,
        forwarder: Addr,
        flow_id: FlowId,
        tuple: &FourTuple,
        kind: Kind,
        local: Option<[u8; 4]>,
    ) -> Result {
        let key = HostKey::new(forwarder, flow_id).ok_or(EAFNOSUPPORT)?;
        let vip = tuple.vip().to_v4().ok_or(EAFNOSUPPORT)?;
        // `remove_forwarder` waits for who found the forwarder before it removes the mappings.
        let guard = rcu::read_lock();
        let forwarder = self.forwarder(forwarder).ok_or(EPERM)?;
        if vip_device(net, vip, &guard).is_none() {
            return Err(EADDRNOTAVAIL.into());
        }
        let local = local.map_or(0, u32::from_be_bytes);
        for _ in 0..TRIES {
            if let Some(known) = self.hosts.get(&guard, key.value()) {
                let same = known.tuple == *tuple;
                match (known.kind, kind) {
                    (_, Kind::Learnt) if same => {
                        // Repeated, because the confirmation was lost or has not arrived yet.
                        known.local.store(local, Relaxed);
                        return Ok(());
                    }
                    (Kind::Static, _) => return Err(EEXIST),
                    // The forwarder has given the flow id to another connection.
                    _ => self.unlink(net, known),
                };
            }
            let mapping = Arc::new(
                HostMapping {
                    key,
                    flow_id,
                    tuple: *tuple,
                    forwarder: forwarder.clone(),
                    kind,
                    local: Atomic::new(local),
                    state: Atomic::new(State::initial(tuple.proto(), Flags::SYN) as u32),
                    usage: Usage::new(),
                },
                GFP_ATOMIC,
            )?;
            match self
                .hosts
                .insert(*key.value(), mapping.clone(), GFP_ATOMIC)
            {
                Ok(()) => {
                    netlink::notify_host_mapping(net, cmd::MAPPING_NTF, &mapping);
                    return Ok(());
                }
                Err(InsertError::Exists) => continue,
                Err(error) => return Err(error.into()),
            }
        }
        Err(EEXIST)
    }

    /// Takes what a forwarder says in a LEARN that came to our address `here`; errors as
    /// [`Tunnel::install`].
    pub(crate) fn learn(
        &self,
        state: &HookState<'_>,
        forwarder: Addr,
        here: [u8; 4],
        learn: &Learn,
    ) -> Result {
        self.install(
            state.net(),
            forwarder,
            learn.flow_id,
            &learn.tuple,
            Kind::Learnt,
            Some(here),
        )
    }

    /// Counts a packet that came inside a LEARN.
    pub(crate) fn learnt_packet(
        &self,
        state: &HookState<'_>,
        forwarder: Addr,
        flow_id: FlowId,
        parsed: &Parsed,
    ) {
        let mapping = HostKey::new(forwarder, flow_id)
            .and_then(|key| self.hosts.get(state.rcu(), key.value()));
        if let Some(mapping) = mapping {
            mapping.seen(parsed.flags, parsed.total_len);
            mapping.forwarder.count(parsed.total_len);
        }
        self.stats.inc(Counter::DecapPackets);
        self.stats.add(Counter::DecapBytes, parsed.total_len as u64);
    }

    /// The mapping with this key.
    pub(crate) fn host_mapping(&self, key: &HostKey) -> Option<Arc<HostMapping>> {
        self.hosts.get(&rcu::read_lock(), key.value()).cloned()
    }

    /// Removes this very mapping; false if it was removed before.
    pub(crate) fn unlink(&self, net: &Net, mapping: &HostMapping) -> bool {
        let removed = self.hosts.remove_if(mapping.key.value(), |other| {
            core::ptr::eq::<HostMapping>(&**other, mapping)
        });
        if removed {
            netlink::notify_host_mapping(net, cmd::MAPPING_DEL_NTF, mapping);
        }
        removed
    }

    /// Removes the mappings of a forwarder. Process context.
    pub(crate) fn unlink_all_of(&self, net: &Net, forwarder: &Arc<Forwarder>) {
        self.hosts.retain(|_, mapping| {
            let keep = !Arc::ptr_eq(&mapping.forwarder, forwarder);
            if !keep {
                netlink::notify_host_mapping(net, cmd::MAPPING_DEL_NTF, mapping);
            }
            keep
        });
    }

    /// Removes mappings that are idle, looking at a limited number of entries. True when all have
    /// been looked at.
    pub(crate) fn expire(&self, net: &Net, position: &mut Position) -> bool {
        let now = time::jiffies();
        self.hosts.scan(&rcu::read_lock(), position, |_, mapping| {
            if !mapping.is_expired(now) {
                return Scan::Continue;
            }
            self.stats.inc(Counter::MappingExpired);
            netlink::notify_host_mapping(net, cmd::MAPPING_DEL_NTF, mapping);
            Scan::Remove
        })
    }
}

/// The nlb device that has `vip`.
pub(crate) fn vip_device<'a>(
    net: &'a Net,
    vip: [u8; 4],
    guard: &'a rcu::Guard,
) -> Option<&'a NetDevice> {
    NetDevice::of_ipv4(net, vip, guard).filter(|dev| device::is_nlb(dev))
}
