// SPDX-License-Identifier: GPL-2.0

//! Counters and words that every CPU has for itself, so that packets touch no shared cache line.
//!
//! C header: [`include/linux/percpu.h`](srctree/include/linux/percpu.h)

use crate::{
    alloc::gfp,
    bindings, //
};
use core::{
    mem::{
        align_of,
        size_of, //
    },
    ptr::NonNull, //
};
use kernel::{
    alloc::Flags,
    cpu::nr_cpu_ids,
    prelude::*, //
};

/// `this_cpu_add()`.
///
/// # Safety
///
/// `counter` must be the address of a per-CPU variable.
#[inline]
unsafe fn this_cpu_add(counter: *mut u64, n: u64) {
    // One instruction, which would be a tenth of what a call of C costs.
    #[cfg(all(CONFIG_X86_64, not(CONFIG_UML)))]
    // SAFETY: By the safety requirements. The segment begins where this CPU's variables do.
    unsafe {
        core::arch::asm!(
            "add qword ptr gs:[{counter}], {n}",
            counter = in(reg) counter,
            n = in(reg) n,
            options(nostack),
        )
    };
    #[cfg(not(all(CONFIG_X86_64, not(CONFIG_UML))))]
    // SAFETY: By the safety requirements.
    unsafe {
        bindings::this_cpu_add_u64(counter.cast(), n)
    };
}

/// `this_cpu_read()`.
///
/// # Safety
///
/// `word` must be the address of a per-CPU variable.
#[inline(always)]
unsafe fn this_cpu_read(word: *const u64) -> u64 {
    // As above.
    #[cfg(all(CONFIG_X86_64, not(CONFIG_UML)))]
    {
        let value;
        // SAFETY: By the safety requirements. The segment begins where this CPU's variables do.
        unsafe {
            core::arch::asm!(
                "mov {value}, qword ptr gs:[{word}]",
                word = in(reg) word,
                value = lateout(reg) value,
                options(nostack, readonly, preserves_flags),
            )
        };
        value
    }
    #[cfg(not(all(CONFIG_X86_64, not(CONFIG_UML))))]
    // SAFETY: By the safety requirements.
    unsafe {
        bindings::this_cpu_read_u64(word.cast_mut().cast())
    }
}

/// A CPU that there may be.
///
/// # Invariants
///
/// It is in `cpu_possible_mask`, which does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu(c_int);

impl Cpu {
    /// Its number.
    pub fn number(self) -> u32 {
        self.0.unsigned_abs()
    }
}

/// All CPUs that there may be, in ascending order.
pub fn possible_cpus() -> impl Iterator<Item = Cpu> {
    let after = |cpu: c_int| {
        // SAFETY: No preconditions; any number is searched from.
        let next = unsafe { bindings::cpumask_next_possible(cpu) };
        // CAST: CPU numbers are small.
        // INVARIANT: It was found in the mask.
        (next < nr_cpu_ids()).then_some(Cpu(next as c_int))
    };
    core::iter::successors(after(-1), move |cpu| after(cpu.0))
}

/// `N` 64-bit words for each CPU, zero at first.
///
/// # Invariants
///
/// The pointer is to per-CPU memory from `__alloc_percpu()` for `[u64; N]`, owned by this object.
struct Memory<const N: usize>(NonNull<u64>);

impl<const N: usize> Memory<N> {
    fn new(flags: Flags) -> Result<Self> {
        // SAFETY: No preconditions; memory from it is zeroed.
        let ptr =
            unsafe { bindings::alloc_percpu(size_of::<[u64; N]>(), align_of::<u64>(), gfp(flags)) };
        // CAST: The memory is for `[u64; N]`.
        // INVARIANT: As just allocated.
        NonNull::new(ptr.cast()).map(Self).ok_or(ENOMEM)
    }

    /// The per-CPU address of a word, `None` if there is none with this index.
    #[inline]
    fn word(&self, index: usize) -> Option<*mut u64> {
        // The address is an offset into each CPU's area, nothing to be followed.
        (index < N).then(|| self.0.as_ptr().wrapping_add(index))
    }

