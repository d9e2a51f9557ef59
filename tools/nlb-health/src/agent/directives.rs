// SPDX-License-Identifier: MIT OR Apache-2.0

//! Target and current load balancing state (FIG. 13A, 1302(C)), and how one becomes the other: the two-state
//! handshake with postulates of FIG. 15 (1512, 1514, 1518).
//!
//! A state is reached when every load balancing unit has said that the postulate is not wrong. One that says nothing
//! counts when what it last heard is older than the age limit: it must not use that any more. One that says that it is
//! wrong is there, and does otherwise.

use super::AgentConfig;
use crate::{
    row::{AppId, Directive},
    wire::{Postulate, PostulateWrong, Postulated, POSTULATE_MAX},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Instant,
};

/// Postulates that are remembered. Answers to earlier ones are late by so many intervals.
const REMEMBERED: usize = 128;

/// A target that is new.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) since: Instant,
    /// The generation that it came with.
    pub(super) generation: u64,
    pub(super) target: Directive,
    /// It is not the current state.
    pub(super) differs: bool,
}

#[derive(Debug)]
struct Row {
    /// What the caller has asked for; health may want otherwise.
    wanted: Directive,
    /// Of the present target.
    generation: u64,
    transition: Option<Transition>,
}

#[derive(Debug)]
struct Transition {
    since: Instant,
    target: Directive,
    /// Load balancing units that have said they follow.
    agreed: BTreeSet<u32>,
    /// Those that have said last that they do not, and when.
    refused: BTreeMap<u32, Instant>,
}

impl Transition {
    /// When silence is enough.
    fn lapse(&self, config: &AgentConfig) -> Instant {
        let last = self.refused.values().copied().chain([self.since]).max();
        last.unwrap_or(self.since) + config.lease()
    }
}

#[derive(Debug)]
pub(super) struct Directives {
    started: Instant,
    rows: BTreeMap<AppId, Row>,
    last: u64,
    sent: VecDeque<Postulate>,
    /// When the next postulate is due.
    next: Option<Instant>,
}

impl Directives {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            started: now,
            rows: BTreeMap::new(),
            last: 0,
            sent: VecDeque::new(),
            next: None,
        }
    }

    pub(super) fn add(&mut self, app: AppId, wanted: Directive, generation: u64) {
        let row = Row {
            wanted,
            generation,
            transition: None,
        };
        self.rows.insert(app, row);
    }

    pub(super) fn remove(&mut self, app: AppId) {
        self.rows.remove(&app);
    }

    pub(super) fn wanted(&self, app: AppId) -> Directive {
        self.rows
            .get(&app)
            .map_or(Directive::Active, |row| row.wanted)
    }

    pub(super) fn want(&mut self, app: AppId, wanted: Directive) {
        if let Some(row) = self.rows.get_mut(&app) {
            row.wanted = wanted;
        }
    }

    /// The target changes. If it goes back to the current state, some may have followed the one between.
    pub(super) fn change(&mut self, app: AppId, wish: Wish, config: &AgentConfig) {
        let Some(row) = self.rows.get_mut(&app) else {
            return;
        };
        row.generation = wish.generation;
        let is_open = wish.differs || row.transition.is_some();
        row.transition = is_open.then(|| Transition {
            since: wish.since,
            target: wish.target,
            agreed: BTreeSet::new(),
            refused: BTreeMap::new(),
        });
        if row.transition.is_some() {
            let first = wish.since + config.postulate_delay;
            self.next = Some(self.next.map_or(first, |next| next.min(first)));
        }
    }

    /// The postulates that are due.
    pub(super) fn postulates(&mut self, now: Instant, config: &AgentConfig) -> Vec<Postulate> {
        if self.next.is_none_or(|next| next > now) {
            return Vec::new();
        }
        let rows: Vec<_> = self
            .rows
            .iter()
            .filter_map(|(app, row)| {
                let transition = row.transition.as_ref()?;
                Some(Postulated {
                    app: *app,
                    target: transition.target,
                    generation: row.generation,
                })
            })
            .collect();
        self.next = (!rows.is_empty()).then(|| now + config.postulate_interval);
        rows.chunks(POSTULATE_MAX)
            .map(|rows| self.number(rows.to_vec()))
            .collect()
    }

    pub(super) fn empty_postulate(&mut self) -> Postulate {
        self.number(Vec::new())
    }

    fn number(&mut self, rows: Vec<Postulated>) -> Postulate {
        self.last += 1;
        let postulate = Postulate {
            postulate: self.last,
            rows,
        };
        if self.sent.len() == REMEMBERED {
            self.sent.pop_front();
        }
        self.sent.push_back(postulate.clone());
        postulate
    }

    /// `lbu` has answered a postulate. Whether it was one that is remembered.
    pub(super) fn answer(&mut self, now: Instant, lbu: u32, wrong: &PostulateWrong) -> bool {
        let Some(postulate) = self
            .sent
            .iter()
            .find(|sent| sent.postulate == wrong.postulate)
        else {
            return false;
        };
        let otherwise: BTreeSet<_> = wrong.rows.iter().map(|(app, _)| *app).collect();
        for postulated in &postulate.rows {
            let Some(row) = self.rows.get_mut(&postulated.app) else {
                continue;
            };
            // Was it about the target that is there now?
            if row.generation != postulated.generation {
                continue;
            }
            if let Some(transition) = &mut row.transition {
                if otherwise.contains(&postulated.app) {
                    transition.agreed.remove(&lbu);
                    transition.refused.insert(lbu, now);
                } else {
                    transition.refused.remove(&lbu);
                    transition.agreed.insert(lbu);
                }
            }
        }
        true
    }

    /// The rows whose target has become the current state of all `lbus`.
    pub(super) fn settled(
        &mut self,
        now: Instant,
        lbus: &[u32],
        config: &AgentConfig,
    ) -> Vec<AppId> {
        // Of an earlier life somebody may know something that this one does not know of.
        let is_young = now < self.started + config.lease();
        let mut settled = Vec::new();
        for (app, row) in &mut self.rows {
            row.transition.take_if(|transition| {
                let all = !is_young && lbus.iter().all(|lbu| transition.agreed.contains(lbu));
                let done = now >= transition.lapse(config)
                    || (all && now >= transition.since + config.postulate_delay);
                if done {
                    settled.push(*app);
                }
                done
            });
        }
        settled
    }

    pub(super) fn timeout(&self, config: &AgentConfig) -> Option<Instant> {
        self.rows
            .values()
            .filter_map(|row| Some(row.transition.as_ref()?.lapse(config)))
            .chain(self.next)
            .min()
    }
}
