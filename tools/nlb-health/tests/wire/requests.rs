// SPDX-License-Identifier: MIT OR Apache-2.0

//! Requests for snapshots.

use nlb_health::wire::{Error, GetSnapshot, Message};

/// Each is for one host, and its answer is told apart from others.
#[test]
fn what_is_asked_has_to_be_said() {
    let get = |at: usize| {
        let mut body = Vec::new();
        let get = GetSnapshot {
            host: 1,
            request: 1,
            chunks: 1,
        };
        Message::GetSnapshot(get).encode(&mut body);
        body[at] = 0;
        Message::decode(4, &body)
    };
    assert!(get(0).is_ok());
    assert_eq!(get(3), Err(Error::Id));
    assert_eq!(get(11), Err(Error::Id));
    assert_eq!(get(13), Err(Error::Chunk));
}
