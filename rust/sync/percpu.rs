// SPDX-License-Identifier: GPL-2.0

//! Counters that every CPU has for itself, so that counting a packet touches no shared cache line.
//!
//! C header: [`include/linux/percpu.h`](srctree/include/linux/percpu.h)

use crate::bindings;
use core::{
    mem::{
        align_of,
        size_of, //
    },
    ptr::NonNull, //
};
use kernel::{
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

/// `N` 64-bit counters for each CPU, zero at first.
///
/// Counting neither locks nor allocates, and may be done in any context. A sum is exact once
/// nobody counts any more.
///
/// # Invariants
///
/// The pointer is to per-CPU memory from `__alloc_percpu()` for `[u64; N]`, owned by this object.
pub struct PerCpuCounters<const N: usize>(NonNull<u64>);

// SAFETY: Each CPU writes its own copy by atomic (towards itself) additions, others only read.
unsafe impl<const N: usize> Send for PerCpuCounters<N> {}

// SAFETY: As above.
unsafe impl<const N: usize> Sync for PerCpuCounters<N> {}

impl<const N: usize> PerCpuCounters<N> {
    /// Allocates the counters. May sleep.
    pub fn new() -> Result<Self> {
        // SAFETY: No preconditions; memory from it is zeroed.
        let ptr = unsafe { bindings::alloc_percpu(size_of::<[u64; N]>(), align_of::<u64>()) };
        // CAST: The memory is for `[u64; N]`.
        // INVARIANT: As just allocated.
        NonNull::new(ptr.cast()).map(Self).ok_or(ENOMEM)
    }

    /// The per-CPU address of a counter, `None` if there is none with this index.
    #[inline]
    fn counter(&self, index: usize) -> Option<*mut u64> {
        // The address is an offset into each CPU's area, nothing to be followed.
        (index < N).then(|| self.0.as_ptr().wrapping_add(index))
    }

    /// Adds `n` to counter `index` of this CPU. An index out of range counts nothing.
    #[inline]
    pub fn add(&self, index: usize, n: u64) {
        if let Some(counter) = self.counter(index) {
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
        let Some(counter) = self.counter(index) else {
            return 0;
        };
        // SAFETY: By the type invariants, also of `Cpu`, this is the address of that CPU's copy.
        let copy: *const u64 = unsafe { bindings::per_cpu_ptr(counter.cast(), cpu.0) }.cast();
        // SAFETY: As above. The copy is aligned and written in one piece on 64-bit machines; a
        // volatile read makes that one read.
        unsafe { copy.read_volatile() }
    }

    /// The sum of counter `index` over all CPUs.
    pub fn sum(&self, index: usize) -> u64 {
        possible_cpus().fold(0, |sum, cpu| sum.wrapping_add(self.of(cpu, index)))
    }
}

impl<const N: usize> Drop for PerCpuCounters<N> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, this is ours and comes from `__alloc_percpu()`.
        unsafe { bindings::free_percpu(self.0.as_ptr().cast()) };
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
}
