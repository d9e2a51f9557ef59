// SPDX-License-Identifier: MIT OR Apache-2.0

//! Devices, addresses and routes of a network namespace, as the kernel's rtnetlink shows them for
//! `ip`.
//!
//! Source: `include/uapi/linux/rtnetlink.h`, `include/uapi/linux/if_link.h`,
//! `include/uapi/linux/if_addr.h`.

use std::net::IpAddr;

use netlink_sys::protocols::NETLINK_ROUTE;

use crate::{
    attr::{
        self,
        Attrs, //
    },
    connection::Endpoint,
    error::{
        Malformed,
        Result, //
    },
    message::{
        NLMSG_HDRLEN,
        NLM_F_ACK,
        NLM_F_DUMP,
        NLM_F_REQUEST, //
    },
};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Length of `struct ifinfomsg`.
const LINK_LEN: usize = 16;
/// Length of `struct ifaddrmsg`.
const ADDR_LEN: usize = 8;
/// Length of `struct rtmsg`.
const ROUTE_LEN: usize = 12;

const IFF_UP: u32 = 0x1;
const IFF_LOOPBACK: u32 = 0x8;
const IFF_RUNNING: u32 = 0x40;
const IFF_NOARP: u32 = 0x80;

const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTAX_MTU: u16 = 2;

const RTN_LOCAL: u8 = 2;

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Number of the device in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What it was added as, like `nlb` or `veth`; a physical device has none.
    pub kind: Option<String>,
    /// Length of the largest packet.
    pub mtu: u32,
    /// Whether it is up.
    pub up: bool,
    /// Whether it is up and what is behind it, too: it has a carrier.
    pub running: bool,
    /// Whether it resolves addresses by ARP and lets others do so.
    pub arp: bool,
    /// Whether it is a loopback device.
    pub loopback: bool,
}

impl Link {
    fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let (header, attrs) = split(body, LINK_LEN)?;
        let word = |at: usize| {
            let bytes = header.get(at..at + 4).and_then(attr::u32);
            bytes.ok_or(Malformed::Message)
        };
        let (index, flags) = (word(4)?, word(8)?);
        let mut link = Self {
            index,
            name: String::new(),
            kind: None,
            mtu: 0,
            up: flags & IFF_UP != 0,
            running: flags & IFF_RUNNING != 0,
            arp: flags & IFF_NOARP == 0,
            loopback: flags & IFF_LOOPBACK != 0,
        };
        for attr in Attrs::new(attrs) {
            let attr = attr?;
            match attr.id {
                IFLA_IFNAME => link.name = attr::string(attr.payload).unwrap_or_default(),
                IFLA_MTU => link.mtu = attr::u32(attr.payload).unwrap_or_default(),
                IFLA_LINKINFO => link.kind = inner(attr.payload, IFLA_INFO_KIND, attr::string)?,
                _ => {}
            }
        }
        Ok(link)
    }
}

/// An address of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkAddr {
    /// Number of the device it is on.
    pub index: u32,
    /// The address.
    pub addr: IpAddr,
}

impl LinkAddr {
    fn decode(body: &[u8]) -> Result<Option<Self>, Malformed> {
        let (header, attrs) = split(body, ADDR_LEN)?;
        let index = header.get(4..8).and_then(attr::u32);
        let (mut address, mut local) = (None, None);
        for attr in Attrs::new(attrs) {
            let attr = attr?;
            match attr.id {
                IFA_ADDRESS => address = attr::addr(attr.payload),
                // On a link with two ends the former is the other end's.
                IFA_LOCAL => local = attr::addr(attr.payload),
                _ => {}
            }
        }
        let addr = local.or(address);
        Ok(index.zip(addr).map(|(index, addr)| Self { index, addr }))
    }
}

/// How a packet leaves this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Number of the device.
    pub index: u32,
    /// The source address that a sender gets who names none.
    pub source: Option<IpAddr>,
    /// Length of the largest packet, if the route knows better than the device.
    pub mtu: Option<u32>,
    /// Whether the destination is this machine.
    pub local: bool,
}

impl Way {
    fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let (header, attrs) = split(body, ROUTE_LEN)?;
        let mut way = Self {
            index: 0,
            source: None,
            mtu: None,
            local: header.get(7) == Some(&RTN_LOCAL),
        };
        for attr in Attrs::new(attrs) {
            let attr = attr?;
            match attr.id {
                RTA_OIF => way.index = attr::u32(attr.payload).unwrap_or_default(),
                RTA_PREFSRC => way.source = attr::addr(attr.payload),
                RTA_METRICS => way.mtu = inner(attr.payload, RTAX_MTU, attr::u32)?,
                _ => {}
            }
        }
        Ok(way)
    }
}

fn split(body: &[u8], len: usize) -> Result<(&[u8], &[u8]), Malformed> {
    body.split_at_checked(len).ok_or(Malformed::Message)
}

/// The value of an attribute within an attribute.
fn inner<T>(attrs: &[u8], id: u16, decode: fn(&[u8]) -> Option<T>) -> Result<Option<T>, Malformed> {
    let mut value = None;
    for attr in Attrs::new(attrs) {
        let attr = attr?;
        if attr.id == id {
            value = decode(attr.payload);
        }
    }
    Ok(value)
}

/// A handle that looks at the network namespace it was opened in.
pub struct Links {
    endpoint: Endpoint,
}

impl Links {
    /// Open a handle in the calling thread's network namespace.
    pub fn open() -> Result<Self> {
        let endpoint = Endpoint::open_protocol(NETLINK_ROUTE)?;
        Ok(Self { endpoint })
    }

