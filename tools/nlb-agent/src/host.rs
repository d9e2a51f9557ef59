// SPDX-License-Identifier: MIT OR Apache-2.0

//! The applications of the host: what is known of each, from whom, and what becomes of it in the table.

mod load;
mod requests;
mod rights;
mod show;
mod units;

use crate::{
    app::{App, Origin, Spec, Unit},
    check::{Check, Verdict},
    config::{Config, FileApp},
    request::ClosedName,
    state::{Capacity, Found, Registered, Saved, SavedApp},
};
use nlb_daemon::api::{Admitted, Caller};
use nlb_health::{
    agent::{Agent, Event},
    row::{AppId, Directive, Health, Row, Status, CAPACITY_MAX, LOAD_MAX},
};
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

/// Who looks at an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Witness {
    /// One of its checks, by its number.
    Check(usize),
    /// The watch over its unit.
    Unit,
}

/// The host.
pub(crate) struct Host {
    pub(crate) agent: Agent,
    /// Something has changed that a restart must not lose.
    pub(crate) is_dirty: bool,
    apps: BTreeMap<String, App>,
    /// What shall be draining although it is not here: its program has ended, and may come again. Whose it is, too.
    absent: BTreeMap<String, (u32, ClosedName)>,
    /// Checks and units of which nothing was found in this life.
    awaited: BTreeSet<(String, Witness)>,
    id: u32,
    name: Option<String>,
    addresses: Vec<IpAddr>,
    register: BTreeSet<u32>,
    trusted: Admitted,
    generation: u64,
    boot: String,
    /// When load was last a reason to write what a restart must not lose.
    load_noted: Instant,
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
            load_noted: now,
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
        let checks = host.checks();
        let checks = checks.map(|(name, index, ..)| (name.to_owned(), Witness::Check(index)));
        let units = host.apps.iter().filter(|(_, app)| app.unit.is_some());
        let units = units.map(|(name, _)| (name.clone(), Witness::Unit));
        host.awaited = checks.chain(units).collect();
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
            Origin::File { uid, .. } => uid,
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
                let is_awaited = self
                    .awaited
                    .contains(&(name.clone(), Witness::Check(index)));
                let before = if is_awaited { Health::Unknown } else { *health };
                (name.as_str(), index, check, before)
            })
        })
    }

    /// The applications as they are in the table.
    pub(crate) fn statuses(&self) -> impl Iterator<Item = (&str, Status)> {
        let status = |app: &App| Some(self.agent.table().row(app.row?)?.status);
        let apps = self.apps.iter();
        apps.filter_map(move |(name, app)| Some((name.as_str(), status(app)?)))
    }

    /// See [`Verdict::generation`].
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// All checks and units were looked at in this life.
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
            capacity: match app.origin {
                Origin::File { capacity, .. } if capacity != app.spec.capacity => Some(Capacity {
                    of_file: capacity,
                    told: app.spec.capacity,
                }),
                _ => None,
            },
            load: self.load(app),
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
        self.agent.set_multicast(config.agent.multicast);
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
        let (uid, of_file) = (new.uid, new.spec.capacity);
        let origin = Origin::File {
            uid,
            capacity: of_file,
        };
        let is_new = !self.apps.contains_key(&new.name);
        if is_new {
            let mut kept = saved.apps.get(&new.name).cloned().unwrap_or_default();
            // What nobody measures any more would stay for ever.
            let is_measured = new.measure.is_some();
            kept.load = kept.load.filter(|load| load.is_reported || is_measured);
            let told = kept.capacity.filter(|capacity| capacity.of_file == of_file);
            let mut spec = new.spec.clone();
            spec.capacity = told.map_or(of_file, |capacity| capacity.told.min(CAPACITY_MAX));
            if let Err(what) = self.add(now, &new.name, spec, origin, &kept) {
                return error!(app = new.name, "cannot be taken into the table: {what}");
            }
        }
        let Some(app) = self.apps.get_mut(&new.name) else {
            return;
        };
        let before = std::mem::replace(&mut app.origin, origin);
        // A capacity that somebody has told stays until the file has another one.
        if !matches!(before, Origin::File { capacity, .. } if capacity == of_file) {
            app.spec.capacity = of_file;
        }
        let capacity = app.spec.capacity;
        let was_measured = std::mem::replace(&mut app.measure, new.measure).is_some();
        if let (true, None, None, Some(row)) = (was_measured, &app.measure, app.load_at, app.row) {
            // The row is there.
            let _ = self.agent.forget_load(now, row);
        }
        // It is as it was, until new checks, or the unit, have found something.
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
        if app.checks != new.checks {
            let verdict = |check: &Check| {
                let old = app.checks.iter().position(|old| old == check);
                let verdict = old.and_then(|index| app.verdicts.get(index));
                verdict.unwrap_or(&before).clone()
            };
            let verdicts = new.checks.iter().map(verdict).collect();
            app.verdicts = verdicts;
            app.checks = new.checks;
        }
        if app.unit.as_ref().map(|unit| &unit.name) != new.unit.as_ref() {
            let verdict = Some(before).filter(|(health, _)| *health != Health::Unknown);
            let unit = |name| Unit {
                name,
                phase: None,
                verdict,
            };
            app.unit = new.unit.map(unit);
        }
        if let Some(row) = app.row {
            // It is in its range, and the row is there.
            let _ = self.agent.set_capacity(now, row, capacity);
        }
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
        let mut app = App {
            row: None,
            spec,
            origin,
            unit: None,
            checks: Vec::new(),
            verdicts: Vec::new(),
            reported: kept.health.map(Health::from),
            measure: None,
            load_at: kept.load.filter(|load| load.is_reported).map(|_| now),
            wanted: kept.state.map_or(Directive::Active, Directive::from),
        };
        let load = kept.load.map_or(0, |load| load.percent.min(LOAD_MAX));
        app.row = Some(Self::enter(&mut self.agent, now, &app, load)?);
        info!(app = name, vip = %app.spec.service(), physical = %app.spec.physical, "is in the table");
        self.apps.insert(name.to_owned(), app);
        self.is_dirty = true;
        Ok(())
    }

    /// The row of an application that has none. `load` is what was told of it before.
    fn enter(agent: &mut Agent, now: Instant, app: &App, load: u8) -> Result<AppId, String> {
        let row = Row {
            identity: app.spec.identity(),
            status: Status {
                health: app.health(),
                load,
                capacity: app.spec.capacity,
                target: Directive::Active,
                current: Directive::Active,
            },
        };
        let row = agent.add(now, row);
        let row = row.map_err(|refused| refused.to_string())?;
        if app.target() != Directive::Active {
            // Somebody may still do otherwise.
            let _ = agent.set_target(now, row, app.target());
        }
        Ok(row)
    }

    fn remove(&mut self, now: Instant, name: &str) {
        if let Some(app) = self.apps.remove(name) {
            if let Some(row) = app.row {
                let _ = self.agent.remove(now, row);
            }
            info!(app = name, "is not in the table any more");
            self.is_dirty = true;
        }
    }

    /// There is a row if there shall be one, and it has the health and the target that are known.
    fn settle(&mut self, now: Instant, name: &str) {
        let Some(app) = self.apps.get_mut(name) else {
            return;
        };
        let row = match (app.row, app.is_there()) {
            (None, false) => return,
            (Some(row), false) => {
                app.row = None;
                let _ = self.agent.remove(now, row);
                let why = app.why().unwrap_or_default();
                return info!(app = name, "is not in the table any more: {why}");
            }
            (Some(row), true) => row,
            (None, true) => match Self::enter(&mut self.agent, now, app, 0) {
                Ok(row) => {
                    app.row = Some(row);
                    info!(app = name, "is in the table again");
                    row
                }
                Err(what) => return error!(app = name, "cannot be taken into the table: {what}"),
            },
        };
        let (health, target) = (app.health(), app.target());
        let known = self.agent.table().row(row).map(|row| row.status.health);
        if known.is_some_and(|known| known != health) {
            let why = app.why().unwrap_or_default();
            match health {
                Health::Failing => warn!(app = name, "is failing: {why}"),
                _ => info!(app = name, "is {}", health.name()),
            }
            let _ = self.agent.set_health(now, row, health);
        }
        // Nothing, if it is that already.
        let _ = self.agent.set_target(now, row, target);
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
        let witness = Witness::Check(verdict.index);
        self.awaited.remove(&(verdict.app, witness));
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
                let name = self.apps.iter().find(|(_, own)| own.row == Some(app));
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
}

fn missing(name: &str) -> String {
    format!("there is no application {name}")
}
