// SPDX-License-Identifier: GPL-2.0

#include <linux/percpu.h>

__nlb_helper void __percpu *nlb_helper_alloc_percpu(size_t size, size_t align, gfp_t gfp)
{
	return __alloc_percpu_gfp(size, align, gfp);
}

__nlb_helper void *nlb_helper_per_cpu_ptr(void __percpu *ptr, int cpu)
{
	return per_cpu_ptr(ptr, cpu);
}

__nlb_helper void nlb_helper_this_cpu_add_u64(u64 __percpu *ptr, u64 n)
{
	this_cpu_add(*ptr, n);
}

__nlb_helper unsigned int nlb_helper_cpumask_next_possible(int cpu)
{
	return cpumask_next(cpu, cpu_possible_mask);
}

__nlb_helper u64 nlb_helper_this_cpu_read_u64(u64 __percpu *ptr)
{
	return this_cpu_read(*ptr);
}

__nlb_helper u64 nlb_helper_this_cpu_xchg_u64(u64 __percpu *ptr, u64 value)
{
	return this_cpu_xchg(*ptr, value);
}
