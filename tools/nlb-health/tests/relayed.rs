// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a load balancing unit believes of what a leader passes on.

mod rows;

use nlb_health::{
    lbu::{Lbu, LbuConfig},
    row::{AppId, Directive, Row},
    seal::{Keys, Opener, Sealer},
    wire::*,
};
use rows::healthy;
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

const LEADER: u32 = 1;
const MEMBER: u32 = 2;
const LIMIT: u32 = 5000;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn address(host: u32) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host as u8], 4771))
}

/// A unit, and hosts of which each message is written here.
struct Bench {
    now: Instant,
    lbu: Lbu,
    keys: Keys,
    opener: Opener,
    number: u64,
    /// Where the leader hears the member.
    seen_at: SocketAddr,
}

impl Bench {
    fn new() -> Self {
        let keys = Keys::new(1, b"0123456789abcdef").unwrap();
        Self {
            now: Instant::now(),
            lbu: Lbu::new(LbuConfig::new(9, 1), keys.clone(), [1; 32]),
            keys,
            opener: Opener::new(Route::ToHosts, 1),
            number: 0,
            seen_at: address(MEMBER),
        }
    }

    /// What a host says, and what the unit sends then, and where.
    fn say(
        &mut self,
        sealer: &mut Sealer,
        host: u32,
        message: &Message,
    ) -> Vec<(SocketAddr, Message)> {
        let datagram = sealer.seal(&self.keys, message);
        self.lbu.handle_datagram(self.now, address(host), &datagram);
        self.sent()
    }

    fn sent(&mut self) -> Vec<(SocketAddr, Message)> {
        let sent = std::iter::from_fn(|| self.lbu.poll_transmit());
        sent.map(|transmit| {
            let opened = self.opener.open(&self.keys, &transmit.datagram).unwrap();
            let message = Message::decode(opened.number, opened.body).unwrap();
            (transmit.to, message)
        })
        .collect()
    }

    fn wait(&mut self, time: Duration) -> Vec<(SocketAddr, Message)> {
        self.now += time;
        self.lbu.handle_timeout(self.now);
        self.sent()
    }

    /// The unit comes to know a host that has a row, of generation 3, and heartbeats up to the 9th.
    fn know(&mut self, host: u32, epoch: u64) -> Sealer {
        let mut sealer = Sealer::new(host, epoch);
        let sent = self.say(&mut sealer, host, &heartbeat(9));
        let request = request(&sent);
        self.snapshot(&mut sealer, host, request);
        sealer
    }

    fn snapshot(&mut self, sealer: &mut Sealer, host: u32, request: u64) {
        let snapshot = Snapshot {
            lbu: 9,
            request,
            age_limit: LIMIT,
            chunks: 1,
            chunk: 0,
            generation: 3,
            parts: 1,
            part: 0,
            rows: vec![(AppId(0), row(host))],
        };
        self.say(sealer, host, &Message::Snapshot(snapshot));
        assert!(self.knows(host));
    }

    /// The leader passes on a heartbeat of the member: whether the unit says that it has got it.
    fn pass_on(
        &mut self,
        leader: &mut Sealer,
        epoch: u64,
        beat: u64,
        generation: u64,
        age: u32,
    ) -> bool {
        self.number += 1;
        let record = Relayed {
            host: MEMBER,
            epoch,
            beat,
            age,
            age_limit: LIMIT,
            generations: vec![generation],
            address: self.seen_at,
        };
        let message = Message::Consolidated(Consolidated {
            number: self.number,
            records: vec![record],
        });
        let heard = Heard {
            host: LEADER,
            epoch: leader.epoch(),
            number: self.number,
        };
        let sent = self.say(leader, LEADER, &message);
        sent.contains(&(address(LEADER), Message::Heard(heard)))
    }

    fn knows(&self, host: u32) -> bool {
        self.lbu.cache().host(host).count() == 1
    }
}

fn heartbeat(beat: u64) -> Message {
    Message::Heartbeat(Heartbeat {
        beat,
        age_limit: LIMIT,
        forward: false,
        generations: vec![3],
        name: None,
    })
}

/// The request for a snapshot among what was sent.
fn request(sent: &[(SocketAddr, Message)]) -> u64 {
    let mut gets = sent.iter().filter_map(|(_, message)| match message {
        Message::GetSnapshot(get) => Some(get.request),
        _ => None,
    });
    gets.next_back().unwrap()
}

fn row(host: u32) -> Row {
    healthy(address(host))
}

/// Both are known; then the leader speaks for itself as often as that matters.
fn bench() -> (Bench, Sealer) {
    let mut bench = Bench::new();
    let leader = bench.know(LEADER, 1);
    bench.know(MEMBER, 5);
    (bench, leader)
}

