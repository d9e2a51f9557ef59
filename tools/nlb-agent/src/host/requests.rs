// SPDX-License-Identifier: MIT OR Apache-2.0

//! Requests over the local socket, carried out.

use super::{missing, Host};
use crate::{
    app::{Origin, Spec},
    config::{check_capacity, is_name, Named},
    request::{ClosedName, Request},
    state::SavedApp,
};
use nlb_daemon::api::Caller;
use nlb_health::row::{Directive, Health, LOAD_MAX};
use serde_json::{json, Value};
use std::time::Instant;
use tracing::info;

impl Host {
    /// The answer to a line.
    pub(crate) fn request(&mut self, now: Instant, caller: Caller, line: &str) -> String {
        let request = serde_json::from_str(line).map_err(|error| error.to_string());
        let outcome = request.and_then(|request| self.carry_out(now, caller, request));
        outcome
            .unwrap_or_else(|what| json!({ "error": what }))
            .to_string()
    }

    fn carry_out(
        &mut self,
        now: Instant,
        caller: Caller,
        request: Request,
    ) -> Result<Value, String> {
        let name = match request {
            Request::Show { app: None } => return Ok(self.show()),
            Request::Show { app: Some(app) } => app,
            Request::Register {
                app,
                vip,
                physical,
                protocol,
                detail,
                capacity,
                health,
                hold,
            } => {
                let named = Named {
                    vip: &vip,
                    physical,
                    protocol,
                    detail,
                    capacity,
                };
                let spec = named.spec(&self.addresses).map_err(|(_, what)| what)?;
                let health = health.map_or(Health::Healthy, Health::from);
                self.register(now, caller, &app, spec, health, hold)?;
                app
            }
            Request::Unregister { app } => {
                let own = self.own(caller, &app)?;
                if matches!(own.origin, Origin::File { .. }) {
                    return Err(format!(
                        "{app} is in the configuration file; take it out there"
                    ));
                }
                self.remove(now, &app);
                return Ok(json!({ "app": app }));
            }
            Request::Health { app, health } => {
                let reported = Some(health.into());
                let own = self.own(caller, &app)?;
                if own.reported != reported {
                    own.reported = reported;
                    self.is_dirty = true;
                }
                self.settle(now, &app);
                app
            }
            Request::Load { app, load } => {
                if load > LOAD_MAX {
                    return Err(format!(
                        "load is {load}; it is a percentage, up to {LOAD_MAX}"
                    ));
                }
                let own = self.own(caller, &app)?;
                let row = own.row.ok_or_else(|| {
                    let why = own.why().unwrap_or_default();
                    format!("{app} is not in the table: {why}")
                })?;
                own.load_at = Some(now);
                let set = self.agent.set_load(now, row, load);
                set.map_err(|refused| refused.to_string())?;
                self.note_load(now);
                app
            }
            Request::Capacity { app, capacity } => {
                check_capacity(capacity)?;
                let own = self.own(caller, &app)?;
                own.spec.capacity = capacity;
                if let Some(row) = own.row {
                    let set = self.agent.set_capacity(now, row, capacity);
                    set.map_err(|refused| refused.to_string())?;
                }
                self.is_dirty = true;
                app
            }
            Request::Drain { app, state } => self.direct(now, caller, app, state.into())?,
            Request::Undo { app } if self.is_absent_of(caller, &app) => {
                self.absent.remove(&app);
                self.is_dirty = true;
                return Ok(json!({ "app": app }));
            }
            Request::Undo { app } => self.direct(now, caller, app, Directive::Active)?,
        };
        let app = self.apps.get(&name);
        app.map(|app| self.show_app(&name, app))
            .ok_or_else(|| missing(&name))
    }

    fn register(
        &mut self,
        now: Instant,
        caller: Caller,
        name: &str,
        spec: Spec,
        health: Health,
        hold: bool,
    ) -> Result<(), String> {
        let uid = caller.uid;
        self.may_register(uid)?;
        if !is_name(name) {
            return Err("a name has 1 to 63 letters, digits, \"-\", \"_\" and \".\"".to_owned());
        }
        self.may_be_at(uid, &spec)?;
        let mut others = self.apps.iter().filter(|(other, _)| *other != name);
        if let Some((other, _)) = others.find(|(_, app)| app.spec.is_same(&spec)) {
            return Err(format!("{other} has these addresses, protocol and detail"));
        }
        let held_by = hold.then_some(caller.connection);
        let mut kept = SavedApp {
            health: Some(health.into()),
            ..SavedApp::default()
        };
        let mut uid = uid;
        if self.apps.contains_key(name) {
            let own = self.own(caller, name)?;
            match own.origin {
                Origin::File { .. } => {
                    return Err(format!("{name} is in the configuration file already"));
                }
                // Root may register for somebody again.
                Origin::Registered { uid: owner, .. } => uid = owner,
            }
            if own.spec.is_same(&spec) {
                let (row, capacity) = (own.row, spec.capacity);
                own.spec = spec;
                own.origin = Origin::Registered { uid, held_by };
                own.reported = Some(health);
                if let Some(row) = row {
                    let _ = self.agent.set_capacity(now, row, capacity);
                }
                self.is_dirty = true;
                self.settle(now, name);
                return Ok(());
            }
            kept.state = ClosedName::of(own.wanted);
            self.remove(now, name);
        } else {
            self.may_have_more(uid)?;
            // Another user's has nothing to do with it.
            let absent = self.absent.get(name).filter(|(owner, _)| *owner == uid);
            kept.state = absent.map(|(_, state)| *state);
        }
        self.add(now, name, spec, Origin::Registered { uid, held_by }, &kept)?;
        if self
            .absent
            .get(name)
            .is_some_and(|(owner, _)| *owner == uid)
        {
            self.absent.remove(name);
        }
        Ok(())
    }

    fn direct(
        &mut self,
        now: Instant,
        caller: Caller,
        name: String,
        wanted: Directive,
    ) -> Result<String, String> {
        let own = self.own(caller, &name)?;
        own.wanted = wanted;
        let (row, target) = (own.row, own.target());
        if let Some(row) = row {
            let set = self.agent.set_target(now, row, target);
            set.map_err(|refused| refused.to_string())?;
        }
        info!(app = name, uid = caller.uid, "shall be {}", wanted.name());
        self.is_dirty = true;
        Ok(name)
    }
}
