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
    fn new(
        key: HostKey,
        flow_id: FlowId,
        tuple: &FourTuple,
        forwarder: Arc<Forwarder>,
        kind: Kind,
        local: u32,
    ) -> Result<Arc<Self>> {
        Ok(Arc::new(
            Self {
                key,
                flow_id,
                tuple: *tuple,
                forwarder,
                kind,
                local: Atomic::new(local),
                state: Atomic::new(State::initial(tuple.proto(), Flags::SYN) as u32),
                usage: Usage::new(),
            },
            GFP_ATOMIC,
        )?)
    }

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
            let mapping = HostMapping::new(key, flow_id, tuple, forwarder.clone(), kind, local)?;
            // Counted before it can be found.
            forwarder.mapping_added();
            match self.hosts.insert(*key.value(), mapping.clone(), GFP_ATOMIC) {
                Ok(()) => {
                    netlink::notify_host_mapping(net, cmd::MAPPING_NTF, &mapping);
                    return Ok(());
                }
                Err(error) => {
                    forwarder.mapping_removed();
                    if error != InsertError::Exists {
                        return Err(error.into());
                    }
                }
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
            mapping.forwarder.mapping_removed();
            netlink::notify_host_mapping(net, cmd::MAPPING_DEL_NTF, mapping);
        }
        removed
    }

    /// Removes the mappings of a forwarder that gets no more of them. Process context.
    pub(crate) fn unlink_all_of(&self, net: &Net, forwarder: &Arc<Forwarder>) {
        // A table that shrinks meanwhile may hide entries from a scan.
        while forwarder.mappings() > 0 {
            self.hosts.for_each(|_, mapping| {
                if Arc::ptr_eq(&mapping.forwarder, forwarder) {
                    self.unlink(net, mapping);
                }
            });
        }
    }

    /// Removes mappings that are idle, looking at a limited number of entries. True when all have
    /// been looked at.
    pub(crate) fn expire(&self, net: &Net, position: &mut Position) -> bool {
        let now = time::jiffies();
        self.hosts.scan(&rcu::read_lock(), position, |_, mapping| {
            if mapping.is_expired(now) && self.unlink(net, mapping) {
                self.stats.inc(Counter::MappingExpired);
            }
            Scan::Continue
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

#[kunit_tests(nlb_tunnel_host)]
mod tests {
    use super::*;
    use nlb::wire::addr::Proto;

    const FORWARDER: Addr = Addr::v4([10, 0, 0, 1]);

    fn mapping(kind: Kind, proto: Proto) -> Result<Arc<HostMapping>> {
        let flow_id = FlowId::nth(5);
        let tuple = FourTuple::v4([192, 0, 2, 1], 40000, [198, 51, 100, 1], 80, proto);
        let key = HostKey::new(FORWARDER, flow_id).ok_or(EINVAL)?;
        let forwarder = Forwarder::new(FORWARDER)?;
        HostMapping::new(key, flow_id, &tuple, forwarder, kind, 0)
    }

    #[test]
    fn keys_differ() {
        let other = Addr::v4([10, 0, 0, 2]);
        let keys = [
            HostKey::new(FORWARDER, FlowId::nth(0)),
            HostKey::new(FORWARDER, FlowId::nth(1)),
            HostKey::new(FORWARDER, FlowId::nth(65535)),
            HostKey::new(other, FlowId::nth(0)),
        ];
        for (index, key) in keys.iter().enumerate() {
            assert!(key.is_some());
            assert!(!keys.iter().skip(index + 1).any(|other| other == key));
        }
        assert!(HostKey::new(Addr::v6([1; 16]), FlowId::nth(0)).is_none());
    }

    #[test]
    fn idle_time_is_judged_by_the_state() -> Result {
        let tcp = mapping(Kind::Learnt, Proto::Tcp)?;
        let udp = mapping(Kind::Learnt, Proto::Udp)?;
        let after = |mapping: &HostMapping, seconds: u64| {
            mapping.is_expired(mapping.usage.used() + seconds * time::HZ)
        };
        assert!(!after(&tcp, 60) && after(&tcp, 61));
        assert!(!after(&udp, 300) && after(&udp, 301));
        for (flags, seconds) in [
            (Flags::ACK, 900),
            (Flags(Flags::FIN.0 | Flags::ACK.0), 120),
            (Flags::RST, 10),
            // A new connection of the same 4-tuple.
            (Flags::SYN, 60),
        ] {
            tcp.seen(flags, 40);
            assert!(!after(&tcp, seconds) && after(&tcp, seconds + 1));
        }
        assert_eq!((tcp.usage.packets(), tcp.usage.bytes()), (4, 160));
        Ok(())
    }

    #[test]
    fn what_others_remove_does_not_expire() -> Result {
        for kind in [Kind::Migrated, Kind::Static] {
            let mapping = mapping(kind, Proto::Tcp)?;
            mapping.seen(Flags::RST, 40);
            assert!(!mapping.is_expired(u64::MAX));
        }
        Ok(())
    }

    #[test]
    fn unknowns_are_limited() -> Result {
        let forwarder = Forwarder::new(FORWARDER)?;
        let sent = (0..10_000).filter(|_| forwarder.may_send_unknown()).count();
        // The loop may have met the end of a second, of several on a very slow machine never all.
        assert!((1000..10_000).contains(&sent));
        Ok(())
    }
}
