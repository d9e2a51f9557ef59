// SPDX-License-Identifier: GPL-2.0

//! A RST for a connection that has no socket any more.

use core::ptr;

use kernel::{
    error::to_result,
    macros::kunit_tests,
    prelude::*,
    sync::rcu, //
};

use crate::{
    bindings,
    errno::{
        EAFNOSUPPORT,
        EHOSTUNREACH, //
    },
    net::Net,
    wire::{
        addr::FourTuple,
        ipv4,
        seq::SeqNum,
        tcp, //
    },
};

use super::sock::Tuple4;

/// Bytes of the packet: two headers without options.
const LEN: usize = ipv4::HEADER_LEN + tcp::HEADER_LEN;

/// The largest link-layer header that is worth room in front, `MAX_TCP_HEADER` minus ours.
const HEADROOM: i32 = 128;

/// Sends one RST from the virtual address to the client. Process context or softirq.
///
/// The client takes it only if `seq` is exactly the byte it expects next (RFC 5961 section 3.2), so
/// give the origin's `snd_nxt`; otherwise it answers with a challenge ACK, which the stack here
/// answers with the right RST as there is no socket. `ack` is what has been received, `rcv_nxt`.
///
/// # Errors
///
/// `EAFNOSUPPORT` for IPv6, `EHOSTUNREACH` without a route, `ENOMEM`.
pub fn send_reset(net: &Net, tuple: &FourTuple, seq: SeqNum, ack: SeqNum) -> Result {
    let addrs = Tuple4::new(tuple).ok_or(EAFNOSUPPORT)?;
    let packet = packet(tuple, seq, ack).ok_or(EINVAL)?;

    let mut flow = bindings::flowi4::default();
    flow.__fl_common.flowic_proto = bindings::IPPROTO_TCP as u8;
    // The virtual address need not be local any more.
    flow.__fl_common.flowic_flags = bindings::FLOWI_FLAG_ANYSRC as u8;
    flow.saddr = addrs.vip;
    flow.daddr = addrs.client;
    flow.uli.ports.dport = addrs.client_port_be;
    flow.uli.ports.sport = addrs.vip_port.to_be();

    // SAFETY: No preconditions; softirq callers may not sleep.
    let skb =
        unsafe { bindings::alloc_skb((HEADROOM as usize + LEN) as u32, bindings::GFP_ATOMIC) };
    if skb.is_null() {
        return Err(ENOMEM);
    }
    // SAFETY: The namespace and the flow are valid; there is no socket.
    let route = unsafe { bindings::ip_route_output_flow(net.as_raw(), &mut flow, ptr::null()) };
    // An error pointer; a real one is never that high.
    if (route as isize) < 0 && (route as isize) >= -(bindings::MAX_ERRNO as isize) {
        // SAFETY: The buffer is ours.
        unsafe { super::sock::free_skb_list(skb) };
        return Err(EHOSTUNREACH.into());
    }

    // SAFETY: The buffer is new and large enough; the route is valid, and its reference becomes
    // the buffer's.
    unsafe {
        bindings::skb_reserve(skb, HEADROOM);
        let data = bindings::skb_put(skb, LEN as u32).cast::<u8>();
        ptr::copy_nonoverlapping(packet.as_ptr(), data, LEN);
        bindings::skb_reset_network_header(skb);
        bindings::skb_set_transport_header(skb, ipv4::HEADER_LEN as i32);
        (*skb).__bindgen_anon_4.headers.as_mut().protocol = (bindings::ETH_P_IP as u16).to_be();
        bindings::skb_dst_set(skb, (&raw mut (*route).dst).cast());
    }
    let _rcu = rcu::read_lock();
    // SAFETY: The packet is complete and has a route. It belongs to the stack from here on, whatever
    // the result.
    to_result(unsafe { bindings::ip_local_out(net.as_raw(), ptr::null_mut(), skb) })
}

/// The packet, its checksums included.
fn packet(tuple: &FourTuple, seq: SeqNum, ack: SeqNum) -> Option<[u8; LEN]> {
    let header = ipv4::Repr {
        source: tuple.vip().to_v4()?,
        destination: tuple.client().to_v4()?,
        protocol: tuple.proto().number(),
        payload_len: tcp::HEADER_LEN as u16,
        ident: 0,
        dont_fragment: true,
        tos: 0,
        ttl: 64,
    };
    let mut packet = [0; LEN];
    let (ip, segment) = packet.split_at_mut_checked(ipv4::HEADER_LEN)?;
    ip.copy_from_slice(&header.emit().ok()?);
    // Offset of the data: five words.
    *segment.get_mut(12)? = 5 << 4;
    let mut segment = tcp::Packet::new_checked(segment).ok()?;
    segment.set_source_port(tuple.vip_port());
    segment.set_destination_port(tuple.client_port());
    segment.set_seq(seq);
    segment.set_ack(ack);
    segment.set_flags(tcp::Flags(tcp::Flags::RST.0 | tcp::Flags::ACK.0));
    segment.fill_checksum(tuple.vip(), tuple.client());
    Some(packet)
}

#[kunit_tests(nlb_tcp_reset)]
mod tests {
    use super::*;
    use crate::wire::addr::Proto;

    #[test]
    fn reset_has_right_numbers() -> Result {
        let tuple = FourTuple::v4([192, 0, 2, 1], 40000, [198, 51, 100, 1], 80, Proto::Tcp);
        let bytes = packet(&tuple, SeqNum(0xffff_fffe), SeqNum(7)).ok_or(EINVAL)?;
        let ip = ipv4::Packet::new_checked(&bytes).map_err(|_| EINVAL)?;
        assert!(ip.verify_checksum());
        assert_eq!(ip.source(), tuple.vip());
        assert_eq!(ip.destination(), tuple.client());
        let segment = tcp::Packet::new_checked(ip.payload()).map_err(|_| EINVAL)?;
        assert!(segment.verify_checksum(tuple.vip(), tuple.client()));
        assert_eq!(segment.source_port(), 80);
        assert_eq!(segment.destination_port(), 40000);
        assert_eq!(segment.seq(), SeqNum(0xffff_fffe));
        assert_eq!(segment.ack(), SeqNum(7));
        assert!(segment.flags().contains(tcp::Flags::RST));
        assert!(!segment.flags().contains(tcp::Flags::SYN));
        Ok(())
    }
}
