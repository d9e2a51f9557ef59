// SPDX-License-Identifier: GPL-2.0

//! Checked access to big-endian fields of a byte slice.
//!
//! The views prove in `new_checked` that their fields lie inside the buffer. Should a caller's
//! buffer change its length behind a view's back, a read gives zero and a write does nothing.

/// The `N` bytes at `offset`, or zeroes where the buffer is too short.
#[inline]
pub(super) fn array<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    match bytes.get(offset..).and_then(|rest| rest.first_chunk::<N>()) {
        Some(chunk) => *chunk,
        None => [0; N],
    }
}

/// The byte at `offset`.
#[inline]
pub(super) fn u8(bytes: &[u8], offset: usize) -> u8 {
    bytes.get(offset).copied().unwrap_or(0)
}

/// The big-endian 16-bit field at `offset`.
#[inline]
pub(super) fn u16(bytes: &[u8], offset: usize) -> u16 {
    u16::from_be_bytes(array(bytes, offset))
}

/// The big-endian 32-bit field at `offset`.
#[inline]
pub(super) fn u32(bytes: &[u8], offset: usize) -> u32 {
    u32::from_be_bytes(array(bytes, offset))
}

/// Overwrites the `N` bytes at `offset`.
#[inline]
pub(super) fn put<const N: usize>(bytes: &mut [u8], offset: usize, value: [u8; N]) {
    if let Some(chunk) = bytes
        .get_mut(offset..)
        .and_then(|rest| rest.first_chunk_mut::<N>())
    {
        *chunk = value;
    }
}

/// The bytes from `start` up to `end`, or none of them where the buffer is too short.
#[inline]
pub(super) fn range(bytes: &[u8], start: usize, end: usize) -> &[u8] {
    bytes.get(start..end).unwrap_or(&[])
}

/// The bytes from `start` up to `end`, or none of them where the buffer is too short.
#[inline]
pub(super) fn range_mut(bytes: &mut [u8], start: usize, end: usize) -> &mut [u8] {
    bytes.get_mut(start..end).unwrap_or(&mut [])
}
