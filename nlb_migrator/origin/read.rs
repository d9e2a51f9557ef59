// SPDX-License-Identifier: GPL-2.0

//! Bytes that the program has read from the connection and gives back.
//!
//! They go in front of the unread ones, as if the program had only peeked at them. The kernel has
//! let go of them when they were read, so it takes the program's word for what they were: it is the
//! program's own connection, which it could have answered as it likes. How many there can be, the
//! kernel knows.

use crate::reason::{
    Code,
    Reason, //
};
use nlb::{
    net::tcp::{
        ConnectionData,
        Frozen, //
    },
    wire::record::ConnectionState,
};

/// What was given back; empty as a rule.
#[derive(Clone, Copy)]
pub(crate) struct ReadData<'a>(pub(crate) &'a [u8]);

impl ReadData<'_> {
    /// The state as it was before the bytes were read.
    pub(super) fn rewind(&self, state: &mut ConnectionState) -> Result<(), Reason> {
        if self.0.is_empty() {
            return Ok(());
        }
        let len = u32::try_from(self.0.len()).map_err(|_| Code::NotRead)?;
        // A FIN counts as a byte received.
        let read = state
            .bytes_received
            .saturating_sub(u64::from(state.fin))
            .saturating_sub(u64::from(state.unread_len()));
        if u64::from(len) > read {
            return Err(Code::NotRead.into());
        }
        state.copied_seq = state.copied_seq.wrapping_sub(len);
        ConnectionData::check(state)?;
        Ok(())
    }

    /// Copies bytes that go along with `state`, which [`ReadData::rewind`] has rewound, from `offset`
    /// on: first these, then those of the connection.
    pub(super) fn copy(
        &self,
        frozen: &mut Frozen<'_>,
        state: &ConnectionState,
        offset: u32,
        to: &mut [u8],
    ) -> Result<(), Reason> {
        let own = self.0.get(offset as usize..).unwrap_or(&[]);
        let count = own.len().min(to.len());
        let (first, rest) = to.split_at_mut_checked(count).ok_or(Code::Internal)?;
        first.copy_from_slice(own.get(..count).ok_or(Code::Internal)?);
        // CAST: rewind() has checked the length, and `count` is not more.
        let offset = offset.saturating_add(count as u32);
        frozen.copy_data(state, offset, rest)?;
        Ok(())
    }
}
