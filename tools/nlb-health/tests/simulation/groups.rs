// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a leader saves, and what its death costs.

use crate::world::{host_address, member_address, unit_address, Multicast, Size, World, AGE_LIMIT};
use nlb_health::row::{AppType, Directive, Health, Identity, Row, Status};
use std::{net::SocketAddr, time::Duration};

const HOSTS: usize = 8;
const LBUS: usize = 3;
const STEP: Duration = Duration::from_millis(50);

fn wait(world: &mut World, seconds: u64) {
    world.run_until(world.now + Duration::from_secs(seconds));
}

/// Hosts with a row each, which are known everywhere.
fn world(groups: u32) -> World {
    world_by(groups, Multicast::None, true)
}

fn world_by(groups: u32, multicast: Multicast, changes: bool) -> World {
    let mut world = World::new(
        7,
        Size {
            hosts: HOSTS as u32,
            lbus: LBUS as u32,
            chaos_s: 0,
            groups,
            multicast,
            changes,
        },
    );
    for index in 0..HOSTS {
        let row = Row {
            identity: Identity {
                app_type: AppType {
                    vip: SocketAddr::from(([192, 0, 2, 1], 80)),
                    transport: 6,
                    protocol: String::new(),
                    detail: String::new(),
                },
                physical: SocketAddr::from(([10, 2, index as u8, 1], 80)),
            },
            status: Status {
                health: Health::Healthy,
                load: 0,
                capacity: 50,
                target: Directive::Active,
                current: Directive::Active,
            },
        };
        let agent = world.hosts[index].agent.as_mut().unwrap();
        agent.add(world.now, row).unwrap();
    }
    wait(&mut world, 8);
    world.check_equal();
    world.check_leaders();
    world
}

/// For so many seconds all units know the rows of all hosts but `except`.
fn all_stay(world: &mut World, seconds: u64, except: &[usize]) {
    let end = world.now + Duration::from_secs(seconds);
    while world.now < end {
        world.run_until(world.now + STEP);
        for (number, unit) in world.units.iter().enumerate() {
            let cache = unit.lbu.as_ref().unwrap().cache();
            for host in (0..HOSTS).filter(|host| !except.contains(host)) {
                let rows = cache.host(host as u32 + 1).count();
                assert_eq!(rows, 1, "unit {number} has lost host {host}");
            }
        }
    }
}

fn leader(world: &World, of: usize) -> usize {
    let agent = world.hosts[of].agent.as_ref().unwrap();
    agent.leader().unwrap() as usize - 1
}

/// Datagrams of a type that others than the leader send.
fn sent(world: &World, number: u8, leader: usize) -> u64 {
    let of_type = world
        .sent
        .iter()
        .filter(|((host, of), _)| *host != leader && *of == number);
    of_type.map(|(_, count)| count).sum()
}

#[test]
fn a_leader_spares_heartbeats() {
    let mut alone = world(0);
    alone.sent.clear();
    wait(&mut alone, 20);
    let all = (HOSTS * LBUS * 39) as u64;
    assert!(alone.sent.values().sum::<u64>() >= all);

    for (changes, passed_on) in [(false, 10), (true, 13)] {
        let mut led = world_by(1, Multicast::None, changes);
        led.sent.clear();
        wait(&mut led, 20);
        let leader = leader(&led, 0);
        // One in twenty, for those whom nobody knows yet.
        let direct = sent(&led, 1, leader);
        let most = ((HOSTS - 1) * LBUS * 3) as u64;
        assert!(direct <= most, "{direct} heartbeats beside the leader");
        assert!(direct >= ((HOSTS - 1) * LBUS) as u64);
        // Nobody else passes anything on.
        assert_eq!(sent(&led, passed_on, leader), 0);
        assert!(led.sent[&(leader, passed_on)] >= 40);
        led.check_equal();
    }
}