#[test]
fn it_is_worth_what_it_was_when_the_leader_got_it() {
    let (mut bench, mut leader) = bench();
    bench.wait(ms(4000));
    bench.say(&mut leader, LEADER, &heartbeat(10));
    assert!(bench.pass_on(&mut leader, 5, 10, 3, 1000));
    // Of 3 s, not of 4 s.
    bench.wait(ms(3999));
    assert!(bench.knows(MEMBER));
    bench.wait(ms(1));
    assert!(!bench.knows(MEMBER));
    assert!(bench.knows(LEADER));
}

#[test]
fn one_that_is_too_old_takes_nothing_away() {
    let (mut bench, mut leader) = bench();
    bench.wait(ms(1000));
    assert!(bench.pass_on(&mut leader, 5, 10, 3, 60_000));
    bench.wait(ms(3999));
    assert!(bench.knows(MEMBER));
    bench.wait(ms(1));
    assert!(!bench.knows(MEMBER));
}

#[test]
fn an_earlier_one_confirms_nothing() {
    let (mut bench, mut leader) = bench();
    bench.wait(ms(4000));
    bench.say(&mut leader, LEADER, &heartbeat(10));
    // The number is not larger than that of one before; an earlier life.
    assert!(bench.pass_on(&mut leader, 5, 9, 3, 0));
    assert!(bench.pass_on(&mut leader, 4, 100, 3, 0));
    let counters = bench.lbu.counters();
    assert_eq!(counters.get("heartbeat-late"), 1);
    assert_eq!(counters.get("relayed-epoch"), 1);
    bench.wait(ms(1000));
    assert!(!bench.knows(MEMBER));
}

#[test]
fn a_lost_row_change_is_found() {
    let (mut bench, mut leader) = bench();
    assert!(bench.pass_on(&mut leader, 5, 10, 4, 0));
    let sent = bench.wait(ms(50));
    let (to, message) = &sent[0];
    assert_eq!(*to, address(MEMBER));
    assert!(matches!(message, Message::GetSnapshot(get) if get.host == MEMBER));
    // Nothing confirms the rows that it has.
    bench.wait(ms(4949));
    assert!(bench.knows(MEMBER));
    bench.wait(ms(1));
    assert!(!bench.knows(MEMBER));
}

/// A postulate has overtaken it, which knows of a change that was lost.
#[test]
fn what_is_known_to_be_outdated_is_not_confirmed() {
    let mut bench = Bench::new();
    let mut leader = bench.know(LEADER, 1);
    let mut member = bench.know(MEMBER, 5);
    bench.wait(ms(4000));
    bench.say(&mut leader, LEADER, &heartbeat(10));
    let row = Postulated {
        app: AppId(0),
        target: Directive::Draining,
        generation: 4,
    };
    let postulate = Postulate {
        postulate: 1,
        rows: vec![row],
    };
    bench.say(&mut member, MEMBER, &Message::Postulate(postulate));
    assert!(bench.pass_on(&mut leader, 5, 10, 3, 100));
    // The host's own is worth no more.
    bench.say(&mut member, MEMBER, &heartbeat(11));
    bench.wait(ms(999));
    assert!(bench.knows(MEMBER));
    bench.wait(ms(1));
    assert!(!bench.knows(MEMBER));
}

#[test]
fn who_is_new_is_asked_where_he_is() {
    let mut bench = Bench::new();
    let mut leader = bench.know(LEADER, 1);
    assert!(!bench.pass_on(&mut leader, 5, 10, 3, 100));
    let sent = bench.wait(ms(250));
    assert_eq!(sent[0].0, address(MEMBER));
    let mut member = Sealer::new(MEMBER, 5);
    bench.snapshot(&mut member, MEMBER, request(&sent));
    // A later life of it, too. What there was stays meanwhile.
    assert!(bench.pass_on(&mut leader, 6, 1, 0, 0));
    assert!(bench.knows(MEMBER));
    let sent = bench.wait(ms(250));
    assert_eq!(sent[0].0, address(MEMBER));
    let mut member = Sealer::new(MEMBER, 6);
    bench.snapshot(&mut member, MEMBER, request(&sent));
    assert!(bench.pass_on(&mut leader, 5, 99, 3, 0));
    assert_eq!(bench.lbu.counters().get("relayed-epoch"), 1);
}

/// The leader hears it at an address that the unit may not reach: the one from which it speaks itself is not forgotten.
#[test]
fn it_is_asked_at_both_addresses() {
    let (mut bench, mut leader) = bench();
    bench.seen_at = address(77);
    let mut asked = Vec::new();
    // A request is due 50, then at least 250, 500, 1000 ms after the one before.
    for (beat, wait) in (10..).step_by(2).zip([50, 350, 650, 1300]) {
        assert!(bench.pass_on(&mut leader, 5, beat, 4, 0));
        let sent = bench.wait(ms(wait));
        assert!(bench.pass_on(&mut leader, 5, beat + 1, 4, 0));
        asked.extend(sent.into_iter().map(|(to, _)| to));
    }
    let (own, seen) = (address(MEMBER), address(77));
    assert_eq!(asked, [own, seen, own, seen]);
    assert_eq!(bench.lbu.address(MEMBER), Some(own));
}

