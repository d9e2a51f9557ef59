// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a load balancing unit knows of one life of a host: which generation it has of each chunk, which it has
//! heard of, and what it has asked for.

use super::{changes::Told, LbuConfig};
use crate::{
    random::Random,
    row::{AppId, Row},
    wire::Snapshot,
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// A chunk as it is known here.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    /// The generation that is here; the rows are in the cache, or in `staged`.
    pub(super) have: Option<u64>,
    /// The largest generation that was heard of. Nothing older is taken.
    pub(super) heard_of: u64,
    /// When it was last certain that this is what the host has.
    pub(super) confirmed: Option<Instant>,
    /// Rows that are not in the cache, for others of the life are not here yet.
    pub(super) staged: Option<BTreeMap<AppId, Row>>,
    parts: Option<Parts>,
}

impl Chunk {
    pub(super) fn is_behind(&self) -> bool {
        self.have.is_none_or(|have| have < self.heard_of)
    }
}

/// A snapshot of which not all parts are here.
#[derive(Debug)]
struct Parts {
    request: u64,
    generation: u64,
    count: u16,
    parts: BTreeMap<u16, Vec<(AppId, Row)>>,
}

/// A life.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) epoch: u64,
    /// When it was heard of first.
    pub(super) since: Instant,
    /// Where it speaks from; as a leader says, if it has not spoken itself.
    pub(super) from: SocketAddr,
    /// Another address, from which a leader has heard of it; requests go to both in turn.
    pub(super) other: Option<SocketAddr>,
    /// What a leader has said of it last in full.
    pub(super) told: Option<Told>,
    /// It is the other one's turn.
    is_others_turn: bool,
    pub(super) name: Option<String>,
    /// When anything came of it.
    pub(super) heard: Instant,
    pub(super) age_limit: Duration,
    /// The newest heartbeat.
    pub(super) beat: u64,
    /// As many as the host has; none before that is known.
    pub(super) chunks: Vec<Chunk>,
    /// The last requests: their answers are no old ones.
    requests: [u64; 2],
    /// When to ask for what is missing.
    pub(super) get_at: Option<Instant>,
    wait: Duration,
}

impl Life {
    pub(super) fn new(now: Instant, epoch: u64, from: SocketAddr, config: &LbuConfig) -> Self {
        Self {
            epoch,
            since: now,
            from,
            other: None,
            told: None,
            is_others_turn: false,
            name: None,
            heard: now,
            age_limit: config.age_limit,
            beat: 0,
            chunks: Vec::new(),
            requests: [0; 2],
            get_at: Some(now),
            wait: config.retry,
        }
    }

    /// The host says how long its table may be used, and of how many chunks it is. `false` if that contradicts what
    /// it has said before in this life.
    pub(super) fn describe(&mut self, age_limit: u32, chunks: usize, config: &LbuConfig) -> bool {
        if self.chunks.is_empty() {
            self.chunks.resize_with(chunks, Chunk::default);
        }
        self.age_limit = Duration::from_millis(u64::from(age_limit)).min(config.age_limit);
        self.chunks.len() == chunks
    }

    pub(super) fn chunk_of(&mut self, app: AppId) -> Option<&mut Chunk> {
        let index = (app.0 as usize).checked_rem(self.chunks.len())?;
        self.chunks.get_mut(index)
    }

    pub(super) fn is_behind(&self) -> bool {
        self.chunks.is_empty() || self.chunks.iter().any(Chunk::is_behind)
    }

    /// It speaks from there. If something is missing, it was asked for elsewhere, perhaps where nobody is.
    pub(super) fn speaks_from(&mut self, now: Instant, from: SocketAddr, retry: Duration) {
        if self.from == from {
            return;
        }
        self.from = from;
        self.is_others_turn = false;
        if self.get_at.is_some() {
            self.get_at = Some(now);
            self.wait = retry;
        }
    }

    /// Something is missing, or nothing any more.
    pub(super) fn schedule(&mut self, now: Instant, config: &LbuConfig) {
        if !self.is_behind() {
            self.get_at = None;
            self.wait = config.retry;
            self.is_others_turn = false;
        } else if self.get_at.is_none() {
            self.get_at = Some(now + config.patience);
        }
    }

    /// A request is sent now: where, its number and the chunks. The next one goes to another address, if there is one.
    pub(super) fn request(
        &mut self,
        now: Instant,
        random: &mut Random,
        config: &LbuConfig,
    ) -> (SocketAddr, u64, u16) {
        let behind = self.chunks.iter().enumerate();
        let behind = behind.filter(|(_, chunk)| chunk.is_behind());
        let mut chunks = behind.fold(0, |chunks, (index, _)| chunks | 1 << index);
        if chunks == 0 {
            chunks = u16::MAX;
        }
        let id = random.id();
        self.requests = [id, self.requests[0]];
        let other = self.other.filter(|_| self.is_others_turn);
        self.is_others_turn = !self.is_others_turn;
        self.get_at = Some(now + self.wait + random.up_to(self.wait / 4));
        self.wait = (self.wait * 2).min(config.retry_max);
        (other.unwrap_or(self.from), id, chunks)
    }

    pub(super) fn has_asked(&self, request: u64) -> bool {
        self.requests.contains(&request)
    }

    /// A part of a snapshot: all rows of the chunk, if it was the last one that was missing.
    pub(super) fn part(
        &mut self,
        snapshot: Snapshot,
        rows_max: usize,
    ) -> Option<BTreeMap<AppId, Row>> {
        let chunk = self.chunks.get_mut(usize::from(snapshot.chunk))?;
        let is_newer = chunk.have.is_none_or(|have| have < snapshot.generation);
        if snapshot.generation < chunk.heard_of || !is_newer {
            return None;
        }
        let same = |parts: &Parts| {
            (parts.request, parts.generation, parts.count)
                == (snapshot.request, snapshot.generation, snapshot.parts)
        };
        if !chunk.parts.as_ref().is_some_and(same) {
            chunk.parts = Some(Parts {
                request: snapshot.request,
                generation: snapshot.generation,
                count: snapshot.parts,
                parts: BTreeMap::new(),
            });
        }
        let parts = chunk.parts.as_mut()?;
        parts.parts.insert(snapshot.part, snapshot.rows);
        if parts.parts.values().map(Vec::len).sum::<usize>() > rows_max {
            // Nobody would take it.
            parts.parts.clear();
            return None;
        }
        if parts.parts.len() < usize::from(parts.count) {
            return None;
        }
        let parts = chunk.parts.take()?;
        chunk.have = Some(parts.generation);
        chunk.heard_of = chunk.heard_of.max(parts.generation);
        Some(parts.parts.into_values().flatten().collect())
    }

    /// When something of it is too old: the first chunk, or all.
    pub(super) fn expiry(&self) -> Instant {
        let confirmed = self.chunks.iter().filter_map(|chunk| chunk.confirmed);
        confirmed.chain([self.heard]).min().unwrap_or(self.heard) + self.age_limit
    }
}

impl super::Lbu {
    /// The hosts whose tables are here, and when they were last heard of.
    pub fn heard(&self) -> impl Iterator<Item = (u32, Instant)> + '_ {
        let hosts = self.hosts.iter();
        hosts.filter_map(|(id, host)| Some((*id, host.current.as_ref()?.heard)))
    }

    /// How long what a host says may be used, if its table is here.
    pub fn age_limit(&self, host: u32) -> Option<Duration> {
        Some(self.hosts.get(&host)?.current.as_ref()?.age_limit)
    }
}
