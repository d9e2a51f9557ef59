// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the hosts of a group say to each other, and what their leader says for them (FIG. 16).
//!
//! The protocol of the membership is that of the crate `foca`, whose types these are; the bytes are chosen here, so that
//! they can be described, and nothing that is out of its limits gets there.

use super::{check, count, row, Error, Heartbeat, Reader, Writer};
use super::{AGE_LIMIT_MAX, CHUNKS_MAX};
use foca::{Header, Identity, Member, State};
use std::net::SocketAddr;

/// Most load balancing units that a [`PassedOn`] names.
pub const LBUS_MAX: usize = 64;

/// Who is in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberId {
    /// The host. 0 if it is asked for by its address.
    pub host: u32,
    /// Its life. 0 if it is asked for by its address.
    pub epoch: u64,
    /// How often it has come back after others took it for dead.
    pub renewal: u16,
    /// Where the others reach it. There is one member at an address.
    pub address: SocketAddr,
}

impl Identity for MemberId {
    type Addr = SocketAddr;

    fn renew(&self) -> Option<Self> {
        let renewal = self.renewal.checked_add(1)?;
        Some(Self { renewal, ..*self })
    }

    fn addr(&self) -> SocketAddr {
        self.address
    }

    fn win_addr_conflict(&self, other: &Self) -> bool {
        let rank = |id: &Self| (id.epoch, id.renewal, id.host);
        rank(self) > rank(other)
    }
}

/// A message of the membership's protocol (SWIM).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The group.
    pub group: u32,
    /// From whom, to whom, and what.
    pub header: Header<MemberId>,
    /// What is known of members, unless it is an announcement or says that the other is down.
    pub updates: Vec<Member<MemberId>>,
}

/// A heartbeat for the leader, who passes it on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberHeartbeat {
    /// The group.
    pub group: u32,
    /// The leader for whom it is; nobody else passes it on.
    pub host: u32,
    /// Its life.
    pub epoch: u64,
    /// The heartbeat.
    pub heartbeat: Heartbeat,
}

/// Consolidated heartbeat message 1602: the heartbeats of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consolidated {
    /// Counts those of this life of the leader, from 1.
    pub number: u64,
    /// The heartbeats, by rising host.
    pub records: Vec<Relayed>,
}

/// A heartbeat in a [`Consolidated`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relayed {
    /// The host.
    pub host: u32,
    /// Its life.
    pub epoch: u64,
    /// As in [`Heartbeat::beat`].
    pub beat: u64,
    /// How long the leader has had it, in milliseconds; at most [`AGE_LIMIT_MAX`].
    pub age: u32,
    /// As in [`Heartbeat::age_limit`].
    pub age_limit: u32,
    /// As in [`Heartbeat::generations`].
    pub generations: Vec<u64>,
    /// Where the leader got it from.
    pub address: SocketAddr,
}

/// A load balancing unit has got a [`Consolidated`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The leader.
    pub host: u32,
    /// Its life.
    pub epoch: u64,
    /// The number.
    pub number: u64,
}

/// The leader tells a member who has got its heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOn {
    /// The group.
    pub group: u32,
    /// The member.
    pub host: u32,
    /// Its life.
    pub epoch: u64,
    /// The number of the heartbeat.
    pub beat: u64,
    /// The load balancing units that have got it, 1 to [`LBUS_MAX`], by rising id.
    pub lbus: Vec<u32>,
}

