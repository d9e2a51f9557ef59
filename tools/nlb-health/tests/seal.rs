// SPDX-License-Identifier: MIT OR Apache-2.0

//! Who may say something, and how often.

use nlb_health::{
    seal::{Error, KeyError, Keys, Opener, Sealer, OVERHEAD, WINDOW},
    wire::{Message, Route, DATAGRAM_MAX},
};

fn keys() -> Keys {
    Keys::new(1, &[1; 16]).unwrap()
}

fn open(opener: &mut Opener, keys: &Keys, bytes: &[u8]) -> Result<bool, Error> {
    opener.open(keys, bytes).map(|opened| opened.is_proven)
}

#[test]
fn each_change_is_found() {
    let bytes = Sealer::new(5, 9).seal(&keys(), &Message::Goodbye);
    assert_eq!(bytes.len(), OVERHEAD);
    let expected = |at: usize| match at {
        0..=3 => Error::Magic,
        4 => Error::Version,
        5 => Error::Type,
        6 => Error::Key,
        7 => Error::Reserved,
        _ => Error::Tag,
    };
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x80;
        let result = open(&mut Opener::new(Route::ToLbus, 1), &keys(), &changed);
        assert_eq!(result, Err(expected(at)), "byte {at}");
        let short = open(&mut Opener::new(Route::ToLbus, 1), &keys(), &bytes[..at]);
        assert_eq!(short, Err(Error::Short));
    }
    let long = [bytes.clone(), vec![0; DATAGRAM_MAX]].concat();
    assert_eq!(
        open(&mut Opener::new(Route::ToLbus, 1), &keys(), &long),
        Err(Error::Long)
    );
    // A host's message is nothing for a host.
    assert_eq!(
        open(&mut Opener::new(Route::ToHosts, 1), &keys(), &bytes),
        Err(Error::Type)
    );
    assert_eq!(
        open(&mut Opener::new(Route::ToLbus, 1), &keys(), &bytes),
        Ok(false)
    );
    // One for load balancing units uses up no number among those of a group.
    let mut in_group = Opener::new(Route::InGroup, 1);
    assert!(!in_group.is_for(&bytes));
    assert_eq!(open(&mut in_group, &keys(), &bytes), Err(Error::Type));
    assert!(in_group.is_empty());
}

#[test]
fn keys_are_rotated() {
    let (mut here, mut there) = (keys(), keys());
    let mut opener = Opener::new(Route::ToLbus, 1);
    let mut sealer = Sealer::new(1, 1);
    let old = sealer.seal(&there, &Message::Goodbye);
    assert_eq!(here.add(1, &[3; 16]), Err(KeyError::Twice));
    assert_eq!(here.add(2, &[3; 15]), Err(KeyError::Length));
    assert_eq!(here.add(2, &[3; 81]), Err(KeyError::Length));
    assert_eq!(there.send_with(2), Err(KeyError::Id));
    here.add(2, &[2; 80]).unwrap();
    there.add(2, &[2; 80]).unwrap();
    there.send_with(2).unwrap();
    let new = sealer.seal(&there, &Message::Goodbye);
    assert!(open(&mut opener, &here, &old).is_ok());
    assert!(open(&mut opener, &here, &new).is_ok());
    assert_eq!(here.delete(1), Err(KeyError::Id));
    here.send_with(2).unwrap();
    here.delete(1).unwrap();
    let late = Sealer::new(1, 2).seal(&keys(), &Message::Goodbye);
    assert_eq!(open(&mut opener, &here, &late), Err(Error::Key));
    assert_eq!(format!("{here:?}"), "Keys { ids: [2], send: 2 }");
}

#[test]
fn nothing_twice_and_nothing_of_an_earlier_life() {
    let keys = keys();
    let mut sealer = Sealer::new(1, 5);
    let sent: Vec<_> = (0..200)
        .map(|_| sealer.seal(&keys, &Message::Goodbye))
        .collect();
    let mut opener = Opener::new(Route::ToLbus, 2);
    // In another order, each once.
    for index in [3, 1, 2, 0, 100] {
        assert_eq!(open(&mut opener, &keys, &sent[index]), Ok(false));
        assert_eq!(open(&mut opener, &keys, &sent[index]), Err(Error::Replay));
    }
    assert!(open(&mut opener, &keys, &sent[WINDOW as usize]).is_ok());
    assert_eq!(open(&mut opener, &keys, &sent[0]), Err(Error::Late));
    assert_eq!(open(&mut opener, &keys, &sent[1]), Err(Error::Replay));
    // Proven, then a later life claims to be, and is.
    opener.prove(1, 5);
    assert_eq!(open(&mut opener, &keys, &sent[150]), Ok(true));
    let mut next = Sealer::new(1, 6);
    let first = next.seal(&keys, &Message::Goodbye);
    assert_eq!(open(&mut opener, &keys, &first), Ok(false));
    assert_eq!(open(&mut opener, &keys, &first), Err(Error::Replay));
    assert_eq!(open(&mut opener, &keys, &sent[151]), Ok(true));
    opener.prove(1, 6);
    assert_eq!(open(&mut opener, &keys, &sent[152]), Err(Error::Epoch));
    assert_eq!(open(&mut opener, &keys, &first), Err(Error::Replay));
    // No more senders than allowed.
    for sender in 2..4 {
        let bytes = Sealer::new(sender, 1).seal(&keys, &Message::Goodbye);
        let result = open(&mut opener, &keys, &bytes);
        assert_eq!(result.is_ok(), sender == 2, "{result:?}");
    }
    assert_eq!(opener.len(), 2);
    opener.forget(2);
    let bytes = Sealer::new(3, 1).seal(&keys, &Message::Goodbye);
    assert!(open(&mut opener, &keys, &bytes).is_ok());
}

#[test]
fn the_others_make_room() {
    let keys = keys();
    let mut opener = Opener::new(Route::ToLbus, 2);
    let from = |sender| Sealer::new(sender, 1).seal(&keys, &Message::Goodbye);
    for sender in 1..=2 {
        assert!(open(&mut opener, &keys, &from(sender)).is_ok());
    }
    assert_eq!(open(&mut opener, &keys, &from(3)), Err(Error::Senders));
    opener.retain(|sender| sender == 2);
    assert!(open(&mut opener, &keys, &from(3)).is_ok());
    assert_eq!(open(&mut opener, &keys, &from(2)), Err(Error::Replay));
}
