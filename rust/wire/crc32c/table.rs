// SPDX-License-Identifier: GPL-2.0

//! The CRC by table, where there is no kernel.

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

/// Takes the next bytes into `crc`, eight at a time.
pub(super) fn update(crc: u32, data: &[u8]) -> u32 {
    let [t0, t1, t2, t3, t4, t5, t6, t7] = &TABLES;
    let at = |table: &[u32; 256], byte: u8| match table.get(usize::from(byte)) {
        Some(crc) => *crc,
        None => 0,
    };
    let mut crc = crc;
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
    crc
}
