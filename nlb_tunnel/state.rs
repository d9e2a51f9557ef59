// SPDX-License-Identifier: GPL-2.0

//! What the tunnel knows in one network namespace.

use crate::{
    arp,
    decap,
    forwarder::{
        Forwarder,
        MAX_FORWARDERS, //
    },
    mapping::{
        forwarder::Flows,
        host::{
            HostKey,
            HostMapping, //
        },
    },
    module_parameters,
    relay::Relays,
    reroute::Reroutes,
    stats::Stats, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        rcu,
        Arc,
        Mutex, //
    },
};
use nlb::{
    net::{
        netfilter::{
            HookOps,
            OverIpv6, //
        },
        netns::{
            PerNet,
            State,
            WeakNet, //
        },
        Net, //
    },
    sync::{
        family_table::FamilyTable,
        rhashtable::Position, //
    },
    wire::{
        addr::Addr,
        sweep, //
    },
    work::{
        DelayedWork,
        Trigger, //
    }, //
};

/// Mappings that a namespace may have on each side: what the module was loaded with.
fn max_mappings() -> u32 {
    (*module_parameters::max_mappings.value()).clamp(1, 1 << 24)
}

/// The state of a namespace.
#[pin_data]
pub(crate) struct Tunnel {
    /// By address.
    #[pin]
    pub(crate) forwarders: FamilyTable<Addr, Arc<Forwarder>>,
    /// This machine as host.
    #[pin]
    pub(crate) hosts: FamilyTable<HostKey, Arc<HostMapping>>,
    /// This machine as forwarder.
    #[pin]
    pub(crate) flows: Flows,
    /// Connections that have moved on from here.
    #[pin]
    pub(crate) relays: Relays,
    #[pin]
    pub(crate) reroutes: Reroutes,
    pub(crate) stats: Stats,
    /// Serialises changes of the forwarders.
    #[pin]
    config: Mutex<()>,
    expire: DelayedWork,
}

pub(crate) static STATE: State<Tunnel> = State::new();

impl PerNet for Tunnel {
    fn state() -> &'static State<Self> {
        &STATE
    }

    const HOOKS: &'static [HookOps] = &[
        HookOps::new::<decap::PreRouting>(),
        HookOps::new::<OverIpv6<decap::PreRouting>>(),
        HookOps::new::<arp::In>(),
        HookOps::new::<arp::Out>(),
    ];

    fn init(_net: &Net, weak: WeakNet) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            forwarders <- FamilyTable::new(MAX_FORWARDERS),
            hosts <- FamilyTable::new(max_mappings()),
            flows <- Flows::new(max_mappings()),
            relays <- Relays::new(max_mappings()),
            reroutes <- Reroutes::new(weak.clone()),
            stats: Stats::new()?,
            config <- new_mutex!(()),
            expire: {
                let mut position = Position::default();
                let work = DelayedWork::new(move |trigger: &Trigger| {
                    run_expire(&weak, &mut position, trigger)
                })?;
                work.schedule(sweep::INTERVAL_MS);
                work
            },
        })
    }

    fn pre_exit(state: &Self, _net: &Net) {
        state.expire.cancel();
        state.reroutes.work.cancel();
    }
}

/// Looks for idle mappings, and has itself called again.
fn run_expire(weak: &WeakNet, position: &mut Position, trigger: &Trigger) {
    let Some(net) = weak.upgrade() else {
        return;
    };
    let steps = {
        let guard = rcu::read_lock();
        let tunnel = STATE.get(&net, &guard);
        tunnel.map_or(0, |tunnel| tunnel.hosts.steps(&guard))
    };
    let done = trigger.sweep(steps, || {
        let guard = rcu::read_lock();
        // None before the module's initialisation is over.
        STATE
            .get(&net, &guard)
            .is_none_or(|tunnel| tunnel.expire(&net, position))
    });
    if done {
        *position = Position::default();
        let guard = rcu::read_lock();
        if let Some(tunnel) = STATE.get(&net, &guard) {
            tunnel.expire_relays(&net);
        }
    }
}

impl Tunnel {
    /// Takes packets from a forwarder. `EEXIST`, `ENOSPC`, `ENOMEM`.
    pub(crate) fn add_forwarder(&self, addr: Addr) -> Result {
        let _lock = self.config.lock();
        self.forwarders
            .insert(&addr, Forwarder::new(addr)?, GFP_KERNEL)?;
        Ok(())
    }

    /// Takes no more packets from a forwarder, and forgets its mappings. False if it was not
    /// configured. Process context.
    pub(crate) fn remove_forwarder(&self, net: &Net, addr: Addr) -> bool {
        let _lock = self.config.lock();
        let Some(forwarder) = self.forwarder(addr) else {
            return false;
        };
        self.forwarders.remove(&addr);
        // Whoever found the forwarder before may still be adding a mapping.
        nlb::sync::rcu::synchronize();
        self.unlink_all_of(net, &forwarder);
        true
    }

    /// A forwarder.
    pub(crate) fn forwarder(&self, addr: Addr) -> Option<Arc<Forwarder>> {
        self.forwarders.get(&rcu::read_lock(), &addr).cloned()
    }
}
