// SPDX-License-Identifier: MIT OR Apache-2.0

//! The family `nlb-fwd`: services, endpoints, routes and rules.

mod rules;

pub use rules::NewRule;

use std::net::IpAddr;

use crate::{
    attr,
    connection::Connection,
    error::Result,
    message::Request,
    object::{
        Allotment,
        AllotmentShare,
        Endpoint,
        EndpointId,
        Miss,
        Route,
        Service,
        Stats,
        Trace, //
    },
    uapi::fwd::{
        allotment,
        allotment_share,
        cmd,
        endpoint,
        miss,
        route,
        service,
        stats,
        trace,
        AllotmentScheme,
        EndpointState,
        Forward,
        MissState,
        Scheduler,
        ServiceMode,
        FAMILY, //
    },
    value::{
        ConnectionKey,
        ServiceKey, //
    },
};

/// A service to add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewService {
    /// Who picks the endpoint.
    pub mode: ServiceMode,
    /// The port on which the classifier of mode `peek` listens; the service's own when `None`.
    pub classifier: Option<u16>,
    /// How endpoints are picked in mode `l4`; by weighted round robin when nothing is said.
    pub picking: Picking,
}

impl NewService {
    /// A service in this mode, with nothing special.
    pub fn new(mode: ServiceMode) -> Self {
        Self {
            mode,
            classifier: None,
            picking: Picking::default(),
        }
    }
}

/// How the endpoints of an `l4` service are picked. What is `None` stays as it is; the kernel
/// refuses a change of nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Picking {
    /// How the kernel picks the endpoint of a new connection.
    pub scheduler: Option<Scheduler>,
    /// Seconds for which clients go where their last connection went, 0 for no affinity.
    pub affinity_timeout: Option<u32>,
    /// Bits of a client's address that tell clients apart, for affinity.
    pub affinity_prefix: Option<u32>,
    /// Seconds in which the weight of an endpoint that has just come grows, up to 3600; 0 for none.
    pub slow_start: Option<u32>,
    /// Seconds for which the route of an established connection or a flow is kept without a packet;
    /// 0 for what is usual.
    pub idle_timeout: Option<u32>,
    /// The same, once the connection is being closed; TCP only.
    pub fin_timeout: Option<u32>,
    /// The same, while the handshake is not complete; TCP only.
    pub syn_timeout: Option<u32>,
    /// Milliseconds for which packets from the middle of unknown connections wait for an answer of
    /// those who listen to [`Group::Misses`](crate::Group::Misses), up to 5000; 0 for not at all; TCP
    /// only.
    pub miss_timeout: Option<u32>,
    /// Whether each datagram is scheduled by itself and leaves no route; UDP only.
    pub one_packet: Option<bool>,
}

/// An endpoint to add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewEndpoint {
    /// Address of the host.
    pub host: IpAddr,
    /// How packets get to the host; by the flow-id tunnel when `None`.
    pub forward: Option<Forward>,
    /// Port of the host, with half-nat and nat; the service's own when `None`.
    pub port: Option<u16>,
    /// Port of the host for what packets travel in, with gue; 6080 when `None`.
    pub tun_port: Option<u16>,
    /// Whether that has a checksum, with gre and gue; only that of gue over IPv6 has when `None`.
    pub tun_csum: Option<bool>,
    /// Source address of the packets to the host; what routing chooses when `None`.
    pub source: Option<IpAddr>,
    /// What new connections it gets.
    pub change: EndpointChange,
}

/// What new connections an endpoint gets. What is `None` stays as it is; the kernel refuses a change
/// of nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointChange {
    /// Share of new connections, up to 65535; 1 at first.
    pub weight: Option<u32>,
    /// What may be sent to it; active at first. An endpoint that becomes inactive loses its routes.
    pub state: Option<EndpointState>,
    /// Active routes with which it gets no more; 0, as at first, for no limit.
    pub max_routes: Option<u32>,
    /// Once it has had so many, it gets more again when it has fewer than this, at most `max_routes`; 0, as at
    /// first, for fewer than `max_routes`.
    pub resume_routes: Option<u32>,
    /// Whether it gets only what no other endpoint can take; not so at first.
    pub backup: Option<bool>,
}

