// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the endpoints of the kernel's services can take, for pools that go by it.

use nlb_netlink::{
    Endpoint,
    Fwd,
    Ports,
    Proto,
    Result, //
};
use std::{
    collections::HashMap,
    net::{
        IpAddr,
        SocketAddr, //
    },
    sync::{
        Arc,
        PoisonError,
        RwLock, //
    },
};
use tracing::{
    info,
    warn, //
};

/// Weights of the endpoints of one service; 0 for those that get no new connections.
pub(crate) type Weights = HashMap<IpAddr, u32>;

/// The services and their endpoints, as they were last read.
#[derive(Default)]
pub(crate) struct Endpoints(RwLock<Services>);

#[derive(Default)]
pub(crate) struct Services(Vec<(IpAddr, Ports, Arc<Weights>)>);

impl Services {
    /// Puts the endpoints in order. A backup counts as soon as nobody else of its service does.
    pub(crate) fn new(endpoints: &[Endpoint]) -> Self {
        let mut services: HashMap<_, (Weights, Weights)> = HashMap::new();
        for endpoint in endpoints {
            let key = endpoint.service();
            if key.proto != Proto::TCP {
                continue;
            }
            let (usual, backups) = services.entry((key.vip, key.ports)).or_default();
            let which = match endpoint.backup {
                Some(true) => backups,
                _ => usual,
            };
            which.insert(endpoint.host_addr, endpoint.share());
        }
        let weights = |(mut usual, backups): (Weights, Weights)| {
            let is_needed = usual.values().all(|weight| *weight == 0);
            usual.extend(
                backups
                    .into_iter()
                    .map(|(host, weight)| (host, if is_needed { weight } else { 0 })),
            );
            Arc::new(usual)
        };
        let services = services.into_iter();
        Self(
            services
                .map(|((vip, ports), both)| (vip, ports, weights(both)))
                .collect(),
        )
    }

    /// Those of the service that a connection to `vip` belongs to: that of the port itself or, as in the
    /// kernel, of the fewest ports.
    pub(crate) fn of(&self, vip: SocketAddr) -> Option<&Arc<Weights>> {
        let fits = |(addr, ports, _): &&(IpAddr, Ports, Arc<Weights>)| {
            *addr == vip.ip() && (ports.first..=ports.last).contains(&vip.port())
        };
        let services = self.0.iter().filter(fits);
        let found = services.min_by_key(|(_, ports, _)| ports.last - ports.first);
        found.map(|(_, _, weights)| weights)
    }
}

impl Endpoints {
    /// What the endpoints of the service at `vip` can take. `None`: there is no such service, or nobody says.
    pub(crate) fn of(&self, vip: SocketAddr) -> Option<Arc<Weights>> {
        // With a socket for IPv6 that takes IPv4, too.
        let vip = SocketAddr::new(vip.ip().to_canonical(), vip.port());
        let services = self.0.read().unwrap_or_else(PoisonError::into_inner);
        services.of(vip).cloned()
    }

    fn set(&self, services: Services) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = services;
    }
}

/// Reads what [`Endpoints`] has from the kernel.
#[derive(Default)]
pub(crate) struct Reader {
    fwd: Option<Fwd>,
    /// Whether nobody has said so yet.
    failed: bool,
}

impl Reader {
    /// Reads it once. If that fails, nothing is known: what was true once is not used.
    pub(crate) fn read(&mut self, endpoints: &Endpoints) {
        match self.try_read() {
            Ok(all) => {
                endpoints.set(Services::new(&all));
                if std::mem::take(&mut self.failed) {
                    info!("endpoints are known again");
                }
            }
            Err(error) => {
                self.fwd = None;
                endpoints.set(Services::default());
                if !std::mem::replace(&mut self.failed, true) {
                    warn!("cannot read the endpoints, the weights of the file count: {error}");
                }
            }
        }
    }

    fn try_read(&mut self) -> Result<Vec<Endpoint>> {
        let old = self.fwd.as_mut().map(|fwd| fwd.endpoints(None));
        if let Some(Ok(all)) = old {
            return Ok(all);
        }
        // The module may be loaded, or loaded again, after the daemon was started.
        self.fwd.insert(Fwd::open()?).endpoints(None)
    }
}
