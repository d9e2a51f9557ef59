// SPDX-License-Identifier: MIT OR Apache-2.0

//! Address prefixes, and the filters made of them.

use std::{
    fmt,
    net::{
        IpAddr,
        Ipv6Addr,
        SocketAddr, //
    },
    str::FromStr,
};

use nlb_netlink::{
    ParseError,
    Ports,
    Rule, //
};

/// An address prefix: `10.0.0.0/8`, `2001:db8::/32`, or an address alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefix {
    addr: IpAddr,
    len: u32,
}

impl Prefix {
    /// Whether an address begins with it.
    pub(crate) fn contains(&self, addr: IpAddr) -> bool {
        match (self.addr, addr) {
            (IpAddr::V4(own), IpAddr::V4(addr)) => {
                let differ = u32::from(own) ^ u32::from(addr);
                differ.checked_shr(32 - self.len).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(addr)) => {
                let bits = |addr: Ipv6Addr| u128::from(addr);
                let differ = bits(own) ^ bits(addr);
                differ.checked_shr(128 - self.len).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.addr, self.len) {
            (IpAddr::V4(_), 32) | (IpAddr::V6(_), 128) => self.addr.fmt(f),
            (addr, len) => write!(f, "{addr}/{len}"),
        }
    }
}

/// Where packets come from: a prefix, or `any`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Source(Option<Prefix>);

impl Source {
    /// Where packets come from that a rule is for.
    pub(crate) fn of(rule: &Rule) -> Self {
        Self(rule.from().map(|(addr, len)| Prefix { addr, len }))
    }

    /// The network and its bits.
    pub(crate) fn network(&self) -> Option<(IpAddr, u32)> {
        self.0.map(|prefix| (prefix.addr, prefix.len))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(prefix) => prefix.fmt(f),
            None => f.write_str("any"),
        }
    }
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "any" => Ok(Self(None)),
            text => text.parse().map(|prefix| Self(Some(prefix))),
        }
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a prefix, expected ADDR or ADDR/LENGTH");
        let (addr, len) = match text.split_once('/') {
            Some((addr, len)) => (addr, Some(len)),
            None => (text, None),
        };
        let addr: IpAddr = addr.parse().map_err(|_| wrong())?;
        let all = if addr.is_ipv4() { 32 } else { 128 };
        let len = match len {
            // A sign would be taken.
            Some(len) if !len.starts_with('+') => len.parse().map_err(|_| wrong())?,
            Some(_) => return Err(wrong()),
            None => all,
        };
        if len > all {
            return Err(wrong());
        }
        Ok(Self { addr, len })
    }
}

/// Which connections: `client=PREFIX,...` or `client-port=PORT[-PORT],...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    Clients(Vec<Prefix>),
    ClientPorts(Vec<Ports>),
}

impl Filter {
    /// Whether connections of this client are meant.
    pub(crate) fn matches(&self, client: SocketAddr) -> bool {
        match self {
            Self::Clients(prefixes) => prefixes.iter().any(|prefix| prefix.contains(client.ip())),
            Self::ClientPorts(all) => all
                .iter()
                .any(|ports| (ports.first..=ports.last).contains(&client.port())),
        }
    }
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some(("client", prefixes)) => prefixes
                .split(',')
                .map(str::parse)
                .collect::<Result<_, _>>()
                .map(Self::Clients),
            Some(("client-port", ports)) => ports
                .split(',')
                .map(|ports| ports.parse().map_err(|error: ParseError| error.to_string()))
                .collect::<Result<_, _>>()
                .map(Self::ClientPorts),
            _ => Err(format!(
                "`{text}` is not a filter, expected client=PREFIX or client-port=PORT"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_by_prefix() {
        let filter: Filter = "client=10.0.0.0/9,192.0.2.1,2001:db8::/32".parse().unwrap();
        for (addr, matches) in [
            ("10.127.255.255", true),
            ("10.128.0.0", false),
            ("192.0.2.1", true),
            ("192.0.2.2", false),
            ("2001:db8:ffff::1", true),
            ("2001:db9::1", false),
        ] {
            let client = SocketAddr::new(addr.parse().unwrap(), 4711);
            assert_eq!(filter.matches(client), matches, "{addr}");
        }
        let all: Filter = "client=0.0.0.0/0".parse().unwrap();
        assert!(all.matches(([255, 0, 0, 1], 1).into()));
        assert!(!all.matches((Ipv6Addr::LOCALHOST, 1).into()));
    }

    #[test]
    fn filters_match_by_port() {
        let filter: Filter = "client-port=80,1024-2047".parse().unwrap();
        for (port, matches) in [
            (79, false),
            (80, true),
            (81, false),
            (1023, false),
            (1024, true),
            (2047, true),
            (2048, false),
        ] {
            assert_eq!(
                filter.matches(([10, 0, 0, 1], port).into()),
                matches,
                "{port}"
            );
            assert_eq!(
                filter.matches((Ipv6Addr::LOCALHOST, port).into()),
                matches,
                "{port}"
            );
        }
    }

    #[test]
    fn sources_are_written_as_they_are_read() {
        for (text, same) in [
            ("any", "any"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.1/32", "10.0.0.1"),
            ("2001:DB8::/32", "2001:db8::/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), same);
        }
        assert!("all".parse::<Source>().is_err());
    }

    #[test]
    fn wrong_filters_are_refused() {
        for text in [
            "",
            "client=",
            "client=a",
            "client=10.0.0.0/33",
            "client=10.0.0.0/+8",
            "client=10.0.0.0/",
            "client=10.0.0.1,",
            "10.0.0.0/8",
            "host=10.0.0.1",
            "client-port",
            "client-port=",
            "client-port=65536",
            "client-port=+80",
            "client-port=80,",
            "client-port=90-80",
        ] {
            assert!(text.parse::<Filter>().is_err(), "{text}");
        }
    }
}
