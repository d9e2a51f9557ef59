// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a restart of nlbd must not lose: the number of its life, and which endpoints it governs. Those whose hosts do
//! not speak in the next life, either, are as silent as others, or have left as before.

use super::plan::{worse, Gone, Place};
use nlb_health::row::Directive;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
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
    /// How long what the host has said may be used, if that is known; in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    age_limit_ms: Option<u64>,
    /// If the host has not spoken since an earlier life, when it is too old; in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until_ms: Option<u64>,
}

/// Where rows were and of which host; what was to be done, unless they have left.
type Governed = BTreeMap<(Place, u32), Option<Directive>>;

/// Of which nothing was heard yet.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    target: Option<Directive>,
    until: Instant,
}

/// Endpoints of the life before of which this one has not heard yet.
#[derive(Debug)]
pub(super) struct Memory {
    rows: BTreeMap<(Place, u32), Waiting>,
    /// When one of them may be silent.
    due: Option<Instant>,
    /// A moment by both clocks: the second is in milliseconds since 1970.
    moment: (Instant, u64),
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Saved {
    /// A life begins, `now` milliseconds since 1970. What hosts have said before may be used for as long as they say, but
    /// `most`, from now on; from an earlier beginning, if there was one in between.
    pub(super) fn begin(&mut self, now: u64, most: Duration) {
        for row in &mut self.rows {
            let most = ms(most);
            let limit = row.age_limit_ms.map_or(most, |limit| limit.min(most));
            let until = now.saturating_add(limit);
            row.until_ms = Some(row.until_ms.map_or(until, |kept| kept.min(until)));
        }
    }
}

impl Memory {
    /// What was kept, in a life that has begun. It is `now`, by both clocks.
    pub(super) fn new(saved: &Saved, moment: (Instant, u64)) -> Self {
        let (now, now_ms) = moment;
        let rows = saved.rows.iter().filter_map(|saved| {
            let target = match &saved.target {
                Some(name) => {
                    let mut all = Directive::ALL.into_iter();
                    Some(all.find(|target| target.name() == name)?)
                }
                None => None,
            };
            let left = saved.until_ms.unwrap_or(0).saturating_sub(now_ms);
            let until = now.checked_add(Duration::from_millis(left))?;
            Some(((saved.place, saved.host), Waiting { target, until }))
        });
        let rows: BTreeMap<_, _> = rows.collect();
        let due = rows.values().map(|waiting| waiting.until).min();
        Self { rows, due, moment }
    }

    /// Somebody has spoken of it. What was known of it, by host.
    pub(super) fn forget(&mut self, place: &Place) -> Vec<(u32, Option<Directive>)> {
        let here = self.rows.range((*place, 0)..=(*place, u32::MAX));
        let here: Vec<_> = here.map(|((_, host), of)| (*host, of.target)).collect();
        for (host, _) in &here {
            self.rows.remove(&(*place, *host));
        }
        here
    }

    /// When [`Self::silent`] may have something.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Those of which nobody has spoken, if it is time.
    pub(super) fn silent(&mut self, now: Instant) -> Governed {
        if self.due.is_none_or(|due| due > now) {
            return BTreeMap::new();
        }
        let rows = std::mem::take(&mut self.rows).into_iter();
        let (silent, rows): (BTreeMap<_, _>, _) = rows.partition(|(_, of)| of.until <= now);
        self.rows = rows;
        self.due = self.rows.values().map(|waiting| waiting.until).min();
        let silent = silent.into_iter();
        silent.map(|(key, of)| (key, of.target)).collect()
    }

    /// What the next life has to know: what is here, what is gone, and what hosts say now, which may be used for as long
    /// as `age_limit` says of each.
    pub(super) fn saved<'a>(
        &self,
        epoch: u64,
        rows: impl Iterator<Item = ((Place, u32), Directive)>,
        gone: impl Iterator<Item = (&'a (Place, u32), &'a Gone)>,
        age_limit: impl Fn(u32) -> Option<Duration>,
    ) -> Saved {
        let waiting = self.rows.iter();
        let mut all: Governed = waiting.map(|(key, of)| (*key, of.target)).collect();
        let gone = gone.map(|(key, gone)| (*key, gone.silent));
        for (key, target) in gone.chain(rows.map(|(key, target)| (key, Some(target)))) {
            let worst = all.entry(key).or_default();
            *worst = match (*worst, target) {
                (Some(one), Some(other)) => Some(worse(one, other)),
                (one, other) => one.or(other),
            };
        }
        let (now, now_ms) = self.moment;
        let rows = all.into_iter().map(|((place, host), target)| {
            let waiting = self.rows.get(&(place, host));
            let left = waiting.map(|of| ms(of.until.saturating_duration_since(now)));
            SavedPlace {
                place,
                host,
                target: target.map(|target| target.name().to_owned()),
                age_limit_ms: age_limit(host).map(ms),
                until_ms: left.map(|left| now_ms.saturating_add(left)),
            }
        });
        Saved {
            epoch,
            rows: rows.collect(),
        }
    }
}
