// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a leader says when most is as before (FIG. 16: "may only forward changes"): of whom nothing but the number of the
//! heartbeat is another, that alone.

use super::{check, count, group::Relayed, Error, Heard, Reader, Writer, AGE_LIMIT_MAX};

/// Most hosts of a [`Changes`] that are as before.
pub const SAME_MAX: usize = 256;
/// Bytes of the body of a [`Changes`] in front of what it says of hosts.
pub(crate) const CHANGES_HEAD: usize = 12;

/// Consolidated heartbeat message 1602 of which most is as before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// Counts those of this life of the leader, from 1; together with [`super::Consolidated`].
    pub number: u64,
    /// The heartbeats of hosts that are new, or otherwise than before, by rising host.
    pub records: Vec<Relayed>,
    /// Those of hosts that are as before, by rising host.
    pub same: Vec<Same>,
}

/// A heartbeat that says what an earlier one did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Same {
    /// The host.
    pub host: u32,
    /// The number of the [`Changes`] of this life of the leader in whose `records` that is.
    pub base: u64,
    /// How many heartbeats later this one is, from 1.
    pub more: u64,
    /// As in [`Relayed::age`].
    pub age: u32,
}

/// A load balancing unit has got a [`Changes`], but not what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeardPart {
    /// The message.
    pub heard: Heard,
    /// The hosts in it of which that is missing, or of which nothing else is known, 1 to [`SAME_MAX`], by rising id.
    pub missing: Vec<u32>,
}

impl Changes {
    /// Bytes that `same` takes behind what there is.
    pub(crate) fn len_with(&self, same: &Same) -> usize {
        let mut bytes = Vec::new();
        let last = self.same.last().map_or(0, |same| same.host);
        same.encode(self.number, last, &mut bytes);
        bytes.len()
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.u64(self.number);
        out.u16(self.records.len() as u16);
        out.u16(self.same.len() as u16);
        for record in &self.records {
            record.encode(out);
        }
        let mut last = 0;
        for same in &self.same {
            same.encode(self.number, last, out);
            last = same.host;
        }
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Result<Self, Error> {
        let number = from.u64()?;
        check(number != 0, Error::Id)?;
        let (records, same) = (count(from)?, usize::from(from.u16()?));
        check(same <= SAME_MAX && records + same > 0, Error::Count)?;
        let records = (0..records).map(|_| Relayed::decode(from));
        let records = records.collect::<Result<Vec<_>, _>>()?;
        check(records.is_sorted_by(|a, b| a.host < b.host), Error::Order)?;
        let mut last = 0;
        let same = (0..same).map(|_| {
            let same = Same::decode(number, last, from)?;
            last = same.host;
            Ok(same)
        });
        Ok(Self {
            number,
            records,
            same: same.collect::<Result<_, _>>()?,
        })
    }
}

impl Same {
    /// In the message `number`, behind the host `last`.
    fn encode(&self, number: u64, last: u32, out: &mut Vec<u8>) {
        out.short(u64::from(self.host.wrapping_sub(last)));
        out.short(number.wrapping_sub(self.base));
        out.short(self.more);
        out.short(u64::from(self.age));
    }

    fn decode(number: u64, last: u32, from: &mut Reader<'_>) -> Result<Self, Error> {
        let (step, back, more) = (from.short()?, from.short()?, from.short()?);
        check(step != 0, Error::Order)?;
        let step = u32::try_from(step).map_err(|_| Error::Number)?;
        let host = last.checked_add(step).ok_or(Error::Number)?;
        check(back != 0 && more != 0, Error::Id)?;
        // There is no message 0.
        let base = number.checked_sub(back).filter(|base| *base != 0);
        let base = base.ok_or(Error::Id)?;
        let age = u32::try_from(from.short()?).map_err(|_| Error::AgeLimit)?;
        check(age <= AGE_LIMIT_MAX, Error::AgeLimit)?;
        Ok(Self {
            host,
            base,
            more,
            age,
        })
    }
}

impl HeardPart {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        self.heard.encode(out);
        out.u16(self.missing.len() as u16);
        for host in &self.missing {
            out.u32(*host);
        }
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Result<Self, Error> {
        let heard = Heard::decode(from)?;
        let missing = usize::from(from.u16()?);
        check((1..=SAME_MAX).contains(&missing), Error::Count)?;
        let missing = (0..missing).map(|_| from.u32());
        let missing = missing.collect::<Result<Vec<_>, _>>()?;
        check(missing.first().is_some_and(|host| *host != 0), Error::Id)?;
        check(missing.is_sorted_by(|a, b| a < b), Error::Order)?;
        Ok(Self { heard, missing })
    }
}
