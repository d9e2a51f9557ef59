// SPDX-License-Identifier: GPL-2.0

#include <net/dst.h>
#include <net/ip6_fib.h>
#include <net/ip6_route.h>

__nlb_helper bool nlb_helper_dst_hold_safe(struct dst_entry *dst)
{
	return dst_hold_safe(dst);
}

__nlb_helper u32 nlb_helper_rt6_get_cookie(const struct rt6_info *rt)
{
	return rt6_get_cookie(rt);
}

__nlb_helper u32 nlb_helper_dst_mtu(const struct dst_entry *dst)
{
	return dst_mtu(dst);
}

__nlb_helper int nlb_helper_dst_output(struct net *net, struct sock *sk, struct sk_buff *skb)
{
	return dst_output(net, sk, skb);
}

__nlb_helper const struct in6_addr *nlb_helper_rt6_nexthop(const struct rt6_info *rt,
							     const struct in6_addr *daddr)
{
	return rt6_nexthop(rt, daddr);
}

__nlb_helper bool nlb_helper_skb_dst_force(struct sk_buff *skb)
{
	return skb_dst_force(skb);
}

__nlb_helper void nlb_helper_skb_dst_drop(struct sk_buff *skb)
{
	skb_dst_drop(skb);
}

__nlb_helper void nlb_helper_skb_dst_set(struct sk_buff *skb, struct dst_entry *dst)
{
	skb_dst_set(skb, dst);
}
