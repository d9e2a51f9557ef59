// SPDX-License-Identifier: MIT OR Apache-2.0

//! `nlb trace`.

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    io::{
        self,
        Write, //
    }, //
};

use nlb_netlink::{
    AllotmentState,
    ConnectionKey,
    Endpoint,
    EndpointId,
    EndpointState,
    Error,
    Fwd,
    Links,
    Named,
    Rule,
    Service,
    Trace,
    TraceChoice,
    TraceOutcome,
    TraceSlow, //
};
use serde::Serialize;

use super::{
    connection,
    rule,
    socket,
    Outcome, //
};
use crate::{
    cli::TraceArgs,
    failure::Failure,
    output::{
        maybe,
        milliseconds,
        Format, //
    },
};

const ENOENT: i32 = 2;

/// What would happen to a packet, with what there is to know about it.
#[derive(Debug, Serialize)]
struct Traced {
    #[serde(flatten)]
    trace: Trace,
    /// Whether later packets take the fast path, if there is a way.
    #[serde(skip_serializing_if = "Option::is_none")]
    fast_path: Option<bool>,
    /// Name of the device that it leaves by.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    /// The service.
    #[serde(skip_serializing_if = "Option::is_none")]
    of: Option<Service>,
    /// The rule that decides about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<Rule>,
    /// The endpoints, if one has to be picked.
    endpoints: Vec<Candidate>,
}

/// An endpoint, and why it is picked or is not.
#[derive(Debug, Serialize)]
struct Candidate {
    #[serde(flatten)]
    endpoint: Endpoint,
    /// What it has of the allotment, if connections go by that.
    #[serde(skip_serializing_if = "Option::is_none")]
    share: Option<u32>,
    standing: Standing,
}

/// Why an endpoint is picked or is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Standing {
    Picked,
    Inactive,
    Draining,
    Full,
    Backup,
    NoWeight,
    NoShare,
    /// Nothing is against it.
    Other,
}

pub(super) fn run(args: &TraceArgs, format: Format) -> Outcome {
    let traced = trace(&connection(&args.service, args.client)?)?;
    if format.is_json() {
        format.json(&traced)?;
    } else {
        let mut out = io::stdout().lock();
        for (what, text) in lines(&traced) {
            writeln!(out, "{what:<10} {text}")?;
        }
        out.flush()?;
    }
    Ok(())
}

/// Nothing, if it is gone meanwhile.
fn there<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Err(error) if error.errno() == Some(ENOENT) => Ok(None),
        other => other.map(Some),
    }
}

fn trace(key: &ConnectionKey) -> Result<Traced, Failure> {
    let mut fwd = Fwd::open()?;
    let trace = fwd.trace(key)?;
    let service = trace.service();
    let of = match &service {
        Some(service) => there(fwd.service(service))?,
        None => None,
    };
    let by = match trace.rule {
        Some(priority) => there(fwd.rule(priority))?,
        None => None,
    };
    let device = match trace.ifindex {
        Some(index) => device(index)?,
        None => None,
    };
    let nobody = matches!(
        trace.outcome,
        Named::Known(TraceOutcome::NoEndpoint | TraceOutcome::Overflow)
    );
    let picks = nobody || trace.choice.is_some();
    let mut endpoints = Vec::new();
    if let Some(service) = service.filter(|_| picks) {
        let goes_by_shares = matches!(
            trace.allotment_state,
            Some(Named::Known(AllotmentState::Valid | AllotmentState::Low))
        );
        let shares = match goes_by_shares {
            true => there(fwd.allotment(&service))?.map(|allotment| allotment.shares),
            false => None,
        };
        let shares: Option<HashMap<_, _>> = shares.map(|shares| {
            let each = shares.iter().map(|share| {
                let port = share.host_port.unwrap_or(0);
                (EndpointId::new(share.host_addr, Some(port)), share.amount)
            });
            each.collect()
        });
        let all = there(fwd.endpoints(Some(&service)))?.unwrap_or_default();
        endpoints.extend(all.into_iter().map(|endpoint| {
            let share = shares.as_ref().map(|shares| {
                let share = shares.get(&endpoint.id());
                share.copied().unwrap_or(0)
            });
            let picked = trace.choice.is_some() && is_it(&trace, &endpoint);
            Candidate {
                standing: standing(&endpoint, picked, share, trace.choice),
                endpoint,
                share,
            }
        }));
    }
    Ok(Traced {
        fast_path: trace.mtu.map(|_| trace.slow.is_none()),
        trace,
        device,
        of,
        by,
        endpoints,
    })
}

