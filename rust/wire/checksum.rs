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
    let total = (total & 0xffff_ffff).wrapping_add(total >> 32);
    let total = (total & 0xffff_ffff).wrapping_add(total >> 32);
    u32::from(fold((total & 0xffff_ffff) as u32))
}

/// Folds a sum to 16 bits with end-around carry, without the final complement.
#[inline]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff).wrapping_add(sum >> 16);
    let sum = (sum & 0xffff).wrapping_add(sum >> 16);
    sum as u16
}

/// The value of the checksum field over `data`, in which that field is zero.
pub fn checksum(data: &[u8]) -> u16 {
    !fold(sum(data, 0))
}

/// Whether `data`, its checksum field included, sums up to all ones.
pub fn verify(data: &[u8]) -> bool {
    fold(sum(data, 0)) == 0xffff
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
    fn udp_zero() {
        assert_eq!(udp_nonzero(0), 0xffff);
        assert_eq!(udp_nonzero(1), 1);
        assert_eq!(udp_nonzero(0xffff), 0xffff);
    }
}
