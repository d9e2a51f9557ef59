// SPDX-License-Identifier: GPL-2.0

//! Tests of packets.

use super::{
    Checksum,
    Rewrite,
    SkBuff, //
};
use crate::{
    bindings,
    wire::{
        addr::{
            Addr,
            FourTuple, //
        },
        checksum,
        error::DropReason,
        flow_id::FlowId,
        parse::parse,
        vectors, //
    }, //
};
use kernel::prelude::*;

#[kunit_tests(nlb_core_skbuff)]
mod cases {
    use super::*;

    /// A packet with these bytes, behind room for headers.
    fn packet(bytes: &[u8]) -> Result<SkBuff> {
        let mut skb = SkBuff::alloc(64, 256, GFP_KERNEL)?;
        skb.put(bytes)?;
        skb.reset_network_header();
        skb.set_protocol(bindings::ETH_P_IP as u16);
        Ok(skb)
    }

    /// Rewrites a packet in both ways that there are.
    fn rewrite_both(skb: &mut SkBuff, to: &Rewrite) -> Result {
        let parsed = parse(skb.data(), skb.frame());
        let mut other = skb.try_clone(GFP_KERNEL)?;
        skb.rewrite(to)?;
        if let Ok(parsed) = parsed {
            other.rewrite_parsed(&parsed, to)?;
            assert_eq!(other.data(), skb.data());
            assert_eq!(other.checksum(), skb.checksum());
            // SAFETY: All variants of the union are numbers.
            let csum = |skb: &SkBuff| unsafe { skb.headers().__bindgen_anon_1.csum };
            assert_eq!(csum(&other), csum(skb));
        }
        Ok(())
    }

    /// Rewrites `bytes` by way of a packet; refusals come as truncated packets.
    fn rewrite(
        bytes: &mut [u8],
        source: Addr,
        destination: Addr,
        ports: (u16, u16),
        ttl_off: u8,
    ) -> Result<(), DropReason> {
        let all = (|| {
            let mut skb = packet(bytes)?;
            let at = if source.is_v4() { 8 } else { 7 };
            let ttl = *bytes.get(at).ok_or(EINVAL)?;
            let to = Rewrite {
                source,
                destination,
                source_port: ports.0,
                destination_port: ports.1,
                ttl: ttl.wrapping_sub(ttl_off),
            };
            rewrite_both(&mut skb, &to)?;
            bytes.copy_from_slice(skb.data());
            Ok::<(), Error>(())
        })();
        all.map_err(|_| DropReason::Truncated)
    }

    #[test]
    fn vectors_into_the_tunnel() {
        let done = vectors::check_encapsulate(|bytes, forwarder, host, id: FlowId| {
            rewrite(bytes, forwarder, host, (id.source(), id.destination()), 1)
        });
        assert_eq!(done, Ok(vectors::COUNT));
    }

    #[test]
    fn vectors_out_of_the_tunnel() {
        let done = vectors::check_decapsulate(|bytes, tuple: &FourTuple| {
            let ports = (tuple.client_port(), tuple.vip_port());
            rewrite(bytes, tuple.client(), tuple.vip(), ports, 0)
        });
        assert_eq!(done, Ok(vectors::COUNT));
    }

    const TO: Rewrite = Rewrite {
        source: vectors::FORWARDER,
        destination: vectors::HOST,
        source_port: 61000,
        destination_port: 1,
        ttl: 63,
    };

    const TO_V6: Rewrite = Rewrite {
        source: vectors::FORWARDER_V6,
        destination: vectors::HOST_V6,
        ..TO
    };