/// Whether the packet goes to this endpoint.
fn is_it(trace: &Trace, endpoint: &Endpoint) -> bool {
    trace.host_addr == Some(endpoint.host_addr) && trace.host_port == endpoint.host_port
}

fn device(index: u32) -> Result<Option<String>, Failure> {
    let links = Links::open()?.links()?;
    let mut found = links.into_iter().filter(|link| link.index == index);
    Ok(found.next().map(|link| link.name))
}

/// In the order in which the kernel asks.
fn standing(
    endpoint: &Endpoint,
    picked: bool,
    share: Option<u32>,
    choice: Option<Named<TraceChoice>>,
) -> Standing {
    let by_scheduler = matches!(
        choice,
        None | Some(Named::Known(
            TraceChoice::Scheduler | TraceChoice::Backup | TraceChoice::Hash
        ))
    );
    match endpoint.state {
        _ if picked => Standing::Picked,
        Some(Named::Known(EndpointState::Inactive)) => Standing::Inactive,
        Some(Named::Known(EndpointState::Draining)) => Standing::Draining,
        _ if by_scheduler && endpoint.weight == Some(0) => Standing::NoWeight,
        _ if endpoint.full == Some(true) => Standing::Full,
        _ if endpoint.backup == Some(true) && choice != Some(Named::Known(TraceChoice::Backup)) => {
            Standing::Backup
        }
        _ if share == Some(0) && !by_scheduler => Standing::NoShare,
        _ => Standing::Other,
    }
}

/// What is printed, with what it is about.
fn lines(traced: &Traced) -> Vec<(&'static str, String)> {
    let trace = &traced.trace;
    let key = trace.key();
    let mut lines = vec![("packet", packet(&key))];
    lines.push(("service", service(traced)));
    if let Some(answered) = trace.answered() {
        lines.push(("answers", packet(&answered)));
    }
    if let Some(state) = trace.route_state {
        let gives_way = match trace.outcome {
            Named::Known(TraceOutcome::Route | TraceOutcome::Reply) => false,
            // Of a new one, if somebody was picked.
            Named::Known(TraceOutcome::NoWay) => trace.choice.is_some(),
            _ => true,
        };
        let what = if gives_way {
            ", gives way to a new connection"
        } else {
            ""
        };
        lines.push(("route", format!("state {state}{what}")));
    }
    match (&traced.by, trace.rule) {
        (Some(own), _) => lines.push(("rule", rule::line(own))),
        (None, Some(priority)) => lines.push(("rule", format!("priority {priority}"))),
        (None, None) => {}
    }
    if trace.affinity_host.is_some() {
        let host = socket(trace.affinity_host, trace.affinity_host_port);
        let expires = milliseconds(trace.affinity_expires);
        lines.push(("affinity", format!("{host}, for {expires}")));
    }
    if let Some(state) = trace.allotment_state {
        lines.push(("allotment", format!("state {state}")));
    }
    for candidate in &traced.endpoints {
        lines.push(("endpoint", endpoint(candidate, trace.choice)));
    }
    if trace.host_addr.is_some() {
        lines.push(("way", way(traced)));
        if let Some(fast) = fast(trace) {
            lines.push(("fast path", fast.to_owned()));
        }
    }
    lines.push(("outcome", outcome(traced)));
    lines
}

fn packet(key: &ConnectionKey) -> String {
    format!("{} > {}/{}", key.client, key.vip, key.proto)
}

fn service(traced: &Traced) -> String {
    let Some(key) = traced.trace.service() else {
        return "none".to_owned();
    };
    let Some(service) = &traced.of else {
        return key.to_string();
    };
    let classifier = service
        .classifier_port
        .map(|port| format!(" classifier {port}"));
    let scheduler = service
        .scheduler
        .map(|scheduler| format!(" scheduler {scheduler}"));
    format!(
        "{key} mode {}{}{}",
        maybe(service.mode),
        scheduler.unwrap_or_default(),
        classifier.unwrap_or_default()
    )
}

