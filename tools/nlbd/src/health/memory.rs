// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a restart of nlbd must not lose: the number of its life, and which endpoints it governs. Those whose hosts do
//! not speak in the next life, either, are as silent as others, or have left as before.

use super::plan::{worse, Gone, Place};
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
    rows: Vec<SavedPlace>,
}

/// An endpoint, and the host whose it is.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
struct SavedPlace {
    place: Place,
    host: u32,
    /// What the host wanted, at worst, by its name; nothing, if it has left.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
}

/// Where rows were and of which host; what was to be done, unless they have left.
type Governed = BTreeMap<(Place, u32), Option<Directive>>;

/// Endpoints of the life before of which this one has not heard yet.
#[derive(Debug)]
pub(super) struct Memory {
    rows: Governed,
    /// So long hosts may take.
    until: Option<Instant>,
}

impl Memory {
    /// What was kept is silent from `until` on.
    pub(super) fn new(saved: &Saved, until: Instant) -> Self {
        let rows = saved.rows.iter().filter_map(|saved| {
            let target = match &saved.target {
                Some(name) => {
                    let mut all = Directive::ALL.into_iter();
                    Some(all.find(|target| target.name() == name)?)
                }
                None => None,
            };
            Some(((saved.place, saved.host), target))
        });
        Self {
            rows: rows.collect(),
            until: Some(until),
        }
    }

    /// Somebody has spoken of it.
    pub(super) fn forget(&mut self, place: &Place) {
        let here = self.rows.range((*place, 0)..=(*place, u32::MAX));
        let here: Vec<_> = here.map(|(key, _)| *key).collect();
        for key in here {
            self.rows.remove(&key);
        }
    }

    /// When [`Self::silent`] has something.
    pub(super) fn due(&self) -> Option<Instant> {
        self.until
    }

    /// Those of which nobody has spoken, if it is time.
    pub(super) fn silent(&mut self, now: Instant) -> Governed {
        if self.until.is_none_or(|until| until > now) {
            return BTreeMap::new();
        }
        self.until = None;
        std::mem::take(&mut self.rows)
    }

    /// What the next life has to know: what is here, what is gone, and what hosts say now.
    pub(super) fn saved<'a>(
        &self,
        epoch: u64,
        rows: impl Iterator<Item = ((Place, u32), Directive)>,
        gone: impl Iterator<Item = (&'a (Place, u32), &'a Gone)>,
    ) -> Saved {
        let mut all = self.rows.clone();
        let gone = gone.map(|(key, gone)| (*key, gone.silent));
        for (key, target) in gone.chain(rows.map(|(key, target)| (key, Some(target)))) {
            let worst = all.entry(key).or_default();
            *worst = match (*worst, target) {
                (Some(one), Some(other)) => Some(worse(one, other)),
                (one, other) => one.or(other),
            };
        }
        let rows = all.into_iter().map(|((place, host), target)| SavedPlace {
            place,
            host,
            target: target.map(|target| target.name().to_owned()),
        });
        Saved {
            epoch,
            rows: rows.collect(),
        }
    }
}
