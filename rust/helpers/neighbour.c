// SPDX-License-Identifier: GPL-2.0

#include <net/arp.h>
#include <net/ndisc.h>
#include <net/neighbour.h>

__nlb_helper struct neighbour *nlb_helper___ipv4_neigh_lookup_noref(struct net_device *dev, u32 key)
{
	return __ipv4_neigh_lookup_noref(dev, key);
}

__nlb_helper struct neighbour *nlb_helper___ipv6_neigh_lookup_noref(struct net_device *dev, const void *pkey)
{
	return __ipv6_neigh_lookup_noref(dev, pkey);
}

__nlb_helper int nlb_helper_neigh_output(struct neighbour *n, struct sk_buff *skb, bool skip_cache)
{
	return neigh_output(n, skb, skip_cache);
}
