// SPDX-License-Identifier: GPL-2.0

//! Segments for a connection that has no socket any more: a RST, and a question before it.

use kernel::{
    macros::kunit_tests,
    prelude::*, //
};

use crate::{
    net::{
        ip::Route,
        skbuff::SkBuff,
        Net, //
    },
    wire::{
        addr::FourTuple,
        ipv4,
        ipv6,
        parse::Parsed,
        seq::SeqNum,
        tcp, //
    },
};

/// The largest link-layer header that is worth room in front, `MAX_TCP_HEADER` minus ours.
const HEADROOM: u16 = 128;

/// Time to live, or hop limit.
const TTL: u8 = 64;

/// Bytes of the timestamps option, padded.
const TIMESTAMPS_LEN: usize = 12;

/// The longest packet: two headers and the timestamps option.
const MAX_LEN: usize = ipv6::HEADER_LEN + tcp::HEADER_LEN + TIMESTAMPS_LEN;

/// Sends one RST from the virtual address to the client. Process context or softirq.
///
/// The client takes it only if `seq` is exactly the byte it expects next (RFC 5961 section 3.2), so
/// give the acknowledgment number of its last segment. `ack` is what has been received, `rcv_nxt`.
///
/// # Errors
///
/// `EHOSTUNREACH` without a route, `EAFNOSUPPORT` without IPv6, `ENOMEM`.
pub fn send_reset(net: &Net, tuple: &FourTuple, seq: SeqNum, ack: SeqNum) -> Result {
    let flags = tcp::Flags::RST | tcp::Flags::ACK;
    send(
        net,
        tuple,
        &Packet::new(tuple, seq, ack, flags, None).ok_or(EINVAL)?,
    )
}

/// Answers a segment for which there is no connection, from the address that it was sent to: with what
/// [`tcp::refusal`] says. Process context or softirq.
///
/// The packet's data starts at its IP header, from which `parsed` was made, and its TCP header is
/// linear.
///
/// # Errors
///
/// As [`send_reset`]; `EINVAL` if the segment is none that is answered.
pub fn send_refusal(net: &Net, skb: &SkBuff, parsed: &Parsed) -> Result {
    let segment = skb.data().get(parsed.l4_offset..).ok_or(EINVAL)?;
    let segment = tcp::Packet::new_checked(segment).map_err(|_| EINVAL)?;
    let headers = parsed.l4_offset.saturating_add(segment.header_len());
    // CAST: The longest packets are shorter.
    let data = parsed.total_len.saturating_sub(headers) as u32;
    let (flags, seq, ack) =
        tcp::refusal(segment.flags(), segment.seq(), segment.ack(), data).ok_or(EINVAL)?;
    let packet = Packet::new(&parsed.tuple, seq, ack, flags, None);
    send(net, &parsed.tuple, &packet.ok_or(EINVAL)?)
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
    let bytes = packet.bytes().ok_or(EINVAL)?;
    let route = Route::lookup_reply(net, tuple)?;
    // Softirq callers may not sleep. CAST: `MAX_LEN` at most.
    let mut skb = SkBuff::alloc(HEADROOM, bytes.len() as u16, GFP_ATOMIC)?;
    skb.put(bytes)?;
    route.local_out(net, skb)
}

/// A packet without data, its checksums included.
struct Packet {
    buffer: [u8; MAX_LEN],
    len: usize,
}

impl Packet {
    /// `None` never happens: there is room for all.
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
        let mut buffer = [0; MAX_LEN];
        let ip_len = match (tuple.vip().to_v4(), tuple.client().to_v4()) {
            (Some(source), Some(destination)) => {
                let header = ipv4::Repr {
                    source,
                    destination,
                    protocol: tuple.proto().number(),
                    payload_len: tcp_len as u16,
                    ident: 0,
                    dont_fragment: true,
                    tos: 0,
                    ttl: TTL,
                };
                let ip = buffer.get_mut(..ipv4::HEADER_LEN)?;
                ip.copy_from_slice(&header.emit().ok()?);
                ipv4::HEADER_LEN
            }
            _ => {
                let header = ipv6::Repr {
                    source: tuple.vip(),
                    destination: tuple.client(),
                    next_header: tuple.proto().number(),
                    payload_len: tcp_len as u16,
                    hop_limit: TTL,
                };
                let ip = buffer.get_mut(..ipv6::HEADER_LEN)?;
                ip.copy_from_slice(&header.emit());
                ipv6::HEADER_LEN
            }
        };
        let mut packet = Packet {
            buffer,
            len: ip_len.checked_add(tcp_len)?,
        };
        let segment = packet.buffer.get_mut(ip_len..packet.len)?;
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
    use crate::wire::addr::{
        Addr,
        Proto, //
    };

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
    fn reset_over_ipv6() -> Result {
        let addr = |last| Addr::v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        let tuple = FourTuple::new(addr(1), 40000, addr(2), 80, Proto::Tcp).ok_or(EINVAL)?;
        let (flags, stamps) = (tcp::Flags::RST | tcp::Flags::ACK, Some((1, 2)));
        for (stamps, len) in [(None, 60), (stamps, 72)] {
            let packet = Packet::new(&tuple, SeqNum(5), SeqNum(7), flags, stamps).ok_or(EINVAL)?;
            let bytes = packet.bytes().ok_or(EINVAL)?;
            assert_eq!(bytes.len(), len);
            let ip = ipv6::Packet::new_checked(bytes).map_err(|_| EINVAL)?;
            assert_eq!((ip.total_len(), ip.hop_limit()), (len, 64));
            assert_eq!((ip.source(), ip.destination()), (addr(2), addr(1)));
            assert_eq!(ip.upper_layer(), Ok((6, 40)));
            let segment = tcp::Packet::new_checked(ip.payload()).map_err(|_| EINVAL)?;
            assert!(segment.verify_checksum(addr(2), addr(1)));
            assert_eq!(
                (segment.source_port(), segment.destination_port()),
                (80, 40000)
            );
            assert_eq!((segment.seq(), segment.ack()), (SeqNum(5), SeqNum(7)));
            assert!(segment.flags() == flags);
        }
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
