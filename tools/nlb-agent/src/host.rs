// SPDX-License-Identifier: MIT OR Apache-2.0

//! The applications of the host: what is known of each, from whom, and what becomes of it in the table.

mod load;
mod rights;
mod show;

use crate::{
    app::{App, Origin, Spec},
    check::{Check, Verdict},
    config::{check_capacity, is_name, Config, FileApp, Named},
    request::{ClosedName, Request},
    state::{Found, Registered, Saved, SavedApp},
};
use nlb_daemon::api::{Admitted, Caller};
use nlb_health::{
    agent::{Agent, Event},
    row::{Directive, Health, Row, Status, LOAD_MAX},
};
use serde_json::{json, Value};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
};
use tracing::{error, info, warn};

/// Why an application is failing that was failing in the life before.
const BEFORE: &str = "it was when the agent ended";

/// Applications that one user may have registered: nobody takes all of the table. As many may be draining that are not
/// here.
pub(crate) const OF_USER_MAX: usize = 64;

/// The host.
pub(crate) struct Host {
    pub(crate) agent: Agent,
    /// Something has changed that a restart must not lose.
    pub(crate) is_dirty: bool,
    apps: BTreeMap<String, App>,
    /// What shall be draining although it is not here: its program has ended, and may come again. Whose it is, too.
    absent: BTreeMap<String, (u32, ClosedName)>,
    /// Checks that have not found anything in this life.
    awaited: BTreeSet<(String, usize)>,
    id: u32,
    name: Option<String>,
    addresses: Vec<IpAddr>,
    register: BTreeSet<u32>,
    trusted: Admitted,
    generation: u64,
    boot: String,
}

impl Host {
    /// With the applications of the file, and those that had registered before.
    pub(crate) fn new(
        now: Instant,
        config: &mut Config,
        agent: Agent,
        saved: &Saved,
        trusted: Admitted,
    ) -> Self {
        let mut host = Self {
            agent,
            is_dirty: true,
            apps: BTreeMap::new(),
            absent: BTreeMap::new(),
            awaited: BTreeSet::new(),
            id: config.agent.host,
            name: config.agent.name.clone(),
            addresses: config.addresses.clone(),
            register: config.register.clone(),
            trusted,
            generation: 0,
            boot: saved.boot.clone(),
        };
        for app in std::mem::take(&mut config.apps) {
            host.file_app(now, app, saved);
        }
        for (name, kept) in &saved.apps {
            if host.apps.contains_key(name) {
                continue;
            }
            if let (Some(uid), Some(state)) = (kept.holder, kept.state) {
                host.miss(name, uid, state);
            }
            let Some(Registered { uid, spec }) = &kept.registered else {
                continue;
            };
            let origin = Origin::Registered {
                uid: *uid,
                held_by: None,
            };
            let taken = match host.may_stay(*uid, spec) {
                Ok(()) => host.add(now, name, spec.clone(), origin, kept),
                Err(what) => Err(what),
            };
            if let Err(what) = taken {
                warn!(app = name, "had registered, and is not taken again: {what}");
            }
        }
        let awaited = host.checks();
        let awaited = awaited.map(|(name, index, ..)| (name.to_owned(), index));
        host.awaited = awaited.collect();
        host
    }

    /// The program of an application has ended that shall be draining; it shall be so when it comes again.
    fn miss(&mut self, name: &str, uid: u32, state: ClosedName) {
        let of_user = self.absent.values().filter(|(owner, _)| *owner == uid);
        if of_user.count() < OF_USER_MAX || self.absent.contains_key(name) {
            self.absent.insert(name.to_owned(), (uid, state));
            self.is_dirty = true;
        } else {
            warn!(
                app = name,
                uid, "has ended, and that it shall be draining is forgotten: there are too many"
            );
        }
    }

    /// The users who get an answer.
    pub(crate) fn admitted(&self) -> Admitted {
        let owners = self.apps.values().filter_map(|app| match app.origin {
            Origin::File { uid } => uid,
            Origin::Registered { uid, .. } => Some(uid),
        });
        let others = self.register.iter().copied();
        owners.chain(others).chain(self.trusted.clone()).collect()
    }

    /// What has to be looked at: application, number, check, and what is known so far.
    pub(crate) fn checks(&self) -> impl Iterator<Item = (&str, usize, &Check, Health)> {
        self.apps.iter().flat_map(move |(name, app)| {
            let checks = app.checks.iter().zip(&app.verdicts).enumerate();
            checks.map(move |(index, (check, (health, _)))| {
                // What the life before has found stands until this one finds something.
                let is_awaited = self.awaited.contains(&(name.clone(), index));
                let before = if is_awaited { Health::Unknown } else { *health };
                (name.as_str(), index, check, before)
            })
        })
    }

    /// The applications as they are in the table.
    pub(crate) fn statuses(&self) -> impl Iterator<Item = (&str, Status)> {
        let status = |app: &App| Some(self.agent.table().row(app.id)?.status);
        let apps = self.apps.iter();
        apps.filter_map(move |(name, app)| Some((name.as_str(), status(app)?)))
    }

