// SPDX-License-Identifier: GPL-2.0

//! The records that migrators exchange over TCP port 4770.
//!
//! ```text
//!  0               1               2               3
//! +---------------------------------------------------------------+
//! |                    magic "nlbm" = 6e 6c 62 6d                 |
//! +---------------+---------------+-------------------------------+
//! |    version    |     type      |             flags             |
//! +---------------+---------------+-------------------------------+
//! |                       length of the payload                   |
//! +---------------------------------------------------------------+
//! |                         migration id                          |
//! |                           (64 bits)                           |
//! +---------------------------------------------------------------+
//! |                            CRC-32C                            |
//! +---------------------------------------------------------------+
//! ```
//!
//! All numbers are big-endian. The CRC covers the header, its own field being zero, and the
//! payload. Types and payloads: [`Record`]. What a connection looks like: `record/codec.rs`.
//! Documentation/migration-protocol.rst has all of it for another implementation.
//!
//! A stream is read by [`Header::parse`] on [`HEADER_LEN`] bytes, then as many payload bytes as it
//! says, then [`Record::decode`]. Anything that is not exactly as specified is an error, after
//! which the stream cannot be trusted any more: close it.

mod codec;
mod message;
mod options;
mod range;
mod section;
mod state;

pub use self::{
    codec::{
        Prepare,
        State,
        StateHead,
        CHUNK_MAX,
        TIMEOUT_MAX_MS, //
    },
    message::{
        Hello,
        Reason,
        Record,
        MAX_TEXT, //
    },
    options::{
        CongestionControl,
        SocketOptions, //
    },
    range::{
        Range,
        Ranges, //
    },
    state::{
        ConnectionState,
        Invalid,
        Part,
        Run,
        MAX_MSS,
        MAX_OUT_OF_ORDER,
        MAX_SACKS,
        MIN_MSS, //
    },
};

use core::fmt;

use super::{
    crc32c::{
        crc32c,
        Crc32c, //
    },
    field, //
};

/// The TCP port of migrators.
pub const PORT: u16 = 4770;

/// The version of this format.
pub const VERSION: u8 = 1;

/// Bytes of a record's header.
pub const HEADER_LEN: usize = 24;

/// Most bytes of a record's payload.
pub const MAX_PAYLOAD: usize = 65536;

/// No record is longer, header included.
pub const RECORD_MAX: usize = HEADER_LEN + MAX_PAYLOAD;

/// No record but STATE is longer, header included.
pub const SHORT_MAX: usize = HEADER_LEN + codec::PREPARE_LEN;

const _: () = assert!(codec::PREPARE_LEN >= 4 + MAX_TEXT);

const MAGIC: [u8; 4] = *b"nlbm";
const CRC: usize = 20;

/// Flag of the last STATE record of a migration.
const LAST: u16 = 1;

/// What a record is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Type {
    /// Both ways, first on every connection: versions, capabilities, boot nonce.
    Hello = 1,
    /// Origin: would you take this connection?
    Prepare = 2,
    /// Target: yes; its packets are held from now on.
    Ready = 3,
    /// Target: no, for this reason; nothing has changed. Without an id, both ways, after HELLO: I
    /// cannot talk to you.
    Refused = 4,
    /// Origin: (a piece of) the connection's state.
    State = 5,
    /// Target: the state is complete and good, memory is there.
    Staged = 6,
    /// Origin: it is yours.
    Commit = 7,
    /// Target: the application can accept it.
    Injected = 8,
    /// Target: it could not be done, for this reason; the connection is not here.
    Failed = 9,
    /// Origin: forget it, the connection stays with me or was reset.
    Abort = 10,
    /// Target: forgotten.
    Aborted = 11,
    /// Target: the application has ended the connection.
    Closed = 12,
    /// Are you there?
    Ping = 13,
    /// I am.
    Pong = 14,
}

