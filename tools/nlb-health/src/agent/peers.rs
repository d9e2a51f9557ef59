// SPDX-License-Identifier: MIT OR Apache-2.0

//! The load balancing units that a host knows: those that have asked for its table. Nobody else has any of it in
//! this life.

use super::AgentConfig;
use crate::{
    row::{AppId, Row},
    table::Table,
    wire::{self, GetSnapshot, Snapshot},
};
use std::{collections::BTreeMap, net::SocketAddr, time::Instant};

#[derive(Debug)]
struct Peer {
    from: SocketAddr,
    heard: Instant,
    /// A request, and since when it has not been answered.
    asked: Option<(Instant, GetSnapshot)>,
    answered: Option<Instant>,
    /// Until then it needs no heartbeat but those that a leader passes on.
    covered: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Peers {
    peers: BTreeMap<u32, Peer>,
    /// When to ask who is there.
    presence: Instant,
}

impl Peers {
    pub(super) fn new(now: Instant, config: &AgentConfig) -> Self {
        Self {
            peers: BTreeMap::new(),
            presence: now + config.presence_interval,
        }
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = u32> + '_ {
        self.peers.keys().copied()
    }

    /// Where each was heard from last.
    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.peers.values().map(|peer| peer.from)
    }

    pub(super) fn is_known(&self, lbu: u32) -> bool {
        self.peers.contains_key(&lbu)
    }

    /// Whether it is new. Their number is bounded by that of the senders whose datagrams are opened.
    pub(super) fn heard(&mut self, now: Instant, lbu: u32, from: SocketAddr) -> bool {
        let is_new = !self.peers.contains_key(&lbu);
        let peer = self.peers.entry(lbu).or_insert(Peer {
            from,
            heard: now,
            asked: None,
            answered: None,
            covered: None,
        });
        peer.from = from;
        peer.heard = now;
        is_new
    }

    /// It has got a heartbeat by a leader.
    pub(super) fn cover(&mut self, lbu: u32, until: Instant) {
        if let Some(peer) = self.peers.get_mut(&lbu) {
            peer.covered = peer.covered.max(Some(until));
        }
    }

    /// Whether there is one of which it is not known any more that a leader reaches it.
    pub(super) fn is_exposed(&mut self, now: Instant) -> bool {
        let covers = self.peers.values_mut().map(|peer| &mut peer.covered);
        let ended = covers.filter_map(|covered| covered.take_if(|until| *until <= now));
        ended.count() > 0
    }

    /// Those of `lbus` that no leader reaches; `None` if that is not known, and it may be any of them.
    pub(super) fn uncovered(&self, lbus: &[SocketAddr]) -> Option<Vec<SocketAddr>> {
        let uncovered = self.peers.values().filter(|peer| peer.covered.is_none());
        let uncovered: Vec<_> = uncovered.map(|peer| peer.from).collect();
        // Who has not answered from where it is sent to may be anywhere; somebody may play its datagrams again.
        let is_known = !self.peers.is_empty() && uncovered.iter().all(|to| lbus.contains(to));
        is_known.then_some(uncovered)
    }

    /// It wants a snapshot, and what it wanted before, too.
    pub(super) fn asked(&mut self, now: Instant, lbu: u32, get: &GetSnapshot) {
        if let Some(peer) = self.peers.get_mut(&lbu) {
            let (since, chunks) = match &peer.asked {
                Some((since, before)) => (*since, before.chunks | get.chunks),
                None => (now, get.chunks),
            };
            peer.asked = Some((since, GetSnapshot { chunks, ..*get }));
        }
    }

    /// Somebody who is to be answered now.
    pub(super) fn due(
        &mut self,
        now: Instant,
        config: &AgentConfig,
    ) -> Option<(SocketAddr, u32, GetSnapshot)> {
        let (lbu, peer) = self
            .peers
            .iter_mut()
            .find(|(_, peer)| peer.answer_at(config).is_some_and(|at| at <= now))?;
        let (_, get) = peer.asked.take()?;
        peer.answered = Some(now);
        Some((peer.from, *lbu, get))
    }

    /// Those that have not been heard for too long; they are forgotten.
    pub(super) fn lost(&mut self, now: Instant, config: &AgentConfig) -> Vec<u32> {
        let is_lost = |peer: &Peer| now >= peer.heard + config.forget_after;
        let lost = self.peers.iter().filter(|(_, peer)| is_lost(peer));
        let lost: Vec<_> = lost.map(|(lbu, _)| *lbu).collect();
        for lbu in &lost {
            self.peers.remove(lbu);
        }
        lost
    }

    /// It is time to ask, for somebody was not heard of.
    pub(super) fn is_anybody_there(&mut self, now: Instant, config: &AgentConfig) -> bool {
        if now < self.presence {
            return false;
        }
        self.presence = now + config.presence_interval;
        self.peers
            .values()
            .any(|peer| now >= peer.heard + config.presence_interval)
    }

    pub(super) fn timeout(&self, config: &AgentConfig) -> Option<Instant> {
        self.peers
            .values()
            .flat_map(|peer| {
                [
                    peer.answer_at(config),
                    Some(peer.heard + config.forget_after),
                    peer.covered,
                ]
            })
            .flatten()
            .chain([self.presence])
            .min()
    }
}

impl Peer {
    fn answer_at(&self, config: &AgentConfig) -> Option<Instant> {
        let (since, _) = self.asked?;
        let next = self.answered.map(|at| at + config.snapshot_interval);
        Some(next.map_or(since, |next| next.max(since)))
    }
}

/// The parts of the chunks that `lbu` wants.
pub(super) fn snapshots(
    table: &Table,
    lbu: u32,
    get: &GetSnapshot,
    age_limit: u32,
) -> Vec<Snapshot> {
    let chunks = table.chunks();
    let mut snapshots = Vec::new();
    for (number, chunk) in chunks.iter().enumerate() {
        if get.chunks >> number & 1 == 0 {
            continue;
        }
        let mut parts: Vec<Vec<(AppId, Row)>> = vec![Vec::new()];
        let mut len = wire::SNAPSHOT_HEAD;
        for (app, row) in &chunk.rows {
            let more = wire::row_len(row);
            if len + more > wire::BODY_MAX {
                parts.push(Vec::new());
                len = wire::SNAPSHOT_HEAD;
            }
            len += more;
            if let Some(part) = parts.last_mut() {
                part.push((*app, row.clone()));
            }
        }
        let count = parts.len() as u16;
        snapshots.extend((0..).zip(parts).map(|(part, rows)| Snapshot {
            lbu,
            request: get.request,
            age_limit,
            chunks: chunks.len() as u8,
            chunk: number as u8,
            generation: chunk.generation,
            parts: count,
            part,
            rows,
        }));
    }
    snapshots
}
