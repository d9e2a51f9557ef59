// SPDX-License-Identifier: MIT OR Apache-2.0

//! `nlb monitor`.

use nlb_netlink::{
    Allotment,
    Endpoint,
    Event,
    Group,
    Mapping,
    Migration,
    Miss,
    Monitor,
    Route,
    Service,
    Stats, //
};

use super::{
    rule,
    socket,
    Outcome, //
};
use crate::{
    cli::MonitorArgs,
    output::{
        maybe,
        milliseconds,
        nanoseconds,
        Format, //
    },
};

pub(super) fn run(args: &MonitorArgs, format: Format) -> Outcome {
    let wanted = |group: &Group| {
        if args.groups.is_empty() {
            // Packets wait for who listens to misses, and who only looks would not answer.
            return *group != Group::Misses;
        }
        args.groups.iter().any(|name| name == group.name())
    };
    let groups: Vec<_> = Group::ALL.into_iter().filter(wanted).collect();
    let mut monitor = Monitor::open(&groups)?;
    // Who waits for events must know from when on none is missed.
    let joined: Vec<_> = monitor.groups().iter().map(|group| group.name()).collect();
    eprintln!("Watching {}", joined.join(", "));
    let mut seen = 0;
    while args.count.is_none_or(|count| seen < count) {
        let Some(event) = monitor.next(None)? else {
            continue;
        };
        seen += 1;
        format.event(&event, line)?;
    }
    Ok(())
}

fn line(event: &Event) -> String {
    match event {
        Event::Service(object) => format!("service {}", service(object)),
        Event::ServiceDel(object) => format!("deleted service {}", service(object)),
        Event::Endpoint(object) => format!("endpoint {}", endpoint(object)),
        Event::EndpointDel(object) => format!("deleted endpoint {}", endpoint(object)),
        Event::Allotment(object) => format!("allotment {}", allotment(object)),
        Event::AllotmentDel(object) => format!("deleted allotment {}", object.service()),
        Event::Rule(object) => format!("rule {}", rule::line(object)),
        Event::RuleDel(object) => format!("deleted rule {}", rule::line(object)),
        Event::Route(object) => format!("route {}", route(object)),
        Event::RouteDel(object) => format!("deleted route {}", route(object)),
        Event::Miss(object) => format!("miss {}", miss(object)),
        Event::Limit(stats) => format!("limit {}", limits(stats)),
        Event::Mapping(object) => format!("mapping {}", mapping(object)),
        Event::MappingDel(object) => format!("deleted mapping {}", mapping(object)),
        Event::Migration(object) => format!("migration {}", migration(object)),
        Event::Overrun => "events were lost, the machine is faster than this reader".to_owned(),
        other => other.name().to_owned(),
    }
}

fn service(service: &Service) -> String {
    let scheduler = match service.scheduler {
        Some(scheduler) => format!(" scheduler {scheduler}"),
        None => String::new(),
    };
    let affinity = match (service.affinity_timeout, service.affinity_prefix) {
        (Some(timeout @ 1..), Some(prefix)) => format!(" affinity {timeout} prefix {prefix}"),
        _ => String::new(),
    };
    let times: String = [
        ("slow-start", service.slow_start),
        ("idle-timeout", service.idle_timeout),
        ("fin-timeout", service.fin_timeout),
        ("syn-timeout", service.syn_timeout),
        ("miss-timeout", service.miss_timeout),
    ]
    .iter()
    .filter_map(|(name, seconds)| Some(format!(" {name} {}", seconds.filter(|s| *s > 0)?)))
    .collect();
    let one_packet = match service.one_packet {
        Some(true) => " one-packet yes",
        _ => "",
    };
    format!(
        "{} mode {}{scheduler}{affinity}{times}{one_packet}",
        service.key(),
        maybe(service.mode)
    )
}

fn endpoint(endpoint: &Endpoint) -> String {
    let max_routes = match endpoint.max_routes {
        Some(max @ 1..) => format!(" max-routes {max}"),
        _ => String::new(),
    };
    let resume_routes = match endpoint.resume_routes {
        Some(resume @ 1..) => format!(" resume-routes {resume}"),
        _ => String::new(),
    };
    let backup = match endpoint.backup {
        Some(true) => " backup yes",
        _ => "",
    };
    let port = endpoint.tun_port.map(|port| format!(" tun-port {port}"));
    let checksum = match endpoint.tun_csum {
        Some(true) => " tun-csum yes",
        Some(false) => " tun-csum no",
        None => "",
    };
    format!(
        "{} host {} via {}{}{checksum} weight {} state {}{max_routes}{resume_routes}{backup}",
        endpoint.service(),
        socket(Some(endpoint.host_addr), endpoint.host_port),
        maybe(endpoint.forward),
        port.unwrap_or_default(),
        maybe(endpoint.weight),
        maybe(endpoint.state)
    )
}

fn allotment(allotment: &Allotment) -> String {
    let left = match allotment.left {
        Some(left) => format!(" left {left}"),
        None => String::new(),
    };
    format!(
        "{} scheme {} state {}{left} expires {}",
        allotment.service(),
        maybe(allotment.scheme),
        maybe(allotment.state),
        milliseconds(allotment.expires)
    )
}

fn route(route: &Route) -> String {
    let key = route.key();
    let end = match route.end {
        Some(end) => format!(" end {end}"),
        None => String::new(),
    };
    format!(
        "{} client {} host {} via {} id {} state {} origin {}{end}",
        key.service(),
        key.client,
        socket(route.host_addr, route.host_port),
        maybe(route.forward),
        maybe(route.flow_id),
        maybe(route.state),
        maybe(route.origin)
    )
}

fn miss(miss: &Miss) -> String {
    let key = miss.key();
    format!("{} client {}", key.service(), key.client)
}

fn limits(stats: &Stats) -> String {
    let limits: Vec<_> = stats
        .counters
        .iter()
        .map(|counter| format!("{} {}", counter.name, counter.value))
        .collect();
    limits.join(" ")
}

fn mapping(mapping: &Mapping) -> String {
    format!(
        "side {} id {} forwarder {} host {} client {} vip {}/{} state {}",
        mapping.side,
        mapping.flow_id,
        maybe(mapping.forwarder_addr),
        maybe(mapping.host_addr),
        socket(mapping.client_addr, mapping.client_port),
        socket(mapping.vip_addr, mapping.vip_port),
        maybe(mapping.proto),
        maybe(mapping.state)
    )
}

fn migration(migration: &Migration) -> String {
    let mut line = format!(
        "{} role {} peer {} phase {} client {} vip {} total {}",
        migration.id,
        maybe(migration.role),
        maybe(migration.peer_addr),
        maybe(migration.phase),
        socket(migration.client_addr, migration.client_port),
        socket(migration.vip_addr, migration.vip_port),
        nanoseconds(migration.total_ns)
    );
    if let Some(error) = &migration.error {
        line.push_str(&format!(" error {error}"));
    }
    line
}