    /// All devices.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let mut links = Vec::new();
        self.ask(
            RTM_GETLINK,
            NLM_F_DUMP,
            &[0; LINK_LEN],
            RTM_NEWLINK,
            |body| {
                links.push(Link::decode(body)?);
                Ok(())
            },
        )?;
        Ok(links)
    }

    /// All addresses.
    pub fn addrs(&mut self) -> Result<Vec<LinkAddr>> {
        let mut addrs = Vec::new();
        self.ask(
            RTM_GETADDR,
            NLM_F_DUMP,
            &[0; ADDR_LEN],
            RTM_NEWADDR,
            |body| {
                addrs.extend(LinkAddr::decode(body)?);
                Ok(())
            },
        )?;
        Ok(addrs)
    }

    /// How a packet to `to` leaves, from the address `from` if there is one. No route is
    /// [`Error::Refused`](crate::Error::Refused).
    pub fn way(&mut self, to: IpAddr, from: Option<IpAddr>) -> Result<Way> {
        // An address always fits into an attribute.
        let mut body = vec![0; ROUTE_LEN];
        let (family, bits) = match to {
            IpAddr::V4(_) => (AF_INET, 32),
            IpAddr::V6(_) => (AF_INET6, 128),
        };
        let from = from.filter(|from| from.is_ipv4() == to.is_ipv4());
        let header = [family, bits, if from.is_some() { bits } else { 0 }];
        body.iter_mut()
            .zip(header)
            .for_each(|(to, byte)| *to = byte);
        let _ = attr::put(&mut body, RTA_DST, &attr::addr_bytes(&to));
        if let Some(from) = from {
            let _ = attr::put(&mut body, RTA_SRC, &attr::addr_bytes(&from));
        }
        let mut way = None;
        self.ask(RTM_GETROUTE, NLM_F_ACK, &body, RTM_NEWROUTE, |body| {
            way = Some(Way::decode(body)?);
            Ok(())
        })?;
        way.ok_or(Malformed::Empty.into())
    }

    /// Send a request and pass the bodies of its answers, messages of the type `answer`, to `take`.
    fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
        answer: u16,
        mut take: impl FnMut(&[u8]) -> Result<(), Malformed>,
    ) -> Result<()> {
        self.endpoint.exchange(
            |seq| Ok(message(kind, flags, seq, body)),
            &[],
            &mut |message| {
                if message.kind == answer {
                    take(message.body)?;
                }
                Ok(())
            },
        )?;
        Ok(())
    }
}

fn message(kind: u16, flags: u16, seq: u32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(NLMSG_HDRLEN + body.len());
    out.extend_from_slice(&((NLMSG_HDRLEN + body.len()) as u32).to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
    out.extend_from_slice(&seq.to_ne_bytes());
    out.extend_from_slice(&0u32.to_ne_bytes());
    out.extend_from_slice(body);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // This one crosses the real kernel; every namespace has a loopback device.
    #[test]
    fn the_loopback_device_is_found() {
        let mut links = Links::open().unwrap();
        let all = links.links().unwrap();
        let lo = all.iter().find(|link| link.loopback).unwrap();
        assert_eq!((lo.name.as_str(), lo.index, &lo.kind), ("lo", 1, &None));
        assert!(lo.mtu >= 1280);
        let home = IpAddr::from([127, 0, 0, 1]);
        let addrs = links.addrs().unwrap();
        if lo.up {
            assert!(addrs.contains(&LinkAddr {
                index: 1,
                addr: home
            }));
            let way = links.way(home, None).unwrap();
            assert!(way.local && way.index == 1);
            assert_eq!(way.source, Some(home));
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn answers_are_read() {
        #[rustfmt::skip]
        let link = Link::decode(&[
            0, 0, 1, 0, 7, 0, 0, 0, 0xc1, 0, 0, 0, 0, 0, 0, 0,
            9, 0, 3, 0, b'n', b'l', b'b', b'0', 0, 0, 0, 0,
            8, 0, 4, 0, 0xdc, 5, 0, 0,
            12, 0, 18, 0, 8, 0, 1, 0, b'n', b'l', b'b', 0,
        ]).unwrap();
        let wanted = Link {
            index: 7,
            name: "nlb0".to_owned(),
            kind: Some("nlb".to_owned()),
            mtu: 1500,
            up: true,
            running: true,
            arp: false,
            loopback: false,
        };
        assert_eq!(link, wanted);
        // Without a carrier.
        #[rustfmt::skip]
        let link = Link::decode(&[0, 0, 1, 0, 7, 0, 0, 0, 0x81, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        assert!(link.up && !link.running);
        #[rustfmt::skip]
        let way = Way::decode(&[
            2, 32, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0,
            8, 0, 4, 0, 3, 0, 0, 0,
            8, 0, 7, 0, 10, 0, 2, 1,
            12, 0, 8, 0, 8, 0, 2, 0, 0x78, 5, 0, 0,
        ]).unwrap();
        let wanted = Way {
            index: 3,
            source: Some([10, 0, 2, 1].into()),
            mtu: Some(1400),
            local: false,
        };
        assert_eq!(way, wanted);
        #[rustfmt::skip]
        let addr = LinkAddr::decode(&[
            2, 24, 0, 0, 3, 0, 0, 0,
            8, 0, 1, 0, 10, 0, 2, 9,
            8, 0, 2, 0, 10, 0, 2, 1,
        ]).unwrap();
        let wanted = LinkAddr {
            index: 3,
            addr: [10, 0, 2, 1].into(),
        };
        assert_eq!(addr, Some(wanted));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = (Link::decode(&bytes), LinkAddr::decode(&bytes), Way::decode(&bytes));
        }
    }
}
