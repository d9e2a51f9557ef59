// SPDX-License-Identifier: GPL-2.0

//! Every state that both machines can come to together, whatever becomes of the records between
//! them, whenever either machine dies.

use kernel::{
    prelude::*,
    rbtree::RBTree, //
};

use super::{
    super::{
        Origin,
        OriginEvent,
        OriginState,
        Target,
        TargetEvent,
        TargetState, //
    },
    world::{
        to_origin,
        to_target,
        Fault,
        Host,
        Lbu,
        Sent,
        Socket,
        ToOrigin,
        ToTarget, //
    },
};

/// Both machines, what each has done, and what is on its way between them.
#[derive(Clone)]
pub(super) struct World {
    origin: Origin,
    lbu: Lbu,
    /// The origin has lost power.
    dead: bool,
    target: Option<Target<u32>>,
    host: Host,
    /// The target has begun a second life.
    reborn: bool,
    /// What its first life has sent.
    before: Sent,
    /// The origin has heard of the second life.
    noticed: bool,
    /// The connection lives at the target, whose module knows nothing of it any more.
    orphan: bool,
}

/// How often each end was seen.
#[derive(Default)]
pub(super) struct Ends {
    pub(super) states: u32,
    pub(super) rolled_back: u32,
    pub(super) rolled_back_after_commit: u32,
    pub(super) active: u32,
    pub(super) closed: u32,
    pub(super) reset: u32,
}

impl World {
    fn new(fault: Fault, refuses: bool) -> Self {
        let mut lbu = Lbu::new(fault);
        let mut origin = Origin::new();
        origin.start(&mut lbu);
        Self {
            origin,
            lbu,
            dead: false,
            target: None,
            host: Host::new(refuses),
            reborn: false,
            before: Sent::default(),
            noticed: false,
            orphan: false,
        }
    }

    /// A number for all that makes a difference for the future.
    fn number(&self) -> u64 {
        let mut number = 0u64;
        let mut add = |value: u64, bits: u32| number = number << bits | value;
        add(self.origin.state() as u64, 4);
        add(self.lbu.socket as u64, 2);
        add(self.lbu.route.into(), 1);
        add(self.lbu.sent.0.into(), 4);
        add(self.lbu.aborts.min(1).into(), 1);
        add(self.dead.into(), 1);
        let target = self.target.as_ref();
        add(target.map_or(0, |target| 1 + target.state() as u64), 3);
        add(self.host.hold.into(), 1);
        add(self.host.staged.into(), 1);
        add(self.host.child.into(), 1);
        add(self.host.injections.min(3).into(), 2);
        add(self.host.sent.0.into(), 7);
        add(self.before.0.into(), 7);
        add(self.reborn.into(), 1);
        add(self.noticed.into(), 1);
        add(self.orphan.into(), 1);
        number
    }

    /// The target begins another life. Its connections with the origin end, and what was on its way
    /// to it over them is lost; what it had sent may still arrive.
    fn bear(&mut self, module_only: bool) {
        self.reborn = true;
        self.orphan = module_only && self.host.child;
        self.before = self.host.sent;
        self.target = None;
        self.lbu.sent = Sent::default();
        self.host = Host {
            injections: self.host.injections,
            mistakes: self.host.mistakes,
            ..Host::new(self.host.fault)
        };
    }

    /// Whether the target may forget the connection that it had: not as long as the origin waits for
    /// an answer.
    fn may_be_forgotten(&self) -> bool {
        let target = self.target.as_ref();
        target.is_some_and(|target| target.state() == TargetState::Closed)
            && (self.dead || !self.origin.state().is_waiting())
    }

    /// The target forgets what has ended. Until then, all that was sent over older connections has
    /// arrived or got lost; but the origin may ask.
    fn forget(&mut self) {
        self.target = None;
        let asked = self.lbu.sent.has(ToTarget::Commit as u8);
        self.lbu.sent = Sent::default();
        if asked {
            self.lbu.sent.add(ToTarget::Commit as u8);
        }
    }

