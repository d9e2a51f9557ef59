// SPDX-License-Identifier: GPL-2.0

//! The host's side: what the flow ids of each forwarder stand for.

use super::Usage;
use crate::{
    device,
    forwarder::Forwarder,
    netlink,
    relay::Told,
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
    sync::{
        family_table::{
            ByFamily,
            FamilyKey, //
        },
        rhashtable::{
            InsertError,
            Position,
            Scan, //
        },
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

/// Key of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostKey {
    /// The forwarder's address.
    pub(crate) forwarder: Addr,
    /// The flow id, which is the forwarder's to give.
    pub(crate) flow_id: FlowId,
}

impl FamilyKey for HostKey {
    type V4 = u64;
    type V6 = [u32; 5];

    #[inline]
    fn by_family(&self) -> ByFamily<u64, [u32; 5]> {
        let flow_id = self.flow_id.value();
        match self.forwarder.to_v4() {
            Some(octets) => {
                let address = u32::from_be_bytes(octets);
                ByFamily::V4(u64::from(address) << 32 | u64::from(flow_id))
            }
            None => {
                let [a, b, c, d] = self.forwarder.words();
                ByFamily::V6([a, b, c, d, flow_id])
            }
        }
    }
}

/// Seconds that a mapping stays without a packet when its forwarder sends elsewhere: what is under way still
/// comes.
const GONE_SECS: u32 = 10;

/// An address of this machine that is remembered, so that it need not be looked up.
///
/// It has two halves. Who reads while another address is being written may see neither of the two,
/// and looks it up.
struct Local {
    high: Atomic<u64>,
    low: Atomic<u64>,
}

impl Local {
    fn new(address: Option<Addr>) -> Self {
        let local = Self {
            high: Atomic::new(0),
            low: Atomic::new(0),
        };
        if let Some(address) = address {
            local.set(&address);
        }
        local
    }

    #[inline]
    fn halves(address: &Addr) -> (u64, u64) {
        let all = u128::from_be_bytes(*address.as_bytes());
        // CAST: The halves.
        ((all >> 64) as u64, all as u64)
    }

    fn set(&self, address: &Addr) {
        let (high, low) = Self::halves(address);
        self.high.store(high, Relaxed);
        self.low.store(low, Relaxed);
    }

    #[inline]
    fn is(&self, address: &Addr) -> bool {
        (self.high.load(Relaxed), self.low.load(Relaxed)) == Self::halves(address)
    }

    /// The address, if there is one.
    fn get(&self) -> Option<Addr> {
        let all = u128::from(self.high.load(Relaxed)) << 64 | u128::from(self.low.load(Relaxed));
        (all != 0).then(|| Addr::v6(all.to_be_bytes()))
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
    flow_id: FlowId,
    tuple: FourTuple,
    forwarder: Arc<Forwarder>,
    kind: Kind,
    /// The address of this machine that the packets come to, once it is known.
    local: Local,
    /// Number of the [`State`].
    state: Atomic<u32>,
    pub(crate) usage: Usage,
    /// How many relays had been made when this was: see [`Relays::of`](crate::relay::Relays::of).
    born: u64,
    pub(crate) told: Told,
}

impl HostMapping {
    fn new(
        flow_id: FlowId,
        tuple: &FourTuple,
        forwarder: Arc<Forwarder>,
        kind: Kind,
        local: Option<Addr>,
        born: u64,
    ) -> Result<Arc<Self>> {
        Ok(Arc::new(
            Self {
                flow_id,
                tuple: *tuple,
                forwarder,
                kind,
                local: Local::new(local),
                state: Atomic::new(State::initial(tuple.proto(), Flags::SYN) as u32),
                usage: Usage::new(),
                born,
                told: Told::new(),
            },
            GFP_ATOMIC,
        )?)
    }

    /// The flow id.
    pub(crate) fn flow_id(&self) -> FlowId {
        self.flow_id
    }

    /// How many relays had been made when this was.
    #[inline]
    pub(crate) fn born(&self) -> u64 {
        self.born
    }

    /// The key in the table.
    pub(crate) fn key(&self) -> HostKey {
        HostKey {
            forwarder: self.forwarder.addr(),
            flow_id: self.flow_id,
        }
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
    pub(crate) fn local(&self) -> Option<Addr> {
        self.local.get()
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
        let here = parsed.tuple.vip();
        if self.local.is(&here) {
            return true;
        }
        let is_local = ip::is_local_address(net, &here);
        if is_local {
            self.local.set(&here);
        }
        is_local
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
        let timeout = match self.told.is_gone() {
            true => GONE_SECS,
            false => Timeouts::DEFAULT.of(self.state()),
        };
        // No timeout is shorter than a second.
        idle >= time::HZ
            && self.kind == Kind::Learnt
            && idle > u64::from(timeout).saturating_mul(time::HZ)
    }
}

impl Tunnel {
    /// Adds or replaces a mapping.
    ///
    /// `EPERM` if the forwarder is not configured, `EADDRNOTAVAIL` if the VIP is on no nlb device,
    /// `EEXIST` if a static mapping for another connection is in the way, `ENOSPC`, `ENOMEM`,
    /// `EAFNOSUPPORT` if the forwarder is of another family than the connection. Any context.
    pub(crate) fn install(
        &self,
        net: &Net,
        forwarder: Addr,
        flow_id: FlowId,
        tuple: &FourTuple,
        kind: Kind,
        local: Option<Addr>,
    ) -> Result {
        if forwarder.is_v4() != tuple.is_v4() {
            return Err(EAFNOSUPPORT.into());
        }
        let key = HostKey { forwarder, flow_id };
        // `remove_forwarder` waits for who found the forwarder before it removes the mappings.
        let guard = rcu::read_lock();
        let forwarder = self.forwarder(forwarder).ok_or(EPERM)?;
        if vip_device(net, &tuple.vip(), &guard).is_none() {
            return Err(EADDRNOTAVAIL.into());
        }
        for _ in 0..TRIES {
            if let Some(known) = self.hosts.get(&guard, &key) {
                let same = known.tuple == *tuple;
                match (known.kind, kind) {
                    (_, Kind::Learnt) if same => {
                        // Repeated, because the confirmation was lost or has not arrived yet.
                        if let Some(local) = &local {
                            known.local.set(local);
                        }
                        // The forwarder sends here (again).
                        known.told.forget();
                        return Ok(());
                    }
                    (Kind::Static, _) => return Err(EEXIST),
                    // The forwarder has given the flow id to another connection.
                    _ => self.unlink(net, known),
                };
            }
            // Whoever teaches a mapping may not know where the connection is. Who migrates it does.
            let born = match kind {
                Kind::Migrated => self.relays.made(),
                Kind::Learnt | Kind::Static => 0,
            };
            let mapping = HostMapping::new(flow_id, tuple, forwarder.clone(), kind, local, born)?;
            // Counted before it can be found.
            forwarder.mapping_added();
            match self.hosts.insert(&key, mapping.clone(), GFP_ATOMIC) {
                Ok(()) => {
                    netlink::notify_host_mapping(net, self, cmd::MAPPING_NTF, &mapping);
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
        here: Addr,
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

    /// Counts a packet that came inside a LEARN. See [`HostMapping::born`] for what is returned.
    pub(crate) fn learnt_packet(
        &self,
        state: &HookState<'_>,
        forwarder: Addr,
        flow_id: FlowId,
        parsed: &Parsed,
    ) -> u64 {
        self.stats.inc(Counter::DecapPackets);
        self.stats.add(Counter::DecapBytes, parsed.total_len as u64);
        let key = HostKey { forwarder, flow_id };
        let Some(mapping) = self.hosts.get(state.rcu(), &key) else {
            return 0;
        };
        mapping.seen(parsed.flags, parsed.total_len);
        mapping.forwarder.count(parsed.total_len);
        mapping.born
    }

    /// The mapping with this key.
    pub(crate) fn host_mapping(&self, key: &HostKey) -> Option<Arc<HostMapping>> {
        self.hosts.get(&rcu::read_lock(), key).cloned()
    }

    /// A mapping of this connection, whoever has given the flow id. Process context.
    pub(crate) fn mapping_of(&self, tuple: &FourTuple) -> Option<HostKey> {
        let mut found = None;
        if !self.hosts.is_empty() {
            self.hosts.for_each(|mapping| {
                if mapping.tuple == *tuple {
                    found = Some(mapping.key());
                }
            });
        }
        found
    }

    /// Removes this very mapping; false if it was removed before.
    pub(crate) fn unlink(&self, net: &Net, mapping: &HostMapping) -> bool {
        let removed = self.hosts.remove_if(&mapping.key(), |other| {
            core::ptr::eq::<HostMapping>(&**other, mapping)
        });
        if removed {
            mapping.forwarder.mapping_removed();
            netlink::notify_host_mapping(net, self, cmd::MAPPING_DEL_NTF, mapping);
        }
        removed
    }

    /// Removes the mappings of a forwarder that gets no more of them. Process context.
    pub(crate) fn unlink_all_of(&self, net: &Net, forwarder: &Arc<Forwarder>) {
        // A table that shrinks meanwhile may hide entries from a scan.
        while forwarder.mappings() > 0 {
            self.hosts.for_each(|mapping| {
                if Arc::ptr_eq(&mapping.forwarder, forwarder) {
                    self.unlink(net, mapping);
                }
            });
        }
    }

    /// Removes mappings that are idle, and tells forwarders which connections have moved on, looking at a
    /// limited number of entries. True when all have been looked at.
    pub(crate) fn expire(&self, net: &Net, position: &mut Position) -> bool {
        let now = time::jiffies();
        let guard = rcu::read_lock();
        self.hosts.scan(&guard, position, |mapping| {
            if mapping.is_expired(now) && self.unlink(net, mapping) {
                self.stats.inc(Counter::MappingExpired);
            } else if !self.relays.is_empty() {
                self.tell_moved(net, mapping, &guard, now);
            }
            Scan::Continue
        })
    }
}

/// Whether an nlb device has `address`, for packets of anybody: if another device has it, too, the one that
/// was given it last counts.
pub(crate) fn is_vip(net: &Net, address: &Addr, guard: &rcu::Guard) -> bool {
    NetDevice::of_address(net, address, guard).is_some_and(device::is_nlb)
}

/// The nlb device that has `vip`: one that is up, if there is. For packets of those who may use the tunnel:
/// if other devices have it, too, all may have to be looked at.
pub(crate) fn vip_device<'a>(
    net: &'a Net,
    vip: &Addr,
    guard: &'a rcu::Guard,
) -> Option<&'a NetDevice> {
    let named = NetDevice::of_address(net, vip, guard)?;
    if device::is_nlb(named) && named.is_up() {
        return Some(named);
    }
    // Others may have it, too, and which is named depends on who was given it last.
    let has_it = |dev: &NetDevice| device::is_nlb(dev) && dev.has_address(net, vip, guard);
    NetDevice::find(net, guard, |dev| has_it(dev) && dev.is_up())
        .or_else(|| NetDevice::find(net, guard, has_it))
}

#[kunit_tests(nlb_tunnel_host)]
mod tests {
    use super::*;
    use nlb::wire::addr::Proto;

    const FORWARDER: Addr = Addr::v4([10, 0, 0, 1]);

    fn mapping(kind: Kind, proto: Proto) -> Result<Arc<HostMapping>> {
        let flow_id = FlowId::nth(5);
        let tuple = FourTuple::v4([192, 0, 2, 1], 40000, [198, 51, 100, 1], 80, proto);
        let forwarder = Forwarder::new(FORWARDER)?;
        HostMapping::new(flow_id, &tuple, forwarder, kind, None, 0)
    }

    #[test]
    fn keys_differ() {
        let other = Addr::v4([10, 0, 0, 2]);
        let v6 = |last| Addr::v6([0x20, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, last]);
        let key = |forwarder, number| {
            let flow_id = FlowId::nth(number);
            HostKey { forwarder, flow_id }.by_family()
        };
        let keys = [
            key(FORWARDER, 0),
            key(FORWARDER, 1),
            key(FORWARDER, 65535),
            key(other, 0),
            key(v6(1), 0),
            key(v6(1), 1),
            key(v6(2), 0),
        ];
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys.iter().skip(index + 1).any(|other| other == key));
        }
    }

    #[test]
    fn local_addresses_are_remembered() {
        let local = Local::new(None);
        assert_eq!(local.get(), None);
        for address in [FORWARDER, Addr::v6([1; 16]), Addr::v4([10, 0, 0, 2])] {
            assert!(!local.is(&address));
            local.set(&address);
            assert!(local.is(&address));
            assert_eq!(local.get(), Some(address));
        }
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
    fn what_is_gone_expires_soon() -> Result {
        let mapping = mapping(Kind::Learnt, Proto::Tcp)?;
        mapping.seen(Flags::ACK, 40);
        let after = |seconds: u64| mapping.is_expired(mapping.usage.used() + seconds * time::HZ);
        mapping.told.gone();
        assert!(!after(10) && after(11));
        mapping.told.forget();
        assert!(!after(900) && after(901));
        Ok(())
    }

    #[test]
    fn what_others_remove_does_not_expire() -> Result {
        for kind in [Kind::Migrated, Kind::Static] {
            let mapping = mapping(kind, Proto::Tcp)?;
            mapping.seen(Flags::RST, 40);
            mapping.told.gone();
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
