// SPDX-License-Identifier: GPL-2.0

#include <linux/inetdevice.h>
#include <linux/netdevice.h>

__nlb_helper void nlb_helper_dev_dstats_rx_add(struct net_device *dev, unsigned int len)
{
	dev_dstats_rx_add(dev, len);
}

__nlb_helper void nlb_helper_dev_dstats_rx_dropped(struct net_device *dev)
{
	dev_dstats_rx_dropped(dev);
}

__nlb_helper void nlb_helper_dev_dstats_tx_dropped(struct net_device *dev)
{
	dev_dstats_tx_dropped(dev);
}

__nlb_helper void nlb_helper_dev_hold(struct net_device *dev)
{
	dev_hold(dev);
}

__nlb_helper struct net *nlb_helper_dev_net(const struct net_device *dev)
{
	return dev_net(dev);
}

__nlb_helper void nlb_helper_dev_put(struct net_device *dev)
{
	dev_put(dev);
}

__nlb_helper struct net_device *nlb_helper_netdev_notifier_info_to_dev(
					const struct netdev_notifier_info *info)
{
	return netdev_notifier_info_to_dev(info);
}

__nlb_helper void *nlb_helper_netdev_priv(const struct net_device *dev)
{
	return netdev_priv(dev);
}

__nlb_helper struct in_device *nlb_helper___in_dev_get_rcu(const struct net_device *dev)
{
	return __in_dev_get_rcu(dev);
}
