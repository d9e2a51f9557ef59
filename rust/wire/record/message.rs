// SPDX-License-Identifier: GPL-2.0

//! The payloads of all records but STATE.

use core::str;

use super::{
    super::{
        addr::{
            Addr,
            FourTuple,
            Proto, //
        },
        field,
        flow_id::FlowId, //
    },
    seal,
    Error,
    Header,
    Type,
    HEADER_LEN, //
};

/// Most bytes of the text that comes with a code.
pub const MAX_TEXT: usize = 128;

/// No record other than STATE is longer, its header included.
pub const MESSAGE_MAX_LEN: usize = HEADER_LEN + 2 + MAX_TEXT;

const HELLO_LEN: usize = 16;
const PREPARE_LEN: usize = 64;

/// What a record says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Message<'a> {
    /// See [`Hello`].
    Hello(Hello),
    /// See [`Prepare`].
    Prepare(Prepare),
    /// The target takes the connection and holds its packets. No payload.
    Ready,
    /// The target does not take it.
    Refused(Reason<'a>),
    /// A piece of the state, for a [`StateReader`](super::StateReader).
    State {
        /// The sections.
        payload: &'a [u8],
        /// Whether this is the last piece.
        last: bool,
    },
    /// The target has the whole state. No payload.
    Staged,
    /// The connection is the target's. No payload.
    Commit,
    /// The connection waits to be accepted. No payload.
    Injected,
    /// The target could not do it.
    Failed(Reason<'a>),
    /// The connection stays with the origin. No payload.
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
/// Lowest and highest version (1 byte each), 2 bytes zero, capabilities (4), boot nonce (8).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Hello {
    /// Lowest version of records that the sender understands.
    pub min_version: u8,
    /// Highest version of records that the sender understands.
    pub max_version: u8,
    /// Bits to agree on extensions by; unknown ones are ignored. None so far.
    pub capabilities: u32,
    /// A random number of this run of the sender. Another one than before says that it has
    /// forgotten all migrations.
    pub boot_nonce: u64,
}

impl Hello {
    /// The highest version that both sides understand.
    pub fn common_version(&self, other: &Hello) -> Option<u8> {
        let highest = self.max_version.min(other.max_version);
        let lowest = self.min_version.max(other.min_version);
        (lowest <= highest).then_some(highest)
    }
}

/// The question whether the target would take a connection: 64 bytes.
///
/// Protocol (1), option bits (1: window scale 1, SACK 2, timestamps 4), 2 bytes zero, flow id (4),
/// unread bytes (4), client port (2), VIP port (2), client address, VIP, forwarder address (16
/// each, IPv4 in IPv4-mapped form).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Prepare {
    /// The connection.
    pub tuple: FourTuple,
    /// How the client's packets come to the target: the forwarder's address and the flow id in its
    /// tunnel. None (zeroes) if they come as they are.
    pub mapping: Option<(Addr, FlowId)>,
    /// How many unread bytes the state will bring, as far as can be said before the freeze.
    pub unread_len: u32,
    /// Window scaling is in use.
    pub wscale_ok: bool,
    /// Selective acknowledgments are in use.
    pub sack_ok: bool,
    /// Timestamps are in use.
    pub tstamp_ok: bool,
}

impl Prepare {
    fn parse(payload: &[u8]) -> Result<Prepare, Error> {
        if payload.len() != PREPARE_LEN {
            return Err(Error::BadLength);
        }
        let [proto, options] = field::array(payload, 0);
        if options & !7 != 0 || field::u16(payload, 2) != 0 {
            return Err(Error::BadValue);
        }
        let addr = |offset| Addr::v6(field::array(payload, offset));
        let tuple = FourTuple::new(
            addr(16),
            field::u16(payload, 12),
            addr(32),
            field::u16(payload, 14),
            Proto::from_number(proto).ok_or(Error::BadValue)?,
        )
        .ok_or(Error::BadValue)?;
        if !is_connection(&tuple) {
            return Err(Error::BadValue);
        }
        let forwarder = addr(48);
        let mapping = match field::u32(payload, 4) {
            0 if *forwarder.as_bytes() == [0; 16] => None,
            id => {
                let id = FlowId::new(id).ok_or(Error::BadValue)?;
                if !forwarder.is_unicast() || forwarder.is_v4() != tuple.is_v4() {
                    return Err(Error::BadValue);
                }
                Some((forwarder, id))
            }
        };
        Ok(Prepare {
            tuple,
            mapping,
            unread_len: field::u32(payload, 8),
            wscale_ok: options & 1 != 0,
            sack_ok: options & 2 != 0,
            tstamp_ok: options & 4 != 0,
        })
    }