impl Type {
    /// The type with this number.
    pub const fn from_number(number: u8) -> Option<Type> {
        Some(match number {
            1 => Type::Hello,
            2 => Type::Prepare,
            3 => Type::Ready,
            4 => Type::Refused,
            5 => Type::State,
            6 => Type::Staged,
            7 => Type::Commit,
            8 => Type::Injected,
            9 => Type::Failed,
            10 => Type::Abort,
            11 => Type::Aborted,
            12 => Type::Closed,
            13 => Type::Ping,
            14 => Type::Pong,
            _ => return None,
        })
    }

    /// Whether a record can have this migration id: zero if it is about the connection between the
    /// migrators itself, another one if it is about a migration.
    const fn fits(self, id: u64) -> bool {
        match self {
            Type::Hello | Type::Ping | Type::Pong => id == 0,
            Type::Refused => true,
            _ => id != 0,
        }
    }
}

/// Why bytes are not accepted as a record, or something cannot be written as one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Error {
    /// Fewer bytes than there should be.
    Truncated,
    /// The stream is not one of records.
    BadMagic,
    /// A version other than [`VERSION`].
    BadVersion(u8),
    /// No record type has this number.
    BadType(u8),
    /// A flag that the type does not have.
    BadFlags,
    /// The migration id is zero where there must be one, or the other way round.
    BadId,
    /// The payload is larger than [`MAX_PAYLOAD`], or there is more data than announced or allowed.
    TooLong,
    /// The CRC is wrong.
    BadCrc,
    /// The payload or a section does not have the length its type demands.
    BadLength,
    /// A field holds a value that is not allowed.
    BadValue,
    /// A text is too long, no UTF-8, or has control characters.
    BadText,
    /// A section is there twice.
    Duplicate(u16),
    /// A section of an unknown type that may not be skipped.
    UnknownSection(u16),
    /// A section that must be there is not.
    MissingSection(u16),
    /// A section that has no place in this record.
    UnexpectedSection(u16),
    /// The fields contradict each other.
    Invalid(Invalid),
    /// The given buffer is too small.
    NoSpace,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Truncated => f.write_str("record is cut off"),
            Error::BadMagic => f.write_str("no record starts here"),
            Error::BadVersion(version) => write!(f, "version {version} is not supported"),
            Error::BadType(number) => write!(f, "unknown record type {number}"),
            Error::BadFlags => f.write_str("unknown flag"),
            Error::BadId => f.write_str("bad migration id"),
            Error::TooLong => f.write_str("too much data"),
            Error::BadCrc => f.write_str("wrong CRC"),
            Error::BadLength => f.write_str("wrong length"),
            Error::BadValue => f.write_str("value out of range"),
            Error::BadText => f.write_str("bad text"),
            Error::Duplicate(section) => write!(f, "section {section} is there twice"),
            Error::UnknownSection(section) => write!(f, "unknown section {section}"),
            Error::MissingSection(section) => write!(f, "section {section} is missing"),
            Error::UnexpectedSection(section) => {
                write!(f, "section {section} does not belong here")
            }
            Error::Invalid(invalid) => fmt::Display::fmt(invalid, f),
            Error::NoSpace => f.write_str("buffer too small"),
        }
    }
}

/// The header of a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    kind: Type,
    last: bool,
    len: u32,
    id: u64,
    crc: u32,
}

impl Header {
    /// A header for a payload of `len` bytes.
    ///
    /// Errors: [`Error::TooLong`]; [`Error::BadId`] unless `id` is zero for HELLO, PING and PONG, any
    /// for REFUSED, and not zero for all others; [`Error::BadFlags`] if `last` is set for anything but STATE.
    pub fn new(kind: Type, last: bool, id: u64, len: usize) -> Result<Header, Error> {
        if len > MAX_PAYLOAD {
            return Err(Error::TooLong);
        }
        if !kind.fits(id) {
            return Err(Error::BadId);
        }
        if last && kind != Type::State {
            return Err(Error::BadFlags);
        }
        Ok(Header {
            kind,
            last,
            len: len as u32,
            id,
            crc: 0,
        })
    }