impl MemberId {
    fn encode(&self, out: &mut Vec<u8>) {
        out.u32(self.host);
        out.u64(self.epoch);
        out.u16(self.renewal);
        row::encode_address(&self.address, out);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Error> {
        let id = Self::any(from)?;
        check(id.host != 0 && id.epoch != 0, Error::Id)?;
        Ok(id)
    }

    fn any(from: &mut Reader<'_>) -> Result<Self, Error> {
        let id = Self {
            host: from.u32()?,
            epoch: from.u64()?,
            renewal: from.u16()?,
            address: row::address(from)?,
        };
        check(id.address.port() != 0, Error::Address)?;
        Ok(id)
    }
}

/// Bytes of the number of the group, in front of what `foca` writes.
pub(crate) const GROUP_LEN: usize = 4;

/// A header as `foca` wants it written. It has no kind for custom broadcasts.
pub(crate) fn encode_header(header: &Header<MemberId>, out: &mut Vec<u8>) -> Result<(), Error> {
    use foca::Message::*;
    header.src.encode(out);
    out.u16(header.src_incarnation);
    header.dst.encode(out);
    out.u8(match header.message {
        Ping(_) => 1,
        Ack(_) => 2,
        PingReq { .. } => 3,
        IndirectPing { .. } => 4,
        IndirectAck { .. } => 5,
        ForwardedAck { .. } => 6,
        Announce => 7,
        Feed => 8,
        Gossip => 9,
        TurnUndead => 10,
        Broadcast => return Err(Error::Member),
    });
    match &header.message {
        Ping(number) | Ack(number) => out.u8(*number),
        PingReq {
            target: other,
            probe_number: number,
        }
        | IndirectPing {
            origin: other,
            probe_number: number,
        }
        | IndirectAck {
            target: other,
            probe_number: number,
        }
        | ForwardedAck {
            origin: other,
            probe_number: number,
        } => {
            other.encode(out);
            out.u8(*number);
        }
        Announce | Feed | Gossip | TurnUndead | Broadcast => {}
    }
    Ok(())
}

pub(crate) fn decode_header(from: &mut Reader<'_>) -> Result<Header<MemberId>, Error> {
    use foca::Message::*;
    let src = MemberId::decode(from)?;
    let src_incarnation = from.u16()?;
    let dst = MemberId::any(from)?;
    let kind = from.u8()?;
    let message = match kind {
        1 => Ping(from.u8()?),
        2 => Ack(from.u8()?),
        3..=6 => {
            let (other, probe_number) = (MemberId::decode(from)?, from.u8()?);
            match kind {
                3 => PingReq {
                    target: other,
                    probe_number,
                },
                4 => IndirectPing {
                    origin: other,
                    probe_number,
                },
                5 => IndirectAck {
                    target: other,
                    probe_number,
                },
                _ => ForwardedAck {
                    origin: other,
                    probe_number,
                },
            }
        }
        7 => Announce,
        8 => Feed,
        9 => Gossip,
        10 => TurnUndead,
        _ => return Err(Error::Member),
    };
    let is_known = dst.host != 0 && dst.epoch != 0;
    check(is_known || message == Announce, Error::Id)?;
    Ok(Header {
        src,
        src_incarnation,
        dst,
        message,
    })
}

pub(crate) fn encode_member(member: &Member<MemberId>, out: &mut Vec<u8>) {
    member.id().encode(out);
    out.u16(member.incarnation());
    out.u8(match member.state() {
        State::Alive => 1,
        State::Suspect => 2,
        State::Down => 3,
    });
}

pub(crate) fn decode_member(from: &mut Reader<'_>) -> Result<Member<MemberId>, Error> {
    let (id, incarnation) = (MemberId::decode(from)?, from.u16()?);
    let state = match from.u8()? {
        1 => State::Alive,
        2 => State::Suspect,
        3 => State::Down,
        _ => return Err(Error::Member),
    };
    Ok(Member::new(id, incarnation, state))
}

impl Membership {
    fn has_updates(&self) -> bool {
        use foca::Message::{Announce, TurnUndead};
        !matches!(self.header.message, Announce | TurnUndead)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.u32(self.group);
        // A kind that does not exist is the caller's mistake; what is written then is not read by anybody.
        let _ = encode_header(&self.header, out);
        if self.has_updates() {
            out.u16(self.updates.len() as u16);
            for update in &self.updates {
                encode_member(update, out);
            }
        }
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Result<Self, Error> {
        let group = group(from)?;
        Self::packet(group, from)
    }

    /// What `foca` has written.
    pub(crate) fn packet(group: u32, from: &mut Reader<'_>) -> Result<Self, Error> {
        let mut membership = Self {
            group,
            header: decode_header(from)?,
            updates: Vec::new(),
        };
        if membership.has_updates() {
            let updates = (0..count(from)?).map(|_| decode_member(from));
            membership.updates = updates.collect::<Result<_, _>>()?;
        }
        Ok(membership)
    }
}

fn group(from: &mut Reader<'_>) -> Result<u32, Error> {
    let group = from.u32()?;
    check(group != 0, Error::Id)?;
    Ok(group)
}

impl MemberHeartbeat {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.u32(self.group);
        out.u32(self.host);
        out.u64(self.epoch);
        self.heartbeat.encode(out);
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Result<Self, Error> {
        let group = group(from)?;
        let (host, epoch) = (from.u32()?, from.u64()?);
        check(host != 0 && epoch != 0, Error::Id)?;
        Ok(Self {
            group,
            host,
            epoch,
            heartbeat: Heartbeat::decode(from)?,
        })
    }
}

impl Consolidated {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.u64(self.number);
        out.u16(self.records.len() as u16);
        for record in &self.records {
            record.encode(out);
        }
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Result<Self, Error> {
        let number = from.u64()?;
        check(number != 0, Error::Id)?;
        let records = (0..count(from)?).map(|_| Relayed::decode(from));
        let records = records.collect::<Result<Vec<_>, _>>()?;
        check(!records.is_empty(), Error::Count)?;
        check(records.is_sorted_by(|a, b| a.host < b.host), Error::Order)?;
        Ok(Self { number, records })
    }
}

/// Bytes of the body of a [`Consolidated`] in front of its records.
pub(crate) const CONSOLIDATED_HEAD: usize = 10;

impl Relayed {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.u32(self.host);
        out.u64(self.epoch);
        row::encode_address(&self.address, out);
        out.u8(self.generations.len() as u8);
        out.short(self.beat);
        out.short(u64::from(self.age));
        out.short(u64::from(self.age_limit));
        for generation in &self.generations {
            out.short(*generation);
        }
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Result<Self, Error> {
        let (host, epoch) = (from.u32()?, from.u64()?);
        let address = row::address(from)?;
        check(address.port() != 0, Error::Address)?;
        let chunks = from.u8()?;
        check((1..=CHUNKS_MAX).contains(&chunks), Error::Chunk)?;
        let beat = from.short()?;
        check(host != 0 && epoch != 0 && beat != 0, Error::Id)?;
        let age = u32::try_from(from.short()?).map_err(|_| Error::AgeLimit)?;
        check(age <= AGE_LIMIT_MAX, Error::AgeLimit)?;
        let age_limit = u32::try_from(from.short()?).map_err(|_| Error::AgeLimit)?;
        super::check_age_limit(age_limit)?;
        let generations = (0..chunks).map(|_| from.short());
        Ok(Self {
            host,
            epoch,
            beat,
            age,
            age_limit,
            generations: generations.collect::<Result<_, _>>()?,
            address,
        })
    }

