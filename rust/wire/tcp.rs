// SPDX-License-Identifier: GPL-2.0

//! TCP segments and their options, RFC 9293, RFC 7323, RFC 2018.

use core::{
    fmt,
    ops::BitOr, //
};

use super::{
    addr::Addr,
    checksum,
    error::DropReason,
    field,
    seq::SeqNum, //
};

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;

/// Offset of the checksum field in the header.
pub const CHECKSUM: usize = 16;

const SOURCE_PORT: usize = 0;
const DESTINATION_PORT: usize = 2;
const SEQ: usize = 4;
const ACK: usize = 8;
const DATA_OFFSET: usize = 12;
const FLAGS: usize = 13;
const WINDOW: usize = 14;
const URGENT: usize = 18;

/// The control bits of a segment.
#[derive(Clone, Copy, Default, Eq, Hash, PartialEq)]
#[repr(transparent)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Flags = Flags(0x01);
    /// Synchronize sequence numbers.
    pub const SYN: Flags = Flags(0x02);
    /// Reset the connection.
    pub const RST: Flags = Flags(0x04);
    /// Push.
    pub const PSH: Flags = Flags(0x08);
    /// The acknowledgment field is significant.
    pub const ACK: Flags = Flags(0x10);
    /// The urgent pointer is significant.
    pub const URG: Flags = Flags(0x20);
    /// ECN echo.
    pub const ECE: Flags = Flags(0x40);
    /// Congestion window reduced.
    pub const CWR: Flags = Flags(0x80);

    /// Whether all bits of `other` are set.
    #[inline]
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether this opens a connection: SYN without ACK, RST and FIN.
    #[inline]
    pub const fn is_initial_syn(self) -> bool {
        self.0 & (Flags::SYN.0 | Flags::ACK.0 | Flags::RST.0 | Flags::FIN.0) == Flags::SYN.0
    }
}

impl BitOr for Flags {
    type Output = Flags;

    #[inline]
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, letter) in "FSRPAUEC".chars().enumerate() {
            if (self.0 >> bit) & 1 != 0 {
                write!(f, "{letter}")?;
            }
        }
        Ok(())
    }
}

/// What answers a segment with `len` bytes of data for which there is no connection: control bits,
/// sequence and acknowledgment number (RFC 9293 section 3.10.7.1). None if it is a RST.
pub fn refusal(
    flags: Flags,
    seq: SeqNum,
    ack: SeqNum,
    len: u32,
) -> Option<(Flags, SeqNum, SeqNum)> {
    if flags.contains(Flags::RST) {
        return None;
    }
    if flags.contains(Flags::ACK) {
        return Some((Flags::RST, ack, SeqNum(0)));
    }
    let end = seq
        .0
        .wrapping_add(len)
        .wrapping_add(u32::from(flags.contains(Flags::SYN)))
        .wrapping_add(u32::from(flags.contains(Flags::FIN)));
    Some((Flags::RST | Flags::ACK, SeqNum(0), SeqNum(end)))
}

/// A view of a TCP segment.
#[derive(Clone, Debug)]
pub struct Packet<T: AsRef<[u8]>> {
    buffer: T,
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// A view of `buffer`, if it starts with a whole TCP header, options included.
    ///
    /// The buffer ends where the segment ends: TCP has no length field of its own.
    pub fn new_checked(buffer: T) -> Result<Packet<T>, DropReason> {
        let available = buffer.as_ref().len();
        if available < HEADER_LEN {
            return Err(DropReason::Truncated);
        }
        let packet = Packet { buffer };
        if packet.header_len() < HEADER_LEN {
            return Err(DropReason::BadHeaderLength);
        }
        if packet.header_len() > available {
            return Err(DropReason::Truncated);
        }
        Ok(packet)
    }

    /// The buffer back.
    pub fn into_inner(self) -> T {
        self.buffer
    }

    /// Source port.
    pub fn source_port(&self) -> u16 {
        field::u16(self.buffer.as_ref(), SOURCE_PORT)
    }

    /// Destination port.
    pub fn destination_port(&self) -> u16 {
        field::u16(self.buffer.as_ref(), DESTINATION_PORT)
    }

    /// Sequence number of the first byte, or of the SYN.
    pub fn seq(&self) -> SeqNum {
        SeqNum(field::u32(self.buffer.as_ref(), SEQ))
    }

    /// Acknowledgment number.
    pub fn ack(&self) -> SeqNum {
        SeqNum(field::u32(self.buffer.as_ref(), ACK))
    }

    /// Bytes of the header, options included.
    pub fn header_len(&self) -> usize {
        usize::from(field::u8(self.buffer.as_ref(), DATA_OFFSET) >> 4) << 2
    }

