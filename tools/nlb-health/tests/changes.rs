// SPDX-License-Identifier: MIT OR Apache-2.0

//! Leaders that say only of what has changed what it is, and what load balancing units make of that.

mod rows;

use nlb_health::{
    agent::{Agent, AgentConfig, GroupConfig},
    lbu::{Lbu, LbuConfig},
    row::{AppId, Row},
    seal::{Keys, Sealer, HEADER_LEN, TAG_LEN},
    wire::*,
    Transmit,
};
use rows::healthy;
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

const GROUP: u32 = 7;
const LEADER: u32 = 1;
const MEMBERS: [u32; 2] = [2, 3];
const LBU: u32 = 9;
const LIMIT: u32 = 5000;

fn address(host: u32) -> SocketAddr {
    let [.., third, last] = host.to_be_bytes();
    SocketAddr::from(([10, 0, third, last], 4772))
}

fn keys() -> Keys {
    Keys::new(1, b"0123456789abcdef").unwrap()
}

fn decode(transmit: &Transmit) -> Message {
    let bytes = &transmit.datagram;
    let body = &bytes[HEADER_LEN..bytes.len() - TAG_LEN];
    Message::decode(bytes[5], body).unwrap()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

mod leader {
    use super::*;

    /// A leader, and two members and a load balancing unit of which each message is written here.
    struct Bench {
        now: Instant,
        agent: Agent,
        members: [Sealer; 2],
        lbu: Sealer,
        beat: u64,
        generations: [u64; 2],
        sent: Vec<Message>,
    }

    impl Bench {
        fn new(changes: bool) -> Self {
            let now = Instant::now();
            let seeds = vec![address(2)];
            let group = GroupConfig {
                changes,
                ..GroupConfig::new(GROUP, address(LEADER), seeds, ms(1000))
            };
            let config = AgentConfig {
                group: Some(group),
                ..AgentConfig::new(LEADER, 1, vec![address(LBU)])
            };
            let mut bench = Self {
                now,
                agent: Agent::new(now, config, keys(), [1; 32]),
                members: MEMBERS.map(|host| Sealer::new(host, 5)),
                lbu: Sealer::new(LBU, 1),
                beat: 0,
                generations: [3; 2],
                sent: Vec::new(),
            };
            let get = GetSnapshot {
                host: LEADER,
                request: 1,
                chunks: 1,
            };
            bench.answer(&Message::GetSnapshot(get));
            bench
        }

        fn answer(&mut self, message: &Message) {
            let datagram = self.lbu.seal(&keys(), message);
            let from = address(LBU);
            self.agent.handle_datagram(self.now, from, &datagram);
        }

        /// A member says that it is there; the leader shall pass that on at once, or not.
        fn hear(&mut self, member: &mut Sealer, host: u32, generation: u64, forward: bool) {
            let beat = MemberHeartbeat {
                group: GROUP,
                host: LEADER,
                epoch: 1,
                heartbeat: Heartbeat {
                    beat: self.beat,
                    age_limit: LIMIT,
                    forward,
                    generations: vec![generation],
                    name: None,
                },
            };
            let datagram = member.seal(&keys(), &Message::MemberHeartbeat(beat));
            let from = address(host);
            self.agent.handle_datagram(self.now, from, &datagram);
        }

        /// Both members say that they are there: what the leader says of them, once, behind what it has said before.
        fn round(&mut self) -> Changes {
            self.beat += 1;
            let mut members =
                std::mem::replace(&mut self.members, MEMBERS.map(|_| Sealer::new(1, 1)));
            for (index, member) in members.iter_mut().enumerate() {
                self.hear(member, MEMBERS[index], self.generations[index], false);
            }
            self.members = members;
            // It is passed on after half a heartbeat, and answers are waited for 200 ms.
            self.wait(550);
            let mut all = self.sent.iter().filter_map(|message| match message {
                Message::Changes(changes) => Some(changes.clone()),
                _ => None,
            });
            let one = all.next().expect("nothing is passed on");
            assert!(all.next().is_none());
            one
        }

        fn wait(&mut self, milliseconds: u64) {
            self.sent.clear();
            let end = self.now + ms(milliseconds);
            loop {
                let sent = std::iter::from_fn(|| self.agent.poll_transmit());
                self.sent.extend(sent.map(|transmit| decode(&transmit)));
                let Some(at) = self.agent.poll_timeout().filter(|at| *at <= end) else {
                    break;
                };
                self.now = self.now.max(at);
                self.agent.handle_timeout(self.now);
            }
            self.now = end;
        }

        /// Whom the leader tells that the unit has got its heartbeat.
        fn told(&self) -> Vec<u32> {
            let told = self.sent.iter().filter_map(|message| match message {
                Message::PassedOn(passed) => Some((passed.host, passed.lbus.clone())),
                _ => None,
            });
            told.map(|(host, lbus)| {
                assert_eq!(lbus, [LBU]);
                host
            })
            .collect()
        }
    }

    fn heard(number: u64) -> Heard {
        Heard {
            host: LEADER,
            epoch: 1,
            number,
        }
    }

    fn in_full(changes: &Changes) -> Vec<u32> {
        changes.records.iter().map(|record| record.host).collect()
    }

    fn as_before(changes: &Changes) -> Vec<(u32, u64, u64)> {
        let same = changes.same.iter();
        same.map(|same| (same.host, same.base, same.more)).collect()
    }

    #[test]
    fn what_is_as_before_is_said_so() {
        let mut bench = Bench::new(true);
        let first = bench.round();
        assert_eq!((first.number, in_full(&first)), (1, MEMBERS.to_vec()));
        let second = bench.round();
        assert_eq!(second.number, 2);
        assert_eq!(as_before(&second), [(2, 1, 1), (3, 1, 1)]);
        assert!(second.records.is_empty());
        assert!(second.same.iter().all(|same| same.age == 500));
        // Another table is said in full, and what comes behind it is as that.
        bench.generations[1] = 4;
        let third = bench.round();
        assert_eq!(in_full(&third), [3]);
        assert_eq!(third.records[0].generations, [4]);
        assert_eq!(as_before(&third), [(2, 1, 2)]);
        assert_eq!(as_before(&bench.round()), [(2, 1, 3), (3, 3, 1)]);
        // So is another life.
        bench.members[0] = Sealer::new(2, 6);
        assert_eq!(in_full(&bench.round()), [2]);
        // And each from time to time.
        let count = (0..150).filter(|_| !in_full(&bench.round()).is_empty());
        assert_eq!(count.count(), 2);
    }

    /// A unit that has nothing of what a message says can tell so.
    #[test]
    fn no_message_is_about_more_than_may_be_missing() {
        let mut bench = Bench::new(true);
        let hosts = || 1000..1300;
        let mut members: Vec<_> = hosts().map(|host| Sealer::new(host, 5)).collect();
        // As short as they can be: neighbours, that have spoken just now. Some are otherwise than before.
        let mut round = |bench: &mut Bench, generation: u64| -> Vec<Changes> {
            bench.beat += 1;
            for (member, host) in members.iter_mut().zip(hosts()) {
                let generation = if host % 75 == 0 { generation } else { 3 };
                bench.hear(member, host, generation, true);
            }
            bench.wait(100);
            let sent = bench.sent.drain(..);
            let changes = sent.filter_map(|message| match message {
                Message::Changes(changes) => Some(changes),
                _ => None,
            });
            changes.collect()
        };
        round(&mut bench, 3);
        let messages = round(&mut bench, 4);
        let all = messages.iter().map(|of| (of.records.len(), of.same.len()));
        let all: Vec<_> = all.collect();
        assert_eq!(all.iter().map(|(records, _)| records).sum::<usize>(), 4);
        assert_eq!(
            all.iter()
                .map(|(records, same)| records + same)
                .sum::<usize>(),
            300
        );
        let is_full = |(records, same): &(usize, usize)| records + same == SAME_MAX && *records > 0;
        assert!(is_full(&all[0]), "{all:?}");
    }

    #[test]
    fn what_a_unit_has_not_got_is_said_in_full() {
        let mut bench = Bench::new(true);
        let first = bench.round();
        bench.answer(&Message::Heard(heard(first.number)));
        bench.wait(300);
        assert_eq!(bench.told(), MEMBERS);
        let second = bench.round();
        let part = |number, missing: &[u32]| {
            Message::HeardPart(HeardPart {
                heard: heard(number),
                missing: missing.to_vec(),
            })
        };
        // One that it does not name, too.
        bench.answer(&part(second.number, &[3, 77]));
        bench.wait(300);
        assert_eq!(bench.told(), [2]);
        let third = bench.round();
        assert_eq!(
            (in_full(&third), as_before(&third)),
            (vec![3], vec![(2, 1, 2)])
        );
        // What was missing then has come since, perhaps.
        bench.answer(&part(second.number, &[3]));
        let fourth = bench.round();
        assert_eq!(as_before(&fourth), [(2, 1, 3), (3, 3, 1)]);
        // Who has never asked for the table is not listened to, nor what is about another life.
        bench.lbu = Sealer::new(LBU + 1, 1);
        bench.answer(&part(fourth.number, &[2, 3]));
        assert_eq!(bench.agent.counters().get("message-of-stranger"), 1);
        bench.lbu = Sealer::new(LBU, 2);
        let other = HeardPart {
            heard: Heard {
                epoch: 2,
                ..heard(fourth.number)
            },
            missing: vec![2],
        };
        bench.answer(&Message::HeardPart(other));
        assert_eq!(bench.agent.counters().get("message-for-others"), 1);
        assert!(bench.round().records.is_empty());
    }

    #[test]
    fn all_may_be_said_in_full() {
        let mut bench = Bench::new(false);
        for _ in 0..3 {
            bench.beat += 1;
            let beat = MemberHeartbeat {
                group: GROUP,
                host: LEADER,
                epoch: 1,
                heartbeat: Heartbeat {
                    beat: bench.beat,
                    age_limit: LIMIT,
                    forward: false,
                    generations: vec![3],
                    name: None,
                },
            };
            let datagram = bench.members[0].seal(&keys(), &Message::MemberHeartbeat(beat));
            let from = address(2);
            bench.agent.handle_datagram(bench.now, from, &datagram);
            bench.wait(1000);
            let is_full = |message: &Message| matches!(message, Message::Consolidated(all) if all.records.len() == 1);
            assert_eq!(bench.sent.iter().filter(|of| is_full(of)).count(), 1);
            let is_other = |message: &Message| matches!(message, Message::Changes(_));
            assert!(!bench.sent.iter().any(is_other));
        }
    }
}

mod unit {
    use super::*;

    /// A unit that knows two leaders and a member, of which each message is written here.
    struct Bench {
        now: Instant,
        lbu: Lbu,
        leader: Sealer,
        other: Sealer,
        /// The leaders' last heartbeat.
        beat: u64,
    }

    impl Bench {
        fn new() -> Self {
            let now = Instant::now();
            let mut bench = Self {
                now,
                lbu: Lbu::new(LbuConfig::new(LBU, 1), keys(), [1; 32]),
                leader: Sealer::new(LEADER, 1),
                other: Sealer::new(3, 1),
                beat: 9,
            };
            let mut member = Sealer::new(2, 5);
            for (host, sealer) in [
                (LEADER, &mut bench.leader),
                (3, &mut bench.other),
                (2, &mut member),
            ] {
                let beat = Message::Heartbeat(Heartbeat {
                    beat: 9,
                    age_limit: LIMIT,
                    forward: false,
                    generations: vec![3],
                    name: None,
                });
                let say = |lbu: &mut Lbu, sealer: &mut Sealer, message: &Message| {
                    let datagram = sealer.seal(&keys(), message);
                    lbu.handle_datagram(now, address(host), &datagram);
                };
                say(&mut bench.lbu, sealer, &beat);
                let Message::GetSnapshot(get) = decode(&bench.lbu.poll_transmit().unwrap()) else {
                    panic!("it does not ask");
                };
                let snapshot = Message::Snapshot(Snapshot {
                    lbu: LBU,
                    request: get.request,
                    age_limit: LIMIT,
                    chunks: 1,
                    chunk: 0,
                    generation: 3,
                    parts: 1,
                    part: 0,
                    rows: vec![(AppId(0), row(host))],
                });
                say(&mut bench.lbu, sealer, &snapshot);
            }
            assert!(bench.knows());
            bench
        }

        /// The hosts that were missing.
        fn say(&mut self, leader: u32, changes: Changes) -> Vec<u32> {
            let sealer = match leader {
                LEADER => &mut self.leader,
                _ => &mut self.other,
            };
            let number = changes.number;
            let datagram = sealer.seal(&keys(), &Message::Changes(changes));
            let from = address(leader);
            self.lbu.handle_datagram(self.now, from, &datagram);
            let sent: Vec<_> = std::iter::from_fn(|| self.lbu.poll_transmit()).collect();
            let answers = sent.iter().filter(|transmit| transmit.to == from);
            let answers: Vec<_> = answers.map(decode).collect();
            let heard = Heard {
                host: leader,
                epoch: 1,
                number,
            };
            match &answers[..] {
                [Message::Heard(own)] if *own == heard => Vec::new(),
                [Message::HeardPart(part)] if part.heard == heard => part.missing.clone(),
                other => panic!("it answers {other:?}"),
            }
        }

        fn full(&mut self, leader: u32, number: u64, beat: u64) -> Vec<u32> {
            let record = Relayed {
                host: 2,
                epoch: 5,
                beat,
                age: 0,
                age_limit: LIMIT,
                generations: vec![3],
                address: address(2),
            };
            let changes = Changes {
                number,
                records: vec![record],
                same: Vec::new(),
            };
            self.say(leader, changes)
        }

        fn same(&mut self, leader: u32, number: u64, base: u64, more: u64, age: u32) -> Vec<u32> {
            let same = Same {
                host: 2,
                base,
                more,
                age,
            };
            let changes = Changes {
                number,
                records: Vec::new(),
                same: vec![same],
            };
            self.say(leader, changes)
        }

        fn wait(&mut self, milliseconds: u64) {
            self.now += ms(milliseconds);
            self.lbu.handle_timeout(self.now);
            // The leaders are there.
            self.beat += 1;
            for (host, sealer) in [(LEADER, &mut self.leader), (3, &mut self.other)] {
                let beat = Message::Heartbeat(Heartbeat {
                    beat: self.beat,
                    age_limit: LIMIT,
                    forward: false,
                    generations: vec![3],
                    name: None,
                });
                let datagram = sealer.seal(&keys(), &beat);
                self.lbu.handle_datagram(self.now, address(host), &datagram);
            }
            while self.lbu.poll_transmit().is_some() {}
        }

        fn knows(&self) -> bool {
            self.lbu.cache().host(2).count() == 1
        }
    }

    fn row(host: u32) -> Row {
        healthy(address(host))
    }

    /// It counts as of when the leader got it, and no longer than the age limit.
    #[test]
    fn it_is_worth_what_it_would_be_in_full() {
        let mut bench = Bench::new();
        assert!(bench.full(LEADER, 1, 10).is_empty());
        bench.wait(4000);
        assert!(bench.same(LEADER, 2, 1, 1, 1000).is_empty());
        bench.wait(3900);
        assert!(bench.knows());
        bench.wait(100);
        assert!(!bench.knows());
    }

    /// A heartbeat before one that has come says nothing, as in full.
    #[test]
    fn an_earlier_one_says_nothing() {
        let mut bench = Bench::new();
        assert!(bench.full(LEADER, 1, 10).is_empty());
        assert!(bench.same(LEADER, 3, 1, 2, 0).is_empty());
        bench.wait(4000);
        assert!(bench.same(LEADER, 2, 1, 1, 0).is_empty());
        assert_eq!(bench.lbu.counters().get("heartbeat-late"), 1);
        bench.wait(1000);
        assert!(!bench.knows());
    }

    /// What was lost, or was said by somebody else, makes nothing whole; the leader is told.
    #[test]
    fn what_is_not_known_counts_nothing() {
        let mut bench = Bench::new();
        assert_eq!(bench.same(LEADER, 2, 1, 1, 0), [2]);
        assert!(bench.full(LEADER, 3, 10).is_empty());
        bench.wait(4000);
        for (leader, number, base) in [(LEADER, 5, 4), (LEADER, 6, 2), (3, 4, 3)] {
            assert_eq!(bench.same(leader, number, base, 9, 0), [2]);
        }
        bench.wait(1000);
        assert!(!bench.knows());
    }

    /// Of two leaders the one counts that has spoken last in full.
    #[test]
    fn two_leaders_do_no_harm() {
        let mut bench = Bench::new();
        assert!(bench.full(LEADER, 1, 10).is_empty());
        assert!(bench.full(3, 1, 11).is_empty());
        assert_eq!(bench.same(LEADER, 2, 1, 2, 0), [2]);
        bench.wait(4000);
        assert!(bench.same(3, 2, 1, 2, 0).is_empty());
        bench.wait(4000);
        assert!(bench.knows());
    }

    /// A table of which it is known that it has changed is not confirmed by what was there before.
    #[test]
    fn it_confirms_no_other_table() {
        let mut bench = Bench::new();
        assert!(bench.full(LEADER, 1, 10).is_empty());
        let mut changed = Relayed {
            host: 2,
            epoch: 5,
            beat: 11,
            age: 0,
            age_limit: LIMIT,
            generations: vec![4],
            address: address(2),
        };
        let changes = |number, record: &Relayed| Changes {
            number,
            records: vec![record.clone()],
            same: Vec::new(),
        };
        assert!(bench.say(LEADER, changes(2, &changed)).is_empty());
        // The one before is not there any more.
        assert_eq!(bench.same(LEADER, 3, 1, 2, 0), [2]);
        bench.wait(2000);
        assert!(bench.same(LEADER, 4, 2, 2, 0).is_empty());
        bench.wait(3000);
        assert!(!bench.knows());
        // Nor by a number that there cannot be.
        changed.beat = u64::MAX;
        assert!(bench.say(LEADER, changes(5, &changed)).is_empty());
        assert_eq!(bench.same(LEADER, 6, 5, 1, 0), [2]);
    }
}
