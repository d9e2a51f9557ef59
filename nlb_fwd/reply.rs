// SPDX-License-Identifier: GPL-2.0

//! Replies that come this way, because the host was not told what the client and the VIP are.
//!
//! The table of replies has each route that is so translated a second time, by what the packets of
//! its host have as addresses and ports. A route is in it before it is in the table of routes, so
//! that whoever removes it from there finds it here.

use crate::{
    forward::{
        no_route,
        ready,
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
        atomic::{
            Atomic,
            Relaxed, //
        },
        rcu, //
    },
};
use nlb::{
    net::{
        ip,
        netfilter::{
            HookState,
            Verdict, //
        },
        skbuff::SkBuff,
        Net, //
    },
    sync::{
        object::ObjectRef,
        rhashtable::InsertError, //
    },
    wire::{
        addr::{
            Addr,
            FourTuple, //
        },
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
    ) -> Option<&'a ObjectRef<Route>> {
        if self.replies.is_empty() {
            return None;
        }
        self.replies.get(guard, tuple)
    }

    /// Puts a route that is not in the table of routes yet into that of replies, if it has any.
    ///
    /// A connection that was reset gives way to a new one. Errors: [`NoRoute::Reply`] if
    /// another one has the same replies, [`InsertError::Exists`] if this connection has a route.
    pub(crate) fn add_reply(&self, net: &Net, route: &ObjectRef<Route>) -> Result<(), NoRoute> {
        let Some(tuple) = route.reply_tuple() else {
            return Ok(());
        };
        let insert = || {
            self.repliers.added(&tuple.client());
            let inserted = self.replies.insert(&tuple, route.clone(), GFP_ATOMIC);
            if inserted.is_err() {
                self.repliers.removed(&tuple.client());
            }
            inserted
        };
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
            let removed = self.replies.remove_if(&tuple, |other| {
                core::ptr::eq::<Route>(&**other, route) //
            });
            if removed {
                self.repliers.removed(&tuple.client());
            }
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
        return Err(no_route(skb));
    };
    let from = (tuple.vip(), tuple.vip_port());
    let to = (tuple.client(), tuple.client_port());
    let to = rewritten(parsed, Some(from), Some(to));
    match ready(state, &mut skb, parsed, next.mtu(), &to) {
        Ok(()) => Ok((next, skb)),
        Err((counter, reason)) => Err((skb, counter, reason)),
    }
}

/// How many routes there are whose replies come from hosts of each hash of an address.
///
/// Fragments have no ports, so they cannot be looked for in the table of replies before they are put
/// together; those of other machines need not be. One that only has the hash of a host goes on whole,
/// as it would with conntrack.
pub(crate) struct Repliers([Atomic<u32>; 256]);

impl Repliers {
    /// None of all.
    pub(crate) fn new() -> Self {
        Self([const { Atomic::new(0) }; 256])
    }

    fn of(&self, host: &Addr) -> Option<&Atomic<u32>> {
        let hash = host.octets().iter().fold(0u8, |hash, octet| hash ^ octet);
        self.0.get(usize::from(hash))
    }

    fn added(&self, host: &Addr) {
        if let Some(count) = self.of(host) {
            count.fetch_add(1u32, Relaxed);
        }
    }

    fn removed(&self, host: &Addr) {
        if let Some(count) = self.of(host) {
            count.fetch_sub(1u32, Relaxed);
        }
    }

    /// Whether replies may come from this host.
    pub(crate) fn may_have(&self, host: &Addr) -> bool {
        self.of(host).is_some_and(|count| count.load(Relaxed) != 0)
    }
}
