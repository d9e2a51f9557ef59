// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a leader does with the heartbeats of others: it gathers them, passes them on, and tells their hosts which load
//! balancing units have got them.

use super::GroupConfig;
use crate::{
    row::is_address,
    wire::{
        changes::CHANGES_HEAD, group::CONSOLIDATED_HEAD, Changes, Consolidated, Heartbeat, Message,
        PassedOn, Relayed, Same, AGE_LIMIT_MAX, BODY_MAX, LBUS_MAX, OPERATIONS_MAX, SAME_MAX,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    time::Instant,
};

/// How many heartbeats behind one that was told in full others are as before; in one byte.
const MORE_MAX: u64 = 127;
/// Consolidated heartbeats of which it is awaited who gets them.
const SENT_MAX: usize = 1024;

#[derive(Debug)]
struct Waiting {
    epoch: u64,
    heartbeat: Heartbeat,
    from: SocketAddr,
    since: Instant,
}

#[derive(Debug)]
struct Sent {
    number: u64,
    answer_at: Instant,
    /// Of each record its host, life and number, and where it came from.
    records: Vec<(u32, u64, u64, SocketAddr)>,
    heard_by: BTreeSet<u32>,
    /// Load balancing units, and hosts of which they have got nothing by it.
    missing: BTreeSet<(u32, u32)>,
}

/// What was told of a host last in full, and in which message.
#[derive(Debug)]
struct Told {
    number: u64,
    record: Relayed,
}

impl Waiting {
    fn record(self, now: Instant, host: u32) -> Relayed {
        let age = now.saturating_duration_since(self.since).as_millis();
        Relayed {
            host,
            epoch: self.epoch,
            beat: self.heartbeat.beat,
            age: u32::try_from(age)
                .unwrap_or(AGE_LIMIT_MAX)
                .min(AGE_LIMIT_MAX),
            age_limit: self.heartbeat.age_limit,
            generations: self.heartbeat.generations,
            address: self.from,
        }
    }
}

impl Told {
    /// What is to be said of the host now, if it is as it was.
    fn same(&self, record: &Relayed) -> Option<Same> {
        let before = Relayed {
            beat: record.beat,
            age: record.age,
            ..self.record.clone()
        };
        let more = record.beat.checked_sub(self.record.beat)?;
        ((1..=MORE_MAX).contains(&more) && before == *record).then_some(Same {
            host: record.host,
            base: self.number,
            more,
            age: record.age,
        })
    }
}

#[derive(Debug, Default)]
pub(super) struct Relay {
    /// The newest heartbeat of each host, since the last ones were passed on.
    waiting: BTreeMap<u32, Waiting>,
    due: Option<Instant>,
    last: u64,
    sent: VecDeque<Sent>,
    told: BTreeMap<u32, Told>,
}

impl Relay {
    /// A heartbeat of another host, in its life; whether it is passed on. The number of hosts is bounded by that of the
    /// senders whose datagrams are opened.
    pub(super) fn take(
        &mut self,
        now: Instant,
        (host, epoch): (u32, u64),
        from: SocketAddr,
        heartbeat: Heartbeat,
        config: &GroupConfig,
    ) -> bool {
        let known = self.waiting.get(&host);
        let is_old =
            |known: &Waiting| (known.epoch, known.heartbeat.beat) >= (epoch, heartbeat.beat);
        if !is_address(&from) || from.port() == 0 || known.is_some_and(is_old) {
            return false;
        }
        let wait = if heartbeat.forward {
            config.urgent
        } else {
            config.gather
        };
        let due = now + wait;
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
        let waiting = Waiting {
            epoch,
            heartbeat,
            from,
            since: now,
        };
        self.waiting.insert(host, waiting);
        true
    }

    /// What is to be sent to all load balancing units now.
    pub(super) fn due(&mut self, now: Instant, config: &GroupConfig) -> Vec<Message> {
        if self.due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        self.due = None;
        if self.told.len() > config.max_members {
            // Hosts that are gone, most of them.
            self.told.clear();
        }
        let mut messages: Vec<Changes> = Vec::new();
        let mut room = 0;
        for (host, waiting) in std::mem::take(&mut self.waiting) {
            let record = waiting.record(now, host);
            let same = self.told.get(&host).and_then(|told| told.same(&record));
            let same = same.filter(|_| config.changes);
            let len = |message: &Changes| match &same {
                Some(same) => message.len_with(same),
                None => record.len(),
            };
            let has_room = |message: &Changes| {
                let (records, same) = (message.records.len(), message.same.len());
                // A unit can name so many, if it has nothing of any of them.
                let is_full = records + same >= SAME_MAX;
                records < OPERATIONS_MAX && !is_full && len(message) <= room
            };
            if !messages.last().is_some_and(has_room) {
                messages.push(self.begin(now, config));
                room = BODY_MAX - CHANGES_HEAD.max(CONSOLIDATED_HEAD);
            }
            let (Some(message), Some(sent)) = (messages.last_mut(), self.sent.back_mut()) else {
                break;
            };
            room -= len(message);
            sent.records
                .push((host, record.epoch, record.beat, record.address));
            if let Some(same) = same {
                message.same.push(same);
            } else {
                let number = message.number;
                message.records.push(record.clone());
                self.told.insert(host, Told { number, record });
            }
        }
        let message = |of: Changes| match config.changes {
            true => Message::Changes(of),
            false => Message::Consolidated(Consolidated {
                number: of.number,
                records: of.records,
            }),
        };
        messages.into_iter().map(message).collect()
    }

    /// The next message, which says nothing yet.
    fn begin(&mut self, now: Instant, config: &GroupConfig) -> Changes {
        self.last += 1;
        if self.sent.len() == SENT_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back(Sent {
            number: self.last,
            answer_at: now + config.answer_wait,
            records: Vec::new(),
            heard_by: BTreeSet::new(),
            missing: BTreeSet::new(),
        });
        Changes {
            number: self.last,
            records: Vec::new(),
            same: Vec::new(),
        }
    }

    /// `lbu` has got a message, but what it says of the hosts `missing`.
    pub(super) fn heard(&mut self, lbu: u32, number: u64, missing: &[u32]) {
        let Some(sent) = self.sent.iter_mut().find(|sent| sent.number == number) else {
            return;
        };
        if sent.heard_by.len() == LBUS_MAX && !sent.heard_by.contains(&lbu) {
            return;
        }
        sent.heard_by.insert(lbu);
        for (host, ..) in &sent.records {
            if missing.binary_search(host).is_ok() {
                sent.missing.insert((lbu, *host));
                // The next time in full, unless that was done since.
                if self.told.get(host).is_some_and(|told| told.number < number) {
                    self.told.remove(host);
                }
            }
        }
    }

    /// What is to be told to hosts now.
    pub(super) fn answers(&mut self, now: Instant, group: u32) -> Vec<(SocketAddr, PassedOn)> {
        let mut answers = Vec::new();
        while self.sent.front().is_some_and(|sent| sent.answer_at <= now) {
            let Some(sent) = self.sent.pop_front() else {
                break;
            };
            let (heard_by, missing) = (&sent.heard_by, &sent.missing);
            for (host, epoch, beat, to) in sent.records {
                let has_got = |lbu: &&u32| !missing.contains(&(**lbu, host));
                let lbus: Vec<_> = heard_by.iter().filter(has_got).copied().collect();
                if !lbus.is_empty() {
                    let passed = PassedOn {
                        group,
                        host,
                        epoch,
                        beat,
                        lbus,
                    };
                    answers.push((to, passed));
                }
            }
        }
        answers
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        let answer = self.sent.front().map(|sent| sent.answer_at);
        self.due.into_iter().chain(answer).min()
    }
}
