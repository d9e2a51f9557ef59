// SPDX-License-Identifier: MIT OR Apache-2.0

//! The messages of FIG. 15, byte by byte: `Documentation/health-protocol.rst` describes what is here.
//!
//! [`Message::decode`] takes nothing that [`Message::encode`] would not have written: what is decoded is encoded to
//! the same bytes again. The header, which all share, and the authentication are in [`crate::seal`].

pub(crate) mod changes;
mod cursor;
pub(crate) mod group;
mod row;

use crate::row::{is_dns_name, AppId, Directive, Row, Status};
pub use changes::{Changes, HeardPart, Same, SAME_MAX};
pub(crate) use cursor::{Reader, Writer};
pub use group::{
    Consolidated, Heard, MemberHeartbeat, MemberId, Membership, PassedOn, Relayed, LBUS_MAX,
};
use std::fmt;

/// Longest datagram: what an IPv6 packet that is never too large has room for (1280 − 40 − 8).
pub const DATAGRAM_MAX: usize = 1232;
/// Longest body: a datagram without header and tag.
pub const BODY_MAX: usize = DATAGRAM_MAX - crate::seal::OVERHEAD;
/// Most chunks of a table. The chunk of an application is its id modulo the number of chunks.
pub const CHUNKS_MAX: u8 = 16;
/// Longest DNS name.
pub const NAME_MAX: usize = 253;
/// Least age limit, in milliseconds.
pub const AGE_LIMIT_MIN: u32 = 100;
/// Largest age limit, in milliseconds.
pub const AGE_LIMIT_MAX: u32 = 600_000;
/// Most parts of a snapshot of one chunk.
pub const PARTS_MAX: u16 = 256;
/// Most operations of a row change, and most rows of any other message. Fewer fit in unless they are deletions.
pub const OPERATIONS_MAX: usize = 91;
/// Most rows of a postulate: as many as fit into [`BODY_MAX`].
pub const POSTULATE_MAX: usize = (BODY_MAX - 10) / 13;

/// Why a body is none. Each is a counter of its own; see [`Error::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Error {
    /// It ends within a field.
    Short,
    /// There are bytes behind its end.
    Long,
    /// A type that does not exist.
    Type,
    /// A bit or byte that has to be zero is not.
    Reserved,
    /// An age limit out of its range.
    AgeLimit,
    /// No chunk, more than [`CHUNKS_MAX`], or one that the table does not have.
    Chunk,
    /// A DNS name that is none.
    Name,
    /// A generation that cannot be: zero after a change.
    Generation,
    /// Another operation than add, update and delete.
    Operation,
    /// No operation or row where there has to be one, or too many.
    Count,
    /// An address family that does not exist, or an address that no machine can have.
    Address,
    /// A protocol that is none.
    Protocol,
    /// Protocol-specific information that is no text.
    Detail,
    /// A health that does not exist.
    Health,
    /// A load or capacity out of its range.
    Load,
    /// A load balancing state that does not exist.
    Directive,
    /// A part beyond the parts, or too many of them.
    Part,
    /// An id that has to be other than zero.
    Id,
    /// Rows, hosts or load balancing units that are not in the order of their ids, or twice the same.
    Order,
    /// A kind of message or a state that the membership's protocol does not have.
    Member,
    /// A number of variable length that does not fit, or is longer than it needs to be.
    Number,
}

