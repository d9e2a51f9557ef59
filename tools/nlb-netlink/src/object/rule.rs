// SPDX-License-Identifier: MIT OR Apache-2.0

//! Rules of the forwarder.

use std::net::IpAddr;

use serde::Serialize;

use crate::{
    attr::{
        self,
        Attrs, //
    },
    error::Malformed,
    uapi,
    uapi::fwd::RuleAction,
    value::{
        Destination,
        Named,
        Ports,
        Proto, //
    },
};

object! {
    /// What happens to packets of a service that have no route.
    Rule: uapi::fwd::rule,
    required {
        /// Its place among the rules, of which the lowest that is for a packet decides.
        priority: u32 = PRIORITY, attr::u32;
    }
    optional {
        /// What it does with them.
        action: Named<RuleAction> = ACTION, Named::decode;
        /// Network that they come from; any when `None`.
        from_addr: IpAddr = FROM_ADDR, attr::addr;
        /// Bits of it.
        from_prefix: u32 = FROM_PREFIX, attr::u32;
        /// Address that they go to; any when `None`.
        vip_addr: IpAddr = VIP_ADDR, attr::addr;
        /// Port that they go to; any when `None`.
        vip_port: u16 = VIP_PORT, attr::be16;
        /// The last one of several.
        vip_port_last: u16 = VIP_PORT_LAST, attr::be16;
        /// TCP or UDP; both when `None`.
        proto: Proto = PROTO, Proto::decode;
        /// Packets that it has decided about.
        packets: u64 = PACKETS, attr::uint;
        /// Bytes of these packets.
        bytes: u64 = BYTES, attr::uint;
    }
    flags {}
}

impl Rule {
    /// The network that its packets come from, and its bits.
    pub fn from(&self) -> Option<(IpAddr, u32)> {
        Some((self.from_addr?, self.from_prefix?))
    }

    /// Where its packets go.
    pub fn to(&self) -> Option<Destination> {
        let ports = || {
            Some((
                Ports::shown(self.vip_port?, self.vip_port_last),
                self.proto?,
            ))
        };
        Some(Destination {
            vip: self.vip_addr?,
            ports: ports(),
        })
    }
}
