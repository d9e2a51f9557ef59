// SPDX-License-Identifier: GPL-2.0

//! CRC-32C (Castagnoli), RFC 3720 section 12.1 and appendix B.4.

#[cfg(feature = "crate-root")]
mod table;

#[cfg(feature = "crate-root")]
use table::update;

// Most processors have an instruction for it, which the kernel knows how to use.
#[cfg(not(feature = "crate-root"))]
use crate::crc32c::update;

/// A CRC in the making, over pieces of any length.
#[derive(Clone, Copy, Debug)]
pub struct Crc32c(u32);

impl Crc32c {
    /// The CRC of nothing yet.
    pub const fn new() -> Crc32c {
        Crc32c(!0)
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, data: &[u8]) {
        self.0 = update(self.0, data);
    }

    /// The CRC of everything taken in.
    pub const fn finish(self) -> u32 {
        !self.0
    }
}

impl Default for Crc32c {
    fn default() -> Crc32c {
        Crc32c::new()
    }
}

/// The CRC of `data`.
pub fn crc32c(data: &[u8]) -> u32 {
    let mut crc = Crc32c::new();
    crc.update(data);
    crc.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn rfc3720_vectors() {
        let up: Vec<u8> = (0..32).collect();
        let down: Vec<u8> = (0..32).rev().collect();
        // The RFC prints the bytes in wire order, least significant first.
        for (data, want) in [
            (&[0; 32][..], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&up, 0x46dd_794e),
            (&down, 0x113f_db5c),
            (b"123456789", 0xe306_9283),
            (b"", 0),
        ] {
            assert_eq!(crc32c(data), want);
        }
    }

    #[test]
    fn pieces_give_the_same() {
        let data: Vec<u8> = (0..100).collect();
        for cut in 0..100 {
            let mut crc = Crc32c::new();
            crc.update(&data[..cut]);
            crc.update(&data[cut..]);
            assert_eq!(crc.finish(), crc32c(&data));
        }
    }
}
