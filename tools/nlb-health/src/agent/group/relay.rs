// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a leader does with the heartbeats of others: it gathers them, passes them on, and tells their hosts which load
//! balancing units have got them.

use super::GroupConfig;
use crate::{
    row::is_address,
    wire::{
        group::CONSOLIDATED_HEAD, Consolidated, Heartbeat, PassedOn, Relayed, AGE_LIMIT_MAX,
        BODY_MAX, LBUS_MAX, OPERATIONS_MAX,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    time::Instant,
};

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
}

#[derive(Debug, Default)]
pub(super) struct Relay {
    /// The newest heartbeat of each host, since the last ones were passed on.
    waiting: BTreeMap<u32, Waiting>,
    due: Option<Instant>,
    last: u64,
    sent: VecDeque<Sent>,
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
    pub(super) fn due(&mut self, now: Instant, config: &GroupConfig) -> Vec<Consolidated> {
        if self.due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        self.due = None;
        let mut messages: Vec<Consolidated> = Vec::new();
        let mut room = 0;
        for (host, waiting) in std::mem::take(&mut self.waiting) {
            let age = now.saturating_duration_since(waiting.since).as_millis();
            let record = Relayed {
                host,
                epoch: waiting.epoch,
                beat: waiting.heartbeat.beat,
                age: u32::try_from(age)
                    .unwrap_or(AGE_LIMIT_MAX)
                    .min(AGE_LIMIT_MAX),
                age_limit: waiting.heartbeat.age_limit,
                generations: waiting.heartbeat.generations,
                address: waiting.from,
            };
            let of = (host, record.epoch, record.beat, record.address);
            let len = record.len();
            match messages.last_mut() {
                Some(message) if len <= room && message.records.len() < OPERATIONS_MAX => {
                    room -= len;
                    message.records.push(record);
                }
                _ => {
                    room = BODY_MAX - CONSOLIDATED_HEAD - len;
                    self.last += 1;
                    messages.push(Consolidated {
                        number: self.last,
                        records: vec![record],
                    });
                    if self.sent.len() == SENT_MAX {
                        self.sent.pop_front();
                    }
                    self.sent.push_back(Sent {
                        number: self.last,
                        answer_at: now + config.answer_wait,
                        records: Vec::new(),
                        heard_by: BTreeSet::new(),
                    });
                }
            }
            if let Some(sent) = self.sent.back_mut() {
                sent.records.push(of);
            }
        }
        messages
    }

    pub(super) fn heard(&mut self, lbu: u32, number: u64) {
        if let Some(sent) = self.sent.iter_mut().find(|sent| sent.number == number) {
            if sent.heard_by.len() < LBUS_MAX {
                sent.heard_by.insert(lbu);
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
            if sent.heard_by.is_empty() {
                continue;
            }
            let lbus: Vec<_> = sent.heard_by.into_iter().collect();
            let passed = |(host, epoch, beat, to)| {
                let passed = PassedOn {
                    group,
                    host,
                    epoch,
                    beat,
                    lbus: lbus.clone(),
                };
                (to, passed)
            };
            answers.extend(sent.records.into_iter().map(passed));
        }
        answers
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        let answer = self.sent.front().map(|sent| sent.answer_at);
        self.due.into_iter().chain(answer).min()
    }
}
