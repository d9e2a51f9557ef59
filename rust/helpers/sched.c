// SPDX-License-Identifier: GPL-2.0

#include <linux/sched.h>

__nlb_helper int nlb_helper_cond_resched(void)
{
	return cond_resched();
}
