// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a restart of nlbd must not lose: the number of its life, and which endpoints it governs. Those whose hosts do
//! not speak in the next life, either, are as silent as others, or have left as before.

use super::plan::{worse, Gone, Place};
use nlb_health::row::Directive;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// What is kept.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Saved {
    pub(super) epoch: u64,
    /// Which boot of the machine it was.
    #[serde(default)]
    boot: String,
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
    /// If the host has not spoken since an earlier life, when it is too old; in milliseconds since 1970. 0 if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until_ms: Option<u64>,
}

/// Where rows were and of which host; what was to be done, unless they have left.
type Governed = BTreeMap<(Place, u32), Option<Directive>>;

/// Of which nothing was heard yet.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    target: Option<Directive>,
    /// When it is too old; nothing, if it is.
    until: Option<Instant>,
    /// Another host has spoken of the endpoint.
    is_replaced: bool,
}

impl Waiting {
    /// It is asked for no connections, by who may be there still.
    fn closes(&self) -> Option<Directive> {
        let target = self.target.filter(|_| self.until.is_some());
        target.filter(|target| *target != Directive::Active)
    }
}

/// Endpoints of the life before of which this one has not heard yet.
#[derive(Debug)]
pub(super) struct Memory {
    rows: BTreeMap<(Place, u32), Waiting>,
    boot: String,
    /// When one of them is too old.
    due: Option<Instant>,
    /// A moment by both clocks: the second is in milliseconds since 1970.
    moment: (Instant, u64),
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Saved {
    /// A life begins, in this boot, `now` milliseconds since 1970. What hosts have said before may be used for as long as
    /// they say, but `most`, from now on; from an earlier beginning, if there was one in between. What was waited for
    /// before a boot is not waited for again, for the clock may have been another one.
    pub(super) fn begin(&mut self, boot: &str, now: u64, most: Duration) {
        let is_booted = self.boot != boot;
        boot.clone_into(&mut self.boot);
        for row in &mut self.rows {
            let most = ms(most);
            let limit = row.age_limit_ms.map_or(most, |limit| limit.min(most));
            let until = now.saturating_add(limit);
            row.until_ms = Some(match row.until_ms {
                Some(_) if is_booted => 0,
                Some(kept) => kept.min(until),
                None => until,
            });
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
            let waiting = Waiting {
                target,
                until: Some(until).filter(|until| *until > now),
                is_replaced: false,
            };
            Some(((saved.place, saved.host), waiting))
        });
        let rows: BTreeMap<_, _> = rows.collect();
        Self {
            boot: saved.boot.clone(),
            due: (!rows.is_empty()).then_some(now),
            rows,
            moment,
        }
    }

    /// A host has spoken of it. What was known of it, of all others by host. Who has asked for no connections is waited
    /// for nevertheless: he believes that there are none.
    pub(super) fn speaks(&mut self, place: &Place, host: u32) -> Vec<(u32, Option<Directive>)> {
        self.rows.remove(&(*place, host));
        let here = self.rows.range((*place, 0)..=(*place, u32::MAX));
        let here: Vec<_> = here.map(|(key, of)| (*key, *of)).collect();
        for (key, of) in &here {
            if of.closes().is_some() {
                let is_replaced = true;
                self.rows.insert(*key, Waiting { is_replaced, ..*of });
            } else {
                self.rows.remove(key);
            }
        }
        let here = here.into_iter();
        here.map(|((_, host), of)| (host, of.target)).collect()
    }

    /// Endpoints of which hosts have asked for no connections that may be there still.
    pub(super) fn closed(&self) -> impl Iterator<Item = ((Place, u32), Directive)> + '_ {
        let rows = self.rows.iter();
        rows.filter_map(|(key, of)| Some((*key, of.closes()?)))
    }

    /// When [`Self::silent`] may have something.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Those of which nobody has spoken, if it is time. An endpoint is waited for as long as for any of its hosts. Who is
    /// too old and replaced is no concern of anybody.
    pub(super) fn silent(&mut self, now: Instant) -> Governed {
        if self.due.is_none_or(|due| due > now) {
            return BTreeMap::new();
        }
        for waiting in self.rows.values_mut() {
            waiting.until.take_if(|until| *until <= now);
        }
        let mut rows = std::mem::take(&mut self.rows);
        rows.retain(|_, of| of.until.is_some() || !of.is_replaced);
        let awaited = rows.iter().filter(|(_, of)| of.until.is_some());
        let awaited: BTreeSet<_> = awaited.map(|((place, _), _)| *place).collect();
        let (rows, silent) = rows
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|((place, _), _)| awaited.contains(place));
        self.rows = rows;
        self.due = self.rows.values().filter_map(|of| of.until).min();
        let silent = silent.into_iter();
        silent.map(|(key, of)| (key, of.target)).collect()
    }

    /// What the next life has to know: what is here, what is gone, and what hosts say now, which may be used for as long
    /// as `age_limit` says of each. Who is silent already is not waited for again.
    pub(super) fn saved<'a>(
        &self,
        epoch: u64,
        rows: impl Iterator<Item = ((Place, u32), Directive)>,
        gone: impl Iterator<Item = (&'a (Place, u32), &'a Gone)>,
        age_limit: impl Fn(u32) -> Option<Duration>,
    ) -> Saved {
        let (now, now_ms) = self.moment;
        let at = |until: Instant| now_ms.saturating_add(ms(until.saturating_duration_since(now)));
        let waiting = self.rows.iter();
        let mut all: BTreeMap<_, _> = waiting
            .map(|(key, of)| (*key, (of.target, Some(of.until.map_or(0, at)))))
            .collect();
        let worst = |one: Option<Directive>, other| match (one, other) {
            (Some(one), Some(other)) => Some(worse(one, other)),
            (one, other) => one.or(other),
        };
        for (key, gone) in gone {
            let (target, _) = all.entry(*key).or_insert((None, Some(0)));
            *target = worst(*target, gone.silent);
        }
        for (key, new) in rows {
            let (target, until) = all.entry(key).or_default();
            *target = worst(*target, Some(new));
            *until = None;
        }
        let rows = all.into_iter();
        let rows = rows.map(|((place, host), (target, until_ms))| SavedPlace {
            place,
            host,
            target: target.map(|target| target.name().to_owned()),
            age_limit_ms: age_limit(host).map(ms),
            until_ms,
        });
        Saved {
            epoch,
            boot: self.boot.clone(),
            rows: rows.collect(),
        }
    }
}
