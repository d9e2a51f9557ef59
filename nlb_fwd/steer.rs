// SPDX-License-Identifier: GPL-2.0

//! A classifier and an application on one machine, with the same address and port.
//!
//! TCP has one listener for them (without SO_REUSEPORT), and that is the application's. The
//! classifier listens on a port of its own, and what has no connection yet goes there: a brand new
//! connection for the VIP. What was migrated to this machine is injected into the application's
//! listener, and what is sent to another address of the machine goes there anyway.

use crate::{
    hook::is_from_client,
    state::STATE,
    stats::Counter, //
};
use nlb::net::{
    netfilter::{
        Family,
        Hook,
        HookNum,
        HookState,
        Verdict, //
    },
    skbuff::SkBuff,
    tcp::{
        steer,
        Steered, //
    },
};

/// Hands new connections to the classifier.
///
/// Behind all that may drop or redirect a packet, and before early packets are held.
pub(crate) struct LocalIn;

impl Hook for LocalIn {
    const FAMILY: Family = Family::Ipv4;
    const HOOKNUM: HookNum = HookNum::LocalIn;
    const PRIORITY: i32 = i32::MAX - 1;

    fn run(state: &HookState<'_>, mut skb: SkBuff) -> Verdict {
        let Some(forwarder) = STATE.get(state.net(), state.rcu()) else {
            return Verdict::Accept(skb);
        };
        // Only packets of clients: what came out of the tunnel was classified elsewhere.
        if !forwarder.steers() || !is_from_client(state, &skb) {
            return Verdict::Accept(skb);
        }
        let Some(parsed) = nlb_tunnel::parse(&mut skb) else {
            return Verdict::Accept(skb);
        };
        let service = forwarder.service_of(&parsed.tuple, state.rcu());
        if let Some(port) = service.and_then(|service| service.classifier()) {
            let opens = parsed.flags.is_initial_syn();
            let iif = skb.iif();
            match steer(state.net(), &mut skb, &parsed.tuple, opens, port, iif) {
                Steered::Yes => forwarder.stats.inc(Counter::Steered),
                Steered::NoListener => forwarder.stats.inc(Counter::PassNoClassifier),
                Steered::Known => {}
            }
        }
        Verdict::Accept(skb)
    }
}