    /// See [`Verdict::generation`].
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// All checks have found something in this life.
    pub(crate) fn is_known(&self) -> bool {
        self.awaited.is_empty()
    }

    /// What the next life has to know.
    pub(crate) fn saved(&self, epoch: u64) -> Saved {
        let saved = |app: &App| SavedApp {
            registered: match app.origin {
                Origin::Registered { uid, .. } => Some(Registered {
                    uid,
                    spec: app.spec.clone(),
                }),
                Origin::File { .. } => None,
            },
            health: app.reported.map(Into::into),
            found: app.worst_found().map(|health| Found {
                health: health.into(),
                spec: app.spec.clone(),
            }),
            state: ClosedName::of(app.wanted),
            holder: None,
        };
        // Of those that end with their programs it is only kept that they shall be draining.
        let held = |uid, state| SavedApp {
            state: Some(state),
            holder: Some(uid),
            ..SavedApp::default()
        };
        let apps = self.apps.iter().filter_map(|(name, app)| {
            let saved = match app.holder() {
                Some(uid) => held(uid, ClosedName::of(app.wanted)?),
                None => saved(app),
            };
            Some((name.clone(), saved))
        });
        let absent = self.absent.iter();
        let absent = absent.map(|(name, (uid, state))| (name.clone(), held(*uid, *state)));
        Saved {
            epoch,
            boot: self.boot.clone(),
            apps: absent.chain(apps).collect(),
        }
    }

    /// A new reading of the configuration file.
    pub(crate) fn reload(&mut self, now: Instant, config: Config) {
        let kept = self.saved(0);
        self.addresses = config.addresses;
        self.register = config.register;
        *self.agent.keys_mut() = config.keys;
        self.agent.set_lbus(config.agent.lbus);
        let seeds = config.agent.group.map(|group| group.seeds);
        self.agent.set_seeds(seeds.unwrap_or_default());
        self.generation += 1;
        let is_gone = |name: &str, app: &App| match app.origin {
            Origin::File { .. } => !config
                .apps
                .iter()
                .any(|new| new.name == name && new.spec.is_same(&app.spec)),
            // The file takes precedence.
            Origin::Registered { .. } => config
                .apps
                .iter()
                .any(|new| new.name == name || new.spec.is_same(&app.spec)),
        };
        let gone = self.apps.iter().filter(|(name, app)| is_gone(name, app));
        let gone: Vec<_> = gone.map(|(name, _)| name.clone()).collect();
        for name in gone {
            self.remove(now, &name);
        }
        for app in config.apps {
            self.file_app(now, app, &kept);
        }
        let mut refused = Vec::new();
        for (name, app) in &self.apps {
            let Origin::Registered { uid, .. } = app.origin else {
                continue;
            };
            if let Err(what) = self.may_stay(uid, &app.spec) {
                warn!(app = name.as_str(), "may not be there any more: {what}");
                refused.push(name.clone());
            }
        }
        for name in refused {
            self.remove(now, &name);
        }
    }

    /// An application of the file, as it is there now.
    fn file_app(&mut self, now: Instant, new: FileApp, saved: &Saved) {
        let origin = Origin::File { uid: new.uid };
        let is_new = !self.apps.contains_key(&new.name);
        if is_new {
            let kept = saved.apps.get(&new.name).cloned().unwrap_or_default();
            if let Err(what) = self.add(now, &new.name, new.spec.clone(), origin, &kept) {
                return error!(app = new.name, "cannot be taken into the table: {what}");
            }
        }
        let Some(app) = self.apps.get_mut(&new.name) else {
            return;
        };
        app.origin = origin;
        let was_measured = std::mem::replace(&mut app.measure, new.measure).is_some();
        if was_measured && app.measure.is_none() && app.load_at.is_none() {
            // The row is there.
            let _ = self.agent.forget_load(now, app.id);
        }
        app.spec.capacity = new.spec.capacity;
        if app.checks != new.checks {
            // It is as it was, until the new ones have found something.
            let before = if is_new {
                let kept = saved.apps.get(&new.name);
                let kept = kept.and_then(|kept| kept.found.as_ref());
                let kept = kept.filter(|found| found.spec.is_same(&new.spec));
                let health = kept.map_or(Health::Unknown, |found| found.health.into());
                let why = (health == Health::Failing).then(|| BEFORE.to_owned());
                (health, why)
            } else {
                app.found()
            };
            let verdict = |check: &Check| {
                let old = app.checks.iter().position(|old| old == check);
                let verdict = old.and_then(|index| app.verdicts.get(index));
                verdict.unwrap_or(&before).clone()
            };
            let verdicts = new.checks.iter().map(verdict).collect();
            app.verdicts = verdicts;
            app.checks = new.checks;
        }
        // It is in its range, and the row is there.
        let _ = self.agent.set_capacity(now, app.id, new.spec.capacity);
        self.settle(now, &new.name);
    }

