// SPDX-License-Identifier: GPL-2.0

//! The request sock and the segment from which a listener makes a child.

use core::{
    mem::offset_of,
    ptr,
    ptr::NonNull, //
};

use kernel::prelude::*;

use crate::{
    bindings,
    wire::record::ConnectionState, //
};

use super::{
    refusal::Refusal,
    sock::{
        tcp_skb_cb,
        Addrs,
        Tuple,
        TCPHDR_ACK,
        TCPHDR_FIN, //
    },
};

/// Length of an IPv4, an IPv6 and a TCP header without options.
const IP_LEN: usize = 20;
const IPV6_LEN: usize = 40;
pub(super) const TCP_LEN: usize = 20;

/// `struct tcp_request_sock`: a connection request as the three-way handshake leaves it.
///
/// # Invariants
///
/// The request is valid, owned, in no hash table and in no queue, and its reference count is 0.
pub(super) struct Request(NonNull<bindings::tcp_request_sock>);

impl Request {
    /// A request of `listener` for the connection. May sleep.
    ///
    /// The "initial sequence numbers" of any established connection are the ones before the next
    /// byte to be read, and before the next byte to be sent.
    ///
    /// # Safety
    ///
    /// `listener` is a valid TCP socket.
    pub(super) unsafe fn new(
        listener: *mut bindings::sock,
        state: &ConnectionState,
        tuple: &Tuple,
        clock_ns: u64,
    ) -> Result<Request, Refusal> {
        // The operations are those of the packets, whatever the family of the listener:
        // tcp_v6_conn_request() does the same.
        // SAFETY: `tcp_prot` and `tcpv6_prot` are initialised before the first module is loaded.
        // `tcp_request_sock_ops` and `tcp6_request_sock_ops` are not exported, but these point to
        // them.
        let ops = unsafe {
            match tuple.addrs {
                Addrs::V4 { .. } => bindings::tcp_prot.rsk_prot,
                Addrs::V6 { .. } => bindings::tcpv6_prot.rsk_prot,
            }
        };
        // SAFETY: The slab was made with the operations, its objects are `struct tcp_request_sock`.
        let raw = unsafe { bindings::kmem_cache_alloc_noprof((*ops).slab, bindings::GFP_KERNEL) };
        let treq: NonNull<bindings::tcp_request_sock> =
            NonNull::new(raw.cast()).ok_or(Refusal::NoMemory)?;
        let req = treq.as_ptr();
        let base = req.cast::<bindings::request_sock>();

        // The memory is not zeroed, and must not be: the slab is SLAB_TYPESAFE_BY_RCU. A reader of
        // the hash table that still stands on the request which was here before goes on by
        // `skc_nulls_node.next` and looks at `skc_hash`, addresses and ports. So in `struct
        // sock_common` only those fields are written that inet_reqsk_alloc() and
        // tcp_v4_init_req() write; what comes after it, no reader sees without a reference, and
        // is cleared as a whole, for no field may be forgotten.
        const COMMON: usize = offset_of!(bindings::request_sock, dl_next);
        const {
            assert!(offset_of!(bindings::request_sock, __req_common) == 0);
            assert!(COMMON >= size_of::<bindings::sock_common>());
            assert!(offset_of!(bindings::tcp_request_sock, req) == 0);
            assert!(offset_of!(bindings::inet_request_sock, req) == 0);
        }
        // SAFETY: The object is at least as large as the structure, and ours.
        unsafe {
            ptr::write_bytes(
                req.cast::<u8>().add(COMMON),
                0,
                size_of::<bindings::tcp_request_sock>() - COMMON,
            );
        }
        // SAFETY: `req` is valid and ours; the listener is valid. Other CPUs may read single
        // fields of the old request meanwhile, and throw away what they find when they see the
        // reference count of 0.
        unsafe {
            // __inet_reqsk_alloc() with attach_listener == false, as for SYN cookies:
            // `rsk_listener` stays null, and there is no reference to drop.
            let common = &raw mut (*base).__req_common;
            (*common).__bindgen_anon_5.skc_listener = ptr::null_mut();
            (*common).skc_prot = (*listener).__sk_common.skc_prot;
            // sk_node_init()
            (*common).__bindgen_anon_6.skc_node.pprev = ptr::null_mut();
            // sk_tx_queue_clear()
            (*common).skc_tx_queue_mapping = u16::MAX;
            (*common).skc_refcnt.refs.counter = 0;
            (*common).skc_cookie.counter = 0;
            (*common).skc_state = bindings::TCP_NEW_SYN_RECV as u8;
            (*common).skc_net = (*listener).__sk_common.skc_net;
            (*common).skc_family = (*listener).__sk_common.skc_family;
            (*base).rsk_ops = ops;

            // tcp_v4_init_req(), tcp_v6_init_req(): addresses and ports. Those of the other family
            // are for an AF_INET6 listener: inet_csk_clone_lock() copies all to the child.
            let (v4, v6) = match tuple.addrs {
                Addrs::V4 { client, vip } => ((client, vip), (v4_mapped(client), v4_mapped(vip))),
                Addrs::V6 { client, vip } => ((LOOPBACK4_IPV6, LOOPBACK4_IPV6), (client, vip)),
            };
            (*common).__bindgen_anon_1.__bindgen_anon_1.skc_daddr = v4.0;
            (*common).__bindgen_anon_1.__bindgen_anon_1.skc_rcv_saddr = v4.1;
            (*common).__bindgen_anon_3.__bindgen_anon_1.skc_dport = tuple.client_port_be;
            (*common).__bindgen_anon_3.__bindgen_anon_1.skc_num = tuple.vip_port;
            (*common).skc_v6_daddr = v6.0;
            (*common).skc_v6_rcv_saddr = v6.1;
            // inet_request_bound_dev_if(), inet_request_mark(): what the child's routes depend on
            // is what the listener was bound to.
            (*common).skc_bound_dev_if = (*listener).__sk_common.skc_bound_dev_if;
            (*req).req.ir_mark = (*listener).sk_mark;

            // tcp_openreq_init(), and what tcp_create_openreq_child() takes from here.
            // The window may be closed, but the initial one of a child never is: the receive buffer's
            // growth divides by a value which tcp_init_buffer_space() takes from it (see
            // `Child::complete`, which also sets the window as it is).
            let initial = state.rcv_wnd.max(u32::from(state.mss_clamp));
            (*common).__bindgen_anon_7.skc_rcv_wnd = initial;
            (*common).__bindgen_anon_8.skc_window_clamp = state.window_clamp;
            (*base).mss = state.mss_clamp;
            (*base).ts_recent = state.ts_recent;
            let ireq = &raw mut (*req).req;
            type Ireq = bindings::inet_request_sock;
            Ireq::set_wscale_ok_raw(ireq, u16::from(state.wscale_ok));
            Ireq::set_snd_wscale_raw(ireq, u16::from(state.snd_wscale));
            Ireq::set_rcv_wscale_raw(ireq, u16::from(state.rcv_wscale));
            Ireq::set_sack_ok_raw(ireq, u16::from(state.sack_ok));
            Ireq::set_tstamp_ok_raw(ireq, u16::from(state.tstamp_ok));
            Ireq::set_ecn_ok_raw(ireq, u16::from(state.ecn_ok));
            Ireq::set_acked_raw(ireq, 1);
            (*req).req_usec_ts = state.usec_ts;
            (*req).txhash = bindings::get_random_u32() | 1;
            (*req).rcv_isn = state.copied_seq.wrapping_sub(1);
            (*req).rcv_nxt = state.copied_seq;
            (*req).snt_isn = state.snd_una.wrapping_sub(1);
            // Our timestamps go on where the other machine stopped: its last value minus this
            // machine's clock. The time on the way is lost, which does no harm; going back would,
            // for the client discards what is older than the last it saw (PAWS, RFC 7323 section 5).
            let now = bindings::tcp_ns_to_ts(state.usec_ts, clock_ns);
            (*req).ts_off = if state.tstamp_ok {
                state.tsval_now.wrapping_sub(now)
            } else {
                0
            };
        }
        // INVARIANT: Just made, and nobody else knows it.
        Ok(Request(treq))
    }