fn endpoint(candidate: &Candidate, choice: Option<Named<TraceChoice>>) -> String {
    let Candidate {
        endpoint,
        share,
        standing,
    } = candidate;
    let active = endpoint.active_routes.unwrap_or(0);
    let why = match standing {
        Standing::Picked => format!("picked by {}", maybe(choice)),
        Standing::Inactive => "inactive".to_owned(),
        Standing::Draining => "draining".to_owned(),
        Standing::Full => format!(
            "full: {active} active routes of {}{}",
            maybe(endpoint.max_routes),
            match endpoint.resume_routes {
                Some(resume) if active < endpoint.max_routes.unwrap_or(0) =>
                    format!(", until fewer than {resume}"),
                _ => String::new(),
            }
        ),
        Standing::Backup => "a backup, and another can take it".to_owned(),
        Standing::NoWeight => "weight 0".to_owned(),
        Standing::NoShare => "nothing left of the allotment".to_owned(),
        Standing::Other => "another time".to_owned(),
    };
    let share = share.map(|share| format!(" share {share}"));
    let step = endpoint
        .slow_start_step
        .map(|step| format!(" ({step}/16 by slow start)"));
    format!(
        "{} weight {}{}{} active {active}: {why}",
        endpoint.id(),
        maybe(endpoint.weight),
        step.unwrap_or_default(),
        share.unwrap_or_default()
    )
}

fn way(traced: &Traced) -> String {
    let trace = &traced.trace;
    let host = socket(trace.host_addr, trace.host_port);
    let ends = match (trace.answered(), trace.source_addr) {
        (Some(answered), _) => format!("from {host} back to {}", answered.client.ip()),
        (None, Some(source)) => format!("to {host} from {source}"),
        (None, None) => format!("to {host}"),
    };
    let device = match (&traced.device, trace.ifindex) {
        (Some(name), _) => format!(" dev {name}"),
        (None, Some(index)) => format!(" dev {index}"),
        (None, None) => String::new(),
    };
    let mtu = trace.mtu.map(|mtu| format!(" mtu {mtu}"));
    format!(
        "{} {ends}{device}{}",
        maybe(trace.forward),
        mtu.unwrap_or_default()
    )
}

fn fast(trace: &Trace) -> Option<&'static str> {
    trace.mtu?;
    Some(match trace.slow {
        None => "yes",
        Some(Named::Known(slow)) => match slow {
            TraceSlow::Ipip => "no: not with ipip, gre and gue",
            TraceSlow::Work => "no: the way does more than lead there (IPsec, encapsulation)",
            TraceSlow::PostRouting => "no: there are hooks in POST_ROUTING",
            TraceSlow::Link => "no: the device is no Ethernet",
            TraceSlow::Neighbour => "no: the link-layer address of the next hop is not known",
            TraceSlow::Reply => "no: not for replies",
        },
        Some(Named::Unknown(_)) => "no",
    })
}

fn outcome(traced: &Traced) -> String {
    let outcome = traced.trace.outcome;
    let Named::Known(known) = outcome else {
        return outcome.to_string();
    };
    let answered = traced.trace.answered();
    let what = match known {
        TraceOutcome::Route => "follows its route",
        TraceOutcome::NewRoute => "makes a route",
        TraceOutcome::Classifier => "goes to the classifier (pass-peek)",
        TraceOutcome::DropRule => "dropped by the rule (drop-rule)",
        TraceOutcome::RejectRule => "refused by the rule (reject-rule)",
        TraceOutcome::NoService => "goes to the local stack, for no service",
        TraceOutcome::NoEndpoint => {
            "goes to the local stack, no endpoint takes any (pass-no-endpoint)"
        }
        TraceOutcome::Overflow => "dropped, all endpoints are full (drop-overflow)",
        TraceOutcome::TableFull => "dropped, there is no room for a route (drop-table-full)",
        TraceOutcome::NoWay if answered.is_some() => {
            "dropped, no route leads to the client (drop-no-route)"
        }
        TraceOutcome::NoWay => "dropped, no route leads to the host (drop-no-route)",
        TraceOutcome::OnePacket => "is sent on by itself, without a route (one-packet)",
        TraceOutcome::Stateless => "is sent on without a route (stateless-packets)",
        TraceOutcome::Reply => match answered {
            Some(key) => {
                let (from, to) = (key.vip, key.client);
                return format!("translated back, goes on as {from} > {to} (reply-packets)");
            }
            None => "translated back (reply-packets)",
        },
    };
    what.to_owned()
}
