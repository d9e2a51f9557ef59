// SPDX-License-Identifier: MIT OR Apache-2.0

//! The group that a host is in (FIG. 16): who is there, who leads, and what a leader passes on.
//!
//! Who is there is found out by SWIM, in the crate `foca`: members ask each other whether they are alive, and tell what
//! they know by the way. The leader is the member with the longest life. Nobody has to agree on that: a leader passes on
//! the heartbeats of whoever believes that it leads, and a member that is not told that load balancing units have got
//! its heartbeats sends them itself.

mod membership;
mod relay;

use crate::{
    random::Random,
    seal::{Error, Keys, Opener, Sealer},
    wire::{Heartbeat, MemberHeartbeat, MemberId, Message, PassedOn, Route},
    Counters, Transmit,
};
use membership::Members;
use relay::Relay;
use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// Heartbeats of which it is remembered when they were sent.
const BEATS: usize = 16;
/// So often it is looked whether this host runs.
const LOOK: Duration = Duration::from_millis(250);
/// If it was not looked for so long, it has stood still, as a virtual machine or for want of a processor: what comes
/// then may have waited for it,
const STILL: Duration = Duration::from_millis(500);
/// and for so long, until all is read that has waited.
const CATCH_UP: Duration = Duration::from_secs(1);

/// A group, and how its members behave. [`GroupConfig::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// Its number, the same in all of its members, not 0.
    pub id: u32,
    /// Where the others reach this host, and from where it sends. As it is written in their `seeds`.
    pub address: SocketAddr,
    /// Members by which others are found.
    pub seeds: Vec<SocketAddr>,
    /// How often somebody is asked whether he is alive; what else there is to do for the membership goes with it.
    pub period: Duration,
    /// So long a leader waits for further heartbeats before it passes on what it has.
    pub gather: Duration,
    /// The same for one that is to be forwarded: its rows have changed.
    pub urgent: Duration,
    /// So long load balancing units have time to say that they have got it, before the leader tells the members.
    pub answer_wait: Duration,
    /// A load balancing unit that, as far as is known, got no heartbeat that was sent later than so long ago, gets them
    /// without the leader.
    pub patience: Duration,
    /// Each so many heartbeats one goes to all load balancing units without the leader: there may be new ones.
    pub direct_every: u32,
    /// A leader says of hosts that are as before only that they are. Load balancing units that do not know this yet
    /// take nothing of it, and hear the hosts themselves.
    pub changes: bool,
    /// Most members beside this host.
    pub max_members: usize,
}

impl GroupConfig {
    /// The defaults for heartbeats of an `interval`.
    pub fn new(id: u32, address: SocketAddr, seeds: Vec<SocketAddr>, interval: Duration) -> Self {
        Self {
            id,
            address,
            seeds,
            period: Duration::from_secs(1),
            gather: interval / 2,
            urgent: Duration::from_millis(20),
            answer_wait: Duration::from_millis(200),
            patience: interval * 2,
            direct_every: 30,
            changes: true,
            max_members: 1024,
        }
    }
}

/// What a message in a group needs from the host.
pub(super) struct Host<'a> {
    pub(super) keys: &'a Keys,
    pub(super) counters: &'a mut Counters,
    pub(super) out: &'a mut VecDeque<Transmit>,
}

/// This host's place in the group.
#[derive(Debug)]
pub(super) struct Group {
    config: GroupConfig,
    own: MemberId,
    members: Members,
    sealer: Sealer,
    opener: Opener,
    relay: Relay,
    beats: VecDeque<(u64, Instant)>,
    told: Option<u32>,
    /// When it was looked last, and until when what comes may have waited.
    awake: Instant,
    late_until: Option<Instant>,
}

impl Group {
    pub(super) fn new(
        now: Instant,
        host: u32,
        epoch: u64,
        config: GroupConfig,
        random: Random,
    ) -> Self {
        let own = MemberId {
            host,
            epoch,
            renewal: 0,
            address: config.address,
        };
        Self {
            members: Members::new(now, own, &config, random),
            sealer: Sealer::new(host, epoch),
            opener: Opener::new(Route::InGroup, config.max_members),
            relay: Relay::default(),
            beats: VecDeque::new(),
            told: None,
            awake: now,
            late_until: None,
            own,
            config,
        }
    }

    pub(super) fn config(&self) -> &GroupConfig {
        &self.config
    }

    pub(super) fn set_seeds(&mut self, seeds: Vec<SocketAddr>) {
        self.config.seeds = seeds;
    }

    /// Whether it is a message of a group.
    pub(super) fn is_for(&self, datagram: &[u8]) -> bool {
        self.opener.is_for(datagram)
    }

    /// Who leads, as far as is known here; this host itself, perhaps.
    pub(super) fn leader(&self) -> u32 {
        self.members.leader().host
    }

    /// The hosts that are there, with this one.
    pub(super) fn members(&self) -> usize {
        self.members.len()
    }

    /// The leader, if it is another than the caller was told before.
    pub(super) fn new_leader(&mut self) -> Option<u32> {
        let leader = self.leader();
        (self.told.replace(leader) != Some(leader)).then_some(leader)
    }

    /// To whom heartbeats go, if it is somebody else.
    pub(super) fn leads(&self) -> bool {
        self.leader() == self.own.host
    }