    /// Control bits.
    pub fn flags(&self) -> Flags {
        Flags(field::u8(self.buffer.as_ref(), FLAGS))
    }

    /// The window field, not scaled.
    pub fn window(&self) -> u16 {
        field::u16(self.buffer.as_ref(), WINDOW)
    }

    /// The checksum field.
    pub fn checksum(&self) -> u16 {
        field::u16(self.buffer.as_ref(), CHECKSUM)
    }

    /// The urgent pointer.
    pub fn urgent(&self) -> u16 {
        field::u16(self.buffer.as_ref(), URGENT)
    }

    /// Whether the checksum is right.
    pub fn verify_checksum(&self, source: Addr, destination: Addr) -> bool {
        checksum::transport(source, destination, 6, self.buffer.as_ref()) == 0
    }

    /// The options; the iterator ends at the end-of-list option or after the first error.
    pub fn options(&self) -> Options<'_> {
        Options {
            rest: field::range(self.buffer.as_ref(), HEADER_LEN, self.header_len()),
        }
    }

    /// The data.
    pub fn payload(&self) -> &[u8] {
        let bytes = self.buffer.as_ref();
        field::range(bytes, self.header_len(), bytes.len())
    }

    /// The sequence space the segment takes: its data, plus one each for SYN and FIN.
    pub fn sequence_len(&self) -> u32 {
        let flags = self.flags();
        (self.payload().len() as u32)
            .wrapping_add(u32::from(flags.contains(Flags::SYN)))
            .wrapping_add(u32::from(flags.contains(Flags::FIN)))
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Sets the source port.
    pub fn set_source_port(&mut self, port: u16) {
        field::put(self.buffer.as_mut(), SOURCE_PORT, port.to_be_bytes());
    }

    /// Sets the destination port.
    pub fn set_destination_port(&mut self, port: u16) {
        field::put(self.buffer.as_mut(), DESTINATION_PORT, port.to_be_bytes());
    }

    /// Sets the sequence number.
    pub fn set_seq(&mut self, seq: SeqNum) {
        field::put(self.buffer.as_mut(), SEQ, seq.0.to_be_bytes());
    }

    /// Sets the acknowledgment number.
    pub fn set_ack(&mut self, ack: SeqNum) {
        field::put(self.buffer.as_mut(), ACK, ack.0.to_be_bytes());
    }

    /// Sets the control bits.
    pub fn set_flags(&mut self, flags: Flags) {
        field::put(self.buffer.as_mut(), FLAGS, [flags.0]);
    }

    /// Sets the window field.
    pub fn set_window(&mut self, window: u16) {
        field::put(self.buffer.as_mut(), WINDOW, window.to_be_bytes());
    }

    /// Sets the checksum field.
    pub fn set_checksum(&mut self, check: u16) {
        field::put(self.buffer.as_mut(), CHECKSUM, check.to_be_bytes());
    }

    /// Computes the checksum and sets it.
    pub fn fill_checksum(&mut self, source: Addr, destination: Addr) {
        self.set_checksum(0);
        let check = checksum::transport(source, destination, 6, self.buffer.as_ref());
        self.set_checksum(check);
    }
}

/// Up to four pairs of left and right edges; what fits into the 40 bytes of options.
pub type SackBlocks = [Option<(SeqNum, SeqNum)>; 4];

/// A TCP option.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TcpOption<'a> {
    /// Maximum segment size, RFC 9293; SYN segments only.
    MaxSegmentSize(u16),
    /// Window scale shift count, RFC 7323; SYN segments only. Values above 14 count as 14.
    WindowScale(u8),
    /// Selective acknowledgments allowed, RFC 2018; SYN segments only.
    SackPermitted,
    /// Timestamps, RFC 7323.
    Timestamps {
        /// The sender's clock.
        value: u32,
        /// The peer's clock, echoed.
        echo: u32,
    },
    /// Selective acknowledgment, RFC 2018; absent blocks are `None`.
    Sack(SackBlocks),
    /// Anything else.
    Unknown {
        /// The option kind.
        kind: u8,
        /// The bytes behind kind and length.
        data: &'a [u8],
    },
}

