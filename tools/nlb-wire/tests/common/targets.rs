// SPDX-License-Identifier: GPL-2.0

//! What the fuzz targets do with bytes; `tests/mutations.rs` does the same on a stable compiler.

use crate::common;
use nlb_wire::record::{parse, seal, Type, HEADER_LEN};

/// Any bytes through every parser, as packet, datagram and record.
pub(crate) fn packets(bytes: &[u8]) {
    common::parse_everything(bytes);
}

/// Any payload in a record whose header and CRC are right: the first byte is the type.
pub(crate) fn records(bytes: &[u8]) {
    let Some((first, payload)) = bytes.split_first() else {
        return;
    };
    let Some(kind) = Type::from_number(first & 0x0f) else {
        return;
    };
    let last = first & 0x80 != 0 && kind == Type::State;
    let id = u64::from(!matches!(kind, Type::Hello | Type::Ping | Type::Pong));
    let mut record = vec![0; HEADER_LEN];
    record.extend(payload);
    if seal(&mut record, kind, last, id, payload.len()).is_ok() {
        let (header, payload) = parse(&record).expect("just sealed");
        common::decode_and_encode(&header, payload);
    }
}
