// SPDX-License-Identifier: MIT OR Apache-2.0

//! Heartbeats of which a leader says only that they are as before. Each is made whole by what that leader has said in
//! full, and is then worth what any other that is passed on is; without that it is worth nothing, and the leader is told.

use super::{Host, Lbu, Life};
use crate::wire::{Changes, Relayed, Same};
use std::time::Instant;

/// What a leader has said of a life in full.
#[derive(Debug)]
pub(super) struct Told {
    /// The leader, its life, and the number of the message.
    by: (u32, u64, u64),
    record: Relayed,
}

impl Host {
    fn lives(&self) -> impl Iterator<Item = &Life> {
        self.current.iter().chain(&self.next)
    }
}

impl Lbu {
    /// What a leader says, whose own life is the one in the cache. What is returned are the hosts of which nothing could be
    /// made of it, or of which nothing is known here and which shall speak for themselves (see `consolidated`).
    pub(super) fn changes(
        &mut self,
        now: Instant,
        (leader, epoch): (u32, u64),
        changes: Changes,
    ) -> Vec<u32> {
        self.counters.add("changes");
        let mut missing = Vec::new();
        for record in changes.records {
            self.relayed(now, record.clone());
            if self.is_awaited(now, record.host) {
                missing.push(record.host);
            }
            let host = self.hosts.get_mut(&record.host);
            let lives = host.map(|host| [&mut host.current, &mut host.next]);
            let mut lives = lives.into_iter().flatten().flatten();
            if let Some(life) = lives.find(|life| life.epoch == record.epoch) {
                let by = (leader, epoch, changes.number);
                life.told = Some(Told { by, record });
            }
        }
        for same in changes.same {
            let whole = self.whole((leader, epoch), &same);
            let is_whole = whole.is_some();
            if let Some(record) = whole {
                self.relayed(now, record);
            }
            if !is_whole || self.is_awaited(now, same.host) {
                missing.push(same.host);
            }
        }
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    fn whole(&self, (leader, epoch): (u32, u64), same: &Same) -> Option<Relayed> {
        let by = (leader, epoch, same.base);
        let mut told = self.hosts.get(&same.host)?.lives();
        let told = told.find_map(|life| life.told.as_ref().filter(|told| told.by == by))?;
        Some(Relayed {
            beat: told.record.beat.checked_add(same.more)?,
            age: same.age,
            ..told.record.clone()
        })
    }
}
