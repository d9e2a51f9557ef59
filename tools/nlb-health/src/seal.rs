// SPDX-License-Identifier: MIT OR Apache-2.0

//! The header of every datagram, and who it is from: HMAC-SHA-256 with keys that machines share, lives (epochs) and
//! sequence numbers against replay.
//!
//! What [`Opener::open`] returns comes from somebody who has a key, was not changed, and was not returned before.
//! That it is not an old datagram of an earlier life, which the receiver happened not to get or has forgotten, only
//! an answer to a random number can show: [`Opened::is_proven`].

use crate::wire::{Message, Reader, Route, Writer, BODY_MAX, DATAGRAM_MAX};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::{
    collections::BTreeMap,
    fmt, //
};

/// First bytes of every datagram.
pub const MAGIC: [u8; 4] = *b"nlbh";
/// Version of the format.
pub const VERSION: u8 = 1;
/// Bytes of the header.
pub const HEADER_LEN: usize = 28;
/// Where in it the type of the message is.
const NUMBER_AT: usize = 5;
/// Bytes of the tag at the end.
pub const TAG_LEN: usize = 16;
/// Both.
pub const OVERHEAD: usize = HEADER_LEN + TAG_LEN;
/// Shortest secret, in bytes.
pub const SECRET_MIN: usize = 16;
/// Longest secret, in bytes.
pub const SECRET_MAX: usize = 80;
/// How many keys there may be at a time.
pub const KEYS_MAX: usize = 8;
/// How far behind the newest datagram of a sender one may be and still be taken.
pub const WINDOW: u64 = 128;

/// Why a datagram was dropped before its body was looked at. Each is a counter; see [`Error::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Error {
    /// Shorter than header and tag.
    Short,
    /// Longer than [`DATAGRAM_MAX`].
    Long,
    /// Does not begin with [`MAGIC`].
    Magic,
    /// Another version.
    Version,
    /// A type that does not exist, or that the receiver never gets.
    Type,
    /// A bit that has to be zero is not, or an id, life or number is zero.
    Reserved,
    /// A key that the receiver does not have.
    Key,
    /// Not what somebody with the key has written.
    Tag,
    /// Of an earlier life of the sender.
    Epoch,
    /// Here already.
    Replay,
    /// So late that it cannot be told whether it was here already.
    Late,
    /// More senders than there is room for.
    Senders,
}

impl Error {
    /// The name of its counter.
    pub fn name(self) -> &'static str {
        match self {
            Self::Short => "datagram-short",
            Self::Long => "datagram-long",
            Self::Magic => "datagram-magic",
            Self::Version => "datagram-version",
            Self::Type => "datagram-type",
            Self::Reserved => "datagram-reserved",
            Self::Key => "datagram-key",
            Self::Tag => "datagram-tag",
            Self::Epoch => "datagram-epoch",
            Self::Replay => "datagram-replay",
            Self::Late => "datagram-late",
            Self::Senders => "datagram-senders",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::error::Error for Error {}

/// Why keys are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// A secret of less than [`SECRET_MIN`] or more than [`SECRET_MAX`] bytes.
    Length,
    /// The id is there already.
    Twice,
    /// There are [`KEYS_MAX`] already.
    Full,
    /// There is no such key, or it is the one that is sent with.
    Id,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length => write!(f, "a secret has {SECRET_MIN} to {SECRET_MAX} bytes"),
            Self::Twice => f.write_str("there is a key with this id already"),
            Self::Full => write!(f, "there are {KEYS_MAX} keys already"),
            Self::Id => f.write_str("no key with this id, or the one that is sent with"),
        }
    }
}

impl std::error::Error for KeyError {}

/// The keys of a machine: all are accepted, one is sent with. To rotate: add the new one everywhere, send with it
/// everywhere, delete the old one.
#[derive(Clone)]
pub struct Keys {
    // Contexts in which the secret has been put already.
    keys: BTreeMap<u8, Hmac<Sha256>>,
    send: u8,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("ids", &self.keys.keys().collect::<Vec<_>>())
            .field("send", &self.send)
            .finish()
    }
}

