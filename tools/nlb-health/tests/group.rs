// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a host takes of what the others of its group say, and what it passes on when it leads.

use nlb_health::{
    agent::{Agent, AgentConfig, GroupConfig},
    seal::{Keys, Sealer, HEADER_LEN, TAG_LEN},
    wire::*,
    Transmit,
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

const GROUP: u32 = 7;
/// The host, and its life, which is the longest of all.
const OWN: (u32, u64) = (1, 1);
const LBU: u8 = 99;

fn address(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], 4772))
}

fn member(host: u32, epoch: u64) -> MemberId {
    MemberId {
        host,
        epoch,
        renewal: 0,
        address: address(host as u8),
    }
}

fn decode(transmit: &Transmit) -> Message {
    let bytes = &transmit.datagram;
    let body = &bytes[HEADER_LEN..bytes.len() - TAG_LEN];
    Message::decode(bytes[5], body).unwrap()
}

/// A host, and others of which each message is written here.
struct Bench {
    now: Instant,
    agent: Agent,
    keys: Keys,
    sent: Vec<Transmit>,
    /// What was said of a host in full: its heartbeat, by the number of the message.
    told: BTreeMap<(u64, u32), u64>,
}

impl Bench {
    fn new() -> Self {
        let now = Instant::now();
        let keys = Keys::new(1, b"0123456789abcdef").unwrap();
        let second = Duration::from_secs(1);
        let group = GroupConfig {
            max_members: 2,
            ..GroupConfig::new(GROUP, address(1), vec![address(2)], second)
        };
        let config = AgentConfig {
            group: Some(group),
            ..AgentConfig::new(OWN.0, OWN.1, vec![address(LBU)])
        };
        let mut bench = Self {
            now,
            agent: Agent::new(now, config, keys.clone(), [1; 32]),
            keys,
            sent: Vec::new(),
            told: BTreeMap::new(),
        };
        bench.wait(50);
        bench
    }

    fn take(&mut self) {
        let agent = &mut self.agent;
        self.sent
            .extend(std::iter::from_fn(|| agent.poll_transmit()));
    }

    /// It runs for so many milliseconds.
    fn wait(&mut self, milliseconds: u64) {
        let end = self.now + Duration::from_millis(milliseconds);
        while let Some(at) = self.agent.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.agent.handle_timeout(self.now);
            self.take();
        }
        self.now = end;
    }

    fn say(&mut self, sealer: &mut Sealer, message: &Message) {
        let datagram = sealer.seal(&self.keys, message);
        // The last byte of the sender.
        let from = address(datagram[11]);
        self.agent.handle_datagram(self.now, from, &datagram);
        self.take();
    }

    fn count(&self, name: &str) -> u64 {
        self.agent.counters().get(name)
    }

    /// The heartbeats that were passed on since the last time: of which hosts, and how long it has had them.
    fn passed_on(&mut self) -> Vec<(u32, u64, u32)> {
        let sent = std::mem::take(&mut self.sent);
        let mut records = Vec::new();
        for transmit in sent {
            if let Message::Changes(changes) = decode(&transmit) {
                assert_eq!(transmit.to, address(LBU));
                for record in changes.records {
                    self.told.insert((changes.number, record.host), record.beat);
                    records.push((record.host, record.beat, record.age));
                }
                for same in changes.same {
                    let beat = self.told[&(same.base, same.host)] + same.more;
                    records.push((same.host, beat, same.age));
                }
            }
        }
        records
    }
}

fn heartbeat(beat: u64) -> MemberHeartbeat {
    MemberHeartbeat {
        group: GROUP,
        host: OWN.0,
        epoch: OWN.1,
        heartbeat: Heartbeat {
            beat,
            age_limit: 5000,
            forward: false,
            generations: vec![0],
            name: None,
        },
    }
}

#[test]
fn only_what_is_for_this_leader_is_passed_on() {
    let mut bench = Bench::new();
    let mut two = Sealer::new(2, 5);
    let (host, epoch) = OWN;
    for (beat, host, epoch, group) in [
        (3, host, epoch, GROUP),
        // Somebody plays to this leader what was for another one, or for an earlier life of it.
        (4, 3, epoch, GROUP),
        (5, 2, 5, GROUP),
        (6, host, epoch + 1, GROUP),
        (7, host, epoch, GROUP + 1),
    ] {
        let beat = MemberHeartbeat {
            group,
            host,
            epoch,
            ..heartbeat(beat)
        };
        bench.say(&mut two, &Message::MemberHeartbeat(beat));
    }
    assert_eq!(bench.count("message-for-others"), 3);
    assert_eq!(bench.count("group-other"), 1);
    assert_eq!(bench.count("member-heartbeat"), 1);
    bench.wait(1000);
    assert_eq!(bench.passed_on(), [(2, 3, 500)]);
}

#[test]
fn of_each_host_the_newest_one_is_passed_on() {
    let mut bench = Bench::new();
    let mut two = Sealer::new(2, 5);
    let (older, newer) = (heartbeat(3), heartbeat(4));
    bench.say(&mut two, &Message::MemberHeartbeat(newer.clone()));
    bench.say(&mut two, &Message::MemberHeartbeat(newer));
    bench.say(&mut two, &Message::MemberHeartbeat(older));
    assert_eq!(bench.count("member-heartbeat-refused"), 2);
    bench.wait(1000);
    assert_eq!(bench.passed_on(), [(2, 4, 500)]);
}

