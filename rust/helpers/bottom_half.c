// SPDX-License-Identifier: GPL-2.0

#include <linux/bottom_half.h>

__nlb_helper void nlb_helper_local_bh_disable(void)
{
	local_bh_disable();
}

__nlb_helper void nlb_helper_local_bh_enable(void)
{
	local_bh_enable();
}
