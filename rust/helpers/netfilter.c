// SPDX-License-Identifier: GPL-2.0

#include <linux/netfilter.h>

__nlb_helper bool nlb_helper_nf_ct_get_tuple_skb(struct nf_conntrack_tuple *dst_tuple,
						 const struct sk_buff *skb)
{
	return nf_ct_get_tuple_skb(dst_tuple, skb);
}

__nlb_helper bool nlb_helper_nf_ct_is_loaded(void)
{
#if IS_ENABLED(CONFIG_NF_CONNTRACK)
	return rcu_access_pointer(nf_ct_hook);
#else
	return false;
#endif
}