impl Keys {
    /// With a first key, which is sent with.
    pub fn new(id: u8, secret: &[u8]) -> Result<Self, KeyError> {
        let mut keys = Self {
            keys: BTreeMap::new(),
            send: id,
        };
        keys.add(id, secret)?;
        Ok(keys)
    }

    /// Another one that is accepted.
    pub fn add(&mut self, id: u8, secret: &[u8]) -> Result<(), KeyError> {
        if !(SECRET_MIN..=SECRET_MAX).contains(&secret.len()) {
            return Err(KeyError::Length);
        }
        if self.keys.contains_key(&id) {
            return Err(KeyError::Twice);
        }
        if self.keys.len() == KEYS_MAX {
            return Err(KeyError::Full);
        }
        // HMAC takes secrets of any length.
        let mac = Hmac::new_from_slice(secret).map_err(|_| KeyError::Length)?;
        self.keys.insert(id, mac);
        Ok(())
    }

    /// From now on this one is sent with.
    pub fn send_with(&mut self, id: u8) -> Result<(), KeyError> {
        if !self.keys.contains_key(&id) {
            return Err(KeyError::Id);
        }
        self.send = id;
        Ok(())
    }

    /// It is not accepted any more.
    pub fn delete(&mut self, id: u8) -> Result<(), KeyError> {
        if id == self.send || self.keys.remove(&id).is_none() {
            return Err(KeyError::Id);
        }
        Ok(())
    }
}

/// Writes datagrams.
#[derive(Clone, Debug)]
pub struct Sealer {
    sender: u32,
    epoch: u64,
    sequence: u64,
}

impl Sealer {
    /// Of the machine `sender`, in the life `epoch`: a number that is larger in each life than in the one before,
    /// such as the time of the start. Neither may be 0.
    pub fn new(sender: u32, epoch: u64) -> Self {
        debug_assert!(sender != 0 && epoch != 0);
        Self {
            sender,
            epoch,
            sequence: 0,
        }
    }

    /// The life.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// A datagram with `message`. It may be sent to several receivers.
    pub fn seal(&mut self, keys: &Keys, message: &Message) -> Vec<u8> {
        self.sequence += 1;
        let mut bytes = Vec::with_capacity(256);
        bytes.extend(MAGIC);
        bytes.u8(VERSION);
        bytes.u8(message.number());
        bytes.u8(keys.send);
        bytes.u8(0);
        bytes.u32(self.sender);
        bytes.u64(self.epoch);
        bytes.u64(self.sequence);
        message.encode(&mut bytes);
        debug_assert!(bytes.len() <= HEADER_LEN + BODY_MAX);
        if let Some(mac) = keys.keys.get(&keys.send) {
            let tag = mac.clone().chain_update(&bytes).finalize().into_bytes();
            bytes.extend(&tag[..TAG_LEN]);
        }
        bytes
    }
}

/// A datagram that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// Id of the host or load balancing unit that wrote it.
    pub sender: u32,
    /// Its life.
    pub epoch: u64,
    /// The type of message.
    pub number: u8,
    /// The life is the one that [`Opener::prove`] was called for.
    pub is_proven: bool,
    /// The message, for [`Message::decode`].
    pub body: &'a [u8],
}

/// What was received in a life.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    epoch: u64,
    newest: u64,
    // Bit n: newest − n was here.
    seen: u128,
}

impl Window {
    fn take(&mut self, sequence: u64) -> Result<(), Error> {
        if sequence > self.newest {
            let ahead = sequence - self.newest;
            self.seen = if ahead < WINDOW {
                self.seen << ahead | 1
            } else {
                1
            };
            self.newest = sequence;
            return Ok(());
        }
        let behind = self.newest - sequence;
        if behind >= WINDOW {
            return Err(Error::Late);
        }
        if self.seen >> behind & 1 == 1 {
            return Err(Error::Replay);
        }
        self.seen |= 1 << behind;
        Ok(())
    }
}

