// SPDX-License-Identifier: GPL-2.0

#include <linux/rcupdate.h>

__nlb_helper void nlb_helper_wait_rcu_expedited(void)
{
	synchronize_rcu_expedited();
}
