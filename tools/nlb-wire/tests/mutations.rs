// SPDX-License-Identifier: GPL-2.0

//! The fuzz targets over random changes of good packets and records. `NLB_MUTATIONS` is how many for
//! each target, `NLB_SEED` where they begin; the good ones are written to the folder `NLB_SEEDS`, for
//! `scripts/fuzz` to begin with.

mod common;
#[path = "common/targets.rs"]
mod targets;

use nlb_wire::{
    addr::Addr,
    flow_id::FlowId,
    record::{Prepare, Record, State, HEADER_LEN, RECORD_MAX},
    vectors::{errors, forward, report},
};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::TestRunner, //
};
use std::{
    env, fs,
    panic::{catch_unwind, resume_unwind},
    path::Path,
};

const MUTATIONS: u64 = 100_000;
/// Longest input.
const LONGEST: usize = 2048;

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().expect(name))
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, bound: usize) -> usize {
        self.next() as usize % bound.max(1)
    }

    /// Changes some of `bytes`, in the ways that find mistakes in lengths and limits.
    fn change(&mut self, bytes: &mut Vec<u8>, others: &[Vec<u8>]) {
        const EXTREMES: [u32; 8] = [0, 1, 0x7f, 0x80, 0xff, 0x7fff_ffff, 0x8000_0000, u32::MAX];
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(7) {
                0 => bytes.truncate(at),
                1 => bytes.resize(bytes.len() + self.below(40), self.next() as u8),
                2 => {
                    // Another input from here on.
                    let other = &others[self.below(others.len())];
                    let from = self.below(other.len());
                    bytes.truncate(at);
                    bytes.extend(&other[from..]);
                }
                3 => {
                    let extreme = EXTREMES[self.below(EXTREMES.len())].to_be_bytes();
                    let len = 1 << self.below(3);
                    for (byte, value) in bytes[at..].iter_mut().zip(&extreme[4 - len..]) {
                        *byte = *value;
                    }
                }
                4 => bytes[at..]
                    .iter_mut()
                    .take(1)
                    .for_each(|byte| *byte = self.next() as u8),
                5 => bytes[at..]
                    .iter_mut()
                    .take(1)
                    .for_each(|byte| *byte = byte.wrapping_add(1)),
                _ => bytes[at..]
                    .iter_mut()
                    .take(1)
                    .for_each(|byte| *byte ^= 1 << self.below(8)),
            }
        }
        bytes.truncate(LONGEST);
    }
}

fn samples<T>(count: usize, strategy: impl Strategy<Value = T>) -> Vec<T> {
    let mut runner = TestRunner::deterministic();
    std::iter::repeat_with(|| strategy.new_tree(&mut runner).unwrap().current())
        .take(count)
        .collect()
}

fn run(name: &str, target: fn(&[u8]), good: &[Vec<u8>]) {
    if let Some(dir) = env::var_os("NLB_SEEDS") {
        let dir = Path::new(&dir).join(name);
        fs::create_dir_all(&dir).unwrap();
        for (number, bytes) in good.iter().enumerate() {
            fs::write(dir.join(format!("seed-{number}")), bytes).unwrap();
        }
    }
    let seed = number("NLB_SEED", 1).max(1);
    let mut random = Random(seed);
    for bytes in good {
        target(bytes);
    }
    for _ in 0..number("NLB_MUTATIONS", MUTATIONS) {
        let mut bytes = good[random.below(good.len())].clone();
        random.change(&mut bytes, good);
        if let Err(panic) = catch_unwind(|| target(&bytes)) {
            eprintln!("seed {seed}: these bytes: {bytes:02x?}");
            resume_unwind(panic);
        }
    }
}

#[test]
fn packets() {
    let mut good: Vec<_> = samples(50, common::packet())
        .into_iter()
        .map(|sample| sample.bytes)
        .collect();
    // Those of the fast path: a packet without options, and one inside another.
    for vector in forward::FORWARDED.iter().chain(forward::FORWARDED_V6) {
        good.extend([vector.direct.to_vec(), vector.ipip.to_vec()]);
    }
    errors::each_packet(|packet| good.push(packet.to_vec()));
    good.extend(report::all().map(|vector| vector.report.to_vec()));
    for vector in report::CARRIED {
        good.extend([vector.report.to_vec(), vector.datagram.to_vec()]);
    }
    run("packets", targets::packets, &good);
}

#[test]
fn records() {
    let mut good = Vec::new();
    for connection in samples(25, common::connection()) {
        let prepare = Record::Prepare(Prepare {
            forwarder: common::forwarder_of(&connection, [10, 0, 0, 1], Addr::v6([0x20; 16])),
            flow_id: FlowId::nth(1),
            timeout_ms: 1,
            connection: &connection,
        });
        let total = connection.data_len();
        let state = Record::State(State {
            connection: Some(&connection),
            offset: 0,
            total,
            data: &[7; 20][..20.min(total as usize)],
        });
        for record in [prepare, state] {
            let mut bytes = vec![0; RECORD_MAX];
            let len = record.encode(1, &mut bytes).unwrap();
            bytes.truncate(len);
            targets::packets(&bytes);
            good.push(payload(&bytes));
        }
    }
    // All types, with nothing in them and with a text.
    for kind in 1..=15 {
        good.push(vec![kind]);
        good.push([&[kind, 0, 0, 0, 64, 0, 11], &b"no listener"[..]].concat());
    }
    run("records", targets::records, &good);
}

/// A record as the target takes it.
fn payload(record: &[u8]) -> Vec<u8> {
    let (header, payload) = nlb_wire::record::parse(record).unwrap();
    assert_eq!(payload.len() + HEADER_LEN, record.len());
    let last = if header.is_last() { 0x80 } else { 0 };
    [&[header.kind() as u8 | last], payload].concat()
}
