// SPDX-License-Identifier: MIT OR Apache-2.0

//! What begins the life of a machine in the protocol of health and load.

use rustix::rand::{getrandom, GetRandomFlags};
use std::{
    fs, io,
    time::{SystemTime, UNIX_EPOCH},
};

/// The number of a life that begins now: nanoseconds since 1970, and more than that of the life before, as far as it
/// is known.
pub fn epoch(before: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    now.max(before.saturating_add(1))
}

/// Which boot of the machine this is, as the kernel names it.
pub fn boot() -> io::Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let read = fs::read_to_string(path);
    read.map(|boot| boot.trim().to_owned())
        .map_err(|error| io::Error::new(error.kind(), format!("cannot read {path}: {error}")))
}

/// Bytes that nobody can guess.
pub fn seed() -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    let mut filled = 0;
    while let Some(rest @ [_, ..]) = seed.get_mut(filled..) {
        filled += getrandom(rest, GetRandomFlags::empty())?;
    }
    Ok(seed)
}
