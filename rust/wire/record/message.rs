// SPDX-License-Identifier: GPL-2.0

//! Records as values, and all payloads but those of PREPARE and STATE.

use core::str;

use super::{
    super::field,
    codec::{
        Prepare,
        State, //
    },
    seal,
    state::ConnectionState,
    Error,
    Header,
    Type,
    HEADER_LEN, //
};

/// Most bytes of the text that comes with a code.
pub const MAX_TEXT: usize = 128;

const HELLO_LEN: usize = 16;
const INJECTED_LEN: usize = 12;

/// What a record says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Record<'a> {
    /// See [`Hello`].
    Hello(Hello),
    /// See [`Prepare`].
    Prepare(Prepare<'a>),
    /// The target takes the connection and holds its packets. No payload.
    Ready,
    /// The target does not take it.
    Refused(Reason<'a>),
    /// A piece of the state.
    State(State<'a>),
    /// The target has the whole state. No payload.
    Staged,
    /// The connection is the target's. No payload.
    Commit,
    /// The connection waits to be accepted: 8 and 4 bytes.
    Injected {
        /// How long it took to make the socket, in nanoseconds.
        inject_ns: u64,
        /// How many packets had come early and been held.
        held: u32,
    },
    /// The target could not do it.
    Failed(Reason<'a>),
    /// The connection stays with the origin, or was reset by it. No payload.
    Abort,
    /// The target has forgotten about it. No payload.
    Aborted,
    /// The connection has ended at the target. No payload.
    Closed,
    /// A number to be sent back: 8 bytes.
    Ping(u64),
    /// The number of the PING: 8 bytes.
    Pong(u64),
}

/// The first record each way: 16 bytes.
///
/// Lowest and highest version (1 byte each), 2 bytes zero, capabilities (4), boot id (8).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Hello {
    /// Lowest version of records that the sender understands.
    pub min_version: u8,
    /// Highest version of records that the sender understands.
    pub max_version: u8,
    /// Bits to agree on extensions by, none so far. What is used is what both sides have. An unknown
    /// bit is ignored, unless it is one of [`Hello::REQUIRED`]: these the sender cannot do without,
    /// and who does not know one refuses the sender.
    pub capabilities: u32,
    /// A random number of this run of the sender. Another one than before says that it has
    /// forgotten all migrations.
    pub boot_id: u64,
}

impl Hello {
    /// The capabilities that the other side must know, the upper half.
    pub const REQUIRED: u32 = 0xffff_0000;

    /// What the sender requires beyond the capabilities that are `known`; 0 if nothing.
    pub fn requires_beyond(&self, known: u32) -> u32 {
        self.capabilities & Self::REQUIRED & !known
    }

    /// The highest version that both sides understand.
    pub fn common_version(&self, other: &Hello) -> Option<u8> {
        let highest = self.max_version.min(other.max_version);
        let lowest = self.min_version.max(other.min_version);
        (lowest <= highest).then_some(highest)
    }

    fn parse(payload: &[u8]) -> Result<Hello, Error> {
        let payload: &[u8; HELLO_LEN] = payload.try_into().map_err(|_| Error::BadLength)?;
        let [min_version, max_version, zero @ ..] = field::array::<4>(payload, 0);
        if min_version == 0 || min_version > max_version || zero != [0; 2] {
            return Err(Error::BadValue);
        }
        Ok(Hello {
            min_version,
            max_version,
            capabilities: field::u32(payload, 4),
            boot_id: u64::from_be_bytes(field::array(payload, 8)),
        })
    }

    fn emit(&self) -> [u8; HELLO_LEN] {
        let mut bytes = [0; HELLO_LEN];
        field::put(&mut bytes, 0, [self.min_version, self.max_version]);
        field::put(&mut bytes, 4, self.capabilities.to_be_bytes());
        field::put(&mut bytes, 8, self.boot_id.to_be_bytes());
        bytes
    }
}

/// Why a target does not have the connection: a code (4 bytes) and up to [`MAX_TEXT`] bytes of
/// UTF-8 without control characters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reason<'a> {
    /// A number that never changes its meaning; unknown ones are no error.
    pub code: u32,
    /// One line for people.
    pub text: &'a str,
}

impl<'a> Reason<'a> {
    fn parse(payload: &'a [u8]) -> Result<Reason<'a>, Error> {
        let (code, text) = payload.split_first_chunk().ok_or(Error::BadLength)?;
        let reason = Reason {
            code: u32::from_be_bytes(*code),
            text: str::from_utf8(text).map_err(|_| Error::BadText)?,
        };
        reason.check()?;
        Ok(reason)
    }

    fn check(&self) -> Result<(), Error> {
        if self.text.len() > MAX_TEXT || self.text.chars().any(char::is_control) {
            return Err(Error::BadText);
        }
        Ok(())
    }

    fn emit(&self, payload: &mut [u8]) -> Result<usize, Error> {
        self.check()?;
        let (code, rest) = payload.split_first_chunk_mut().ok_or(Error::NoSpace)?;
        *code = self.code.to_be_bytes();
        Ok(copy(rest, self.text.as_bytes())?.saturating_add(code.len()))
    }
}

impl<'a> Record<'a> {
    /// Reads the payload of the record that `header` begins, its CRC checked first.
    ///
    /// The state of a connection goes into `room`, being large; after an error, nothing there means
    /// anything.
    pub fn decode(
        header: &Header,
        payload: &'a [u8],
        room: &'a mut Option<ConnectionState>,
    ) -> Result<Record<'a>, Error> {
        header.check(payload)?;
        let number = || match <[u8; 8]>::try_from(payload) {
            Ok(bytes) => Ok(u64::from_be_bytes(bytes)),
            Err(_) => Err(Error::BadLength),
        };
        let bare = |record| {
            if payload.is_empty() {
                Ok(record)
            } else {
                Err(Error::BadLength)
            }
        };
        match header.kind() {
            Type::Hello => Hello::parse(payload).map(Record::Hello),
            Type::Prepare => Prepare::parse(payload, room).map(Record::Prepare),
            Type::Ready => bare(Record::Ready),
            Type::Refused => Reason::parse(payload).map(Record::Refused),
            Type::State => State::parse(payload, header.is_last(), room).map(Record::State),
            Type::Staged => bare(Record::Staged),
            Type::Commit => bare(Record::Commit),
            Type::Injected if payload.len() == INJECTED_LEN => Ok(Record::Injected {
                inject_ns: u64::from_be_bytes(field::array(payload, 0)),
                held: field::u32(payload, 8),
            }),
            Type::Injected => Err(Error::BadLength),
            Type::Failed => Reason::parse(payload).map(Record::Failed),
            Type::Abort => bare(Record::Abort),
            Type::Aborted => bare(Record::Aborted),
            Type::Closed => bare(Record::Closed),
            Type::Ping => number().map(Record::Ping),
            Type::Pong => number().map(Record::Pong),
        }
    }

    /// The type of the record.
    pub const fn kind(&self) -> Type {
        match self {
            Record::Hello(_) => Type::Hello,
            Record::Prepare(_) => Type::Prepare,
            Record::Ready => Type::Ready,
            Record::Refused(_) => Type::Refused,
            Record::State(_) => Type::State,
            Record::Staged => Type::Staged,
            Record::Commit => Type::Commit,
            Record::Injected { .. } => Type::Injected,
            Record::Failed(_) => Type::Failed,
            Record::Abort => Type::Abort,
            Record::Aborted => Type::Aborted,
            Record::Closed => Type::Closed,
            Record::Ping(_) => Type::Ping,
            Record::Pong(_) => Type::Pong,
        }
    }

    /// Writes the whole record, header included, and returns its length.
    ///
    /// `id` is the migration id, zero for HELLO, PING and PONG. [`SHORT_MAX`](super::SHORT_MAX)
    /// bytes are enough for all but STATE, [`RECORD_MAX`](super::RECORD_MAX) for all. Errors:
    /// [`Error::NoSpace`], those of [`Header::new`], [`Error::BadText`], and for PREPARE and STATE
    /// whatever the receiver would refuse.
    pub fn encode(&self, id: u64, record: &mut [u8]) -> Result<usize, Error> {
        let payload = record.get_mut(HEADER_LEN..).ok_or(Error::NoSpace)?;
        let mut last = false;
        let len = match self {
            Record::Hello(hello) => copy(payload, &hello.emit())?,
            Record::Prepare(prepare) => prepare.emit(payload)?,
            Record::Refused(reason) | Record::Failed(reason) => reason.emit(payload)?,
            Record::State(state) => {
                last = state.is_last();
                state.emit(payload)?
            }
            Record::Injected { inject_ns, held } => {
                let mut bytes = [0; INJECTED_LEN];
                field::put(&mut bytes, 0, inject_ns.to_be_bytes());
                field::put(&mut bytes, 8, held.to_be_bytes());
                copy(payload, &bytes)?
            }
            Record::Ping(number) | Record::Pong(number) => copy(payload, &number.to_be_bytes())?,
            Record::Ready
            | Record::Staged
            | Record::Commit
            | Record::Abort
            | Record::Aborted
            | Record::Closed => 0,
        };
        seal(record, self.kind(), last, id, len)
    }
}

/// Copies `bytes` to the start of `buffer` and returns how many they are.
fn copy(buffer: &mut [u8], bytes: &[u8]) -> Result<usize, Error> {
    buffer
        .get_mut(..bytes.len())
        .ok_or(Error::NoSpace)?
        .copy_from_slice(bytes);
    Ok(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::super::super::{
        addr::Addr,
        flow_id::FlowId, //
    };
    use super::{
        super::{
            parse,
            state::tests::EXAMPLE,
            SHORT_MAX, //
        },
        *,
    };
    use std::{
        string::String,
        vec::Vec, //
    };

    const HELLO: Hello = Hello {
        min_version: 1,
        max_version: 1,
        capabilities: 0,
        boot_id: 0x1122_3344_5566_7788,
    };

    fn encode(record: &Record<'_>, id: u64) -> Vec<u8> {
        let mut bytes = [0xff; 1024];
        let len = record.encode(id, &mut bytes).unwrap();
        bytes[..len].to_vec()
    }

    #[test]
    fn round_trip() {
        let text: String = "x".repeat(MAX_TEXT);
        let prepare = Prepare {
            forwarder: Addr::v4([10, 0, 0, 1]),
            flow_id: FlowId::nth(0),
            timeout_ms: 1000,
            connection: &EXAMPLE,
        };
        let state = State {
            connection: Some(&EXAMPLE),
            offset: 0,
            total: 101,
            data: &[7; 101],
        };
        for (record, id) in [
            (Record::Hello(HELLO), 0),
            (Record::Prepare(prepare), 9),
            (Record::Ready, 9),
            (Record::Refused(Reason { code: 1, text: "" }), 9),
            (Record::State(state), u64::MAX),
            (Record::Staged, 9),
            (Record::Commit, 9),
            (
                Record::Injected {
                    inject_ns: 0x1_0000_0001,
                    held: 5,
                },
                9,
            ),
            (
                Record::Failed(Reason {
                    code: u32::MAX,
                    text: &text,
                }),
                9,
            ),
            (Record::Abort, 9),
            (Record::Aborted, 9),
            (Record::Closed, 9),
            (Record::Ping(7), 0),
            (Record::Pong(7), 0),
        ] {
            let bytes = encode(&record, id);
            assert!(bytes.len() <= SHORT_MAX || record.kind() == Type::State);
            let (header, payload) = parse(&bytes).unwrap();
            assert_eq!(header.id(), id);
            assert_eq!(header.kind(), record.kind());
            assert_eq!(Record::decode(&header, payload, &mut None), Ok(record));
            let other = if id == 0 { 1 } else { 0 };
            match record {
                // About a migration, or about the connection between the migrators.
                Record::Refused(_) => assert!(record.encode(other, &mut [0; 1024]).is_ok()),
                _ => assert_eq!(record.encode(other, &mut [0; 1024]), Err(Error::BadId)),
            }
            for len in 0..bytes.len() {
                let mut short = [0; 1024];
                assert_eq!(record.encode(id, &mut short[..len]), Err(Error::NoSpace));
            }
        }
    }

    /// Decodes a payload of any length with a right header around it.
    fn decode(kind: Type, payload: &[u8]) -> Result<(), Error> {
        let mut bytes = [0; 1024];
        bytes[HEADER_LEN..HEADER_LEN + payload.len()].copy_from_slice(payload);
        let id = u64::from(!matches!(kind, Type::Hello | Type::Ping | Type::Pong));
        let len = seal(&mut bytes, kind, false, id, payload.len()).unwrap();
        let (header, payload) = parse(&bytes[..len]).unwrap();
        Record::decode(&header, payload, &mut None).map(|_| ())
    }

    #[test]
    fn wrong_lengths_are_refused() {
        for (kind, right) in [
            (Type::Ready, 0),
            (Type::Staged, 0),
            (Type::Commit, 0),
            (Type::Injected, 12),
            (Type::Abort, 0),
            (Type::Aborted, 0),
            (Type::Closed, 0),
            (Type::Ping, 8),
            (Type::Pong, 8),
        ] {
            for len in 0..20 {
                let want = if len == right {
                    Ok(())
                } else {
                    Err(Error::BadLength)
                };
                assert_eq!(decode(kind, &[0; 20][..len]), want, "{kind:?} {len}");
            }
        }
        assert_eq!(decode(Type::Hello, &[1; 15]), Err(Error::BadLength));
        assert_eq!(decode(Type::Hello, &[1; 17]), Err(Error::BadLength));
        assert!(decode(Type::Prepare, &[]).is_err());
        assert!(decode(Type::State, &[]).is_err());
    }

    #[test]
    fn bad_texts_are_refused() {
        for (payload, want) in [
            (&[0, 0, 0][..], Error::BadLength),
            (&[0, 0, 0, 1, 0xff], Error::BadText),
            (&[0, 0, 0, 1, b'a', b'\n'], Error::BadText),
            (&[0, 0, 0, 1, 0x1b, b'['], Error::BadText),
            (&[b'x'; 4 + MAX_TEXT + 1], Error::BadText),
        ] {
            assert_eq!(decode(Type::Failed, payload), Err(want));
            assert_eq!(decode(Type::Refused, payload), Err(want));
        }
        let record = Record::Refused(Reason {
            code: 1,
            text: "a\0",
        });
        assert_eq!(record.encode(1, &mut [0; 64]), Err(Error::BadText));
    }

    #[test]
    fn versions() {
        let range = |min_version, max_version| Hello {
            min_version,
            max_version,
            ..HELLO
        };
        assert_eq!(range(1, 3).common_version(&range(2, 5)), Some(3));
        assert_eq!(range(1, 1).common_version(&range(1, 1)), Some(1));
        assert_eq!(range(1, 1).common_version(&range(2, 5)), None);
        for bytes in [[0, 1, 0, 0], [2, 1, 0, 0], [1, 1, 0, 1]] {
            let mut payload = [0; HELLO_LEN];
            payload[..4].copy_from_slice(&bytes);
            assert_eq!(decode(Type::Hello, &payload), Err(Error::BadValue));
        }
    }

    #[test]
    fn capabilities() {
        let hello = |capabilities| Hello {
            capabilities,
            ..HELLO
        };
        assert_eq!(hello(0).requires_beyond(0), 0);
        assert_eq!(hello(0xffff).requires_beyond(0), 0);
        assert_eq!(hello(0x0005_0001).requires_beyond(0x0001_0001), 0x0004_0000);
        assert_eq!(hello(u32::MAX).requires_beyond(u32::MAX), 0);
    }

    #[test]
    fn decode_checks_the_crc() {
        let mut bytes = encode(&Record::Ping(7), 0);
        let header = Header::parse(bytes.first_chunk().unwrap()).unwrap();
        bytes[HEADER_LEN + 7] = 8;
        let payload = &bytes[HEADER_LEN..];
        let room = &mut None;
        let decoded = Record::decode(&header, payload, room);
        assert_eq!(decoded, Err(Error::BadCrc));
        let decoded = Record::decode(&header, &payload[1..], room);
        assert_eq!(decoded, Err(Error::Truncated));
    }
}
