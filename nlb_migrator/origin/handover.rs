// SPDX-License-Identifier: GPL-2.0

//! Requests to migrate, from the moment they are sent to their answer.
//!
//! The thread that sends the request does the migration on its way out of `sendmsg()`, where it holds no
//! lock of netlink any more: a target that is silent keeps nobody waiting but the sender. The answer is a
//! dump, of which only the socket knows when it is read, so what has come of it is kept until then.

use super::{
    migrate,
    ReadData, //
};
use crate::{
    reason::{
        Code,
        Reason, //
    },
    registry::{
        Entry,
        MAX_LIVE, //
    },
    state::Shared,
};
use kernel::{
    new_mutex,
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNodeReservation, //
    },
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    },
};
use nlb::{
    completion::Completion,
    net::{
        tcp::TcpSocket,
        Net, //
    },
    on_return::{
        OnReturn,
        ThreadId, //
    },
    wire::addr::Addr,
};

/// How long a reader who is not the sender is kept in a call of the dump, in milliseconds.
const SLICE_MS: u32 = 100;

static ON_RETURN: OnReturn = OnReturn::new(&crate::THIS_MODULE);

/// What a request asks for.
pub(crate) struct Wanted {
    pub(crate) socket: TcpSocket,
    pub(crate) read: ReadData,
    pub(crate) peer: Addr,
    pub(crate) timeout_ms: u32,
}

/// The migration, or why nothing was begun.
type Outcome = Result<Arc<Entry>, Reason>;

/// A request whose answer was not read yet.
#[pin_data]
pub(crate) struct Handover {
    sender: ThreadId,
    /// There will be an answer: netlink had memory for the first piece.
    heard: Atomic<bool>,
    #[pin]
    outcome: Mutex<Option<Outcome>>,
    #[pin]
    ended: Completion,
}

impl Handover {
    /// The first call of the dump, if it is made where the request is sent. Else the sender has been told
    /// that there is no memory for the answer, and may take that for its end.
    pub(crate) fn listen(&self) {
        if ThreadId::current() == self.sender {
            self.heard.store(true, Relaxed);
        }
    }

    /// What has come of it; waits a little for that.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        if !self.ended.wait_timeout(SLICE_MS) {
            return None;
        }
        self.outcome.lock().clone()
    }

    fn end(&self, outcome: Outcome) {
        *self.outcome.lock() = Some(outcome);
        self.ended.complete_all();
    }
}

struct Inner {
    by_id: RBTree<u64, Arc<Handover>>,
    count: usize,
    last: u64,
}

/// The requests of a namespace.
#[pin_data]
pub(crate) struct Handovers {
    #[pin]
    inner: Mutex<Inner>,
}

impl Handovers {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- new_mutex!(
                Inner {
                    by_id: RBTree::new(),
                    count: 0,
                    last: 0,
                },
                "nlb_migrator::Handovers"
            ),
        })
    }

    /// Has the calling thread migrate a connection when its system call is over; by the number that this
    /// returns its outcome is found, until [`Self::forget`].
    pub(crate) fn begin(
        &self,
        shared: &Arc<Shared>,
        net: &Net,
        wanted: Wanted,
    ) -> Result<u64, Reason> {
        let node = RBTreeNodeReservation::new(GFP_KERNEL)?;
        let handover = Arc::pin_init(
            pin_init!(Handover {
                sender: ThreadId::current(),
                heard: Atomic::new(false),
                outcome <- new_mutex!(None, "nlb_migrator::Handover"),
                ended <- Completion::new(),
            }),
            GFP_KERNEL,
        );
        let handover = handover.map_err(|_| Code::NoMemory)?;
        let id = {
            let mut inner = self.inner.lock();
            if inner.count >= MAX_LIVE {
                return Err(Code::TooMany.into());
            }
            inner.count += 1;
            inner.last = inner.last.wrapping_add(1);
            let id = inner.last;
            inner.by_id.insert(node.into_node(id, handover.clone()));
            id
        };
        // Neither the namespace nor the module goes meanwhile, whatever becomes of the netlink socket.
        let (shared, net) = (shared.clone(), ARef::from(net));
        let work = move || {
            let outcome = if handover.heard.load(Relaxed) {
                migrate(
                    &shared,
                    &net,
                    &wanted.socket,
                    &wanted.read,
                    wanted.peer,
                    wanted.timeout_ms,
                )
            } else {
                Err(Code::NoMemory.into())
            };
            drop(wanted);
            handover.end(outcome);
        };
        if ON_RETURN.schedule(work).is_err() {
            self.forget(id);
            return Err(Code::NoMemory.into());
        }
        Ok(id)
    }

    pub(crate) fn find(&self, id: u64) -> Option<Arc<Handover>> {
        self.inner.lock().by_id.get(&id).cloned()
    }

    /// Its answer was read, or nobody will.
    pub(crate) fn forget(&self, id: u64) {
        let mut inner = self.inner.lock();
        let node = inner.by_id.remove_node(&id);
        inner.count = inner.count.saturating_sub(node.is_some().into());
        drop(inner);
        drop(node);
    }
}
