// SPDX-License-Identifier: GPL-2.0

//! Pointers to `struct sock` and what is read from it.

use core::{
    ptr,
    ptr::NonNull, //
};

use kernel::sync::rcu;

use crate::{
    bindings,
    net::{
        ip::in6_addr,
        Net, //
    },
    wire::addr::{
        Addr,
        FourTuple,
        Proto, //
    },
};

/// A counted reference to a `struct sock` that is a full TCP socket (no request or TIME_WAIT).
///
/// # Invariants
///
/// The pointer is valid, and one reference (`sk_refcnt`) is owned.
pub(super) struct SockRef(NonNull<bindings::sock>);

// SAFETY: A socket may be used and its reference dropped on any CPU, in any context that
// sock_put() allows; see `Drop`.
unsafe impl Send for SockRef {}

// SAFETY: A shared reference gives the pointer away only, whose use has its own rules.
unsafe impl Sync for SockRef {}

impl SockRef {
    /// Takes over a reference.
    ///
    /// # Safety
    ///
    /// `sk` is a full TCP socket, and the caller owns one reference, which goes to the result.
    pub(super) unsafe fn from_raw(sk: NonNull<bindings::sock>) -> SockRef {
        // INVARIANT: By the function's requirements.
        SockRef(sk)
    }

    /// The socket, valid for as long as `self` lives.
    pub(super) fn as_raw(&self) -> *mut bindings::sock {
        self.0.as_ptr()
    }

    /// Hands the reference over.
    pub(super) fn into_raw(self) -> *mut bindings::sock {
        core::mem::ManuallyDrop::new(self).as_raw()
    }
}

impl Drop for SockRef {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the reference is ours. The last sock_put() of a TCP socket
        // runs sk_free(), which may be called in any context but hard interrupts.
        unsafe { bindings::sock_put(self.as_raw()) };
    }
}

/// `tcp_sk()`.
pub(super) fn tcp_sk(sk: *mut bindings::sock) -> *mut bindings::tcp_sock {
    // `struct sock` is the first member of `struct inet_sock`, that of
    // `struct inet_connection_sock`, and that of `struct tcp_sock`.
    const {
        assert!(core::mem::offset_of!(bindings::inet_sock, sk) == 0);
        assert!(core::mem::offset_of!(bindings::inet_connection_sock, icsk_inet) == 0);
        assert!(core::mem::offset_of!(bindings::tcp_sock, inet_conn) == 0);
    }
    sk.cast()
}

/// `inet_csk()`.
pub(super) fn inet_csk(sk: *mut bindings::sock) -> *mut bindings::inet_connection_sock {
    sk.cast()
}

/// `inet_sk_state_load()`: the state, one of `TCP_*` in `include/net/tcp_states.h`.
///
/// # Safety
///
/// `sk` is a valid socket (of any sort).
pub(super) unsafe fn state(sk: *const bindings::sock) -> u32 {
    // SAFETY: The socket is valid. The field is written with WRITE_ONCE() or
    // smp_store_release() on other CPUs; a volatile read of one byte is READ_ONCE().
    u32::from(unsafe { ptr::read_volatile(&raw const (*sk).__sk_common.skc_state) })
}

/// `TCPHDR_FIN`: the FIN flag in `TCP_SKB_CB()->tcp_flags`.
pub(super) const TCPHDR_FIN: u16 = 1 << 0;

/// `TCPHDR_PSH`: the PSH flag there.
pub(super) const TCPHDR_PSH: u16 = 1 << 3;

/// `TCPHDR_ACK`: the ACK flag in `TCP_SKB_CB()->tcp_flags`.
pub(super) const TCPHDR_ACK: u16 = 1 << 4;

/// `TCP_ECN_MODE_RFC3168` in `tp->ecn_flags`: classic ECN has been negotiated.
pub(super) const ECN_MODE_RFC3168: u32 = 1 << 0;

/// `TCP_ECN_QUEUE_CWR`, `TCP_ECN_DEMAND_CWR`, `TCP_ECN_SEEN`: what goes with the connection.
pub(super) const ECN_CARRIED: u8 = 1 << 1 | 1 << 2 | 1 << 3;

/// Whether the socket's methods are those of plain TCP.
///
/// A sockmap puts `tcp_bpf_prots` there, kernel TLS `tls_prots`, other modules their own.
///
/// # Safety
///
/// `sk` is a valid full socket.
pub(super) unsafe fn methods_are_tcp(sk: *const bindings::sock) -> bool {
    // SAFETY: The socket is valid. The pointer may be replaced while it is used (WRITE_ONCE in
    // sk_psock_update_proto()): read it once.
    let prot = unsafe { ptr::read_volatile(&raw const (*sk).__sk_common.skc_prot) };
    is_tcp(prot)
}

