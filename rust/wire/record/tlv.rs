// SPDX-License-Identifier: GPL-2.0

//! The payload of STATE records: sections of type (2 bytes), length (2 bytes) and value.
//!
//! | type | length | value |
//! |---|---|---|
//! | 1 tuple | 40 | protocol, 3 zero bytes, client port, VIP port, client, VIP (16 bytes each) |
//! | 2 sequence | 20 | snd_una, snd_nxt, write_seq, rcv_nxt, copied_seq |
//! | 3 window | 32 | snd_wnd, snd_wl1, max_window, rcv_wnd, rcv_wup, rcv_mwnd_seq, window_clamp, rcv_ssthresh |
//! | 4 options | 8 | bits (2 bytes), snd_wscale, rcv_wscale, mss_clamp, rcv_mss |
//! | 5 timestamps | 12 | tsval_now, ts_recent, ts_recent_age |
//! | 6 rtt | 20 | srtt_us, mdev_us, mdev_max_us, rttvar_us, rtt_min_us |
//! | 7 congestion | 16 | snd_cwnd, snd_ssthresh, reordering, ecn_flags, 3 zero bytes |
//! | 8 counters | 16 | bytes_acked, bytes_received |
//! | 9 unread | 4 | how many bytes of data follow in all |
//! | 16 unread data | 1.. | the next bytes that the application has not read |
//! | 17, 18 | | unsent and unacknowledged data: reserved, refused |
//!
//! Numbers without a length are 4 bytes, except mss_clamp, rcv_mss and ports (2), counters (8).
//! Option bits: window scale 1, SACK 2, timestamps 4, microsecond timestamps 8, ECN 16.
//!
//! Sections 1 to 9 are all in the first record, in any order, then data may follow, in it and in
//! further records; the last record has the flag LAST. A section whose type has the top bit set
//! may be skipped by who does not know it; any other unknown one is an error.

use super::{
    super::{
        addr::{
            Addr,
            FourTuple,
            Proto, //
        },
        field, //
    },
    message::copy,
    state::{
        ConnectionState,
        Invalid, //
    },
    Error,
    MAX_PAYLOAD, //
};

/// Bytes in front of the data in a data section.
pub const DATA_HEADER_LEN: usize = 4;

/// Most bytes of data in one record that holds nothing else.
pub const MAX_DATA: usize = MAX_PAYLOAD - DATA_HEADER_LEN;

/// Bytes of the sections that make up a [`ConnectionState`], without data.
pub const STATE_LEN: usize = {
    let mut len = 0;
    let mut rest: &[(u16, usize)] = &SECTIONS;
    while let [(_, section), tail @ ..] = rest {
        len += DATA_HEADER_LEN + *section;
        rest = tail;
    }
    len
};

const TUPLE: u16 = 1;
const SEQUENCE: u16 = 2;
const WINDOW: u16 = 3;
const OPTIONS: u16 = 4;
const TIMESTAMPS: u16 = 5;
const RTT: u16 = 6;
const CONGESTION: u16 = 7;
const COUNTERS: u16 = 8;
const UNREAD: u16 = 9;
const UNREAD_DATA: u16 = 16;

/// Set in the type of a section that may be skipped.
const OPTIONAL: u16 = 0x8000;

/// The sections that must be there, with their lengths.
const SECTIONS: [(u16, usize); 9] = [
    (TUPLE, 40),
    (SEQUENCE, 20),
    (WINDOW, 32),
    (OPTIONS, 8),
    (TIMESTAMPS, 12),
    (RTT, 20),
    (CONGESTION, 16),
    (COUNTERS, 16),
    (UNREAD, 4),
];

/// What stands in front of `len` bytes of data in a STATE record's payload.
///
/// Errors with [`Error::BadLength`] if `len` is zero or above [`MAX_DATA`].
pub fn data_header(len: usize) -> Result<[u8; DATA_HEADER_LEN], Error> {
    if len == 0 || len > MAX_DATA {
        return Err(Error::BadLength);
    }
    let [a, b] = UNREAD_DATA.to_be_bytes();
    let [c, d] = (len as u16).to_be_bytes();
    Ok([a, b, c, d])
}