/// Which endpoints of an `l4` service get its next connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAllotment {
    /// What the amounts are.
    pub scheme: AllotmentScheme,
    /// Milliseconds for which it holds, up to an hour.
    pub age: u32,
    /// What endpoints get; those that are not named get nothing.
    pub shares: Vec<AllotmentShare>,
}

/// A handle of the family `nlb-fwd`.
pub struct Fwd {
    connection: Connection,
}

impl Fwd {
    /// Open a handle in the calling thread's network namespace.
    pub fn open() -> Result<Self> {
        let connection = Connection::open(FAMILY)?;
        Ok(Self { connection })
    }

    /// Add a service.
    pub fn service_add(&mut self, key: &ServiceKey, new: &NewService) -> Result<()> {
        self.connection
            .execute(&service_new(key, new), service::NAMES)
    }

    /// Change how the endpoints of a service are picked; existing routes stay.
    pub fn service_set(&mut self, key: &ServiceKey, picking: Picking) -> Result<()> {
        let request = picked(service_request(cmd::SERVICE_SET, key), picking);
        self.connection.execute(&request, service::NAMES)
    }

    /// Remove a service with its endpoints and routes.
    pub fn service_del(&mut self, key: &ServiceKey) -> Result<()> {
        let request = service_request(cmd::SERVICE_DEL, key);
        self.connection.execute(&request, service::NAMES)
    }

    /// Have the counters of a service and its endpoints begin at zero again, or those of all.
    pub fn service_zero(&mut self, of: Option<&ServiceKey>) -> Result<()> {
        let request = match of {
            Some(key) => service_request(cmd::SERVICE_ZERO, key),
            None => Request::new(cmd::SERVICE_ZERO),
        };
        self.connection.execute(&request, service::NAMES)
    }

    /// One service.
    pub fn service(&mut self, key: &ServiceKey) -> Result<Service> {
        let request = service_request(cmd::SERVICE_GET, key);
        self.connection
            .get(&request, service::NAMES, Service::decode)
    }

    /// All services.
    pub fn services(&mut self) -> Result<Vec<Service>> {
        let request = Request::new(cmd::SERVICE_GET);
        self.connection
            .dump(request, service::NAMES, Service::decode)
    }

    /// Add an endpoint to a service.
    pub fn endpoint_add(&mut self, key: &ServiceKey, new: &NewEndpoint) -> Result<()> {
        self.connection
            .execute(&endpoint_new(key, new), endpoint::NAMES)
    }

    /// Change what new connections an endpoint gets.
    pub fn endpoint_set(
        &mut self,
        key: &ServiceKey,
        endpoint: impl Into<EndpointId>,
        change: EndpointChange,
    ) -> Result<()> {
        let request = endpoint_request(cmd::ENDPOINT_SET, key, Some(endpoint.into()));
        let request = changed(request, change);
        self.connection.execute(&request, endpoint::NAMES)
    }

    /// Remove an endpoint; routes of existing connections stay until they end.
    pub fn endpoint_del(
        &mut self,
        key: &ServiceKey,
        endpoint: impl Into<EndpointId>,
    ) -> Result<()> {
        let request = endpoint_request(cmd::ENDPOINT_DEL, key, Some(endpoint.into()));
        self.connection.execute(&request, endpoint::NAMES)
    }

    /// One endpoint.
    pub fn endpoint(
        &mut self,
        key: &ServiceKey,
        endpoint: impl Into<EndpointId>,
    ) -> Result<Endpoint> {
        let request = endpoint_request(cmd::ENDPOINT_GET, key, Some(endpoint.into()));
        self.connection
            .get(&request, endpoint::NAMES, Endpoint::decode)
    }

    /// All endpoints, or those of one service.
    pub fn endpoints(&mut self, of: Option<&ServiceKey>) -> Result<Vec<Endpoint>> {
        let request = match of {
            Some(key) => endpoint_request(cmd::ENDPOINT_GET, key, None),
            None => Request::new(cmd::ENDPOINT_GET),
        };
        self.connection
            .dump(request, endpoint::NAMES, Endpoint::decode)
    }

