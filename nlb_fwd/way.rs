// SPDX-License-Identifier: GPL-2.0

//! What routes do with the packets of their connections.

use crate::{
    endpoint::Endpoint,
    uapi::Forward, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use nlb::wire::addr::FourTuple;
use nlb_tunnel::{
    Mapping,
    Usage, //
};

/// A connection that needs no flow id.
pub(crate) struct Flow {
    tuple: FourTuple,
    usage: Usage,
}

impl Flow {
    /// A connection without packets. `ENOMEM`. Any context.
    pub(crate) fn new(tuple: &FourTuple) -> Result<KBox<Self>> {
        Ok(KBox::new(
            Self {
                tuple: *tuple,
                usage: Usage::new(),
            },
            GFP_ATOMIC,
        )?)
    }
}

/// What a route does with a packet of the client.
///
/// The details are elsewhere, so that a route is no larger for the largest of them.
pub(crate) enum Way {
    /// It goes into the flow-id tunnel.
    Tunnel(Arc<Mapping>),
    /// It goes to the host as it is, on a link that the host is on, too.
    Direct(KBox<Flow>),
    /// It goes to the host inside an IP packet.
    Ipip(KBox<Flow>),
    /// It goes to the address and port of the host; replies come back.
    HalfNat(KBox<Flow>),
    /// The same, from an address of this machine and this port of it.
    Nat(KBox<Flow>, u16),
}

impl Way {
    /// What the packets that answer one of this way to an endpoint have as addresses and ports, the
    /// sender as client. None if they do not come here.
    pub(crate) fn reply_tuple(&self, endpoint: &Endpoint) -> Option<FourTuple> {
        let tuple = self.tuple();
        let to = match self {
            Self::HalfNat(_) => (tuple.client(), tuple.client_port()),
            Self::Nat(_, port) => (endpoint.target().source(), *port),
            Self::Tunnel(_) | Self::Direct(_) | Self::Ipip(_) => return None,
        };
        endpoint.answers(tuple, to)
    }

    /// The port of this machine that packets to the host come from.
    pub(crate) fn port(&self) -> Option<u16> {
        match self {
            Self::Nat(_, port) => Some(*port),
            _ => None,
        }
    }

    /// The connection.
    #[inline]
    pub(crate) fn tuple(&self) -> &FourTuple {
        match self {
            Self::Tunnel(mapping) => mapping.tuple(),
            Self::Direct(flow) | Self::Ipip(flow) | Self::HalfNat(flow) | Self::Nat(flow, _) => {
                &flow.tuple
            }
        }
    }

    /// How packets get to the host.
    pub(crate) fn forward(&self) -> Forward {
        match self {
            Self::Tunnel(_) => Forward::Tunnel,
            Self::Direct(_) => Forward::Direct,
            Self::Ipip(_) => Forward::Ipip,
            Self::HalfNat(_) => Forward::HalfNat,
            Self::Nat(..) => Forward::Nat,
        }
    }

    /// The flow id and the host, of a connection in the flow-id tunnel.
    #[inline]
    pub(crate) fn mapping(&self) -> Option<&Arc<Mapping>> {
        match self {
            Self::Tunnel(mapping) => Some(mapping),
            Self::Direct(_) | Self::Ipip(_) | Self::HalfNat(_) | Self::Nat(..) => None,
        }
    }

    /// Packets and bytes to the host.
    #[inline]
    pub(crate) fn usage(&self) -> &Usage {
        match self {
            Self::Tunnel(mapping) => mapping.usage(),
            Self::Direct(flow) | Self::Ipip(flow) | Self::HalfNat(flow) | Self::Nat(flow, _) => {
                &flow.usage
            }
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

// A route has one, and shall stay as small as it is.
const _: () = assert!(size_of::<Way>() <= 16);
