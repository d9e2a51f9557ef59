// SPDX-License-Identifier: MIT OR Apache-2.0

//! What plans are made of, and what is in force when they are carried out.

use super::{
    follower::{Follower, Kind},
    plan::{Known, Place},
    proxies, Handler,
};
use nlb_health::{cache::CachedRow, row::AppId};
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
        self.is_other |= follower.settle(&rows, |host| lbu.is_whole(host));
    }

    /// What hosts say that concerns one that follows.
    fn rows_of(&self, follower: &Follower) -> Vec<(u32, AppId, &CachedRow)> {
        let cache = self.lbu.cache();
        match follower.kind {
            Kind::Forwarder => {
                let hosts = cache.hosts();
                let rows = hosts.flat_map(|host| cache.host(host).map(move |row| (host, row)));
                rows.map(|(host, (app, cached))| (host, app, cached))
                    .collect()
            }
            // There are some of many.
            Kind::Haproxy(_) => {
                let types = cache
                    .types()
                    .filter(|own| follower.serves(own.vip, own.transport));
                let rows = types.flat_map(|own| cache.of_type(own));
                rows.filter_map(|(host, app, _)| Some((host, app, cache.row(host, app)?)))
                    .collect()
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
        let rows = rows.map(|(host, _, cached)| (host, &cached.row));
        let rows = proxies::once(rows, &self.proxies, &self.left(follower));
        Known {
            gone: proxies::gone(follower.gone(), &rows, &self.proxies),
            rows,
        }
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
        let least = |of: fn(&Follower) -> Option<u64>| self.followers.iter().filter_map(of).min();
        let applied = least(Follower::behind).unwrap_or(version);
        let removals = least(Follower::behind_removals).unwrap_or(version);
        let mut rows = version;
        let mut others = self.refused();
        for follower in &self.followers {
            match (follower.behind(), &follower.kind) {
                (None, _) => {}
                // There is nothing that does not concern it.
                (Some(told), Kind::Forwarder) => rows = rows.min(told),
                (Some(told), Kind::Haproxy(_)) => {
                    let own = self.rows_of(follower).into_iter();
                    let own = own.filter(|(.., cached)| cached.directed > told);
                    others.extend(own.map(|(host, app, _)| (host, app)));
                }
            }
        }
        self.applied = self.applied.max(applied);
        self.lbu.not_in_force(others);
        self.lbu.applied_apart(rows, removals);
    }

    /// The rows whose endpoints somebody would not change.
    fn refused(&self) -> BTreeSet<(u32, AppId)> {
        let refused: BTreeSet<_> = self.followers.iter().flat_map(Follower::refused).collect();
        let rows = self.rows.iter().filter(|_| !refused.is_empty());
        let rows = rows.filter(|(_, (place, _))| refused.contains(place));
        rows.map(|(row, _)| *row).collect()
    }
}
