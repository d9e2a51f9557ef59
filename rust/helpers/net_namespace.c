// SPDX-License-Identifier: GPL-2.0

#include <net/net_namespace.h>

__nlb_helper int nlb_helper_check_net(const struct net *net)
{
	return check_net(net);
}

__nlb_helper struct net *nlb_helper_get_net(struct net *net)
{
	return get_net(net);
}

__nlb_helper struct net *nlb_helper_maybe_get_net(struct net *net)
{
	return maybe_get_net(net);
}

__nlb_helper void nlb_helper_put_net(struct net *net)
{
	put_net(net);
}
