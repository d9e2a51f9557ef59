// SPDX-License-Identifier: MIT OR Apache-2.0

//! Applications as answers have them.

use super::Host;
use crate::app::{App, Origin};
use nlb_health::row::{Directive, Status};
use serde_json::{json, Value};
use std::collections::BTreeMap;

impl Host {
    pub(super) fn show(&self) -> Value {
        let apps = self.apps.iter();
        let counters: BTreeMap<_, _> = self.agent.counters().iter().collect();
        json!({
            "host": self.id,
            "name": self.name,
            "lbus": self.agent.lbus().collect::<Vec<_>>(),
            "leader": self.agent.leader(),
            "apps": apps.map(|(name, app)| self.show_app(name, app)).collect::<Vec<_>>(),
            "counters": counters,
        })
    }

    pub(super) fn show_app(&self, name: &str, app: &App) -> Value {
        let row = app.row.and_then(|row| self.agent.table().row(row));
        let status = row.map(|row| row.status);
        // Whose row goes gets no new connections.
        let gone = match app.wanted {
            Directive::Active => Directive::Draining,
            wanted => wanted,
        };
        let state = |of: fn(&Status) -> Directive| status.as_ref().map_or(gone, of).name();
        json!({
            "app": name,
            "id": app.row.map(|row| row.0),
            "vip": app.spec.service().to_string(),
            "physical": app.spec.physical,
            "protocol": app.spec.protocol,
            "detail": app.spec.detail,
            "health": status.map(|status| status.health.name()),
            "why": app.why(),
            "load": status.map(|status| status.load),
            "capacity": status.map(|status| status.capacity),
            "target": state(|status| status.target),
            "current": state(|status| status.current),
            "unit": app.unit.as_ref().map(|unit| &unit.name),
            "registered": matches!(app.origin, Origin::Registered { .. }),
        })
    }
}
