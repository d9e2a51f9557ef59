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
        let status = self.agent.table().row(app.id).map(|row| row.status);
        let state = |of: fn(&Status) -> Directive| status.as_ref().map(|status| of(status).name());
        json!({
            "app": name,
            "id": app.id.0,
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
            "registered": matches!(app.origin, Origin::Registered { .. }),
        })
    }
}
