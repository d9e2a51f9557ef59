// SPDX-License-Identifier: GPL-2.0

//! Sections: type (2 bytes), length (2 bytes) and value, one behind the other.

use super::{
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

/// The most bytes that the value of each section has; what is data does not count.
const SECTIONS: [(u16, usize); 16] = [
    (TUPLE, 40),
    (SEQUENCE, 20),
    (WINDOW, 32),
    (OPTIONS, 8),
    (TIMESTAMPS, 12),
    (RTT, 20),
    (CONGESTION, 16),
    (COUNTERS, 16),
    (TOTAL, 4),
    (OFFSET, 4),
    (OUT_OF_ORDER, MAX_OUT_OF_ORDER * RANGE_LEN),
    (SACK, MAX_SACKS * RANGE_LEN),
    (DATA, 0),
    (ROUTE, 24),
    (SOCKET_OPTIONS, options::LEN),
    (CONGESTION_CONTROL, options::NAME_LEN),
];

/// Most bytes of the heads and values of sections `from` to `to`, none of which is data.
pub(super) const fn len_of(from: u16, to: u16) -> usize {
    let mut len = 0usize;
    let mut rest: &[(u16, usize)] = &SECTIONS;
    while let [(kind, value), tail @ ..] = rest {
        if *kind >= from && *kind <= to {
            len = len.saturating_add(HEAD).saturating_add(*value);
        }
        rest = tail;
    }
    len
}

/// Bytes of sections 1 to 8, which are as long in every record.
pub(super) const FIXED: usize = len_of(TUPLE, COUNTERS);

/// The sections of a payload, each at most once and of the right length.
///
/// Those of fixed length are arrays, so that reading their fields needs no check.
#[derive(Debug, Default)]
pub(super) struct Found<'a> {
    pub(super) tuple: Section<'a, 40>,
    pub(super) sequence: Section<'a, 20>,
    pub(super) window: Section<'a, 32>,
    pub(super) options: Section<'a, 8>,
    pub(super) timestamps: Section<'a, 12>,
    pub(super) rtt: Section<'a, 20>,
    pub(super) congestion: Section<'a, 16>,
    pub(super) counters: Section<'a, 16>,
    pub(super) total: Section<'a, 4>,
    pub(super) offset: Section<'a, 4>,
    pub(super) out_of_order: Option<&'a [u8]>,
    pub(super) sack: Option<&'a [u8]>,
    pub(super) data: Option<&'a [u8]>,
    pub(super) route: Section<'a, 24>,
    pub(super) socket_options: Section<'a, { options::LEN }>,
    pub(super) congestion_control: Section<'a, { options::NAME_LEN }>,
}

/// A section of fixed length, if it is there.
pub(super) type Section<'a, const LEN: usize> = Option<&'a [u8; LEN]>;

