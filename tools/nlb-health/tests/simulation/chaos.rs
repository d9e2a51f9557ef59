// SPDX-License-Identifier: MIT OR Apache-2.0

//! What befalls the machines.

use crate::world::{host_address, member_address, place, unit_address, World};
use nlb_health::row::{AppId, AppType, Directive, Health, Identity, Row, Status};
use std::{net::SocketAddr, time::Duration};

const DIRECTIVES: [Directive; 3] = [Directive::Active, Directive::Inactive, Directive::Draining];

fn row(world: &mut World, host: usize) -> Row {
    let service = world.random.below(3) as u8;
    let app = world.random.below(10) as u8;
    let target = DIRECTIVES[world.random.below(3)];
    let long = world.random.below(256);
    Row {
        identity: Identity {
            app_type: AppType {
                vip: SocketAddr::from(([192, 0, 2, 1 + service], 80)),
                transport: 6,
                protocol: "http".to_owned(),
                detail: "/".repeat(if service == 0 { long } else { 1 }),
            },
            physical: SocketAddr::from(([10, 2, host as u8, 1 + app], 8080)),
        },
        status: Status {
            health: Health::Healthy,
            load: 0,
            capacity: 50,
            target,
            current: target,
        },
    }
}

/// Something happens to an application.
fn application(world: &mut World) {
    let host = world.random.below(world.hosts.len());
    let row = row(world, host);
    let (now, random) = (world.now, &mut world.random);
    let Some(agent) = world.hosts[host].running() else {
        return;
    };
    let apps: Vec<AppId> = agent.table().rows().map(|(app, _)| app).collect();
    if apps.is_empty() || random.percent(25) {
        // One endpoint is one row at a time here, for the sake of what is checked.
        let mut rows = agent.table().rows();
        if !rows.any(|(_, other)| place(other) == place(&row)) {
            drop(rows);
            agent.add(now, row).unwrap();
        }
        return;
    }
    let app = apps[random.below(apps.len())];
    match random.below(10) {
        0 => agent.remove(now, app),
        1 | 2 => {
            let health = [Health::Unknown, Health::Healthy, Health::Failing];
            agent.set_health(now, app, health[random.below(3)])
        }
        3 | 4 => agent.set_load(now, app, random.below(120) as u8),
        5 => agent.set_capacity(now, app, random.below(100) as u8),
        _ => agent.set_target(now, app, DIRECTIVES[random.below(3)]),
    }
    .unwrap();
}

/// Something happens to a machine or to the network.
fn machine(world: &mut World) {
    let host = world.random.below(world.hosts.len());
    let unit = world.random.below(world.units.len());
    let now = world.now;
    match world.random.below(11) {
        0 => {
            // A crash; what the host believed is void.
            world.hosts[host].agent = None;
            world.start_host(host);
        }
        1 => {
            if let Some(agent) = world.hosts[host].running() {
                agent.shut_down(now);
            }
        }
        2 => {
            let is_back = world.random.percent(70);
            world.crash_unit(unit, !is_back);
            if is_back {
                world.start_unit(unit);
            }
        }
        3 => {
            if world.hosts[host].agent.is_none() {
                world.start_host(host);
            }
        }
        4 => {
            if world.units[unit].lbu.is_none() {
                world.start_unit(unit);
            }
        }
        5 | 6 => {
            let (a, b) = (host_address(host), unit_address(unit));
            let both = world.random.below(3);
            if both != 0 {
                world.faults.cut.insert((a, b));
            }
            if both != 1 {
                world.faults.cut.insert((b, a));
            }
            // It may be reached where its group reaches it, or not.
            if world.random.percent(50) {
                world.faults.cut.insert((b, member_address(host)));
            }
        }
        7 => {
            let other = world.random.below(world.hosts.len());
            let (a, b) = (member_address(host), member_address(other));
            world.faults.cut.insert((a, b));
            if world.random.percent(70) {
                world.faults.cut.insert((b, a));
            }
        }
        8 => world.stand_still(host),
        9 => {
            world.faults.deaf.insert(unit);
        }
        _ => {
            world.faults.cut.clear();
            world.faults.deaf.clear();
        }
    }
}

pub(crate) fn run(world: &mut World) {
    world.faults.lost = world.random.next() % 30;
    world.faults.doubled = world.random.next() % 20;
    world.faults.late = world.random.next() % 40;
    let busy = 20 + world.random.next() % 300;
    let end = world.now + world.chaos_time();
    while world.now < end {
        match world.random.below(10) {
            0 => machine(world),
            1 => world.replay(),
            _ => application(world),
        }
        let wait = Duration::from_millis(world.random.next() % busy);
        world.run_until(world.now + wait);
    }
}
