// SPDX-License-Identifier: GPL-2.0

//! Tests of the state machines: each alone, and both over a link that loses, doubles and reorders.

mod world;

use kernel::prelude::*;

use super::{
    Origin,
    OriginEvent,
    OriginState,
    Step,
    Target,
    TargetEvent,
    TargetState, //
};
use world::{
    to_origin,
    to_target,
    Dice,
    Fault,
    Host,
    Lbu,
    Socket,
    ToOrigin,
    ToTarget, //
};

const EVENTS: [Option<ToOrigin>; 7] = [
    Some(ToOrigin::Ready),
    Some(ToOrigin::Staged),
    Some(ToOrigin::Injected),
    Some(ToOrigin::Refused),
    Some(ToOrigin::Failed),
    Some(ToOrigin::Closed),
    None, // No answer.
];

#[kunit_tests(nlb_migrator_machine)]
mod cases {
    use super::*;

    /// The way it goes when nothing goes wrong.
    #[test]
    fn origin_hands_over() {
        let mut lbu = Lbu::new(Fault::None);
        let mut origin = Origin::new();
        assert_eq!(origin.start(&mut lbu), Step::Taken);
        assert_eq!(origin.start(&mut lbu), Step::Ignored);
        for (record, state, socket) in [
            (ToOrigin::Ready, OriginState::Frozen, Socket::Locked),
            (ToOrigin::Staged, OriginState::Committed, Socket::Locked),
            (
                ToOrigin::Injected,
                OriginState::Active,
                Socket::ClosedSilently,
            ),
            (
                ToOrigin::Closed,
                OriginState::Closed,
                Socket::ClosedSilently,
            ),
        ] {
            assert_eq!(to_origin(&mut origin, &mut lbu, record), Step::Taken);
            assert_eq!(origin.state(), state);
            assert_eq!(lbu.last, state);
            assert_eq!(lbu.socket, socket);
            // The same once more is late.
            assert_eq!(to_origin(&mut origin, &mut lbu, record), Step::Ignored);
        }
        assert_eq!((lbu.mistakes, lbu.aborts, lbu.route), (0, 0, false));
        assert_eq!(lbu.wire.len(), 3);
    }

    /// Every step that can fail leaves the connection with the origin.
    #[test]
    fn origin_rolls_back_on_a_failed_step() {
        for fault in [
            Fault::Prepare,
            Fault::Plumb,
            Fault::Freeze,
            Fault::State,
            Fault::Commit,
        ] {
            let mut lbu = Lbu::new(fault);
            let mut origin = Origin::new();
            origin.start(&mut lbu);
            to_origin(&mut origin, &mut lbu, ToOrigin::Ready);
            to_origin(&mut origin, &mut lbu, ToOrigin::Staged);
            assert_eq!(origin.state(), OriginState::Aborted);
            assert_eq!(lbu.socket, Socket::Open);
            assert_eq!((lbu.route, lbu.mistakes, lbu.aborts), (false, 0, 1));
        }
    }

    /// Every sequence of six answers ends in a state that is consistent with the socket.
    #[test]
    fn origin_takes_any_order_of_answers() {
        let mut sequences = 0u32;
        for number in 0..7u32.pow(6) {
            let mut lbu = Lbu::new(Fault::None);
            let mut origin = Origin::new();
            origin.start(&mut lbu);
            let mut rest = number;
            for _ in 0..6 {
                match EVENTS.get((rest % 7) as usize).copied().flatten() {
                    Some(record) => to_origin(&mut origin, &mut lbu, record),
                    None => origin.step(&mut lbu, OriginEvent::Lost(0)),
                };
                rest /= 7;
            }
            let (socket, route) = match origin.state() {
                OriginState::New => (Socket::Reset, true),
                OriginState::Preparing => (Socket::Open, false),
                OriginState::Frozen | OriginState::Committed => (Socket::Locked, true),
                OriginState::Active => (Socket::ClosedSilently, true),
                OriginState::Closed => (Socket::ClosedSilently, false),
                OriginState::Refused | OriginState::Aborted => (Socket::Open, false),
                OriginState::Reset => (Socket::Reset, false),
            };
            assert_eq!(lbu.socket, socket);
            assert_eq!(lbu.route, route);
            assert_eq!(lbu.mistakes, 0);
            sequences += 1;
        }
        assert_eq!(sequences, 117_649);
    }

    /// A living connection keeps its route when its target is not heard of any more.
    #[test]
    fn origin_keeps_the_route_of_a_forgotten_connection() {
        let mut lbu = Lbu::new(Fault::None);
        let mut origin = Origin::new();
        origin.start(&mut lbu);
        for record in [ToOrigin::Ready, ToOrigin::Staged] {
            assert_eq!(
                origin.step(&mut lbu, OriginEvent::Forgotten(6)),
                Step::Ignored
            );
            to_origin(&mut origin, &mut lbu, record);
        }
        to_origin(&mut origin, &mut lbu, ToOrigin::Injected);
        assert_eq!(
            origin.step(&mut lbu, OriginEvent::Forgotten(6)),
            Step::Taken
        );
        assert_eq!(origin.state(), OriginState::Closed);
        assert_eq!((lbu.route, lbu.mistakes), (true, 0));
    }

    /// A doubled record is answered as the first time.
    #[test]
    fn target_answers_doubled_records() {
        let mut host = Host::new(false);
        let mut target = None;
        for (record, answer, state) in [
            (ToTarget::Prepare, ToOrigin::Ready, TargetState::Prepared),
            (ToTarget::State, ToOrigin::Staged, TargetState::Staged),
            (ToTarget::Commit, ToOrigin::Injected, TargetState::Active),
        ] {
            for _ in 0..2 {
                to_target(&mut target, &mut host, record);
                assert_eq!(host.wire.take(0, false), Some(answer));
                assert_eq!(host.wire.len(), 0);
                assert_eq!(target.as_ref().map(|t| t.state()), Some(state));
            }
        }
        assert_eq!((host.injections, host.mistakes), (1, 0));
        assert!(host.child);
    }

