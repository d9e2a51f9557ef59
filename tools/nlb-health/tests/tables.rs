// SPDX-License-Identifier: MIT OR Apache-2.0

//! Whatever is done to a table: a cache that gets the operations, or a snapshot of it in whichever order its parts come,
//! has the same rows at the same generations, and one that has missed some notices which chunks they were in.

mod rows;

use nlb_health::{
    agent::{Agent, AgentConfig},
    lbu::{Lbu, LbuConfig},
    row::{AppId, Directive, Health, Row},
    seal::{Keys, Opener},
    wire::{Message, Route, Snapshot},
    Transmit,
};
use proptest::{collection::vec, prelude::*, sample::select, sample::Index};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

const HOST: u32 = 1;

fn host() -> SocketAddr {
    "10.0.0.100:4772".parse().unwrap()
}

fn unit() -> SocketAddr {
    "10.0.0.1:4771".parse().unwrap()
}

fn keys() -> Keys {
    Keys::new(1, b"0123456789abcdef").unwrap()
}

/// What is done to a table; which row it is done to is chosen among those that are there.
#[derive(Clone, Debug)]
enum Act {
    Add(Row),
    Health(Index, Health),
    Capacity(Index, u8),
    Target(Index, Directive),
    Remove(Index),
}

/// Of few identities, so that some are there already.
fn row() -> impl Strategy<Value = Row> {
    let texts = ("[a-z0-9.+-]{0,31}", "[ -~é]{0,126}");
    (any::<bool>(), 1..40u16, 0..=99u8, texts).prop_map(|(is_v6, port, capacity, texts)| {
        let ip = if is_v6 { "2001:db8::2" } else { "10.0.2.2" };
        let mut row = rows::healthy(SocketAddr::new(ip.parse().unwrap(), port));
        (row.identity.app_type.protocol, row.identity.app_type.detail) = texts;
        row.status.capacity = capacity;
        row
    })
}

fn acts(most: usize) -> impl Strategy<Value = Vec<Act>> {
    let health = select(&Health::ALL[..]);
    let target = select(&Directive::ALL[..]);
    let act = prop_oneof![
        3 => row().prop_map(Act::Add),
        2 => (any::<Index>(), health).prop_map(|(of, health)| Act::Health(of, health)),
        1 => (any::<Index>(), 0..=99u8).prop_map(|(of, capacity)| Act::Capacity(of, capacity)),
        1 => (any::<Index>(), target).prop_map(|(of, target)| Act::Target(of, target)),
        1 => any::<Index>().prop_map(Act::Remove),
    ];
    vec(act, 1..most)
}

/// What is in a datagram.
fn message(transmit: &Transmit) -> Message {
    let openers = [Route::ToLbus, Route::ToHosts].map(|route| Opener::new(route, 1));
    let keys = keys();
    let read = |mut opener: Opener| {
        let opened = opener.open(&keys, &transmit.datagram).ok()?;
        Some(Message::decode(opened.number, opened.body).unwrap())
    };
    openers.into_iter().find_map(read).unwrap()
}

fn snapshot(transmit: &Transmit) -> Snapshot {
    match message(transmit) {
        Message::Snapshot(snapshot) => snapshot,
        _ => panic!("not a snapshot"),
    }
}

/// Rows by id.
type Rows = BTreeMap<AppId, Row>;

/// A host and a load balancing unit.
struct Pair {
    now: Instant,
    agent: Agent,
    lbu: Lbu,
    /// The generation of each chunk that the unit has been told of without a gap.
    have: Vec<u64>,
    /// What each chunk was at each of its generations.
    history: BTreeMap<(usize, u64), Rows>,
}

impl Pair {
    /// That do not know of each other yet.
    fn new(chunks: u8) -> Self {
        let now = Instant::now();
        let config = AgentConfig {
            chunks,
            ..AgentConfig::new(HOST, 1, vec![unit()])
        };
        let before_all = (0..usize::from(chunks)).map(|chunk| ((chunk, 0), Rows::new()));
        Self {
            now,
            agent: Agent::new(now, config, keys(), [1; 32]),
            lbu: Lbu::new(LbuConfig::new(1, 1), keys(), [2; 32]),
            have: vec![0; usize::from(chunks)],
            history: before_all.collect(),
        }
    }

