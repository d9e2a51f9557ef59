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
    keep::{
        Keeps,
        Setting,
        Vip, //
    },
    log::Limit,
    origin::{
        Handovers,
        Transfers, //
    },
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
    Ipv6Addr,
    SocketAddr, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
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
        tcp::ReadWatch,
        Net, //
    },
    random,
    sync::{
        rcu,
        rhashtable::InsertError, //
    },
    wire::addr::Addr,
    work::DelayedWork, //
};

/// Connections of a namespace with its peers, both ways.
const MAX_SESSIONS: usize = 512;
/// Connections that wait to be accepted at the port.
const BACKLOG: u32 = 64;

pub(crate) static STATE: netns::State<State> = netns::State::new();

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
    pub(crate) handovers: Handovers,
    #[pin]
    pub(crate) transfers: Transfers,
    #[pin]
    pub(crate) arrivals: Arrivals,
    #[pin]
    pub(crate) holds: Holds,
    #[pin]
    pub(crate) tombstones: Tombstones,
    #[pin]
    pub(crate) keeps: Keeps,
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
            handovers <- Handovers::new(),
            transfers <- Transfers::new(),
            arrivals <- Arrivals::new(),
            holds <- Holds::new(),
            tombstones <- Tombstones::new(),
            keeps <- Keeps::new(),
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

/// The port, of each family open while there are peers of it. IPv4 has a socket of its own, for keys
/// belong to addresses as they stand in packets.
struct Port {
    v4: Option<Listener>,
    v6: Option<Listener>,
}

impl Port {
    const CLOSED: Self = Self { v4: None, v6: None };

    /// Where peers of this family connect to.
    fn of(&mut self, v4: bool) -> &mut Option<Listener> {
        if v4 {
            &mut self.v4
        } else {
            &mut self.v6
        }
    }

    /// The socket that `peer` connects to.
    fn socket(&self, peer: &Addr) -> Option<&Socket> {
        let listener = if peer.is_v4() { &self.v4 } else { &self.v6 };
        listener.as_ref().map(|listener| listener.socket())
    }
}

/// The state of a namespace.
#[pin_data]
pub(crate) struct State {
    pub(crate) shared: Arc<Shared>,
    /// The port. The lock also orders changes of the peers.
    #[pin]
    port: Mutex<Port>,
    watch: DelayedWork,
    /// There while there are settings. The lock also orders changes of these.
    #[pin]
    reads: Mutex<Option<ReadWatch<Shared>>>,
}

/// Why what is to be kept was not changed.
pub(crate) enum KeepError {
    /// The table of settings does not take it.
    Table(InsertError),
    /// Reads cannot be watched.
    Watch(Error),
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
    /// Adds a peer, without a key an unauthenticated one; the first one of its family opens the port.
    pub(crate) fn add_peer(
        &self,
        net: &Net,
        addr: Addr,
        port: u16,
        key: Option<Key>,
    ) -> Result<(), ChangeError> {
        let mut port_lock = self.port.lock();
        let listener = port_lock.of(addr.is_v4());
        if listener.is_none() {
            let any = if addr.is_v4() {
                SocketAddr::from((Ipv4Addr::UNSPECIFIED, uapi::PORT))
            } else {
                SocketAddr::from((Ipv6Addr::UNSPECIFIED, uapi::PORT))
            };
            let shared = self.shared.clone();
            let name = fmt!("nlb-migrator");
            let accept = move |listener: &Socket, socket| {
                transport::accept(&shared, listener, socket);
            };
            let started = Listener::start(net, any, BACKLOG, name, accept);
            *listener = Some(started.map_err(ChangeError::Port)?);
            self.watch.schedule(watch::PERIOD_MS);
        }
        let added = match listener {
            Some(listener) => self.shared.peers.add(listener.socket(), addr, port, key),
            None => Ok(()),
        };
        self.settle(&mut port_lock);
        added.map_err(ChangeError::Peer)
    }

