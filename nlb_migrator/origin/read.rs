// SPDX-License-Identifier: GPL-2.0

//! Bytes that the program has read from the connection and that go with it all the same.
//!
//! They go in front of the unread ones, as if the program had only peeked at them. Either the program
//! gives them back, or they are those that were kept while it read them ([`crate::keep`]). In the
//! first case the kernel takes the program's word for what they were: it is the program's own
//! connection, which it could have answered as it likes. How many there can be, the kernel knows.

use crate::{
    keep::{
        Keeps,
        Kept, //
    },
    reason::{
        Code,
        Reason, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use nlb::{
    net::tcp::{
        ConnectionData,
        Frozen, //
    },
    wire::record::ConnectionState,
};

/// What a request says about bytes that were read.
pub(crate) enum ReadData {
    /// They stay with the program.
    Nothing,
    /// These go along, the last that were read.
    Given(KVVec<u8>),
    /// As many of the last that were read.
    Kept(u32),
    /// All that were read since the connection began.
    AllKept,
}

/// Where they are.
enum Source<'a> {
    Given(&'a [u8]),
    Kept {
        kept: Arc<Kept>,
        /// Bytes before them.
        skip: u32,
    },
}

/// The bytes that go along, found in a connection's state and for that.
pub(super) struct Rewound<'a> {
    source: Source<'a>,
    len: u32,
}

impl ReadData {
    /// Finds the bytes, and makes the state what it was before they were read.
    ///
    /// Most often there are none; a [`Reason`] is large, and so is a result that may be one.
    #[inline]
    pub(super) fn rewind(
        &self,
        keeps: &Keeps,
        frozen: &Frozen<'_>,
        state: &mut ConnectionState,
    ) -> Result<Rewound<'_>, Reason> {
        match self {
            ReadData::Nothing => Ok(Rewound {
                source: Source::Given(&[]),
                len: 0,
            }),
            _ => self.find_bytes(keeps, frozen, state),
        }
    }

    #[inline(never)]
    fn find_bytes(
        &self,
        keeps: &Keeps,
        frozen: &Frozen<'_>,
        state: &mut ConnectionState,
    ) -> Result<Rewound<'_>, Reason> {
        // A FIN counts as a byte received.
        let read = state
            .bytes_received
            .saturating_sub(u64::from(state.fin))
            .saturating_sub(u64::from(state.unread_len()));
        let count = |len: usize| u32::try_from(len).map_err(|_| Code::NotRead);
        let (source, len) = match self {
            ReadData::Given(bytes) => (Source::Given(bytes), count(bytes.len())?),
            &ReadData::Kept(len) if u64::from(len) <= read => {
                let (kept, all) = find(keeps, frozen, state, read)?;
                let skip = all.checked_sub(len).ok_or(Code::NotRead)?;
                (Source::Kept { kept, skip }, len)
            }
            &ReadData::Kept(len) => (Source::Given(&[]), len),
            ReadData::AllKept if read != 0 => {
                let (kept, len) = find(keeps, frozen, state, read)?;
                (Source::Kept { kept, skip: 0 }, len)
            }
            ReadData::AllKept | ReadData::Nothing => (Source::Given(&[]), 0),
        };
        if u64::from(len) > read {
            return Err(Code::NotRead.into());
        }
        // Without them nothing has changed since the freeze, which has checked it.
        if len != 0 {
            state.copied_seq = state.copied_seq.wrapping_sub(len);
            ConnectionData::check(state)?;
        }
        Ok(Rewound { source, len })
    }
}

/// The copy of all bytes that were read, and their number.
fn find(
    keeps: &Keeps,
    frozen: &Frozen<'_>,
    state: &ConnectionState,
    read: u64,
) -> Result<(Arc<Kept>, u32), Reason> {
    let kept = keeps.of(&state.tuple).ok_or(Code::NotKept)?;
    let len = kept.len(frozen.socket(), state.copied_seq, read);
    Ok((kept, len.ok_or(Code::NotKept)?))
}

impl Rewound<'_> {
    /// Copies bytes that go along with `state`, which [`ReadData::rewind`] has rewound, from `offset`
    /// on: first these, then those of the connection.
    pub(super) fn copy(
        &self,
        frozen: &mut Frozen<'_>,
        state: &ConnectionState,
        offset: u32,
        to: &mut [u8],
    ) -> Result<(), Reason> {
        let count = to.len().min(self.len.saturating_sub(offset) as usize);
        let (first, rest) = to.split_at_mut_checked(count).ok_or(Code::Internal)?;
        match &self.source {
            _ if first.is_empty() => {}
            Source::Given(bytes) => {
                let from = bytes.get(offset as usize..).unwrap_or(&[]);
                first.copy_from_slice(from.get(..count).ok_or(Code::Internal)?);
            }
            Source::Kept { kept, skip } => kept.copy(skip.saturating_add(offset), first)?,
        }
        // CAST: Not more than `len`.
        let offset = offset.saturating_add(count as u32);
        frozen.copy_data(state, offset, rest)?;
        Ok(())
    }
}
