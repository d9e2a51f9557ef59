// SPDX-License-Identifier: GPL-2.0

//! Segments for a connection that has no socket any more: a RST, and a question before it.

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

/// The largest link-layer header that is worth room in front, `MAX_TCP_HEADER` minus ours.
const HEADROOM: usize = 128;

/// Bytes of the timestamps option, padded.
const TIMESTAMPS_LEN: usize = 12;

/// The longest packet: two headers and the timestamps option.
const MAX_LEN: usize = ipv4::HEADER_LEN + tcp::HEADER_LEN + TIMESTAMPS_LEN;

/// Sends one RST from the virtual address to the client. Process context or softirq.
///
/// The client takes it only if `seq` is exactly the byte it expects next (RFC 5961 section 3.2), so
/// give the acknowledgment number of its last segment. `ack` is what has been received, `rcv_nxt`.
///
/// # Errors
///
/// `EAFNOSUPPORT` for IPv6, `EHOSTUNREACH` without a route, `ENOMEM`.
pub fn send_reset(net: &Net, tuple: &FourTuple, seq: SeqNum, ack: SeqNum) -> Result {
    let flags = tcp::Flags::RST | tcp::Flags::ACK;
    send(
        net,
        tuple,
        &Packet::new(tuple, seq, ack, flags, None).ok_or(EINVAL)?,
    )
}

/// Asks the client which byte it expects next: an ACK without data whose `seq` lies before that. As
/// it is not acceptable, the client answers with an acknowledgment (RFC 9293 section 3.10.7.4), as
/// it does a keepalive probe. Process context or softirq.
///
/// `timestamps` are value and echo for a connection that has the option: some stacks ignore what
/// comes without (RFC 7323 section 3.2).
///
/// # Errors
///
/// As [`send_reset`].
pub fn send_probe(
    net: &Net,
    tuple: &FourTuple,
    seq: SeqNum,
    ack: SeqNum,
    timestamps: Option<(u32, u32)>,
) -> Result {
    let packet = Packet::new(tuple, seq, ack, tcp::Flags::ACK, timestamps);
    send(net, tuple, &packet.ok_or(EINVAL)?)
}

