// SPDX-License-Identifier: MIT OR Apache-2.0

//! The objects of the three families as the kernel reports them.
//!
//! What identifies an object is always there; everything else is an `Option`, so that this crate
//! reads the answers of modules that are older or newer than itself.

mod stats;

use std::net::{
    IpAddr,
    SocketAddr, //
};

use serde::Serialize;

use crate::{
    attr::{
        self,
        Attrs, //
    },
    error::Malformed,
    uapi,
    uapi::{
        fwd::{
            AllotmentScheme,
            AllotmentState,
            Forward,
            MissState,
            RouteEnd,
            RouteOrigin,
            RouteState,
            Scheduler,
            ServiceMode, //
        },
        migrator::{
            Algorithm,
            PeerState,
            Phase,
            Role, //
        },
        tunnel::{
            MappingSide,
            MappingState, //
        },
    },
    value::{
        ConnectionKey,
        FlowId,
        Named,
        Ports,
        Proto,
        ServiceKey, //
    },
};

pub use stats::{
    Counter,
    Stats, //
};

/// Define an object: a public struct, and its `decode` from the attributes of a message.
macro_rules! object {
    (
        $(#[$meta:meta])*
        $name:ident: $($set:ident)::+,
        required { $($(#[$rmeta:meta])* $rfield:ident: $rtype:ty = $rid:ident, $rdecode:expr;)* }
        optional { $($(#[$ometa:meta])* $ofield:ident: $otype:ty = $oid:ident, $odecode:expr;)* }
        flags { $($(#[$fmeta:meta])* $ffield:ident = $fid:ident;)* }
        $(lists { $($(#[$lmeta:meta])* $lfield:ident: $ltype:ident = $lid:ident;)* })?
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
        pub struct $name {
            $($(#[$rmeta])* pub $rfield: $rtype,)*
            $(
                $(#[$ometa])*
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $ofield: Option<$otype>,
            )*
            $($(#[$fmeta])* pub $ffield: bool,)*
            $($($(#[$lmeta])* pub $lfield: Vec<$ltype>,)*)?
        }

        impl $name {
            /// Parse the attributes of a message. Attributes this crate does not know are skipped.
            pub fn decode(attrs: &[u8]) -> Result<Self, Malformed> {
                use $($set)::+ as ids;
                let name = |id: u16| {
                    let index = usize::from(id).wrapping_sub(1);
                    ids::NAMES.get(index).copied().unwrap_or("?")
                };
                $(let mut $rfield = None;)*
                $(let mut $ofield = None;)*
                $(let mut $ffield = false;)*
                $($(let mut $lfield = Vec::new();)*)?
                for attr in Attrs::new(attrs) {
                    let attr = attr?;
                    let bad = Malformed::Value(name(attr.id));
                    match attr.id {
                        $(ids::$rid => $rfield = Some($rdecode(attr.payload).ok_or(bad)?),)*
                        $(ids::$oid => $ofield = Some($odecode(attr.payload).ok_or(bad)?),)*
                        $(ids::$fid => $ffield = true,)*
                        $($(ids::$lid => $lfield.push($ltype::decode(attr.payload)?),)*)?
                        _ => {}
                    }
                }
                Ok(Self {
                    $($rfield: $rfield.ok_or(Malformed::Missing(name(ids::$rid)))?,)*
                    $($ofield,)*
                    $($ffield,)*
                    $($($lfield,)*)?
                })
            }
        }
    };
}

/// A connection, of the attributes that it has in messages: addresses with their ports.
fn connection(proto: Proto, client: (IpAddr, u16), vip: (IpAddr, u16)) -> ConnectionKey {
    ConnectionKey {
        proto,
        client: SocketAddr::from(client),
        vip: SocketAddr::from(vip),
    }
}

mod endpoint;
mod rule;
mod trace;

pub use endpoint::{
    Endpoint,
    EndpointId, //
};
pub use rule::Rule;
pub use trace::Trace;

object! {
    /// A virtual service of the forwarder.
    Service: uapi::fwd::service,
    required {
        /// Virtual IP address.
        vip_addr: IpAddr = VIP_ADDR, attr::addr;
        /// Port of the service.
        vip_port: u16 = VIP_PORT, attr::be16;
        /// TCP or UDP.
        proto: Proto = PROTO, Proto::decode;
    }
    optional {
        /// The last one, if it has several.
        vip_port_last: u16 = VIP_PORT_LAST, attr::be16;
        /// Who picks the endpoint.
        mode: Named<ServiceMode> = MODE, Named::decode;
        /// Port of the classifier, if not the service's own.
        classifier_port: u16 = CLASSIFIER_PORT, attr::be16;
        /// How the kernel picks the endpoint, in mode l4.
        scheduler: Named<Scheduler> = SCHEDULER, Named::decode;
        /// Seconds for which clients go where their last connection went, 0 for no affinity.
        affinity_timeout: u32 = AFFINITY_TIMEOUT, attr::u32;
        /// Bits of a client's address that tell clients apart.
        affinity_prefix: u32 = AFFINITY_PREFIX, attr::u32;
        /// Seconds in which the weight of an endpoint that has just come grows, 0 for none.
        slow_start: u32 = SLOW_START, attr::u32;
        /// Seconds for which the routes of established connections are kept without a packet, 0 for
        /// what is usual.
        idle_timeout: u32 = IDLE_TIMEOUT, attr::u32;
        /// The same, once the connection is being closed.
        fin_timeout: u32 = FIN_TIMEOUT, attr::u32;
        /// The same, while the handshake is not complete.
        syn_timeout: u32 = SYN_TIMEOUT, attr::u32;
        /// Milliseconds for which packets from the middle of unknown connections wait for an answer,
        /// 0 for not at all.
        miss_timeout: u32 = MISS_TIMEOUT, attr::u32;
        /// Whether each datagram is scheduled by itself; UDP in mode l4 only.
        one_packet: bool = ONE_PACKET, attr::boolean;
        /// Number of endpoints.
        endpoints: u32 = ENDPOINTS, attr::u32;
        /// Connections or flows since the service was added.
        connections: u64 = CONNECTIONS, attr::uint;
        /// Packets from clients.
        packets: u64 = PACKETS, attr::uint;
        /// Bytes of these packets.
        bytes: u64 = BYTES, attr::uint;
    }
    flags {}
}

impl Service {
    /// What identifies the service.
    pub fn key(&self) -> ServiceKey {
        let ports = Ports::shown(self.vip_port, self.vip_port_last);
        ServiceKey::new(self.vip_addr, ports, self.proto)
    }
}

object! {
    /// Which endpoints of a service get its next connections.
    Allotment: uapi::fwd::allotment,
    required {
        /// VIP of the service.
        vip_addr: IpAddr = VIP_ADDR, attr::addr;
        /// Port of the service.
        vip_port: u16 = VIP_PORT, attr::be16;
        /// TCP or UDP.
        proto: Proto = PROTO, Proto::decode;
    }
    optional {
        /// The last one, if the service has several.
        vip_port_last: u16 = VIP_PORT_LAST, attr::be16;
        /// What it says of each endpoint.
        scheme: Named<AllotmentScheme> = SCHEME, Named::decode;
        /// Milliseconds for which it holds.
        age: u32 = AGE, attr::u32;
        /// Whether connections go by it.
        state: Named<AllotmentState> = STATE, Named::decode;
        /// Tokens of all endpoints that are left.
        left: u32 = LEFT, attr::u32;
        /// Milliseconds until its time is up.
        expires: u64 = EXPIRES, attr::uint;
    }
    flags {}
    lists {
        /// What endpoints have of it; not in events.
        shares: AllotmentShare = SHARE;
    }
}

impl Allotment {
    /// The service it is of.
    pub fn service(&self) -> ServiceKey {
        let ports = Ports::shown(self.vip_port, self.vip_port_last);
        ServiceKey::new(self.vip_addr, ports, self.proto)
    }
}

object! {
    /// What one endpoint has of an allotment.
    AllotmentShare: uapi::fwd::allotment_share,
    required {
        /// Address of the host.
        host_addr: IpAddr = HOST_ADDR, attr::addr;
        /// Tokens, those that are left when the kernel says it, or percent.
        amount: u32 = AMOUNT, attr::u32;
    }
    optional {
        /// Port of the endpoint, which there has to be only where the host has several.
        host_port: u16 = HOST_PORT, attr::be16;
    }
    flags {}
}

impl AllotmentShare {
    /// So much for an endpoint.
    pub fn new(endpoint: EndpointId, amount: u32) -> Self {
        Self {
            host_addr: endpoint.host,
            amount,
            host_port: endpoint.port,
        }
    }

    /// Whose it is.
    pub fn endpoint(&self) -> EndpointId {
        EndpointId::new(self.host_addr, self.host_port)
    }
}

object! {
    /// Where the packets of one connection go.
    Route: uapi::fwd::route,
    required {
        /// TCP or UDP.
        proto: Proto = PROTO, Proto::decode;
        /// Address of the client.
        client_addr: IpAddr = CLIENT_ADDR, attr::addr;
        /// Port of the client.
        client_port: u16 = CLIENT_PORT, attr::be16;
        /// Virtual IP address.
        vip_addr: IpAddr = VIP_ADDR, attr::addr;
        /// Port of the service.
        vip_port: u16 = VIP_PORT, attr::be16;
    }
    optional {
        /// Host that the packets go to.
        host_addr: IpAddr = HOST_ADDR, attr::addr;
        /// Port of it that they go to, with half-nat and nat.
        host_port: u16 = HOST_PORT, attr::be16;
        /// How packets get to the host.
        forward: Named<Forward> = FORWARD, Named::decode;
        /// Source address of the packets to the host, if not the client's.
        forwarder_addr: IpAddr = FORWARDER_ADDR, attr::addr;
        /// Source port of the packets to the host, with nat.
        forwarder_port: u16 = FORWARDER_PORT, attr::be16;
        /// Flow id of the tunnel packets.
        flow_id: FlowId = FLOW_ID, FlowId::decode;
        /// State of the connection as the forwarder sees it.
        state: Named<RouteState> = STATE, Named::decode;
        /// Who plumbed the route.
        origin: Named<RouteOrigin> = ORIGIN, Named::decode;
        /// Time until the route expires if no packet comes, in milliseconds.
        expires: u64 = EXPIRES, attr::uint;
        /// Packets that took the route.
        packets: u64 = PACKETS, attr::uint;
        /// Bytes of these packets.
        bytes: u64 = BYTES, attr::uint;
        /// Why it was removed; only in events.
        end: Named<RouteEnd> = END, Named::decode;
    }
    flags {}
}

impl Route {
    /// What identifies the route.
    pub fn key(&self) -> ConnectionKey {
        connection(
            self.proto,
            (self.client_addr, self.client_port),
            (self.vip_addr, self.vip_port),
        )
    }
}

object! {
    /// A connection without a route that user space is asked about, or was until a short time ago.
    Miss: uapi::fwd::miss,
    required {
        /// TCP.
        proto: Proto = PROTO, Proto::decode;
        /// Address of the client.
        client_addr: IpAddr = CLIENT_ADDR, attr::addr;
        /// Port of the client.
        client_port: u16 = CLIENT_PORT, attr::be16;
        /// Virtual IP address.
        vip_addr: IpAddr = VIP_ADDR, attr::addr;
        /// Port of the service.
        vip_port: u16 = VIP_PORT, attr::be16;
    }
    optional {
        /// What becomes of its packets.
        state: Named<MissState> = STATE, Named::decode;
        /// Packets that wait.
        held: u32 = HELD, attr::u32;
        /// Time since it was asked, or answered, in milliseconds.
        age: u64 = AGE, attr::uint;
    }
    flags {}
}

impl Miss {
    /// What identifies the connection.
    pub fn key(&self) -> ConnectionKey {
        connection(
            self.proto,
            (self.client_addr, self.client_port),
            (self.vip_addr, self.vip_port),
        )
    }
}

object! {
    /// A machine whose tunnel packets are accepted.
    Forwarder: uapi::tunnel::forwarder,
    required {
        /// Address the tunnel packets come from.
        addr: IpAddr = ADDR, attr::addr;
    }
    optional {
        /// Tunnel packets taken from the forwarder.
        packets: u64 = PACKETS, attr::uint;
        /// Bytes of these packets.
        bytes: u64 = BYTES, attr::uint;
    }
    flags {}
}

object! {
    /// The connection behind a flow id, on either side of the tunnel.
    Mapping: uapi::tunnel::mapping,
    required {
        /// Which end of the tunnel this is.
        side: Named<MappingSide> = SIDE, Named::decode;
        /// The flow id.
        flow_id: FlowId = FLOW_ID, FlowId::decode;
    }
    optional {
        /// Source address of the tunnel packets.
        forwarder_addr: IpAddr = FORWARDER_ADDR, attr::addr;
        /// Destination address of the tunnel packets.
        host_addr: IpAddr = HOST_ADDR, attr::addr;
        /// TCP or UDP.
        proto: Proto = PROTO, Proto::decode;
        /// Address of the client.
        client_addr: IpAddr = CLIENT_ADDR, attr::addr;
        /// Port of the client.
        client_port: u16 = CLIENT_PORT, attr::be16;
        /// Virtual IP address.
        vip_addr: IpAddr = VIP_ADDR, attr::addr;
        /// Port of the service.
        vip_port: u16 = VIP_PORT, attr::be16;
        /// Whether the host has confirmed it.
        state: Named<MappingState> = STATE, Named::decode;
        /// Time since the last packet, in milliseconds.
        idle: u64 = IDLE, attr::uint;
        /// Packets that used the mapping.
        packets: u64 = PACKETS, attr::uint;
        /// Bytes of these packets.
        bytes: u64 = BYTES, attr::uint;
        /// Host side: the connection has moved on to this host, and the forwarder does not know yet.
        moved_to: IpAddr = MOVED_TO, attr::addr;
    }
    flags {
        /// Added by hand, does not expire. `static` in the serialised form.
        #[serde(rename = "static")]
        is_static = STATIC;
    }
}

object! {
    /// A machine that connections are handed to or taken from.
    Peer: uapi::migrator::peer,
    required {
        /// Address of the peer.
        addr: IpAddr = ADDR, attr::addr;
    }
    optional {
        /// TCP port of its migrator.
        port: u16 = PORT, attr::be16;
        /// State of the connections with it.
        state: Named<PeerState> = STATE, Named::decode;
        /// Connections handed to the peer.
        migrations_out: u64 = MIGRATIONS_OUT, attr::uint;
        /// Connections taken from the peer.
        migrations_in: u64 = MIGRATIONS_IN, attr::uint;
        /// Migrations refused by either side.
        refused: u64 = REFUSED, attr::uint;
        /// Records from the peer that did not parse.
        bad_records: u64 = BAD_RECORDS, attr::uint;
    }
    flags {
        /// The peer has no key: whoever can send with its address is taken for it.
        unauthenticated = UNAUTHENTICATED;
    }
    lists {
        /// Its keys.
        keys: PeerKey = KEY;
    }
}

object! {
    /// A key of a peer (TCP-AO), without the secret.
    PeerKey: uapi::migrator::key,
    required {
        /// Id in segments to the peer.
        send_id: u8 = SEND_ID, attr::u8;
        /// Id in segments from the peer.
        recv_id: u8 = RECV_ID, attr::u8;
    }
    optional {
        /// How segments are signed.
        algorithm: Named<Algorithm> = ALGORITHM, Named::decode;
        /// Connections on which it signs what is sent.
        sending: u64 = SENDING, attr::uint;
        /// Segments from the peer that it verified.
        good: u64 = GOOD, attr::uint;
        /// Segments with its id that it did not verify.
        bad: u64 = BAD, attr::uint;
    }
    flags {
        /// New connections begin with it, and the peer is asked to use it.
        preferred = PREFERRED;
    }
}

object! {
    /// For which address and port the kernel keeps what programs read from connections.
    Keep: uapi::migrator::keep,
    required {
        /// Address that clients connect to.
        vip_addr: IpAddr = VIP_ADDR, attr::addr;
        /// Port of it.
        vip_port: u16 = VIP_PORT, attr::be16;
    }
    optional {
        /// Bytes of a connection; when more have been read, the copy is let go.
        bytes: u32 = BYTES, attr::u32;
    }
    flags {}
}

object! {
    /// One connection's way to another machine, or from one.
    Migration: uapi::migrator::migration,
    required {
        /// Id, unique on the origin since it booted.
        id: u64 = ID, attr::uint;
    }
    optional {
        /// Whether this machine hands over or takes.
        role: Named<Role> = ROLE, Named::decode;
        /// The machine at the other end.
        peer_addr: IpAddr = PEER_ADDR, attr::addr;
        /// How far it has come.
        phase: Named<Phase> = PHASE, Named::decode;
        /// TCP.
        proto: Proto = PROTO, Proto::decode;
        /// Address of the client.
        client_addr: IpAddr = CLIENT_ADDR, attr::addr;
        /// Port of the client.
        client_port: u16 = CLIENT_PORT, attr::be16;
        /// Virtual IP address.
        vip_addr: IpAddr = VIP_ADDR, attr::addr;
        /// Port of the service.
        vip_port: u16 = VIP_PORT, attr::be16;
        /// Flow id of the connection's tunnel packets.
        flow_id: FlowId = FLOW_ID, FlowId::decode;
        /// Bytes received and not yet read that moved along.
        unread_bytes: u64 = UNREAD_BYTES, attr::uint;
        /// Early packets the target held and delivered.
        held_packets: u64 = HELD_PACKETS, attr::uint;
        /// Time to freeze the connection, to take state and bytes out of the socket, and to close it.
        export_ns: u64 = EXPORT_NS, attr::uint;
        /// Time to decode state and bytes and to build the connection at the target.
        inject_ns: u64 = INJECT_NS, attr::uint;
        /// Time the connection was owned by nobody who may transmit.
        freeze_ns: u64 = FREEZE_NS, attr::uint;
        /// Time from the request to the end.
        total_ns: u64 = TOTAL_NS, attr::uint;
        /// Time since it began, in milliseconds.
        age: u64 = AGE, attr::uint;
        /// Why it was refused, aborted or reset.
        error: String = ERROR, attr::string;
    }
    flags {}
}

#[cfg(test)]
mod tests;