/// Whether the methods of a listener's children are those of plain TCP.
///
/// A listener that an sk_lookup program is to choose stands in a sockmap, which has replaced its
/// methods. A child gets those that the listener was made with (tcp_bpf_clone()).
///
/// # Safety
///
/// `sk` is a valid full socket.
pub(super) unsafe fn children_are_tcp(sk: *const bindings::sock) -> bool {
    // SAFETY: The socket is valid; the methods that it was made with stay what they are.
    unsafe { methods_are_tcp(sk) || bindings::sk_in_sockmap(sk) && is_tcp((*sk).sk_prot_creator) }
}

fn is_tcp(prot: *const bindings::proto) -> bool {
    ptr::eq(prot, &raw const bindings::tcp_prot) || ptr::eq(prot, &raw const bindings::tcpv6_prot)
}

/// Whether the packets of a connection are IPv4.
///
/// An AF_INET6 socket has IPv4 packets if its addresses are IPv4-mapped ones, RFC 3493 section
/// 3.7; the IPv4 addresses stand in the usual place then, too.
///
/// # Safety
///
/// `sk` is a valid full TCP socket in a connected state.
pub(super) unsafe fn is_ipv4(sk: *const bindings::sock) -> bool {
    // SAFETY: The socket is valid; its family and addresses do not change while it is connected.
    unsafe {
        u32::from((*sk).__sk_common.skc_family) == bindings::AF_INET
            || Addr::v6((*sk).__sk_common.skc_v6_daddr.in6_u.u6_addr8).is_v4()
    }
}

/// `tcp_inet6_sk()`: what an AF_INET6 socket has for IPv6, null for others.
///
/// # Safety
///
/// `sk` is a valid full TCP socket.
pub(super) unsafe fn ipv6(sk: *mut bindings::sock) -> *mut bindings::ipv6_pinfo {
    // SAFETY: The socket is valid; the pointer is set when it is made.
    unsafe {
        if u32::from((*sk).__sk_common.skc_family) == bindings::AF_INET6 {
            (*inet_csk(sk)).icsk_inet.pinet6
        } else {
            ptr::null_mut()
        }
    }
}

/// The 4-tuple of a connection, the socket's own address being the virtual one.
///
/// # Safety
///
/// `sk` is a valid full TCP socket.
pub(super) unsafe fn tuple(sk: *const bindings::sock) -> FourTuple {
    // SAFETY: The socket is valid, and every member of these unions is plain data.
    let (client, vip, client_port, vip_port) = unsafe {
        let addrs = (*sk).__sk_common.__bindgen_anon_1.__bindgen_anon_1;
        let ports = (*sk).__sk_common.__bindgen_anon_3.__bindgen_anon_1;
        let (client, vip) = if is_ipv4(sk) {
            (
                Addr::v4(addrs.skc_daddr.to_ne_bytes()),
                Addr::v4(addrs.skc_rcv_saddr.to_ne_bytes()),
            )
        } else {
            (
                Addr::v6((*sk).__sk_common.skc_v6_daddr.in6_u.u6_addr8),
                Addr::v6((*sk).__sk_common.skc_v6_rcv_saddr.in6_u.u6_addr8),
            )
        };
        (client, vip, ports.skc_dport, ports.skc_num)
    };
    let client_port = u16::from_be(client_port);
    // A socket that is not connected may have addresses that do not belong together.
    FourTuple::new(client, client_port, vip, vip_port, Proto::Tcp).unwrap_or(FourTuple::v4(
        [0; 4],
        client_port,
        [0; 4],
        vip_port,
        Proto::Tcp,
    ))
}

/// The addresses of a connection as they stand in packets.
#[derive(Clone, Copy)]
pub(super) enum Addrs {
    /// `__be32` each.
    V4 { client: u32, vip: u32 },
    /// In network byte order.
    V6 {
        client: bindings::in6_addr,
        vip: bindings::in6_addr,
    },
}

/// A tuple as the kernel's lookup functions want it.
#[derive(Clone, Copy)]
pub(super) struct Tuple {
    /// The addresses.
    pub(super) addrs: Addrs,
    /// The client's port, as in the packet (`__be16`).
    pub(super) client_port_be: u16,
    /// The port of the virtual address in host byte order.
    pub(super) vip_port: u16,
}

