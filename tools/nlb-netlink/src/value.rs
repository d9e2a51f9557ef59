// SPDX-License-Identifier: MIT OR Apache-2.0

//! Values of attributes as people write and read them.

use std::{
    fmt,
    net::{
        IpAddr,
        SocketAddr, //
    },
    str::FromStr, //
};

use serde::{
    Serialize,
    Serializer, //
};

use crate::uapi::{
    fwd::{
        AllotmentScheme,
        AllotmentState,
        EndpointState,
        Forward,
        MissState,
        RouteEnd,
        RouteOrigin,
        RouteState,
        RuleAction,
        Scheduler,
        ServiceMode,
        TraceChoice,
        TraceOutcome,
        TraceSlow, //
    },
    migrator::{
        Algorithm,
        PeerState,
        Phase,
        Role, //
    },
    tunnel::{
        MappingSide,
        MappingState, //
    },
};

/// A text that is not what it should be; says what would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError(pub(crate) String);

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ParseError {}

/// An IP protocol number. Written as `tcp`, `udp` or the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Proto(pub u32);

impl Proto {
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);

    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        crate::attr::u32(payload).map(Self)
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TCP => f.write_str("tcp"),
            Self::UDP => f.write_str("udp"),
            Self(number) => number.fmt(f),
        }
    }
}

impl FromStr for Proto {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "tcp" => Ok(Self::TCP),
            "udp" => Ok(Self::UDP),
            _ => match text.parse::<u8>() {
                Ok(number) => Ok(Self(number.into())),
                Err(_) => Err(ParseError(format!(
                    "`{text}` is not a protocol, expected tcp, udp or a number up to 255"
                ))),
            },
        }
    }
}

impl Serialize for Proto {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A flow id: source port of the tunnelled packet in the upper half, destination port in the
/// lower. Written with eight hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId(pub u32);

impl FlowId {
    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        crate::attr::u32(payload).map(Self)
    }
}

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

impl FromStr for FlowId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let number = match text.strip_prefix("0x") {
            // from_str_radix would take a sign.
            Some(digits) if digits.starts_with('+') => None,
            Some(digits) => u32::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        };
        match number {
            Some(number) => Ok(Self(number)),
            None => Err(ParseError(format!(
                "`{text}` is not a flow id, expected 32 bits like 0xee480001"
            ))),
        }
    }
}

impl Serialize for FlowId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Ports of a service. Written as `80`, `8000-8999`, or `*` for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ports {
    /// The first one.
    pub first: u16,
    /// The last one.
    pub last: u16,
}

impl Ports {
    /// All of them.
    pub const ALL: Self = Self {
        first: 1,
        last: u16::MAX,
    };

    /// One port.
    pub fn one(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }

    /// The ports as the kernel says them: the first one, and the last one if there are several.
    pub(crate) fn shown(first: u16, last: Option<u16>) -> Self {
        Self {
            first,
            last: last.unwrap_or(first),
        }
    }

    /// The last one, if there are several.
    pub(crate) fn more(&self) -> Option<u16> {
        (self.last != self.first).then_some(self.last)
    }

    /// Whether a port is among them.
    pub fn contains(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// Whether the kernel refuses services of one VIP with these ports: both have several, but not
    /// all, and have one in common; or both have the same.
    pub fn exclude(&self, other: &Self) -> bool {
        let is_some = |ports: &Self| ports.more().is_some() && *ports != Self::ALL;
        let overlap = self.first <= other.last && other.first <= self.last;
        self == other || is_some(self) && is_some(other) && overlap
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ALL => f.write_str("*"),
            Self { first, last } if first == last => first.fmt(f),
            Self { first, last } => write!(f, "{first}-{last}"),
        }
    }
}

impl FromStr for Ports {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let port = |text: &str| match text.parse() {
            // The parser of numbers would take a sign.
            Ok(port) if !text.starts_with('+') => Ok(port),
            _ => Err(ParseError(format!("`{text}` is not a port"))),
        };
        match text.split_once('-') {
            None if text == "*" => Ok(Self::ALL),
            None => port(text).map(Self::one),
            Some((first, last)) => {
                let (first, last) = (port(first)?, port(last)?);
                if first == 0 || first >= last {
                    let what = format!("`{text}` are no ports, expected some like 8000-8999");
                    return Err(ParseError(what));
                }
                Ok(Self { first, last })
            }
        }
    }
}

/// An address and, behind the last colon, ports. An IPv6 address is in brackets.
fn address_and_ports(text: &str) -> Option<(IpAddr, Ports)> {
    let (addr, ports) = text.rsplit_once(':')?;
    let addr = match addr.strip_prefix('[') {
        Some(addr) => IpAddr::V6(addr.strip_suffix(']')?.parse().ok()?),
        None => IpAddr::V4(addr.parse().ok()?),
    };
    Some((addr, ports.parse().ok()?))
}

/// Writes them so.
fn write_address_and_ports(f: &mut fmt::Formatter<'_>, addr: IpAddr, ports: Ports) -> fmt::Result {
    match addr {
        IpAddr::V4(addr) => write!(f, "{addr}:{ports}"),
        IpAddr::V6(addr) => write!(f, "[{addr}]:{ports}"),
    }
}