    fn act(&mut self, act: Act) {
        let ids: Vec<_> = self.agent.table().rows().map(|(app, _)| app).collect();
        let now = self.now;
        let agent = &mut self.agent;
        // What is there already is refused, and changes nothing.
        let _ = match act {
            Act::Add(row) => agent.add(now, row).map(|_| ()),
            _ if ids.is_empty() => Ok(()),
            Act::Health(of, health) => agent.set_health(now, *of.get(&ids), health),
            Act::Capacity(of, capacity) => agent.set_capacity(now, *of.get(&ids), capacity),
            Act::Target(of, target) => agent.set_target(now, *of.get(&ids), target),
            Act::Remove(of) => agent.remove(now, *of.get(&ids)),
        };
        for (number, chunk) in self.agent.table().chunks().iter().enumerate() {
            let of_then = (number, chunk.generation);
            self.history.insert(of_then, chunk.rows.clone());
        }
    }

    fn sent(&mut self) -> Vec<Transmit> {
        std::iter::from_fn(|| self.agent.poll_transmit()).collect()
    }

    fn deliver(&mut self, transmit: &Transmit) {
        let (now, from) = (self.now, host());
        self.lbu.handle_datagram(now, from, &transmit.datagram);
    }

    /// What has been done is told, or lost on its way.
    fn tell(&mut self, is_lost: bool) {
        for transmit in self.sent() {
            let Message::RowChange(operations) = message(&transmit) else {
                panic!("not a row change");
            };
            if is_lost {
                continue;
            }
            self.deliver(&transmit);
            for operation in operations {
                let chunk = operation.app.0 as usize % self.have.len();
                let have = &mut self.have[chunk];
                if operation.generation == *have + 1 {
                    *have += 1;
                }
            }
        }
    }

    /// What of the cache is of a chunk.
    fn cached(&self, chunk: usize) -> Rows {
        let is_of = |app: &AppId| app.0 as usize % self.have.len() == chunk;
        let rows = self.lbu.cache().host(HOST);
        let rows = rows.map(|(app, cached)| (app, cached.row.clone()));
        rows.filter(|(app, _)| is_of(app)).collect()
    }

    /// The cache is the table.
    fn is_equal(&self) -> bool {
        let chunks = self.agent.table().chunks().iter().enumerate();
        let mut all = chunks.map(|(number, chunk)| self.cached(number) == chunk.rows);
        all.all(|is_equal| is_equal)
    }

    /// The chunks of which the unit has not been told all.
    fn behind(&self) -> u16 {
        let chunks = self.agent.table().chunks().iter().zip(&self.have);
        let chunks = chunks.enumerate();
        let behind = chunks.filter(|(_, (chunk, have))| chunk.generation != **have);
        behind.fold(0, |all, (number, _)| all | 1 << number)
    }

    /// The host's next heartbeat comes.
    fn heartbeat(&mut self) {
        self.now += Duration::from_secs(1);
        self.agent.handle_timeout(self.now);
        for transmit in self.sent() {
            self.deliver(&transmit);
        }
    }

    /// What the unit asks for, and the parts of the answer.
    fn repair(&mut self) -> (Vec<u16>, Vec<Transmit>) {
        self.now += Duration::from_millis(100);
        self.lbu.handle_timeout(self.now);
        let mut asked = Vec::new();
        while let Some(transmit) = self.lbu.poll_transmit() {
            if let Message::GetSnapshot(get) = message(&transmit) {
                asked.push(get.chunks);
                self.agent
                    .handle_datagram(self.now, unit(), &transmit.datagram);
            }
        }
        let mut parts = self.sent();
        parts.retain(|transmit| matches!(message(transmit), Message::Snapshot(_)));
        (asked, parts)
    }

