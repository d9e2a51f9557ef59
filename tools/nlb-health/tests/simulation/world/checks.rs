// SPDX-License-Identifier: MIT OR Apache-2.0

//! What has to hold.

use super::{delay, World, AGE_LIMIT};
use nlb_health::row::Directive;

impl World {
    /// What holds at every moment.
    pub(super) fn check_safe(&self) {
        for (index, unit) in self.units.iter().enumerate() {
            let Some(lbu) = &unit.lbu else {
                continue;
            };
            for host in lbu.cache().hosts() {
                let heard = unit.heard.get(&host).expect("a host that never spoke");
                let delay = delay(self.group_of(host as usize - 1).is_some());
                assert!(
                    self.now.duration_since(*heard) <= AGE_LIMIT + delay,
                    "unit {index} uses what host {host} said too long ago"
                );
            }
            for ((host, app), (place, directive)) in &unit.plane {
                let is_closed = self.hosts[*host as usize - 1].closed.contains(place);
                assert!(
                    !is_closed || *directive != Directive::Active,
                    "unit {index} sends new connections to {app} of host {host}, which believes it does not"
                );
            }
        }
    }

    /// In each group all believe in the same leader, who has lived longest.
    pub(crate) fn check_leaders(&self) {
        for (index, host) in self.hosts.iter().enumerate() {
            let group = self.group_of(index);
            let members = (0..self.hosts.len()).filter(|other| self.group_of(*other) == group);
            let longest = members.min_by_key(|other| (self.hosts[*other].epoch, *other));
            let leader = longest.filter(|_| group.is_some()).map(|i| i as u32 + 1);
            let agent = host.agent.as_ref().unwrap();
            assert_eq!(agent.leader(), leader, "of host {index}");
        }
    }

    pub(crate) fn check_equal(&self) {
        for (index, unit) in self.units.iter().enumerate() {
            let lbu = unit.lbu.as_ref().unwrap();
            for (number, host) in self.hosts.iter().enumerate() {
                let table: Vec<_> = {
                    let agent = host.agent.as_ref().unwrap();
                    let mut rows: Vec<_> = agent.table().rows().collect();
                    rows.sort_by_key(|(app, _)| *app);
                    rows
                };
                let cache: Vec<_> = lbu
                    .cache()
                    .host(number as u32 + 1)
                    .map(|(app, cached)| (app, &cached.row))
                    .collect();
                assert_eq!(cache, table, "unit {index}, host {number}");
                for (app, row) in table {
                    assert_eq!(row.status.target, row.status.current, "{number}: {app}");
                    let mut found = lbu.cache().of_type(&row.identity.app_type);
                    assert!(found.any(|(h, a, _)| (h, a) == (number as u32 + 1, app)));
                }
            }
            // By type, there is nothing else.
            let types = lbu.cache().types();
            let all: usize = types.map(|of| lbu.cache().of_type(of).count()).sum();
            assert_eq!(all, lbu.cache().len());
        }
    }
}