/// What identifies a service. Written as `VIP:PORT/PROTO`; without protocol it is TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// Virtual IP address.
    pub vip: IpAddr,
    /// Port, or ports.
    pub ports: Ports,
    /// TCP or UDP.
    pub proto: Proto,
}

impl ServiceKey {
    /// The service at this address and ports.
    pub fn new(vip: IpAddr, ports: Ports, proto: Proto) -> Self {
        Self { vip, ports, proto }
    }

    /// The service at this address and port, or at all ports where that is 0.
    pub fn at(vip: SocketAddr, proto: Proto) -> Self {
        let ports = match vip.port() {
            0 => Ports::ALL,
            port => Ports::one(port),
        };
        Self::new(vip.ip(), ports, proto)
    }

    /// Address and port, if it has one.
    pub fn socket(&self) -> Option<SocketAddr> {
        let port = self.ports.more().is_none().then_some(self.ports.first)?;
        Some(SocketAddr::new(self.vip, port))
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_address_and_ports(f, self.vip, self.ports)?;
        write!(f, "/{}", self.proto)
    }
}

impl FromStr for ServiceKey {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (vip, proto) = match text.split_once('/') {
            Some((vip, proto)) => (vip, proto.parse()?),
            None => (text, Proto::TCP),
        };
        match address_and_ports(vip) {
            Some((vip, ports)) => Ok(Self { vip, ports, proto }),
            None => Err(ParseError(format!(
                "`{text}` is not a service, expected VIP:PORT/PROTO like 192.0.2.10:80/tcp \
                 (or 8000-8999 for the port, or * for all)"
            ))),
        }
    }
}

/// Where packets go: a VIP, written as an address, or ports of it, written as a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Virtual IP address.
    pub vip: IpAddr,
    /// Its ports, with the protocol; all of both when `None`.
    pub ports: Option<(Ports, Proto)>,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ports {
            Some((ports, proto)) => ServiceKey::new(self.vip, ports, proto).fmt(f),
            None => self.vip.fmt(f),
        }
    }
}

impl FromStr for Destination {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if let Ok(vip) = text.parse() {
            return Ok(Self { vip, ports: None });
        }
        match text.parse::<ServiceKey>() {
            Ok(key) => Ok(Self {
                vip: key.vip,
                ports: Some((key.ports, key.proto)),
            }),
            Err(_) => Err(ParseError(format!(
                "`{text}` is no destination, expected VIP or VIP:PORT/PROTO like 192.0.2.10:80/tcp"
            ))),
        }
    }
}

/// What identifies a connection or flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionKey {
    /// TCP or UDP.
    pub proto: Proto,
    /// Address and port of the client.
    pub client: SocketAddr,
    /// Virtual IP address and port.
    pub vip: SocketAddr,
}

impl ConnectionKey {
    /// A client's connection to a service. `None` if the service has several ports.
    pub fn new(service: &ServiceKey, client: SocketAddr) -> Option<Self> {
        Some(Self {
            proto: service.proto,
            client,
            vip: service.socket()?,
        })
    }

    /// Where it leads, as a service is named that has this port only.
    pub fn service(&self) -> ServiceKey {
        ServiceKey::new(self.vip.ip(), Ports::one(self.vip.port()), self.proto)
    }
}

/// An enum's value, or the number of one that this crate does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named<T> {
    /// A value of the specification.
    Known(T),
    /// A value of a newer kernel module.
    Unknown(u32),
}

impl<T: Enumeration> Named<T> {
    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let value = crate::attr::u32(payload)?;
        Some(match T::from_number(value) {
            Some(known) => Self::Known(known),
            None => Self::Unknown(value),
        })
    }
}

impl<T: Enumeration> fmt::Display for Named<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(value) => f.pad(value.text()),
            Self::Unknown(number) => f.pad(&format!("unknown-{number}")),
        }
    }
}

impl<T: Enumeration> Serialize for Named<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An enum of the specification.
pub trait Enumeration: Sized + Copy + 'static {
    /// All values.
    const ALL: &'static [Self];
    /// The value with this number.
    fn from_number(number: u32) -> Option<Self>;
    /// Its name in the specification.
    fn text(self) -> &'static str;
}

