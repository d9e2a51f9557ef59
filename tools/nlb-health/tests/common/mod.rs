// SPDX-License-Identifier: MIT OR Apache-2.0

//! What tests and fuzz targets do with bytes.

use nlb_health::wire::Message;

/// The first byte is a type, the others are a body: it is refused, or encoded again to the same bytes.
pub(crate) fn body(bytes: &[u8]) {
    let Some((number, body)) = bytes.split_first() else {
        return;
    };
    if let Ok(message) = Message::decode(*number, body) {
        let mut again = Vec::new();
        message.encode(&mut again);
        assert_eq!((message.number(), &again[..]), (*number, body));
    }
}
