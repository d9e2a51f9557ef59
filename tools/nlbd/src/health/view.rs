// SPDX-License-Identifier: MIT OR Apache-2.0

//! What `nlb health` is told: the answer to `{"command":"show"}`, and the beginning of that to `{"command":"events"}`.

use super::{follower::Follower, plan::Place, state_name, Handler};
use nlb_daemon::feed::Watch;
use nlb_health::{
    row::{AppId, Row},
    Lbu,
};
use nlb_netlink::{Proto, ServiceKey};
use serde::Deserialize;
use serde_json::{json, Value};
use std::collections::BTreeMap;

#[derive(Deserialize)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
enum Request {
    Show,
    Events,
}

/// The answer to a line, and what comes behind it.
pub(super) fn answer(handler: &mut Handler, lbu: u32, line: &str) -> (Value, Option<Watch>) {
    match serde_json::from_str(line) {
        Ok(Request::Show) => (show(handler, lbu), None),
        Ok(Request::Events) => handler.watched(lbu),
        Err(error) => (json!({ "error": error.to_string() }), None),
    }
}

/// A row, as its host has told it.
pub(super) fn row_of(lbu: &Lbu, host: u32, app: AppId, row: &Row) -> Value {
    let (identity, status) = (&row.identity, row.status);
    json!({
        "host": host,
        "name": lbu.name(host),
        "id": app.0,
        "vip": service(&Place::of(row)),
        "physical": identity.physical,
        "protocol": identity.app_type.protocol,
        "detail": identity.app_type.detail,
        "health": status.health.name(),
        "load": status.load,
        "capacity": status.capacity,
        "target": status.target.name(),
        "current": status.current.name(),
    })
}

impl Handler {
    /// Why not all is as it should be.
    pub(super) fn trouble(&self) -> Option<String> {
        let followers = self.followers.iter().filter_map(Follower::trouble);
        let unheard = self.memberships.iter().filter_map(|(of, why)| {
            let why = why.as_ref()?;
            Some(format!("{of} is not heard: {why}"))
        });
        let trouble: Vec<_> = followers.chain(unheard).collect();
        (!trouble.is_empty()).then(|| trouble.join("; "))
    }
}

fn show(handler: &Handler, lbu: u32) -> Value {
    let cache = handler.lbu.cache();
    let counters: BTreeMap<_, _> = handler.lbu.counters().iter().collect();
    let mut rows = Vec::new();
    for host in cache.hosts() {
        for (app, cached) in cache.host(host) {
            let mut row = row_of(&handler.lbu, host, app, &cached.row);
            with_effect(handler, &Place::of(&cached.row), &mut row);
            rows.push(row);
        }
    }
    let stale = handler.stale().into_iter().map(|(place, host)| {
        let mut row = json!({ "host": host, "vip": service(&place), "physical": place.physical });
        with_effect(handler, &place, &mut row);
        row
    });
    json!({
        "lbu": lbu,
        "rows": rows,
        "stale": stale.collect::<Vec<_>>(),
        "version": cache.version(),
        "applied": handler.applied,
        "trouble": handler.trouble(),
        "counters": counters,
    })
}

/// What its endpoint does; nothing, if this unit has none. Where several balancers have it, that by which it gets most.
fn with_effect(handler: &Handler, place: &Place, row: &mut Value) {
    let effects = handler.followers.iter().filter_map(|own| own.effect(place));
    let effect = effects.min_by_key(|effect| effect.state as u32);
    if let (Some(effect), Some(row)) = (effect, row.as_object_mut()) {
        row.insert("state".to_owned(), state_name(effect.state).into());
        row.insert("cause".to_owned(), effect.cause.name().into());
        row.insert("weight".to_owned(), effect.weight.into());
        row.insert("panic".to_owned(), effect.is_panic().into());
    }
}

pub(super) fn service(place: &Place) -> String {
    ServiceKey::at(place.vip, Proto(place.transport.into())).to_string()
}
