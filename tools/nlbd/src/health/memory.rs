// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a restart of nlbd must not lose: the number of its life, and which endpoints it governs. Those whose hosts do
//! not speak in the next life, either, are as silent as others.

use super::plan::{Gone, Place};
use nlb_health::row::Directive;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    time::Instant, //
};

/// What is kept.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Saved {
    pub(super) epoch: u64,
    /// The endpoints, and what their hosts wanted, by its name.
    rows: Vec<(Place, String)>,
}

/// Endpoints of the life before of which this one has not heard yet.
#[derive(Debug)]
pub(super) struct Memory {
    rows: BTreeMap<Place, Directive>,
    /// So long hosts may take.
    until: Option<Instant>,
}

impl Memory {
    /// What was kept is silent from `until` on.
    pub(super) fn new(saved: &Saved, until: Instant) -> Self {
        let rows = saved.rows.iter().filter_map(|(place, name)| {
            let mut all = Directive::ALL.into_iter();
            Some((*place, all.find(|target| target.name() == name)?))
        });
        Self {
            rows: rows.collect(),
            until: Some(until),
        }
    }

    /// Somebody has spoken of it.
    pub(super) fn forget(&mut self, place: &Place) {
        self.rows.remove(place);
    }

    /// When [`Self::silent`] has something.
    pub(super) fn due(&self) -> Option<Instant> {
        self.until
    }

    /// Those of which nobody has spoken, if it is time.
    pub(super) fn silent(&mut self, now: Instant) -> BTreeMap<Place, Directive> {
        if self.until.is_none_or(|until| until > now) {
            return BTreeMap::new();
        }
        self.until = None;
        std::mem::take(&mut self.rows)
    }

    /// What the next life has to know: what is here, what hosts say now, and what is silent.
    pub(super) fn saved<'a>(
        &self,
        epoch: u64,
        rows: impl Iterator<Item = &'a (Place, Directive)>,
        gone: &BTreeMap<Place, Gone>,
    ) -> Saved {
        let silent = gone.iter().filter_map(|(place, gone)| match gone {
            Gone::Stale { target, .. } => Some((*place, *target)),
            Gone::Left => None,
        });
        let mut all = self.rows.clone();
        all.extend(silent);
        all.extend(rows.copied());
        let rows = all.into_iter();
        Saved {
            epoch,
            rows: rows
                .map(|(place, target)| (place, target.name().to_owned()))
                .collect(),
        }
    }
}
