// SPDX-License-Identifier: MIT OR Apache-2.0

//! Random numbers from a secret seed that the caller provides: ids of requests, which nobody may guess, and jitter.

use hmac::{Hmac, KeyInit, Mac};
use rand_core::TryRng;
use sha2::Sha256;
use std::{
    convert::Infallible,
    time::Duration, //
};

/// HMAC-SHA-256 in counter mode.
#[derive(Clone)]
pub(crate) struct Random {
    seed: Hmac<Sha256>,
    count: u64,
}

impl std::fmt::Debug for Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Random")
    }
}

impl Random {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self {
            seed: KeyInit::new(&seed_block(seed)),
            count: 0,
        }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.count += 1;
        let bytes = self
            .seed
            .clone()
            .chain_update(self.count.to_be_bytes())
            .finalize()
            .into_bytes();
        bytes
            .iter()
            .take(8)
            .fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    /// Other than 0.
    pub(crate) fn id(&mut self) -> u64 {
        self.next().max(1)
    }

    /// From 0 to `most`.
    pub(crate) fn up_to(&mut self, most: Duration) -> Duration {
        most.mul_f64((self.next() >> 11) as f64 / (1u64 << 53) as f64)
    }
}

impl TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.next() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.next())
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
        for part in to.chunks_mut(8) {
            let bytes = self.next().to_be_bytes();
            part.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        }
        Ok(())
    }
}

/// As long as a block of the hash, so that it is a key of its own size.
fn seed_block(seed: [u8; 32]) -> hmac::digest::Key<Hmac<Sha256>> {
    let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
    for (to, from) in block.iter_mut().zip(seed) {
        *to = from;
    }
    block
}
