// SPDX-License-Identifier: GPL-2.0

//! Sections: type (2 bytes), length (2 bytes) and value, one behind the other.

use super::{
    message::copy,
    options,
    range::{
        Range,
        RANGE_LEN, //
    },
    state::{
        MAX_OUT_OF_ORDER,
        MAX_SACKS, //
    },
    Error,
    MAX_PAYLOAD, //
};

/// Bytes in front of a section's value.
pub(super) const HEAD: usize = 4;

/// Set in the type of a section that may be skipped.
const OPTIONAL: u16 = 0x8000;

pub(super) const TUPLE: u16 = 1;
pub(super) const SEQUENCE: u16 = 2;
pub(super) const WINDOW: u16 = 3;
pub(super) const OPTIONS: u16 = 4;
pub(super) const TIMESTAMPS: u16 = 5;
pub(super) const RTT: u16 = 6;
pub(super) const CONGESTION: u16 = 7;
pub(super) const COUNTERS: u16 = 8;
pub(super) const TOTAL: u16 = 9;
pub(super) const OFFSET: u16 = 10;
pub(super) const OUT_OF_ORDER: u16 = 11;
pub(super) const SACK: u16 = 12;
pub(super) const DATA: u16 = 16;
pub(super) const ROUTE: u16 = 32;
pub(super) const SOCKET_OPTIONS: u16 = OPTIONAL | 13;
pub(super) const CONGESTION_CONTROL: u16 = OPTIONAL | 14;

/// How long the value of a section is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Length {
    /// So many bytes.
    Fixed(usize),
    /// One to so many ranges.
    Ranges(usize),
    /// One byte to whatever a record has room for.
    Data,
}

impl Length {
    /// Whether a value of `len` bytes may be one.
    const fn allows(self, len: usize) -> bool {
        match self {
            Length::Fixed(fixed) => len == fixed,
            Length::Ranges(_) => len != 0 && len % RANGE_LEN == 0 && len <= self.max(),
            Length::Data => len != 0,
        }
    }

    /// Most bytes of a value; what is data does not count.
    const fn max(self) -> usize {
        match self {
            Length::Fixed(len) => len,
            Length::Ranges(count) => count.saturating_mul(RANGE_LEN),
            Length::Data => 0,
        }
    }
}

/// All sections there are.
pub(super) const SECTIONS: [(u16, Length); 16] = [
    (TUPLE, Length::Fixed(40)),
    (SEQUENCE, Length::Fixed(20)),
    (WINDOW, Length::Fixed(32)),
    (OPTIONS, Length::Fixed(8)),
    (TIMESTAMPS, Length::Fixed(12)),
    (RTT, Length::Fixed(20)),
    (CONGESTION, Length::Fixed(16)),
    (COUNTERS, Length::Fixed(16)),
    (TOTAL, Length::Fixed(4)),
    (OFFSET, Length::Fixed(4)),
    (OUT_OF_ORDER, Length::Ranges(MAX_OUT_OF_ORDER)),
    (SACK, Length::Ranges(MAX_SACKS)),
    (DATA, Length::Data),
    (ROUTE, Length::Fixed(24)),
    (SOCKET_OPTIONS, Length::Fixed(options::LEN)),
    (CONGESTION_CONTROL, Length::Fixed(options::NAME_LEN)),
];

