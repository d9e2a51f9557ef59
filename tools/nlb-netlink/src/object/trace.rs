// SPDX-License-Identifier: MIT OR Apache-2.0

//! What would happen to a packet.

use std::net::IpAddr;

use serde::Serialize;

use super::connection;
use crate::{
    attr::{
        self,
        Attrs, //
    },
    error::Malformed,
    uapi,
    uapi::fwd::{
        AllotmentState,
        Forward,
        RouteState,
        TraceChoice,
        TraceOutcome,
        TraceSlow, //
    },
    value::{
        ConnectionKey,
        Named,
        Ports,
        Proto,
        ServiceKey, //
    },
};

object! {
    /// What would happen to a packet that opens a connection, or is a reply.
    Trace: uapi::fwd::trace,
    required {
        /// TCP or UDP.
        proto: Proto = PROTO, Proto::decode;
        /// Address of the client.
        client_addr: IpAddr = CLIENT_ADDR, attr::addr;
        /// Port of the client.
        client_port: u16 = CLIENT_PORT, attr::be16;
        /// Virtual IP address.
        vip_addr: IpAddr = VIP_ADDR, attr::addr;
        /// Port of it.
        vip_port: u16 = VIP_PORT, attr::be16;
        /// What happens.
        outcome: Named<TraceOutcome> = OUTCOME, Named::decode;
    }
    optional {
        /// Port of the service that it is for.
        service_port: u16 = SERVICE_PORT, attr::be16;
        /// The last one, if the service has several.
        service_port_last: u16 = SERVICE_PORT_LAST, attr::be16;
        /// Priority of the rule that decides about it.
        rule: u32 = RULE, attr::u32;
        /// State of the route that its connection has, or had, or that it answers.
        route_state: Named<RouteState> = ROUTE_STATE, Named::decode;
        /// Host that the client's last connection went to.
        affinity_host: IpAddr = AFFINITY_HOST, attr::addr;
        /// Port of that, with half-nat and nat.
        affinity_host_port: u16 = AFFINITY_HOST_PORT, attr::be16;
        /// Milliseconds for which that counts.
        affinity_expires: u64 = AFFINITY_EXPIRES, attr::uint;
        /// State of the service's allotment.
        allotment_state: Named<AllotmentState> = ALLOTMENT_STATE, Named::decode;
        /// Who picks the endpoint.
        choice: Named<TraceChoice> = CHOICE, Named::decode;
        /// Host that the packet goes to, or that answers.
        host_addr: IpAddr = HOST_ADDR, attr::addr;
        /// Port of the host, with half-nat and nat.
        host_port: u16 = HOST_PORT, attr::be16;
        /// How packets get there.
        forward: Named<Forward> = FORWARD, Named::decode;
        /// Source address of the packets to the host, if not the client's.
        source_addr: IpAddr = SOURCE_ADDR, attr::addr;
        /// Index of the device that it leaves by.
        ifindex: u32 = IFINDEX, attr::u32;
        /// Longest packet that the way carries.
        mtu: u32 = MTU, attr::u32;
        /// Why later packets do not take the fast path.
        slow: Named<TraceSlow> = SLOW, Named::decode;
        /// Client of the connection that it answers.
        answered_client_addr: IpAddr = ANSWERED_CLIENT_ADDR, attr::addr;
        /// Port of that.
        answered_client_port: u16 = ANSWERED_CLIENT_PORT, attr::be16;
        /// Virtual IP address of that connection, and of the service.
        answered_vip_addr: IpAddr = ANSWERED_VIP_ADDR, attr::addr;
        /// Port of it.
        answered_vip_port: u16 = ANSWERED_VIP_PORT, attr::be16;
    }
    flags {}
}

impl Trace {
    /// The connection that was asked about.
    pub fn key(&self) -> ConnectionKey {
        connection(
            self.proto,
            (self.client_addr, self.client_port),
            (self.vip_addr, self.vip_port),
        )
    }

    /// The connection that the packet answers, if it is a host's reply.
    pub fn answered(&self) -> Option<ConnectionKey> {
        Some(connection(
            self.proto,
            (self.answered_client_addr?, self.answered_client_port?),
            (self.answered_vip_addr?, self.answered_vip_port?),
        ))
    }

    /// The service that the packet is for, or that of the connection that it answers.
    pub fn service(&self) -> Option<ServiceKey> {
        let vip = self.answered_vip_addr.unwrap_or(self.vip_addr);
        let ports = Ports::shown(self.service_port?, self.service_port_last);
        Some(ServiceKey::new(vip, ports, self.proto))
    }
}