    /// Removes a peer and closes its connections; the last one of its family closes the port.
    pub(crate) fn remove_peer(&self, net: &Net, addr: Addr) -> Result<(), ChangeError> {
        let mut port = self.port.lock();
        let peer = self.shared.peers.remove(addr).ok_or(ChangeError::NoPeer)?;
        if let Some(listener) = port.socket(&addr) {
            peer.keys.withdraw(listener);
        }
        self.settle(&mut port);
        drop(port);
        self.shared.stats.add_auth(&peer.keys.counters());
        self.shared.transfers.peer_removed(&self.shared, net, &peer);
        // That may have left something to look after.
        self.watch.schedule(watch::PERIOD_MS);
        Ok(())
    }

    /// Closes the port if there are no peers, and lets in unsigned segments if there are some that
    /// need it.
    fn settle(&self, port: &mut Port) {
        for v4 in [true, false] {
            match (self.shared.peers.authenticate(v4), port.of(v4)) {
                (None, listener) => self.close(listener),
                // An address with a key needs it in any case; this is about strangers, who are
                // turned away later otherwise.
                (Some(all), Some(listener)) => {
                    let _ = listener.socket().auth_require(all);
                }
                (Some(_), None) => {}
            }
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
        let mut port = self.port.lock();
        let peer = self.shared.peers.find(addr).ok_or(ChangeError::NoPeer)?;
        if let Some(listener) = port.socket(&addr) {
            change(&peer.keys, listener)?;
        }
        self.shared.peers.changed();
        self.settle(&mut port);
        Ok(())
    }

    /// Has what programs read from connections to an address and port kept, from now on.
    pub(crate) fn keep(&self, net: &Net, setting: Setting) -> Result<(), KeepError> {
        let mut reads = self.reads.lock();
        let keeps = &self.shared.keeps;
        if reads.is_none() {
            let watch = ReadWatch::start(net, self.shared.clone());
            *reads = Some(watch.map_err(KeepError::Watch)?);
        }
        let added = keeps.add(setting).map_err(KeepError::Table);
        if keeps.is_empty() {
            *reads = None;
        }
        added
    }

    /// Ends that, and lets go of the copies. False if nothing was to be kept.
    pub(crate) fn keep_no_more(&self, vip: &Vip) -> bool {
        let mut reads = self.reads.lock();
        let keeps = &self.shared.keeps;
        if !keeps.remove(vip) {
            return false;
        }
        if keeps.is_empty() {
            *reads = None;
        }
        // Whoever has seen the setting is done with its copy when this returns.
        rcu::synchronize_expedited();
        keeps.tidy();
        true
    }

    /// Calls `show` with each key of a peer.
    pub(crate) fn show_keys(&self, peer: &Peer, show: impl FnMut(&Shown) -> Result) -> Result {
        let port = self.port.lock();
        peer.keys.show(port.socket(&peer.addr), show)
    }

    /// What became of segments at the open port and from the present peers.
    pub(crate) fn auth_counters(&self) -> Counters {
        let mut sum = Counters::default();
        let port = self.port.lock();
        for listener in [&port.v4, &port.v6].into_iter().flatten() {
            sum.add(&listener.socket().auth_counters());
        }
        drop(port);
        let mut next = 0;
        while let Some((peer, after)) = self.shared.peers.first_from(next) {
            sum.add(&peer.keys.counters());
            next = after;
        }
        sum
    }
}

impl PerNet for State {
    const HOOKS: &'static [HookOps] = &[
        HookOps::new::<LocalIn>(),
        HookOps::new::<OverIpv6<LocalIn>>(),
    ];

    fn state() -> &'static netns::State<Self> {
        &STATE
    }

    fn init(_net: &Net, weak: WeakNet) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let shared = Arc::pin_init(Shared::new(weak), GFP_KERNEL)?;
            let watched = shared.clone();
            Ok(try_pin_init!(Self {
                shared,
                port <- new_mutex!(Port::CLOSED, "nlb_migrator::State"),
                reads <- new_mutex!(None, "nlb_migrator::State::reads"),
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
        let mut port = state.port.lock();
        state.close(&mut port.v4);
        state.close(&mut port.v6);
        drop(port);
        // ... none is set up again, ...
        state.watch.cancel();
        // ... nothing is kept, ...
        *state.reads.lock() = None;
        // ... and the others end.
        state.shared.peers.close_all();
        state.shared.sessions.stop();
        // A hook that still runs finds its hold dropping.
        state.shared.arrivals.clear(&state.shared, net);
    }
}
