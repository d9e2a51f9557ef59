// SPDX-License-Identifier: GPL-2.0

//! Client affinity: new connections of a client go where the one before went, for some time.
//!
//! What IPVS calls persistence. The table is looked at only for the first packet of a connection.

use crate::{
    endpoint::Endpoint,
    scheduler::{
        Candidate,
        NoEndpoint, //
    },
    service::{
        Service,
        ServiceKey, //
    },
    state::Forwarder,
    stats::Counter,
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        rcu,
        Arc, //
    },
};
use nlb::{
    sync::{
        family_table::{
            ByFamily,
            FamilyKey,
            FamilyTable, //
        },
        rhashtable::{
            InsertError,
            Position,
            Scan, //
        },
    },
    time,
    wire::addr::{
        Addr,
        FourTuple, //
    },
};

/// Clients that a namespace remembers, about 40 MB of them.
pub(crate) const MAX_CLIENTS: u32 = 1 << 18;

/// Longest time to remember a client, in seconds; that of `ipvsadm`.
pub(crate) const MAX_TIMEOUT: u32 = 31 * 24 * 3600;

/// How a service remembers its clients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Affinity {
    /// For how many seconds after their last new connection; 0 for not at all.
    pub(crate) timeout: u32,
    /// Bits of their addresses that tell them apart, at most the family's 32 or 128.
    pub(crate) prefix: u8,
}

impl Affinity {
    /// None, with a prefix as long as the service's addresses.
    pub(crate) fn none(service: &ServiceKey) -> Self {
        Self {
            timeout: 0,
            prefix: if service.vip.is_v4() { 32 } else { 128 },
        }
    }
}

/// A client of a service. Clients of one network are one, if the service has it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    network: Addr,
    prefix: u8,
    service: ServiceKey,
}

impl Key {
    fn new(client: Addr, prefix: u8, service: &ServiceKey) -> Self {
        Self {
            network: client.network(prefix),
            prefix,
            service: *service,
        }
    }
}

impl FamilyKey for Key {
    type V4 = [u32; 3];
    type V6 = [u32; 9];

    #[inline]
    fn by_family(&self) -> ByFamily<[u32; 3], [u32; 9]> {
        let rest = self.service.word() << 8 | u32::from(self.prefix);
        match (self.network.to_v4(), self.service.vip.to_v4()) {
            (Some(client), Some(vip)) => {
                ByFamily::V4([u32::from_be_bytes(client), u32::from_be_bytes(vip), rest])
            }
            _ => {
                let [a, b, c, d] = self.network.words();
                let [w, x, y, z] = self.service.vip.words();
                ByFamily::V6([a, b, c, d, w, x, y, z, rest])
            }
        }
    }
}

/// What is remembered of a client.
struct Client<E> {
    service: ServiceKey,
    endpoint: Arc<E>,
    /// Jiffies.
    expires: Atomic<u64>,
}

impl<E> Client<E> {
    fn is_expired(&self, now: u64) -> bool {
        self.expires.load(Relaxed) <= now
    }
}

/// The clients of a namespace.
#[pin_data]
pub(crate) struct Clients<E: Send + Sync + 'static> {
    #[pin]
    table: FamilyTable<Key, Arc<Client<E>>>,
}

