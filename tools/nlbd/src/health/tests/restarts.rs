// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a life of nlbd knows of hosts that it has not heard.

use super::{left, silent, Pair, DRAINING};
use nlb_netlink::EndpointState;

/// Who was silent has had his time; after a boot of the machine its endpoint is active again.
#[test]
fn who_is_silent_already_is_not_waited_for_again() {
    let mut pair = Pair::new();
    pair.pass(1000);
    pair.apply();
    pair.die();
    pair.apply();
    assert_eq!(pair.gone(), silent(DRAINING));
    for epoch in 2..4 {
        pair.restart(epoch);
        pair.state = EndpointState::Active;
        pair.pass(50);
        pair.apply();
        assert_eq!(
            (pair.gone(), pair.state),
            (silent(DRAINING), EndpointState::Draining)
        );
    }
    // Nobody else is left, either.
    pair.restart(4);
    pair.is_alone = true;
    pair.pass(50);
    pair.apply();
    let active = Some(EndpointState::Active);
    assert_eq!(
        (pair.gone(), pair.state),
        (silent(active), EndpointState::Active)
    );
    pair.is_alone = false;
    pair.start(2);
    pair.pass(1000);
    pair.apply();
    assert_eq!((pair.gone(), pair.state), (None, EndpointState::Active));
    pair.leave();
    pair.restart(5);
    pair.pass(50);
    pair.apply();
    assert_eq!(
        (pair.gone(), pair.state),
        (left(DRAINING), EndpointState::Draining)
    );
}

/// Nobody knows how long the machine was off if its clock is another one each time.
#[test]
fn who_was_waited_for_before_a_boot_is_not_waited_for_again() {
    for (boot, gone, state) in [
        ("first", None, EndpointState::Active),
        ("second", silent(DRAINING), EndpointState::Draining),
    ] {
        let mut pair = Pair::new();
        pair.pass(1000);
        pair.apply();
        pair.agent = None;
        pair.restart_in(2, "first", 1000);
        pair.pass(3000);
        pair.apply();
        assert_eq!((pair.gone(), pair.state), (None, EndpointState::Active));
        pair.restart_in(3, boot, 1000);
        pair.pass(50);
        pair.apply();
        assert_eq!((pair.gone(), pair.state), (gone, state), "{boot}");
    }
}