    /// Reads a header. The payload that follows has [`Header::payload_len`] bytes, which never
    /// exceeds [`MAX_PAYLOAD`].
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Header, Error> {
        if field::array(bytes, 0) != MAGIC {
            return Err(Error::BadMagic);
        }
        let [version, kind] = field::array(bytes, 4);
        if version != VERSION {
            return Err(Error::BadVersion(version));
        }
        let kind = Type::from_number(kind).ok_or(Error::BadType(kind))?;
        let flags = field::u16(bytes, 6);
        if flags & !LAST != 0 {
            return Err(Error::BadFlags);
        }
        let id = u64::from_be_bytes(field::array(bytes, 12));
        let len = field::u32(bytes, 8) as usize;
        let mut header = Header::new(kind, flags & LAST != 0, id, len)?;
        header.crc = field::u32(bytes, CRC);
        Ok(header)
    }

    /// What the record is.
    pub const fn kind(&self) -> Type {
        self.kind
    }

    /// Whether this is the last STATE record.
    pub const fn is_last(&self) -> bool {
        self.last
    }

    /// Bytes of the payload.
    pub const fn payload_len(&self) -> usize {
        self.len as usize
    }

    /// The migration id; zero for records about the connection between the migrators itself.
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Whether `payload` is the one that belongs to this header, by length and CRC.
    fn check(&self, payload: &[u8]) -> Result<(), Error> {
        if payload.len() != self.payload_len() {
            return Err(Error::Truncated);
        }
        if self.compute_crc(&[payload]) != self.crc {
            return Err(Error::BadCrc);
        }
        Ok(())
    }

    /// The bytes of the header for a payload that lies in several pieces.
    ///
    /// Errors with [`Error::BadLength`] if the pieces do not add up to [`Header::payload_len`].
    pub fn emit(&self, payload: &[&[u8]]) -> Result<[u8; HEADER_LEN], Error> {
        let len = payload
            .iter()
            .fold(0usize, |len, piece| len.saturating_add(piece.len()));
        if len != self.payload_len() {
            return Err(Error::BadLength);
        }
        let mut bytes = self.bytes();
        field::put(&mut bytes, CRC, self.compute_crc(payload).to_be_bytes());
        Ok(bytes)
    }

    /// The header with a CRC of zero.
    fn bytes(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        field::put(&mut bytes, 0, MAGIC);
        field::put(&mut bytes, 4, [VERSION, self.kind as u8]);
        let flags = if self.last { LAST } else { 0 };
        field::put(&mut bytes, 6, flags.to_be_bytes());
        field::put(&mut bytes, 8, self.len.to_be_bytes());
        field::put(&mut bytes, 12, self.id.to_be_bytes());
        bytes
    }

    fn compute_crc(&self, payload: &[&[u8]]) -> u32 {
        let mut crc = Crc32c::new();
        crc.update(&self.bytes());
        for piece in payload {
            crc.update(piece);
        }
        crc.finish()
    }
}

/// Writes the header for the `len` payload bytes that lie behind it in `record` already.
///
/// Returns the length of the whole record. Errors: those of [`Header::new`], and
/// [`Error::NoSpace`] if `record` is too short.
pub fn seal(
    record: &mut [u8],
    kind: Type,
    last: bool,
    id: u64,
    len: usize,
) -> Result<usize, Error> {
    let header = Header::new(kind, last, id, len)?;
    let end = HEADER_LEN.saturating_add(len);
    let bytes = record.get_mut(..end).ok_or(Error::NoSpace)?;
    field::put(bytes, 0, header.bytes());
    let crc = crc32c(bytes);
    field::put(bytes, CRC, crc.to_be_bytes());
    Ok(end)
}

