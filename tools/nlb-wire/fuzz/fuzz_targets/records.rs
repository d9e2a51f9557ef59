// SPDX-License-Identifier: GPL-2.0

//! Any payload in a record whose header and CRC are right: the first byte is the type.

#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use nlb_wire::record::{parse, seal, Type, HEADER_LEN};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
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
});