    /// Say which endpoints of a service get its next connections, in place of what was said before.
    pub fn allotment_set(&mut self, key: &ServiceKey, new: &NewAllotment) -> Result<()> {
        self.connection
            .execute(&allotment_set(key, new), allotment::NAMES)
    }

    /// Have the endpoints of a service picked by its scheduler again.
    pub fn allotment_del(&mut self, key: &ServiceKey) -> Result<()> {
        let request = allotment_request(cmd::ALLOTMENT_DEL, key);
        self.connection.execute(&request, allotment::NAMES)
    }

    /// The allotment of a service, with its shares.
    pub fn allotment(&mut self, key: &ServiceKey) -> Result<Allotment> {
        let request = allotment_request(cmd::ALLOTMENT_GET, key);
        let mut whole = self
            .connection
            .get(&request, allotment::NAMES, Allotment::decode)?;
        // A message of the dump has one share.
        let parts = self
            .connection
            .dump(request, allotment::NAMES, Allotment::decode)?;
        whole.shares = parts.into_iter().flat_map(|part| part.shares).collect();
        Ok(whole)
    }

    /// Plumb a route by hand.
    pub fn route_add(
        &mut self,
        key: &ConnectionKey,
        endpoint: impl Into<EndpointId>,
    ) -> Result<()> {
        let EndpointId { host, port } = endpoint.into();
        let mut request = route_request(cmd::ROUTE_NEW, key).addr(route::HOST_ADDR, host);
        if let Some(port) = port {
            request = request.port(route::HOST_PORT, port);
        }
        self.connection.execute(&request, route::NAMES)
    }

    /// Remove the route of a connection.
    pub fn route_del(&mut self, key: &ConnectionKey) -> Result<()> {
        let request = route_request(cmd::ROUTE_DEL, key);
        self.connection.execute(&request, route::NAMES)
    }

    /// The route of a connection.
    pub fn route(&mut self, key: &ConnectionKey) -> Result<Route> {
        let request = route_request(cmd::ROUTE_GET, key);
        self.connection.get(&request, route::NAMES, Route::decode)
    }