    /// A CPU's copy of a word, `None` if there is none with this index. Valid for reading and writing
    /// as long as this object exists, aligned, and in use by that CPU.
    fn of(&self, cpu: Cpu, index: usize) -> Option<*mut u64> {
        let word = self.word(index)?;
        // SAFETY: By the type invariants, also of `Cpu`, this is the address of that CPU's copy.
        Some(unsafe { bindings::per_cpu_ptr(word.cast(), cpu.0) }.cast())
    }
}

impl<const N: usize> Drop for Memory<N> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, this is ours and comes from `__alloc_percpu()`.
        unsafe { bindings::free_percpu(self.0.as_ptr().cast()) };
    }
}

/// `N` 64-bit counters for each CPU, zero at first.
///
/// Counting neither locks nor allocates, and may be done in any context. A sum is exact once
/// nobody counts any more.
pub struct PerCpuCounters<const N: usize>(Memory<N>);

// SAFETY: Each CPU writes its own copy by atomic (towards itself) additions, others only read.
unsafe impl<const N: usize> Send for PerCpuCounters<N> {}

// SAFETY: As above.
unsafe impl<const N: usize> Sync for PerCpuCounters<N> {}

impl<const N: usize> PerCpuCounters<N> {
    /// Allocates the counters. May sleep.
    pub fn new() -> Result<Self> {
        Memory::new(GFP_KERNEL).map(Self)
    }

    /// Adds `n` to counter `index` of this CPU. An index out of range counts nothing.
    #[inline]
    pub fn add(&self, index: usize, n: u64) {
        if let Some(counter) = self.0.word(index) {
            // SAFETY: By the type invariants and the check of the index, this is a per-CPU `u64`.
            unsafe { this_cpu_add(counter, n) };
        }
    }

    /// Adds one to counter `index` of this CPU.
    #[inline]
    pub fn inc(&self, index: usize) {
        self.add(index, 1);
    }

    /// Counter `index` of a CPU.
    pub fn of(&self, cpu: Cpu, index: usize) -> u64 {
        let Some(copy) = self.0.of(cpu, index) else {
            return 0;
        };
        // SAFETY: It is valid and aligned, and written in one piece on 64-bit machines; a volatile read
        // makes that one read.
        unsafe { copy.read_volatile() }
    }

    /// The sum of counter `index` over all CPUs.
    pub fn sum(&self, index: usize) -> u64 {
        possible_cpus().fold(0, |sum, cpu| sum.wrapping_add(self.of(cpu, index)))
    }
}

/// `N` 64-bit words for each CPU, zero at first, of which each CPU has its own.
pub struct PerCpuWords<const N: usize>(Memory<N>);

// SAFETY: Each CPU uses its own copy, but for a borrow that excludes all.
unsafe impl<const N: usize> Send for PerCpuWords<N> {}

// SAFETY: As above.
unsafe impl<const N: usize> Sync for PerCpuWords<N> {}

impl<const N: usize> PerCpuWords<N> {
    /// Allocates the words. `ENOMEM`.
    pub fn new(flags: Flags) -> Result<Self> {
        Memory::new(flags).map(Self)
    }

    /// Word `index` of this CPU. 0 if there is none with this index.
    #[inline(always)]
    pub fn get(&self, index: usize) -> u64 {
        match self.0.word(index) {
            // SAFETY: By the type invariants and the check of the index, this is a per-CPU `u64`.
            Some(word) => unsafe { this_cpu_read(word) },
            None => 0,
        }
    }

    /// Sets word `index` of this CPU, in one step towards whoever else runs on it. What it was; 0, and
    /// nothing is set, if there is none with this index.
    pub fn replace(&self, index: usize, value: u64) -> u64 {
        match self.0.word(index) {
            // SAFETY: As above.
            Some(word) => unsafe { bindings::this_cpu_xchg_u64(word.cast(), value) },
            None => 0,
        }
    }

