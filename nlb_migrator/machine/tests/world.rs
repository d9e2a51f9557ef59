// SPDX-License-Identifier: GPL-2.0

//! Worlds for the state machines to act on: they do nothing but remember, and notice mistakes.

use super::super::{
    Answer,
    Origin,
    OriginEvent,
    OriginOps,
    OriginState,
    Step,
    Target,
    TargetEvent,
    TargetOps,
    TargetState, //
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Socket {
    Open,
    Locked,
    ClosedSilently,
    Reset,
}

/// The operation that fails in a run of the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    Prepare,
    Plumb,
    Freeze,
    State,
    Commit,
}

/// A record on its way to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ToTarget {
    Prepare,
    State,
    Commit,
    Abort,
}

impl ToTarget {
    pub(super) const ALL: [Self; 4] = [Self::Prepare, Self::State, Self::Commit, Self::Abort];
}

/// A record on its way to the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ToOrigin {
    Ready,
    Staged,
    Injected,
    Refused,
    Failed,
    Aborted,
    Closed,
}

impl ToOrigin {
    pub(super) const ALL: [Self; 7] = [
        Self::Ready,
        Self::Staged,
        Self::Injected,
        Self::Refused,
        Self::Failed,
        Self::Aborted,
        Self::Closed,
    ];
}

/// The records that were ever sent one way. As any of them may be delivered at any time and any
/// number of times, or never, this is a link that loses, delays, doubles and reorders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent(pub(super) u8);

impl Sent {
    pub(super) fn add(&mut self, number: u8) {
        self.0 |= 1 << number;
    }

    pub(super) fn has(self, number: u8) -> bool {
        self.0 & (1 << number) != 0
    }
}

/// The origin's world.
#[derive(Clone)]
pub(super) struct Lbu {
    pub(super) socket: Socket,
    pub(super) route: bool,
    /// The route knows that it will hear nothing.
    pub(super) unwatched: bool,
    pub(super) fault: Fault,
    /// What was sent to the present life of the target.
    pub(super) sent: Sent,
    pub(super) aborts: u32,
    pub(super) mistakes: u32,
    pub(super) last: OriginState,
}

impl Lbu {
    pub(super) fn new(fault: Fault) -> Self {
        Self {
            socket: Socket::Open,
            route: false,
            unwatched: false,
            fault,
            sent: Sent::default(),
            aborts: 0,
            mistakes: 0,
            last: OriginState::New,
        }
    }

    fn expect(&mut self, holds: bool) {
        if !holds {
            self.mistakes += 1;
        }
    }

    fn send(&mut self, record: ToTarget) {
        self.sent.add(record as u8);
    }

    fn fails(&self, fault: Fault) -> Result<(), u32> {
        if self.fault == fault {
            Err(fault as u32)
        } else {
            Ok(())
        }
    }
}

impl OriginOps for Lbu {
    type Reason = u32;

    fn send_prepare(&mut self) -> Result<(), u32> {
        // What was begun in time may come all the same.
        self.send(ToTarget::Prepare);
        self.fails(Fault::Prepare)
    }

    fn plumb(&mut self) -> Result<(), u32> {
        self.expect(!self.route && self.socket == Socket::Open);
        self.fails(Fault::Plumb)?;
        self.route = true;
        Ok(())
    }

    fn freeze(&mut self) -> Result<(), u32> {
        // Early packets must go to the target before the socket stops to answer.
        self.expect(self.route && self.socket == Socket::Open);
        self.fails(Fault::Freeze)?;
        self.socket = Socket::Locked;
        Ok(())
    }

    fn send_state(&mut self) -> Result<(), u32> {
        self.expect(self.socket == Socket::Locked);
        self.send(ToTarget::State);
        self.fails(Fault::State)
    }

    fn send_commit(&mut self) -> Result<(), u32> {
        self.expect(self.socket == Socket::Locked && self.aborts == 0);
        self.fails(Fault::Commit)?;
        self.send(ToTarget::Commit);
        Ok(())
    }

    fn ask(&mut self) {
        self.expect(self.socket == Socket::Locked && self.aborts == 0);
        self.send(ToTarget::Commit);
    }

    fn close(&mut self) {
        self.expect(self.socket == Socket::Locked && self.route);
        self.socket = Socket::ClosedSilently;
    }

    fn thaw(&mut self) {
        // Packets must come here again before the socket answers.
        self.expect(!self.route);
        self.expect(matches!(self.socket, Socket::Locked | Socket::Open));
        self.socket = Socket::Open;
    }

    fn reset(&mut self) {
        // The client's answers have to come here.
        self.expect(self.socket == Socket::Locked && !self.route);
        self.socket = Socket::Reset;
    }

