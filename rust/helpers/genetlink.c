// SPDX-License-Identifier: GPL-2.0

#include <net/genetlink.h>

__nlb_helper void nlb_helper_genl_dump_check_consistent(struct netlink_callback *cb,
							void *user_hdr)
{
	genl_dump_check_consistent(cb, user_hdr);
}

__nlb_helper int nlb_helper_genl_has_listeners(const struct genl_family *family,
					       struct net *net, unsigned int group)
{
	return genl_has_listeners(family, net, group);
}

__nlb_helper const struct genl_info *nlb_helper_genl_info_dump(struct netlink_callback *cb)
{
	return genl_info_dump(cb);
}

__nlb_helper struct net *nlb_helper_genl_info_net(const struct genl_info *info)
{
	return genl_info_net(info);
}

__nlb_helper void nlb_helper_genlmsg_cancel(struct sk_buff *skb, void *hdr)
{
	genlmsg_cancel(skb, hdr);
}

__nlb_helper void nlb_helper_genlmsg_end(struct sk_buff *skb, void *hdr)
{
	genlmsg_end(skb, hdr);
}

__nlb_helper int nlb_helper_genlmsg_multicast_netns(const struct genl_family *family,
						    struct net *net, struct sk_buff *skb,
						    u32 portid, unsigned int group,
						    gfp_t flags)
{
	return genlmsg_multicast_netns(family, net, skb, portid, group, flags);
}

__nlb_helper struct sk_buff *nlb_helper_genlmsg_new_default(gfp_t flags)
{
	return genlmsg_new(GENLMSG_DEFAULT_SIZE, flags);
}

__nlb_helper int nlb_helper_genlmsg_reply(struct sk_buff *skb, struct genl_info *info)
{
	return genlmsg_reply(skb, info);
}

__nlb_helper void nlb_helper_nla_nest_cancel(struct sk_buff *skb, struct nlattr *start)
{
	nla_nest_cancel(skb, start);
}

__nlb_helper int nlb_helper_nla_nest_end(struct sk_buff *skb, struct nlattr *start)
{
	return nla_nest_end(skb, start);
}

__nlb_helper struct nlattr *nlb_helper_nla_nest_start(struct sk_buff *skb, int attrtype)
{
	return nla_nest_start(skb, attrtype);
}

__nlb_helper void nlb_helper_nlmsg_free(struct sk_buff *skb)
{
	nlmsg_free(skb);
}
