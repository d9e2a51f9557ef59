// SPDX-License-Identifier: GPL-2.0

//! The internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! Sums are kept in a `u32` in host byte order over big-endian words and folded at the end.

use super::addr::Addr;

/// Adds the bytes of `data` to the running sum `initial`; an odd last byte is padded with zero.
///
/// Only the last of several pieces may have an odd length. The result is folded to 16 bits and may
/// be passed on as the next `initial`.
pub fn sum(data: &[u8], initial: u32) -> u32 {
    // 64 bits take 2^48 words before they overflow.
    let mut total = u64::from(initial);
    let mut words = data.chunks_exact(2);
    for word in &mut words {
        if let [high, low] = word {
            total = total.wrapping_add(u64::from(u16::from_be_bytes([*high, *low])));
        }
    }
    if let [last] = words.remainder() {
        total = total.wrapping_add(u64::from(u16::from_be_bytes([*last, 0])));
    }
    u32::from(fold64(total))
}

/// Folds a sum to 16 bits with end-around carry, without the final complement.
#[inline]
pub const fn fold(sum: u32) -> u16 {
    // The carry of the lower half into the upper one is the one that goes around: `csum_fold()`.
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

/// The value of the checksum field over `data`, in which that field is zero.
pub fn checksum(data: &[u8]) -> u16 {
    !fold(sum(data, 0))
}

/// Whether `data`, its checksum field included, sums up to all ones.
pub fn verify(data: &[u8]) -> bool {
    fold(sum(data, 0)) == 0xffff
}

/// As [`verify`], of an IPv4 header without options.
#[inline]
pub fn verify_ipv4_header(header: &[u8; 20]) -> bool {
    // The sum is right in any byte order, and of longer words, too (RFC 1071 section 2).
    let mut total = 0u64;
    for word in header.chunks_exact(4) {
        if let [a, b, c, d] = *word {
            total = total.wrapping_add(u64::from(u32::from_ne_bytes([a, b, c, d])));
        }
    }
    fold64(total) == 0xffff
}

/// As [`fold`], of a sum over words of up to 32 bits.
#[inline]
pub const fn fold64(sum: u64) -> u16 {
    let (sum, carry) = (sum as u32).overflowing_add((sum >> 32) as u32);
    fold(sum.wrapping_add(carry as u32))
}

/// What is added to the sum that a checksum is made of when data changes (RFC 1624 equation 3), in
/// whole words. Words are as they are in memory, and so is the checksum.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delta(u64);

impl Delta {
    /// After `old` has become `new`.
    #[inline]
    #[must_use]
    pub fn replace2(self, old: [u8; 2], new: [u8; 2]) -> Self {
        let (old, new) = (u16::from_ne_bytes(old), u16::from_ne_bytes(new));
        // No more than a few words change.
        Self(
            self.0
                .wrapping_add(u64::from(!old))
                .wrapping_add(new.into()),
        )
    }

    /// After `old` has become `new`.
    #[inline]
    #[must_use]
    pub fn replace4(self, old: [u8; 4], new: [u8; 4]) -> Self {
        let (old, new) = (u32::from_ne_bytes(old), u32::from_ne_bytes(new));
        Self(
            self.0
                .wrapping_add(u64::from(!old))
                .wrapping_add(new.into()),
        )
    }

    /// After `old` has become `new`.
    #[inline]
    #[must_use]
    pub fn replace16(self, old: &[u8; 16], new: &[u8; 16]) -> Self {
        let mut delta = self;
        for (old, new) in old.chunks_exact(4).zip(new.chunks_exact(4)) {
            if let (&[a, b, c, d], &[w, x, y, z]) = (old, new) {
                delta = delta.replace4([a, b, c, d], [w, x, y, z]);
            }
        }
        delta
    }

    /// What another one has changed, too.
    #[inline]
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }

    /// The checksum field after the changes. One that was wrong stays wrong.
    #[inline]
    pub fn check(self, old: [u8; 2]) -> [u8; 2] {
        let sum = self.0.wrapping_add(u64::from(!u16::from_ne_bytes(old)));
        (!fold64(sum)).to_ne_bytes()
    }

    /// A sum (not its complement) after the changes, as it is left in the field where a device does
    /// the rest.
    #[inline]
    pub fn sum(self, old: [u8; 2]) -> [u8; 2] {
        let sum = self.0.wrapping_add(u64::from(u16::from_ne_bytes(old)));
        fold64(sum).to_ne_bytes()
    }

    /// The complement of a sum in 32 bits after the changes.
    #[inline]
    pub fn complement32(self, old: u32) -> u32 {
        let sum = self.0.wrapping_add(u64::from(!old));
        let sum = (sum & 0xffff_ffff).wrapping_add(sum >> 32);
        // Of a carry, one is left.
        let sum = (sum & 0xffff_ffff).wrapping_add(sum >> 32);
        !(sum as u32)
    }
}

