// SPDX-License-Identifier: GPL-2.0

#include <linux/bpf.h>
#include <net/mptcp.h>
#include <net/tcp.h>

__nlb_helper void nlb_helper___skb_queue_tail(struct sk_buff_head *list, struct sk_buff *newsk)
{
	__skb_queue_tail(list, newsk);
}

__nlb_helper void nlb_helper_bh_unlock_sock(struct sock *sk)
{
	bh_unlock_sock(sk);
}

__nlb_helper void nlb_helper_inet_csk_reset_delack_timer(struct sock *sk)
{
	inet_csk_reset_xmit_timer(sk, ICSK_TIME_DACK, TCP_DELACK_MIN, tcp_rto_max(sk));
}

__nlb_helper bool nlb_helper_sk_acceptq_is_full(const struct sock *sk)
{
	return sk_acceptq_is_full(sk);
}

__nlb_helper void nlb_helper_sk_acceptq_added(struct sock *sk)
{
	sk_acceptq_added(sk);
}

__nlb_helper bool nlb_helper_sk_hold_not_zero(struct sock *sk)
{
	return refcount_inc_not_zero(&sk->sk_refcnt);
}

__nlb_helper bool nlb_helper_sk_in_sockmap(const struct sock *sk)
{
	return (uintptr_t)rcu_access_pointer(__sk_user_data(sk)) & SK_USER_DATA_PSOCK;
}

__nlb_helper bool nlb_helper_sk_is_mptcp(const struct sock *sk)
{
	return sk_is_mptcp(sk);
}

__nlb_helper void nlb_helper_sk_mem_charge(struct sock *sk, int size)
{
	sk_mem_charge(sk, size);
}

__nlb_helper bool nlb_helper_sk_rmem_schedule(struct sock *sk, const struct sk_buff *skb, int size)
{
	return sk_rmem_schedule(sk, skb, size);
}

__nlb_helper void nlb_helper_skb_set_owner_r(struct sk_buff *skb, struct sock *sk)
{
	skb_set_owner_r(skb, sk);
}

__nlb_helper void nlb_helper_sk_slock_lock_bh(struct sock *sk)
{
	spin_lock_bh(&sk->sk_lock.slock);
}

__nlb_helper void nlb_helper_sk_slock_unlock_bh(struct sock *sk)
{
	spin_unlock_bh(&sk->sk_lock.slock);
}

__nlb_helper bool nlb_helper_sk_tsq_test_and_set(struct sock *sk, enum tsq_enum nr)
{
	return test_and_set_bit(nr, &sk->sk_tsq_flags);
}

__nlb_helper void nlb_helper_sk_wmem_queued_add(struct sock *sk, int val)
{
	sk_wmem_queued_add(sk, val);
}

__nlb_helper bool nlb_helper_sk_wmem_schedule(struct sock *sk, int size)
{
	return sk_wmem_schedule(sk, size);
}

__nlb_helper void nlb_helper_sock_hold(struct sock *sk)
{
	sock_hold(sk);
}

__nlb_helper void nlb_helper_sock_put(struct sock *sk)
{
	sock_put(sk);
}

__nlb_helper void nlb_helper_tcp_add_write_queue_tail(struct sock *sk, struct sk_buff *skb)
{
	tcp_add_write_queue_tail(sk, skb);
}

__nlb_helper void nlb_helper_tcp_check_probe_timer(struct sock *sk)
{
	tcp_check_probe_timer(sk);
}

__nlb_helper void nlb_helper_tcp_chrono_start(struct sock *sk, enum tcp_chrono type)
{
	tcp_chrono_start(sk, type);
}

__nlb_helper bool nlb_helper_tcp_ecn_mode_accecn(const struct tcp_sock *tp)
{
	return tcp_ecn_mode_accecn(tp);
}

__nlb_helper void nlb_helper_tcp_fast_path_check(struct sock *sk)
{
	tcp_fast_path_check(sk);
}

__nlb_helper u32 nlb_helper_tcp_jiffies32(void)
{
	return tcp_jiffies32;
}

__nlb_helper u32 nlb_helper_tcp_ns_to_ts(bool usec_ts, u64 val)
{
	return tcp_ns_to_ts(usec_ts, val);
}

__nlb_helper void nlb_helper_tcp_reset_xmit_timer(struct sock *sk, int what, unsigned long when)
{
	tcp_reset_xmit_timer(sk, what, when, false);
}

__nlb_helper u32 nlb_helper___tcp_set_rto(const struct tcp_sock *tp)
{
	return __tcp_set_rto(tp);
}

__nlb_helper int nlb_helper_tcp_win_from_space(const struct sock *sk, int space)
{
	return tcp_win_from_space(sk, space);
}

__nlb_helper bool nlb_helper_tcp_write_queue_empty(const struct sock *sk)
{
	return tcp_write_queue_empty(sk);
}

/* Fields which exist with some configurations only. */

__nlb_helper bool nlb_helper_tcp_has_md5sig_info(const struct tcp_sock *tp)
{
#ifdef CONFIG_TCP_MD5SIG
	return rcu_access_pointer(tp->md5sig_info);
#else
	return false;
#endif
}

__nlb_helper struct tcp_ao_info *nlb_helper_tcp_ao_info(const struct sock *sk)
{
#ifdef CONFIG_TCP_AO
	return rcu_dereference_protected(tcp_sk(sk)->ao_info, lockdep_sock_is_held(sk));
#else
	return NULL;
#endif
}

__nlb_helper int nlb_helper_tcp_ao_parse(struct sock *sk, int optname, void *optval, int optlen)
{
#ifdef CONFIG_TCP_AO
	return tcp_sk(sk)->af_specific->ao_parse(sk, optname, KERNEL_SOCKPTR(optval), optlen);
#else
	return -ENOPROTOOPT;
#endif
}

__nlb_helper bool nlb_helper_tcp_has_ao_info(const struct tcp_sock *tp)
{
#ifdef CONFIG_TCP_AO
	return rcu_access_pointer(tp->ao_info);
#else
	return false;
#endif
}

__nlb_helper bool nlb_helper_tcp_syn_smc(const struct tcp_sock *tp)
{
#if IS_ENABLED(CONFIG_SMC)
	return tp->syn_smc;
#else
	return false;
#endif
}

/*
 * For a socket that the caller has locked, which may be its spin lock only. tcp_setsockopt() takes the lock unless
 * a BPF program calls it, as such programs do from within the stack; it asks for no more than that.
 */
__nlb_helper int nlb_helper_tcp_set_congestion_control_locked(struct sock *sk, char *name)
{
	struct bpf_run_ctx ctx, *old;
	int err = -EOPNOTSUPP;

	old = bpf_set_run_ctx(&ctx);
	if (has_current_bpf_ctx())
		err = sk->sk_prot->setsockopt(sk, IPPROTO_TCP, TCP_CONGESTION, KERNEL_SOCKPTR(name), TCP_CA_NAME_MAX);
	bpf_reset_run_ctx(old);
	return err;
}