impl Error {
    /// The name of its counter.
    pub fn name(self) -> &'static str {
        match self {
            Self::Short => "body-short",
            Self::Long => "body-long",
            Self::Type => "body-type",
            Self::Reserved => "body-reserved",
            Self::AgeLimit => "body-age-limit",
            Self::Chunk => "body-chunk",
            Self::Name => "body-name",
            Self::Generation => "body-generation",
            Self::Operation => "body-operation",
            Self::Count => "body-count",
            Self::Address => "body-address",
            Self::Protocol => "body-protocol",
            Self::Detail => "body-detail",
            Self::Health => "body-health",
            Self::Load => "body-load",
            Self::Directive => "body-directive",
            Self::Part => "body-part",
            Self::Id => "body-id",
            Self::Order => "body-order",
            Self::Member => "body-member",
            Self::Number => "body-number",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::error::Error for Error {}

/// Heartbeat message 1502: the host functions, and this is what its table has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Counts the heartbeats of this life of the host, from 1.
    pub beat: u64,
    /// How long anybody may use what was confirmed by this heartbeat, in milliseconds, [`AGE_LIMIT_MIN`] to
    /// [`AGE_LIMIT_MAX`].
    pub age_limit: u32,
    /// A leader shall pass it on although it is no change of the membership (FIG. 16).
    pub forward: bool,
    /// The generation of each chunk: 1 to [`CHUNKS_MAX`] of them. This is the error checking data: a cache whose
    /// generation is another one is out of date.
    pub generations: Vec<u64>,
    /// The host's DNS name, every so many heartbeats.
    pub name: Option<String>,
}

/// What is done to a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It comes.
    Add(Row),
    /// Its columns 1302(B) and 1302(C) are others.
    Update(Status),
    /// It goes.
    Delete,
}

/// One operation of a row change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The row.
    pub app: AppId,
    /// The generation to which it brings the row's chunk: it fits onto the one before only. From 1.
    pub generation: u64,
    /// What is done.
    pub change: Change,
}

/// Get table snapshot message 1508.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetSnapshot {
    /// The host that is asked.
    pub host: u32,
    /// A random number, which the answer repeats: so it cannot be an old one.
    pub request: u64,
    /// The chunks that are wanted, 1 << number each, at least one; all is 0xffff, whichever the table has.
    pub chunks: u16,
}

/// Send table snapshot message 1510: a part of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The load balancing unit that has asked.
    pub lbu: u32,
    /// Its number.
    pub request: u64,
    /// As in [`Heartbeat::age_limit`].
    pub age_limit: u32,
    /// Of how many chunks the table is, 1 to [`CHUNKS_MAX`].
    pub chunks: u8,
    /// The chunk that this is of.
    pub chunk: u8,
    /// The generation that it has.
    pub generation: u64,
    /// How many parts it takes, 1 to [`PARTS_MAX`].
    pub parts: u16,
    /// Which one this is, from 0.
    pub part: u16,
    /// The rows, by rising id.
    pub rows: Vec<(AppId, Row)>,
}

/// Postulate table state message 1512. Without rows it asks who is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postulate {
    /// The number of the postulate in this life of the host, from 1.
    pub postulate: u64,
    /// What the table says, by rising id.
    pub rows: Vec<Postulated>,
}

/// A row of a postulate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Postulated {
    /// The row.
    pub app: AppId,
    /// Its target load balancing state.
    pub target: Directive,
    /// The generation to which the row's chunk came when the target became this. A cache that is behind it may
    /// have the right state by chance, and another one in a moment.
    pub generation: u64,
}

/// Postulate wrong message 1514. Without rows it says that nothing is wrong: silence alone does not tell whether
/// the postulate arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostulateWrong {
    /// The host whose postulate it was.
    pub host: u32,
    /// The life of that host.
    pub epoch: u64,
    /// The number of the postulate.
    pub postulate: u64,
    /// The rows that are otherwise, and how; `None` is a row that is not there, or for which what is there is not
    /// in force yet. By rising id.
    pub rows: Vec<(AppId, Option<Directive>)>,
}