    fn emit(&self) -> [u8; PREPARE_LEN] {
        let mut bytes = [0; PREPARE_LEN];
        let options = u8::from(self.wscale_ok)
            | (u8::from(self.sack_ok) << 1)
            | (u8::from(self.tstamp_ok) << 2);
        field::put(&mut bytes, 0, [self.tuple.proto().number(), options]);
        field::put(&mut bytes, 8, self.unread_len.to_be_bytes());
        field::put(&mut bytes, 12, self.tuple.client_port().to_be_bytes());
        field::put(&mut bytes, 14, self.tuple.vip_port().to_be_bytes());
        field::put(&mut bytes, 16, *self.tuple.client().as_bytes());
        field::put(&mut bytes, 32, *self.tuple.vip().as_bytes());
        if let Some((forwarder, id)) = self.mapping {
            field::put(&mut bytes, 4, id.value().to_be_bytes());
            field::put(&mut bytes, 48, *forwarder.as_bytes());
        }
        bytes
    }
}

/// Whether a tuple can be that of a TCP connection.
pub(super) fn is_connection(tuple: &FourTuple) -> bool {
    tuple.proto() == Proto::Tcp
        && tuple.client().is_unicast()
        && tuple.vip().is_unicast()
        && tuple.client_port() != 0
        && tuple.vip_port() != 0
}

/// Why a target does not have the connection: a code (2 bytes) and up to [`MAX_TEXT`] bytes of
/// UTF-8 without control characters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reason<'a> {
    /// A number that never changes its meaning; unknown ones are no error.
    pub code: u16,
    /// One line for people.
    pub text: &'a str,
}

