// SPDX-License-Identifier: GPL-2.0

//! What has come of a connection that is not here yet.

use crate::reason::{
    Code,
    Reason, //
};
use kernel::{
    macros::kunit_tests,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
    },
};
use nlb::{
    net::tcp::ConnectionData,
    wire::record::ConnectionState, //
};

/// Most memory of all such connections of a namespace, in bytes. A peer may begin with as many as there
/// is room for arrivals, and need not end with any.
const STAGED_MAX: usize = 256 << 20;

/// The memory of all such connections of a namespace.
pub(super) struct Staged(Atomic<usize>);

impl Staged {
    pub(super) fn new() -> Result<Arc<Self>> {
        Ok(Arc::new(Self(Atomic::new(0)), GFP_KERNEL)?)
    }

    /// So many bytes more are used, and are to be given back in any case; whether that is too much.
    fn book(&self, bytes: usize) -> Result<(), Reason> {
        let before = self.0.fetch_add(bytes, Relaxed);
        if before.saturating_add(bytes) > STAGED_MAX {
            return Err(Code::TooMany.into());
        }
        Ok(())
    }

    fn give_back(&self, bytes: usize) {
        let _ = self.0.fetch_sub(bytes, Relaxed);
    }
}

/// What came of the state so far.
pub(super) struct Incoming {
    pub(super) state: Option<ConnectionState>,
    pub(super) data: ConnectionData,
    /// The time that decoding and keeping it took, in nanoseconds.
    pub(super) took_ns: u64,
    /// What `total` has of it, in bytes of memory.
    booked: usize,
    total: Arc<Staged>,
}

impl Incoming {
    /// Nothing.
    pub(super) fn new(total: &Arc<Staged>) -> Self {
        Self {
            state: None,
            data: ConnectionData::new(),
            took_ns: 0,
            booked: 0,
            total: total.clone(),
        }
    }

    /// Adds the next bytes. Errors: they are too many, for this connection or for the namespace, or
    /// there is no memory.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        let state = self.state.as_ref().ok_or(Code::BadState)?;
        self.data.push(state, bytes)?;
        // What is too much is over by one piece for each connection at most.
        let size = self.data.truesize();
        let more = size.saturating_sub(self.booked);
        self.booked = size;
        self.total.book(more)
    }

    /// Frees what there is.
    pub(super) fn clear(&mut self) {
        self.state = None;
        self.data = ConnectionData::new();
        self.took_ns = 0;
        self.total.give_back(core::mem::take(&mut self.booked));
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.clear();
    }
}

#[kunit_tests(nlb_migrator_incoming)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_a_namespace_is_bounded() -> Result {
        let total = Staged::new()?;
        assert!(total.book(STAGED_MAX - 1).is_ok());
        assert!(total.book(1).is_ok());
        let refused = total.book(1).err().ok_or(EINVAL)?;
        assert_eq!(refused.code(), Reason::from(Code::TooMany).code());
        total.give_back(2);
        assert!(total.book(1).is_ok());
        Ok(())
    }
}