impl<'a> Found<'a> {
    /// Reads a payload to its end.
    #[inline]
    pub(super) fn parse(payload: &'a [u8]) -> Result<Found<'a>, Error> {
        let mut found = Found::default();
        found.read(payload)?;
        Ok(found)
    }

    fn read(&mut self, payload: &'a [u8]) -> Result<(), Error> {
        let mut rest = self.fixed(payload).unwrap_or(payload);
        while !rest.is_empty() {
            let (&[a, b, c, d], behind) = rest.split_first_chunk().ok_or(Error::Truncated)?;
            let kind = u16::from_be_bytes([a, b]);
            let len = usize::from(u16::from_be_bytes([c, d]));
            let (value, behind) = behind.split_at_checked(len).ok_or(Error::Truncated)?;
            rest = behind;
            let doubled = match kind {
                TUPLE => self.tuple.replace(fixed(value)?).is_some(),
                SEQUENCE => self.sequence.replace(fixed(value)?).is_some(),
                WINDOW => self.window.replace(fixed(value)?).is_some(),
                OPTIONS => self.options.replace(fixed(value)?).is_some(),
                TIMESTAMPS => self.timestamps.replace(fixed(value)?).is_some(),
                RTT => self.rtt.replace(fixed(value)?).is_some(),
                CONGESTION => self.congestion.replace(fixed(value)?).is_some(),
                COUNTERS => self.counters.replace(fixed(value)?).is_some(),
                TOTAL => self.total.replace(fixed(value)?).is_some(),
                OFFSET => self.offset.replace(fixed(value)?).is_some(),
                OUT_OF_ORDER => {
                    let value = ranges(value, MAX_OUT_OF_ORDER)?;
                    self.out_of_order.replace(value).is_some()
                }
                SACK => self.sack.replace(ranges(value, MAX_SACKS)?).is_some(),
                DATA if value.is_empty() => return Err(Error::BadLength),
                DATA => self.data.replace(value).is_some(),
                ROUTE => self.route.replace(fixed(value)?).is_some(),
                SOCKET_OPTIONS => self.socket_options.replace(fixed(value)?).is_some(),
                CONGESTION_CONTROL => self.congestion_control.replace(fixed(value)?).is_some(),
                _ if kind & OPTIONAL != 0 => false,
                _ => return Err(Error::UnknownSection(kind)),
            };
            if doubled {
                return Err(Error::Duplicate(kind));
            }
        }
        Ok(())
    }

    /// Takes sections 1 to 8 if they are what the payload begins with, in this order, and gives what
    /// is behind them. That is how they are written here; otherwise they are found one by one.
    #[inline]
    fn fixed(&mut self, payload: &'a [u8]) -> Option<&'a [u8]> {
        let (block, behind) = payload.split_first_chunk::<FIXED>()?;
        let mut rest: &[u8] = block;
        let tuple = next(&mut rest, TUPLE)?;
        let sequence = next(&mut rest, SEQUENCE)?;
        let window = next(&mut rest, WINDOW)?;
        let options = next(&mut rest, OPTIONS)?;
        let timestamps = next(&mut rest, TIMESTAMPS)?;
        let rtt = next(&mut rest, RTT)?;
        let congestion = next(&mut rest, CONGESTION)?;
        let counters = next(&mut rest, COUNTERS)?;
        self.tuple = Some(tuple);
        self.sequence = Some(sequence);
        self.window = Some(window);
        self.options = Some(options);
        self.timestamps = Some(timestamps);
        self.rtt = Some(rtt);
        self.congestion = Some(congestion);
        self.counters = Some(counters);
        Some(behind)
    }

    /// Errors if a section is left over: it has no place in this record.
    pub(super) fn finish(self) -> Result<(), Error> {
        let absent = |kind, there: bool| {
            if there {
                Err(Error::UnexpectedSection(kind))
            } else {
                Ok(())
            }
        };
        absent(TUPLE, self.tuple.is_some())?;
        absent(SEQUENCE, self.sequence.is_some())?;
        absent(WINDOW, self.window.is_some())?;
        absent(OPTIONS, self.options.is_some())?;
        absent(TIMESTAMPS, self.timestamps.is_some())?;
        absent(RTT, self.rtt.is_some())?;
        absent(CONGESTION, self.congestion.is_some())?;
        absent(COUNTERS, self.counters.is_some())?;
        absent(TOTAL, self.total.is_some())?;
        absent(OFFSET, self.offset.is_some())?;
        absent(OUT_OF_ORDER, self.out_of_order.is_some())?;
        absent(SACK, self.sack.is_some())?;
        absent(DATA, self.data.is_some())?;
        absent(ROUTE, self.route.is_some())?;
        absent(SOCKET_OPTIONS, self.socket_options.is_some())?;
        absent(CONGESTION_CONTROL, self.congestion_control.is_some())
    }
}

/// The value of the section of this type and fixed length that stands at the start of `rest`.
#[inline]
fn next<'a, const LEN: usize>(rest: &mut &'a [u8], kind: u16) -> Option<&'a [u8; LEN]> {
    let (&[a, b, c, d], behind) = rest.split_first_chunk::<HEAD>()?;
    let (value, behind) = behind.split_first_chunk()?;
    *rest = behind;
    let right =
        u16::from_be_bytes([a, b]) == kind && usize::from(u16::from_be_bytes([c, d])) == LEN;
    right.then_some(value)
}

/// The value of a section of fixed length.
#[inline]
fn fixed<const LEN: usize>(value: &[u8]) -> Result<&[u8; LEN], Error> {
    value.try_into().map_err(|_| Error::BadLength)
}

