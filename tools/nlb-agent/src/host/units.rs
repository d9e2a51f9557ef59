// SPDX-License-Identifier: MIT OR Apache-2.0

//! Applications that are units of systemd: their rows come and go with these.

use super::{Host, Witness};
use crate::systemd::{Phase, Sight, UnitState};
use nlb_health::row::Health;
use std::{collections::BTreeSet, time::Instant};
use tracing::info;

impl Host {
    /// The units that have to be watched.
    pub(crate) fn units(&self) -> BTreeSet<String> {
        let apps = self.apps.values();
        apps.filter_map(|app| Some(app.unit.as_ref()?.name.clone()))
            .collect()
    }

    /// Applications that are units: their names, those of the units, and how these are, if that is known.
    pub(crate) fn phases(&self) -> impl Iterator<Item = (&str, &str, Option<Phase>)> {
        self.apps.iter().filter_map(|(name, app)| {
            let unit = app.unit.as_ref()?;
            let phase = unit.verdict.as_ref().and(unit.phase);
            Some((name.as_str(), unit.name.as_str(), phase))
        })
    }

    /// Units were looked at.
    pub(crate) fn seen(&mut self, now: Instant, sight: Sight) {
        if sight.generation != self.generation {
            return;
        }
        let apps = self.apps.iter().filter(|(_, app)| app.unit.is_some());
        let names: Vec<_> = apps.map(|(name, _)| name.clone()).collect();
        for name in names {
            match &sight.units {
                Ok(units) => self.unit_seen(now, &name, units),
                Err(_) => self.unit_unseen(now, &name),
            }
        }
    }

    fn unit_seen(&mut self, now: Instant, name: &str, units: &[(String, UnitState)]) {
        let Some(app) = self.apps.get_mut(name) else {
            return;
        };
        let found_before = app.worst_found();
        let Some(unit) = &mut app.unit else {
            return;
        };
        let Some((_, state)) = units.iter().find(|(seen, _)| *seen == unit.name) else {
            return;
        };
        let phase = state.phase();
        let health = match phase {
            Phase::Running | Phase::Stopping => Health::Healthy,
            Phase::Starting | Phase::Inactive => Health::Unknown,
            Phase::Failed => Health::Failing,
        };
        let text = format!("unit {} is {state}", unit.name);
        if unit.phase.is_some_and(|before| before != phase) {
            info!(app = name, "{text}");
        }
        unit.phase = Some(phase);
        unit.verdict = Some((health, (phase != Phase::Running).then_some(text)));
        // What a program has reported that has ended says nothing of the next one.
        if matches!(phase, Phase::Inactive | Phase::Failed) {
            self.is_dirty |= app.reported.take().is_some();
            let had_load = app.load_at.take().is_some() && app.measure.is_none();
            if let (true, Some(row)) = (had_load, app.row) {
                // The row is there.
                let _ = self.agent.forget_load(now, row);
            }
        }
        self.is_dirty |= app.worst_found() != found_before;
        self.settle(now, name);
        self.awaited.remove(&(name.to_owned(), Witness::Unit));
    }

    /// Nobody could look for a long time. The row stays, or stays away; it is for checks and reports to say how it is, and
    /// what it shall get.
    fn unit_unseen(&mut self, now: Instant, name: &str) {
        let Some(app) = self.apps.get_mut(name) else {
            return;
        };
        let found_before = app.worst_found();
        let Some(unit) = &mut app.unit else {
            return;
        };
        unit.verdict = None;
        unit.phase = unit.phase.filter(|phase| *phase == Phase::Inactive);
        self.is_dirty |= app.worst_found() != found_before;
        self.settle(now, name);
    }
}
