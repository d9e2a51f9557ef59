// SPDX-License-Identifier: GPL-2.0

#include <linux/security.h>

__nlb_helper int nlb_helper_security_inet_conn_request(const struct sock *sk, struct sk_buff *skb,
						       struct request_sock *req)
{
	return security_inet_conn_request(sk, skb, req);
}