    /// The request.
    pub(super) fn as_raw(&self) -> *mut bindings::request_sock {
        self.0.as_ptr().cast()
    }

    /// Gives the request away.
    pub(super) fn into_raw(self) -> *mut bindings::request_sock {
        let raw = self.as_raw();
        core::mem::forget(self);
        raw
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let req = self.as_raw();
        // SAFETY: By the type invariant the request is ours and nobody else has a reference. This
        // is __reqsk_free(), which is not exported; there is no listener and no saved SYN.
        unsafe {
            let ops = (*req).rsk_ops;
            if let Some(destructor) = (*ops).destructor {
                destructor(req);
            }
            bindings::kmem_cache_free((*ops).slab, req.cast());
        }
    }
}

/// What the IPv4 addresses of an IPv6 socket are (127.0.0.6).
const LOOPBACK4_IPV6: u32 = 0x7f00_0006_u32.to_be();

fn v4_mapped(addr: u32) -> bindings::in6_addr {
    let mut mapped = bindings::in6_addr::default();
    mapped.in6_u.u6_addr32 = [0, 0, 0xffff_u32.to_be(), addr];
    mapped
}

/// A segment of the client without data and timestamp: an ACK as it would complete the handshake, or
/// a FIN.
///
/// # Invariants
///
/// The buffer is valid, linear and owned; its data is a TCP header, and an IP header is in front of
/// that.
pub(super) struct Segment(NonNull<bindings::sk_buff>);

