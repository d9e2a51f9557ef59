// SPDX-License-Identifier: GPL-2.0

//! What routes do with the packets of their connections.

use crate::{
    endpoint::Endpoint,
    uapi::Forward, //
};
use nlb::wire::{
    addr::FourTuple,
    carrier::Carrier, //
};

/// What a route does with a packet of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It goes into the flow-id tunnel.
    Tunnel,
    /// It goes to the host as it is, on a link that the host is on, too.
    Direct,
    /// It goes to the host inside an IP packet.
    Inside(Carrier),
    /// It goes to the address and port of the host; replies come back.
    HalfNat,
    /// The same, from an address of this machine and this port of it.
    Nat(u16),
}

impl Way {
    /// What the packets that answer one of this connection and way to an endpoint have as addresses
    /// and ports, the sender as client. None if they do not come here.
    pub(crate) fn reply_tuple(&self, tuple: &FourTuple, endpoint: &Endpoint) -> Option<FourTuple> {
        let to = match self {
            Self::HalfNat => (tuple.client(), tuple.client_port()),
            Self::Nat(port) => (endpoint.target().source(), *port),
            Self::Tunnel | Self::Direct | Self::Inside(_) => return None,
        };
        endpoint.answers(tuple, to)
    }

    /// The port of this machine that packets to the host come from.
    pub(crate) fn port(&self) -> Option<u16> {
        match self {
            Self::Nat(port) => Some(*port),
            _ => None,
        }
    }

    /// What packets to the host travel in, if not by themselves.
    pub(crate) fn carrier(&self) -> Option<Carrier> {
        match self {
            Self::Inside(carrier) => Some(*carrier),
            _ => None,
        }
    }

    /// Whether what has come back of a packet to the host, inside this, can be one that went this way: an
    /// error need not quote a checksum as it was sent.
    pub(crate) fn may_be(&self, carrier: Carrier) -> bool {
        match (self.carrier(), carrier) {
            (Some(Carrier::Gue { port, .. }), Carrier::Gue { port: quoted, .. }) => port == quoted,
            (Some(own), quoted) => own == quoted,
            (None, _) => false,
        }
    }

    /// Bytes by which packets of this family are longer on their way to the host.
    #[inline]
    pub(crate) fn overhead(&self, is_v4: bool) -> u32 {
        // CAST: Small.
        self.carrier()
            .map_or(0, |carrier| carrier.overhead(is_v4) as u32)
    }

    /// How packets get to the host.
    pub(crate) fn forward(&self) -> Forward {
        match self {
            Self::Tunnel => Forward::Tunnel,
            Self::Direct => Forward::Direct,
            Self::Inside(Carrier::Ipip) => Forward::Ipip,
            Self::Inside(Carrier::Gre { .. }) => Forward::Gre,
            Self::Inside(Carrier::Gue { .. }) => Forward::Gue,
            Self::HalfNat => Forward::HalfNat,
            Self::Nat(_) => Forward::Nat,
        }
    }
}

/// Ports that packets to hosts come from with nat: below those that the kernel chooses for this
/// machine's own connections (`net.ipv4.ip_local_port_range`), and so below those of flow ids, too.
const FIRST_PORT: u16 = 1024;
const PORTS: u16 = 32768 - FIRST_PORT;

/// The `number`-th port for nat; after the last one the first one again.
pub(crate) const fn nat_port(number: u32) -> u16 {
    // CAST: The rest is smaller than `PORTS`.
    FIRST_PORT + (number % PORTS as u32) as u16
}