impl<E: Candidate + Send + Sync + 'static> Clients<E> {
    /// Room for so many.
    pub(crate) fn new(max: u32) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            table <- FamilyTable::new(max),
        })
    }

    /// Where a client's last connection went, if another one may go there. It is remembered until
    /// `expires` then.
    fn find<'a>(
        &'a self,
        guard: &'a rcu::Guard,
        key: &Key,
        now: u64,
        expires: u64,
    ) -> Option<&'a Arc<E>> {
        let client = self.table.get(guard, key)?;
        if client.is_expired(now) || !client.endpoint.keeps_clients() {
            let is_it = |other: &Arc<Client<E>>| Arc::ptr_eq(other, client);
            self.table.remove_if(key, is_it);
            return None;
        }
        client.expires.store(expires, Relaxed);
        Some(&client.endpoint)
    }

    /// Where a client's last connection went, and until when (jiffies) that counts, whether or not
    /// another one may go there. Nothing changes by that.
    fn look<'a>(&'a self, guard: &'a rcu::Guard, key: &Key, now: u64) -> Option<(&'a Arc<E>, u64)> {
        let client = self.table.get(guard, key)?;
        (!client.is_expired(now)).then(|| (&client.endpoint, client.expires.load(Relaxed)))
    }

    /// Remembers that a client's connection goes to `endpoint`, and returns it; or that to which
    /// another CPU has sent a connection of this client at the same moment. `Full`, `NoMemory`.
    fn remember<'a>(
        &'a self,
        guard: &'a rcu::Guard,
        key: &Key,
        endpoint: &'a Arc<E>,
        now: u64,
        expires: u64,
    ) -> Result<&'a Arc<E>, InsertError> {
        let client = Client {
            service: key.service,
            endpoint: endpoint.clone(),
            expires: Atomic::new(expires),
        };
        let client = Arc::new(client, GFP_ATOMIC).map_err(|_| InsertError::NoMemory)?;
        match self.table.insert(key, client, GFP_ATOMIC) {
            Ok(()) => Ok(endpoint),
            Err(InsertError::Exists) => Ok(self.find(guard, key, now, expires).unwrap_or(endpoint)),
            Err(error) => Err(error),
        }
    }

    /// Forgets the clients of a service that gets no more connections. Process context.
    pub(crate) fn forget_service(&self, service: &ServiceKey) {
        self.table.retain(|client| client.service != *service);
    }

    /// Forgets the clients of an endpoint that keeps none. Process context.
    pub(crate) fn forget_endpoint(&self, endpoint: &Arc<E>) {
        self.table
            .retain(|client| !Arc::ptr_eq(&client.endpoint, endpoint));
    }

    /// How many calls of [`Clients::expire`] look at all of them.
    pub(crate) fn expire_steps(&self, guard: &rcu::Guard) -> u32 {
        self.table.steps(guard)
    }

    /// Removes clients whose time is up at `now` (jiffies), looking at a limited number. True when
    /// all have been looked at.
    pub(crate) fn expire(&self, guard: &rcu::Guard, position: &mut Position, now: u64) -> bool {
        self.table.scan(guard, position, |client| {
            if client.is_expired(now) {
                Scan::Remove
            } else {
                Scan::Continue
            }
        })
    }
}

impl Forwarder {
    /// The endpoint for a new connection of a service: that of the client, or what the scheduler
    /// says. On failure, what to count.
    pub(crate) fn pick<'a>(
        &'a self,
        service: &'a Service,
        guard: &'a rcu::Guard,
        tuple: &FourTuple,
    ) -> Result<&'a Arc<Endpoint>, Counter> {
        let scheduled = || {
            if let Some(endpoint) = self.pick_allotted(service, guard) {
                return Ok(endpoint);
            }
            service.pick(guard, tuple).map_err(|error| match error {
                NoEndpoint::Nobody => Counter::PassNoEndpoint,
                NoEndpoint::Overflow => Counter::DropOverflow,
            })
        };
        let Affinity { timeout, prefix } = service.affinity();
        if timeout == 0 {
            return scheduled();
        }
        let key = Key::new(tuple.client(), prefix, service.key());
        let now = time::jiffies();
        let expires = now.saturating_add(u64::from(timeout).saturating_mul(time::HZ));
        if let Some(endpoint) = self.clients.find(guard, &key, now, expires) {
            self.stats.inc(Counter::AffinityHit);
            return Ok(endpoint);
        }
        let endpoint = scheduled()?;
        // Who helps out gets no clients of its own.
        if endpoint.is_backup() {
            return Ok(endpoint);
        }
        let remembered = self.clients.remember(guard, &key, endpoint, now, expires);
        Ok(remembered.unwrap_or_else(|_| {
            self.stats.inc(Counter::AffinityFull);
            endpoint
        }))
    }

    /// Where the last connection of a client of this service went, and until when (jiffies) that counts,
    /// whether or not another one may go there.
    pub(crate) fn affinity_of<'a>(
        &'a self,
        service: &Service,
        guard: &'a rcu::Guard,
        tuple: &FourTuple,
        now: u64,
    ) -> Option<(&'a Arc<Endpoint>, u64)> {
        let Affinity { timeout, prefix } = service.affinity();
        let key = Key::new(tuple.client(), prefix, service.key());
        self.clients.look(guard, &key, now).filter(|_| timeout > 0)
    }
}

#[kunit_tests(nlb_fwd_affinity)]
mod tests {
    use super::*;
    use crate::scheduler::tests::Host;
    use nlb::wire::{
        addr::Proto,
        ports::Ports, //
    };

    fn service() -> ServiceKey {
        ServiceKey {
            vip: Addr::v4([192, 0, 2, 10]),
            ports: Ports::one(80),
            proto: Proto::Tcp,
        }
    }

    fn client(address: [u8; 4], prefix: u8) -> Key {
        Key::new(Addr::v4(address), prefix, &service())
    }