// SAFETY: The buffer is owned, and belongs to no device or socket.
unsafe impl Send for Segment {}

impl Segment {
    /// The segment with which the child's state machine goes from SYN_RECV to ESTABLISHED.
    ///
    /// Any fault in it makes the stack answer with a RST to the client (tcp_v4_do_rcv(), label
    /// "reset"). So it has the very numbers the child was made with, nothing more: without a
    /// timestamp option PAWS is not asked, and there is no RTT sample either.
    ///
    /// The child never looks up a route for it, nor its device: the addresses come from the
    /// request, and `sk_rx_dst` is set by the first segment from the network. May sleep.
    pub(super) fn ack(
        state: &ConnectionState,
        tuple: &Tuple,
        iif: u32,
    ) -> Result<Segment, Refusal> {
        Segment::new(state, tuple, iif, state.copied_seq, 0)
    }

    /// The segment that takes the child to CLOSE_WAIT, once it has all unread bytes: the client's
    /// FIN as it came before. May sleep.
    pub(super) fn fin(
        state: &ConnectionState,
        tuple: &Tuple,
        iif: u32,
    ) -> Result<Segment, Refusal> {
        Segment::new(state, tuple, iif, state.rcv_nxt.wrapping_sub(1), TCPHDR_FIN)
    }

