// SPDX-License-Identifier: GPL-2.0

#include <linux/netfilter.h>
#include <net/netfilter/nf_conntrack.h>

__nlb_helper struct nf_conn *nlb_helper_nf_ct_get(const struct sk_buff *skb,
						 enum ip_conntrack_info *ctinfo)
{
	return nf_ct_get(skb, ctinfo);
}

__nlb_helper bool nlb_helper_nf_ct_is_loaded(void)
{
#if IS_ENABLED(CONFIG_NF_CONNTRACK)
	return rcu_access_pointer(nf_ct_hook);
#else
	return false;
#endif
}
