// SPDX-License-Identifier: GPL-2.0

#include <linux/skbuff.h>

__nlb_helper unsigned int nlb_helper_skb_headlen(const struct sk_buff *skb)
{
	return skb_headlen(skb);
}
