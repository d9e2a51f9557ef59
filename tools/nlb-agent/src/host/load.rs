// SPDX-License-Identifier: MIT OR Apache-2.0

//! What becomes of load that was measured.

use crate::load::{Measure, Measured};
use std::time::{Duration, Instant};

/// So long a report counts, and nothing that is measured.
const REPORT: Duration = Duration::from_secs(60);

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
        if !app.load_at.is_some_and(is_reported) {
            // The row is there.
            let _ = self.agent.set_load(now, app.id, measured.load);
        }
    }
}
