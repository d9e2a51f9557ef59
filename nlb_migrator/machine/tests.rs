// SPDX-License-Identifier: GPL-2.0

//! Tests of the state machines: each alone, and both together in all that can happen to them.

mod explore;
mod world;

use kernel::prelude::*;

use super::{
    Origin,
    OriginEvent,
    OriginState,
    Step,
    TargetEvent,
    TargetState, //
};
use explore::{
    explore,
    Ends, //
};
use world::{
    to_origin,
    to_target,
    Fault,
    Host,
    Lbu,
    Sent,
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
    None, // No answer in time.
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
            // The same once more is late; but a target may be asked again where a connection lives.
            let again = to_origin(&mut origin, &mut lbu, record);
            assert_eq!((again == Step::Taken), (record == ToOrigin::Injected));
            assert_eq!(origin.state(), state);
        }
        assert_eq!((lbu.mistakes, lbu.aborts, lbu.route), (0, 0, false));
        assert_eq!(lbu.sent.0.count_ones(), 3);
    }

    /// A target that has forgotten a connection says by FAILED that it has ended.
    #[test]
    fn origin_asks_about_a_connection_that_lived() {
        let (mut lbu, mut host) = (Lbu::new(Fault::None), Host::new(false));
        let mut origin = Origin::new();
        origin.start(&mut lbu);
        for record in [ToOrigin::Ready, ToOrigin::Staged, ToOrigin::Injected] {
            to_origin(&mut origin, &mut lbu, record);
        }
        to_target(&mut None, &mut host, ToTarget::Commit);
        assert_eq!(host.last, Some(ToOrigin::Failed));
        assert_eq!(
            to_origin(&mut origin, &mut lbu, ToOrigin::Failed),
            Step::Taken
        );
        assert_eq!(origin.state(), OriginState::Closed);
        assert_eq!((lbu.route, lbu.mistakes), (false, 0));
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
                    None => origin.step(&mut lbu, OriginEvent::Expired(0)),
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
        for record in [ToOrigin::Ready, ToOrigin::Staged, ToOrigin::Injected] {
            to_origin(&mut origin, &mut lbu, record);
        }
        assert!(!lbu.unwatched);
        assert_eq!(
            origin.step(&mut lbu, OriginEvent::Forgotten(6)),
            Step::Taken
        );
        assert_eq!(origin.state(), OriginState::Closed);
        assert_eq!((lbu.route, lbu.unwatched, lbu.mistakes), (true, true, 0));
    }

    /// After COMMIT a lost connection to the peer is a reason to ask again, and FAILED one to roll
    /// back; another life of the target proves nothing.
    #[test]
    fn origin_asks_again_after_commit() {
        let in_doubt = || {
            let mut lbu = Lbu::new(Fault::None);
            let mut origin = Origin::new();
            origin.start(&mut lbu);
            for record in [ToOrigin::Ready, ToOrigin::Staged] {
                to_origin(&mut origin, &mut lbu, record);
            }
            lbu.sent = Sent::default();
            assert_eq!(origin.step(&mut lbu, OriginEvent::Lost(1)), Step::Taken);
            assert_eq!(origin.state(), OriginState::Committed);
            assert!(lbu.sent.has(ToTarget::Commit as u8));
            (origin, lbu)
        };
        let (mut origin, mut lbu) = in_doubt();
        to_origin(&mut origin, &mut lbu, ToOrigin::Injected);
        assert_eq!(lbu.socket, Socket::ClosedSilently);
        let (mut origin, mut lbu) = in_doubt();
        to_origin(&mut origin, &mut lbu, ToOrigin::Failed);
        assert_eq!(lbu.socket, Socket::Open);
        let (mut origin, mut lbu) = in_doubt();
        origin.step(&mut lbu, OriginEvent::Forgotten(2));
        assert_eq!(lbu.socket, Socket::Reset);
        assert_eq!(
            to_origin(&mut origin, &mut lbu, ToOrigin::Failed),
            Step::Ignored
        );
        assert_eq!(lbu.mistakes, 0);
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
                assert_eq!(host.last.take(), Some(answer));
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
        assert_eq!(host.last.take(), Some(ToOrigin::Failed));
        assert!(target.is_none());
        to_target(&mut target, &mut host, ToTarget::Prepare);
        assert_eq!(host.last.take(), Some(ToOrigin::Ready));
        for _ in 0..2 {
            to_target(&mut target, &mut host, ToTarget::Commit);
            assert_eq!(host.last.take(), Some(ToOrigin::Failed));
        }
        to_target(&mut target, &mut host, ToTarget::State);
        assert_eq!(host.last.take(), Some(ToOrigin::Refused));
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
                assert_eq!(host.answers, 4);
            } else {
                assert_eq!(step, Some(Step::Taken));
            }
            assert!(!host.hold && !host.child && !host.staged);
            assert_eq!(host.mistakes, 0);
        }
    }

    /// An origin that has reset a connection is heard even if that has ended meanwhile.
    #[test]
    fn target_answers_an_abort_in_every_state() {
        for records in 0..4 {
            let mut host = Host::new(false);
            let mut target = None;
            for record in ToTarget::ALL.into_iter().take(records) {
                to_target(&mut target, &mut host, record);
            }
            if let Some(machine) = target.as_mut() {
                machine.step(&mut host, TargetEvent::Gone);
            }
            for _ in 0..2 {
                to_target(&mut target, &mut host, ToTarget::Abort);
                assert_eq!(host.last.take(), Some(ToOrigin::Aborted));
            }
            assert!(!host.child && !host.hold && !host.staged);
            assert_eq!(host.mistakes, 0);
        }
    }

    /// Whatever becomes of the records, whoever dies when: never two owners, never taken back once
    /// the target may have spoken, never silence beyond the deadline.
    #[test]
    fn never_two_owners() -> Result {
        let mut ends = Ends::default();
        explore(Fault::None, false, &mut ends)?;
        explore(Fault::None, true, &mut ends)?;
        for fault in [
            Fault::Prepare,
            Fault::Plumb,
            Fault::Freeze,
            Fault::State,
            Fault::Commit,
        ] {
            explore(fault, false, &mut ends)?;
        }
        // Every way to end was seen, else the test proves little.
        assert!(ends.states > 1000);
        assert!(ends.rolled_back > 0 && ends.rolled_back_after_commit > 0);
        assert!(ends.active > 0 && ends.closed > 0 && ends.reset > 0);
        Ok(())
    }
}
