// SPDX-License-Identifier: GPL-2.0

#include <linux/icmpv6.h>
#include <linux/ipv6.h>
#include <net/ip.h>
#include <net/gre.h>
#include <net/icmp.h>
#include <net/inet_ecn.h>
#include <net/ip_tunnels.h>
#include <net/netfilter/ipv6/nf_defrag_ipv6.h>
#include <net/route.h>
#include <net/udp.h>

__nlb_helper void nlb_helper_gre_build_header(struct sk_buff *skb, bool csum, __be16 proto)
{
	IP_TUNNEL_DECLARE_FLAGS(flags) = { };

	__assign_bit(IP_TUNNEL_CSUM_BIT, flags, csum);
	gre_build_header(skb, gre_calc_hlen(flags), flags, proto, 0, 0);
}

__nlb_helper void nlb_helper_icmp_send(struct sk_buff *skb_in, int type, int code, __be32 info)
{
	icmp_send(skb_in, type, code, info);
}

__nlb_helper void nlb_helper_icmpv6_send(struct sk_buff *skb, u8 type, u8 code, __u32 info)
{
	icmpv6_send(skb, type, code, info);
}

__nlb_helper int nlb_helper_INET_ECN_decapsulate(struct sk_buff *skb, __u8 outer, __u8 inner)
{
	return INET_ECN_decapsulate(skb, outer, inner);
}

__nlb_helper int nlb_helper_iptunnel_pull_offloads(struct sk_buff *skb)
{
	return iptunnel_pull_offloads(skb);
}

__nlb_helper bool nlb_helper_ipv6_mod_enabled(void)
{
	return ipv6_mod_enabled();
}

__nlb_helper struct inet6_skb_parm *nlb_helper_IP6CB(struct sk_buff *skb)
{
	return IP6CB(skb);
}

__nlb_helper struct inet_skb_parm *nlb_helper_IPCB(struct sk_buff *skb)
{
	return IPCB(skb);
}

__nlb_helper void nlb_helper_ip_select_ident(struct net *net, struct sk_buff *skb, struct sock *sk)
{
	/* As iptunnel_xmit() does: each segment of a batch gets one. */
	ip_select_ident_segs(net, skb, sk, skb_shinfo(skb)->gso_segs ?: 1);
}

__nlb_helper dscp_t nlb_helper_ip4h_dscp(const struct iphdr *ip4h)
{
	return ip4h_dscp(ip4h);
}

/* nf_ct_frag6_gather(); in a kernel without it, fragments stay what they are. */
__nlb_helper int nlb_helper_frag6_gather(struct net *net, struct sk_buff *skb, u32 user)
{
#if IS_ENABLED(CONFIG_NF_DEFRAG_IPV6)
	return nf_ct_frag6_gather(net, skb, user);
#else
	return 0;
#endif
}

__nlb_helper char nlb_helper_rt_tos2priority(u8 tos)
{
	return rt_tos2priority(tos);
}

__nlb_helper struct rtable *nlb_helper_skb_rtable(const struct sk_buff *skb)
{
	return skb_rtable(skb);
}

__nlb_helper __be16 nlb_helper_udp_flow_src_port(struct net *net, struct sk_buff *skb, int min,
						 int max, bool use_eth)
{
	return udp_flow_src_port(net, skb, min, max, use_eth);
}
