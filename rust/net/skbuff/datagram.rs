// SPDX-License-Identifier: GPL-2.0

//! Packets that become the payload of a datagram.

use super::SkBuff;
use crate::{
    bindings,
    wire::udp, //
};
use core::ptr;
use kernel::prelude::*;

impl SkBuff {
    /// Makes sure that `len` bytes fit in front of the data, and that the header is private to this packet:
    /// by moving a short packet back, if there is room behind it, and else as [`SkBuff::cow_head`]. Places
    /// of headers mean nothing then. Errors: `ENOMEM`.
    #[inline]
    fn make_room(&mut self, len: u16) -> Result {
        // What is moved is less than what `cow_head` would have to copy.
        const SHORT: u32 = 128;
        let lacking = u32::from(len).saturating_sub(self.headroom());
        if self.is_cloned() {
            return self.cow_head(len);
        }
        if lacking == 0 {
            return Ok(());
        }
        let skb = self.raw();
        if skb.data_len != 0 || skb.len > SHORT || lacking > skb.end.wrapping_sub(skb.tail) {
            return self.cow_head(len);
        }
        let (data, bytes) = (skb.data, skb.len as usize);
        // SAFETY: All of the packet is linear, nobody shares it, and there is room for so many bytes behind
        // it, up to the end of the buffer.
        unsafe {
            ptr::copy(data, data.add(lacking as usize), bytes);
            bindings::skb_reserve(self.as_raw(), lacking as c_int);
        }
        Ok(())
    }

    /// Puts a header of UDP, with what is around it, in front of the data: `N` bytes that `write` writes,
    /// whose UDP header is at `l4`, and has the sum of the pseudo header as its checksum. The rest of
    /// that is left to the device, with which the packet itself has nothing to do any more. Makes room for it
    /// and for `link` bytes more, if there is none. Errors: `ENOMEM`; `EMSGSIZE` if `write` has none.
    #[inline(always)]
    pub(crate) fn push_udp<const N: usize>(
        &mut self,
        l4: u16,
        link: u16,
        write: impl FnOnce(&mut [u8; N]) -> Option<()>,
    ) -> Result {
        const { assert!(N <= 128) };
        // CAST: Just checked.
        self.make_room(link.saturating_add(N as u16))?;
        let skb = self.raw_mut();
        // SAFETY: By the type invariants; there is room for so many bytes, which nobody shares. `skb_push()`.
        let head = unsafe {
            skb.data = skb.data.sub(N);
            skb.len = skb.len.wrapping_add(N as u32);
            skb.data.write_bytes(0, N);
            &mut *skb.data.cast::<[u8; N]>()
        };
        write(head).ok_or(EMSGSIZE)?;
        self.reset_network_header();
        self.set_transport_header(l4);
        let headers = self.headers_mut();
        let csum_start = headers.transport_header;
        headers.set_ip_summed(bindings::CHECKSUM_PARTIAL as u8);
        let place = bindings::sk_buff__bindgen_ty_4__bindgen_ty_2__bindgen_ty_1__bindgen_ty_1 {
            csum_start,
            csum_offset: udp::CHECKSUM as u16,
        };
        headers.__bindgen_anon_1.__bindgen_anon_1 = place;
        Ok(())
    }
}

#[kunit_tests(nlb_core_datagram)]
mod tests {
    use super::{
        super::Checksum,
        *, //
    };
    use crate::wire::{
        control::{
            Learn,
            Message, //
        },
        flow_id::FlowId,
        vectors::{
            FORWARDER,
            HOST,
            VECTORS, //
        }, //
    };

    /// With so much room in front, behind, and perhaps another one who has the packet, too.
    fn learnt(headroom: u16, behind: u16, shared: bool) -> Result {
        for vector in VECTORS {
            let inner = vector.inner;
            let learn = Learn {
                flow_id: FlowId::nth(7),
                cookie: 42,
                tuple: vector.tuple,
            };
            let mut skb = SkBuff::alloc(headroom, inner.len() as u16 + behind, GFP_KERNEL)?;
            skb.put(inner)?;
            let other = match shared {
                true => Some(skb.try_clone(GFP_KERNEL)?),
                false => None,
            };
            let (from, to) = (FORWARDER.to_v4(), HOST.to_v4());
            let (from, to) = (from.ok_or(EINVAL)?, to.ok_or(EINVAL)?);
            skb.push_udp(20, 16, |head| {
                learn.emit_datagram(from, to, inner.len(), head)
            })?;
            assert_eq!(skb.checksum(), Checksum::Partial);
            assert!(skb.headroom() >= 16);
            skb.checksum_help()?;
            let datagram = skb.data().get(20..).unwrap_or_default();
            let datagram = udp::Packet::new_checked(datagram).map_err(|_| EINVAL)?;
            assert!(datagram.checksum() != 0 && datagram.verify_checksum(FORWARDER, HOST));
            let (message, packet) = Message::parse(datagram.payload()).map_err(|_| EINVAL)?;
            assert_eq!(message, Message::Learn(learn));
            assert_eq!(packet, Some(inner));
            skb.consume();
            if let Some(other) = other {
                assert_eq!(other.data(), inner);
                other.consume();
            }
        }
        Ok(())
    }

    #[test]
    fn there_is_room() -> Result {
        learnt(72, 0, false)
    }

    #[test]
    fn it_is_moved_back() -> Result {
        learnt(0, 100, false)?;
        learnt(71, 100, false)
    }

    /// As it is with most packets that are as long as their memory.
    #[test]
    fn it_is_copied() -> Result {
        learnt(0, 0, false)
    }

    #[test]
    fn others_keep_theirs() -> Result {
        learnt(0, 100, true)?;
        learnt(100, 100, true)
    }

    #[test]
    fn what_cannot_be_written_is_an_error() -> Result {
        let mut skb = SkBuff::alloc(72, 10, GFP_KERNEL)?;
        skb.put(b"datagram")?;
        assert_eq!(skb.push_udp::<28>(20, 16, |_| None), Err(EMSGSIZE));
        skb.consume();
        Ok(())
    }
}
