// SPDX-License-Identifier: GPL-2.0

//! The forwarder's side: flow ids given to connections.

use super::Usage;
use crate::{
    netlink,
    state::Tunnel,
    stats::Counter,
    target::Target,
    uapi::cmd, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        rcu,
        Arc, //
    },
};
use nlb::{
    errno::EAFNOSUPPORT,
    net::{
        netfilter::HookState,
        Net, //
    },
    random,
    sync::{
        read_once,
        rhashtable::InsertError, //
    },
    wire::{
        addr::{
            Addr,
            FourTuple, //
        },
        flow_id::FlowId, //
    },
};

/// Flow ids looked at before an allocation gives up: with half of all ids in use, one allocation in
/// 2^64 would.
const TRIES: u32 = 64;

/// A flow id that stands for a connection on its way to a host.
pub struct Mapping {
    flow_id: FlowId,
    tuple: FourTuple,
    target: Arc<Target>,
    cookie: u64,
    confirmed: Atomic<bool>,
    pub(crate) usage: Usage,
}

impl Mapping {
    /// The flow id.
    pub fn flow_id(&self) -> FlowId {
        self.flow_id
    }

    /// The connection.
    pub fn tuple(&self) -> &FourTuple {
        &self.tuple
    }

    /// The way to the host.
    #[inline]
    pub fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// The random number that a CONFIRM has to repeat.
    pub(crate) fn cookie(&self) -> u64 {
        self.cookie
    }

    /// Whether the host knows the mapping, so that packets carry the flow id alone.
    #[inline]
    pub fn is_confirmed(&self) -> bool {
        read_once(&self.confirmed)
    }

    /// Packets and bytes sent so far; idle since the mapping was made, if none were.
    #[inline]
    pub fn usage(&self) -> &Usage {
        &self.usage
    }
}

impl Tunnel {
    /// Gives a free flow id to a connection.
    ///
    /// `ENOSPC` if there are too many mappings or no free id was found, `ENOMEM`, `EAFNOSUPPORT`
    /// for a connection of another family than the host. Any context.
    pub(crate) fn allocate(
        &self,
        net: &Net,
        tuple: &FourTuple,
        target: &Arc<Target>,
        confirmed: bool,
    ) -> Result<Arc<Mapping>> {
        if tuple.is_v4() != target.host().is_v4() {
            return Err(EAFNOSUPPORT.into());
        }
        for _ in 0..TRIES {
            let flow_id = FlowId::nth(self.next_flow.fetch_add(1u32, Relaxed));
            if self
                .flows
                .get(&rcu::read_lock(), &flow_id.value())
                .is_some()
            {
                continue;
            }
            let mapping = Arc::new(
                Mapping {
                    flow_id,
                    tuple: *tuple,
                    target: target.clone(),
                    cookie: random::u64(),
                    confirmed: Atomic::new(confirmed),
                    usage: Usage::new(),
                },
                GFP_ATOMIC,
            )?;
            let inserted = self
                .flows
                .insert(flow_id.value(), mapping.clone(), GFP_ATOMIC);
            match inserted {
                Ok(()) => {
                    netlink::notify_mapping(net, cmd::MAPPING_NTF, &mapping);
                    return Ok(mapping);
                }
                Err(InsertError::Exists) => continue,
                Err(error) => return Err(error.into()),
            }
        }
        Err(ENOSPC)
    }

    /// Gives a flow id back. Does nothing if that was done before.
    pub(crate) fn release(&self, net: &Net, mapping: &Mapping) {
        let removed = self.flows.remove_if(&mapping.flow_id.value(), |other| {
            core::ptr::eq::<Mapping>(&**other, mapping)
        });
        if removed {
            netlink::notify_mapping(net, cmd::MAPPING_DEL_NTF, mapping);
        }
    }

    /// The mapping of a flow id that was given here.
    pub(crate) fn mapping(&self, flow_id: FlowId) -> Option<Arc<Mapping>> {
        self.flows.get(&rcu::read_lock(), &flow_id.value()).cloned()
    }

    /// A host at `from` says to our address `here` that it knows the mapping of a LEARN. Whether
    /// there is such a mapping.
    pub(crate) fn confirm(
        &self,
        state: &HookState<'_>,
        flow_id: FlowId,
        cookie: u64,
        from: Addr,
        here: Addr,
    ) -> bool {
        let Some(mapping) = self
            .flows
            .get(state.rcu(), &flow_id.value())
            .filter(|mapping| mapping.target.is_between(here, from) && mapping.cookie == cookie)
        else {
            return false;
        };
        self.stats.inc(Counter::ConfirmReceived);
        if !mapping.confirmed.xchg(true, Full) {
            netlink::notify_mapping(state.net(), cmd::MAPPING_NTF, mapping);
        }
        true
    }

    /// A host at `from` says to our address `here` that it does not know a flow id. Whether there
    /// is such a mapping.
    pub(crate) fn unlearn(
        &self,
        state: &HookState<'_>,
        flow_id: FlowId,
        from: Addr,
        here: Addr,
    ) -> bool {
        let Some(mapping) = self
            .flows
            .get(state.rcu(), &flow_id.value())
            .filter(|mapping| mapping.target.is_between(here, from))
        else {
            return false;
        };
        self.stats.inc(Counter::UnknownReceived);
        if mapping.confirmed.xchg(false, Full) {
            netlink::notify_mapping(state.net(), cmd::MAPPING_NTF, mapping);
        }
        true
    }
}