/// A sender: its life that is proven to be no old one, and a later one that claims to be.
#[derive(Clone, Copy, Debug, Default)]
struct Sender {
    proven: Option<Window>,
    claimed: Option<Window>,
}

/// Reads datagrams.
#[derive(Clone, Debug)]
pub struct Opener {
    route: Route,
    senders: BTreeMap<u32, Sender>,
    max: usize,
}

impl Opener {
    /// For messages that go this way, of at most `max` senders.
    pub fn new(route: Route, max: usize) -> Self {
        Self {
            route,
            senders: BTreeMap::new(),
            max,
        }
    }

    /// Whether it says of itself that it goes this way.
    pub fn is_for(&self, datagram: &[u8]) -> bool {
        let number = datagram.get(NUMBER_AT);
        number.and_then(|number| Message::route(*number)) == Some(self.route)
    }

    /// What is in `datagram`, unless it has to be dropped.
    pub fn open<'a>(&mut self, keys: &Keys, datagram: &'a [u8]) -> Result<Opened<'a>, Error> {
        if datagram.len() < OVERHEAD {
            return Err(Error::Short);
        }
        if datagram.len() > DATAGRAM_MAX {
            return Err(Error::Long);
        }
        let (signed, tag) = datagram.split_at(datagram.len() - TAG_LEN);
        let mut from = Reader(signed);
        // The length is enough for all of them.
        let short = |_| Error::Short;
        let magic = from.array().map_err(short)?;
        let [version, number, key, reserved] = from.array().map_err(short)?;
        let sender = from.u32().map_err(short)?;
        let epoch = from.u64().map_err(short)?;
        let sequence = from.u64().map_err(short)?;
        if magic != MAGIC {
            return Err(Error::Magic);
        }
        if version != VERSION {
            return Err(Error::Version);
        }
        if Message::route(number) != Some(self.route) {
            return Err(Error::Type);
        }
        if reserved != 0 || sender == 0 || epoch == 0 || sequence == 0 {
            return Err(Error::Reserved);
        }
        let mac = keys.keys.get(&key).ok_or(Error::Key)?;
        mac.clone()
            .chain_update(signed)
            .verify_truncated_left(tag)
            .map_err(|_| Error::Tag)?;

        // Nothing is remembered of anybody without a key.
        if !self.senders.contains_key(&sender) && self.senders.len() >= self.max {
            return Err(Error::Senders);
        }
        let known = self.senders.entry(sender).or_default();
        let is_proven = known.proven.is_some_and(|window| window.epoch == epoch);
        match (&mut known.proven, &mut known.claimed) {
            (Some(window), _) if window.epoch > epoch => return Err(Error::Epoch),
            (Some(window), _) if window.epoch == epoch => window.take(sequence)?,
            (_, Some(window)) if window.epoch > epoch => return Err(Error::Epoch),
            (_, Some(window)) if window.epoch == epoch => window.take(sequence)?,
            (_, claimed) => {
                let window = claimed.insert(Window {
                    epoch,
                    ..Window::default()
                });
                window.take(sequence)?;
            }
        }
        Ok(Opened {
            sender,
            epoch,
            number,
            is_proven,
            body: from.0,
        })
    }

    /// The life that claims to be the present one of `sender` is: earlier ones are not listened to any more.
    pub fn prove(&mut self, sender: u32, epoch: u64) {
        if let Some(sender) = self.senders.get_mut(&sender) {
            if let Some(window) = sender.claimed.take_if(|window| window.epoch == epoch) {
                sender.proven = Some(window);
            }
        }
    }

    /// As if nothing had ever come from `sender`.
    pub fn forget(&mut self, sender: u32) {
        self.senders.remove(&sender);
    }

    /// Forgets the senders of which `is_kept` does not say otherwise.
    pub fn retain(&mut self, is_kept: impl Fn(u32) -> bool) {
        self.senders.retain(|sender, _| is_kept(*sender));
    }

    /// How many senders there are.
    pub fn len(&self) -> usize {
        self.senders.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.senders.is_empty()
    }
}
