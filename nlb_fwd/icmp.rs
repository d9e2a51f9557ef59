// SPDX-License-Identifier: GPL-2.0

//! ICMP errors from the clients' side: about what hosts have sent to clients from the VIP.
//!
//! Hosts answer for themselves, but the VIP's packets come to this machine, so it gets what a router
//! between host and client has to say, "packet too big" above all.

use crate::{
    hook::is_from_client,
    state::Forwarder,
    stats::Counter, //
};
use nlb::net::{
    netfilter::{
        HookState,
        Verdict, //
    },
    skbuff::SkBuff, //
};

impl Forwarder {
    /// Sends an ICMP error about a host's packet to that host. Everything else comes back: an error
    /// about a connection without a route in the tunnel is the local stack's.
    pub(crate) fn icmp_error(
        &self,
        state: &HookState<'_>,
        mut skb: SkBuff,
    ) -> Result<Verdict, SkBuff> {
        if !is_from_client(state, &skb) {
            return Err(skb);
        }
        let Some(report) = nlb_tunnel::parse_icmp_error(&mut skb) else {
            return Err(skb);
        };
        let Some(tuple) = report.replied() else {
            return Err(skb);
        };
        // The other ways of forwarding have nothing to carry it in.
        let route = self.route_of(&tuple, state.rcu());
        let Some(mapping) = route.and_then(|route| route.way().mapping()) else {
            return Err(skb);
        };
        self.stats.inc(Counter::IcmpErrors);
        nlb_tunnel::carry(state, mapping, skb, &report);
        Ok(Verdict::Stolen)
    }
}