fn send(net: &Net, tuple: &FourTuple, packet: &Packet) -> Result {
    let addrs = Tuple4::new(tuple).ok_or(EAFNOSUPPORT)?;
    let bytes = packet.bytes().ok_or(EINVAL)?;

    let mut flow = bindings::flowi4::default();
    flow.__fl_common.flowic_proto = bindings::IPPROTO_TCP as u8;
    // The virtual address need not be local any more.
    flow.__fl_common.flowic_flags = bindings::FLOWI_FLAG_ANYSRC as u8;
    flow.saddr = addrs.vip;
    flow.daddr = addrs.client;
    flow.uli.ports.dport = addrs.client_port_be;
    flow.uli.ports.sport = addrs.vip_port.to_be();

    // SAFETY: No preconditions; softirq callers may not sleep.
    let skb = unsafe { bindings::alloc_skb((HEADROOM + MAX_LEN) as u32, bindings::GFP_ATOMIC) };
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

    // SAFETY: The buffer is new and has room for `MAX_LEN` bytes behind the reserve, `bytes` are at
    // most as many; the route is valid, and its reference becomes the buffer's.
    unsafe {
        bindings::skb_reserve(skb, HEADROOM as i32);
        let data = bindings::skb_put(skb, bytes.len() as u32).cast::<u8>();
        ptr::copy_nonoverlapping(bytes.as_ptr(), data, bytes.len());
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

/// A packet without data, its checksums included.
struct Packet {
    buffer: [u8; MAX_LEN],
    len: usize,
}

impl Packet {
    /// `None` for IPv6.
    fn new(
        tuple: &FourTuple,
        seq: SeqNum,
        ack: SeqNum,
        flags: tcp::Flags,
        timestamps: Option<(u32, u32)>,
    ) -> Option<Self> {
        let options = if timestamps.is_some() {
            TIMESTAMPS_LEN
        } else {
            0
        };
        let tcp_len = tcp::HEADER_LEN + options;
        let header = ipv4::Repr {
            source: tuple.vip().to_v4()?,
            destination: tuple.client().to_v4()?,
            protocol: tuple.proto().number(),
            payload_len: tcp_len as u16,
            ident: 0,
            dont_fragment: true,
            tos: 0,
            ttl: 64,
        };
        let mut packet = Packet {
            buffer: [0; MAX_LEN],
            len: ipv4::HEADER_LEN + tcp_len,
        };
        let (ip, rest) = packet.buffer.split_at_mut_checked(ipv4::HEADER_LEN)?;
        ip.copy_from_slice(&header.emit().ok()?);
        let segment = rest.get_mut(..tcp_len)?;
        // Offset of the data in words.
        *segment.get_mut(12)? = ((tcp_len / 4) << 4) as u8;
        if let Some((value, echo)) = timestamps {
            let option = segment.get_mut(tcp::HEADER_LEN..)?;
            // Two no-operations first, as everybody does.
            option.get_mut(..2)?.fill(1);
            let timestamps = tcp::TcpOption::Timestamps { value, echo };
            timestamps.emit(option.get_mut(2..)?).ok()?;
        }
        let mut segment = tcp::Packet::new_checked(segment).ok()?;
        segment.set_source_port(tuple.vip_port());
        segment.set_destination_port(tuple.client_port());
        segment.set_seq(seq);
        segment.set_ack(ack);
        segment.set_flags(flags);
        segment.fill_checksum(tuple.vip(), tuple.client());
        Some(packet)
    }

    fn bytes(&self) -> Option<&[u8]> {
        self.buffer.get(..self.len)
    }
}

#[kunit_tests(nlb_tcp_reset)]
mod tests {
    use super::*;
    use crate::wire::addr::Proto;

    fn tuple() -> FourTuple {
        FourTuple::v4([192, 0, 2, 1], 40000, [198, 51, 100, 1], 80, Proto::Tcp)
    }

    #[test]
    fn reset_has_right_numbers() -> Result {
        let (tuple, flags) = (tuple(), tcp::Flags::RST | tcp::Flags::ACK);
        let packet = Packet::new(&tuple, SeqNum(0xffff_fffe), SeqNum(7), flags, None);
        let packet = packet.ok_or(EINVAL)?;
        let bytes = packet.bytes().ok_or(EINVAL)?;
        assert_eq!(bytes.len(), 40);
        let ip = ipv4::Packet::new_checked(bytes).map_err(|_| EINVAL)?;
        assert!(ip.verify_checksum());
        assert_eq!(ip.source(), tuple.vip());
        assert_eq!(ip.destination(), tuple.client());
        let segment = tcp::Packet::new_checked(ip.payload()).map_err(|_| EINVAL)?;
        assert!(segment.verify_checksum(tuple.vip(), tuple.client()));
        assert_eq!(segment.source_port(), 80);
        assert_eq!(segment.destination_port(), 40000);
        assert_eq!(segment.seq(), SeqNum(0xffff_fffe));
        assert_eq!(segment.ack(), SeqNum(7));
        assert!(segment.flags() == flags);
        Ok(())
    }

    #[test]
    fn probe_has_timestamps() -> Result {
        let (tuple, stamps) = (tuple(), Some((0x0102_0304, 0x0506_0708)));
        let packet = Packet::new(&tuple, SeqNum(1), SeqNum(2), tcp::Flags::ACK, stamps);
        let packet = packet.ok_or(EINVAL)?;
        let bytes = packet.bytes().ok_or(EINVAL)?;
        assert_eq!(bytes.len(), 52);
        let ip = ipv4::Packet::new_checked(bytes).map_err(|_| EINVAL)?;
        let segment = tcp::Packet::new_checked(ip.payload()).map_err(|_| EINVAL)?;
        assert!(segment.verify_checksum(tuple.vip(), tuple.client()));
        assert!(segment.flags() == tcp::Flags::ACK);
        assert_eq!(segment.header_len(), 32);
        assert_eq!(segment.payload().len(), 0);
        let mut options = segment.options();
        assert!(matches!(
            options.next(),
            Some(Ok(tcp::TcpOption::Timestamps {
                value: 0x0102_0304,
                echo: 0x0506_0708,
            }))
        ));
        assert!(options.next().is_none());
        Ok(())
    }
}
