// SPDX-License-Identifier: MIT OR Apache-2.0

//! Hosts and load balancing units over a network that loses, doubles, delays and reorders datagrams, is cut, and
//! plays old ones again, while machines crash and come back; in virtual time. After quiet, every cache has to be
//! what the tables are; and at every moment, what is old is not used, and what a host was told not to get, it does
//! not get.
//!
//! `NLB_SEEDS=N` runs N seeds, beginning with `NLB_SEED=S`; a seed that fails is printed, and `NLB_SEED=S NLB_SEEDS=1`
//! repeats it.

mod chaos;
mod groups;
mod truth;
mod world;

use std::{
    env,
    panic::{catch_unwind, AssertUnwindSafe},
};
use world::{Multicast, Size, World};

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().expect(name))
}

fn run(seeds: u64, size: Size) {
    let first = number("NLB_SEED").unwrap_or(1);
    let seeds = number("NLB_SEEDS").unwrap_or(seeds);
    for seed in first..first + seeds {
        let result = catch_unwind(AssertUnwindSafe(|| {
            // Not all are in groups.
            let groups = size.groups.min(seed as u32 % 4);
            let multicast = match seed % 3 {
                0 => Multicast::None,
                1 => Multicast::All,
                _ => Multicast::Some,
            };
            let size = Size {
                groups,
                multicast,
                changes: seed % 5 < 3,
                ..size
            };
            let mut world = World::new(seed, size);
            chaos::run(&mut world);
            world.quiet();
            world.check_equal();
            world.check_leaders();
        }));
        if let Err(panic) = result {
            eprintln!("seed {seed} fails; NLB_SEED={seed} NLB_SEEDS=1 repeats it");
            std::panic::resume_unwind(panic);
        }
    }
}

/// Fewer where code is slow.
const fn seeds(release: u64) -> u64 {
    if cfg!(debug_assertions) {
        release / 50
    } else {
        release
    }
}

#[test]
fn caches_become_equal_to_tables() {
    run(
        seeds(2000),
        Size {
            hosts: 4,
            lbus: 3,
            chaos_s: 8,
            groups: 2,
            multicast: Multicast::None,
            changes: true,
        },
    );
}

#[test]
fn many_machines() {
    run(
        seeds(50).min(4),
        Size {
            hosts: 60,
            lbus: 6,
            chaos_s: 6,
            groups: 3,
            multicast: Multicast::None,
            changes: true,
        },
    );
}