impl<'a> Reason<'a> {
    fn parse(payload: &'a [u8]) -> Result<Reason<'a>, Error> {
        let (code, text) = payload.split_first_chunk().ok_or(Error::BadLength)?;
        let reason = Reason {
            code: u16::from_be_bytes(*code),
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
        let len = self.text.len().saturating_add(2);
        let payload = payload.get_mut(..len).ok_or(Error::NoSpace)?;
        let (code, text) = payload.split_first_chunk_mut().ok_or(Error::NoSpace)?;
        *code = self.code.to_be_bytes();
        text.copy_from_slice(self.text.as_bytes());
        Ok(len)
    }
}

impl<'a> Message<'a> {
    /// Reads the payload of a record whose header has been checked.
    pub fn parse(header: &Header, payload: &'a [u8]) -> Result<Message<'a>, Error> {
        let number = || match <[u8; 8]>::try_from(payload) {
            Ok(bytes) => Ok(u64::from_be_bytes(bytes)),
            Err(_) => Err(Error::BadLength),
        };
        let bare = |message| {
            if payload.is_empty() {
                Ok(message)
            } else {
                Err(Error::BadLength)
            }
        };
        match header.kind() {
            Type::Hello => {
                let payload: &[u8; HELLO_LEN] = payload.try_into().map_err(|_| Error::BadLength)?;
                let [min_version, max_version, zero @ ..] = field::array::<4>(payload, 0);
                if min_version == 0 || min_version > max_version || zero != [0; 2] {
                    return Err(Error::BadValue);
                }
                Ok(Message::Hello(Hello {
                    min_version,
                    max_version,
                    capabilities: field::u32(payload, 4),
                    boot_nonce: u64::from_be_bytes(field::array(payload, 8)),
                }))
            }
            Type::Prepare => Prepare::parse(payload).map(Message::Prepare),
            Type::Ready => bare(Message::Ready),
            Type::Refused => Reason::parse(payload).map(Message::Refused),
            Type::State => Ok(Message::State {
                payload,
                last: header.is_last(),
            }),
            Type::Staged => bare(Message::Staged),
            Type::Commit => bare(Message::Commit),
            Type::Injected => bare(Message::Injected),
            Type::Failed => Reason::parse(payload).map(Message::Failed),
            Type::Abort => bare(Message::Abort),
            Type::Aborted => bare(Message::Aborted),
            Type::Closed => bare(Message::Closed),
            Type::Ping => number().map(Message::Ping),
            Type::Pong => number().map(Message::Pong),
        }
    }

    /// The record type of the message.
    pub const fn kind(&self) -> Type {
        match self {
            Message::Hello(_) => Type::Hello,
            Message::Prepare(_) => Type::Prepare,
            Message::Ready => Type::Ready,
            Message::Refused(_) => Type::Refused,
            Message::State { .. } => Type::State,
            Message::Staged => Type::Staged,
            Message::Commit => Type::Commit,
            Message::Injected => Type::Injected,
            Message::Failed(_) => Type::Failed,
            Message::Abort => Type::Abort,
            Message::Aborted => Type::Aborted,
            Message::Closed => Type::Closed,
            Message::Ping(_) => Type::Ping,
            Message::Pong(_) => Type::Pong,
        }
    }

    /// Writes the whole record and returns its length.
    ///
    /// [`MESSAGE_MAX_LEN`] bytes are enough for all but STATE. Errors: [`Error::NoSpace`], those
    /// of [`Header::new`], [`Error::BadText`].
    pub fn emit(&self, id: u64, record: &mut [u8]) -> Result<usize, Error> {
        let payload = record.get_mut(HEADER_LEN..).ok_or(Error::NoSpace)?;
        let mut last = false;
        let len = match *self {
            Message::Hello(hello) => {
                let mut bytes = [0; HELLO_LEN];
                field::put(&mut bytes, 0, [hello.min_version, hello.max_version]);
                field::put(&mut bytes, 4, hello.capabilities.to_be_bytes());
                field::put(&mut bytes, 8, hello.boot_nonce.to_be_bytes());
                copy(payload, &bytes)?
            }
            Message::Prepare(prepare) => copy(payload, &prepare.emit())?,
            Message::Refused(reason) | Message::Failed(reason) => reason.emit(payload)?,
            Message::State {
                payload: state,
                last: flag,
            } => {
                last = flag;
                copy(payload, state)?
            }
            Message::Ping(number) | Message::Pong(number) => copy(payload, &number.to_be_bytes())?,
            Message::Ready
            | Message::Staged
            | Message::Commit
            | Message::Injected
            | Message::Abort
            | Message::Aborted
            | Message::Closed => 0,
        };
        seal(record, self.kind(), last, id, len)
    }
}

/// Copies `bytes` to the start of `buffer` and returns how many they are.
pub(super) fn copy(buffer: &mut [u8], bytes: &[u8]) -> Result<usize, Error> {
    buffer
        .get_mut(..bytes.len())
        .ok_or(Error::NoSpace)?
        .copy_from_slice(bytes);
    Ok(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::{
        super::parse,
        *, //
    };
    use std::{
        string::String,
        vec::Vec, //
    };

    const HELLO: Hello = Hello {
        min_version: 1,
        max_version: 1,
        capabilities: 0,
        boot_nonce: 0x1122_3344_5566_7788,
    };

    fn prepare() -> Prepare {
        Prepare {
            tuple: FourTuple::v4([192, 0, 2, 1], 40000, [198, 51, 100, 1], 80, Proto::Tcp),
            mapping: Some((Addr::v4([10, 0, 0, 1]), FlowId::nth(0))),
            unread_len: 500,
            wscale_ok: true,
            sack_ok: false,
            tstamp_ok: true,
        }
    }

    fn emit(message: &Message<'_>, id: u64) -> Vec<u8> {
        let mut record = [0xff; MESSAGE_MAX_LEN];
        let len = message.emit(id, &mut record).unwrap();
        record[..len].to_vec()
    }

    #[test]
    fn round_trip() {
        let text: String = "x".repeat(MAX_TEXT);
        let mut unmapped = prepare();
        unmapped.mapping = None;
        for (message, id) in [
            (Message::Hello(HELLO), 0),
            (Message::Prepare(prepare()), 9),
            (Message::Prepare(unmapped), 9),
            (Message::Ready, 9),
            (Message::Refused(Reason { code: 1, text: "" }), 9),
            (
                Message::State {
                    payload: &[1, 2],
                    last: true,
                },
                u64::MAX,
            ),
            (Message::Staged, 9),
            (Message::Commit, 9),
            (Message::Injected, 9),
            (
                Message::Failed(Reason {
                    code: 65535,
                    text: &text,
                }),
                9,
            ),
            (Message::Abort, 9),
            (Message::Aborted, 9),
            (Message::Closed, 9),
            (Message::Ping(7), 0),
            (Message::Pong(7), 0),
        ] {
            let record = emit(&message, id);
            let (header, payload) = parse(&record).unwrap();
            assert_eq!(header.id(), id);
            assert_eq!(header.kind(), message.kind());
            assert_eq!(Message::parse(&header, payload), Ok(message));
            // Neither longer nor shorter payloads pass, except where the length is free.
            if !matches!(
                message,
                Message::State { .. } | Message::Refused(_) | Message::Failed(_)
            ) {
                let mut longer = payload.to_vec();
                longer.push(0);
                assert_eq!(Message::parse(&header, &longer), Err(Error::BadLength));
            }
            let other = if id == 0 { 1 } else { 0 };
            let mut buffer = [0; MESSAGE_MAX_LEN];
            assert_eq!(message.emit(other, &mut buffer), Err(Error::BadId));
            for len in 0..record.len() {
                assert_eq!(message.emit(id, &mut buffer[..len]), Err(Error::NoSpace));
            }
        }
    }

    #[test]
    fn prepare_exact_bytes() {
        let record = emit(&Message::Prepare(prepare()), 1);
        let mut want = Vec::from([
            6, 5, 0, 0, 0xee, 0x48, 0, 1, 0, 0, 1, 0xf4, 0x9c, 0x40, 0, 80,
        ]);
        for v4 in [[192, 0, 2, 1], [198, 51, 100, 1], [10, 0, 0, 1]] {
            want.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
            want.extend(v4);
        }
        assert_eq!(record[HEADER_LEN..], want);
    }

    #[test]
    fn bad_prepares_are_refused() {
        let header = Header::new(Type::Prepare, false, 1, PREPARE_LEN).unwrap();
        for (offset, value) in [
            (0, 17),   // UDP
            (0, 1),    // ICMP
            (1, 8),    // unknown option
            (3, 1),    // reserved
            (4, 0x10), // no flow id
            (12, 0),   // see below: the low byte is zeroed, too
            (16, 1),   // client IPv6, VIP IPv4
            (28, 0),   // client 0.x
            (44, 255), // VIP class E
            (48, 1),   // forwarder of another family
            (60, 0),   // forwarder 0.x
        ] {
            let mut payload = prepare().emit();
            payload[offset] = value;
            if offset == 12 {
                payload[13] = 0;
            }
            assert_eq!(
                Message::parse(&header, &payload),
                Err(Error::BadValue),
                "byte {offset}"
            );
        }
        let mut payload = prepare().emit();
        payload[4..8].fill(0);
        assert_eq!(Message::parse(&header, &payload), Err(Error::BadValue));
    }

    #[test]
    fn bad_texts_are_refused() {
        let header = Header::new(Type::Failed, false, 1, 0).unwrap();
        for (payload, want) in [
            (&[0][..], Error::BadLength),
            (&[0, 1, 0xff], Error::BadText),
            (&[0, 1, b'a', b'\n'], Error::BadText),
            (&[0, 1, 0x1b, b'['], Error::BadText),
            (&[b'x'; 2 + MAX_TEXT + 1], Error::BadText),
        ] {
            assert_eq!(Message::parse(&header, payload), Err(want));
        }
        let reason = Message::Refused(Reason {
            code: 1,
            text: "a\0",
        });
        assert_eq!(reason.emit(1, &mut [0; 64]), Err(Error::BadText));
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
        let header = Header::new(Type::Hello, false, 0, HELLO_LEN).unwrap();
        for bytes in [[0, 1, 0, 0], [2, 1, 0, 0], [1, 1, 0, 1]] {
            let mut payload = [0; HELLO_LEN];
            payload[..4].copy_from_slice(&bytes);
            assert_eq!(Message::parse(&header, &payload), Err(Error::BadValue));
        }
    }
}