    /// Word `index` of all CPUs.
    pub fn all(&mut self, index: usize) -> impl Iterator<Item = u64> + '_ {
        possible_cpus().filter_map(move |cpu| {
            // SAFETY: It is valid and aligned, and as this object is borrowed, nobody writes to it.
            Some(unsafe { self.0.of(cpu, index)?.read() })
        })
    }
}

/// Names counters: an enum `Counter` of them, and per-CPU [`PerCpuCounters`] of a namespace, `Stats`, indexed by it.
///
/// ```ignore
/// nlb::counters! {
///     /// Packets that followed a route.
///     Packets = "packets",
/// }
/// ```
#[macro_export]
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Something that a namespace counts.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub(crate) enum Counter {
            $($(#[$doc])* $name,)*
        }

        impl Counter {
            /// All of them, in the order they are shown.
            pub(crate) const ALL: &'static [Counter] = &[$(Counter::$name,)*];

            /// Its name.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }

        /// The counters of a namespace.
        pub(crate) struct Stats($crate::sync::percpu::PerCpuCounters<{ Counter::ALL.len() }>);

        impl Stats {
            /// All zero. `ENOMEM`.
            pub(crate) fn new() -> kernel::error::Result<Self> {
                Ok(Self($crate::sync::percpu::PerCpuCounters::new()?))
            }

            /// Counts one.
            #[inline]
            pub(crate) fn inc(&self, counter: Counter) {
                self.0.inc(counter as usize);
            }

            /// Counts `value`.
            #[inline]
            pub(crate) fn add(&self, counter: Counter, value: u64) {
                self.0.add(counter as usize, value);
            }

            /// The sum over all CPUs.
            pub(crate) fn get(&self, counter: Counter) -> u64 {
                self.0.sum(counter as usize)
            }

            /// What one CPU has counted.
            #[allow(dead_code, reason = "not every module tells it")]
            pub(crate) fn of(&self, cpu: $crate::sync::percpu::Cpu, counter: Counter) -> u64 {
                self.0.of(cpu, counter as usize)
            }
        }
    };
}

#[kunit_tests(nlb_core_percpu)]
mod tests {
    use super::*;
    use crate::sync::lock::BottomHalfDisabled;

    #[test]
    fn counters_are_apart() -> Result {
        let counters = PerCpuCounters::<3>::new()?;
        assert_eq!(counters.sum(0), 0);
        for _ in 0..5 {
            counters.inc(0);
        }
        counters.add(2, u64::MAX);
        counters.add(2, 3);
        assert_eq!(counters.sum(0), 5);
        let each = possible_cpus().map(|cpu| counters.of(cpu, 0));
        assert_eq!(each.sum::<u64>(), 5);
        assert_eq!(possible_cpus().next().map(Cpu::number), Some(0));
        assert_eq!(counters.sum(1), 0);
        assert_eq!(counters.sum(2), 2);
        Ok(())
    }

    #[test]
    fn out_of_range_counts_nothing() -> Result {
        let counters = PerCpuCounters::<2>::new()?;
        counters.inc(2);
        counters.inc(usize::MAX);
        assert_eq!(counters.sum(0) + counters.sum(1) + counters.sum(2), 0);
        Ok(())
    }

    #[test]
    fn words_are_this_cpus() -> Result {
        let mut words = PerCpuWords::<2>::new(GFP_KERNEL)?;
        let guard = BottomHalfDisabled::new();
        words.replace(0, u64::MAX);
        assert_eq!([6, 7].map(|value| words.replace(1, value)), [0, 6]);
        assert_eq!([8, 9].map(|value| words.replace(2, value)), [0, 0]);
        assert_eq!([0, 1, 2].map(|index| words.get(index)), [u64::MAX, 7, 0]);
        drop(guard);
        let all = |words: &mut PerCpuWords<2>, index| words.all(index).filter(|n| *n != 0).count();
        assert_eq!([0, 1, 2].map(|index| all(&mut words, index)), [1, 1, 0]);
        assert_eq!(words.all(0).count(), possible_cpus().count());
        assert_eq!(words.all(1).max(), Some(7));
        Ok(())
    }
}