/// A message of FIG. 15.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// 1502, by hosts.
    Heartbeat(Heartbeat),
    /// 1504, by hosts: it is about to shut down, and everything of it is void.
    Goodbye,
    /// 1506, by hosts: one operation or several.
    RowChange(Vec<Operation>),
    /// 1508, by load balancing units.
    GetSnapshot(GetSnapshot),
    /// 1510, by hosts.
    Snapshot(Snapshot),
    /// 1512, by hosts.
    Postulate(Postulate),
    /// 1514, by load balancing units.
    PostulateWrong(PostulateWrong),
    /// Among the hosts of a group (FIG. 16): who is there.
    Membership(Membership),
    /// 1502, by hosts, for the leader of their group.
    MemberHeartbeat(MemberHeartbeat),
    /// 1602, by leaders.
    Consolidated(Consolidated),
    /// By load balancing units, for leaders.
    Heard(Heard),
    /// By leaders, for the hosts of their group.
    PassedOn(PassedOn),
    /// 1602, by leaders, of which most is as before.
    Changes(Changes),
    /// By load balancing units, for leaders.
    HeardPart(HeardPart),
}

/// From whom to whom a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// From hosts to load balancing units.
    ToLbus,
    /// From load balancing units to hosts.
    ToHosts,
    /// Among the hosts of a group.
    InGroup,
}

/// Bit of a heartbeat's flags.
const FORWARD: u8 = 1;

impl Message {
    /// The number of its type in the header.
    pub fn number(&self) -> u8 {
        match self {
            Self::Heartbeat(_) => 1,
            Self::Goodbye => 2,
            Self::RowChange(_) => 3,
            Self::GetSnapshot(_) => 4,
            Self::Snapshot(_) => 5,
            Self::Postulate(_) => 6,
            Self::PostulateWrong(_) => 7,
            Self::Membership(_) => 8,
            Self::MemberHeartbeat(_) => 9,
            Self::Consolidated(_) => 10,
            Self::Heard(_) => 11,
            Self::PassedOn(_) => 12,
            Self::Changes(_) => 13,
            Self::HeardPart(_) => 14,
        }
    }

    /// Where a type goes; `None` if there is no such type.
    pub fn route(number: u8) -> Option<Route> {
        match number {
            1..=3 | 5 | 6 | 10 | 13 => Some(Route::ToLbus),
            4 | 7 | 11 | 14 => Some(Route::ToHosts),
            8 | 9 | 12 => Some(Route::InGroup),
            _ => None,
        }
    }

