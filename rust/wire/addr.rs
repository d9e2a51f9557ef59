// SPDX-License-Identifier: GPL-2.0

//! Addresses and the connection 4-tuple, laid out to be hash keys.

use core::{
    fmt,
    mem::size_of,
    net::{
        Ipv4Addr,
        Ipv6Addr, //
    },
};

/// An IPv4 or IPv6 address in 16 bytes.
///
/// An IPv4 address is kept in its IPv4-mapped form (`::ffff:a.b.c.d`, RFC 4291 section 2.5.5.2).
/// That form never stands in an IPv6 header (RFC 4038 section 4.2), so the bytes alone tell the
/// family, and two addresses are equal exactly if their bytes are.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(transparent)]
pub struct Addr([u8; 16]);

/// The first twelve bytes of an IPv4-mapped address, as a number.
const MAPPED: u128 = 0xffff;

impl Addr {
    /// `0.0.0.0`.
    pub const UNSPECIFIED_V4: Addr = Addr::v4([0; 4]);

    /// An IPv4 address from its four octets.
    #[inline]
    pub const fn v4(octets: [u8; 4]) -> Addr {
        // As a number, not byte by byte: this is made of each packet.
        Addr((MAPPED << 32 | u32::from_be_bytes(octets) as u128).to_be_bytes())
    }

    /// An IPv6 address from its sixteen octets.
    ///
    /// An IPv4-mapped one becomes the IPv4 address it stands for.
    #[inline]
    pub const fn v6(octets: [u8; 16]) -> Addr {
        Addr(octets)
    }

    /// An address from 4 octets (IPv4) or 16 octets (IPv6); anything else is none.
    ///
    /// This is the form of addresses in netlink attributes. IPv4-mapped IPv6 is refused: there an
    /// IPv4 address has 4 octets.
    pub fn from_octets(octets: &[u8]) -> Option<Addr> {
        if let Ok(v4) = <[u8; 4]>::try_from(octets) {
            return Some(Addr::v4(v4));
        }
        let addr = Addr(<[u8; 16]>::try_from(octets).ok()?);
        (!addr.is_v4()).then_some(addr)
    }

    /// Whether this is an IPv4 address.
    #[inline]
    pub fn is_v4(&self) -> bool {
        u128::from_be_bytes(self.0) >> 32 == MAPPED
    }

    /// Whether all bits of the address proper are zero.
    pub fn is_unspecified(&self) -> bool {
        self.octets().iter().all(|&octet| octet == 0)
    }

    /// Whether a unicast packet can carry this address as source or destination past a router: it
    /// is not unspecified, not multicast and, for IPv4, not in 0/8 and not the limited broadcast,
    /// for IPv6, not link-local.
    pub fn is_unicast(&self) -> bool {
        match self.to_v4() {
            Some([first, ..]) => first != 0 && first < 224,
            None => {
                !self.is_unspecified() && !matches!(self.0, [0xff, ..] | [0xfe, 0x80..=0xbf, ..])
            }
        }
    }

    /// The four octets of an IPv4 address.
    #[inline]
    pub fn to_v4(&self) -> Option<[u8; 4]> {
        if self.is_v4() {
            self.0.last_chunk::<4>().copied()
        } else {
            None
        }
    }

    /// The address as it stands in packets and netlink attributes: 4 or 16 octets.
    pub fn octets(&self) -> &[u8] {
        match self.0.last_chunk::<4>() {
            Some(v4) if self.is_v4() => v4,
            _ => &self.0,
        }
    }

    /// The network of the address: its first `bits` bits, all others zero. More bits than the
    /// family's addresses have, 32 or 128, are as many as these.
    #[inline]
    pub fn network(&self, bits: u8) -> Addr {
        let (all, width) = match self.is_v4() {
            true => (u32::MAX.into(), 32u32),
            false => (u128::MAX, 128),
        };
        let host = width.saturating_sub(bits.into());
        let clear = u128::MAX.checked_shl(host).unwrap_or(0) | !all;
        Addr((u128::from_be_bytes(self.0) & clear).to_be_bytes())
    }

    /// The 16 bytes that make up the key: what stands in an IPv6 header, if it is an IPv6 address.
    #[inline]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The 16 bytes as four words.
    #[inline]
    pub const fn words(&self) -> [u32; 4] {
        let all = u128::from_be_bytes(self.0);
        [
            (all >> 96) as u32,
            (all >> 64) as u32,
            (all >> 32) as u32,
            all as u32,
        ]
    }
}

