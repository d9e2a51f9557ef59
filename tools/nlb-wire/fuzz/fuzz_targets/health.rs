// SPDX-License-Identifier: GPL-2.0

//! Any body of the health and load protocol: the first byte is the type.

#![no_main]

#[path = "../../../nlb-health/tests/common/mod.rs"]
mod common;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| common::body(bytes));