    /// Appends the body. Fields out of their limits are the caller's mistake, which the receiver would refuse: debug
    /// builds panic.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let begin = out.len();
        match self {
            Self::Heartbeat(beat) => beat.encode(out),
            Self::Goodbye => {}
            Self::RowChange(operations) => {
                out.u16(operations.len() as u16);
                for operation in operations {
                    row::encode_operation(operation, out);
                }
            }
            Self::GetSnapshot(get) => {
                out.u32(get.host);
                out.u64(get.request);
                out.u16(get.chunks);
            }
            Self::Snapshot(snapshot) => {
                out.u32(snapshot.lbu);
                out.u64(snapshot.request);
                out.u32(snapshot.age_limit);
                out.u8(snapshot.chunks);
                out.u8(snapshot.chunk);
                out.u64(snapshot.generation);
                out.u16(snapshot.parts);
                out.u16(snapshot.part);
                out.u16(snapshot.rows.len() as u16);
                for (app, row) in &snapshot.rows {
                    out.u32(app.0);
                    row::encode_row(row, out);
                }
            }
            Self::Postulate(postulate) => {
                out.u64(postulate.postulate);
                out.u16(postulate.rows.len() as u16);
                for row in &postulate.rows {
                    out.u32(row.app.0);
                    out.u8(row.target as u8);
                    out.u64(row.generation);
                }
            }
            Self::PostulateWrong(wrong) => {
                out.u32(wrong.host);
                out.u64(wrong.epoch);
                out.u64(wrong.postulate);
                out.u16(wrong.rows.len() as u16);
                for (app, directive) in &wrong.rows {
                    out.u32(app.0);
                    out.u8(directive.map_or(0, |directive| directive as u8));
                }
            }
            Self::Membership(membership) => membership.encode(out),
            Self::MemberHeartbeat(beat) => beat.encode(out),
            Self::Consolidated(consolidated) => consolidated.encode(out),
            Self::Heard(heard) => heard.encode(out),
            Self::PassedOn(passed) => passed.encode(out),
            Self::Changes(changes) => changes.encode(out),
            Self::HeardPart(part) => part.encode(out),
        }
        debug_assert_eq!(
            Self::decode(self.number(), &out[begin..]).as_ref(),
            Ok(self)
        );
    }

    /// What a body of the type `number` says, if every field is in its limits.
    pub fn decode(number: u8, body: &[u8]) -> Result<Self, Error> {
        let mut from = Reader(body);
        let message = match number {
            1 => Self::Heartbeat(Heartbeat::decode(&mut from)?),
            2 => Self::Goodbye,
            3 => {
                let count = count(&mut from)?;
                check(count > 0, Error::Count)?;
                let operations = (0..count).map(|_| row::operation(&mut from));
                Self::RowChange(operations.collect::<Result<_, _>>()?)
            }
            4 => {
                let get = GetSnapshot {
                    host: from.u32()?,
                    request: from.u64()?,
                    chunks: from.u16()?,
                };
                check(get.host != 0 && get.request != 0, Error::Id)?;
                check(get.chunks != 0, Error::Chunk)?;
                Self::GetSnapshot(get)
            }
            5 => Self::Snapshot(snapshot(&mut from)?),
            6 => {
                let postulate = from.u64()?;
                check(postulate != 0, Error::Id)?;
                let rows = (0..count(&mut from)?).map(|_| {
                    let app = AppId(from.u32()?);
                    let target = Directive::from_byte(from.u8()?).ok_or(Error::Directive)?;
                    let generation = from.u64()?;
                    check(generation != 0, Error::Generation)?;
                    Ok(Postulated {
                        app,
                        target,
                        generation,
                    })
                });
                let rows = rows.collect::<Result<Vec<_>, _>>()?;
                check(rows.is_sorted_by(|a, b| a.app < b.app), Error::Order)?;
                Self::Postulate(Postulate { postulate, rows })
            }
            7 => {
                let (host, epoch, postulate) = (from.u32()?, from.u64()?, from.u64()?);
                check(host != 0 && epoch != 0 && postulate != 0, Error::Id)?;
                let rows = (0..count(&mut from)?).map(|_| {
                    let app = AppId(from.u32()?);
                    let directive = match from.u8()? {
                        0 => None,
                        byte => Some(Directive::from_byte(byte).ok_or(Error::Directive)?),
                    };
                    Ok((app, directive))
                });
                let rows = rows.collect::<Result<Vec<_>, _>>()?;
                rising(&rows)?;
                Self::PostulateWrong(PostulateWrong {
                    host,
                    epoch,
                    postulate,
                    rows,
                })
            }
            8 => Self::Membership(Membership::decode(&mut from)?),
            9 => Self::MemberHeartbeat(MemberHeartbeat::decode(&mut from)?),
            10 => Self::Consolidated(Consolidated::decode(&mut from)?),
            11 => Self::Heard(Heard::decode(&mut from)?),
            12 => Self::PassedOn(PassedOn::decode(&mut from)?),
            13 => Self::Changes(Changes::decode(&mut from)?),
            14 => Self::HeardPart(HeardPart::decode(&mut from)?),
            _ => return Err(Error::Type),
        };
        from.end()?;
        Ok(message)
    }
}

pub(crate) fn check(condition: bool, error: Error) -> Result<(), Error> {
    condition.then_some(()).ok_or(error)
}

fn count(from: &mut Reader<'_>) -> Result<usize, Error> {
    let count = usize::from(from.u16()?);
    check(count <= OPERATIONS_MAX, Error::Count)?;
    Ok(count)
}