/// The unit has begun anew, and does not reach the member where the leader hears it: that it is heard would keep the
/// member from speaking for itself.
#[test]
fn who_is_not_known_is_not_heard() {
    let mut bench = Bench::new();
    bench.seen_at = address(77);
    let mut leader = bench.know(LEADER, 1);
    assert!(!bench.pass_on(&mut leader, 5, 10, 3, 0));
    for (beat, wait) in (11..).zip([250, 350, 650]) {
        let sent = bench.wait(ms(wait));
        assert!(sent.iter().all(|(to, _)| *to == address(77)));
        assert!(!bench.pass_on(&mut leader, 5, beat, 3, 0));
    }
    assert_eq!(bench.lbu.counters().get("relayed-unknown"), 4);
    // It does, and is asked there at once; once.
    let mut member = Sealer::new(MEMBER, 5);
    let sent = bench.say(&mut member, MEMBER, &heartbeat(14));
    let asked: Vec<_> = sent.iter().map(|(to, _)| *to).collect();
    assert_eq!(asked, [address(MEMBER)]);
    assert!(bench.say(&mut member, MEMBER, &heartbeat(15)).is_empty());
    bench.snapshot(&mut member, MEMBER, request(&sent));
    assert!(bench.pass_on(&mut leader, 5, 16, 3, 0));
    // What there is stays heard while a later life of it is not known.
    assert!(bench.pass_on(&mut leader, 6, 1, 0, 0));
}

/// One whom the unit does not reach at all does not keep the others from being heard for ever.
#[test]
fn who_stays_unknown_is_heard() {
    let mut bench = Bench::new();
    let mut leader = bench.know(LEADER, 1);
    for beat in 1..=5 {
        assert!(!bench.pass_on(&mut leader, 5, beat, 3, 0));
        bench.wait(ms(1000));
        bench.say(&mut leader, LEADER, &heartbeat(9 + beat));
    }
    assert!(bench.pass_on(&mut leader, 5, 6, 3, 0));
    assert!(!bench.knows(MEMBER));
}

#[test]
fn a_leader_that_may_be_an_old_one_is_not_believed() {
    let mut bench = Bench::new();
    bench.know(MEMBER, 5);
    bench.wait(ms(4000));
    let mut leader = Sealer::new(LEADER, 1);
    assert!(!bench.pass_on(&mut leader, 5, 10, 3, 0));
    assert_eq!(bench.lbu.counters().get("consolidated-unproven"), 1);
    bench.wait(ms(1000));
    assert!(!bench.knows(MEMBER));
}

#[test]
fn who_has_said_goodbye_is_gone() {
    let mut bench = Bench::new();
    let mut leader = bench.know(LEADER, 1);
    let mut member = bench.know(MEMBER, 5);
    bench.say(&mut member, MEMBER, &Message::Goodbye);
    assert!(!bench.knows(MEMBER));
    // The leader has not heard of it.
    assert!(bench.pass_on(&mut leader, 5, 10, 3, 0));
    assert_eq!(bench.lbu.counters().get("message-of-the-gone"), 1);
    assert!(bench.wait(ms(1000)).is_empty());
}

#[test]
fn two_leaders_say_the_same() {
    let (mut bench, mut leader) = bench();
    let mut other = bench.know(3, 7);
    for beat in 10..20 {
        bench.wait(ms(1000));
        bench.say(&mut leader, LEADER, &heartbeat(beat));
        bench.say(&mut other, 3, &heartbeat(beat));
        assert!(bench.pass_on(&mut leader, 5, beat, 3, 0));
        let record = Relayed {
            host: MEMBER,
            epoch: 5,
            beat: beat - 1,
            age: 900,
            age_limit: LIMIT,
            generations: vec![2],
            address: address(MEMBER),
        };
        let message = Message::Consolidated(Consolidated {
            number: beat,
            records: vec![record],
        });
        bench.say(&mut other, 3, &message);
        assert!(bench.knows(MEMBER));
    }
    assert_eq!(bench.lbu.counters().get("heartbeat-late"), 10);
    assert_eq!(bench.lbu.counters().get("get-snapshot"), 3);
}

#[test]
fn no_more_hosts_than_there_is_room_for() {
    let keys = Keys::new(1, b"0123456789abcdef").unwrap();
    let mut config = LbuConfig::new(9, 1);
    config.limits.hosts = 1;
    let mut bench = Bench::new();
    bench.lbu = Lbu::new(config, keys, [1; 32]);
    let mut leader = bench.know(LEADER, 1);
    bench.pass_on(&mut leader, 5, 1, 0, 0);
    assert_eq!(bench.lbu.counters().get("relayed-senders"), 1);
    assert!(bench.wait(ms(1000)).is_empty());
}
