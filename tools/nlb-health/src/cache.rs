// SPDX-License-Identifier: MIT OR Apache-2.0

//! The consolidated health and load cache of a load balancing unit (FIG. 13B, 1208): by host, as it comes in, and
//! by type of application, as it is asked for (at FIG. 18). What is in it may be used: rows that are too old, or of
//! which something is known to be missing for too long, are taken out by [`crate::Lbu`].

use crate::row::{AppId, AppType, Row, Status};
use std::collections::{BTreeMap, BTreeSet};

/// How much a cache may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Hosts.
    pub hosts: usize,
    /// Rows of one host.
    pub rows_per_host: usize,
    /// Rows of all.
    pub rows: usize,
    /// Bytes of all rows, with their texts.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            hosts: 4096,
            rows_per_host: crate::table::ROWS_MAX,
            rows: 100_000,
            bytes: 64 << 20,
        }
    }
}

/// A limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// A row of a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedRow {
    /// What its host has said.
    pub row: Row,
    /// The version of the cache in which it came, or in which its target last changed.
    pub directed: u64,
}

/// Which rows have changed. See [`crate::lbu::Event::Row`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowChange {
    /// It is new.
    Added,
    /// Its status is another.
    Updated,
    /// Its host has taken it out, or gone.
    Removed,
    /// It is too old, or there is no room for it: what has become of it is not known.
    Lost,
}

/// The cache.
#[derive(Clone, Debug)]
pub struct Cache {
    limits: Limits,
    hosts: BTreeMap<u32, BTreeMap<AppId, CachedRow>>,
    types: BTreeMap<AppType, BTreeSet<(u32, AppId)>>,
    rows: usize,
    bytes: usize,
    version: u64,
    removed: u64,
}

/// What changes call: host, row, what, version.
pub(crate) type Report<'a> = &'a mut dyn FnMut(u32, AppId, RowChange, u64);

impl Cache {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            hosts: BTreeMap::new(),
            types: BTreeMap::new(),
            rows: 0,
            bytes: 0,
            version: 0,
            removed: 0,
        }
    }

    /// The rows of a host (a cache 1304).
    pub fn host(&self, host: u32) -> impl Iterator<Item = (AppId, &CachedRow)> {
        self.hosts
            .get(&host)
            .into_iter()
            .flat_map(|rows| rows.iter().map(|(app, row)| (*app, row)))
    }

    /// The hosts that rows are known of.
    pub fn hosts(&self) -> impl Iterator<Item = u32> + '_ {
        self.hosts.keys().copied()
    }

    /// A row.
    pub fn row(&self, host: u32, app: AppId) -> Option<&CachedRow> {
        self.hosts.get(&host)?.get(&app)
    }

    /// Where `app_type` is served: all endpoints, however they are.
    pub fn of_type(&self, app_type: &AppType) -> impl Iterator<Item = (u32, AppId, &Row)> {
        self.types
            .get(app_type)
            .into_iter()
            .flatten()
            .filter_map(|(host, app)| Some((*host, *app, &self.row(*host, *app)?.row)))
    }

    /// The types that are served.
    pub fn types(&self) -> impl Iterator<Item = &AppType> {
        self.types.keys()
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Bytes of all rows.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Counts the changes.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The version in which a row last went.
    pub(crate) fn removed(&self) -> u64 {
        self.removed
    }

    /// A row that is not there comes.
    pub(crate) fn add(
        &mut self,
        host: u32,
        app: AppId,
        row: Row,
        report: Report<'_>,
    ) -> Result<(), Full> {
        let size = row.size();
        let of_host = self.hosts.get(&host).map_or(0, BTreeMap::len);
        if of_host >= self.limits.rows_per_host
            || self.rows >= self.limits.rows
            || self.bytes + size > self.limits.bytes
        {
            return Err(Full);
        }
        self.rows += 1;
        self.bytes += size;
        self.version += 1;
        self.types
            .entry(row.identity.app_type.clone())
            .or_default()
            .insert((host, app));
        let directed = self.version;
        self.hosts
            .entry(host)
            .or_default()
            .insert(app, CachedRow { row, directed });
        report(host, app, RowChange::Added, self.version);
        Ok(())
    }

    /// The status of a row that is there.
    pub(crate) fn update(&mut self, host: u32, app: AppId, status: Status, report: Report<'_>) {
        let rows = self.hosts.get_mut(&host);
        let Some(cached) = rows.and_then(|rows| rows.get_mut(&app)) else {
            return;
        };
        if cached.row.status == status {
            return;
        }
        self.version += 1;
        if cached.row.status.target != status.target {
            cached.directed = self.version;
        }
        cached.row.status = status;
        report(host, app, RowChange::Updated, self.version);
    }

    /// Its host has taken out a row.
    pub(crate) fn remove(&mut self, host: u32, app: AppId, report: Report<'_>) {
        self.take(host, app, RowChange::Removed, report);
    }

    /// The rows of `host` for which `is_part` says so go, as `why` says.
    pub(crate) fn clear(
        &mut self,
        host: u32,
        is_part: impl Fn(AppId) -> bool,
        why: RowChange,
        report: Report<'_>,
    ) {
        let apps = self.host(host).map(|(app, _)| app);
        for app in apps.filter(|app| is_part(*app)).collect::<Vec<_>>() {
            self.take(host, app, why, report);
        }
    }

    fn take(&mut self, host: u32, app: AppId, why: RowChange, report: Report<'_>) {
        let Some(rows) = self.hosts.get_mut(&host) else {
            return;
        };
        let Some(cached) = rows.remove(&app) else {
            return;
        };
        if rows.is_empty() {
            self.hosts.remove(&host);
        }
        let app_type = &cached.row.identity.app_type;
        if let Some(endpoints) = self.types.get_mut(app_type) {
            endpoints.remove(&(host, app));
            if endpoints.is_empty() {
                self.types.remove(app_type);
            }
        }
        self.rows -= 1;
        self.bytes -= cached.row.size();
        self.version += 1;
        self.removed = self.version;
        report(host, app, why, self.version);
    }

    /// The rows of `host` for which `is_part` says so become `rows`: those that stay are not touched.
    pub(crate) fn replace(
        &mut self,
        host: u32,
        is_part: impl Fn(AppId) -> bool,
        rows: BTreeMap<AppId, Row>,
        report: Report<'_>,
    ) -> Result<(), Full> {
        let stays = |app: AppId, cached: &CachedRow| {
            rows.get(&app)
                .is_some_and(|row| row.identity == cached.row.identity)
        };
        let gone: Vec<_> = self
            .host(host)
            .filter(|(app, cached)| is_part(*app) && !stays(*app, cached))
            .map(|(app, _)| app)
            .collect();
        for app in gone {
            self.remove(host, app, report);
        }
        for (app, row) in rows {
            if self.row(host, app).is_some() {
                self.update(host, app, row.status, report);
            } else {
                self.add(host, app, row, report)?;
            }
        }
        Ok(())
    }
}
