// SPDX-License-Identifier: MIT OR Apache-2.0

//! What health and load cost at scale: many hosts and load balancing units over a network in virtual time, with the
//! code that the daemons run. How many bytes arrive at a load balancing unit, with and without leaders, and how long it
//! takes until all caches are what the tables are again when machines are lost.
//!
//! `scale [HOSTS [LBUS [APPLICATIONS]]]`; `make bench-health` runs it with 1000, 20 and 20.

mod world;

use std::time::Duration;
use world::{Size, World, MEMBERS};

/// How long traffic is counted.
const COUNTED: Duration = Duration::from_secs(30);
/// How often it is looked whether caches are right.
const STEP: Duration = Duration::from_millis(20);
/// Longer it does not take.
const LONGEST: Duration = Duration::from_secs(120);
/// How often each machine is lost.
const TRIALS: u64 = 3;

/// All machines are there, and know each other.
fn settled(size: Size, trial: u64) -> World {
    let mut world = World::new(size, trial);
    // Where in their rounds machines are when something happens is another one in each trial.
    world.run(Duration::from_secs(20) + Duration::from_millis(370 * trial));
    for unit in 0..size.lbus {
        assert_eq!(world.rows(unit), size.hosts * size.apps, "unit {unit}");
    }
    world
}

/// The time until something holds.
fn until(world: &mut World, mut holds: impl FnMut(&World, Duration) -> bool) {
    let begin = world.now();
    loop {
        world.run(STEP);
        let time = world.now() - begin;
        assert!(time < LONGEST, "caches do not become right");
        if holds(world, time) {
            return;
        }
    }
}

/// The time until each of `units` has `expected` rows, in milliseconds. The others must not lose more.
fn converge(world: &mut World, units: &[usize], expected: usize) -> Vec<u64> {
    let mut times = vec![None; units.len()];
    until(world, |world, time| {
        for (unit, right) in units.iter().zip(&mut times) {
            if world.rows(*unit) == expected {
                right.get_or_insert(time.as_millis() as u64);
            }
        }
        for unit in (0..world.units()).filter(|unit| !units.contains(unit) || units.len() > 1) {
            assert!(
                world.rows(unit) >= expected,
                "unit {unit} has lost rows of hosts that are there"
            );
        }
        times.iter().all(Option::is_some)
    });
    times.into_iter().flatten().collect()
}

fn percentile(times: &mut [u64], percent: usize) -> u64 {
    times.sort_unstable();
    let place = (times.len() * percent).div_ceil(100);
    times[place.saturating_sub(1)]
}

fn traffic(size: Size, is_busy: bool) -> f64 {
    let mut world = settled(size, 0);
    world.is_busy = is_busy;
    world.run(Duration::from_secs(5));
    world.forget_traffic();
    world.run(COUNTED);
    let seconds = COUNTED.as_secs_f64();
    let who = match (size.is_grouped, size.changes) {
        (false, _) => "without leaders",
        (true, false) => "leaders say all",
        (true, true) => "with leaders",
    };
    let what = if is_busy {
        "loads change"
    } else {
        "heartbeats alone"
    };
    let name = format!("{who}, {what}");
    let at_unit = |count: u64| count as f64 / seconds / size.lbus as f64;
    let by_host = world.by_hosts.bytes as f64 / seconds / size.hosts as f64;
    let bytes = at_unit(world.to_units.bytes);
    let datagrams = at_unit(world.to_units.datagrams);
    println!("{name:<36} {bytes:>10.0} {datagrams:>10.0} {by_host:>10.0}");
    bytes / size.hosts as f64
}

fn main() {
    let numbers: Vec<usize> = std::env::args()
        .skip(1)
        .map(|text| text.parse().expect("a number"))
        .collect();
    let number = |index: usize, default| numbers.get(index).copied().unwrap_or(default);
    let alone = Size {
        hosts: number(0, 1000),
        lbus: number(1, 20),
        apps: number(2, 20),
        is_grouped: false,
        changes: true,
    };
    let led = Size {
        is_grouped: true,
        ..alone
    };
    let told_all = Size {
        changes: false,
        ..led
    };
    println!(
        "{} hosts in groups of {MEMBERS}, {} applications each, {} load balancing units",
        led.hosts, led.apps, led.lbus
    );
    println!(
        "\n{:<36} {:>10} {:>10} {:>10}",
        "in a second", "bytes", "datagrams", "bytes"
    );
    println!(
        "{:<36} {:>10} {:>10} {:>10}",
        "", "to a unit", "to a unit", "of a host"
    );
    traffic(alone, false);
    traffic(alone, true);
    traffic(told_all, false);
    traffic(told_all, true);
    let per_host = traffic(led, false);
    traffic(led, true);

    let rows = led.hosts * led.apps;
    let every: Vec<_> = (0..led.lbus).collect();
    let (mut leader, mut another, mut hosts, mut unit) = (vec![], vec![], vec![], vec![]);
    for trial in 1..=TRIALS {
        let mut world = settled(led, trial);
        let group = world.kill_leader();
        let begin = world.now();
        leader.extend(converge(&mut world, &every, rows - led.apps));
        until(&mut world, |world, _| world.is_led(group));
        another.push((world.now() - begin).as_millis() as u64);

        let mut world = settled(led, trial);
        let lost = led.hosts / 10;
        world.kill_hosts(lost);
        hosts.extend(converge(&mut world, &every, rows - lost * led.apps));

        let mut world = settled(led, trial);
        world.restart_unit(0);
        unit.extend(converge(&mut world, &[0], rows));
    }
    println!(
        "\n{:<36} {:>10} {:>10}",
        "milliseconds until", "median", "p99"
    );
    let mut all = Vec::new();
    for (name, times) in [
        ("rows of a lost leader are gone", &mut leader),
        ("rows of a lost tenth are gone", &mut hosts),
        ("a unit that begins anew has all", &mut unit),
        ("another leads", &mut another),
    ] {
        let (median, high) = (percentile(times, 50), percentile(times, 99));
        println!("{name:<36} {median:>10} {high:>10}");
        if name != "another leads" {
            all.append(times);
        }
    }
    println!("\nhealth_bytes_per_host_s={per_host:.1}");
    println!("health_converge_ms_p99={}", percentile(&mut all, 99));
}
