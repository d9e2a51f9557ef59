// SPDX-License-Identifier: GPL-2.0

#include <linux/rcupdate.h>

__nlb_helper bool nlb_helper_rcu_read_lock_held(void)
{
	return rcu_read_lock_held();
}