/// Most bytes of the heads and values of sections `from` to `to`, none of which is data.
pub(super) const fn len_of(from: u16, to: u16) -> usize {
    let mut len = 0usize;
    let mut rest: &[(u16, Length)] = &SECTIONS;
    while let [(kind, section), tail @ ..] = rest {
        if *kind >= from && *kind <= to {
            len = len.saturating_add(HEAD).saturating_add(section.max());
        }
        rest = tail;
    }
    len
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
        let section = self
            .rest
            .split_first_chunk::<HEAD>()
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

/// The sections of a payload, each at most once and of the right length.
#[derive(Debug)]
pub(super) struct Found<'a> {
    values: [Option<&'a [u8]>; SECTIONS.len()],
}

impl<'a> Found<'a> {
    /// Reads a payload to its end.
    pub(super) fn parse(payload: &'a [u8]) -> Result<Found<'a>, Error> {
        let mut values: [Option<&'a [u8]>; SECTIONS.len()] = [None; SECTIONS.len()];
        for section in (Sections { rest: payload }) {
            let (kind, value) = section?;
            let known = SECTIONS
                .iter()
                .zip(&mut values)
                .find(|((known, _), _)| *known == kind);
            match known {
                Some((_, Some(_))) => return Err(Error::Duplicate(kind)),
                Some(((_, len), slot)) => {
                    if !len.allows(value.len()) {
                        return Err(Error::BadLength);
                    }
                    *slot = Some(value);
                }
                None if kind & OPTIONAL != 0 => {}
                None => return Err(Error::UnknownSection(kind)),
            }
        }
        Ok(Found { values })
    }

    /// Takes out a section that need not be there.
    pub(super) fn take(&mut self, kind: u16) -> Option<&'a [u8]> {
        SECTIONS
            .iter()
            .zip(&mut self.values)
            .find(|((known, _), _)| *known == kind)
            .and_then(|(_, value)| value.take())
    }

    /// Takes out a section that must be there.
    pub(super) fn need(&mut self, kind: u16) -> Result<&'a [u8], Error> {
        self.take(kind).ok_or(Error::MissingSection(kind))
    }

    /// Errors if a section is left over: it has no place in this record.
    pub(super) fn finish(self) -> Result<(), Error> {
        for ((kind, _), value) in SECTIONS.iter().zip(&self.values) {
            if value.is_some() {
                return Err(Error::UnexpectedSection(*kind));
            }
        }
        Ok(())
    }
}

/// Appends to a buffer of bytes.
pub(super) struct Writer<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl<'a> Writer<'a> {
    /// Writes from the start of `buffer`.
    pub(super) fn new(buffer: &'a mut [u8]) -> Writer<'a> {
        Writer { buffer, len: 0 }
    }

    /// How much has been written.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Writes bytes.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let rest = self.buffer.get_mut(self.len..).ok_or(Error::NoSpace)?;
        self.len = self.len.saturating_add(copy(rest, bytes)?);
        Ok(())
    }

    /// Writes numbers.
    pub(super) fn u32s(&mut self, values: &[u32]) -> Result<(), Error> {
        values
            .iter()
            .try_for_each(|value| self.put(&value.to_be_bytes()))
    }

    /// Writes the head of a section; its value comes next.
    pub(super) fn section(&mut self, kind: u16) -> Result<(), Error> {
        let len = SECTIONS.iter().find(|(known, _)| *known == kind);
        self.head(kind, len.map_or(0, |(_, len)| len.max()))
    }

    /// Writes a section of ranges, unless there are none.
    pub(super) fn ranges(&mut self, kind: u16, ranges: &[Range]) -> Result<(), Error> {
        if ranges.is_empty() {
            return Ok(());
        }
        self.head(kind, ranges.len().saturating_mul(RANGE_LEN))?;
        ranges
            .iter()
            .try_for_each(|range| self.u32s(&[range.start, range.end]))
    }

    /// Writes a section of variable length.
    pub(super) fn bytes(&mut self, kind: u16, value: &[u8]) -> Result<(), Error> {
        self.head(kind, value.len())?;
        self.put(value)
    }

    fn head(&mut self, kind: u16, len: usize) -> Result<(), Error> {
        let len = u16::try_from(len).map_err(|_| Error::TooLong)?;
        self.put(&kind.to_be_bytes())?;
        self.put(&len.to_be_bytes())
    }
}

const _: () = assert!(MAX_PAYLOAD > u16::MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn section(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = [0; 64];
        let mut writer = Writer::new(&mut bytes);
        writer.bytes(kind, value).unwrap();
        let len = writer.len();
        bytes[..len].to_vec()
    }

    #[test]
    fn found_once_and_in_any_order() {
        let mut payload = section(DATA, b"abc");
        payload.extend(section(0x8001, b"from the future"));
        payload.extend(section(TOTAL, &[0, 0, 0, 3]));
        let mut found = Found::parse(&payload).unwrap();
        assert_eq!(found.need(TOTAL), Ok(&[0, 0, 0, 3][..]));
        assert_eq!(found.need(TOTAL), Err(Error::MissingSection(TOTAL)));
        assert_eq!(found.take(OFFSET), None);
        assert_eq!(found.finish(), Err(Error::UnexpectedSection(DATA)));
        let mut found = Found::parse(&payload).unwrap();
        assert_eq!(found.take(DATA), Some(&b"abc"[..]));
        assert!(found.take(TOTAL).is_some());
        assert_eq!(found.finish(), Ok(()));
    }

    #[test]
    fn refusals() {
        let total = section(TOTAL, &[0; 4]);
        for (payload, want) in [
            ([total.clone(), total.clone()].concat(), Error::Duplicate(9)),
            (section(TOTAL, &[0; 3]), Error::BadLength),
            (section(TOTAL, &[0; 5]), Error::BadLength),
            (section(DATA, &[]), Error::BadLength),
            (section(SACK, &[]), Error::BadLength),
            (section(SACK, &[0; 9]), Error::BadLength),
            (section(SACK, &[0; 40]), Error::BadLength),
            (section(0, &[]), Error::UnknownSection(0)),
            (section(17, &[1]), Error::UnknownSection(17)),
            (section(18, &[1]), Error::UnknownSection(18)),
            (section(0x7fff, &[]), Error::UnknownSection(0x7fff)),
            (total[..7].to_vec(), Error::Truncated),
            (total[..3].to_vec(), Error::Truncated),
            ([total, [0].to_vec()].concat(), Error::Truncated),
        ] {
            assert_eq!(Found::parse(&payload).err(), Some(want), "{payload:?}");
        }
    }
}