/// Reads the record at the start of `bytes`: its header, checked, and its payload.
///
/// Errors: [`Error::Truncated`] if more bytes are needed, else the stream is broken.
pub fn parse(bytes: &[u8]) -> Result<(Header, &[u8]), Error> {
    let header = Header::parse(bytes.first_chunk().ok_or(Error::Truncated)?)?;
    let end = HEADER_LEN.saturating_add(header.payload_len());
    let payload = bytes.get(HEADER_LEN..end).ok_or(Error::Truncated)?;
    header.check(payload)?;
    Ok((header, payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// COMMIT of migration 0x0102030405060708; the CRC by another implementation.
    const COMMIT: [u8; 24] = [
        0x6e, 0x6c, 0x62, 0x6d, 1, 7, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0x1c, 0xe2, 0x12,
        0x91,
    ];

    #[test]
    fn exact_bytes() {
        let mut bytes = [0xff; 24];
        let len = seal(&mut bytes, Type::Commit, false, 0x0102_0304_0506_0708, 0);
        assert_eq!(len, Ok(24));
        assert_eq!(bytes, COMMIT);
        let (header, payload) = parse(&COMMIT).unwrap();
        assert_eq!(header.kind(), Type::Commit);
        assert_eq!(header.id(), 0x0102_0304_0506_0708);
        assert!(payload.is_empty() && !header.is_last());
        assert_eq!(
            Record::decode(&header, payload, &mut None),
            Ok(Record::Commit)
        );
    }

    #[test]
    fn every_broken_bit_is_noticed() {
        let mut record = [0; 40];
        let len = seal(&mut record, Type::State, true, 7, 16).unwrap();
        assert_eq!(len, 40);
        assert!(parse(&record).is_ok());
        for bit in 0..40 * 8 {
            let mut broken = record;
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&broken).is_err(), "bit {bit}");
        }
        for len in 0..40 {
            assert_eq!(parse(&record[..len]).err(), Some(Error::Truncated));
        }
    }

    #[test]
    fn headers_are_judged_before_the_payload_comes() {
        for (offset, value, want) in [
            (0, 0, Error::BadMagic),
            (4, 2, Error::BadVersion(2)),
            (5, 0, Error::BadType(0)),
            (5, 15, Error::BadType(15)),
            (6, 1, Error::BadFlags),
            (7, 1, Error::BadFlags),
            (8, 1, Error::TooLong),
            (5, 1, Error::BadId),
        ] {
            let mut bytes = COMMIT;
            bytes[offset] = value;
            assert_eq!(Header::parse(&bytes), Err(want));
        }
        let mut bytes = COMMIT;
        bytes[12..20].fill(0);
        assert_eq!(Header::parse(&bytes), Err(Error::BadId));
        let max = Header::new(Type::State, false, 1, MAX_PAYLOAD);
        assert!(max.is_ok());
        let above = Header::new(Type::State, false, 1, MAX_PAYLOAD + 1);
        assert_eq!(above, Err(Error::TooLong));
    }

    #[test]
    fn pieces_must_add_up() {
        let header = Header::new(Type::State, false, 1, 3).unwrap();
        let bytes = header.emit(&[b"a", b"", b"bc"]).unwrap();
        assert_eq!(header.emit(&[b"abc"]), Ok(bytes));
        assert_eq!(header.emit(&[b"ab"]), Err(Error::BadLength));
        assert!(Header::parse(&bytes).unwrap().check(b"abc").is_ok());
        assert_eq!(
            seal(&mut [0; 26], Type::State, false, 1, 3),
            Err(Error::NoSpace)
        );
    }

    #[test]
    fn type_numbers() {
        for number in 0..=255 {
            if let Some(kind) = Type::from_number(number) {
                assert_eq!(kind as u8, number);
            } else {
                assert!(number == 0 || number > 14);
            }
        }
    }
}