    #[test]
    fn keys() -> Result {
        let of = |address, prefix| client(address, prefix).by_family();
        let one = of([198, 51, 100, 7], 24);
        // What is behind the prefix does not count.
        assert_eq!(one, of([198, 51, 100, 200], 24));
        assert_eq!(one, ByFamily::V4([0xc633_6400, 0xc000_020a, 0x50_0618]));
        assert!(one != of([198, 51, 101, 7], 24));
        // A network and a host whose address looks like it.
        assert!(one != of([198, 51, 100, 0], 32));
        // Services that begin at one port.
        let ports = [Ports::one(1), Ports::new(1, 2).ok_or(EINVAL)?, Ports::ALL];
        let words = ports.map(|ports| ServiceKey { ports, ..service() }.word());
        assert_eq!(words, [0x106, 0x186, 0x86]);
        let v6 = |last, proto| {
            let client = Addr::v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
            let vip = Addr::v6([1; 16]);
            let ports = Ports::one(80);
            Key::new(client, 64, &ServiceKey { vip, ports, proto }).by_family()
        };
        assert_eq!(v6(1, Proto::Tcp), v6(2, Proto::Tcp));
        assert!(v6(1, Proto::Tcp) != v6(1, Proto::Udp));
        Ok(())
    }

    #[test]
    fn clients_are_remembered_for_a_time() -> Result {
        let clients = KBox::pin_init(Clients::new(8), GFP_KERNEL)?;
        let (first, second) = (Host::new(1)?, Host::new(2)?);
        let key = client([198, 51, 100, 7], 32);
        let other = client([198, 51, 100, 8], 32);
        let guard = rcu::read_lock();
        assert!(clients.find(&guard, &key, 0, 100).is_none());
        let got = clients.remember(&guard, &key, &first, 0, 100)?;
        assert!(Arc::ptr_eq(got, &first));
        assert!(clients.find(&guard, &other, 0, 100).is_none());
        // To look changes nothing, also of what no connection may have any more.
        first.keeps_clients.store(false, Relaxed);
        assert!(matches!(clients.look(&guard, &key, 99), Some((_, 100))));
        assert!(matches!(clients.look(&guard, &key, 99), Some((_, 100))));
        assert!(clients.look(&guard, &key, 100).is_none());
        first.keeps_clients.store(true, Relaxed);
        // Who comes second at the same moment goes where the first went.
        let got = clients.remember(&guard, &key, &second, 0, 100)?;
        assert!(Arc::ptr_eq(got, &first));
        // Each new connection begins the time anew.
        assert!(clients.find(&guard, &key, 99, 199).is_some());
        assert!(clients.find(&guard, &key, 198, 250).is_some());
        assert!(clients.find(&guard, &key, 250, 350).is_none());
        assert!(clients.table.is_empty());
        let got = clients.remember(&guard, &key, &second, 250, 350)?;
        assert!(Arc::ptr_eq(got, &second));
        Ok(())
    }

    #[test]
    fn an_endpoint_that_keeps_no_clients() -> Result {
        let clients = KBox::pin_init(Clients::new(8), GFP_KERNEL)?;
        let (first, second) = (Host::new(1)?, Host::new(2)?);
        let key = client([198, 51, 100, 7], 32);
        let guard = rcu::read_lock();
        clients.remember(&guard, &key, &first, 0, 100)?;
        first.keeps_clients.store(false, Relaxed);
        assert!(clients.find(&guard, &key, 1, 100).is_none());
        let got = clients.remember(&guard, &key, &second, 1, 100)?;
        assert!(Arc::ptr_eq(got, &second));
        // The client has moved for good.
        first.keeps_clients.store(true, Relaxed);
        let got = clients.find(&guard, &key, 2, 100).ok_or(ENOENT)?;
        assert!(Arc::ptr_eq(got, &second));
        Ok(())
    }

    #[test]
    fn the_table_has_a_bound_and_is_emptied() -> Result {
        let clients = KBox::pin_init(Clients::new(4), GFP_KERNEL)?;
        let (first, second) = (Host::new(1)?, Host::new(2)?);
        let one = |last| client([198, 51, 100, last], 32);
        let guard = rcu::read_lock();
        for (last, endpoint) in [(1, &first), (2, &first), (3, &second), (4, &second)] {
            clients.remember(&guard, &one(last), endpoint, 0, 100 * u64::from(last))?;
        }
        let full = clients.remember(&guard, &one(5), &first, 0, 100);
        assert!(matches!(full, Err(InsertError::Full)));
        assert!(clients.find(&guard, &one(4), 0, 400).is_some());
        let mut position = Position::default();
        while !clients.expire(&guard, &mut position, 100) {}
        assert_eq!(clients.table.len(), 3);
        drop(guard);
        clients.forget_endpoint(&first);
        assert_eq!(clients.table.len(), 2);
        let ports = Ports::one(81);
        clients.forget_service(&ServiceKey { ports, ..service() });
        assert_eq!(clients.table.len(), 2);
        clients.forget_service(&service());
        assert!(clients.table.is_empty());
        Ok(())
    }
}
