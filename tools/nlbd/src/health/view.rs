// SPDX-License-Identifier: MIT OR Apache-2.0

//! What `nlb health` is told: the answer to `{"command":"show"}`.

use super::{follower::Follower, plan::Place, state_name, Handler};
use nlb_netlink::{Proto, ServiceKey};
use serde::Deserialize;
use serde_json::{json, Value};
use std::collections::BTreeMap;

#[derive(Deserialize)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
enum Request {
    Show,
}

/// The answer to a line.
pub(super) fn answer(handler: &Handler, lbu: u32, line: &str) -> Value {
    match serde_json::from_str(line) {
        Ok(Request::Show) => show(handler, lbu),
        Err(error) => json!({ "error": error.to_string() }),
    }
}

fn show(handler: &Handler, lbu: u32) -> Value {
    let cache = handler.lbu.cache();
    let counters: BTreeMap<_, _> = handler.lbu.counters().iter().collect();
    let mut rows = Vec::new();
    for host in cache.hosts() {
        for (app, cached) in cache.host(host) {
            let (identity, status) = (&cached.row.identity, cached.row.status);
            let place = Place::of(&cached.row);
            let mut row = json!({
                "host": host,
                "name": handler.lbu.name(host),
                "id": app.0,
                "vip": service(&place),
                "physical": identity.physical,
                "protocol": identity.app_type.protocol,
                "detail": identity.app_type.detail,
                "health": status.health.name(),
                "load": status.load,
                "capacity": status.capacity,
                "target": status.target.name(),
                "current": status.current.name(),
            });
            with_effect(handler, &place, &mut row);
            rows.push(row);
        }
    }
    let stale = handler.stale().into_iter().map(|(place, host)| {
        let mut row = json!({ "host": host, "vip": service(&place), "physical": place.physical });
        with_effect(handler, &place, &mut row);
        row
    });
    let trouble: Vec<_> = handler
        .followers
        .iter()
        .filter_map(Follower::trouble)
        .collect();
    json!({
        "lbu": lbu,
        "rows": rows,
        "stale": stale.collect::<Vec<_>>(),
        "version": cache.version(),
        "applied": handler.applied,
        "trouble": (!trouble.is_empty()).then(|| trouble.join("; ")),
        "counters": counters,
    })
}

/// What its endpoint does; nothing, if this unit has none. Where several balancers have it, that by which it gets most.
fn with_effect(handler: &Handler, place: &Place, row: &mut Value) {
    let effects = handler.followers.iter().filter_map(|own| own.effect(place));
    let effect = effects.min_by_key(|effect| effect.state as u32);
    if let (Some(effect), Some(row)) = (effect, row.as_object_mut()) {
        row.insert("state".to_owned(), state_name(effect.state).into());
        row.insert("weight".to_owned(), effect.weight.into());
        row.insert("panic".to_owned(), effect.panic.into());
    }
}

fn service(place: &Place) -> String {
    ServiceKey::at(place.vip, Proto(place.transport.into())).to_string()
}