    fn tell(&mut self, to: SocketAddr, message: &Message, host: &mut Host<'_>) {
        let datagram = self.sealer.seal(host.keys, message).into();
        host.out.push_back(Transmit { to, datagram });
    }

    /// Has the leader pass on a heartbeat.
    pub(super) fn heartbeat(&mut self, now: Instant, heartbeat: Heartbeat, host: &mut Host<'_>) {
        if self.beats.len() == BEATS {
            self.beats.pop_front();
        }
        self.beats.push_back((heartbeat.beat, now));
        let leader = *self.members.leader();
        let message = MemberHeartbeat {
            group: self.config.id,
            host: leader.host,
            epoch: leader.epoch,
            heartbeat,
        };
        self.tell(leader.address, &Message::MemberHeartbeat(message), host);
    }

    /// This host runs now. Nobody can tell how old a heartbeat is that has waited while it did not: those are for others
    /// to pass on.
    fn look(&mut self, now: Instant) {
        if now > self.awake + STILL {
            self.late_until = Some(now + CATCH_UP);
        }
        self.late_until.take_if(|until| *until <= now);
        self.awake = now;
    }

    /// A datagram that says it is of a group. What is returned are the load balancing units that got a heartbeat, and
    /// when it was sent.
    pub(super) fn handle_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
        host: &mut Host<'_>,
    ) -> Option<(Instant, Vec<u32>)> {
        self.look(now);
        let result = self.opener.open(host.keys, datagram);
        let result = match result {
            Err(Error::Senders) => {
                // Those that are gone make room.
                let members = &self.members;
                self.opener.retain(|sender| members.is_there(sender));
                self.opener.open(host.keys, datagram)
            }
            result => result,
        };
        let opened = match result {
            Ok(opened) => opened,
            Err(error) => {
                host.counters.add(error.name());
                return None;
            }
        };
        // An old message is for another life of this host, or says what nobody believes any more.
        self.opener.prove(opened.sender, opened.epoch);
        let message = match Message::decode(opened.number, opened.body) {
            Ok(message) => message,
            Err(error) => {
                host.counters.add(error.name());
                return None;
            }
        };
        let group = match &message {
            Message::Membership(membership) => membership.group,
            Message::MemberHeartbeat(beat) => beat.group,
            Message::PassedOn(passed) => passed.group,
            _ => return None,
        };
        if group != self.config.id {
            host.counters.add("group-other");
            return None;
        }
        match message {
            Message::Membership(membership) => {
                let src = &membership.header.src;
                if (src.host, src.epoch) != (opened.sender, opened.epoch) {
                    host.counters.add("group-contradicts");
                } else if !self.members.has_room_for(&membership) {
                    host.counters.add("group-full");
                } else {
                    self.members.handle_packet(now, opened.body, host.counters);
                    self.send_membership(host);
                }
                None
            }
            Message::MemberHeartbeat(beat) if !self.is_own(beat.host, beat.epoch) => {
                host.counters.add("message-for-others");
                None
            }
            Message::MemberHeartbeat(beat) => {
                host.counters.add("member-heartbeat");
                let (sender, epoch) = (opened.sender, opened.epoch);
                let config = &self.config;
                if self.late_until.is_some()
                    || !self
                        .relay
                        .take(now, (sender, epoch), from, beat.heartbeat, config)
                {
                    host.counters.add("member-heartbeat-refused");
                }
                None
            }
            Message::PassedOn(passed) => self.passed_on(passed, host.counters),
            _ => None,
        }
    }

    fn is_own(&self, host: u32, epoch: u64) -> bool {
        (host, epoch) == (self.own.host, self.own.epoch)
    }

    fn passed_on(&self, passed: PassedOn, counters: &mut Counters) -> Option<(Instant, Vec<u32>)> {
        if !self.is_own(passed.host, passed.epoch) {
            counters.add("message-for-others");
            return None;
        }
        counters.add("passed-on");
        let beat = self.beats.iter().find(|(beat, _)| *beat == passed.beat);
        beat.map(|(_, sent)| (*sent, passed.lbus))
    }

    /// The load balancing unit `lbu` has got a consolidated heartbeat, but what it says of the hosts `missing`.
    pub(super) fn heard(&mut self, lbu: u32, number: u64, missing: &[u32]) {
        self.relay.heard(lbu, number, missing);
    }

    fn send_membership(&mut self, host: &mut Host<'_>) {
        while let Some((to, membership)) = self.members.poll_transmit(self.config.id) {
            self.tell(to, &Message::Membership(membership), host);
        }
    }

    /// Does what is due. What is returned is for all load balancing units.
    pub(super) fn handle_timeout(&mut self, now: Instant, host: &mut Host<'_>) -> Vec<Message> {
        self.look(now);
        self.members
            .handle_timeout(now, &self.config, host.counters);
        self.send_membership(host);
        for (to, passed) in self.relay.answers(now, self.config.id) {
            self.tell(to, &Message::PassedOn(passed), host);
        }
        self.relay.due(now, &self.config)
    }

    /// The others shall know that this host goes.
    pub(super) fn leave(&mut self, host: &mut Host<'_>) {
        self.members.leave(host.counters);
        self.send_membership(host);
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        let look = Some(self.awake + LOOK);
        let timeouts = [self.members.timeout(), self.relay.timeout(), look];
        timeouts.into_iter().flatten().min()
    }
}