/// Iterator over sections; ends after the first error.
#[derive(Clone, Debug)]
struct Sections<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Sections<'a> {
    type Item = Result<(u16, &'a [u8]), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let section =
            self.rest
                .split_first_chunk::<DATA_HEADER_LEN>()
                .and_then(|([a, b, c, d], rest)| {
                    let len = usize::from(u16::from_be_bytes([*c, *d]));
                    let (value, rest) = rest.split_at_checked(len)?;
                    Some((u16::from_be_bytes([*a, *b]), value, rest))
                });
        match section {
            Some((kind, value, rest)) => {
                self.rest = rest;
                Some(Ok((kind, value)))
            }
            None => {
                self.rest = &[];
                Some(Err(Error::Truncated))
            }
        }
    }
}

/// Appends to a buffer of bytes.
struct Writer<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let rest = self.buffer.get_mut(self.len..).ok_or(Error::NoSpace)?;
        self.len = self.len.saturating_add(copy(rest, bytes)?);
        Ok(())
    }

    /// The head of the next section, which must be the given one.
    fn section(&mut self, kind: u16) -> Result<(), Error> {
        let (_, len) = SECTIONS
            .iter()
            .find(|(section, _)| *section == kind)
            .ok_or(Error::UnknownSection(kind))?;
        self.put(&kind.to_be_bytes())?;
        self.put(&(*len as u16).to_be_bytes())
    }

    fn u32s(&mut self, values: &[u32]) -> Result<(), Error> {
        values
            .iter()
            .try_for_each(|value| self.put(&value.to_be_bytes()))
    }
}

impl ConnectionState {
    /// Writes the sections of the state to `payload`; returns how many bytes: [`STATE_LEN`].
    ///
    /// Data sections follow as [`data_header`] and bytes. Errors: [`Error::NoSpace`],
    /// [`Error::Invalid`]: nothing is sent that the receiver would refuse.
    pub fn emit(&self, payload: &mut [u8]) -> Result<usize, Error> {
        self.validate().map_err(Error::Invalid)?;
        let mut writer = Writer {
            buffer: payload,
            len: 0,
        };
        writer.section(TUPLE)?;
        writer.put(&[self.tuple.proto().number(), 0, 0, 0])?;
        writer.put(&self.tuple.client_port().to_be_bytes())?;
        writer.put(&self.tuple.vip_port().to_be_bytes())?;
        writer.put(self.tuple.client().as_bytes())?;
        writer.put(self.tuple.vip().as_bytes())?;

        writer.section(SEQUENCE)?;
        writer.u32s(&[
            self.snd_una,
            self.snd_una,
            self.snd_una,
            self.rcv_nxt,
            self.copied_seq,
        ])?;

        writer.section(WINDOW)?;
        writer.u32s(&[
            self.snd_wnd,
            self.snd_wl1,
            self.max_window,
            self.rcv_wnd,
            self.rcv_wup,
            self.rcv_mwnd_seq,
            self.window_clamp,
            self.rcv_ssthresh,
        ])?;

        writer.section(OPTIONS)?;
        let bits = u16::from(self.wscale_ok)
            | (u16::from(self.sack_ok) << 1)
            | (u16::from(self.tstamp_ok) << 2)
            | (u16::from(self.usec_ts) << 3)
            | (u16::from(self.ecn_ok) << 4);
        writer.put(&bits.to_be_bytes())?;
        writer.put(&[self.snd_wscale, self.rcv_wscale])?;
        writer.put(&self.mss_clamp.to_be_bytes())?;
        writer.put(&self.rcv_mss.to_be_bytes())?;

        writer.section(TIMESTAMPS)?;
        writer.u32s(&[self.tsval_now, self.ts_recent, self.ts_recent_age])?;

        writer.section(RTT)?;
        writer.u32s(&[
            self.srtt_us,
            self.mdev_us,
            self.mdev_max_us,
            self.rttvar_us,
            self.rtt_min_us,
        ])?;

        writer.section(CONGESTION)?;
        writer.u32s(&[self.snd_cwnd, self.snd_ssthresh, self.reordering])?;
        writer.put(&[self.ecn_flags, 0, 0, 0])?;

        writer.section(COUNTERS)?;
        writer.put(&self.bytes_acked.to_be_bytes())?;
        writer.put(&self.bytes_received.to_be_bytes())?;

        writer.section(UNREAD)?;
        writer.u32s(&[self.unread_len])?;
        Ok(writer.len)
    }

