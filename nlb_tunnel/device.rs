// SPDX-License-Identifier: GPL-2.0

//! The network device that carries virtual IP addresses: `ip link add nlb0 type nlb`.
//!
//! On a host, what comes out of the tunnel is received by it, so `tcpdump -i nlb0` shows the
//! clients' packets as they were. It never sends: replies leave by the routes of the machine.

use crate::{
    state::STATE,
    stats::Counter, //
};
use kernel::{
    prelude::*,
    sync::rcu, //
};
use nlb::net::{
    netdevice::NetDevice,
    rtnl::{
        LinkDriver,
        LinkType,
        TxOutcome, //
    },
    skbuff::{
        DropReason,
        SkBuff, //
    },
};

/// The kind `nlb`.
pub(crate) struct Link;

pub(crate) static LINK: LinkType<Link> = LinkType::new();

impl LinkDriver for Link {
    const KIND: &'static CStr = c"nlb";

    type Private = ();

    fn link_type() -> &'static LinkType<Self> {
        &LINK
    }

    fn init(_dev: &NetDevice) -> impl PinInit<(), Error> {
        Ok(())
    }

    fn start_xmit(dev: &NetDevice, _private: &(), skb: SkBuff) -> TxOutcome {
        let guard = rcu::read_lock();
        if let Some(tunnel) = STATE.get(dev.net(), &guard) {
            tunnel.stats.inc(Counter::DropTransmit);
        }
        TxOutcome::Dropped(skb, DropReason::TUNNEL_TXINFO)
    }
}

/// Whether this is a device of the kind `nlb`.
#[inline]
pub(crate) fn is_nlb(dev: &NetDevice) -> bool {
    LINK.owns(dev)
}