fn rising<T>(rows: &[(AppId, T)]) -> Result<(), Error> {
    check(rows.is_sorted_by(|a, b| a.0 < b.0), Error::Order)
}

fn check_age_limit(age_limit: u32) -> Result<(), Error> {
    let bounds = AGE_LIMIT_MIN..=AGE_LIMIT_MAX;
    check(bounds.contains(&age_limit), Error::AgeLimit)
}

fn age_limit(from: &mut Reader<'_>) -> Result<u32, Error> {
    let age_limit = from.u32()?;
    check_age_limit(age_limit)?;
    Ok(age_limit)
}

impl Heartbeat {
    fn encode(&self, out: &mut Vec<u8>) {
        out.u64(self.beat);
        out.u32(self.age_limit);
        out.u8(u8::from(self.forward) * FORWARD);
        out.u8(self.generations.len() as u8);
        let name = self.name.as_deref().unwrap_or("");
        out.u8(name.len() as u8);
        out.u8(0);
        for generation in &self.generations {
            out.u64(*generation);
        }
        out.extend(name.as_bytes());
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Error> {
        let beat = from.u64()?;
        check(beat != 0, Error::Id)?;
        let age_limit = age_limit(from)?;
        let flags = from.u8()?;
        let chunks = from.u8()?;
        let name_len = usize::from(from.u8()?);
        check(flags & !FORWARD == 0 && from.u8()? == 0, Error::Reserved)?;
        check((1..=CHUNKS_MAX).contains(&chunks), Error::Chunk)?;
        let generations = (0..chunks).map(|_| from.u64()).collect::<Result<_, _>>()?;
        let name = from.bytes(name_len)?;
        check(name.is_empty() || is_dns_name(name), Error::Name)?;
        // ASCII, as just checked.
        let name = std::str::from_utf8(name).map_err(|_| Error::Name)?;
        Ok(Self {
            beat,
            age_limit,
            forward: flags & FORWARD != 0,
            generations,
            name: (!name.is_empty()).then(|| name.to_owned()),
        })
    }
}

fn snapshot(from: &mut Reader<'_>) -> Result<Snapshot, Error> {
    let (lbu, request) = (from.u32()?, from.u64()?);
    check(lbu != 0 && request != 0, Error::Id)?;
    let age_limit = age_limit(from)?;
    let (chunks, chunk) = (from.u8()?, from.u8()?);
    check(
        (1..=CHUNKS_MAX).contains(&chunks) && chunk < chunks,
        Error::Chunk,
    )?;
    let generation = from.u64()?;
    let (parts, part) = (from.u16()?, from.u16()?);
    check(parts <= PARTS_MAX && part < parts, Error::Part)?;
    let rows = (0..count(from)?).map(|_| {
        let app = AppId(from.u32()?);
        check(app.0 % u32::from(chunks) == u32::from(chunk), Error::Chunk)?;
        Ok((app, row::row(from)?))
    });
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    rising(&rows)?;
    // Only a chunk without rows has a part without any, and only a new one has never been changed.
    check(!rows.is_empty() || parts == 1, Error::Count)?;
    check(rows.is_empty() || generation != 0, Error::Generation)?;
    Ok(Snapshot {
        lbu,
        request,
        age_limit,
        chunks,
        chunk,
        generation,
        parts,
        part,
        rows,
    })
}

/// Bytes of a row in a snapshot, with its id.
pub(crate) fn row_len(row: &Row) -> usize {
    let mut bytes = Vec::new();
    row::encode_row(row, &mut bytes);
    4 + bytes.len()
}

/// Bytes of a snapshot's body in front of its rows.
pub(crate) const SNAPSHOT_HEAD: usize = 32;

/// Bytes of an operation.
pub(crate) fn operation_len(operation: &Operation) -> usize {
    let mut bytes = Vec::new();
    row::encode_operation(operation, &mut bytes);
    bytes.len()
}