impl From<Ipv4Addr> for Addr {
    fn from(addr: Ipv4Addr) -> Addr {
        Addr::v4(addr.octets())
    }
}

impl From<Ipv6Addr> for Addr {
    fn from(addr: Ipv6Addr) -> Addr {
        Addr::v6(addr.octets())
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_v4() {
            Some(v4) => fmt::Display::fmt(&Ipv4Addr::from(v4), f),
            None => fmt::Display::fmt(&Ipv6Addr::from(self.0), f),
        }
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A transport protocol that is balanced; the value is the IP protocol number. A whole word, so that a
/// [`FourTuple`] is made of words.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u32)]
pub enum Proto {
    /// TCP, RFC 9293.
    Tcp = 6,
    /// UDP, RFC 768.
    Udp = 17,
}

impl Proto {
    /// The protocol with this IP protocol number.
    #[inline]
    pub const fn from_number(number: u8) -> Option<Proto> {
        match number {
            6 => Some(Proto::Tcp),
            17 => Some(Proto::Udp),
            _ => None,
        }
    }

    /// The IP protocol number.
    #[inline]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Proto::Tcp => "tcp",
            Proto::Udp => "udp",
        })
    }
}

/// A connection as the client's packets show it: source is the client, destination the VIP.
///
/// Ports are in host byte order.
///
/// # Invariants
///
/// The layout has no padding, so that two tuples are equal exactly if their [`FourTuple::LEN`] bytes in
/// memory are: a C hash table may hash and compare them.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(C, align(4))]
pub struct FourTuple {
    client: Addr,
    vip: Addr,
    client_port: u16,
    vip_port: u16,
    proto: Proto,
}

const _: () = assert!(size_of::<Addr>() == 16);
const _: () = assert!(size_of::<FourTuple>() == FourTuple::LEN);
// The sum of the fields: no byte of the key is padding.
const _: () = assert!(16 + 16 + 2 + 2 + 4 == FourTuple::LEN);

impl FourTuple {
    /// Bytes of the key in memory.
    pub const LEN: usize = 40;

    /// A 4-tuple; both addresses must be of one family.
    #[inline]
    pub fn new(
        client: Addr,
        client_port: u16,
        vip: Addr,
        vip_port: u16,
        proto: Proto,
    ) -> Option<FourTuple> {
        if client.is_v4() != vip.is_v4() {
            return None;
        }
        Some(FourTuple::of(client, client_port, vip, vip_port, proto))
    }

    /// An IPv4 4-tuple.
    #[inline]
    pub const fn v4(
        client: [u8; 4],
        client_port: u16,
        vip: [u8; 4],
        vip_port: u16,
        proto: Proto,
    ) -> FourTuple {
        FourTuple::of(
            Addr::v4(client),
            client_port,
            Addr::v4(vip),
            vip_port,
            proto,
        )
    }

    /// A 4-tuple of addresses of the same family.
    pub(super) const fn of(
        client: Addr,
        client_port: u16,
        vip: Addr,
        vip_port: u16,
        proto: Proto,
    ) -> FourTuple {
        FourTuple {
            client,
            vip,
            client_port,
            vip_port,
            proto,
        }
    }

    /// The client's address.
    #[inline]
    pub const fn client(&self) -> Addr {
        self.client
    }

    /// The client's port.
    #[inline]
    pub const fn client_port(&self) -> u16 {
        self.client_port
    }

    /// The virtual address.
    #[inline]
    pub const fn vip(&self) -> Addr {
        self.vip
    }

    /// The service's port on the virtual address.
    #[inline]
    pub const fn vip_port(&self) -> u16 {
        self.vip_port
    }

    /// The transport protocol.
    #[inline]
    pub const fn proto(&self) -> Proto {
        self.proto
    }

    /// Whether this is a connection over IPv4.
    #[inline]
    pub fn is_v4(&self) -> bool {
        self.vip.is_v4()
    }

    /// The whole tuple in four words, for a fast hash of IPv4 connections.
    ///
    /// No two IPv4 tuples give the same words. The words are not meant for storage: use them on
    /// the machine that made them. `None` if it is a connection over IPv6, for which there is
    /// [`FourTuple::words`].
    #[inline]
    pub fn v4_words(&self) -> Option<[u32; 4]> {
        // Both are of one family.
        let vip = self.vip.to_v4()?;
        let [.., client] = self.client.words();
        Some([
            client,
            u32::from_be_bytes(vip),
            (u32::from(self.client_port) << 16) | u32::from(self.vip_port),
            u32::from(self.proto.number()),
        ])
    }

