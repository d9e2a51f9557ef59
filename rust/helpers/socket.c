// SPDX-License-Identifier: GPL-2.0

#include <linux/net.h>
#include <net/ipv6.h>
#include <net/sock.h>

__nlb_helper int nlb_helper_ip6_sock_set_v6only(struct sock *sk)
{
	return ip6_sock_set_v6only(sk);
}

__nlb_helper bool nlb_helper_sk_has_psp(const struct sock *sk)
{
#if IS_ENABLED(CONFIG_INET_PSP)
	return rcu_access_pointer(sk->psp_assoc);
#else
	return false;
#endif
}

__nlb_helper void nlb_helper_sk_set_rcvtimeo(struct sock *sk, long jiffies)
{
	WRITE_ONCE(sk->sk_rcvtimeo, jiffies);
}

__nlb_helper void nlb_helper_sk_set_sndtimeo(struct sock *sk, long jiffies)
{
	WRITE_ONCE(sk->sk_sndtimeo, jiffies);
}

__nlb_helper bool nlb_helper_sock_flag(const struct sock *sk, enum sock_flags flag)
{
	return sock_flag(sk, flag);
}

__nlb_helper struct net *nlb_helper_sock_net(const struct sock *sk)
{
	return sock_net(sk);
}

__nlb_helper void nlb_helper_sock_reset_flag(struct sock *sk, enum sock_flags flag)
{
	sock_reset_flag(sk, flag);
}

__nlb_helper void nlb_helper_sock_set_flag(struct sock *sk, enum sock_flags flag)
{
	sock_set_flag(sk, flag);
}

__nlb_helper void nlb_helper_sockfd_put(struct socket *sock)
{
	sockfd_put(sock);
}