    fn unplumb(&mut self) {
        self.route = false;
    }

    fn purge(&mut self) {
        self.expect(self.socket == Socket::ClosedSilently && self.route);
        self.route = false;
    }

    fn unwatch(&mut self) {
        self.expect(self.socket == Socket::ClosedSilently && self.route);
        self.unwatched = true;
    }

    fn send_abort(&mut self) {
        self.aborts += 1;
        self.send(ToTarget::Abort);
    }

    fn entered(&mut self, state: OriginState, _reason: Option<&u32>) {
        self.last = state;
    }
}

/// The target's world.
#[derive(Clone)]
pub(super) struct Host {
    /// Hold and mapping are installed.
    pub(super) hold: bool,
    pub(super) staged: bool,
    /// The connection is here, and may transmit.
    pub(super) child: bool,
    pub(super) injections: u32,
    pub(super) fault: bool,
    /// What this life of the target has sent.
    pub(super) sent: Sent,
    pub(super) last: Option<ToOrigin>,
    pub(super) answers: u32,
    pub(super) mistakes: u32,
}

impl Host {
    pub(super) fn new(fault: bool) -> Self {
        Self {
            hold: false,
            staged: false,
            child: false,
            injections: 0,
            fault,
            sent: Sent::default(),
            last: None,
            answers: 0,
            mistakes: 0,
        }
    }

    fn send(&mut self, record: ToOrigin) {
        self.sent.add(record as u8);
        self.last = Some(record);
        self.answers += 1;
    }
}

impl TargetOps for Host {
    type Chunk = ();
    type Reason = u32;

    fn take(&mut self, _chunk: ()) -> Result<bool, u32> {
        if !self.hold || self.child {
            self.mistakes += 1;
        }
        self.staged = true;
        Ok(true)
    }

    fn inject(&mut self) -> Result<(), u32> {
        if !self.staged || self.fault {
            return Err(1);
        }
        self.staged = false;
        self.child = true;
        self.injections += 1;
        Ok(())
    }

    fn forget(&mut self) {
        if self.child {
            self.mistakes += 1;
        }
        self.hold = false;
        self.staged = false;
    }

    fn kill(&mut self) {
        if !self.child {
            self.mistakes += 1;
        }
        self.child = false;
        self.hold = false;
    }

    fn ended(&mut self) {
        self.child = false;
        self.hold = false;
    }

    fn answer(&mut self, answer: Answer<'_, u32>) {
        self.send(match answer {
            Answer::Ready => ToOrigin::Ready,
            Answer::Staged => ToOrigin::Staged,
            Answer::Injected => ToOrigin::Injected,
            Answer::Refused(_) => ToOrigin::Refused,
            Answer::Failed(_) => ToOrigin::Failed,
            Answer::Aborted => ToOrigin::Aborted,
            Answer::Closed => ToOrigin::Closed,
        });
    }

    fn entered(&mut self, _state: TargetState, _reason: Option<&u32>) {}
}

/// Hands a record to the target, as the record dispatcher does: PREPARE makes the machine.
pub(super) fn to_target(target: &mut Option<Target<u32>>, host: &mut Host, record: ToTarget) {
    match (target.as_mut(), record) {
        (None, ToTarget::Prepare) => {
            host.hold = true;
            *target = Some(Target::new());
            host.send(ToOrigin::Ready);
        }
        (None, ToTarget::State) => host.send(ToOrigin::Refused),
        (None, ToTarget::Commit) => host.send(ToOrigin::Failed),
        (None, ToTarget::Abort) => host.send(ToOrigin::Aborted),
        (Some(machine), record) => {
            let event = match record {
                ToTarget::Prepare => TargetEvent::Prepare,
                ToTarget::State => TargetEvent::State(()),
                ToTarget::Commit => TargetEvent::Commit,
                ToTarget::Abort => TargetEvent::Abort(2),
            };
            machine.step(host, event);
        }
    }
}

pub(super) fn to_origin(origin: &mut Origin, lbu: &mut Lbu, record: ToOrigin) -> Step {
    let event = match record {
        ToOrigin::Ready => OriginEvent::Ready,
        ToOrigin::Staged => OriginEvent::Staged,
        ToOrigin::Injected => OriginEvent::Injected,
        ToOrigin::Refused => OriginEvent::Refused(3),
        ToOrigin::Failed => OriginEvent::Failed(4),
        ToOrigin::Closed => OriginEvent::Closed,
        // Says nothing that an origin does not know.
        ToOrigin::Aborted => return Step::Ignored,
    };
    origin.step(lbu, event)
}
