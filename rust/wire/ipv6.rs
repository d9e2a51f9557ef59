// SPDX-License-Identifier: GPL-2.0

//! IPv6, RFC 8200.

use super::{
    addr::Addr,
    error::DropReason,
    field, //
};

/// Bytes of the fixed header.
pub const HEADER_LEN: usize = 40;

/// How many extension headers [`Packet::upper_layer`] walks past.
pub const MAX_EXTENSIONS: usize = 8;

/// Offset of the hop limit in the header.
pub const HOP_LIMIT: usize = 7;

/// Offset of the source address in the header.
pub const SOURCE: usize = 8;

/// Offset of the destination address in the header.
pub const DESTINATION: usize = 24;

const PAYLOAD_LEN: usize = 4;
pub(super) const NEXT_HEADER: usize = 6;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// In the second word of a fragment header: the offset.
const NOT_FIRST: u16 = 0xfff8;
/// The offset, and that more fragments follow.
const NOT_WHOLE: u16 = NOT_FIRST | 1;

/// A view of an IPv6 packet.
#[derive(Clone, Debug)]
pub struct Packet<T: AsRef<[u8]>> {
    buffer: T,
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// A view of `buffer`, if it starts with an IPv6 header and holds the whole packet.
    ///
    /// Bytes behind the payload are allowed. Jumbograms (payload length zero) have no payload
    /// here.
    pub fn new_checked(buffer: T) -> Result<Packet<T>, DropReason> {
        let packet = Packet::new_header(buffer)?;
        if packet.total_len() > packet.buffer.as_ref().len() {
            return Err(DropReason::Truncated);
        }
        Ok(packet)
    }

    /// A view of `buffer`, if it starts with a whole IPv6 header; the payload may be cut off.
    pub fn new_header(buffer: T) -> Result<Packet<T>, DropReason> {
        let bytes = buffer.as_ref();
        if bytes.len() < HEADER_LEN {
            return Err(DropReason::Truncated);
        }
        if field::u8(bytes, 0) >> 4 != 6 {
            return Err(DropReason::BadVersion);
        }
        Ok(Packet { buffer })
    }

    /// The buffer back.
    pub fn into_inner(self) -> T {
        self.buffer
    }

    /// The payload length field: bytes behind the fixed header.
    #[inline]
    pub fn payload_len(&self) -> usize {
        usize::from(field::u16(self.buffer.as_ref(), PAYLOAD_LEN))
    }

    /// Bytes of header and payload.
    #[inline]
    pub fn total_len(&self) -> usize {
        HEADER_LEN.saturating_add(self.payload_len())
    }

    /// Traffic class: DSCP and ECN.
    pub fn traffic_class(&self) -> u8 {
        ((field::u16(self.buffer.as_ref(), 0) >> 4) & 0xff) as u8
    }

    /// Flow label, 20 bits.
    pub fn flow_label(&self) -> u32 {
        field::u32(self.buffer.as_ref(), 0) & 0xf_ffff
    }

    /// The protocol number of what follows the fixed header.
    pub fn next_header(&self) -> u8 {
        field::u8(self.buffer.as_ref(), NEXT_HEADER)
    }

    /// Hop limit.
    pub fn hop_limit(&self) -> u8 {
        field::u8(self.buffer.as_ref(), HOP_LIMIT)
    }

    /// The source address.
    pub fn source(&self) -> Addr {
        Addr::v6(field::array(self.buffer.as_ref(), SOURCE))
    }

    /// The destination address.
    pub fn destination(&self) -> Addr {
        Addr::v6(field::array(self.buffer.as_ref(), DESTINATION))
    }

    /// What follows the fixed header, as far as the buffer holds it.
    pub fn payload(&self) -> &[u8] {
        let bytes = self.buffer.as_ref();
        field::range(bytes, HEADER_LEN, self.total_len().min(bytes.len()))
    }

    /// Protocol number and offset in the packet of the upper-layer header.
    ///
    /// Walks past hop-by-hop, routing and destination options, at most [`MAX_EXTENSIONS`] of
    /// them. A fragment header is a [`DropReason::Fragment`], unless it says that the packet is
    /// whole (RFC 6946). A routing header that leads on to other addresses is a
    /// [`DropReason::Protocol`]: the destination in the header is not the final one.
    #[inline]
    pub fn upper_layer(&self) -> Result<(u8, usize), DropReason> {
        self.walk(NOT_WHOLE)
    }

    /// As [`Packet::upper_layer`], of a packet that may be the first of several fragments: that
    /// one has the upper-layer header, too.
    pub fn first_upper_layer(&self) -> Result<(u8, usize), DropReason> {
        self.walk(NOT_FIRST)
    }

    /// Walks past extension headers; a fragment header with any bit of `fragment` set stops it.
    #[inline]
    fn walk(&self, fragment: u16) -> Result<(u8, usize), DropReason> {
        let bytes = self.buffer.as_ref();
        let mut protocol = self.next_header();
        let mut offset = HEADER_LEN;
        for _ in 0..=MAX_EXTENSIONS {
            let len = match protocol {
                HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                    let segments_left = field::u8(bytes, offset.saturating_add(3));
                    if protocol == ROUTING && segments_left != 0 {
                        return Err(DropReason::Protocol);
                    }
                    let units = usize::from(field::u8(bytes, offset.saturating_add(1)));
                    units.saturating_add(1).saturating_mul(8)
                }
                FRAGMENT => {
                    if field::u16(bytes, offset.saturating_add(2)) & fragment != 0 {
                        return Err(DropReason::Fragment);
                    }
                    8
                }
                _ => return Ok((protocol, offset)),
            };
            let next = offset.saturating_add(len);
            if next > self.total_len().min(bytes.len()) {
                return Err(DropReason::Truncated);
            }
            protocol = field::u8(bytes, offset);
            offset = next;
        }
        Err(DropReason::BadHeaderLength)
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Sets the payload length.
    pub fn set_payload_len(&mut self, len: u16) {
        field::put(self.buffer.as_mut(), PAYLOAD_LEN, len.to_be_bytes());
    }

