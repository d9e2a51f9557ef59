// SPDX-License-Identifier: GPL-2.0

//! What a network namespace has.

use crate::{
    auth::{
        Keys,
        Refused,
        Shown, //
    },
    hold::{
        Holds,
        LocalIn, //
    },
    log::Limit,
    origin::Transfers,
    peer::{
        AddError,
        Peer,
        Peers, //
    },
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
        socket::{
            auth::{
                Counters,
                Key, //
            },
            Socket, //
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
            stats: Stats::new()?,
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

/// Why peers or their keys were not changed.
pub(crate) enum ChangeError {
    /// No peer has the address.
    NoPeer,
    Peer(AddError),
    Key(Refused),
    /// The port could not be opened.
    Port(Error),
}

impl From<Refused> for ChangeError {
    fn from(refused: Refused) -> Self {
        Self::Key(refused)
    }
}

impl State {
    /// Adds a peer, without a key an unauthenticated one; the first one opens the port.
    pub(crate) fn add_peer(
        &self,
        net: &Net,
        addr: Addr,
        port: u16,
        key: Option<Key>,
    ) -> Result<(), ChangeError> {
        let mut listener = self.port.lock();
        if listener.is_none() {
            let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, uapi::PORT));
            let shared = self.shared.clone();
            let name = fmt!("nlb-migrator");
            let accept = move |listener: &Socket, socket| {
                transport::accept(&shared, listener, socket);
            };
            let started = Listener::start(net, any, BACKLOG, name, accept);
            *listener = Some(started.map_err(ChangeError::Port)?);
            self.watch.schedule(watch::PERIOD_MS);
        }
        let added = match &*listener {
            Some(listener) => self.shared.peers.add(listener.socket(), addr, port, key),
            None => Ok(()),
        };
        self.settle(&mut listener);
        added.map_err(ChangeError::Peer)
    }

    /// Removes a peer and closes its connections; the last one closes the port.
    pub(crate) fn remove_peer(&self, net: &Net, addr: Addr) -> Result<(), ChangeError> {
        let mut listener = self.port.lock();
        let peer = self.shared.peers.remove(addr).ok_or(ChangeError::NoPeer)?;
        if let Some(listener) = &*listener {
            peer.keys.withdraw(listener.socket());
        }
        self.settle(&mut listener);
        drop(listener);
        self.shared.stats.add_auth(&peer.keys.counters());
        self.shared.transfers.peer_removed(&self.shared, net, &peer);
        // That may have left something to look after.
        self.watch.schedule(watch::PERIOD_MS);
        Ok(())
    }

    /// Closes the port if there are no peers, and lets in unsigned segments if there are some that
    /// need it.
    fn settle(&self, listener: &mut Option<Listener>) {
        if self.shared.peers.is_empty() {
            self.close(listener);
        } else if let Some(listener) = listener {
            // An address with a key needs it in any case; this is about strangers, who are turned
            // away later otherwise.
            let _ = listener
                .socket()
                .auth_require(self.shared.peers.authenticate());
        }
    }

    /// Closes the port.
    fn close(&self, listener: &mut Option<Listener>) {
        if let Some(listener) = listener.take() {
            let counters = listener.socket().auth_counters();
            drop(listener);
            self.shared.stats.add_auth(&counters);
        }
    }

    /// Changes the keys of a peer.
    pub(crate) fn change_keys(
        &self,
        addr: Addr,
        change: impl FnOnce(&Keys, &Socket) -> Result<(), Refused>,
    ) -> Result<(), ChangeError> {
        let mut listener = self.port.lock();
        let peer = self.shared.peers.find(addr).ok_or(ChangeError::NoPeer)?;
        if let Some(listener) = &*listener {
            change(&peer.keys, listener.socket())?;
        }
        self.shared.peers.changed();
        self.settle(&mut listener);
        Ok(())
    }

    /// Calls `show` with each key of a peer.
    pub(crate) fn show_keys(&self, peer: &Peer, show: impl FnMut(&Shown) -> Result) -> Result {
        let listener = self.port.lock();
        let socket = listener.as_ref().map(|listener| listener.socket());
        peer.keys.show(socket, show)
    }

    /// What became of segments at the open port and from the present peers.
    pub(crate) fn auth_counters(&self) -> Counters {
        let mut sum = Counters::default();
        if let Some(listener) = &*self.port.lock() {
            sum.add(&listener.socket().auth_counters());
        }
        let mut next = 0;
        while let Some((peer, after)) = self.shared.peers.first_from(next) {
            sum.add(&peer.keys.counters());
            next = after;
        }
        sum
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
        state.close(&mut state.port.lock());
        // ... none is set up again, ...
        state.watch.cancel();
        // ... and the others end.
        state.shared.peers.close_all();
        state.shared.sessions.stop();
        // A hook that still runs finds its hold dropping.
        state.shared.arrivals.clear(&state.shared, net);
    }
}