#[test]
fn the_death_of_a_leader_costs_no_row() {
    let mut world = world(1);
    let first = leader(&world, HOSTS - 1);
    world.hosts[first].agent = None;
    all_stay(&mut world, 6, &[first]);
    let second = leader(&world, HOSTS - 1);
    assert_ne!(second, first);
    // Who comes back does not take over.
    world.start_host(first);
    all_stay(&mut world, 6, &[first]);
    world.check_leaders();
    assert_eq!(leader(&world, first), second);
    // Nor does it cost anything that the next one dies as well.
    world.hosts[second].agent = None;
    all_stay(&mut world, 6, &[first, second]);
    world.start_host(second);
    wait(&mut world, 6);
    world.check_leaders();
}

/// Then one heartbeat that its host sends is for all units.
#[test]
fn leaders_may_be_heard_by_multicast() {
    let mut world = world_by(1, Multicast::All, true);
    world.sent.clear();
    wait(&mut world, 20);
    let first = leader(&world, HOSTS - 1);
    let direct = sent(&world, 1, first);
    // One in twenty, once for all units.
    let most = ((HOSTS - 1) * 3) as u64;
    assert!(direct <= most, "{direct} heartbeats beside the leader");
    assert!(direct >= (HOSTS - 1) as u64);
    world.check_equal();
    world.hosts[first].agent = None;
    all_stay(&mut world, 6, &[first]);
    assert_ne!(leader(&world, HOSTS - 1), first);
    world.start_host(first);
    wait(&mut world, 6);
    world.check_leaders();
    world.check_equal();
}

#[test]
fn a_leader_that_says_goodbye_is_followed_at_once() {
    let mut world = world(1);
    let old = leader(&world, HOSTS - 1);
    let now = world.now;
    world.hosts[old].agent.as_mut().unwrap().shut_down(now);
    all_stay(&mut world, 1, &[old]);
    assert_ne!(leader(&world, HOSTS - 1), old);
    all_stay(&mut world, 5, &[old]);
}

#[test]
fn a_leader_that_reaches_nobody_harms_nobody() {
    for back in [false, true] {
        let mut world = world(1);
        let leader = leader(&world, HOSTS - 1);
        for unit in 0..LBUS {
            let (a, b) = (host_address(leader), unit_address(unit));
            world.faults.cut.insert((a, b));
            if back {
                world.faults.cut.insert((b, a));
            }
        }
        all_stay(&mut world, 10, &[leader]);
    }
}

#[test]
fn a_unit_that_the_leader_cannot_reach_hears_the_hosts() {
    let mut world = world(1);
    let leader = leader(&world, HOSTS - 1);
    let (a, b) = (host_address(leader), unit_address(1));
    world.faults.cut.insert((a, b));
    world.sent.clear();
    all_stay(&mut world, 10, &[leader]);
    // It alone.
    let direct = sent(&world, 1, leader);
    assert!(
        direct < ((HOSTS - 1) * 24 * 3 / 2) as u64,
        "{direct} heartbeats"
    );
}

#[test]
fn two_leaders_do_no_harm() {
    let mut world = world(1);
    // Nobody of one half hears the other.
    for a in 0..HOSTS {
        for b in (0..HOSTS).filter(|b| (a < HOSTS / 2) != (*b < HOSTS / 2)) {
            let way = (member_address(a), member_address(b));
            world.faults.cut.insert(way);
        }
    }
    all_stay(&mut world, 8, &[]);
    assert_ne!(leader(&world, 0), leader(&world, HOSTS - 1));
    world.faults.cut.clear();
    all_stay(&mut world, 8, &[]);
    world.check_leaders();
    world.check_equal();
}

#[test]
fn a_unit_that_begins_anew_learns_all() {
    let mut world = world(1);
    world.crash_unit(0, true);
    world.start_unit(0);
    wait(&mut world, 3);
    world.check_equal();
}

/// It does not reach them where their leader hears them. What it knew before may be used for as long as the age limit.
#[test]
fn a_unit_that_begins_anew_learns_of_those_that_it_does_not_reach_in_the_group() {
    let mut world = world(1);
    for host in 0..HOSTS {
        let way = (unit_address(0), member_address(host));
        world.faults.cut.insert(way);
    }
    for step in 0..40 {
        world.run_until(world.now + STEP * step);
        world.crash_unit(0, true);
        world.start_unit(0);
        world.run_until(world.now + AGE_LIMIT);
        world.check_equal();
    }
}
