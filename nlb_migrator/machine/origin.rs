// SPDX-License-Identifier: GPL-2.0

//! The side that gives a connection away.

use super::Step;

/// How far the origin has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OriginState {
    /// Nothing was sent.
    New,
    /// PREPARE is sent; the connection works as ever.
    Preparing,
    /// The socket is locked and STATE is sent; nobody transmits.
    Frozen,
    /// COMMIT is sent; only the target's answer tells who owns the connection. Nobody transmits here.
    Committed,
    /// The target owns the connection.
    Active,
    /// The target reported the end of the connection.
    Closed,
    /// The target refused; the connection stayed.
    Refused,
    /// Rolled back; the connection stayed.
    Aborted,
    /// Nobody can tell who owns the connection, so it was reset.
    Reset,
}

impl OriginState {
    /// Whether the caller has to wait for an answer of the target.
    pub(crate) fn is_waiting(self) -> bool {
        matches!(self, Self::Preparing | Self::Frozen | Self::Committed)
    }

    /// Whether the connection is neither being moved nor moved.
    pub(crate) fn is_ended(self) -> bool {
        matches!(
            self,
            Self::Closed | Self::Refused | Self::Aborted | Self::Reset
        )
    }
}

/// What can happen to an origin.
#[derive(Debug)]
pub(crate) enum OriginEvent<R> {
    /// READY: the target holds early packets.
    Ready,
    /// STAGED: the target has the whole state.
    Staged,
    /// INJECTED: the connection lives at the target.
    Injected,
    /// REFUSED: the target will not have it.
    Refused(R),
    /// FAILED: the target did not inject it and never will. From the life of the target that
    /// PREPARE went to: what another life says comes after [`Self::Forgotten`].
    Failed(R),
    /// CLOSED: the connection ended at the target.
    Closed,
    /// The answer may not come: connection to the peer lost, or silence for a while.
    Lost(R),
    /// The time for the answer is over, or the caller cannot wait: killed before COMMIT, or the
    /// module goes.
    Expired(R),
    /// The target knows nothing of the migration any more, and will not report its end: it has begun
    /// a new life, or is no peer now.
    Forgotten(R),
}

/// What an origin does to the world.
///
/// A function that returns a reason has undone, or will undo in [`Self::thaw`] and
/// [`Self::unplumb`], what it began.
pub(crate) trait OriginOps {
    /// Why a migration did not go through.
    type Reason;

    /// Reserves the route and sends PREPARE. After an error, the target may get it all the same.
    fn send_prepare(&mut self) -> Result<(), Self::Reason>;
    /// Activates the route; when it returns, no packet of the connection takes the old way.
    fn plumb(&mut self) -> Result<(), Self::Reason>;
    /// Locks the socket and checks once more that it can be exported.
    fn freeze(&mut self) -> Result<(), Self::Reason>;
    /// Takes the state out of the socket and sends it. After an error, the target may get it all the same.
    fn send_state(&mut self) -> Result<(), Self::Reason>;
    /// Sends COMMIT. An error means that the target cannot have got the whole record.
    fn send_commit(&mut self) -> Result<(), Self::Reason>;
    /// Sends COMMIT once more, over another connection to the peer if that helps and there is one.
    fn ask(&mut self);
    /// Closes the socket without a packet.
    fn close(&mut self);
    /// Unlocks the socket, if it is locked; what waited is processed.
    fn thaw(&mut self);
    /// Closes the socket, and sees to it that the client gets one RST that it must accept. The
    /// client's packets come here again.
    fn reset(&mut self);
    /// Removes the route or its reservation, if there is one.
    fn unplumb(&mut self);
    /// The connection ended at the target: the route has served its time.
    fn purge(&mut self);
    /// Nothing will be heard of the end of the connection at the target. The route is left to expire by
    /// itself, for the connection may well be alive.
    fn unwatch(&mut self);
    /// Tells the target, if it can be reached, to forget the migration.
    fn send_abort(&mut self);
    /// The machine is in this state now, for this reason.
    fn entered(&mut self, state: OriginState, reason: Option<&Self::Reason>);
}