/// The sum over the pseudo header of TCP and UDP (RFC 9293 section 3.1, RFC 8200 section 8.1).
///
/// `length` is the length of the transport header and its payload.
pub fn pseudo_header(source: Addr, destination: Addr, protocol: u8, length: u32) -> u32 {
    let total = sum(destination.octets(), sum(source.octets(), 0));
    total
        .wrapping_add(u32::from(protocol))
        .wrapping_add(length >> 16)
        .wrapping_add(length & 0xffff)
}

/// The checksum of a TCP or UDP segment whose checksum field is zero.
///
/// For UDP pass the result through [`udp_nonzero`].
pub fn transport(source: Addr, destination: Addr, protocol: u8, segment: &[u8]) -> u16 {
    let length = segment.len() as u32;
    !fold(sum(
        segment,
        pseudo_header(source, destination, protocol, length),
    ))
}

/// The checksum after a 16-bit word of the data went from `old` to `new` (RFC 1624 equation 3).
///
/// A checksum that was wrong stays wrong. The result equals a full recomputation bit for bit,
/// unless all the data is zero.
#[inline]
pub const fn update16(check: u16, old: u16, new: u16) -> u16 {
    let sum = (!check as u32)
        .wrapping_add(!old as u32)
        .wrapping_add(new as u32);
    !fold(sum)
}

/// The checksum after a 32-bit word of the data went from `old` to `new`.
#[inline]
pub const fn update32(check: u16, old: u32, new: u32) -> u16 {
    let check = update16(check, (old >> 16) as u16, (new >> 16) as u16);
    update16(check, (old & 0xffff) as u16, (new & 0xffff) as u16)
}

/// The checksum after an address of the data went from `old` to `new`, both of one family.
#[inline]
pub fn update_addr(check: u16, old: Addr, new: Addr) -> u16 {
    let mut check = check;
    let words = old
        .octets()
        .chunks_exact(2)
        .zip(new.octets().chunks_exact(2));
    for (old, new) in words {
        if let ([a, b], [c, d]) = (old, new) {
            check = update16(
                check,
                u16::from_be_bytes([*a, *b]),
                u16::from_be_bytes([*c, *d]),
            );
        }
    }
    check
}

/// A computed UDP checksum as it goes into the field: zero is sent as all ones, because a zero
/// field says that there is no checksum (RFC 768).
#[inline]
pub const fn udp_nonzero(check: u16) -> u16 {
    if check == 0 {
        0xffff
    } else {
        check
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn rfc1071_example() {
        // RFC 1071 section 3: the sum of these words is ddf2.
        let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(sum(&data, 0)), 0xddf2);
        assert_eq!(checksum(&data), !0xddf2);
    }

    #[test]
    fn rfc1624_example() {
        // RFC 1624 section 4: equation 3 must give 0000 here, not ffff.
        assert_eq!(update16(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn odd_length_pads_with_zero() {
        assert_eq!(
            checksum(&[0x12, 0x34, 0x56]),
            checksum(&[0x12, 0x34, 0x56, 0])
        );
    }

    #[test]
    fn long_data_does_not_overflow() {
        let data = vec![0xff; 1 << 20];
        assert_eq!(fold(sum(&data, 0xffff_ffff)), 0xffff);
        assert!(verify(&data));
    }

    #[test]
    fn headers() {
        let mut header = [0x45u8; 20];
        for n in 0..=255u8 {
            header[1] = n;
            header[10..12].fill(0);
            let check = checksum(&header);
            header[10..12].copy_from_slice(&check.to_be_bytes());
            assert!(verify_ipv4_header(&header));
            header[10] ^= 1;
            assert!(!verify_ipv4_header(&header));
        }
        assert!(verify_ipv4_header(&[0xff; 20]));
        assert!(!verify_ipv4_header(&[0; 20]));
    }

    #[test]
    fn changes_as_in_a_whole_sum() {
        let mut data: [u8; 22] = core::array::from_fn(|n| (n * 37) as u8);
        for n in 0..=255u8 {
            let before = data;
            let old = checksum(&before).to_be_bytes();
            data[..4].copy_from_slice(&[n, 0xff, n, 1]);
            data[4..20].fill(n);
            data[20..].copy_from_slice(&[0xff, n]);
            let delta = Delta::default()
                .replace4(
                    before[..4].try_into().unwrap(),
                    data[..4].try_into().unwrap(),
                )
                .and(Delta::default().replace16(
                    before[4..20].try_into().unwrap(),
                    data[4..20].try_into().unwrap(),
                ))
                .replace2([before[20], before[21]], [data[20], data[21]]);
            let new = checksum(&data);
            assert_eq!(delta.check(old), new.to_be_bytes());
            assert_eq!(delta.sum(old.map(|byte| !byte)), (!new).to_be_bytes());
            // Any number with the same rest has the same sum.
            let wide = delta.complement32(u32::from(u16::from_ne_bytes(old)) | 0xffff_0000);
            assert_eq!(
                fold64(u64::from(!wide)),
                u16::from_ne_bytes((!new).to_be_bytes())
            );
        }
    }

    #[test]
    fn udp_zero() {
        assert_eq!(udp_nonzero(0), 0xffff);
        assert_eq!(udp_nonzero(1), 1);
        assert_eq!(udp_nonzero(0xffff), 0xffff);
    }
}
