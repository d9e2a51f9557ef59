// SPDX-License-Identifier: GPL-2.0

//! What a namespace counts, per CPU.

nlb::counters! {
    /// Packets sent to hosts, in either form.
    EncapPackets = "encap-packets",
    /// Bytes (IP total length of the original packets) sent to hosts.
    EncapBytes = "encap-bytes",
    /// Packets sent inside a LEARN datagram.
    EncapLearning = "encap-learning",
    /// Packets sent in fragments, in the compact form.
    EncapFragmented = "encap-fragmented",
    /// LEARN datagrams without a packet.
    LearnSent = "learn-sent",
    /// CONFIRM datagrams that confirmed a mapping.
    ConfirmReceived = "confirm-received",
    /// Mappings that were confirmed by an ACK of the client, to what the host has answered to its SYN.
    ConfirmImplied = "confirm-implied",
    /// UNKNOWN datagrams that put a mapping back to learning.
    UnknownReceived = "unknown-received",
    /// ICMP errors about packets that this machine has sent to hosts.
    IcmpReceived = "icmp-received",
    /// Of these, those of which the client was told.
    IcmpTold = "icmp-told",
    /// ICMP errors about no packet of a mapping, though they look so: dropped if about UDP, else left
    /// to the local stack.
    IcmpStrange = "icmp-strange",
    /// CARRY datagrams: ICMP errors about hosts' replies, sent on to the hosts.
    CarrySent = "carry-sent",
    /// Packets taken from forwarders, in any form.
    DecapPackets = "decap-packets",
    /// Bytes of these packets.
    DecapBytes = "decap-bytes",
    /// Packets of these that came by IPIP, without a flow id.
    DecapIpip = "decap-ipip",
    /// Packets of forwarders that came in fragments.
    Defragmented = "defragmented",
    /// LEARN datagrams accepted.
    LearnReceived = "learn-received",
    /// CONFIRM datagrams sent.
    ConfirmSent = "confirm-sent",
    /// UNKNOWN datagrams sent.
    UnknownSent = "unknown-sent",
    /// CARRY datagrams accepted.
    CarryReceived = "carry-received",
    /// Packets of connections that have moved on from here, sent on.
    RelayPackets = "relay-packets",
    /// MOVED datagrams sent.
    MovedSent = "moved-sent",
    /// GONE datagrams by which a forwarder has said that it sends elsewhere.
    GoneReceived = "gone-received",
    /// ASK datagrams about connections that are here.
    AskReceived = "ask-received",
    /// MOVED datagrams accepted.
    MovedReceived = "moved-received",
    /// GONE datagrams sent.
    GoneSent = "gone-sent",
    /// ASK datagrams sent.
    AskSent = "ask-sent",
    /// Connections that are sent to the host that they have moved on to.
    Rerouted = "rerouted",
    /// Of connections that have moved on to hosts that are no endpoint of their service, or have no route: they
    /// stay as they are.
    MovedElsewhere = "moved-elsewhere",
    /// Mappings of the host side that expired.
    MappingExpired = "mapping-expired",
    /// ARP requests for a VIP that were not answered.
    ArpSilenced = "arp-silenced",
    /// ARP requests sent with another source address than the VIP.
    ArpRewritten = "arp-rewritten",
    /// ARP announcements and replies for a VIP that were not sent.
    ArpSuppressed = "arp-suppressed",
    /// TTL used up; the client is told.
    DropTtl = "drop-ttl-expired",
    /// Larger than the path to the host; the client is told.
    DropTooBig = "drop-too-big",
    /// No route to the host.
    DropNoRoute = "drop-no-route",
    /// No memory.
    DropNoMemory = "drop-no-memory",
    /// The network layer refused a packet to a host.
    DropOutput = "drop-output",
    /// The local stack refused a packet of the tunnel (for example its reverse path filter).
    DropInput = "drop-input",
    /// A flow id without a mapping, from a forwarder.
    DropUnknownFlow = "drop-unknown-flow-id",
    /// A SYN to a migrated connection that is not here any more, of which the forwarder is about to
    /// hear.
    DropEnded = "drop-ended",
    /// A fragment from a forwarder that is good for nothing.
    DropFragment = "drop-fragment",
    /// A packet of another protocol than its mapping is for.
    DropProtocol = "drop-protocol",
    /// A packet by IPIP with a congestion mark that its connection does not know (RFC 6040).
    DropCongestion = "drop-congestion",
    /// The VIP of the mapping is on no nlb device.
    DropNoVip = "drop-no-vip",
    /// A LEARN, ASK or CARRY from a machine that is no forwarder of ours.
    DropForwarder = "drop-forwarder",
    /// A LEARN for an address that is on no nlb device.
    DropLearnVip = "drop-learn-vip",
    /// A LEARN that found the table full.
    DropLearnFull = "drop-learn-full",
    /// A control datagram that is not as specified.
    DropBadControl = "drop-bad-control",
    /// A control datagram with a wrong checksum.
    DropBadChecksum = "drop-bad-checksum",
    /// An ASK about a connection that is not here.
    DropAsk = "drop-ask",
    /// A CONFIRM, UNKNOWN, MOVED or GONE for no mapping, from another machine, or with the wrong cookie; a
    /// CARRY about another connection.
    DropStrangeControl = "drop-strange-control",
    /// Packets that something sent through an nlb device.
    DropTransmit = "drop-transmit",
}