    /// Bytes that it takes.
    pub(crate) fn len(&self) -> usize {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        bytes.len()
    }
}

impl Heard {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.u32(self.host);
        out.u64(self.epoch);
        out.u64(self.number);
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Result<Self, Error> {
        let heard = Self {
            host: from.u32()?,
            epoch: from.u64()?,
            number: from.u64()?,
        };
        check(
            heard.host != 0 && heard.epoch != 0 && heard.number != 0,
            Error::Id,
        )?;
        Ok(heard)
    }
}

impl PassedOn {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.u32(self.group);
        out.u32(self.host);
        out.u64(self.epoch);
        out.u64(self.beat);
        out.u16(self.lbus.len() as u16);
        for lbu in &self.lbus {
            out.u32(*lbu);
        }
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Result<Self, Error> {
        let group = group(from)?;
        let (host, epoch, beat) = (from.u32()?, from.u64()?, from.u64()?);
        check(host != 0 && epoch != 0 && beat != 0, Error::Id)?;
        let lbus = usize::from(from.u16()?);
        check((1..=LBUS_MAX).contains(&lbus), Error::Count)?;
        let lbus = (0..lbus).map(|_| from.u32());
        let lbus = lbus.collect::<Result<Vec<_>, _>>()?;
        check(lbus.first().is_some_and(|lbu| *lbu != 0), Error::Id)?;
        check(lbus.is_sorted_by(|a, b| a < b), Error::Order)?;
        Ok(Self {
            group,
            host,
            epoch,
            beat,
            lbus,
        })
    }
}