    /// COMMIT without the state, and whatever comes after it, is answered with FAILED.
    #[test]
    fn target_fails_a_commit_without_state() {
        let mut host = Host::new(false);
        let mut target = None;
        to_target(&mut target, &mut host, ToTarget::Commit);
        assert_eq!(host.wire.take(0, false), Some(ToOrigin::Failed));
        assert!(target.is_none());
        to_target(&mut target, &mut host, ToTarget::Prepare);
        assert_eq!(host.wire.take(0, false), Some(ToOrigin::Ready));
        for _ in 0..2 {
            to_target(&mut target, &mut host, ToTarget::Commit);
            assert_eq!(host.wire.take(0, false), Some(ToOrigin::Failed));
        }
        to_target(&mut target, &mut host, ToTarget::State);
        assert_eq!(host.wire.take(0, false), Some(ToOrigin::Refused));
        assert_eq!((host.hold, host.child, host.mistakes), (false, false, 0));
    }

    /// What was staged goes when the origin is lost; a living connection stays.
    #[test]
    fn target_outlives_a_lost_origin_only_with_the_connection() {
        for active in [false, true] {
            let mut host = Host::new(false);
            let mut target = None;
            to_target(&mut target, &mut host, ToTarget::Prepare);
            to_target(&mut target, &mut host, ToTarget::State);
            if active {
                to_target(&mut target, &mut host, ToTarget::Commit);
            }
            let step = target
                .as_mut()
                .map(|t| t.step(&mut host, TargetEvent::Lost(5)));
            if active {
                assert_eq!(step, Some(Step::Ignored));
                assert!(host.child && host.hold);
                let step = target
                    .as_mut()
                    .map(|t| t.step(&mut host, TargetEvent::Gone));
                assert_eq!(step, Some(Step::Taken));
                assert_eq!(host.wire.len(), 4);
            } else {
                assert_eq!(step, Some(Step::Taken));
            }
            assert!(!host.hold && !host.child && !host.staged);
            assert_eq!(host.mistakes, 0);
        }
    }

    /// Both machines over a link that loses, doubles, swaps and breaks: never two owners, and in the
    /// end one owner or a client that was told.
    #[test]
    fn never_two_owners() {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        let mut ends = [0u32; 3];
        for _ in 0..20_000 {
            let faults = [
                Fault::None,
                Fault::None,
                Fault::None,
                Fault::None,
                Fault::None,
                Fault::None,
                Fault::Plumb,
                Fault::Freeze,
                Fault::State,
                Fault::Commit,
            ];
            let fault = faults.get(dice.roll(10) as usize).copied();
            let mut lbu = Lbu::new(fault.unwrap_or(Fault::None));
            let mut host = Host::new(dice.roll(8) == 0);
            let mut origin = Origin::new();
            let mut target: Option<Target<u32>> = None;
            // How hostile this run's link is.
            let evil = dice.roll(3) * 8;
            let mut gone = false;
            origin.start(&mut lbu);

            for _ in 0..40 {
                let trick = dice.roll(100);
                let keep = trick < evil;
                let lose = trick >= 100 - evil;
                let index = if (40..40 + evil).contains(&trick) {
                    1
                } else {
                    0
                };
                match dice.roll(24) {
                    0..=9 => {
                        if let Some(record) = lbu.wire.take(index, keep) {
                            if !lose {
                                to_target(&mut target, &mut host, record);
                            }
                        }
                    }
                    10..=19 => {
                        if let Some(record) = host.wire.take(index, keep) {
                            if !lose {
                                to_origin(&mut origin, &mut lbu, record);
                            }
                        }
                    }
                    20 if dice.roll(4) == 0 => {
                        origin.step(&mut lbu, OriginEvent::Lost(0));
                    }
                    21 if dice.roll(4) == 0 => {
                        if let Some(machine) = target.as_mut() {
                            machine.step(&mut host, TargetEvent::Lost(0));
                        }
                    }
                    22 if dice.roll(8) == 0 => {
                        lbu.wire.clear();
                        host.wire.clear();
                    }
                    23 if host.child => {
                        if let Some(machine) = target.as_mut() {
                            machine.step(&mut host, TargetEvent::Gone);
                            gone = true;
                        }
                    }
                    _ => {}
                }
                assert!(!(lbu.socket == Socket::Open && host.child));
                assert!(host.injections <= 1);
            }

            // Both give up waiting.
            origin.step(&mut lbu, OriginEvent::Lost(0));
            if let Some(machine) = target.as_mut() {
                machine.step(&mut host, TargetEvent::Lost(0));
            }
            assert_eq!((lbu.mistakes, host.mistakes), (0, 0));
            assert_eq!(host.hold, host.child);
            assert!(!host.staged);
            match lbu.socket {
                Socket::Open => {
                    assert!(!host.child && !lbu.route);
                    assert_eq!(host.injections, 0);
                    ends[0] += 1;
                }
                Socket::ClosedSilently => {
                    assert_eq!(host.injections, 1);
                    assert!(host.child || gone);
                    ends[1] += 1;
                }
                Socket::Reset => {
                    assert!(!lbu.route);
                    ends[2] += 1;
                }
                // A lost answer always unlocks.
                Socket::Locked => assert!(false),
            }
        }
        // Every way to end was seen, else the test proves little.
        assert!(ends.iter().all(|&n| n > 500));
    }
}