/// It would be passed on as where to reach the host.
#[test]
fn what_comes_from_no_port_is_not_passed_on() {
    let mut bench = Bench::new();
    let mut two = Sealer::new(2, 5);
    let beat = two.seal(&bench.keys, &Message::MemberHeartbeat(heartbeat(1)));
    let from = SocketAddr::from(([10, 0, 0, 2], 0));
    bench.agent.handle_datagram(bench.now, from, &beat);
    assert_eq!(bench.count("member-heartbeat-refused"), 1);
    bench.wait(1000);
    assert_eq!(bench.passed_on(), []);
}

#[test]
fn how_long_the_leader_has_had_each_is_said() {
    let mut bench = Bench::new();
    let (mut two, mut three) = (Sealer::new(2, 5), Sealer::new(3, 5));
    bench.say(&mut two, &Message::MemberHeartbeat(heartbeat(1)));
    bench.wait(180);
    bench.say(&mut three, &Message::MemberHeartbeat(heartbeat(1)));
    bench.wait(1000);
    assert_eq!(bench.passed_on(), [(2, 1, 500), (3, 1, 320)]);
    // One that is urgent takes the others along.
    bench.say(&mut two, &Message::MemberHeartbeat(heartbeat(2)));
    bench.wait(300);
    let mut urgent = heartbeat(2);
    urgent.heartbeat.forward = true;
    bench.say(&mut three, &Message::MemberHeartbeat(urgent));
    bench.wait(20);
    assert_eq!(bench.passed_on(), [(2, 2, 320), (3, 2, 20)]);
}

/// What has waited in the meantime may be older than anybody can say.
#[test]
fn who_stood_still_passes_on_nothing_old() {
    for (milliseconds, refused) in [(400, 0), (4000, 1)] {
        for is_woken_by_time in [false, true] {
            let mut bench = Bench::new();
            let mut two = Sealer::new(2, 5);
            bench.say(&mut two, &Message::MemberHeartbeat(heartbeat(1)));
            bench.wait(1000);
            assert_eq!(bench.passed_on(), [(2, 1, 500)]);
            bench.now += Duration::from_millis(milliseconds);
            if is_woken_by_time {
                bench.agent.handle_timeout(bench.now);
                bench.wait(200);
            }
            bench.say(&mut two, &Message::MemberHeartbeat(heartbeat(2)));
            assert_eq!(bench.count("member-heartbeat-refused"), refused);
            bench.wait(1000);
            assert_eq!(bench.passed_on().is_empty(), refused == 1);
            bench.say(&mut two, &Message::MemberHeartbeat(heartbeat(3)));
            bench.wait(1000);
            assert_eq!(bench.passed_on(), [(2, 3, 500)]);
        }
    }
}

fn gossip(group: u32, src: MemberId, about: &[u32]) -> Message {
    let (host, epoch) = OWN;
    let updates = about.iter();
    Message::Membership(Membership {
        group,
        header: foca::Header {
            src,
            src_incarnation: 0,
            dst: member(host, epoch),
            message: foca::Message::Gossip,
        },
        updates: updates
            .map(|host| foca::Member::alive(member(*host, 9)))
            .collect(),
    })
}

#[test]
fn who_is_no_member_does_not_become_one() {
    let mut bench = Bench::new();
    let mut two = Sealer::new(2, 5);
    bench.say(&mut two, &gossip(GROUP + 1, member(2, 5), &[]));
    assert_eq!(bench.count("group-other"), 1);
    // It speaks in the name of another one, or of another life.
    bench.say(&mut two, &gossip(GROUP, member(3, 5), &[]));
    bench.say(&mut two, &gossip(GROUP, member(2, 6), &[]));
    assert_eq!(bench.count("group-contradicts"), 2);
    assert_eq!(bench.agent.members(), Some(1));
    bench.say(&mut two, &gossip(GROUP, member(2, 5), &[]));
    assert_eq!(bench.agent.members(), Some(2));
    // There is room for two beside it.
    bench.say(&mut two, &gossip(GROUP, member(2, 5), &[3, 4]));
    assert_eq!(bench.count("group-full"), 1);
    assert_eq!(bench.agent.members(), Some(2));
    bench.say(&mut two, &gossip(GROUP, member(2, 5), &[3]));
    assert_eq!(bench.agent.members(), Some(3));
    assert_eq!(bench.count("group-error"), 0);
}

#[test]
fn its_own_words_are_no_news() {
    let mut bench = Bench::new();
    let own = bench
        .sent
        .iter()
        .find(|transmit| matches!(decode(transmit), Message::Membership(_)))
        .unwrap()
        .datagram
        .clone();
    bench.agent.handle_datagram(bench.now, address(2), &own);
    assert_eq!(bench.count("group-error"), 1);
    assert_eq!(bench.agent.members(), Some(1));
}
