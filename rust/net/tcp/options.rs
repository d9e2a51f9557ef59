// SPDX-License-Identifier: GPL-2.0

//! What a program has set on its socket with setsockopt().

use core::ptr;

use crate::{
    bindings,
    wire::record::{
        CongestionControl,
        SocketOptions, //
    }, //
};

use super::{
    sock,
    sock::{
        inet_csk,
        tcp_sk, //
    }, //
};

/// The bits of ECN in the type of service: not the program's.
const ECN: u8 = 3;

/// Where IP_TOS or, for a connection over IPv6, IPV6_TCLASS stands.
///
/// # Safety
///
/// `sk` is a valid, locked TCP socket in a connected state.
unsafe fn type_of_service(sk: *mut bindings::sock) -> *mut u8 {
    // SAFETY: The socket is valid. One with an IPv6 connection has a `pinet6`, which lives as long.
    unsafe {
        let np = sock::ipv6(sk);
        if sock::is_ipv4(sk) || np.is_null() {
            &raw mut (*inet_csk(sk)).icsk_inet.tos
        } else {
            &raw mut (*np).tclass
        }
    }
}

/// What stands in a socket, where it is not what every socket begins with.
///
/// # Safety
///
/// `sk` is a valid, locked TCP socket.
pub(super) unsafe fn read(sk: *mut bindings::sock) -> SocketOptions {
    let tp = tcp_sk(sk);
    // SAFETY: The socket is valid and locked; jiffies64_to_msecs() has no preconditions.
    unsafe {
        // CAST: Checked by setsockopt(): 32767 seconds at most.
        let seconds = |jiffies: u32| (bindings::jiffies64_to_msecs(jiffies.into()) / 1000) as u32;
        let nonagle = u32::from(bindings::tcp_sock::nonagle_raw(tp));
        let rate = (*sk).sk_max_pacing_rate;
        SocketOptions {
            nodelay: nonagle & bindings::TCP_NAGLE_OFF != 0,
            keepalive: bindings::sock_flag(sk, bindings::sock_flags_SOCK_KEEPOPEN),
            keepalive_count: (*tp).keepalive_probes,
            keepalive_idle: seconds((*tp).keepalive_time),
            keepalive_interval: seconds((*tp).keepalive_intvl),
            tos: type_of_service(sk).read_volatile() & !ECN,
            user_timeout: (*inet_csk(sk)).icsk_user_timeout,
            notsent_lowat: (*tp).notsent_lowat,
            // CAST: As wide, or wider.
            max_pacing_rate: if rate == usize::MAX { 0 } else { rate as u64 },
            congestion_control: congestion_control(sk),
        }
    }
}

/// The congestion control if a program has named it, for this socket or for its listener, rather than
/// the administrator for all.
///
/// # Safety
///
/// `sk` is a valid, locked TCP socket.
unsafe fn congestion_control(sk: *mut bindings::sock) -> Option<CongestionControl> {
    let icsk = inet_csk(sk);
    // SAFETY: The socket is valid and locked, and then has a congestion control that stays.
    let name = unsafe {
        if (*icsk).icsk_ca_setsockopt() == 0 {
            return None;
        }
        (*(*icsk).icsk_ca_ops).name
    };
    CongestionControl::new(&name)
}

/// Sets what has been set, and leaves the rest as the listener has it.
///
/// As do_tcp_setsockopt(), ip_setsockopt() and sk_setsockopt() do it, which take the lock and so
/// cannot be asked.
///
/// # Safety
///
/// `sk` is a valid, locked TCP socket that nobody else has seen.
pub(super) unsafe fn apply(sk: *mut bindings::sock, options: &SocketOptions) {
    let tp = tcp_sk(sk);
    // SAFETY: The socket is valid and locked. What other CPUs read without the lock is written with
    // WRITE_ONCE(), which a volatile write is.
    unsafe {
        // CAST: Checked when it came: 32767 seconds at most.
        let jiffies = |seconds: u32| bindings::__msecs_to_jiffies(seconds * 1000) as u32;
        if options.nodelay {
            let nonagle = bindings::tcp_sock::nonagle_raw(tp);
            // CAST: One bit.
            bindings::tcp_sock::set_nonagle_raw(tp, nonagle | bindings::TCP_NAGLE_OFF as u8);
        }
        if options.keepalive_count != 0 {
            ptr::write_volatile(&raw mut (*tp).keepalive_probes, options.keepalive_count);
        }
        if options.keepalive_idle != 0 {
            let idle = jiffies(options.keepalive_idle);
            ptr::write_volatile(&raw mut (*tp).keepalive_time, idle);
        }
        if options.keepalive_interval != 0 {
            let interval = jiffies(options.keepalive_interval);
            ptr::write_volatile(&raw mut (*tp).keepalive_intvl, interval);
        }
        let keepopen = bindings::sock_flags_SOCK_KEEPOPEN;
        if options.keepalive || bindings::sock_flag(sk, keepopen) {
            // The timer that a listener with keepalive has started goes by the listener's time, and is
            // only started where there is none.
            bindings::sock_reset_flag(sk, keepopen);
            if let Some(keepalive) = (*(*sk).__sk_common.skc_prot).keepalive {
                keepalive(sk, 1);
            }
            bindings::sock_set_flag(sk, keepopen);
        }
        if options.tos != 0 {
            let tos = type_of_service(sk);
            ptr::write_volatile(tos, options.tos | (*tos & ECN));
            // IPV6_TCLASS leaves the priority alone.
            if sock::is_ipv4(sk) {
                let priority = bindings::rt_tos2priority(options.tos);
                ptr::write_volatile(&raw mut (*sk).sk_priority, u32::from(priority));
            }
        }
        if options.user_timeout != 0 {
            let timeout = &raw mut (*inet_csk(sk)).icsk_user_timeout;
            ptr::write_volatile(timeout, options.user_timeout);
        }
        if options.notsent_lowat != 0 {
            ptr::write_volatile(&raw mut (*tp).notsent_lowat, options.notsent_lowat);
        }
        if options.max_pacing_rate != 0 {
            let rate = usize::try_from(options.max_pacing_rate).unwrap_or(usize::MAX);
            ptr::write_volatile(&raw mut (*sk).sk_max_pacing_rate, rate);
            let now = &raw mut (*sk).sk_pacing_rate;
            ptr::write_volatile(now, rate.min(*now));
            if (*sk).sk_pacing_status == bindings::sk_pacing_SK_PACING_NONE {
                let needed = bindings::sk_pacing_SK_PACING_NEEDED;
                ptr::write_volatile(&raw mut (*sk).sk_pacing_status, needed);
            }
        }
        if let Some(name) = options.congestion_control {
            // What is not there cannot be set: then it stays the listener's.
            bindings::tcp_set_congestion_control_locked(
                sk,
                name.as_bytes().as_ptr().cast_mut().cast(),
            );
        }
    }
}