    /// Reads the state from the front of the first STATE payload; returns it, checked by
    /// [`ConnectionState::validate`], and the data sections behind it.
    fn parse(payload: &[u8]) -> Result<(ConnectionState, Sections<'_>), Error> {
        let mut sections = Sections { rest: payload };
        let mut values: [Option<&[u8]>; SECTIONS.len()] = [None; SECTIONS.len()];
        loop {
            let behind = sections.clone();
            let (kind, value) = match sections.next() {
                None => break,
                Some(Ok((UNREAD_DATA, _))) => {
                    sections = behind;
                    break;
                }
                Some(section) => section?,
            };
            let known = SECTIONS
                .iter()
                .zip(&mut values)
                .find(|((section, _), _)| *section == kind);
            match known {
                Some((_, Some(_))) => return Err(Error::Duplicate(kind)),
                Some(((_, len), _)) if *len != value.len() => return Err(Error::BadLength),
                Some((_, slot)) => *slot = Some(value),
                None if kind & OPTIONAL != 0 => {}
                None => return Err(Error::UnknownSection(kind)),
            }
        }
        for ((kind, _), value) in SECTIONS.iter().zip(&values) {
            if value.is_none() {
                return Err(Error::MissingSection(*kind));
            }
        }
        let [tuple, sequence, window, options, timestamps, rtt, congestion, counters, unread] =
            values.map(Option::unwrap_or_default);
        let word = |section, index: usize| field::u32(section, index.saturating_mul(4));

        if field::array(tuple, 1) != [0; 3] || field::array(congestion, 13) != [0; 3] {
            return Err(Error::BadValue);
        }
        let bits = field::u16(options, 0);
        if bits & !0x1f != 0 {
            return Err(Error::BadValue);
        }
        let snd_una = word(sequence, 0);
        if word(sequence, 1) != snd_una || word(sequence, 2) != snd_una {
            return Err(Error::Invalid(Invalid::SendQueue));
        }
        let state = ConnectionState {
            tuple: FourTuple::new(
                Addr::v6(field::array(tuple, 8)),
                field::u16(tuple, 4),
                Addr::v6(field::array(tuple, 24)),
                field::u16(tuple, 6),
                Proto::from_number(field::u8(tuple, 0)).ok_or(Error::BadValue)?,
            )
            .ok_or(Error::BadValue)?,
            snd_una,
            rcv_nxt: word(sequence, 3),
            copied_seq: word(sequence, 4),
            snd_wnd: word(window, 0),
            snd_wl1: word(window, 1),
            max_window: word(window, 2),
            rcv_wnd: word(window, 3),
            rcv_wup: word(window, 4),
            rcv_mwnd_seq: word(window, 5),
            window_clamp: word(window, 6),
            rcv_ssthresh: word(window, 7),
            wscale_ok: bits & 1 != 0,
            sack_ok: bits & 2 != 0,
            tstamp_ok: bits & 4 != 0,
            usec_ts: bits & 8 != 0,
            ecn_ok: bits & 16 != 0,
            snd_wscale: field::u8(options, 2),
            rcv_wscale: field::u8(options, 3),
            mss_clamp: field::u16(options, 4),
            rcv_mss: field::u16(options, 6),
            tsval_now: word(timestamps, 0),
            ts_recent: word(timestamps, 1),
            ts_recent_age: word(timestamps, 2),
            srtt_us: word(rtt, 0),
            mdev_us: word(rtt, 1),
            mdev_max_us: word(rtt, 2),
            rttvar_us: word(rtt, 3),
            rtt_min_us: word(rtt, 4),
            snd_cwnd: word(congestion, 0),
            snd_ssthresh: word(congestion, 1),
            reordering: word(congestion, 2),
            ecn_flags: field::u8(congestion, 12),
            bytes_acked: u64::from_be_bytes(field::array(counters, 0)),
            bytes_received: u64::from_be_bytes(field::array(counters, 8)),
            unread_len: word(unread, 0),
        };
        state.validate().map_err(Error::Invalid)?;
        Ok((state, sections))
    }
}

