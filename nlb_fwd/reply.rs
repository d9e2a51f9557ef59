// SPDX-License-Identifier: GPL-2.0

//! Replies that come this way, because the host was not told what the client and the VIP are.
//!
//! The table of replies has each route that is so translated a second time, by what the packets of
//! its host have as addresses and ports. A route is in it before it is in the table of routes, so
//! that whoever removes it from there finds it here.

use crate::{
    forward::{
        may_pass,
        rewritten,
        NoRoute,
        Refused, //
    },
    route::Route,
    state::Forwarder,
    stats::Counter,
    uapi::RouteEnd, //
};
use kernel::{
    prelude::*,
    sync::{
        rcu,
        Arc, //
    },
};
use nlb::{
    net::{
        ip,
        netfilter::{
            HookState,
            Verdict, //
        },
        skbuff::{
            DropReason,
            SkBuff, //
        },
        Net, //
    },
    sync::rhashtable::InsertError,
    wire::{
        addr::FourTuple,
        parse::Parsed, //
    },
};

impl Forwarder {
    /// The route that a packet answers.
    #[inline]
    pub(crate) fn route_answered<'a>(
        &'a self,
        tuple: &FourTuple,
        guard: &'a rcu::Guard,
    ) -> Option<&'a Arc<Route>> {
        if self.replies.is_empty() {
            return None;
        }
        self.replies.get(guard, tuple)
    }

    /// Puts a route that is not in the table of routes yet into that of replies, if it has any.
    ///
    /// A connection that was reset gives way to a new one. Errors: [`NoRoute::Reply`] if
    /// another one has the same replies, [`InsertError::Exists`] if this connection has a route.
    pub(crate) fn add_reply(&self, net: &Net, route: &Arc<Route>) -> Result<(), NoRoute> {
        let Some(tuple) = route.reply_tuple() else {
            return Ok(());
        };
        let insert = || self.replies.insert(&tuple, route.clone(), GFP_ATOMIC);
        let Err(error) = insert() else {
            return Ok(());
        };
        if error != InsertError::Exists {
            return Err(error.into());
        }
        let guard = rcu::read_lock();
        match self.replies.get(&guard, &tuple) {
            Some(other) if other.tuple() == route.tuple() => Err(error.into()),
            Some(other) if !other.is_reset() => Err(NoRoute::Reply),
            other => {
                if other.is_some_and(|other| self.remove_route(net, other, RouteEnd::Replaced)) {
                    self.stats.inc(Counter::RouteReplaced);
                }
                insert().map_err(|error| match error {
                    InsertError::Exists => NoRoute::Reply,
                    error => error.into(),
                })
            }
        }
    }

    /// Takes this very route out of the table of replies.
    pub(crate) fn remove_reply(&self, route: &Route) {
        if let Some(tuple) = route.reply_tuple() {
            self.replies.remove_if(&tuple, |other| {
                core::ptr::eq::<Route>(&**other, route) //
            });
        }
    }

    /// Sends a packet of a host on to the client of its route, as the client expects it.
    #[inline]
    pub(crate) fn send_back(
        &self,
        state: &HookState<'_>,
        route: &Route,
        skb: SkBuff,
        parsed: &Parsed,
    ) -> Verdict {
        match translate(state, route, skb, parsed) {
            Ok((next, skb)) => {
                route.reply(parsed.flags);
                self.stats.inc(Counter::ReplyPackets);
                self.stats.add(Counter::ReplyBytes, parsed.total_len as u64);
                if next.output(state.net(), skb).is_err() {
                    self.stats.inc(Counter::DropOutput);
                }
                Verdict::Stolen
            }
            Err((skb, counter, reason)) => {
                self.stats.inc(counter);
                Verdict::Drop(skb, reason)
            }
        }
    }
}

/// A reply as the client expects it, and its way.
#[inline]
fn translate(
    state: &HookState<'_>,
    route: &Route,
    mut skb: SkBuff,
    parsed: &Parsed,
) -> Result<(ip::Route, SkBuff), Refused> {
    let tuple = route.tuple();
    let Ok(next) = ip::Route::lookup_reply(state.net(), tuple) else {
        return Err((skb, Counter::DropNoRoute, DropReason::IP_OUTNOROUTES));
    };
    if let Err((counter, reason)) = may_pass(state, &mut skb, parsed, next.mtu()) {
        return Err((skb, counter, reason));
    }
    let from = (tuple.vip(), tuple.vip_port());
    let to = (tuple.client(), tuple.client_port());
    if skb
        .rewrite(&rewritten(parsed, Some(from), Some(to)))
        .is_err()
    {
        return Err((skb, Counter::DropNoMemory, DropReason::NOMEM));
    }
    Ok((next, skb))
}
