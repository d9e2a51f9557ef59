// SPDX-License-Identifier: MIT OR Apache-2.0

//! Heartbeats that leaders pass on (FIG. 16). Each is worth what its host's own would have been when the leader got it:
//! the number of the heartbeat and the generations decide, whoever leads. So two leaders at a time do no harm, and one
//! that is late confirms nothing that has become too old meanwhile.

use super::{Lbu, Life};
use crate::wire::{Consolidated, Heartbeat, Relayed};
use std::time::{Duration, Instant};

impl Lbu {
    /// The leader's own life is the one in the cache. Whether it is heard: those of whom nothing is known here shall
    /// speak for themselves, for it may be that they are not reached where the leader hears them.
    pub(super) fn consolidated(&mut self, now: Instant, consolidated: Consolidated) -> bool {
        self.counters.add("consolidated");
        let mut is_heard = true;
        for record in consolidated.records {
            let id = record.host;
            self.relayed(now, record);
            is_heard &= !self.is_awaited(now, id);
        }
        is_heard
    }

    /// Nothing of it is here, but it may be soon. Who never answers is no reason for others to speak for themselves.
    pub(super) fn is_awaited(&mut self, now: Instant, id: u32) -> bool {
        let host = self.hosts.get(&id).filter(|host| host.current.is_none());
        let next = host.and_then(|host| host.next.as_ref());
        let is_awaited = next.is_some_and(|life| now < life.since + life.age_limit);
        if is_awaited {
            self.counters.add("relayed-unknown");
        }
        is_awaited
    }

    pub(super) fn relayed(&mut self, now: Instant, record: Relayed) {
        let Relayed {
            host: id, epoch, ..
        } = record;
        let age = Duration::from_millis(u64::from(record.age));
        let Some(at) = now.checked_sub(age) else {
            return;
        };
        if !self.hosts.contains_key(&id) && self.hosts.len() >= self.config.limits.hosts {
            return self.counters.add("relayed-senders");
        }
        let host = self.hosts.entry(id).or_default();
        if host.gone.is_some_and(|(gone, _)| epoch <= gone) {
            return self.counters.add("message-of-the-gone");
        }
        let is_current = host.current.as_ref().is_some_and(|l| l.epoch == epoch);
        let known = [&host.current, &host.next].into_iter().flatten();
        let known: Vec<_> = known.map(|life| life.epoch).collect();
        if !is_current && known.iter().any(|known| *known > epoch) {
            return self.counters.add("relayed-epoch");
        }
        if !known.contains(&epoch) {
            let mut life = Life::new(at, epoch, record.address, &self.config);
            // Many hosts become known by one datagram; they shall not all answer at once.
            life.get_at = Some(now + self.random.up_to(self.config.retry));
            host.next = Some(life);
        }
        if let Some(life) = self.life(id, is_current) {
            life.other = Some(record.address).filter(|address| *address != life.from);
        }
        let beat = Heartbeat {
            beat: record.beat,
            age_limit: record.age_limit,
            forward: false,
            generations: record.generations,
            name: None,
        };
        self.heartbeat(now, at, id, is_current, beat);
        self.arrange(now, id);
    }
}