/// Puts the STATE records of one migration together.
///
/// Every record is checked as a whole before any of it is handed on, every record but the first
/// brings at least one byte, and all together no more than announced: a sender cannot keep a
/// receiver busy for ever. After an error the reader takes nothing more.
#[derive(Clone, Debug)]
pub struct StateReader {
    state: Option<ConnectionState>,
    received: u32,
    max_unread: u32,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Reading,
    Complete,
    Failed,
}

impl StateReader {
    /// A reader that refuses connections with more than `max_unread` unread bytes.
    pub const fn new(max_unread: u32) -> StateReader {
        StateReader {
            state: None,
            received: 0,
            max_unread,
            phase: Phase::Reading,
        }
    }

    /// Takes the payload of the next STATE record; returns the data in it, in order.
    ///
    /// After the first record [`StateReader::state`] is there. Errors: any of [`Error`] about
    /// sections; [`Error::TooLong`] if there is more data than announced or allowed,
    /// [`Error::Truncated`] if the last record leaves some out, [`Error::Order`] after the last
    /// record or an error, for anything but data in a later record, and for a later record without
    /// any.
    pub fn read<'a>(&mut self, payload: &'a [u8], last: bool) -> Result<Chunks<'a>, Error> {
        if self.phase != Phase::Reading {
            return Err(Error::Order);
        }
        self.phase = Phase::Failed;
        let first = self.state.is_none();
        let (state, sections) = match self.state {
            Some(state) => (state, Sections { rest: payload }),
            None => ConnectionState::parse(payload)?,
        };
        if state.unread_len > self.max_unread {
            return Err(Error::TooLong);
        }
        let mut received = self.received;
        for section in sections.clone() {
            let (kind, value) = section?;
            if kind & OPTIONAL != 0 {
                continue;
            }
            if kind != UNREAD_DATA {
                return Err(Error::Order);
            }
            if value.is_empty() {
                return Err(Error::BadLength);
            }
            received = received.saturating_add(value.len() as u32);
        }
        if received > state.unread_len {
            return Err(Error::TooLong);
        }
        if !first && received == self.received {
            return Err(Error::Order);
        }
        if last && received != state.unread_len {
            return Err(Error::Truncated);
        }
        self.state = Some(state);
        self.received = received;
        self.phase = if last {
            Phase::Complete
        } else {
            Phase::Reading
        };
        Ok(Chunks(sections))
    }

    /// The state, once the first record has been taken.
    pub const fn state(&self) -> Option<&ConnectionState> {
        self.state.as_ref()
    }

    /// How many bytes of data have come.
    pub const fn received(&self) -> u32 {
        self.received
    }

    /// Whether everything has come.
    pub fn is_complete(&self) -> bool {
        self.phase == Phase::Complete
    }
}

/// Iterator over the pieces of data in a record that has been checked; none is empty.
#[derive(Clone, Debug)]
pub struct Chunks<'a>(Sections<'a>);

