// SPDX-License-Identifier: GPL-2.0

//! What routes do with the packets of their connections.

use crate::uapi::Forward;
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
}

impl Way {
    /// The connection.
    #[inline]
    pub(crate) fn tuple(&self) -> &FourTuple {
        match self {
            Self::Tunnel(mapping) => mapping.tuple(),
            Self::Direct(flow) | Self::Ipip(flow) => &flow.tuple,
        }
    }

    /// How packets get to the host.
    pub(crate) fn forward(&self) -> Forward {
        match self {
            Self::Tunnel(_) => Forward::Tunnel,
            Self::Direct(_) => Forward::Direct,
            Self::Ipip(_) => Forward::Ipip,
        }
    }

    /// The flow id and the host, of a connection in the flow-id tunnel.
    #[inline]
    pub(crate) fn mapping(&self) -> Option<&Arc<Mapping>> {
        match self {
            Self::Tunnel(mapping) => Some(mapping),
            Self::Direct(_) | Self::Ipip(_) => None,
        }
    }

    /// Packets and bytes to the host.
    #[inline]
    pub(crate) fn usage(&self) -> &Usage {
        match self {
            Self::Tunnel(mapping) => mapping.usage(),
            Self::Direct(flow) | Self::Ipip(flow) => &flow.usage,
        }
    }
}

// A route has one, and shall stay as small as it is.
const _: () = assert!(size_of::<Way>() <= 16);