    /// Sets the hop limit.
    pub fn set_hop_limit(&mut self, limit: u8) {
        field::put(self.buffer.as_mut(), HOP_LIMIT, [limit]);
    }

    /// Sets the source address.
    pub fn set_source(&mut self, source: [u8; 16]) {
        field::put(self.buffer.as_mut(), SOURCE, source);
    }

    /// Sets the destination address.
    pub fn set_destination(&mut self, destination: [u8; 16]) {
        field::put(self.buffer.as_mut(), DESTINATION, destination);
    }
}

/// The fields of a header of which the rest is zero.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Repr {
    /// Source address.
    pub source: Addr,
    /// Destination address.
    pub destination: Addr,
    /// Protocol number of what follows.
    pub next_header: u8,
    /// Bytes that follow.
    pub payload_len: u16,
    /// Hop limit.
    pub hop_limit: u8,
}

impl Repr {
    /// The header's bytes.
    pub fn emit(&self) -> [u8; HEADER_LEN] {
        let [l0, l1] = self.payload_len.to_be_bytes();
        let mut header = [0; HEADER_LEN];
        let fields = [
            &[0x60, 0, 0, 0, l0, l1, self.next_header, self.hop_limit][..],
            self.source.as_bytes(),
            self.destination.as_bytes(),
        ];
        for (to, from) in header.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn packet(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::from([0x61, 0x2a, 0xbc, 0xde, 0, 0, next_header, 64]);
        bytes.extend([1; 16]);
        bytes.extend([2; 16]);
        bytes.extend(payload);
        let mut view = Packet::new_checked(bytes).unwrap();
        view.set_payload_len(payload.len() as u16);
        view.into_inner()
    }

    #[test]
    fn fields() {
        let packet = Packet::new_checked(packet(6, &[7; 4])).unwrap();
        assert_eq!(packet.traffic_class(), 0x12);
        assert_eq!(packet.flow_label(), 0xabcde);
        assert_eq!(packet.hop_limit(), 64);
        assert_eq!(packet.source(), Addr::v6([1; 16]));
        assert_eq!(packet.destination(), Addr::v6([2; 16]));
        assert_eq!(packet.payload(), [7; 4]);
        assert_eq!(packet.upper_layer(), Ok((6, 40)));
    }

    #[test]
    fn extension_headers() {
        let hop_by_hop = [17, 0, 0, 0, 0, 0, 0, 0];
        let fragment = [6, 0, 0, 1, 0, 0, 0, 0];
        let atomic = [6, 0, 0, 0, 0, 0, 0, 9];
        let endless: Vec<u8> = [60, 0, 0, 0, 0, 0, 0, 0].repeat(MAX_EXTENSIONS + 2);
        let cut = [17, 1, 0, 0, 0, 0, 0, 0];
        let routed = [6, 0, 0, 0, 0, 0, 0, 0];
        let routing = [6, 0, 0, 1, 0, 0, 0, 0];
        for (next, payload, want) in [
            (HOP_BY_HOP, &hop_by_hop[..], Ok((17, 48))),
            (FRAGMENT, &fragment, Err(DropReason::Fragment)),
            (FRAGMENT, &atomic, Ok((6, 48))),
            (60, &endless, Err(DropReason::BadHeaderLength)),
            (ROUTING, &cut, Err(DropReason::Truncated)),
            (ROUTING, &[], Err(DropReason::Truncated)),
            (ROUTING, &routed, Ok((6, 48))),
            (ROUTING, &routing, Err(DropReason::Protocol)),
        ] {
            let packet = Packet::new_checked(packet(next, payload)).unwrap();
            assert_eq!(packet.upper_layer(), want);
        }
    }

    #[test]
    fn first_fragments() {
        for (word, want) in [
            ([0, 1], Ok((6, 48))),
            ([0, 0], Ok((6, 48))),
            ([0, 8], Err(DropReason::Fragment)),
            ([0x80, 1], Err(DropReason::Fragment)),
        ] {
            let fragment = [6, 0, word[0], word[1], 0, 0, 0, 0];
            let packet = Packet::new_checked(packet(FRAGMENT, &fragment)).unwrap();
            assert_eq!(packet.first_upper_layer(), want);
        }
    }

    #[test]
    fn bad_headers_are_refused() {
        let mut bytes = packet(6, &[7; 4]);
        assert_eq!(
            Packet::new_checked(&bytes[..43]).err(),
            Some(DropReason::Truncated)
        );
        assert!(Packet::new_header(&bytes[..40]).is_ok());
        assert!(Packet::new_header(&bytes[..39]).is_err());
        bytes[0] = 0x45;
        assert_eq!(
            Packet::new_checked(bytes).err(),
            Some(DropReason::BadVersion)
        );
    }
}
