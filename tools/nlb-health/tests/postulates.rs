// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a load balancing unit says of postulates, and how it calls it when rows go.

use nlb_health::{
    cache::RowChange,
    lbu::{Event, InForce, Lbu, LbuConfig},
    row::{AppId, AppType, Directive, Health, Identity, Row, Status},
    seal::{Keys, Opener, Sealer},
    wire::*,
};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

const HOST: u32 = 1;
const CHUNKS: u8 = 2;

/// A unit, and a host of which each message is written here. It has a row in each of its chunks: those of applications
/// 0 and 1, which shall be draining since generation 3.
struct Bench {
    now: Instant,
    lbu: Lbu,
    keys: Keys,
    sealer: Sealer,
    opener: Opener,
    beat: u64,
    request: u64,
}

impl Bench {
    fn new() -> Self {
        let keys = Keys::new(1, b"0123456789abcdef").unwrap();
        Self {
            now: Instant::now(),
            lbu: Lbu::new(LbuConfig::new(9, 1), keys.clone(), [1; 32]),
            keys,
            sealer: Sealer::new(HOST, 1),
            opener: Opener::new(Route::ToHosts, 1),
            beat: 0,
            request: 0,
        }
    }

    /// The host says something: what the unit answers. Its requests are noted.
    fn say(&mut self, message: &Message) -> Vec<Message> {
        let from = SocketAddr::from(([10, 0, 0, 1], 4771));
        let datagram = self.sealer.seal(&self.keys, message);
        self.lbu.handle_datagram(self.now, from, &datagram);
        let mut answers = Vec::new();
        while let Some(transmit) = self.lbu.poll_transmit() {
            let opened = self.opener.open(&self.keys, &transmit.datagram).unwrap();
            let message = Message::decode(opened.number, opened.body).unwrap();
            if let Message::GetSnapshot(get) = &message {
                self.request = get.request;
            }
            answers.push(message);
        }
        answers
    }

    fn heartbeat(&mut self, generations: [u64; 2]) {
        self.beat += 1;
        self.say(&Message::Heartbeat(Heartbeat {
            beat: self.beat,
            age_limit: 5000,
            forward: false,
            generations: generations.to_vec(),
            name: None,
        }));
    }

    fn snapshots(&mut self) {
        for chunk in 0..CHUNKS {
            let snapshot = Snapshot {
                lbu: 9,
                request: self.request,
                age_limit: 5000,
                chunks: CHUNKS,
                chunk,
                generation: 3,
                parts: 1,
                part: 0,
                rows: vec![(AppId(chunk.into()), row(chunk))],
            };
            self.say(&Message::Snapshot(snapshot));
        }
    }

    /// Which of the applications is not draining for certain.
    fn wrong(&mut self) -> Vec<u32> {
        let postulated = |app| Postulated {
            app: AppId(app),
            target: Directive::Draining,
            generation: 3,
        };
        self.beat += 1;
        let answers = self.say(&Message::Postulate(Postulate {
            postulate: self.beat,
            rows: vec![postulated(0), postulated(1)],
        }));
        let wrong = answers.iter().find_map(|answer| match answer {
            Message::PostulateWrong(wrong) => Some(wrong),
            _ => None,
        });
        wrong.unwrap().rows.iter().map(|(app, _)| app.0).collect()
    }

    fn apply(&mut self) {
        let version = self.lbu.cache().version();
        self.lbu.in_force(vec![InForce::all(version)]);
    }

    fn changes(&mut self) -> Vec<(u32, RowChange)> {
        let events = std::iter::from_fn(|| self.lbu.poll_event());
        events
            .filter_map(|event| match event {
                Event::Row { app, change, .. } => Some((app.0, change)),
                _ => None,
            })
            .collect()
    }
}

fn row(last: u8) -> Row {
    Row {
        identity: Identity {
            app_type: AppType {
                vip: SocketAddr::from(([192, 0, 2, 10], 80)),
                transport: 6,
                protocol: String::new(),
                detail: String::new(),
            },
            physical: SocketAddr::from(([10, 0, 0, last + 1], 80)),
        },
        status: Status {
            health: Health::Healthy,
            load: 0,
            capacity: 50,
            target: Directive::Draining,
            current: Directive::Active,
        },
    }
}

