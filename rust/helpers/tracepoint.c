// SPDX-License-Identifier: GPL-2.0

#include <linux/tracepoint.h>
#include <trace/events/sock.h>
#include <trace/events/tcp.h>

#ifdef CONFIG_TRACEPOINTS

__nlb_helper void nlb_helper_each_tracepoint(void (*fct)(struct tracepoint *tp, void *priv), void *priv)
{
	for_each_kernel_tracepoint(fct, priv);
}

/* The compiler compares the arguments of the probes with those of the tracepoints. */

__nlb_helper int nlb_helper_probe_tcp_rcv_space_adjust(struct tracepoint *tp,
						       void (*probe)(void *data, struct sock *sk), void *data)
{
	check_trace_callback_type_tcp_rcv_space_adjust(probe);
	return tracepoint_probe_register(tp, probe, data);
}

__nlb_helper int nlb_helper_probe_inet_sock_set_state(struct tracepoint *tp,
						      void (*probe)(void *data, const struct sock *sk, int oldstate,
								    int newstate),
						      void *data)
{
	check_trace_callback_type_inet_sock_set_state(probe);
	return tracepoint_probe_register(tp, probe, data);
}

__nlb_helper int nlb_helper_unregister_probe(struct tracepoint *tp, void *probe, void *data)
{
	return tracepoint_probe_unregister(tp, probe, data);
}

__nlb_helper void nlb_helper_tracepoint_synchronize_unregister(void)
{
	tracepoint_synchronize_unregister();
}

#else

__nlb_helper void nlb_helper_each_tracepoint(void (*fct)(struct tracepoint *tp, void *priv), void *priv)
{
}

__nlb_helper int nlb_helper_probe_tcp_rcv_space_adjust(struct tracepoint *tp,
						       void (*probe)(void *data, struct sock *sk), void *data)
{
	return -EOPNOTSUPP;
}

__nlb_helper int nlb_helper_probe_inet_sock_set_state(struct tracepoint *tp,
						      void (*probe)(void *data, const struct sock *sk, int oldstate,
								    int newstate),
						      void *data)
{
	return -EOPNOTSUPP;
}

__nlb_helper int nlb_helper_unregister_probe(struct tracepoint *tp, void *probe, void *data)
{
	return -EOPNOTSUPP;
}

__nlb_helper void nlb_helper_tracepoint_synchronize_unregister(void)
{
}

#endif