    fn new(
        state: &ConnectionState,
        tuple: &Tuple,
        iif: u32,
        seq: u32,
        flags: u16,
    ) -> Result<Segment, Refusal> {
        let ip_len = match tuple.addrs {
            Addrs::V4 { .. } => IP_LEN,
            Addrs::V6 { .. } => IPV6_LEN,
        };
        // SAFETY: No preconditions; the caller may sleep.
        let skb = unsafe { bindings::alloc_skb((ip_len + TCP_LEN) as u32, bindings::GFP_KERNEL) };
        let skb = NonNull::new(skb).ok_or(Refusal::NoMemory)?;
        let raw = skb.as_ptr();
        // SAFETY: The buffer is new and has room for both headers, which skb_put() gives,
        // suitably aligned as all allocations are. All of it is cleared before it is used.
        let mut segment = unsafe {
            let data = bindings::skb_put(raw, (ip_len + TCP_LEN) as u32).cast::<u8>();
            ptr::write_bytes(data, 0, ip_len + TCP_LEN);
            bindings::skb_reset_network_header(raw);
            bindings::skb_set_transport_header(raw, ip_len as i32);

            let protocol = match tuple.addrs {
                Addrs::V4 { client, vip } => {
                    let iph = data.cast::<bindings::iphdr>();
                    bindings::iphdr::set_version_raw(iph, 4);
                    bindings::iphdr::set_ihl_raw(iph, (IP_LEN / 4) as u8);
                    (*iph).tot_len = ((IP_LEN + TCP_LEN) as u16).to_be();
                    (*iph).ttl = 64;
                    (*iph).protocol = bindings::IPPROTO_TCP as u8;
                    (*iph).__bindgen_anon_1.__bindgen_anon_1.saddr = client;
                    (*iph).__bindgen_anon_1.__bindgen_anon_1.daddr = vip;
                    bindings::ETH_P_IP
                }
                Addrs::V6 { client, vip } => {
                    let ip6h = data.cast::<bindings::ipv6hdr>();
                    bindings::ipv6hdr::set_version_raw(ip6h, 6);
                    (*ip6h).payload_len = (TCP_LEN as u16).to_be();
                    (*ip6h).nexthdr = bindings::IPPROTO_TCP as u8;
                    (*ip6h).hop_limit = 64;
                    (*ip6h).__bindgen_anon_1.__bindgen_anon_1.saddr = client;
                    (*ip6h).__bindgen_anon_1.__bindgen_anon_1.daddr = vip;
                    bindings::ETH_P_IPV6
                }
            };

            let th = data.add(ip_len).cast::<bindings::tcphdr>();
            (*th).source = tuple.client_port_be;
            (*th).dest = tuple.vip_port.to_be();
            bindings::tcphdr::set_doff_raw(th, (TCP_LEN / 4) as u16);
            bindings::tcphdr::set_ack_raw(th, 1);

            // The data begins at the TCP header where tcp_v4_rcv() would have left it.
            bindings::skb_pull(raw, ip_len as u32);
            let meta = (*raw).__bindgen_anon_4.headers.as_mut();
            meta.protocol = (protocol as u16).to_be();
            // tcp_v4_do_rcv() verifies the checksum in all states but ESTABLISHED.
            meta.set_ip_summed(bindings::CHECKSUM_UNNECESSARY as u8);
            // INVARIANT: The buffer is new, and both headers are there.
            Segment(skb)
        };
        segment.fill(state, iif, seq, flags);
        Ok(segment)
    }

    /// Makes the segment that of [`Segment::ack`] for this state of the same connection, whatever it
    /// was.
    pub(super) fn renew_ack(&mut self, state: &ConnectionState, iif: u32) {
        self.fill(state, iif, state.copied_seq, 0);
    }

    /// Writes what changes as the connection goes on.
    fn fill(&mut self, state: &ConnectionState, iif: u32, seq: u32, flags: u16) {
        let raw = self.as_raw();
        // SAFETY: By the type invariant the buffer is ours, and its data is a TCP header.
        unsafe {
            let th = (*raw).data.cast::<bindings::tcphdr>();
            (*th).seq = seq.to_be();
            (*th).ack_seq = state.snd_una.to_be();
            let fin = flags & TCPHDR_FIN;
            bindings::tcphdr::set_fin_raw(th, fin);
            // `max_window`, from which tcp_sync_mss() takes a limit for the segment size
            // (tcp_bound_to_half_wnd()). The window itself is set afterwards.
            let window = state.max_window >> state.snd_wscale;
            (*th).window = u16::try_from(window).unwrap_or(u16::MAX).to_be();
            let meta = (*raw).__bindgen_anon_4.headers.as_mut();
            meta.skb_iif = i32::try_from(iif).unwrap_or(0);

            // tcp_v4_fill_cb(). The rest of `cb` is clear in a new buffer: no interface of IPv6
            // (`mcast_oif`), which the client's next segment brings.
            let cb = tcp_skb_cb(raw);
            (*cb).seq = seq;
            (*cb).end_seq = seq.wrapping_add(u32::from(fin));
            (*cb).ack_seq = state.snd_una;
            (*cb).tcp_flags = TCPHDR_ACK | flags;
        }
    }

    /// The segment.
    pub(super) fn as_raw(&self) -> *mut bindings::sk_buff {
        self.0.as_ptr()
    }

    /// Gives the segment away.
    pub(super) fn into_raw(self) -> *mut bindings::sk_buff {
        let raw = self.as_raw();
        core::mem::forget(self);
        raw
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the buffer is ours; it stands in no list.
        unsafe { super::sock::free_skb_list(self.as_raw()) };
    }
}
