// SPDX-License-Identifier: MIT OR Apache-2.0

//! What hosts have said and when, whatever leaders say of it.

use nlb_health::{
    seal::{HEADER_LEN, TAG_LEN},
    wire::Message,
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// A host, its life, and the number of its heartbeat.
type Beat = (u32, u64, u64);

#[derive(Default)]
pub(crate) struct Truth {
    /// When each was sent.
    beats: BTreeMap<Beat, Instant>,
    /// When it came to a leader, in a life of that.
    arrived: BTreeMap<((u32, u64), Beat), Instant>,
    /// What a leader has said of a host in full, by the number of the message.
    told: BTreeMap<((u32, u64), u64, u32), Beat>,
}

/// Who sends a datagram, in which life.
fn sender(bytes: &[u8]) -> (u32, u64) {
    let id = bytes[8..12].try_into().unwrap();
    let epoch = bytes[12..20].try_into().unwrap();
    (u32::from_be_bytes(id), u64::from_be_bytes(epoch))
}

/// What is in a datagram, if it is a heartbeat in some way.
fn heartbeat(bytes: &[u8]) -> Option<Message> {
    let number = bytes[5];
    if ![1, 9, 10, 13].contains(&number) {
        return None;
    }
    let body = &bytes[HEADER_LEN..bytes.len() - TAG_LEN];
    Some(Message::decode(number, body).unwrap())
}

impl Truth {
    /// A host sends a datagram. A leader may be wrong by `doubt` in how long it has had what it passes on.
    pub(crate) fn note(&mut self, now: Instant, doubt: Duration, bytes: &[u8]) {
        let (host, epoch) = sender(bytes);
        let beat = match heartbeat(bytes) {
            Some(Message::Heartbeat(beat)) => beat.beat,
            Some(Message::MemberHeartbeat(member)) => member.heartbeat.beat,
            Some(message) => {
                if let Message::Changes(changes) = &message {
                    for record in &changes.records {
                        let beat = (record.host, record.epoch, record.beat);
                        let key = ((host, epoch), changes.number, record.host);
                        self.told.insert(key, beat);
                    }
                }
                for (beat, age) in self.passed_on((host, epoch), message) {
                    let since = now - age;
                    // It is rounded down.
                    let arrived = self.arrived[&((host, epoch), beat)] + Duration::from_millis(1);
                    assert!(
                        since <= arrived + doubt,
                        "host {host} has had {beat:?} for longer than it says"
                    );
                }
                return;
            }
            None => return,
        };
        self.beats.entry((host, epoch, beat)).or_insert(now);
    }

    /// A datagram comes to a host, whether or not that looks.
    pub(crate) fn arrive(&mut self, now: Instant, bytes: &[u8]) {
        if let Some(Message::MemberHeartbeat(member)) = heartbeat(bytes) {
            let (host, epoch) = sender(bytes);
            let beat = (host, epoch, member.heartbeat.beat);
            let leader = (member.host, member.epoch);
            self.arrived.entry((leader, beat)).or_insert(now);
        }
    }

    /// Of which hosts a datagram says that they were there, and when, if it was sent at `sent`.
    pub(crate) fn said(&self, sent: Instant, bytes: &[u8]) -> Vec<(u32, Instant)> {
        let mut said = vec![(sender(bytes).0, sent)];
        if let Some(message) = heartbeat(bytes) {
            let passed_on = self.passed_on(sender(bytes), message).into_iter();
            said.extend(passed_on.map(|(beat, _)| (beat.0, self.beats[&beat])));
        }
        said
    }

    /// The heartbeats of others that a leader passes on, and for how long it has had them, as it says.
    fn passed_on(&self, leader: (u32, u64), message: Message) -> Vec<(Beat, Duration)> {
        let (records, same, number) = match message {
            Message::Consolidated(all) => (all.records, Vec::new(), all.number),
            Message::Changes(changes) => (changes.records, changes.same, changes.number),
            _ => return Vec::new(),
        };
        let records = records.into_iter();
        let records = records.map(|record| ((record.host, record.epoch, record.beat), record.age));
        let same = same.into_iter().map(|same| {
            assert!(same.base < number);
            let (host, epoch, beat) = self.told[&(leader, same.base, same.host)];
            ((host, epoch, beat + same.more), same.age)
        });
        let all = records.chain(same);
        all.map(|(beat, age)| (beat, Duration::from_millis(u64::from(age))))
            .collect()
    }
}
