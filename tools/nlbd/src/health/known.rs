// SPDX-License-Identifier: MIT OR Apache-2.0

//! What plans are made of, and what is in force when they are carried out.

use super::{
    follower::{Follower, Kind},
    plan::{Gone, Known, Place},
    proxies, Handler,
};
use nlb_health::row::{AppId, Row};
use std::collections::{BTreeSet, HashSet};

impl Handler {
    /// Those whose tables are here are not silent any more, for one that follows.
    fn settle(&mut self, number: usize) {
        let follower = self.followers.get_mut(number);
        let Some(follower) = follower.filter(|follower| !follower.gone().is_empty()) else {
            return;
        };
        let rows = self.rows.iter();
        let rows = rows.map(|((host, _), (place, _))| (*place, *host));
        let rows = rows.filter(|(place, _)| follower.serves(place.vip, place.transport));
        let rows = rows.collect();
        let lbu = &self.lbu;
        self.is_other |= follower.settle(&rows, &self.proxies, |host| lbu.is_whole(host));
    }

    /// What hosts say that concerns one that follows.
    fn rows_of(&self, follower: &Follower) -> Vec<(u32, &Row)> {
        let cache = self.lbu.cache();
        match follower.kind {
            Kind::Forwarder => {
                let hosts = cache.hosts();
                let of = |host| cache.host(host).map(move |(_, cached)| (host, &cached.row));
                hosts.flat_map(of).collect()
            }
            // There are some of many.
            Kind::Haproxy(_) => {
                let types = cache
                    .types()
                    .filter(|own| follower.serves(own.vip, own.transport));
                let rows = types.flat_map(|own| cache.of_type(own));
                rows.map(|(host, _, row)| (host, row)).collect()
            }
        }
    }

    /// All that a plan for one that follows is made of.
    pub(super) fn known(&mut self, number: usize) -> Known {
        self.settle(number);
        let Some(follower) = self.followers.get(number) else {
            return Known::default();
        };
        let rows = self.rows_of(follower).into_iter();
        let rows = proxies::once(rows, &self.proxies, &self.left(follower));
        let mut gone = proxies::gone(follower.gone(), &rows, &self.proxies);
        let closed = self.memory.closed();
        for (key, target) in closed.filter(|((place, _), _)| follower.concerns(place)) {
            let silent = Some(target);
            gone.entry(key).or_insert(Gone { silent, set: None });
        }
        Known { rows, gone }
    }

    /// Where those were that have said goodbye and are not there again, but for proxies.
    fn left(&self, follower: &Follower) -> HashSet<Place> {
        let gone = follower.gone().iter();
        let gone = gone.filter(|_| !self.proxies.is_empty());
        let left = gone.filter(|((_, host), gone)| {
            let is_there = self.lbu.address(*host).is_some();
            gone.silent.is_none() && !is_there && !self.proxies.contains(host)
        });
        left.map(|((place, _), _)| *place).collect()
    }

    /// Where rows are that are silent, and of which hosts. Of a proxy it is not said where another one speaks.
    pub(super) fn stale(&self) -> BTreeSet<(Place, u32)> {
        let rows = self.rows.values().filter(|_| !self.proxies.is_empty());
        let here: BTreeSet<_> = rows.map(|(place, _)| *place).collect();
        let gone = self.followers.iter().flat_map(Follower::gone);
        let silent = gone.filter(|(_, gone)| gone.silent.is_some());
        let silent = silent.map(|(key, _)| *key);
        let is_alone =
            |(place, host): &(Place, u32)| !(self.proxies.contains(host) && here.contains(place));
        silent.filter(is_alone).collect()
    }

    /// Hosts may be told of what all have taken. What does not concern one, nobody waits for it.
    pub(super) fn confirm(&mut self) {
        let version = self.lbu.cache().version();
        if self.confirmed.replace(version) == Some(version) {
            return;
        }
        let least = self.followers.iter().filter_map(Follower::behind).min();
        self.applied = self.applied.max(least.unwrap_or(version));
        let all = self.followers.iter();
        let all = all.map(|follower| follower.in_force(version)).collect();
        self.lbu.in_force(all);
        self.lbu.not_in_force(self.refused());
    }

    /// The rows whose endpoints somebody would not change.
    fn refused(&self) -> BTreeSet<(u32, AppId)> {
        let refused: BTreeSet<_> = self.followers.iter().flat_map(Follower::refused).collect();
        let rows = self.rows.iter().filter(|_| !refused.is_empty());
        let rows = rows.filter(|(_, (place, _))| refused.contains(place));
        rows.map(|(row, _)| *row).collect()
    }
}
