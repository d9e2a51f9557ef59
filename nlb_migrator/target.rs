// SPDX-License-Identifier: GPL-2.0

//! Taking a connection over: PREPARE to INJECTED, and on to its end.

mod arrival;
mod incoming;

use crate::{
    machine::{
        TargetEvent,
        TargetState, //
    },
    netlink,
    reason::{
        Code,
        Reason, //
    },
    registry::MAX_LIVE,
    state::Shared,
    stats::Counter,
    transport::Link,
    uapi::{
        Phase,
        Role, //
    }, //
};
use arrival::{
    Arrival,
    Piece, //
};
use incoming::Staged;
use kernel::{
    new_mutex,
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNodeReservation, //
    },
    sync::{
        atomic::Relaxed,
        Arc,
        Mutex, //
    },
};
use nlb::{
    net::Net,
    wire::{
        addr::Addr,
        record::{
            Prepare,
            Record, //
        }, //
    },
};

/// Arrivals remembered, the ended included.
const MAX_ARRIVALS: usize = 2 * MAX_LIVE;

/// Migration id and origin. Ids hardly ever collide, so one comparison is enough most often.
type Key = (u64, Addr);

/// The next key there may be.
fn after((id, origin): Key) -> Option<Key> {
    match u128::from_be_bytes(*origin.as_bytes()).checked_add(1) {
        Some(next) => Some((id, Addr::v6(next.to_be_bytes()))),
        None => Some((id.checked_add(1)?, Addr::v6([0; 16]))),
    }
}

/// The arrivals of a namespace.
#[pin_data]
pub(crate) struct Arrivals {
    #[pin]
    table: Mutex<Table>,
    staged: Arc<Staged>,
}

struct Table {
    tree: RBTree<Key, Arc<Arrival>>,
    len: usize,
}

