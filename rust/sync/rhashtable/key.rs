// SPDX-License-Identifier: GPL-2.0

//! Keys of hash tables.

use crate::wire::addr::FourTuple;

/// A key of a hash table.
///
/// # Safety
///
/// All bytes of a value are initialised (no padding), and two values are equal if their bytes are.
pub unsafe trait Key: Copy + Eq + Send + Sync + 'static {
    /// The hash, different for each `seed`.
    fn hash(&self, seed: u32) -> u32;
}

// SAFETY: Numbers have no padding, and neither have arrays.
unsafe impl<const N: usize> Key for [u32; N] {
    #[inline]
    fn hash(&self, seed: u32) -> u32 {
        jhash2(self, seed)
    }
}

// SAFETY: As above.
unsafe impl Key for u32 {
    #[inline]
    fn hash(&self, seed: u32) -> u32 {
        jhash2(&[*self], seed)
    }
}

// SAFETY: As above.
unsafe impl Key for u64 {
    #[inline]
    fn hash(&self, seed: u32) -> u32 {
        // CAST: The two halves.
        jhash2(&[*self as u32, (*self >> 32) as u32], seed)
    }
}

// SAFETY: By its invariants, it has no padding.
unsafe impl Key for FourTuple {
    #[inline(always)]
    fn hash(&self, seed: u32) -> u32 {
        match self.v4_words() {
            // Three words are one step, four are two.
            Some([client, vip, ports, proto]) => jhash2(&[client, vip, ports], seed ^ proto),
            None => hash_ipv6(self, seed),
        }
    }
}

/// Not inlined: its words would be made ready for packets of IPv4, too.
#[inline(never)]
fn hash_ipv6(tuple: &FourTuple, seed: u32) -> u32 {
    jhash2(&tuple.words(), seed)
}

const INITVAL: u32 = 0xdead_beef;

/// `jhash2()` of [`include/linux/jhash.h`](srctree/include/linux/jhash.h).
#[inline(always)]
pub(super) fn jhash2(words: &[u32], seed: u32) -> u32 {
    // CAST: Keys are short.
    let start = INITVAL
        .wrapping_add((words.len() as u32) << 2)
        .wrapping_add(seed);
    let (mut a, mut b, mut c) = (start, start, start);
    let mut rest = words;
    while rest.len() > 3 {
        let [x, y, z, tail @ ..] = rest else { break };
        a = a.wrapping_add(*x);
        b = b.wrapping_add(*y);
        c = c.wrapping_add(*z);
        a = mix(a, c, 4);
        c = c.wrapping_add(b);
        b = mix(b, a, 6);
        a = a.wrapping_add(c);
        c = mix(c, b, 8);
        b = b.wrapping_add(a);
        a = mix(a, c, 16);
        c = c.wrapping_add(b);
        b = mix(b, a, 19);
        a = a.wrapping_add(c);
        c = mix(c, b, 4);
        b = b.wrapping_add(a);
        rest = tail;
    }
    match rest {
        [] => return c,
        [x] => a = a.wrapping_add(*x),
        [x, y, tail @ ..] => {
            a = a.wrapping_add(*x);
            b = b.wrapping_add(*y);
            c = c.wrapping_add(tail.first().copied().unwrap_or(0));
        }
    }
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

#[inline]
fn mix(x: u32, y: u32, by: u32) -> u32 {
    x.wrapping_sub(y) ^ y.rotate_left(by)
}
