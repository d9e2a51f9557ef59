// SPDX-License-Identifier: GPL-2.0

//! Routes of packets that leave.
//!
//! C headers: [`include/net/route.h`](srctree/include/net/route.h),
//! [`include/net/ip6_route.h`](srctree/include/net/ip6_route.h)

use super::{
    super::{
        skbuff::{
            DropReason,
            SkBuff, //
        },
        Net, //
    },
    dst::Dst,
    fragment::{
        limit_fragments,
        longest_fragment, //
    },
    has_ipv6,
    in6_addr,
    ipv4_header,
    ipv6_header,
    ETH_P_IP,
    ETH_P_IPV6,
    HEADER_LEN,
    UDP_HEADER_LEN, //
};
use crate::{
    bindings,
    errno::{
        EAFNOSUPPORT,
        EHOSTUNREACH, //
    },
    wire::{
        addr::{
            Addr,
            FourTuple, //
        },
        ipv6, //
    }, //
};
use core::ptr;
use kernel::{
    error::from_err_ptr,
    prelude::*,
    sync::rcu, //
};

/// Room for the header of an Ethernet, which saves the stack from making it.
pub(super) const LINK_HEADROOM: u16 = 16;

/// Time to live of packets that begin here.
const TTL: u8 = 64;

/// Forgets what layers before have noted in an IPv4 packet.
#[inline]
pub(super) fn clear_ipv4_control_block(skb: &mut SkBuff) {
    // SAFETY: The control block is the packet's, which is borrowed; zeroes are valid there.
    unsafe { bindings::IPCB(skb.as_raw()).write_bytes(0, 1) };
}

/// As [`clear_ipv4_control_block`], for an IPv6 packet.
#[inline]
pub(super) fn clear_ipv6_control_block(skb: &mut SkBuff) {
    // SAFETY: As above.
    unsafe { bindings::IP6CB(skb.as_raw()).write_bytes(0, 1) };
}

/// A way for packets from one address to another.
///
/// # Invariants
///
/// Owns a reference to the destination entry of a route, of the family of both addresses.
pub struct Route {
    dst: Dst,
    source: Addr,
    destination: Addr,
}

impl Route {
    /// Looks up the route to `destination`, from `source` or (if `None`) the address that routing
    /// prefers. Any context. Errors: `EHOSTUNREACH`, `ENETUNREACH`, `EACCES`, `EINVAL`, …, and
    /// `EAFNOSUPPORT` if `source` is of the other family or the machine has no IPv6.
    pub fn lookup(net: &Net, source: Option<Addr>, destination: Addr) -> Result<Self> {
        Self::lookup_flags(net, source, destination, 0)
    }

    /// As [`Route::lookup`], for packets to anywhere that shall be handed to the machine with the
    /// address `destination`, a neighbour. Also `EHOSTUNREACH` if it is none.
    pub fn lookup_neighbour(net: &Net, source: Option<Addr>, destination: Addr) -> Result<Self> {
        // CAST: A number of one byte.
        let flags = bindings::FLOWI_FLAG_KNOWN_NH as u8;
        Self::lookup_on_link(net, source, destination, flags)
    }

    /// As [`Route::lookup_flags`]. Also `EHOSTUNREACH` if a gateway leads there.
    pub(super) fn lookup_on_link(
        net: &Net,
        source: Option<Addr>,
        destination: Addr,
        flags: u8,
    ) -> Result<Self> {
        let route = Self::lookup_flags(net, source, destination, flags)?;
        if route.uses_gateway() {
            return Err(EHOSTUNREACH.into());
        }
        Ok(route)
    }

    fn lookup_flags(net: &Net, source: Option<Addr>, destination: Addr, flags: u8) -> Result<Self> {
        if source.is_some_and(|source| source.is_v4() != destination.is_v4()) {
            return Err(EAFNOSUPPORT.into());
        }
        match destination.to_v4() {
            Some(to) => Self::lookup_ipv4(net, source.and_then(|from| from.to_v4()), to, flags),
            None => Self::lookup_ipv6(net, source, destination, flags),
        }
    }

    fn lookup_ipv4(
        net: &Net,
        source: Option<[u8; 4]>,
        destination: [u8; 4],
        flags: u8,
    ) -> Result<Self> {
        let mut flow = bindings::flowi4 {
            saddr: source.map_or(0, u32::from_ne_bytes),
            daddr: u32::from_ne_bytes(destination),
            ..Default::default()
        };
        flow.__fl_common.flowic_flags = flags;
        // SAFETY: The namespace and the flow are valid. No socket.
        let route = from_err_ptr(unsafe {
            bindings::ip_route_output_flow(
                net.as_raw(),
                ptr::from_mut(&mut flow).cast(),
                ptr::null(),
            )
        })?;
        // CAST: The destination entry is the first field.
        const { assert!(core::mem::offset_of!(bindings::rtable, dst) == 0) };
        let source = Addr::v4(flow.saddr.to_ne_bytes());
        // SAFETY: The reference that was returned is handed over.
        unsafe { Self::from_raw(route.cast(), source, Addr::v4(destination)) }
    }

