// SPDX-License-Identifier: GPL-2.0

//! What a network namespace has.

use crate::{
    hold::{
        Holds,
        LocalIn, //
    },
    log::Limit,
    origin::Transfers,
    peer::Peers,
    registry::Registry,
    stats::Stats,
    target::Arrivals,
    tombstone::Tombstones,
    transport,
    uapi,
    watch, //
};
use core::net::{
    Ipv4Addr,
    SocketAddr, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        Arc,
        Mutex, //
    },
};
use nlb::{
    net::{
        netfilter::HookOps,
        netns::{
            self,
            PerNet,
            WeakNet, //
        },
        session::{
            Listener,
            Sessions, //
        },
        Net, //
    },
    random,
    wire::addr::Addr,
    work::DelayedWork, //
};

/// Connections of a namespace with its peers, both ways.
const MAX_SESSIONS: usize = 512;
/// Connections that wait to be accepted at the port.
const BACKLOG: u32 = 64;

pub(crate) static STATE: netns::State<State> = netns::State::new();

/// The module is about to go: callers must not wait any longer.
static STOPPING: Atomic<bool> = Atomic::new(false);

/// Whether the module is about to go.
pub(crate) fn is_stopping() -> bool {
    STOPPING.load(Acquire)
}

/// When dropped, makes callers that wait for another machine return.
pub(crate) struct Stop;

impl Drop for Stop {
    fn drop(&mut self) {
        STOPPING.store(true, Release);
    }
}

/// What the threads of a namespace share.
#[pin_data]
pub(crate) struct Shared {
    pub(crate) weak: WeakNet,
    /// Tells a peer that we know nothing of earlier migrations.
    pub(crate) boot_id: u64,
    next_id: Atomic<u64>,
    next_link: Atomic<u64>,
    pub(crate) stats: Stats,
    pub(crate) log: Limit,
    #[pin]
    pub(crate) peers: Peers,
    #[pin]
    pub(crate) registry: Registry,
    #[pin]
    pub(crate) transfers: Transfers,
    #[pin]
    pub(crate) arrivals: Arrivals,
    #[pin]
    pub(crate) holds: Holds,
    #[pin]
    pub(crate) tombstones: Tombstones,
    /// Stopped before the last reference goes: its threads hold references, too.
    pub(crate) sessions: Sessions,
}

impl Shared {
    fn new(weak: WeakNet) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            weak,
            boot_id: random::u64(),
            // Zero is no id; the ids of a machine that was restarted are other ones.
            next_id: Atomic::new((random::u64() >> 1) | 1),
            next_link: Atomic::new(1),
            stats: Stats::new(),
            log: Limit::new(),
            peers <- Peers::new(),
            registry <- Registry::new(),
            transfers <- Transfers::new(),
            arrivals <- Arrivals::new(),
            holds <- Holds::new(),
            tombstones <- Tombstones::new(),
            sessions: Sessions::new(MAX_SESSIONS)?,
        })
    }

    /// A migration id that was not there before.
    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Relaxed)
    }

    /// A number for a connection with a peer.
    pub(crate) fn next_link(&self) -> u64 {
        self.next_link.fetch_add(1, Relaxed)
    }
}

/// The state of a namespace.
#[pin_data]
pub(crate) struct State {
    pub(crate) shared: Arc<Shared>,
    /// The port, open while there are peers. The lock also orders changes of the peers.
    #[pin]
    port: Mutex<Option<Listener>>,
    watch: DelayedWork,
}

impl State {
    /// Adds a peer; the first one opens the port.
    ///
    /// Errors: `EEXIST`, `ENOSPC`, `ENOMEM`; `EADDRINUSE` if another program has the port.
    pub(crate) fn add_peer(&self, net: &Net, addr: Addr, port: u16) -> Result {
        let mut listener = self.port.lock();
        if listener.is_none() {
            let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, uapi::PORT));
            let shared = self.shared.clone();
            let name = fmt!("nlb-migrator");
            *listener = Some(Listener::start(net, any, BACKLOG, name, move |socket| {
                transport::accept(&shared, socket);
            })?);
            self.watch.schedule(watch::PERIOD_MS);
        }
        self.shared.peers.add(addr, port).inspect_err(|_| {
            if self.shared.peers.is_empty() {
                *listener = None;
            }
        })
    }

    /// Removes a peer and closes its connections; the last one closes the port. `ENOENT`.
    pub(crate) fn remove_peer(&self, net: &Net, addr: Addr) -> Result {
        let mut listener = self.port.lock();
        let peer = self.shared.peers.remove(addr).ok_or(ENOENT)?;
        if self.shared.peers.is_empty() {
            *listener = None;
        }
        drop(listener);
        self.shared.transfers.peer_removed(&self.shared, net, &peer);
        // That may have left something to look after.
        self.watch.schedule(watch::PERIOD_MS);
        Ok(())
    }
}

impl PerNet for State {
    const HOOKS: &'static [HookOps] = &[HookOps::new::<LocalIn>()];

    fn state() -> &'static netns::State<Self> {
        &STATE
    }

    fn init(_net: &Net, weak: WeakNet) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let shared = Arc::pin_init(Shared::new(weak), GFP_KERNEL)?;
            let watched = shared.clone();
            Ok(try_pin_init!(Self {
                shared,
                port <- new_mutex!(None, "nlb_migrator::State"),
                watch: DelayedWork::new(move |trigger| {
                    if watch::look(&watched) {
                        trigger.schedule(watch::PERIOD_MS);
                    }
                })?,
            }? Error))
        })
    }

    fn pre_exit(state: &Self, net: &Net) {
        // No connection comes in any more, ...
        let listener = state.port.lock().take();
        drop(listener);
        // ... none is set up again, ...
        state.watch.cancel();
        // ... and the others end.
        state.shared.peers.close_all();
        state.shared.sessions.stop();
        // A hook that still runs finds its hold dropping.
        state.shared.arrivals.clear(&state.shared, net);
    }
}