impl TcpOption<'_> {
    /// Writes the option to the start of `buffer` and returns its length.
    ///
    /// Errors: [`DropReason::NoSpace`] if it does not fit, [`DropReason::BadOption`] if the
    /// option cannot be written (data longer than 38 bytes, kinds 0 and 1).
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, DropReason> {
        let mut bytes = [0u8; 40];
        let (kind, len) = match *self {
            TcpOption::MaxSegmentSize(size) => {
                field::put(&mut bytes, 2, size.to_be_bytes());
                (2, 4)
            }
            TcpOption::WindowScale(shift) => {
                field::put(&mut bytes, 2, [shift]);
                (3, 3)
            }
            TcpOption::SackPermitted => (4, 2),
            TcpOption::Timestamps { value, echo } => {
                field::put(&mut bytes, 2, value.to_be_bytes());
                field::put(&mut bytes, 6, echo.to_be_bytes());
                (8, 10)
            }
            TcpOption::Sack(blocks) => {
                let mut len = 2usize;
                for (left, right) in blocks.into_iter().flatten() {
                    field::put(&mut bytes, len, left.0.to_be_bytes());
                    field::put(&mut bytes, len.saturating_add(4), right.0.to_be_bytes());
                    len = len.saturating_add(8);
                }
                (5, len)
            }
            TcpOption::Unknown { kind, data } => {
                let len = data.len().saturating_add(2);
                if kind < 2 || len > bytes.len() {
                    return Err(DropReason::BadOption);
                }
                field::range_mut(&mut bytes, 2, len).copy_from_slice(data);
                (kind, len)
            }
        };
        field::put(&mut bytes, 0, [kind, len as u8]);
        buffer
            .get_mut(..len)
            .ok_or(DropReason::NoSpace)?
            .copy_from_slice(field::range(&bytes, 0, len));
        Ok(len)
    }
}

/// Iterator over the options of a segment; no-operations are skipped.
///
/// Each step takes at least one byte of at most 40, so it ends.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    rest: &'a [u8],
}