    /// The whole tuple in ten words, for connections of both families; as [`FourTuple::v4_words`].
    #[inline]
    pub fn words(&self) -> [u32; 10] {
        let [a, b, c, d] = self.client.words();
        let [w, x, y, z] = self.vip.words();
        let ports = (u32::from(self.client_port) << 16) | u32::from(self.vip_port);
        let proto = u32::from(self.proto.number());
        [a, b, c, d, w, x, y, z, ports, proto]
    }
}

impl fmt::Display for FourTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_v4() {
            write!(
                f,
                "{}:{} -> {}:{}/{}",
                self.client, self.client_port, self.vip, self.vip_port, self.proto
            )
        } else {
            write!(
                f,
                "[{}]:{} -> [{}]:{}/{}",
                self.client, self.client_port, self.vip, self.vip_port, self.proto
            )
        }
    }
}

impl fmt::Debug for FourTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn family_and_octets() {
        let v4 = Addr::v4([192, 0, 2, 1]);
        let v6 = Addr::v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert!(v4.is_v4() && !v6.is_v4());
        assert_eq!(v4.octets(), [192, 0, 2, 1]);
        assert_eq!(v6.octets().len(), 16);
        assert_eq!(Addr::from_octets(&[192, 0, 2, 1]), Some(v4));
        assert_eq!(Addr::from_octets(v6.octets()), Some(v6));
        assert_eq!(Addr::from_octets(v4.as_bytes()), None);
        for len in [0, 1, 3, 5, 15, 17] {
            assert_eq!(Addr::from_octets(&[1; 17][..len]), None);
        }
    }

    #[test]
    fn unicast() {
        for (octets, want) in [
            ([0, 0, 0, 0], false),
            ([0, 1, 2, 3], false),
            ([10, 0, 0, 1], true),
            ([223, 255, 255, 255], true),
            ([224, 0, 0, 1], false),
            ([255, 255, 255, 255], false),
        ] {
            assert_eq!(Addr::v4(octets).is_unicast(), want, "{octets:?}");
        }
        assert!(!Addr::v6([0; 16]).is_unicast());
        assert!(!Addr::v6([0xff; 16]).is_unicast());
        let v6 = |first| Addr::v6([0xfe, first, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert!(v6(0x7f).is_unicast() && !v6(0x80).is_unicast());
        assert!(!v6(0xbf).is_unicast() && v6(0xc0).is_unicast());
    }

    #[test]
    fn networks() {
        let v4 = Addr::v4([192, 0, 2, 255]);
        for (bits, want) in [
            (0, [0, 0, 0, 0]),
            (1, [128, 0, 0, 0]),
            (24, [192, 0, 2, 0]),
            (31, [192, 0, 2, 254]),
            (32, [192, 0, 2, 255]),
            (33, [192, 0, 2, 255]),
            (255, [192, 0, 2, 255]),
        ] {
            assert_eq!(v4.network(bits), Addr::v4(want), "{bits}");
        }
        let v6 = Addr::v6([0xff; 16]);
        assert_eq!(v6.network(0), Addr::v6([0; 16]));
        for bits in 1..=255u8 {
            let ones = usize::from(bits.min(128));
            let network = v6.network(bits);
            let bytes = network.as_bytes();
            let set = |bit: usize| bytes[bit / 8] & (0x80 >> (bit % 8)) != 0;
            assert!((0..128).all(|bit| set(bit) == (bit < ones)), "{bits}");
            assert!(!network.is_v4());
        }
    }

    #[test]
    fn tuple_shows_and_refuses_mixed_families() {
        let tuple = FourTuple::v4([192, 0, 2, 1], 40000, [198, 51, 100, 1], 80, Proto::Tcp);
        assert_eq!(tuple.to_string(), "192.0.2.1:40000 -> 198.51.100.1:80/tcp");
        assert_eq!(
            tuple.v4_words(),
            Some([0xc000_0201, 0xc633_6401, 0x9c40_0050, 6])
        );
        let v6 = Addr::v6([1; 16]);
        assert!(FourTuple::new(tuple.client(), 1, v6, 2, Proto::Udp).is_none());
        let tuple = FourTuple::new(v6, 1, v6, 2, Proto::Udp).unwrap();
        assert_eq!(tuple.v4_words(), None);
        let ones = 0x0101_0101;
        let words = [ones, ones, ones, ones, ones, ones, ones, ones, 0x1_0002, 17];
        assert_eq!(tuple.words(), words);
        assert!(tuple.to_string().starts_with("[101:101:"));
    }
}
