// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is malformed in changes of a group, and in what is said of them, has a name.

use nlb_health::wire::*;
use std::net::SocketAddr;

/// What comes of a message of which one byte is another.
fn changed(message: &Message, at: usize, byte: u8) -> Result<Message, Error> {
    let mut body = Vec::new();
    message.encode(&mut body);
    body[at] = byte;
    Message::decode(message.number(), &body)
}

#[test]
fn what_is_malformed_has_a_name() {
    let record = |host| Relayed {
        host,
        epoch: 1,
        beat: 200,
        age: 1,
        age_limit: 100,
        generations: vec![0],
        address: SocketAddr::from(([10, 0, 2, 2], 4772)),
    };
    let same = |host| Same {
        host,
        base: 8,
        more: 2,
        age: 1,
    };
    let changes = Message::Changes(Changes {
        number: 9,
        records: vec![record(1)],
        same: vec![same(3), same(5)],
    });
    // Number 8, counts 2 and 2, record 25; step, back, more and age 1 each.
    assert!(changed(&changes, 39, 3).is_ok());
    assert_eq!(changed(&changes, 7, 0), Err(Error::Id));
    assert_eq!(changed(&changes, 9, 92), Err(Error::Count));
    assert_eq!(changed(&changes, 10, 2), Err(Error::Count));
    assert_eq!(changed(&changes, 11, 3), Err(Error::Short));
    assert_eq!(changed(&changes, 11, 1), Err(Error::Long));
    assert_eq!(changed(&changes, 15, 0), Err(Error::Id));
    assert_eq!(changed(&changes, 37, 0), Err(Error::Order));
    assert_eq!(changed(&changes, 41, 0), Err(Error::Order));
    assert_eq!(changed(&changes, 38, 0), Err(Error::Id));
    // There is no message 0, nor one before it.
    for back in [9, 10] {
        assert_eq!(changed(&changes, 38, back), Err(Error::Id));
    }
    assert!(changed(&changes, 38, 8).is_ok());
    assert_eq!(changed(&changes, 39, 0), Err(Error::Id));
    let empty = [0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0];
    assert_eq!(Message::decode(13, &empty), Err(Error::Count));
    let one = |step: &[u8], age: &[u8]| {
        let head = [0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1];
        let body = [&head, step, &[1, 1], age].concat();
        Message::decode(13, &body).map(drop)
    };
    let last = [0xff, 0xff, 0xff, 0xff, 0x0f];
    assert_eq!(one(&last, &[0xc0, 0xcf, 0x24]), Ok(()));
    assert_eq!(one(&last, &[0xc1, 0xcf, 0x24]), Err(Error::AgeLimit));
    assert_eq!(
        one(&[0xff, 0xff, 0xff, 0xff, 0x1f], &[1]),
        Err(Error::Number)
    );
    let two = [1, 1, 1, 1];
    let body = [
        &[0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 2],
        &last[..],
        &[1, 1, 1],
        &two,
    ]
    .concat();
    assert_eq!(Message::decode(13, &body), Err(Error::Number));
    let part = Message::HeardPart(HeardPart {
        heard: Heard {
            host: 1,
            epoch: 1,
            number: 1,
        },
        missing: vec![1, 3],
    });
    assert!(changed(&part, 25, 2).is_ok());
    for at in [3, 11, 19, 25] {
        assert_eq!(changed(&part, at, 0), Err(Error::Id));
    }
    assert_eq!(changed(&part, 21, 0), Err(Error::Count));
    assert_eq!(changed(&part, 20, 2), Err(Error::Count));
    assert_eq!(changed(&part, 29, 1), Err(Error::Order));
}
