// SPDX-License-Identifier: MIT OR Apache-2.0

//! Endpoints, and what tells them apart.

use std::{
    fmt,
    net::{
        IpAddr,
        SocketAddr, //
    },
    str::FromStr,
};

use serde::Serialize;

use crate::{
    attr::{
        self,
        Attrs, //
    },
    error::Malformed,
    uapi,
    uapi::fwd::{
        EndpointState,
        Forward, //
    },
    value::{
        Named,
        ParseError,
        Ports,
        Proto,
        ServiceKey, //
    },
};

/// What tells an endpoint from the others of its service. Written as `HOST`, or `HOST:PORT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId {
    /// Address of the host.
    pub host: IpAddr,
    /// Its port, 0 for the service's own. `None` is for the only endpoint at the host.
    pub port: Option<u16>,
}

impl EndpointId {
    /// The endpoint at a host, with this port.
    pub fn new(host: IpAddr, port: Option<u16>) -> Self {
        Self { host, port }
    }
}

impl From<IpAddr> for EndpointId {
    fn from(host: IpAddr) -> Self {
        Self::new(host, None)
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port @ 1..) => SocketAddr::new(self.host, port).fmt(f),
            _ => self.host.fmt(f),
        }
    }
}

impl FromStr for EndpointId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if let Ok(host) = text.parse::<IpAddr>() {
            return Ok(host.into());
        }
        match text.parse::<SocketAddr>() {
            Ok(socket) => Ok(Self::new(socket.ip(), Some(socket.port()))),
            Err(_) => Err(ParseError(format!(
                "`{text}` is not an endpoint, expected a host like 10.0.2.2 or 10.0.2.2:8080"
            ))),
        }
    }
}

object! {
    /// A host that serves a service.
    Endpoint: uapi::fwd::endpoint,
    required {
        /// VIP of the service.
        vip_addr: IpAddr = VIP_ADDR, attr::addr;
        /// Port of the service.
        vip_port: u16 = VIP_PORT, attr::be16;
        /// TCP or UDP.
        proto: Proto = PROTO, Proto::decode;
        /// Address of the host.
        host_addr: IpAddr = HOST_ADDR, attr::addr;
    }
    optional {
        /// The last one, if the service has several.
        vip_port_last: u16 = VIP_PORT_LAST, attr::be16;
        /// Source address of the packets to the host, if not the client's.
        source_addr: IpAddr = SOURCE_ADDR, attr::addr;
        /// How packets get to the host.
        forward: Named<Forward> = FORWARD, Named::decode;
        /// Port of the host, where packets get another one than the service's.
        host_port: u16 = HOST_PORT, attr::be16;
        /// Port of the host for what packets travel in, with gue.
        tun_port: u16 = TUN_PORT, attr::be16;
        /// Whether that has a checksum, with gre and gue.
        tun_csum: bool = TUN_CSUM, attr::boolean;
        /// Share of new connections.
        weight: u32 = WEIGHT, attr::u32;
        /// What may be sent to the endpoint.
        state: Named<EndpointState> = STATE, Named::decode;
        /// Routes that point to the endpoint now.
        routes: u32 = ROUTES, attr::u32;
        /// Those of connections that are not being closed.
        active_routes: u32 = ACTIVE_ROUTES, attr::u32;
        /// Active routes with which it gets no more, 0 for no limit.
        max_routes: u32 = MAX_ROUTES, attr::u32;
        /// Active routes below which it gets some again, once it has had those, 0 for none but that limit.
        resume_routes: u32 = RESUME_ROUTES, attr::u32;
        /// Whether it gets no more for these limits.
        full: bool = FULL, attr::boolean;
        /// Whether it gets only what no other endpoint can take.
        backup: bool = BACKUP, attr::boolean;
        /// Sixteenths of the weight that count now; all do when absent.
        slow_start_step: u32 = SLOW_START_STEP, attr::u32;
        /// Connections or flows since the endpoint was added.
        connections: u64 = CONNECTIONS, attr::uint;
        /// Packets sent to the host.
        packets: u64 = PACKETS, attr::uint;
        /// Bytes of these packets.
        bytes: u64 = BYTES, attr::uint;
    }
    flags {}
}

impl Endpoint {
    /// What tells it from the others of its service, without doubt.
    pub fn id(&self) -> EndpointId {
        EndpointId::new(self.host_addr, Some(self.host_port.unwrap_or(0)))
    }

    /// The service the endpoint belongs to.
    pub fn service(&self) -> ServiceKey {
        let ports = Ports::shown(self.vip_port, self.vip_port_last);
        ServiceKey::new(self.vip_addr, ports, self.proto)
    }

    /// What it gets of new connections, beside the others: its weight, or 0 if it gets none.
    pub fn share(&self) -> u32 {
        match self.state {
            Some(Named::Known(EndpointState::Active)) => self.weight.unwrap_or(1),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_written_as_they_are_read() {
        for (text, port) in [
            ("10.0.2.2", None),
            ("10.0.2.2:8080", Some(8080)),
            ("2001:db8::2", None),
            ("[2001:db8::2]:8080", Some(8080)),
        ] {
            let id: EndpointId = text.parse().unwrap();
            assert_eq!((id.port, id.to_string()), (port, text.to_owned()));
        }
        // The service's own is not worth a word.
        let own: EndpointId = "10.0.2.2:0".parse().unwrap();
        assert_eq!(
            (own.port, own.to_string()),
            (Some(0), "10.0.2.2".to_owned())
        );
        for wrong in ["", "host", "10.0.2.2:", "10.0.2.2:65536", "2001:db8::2:x"] {
            assert!(wrong.parse::<EndpointId>().is_err(), "{wrong}");
        }
    }
}
