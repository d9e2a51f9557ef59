// SPDX-License-Identifier: MIT OR Apache-2.0

//! What becomes of load that was measured or reported.

use crate::{
    app::App,
    load::{Measure, Measured},
    state::Load,
};
use std::time::{Duration, Instant};

/// So long a report counts, and nothing that is measured.
const REPORT: Duration = Duration::from_secs(60);
/// So long load may change without being written to where a restart finds it.
const NOTE: Duration = Duration::from_secs(15);

impl super::Host {
    /// What has to be measured, by the name of the application.
    pub(crate) fn measures(&self) -> impl Iterator<Item = (&str, &Measure)> {
        let apps = self.apps.iter();
        apps.filter_map(|(name, app)| Some((name.as_str(), app.measure.as_ref()?)))
    }

    /// The load of an application was measured. Reports count more: who reports knows better.
    pub(crate) fn measured(&mut self, now: Instant, measured: &Measured) {
        let app = self.apps.get(&measured.app);
        let Some(app) = app.filter(|_| measured.generation == self.generation) else {
            return;
        };
        let is_reported = |at: Instant| now.saturating_duration_since(at) < REPORT;
        if let (Some(row), false) = (app.row, app.load_at.is_some_and(is_reported)) {
            // The row is there.
            let _ = self.agent.set_load(now, row, measured.load);
            self.note_load(now);
        }
    }

    /// There is another load, perhaps. It changes all the time, and a crash may lose the last one.
    pub(super) fn note_load(&mut self, now: Instant) {
        if now >= self.load_noted + NOTE {
            self.load_noted = now;
            self.is_dirty = true;
        }
    }

    /// What the next life has to know.
    pub(super) fn load(&self, app: &App) -> Option<Load> {
        let percent = self.agent.table().row(app.row?)?.status.load;
        let load = Load {
            percent,
            is_reported: app.load_at.is_some(),
        };
        (percent > 0).then_some(load)
    }
}