/// The value of a section of one to `max` ranges.
fn ranges(value: &[u8], max: usize) -> Result<&[u8], Error> {
    let whole = value.len() % RANGE_LEN == 0;
    if whole && (1..=max).contains(&(value.len() / RANGE_LEN)) {
        Ok(value)
    } else {
        Err(Error::BadLength)
    }
}

/// Takes out a section that must be there.
#[inline]
pub(super) fn need<'a, const LEN: usize>(
    section: &mut Section<'a, LEN>,
    kind: u16,
) -> Result<&'a [u8; LEN], Error> {
    section.take().ok_or(Error::MissingSection(kind))
}

/// Appends to a buffer of bytes.
///
/// Where the length of the buffer is known when this is compiled, nothing of its checks is left.
pub(super) struct Writer<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl<'a> Writer<'a> {
    /// Writes from the start of `buffer`.
    #[inline(always)]
    pub(super) fn new(buffer: &'a mut [u8]) -> Writer<'a> {
        Writer { buffer, len: 0 }
    }

    /// How much has been written.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The next `LEN` bytes of the buffer, to be filled.
    #[inline(always)]
    pub(super) fn array<const LEN: usize>(&mut self) -> Result<&mut [u8; LEN], Error> {
        let rest = self.buffer.get_mut(self.len..);
        let array = rest.and_then(|rest| rest.first_chunk_mut());
        self.len = self.len.saturating_add(LEN);
        array.ok_or(Error::NoSpace)
    }

    /// The next `len` bytes of the buffer, to be filled.
    pub(super) fn slice(&mut self, len: usize) -> Result<&mut [u8], Error> {
        let rest = self.buffer.get_mut(self.len..);
        let slice = rest.and_then(|rest| rest.get_mut(..len));
        self.len = self.len.saturating_add(len);
        slice.ok_or(Error::NoSpace)
    }

    /// Writes bytes.
    #[inline(always)]
    pub(super) fn put<const LEN: usize>(&mut self, bytes: [u8; LEN]) -> Result<(), Error> {
        *self.array()? = bytes;
        Ok(())
    }

    /// Writes numbers.
    #[inline(always)]
    pub(super) fn u32s<const COUNT: usize>(&mut self, values: [u32; COUNT]) -> Result<(), Error> {
        for value in &values {
            self.put(value.to_be_bytes())?;
        }
        Ok(())
    }

    /// Writes the head of a section; its value comes next.
    #[inline(always)]
    pub(super) fn section<const KIND: u16>(&mut self) -> Result<(), Error> {
        let len = const { len_of(KIND, KIND) - HEAD };
        self.head(KIND, len)
    }

    /// Writes a section of ranges, unless there are none.
    pub(super) fn ranges(&mut self, kind: u16, ranges: &[Range]) -> Result<(), Error> {
        if ranges.is_empty() {
            return Ok(());
        }
        self.head(kind, ranges.len().saturating_mul(RANGE_LEN))?;
        ranges
            .iter()
            .try_for_each(|range| self.u32s([range.start, range.end]))
    }

    /// Writes the head of a section with a value of `len` bytes.
    #[inline(always)]
    pub(super) fn head(&mut self, kind: u16, len: usize) -> Result<(), Error> {
        let len = u16::try_from(len).map_err(|_| Error::TooLong)?;
        self.put(kind.to_be_bytes())?;
        self.put(len.to_be_bytes())
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
        writer.head(kind, value.len()).unwrap();
        writer.slice(value.len()).unwrap().copy_from_slice(value);
        let len = writer.len();
        bytes[..len].to_vec()
    }

    #[test]
    fn found_once_and_in_any_order() {
        let mut payload = section(DATA, b"abc");
        payload.extend(section(0x8001, b"from the future"));
        payload.extend(section(TOTAL, &[0, 0, 0, 3]));
        let mut found = Found::parse(&payload).unwrap();
        assert_eq!(need(&mut found.total, TOTAL), Ok(&[0, 0, 0, 3]));
        let missing = Err(Error::MissingSection(TOTAL));
        assert_eq!(need(&mut found.total, TOTAL), missing);
        assert_eq!(found.offset, None);
        assert_eq!(found.finish(), Err(Error::UnexpectedSection(DATA)));
        let mut found = Found::parse(&payload).unwrap();
        assert_eq!(found.data.take(), Some(&b"abc"[..]));
        assert!(found.total.take().is_some());
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