impl Tuple {
    /// `None` for what is not TCP.
    pub(super) fn new(tuple: &FourTuple) -> Option<Tuple> {
        if tuple.proto() != Proto::Tcp {
            return None;
        }
        let (client, vip) = (tuple.client(), tuple.vip());
        let addrs = match (client.to_v4(), vip.to_v4()) {
            (Some(client), Some(vip)) => Addrs::V4 {
                client: u32::from_ne_bytes(client),
                vip: u32::from_ne_bytes(vip),
            },
            _ => Addrs::V6 {
                client: in6_addr(&client),
                vip: in6_addr(&vip),
            },
        };
        Some(Tuple {
            addrs,
            client_port_be: tuple.client_port().to_be(),
            vip_port: tuple.vip_port(),
        })
    }

    /// The socket, of any sort, that a packet from interface `dif` (0: any) finds as its connection,
    /// with a reference that is the caller's.
    pub(super) fn established(
        &self,
        net: &Net,
        dif: i32,
        _guard: &rcu::Guard,
    ) -> Option<NonNull<bindings::sock>> {
        // SAFETY: The namespace is valid, RCU is held; addresses are borrowed for the call.
        NonNull::new(unsafe {
            match &self.addrs {
                Addrs::V4 { client, vip } => bindings::__inet_lookup_established(
                    net.as_raw(),
                    *client,
                    self.client_port_be,
                    *vip,
                    self.vip_port,
                    dif,
                    0,
                ),
                Addrs::V6 { client, vip } => bindings::__inet6_lookup_established(
                    net.as_raw(),
                    client,
                    self.client_port_be,
                    vip,
                    self.vip_port,
                    dif,
                    0,
                ),
            }
        })
    }

    /// The socket that listens on `port` for packets of this connection, without a reference.
    ///
    /// `segment` is what BPF programs are shown to choose by; null for the hash of the addresses.
    ///
    /// # Safety
    ///
    /// `segment` is null, or a valid packet that begins at its TCP header, of `len` bytes. Bottom
    /// halves are disabled.
    pub(super) unsafe fn listener(
        &self,
        net: &Net,
        segment: *mut bindings::sk_buff,
        len: i32,
        port: u16,
        dif: i32,
        _guard: &rcu::Guard,
    ) -> Option<NonNull<bindings::sock>> {
        // SAFETY: The namespace is valid, RCU is held; addresses are borrowed for the call. The
        // segment is as the functions demand it.
        NonNull::new(unsafe {
            match &self.addrs {
                Addrs::V4 { client, vip } => bindings::__inet_lookup_listener(
                    net.as_raw(),
                    segment,
                    len,
                    *client,
                    self.client_port_be,
                    *vip,
                    port,
                    dif,
                    0,
                ),
                Addrs::V6 { client, vip } => bindings::inet6_lookup_listener(
                    net.as_raw(),
                    segment,
                    len,
                    client,
                    self.client_port_be,
                    vip,
                    port,
                    dif,
                    0,
                ),
            }
        })
    }
}

/// Frees a list of buffers that are chained by `next` alone; gives their number.
///
/// # Safety
///
/// The caller owns every buffer of the (possibly empty) list.
pub(super) unsafe fn free_skb_list(mut skb: *mut bindings::sk_buff) -> u32 {
    let mut count: u32 = 0;
    while !skb.is_null() {
        // SAFETY: The buffer is valid and ours; its `next` is the next of the list. It is cleared
        // (`skb_mark_not_on_list()`) before the buffer is freed.
        unsafe {
            let link = &raw mut (*skb).__bindgen_anon_1.__bindgen_anon_1.next;
            let next = *link;
            *link = ptr::null_mut();
            bindings::sk_skb_reason_drop(
                ptr::null_mut(),
                skb,
                bindings::skb_drop_reason_SKB_DROP_REASON_NOT_SPECIFIED,
            );
            skb = next;
        }
        count = count.saturating_add(1);
    }
    count
}

/// What is kept in `skb->cb` of a segment that the TCP stack has taken: `TCP_SKB_CB()`.
pub(super) fn tcp_skb_cb(skb: *mut bindings::sk_buff) -> *mut bindings::tcp_skb_cb {
    const {
        assert!(size_of::<bindings::tcp_skb_cb>() <= 48);
        assert!(
            core::mem::offset_of!(bindings::sk_buff, cb) % align_of::<bindings::tcp_skb_cb>() == 0
        );
    }
    // The offset stays within the buffer's control structure, which the caller vouches for when it
    // uses the result.
    skb.wrapping_byte_add(core::mem::offset_of!(bindings::sk_buff, cb))
        .cast()
}
