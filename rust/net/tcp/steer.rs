// SPDX-License-Identifier: GPL-2.0

//! Handing arriving packets to a listener on another port, as TPROXY does.
//!
//! The connection that comes of it has the port of its packets: a request takes its addresses and
//! ports from the SYN, not from the listener.

use core::ptr;

use crate::{
    bindings,
    net::{
        skbuff::SkBuff,
        Net, //
    },
    wire::addr::FourTuple,
};

use super::{
    listener::{
        find_listener,
        BottomHalves, //
    },
    sock,
    sock::Tuple, //
};

use kernel::sync::rcu;

/// What a packet is to [`steer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steered {
    /// The listener gets it.
    Yes,
    /// It belongs to a connection, or to the rest of one.
    Known,
    /// Nothing listens on the port.
    NoListener,
}

/// Hands a packet of `tuple` that is on its way to the sockets (NF_INET_LOCAL_IN) to the
/// listener on `port` of the same address, if no connection has it. `opens` is whether it is a SYN
/// without ACK, which may take the place of a connection in TIME_WAIT. `iif` is the interface it
/// came by.
///
/// The listener is found as the stack finds it; SO_REUSEPORT has its say.
pub fn steer(
    net: &Net,
    skb: &mut SkBuff,
    tuple: &FourTuple,
    opens: bool,
    port: u16,
    iif: u32,
) -> Steered {
    let Some(addrs) = Tuple::new(tuple) else {
        return Steered::Known;
    };
    let dif = i32::try_from(iif).unwrap_or(0);
    let rcu = rcu::read_lock();
    let _bh = BottomHalves::disable();
    // SAFETY: The packet is ours. What early demultiplexing has found is a socket of some sort, to
    // which the packet has a reference.
    let known = unsafe {
        let sk = (*skb.as_raw()).sk;
        !sk.is_null() && sock::state(sk) != bindings::TCP_TIME_WAIT
    };
    if known {
        return Steered::Known;
    }
    // Early demultiplexing can be switched off (net.ipv4.tcp_early_demux).
    let old = addrs.established(net, dif, &rcu);
    // SAFETY: The reference is ours.
    let old = old.map(|sk| (sk, unsafe { sock::state(sk.as_ptr()) }));
    if let Some((sk, state)) = old {
        if state != bindings::TCP_TIME_WAIT || !opens {
            // SAFETY: The reference is ours, and goes here.
            unsafe { bindings::sock_gen_put(sk.as_ptr()) };
            return Steered::Known;
        }
    }
    // SAFETY: There is no segment.
    let listener = unsafe { find_listener(net, ptr::null_mut(), &addrs, port, dif, &rcu) };
    if let Some((sk, _)) = old {
        // SAFETY: The reference is ours, and goes here. It is a TIME_WAIT socket, as was checked; as
        // in nf_tproxy_handle_time_wait4(), it gives way to a new connection.
        unsafe {
            if listener.is_some() {
                bindings::inet_twsk_deschedule_put(sk.as_ptr().cast());
            } else {
                bindings::sock_gen_put(sk.as_ptr());
            }
        }
    }
    let Some(listener) = listener else {
        return Steered::NoListener;
    };
    skb.orphan();
    // nf_tproxy_assign_sock(): tcp_v4_rcv() or tcp_v6_rcv() takes the socket over, with the reference
    // (skb_steal_sock()); where the packet is freed before, its destructor drops it.
    // SAFETY: The packet is ours and, being orphaned, has no socket; these members of the unions are
    // those of a packet outside of TCP's own queues.
    unsafe {
        let raw = skb.as_raw();
        (*raw).sk = listener.into_raw();
        (*raw).__bindgen_anon_3.__bindgen_anon_1.destructor = Some(bindings::sock_edemux);
    }
    Steered::Yes
}