    /// All routes.
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        let request = Request::new(cmd::ROUTE_GET);
        self.connection.dump(request, route::NAMES, Route::decode)
    }

    /// Say what becomes of a connection that the kernel asks about: its packets pass to the local
    /// stack, or are dropped. To send it to a host, add a route.
    pub fn miss_set(&mut self, key: &ConnectionKey, state: MissState) -> Result<()> {
        // A connection has the same attributes in all messages.
        let request = route_request(cmd::MISS_SET, key).u32(miss::STATE, state as u32);
        self.connection.execute(&request, miss::NAMES)
    }

    /// All connections that the kernel asks about, or did in the last seconds.
    pub fn misses(&mut self) -> Result<Vec<Miss>> {
        let request = Request::new(cmd::MISS_GET);
        self.connection.dump(request, miss::NAMES, Miss::decode)
    }

    /// What would happen to a packet that opens a connection. Nothing changes.
    pub fn trace(&mut self, key: &ConnectionKey) -> Result<Trace> {
        // The attributes have the numbers of a route's.
        let request = route_request(cmd::TRACE_GET, key);
        self.connection.get(&request, trace::NAMES, Trace::decode)
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

/// A request that names a service; the last of its ports is in attribute `last`.
fn of_service(cmd: u8, key: &ServiceKey, last: u16) -> Request {
    let request = Request::new(cmd)
        .addr(service::VIP_ADDR, key.vip)
        .port(service::VIP_PORT, key.ports.first)
        .u32(service::PROTO, key.proto.0);
    match key.ports.more() {
        Some(port) => request.port(last, port),
        None => request,
    }
}

fn service_request(cmd: u8, key: &ServiceKey) -> Request {
    of_service(cmd, key, service::VIP_PORT_LAST)
}

fn allotment_request(cmd: u8, key: &ServiceKey) -> Request {
    of_service(cmd, key, allotment::VIP_PORT_LAST)
}

fn service_new(key: &ServiceKey, new: &NewService) -> Request {
    let mut request = service_request(cmd::SERVICE_NEW, key).u32(service::MODE, new.mode as u32);
    if let Some(port) = new.classifier {
        request = request.port(service::CLASSIFIER_PORT, port);
    }
    picked(request, new.picking)
}

/// The request with what it says of how endpoints are picked.
fn picked(request: Request, picking: Picking) -> Request {
    let values = [
        (service::SCHEDULER, picking.scheduler.map(|s| s as u32)),
        (service::AFFINITY_TIMEOUT, picking.affinity_timeout),
        (service::AFFINITY_PREFIX, picking.affinity_prefix),
        (service::SLOW_START, picking.slow_start),
        (service::IDLE_TIMEOUT, picking.idle_timeout),
        (service::FIN_TIMEOUT, picking.fin_timeout),
        (service::SYN_TIMEOUT, picking.syn_timeout),
        (service::MISS_TIMEOUT, picking.miss_timeout),
        (service::ONE_PACKET, picking.one_packet.map(u32::from)),
    ];
    with_numbers(request, &values)
}

fn allotment_set(key: &ServiceKey, new: &NewAllotment) -> Request {
    let request = allotment_request(cmd::ALLOTMENT_SET, key)
        .u32(allotment::SCHEME, new.scheme as u32)
        .u32(allotment::AGE, new.age);
    new.shares.iter().fold(request, |request, share| {
        let mut nest = Vec::new();
        let host = attr::addr_bytes(&share.host_addr);
        let amount = share.amount.to_ne_bytes();
        // Short, all of them.
        let _ = attr::put(&mut nest, allotment_share::HOST_ADDR, &host)
            && attr::put(&mut nest, allotment_share::AMOUNT, &amount)
            && share.host_port.is_none_or(|port| {
                attr::put(&mut nest, allotment_share::HOST_PORT, &port.to_be_bytes())
            });
        request.put(allotment::SHARE | attr::NLA_F_NESTED, &nest)
    })
}

fn endpoint_request(cmd: u8, key: &ServiceKey, endpoint: Option<EndpointId>) -> Request {
    let mut request = of_service(cmd, key, endpoint::VIP_PORT_LAST);
    if let Some(EndpointId { host, port }) = endpoint {
        request = request.addr(endpoint::HOST_ADDR, host);
        if let Some(port) = port {
            request = request.port(endpoint::HOST_PORT, port);
        }
    }
    request
}

fn endpoint_new(key: &ServiceKey, new: &NewEndpoint) -> Request {
    let id = EndpointId::new(new.host, new.port);
    let mut request = endpoint_request(cmd::ENDPOINT_NEW, key, Some(id));
    if let Some(source) = new.source {
        request = request.addr(endpoint::SOURCE_ADDR, source);
    }
    if let Some(forward) = new.forward {
        request = request.u32(endpoint::FORWARD, forward as u32);
    }
    if let Some(port) = new.tun_port {
        request = request.port(endpoint::TUN_PORT, port);
    }
    if let Some(checksum) = new.tun_csum {
        request = request.u32(endpoint::TUN_CSUM, checksum.into());
    }
    changed(request, new.change)
}

/// The request with what it says of an endpoint's connections.
fn changed(request: Request, change: EndpointChange) -> Request {
    let values = [
        (endpoint::WEIGHT, change.weight),
        (endpoint::STATE, change.state.map(|state| state as u32)),
        (endpoint::MAX_ROUTES, change.max_routes),
        (endpoint::RESUME_ROUTES, change.resume_routes),
        (endpoint::BACKUP, change.backup.map(u32::from)),
    ];
    with_numbers(request, &values)
}

/// The request with those of the numbers that are given.
fn with_numbers(mut request: Request, values: &[(u16, Option<u32>)]) -> Request {
    for (id, value) in values {
        if let Some(value) = value {
            request = request.u32(*id, *value);
        }
    }
    request
}

fn route_request(cmd: u8, key: &ConnectionKey) -> Request {
    Request::new(cmd)
        .u32(route::PROTO, key.proto.0)
        .addr(route::CLIENT_ADDR, key.client.ip())
        .port(route::CLIENT_PORT, key.client.port())
        .addr(route::VIP_ADDR, key.vip.ip())
        .port(route::VIP_PORT, key.vip.port())
}

#[cfg(all(test, target_endian = "little"))]
mod tests;