    fn lookup_ipv6(net: &Net, source: Option<Addr>, destination: Addr, flags: u8) -> Result<Self> {
        if !has_ipv6() {
            return Err(EAFNOSUPPORT.into());
        }
        let mut flow = bindings::flowi6 {
            daddr: in6_addr(&destination),
            ..Default::default()
        };
        if let Some(source) = source {
            flow.saddr = in6_addr(&source);
        }
        flow.__fl_common.flowic_flags = flags;
        // SAFETY: The namespace is valid and has IPv6, the flow is valid. No socket, and no other
        // final destination.
        let dst = from_err_ptr(unsafe {
            bindings::ip6_dst_lookup_flow(net.as_raw(), ptr::null(), &mut flow, ptr::null())
        })?;
        // SAFETY: All variants of the union are plain bytes.
        let source = Addr::v6(unsafe { flow.saddr.in6_u.u6_addr8 });
        // SAFETY: The reference that was returned is handed over.
        unsafe { Self::from_raw(dst, source, destination) }
    }

    /// Looks up the route of a packet from the virtual address, which need not be local any more, to
    /// the client. Any context. Errors: as [`Route::lookup`].
    pub fn lookup_reply(net: &Net, tuple: &FourTuple) -> Result<Self> {
        let (from, to) = (tuple.vip(), tuple.client());
        let (Some(source), Some(destination)) = (from.to_v4(), to.to_v4()) else {
            // Nobody asks there whether the source is local.
            return Self::lookup_ipv6(net, Some(from), to, 0);
        };
        let mut flow = bindings::flowi4 {
            saddr: u32::from_ne_bytes(source),
            daddr: u32::from_ne_bytes(destination),
            ..Default::default()
        };
        flow.__fl_common.flowic_proto = tuple.proto().number();
        flow.__fl_common.flowic_flags = bindings::FLOWI_FLAG_ANYSRC as u8;
        flow.uli.ports.dport = tuple.client_port().to_be();
        flow.uli.ports.sport = tuple.vip_port().to_be();
        // SAFETY: The namespace and the flow are valid; there is no socket.
        let route = from_err_ptr(unsafe {
            bindings::ip_route_output_flow(net.as_raw(), &mut flow, ptr::null())
        })?;
        // CAST: The destination entry is the first field.
        // SAFETY: The reference that was returned is handed over.
        unsafe { Self::from_raw(route.cast(), from, to) }
    }

    /// Sends a packet of this machine's own, whose data starts at its IP header, past all hooks on
    /// the way out. An IPv4 header has its length and checksum filled in. Any context but hard
    /// interrupts. The packet is consumed; errors are the stack's.
    pub fn local_out(self, net: &Net, mut skb: SkBuff) -> Result {
        let v4 = self.destination.is_v4();
        skb.reset_network_header();
        skb.set_transport_header(if v4 {
            HEADER_LEN
        } else {
            ipv6::HEADER_LEN as u16
        });
        skb.set_protocol(if v4 { ETH_P_IP } else { ETH_P_IPV6 });
        // SAFETY: The packet has no route; it is given our reference.
        unsafe { bindings::skb_dst_set(skb.as_raw(), self.into_raw()) };
        let _rcu = rcu::Guard::new();
        // SAFETY: The packet is complete, has a route of its family, and is handed over.
        sent(unsafe {
            if v4 {
                bindings::ip_local_out(net.as_raw(), ptr::null_mut(), skb.into_raw())
            } else {
                bindings::ip6_local_out(net.as_raw(), ptr::null_mut(), skb.into_raw())
            }
        })
    }

    /// # Safety
    ///
    /// `dst` is null, or a reference to the destination entry of a route between addresses of this
    /// family, which the caller gives away.
    #[inline]
    pub(super) unsafe fn from_raw(
        dst: *mut bindings::dst_entry,
        source: Addr,
        destination: Addr,
    ) -> Result<Self> {
        // INVARIANT: By the safety requirements.
        Ok(Self {
            // SAFETY: By the safety requirements.
            dst: unsafe { Dst::from_raw(dst) }.ok_or(ENOENT)?,
            source,
            destination,
        })
    }

    /// The destination entry, to look at.
    #[inline]
    pub(super) fn as_raw(&self) -> *mut bindings::dst_entry {
        self.dst.as_raw()
    }

    /// As [`Route::as_raw`].
    #[inline]
    pub(super) fn dst(&self) -> &Dst {
        &self.dst
    }

