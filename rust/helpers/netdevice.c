// SPDX-License-Identifier: GPL-2.0

#include <linux/netdevice.h>

__nlb_helper struct net *nlb_helper_dev_net(const struct net_device *dev)
{
	return dev_net(dev);
}

__nlb_helper void *nlb_helper_netdev_priv(const struct net_device *dev)
{
	return netdev_priv(dev);
}