macro_rules! enumeration {
    ($($name:ident { $($value:ident)* })*) => { $(
        impl Enumeration for $name {
            const ALL: &'static [Self] = &[$(Self::$value),*];

            fn from_number(number: u32) -> Option<Self> {
                Self::from_u32(number)
            }

            fn text(self) -> &'static str {
                self.name()
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                match Self::ALL.iter().find(|value| value.name() == text) {
                    Some(value) => Ok(*value),
                    None => {
                        let names: Vec<_> = Self::ALL.iter().map(|value| value.name()).collect();
                        let names = names.join(", ");
                        Err(ParseError(format!("`{text}` is none of {names}")))
                    }
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }
    )* };
}

enumeration! {
    ServiceMode { Peek L4 }
    Scheduler { Wrr Rr Lc Wlc Mh Sh Sed Nq Fo Twos }
    EndpointState { Active Draining Inactive }
    AllotmentScheme { Tokens Percentages }
    AllotmentState { Valid Low Over }
    Forward { Tunnel Direct Ipip HalfNat Nat Gre Gue }
    RouteState { SynRecv Established FinWait Closed Udp }
    RouteOrigin { L4 Migration Manual }
    RouteEnd { Expired Replaced Inactive Deleted Service Migration }
    MissState { Asked Pass Drop }
    RuleAction { Drop Reject Accept }
    TraceChoice { Affinity Allotment Scheduler Backup Hash }
    TraceOutcome {
        Route NewRoute Classifier DropRule RejectRule NoService NoEndpoint Overflow TableFull NoWay
        Stateless Reply OnePacket
    }
    TraceSlow { Ipip Work PostRouting Link Neighbour Reply }
    MappingSide { Forwarder Host }
    MappingState { Learning Confirmed }
    Algorithm { HmacSha256 HmacSha1 Aes128Cmac }
    PeerState { Idle Connecting Up Failed }
    Role { Origin Target }
    Phase {
        Preparing Prepared Frozen Staged Committed Active Closed Refused Aborted Reset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_written_as_they_are_read() {
        for (text, same) in [
            ("192.0.2.10:80/tcp", "192.0.2.10:80/tcp"),
            ("192.0.2.10:80", "192.0.2.10:80/tcp"),
            ("192.0.2.10:53/17", "192.0.2.10:53/udp"),
            ("[2001:db8::1]:443/132", "[2001:db8::1]:443/132"),
            ("192.0.2.10:8000-8999", "192.0.2.10:8000-8999/tcp"),
            ("192.0.2.10:*/udp", "192.0.2.10:*/udp"),
            ("[2001:DB8::1]:1-65535", "[2001:db8::1]:*/tcp"),
            ("[2001:db8::1]:1-2/17", "[2001:db8::1]:1-2/udp"),
        ] {
            assert_eq!(text.parse::<ServiceKey>().unwrap().to_string(), same);
        }
        for text in [
            "",
            "192.0.2.10",
            "192.0.2.10:80/",
            ":80",
            "a:80",
            "192.0.2.10:80/256",
            "192.0.2.10:8999-8000",
            "192.0.2.10:80-80",
            "192.0.2.10:0-80",
            "192.0.2.10:80-",
            "192.0.2.10:+80",
            "192.0.2.10:8-65536",
            "192.0.2.10:**",
            "2001:db8::1:80",
            "[192.0.2.10]:80",
            "[2001:db8::1:80",
        ] {
            assert!(text.parse::<ServiceKey>().is_err(), "{text}");
        }
    }

    #[test]
    fn destinations_are_written_as_they_are_read() {
        for (text, same) in [
            ("192.0.2.10", "192.0.2.10"),
            ("2001:DB8::1", "2001:db8::1"),
            ("192.0.2.10:80", "192.0.2.10:80/tcp"),
            ("[2001:db8::1]:*/udp", "[2001:db8::1]:*/udp"),
        ] {
            assert_eq!(text.parse::<Destination>().unwrap().to_string(), same);
        }
        for text in ["", "any", "192.0.2.0/24", "[2001:db8::1]", "192.0.2.10:"] {
            assert!(text.parse::<Destination>().is_err(), "{text}");
        }
    }

    #[test]
    fn ports_that_exclude_others() {
        for (one, other, exclude) in [
            ("80", "80", true),
            ("80", "81", false),
            ("80", "80-81", false),
            ("80-81", "81-82", true),
            ("80-81", "82-83", false),
            ("*", "*", true),
            ("*", "80-81", false),
        ] {
            let (one, other): (Ports, Ports) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(one.exclude(&other), exclude, "{one} {other}");
            assert_eq!(other.exclude(&one), exclude, "{other} {one}");
        }
        assert!(Ports::ALL.contains(80) && !Ports::ALL.contains(0));
    }

    #[test]
    fn flow_ids_are_written_as_they_are_read() {
        let id: FlowId = "0xee480001".parse().unwrap();
        assert_eq!((id.0, id.to_string().as_str()), (0xee48_0001, "0xee480001"));
        assert_eq!("1".parse::<FlowId>().unwrap().to_string(), "0x00000001");
        for text in [
            "",
            "0x",
            "0x+1",
            "-1",
            "0x100000000",
            "4294967296",
            "ee480001",
        ] {
            assert!(text.parse::<FlowId>().is_err(), "{text}");
        }
    }

    #[test]
    fn enums_know_their_names_and_numbers() {
        for value in Phase::ALL {
            assert_eq!(value.name().parse::<Phase>().as_ref(), Ok(value));
            assert_eq!(Phase::from_number(*value as u32), Some(*value));
        }
        assert_eq!(Phase::from_number(Phase::ALL.len() as u32 + 1), None);
        let error = "pek".parse::<ServiceMode>().unwrap_err();
        assert_eq!(error.to_string(), "`pek` is none of peek, l4");
        let newer = Named::<ServiceMode>::decode(&99u32.to_ne_bytes()).unwrap();
        assert_eq!(newer.to_string(), "unknown-99");
    }
}
