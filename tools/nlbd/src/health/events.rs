// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is told to those who watch: an object of JSON for each thing that happens. `Documentation/events.rst` has them.

use super::{
    balancer::Set,
    follower::Kind,
    plan::Place,
    state_name,
    view::{row_of, service},
    Handler,
};
use nlb_daemon::feed::{Feed, Watch};
use nlb_health::{cache::RowChange, lbu::Down, row::AppId, Lbu};
use nlb_netlink::ServiceKey;
use serde_json::{json, Value};
use std::time::{SystemTime, UNIX_EPOCH};

/// Those who watch, and what they were told.
#[derive(Debug, Default)]
pub(super) struct Events {
    feed: Feed,
    /// Why not all is as it should be, as it was told last.
    trouble: Option<String>,
}

impl Events {
    fn tell(&mut self, mut event: Value) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let milliseconds = since.map_or(0, |since| since.as_millis());
        if let Some(event) = event.as_object_mut() {
            event.insert("time".to_owned(), json!(milliseconds as f64 / 1000.0));
        }
        self.feed.tell(&event.to_string());
    }

    /// All of a host's table is there.
    pub(super) fn host_up(&mut self, lbu: &Lbu, host: u32) {
        if self.feed.is_watched() {
            let name = lbu.name(host);
            self.tell(json!({ "event": "host", "host": host, "name": name, "state": "up" }));
        }
    }

    /// Nothing of it is any more.
    pub(super) fn host_down(&mut self, host: u32, why: Down) {
        let cause = match why {
            Down::Goodbye => "goodbye",
            Down::Aged => "silent",
        };
        if self.feed.is_watched() {
            self.tell(json!({ "event": "host", "host": host, "state": "down", "cause": cause }));
        }
    }

    /// A row has changed; `place` is where it was, if it is gone.
    pub(super) fn row(
        &mut self,
        lbu: &Lbu,
        (host, app): (u32, AppId),
        change: RowChange,
        place: Option<&Place>,
    ) {
        if !self.feed.is_watched() {
            return;
        }
        let mut event = match (lbu.cache().row(host, app), place) {
            (Some(cached), _) => row_of(lbu, host, app, &cached.row),
            (None, Some(place)) => json!({
                "host": host,
                "id": app.0,
                "vip": service(place),
                "physical": place.physical,
            }),
            (None, None) => json!({ "host": host, "id": app.0 }),
        };
        let change = match change {
            RowChange::Added => "added",
            RowChange::Updated => "updated",
            RowChange::Removed => "removed",
            RowChange::Lost => "lost",
        };
        if let Some(event) = event.as_object_mut() {
            event.insert("event".to_owned(), "row".into());
            event.insert("change".to_owned(), change.into());
        }
        self.tell(event);
    }

    /// A balancer has set states of endpoints.
    pub(super) fn set(&mut self, kind: &Kind, all: &[Set]) {
        if !self.feed.is_watched() {
            return;
        }
        for set in all {
            self.tell(json!({
                "event": "endpoint",
                "balancer": kind.to_string(),
                "service": set.service.to_string(),
                "endpoint": set.endpoint,
                "state": state_name(set.state),
                "cause": set.cause.name(),
            }));
        }
    }

    /// Health does not count any more for a service, or does again.
    pub(super) fn panic(&mut self, service: &ServiceKey, panic: bool) {
        if self.feed.is_watched() {
            let service = service.to_string();
            self.tell(json!({ "event": "panic", "service": service, "panic": panic }));
        }
    }

    /// More has happened than can be said.
    pub(super) fn lost(&mut self) {
        if self.feed.is_watched() {
            self.tell(json!({ "event": "lost" }));
        }
    }
}

impl Handler {
    /// Somebody watches from now on.
    pub(super) fn watched(&mut self, lbu: u32) -> (Value, Option<Watch>) {
        let Some(watch) = self.events.feed.watch() else {
            let what = "too many watch already";
            return (json!({ "error": what }), None);
        };
        let version = self.lbu.cache().version();
        let trouble = self.trouble();
        let begin = json!({
            "event": "watching",
            "lbu": lbu,
            "version": version,
            "trouble": trouble,
        });
        (begin, Some(watch))
    }

    /// Tells what is not as it should be, if that is something else than before.
    pub(super) fn tell_trouble(&mut self) {
        let trouble = self.trouble();
        if self.events.trouble == trouble {
            return;
        }
        if self.events.feed.is_watched() {
            self.events
                .tell(json!({ "event": "trouble", "trouble": trouble }));
        }
        self.events.trouble = trouble;
    }
}