/// What the life before this one has done is still done by the forwarder.
#[test]
fn who_has_just_begun_confirms_nothing() {
    let mut bench = Bench::new();
    assert_eq!(bench.wrong(), [0, 1]);
    bench.heartbeat([3, 3]);
    bench.apply();
    assert_eq!(bench.wrong(), [0, 1]);
    bench.snapshots();
    assert_eq!(bench.wrong(), [0, 1]);
    bench.apply();
    assert_eq!(bench.wrong(), []);
}

/// Panic may have the forwarder send to those that are silent.
#[test]
fn who_knows_nothing_any_more_confirms_nothing() {
    let mut bench = Bench::new();
    bench.heartbeat([3, 3]);
    bench.snapshots();
    bench.apply();
    assert_eq!(bench.wrong(), []);
    bench.changes();
    bench.now += Duration::from_secs(6);
    bench.lbu.handle_timeout(bench.now);
    assert_eq!(
        bench.changes(),
        [(0, RowChange::Lost), (1, RowChange::Lost)]
    );
    bench.apply();
    assert_eq!(bench.wrong(), [0, 1]);
    bench.heartbeat([3, 3]);
    bench.apply();
    assert_eq!(bench.wrong(), [0, 1]);
}

#[test]
fn one_chunk_that_is_too_old_confirms_nothing() {
    let mut bench = Bench::new();
    bench.heartbeat([3, 3]);
    bench.snapshots();
    bench.apply();
    assert_eq!(bench.wrong(), []);
    bench.changes();
    // Of the other one something is missing, and never comes.
    for _ in 0..6 {
        bench.now += Duration::from_secs(1);
        bench.heartbeat([3, 4]);
        bench.lbu.handle_timeout(bench.now);
    }
    assert_eq!(bench.changes(), [(1, RowChange::Lost)]);
    bench.apply();
    assert_eq!(bench.wrong(), [1]);
    // What its host has taken out is another thing; when the forwarder has it, nobody sends anything there.
    let operation = Operation {
        app: AppId(0),
        generation: 4,
        change: Change::Delete,
    };
    bench.say(&Message::RowChange(vec![operation]));
    let removals = bench.lbu.cache().version() - 1;
    assert_eq!(bench.changes(), [(0, RowChange::Removed)]);
    assert_eq!(bench.wrong(), [0, 1]);
    let late = InForce {
        removals,
        ..InForce::all(removals + 1)
    };
    bench.lbu.in_force(vec![InForce::all(removals + 1), late]);
    assert_eq!(bench.wrong(), [0, 1]);
    bench.apply();
    assert_eq!(bench.wrong(), [1]);
}

/// One may take the place of another, and has been told nothing.
#[test]
fn all_have_to_do_it_whom_it_concerns() {
    let mut bench = Bench::new();
    bench.heartbeat([3, 3]);
    bench.snapshots();
    bench.apply();
    assert_eq!(bench.wrong(), []);
    let all = InForce::all(bench.lbu.cache().version());
    let of = |port, transport| InForce {
        service: Some((([192, 0, 2, 10], port).into(), transport)),
        ..InForce::all(0)
    };
    for (others, wrong) in [
        (vec![], vec![]),
        (vec![InForce::all(0)], vec![0, 1]),
        (vec![of(80, 6)], vec![0, 1]),
        (vec![of(81, 6), of(80, 17)], vec![]),
    ] {
        let mut following = vec![all];
        following.extend(others);
        bench.lbu.in_force(following);
        assert_eq!(bench.wrong(), wrong);
    }
}

/// The unit did not run for a while, and what has come meanwhile is read first.
#[test]
fn to_stand_still_is_no_silence() {
    let mut bench = Bench::new();
    bench.heartbeat([3, 3]);
    bench.snapshots();
    bench.changes();
    bench.now += Duration::from_secs(60);
    // It may be something else that comes first.
    bench.wrong();
    bench.heartbeat([3, 3]);
    bench.lbu.handle_timeout(bench.now);
    assert_eq!(bench.changes(), []);
    // What nobody confirms is too old.
    bench.now += Duration::from_secs(60);
    bench.heartbeat([3, 4]);
    bench.lbu.handle_timeout(bench.now);
    assert_eq!(bench.changes(), [(1, RowChange::Lost)]);
}