/// A migration as the origin sees it.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    state: OriginState,
}

impl Origin {
    pub(crate) const fn new() -> Self {
        Self {
            state: OriginState::New,
        }
    }

    pub(crate) fn state(&self) -> OriginState {
        self.state
    }

    /// Begins the migration.
    pub(crate) fn start<O: OriginOps>(&mut self, ops: &mut O) -> Step {
        if self.state != OriginState::New {
            return Step::Ignored;
        }
        match ops.send_prepare() {
            Ok(()) => self.enter(ops, OriginState::Preparing, None),
            Err(reason) => self.roll_back(ops, OriginState::Aborted, reason, true),
        }
        Step::Taken
    }

    /// Handles one event.
    pub(crate) fn step<O: OriginOps>(
        &mut self,
        ops: &mut O,
        event: OriginEvent<O::Reason>,
    ) -> Step {
        use OriginEvent as E;
        use OriginState as S;

        match (self.state, event) {
            (S::Preparing, E::Ready) => {
                if let Err(reason) = Self::hand_over(ops) {
                    self.roll_back(ops, S::Aborted, reason, true);
                } else {
                    self.enter(ops, S::Frozen, None);
                }
            }
            (S::Frozen, E::Staged) => match ops.send_commit() {
                Ok(()) => self.enter(ops, S::Committed, None),
                Err(reason) => self.roll_back(ops, S::Aborted, reason, true),
            },
            (S::Committed, E::Injected) => {
                ops.close();
                self.enter(ops, S::Active, None);
            }
            // It lived and ended already: INJECTED was overtaken.
            (S::Committed, E::Closed) => {
                ops.close();
                ops.purge();
                self.enter(ops, S::Closed, None);
            }
            // It has ended so long ago that the target, asked again, does not know it any more.
            (S::Active, E::Closed | E::Failed(_)) => {
                ops.purge();
                self.enter(ops, S::Closed, None);
            }
            // So the target says when it is asked.
            (S::Active, E::Injected) => {}
            (S::Active, E::Forgotten(reason)) => {
                ops.unwatch();
                self.enter(ops, S::Closed, Some(&reason));
            }
            // The target dropped what it had before it said so.
            (S::Preparing | S::Frozen | S::Committed, E::Refused(reason) | E::Failed(reason)) => {
                self.roll_back(ops, S::Refused, reason, false);
            }
            (
                S::Preparing | S::Frozen,
                E::Lost(reason) | E::Expired(reason) | E::Forgotten(reason),
            ) => {
                self.roll_back(ops, S::Aborted, reason, true);
            }
            // The target remembers for longer than we ask.
            (S::Committed, E::Lost(_)) => ops.ask(),
            // The target may own the connection, or has owned it and spoken to the client. The route
            // goes first, so that the client's answers come here.
            (S::Committed, E::Expired(reason) | E::Forgotten(reason)) => {
                ops.unplumb();
                ops.reset();
                ops.send_abort();
                self.enter(ops, S::Reset, Some(&reason));
            }
            _ => return Step::Ignored,
        }
        Step::Taken
    }

    fn hand_over<O: OriginOps>(ops: &mut O) -> Result<(), O::Reason> {
        ops.plumb()?;
        ops.freeze()?;
        ops.send_state()
    }

    /// Makes everything as it was. The socket is unlocked only after its packets come here again.
    fn roll_back<O: OriginOps>(
        &mut self,
        ops: &mut O,
        end: OriginState,
        reason: O::Reason,
        tell: bool,
    ) {
        ops.unplumb();
        ops.thaw();
        if tell {
            ops.send_abort();
        }
        self.enter(ops, end, Some(&reason));
    }

    fn enter<O: OriginOps>(&mut self, ops: &mut O, state: OriginState, reason: Option<&O::Reason>) {
        self.state = state;
        ops.entered(state, reason);
    }
}