    /// A way as found before.
    ///
    /// # Safety
    ///
    /// `dst` is that of a route between addresses of this family.
    #[inline]
    pub(super) unsafe fn from_dst(dst: Dst, source: Addr, destination: Addr) -> Self {
        // INVARIANT: By the safety requirements.
        Self {
            dst,
            source,
            destination,
        }
    }

    fn into_raw(self) -> *mut bindings::dst_entry {
        self.dst.into_raw().as_ptr()
    }

    /// Makes this the route of a packet of its family, in place of the one it has.
    pub(super) fn attach(self, skb: &mut SkBuff) {
        skb.drop_dst();
        // SAFETY: The packet has no route; it is given our reference.
        unsafe { bindings::skb_dst_set(skb.as_raw(), self.into_raw()) };
    }

    /// The source address; unspecified if routing has none.
    pub fn source(&self) -> Addr {
        self.source
    }

    /// Where the route leads.
    pub fn destination(&self) -> Addr {
        self.destination
    }

    /// Whether the next hop is another machine than the destination.
    fn uses_gateway(&self) -> bool {
        let dst = self.as_raw();
        if self.destination.is_v4() {
            // CAST: As in `Route::lookup_ipv4`.
            // SAFETY: By the type invariants, it is the route of an IPv4 address.
            return unsafe { (*dst.cast::<bindings::rtable>()).rt_uses_gateway != 0 };
        }
        const { assert!(core::mem::offset_of!(bindings::rt6_info, dst) == 0) };
        // CAST: The destination entry is the first field.
        // SAFETY: By the type invariants, it is the route of an IPv6 address.
        unsafe { (*dst.cast::<bindings::rt6_info>()).rt6i_flags & bindings::RTF_GATEWAY != 0 }
    }

    /// The longest packet that may take this route, in bytes, with its IP header.
    #[inline]
    pub fn mtu(&self) -> u32 {
        // SAFETY: By the type invariants; takes RCU itself.
        unsafe { bindings::dst_mtu(self.as_raw()) }
    }

    /// Sends a packet of the route's family on this way, whose data starts at its complete IP
    /// header: an arrived packet that has been readdressed, or one from here. Any context but hard
    /// interrupts.
    ///
    /// It does not pass the `LOCAL_OUT` hooks, but those of `POST_ROUTING`. An IPv6 packet that was put
    /// together and may be fragmented leaves in fragments no longer than those that came, if they fit
    /// this way. The packet is consumed.
    /// Errors are the stack's, or `EINVAL` for something that is no packet of the family.
    #[inline]
    pub fn output(self, net: &Net, mut skb: SkBuff) -> Result {
        let header = if self.destination.is_v4() {
            clear_ipv4_control_block(&mut skb);
            skb.set_protocol(ETH_P_IP);
            ipv4_header(&mut skb).map(|_| ())
        } else {
            let longest = match skb.ignores_df() {
                true => longest_fragment(&skb).filter(|len| u32::from(*len) <= self.mtu()),
                false => None,
            };
            clear_ipv6_control_block(&mut skb);
            if let Some(longest) = longest {
                limit_fragments(&mut skb, longest);
            }
            skb.set_protocol(ETH_P_IPV6);
            ipv6_header(&mut skb)
        };
        if let Err(e) = header {
            skb.drop_reason(DropReason::IP_INHDR);
            return Err(e);
        }
        skb.forward_csum();
        skb.clear_tstamp();
        self.attach(&mut skb);
        // SAFETY: The packet has a route and an IP header, and is handed over.
        sent(unsafe { bindings::dst_output(net.as_raw(), ptr::null_mut(), skb.into_raw()) })
    }

    /// Sends the packet's data as the payload of a UDP datagram, with its checksum and the bit that
    /// forbids fragmentation. Any context but hard interrupts.
    ///
    /// The payload may be a packet that has arrived: it is made one of this machine's own. It must
    /// not be a GSO packet (`EINVAL`). The packet is consumed in any case; errors: `EMSGSIZE` if it
    /// fits not into an IP packet, `ENOMEM`, or the stack's.
    pub fn send_udp(
        self,
        net: &Net,
        mut skb: SkBuff,
        source_port: u16,
        destination_port: u16,
    ) -> Result {
        if let Err(e) = self.push_headers(&mut skb, source_port, destination_port) {
            skb.drop_reason(DropReason::NOMEM);
            return Err(e);
        }
        let v4 = self.destination.is_v4();
        // SAFETY: The packet has no route; it is given our reference.
        unsafe { bindings::skb_dst_set(skb.as_raw(), self.into_raw()) };
        if !v4 {
            // SAFETY: The packet has a route and an IPv6 header, whose length is filled in; it is
            // handed over.
            return sent(unsafe {
                bindings::ip6_local_out(net.as_raw(), ptr::null_mut(), skb.into_raw())
            });
        }
        // SAFETY: The packet has a route and an IP header, whose length and checksum are filled in.
        unsafe { bindings::ip_select_ident(net.as_raw(), skb.as_raw(), ptr::null_mut()) };
        // SAFETY: As above; the packet is handed over.
        sent(unsafe { bindings::ip_local_out(net.as_raw(), ptr::null_mut(), skb.into_raw()) })
    }