    /// Calls `visit` with every world that one event can make of this one.
    fn each_next(&self, mut visit: impl FnMut(World) -> Result) -> Result {
        let mut next = |change: &dyn Fn(&mut World)| {
            let mut world = self.clone();
            change(&mut world);
            visit(world)
        };
        for record in ToTarget::ALL {
            if self.lbu.sent.has(record as u8) {
                next(&|w| to_target(&mut w.target, &mut w.host, record))?;
            }
        }
        if let Some(target) = &self.target {
            next(&|w| {
                let mut target = target.clone();
                target.step(&mut w.host, TargetEvent::Lost(5));
                w.target = Some(target);
            })?;
            if self.host.child {
                next(&|w| {
                    let mut target = target.clone();
                    target.step(&mut w.host, TargetEvent::Gone);
                    w.target = Some(target);
                })?;
            }
        }
        if self.may_be_forgotten() {
            next(&|w| w.forget())?;
        }
        if self.orphan {
            next(&|w| w.orphan = false)?;
        }
        if !self.reborn {
            next(&|w| w.bear(false))?;
            next(&|w| w.bear(true))?;
        }
        if self.dead {
            return Ok(());
        }
        next(&|w| w.dead = true)?;
        for record in ToOrigin::ALL {
            let first_life = if self.reborn {
                self.before
            } else {
                self.host.sent
            };
            // The transport says first that there is another life.
            let second_life = self.noticed && self.host.sent.has(record as u8);
            if first_life.has(record as u8) || second_life {
                next(&|w| {
                    to_origin(&mut w.origin, &mut w.lbu, record);
                })?;
            }
        }
        next(&|w| {
            w.origin.step(&mut w.lbu, OriginEvent::Lost(6));
        })?;
        next(&|w| {
            w.origin.step(&mut w.lbu, OriginEvent::Expired(7));
        })?;
        if self.reborn && !self.noticed {
            next(&|w| {
                w.noticed = true;
                w.origin.step(&mut w.lbu, OriginEvent::Forgotten(8));
            })?;
        }
        Ok(())
    }

    /// What must hold in every world.
    fn check(&self) {
        let state = self.origin.state();
        assert_eq!((self.lbu.mistakes, self.host.mistakes), (0, 0));
        // It is injected once at most, ...
        assert!(self.host.injections <= 1);
        let injected = self.host.injections == 1;
        let lives_there = self.host.child || self.orphan;
        if !self.dead {
            // ... both never have it, ...
            assert!(!(self.lbu.socket == Socket::Open && lives_there));
            // ... and it is not taken back once the target may have spoken to the client.
            assert!(!(self.lbu.socket == Socket::Open && injected));
        }
        assert!(self.lbu.socket != Socket::ClosedSilently || injected);
        // A client that was reset by us is forgotten by the target when it hears of it.
        if self.lbu.socket == Socket::Reset && self.host.child {
            assert!(self.lbu.sent.has(ToTarget::Abort as u8));
            let mut world = self.clone();
            to_target(&mut world.target, &mut world.host, ToTarget::Abort);
            assert!(!world.host.child && !world.host.hold);
        }
        // The socket is as the state says.
        assert!(match state {
            OriginState::New | OriginState::Preparing => self.lbu.socket == Socket::Open,
            OriginState::Frozen | OriginState::Committed => self.lbu.socket == Socket::Locked,
            OriginState::Active | OriginState::Closed => {
                self.lbu.socket == Socket::ClosedSilently
            }
            OriginState::Refused | OriginState::Aborted => {
                self.lbu.socket == Socket::Open && !self.lbu.route
            }
            OriginState::Reset => self.lbu.socket == Socket::Reset && !self.lbu.route,
        });
        // Whoever asks the target that was told to prepare gets an answer.
        if state == OriginState::Committed && !self.reborn {
            let mut world = self.clone();
            world.host.last = None;
            to_target(&mut world.target, &mut world.host, ToTarget::Commit);
            assert!(world.host.last.is_some());
        }
        // The deadlines end everything that is half done.
        let mut world = self.clone();
        world.origin.step(&mut world.lbu, OriginEvent::Expired(9));
        assert!(world.lbu.socket != Socket::Locked && !world.origin.state().is_waiting());
        if let Some(target) = world.target.as_mut() {
            target.step(&mut world.host, TargetEvent::Lost(9));
            let active = target.state() == TargetState::Active;
            assert_eq!((world.host.hold, world.host.child), (active, active));
            assert!(!world.host.staged);
        }
    }

    fn count(&self, ends: &mut Ends) {
        ends.states += 1;
        if self.dead {
            return;
        }
        let committed = self.lbu.sent.has(ToTarget::Commit as u8);
        match self.origin.state() {
            OriginState::Refused | OriginState::Aborted if committed => {
                ends.rolled_back_after_commit += 1;
            }
            OriginState::Refused | OriginState::Aborted => ends.rolled_back += 1,
            OriginState::Active => ends.active += 1,
            OriginState::Closed => ends.closed += 1,
            OriginState::Reset => ends.reset += 1,
            _ => {}
        }
    }
}

/// Checks every world that can come of the first one; the origin's operation `fault` fails, or the
/// target cannot inject if it `refuses`.
pub(super) fn explore(fault: Fault, refuses: bool, ends: &mut Ends) -> Result {
    let mut seen = RBTree::<u64, ()>::new();
    let mut left = KVVec::new();
    let first = World::new(fault, refuses);
    seen.try_create_and_insert(first.number(), (), GFP_KERNEL)?;
    left.push(first, GFP_KERNEL)?;
    while let Some(world) = left.pop() {
        world.check();
        world.count(ends);
        world.each_next(|next| {
            let number = next.number();
            if seen.get(&number).is_none() {
                seen.try_create_and_insert(number, (), GFP_KERNEL)?;
                left.push(next, GFP_KERNEL)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}