impl Arrivals {
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            table <- new_mutex!(
                Table {
                    tree: RBTree::new(),
                    len: 0,
                },
                "nlb_migrator::Arrivals"
            ),
            staged: Staged::new()?,
        })
    }

    /// Handles a record of an origin about migration `id`, whose decoding began at `began` in
    /// nanoseconds of CLOCK_MONOTONIC. `false`: no origin sends such a record.
    pub(crate) fn deliver(
        &self,
        shared: &Shared,
        net: &Net,
        link: &Arc<Link>,
        id: u64,
        record: &Record<'_>,
        began: u64,
    ) -> bool {
        let known = self.find(&(id, link.peer().addr));
        let unknown = || Reason::from(Code::UnknownMigration);
        // An origin that cannot be reached gives up by itself.
        let answer = |record: Record<'_>| {
            let _ = link.send(&shared.stats, id, &record);
            true
        };
        let (arrival, event) = match (known, record) {
            (None, Record::Prepare(prepare)) => {
                self.prepare(shared, net, link, id, prepare);
                return true;
            }
            (None, Record::State(_)) => return answer(Record::Refused(unknown().as_record())),
            (None, Record::Commit) => return answer(Record::Failed(unknown().as_record())),
            (None, Record::Abort) => return answer(Record::Aborted),
            (Some(arrival), Record::Prepare(prepare)) => {
                if prepare.connection.tuple != arrival.entry.tuple
                    || prepare.forwarder != arrival.forwarder
                    || prepare.flow_id != arrival.flow_id
                {
                    let reason = Reason::from(Code::IdInUse);
                    return answer(Record::Refused(reason.as_record()));
                }
                (arrival, TargetEvent::Prepare)
            }
            (Some(arrival), Record::State(state)) => {
                (arrival, TargetEvent::State(Piece { state, began }))
            }
            (Some(arrival), Record::Commit) => (arrival, TargetEvent::Commit),
            (Some(arrival), Record::Abort) => {
                (arrival, TargetEvent::Abort(Code::OriginAborted.into()))
            }
            _ => return false,
        };
        arrival.step(shared, net, Some(link), event);
        true
    }

    fn find(&self, key: &Key) -> Option<Arc<Arrival>> {
        self.table.lock().tree.get(key).cloned()
    }

    /// Handles PREPARE: READY if the connection can come here, else REFUSED.
    fn prepare(
        &self,
        shared: &Shared,
        net: &Net,
        link: &Arc<Link>,
        id: u64,
        prepare: &Prepare<'_>,
    ) {
        let peer = link.peer();
        let refuse = |reason: &Reason| {
            peer.refused.add(1, Relaxed);
            shared.stats.inc(Counter::InRefused);
            let _ = link.send(&shared.stats, id, &Record::Refused(reason.as_record()));
        };
        let tuple = prepare.connection.tuple;
        let flow_id = prepare.flow_id.value();
        let entry = match shared
            .registry
            .begin(id, Role::Target, peer.addr, tuple, flow_id)
        {
            Ok(Some(entry)) => entry,
            Ok(None) => return refuse(&Code::TooMany.into()),
            Err(error) => return refuse(&error.into()),
        };
        let admitted = Arrival::admit(shared, net, link, &entry, prepare).and_then(|arrival| {
            self.insert((id, peer.addr), &arrival)
                .inspect_err(|_| arrival.clear(shared, net))
        });
        match admitted {
            Ok(()) => {
                entry.update(|info| info.phase = Phase::Prepared);
                let _ = link.send(&shared.stats, id, &Record::Ready);
            }
            Err(reason) => {
                entry.update(|info| {
                    info.phase = Phase::Refused;
                    info.reason = Some(reason);
                    info.total_ns = entry.elapsed_ns();
                });
                shared.registry.end(&entry);
                refuse(&reason);
                netlink::notify(net, &entry);
            }
        }
    }

    fn insert(&self, key: Key, arrival: &Arc<Arrival>) -> Result<(), Reason> {
        let node = RBTreeNodeReservation::new(GFP_KERNEL)?;
        let mut table = self.table.lock();
        if table.len >= MAX_ARRIVALS {
            return Err(Code::TooMany.into());
        }
        // Two connections of one origin could bring the same id at the same time.
        if table.tree.get(&key).is_some() {
            return Err(Code::IdInUse.into());
        }
        table.tree.insert(node.into_node(key, arrival.clone()));
        table.len = table.len.saturating_add(1);
        Ok(())
    }

    fn remove(&self, key: &Key) {
        let mut table = self.table.lock();
        let node = table.tree.remove_node(key);
        if node.is_some() {
            table.len = table.len.saturating_sub(1);
        }
        drop(table);
        drop(node);
    }

    /// Calls `visit` for each arrival, without the table's lock.
    fn each(&self, mut visit: impl FnMut(Key, &Arc<Arrival>)) {
        let mut next = (0, Addr::v6([0; 16]));
        loop {
            let (key, arrival) = {
                let table = self.table.lock();
                let Some(cursor) = table.tree.cursor_lower_bound(&next) else {
                    return;
                };
                let (&key, arrival) = cursor.current();
                (key, arrival.clone())
            };
            visit(key, &arrival);
            match after(key) {
                Some(key) => next = key,
                None => return,
            }
        }
    }

    /// The connection to an origin is lost: drops what has not been injected over it.
    pub(crate) fn link_lost(&self, shared: &Shared, net: &Net, link: &Arc<Link>) {
        self.each(|_, arrival| arrival.link_lost(shared, net, link));
    }

    /// An origin has connected again: tells it the ends it may not have heard of.
    pub(crate) fn link_up(&self, shared: &Shared, link: &Arc<Link>) {
        self.each(|(id, origin), arrival| {
            if origin == link.peer().addr && arrival.state() == TargetState::Closed {
                let _ = link.send(&shared.stats, id, &Record::Closed);
            }
        });
    }

    /// Looks after each arrival, once a second: notices ends and lets nothing stay for ever.
    pub(crate) fn tidy(&self, shared: &Shared, net: &Net) {
        self.each(|key, arrival| {
            if !arrival.tidy(shared, net) {
                self.remove(&key);
            }
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.table.lock().len == 0
    }

    /// Lets go of everything; the connections that live here go on.
    pub(crate) fn clear(&self, shared: &Shared, net: &Net) {
        let tree = {
            let mut table = self.table.lock();
            table.len = 0;
            core::mem::replace(&mut table.tree, RBTree::new())
        };
        for arrival in tree.values() {
            arrival.clear(shared, net);
        }
    }
}