    /// Bytes of the IP and UDP headers of a datagram.
    const fn udp_headers(v4: bool) -> u16 {
        let ip = if v4 {
            HEADER_LEN
        } else {
            ipv6::HEADER_LEN as u16
        };
        ip + UDP_HEADER_LEN
    }

    /// Room in front of the payload with which [`Route::send_udp`] has to move nothing.
    pub const fn udp_headroom(v4: bool) -> u16 {
        Self::udp_headers(v4) + LINK_HEADROOM
    }

    fn push_headers(&self, skb: &mut SkBuff, source_port: u16, destination_port: u16) -> Result {
        let headers = Self::udp_headers(self.destination.is_v4());
        let payload_max = u32::from(u16::MAX.saturating_sub(headers));
        if skb.len() > payload_max {
            return Err(EMSGSIZE);
        }
        // CAST: Just checked.
        let udp_len = skb.len() as u16 + UDP_HEADER_LEN;
        skb.checksum_help()?;
        skb.scrub();
        skb.orphan();
        skb.clear_hash();
        skb.clear_tstamp();
        skb.cow_head(headers + LINK_HEADROOM)?;

        let udp = skb.push(UDP_HEADER_LEN)?;
        for (to, from) in udp.iter_mut().zip(
            [source_port, destination_port, udp_len]
                .iter()
                .flat_map(|field| field.to_be_bytes()),
        ) {
            *to = from;
        }
        skb.set_transport_header(0);
        skb.forget_checksum();
        match (self.source.to_v4(), self.destination.to_v4()) {
            (Some(source), Some(destination)) => {
                Self::push_ipv4_header(skb, source, destination, udp_len)?
            }
            _ => self.push_ipv6_header(skb, udp_len)?,
        }
        skb.reset_network_header();
        Ok(())
    }

    /// Puts an IPv4 header in front of a UDP datagram, whose checksum it fills in.
    fn push_ipv4_header(
        skb: &mut SkBuff,
        source: [u8; 4],
        destination: [u8; 4],
        udp_len: u16,
    ) -> Result {
        // SAFETY: The transport header has just been set, and is linear.
        unsafe {
            bindings::udp_set_csum(
                false,
                skb.as_raw(),
                u32::from_ne_bytes(source),
                u32::from_ne_bytes(destination),
                c_int::from(udp_len),
            )
        };
        // Version and header length; don't fragment; time to live; protocol; addresses. The total
        // length and the checksum are filled in on the way out.
        let ip = skb.push(HEADER_LEN)?;
        for (offset, bytes) in [
            (0, &[0x45][..]),
            (6, &[0x40]),
            (8, &[TTL, bindings::IPPROTO_UDP as u8]),
            (12, &source),
            (16, &destination),
        ] {
            ip.get_mut(offset..offset + bytes.len())
                .ok_or(EINVAL)?
                .copy_from_slice(bytes);
        }
        skb.set_protocol(ETH_P_IP);
        clear_ipv4_control_block(skb);
        Ok(())
    }

    /// As [`Route::push_ipv4_header`], for IPv6.
    fn push_ipv6_header(&self, skb: &mut SkBuff, udp_len: u16) -> Result {
        let (source, destination) = (in6_addr(&self.source), in6_addr(&self.destination));
        // SAFETY: The transport header has just been set, and is linear; the addresses are local
        // variables.
        unsafe {
            bindings::udp6_set_csum(
                false,
                skb.as_raw(),
                &source,
                &destination,
                c_int::from(udp_len),
            )
        };
        // Version; next header, hop limit; addresses. The payload length is filled in on the way
        // out.
        let ip = skb.push(ipv6::HEADER_LEN as u16)?;
        for (offset, bytes) in [
            (0, &[0x60][..]),
            (6, &[bindings::IPPROTO_UDP as u8, TTL]),
            (ipv6::SOURCE, self.source.as_bytes()),
            (ipv6::DESTINATION, self.destination.as_bytes()),
        ] {
            ip.get_mut(offset..offset + bytes.len())
                .ok_or(EINVAL)?
                .copy_from_slice(bytes);
        }
        skb.set_protocol(ETH_P_IPV6);
        clear_ipv6_control_block(skb);
        Ok(())
    }
}

/// What became of a packet: positive numbers say that a queue has dropped it, perhaps later.
#[inline]
pub(super) fn sent(ret: c_int) -> Result {
    if ret < 0 {
        return Err(Error::from_errno(ret));
    }
    Ok(())
}