    /// A vector with a TCP header of 20 bytes behind an IP header without options.
    fn plain_tcp() -> Result<&'static [u8]> {
        vectors::VECTORS
            .iter()
            .map(|vector| vector.inner)
            .find(|bytes| {
                bytes.first() == Some(&0x45) && bytes.get(9) == Some(&6) && bytes.len() >= 40
            })
            .ok_or(ENOENT)
    }

    /// A vector with a TCP header behind an IPv6 header.
    fn plain_tcp_v6() -> Result<&'static [u8]> {
        vectors::VECTORS_V6
            .iter()
            .map(|vector| vector.inner)
            .find(|bytes| bytes.get(6) == Some(&6))
            .ok_or(ENOENT)
    }

    /// The same packet as an application's machine makes it: the sum of the pseudo header is in the
    /// checksum field of the TCP header at `l4`, and the device is to do the rest.
    fn make_partial(skb: &mut SkBuff, addresses: &[u8], l4: usize) -> Result {
        let len = skb.len() as usize - l4;
        let mut sum = 6u32 + len as u32;
        for pair in addresses.chunks_exact(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
        }
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = ((sum & 0xffff) + (sum >> 16)) as u16;
        skb.data_mut((l4 + 20) as u16)?
            .get_mut(l4 + 16..l4 + 18)
            .ok_or(EINVAL)?
            .copy_from_slice(&sum.to_be_bytes());
        skb.leave_checksum(l4 as u16, 16);
        Ok(())
    }

    #[test]
    fn partial_checksum_comes_out_right() -> Result {
        for (bytes, addresses, l4, to) in [
            (plain_tcp()?, 12..20, 20, &TO),
            (plain_tcp_v6()?, 8..40, 40, &TO_V6),
        ] {
            let mut whole = packet(bytes)?;
            rewrite_both(&mut whole, to)?;
            let mut partial = packet(bytes)?;
            make_partial(&mut partial, bytes.get(addresses).ok_or(EINVAL)?, l4)?;
            assert_eq!(partial.checksum(), Checksum::Partial);
            rewrite_both(&mut partial, to)?;
            assert_eq!(partial.checksum(), Checksum::Partial);
            partial.checksum_help()?;
            assert_eq!(partial.data(), whole.data());
        }
        Ok(())
    }

    #[test]
    fn complete_checksum_survives_only_what_cancels_out() -> Result {
        let bytes = plain_tcp_v6()?;
        let hop_limit = *bytes.get(7).ok_or(EINVAL)?;
        for (ttl, want) in [
            (hop_limit, Checksum::Complete),
            (hop_limit - 1, Checksum::None),
        ] {
            let mut skb = packet(bytes)?;
            summed(&mut skb);
            rewrite_both(&mut skb, &Rewrite { ttl, ..TO_V6 })?;
            assert_eq!(skb.checksum(), want);
            assert!(want != Checksum::Complete || is_summed(&mut skb));
        }
        // In IPv4 the header has a checksum of its own, with the TTL in it.
        let mut skb = packet(plain_tcp()?)?;
        summed(&mut skb);
        rewrite_both(&mut skb, &TO)?;
        assert_eq!(skb.checksum(), Checksum::Complete);
        assert!(is_summed(&mut skb));
        Ok(())
    }

    /// The sum of all bytes of a packet, as the kernel has it.
    fn sum(skb: &SkBuff) -> u16 {
        checksum::fold(checksum::sum(skb.data(), 0)).to_be()
    }

    /// Notes it as a network card does.
    fn summed(skb: &mut SkBuff) {
        let sum = sum(skb);
        let headers = skb.headers_mut();
        headers.set_ip_summed(bindings::CHECKSUM_COMPLETE as u8);
        headers.__bindgen_anon_1.csum = sum.into();
    }

    /// Whether what is noted is the sum. 0 and 0xffff are the same.
    fn is_summed(skb: &mut SkBuff) -> bool {
        // SAFETY: All variants of the union are numbers.
        let noted = unsafe { skb.headers_mut().__bindgen_anon_1.csum };
        checksum::fold(noted) % 0xffff == sum(skb) % 0xffff
    }

    #[test]
    fn families_do_not_mix() -> Result {
        for (bytes, to) in [
            (plain_tcp()?, TO_V6),
            (plain_tcp_v6()?, TO),
            (
                plain_tcp()?,
                Rewrite {
                    source: TO_V6.source,
                    ..TO
                },
            ),
            (
                plain_tcp_v6()?,
                Rewrite {
                    source: TO.source,
                    ..TO_V6
                },
            ),
        ] {
            let mut skb = packet(bytes)?;
            assert_eq!(skb.rewrite(&to), Err(EINVAL));
            assert_eq!(skb.data(), bytes);
        }
        Ok(())
    }

    #[test]
    fn refused_ipv6_packets_do_not_change() -> Result {
        let bytes = plain_tcp_v6()?;
        for len in 0..60 {
            let cut = bytes.get(..len).ok_or(EINVAL)?;
            let mut skb = packet(cut)?;
            assert_eq!(skb.rewrite(&TO_V6), Err(EINVAL));
            assert_eq!(skb.data(), cut);
        }
        // Another protocol, a fragment.
        for value in [58, 44] {
            let mut skb = packet(bytes)?;
            *skb.data_mut(40)?.get_mut(6).ok_or(EINVAL)? = value;
            assert_eq!(skb.rewrite(&TO_V6), Err(EINVAL));
            assert_eq!(skb.data().get(7..), bytes.get(7..));
        }
        Ok(())
    }

    #[test]
    fn clone_is_not_touched() -> Result {
        let bytes = plain_tcp()?;
        let mut skb = packet(bytes)?;
        let clone = skb.try_clone(GFP_KERNEL)?;
        skb.rewrite(&TO)?;
        assert_eq!(clone.data(), bytes);
        assert!(skb.data() != bytes);
        Ok(())
    }

    #[test]
    fn refused_packets_do_not_change() -> Result {
        let bytes = plain_tcp()?;
        // Cut in all places before the end of the TCP header.
        for len in 0..40 {
            let cut = bytes.get(..len).ok_or(EINVAL)?;
            let mut skb = packet(cut)?;
            assert_eq!(skb.rewrite(&TO), Err(EINVAL));
            assert_eq!(skb.data(), cut);
        }
        // Another version, a header of 16 bytes, another protocol, a later fragment.
        for (offset, value) in [(0, 0x65), (0, 0x44), (9, 1), (7, 1)] {
            let mut skb = packet(bytes)?;
            *skb.data_mut(20)?.get_mut(offset).ok_or(EINVAL)? = value;
            assert_eq!(skb.rewrite(&TO), Err(EINVAL));
            assert_eq!(skb.data().get(10..), bytes.get(10..));
        }
        Ok(())
    }

    #[test]
    fn ends_are_checked() -> Result {
        let mut skb = packet(&[1, 2, 3, 4])?;
        assert_eq!(skb.may_pull(5), Err(EINVAL));
        assert_eq!(skb.pull(5), Err(EINVAL));
        assert_eq!(skb.data_mut(5).err(), Some(EINVAL));
        assert_eq!(skb.copy_bits(2, &mut [0; 3]), Err(EFAULT));
        let mut two = [0; 2];
        skb.copy_bits(2, &mut two)?;
        assert_eq!(two, [3, 4]);
        skb.pull(1)?;
        assert_eq!(skb.data(), &[2, 3, 4]);
        assert_eq!(skb.push(2)?, &[0, 0]);
        assert_eq!(skb.data(), &[0, 0, 2, 3, 4]);
        // More than there is room for in front: the packet is moved.
        skb.push(300)?;
        assert_eq!(skb.len(), 305);
        skb.trim(4)?;
        assert_eq!(skb.len(), 4);
        // Larger than any buffer of this allocation.
        assert_eq!(skb.put(&[0; 4096]), Err(ENOSPC));
        Ok(())
    }
}
