// SPDX-License-Identifier: GPL-2.0

//! The side that takes a connection over.

use super::Step;

/// How far the target has come. A machine begins when PREPARE was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TargetState {
    /// Early packets are held, the state has not come or not wholly.
    Prepared,
    /// The whole state is here and checked; nothing is visible yet.
    Staged,
    /// The connection lives here.
    Active,
    /// The connection lived and ended here.
    Closed,
    /// Refused here; the connection stayed at the origin.
    Refused,
    /// The origin took it back, or was not heard of again.
    Aborted,
}

impl TargetState {
    /// Whether the connection is neither on its way nor here.
    pub(crate) fn is_ended(self) -> bool {
        matches!(self, Self::Closed | Self::Refused | Self::Aborted)
    }
}

/// What can happen to a target.
#[derive(Debug)]
pub(crate) enum TargetEvent<C, R> {
    /// PREPARE once more.
    Prepare,
    /// A piece of the state.
    State(C),
    /// COMMIT.
    Commit,
    /// ABORT.
    Abort(R),
    /// The connection to the origin is lost, or the origin took too long.
    Lost(R),
    /// The application and the client ended the connection.
    Gone,
}

/// What a target says to the origin.
#[derive(Debug)]
pub(crate) enum Answer<'a, R> {
    Ready,
    Staged,
    Injected,
    Refused(&'a R),
    Failed(&'a R),
    Aborted,
    Closed,
}

/// What a target does to the world.
pub(crate) trait TargetOps {
    /// A piece of the state.
    type Chunk;
    /// Why a migration did not go through.
    type Reason;

    /// Takes a piece; `true` when it was the last and the whole was parsed, checked and given
    /// memory.
    fn take(&mut self, chunk: Self::Chunk) -> Result<bool, Self::Reason>;
    /// Builds the connection, queues it for `accept()` and delivers what was held. On an error,
    /// e.g. because the state is not whole, nothing of it is left.
    fn inject(&mut self) -> Result<(), Self::Reason>;
    /// Drops the state and the held packets, and from now on those that come.
    fn forget(&mut self);
    /// Drops the connection without a packet, and the mapping: the origin has reset it.
    fn kill(&mut self);
    /// The connection ended: lets go of it and of the mapping.
    fn ended(&mut self);
    /// Sends an answer to the origin, if it can be reached.
    fn answer(&mut self, answer: Answer<'_, Self::Reason>);
    /// The machine is in this state now.
    fn entered(&mut self, state: TargetState, reason: Option<&Self::Reason>);
}

/// A migration as the target sees it.
#[derive(Clone, Debug)]
pub(crate) struct Target<R> {
    state: TargetState,
    /// Why it ended, to answer a doubled record as the first time.
    reason: Option<R>,
}

impl<R> Target<R> {
    /// A machine whose PREPARE was accepted.
    pub(crate) const fn new() -> Self {
        Self {
            state: TargetState::Prepared,
            reason: None,
        }
    }

    pub(crate) fn state(&self) -> TargetState {
        self.state
    }

    /// Handles one event.
    pub(crate) fn step<O: TargetOps<Reason = R>>(
        &mut self,
        ops: &mut O,
        event: TargetEvent<O::Chunk, R>,
    ) -> Step {
        use TargetEvent as E;
        use TargetState as S;

        match (self.state, event) {
            (S::Prepared, E::Prepare) => ops.answer(Answer::Ready),
            (S::Prepared, E::State(chunk)) => match ops.take(chunk) {
                Ok(false) => {}
                Ok(true) => {
                    self.enter(ops, S::Staged, None);
                    ops.answer(Answer::Staged);
                }
                Err(reason) => self.refuse(ops, reason),
            },
            (S::Staged, E::State(_)) => ops.answer(Answer::Staged),
            (S::Prepared | S::Staged, E::Commit) => match ops.inject() {
                Ok(()) => {
                    self.enter(ops, S::Active, None);
                    ops.answer(Answer::Injected);
                }
                Err(reason) => {
                    ops.forget();
                    ops.answer(Answer::Failed(&reason));
                    self.enter(ops, S::Refused, Some(reason));
                }
            },
            (S::Active, E::Commit) => ops.answer(Answer::Injected),
            (S::Closed, E::Commit) => {
                ops.answer(Answer::Injected);
                ops.answer(Answer::Closed);
            }
            // The origin thinks that the state came; whatever happened to it, it is not here.
            (S::Refused | S::Aborted, E::Commit) => {
                if let Some(reason) = &self.reason {
                    ops.answer(Answer::Failed(reason));
                }
            }
            (S::Refused | S::Aborted, E::State(_) | E::Prepare) => {
                if let Some(reason) = &self.reason {
                    ops.answer(Answer::Refused(reason));
                }
            }
            (S::Prepared | S::Staged, E::Abort(reason)) => {
                ops.forget();
                self.enter(ops, S::Aborted, Some(reason));
                ops.answer(Answer::Aborted);
            }
            (S::Prepared | S::Staged, E::Lost(reason)) => {
                ops.forget();
                self.enter(ops, S::Aborted, Some(reason));
            }
            // An origin that aborts after COMMIT has reset the connection.
            (S::Active, E::Abort(reason)) => {
                ops.kill();
                self.enter(ops, S::Aborted, Some(reason));
                ops.answer(Answer::Aborted);
            }
            (S::Closed | S::Refused | S::Aborted, E::Abort(_)) => ops.answer(Answer::Aborted),
            (S::Active, E::Gone) => {
                ops.ended();
                self.enter(ops, S::Closed, None);
                ops.answer(Answer::Closed);
            }
            _ => return Step::Ignored,
        }
        Step::Taken
    }

    fn refuse<O: TargetOps<Reason = R>>(&mut self, ops: &mut O, reason: R) {
        ops.forget();
        ops.answer(Answer::Refused(&reason));
        self.enter(ops, TargetState::Refused, Some(reason));
    }

    fn enter<O: TargetOps<Reason = R>>(
        &mut self,
        ops: &mut O,
        state: TargetState,
        reason: Option<R>,
    ) {
        self.state = state;
        self.reason = reason;
        ops.entered(state, self.reason.as_ref());
    }
}