    fn add(
        &mut self,
        now: Instant,
        name: &str,
        spec: Spec,
        origin: Origin,
        kept: &SavedApp,
    ) -> Result<(), String> {
        let reported = kept.health.map(Health::from);
        let row = Row {
            identity: spec.identity(),
            status: Status {
                health: reported.unwrap_or(Health::Unknown),
                load: 0,
                capacity: spec.capacity,
                target: Directive::Active,
                current: Directive::Active,
            },
        };
        let id = self
            .agent
            .add(now, row)
            .map_err(|refused| refused.to_string())?;
        let wanted = kept.state.map_or(Directive::Active, Directive::from);
        if wanted != Directive::Active {
            // Somebody may still do otherwise.
            let _ = self.agent.set_target(now, id, wanted);
        }
        let app = App {
            id,
            spec,
            origin,
            checks: Vec::new(),
            verdicts: Vec::new(),
            reported,
            measure: None,
            load_at: None,
            wanted,
        };
        info!(app = name, vip = %app.spec.service(), physical = %app.spec.physical, "is in the table");
        self.apps.insert(name.to_owned(), app);
        self.is_dirty = true;
        Ok(())
    }

    fn remove(&mut self, now: Instant, name: &str) {
        if let Some(app) = self.apps.remove(name) {
            let _ = self.agent.remove(now, app.id);
            info!(app = name, "is not in the table any more");
            self.is_dirty = true;
        }
    }

    /// The row has the health that is known.
    fn settle(&mut self, now: Instant, name: &str) {
        let Some(app) = self.apps.get(name) else {
            return;
        };
        let health = app.health();
        let row = self.agent.table().row(app.id);
        if row.is_some_and(|row| row.status.health != health) {
            let why = app.why().unwrap_or_default();
            match health {
                Health::Failing => warn!(app = name, "is failing: {why}"),
                _ => info!(app = name, "is {}", health.name()),
            }
            let _ = self.agent.set_health(now, app.id, health);
        }
    }

    /// A check has found something.
    pub(crate) fn verdict(&mut self, now: Instant, verdict: Verdict) {
        if verdict.generation != self.generation {
            return;
        }
        let Some(app) = self.apps.get_mut(&verdict.app) else {
            return;
        };
        let before = app.worst_found();
        let Some(place) = app.verdicts.get_mut(verdict.index) else {
            return;
        };
        *place = (verdict.health, verdict.why);
        self.is_dirty |= app.worst_found() != before;
        self.settle(now, &verdict.app);
        self.awaited.remove(&(verdict.app, verdict.index));
    }

    /// A connection has ended, and what it holds.
    pub(crate) fn closed(&mut self, now: Instant, caller: Caller) {
        let is_held = |app: &App| matches!(app.origin, Origin::Registered { held_by, .. } if held_by == Some(caller.connection));
        let held = self.apps.iter().filter(|(_, app)| is_held(app));
        let held = held.map(|(name, app)| (name.clone(), app.holder(), app.wanted));
        for (name, uid, wanted) in held.collect::<Vec<_>>() {
            self.remove(now, &name);
            if let (Some(uid), Some(state)) = (uid, ClosedName::of(wanted)) {
                self.miss(&name, uid, state);
            }
        }
    }

    /// Tells of an event; `false` if it was the last one.
    pub(crate) fn event(&self, event: Event) -> bool {
        match event {
            Event::DirectiveReached { app, directive } => {
                let name = self.apps.iter().find(|(_, own)| own.id == app);
                if let Some((name, _)) = name {
                    info!(app = name.as_str(), "is {} everywhere", directive.name());
                }
            }
            Event::LbuFound { lbu, from } => info!(lbu, %from, "load balancing unit found"),
            Event::LbuLost { lbu } => warn!(lbu, "load balancing unit not heard of"),
            Event::Leader { host, members } => {
                let is_own = host == self.id;
                info!(leader = host, is_own, members, "leader of the group");
            }
            Event::Gone => return false,
        }
        true
    }

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
                own.load_at = Some(now);
                let id = own.id;
                let set = self.agent.set_load(now, id, load);
                set.map_err(|refused| refused.to_string())?;
                app
            }
            Request::Capacity { app, capacity } => {
                check_capacity(capacity)?;
                let own = self.own(caller, &app)?;
                own.spec.capacity = capacity;
                let id = own.id;
                let set = self.agent.set_capacity(now, id, capacity);
                set.map_err(|refused| refused.to_string())?;
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
                let (id, capacity) = (own.id, spec.capacity);
                own.spec = spec;
                own.origin = Origin::Registered { uid, held_by };
                own.reported = Some(health);
                let _ = self.agent.set_capacity(now, id, capacity);
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
        let id = own.id;
        let set = self.agent.set_target(now, id, wanted);
        set.map_err(|refused| refused.to_string())?;
        info!(app = name, uid = caller.uid, "shall be {}", wanted.name());
        self.is_dirty = true;
        Ok(name)
    }
}

fn missing(name: &str) -> String {
    format!("there is no application {name}")
}