impl<'a> Options<'a> {
    /// Iterates over bare option bytes.
    pub fn new(bytes: &'a [u8]) -> Options<'a> {
        Options { rest: bytes }
    }

    fn parse(kind: u8, data: &'a [u8]) -> Result<TcpOption<'a>, DropReason> {
        let option = match (kind, data) {
            (2, [a, b]) => TcpOption::MaxSegmentSize(u16::from_be_bytes([*a, *b])),
            (3, [shift]) => TcpOption::WindowScale((*shift).min(14)),
            (4, []) => TcpOption::SackPermitted,
            (8, data) if data.len() == 8 => TcpOption::Timestamps {
                value: field::u32(data, 0),
                echo: field::u32(data, 4),
            },
            (5, data) if matches!(data.len(), 8 | 16 | 24 | 32) => {
                let mut blocks = [None; 4];
                for (block, bytes) in blocks.iter_mut().zip(data.chunks_exact(8)) {
                    *block = Some((SeqNum(field::u32(bytes, 0)), SeqNum(field::u32(bytes, 4))));
                }
                TcpOption::Sack(blocks)
            }
            (2..=5 | 8, _) => return Err(DropReason::BadOption),
            _ => TcpOption::Unknown { kind, data },
        };
        Ok(option)
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = Result<TcpOption<'a>, DropReason>;

    fn next(&mut self) -> Option<Self::Item> {
        while let [1, rest @ ..] = self.rest {
            self.rest = rest;
        }
        let (kind, len) = match self.rest {
            [] | [0, ..] => {
                self.rest = &[];
                return None;
            }
            [kind, len, ..] => (*kind, usize::from(*len)),
            _ => (0, 0),
        };
        let option = match (self.rest.get(2..len), self.rest.get(len..)) {
            (Some(data), Some(rest)) => {
                self.rest = rest;
                Options::parse(kind, data)
            }
            _ => Err(DropReason::BadOption),
        };
        if option.is_err() {
            self.rest = &[];
        }
        Some(option)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// A SYN with the options, and in the order, that Linux sends.
    const SYN: [u8; 40] = [
        0x9c, 0x40, 0x00, 0x50, 0x5f, 0x3a, 0x10, 0x01, 0x00, 0x00, 0x00, 0x00, 0xa0, 0x02, 0xfa,
        0xf0, 0x00, 0x00, 0x00, 0x00, 0x02, 0x04, 0x05, 0xb4, 0x04, 0x02, 0x08, 0x0a, 0x01, 0x02,
        0x03, 0x04, 0x00, 0x00, 0x00, 0x00, 0x01, 0x03, 0x03, 0x07,
    ];

    #[test]
    fn fields_of_a_syn() {
        let packet = Packet::new_checked(SYN).unwrap();
        assert_eq!(packet.source_port(), 40000);
        assert_eq!(packet.destination_port(), 80);
        assert_eq!(packet.seq(), SeqNum(0x5f3a_1001));
        assert_eq!(packet.header_len(), 40);
        assert_eq!(packet.window(), 0xfaf0);
        assert!(packet.flags().is_initial_syn());
        assert_eq!(packet.sequence_len(), 1);
        assert!(packet.payload().is_empty());
        let options: Result<Vec<_>, _> = packet.options().collect();
        assert_eq!(
            options.unwrap(),
            [
                TcpOption::MaxSegmentSize(1460),
                TcpOption::SackPermitted,
                TcpOption::Timestamps {
                    value: 0x0102_0304,
                    echo: 0
                },
                TcpOption::WindowScale(7),
            ]
        );
    }

    #[test]
    fn refusals() {
        let (seq, ack) = (SeqNum(u32::MAX), SeqNum(77));
        let (rst, both) = (Flags::RST, Flags::RST | Flags::ACK);
        for (flags, len, want) in [
            (Flags::SYN, 0, Some((both, 0, 0))),
            (Flags::SYN, 100, Some((both, 0, 100))),
            (Flags::FIN | Flags::SYN, 1, Some((both, 0, 2))),
            (Flags(0), 0, Some((both, 0, u32::MAX))),
            (Flags::ACK, 100, Some((rst, 77, 0))),
            (Flags::SYN | Flags::ACK, 0, Some((rst, 77, 0))),
            (Flags::RST, 0, None),
            (both, 0, None),
        ] {
            let got = refusal(flags, seq, ack, len);
            let want = want.map(|(flags, seq, ack)| (flags, SeqNum(seq), SeqNum(ack)));
            assert_eq!(got, want, "{flags:?}");
        }
    }

    #[test]
    fn bad_headers_are_refused() {
        for (offset, reason) in [
            (0x40, DropReason::BadHeaderLength),
            (0xb0, DropReason::Truncated),
        ] {
            let mut bytes = SYN;
            bytes[12] = offset;
            assert_eq!(Packet::new_checked(bytes).err(), Some(reason));
        }
        for len in 0..40 {
            assert!(Packet::new_checked(&SYN[..len]).is_err());
        }
    }

    #[test]
    fn options_end_or_fail() {
        let sack = [5, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        for (bytes, want) in [
            (&[][..], &[][..]),
            (&[1, 1, 1], &[]),
            (&[0, 2, 4], &[]),
            (&[1, 3, 3, 15], &[Ok(TcpOption::WindowScale(14))]),
            (&[2], &[Err(DropReason::BadOption)]),
            (&[2, 0], &[Err(DropReason::BadOption)]),
            (&[2, 1], &[Err(DropReason::BadOption)]),
            (&[2, 3, 1, 1], &[Err(DropReason::BadOption)]),
            (&[2, 4, 1], &[Err(DropReason::BadOption)]),
            (&[5, 3, 1], &[Err(DropReason::BadOption)]),
            (
                &[30, 3, 9, 4, 2],
                &[
                    Ok(TcpOption::Unknown {
                        kind: 30,
                        data: &[9],
                    }),
                    Ok(TcpOption::SackPermitted),
                ],
            ),
            (
                &sack,
                &[Ok(TcpOption::Sack([
                    Some((SeqNum(1), SeqNum(2))),
                    None,
                    None,
                    None,
                ]))],
            ),
        ] {
            let got: Vec<_> = Options::new(bytes).collect();
            assert_eq!(got, want, "{bytes:?}");
        }
    }

    #[test]
    fn options_round_trip() {
        let all = [
            TcpOption::MaxSegmentSize(536),
            TcpOption::WindowScale(14),
            TcpOption::SackPermitted,
            TcpOption::Timestamps { value: 1, echo: 2 },
            TcpOption::Sack([Some((SeqNum(7), SeqNum(9))), None, None, None]),
            TcpOption::Unknown {
                kind: 34,
                data: &[1, 2, 3, 4],
            },
        ];
        let mut bytes = [1; 40];
        let mut len = 0;
        for option in &all {
            len += option.emit(&mut bytes[len..]).unwrap();
        }
        let got: Result<Vec<_>, _> = Options::new(&bytes[..len]).collect();
        assert_eq!(got.unwrap(), all);
        assert_eq!(all[0].emit(&mut [0; 3]), Err(DropReason::NoSpace));
        let no_op = TcpOption::Unknown { kind: 1, data: &[] };
        assert_eq!(no_op.emit(&mut [0; 9]), Err(DropReason::BadOption));
    }

    #[test]
    fn initial_syn() {
        assert!((Flags::SYN | Flags::ECE | Flags::CWR).is_initial_syn());
        assert!(!(Flags::SYN | Flags::ACK).is_initial_syn());
        assert!(!(Flags::SYN | Flags::RST).is_initial_syn());
        assert!(!(Flags::SYN | Flags::FIN).is_initial_syn());
        assert!(!Flags::ACK.is_initial_syn());
    }
}
