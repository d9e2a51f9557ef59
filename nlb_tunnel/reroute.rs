// SPDX-License-Identifier: GPL-2.0

//! The forwarder's part when a connection has moved on from one host to another.
//!
//! A host says MOVED, and where to. That is a hint only: the other host is asked (ASK), with a cookie that
//! nobody else knows, whether it has the connection, and only when it says so (CONFIRM) does the connection's
//! route lead there. So a MOVED that is forged, or wrong, changes nothing. If the route leads there already, or
//! there is none, the answer is GONE.
//!
//! What routes there are, and which hosts are endpoints, is for the plumber to say, who is asked in process
//! context: what arrives waits in a bounded queue. What finds it full is lost; hosts repeat themselves.

use crate::{
    control,
    rate::PerSecond,
    state::{
        Tunnel,
        STATE, //
    },
    stats::Counter, //
};
use kernel::prelude::*;
use nlb::{
    net::{
        ip::Route,
        netfilter::HookState,
        netns::WeakNet,
        Net, //
    },
    new_spinlock_bh, plumb,
    sync::lock::SpinLockBh,
    wire::{
        addr::Addr,
        flow_id::FlowId, //
    },
    work::{
        DelayedWork,
        Trigger, //
    },
};

/// What may wait.
const MAX_WAITING: usize = 256;

/// GONE datagrams sent in a second.
const GONE_PER_SECOND: u32 = 1000;

/// What a host has said.
#[derive(Clone, Copy)]
enum Said {
    /// The connection of this flow id is at `host`.
    Moved { flow_id: FlowId, host: Addr },
    /// It is here, at `host`.
    Here { flow_id: FlowId, host: Addr },
}

/// What hosts have said in a namespace, and was not heard yet.
#[pin_data]
pub(crate) struct Reroutes {
    #[pin]
    waiting: SpinLockBh<KVec<Said>>,
    pub(crate) work: DelayedWork,
    gone: PerSecond,
}

impl Reroutes {
    /// Nothing was said.
    pub(crate) fn new(weak: WeakNet) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            waiting <- new_spinlock_bh!(
                KVec::with_capacity(MAX_WAITING, GFP_KERNEL)?,
                "nlb_tunnel::Reroutes"
            ),
            work: DelayedWork::new(move |_: &Trigger| listen(&weak))?,
            gone: PerSecond::new(),
        })
    }

    /// Whether there was room for it.
    fn push(&self, said: Said) -> bool {
        let mut waiting = self.waiting.lock();
        let room = waiting.len() < MAX_WAITING && waiting.push_within_capacity(said).is_ok();
        drop(waiting);
        self.work.schedule(0);
        room
    }

    /// Another host than the one of a mapping knows its cookie, and says that it has the connection. Whether
    /// there was room for that.
    pub(crate) fn answered(&self, flow_id: FlowId, host: Addr) -> bool {
        self.push(Said::Here { flow_id, host })
    }
}

/// Hears what has been said.
fn listen(weak: &WeakNet) {
    let Some(net) = weak.upgrade() else {
        return;
    };
    let Some(tunnel) = STATE.get_arc(&net) else {
        return;
    };
    loop {
        let Some(said) = tunnel.reroutes.waiting.lock().pop() else {
            return;
        };
        match said {
            Said::Moved { flow_id, host } => tunnel.ask(&net, flow_id, host),
            Said::Here { flow_id, host } => tunnel.reroute(&net, flow_id, host),
        }
    }
}

impl Tunnel {
    /// A host at `from` says to our address `here` that the connection of a flow id has moved on to `host`.
    /// Whether that was dealt with.
    pub(crate) fn receive_moved(
        &self,
        state: &HookState<'_>,
        (from, here): (Addr, Addr),
        (flow_id, cookie): (FlowId, u64),
        host: Addr,
    ) -> bool {
        let mapping = self.flows.get(state.rcu(), flow_id);
        if mapping.is_some_and(|mapping| mapping.target().is_between(here, from)) {
            if host == from || host.is_v4() != from.is_v4() {
                return false;
            }
            self.stats.inc(Counter::MovedReceived);
            return self.reroutes.push(Said::Moved { flow_id, host });
        }
        let sent = self.reroutes.gone.permits(GONE_PER_SECOND)
            && control::send_gone(state.net(), here, from, flow_id, cookie);
        if sent {
            self.stats.inc(Counter::GoneSent);
        }
        sent
    }

    /// Asks a host whether it has the connection of a flow id. Process context.
    fn ask(&self, net: &Net, flow_id: FlowId, host: Addr) {
        let guard = kernel::sync::rcu::read_lock();
        let learn = self
            .flows
            .get(&guard, flow_id)
            .and_then(|mapping| self.flows.learn(mapping));
        drop(guard);
        let Some(learn) = learn else {
            return;
        };
        // The host has to be one that this connection could have been given to.
        let source = plumb::with(|plumber| plumber.source_to(net, &learn.tuple, flow_id, host));
        let Some(source) = source.flatten() else {
            self.stats.inc(Counter::MovedElsewhere);
            return;
        };
        let sent = Route::lookup(net, Some(source), host)
            .and_then(|route| control::send_ask(net, &learn, route));
        if sent.is_ok() {
            self.stats.inc(Counter::AskSent);
        }
    }

    /// A host has the connection of a flow id. Process context.
    fn reroute(&self, net: &Net, flow_id: FlowId, host: Addr) {
        let guard = kernel::sync::rcu::read_lock();
        let tuple = self.flows.get(&guard, flow_id).map(|m| *m.tuple());
        drop(guard);
        let Some(tuple) = tuple else {
            return;
        };
        let done = plumb::with(|plumber| plumber.reroute(net, &tuple, flow_id, host));
        self.stats.inc(match done {
            Some(Ok(())) => Counter::Rerouted,
            Some(Err(_)) | None => Counter::MovedElsewhere,
        });
    }
}
