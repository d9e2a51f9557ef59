// SPDX-License-Identifier: GPL-2.0

#include <linux/sched.h>
#include <linux/sched/task.h>

__nlb_helper void nlb_helper_set_current_state(unsigned int state)
{
	set_current_state(state);
}
