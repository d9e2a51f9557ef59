// SPDX-License-Identifier: GPL-2.0

//! Any bytes through every parser, as packet, datagram and record.

#![no_main]

// Each target uses a part of them.
#[allow(dead_code)]
#[path = "../../tests/common/mod.rs"]
mod common;
#[allow(dead_code)]
#[path = "../../tests/common/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::packets(bytes));
