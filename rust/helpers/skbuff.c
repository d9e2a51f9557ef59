// SPDX-License-Identifier: GPL-2.0

#include <linux/netfilter.h>
#include <linux/skbuff.h>

__nlb_helper struct sk_buff *nlb_helper_alloc_skb(unsigned int size, gfp_t priority)
{
	return alloc_skb(size, priority);
}

#ifndef CONFIG_TRACEPOINTS
__nlb_helper void nlb_helper_consume_skb(struct sk_buff *skb)
{
	consume_skb(skb);
}
#endif

__nlb_helper void nlb_helper___skb_header_release(struct sk_buff *skb)
{
	__skb_header_release(skb);
}

__nlb_helper void nlb_helper_nf_reset_ct(struct sk_buff *skb)
{
	nf_reset_ct(skb);
}

__nlb_helper bool nlb_helper_pskb_may_pull(struct sk_buff *skb, unsigned int len)
{
	return pskb_may_pull(skb, len);
}

__nlb_helper int nlb_helper_pskb_trim_rcsum(struct sk_buff *skb, unsigned int len)
{
	return pskb_trim_rcsum(skb, len);
}

__nlb_helper void nlb_helper_skb_clear_hash(struct sk_buff *skb)
{
	skb_clear_hash(skb);
}

__nlb_helper void nlb_helper_skb_clear_tstamp(struct sk_buff *skb)
{
	skb_clear_tstamp(skb);
}

__nlb_helper int nlb_helper_skb_cow_head(struct sk_buff *skb, unsigned int headroom)
{
	return skb_cow_head(skb, headroom);
}

__nlb_helper void nlb_helper_skb_ext_reset(struct sk_buff *skb)
{
	skb_ext_reset(skb);
}

__nlb_helper bool nlb_helper_skb_frags_readable(const struct sk_buff *skb)
{
	return skb_frags_readable(skb);
}

__nlb_helper unsigned int nlb_helper_skb_headlen(const struct sk_buff *skb)
{
	return skb_headlen(skb);
}

__nlb_helper unsigned int nlb_helper_skb_headroom(const struct sk_buff *skb)
{
	return skb_headroom(skb);
}

__nlb_helper unsigned char *nlb_helper_skb_network_header(const struct sk_buff *skb)
{
	return skb_network_header(skb);
}

__nlb_helper void nlb_helper_skb_orphan(struct sk_buff *skb)
{
	skb_orphan(skb);
}

__nlb_helper void nlb_helper_skb_reserve(struct sk_buff *skb, int len)
{
	skb_reserve(skb, len);
}

__nlb_helper void nlb_helper_skb_reset_mac_header(struct sk_buff *skb)
{
	skb_reset_mac_header(skb);
}

__nlb_helper void nlb_helper_skb_reset_network_header(struct sk_buff *skb)
{
	skb_reset_network_header(skb);
}

__nlb_helper void nlb_helper_skb_set_inner_ipproto(struct sk_buff *skb, __u8 ipproto)
{
	skb_set_inner_ipproto(skb, ipproto);
}

__nlb_helper void nlb_helper_skb_set_transport_header(struct sk_buff *skb, int offset)
{
	skb_set_transport_header(skb, offset);
}

__nlb_helper struct sk_buff *nlb_helper_skb_share_check(struct sk_buff *skb, gfp_t pri)
{
	return skb_share_check(skb, pri);
}

__nlb_helper unsigned char *nlb_helper_skb_tail_pointer(const struct sk_buff *skb)
{
	return skb_tail_pointer(skb);
}

__nlb_helper unsigned int nlb_helper_skb_tailroom(const struct sk_buff *skb)
{
	return skb_tailroom(skb);
}

__nlb_helper struct ubuf_info *nlb_helper_skb_zcopy(struct sk_buff *skb)
{
	return skb_zcopy(skb);
}
