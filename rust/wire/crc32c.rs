// SPDX-License-Identifier: GPL-2.0

//! CRC-32C (Castagnoli), RFC 3720 section 12.1 and appendix B.4.

/// The polynomial 0x1EDC6F41, bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// `TABLES[n][b]`: the CRC of the byte `b` followed by `n` zero bytes.
static TABLES: [[u32; 256]; 8] = tables();

// Runs at compile time: an index out of range would be a compile error.
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg());
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut n = 1;
    while n < 8 {
        let mut byte = 0;
        while byte < 256 {
            let crc = tables[n - 1][byte];
            tables[n][byte] = (crc >> 8) ^ tables[0][(crc & 0xff) as usize];
            byte += 1;
        }
        n += 1;
    }
    tables
}

/// A CRC in the making, over pieces of any length.
#[derive(Clone, Copy, Debug)]
pub struct Crc32c(u32);

impl Crc32c {
    /// The CRC of nothing yet.
    pub const fn new() -> Crc32c {
        Crc32c(!0)
    }

    /// Takes in the next bytes, eight at a time.
    pub fn update(&mut self, data: &[u8]) {
        let [t0, t1, t2, t3, t4, t5, t6, t7] = &TABLES;
        let at = |table: &[u32; 256], byte: u8| match table.get(usize::from(byte)) {
            Some(crc) => *crc,
            None => 0,
        };
        let mut crc = self.0;
        let mut blocks = data.chunks_exact(8);
        for block in &mut blocks {
            if let [a, b, c, d, e, f, g, h] = *block {
                let [p, q, r, s] = (crc ^ u32::from_le_bytes([a, b, c, d])).to_le_bytes();
                crc = at(t7, p)
                    ^ at(t6, q)
                    ^ at(t5, r)
                    ^ at(t4, s)
                    ^ at(t3, e)
                    ^ at(t2, f)
                    ^ at(t1, g)
                    ^ at(t0, h);
            }
        }
        for &byte in blocks.remainder() {
            crc = (crc >> 8) ^ at(t0, (crc & 0xff) as u8 ^ byte);
        }
        self.0 = crc;
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
