// SPDX-License-Identifier: MIT OR Apache-2.0

//! Who is there: the crate `foca`, its clock, and the bytes that it writes.

use super::GroupConfig;
use crate::{
    random::Random,
    wire::{
        group::{decode_header, decode_member, encode_header, encode_member, GROUP_LEN},
        Error, MemberId, Membership, Reader, BODY_MAX,
    },
    Counters,
};
use bytes::{Buf, BufMut};
use foca::{Foca, Header, Member, NoCustomBroadcast, Notification, PeriodicParams, Runtime, Timer};
use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    num::{NonZeroU8, NonZeroUsize},
    time::{Duration, Instant},
};

/// Who is down is remembered so long: what others still tell of him shall not make him alive.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// Writes and reads for `foca`.
#[derive(Debug)]
struct Codec;

impl Codec {
    fn put(bytes: &[u8], mut to: impl BufMut) -> Result<(), Error> {
        if to.remaining_mut() < bytes.len() {
            return Err(Error::Long);
        }
        to.put_slice(bytes);
        Ok(())
    }

    fn get<T>(
        mut from: impl Buf,
        decode: impl Fn(&mut Reader<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut reader = Reader(from.chunk());
        let value = decode(&mut reader)?;
        let used = from.chunk().len() - reader.0.len();
        from.advance(used);
        Ok(value)
    }
}

impl foca::Codec<MemberId> for Codec {
    type Error = Error;

    fn encode_header(&mut self, header: &Header<MemberId>, to: impl BufMut) -> Result<(), Error> {
        let mut bytes = Vec::new();
        encode_header(header, &mut bytes)?;
        Self::put(&bytes, to)
    }

    fn decode_header(&mut self, from: impl Buf) -> Result<Header<MemberId>, Error> {
        Self::get(from, decode_header)
    }

    fn encode_member(&mut self, member: &Member<MemberId>, to: impl BufMut) -> Result<(), Error> {
        let mut bytes = Vec::new();
        encode_member(member, &mut bytes);
        Self::put(&bytes, to)
    }

    fn decode_member(&mut self, from: impl Buf) -> Result<Member<MemberId>, Error> {
        Self::get(from, decode_member)
    }
}

/// What `foca` asks for.
#[derive(Debug, Default)]
struct Asked {
    sends: VecDeque<(SocketAddr, Vec<u8>)>,
    timers: Vec<(Timer<MemberId>, Duration)>,
}

impl Runtime<MemberId> for Asked {
    fn notify(&mut self, _: Notification<'_, MemberId>) {}

    fn send_to(&mut self, to: MemberId, data: &[u8]) {
        self.sends.push_back((to.address, data.to_vec()));
    }

    fn submit_after(&mut self, timer: Timer<MemberId>, after: Duration) {
        self.timers.push((timer, after));
    }
}

/// The members of the group.
pub(super) struct Members {
    foca: Foca<MemberId, Codec, Random, NoCustomBroadcast>,
    asked: Asked,
    // By time; those of one time in the order in which they were asked for.
    timers: BTreeMap<(Instant, u64), Timer<MemberId>>,
    scheduled: u64,
    /// When to look for members, and which of the seeds is asked next.
    join_at: Option<Instant>,
    seed: usize,
    max: usize,
    leader: MemberId,
}

impl std::fmt::Debug for Members {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.foca.iter_members()).finish()
    }
}

fn settings(config: &GroupConfig) -> foca::Config {
    let periodic = |frequency, num_members| {
        Some(PeriodicParams {
            frequency,
            num_members,
        })
    };
    const ONE: NonZeroUsize = NonZeroUsize::MIN;
    const TWO: NonZeroUsize = ONE.saturating_add(1);
    const THREE: NonZeroUsize = ONE.saturating_add(2);
    let room = BODY_MAX - GROUP_LEN;
    foca::Config {
        probe_period: config.period,
        probe_rtt: config.period * 2 / 5,
        num_indirect_probes: THREE,
        max_transmissions: NonZeroU8::MIN.saturating_add(9),
        suspect_to_down_after: config.period * 3,
        remove_down_after: Some(REMEMBERED),
        max_packet_size: NonZeroUsize::new(room).unwrap_or(ONE),
        notify_down_members: true,
        periodic_announce: periodic(config.period * 30, ONE),
        periodic_announce_to_down_members: periodic(config.period * 5, TWO),
        periodic_gossip: periodic(config.period / 5, THREE),
    }
}

