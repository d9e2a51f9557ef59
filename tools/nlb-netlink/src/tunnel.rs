// SPDX-License-Identifier: MIT OR Apache-2.0

//! The family `nlb-tunnel`: forwarders and mappings.

use std::net::IpAddr;

use crate::{
    connection::Connection,
    error::Result,
    message::Request,
    object::{
        Forwarder,
        Mapping,
        Stats, //
    },
    uapi::tunnel::{
        cmd,
        forwarder,
        mapping,
        stats,
        MappingSide,
        FAMILY, //
    },
    value::{
        ConnectionKey,
        FlowId, //
    },
};

/// A handle of the family `nlb-tunnel`.
pub struct Tunnel {
    connection: Connection,
}

impl Tunnel {
    /// Open a handle in the calling thread's network namespace.
    pub fn open() -> Result<Self> {
        let connection = Connection::open(FAMILY)?;
        Ok(Self { connection })
    }

    /// Accept tunnel packets from a forwarder.
    pub fn forwarder_add(&mut self, addr: IpAddr) -> Result<()> {
        let request = forwarder_request(cmd::FORWARDER_NEW, addr);
        self.connection.execute(&request, forwarder::NAMES)
    }

    /// Stop accepting packets from a forwarder; its mappings go with it.
    pub fn forwarder_del(&mut self, addr: IpAddr) -> Result<()> {
        let request = forwarder_request(cmd::FORWARDER_DEL, addr);
        self.connection.execute(&request, forwarder::NAMES)
    }

    /// One forwarder.
    pub fn forwarder(&mut self, addr: IpAddr) -> Result<Forwarder> {
        let request = forwarder_request(cmd::FORWARDER_GET, addr);
        self.connection
            .get(&request, forwarder::NAMES, Forwarder::decode)
    }

    /// All forwarders.
    pub fn forwarders(&mut self) -> Result<Vec<Forwarder>> {
        let request = Request::new(cmd::FORWARDER_GET);
        self.connection
            .dump(request, forwarder::NAMES, Forwarder::decode)
    }

    /// Add a static mapping on the host side.
    pub fn mapping_add(
        &mut self,
        forwarder: IpAddr,
        id: FlowId,
        connection: &ConnectionKey,
    ) -> Result<()> {
        let request = mapping_new(forwarder, id, connection);
        self.connection.execute(&request, mapping::NAMES)
    }

    /// Remove a mapping of the host side.
    pub fn mapping_del(&mut self, forwarder: IpAddr, id: FlowId) -> Result<()> {
        let request = Request::new(cmd::MAPPING_DEL)
            .addr(mapping::FORWARDER_ADDR, forwarder)
            .u32(mapping::FLOW_ID, id.0);
        self.connection.execute(&request, mapping::NAMES)
    }

    /// One mapping; on the host side the forwarder belongs to its identity.
    pub fn mapping(
        &mut self,
        side: MappingSide,
        id: FlowId,
        forwarder: Option<IpAddr>,
    ) -> Result<Mapping> {
        let mut request = Request::new(cmd::MAPPING_GET)
            .u32(mapping::SIDE, side as u32)
            .u32(mapping::FLOW_ID, id.0);
        if let Some(forwarder) = forwarder {
            request = request.addr(mapping::FORWARDER_ADDR, forwarder);
        }
        self.connection
            .get(&request, mapping::NAMES, Mapping::decode)
    }

    /// All mappings, or those of one side.
    pub fn mappings(&mut self, side: Option<MappingSide>) -> Result<Vec<Mapping>> {
        let mut request = Request::new(cmd::MAPPING_GET);
        if let Some(side) = side {
            request = request.u32(mapping::SIDE, side as u32);
        }
        self.connection
            .dump(request, mapping::NAMES, Mapping::decode)
    }

    /// The counters.
    pub fn stats(&mut self) -> Result<Stats> {
        let request = Request::new(cmd::STATS_GET);
        self.connection
            .get(&request, stats::NAMES, |attrs| Stats::decode(FAMILY, attrs))
    }

    /// The counters of each processor.
    pub fn stats_by_cpu(&mut self) -> Result<Vec<Stats>> {
        let request = Request::new(cmd::STATS_GET);
        self.connection
            .dump(request, stats::NAMES, |attrs| Stats::decode(FAMILY, attrs))
    }
}

fn forwarder_request(cmd: u8, addr: IpAddr) -> Request {
    Request::new(cmd).addr(forwarder::ADDR, addr)
}

fn mapping_new(forwarder: IpAddr, id: FlowId, connection: &ConnectionKey) -> Request {
    Request::new(cmd::MAPPING_NEW)
        .addr(mapping::FORWARDER_ADDR, forwarder)
        .u32(mapping::FLOW_ID, id.0)
        .u32(mapping::PROTO, connection.proto.0)
        .addr(mapping::CLIENT_ADDR, connection.client.ip())
        .port(mapping::CLIENT_PORT, connection.client.port())
        .addr(mapping::VIP_ADDR, connection.vip.ip())
        .port(mapping::VIP_PORT, connection.vip.port())
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    #[test]
    fn mapping_new_bytes() {
        let connection = ConnectionKey {
            proto: crate::Proto::TCP,
            client: "198.51.100.7:40000".parse().unwrap(),
            vip: "192.0.2.10:80".parse().unwrap(),
        };
        let request = mapping_new([10, 0, 1, 1].into(), FlowId(0xee48_0001), &connection);
        #[rustfmt::skip]
        assert_eq!(request.finish(0x22, 9).unwrap(), [
            76, 0, 0, 0, 0x22, 0, 5, 0, 9, 0, 0, 0, 0, 0, 0, 0,
            4, 1, 0, 0,
            8, 0, 3, 0, 10, 0, 1, 1,
            8, 0, 2, 0, 1, 0, 0x48, 0xee,
            8, 0, 5, 0, 6, 0, 0, 0,
            8, 0, 6, 0, 198, 51, 100, 7,
            6, 0, 7, 0, 0x9c, 0x40, 0, 0,
            8, 0, 8, 0, 192, 0, 2, 10,
            6, 0, 9, 0, 0, 80, 0, 0,
        ]);
    }

    #[test]
    fn forwarder_new_bytes() {
        let bytes = forwarder_request(cmd::FORWARDER_NEW, [10, 0, 1, 1].into()).finish(0x22, 1);
        assert_eq!(bytes.unwrap()[16..], [1, 1, 0, 0, 8, 0, 1, 0, 10, 0, 1, 1]);
    }
}