impl<'a> Iterator for Chunks<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            match self.0.next()? {
                Ok((UNREAD_DATA, value)) => return Some(value),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::state::tests::EXAMPLE,
        *, //
    };
    use std::{
        vec,
        vec::Vec, //
    };

    fn fixed() -> Vec<u8> {
        let mut payload = vec![0xee; STATE_LEN];
        assert_eq!(EXAMPLE.emit(&mut payload), Ok(STATE_LEN));
        payload
    }

    fn with_data(mut payload: Vec<u8>, data: &[u8]) -> Vec<u8> {
        payload.extend(data_header(data.len()).unwrap());
        payload.extend(data);
        payload
    }

    fn read(payload: &[u8], last: bool) -> Result<usize, Error> {
        let mut reader = StateReader::new(1000);
        Ok(reader.read(payload, last)?.map(<[u8]>::len).sum())
    }

    fn offset(kind: u16) -> usize {
        let before = SECTIONS.iter().take_while(|(section, _)| *section != kind);
        before.map(|(_, len)| len + 4).sum()
    }

    #[test]
    fn in_one_record() {
        let data: Vec<u8> = (0..101).collect();
        let payload = with_data(with_data(fixed(), &data[..1]), &data[1..]);
        let mut reader = StateReader::new(101);
        let got: Vec<_> = reader.read(&payload, true).unwrap().collect();
        assert_eq!(got, [&data[..1], &data[1..]]);
        assert_eq!(reader.state(), Some(&EXAMPLE));
        assert!(reader.is_complete());
        assert_eq!(reader.received(), 101);
        assert_eq!(reader.read(&payload, true).err(), Some(Error::Order));
    }

    #[test]
    fn in_several_records() {
        let mut reader = StateReader::new(101);
        assert_eq!(reader.read(&fixed(), false).unwrap().count(), 0);
        for _ in 0..100 {
            let payload = with_data(Vec::new(), &[7]);
            let got: Vec<_> = reader.read(&payload, false).unwrap().collect();
            assert_eq!(got, [&[7]]);
            assert!(!reader.is_complete());
        }
        let payload = with_data(Vec::new(), &[8]);
        assert_eq!(reader.read(&payload, true).unwrap().count(), 1);
        assert!(reader.is_complete());
    }

    #[test]
    fn exact_bytes() {
        let payload = fixed();
        assert_eq!(STATE_LEN, 204);
        assert_eq!(payload[..12], [0, 1, 0, 40, 6, 0, 0, 0, 0x9c, 0x40, 0, 80]);
        let start = offset(SEQUENCE);
        assert_eq!(
            payload[start..start + 24],
            [
                0, 2, 0, 20, 0xff, 0xff, 0xff, 0xf0, 0xff, 0xff, 0xff, 0xf0, 0xff, 0xff, 0xff,
                0xf0, 0, 0, 0, 100, 0xff, 0xff, 0xff, 0xff
            ]
        );
        let start = offset(OPTIONS);
        assert_eq!(
            payload[start..start + 12],
            [0, 4, 0, 8, 0, 7, 7, 10, 0x05, 0xb4, 0x02, 0x18]
        );
        assert_eq!(payload[offset(UNREAD)..], [0, 9, 0, 4, 0, 0, 0, 101]);
        assert_eq!(data_header(MAX_DATA), Ok([0, 16, 0xff, 0xfc]));
        assert_eq!(data_header(MAX_DATA + 1), Err(Error::BadLength));
        assert_eq!(data_header(0), Err(Error::BadLength));
    }

    #[test]
    fn any_order_of_sections_and_optional_ones() {
        let bytes = fixed();
        let mut sections: Vec<_> = Sections { rest: &bytes }.map(Result::unwrap).collect();
        sections.reverse();
        sections.insert(3, (0x8001, b"new"));
        let mut payload = Vec::new();
        for (kind, value) in sections {
            payload.extend(kind.to_be_bytes());
            payload.extend((value.len() as u16).to_be_bytes());
            payload.extend(value);
        }
        let mut reader = StateReader::new(101);
        assert_eq!(reader.read(&payload, false).unwrap().count(), 0);
        assert_eq!(reader.state(), Some(&EXAMPLE));
    }

    #[test]
    fn sections_missing_doubled_unknown_or_cut() {
        let good = fixed();
        for (kind, len) in SECTIONS {
            let start = offset(kind);
            let section = &good[start..start + 4 + len];
            let mut missing = good.clone();
            missing.drain(start..start + 4 + len);
            assert_eq!(read(&missing, false), Err(Error::MissingSection(kind)));
            let mut doubled = good.clone();
            doubled.extend(section);
            assert_eq!(read(&doubled, false), Err(Error::Duplicate(kind)));
            let mut longer = good.clone();
            longer[start + 3] += 1;
            longer.insert(start + 4 + len, 0);
            assert_eq!(read(&longer, false), Err(Error::BadLength));
        }
        for kind in [0u16, 10, 17, 18, 0x7fff] {
            let mut unknown = good.clone();
            unknown.extend(kind.to_be_bytes());
            unknown.extend([0, 0]);
            assert_eq!(read(&unknown, false), Err(Error::UnknownSection(kind)));
        }
        for len in 0..good.len() {
            assert!(read(&good[..len], false).is_err());
        }
        let mut trailing = good.clone();
        trailing.push(0);
        assert_eq!(read(&trailing, false), Err(Error::Truncated));
    }

    #[test]
    fn data_must_be_exactly_what_was_announced() {
        let good = fixed();
        let full = with_data(good.clone(), &[0; 101]);
        assert_eq!(read(&full, true), Ok(101));
        assert_eq!(read(&full, false), Ok(101));
        assert_eq!(read(&good, true), Err(Error::Truncated));
        let short = with_data(good.clone(), &[0; 100]);
        assert_eq!(read(&short, true), Err(Error::Truncated));
        let long = with_data(good.clone(), &[0; 102]);
        assert_eq!(read(&long, false), Err(Error::TooLong));
        let mut reader = StateReader::new(100);
        assert_eq!(reader.read(&full, true).err(), Some(Error::TooLong));
        assert_eq!(reader.read(&full, true).err(), Some(Error::Order));
        let mut empty = good.clone();
        empty.extend([0, 16, 0, 0]);
        assert_eq!(read(&empty, false), Err(Error::BadLength));
        let mut late = full.clone();
        late.extend([0, 9, 0, 4, 0, 0, 0, 101]);
        assert_eq!(read(&late, false), Err(Error::Order));
    }

    #[test]
    fn records_without_progress_are_refused() {
        let mut reader = StateReader::new(101);
        assert!(reader.read(&fixed(), false).is_ok());
        assert_eq!(reader.read(&[], false).err(), Some(Error::Order));
        let mut reader = StateReader::new(101);
        assert!(reader.read(&fixed(), false).is_ok());
        assert_eq!(
            reader.read(&[0x80, 1, 0, 0], false).err(),
            Some(Error::Order)
        );
        let mut reader = StateReader::new(101);
        assert!(reader.read(&fixed(), false).is_ok());
        assert_eq!(reader.read(&fixed(), false).err(), Some(Error::Order));
    }

    #[test]
    fn values_are_checked() {
        for (kind, index, value, want) in [
            (TUPLE, 1, 1, Error::BadValue),
            (TUPLE, 0, 1, Error::BadValue),
            (TUPLE, 0, 17, Error::Invalid(Invalid::Tuple)),
            (TUPLE, 8, 1, Error::BadValue),
            (OPTIONS, 0, 1, Error::BadValue),
            (OPTIONS, 1, 0x20, Error::BadValue),
            (CONGESTION, 13, 1, Error::BadValue),
            (SEQUENCE, 7, 0xf1, Error::Invalid(Invalid::SendQueue)),
            (SEQUENCE, 11, 0xf1, Error::Invalid(Invalid::SendQueue)),
            (UNREAD, 3, 100, Error::Invalid(Invalid::UnreadBytes)),
        ] {
            let mut payload = fixed();
            payload[offset(kind) + 4 + index] = value;
            assert_eq!(read(&payload, false), Err(want), "{kind} {index}");
        }
        let mut bad = EXAMPLE;
        bad.mss_clamp = 0;
        assert_eq!(
            bad.emit(&mut [0; STATE_LEN]),
            Err(Error::Invalid(Invalid::Mss))
        );
        for len in 0..STATE_LEN {
            assert_eq!(
                EXAMPLE.emit(&mut [0; STATE_LEN][..len]),
                Err(Error::NoSpace)
            );
        }
    }
}