    /// The unit has all of the table.
    fn settle(&mut self) {
        self.heartbeat();
        let (_, parts) = self.repair();
        parts.iter().for_each(|part| self.deliver(part));
        let chunks = self.agent.table().chunks();
        self.have = chunks.iter().map(|chunk| chunk.generation).collect();
    }
}

proptest! {
    /// All operations arrive: nothing else is needed.
    #[test]
    fn operations_make_the_same_table(
        chunks in 1..=16u8,
        before in acts(20),
        after in vec(acts(8), 1..10),
    ) {
        let mut pair = Pair::new(chunks);
        before.into_iter().for_each(|act| pair.act(act));
        pair.settle();
        prop_assert!(pair.is_equal());
        for acts in after {
            acts.into_iter().for_each(|act| pair.act(act));
            pair.tell(false);
            prop_assert!(pair.is_equal());
            prop_assert_eq!(pair.behind(), 0);
        }
        pair.heartbeat();
        prop_assert!(pair.lbu.is_whole(HOST));
        prop_assert_eq!(pair.repair().0, []);
    }

    /// The parts of a snapshot come in any order, some more than once; before the last one nothing is believed.
    #[test]
    fn parts_of_a_snapshot_make_the_same_table(
        chunks in 1..=16u8,
        acts in acts(120),
        order in vec(any::<Index>(), 0..40),
    ) {
        let mut pair = Pair::new(chunks);
        acts.into_iter().for_each(|act| pair.act(act));
        pair.heartbeat();
        let (asked, mut parts) = pair.repair();
        prop_assert_eq!(asked.len(), 1);
        for (at, other) in order.iter().enumerate().take(parts.len()) {
            let other = other.index(parts.len());
            parts.swap(at, other);
        }
        let messages: Vec<_> = parts.iter().map(snapshot).collect();
        // Whatever the order: as many parts as each chunk says, with all of its rows.
        for (number, chunk) in pair.agent.table().chunks().iter().enumerate() {
            let of_chunk = messages.iter().filter(|part| usize::from(part.chunk) == number);
            let of_chunk: Vec<_> = of_chunk.collect();
            prop_assert!(of_chunk.iter().all(|part| usize::from(part.parts) == of_chunk.len()));
            prop_assert!(of_chunk.iter().all(|part| part.generation == chunk.generation));
        }
        let last = parts.pop().unwrap();
        for part in &parts {
            pair.deliver(part);
            pair.deliver(part);
            prop_assert!(!pair.lbu.is_whole(HOST));
            prop_assert!(pair.lbu.cache().is_empty());
        }
        pair.deliver(&last);
        prop_assert!(pair.lbu.is_whole(HOST));
        prop_assert!(pair.is_equal());
    }

    /// Nothing is made of an operation whose predecessor was lost; the next heartbeat tells which chunks it concerns, and
    /// these alone are asked for.
    #[test]
    fn what_is_lost_is_noticed(
        chunks in 1..=16u8,
        before in acts(20),
        after in vec((acts(6), any::<bool>()), 1..10),
    ) {
        let mut pair = Pair::new(chunks);
        before.into_iter().for_each(|act| pair.act(act));
        pair.settle();
        for (acts, is_lost) in after {
            acts.into_iter().for_each(|act| pair.act(act));
            pair.tell(is_lost);
            for chunk in 0..usize::from(chunks) {
                let then = &pair.history[&(chunk, pair.have[chunk])];
                prop_assert_eq!(&pair.cached(chunk), then);
            }
        }
        let behind = pair.behind();
        pair.heartbeat();
        prop_assert_eq!(pair.lbu.is_whole(HOST), behind == 0);
        let (asked, parts) = pair.repair();
        prop_assert_eq!(asked, Vec::from_iter((behind != 0).then_some(behind)));
        parts.iter().for_each(|part| pair.deliver(part));
        prop_assert!(pair.lbu.is_whole(HOST));
        prop_assert!(pair.is_equal());
    }
}
