// SPDX-License-Identifier: GPL-2.0

//! UDP, RFC 768.

use super::{
    addr::Addr,
    checksum,
    error::DropReason,
    field, //
};

/// Bytes of the header.
pub const HEADER_LEN: usize = 8;

/// Offset of the checksum field in the header.
pub const CHECKSUM: usize = 6;

const SOURCE_PORT: usize = 0;
const DESTINATION_PORT: usize = 2;
const LENGTH: usize = 4;

/// A view of a UDP datagram.
#[derive(Clone, Debug)]
pub struct Packet<T: AsRef<[u8]>> {
    buffer: T,
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// A view of `buffer`, if it holds a whole datagram; bytes behind it are allowed.
    pub fn new_checked(buffer: T) -> Result<Packet<T>, DropReason> {
        let available = buffer.as_ref().len();
        if available < HEADER_LEN {
            return Err(DropReason::Truncated);
        }
        let packet = Packet { buffer };
        if packet.length() < HEADER_LEN {
            return Err(DropReason::BadLength);
        }
        if packet.length() > available {
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

    /// The length field: bytes of header and payload.
    pub fn length(&self) -> usize {
        usize::from(field::u16(self.buffer.as_ref(), LENGTH))
    }

    /// The checksum field; zero says that there is none.
    pub fn checksum(&self) -> u16 {
        field::u16(self.buffer.as_ref(), CHECKSUM)
    }

    /// Whether the checksum is right, or absent (which only IPv4 allows).
    pub fn verify_checksum(&self, source: Addr, destination: Addr) -> bool {
        if self.checksum() == 0 {
            return source.is_v4();
        }
        let segment = field::range(self.buffer.as_ref(), 0, self.length());
        checksum::transport(source, destination, 17, segment) == 0
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        field::range(self.buffer.as_ref(), HEADER_LEN, self.length())
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

    /// Sets the checksum field.
    pub fn set_checksum(&mut self, check: u16) {
        field::put(self.buffer.as_mut(), CHECKSUM, check.to_be_bytes());
    }

    /// Computes the checksum and sets it.
    pub fn fill_checksum(&mut self, source: Addr, destination: Addr) {
        self.set_checksum(0);
        let segment = field::range(self.buffer.as_ref(), 0, self.length());
        let check = checksum::transport(source, destination, 17, segment);
        self.set_checksum(checksum::udp_nonzero(check));
    }
}

/// The header of a datagram with the checksum absent.
///
/// Errors with [`DropReason::BadLength`] if header and payload exceed 65535 bytes.
pub fn emit(
    source_port: u16,
    destination_port: u16,
    payload_len: u16,
) -> Result<[u8; HEADER_LEN], DropReason> {
    let length = payload_len
        .checked_add(HEADER_LEN as u16)
        .ok_or(DropReason::BadLength)?;
    let mut header = [0; HEADER_LEN];
    field::put(&mut header, SOURCE_PORT, source_port.to_be_bytes());
    field::put(
        &mut header,
        DESTINATION_PORT,
        destination_port.to_be_bytes(),
    );
    field::put(&mut header, LENGTH, length.to_be_bytes());
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: Addr = Addr::v4([192, 0, 2, 1]);
    const DESTINATION: Addr = Addr::v4([198, 51, 100, 1]);

    #[test]
    fn fields_and_checksum() {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&emit(5000, 53, 3).unwrap());
        bytes[8..].copy_from_slice(b"abc!");
        let mut packet = Packet::new_checked(bytes).unwrap();
        assert_eq!(packet.source_port(), 5000);
        assert_eq!(packet.destination_port(), 53);
        assert_eq!(packet.payload(), b"abc");
        assert!(packet.verify_checksum(SOURCE, DESTINATION));
        packet.fill_checksum(SOURCE, DESTINATION);
        assert_ne!(packet.checksum(), 0);
        assert!(packet.verify_checksum(SOURCE, DESTINATION));
        packet.set_source_port(5001);
        assert!(!packet.verify_checksum(SOURCE, DESTINATION));
    }

    #[test]
    fn bad_lengths_are_refused() {
        let mut bytes = [0; 8];
        for (length, reason) in [(7, DropReason::BadLength), (9, DropReason::Truncated)] {
            bytes[5] = length;
            assert_eq!(Packet::new_checked(bytes).err(), Some(reason));
        }
        assert!(Packet::new_checked(&bytes[..7]).is_err());
        assert_eq!(emit(1, 2, 65528), Err(DropReason::BadLength));
    }

    #[test]
    fn absent_checksum_is_for_ipv4_only() {
        let header = emit(1, 2, 0).unwrap();
        let packet = Packet::new_checked(header).unwrap();
        let v6 = Addr::v6([1; 16]);
        assert!(packet.verify_checksum(SOURCE, DESTINATION));
        assert!(!packet.verify_checksum(v6, v6));
    }
}