impl Members {
    pub(super) fn new(now: Instant, own: MemberId, config: &GroupConfig, random: Random) -> Self {
        Self {
            foca: Foca::new(own, settings(config), random, Codec),
            asked: Asked::default(),
            timers: BTreeMap::new(),
            scheduled: 0,
            join_at: Some(now),
            seed: 0,
            max: config.max_members,
            leader: own,
        }
    }

    /// Whoever has lived longest leads: who comes does not take over, and who has crashed comes back as one who comes.
    pub(super) fn leader(&self) -> &MemberId {
        &self.leader
    }

    pub(super) fn len(&self) -> usize {
        self.foca.num_members() + 1
    }

    pub(super) fn is_there(&self, host: u32) -> bool {
        self.foca
            .iter_members()
            .any(|member| member.id().host == host)
    }

    /// Whether those that it speaks of are not too many.
    pub(super) fn has_room_for(&self, packet: &Membership) -> bool {
        let known = self.foca.iter_membership_state();
        if known.len() + 1 + packet.updates.len() <= self.max {
            return true;
        }
        let updates = packet.updates.iter().map(Member::id);
        let is_new = |id: &&MemberId| {
            let mut known = self.foca.iter_membership_state();
            !known.any(|member| member.id().address == id.address)
        };
        let new = updates.chain([&packet.header.src]).filter(is_new);
        known.len() + new.count() <= self.max
    }

    /// Takes the body of a message that was decoded before.
    pub(super) fn handle_packet(&mut self, now: Instant, body: &[u8], counters: &mut Counters) {
        let packet = body.get(GROUP_LEN..).unwrap_or_default();
        let result = self.foca.handle_data(packet, &mut self.asked);
        self.settle(now, result, counters);
    }

    pub(super) fn handle_timeout(
        &mut self,
        now: Instant,
        config: &GroupConfig,
        counters: &mut Counters,
    ) {
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let result = self.foca.handle_timer(entry.remove(), &mut self.asked);
            self.settle(now, result, counters);
        }
        if self.join_at.is_some_and(|at| at <= now) {
            self.join(now, config, counters);
        }
    }

    /// Asks seeds for members: all of them when nobody is there, else one now and then, for there may be another part of
    /// the group that nobody here knows.
    fn join(&mut self, now: Instant, config: &GroupConfig, counters: &mut Counters) {
        let others = config.seeds.iter().filter(|seed| **seed != config.address);
        let others: Vec<_> = others.copied().collect();
        let (asked, next) = if self.foca.num_members() == 0 {
            (others.as_slice(), config.period)
        } else {
            self.seed = (self.seed + 1).checked_rem(others.len()).unwrap_or(0);
            let one = others.get(self.seed..=self.seed);
            (one.unwrap_or_default(), config.period * 10)
        };
        for address in asked {
            let anybody = MemberId {
                host: 0,
                epoch: 0,
                renewal: 0,
                address: *address,
            };
            let result = self.foca.announce(anybody, &mut self.asked);
            self.settle(now, result, counters);
        }
        self.join_at = Some(now + next);
    }

    pub(super) fn leave(&mut self, counters: &mut Counters) {
        if self.foca.leave_cluster(&mut self.asked).is_err() {
            counters.add("group-error");
        }
        self.timers.clear();
        self.asked.timers.clear();
        self.join_at = None;
    }

    fn settle(&mut self, now: Instant, result: Result<(), foca::Error>, counters: &mut Counters) {
        if result.is_err() {
            counters.add("group-error");
        }
        for (timer, after) in self.asked.timers.drain(..) {
            self.scheduled += 1;
            self.timers.insert((now + after, self.scheduled), timer);
        }
        let others = self.foca.iter_members().map(Member::id);
        let longest = others
            .chain([self.foca.identity()])
            .min_by_key(|id| (id.epoch, id.host));
        if let Some(longest) = longest {
            self.leader = *longest;
        }
    }

    /// What is to be sent, and where.
    pub(super) fn poll_transmit(&mut self, group: u32) -> Option<(SocketAddr, Membership)> {
        loop {
            let (to, bytes) = self.asked.sends.pop_front()?;
            // It was written by the functions beside those that read it.
            if let Ok(packet) = Membership::packet(group, &mut Reader(&bytes)) {
                return Some((to, packet));
            }
        }
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        let timer = self.timers.first_key_value().map(|((at, _), _)| *at);
        timer.into_iter().chain(self.join_at).min()
    }
}
