// SPDX-License-Identifier: GPL-2.0

//! What is counted, per CPU.

use kernel::{
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
};
use nlb::sync::percpu::PerCpuCounters;

nlb::counters! {
    /// Packets that followed a route.
    Packets = "packets",
    /// Bytes of these packets.
    Bytes = "bytes",
    /// Packets that followed a route past the network layer.
    FastPackets = "fast-packets",
    /// Packets of hosts that were translated for their clients.
    ReplyPackets = "reply-packets",
    /// Bytes of these packets.
    ReplyBytes = "reply-bytes",
    /// Routes made for new connections of l4 services.
    RouteNew = "route-new",
    /// Of these, routes of connections that had been opened without one.
    RouteAdopted = "route-adopted",
    /// Routes made for migrated connections.
    RouteMigration = "route-migration",
    /// Routes that lead to another endpoint since their connection has moved on there.
    RouteMoved = "route-moved",
    /// Routes made by hand.
    RouteManual = "route-manual",
    /// Routes whose time was up.
    RouteExpired = "route-expired",
    /// Routes of closed connections that a new one replaced.
    RouteReplaced = "route-replaced",
    /// Routes removed because their endpoint became inactive.
    RouteInactive = "route-inactive",
    /// Packets that were sent on without a route, as there was no room for one.
    StatelessPackets = "stateless-packets",
    /// Of these, SYNs.
    StatelessSyn = "stateless-syn",
    /// Datagrams of services that schedule each by itself.
    OnePacket = "one-packet",
    /// New connections that went to the endpoint of their client's last one.
    AffinityHit = "affinity-hit",
    /// New connections whose endpoint was not remembered for want of room or memory.
    AffinityFull = "affinity-full",
    /// Packets without a route left to the classifier of a peek service.
    PassPeek = "pass-peek",
    /// Packets without a connection that were handed to the classifier on a port of its own.
    Steered = "steered",
    /// Such packets left to the application because nothing listens on that port.
    PassNoClassifier = "pass-no-classifier",
    /// Packets of an l4 service that has no endpoint to choose left to the local stack.
    PassNoEndpoint = "pass-no-endpoint",
    /// Packets of an l4 service from the middle of an unknown connection left to the local stack.
    PassMidStream = "pass-mid-stream",
    /// Connections without a route that user space was asked about.
    Misses = "misses",
    /// Packets of these that waited for an answer.
    MissHeld = "miss-held",
    /// Packets from the middle of unknown connections not asked about, as there are too many.
    PassMissFull = "pass-miss-full",
    /// Packets dropped because that was the answer, or because too many waited for one.
    DropMiss = "drop-miss",
    /// Fragments for a VIP, or of a host's replies that are translated.
    Fragments = "fragments",
    /// Packets that were put together from them.
    Defragmented = "defragmented",
    /// Those that the kernel does not put together, left to the local stack.
    PassFragment = "pass-fragment",
    /// ICMP errors about what a host has sent to a client, sent on to the host.
    IcmpErrors = "icmp-errors",
    /// ICMP errors about what was sent to a host of which the client was told; not in the tunnel, which
    /// counts itself.
    IcmpTold = "icmp-told",
    /// Packets for a VIP that are neither TCP nor UDP left to the local stack.
    PassProtocol = "pass-protocol",
    /// Such fragments that are good for nothing.
    DropFragment = "drop-fragment",
    /// Packets without a route that a rule has refused, and told their senders.
    RejectRule = "reject-rule",
    /// Packets without a route that a rule has dropped.
    DropRule = "drop-rule",
    /// New connections refused because all endpoints have as many as they may have.
    DropOverflow = "drop-overflow",
    /// New connections refused because there was no room for a route, and no way to do without.
    DropTableFull = "drop-table-full",
    /// New connections refused because no flow id was found.
    DropNoFlowId = "drop-no-flow-id",
    /// New connections refused because no port was left for them (nat), or because the client's
    /// port has another connection to the host (half-nat).
    DropNoPort = "drop-no-port",
    /// New connections refused, or packets lost, because memory was short.
    DropNoMemory = "drop-no-memory",
    /// TTL used up; the sender is told. Like all that follow not in the tunnel, which counts itself.
    DropTtl = "drop-ttl-expired",
    /// Larger than the path can carry and not to be fragmented; the sender is told.
    DropTooBig = "drop-too-big",
    /// No route to the host.
    DropNoRoute = "drop-no-route",
    /// The network layer refused a packet.
    DropOutput = "drop-output",
}

/// Connections, packets and bytes of a service or an endpoint.
pub(crate) struct Traffic {
    counters: PerCpuCounters<3>,
    /// What they were when they were zeroed: nobody has to stop counting for it.
    before: [Atomic<u64>; 3],
}

impl Traffic {
    /// All zero. `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            counters: PerCpuCounters::new()?,
            before: [const { Atomic::new(0) }; 3],
        })
    }

    /// Begins again at zero. What is counted meanwhile may be counted before or after.
    pub(crate) fn zero(&self) {
        for (index, before) in self.before.iter().enumerate() {
            before.store(self.counters.sum(index), Relaxed);
        }
    }

    /// A counter since then. Of two that look, one may see less counted than the other has.
    fn since(&self, index: usize) -> u64 {
        let before = self
            .before
            .get(index)
            .map_or(0, |before| before.load(Relaxed));
        self.counters.sum(index).saturating_sub(before)
    }

    /// Counts a connection.
    #[inline]
    pub(crate) fn connection(&self) {
        self.counters.inc(0);
    }

    /// Counts a packet, or a batch of segments as one.
    #[inline]
    pub(crate) fn packet(&self, bytes: usize) {
        self.counters.inc(1);
        self.counters.add(2, bytes as u64);
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> u64 {
        self.since(0)
    }

    /// Packets so far.
    pub(crate) fn packets(&self) -> u64 {
        self.since(1)
    }

    /// Bytes (IP total length) so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.since(2)
    }
}

#[cfg(CONFIG_KUNIT = "y")]
#[kernel::macros::kunit_tests(nlb_fwd_stats)]
mod tests {
    use super::*;

    #[test]
    fn traffic_begins_again() -> Result {
        let traffic = Traffic::new()?;
        let shown = || (traffic.connections(), traffic.packets(), traffic.bytes());
        traffic.connection();
        traffic.packet(100);
        traffic.packet(50);
        assert_eq!(shown(), (1, 2, 150));
        traffic.zero();
        assert_eq!(shown(), (0, 0, 0));
        traffic.packet(7);
        assert_eq!(shown(), (0, 1, 7));
        traffic.zero();
        traffic.zero();
        traffic.connection();
        assert_eq!(shown(), (1, 0, 0));
        Ok(())
    }
}
