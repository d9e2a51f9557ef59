// SPDX-License-Identifier: MIT OR Apache-2.0

//! Postulates (FIG. 15, 1512 and 1514): whether what a host postulates is what this load balancing unit does.

use super::{InForce, Lbu};
use crate::{
    row::{AppId, Directive},
    wire::{Postulate, PostulateWrong, Postulated},
};
use std::time::Instant;

impl Lbu {
    /// FIG. 15, 1518: is this what is in the cache, and in force?
    pub(super) fn postulate(
        &mut self,
        now: Instant,
        id: u32,
        epoch: u64,
        postulate: &Postulate,
    ) -> PostulateWrong {
        self.counters.add("postulate");
        let rows = postulate.rows.iter();
        let rows = rows
            .filter_map(|row| self.is_wrong(id, epoch, row))
            .collect();
        let wrong = PostulateWrong {
            host: id,
            epoch,
            postulate: postulate.postulate,
            rows,
        };
        let config = self.config.clone();
        if let Some(host) = self.hosts.get_mut(&id) {
            for life in [&mut host.current, &mut host.next].into_iter().flatten() {
                if life.epoch == epoch {
                    life.heard = now;
                    life.schedule(now, &config);
                }
            }
        }
        wrong
    }

    fn is_wrong(
        &mut self,
        id: u32,
        epoch: u64,
        postulated: &Postulated,
    ) -> Option<(AppId, Option<Directive>)> {
        let Postulated {
            app,
            target,
            generation,
        } = *postulated;
        let at_once = self.config.in_force_at_once;
        let host = self.hosts.get_mut(&id)?;
        if let Some(next) = host.next.as_mut().filter(|life| life.epoch == epoch) {
            // Of this life there is nothing in the cache yet; nothing older than this will get there. But the forwarder
            // may still do what somebody knew before: an earlier life of this unit, or of the host.
            if let Some(chunk) = next.chunk_of(app) {
                chunk.heard_of = chunk.heard_of.max(generation);
            }
            let is_staged = next.chunks.iter().any(|chunk| chunk.staged.is_some());
            if !at_once || host.current.is_some() || is_staged {
                return Some((app, None));
            }
        }
        let mut is_caught_up = true;
        if let Some(current) = host.current.as_mut() {
            if current.epoch != epoch {
                return Some((app, None));
            }
            if let Some(chunk) = current.chunk_of(app) {
                chunk.heard_of = chunk.heard_of.max(generation);
                // One of which nothing is here comes from a snapshot that is new enough; the forwarder may do what
                // was known before that was too old.
                is_caught_up = chunk.have.map_or(at_once, |have| have >= generation);
            }
        }
        match self.cache.row(id, app) {
            Some(cached) => {
                let state = cached.row.status.target;
                let has = |own: &InForce| own.has(&cached.row, cached.directed);
                let is_done = (at_once || self.in_force.iter().all(has))
                    && !self.refused.contains(&(id, app));
                let is_right = is_caught_up && state == target && is_done;
                (!is_right).then(|| (app, Some(state).filter(|_| is_done)))
            }
            None => {
                let removed = self.cache.removed();
                let is_out = at_once || self.in_force.iter().all(|own| removed <= own.removals);
                let is_right = is_caught_up && target != Directive::Active && is_out;
                (!is_right).then_some((app, None))
            }
        }
    }
}
