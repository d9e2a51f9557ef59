// SPDX-License-Identifier: GPL-2.0

//! Commands about services.

use super::{
    fill::{
        fill_service,
        notify_service, //
    },
    find_service,
    forwarder,
    no_service,
    service_key_to, //
};
use crate::{
    affinity::{
        Affinity,
        MAX_TIMEOUT, //
    },
    endpoint::Endpoint,
    service::{
        Config,
        Service,
        ServiceKey,
        Timeouts, //
    },
    uapi::{
        cmd,
        service,
        Scheduler,
        ServiceMode, //
    },
};
use kernel::{
    prelude::*,
    sync::{
        rcu,
        Arc, //
    }, //
};
use nlb::{
    errno::{
        EADDRINUSE,
        EDQUOT, //
    },
    net::genetlink::{
        Dump,
        Request, //
    },
    sync::rhashtable::{
        Position,
        Scan, //
    },
    wire::addr::Proto,
};

/// What identifies the service in a request about it.
fn service_key(req: &Request<'_>) -> Result<ServiceKey> {
    service_key_to(req, service::VIP_PORT_LAST)
}

pub(super) fn service_new(req: &Request<'_>) -> Result {
    let forwarder = forwarder(req)?;
    let key = service_key(req)?;
    let mode = ServiceMode::from_u32(req.require_u32(service::MODE)?)
        .ok_or_else(|| req.bad_attr(EINVAL, service::MODE, c"no such mode"))?;
    if mode == ServiceMode::Peek && key.proto != Proto::Tcp {
        return Err(req.bad_attr(EINVAL, service::MODE, c"mode peek needs TCP"));
    }
    let classifier = req.be16(service::CLASSIFIER_PORT);
    if classifier.is_some() && mode != ServiceMode::Peek {
        let text = c"only mode peek has a classifier";
        return Err(req.bad_attr(EINVAL, service::CLASSIFIER_PORT, text));
    }
    // The application's listener would be the classifier's. Of all ports one has to be.
    let in_service = |port| key.ports.contains(port) && !key.ports.is_all();
    if classifier.is_some_and(in_service) {
        let text = c"the classifier's port must not be the service's";
        return Err(req.bad_attr(EINVAL, service::CLASSIFIER_PORT, text));
    }
    // A socket listens on one port only.
    if mode == ServiceMode::Peek && classifier.is_none() && key.ports.single().is_none() {
        let text = c"mode peek with several ports needs a classifier port";
        return Err(req.bad_attr(EINVAL, service::VIP_PORT_LAST, text));
    }
    let scheduler = match req.u32(service::SCHEDULER) {
        None => Scheduler::Wrr,
        Some(_) if mode != ServiceMode::L4 => return Err(no_scheduler(req)),
        Some(number) => scheduler(req, number)?,
    };
    let config = Config {
        mode,
        classifier,
        scheduler,
        affinity: affinity(req, &key, mode, Affinity::none(&key))?,
        slow_start: slow_start(req, mode)?.unwrap_or(0),
        timeouts: timeouts(req, &key, Timeouts::default())?,
        miss_timeout: miss_timeout(req, &key)?.unwrap_or(0),
        one_packet: one_packet(req, &key, mode)?.unwrap_or(false),
    };
    match forwarder.add_service(key, config) {
        Ok(service) => {
            notify_service(req.net(), cmd::SERVICE_NTF, &service);
            Ok(())
        }
        Err(EEXIST) => Err(req.error(EEXIST, c"service exists")),
        Err(error) if error == EADDRINUSE => {
            let text = c"the ports overlap those of another service";
            Err(req.bad_attr(error, service::VIP_PORT_LAST, text))
        }
        Err(ENOSPC) => Err(req.error(ENOSPC, c"too many services")),
        Err(error) => Err(no_table(req, error)),
    }
}

/// The scheduler with this number.
fn scheduler(req: &Request<'_>, number: u32) -> Result<Scheduler> {
    Scheduler::from_u32(number)
        .ok_or_else(|| req.bad_attr(EINVAL, service::SCHEDULER, c"no such scheduler"))
}

fn no_scheduler(req: &Request<'_>) -> Error {
    let text = c"only mode l4 has a scheduler";
    req.bad_attr(EINVAL, service::SCHEDULER, text)
}

/// Says what it means that there are too many tables for consistent hashing.
fn no_table(req: &Request<'_>, error: Error) -> Error {
    if error == EDQUOT {
        let text = c"too many services with scheduler mh or sh";
        return req.bad_attr(error, service::SCHEDULER, text);
    }
    error
}

/// Seconds in an attribute that may be as long as one likes, nearly.
fn timeout(req: &Request<'_>, id: u16) -> Result<Option<u32>> {
    let seconds = req.u32(id);
    if seconds.is_some_and(|seconds| seconds > MAX_TIMEOUT) {
        return Err(req.bad_attr(ERANGE, id, c"at most 31 days (2678400 seconds)"));
    }
    Ok(seconds)
}

/// What a request says of affinity, of a service that has had `before`.
fn affinity(
    req: &Request<'_>,
    key: &ServiceKey,
    mode: ServiceMode,
    before: Affinity,
) -> Result<Affinity> {
    let mut affinity = before;
    let only_l4 = |id| match mode {
        ServiceMode::L4 => Ok(()),
        ServiceMode::Peek => Err(req.bad_attr(EINVAL, id, c"only mode l4 has affinity")),
    };
    if let Some(timeout) = timeout(req, service::AFFINITY_TIMEOUT)? {
        only_l4(service::AFFINITY_TIMEOUT)?;
        affinity.timeout = timeout;
    }
    if let Some(prefix) = req.u32(service::AFFINITY_PREFIX) {
        only_l4(service::AFFINITY_PREFIX)?;
        affinity.prefix = u8::try_from(prefix)
            .ok()
            .filter(|bits| *bits <= Affinity::none(key).prefix)
            .ok_or_else(|| {
                let text = c"longer than the VIP's address";
                req.bad_attr(ERANGE, service::AFFINITY_PREFIX, text)
            })?;
    }
    Ok(affinity)
}

/// What a request says of slow starts.
fn slow_start(req: &Request<'_>, mode: ServiceMode) -> Result<Option<u32>> {
    let seconds = req.u32(service::SLOW_START);
    if seconds.is_some() && mode != ServiceMode::L4 {
        let text = c"only mode l4 has a slow start";
        return Err(req.bad_attr(EINVAL, service::SLOW_START, text));
    }
    Ok(seconds)
}

/// What a request says of the timeouts of a service that has had `before`.
fn timeouts(req: &Request<'_>, key: &ServiceKey, before: Timeouts) -> Result<Timeouts> {
    let only_tcp = |id| match (timeout(req, id)?, key.proto) {
        (Some(_), Proto::Udp) => Err(req.bad_attr(EINVAL, id, c"only TCP has this timeout")),
        (seconds, _) => Ok(seconds),
    };
    Ok(Timeouts {
        idle: timeout(req, service::IDLE_TIMEOUT)?.unwrap_or(before.idle),
        fin: only_tcp(service::FIN_TIMEOUT)?.unwrap_or(before.fin),
        syn: only_tcp(service::SYN_TIMEOUT)?.unwrap_or(before.syn),
    })
}

/// What a request says of packets from the middle of unknown connections.
fn miss_timeout(req: &Request<'_>, key: &ServiceKey) -> Result<Option<u32>> {
    let ms = req.u32(service::MISS_TIMEOUT);
    if ms.is_some() && key.proto != Proto::Tcp {
        let text = c"only TCP has this timeout";
        return Err(req.bad_attr(EINVAL, service::MISS_TIMEOUT, text));
    }
    Ok(ms)
}

/// What a request says of datagrams that are scheduled each by itself.
fn one_packet(req: &Request<'_>, key: &ServiceKey, mode: ServiceMode) -> Result<Option<bool>> {
    let one_packet = req.u32(service::ONE_PACKET).map(|value| value != 0);
    if one_packet.is_some() && (key.proto != Proto::Udp || mode != ServiceMode::L4) {
        let text = c"only UDP in mode l4 is scheduled packet by packet";
        return Err(req.bad_attr(EINVAL, service::ONE_PACKET, text));
    }
    Ok(one_packet)
}

pub(super) fn service_set(req: &Request<'_>) -> Result {
    let forwarder = forwarder(req)?;
    let key = service_key(req)?;
    let wanted = match req.u32(service::SCHEDULER) {
        Some(number) => Some(scheduler(req, number)?),
        None => None,
    };
    let changes = [
        service::SCHEDULER,
        service::AFFINITY_TIMEOUT,
        service::AFFINITY_PREFIX,
        service::SLOW_START,
        service::IDLE_TIMEOUT,
        service::FIN_TIMEOUT,
        service::SYN_TIMEOUT,
        service::MISS_TIMEOUT,
        service::ONE_PACKET,
    ];
    if changes.iter().all(|id| req.attr(*id).is_none()) {
        return Err(req.error(EINVAL, c"nothing to change"));
    }
    let _lock = forwarder.config.lock();
    let service = find_service(req, &forwarder, &key)?;
    if wanted.is_some() && service.mode() != ServiceMode::L4 {
        return Err(no_scheduler(req));
    }
    let affinity = affinity(req, &key, service.mode(), service.affinity())?;
    let slow_start = slow_start(req, service.mode())?;
    let timeouts = timeouts(req, &key, service.timeouts())?;
    let miss_timeout = miss_timeout(req, &key)?;
    let one_packet = one_packet(req, &key, service.mode())?;
    let needs_routes = |endpoint: &Arc<Endpoint>| endpoint.stateless_way().is_none();
    if one_packet == Some(true)
        && service
            .endpoints(&rcu::read_lock())
            .iter()
            .any(needs_routes)
    {
        let text = c"an endpoint of the service needs routes (half-nat, nat)";
        return Err(req.bad_attr(EINVAL, service::ONE_PACKET, text));
    }
    // What can fail comes first.
    if let Some(scheduler) = wanted {
        forwarder
            .set_scheduler(&service, scheduler)
            .map_err(|error| no_table(req, error))?;
    }
    service.set_affinity(affinity);
    service.set_timeouts(timeouts);
    if let Some(ms) = miss_timeout {
        service.set_miss_timeout(ms);
    }
    if let Some(one_packet) = one_packet {
        service.set_one_packet(one_packet);
    }
    if let Some(seconds) = slow_start {
        service.set_slow_start(seconds);
        crate::slow_start::begin(&forwarder, &service);
    }
    notify_service(req.net(), cmd::SERVICE_NTF, &service);
    Ok(())
}

pub(super) fn service_del(req: &Request<'_>) -> Result {
    let forwarder = forwarder(req)?;
    let key = service_key(req)?;
    let service = forwarder
        .remove_service(req.net(), &key)
        .map_err(|error| match error {
            ENOENT => no_service(req),
            error => error,
        })?;
    notify_service(req.net(), cmd::SERVICE_DEL_NTF, &service);
    Ok(())
}

/// Begins to count anew what a service and its endpoints have carried, or all of them.
pub(super) fn service_zero(req: &Request<'_>) -> Result {
    let forwarder = forwarder(req)?;
    let zero = |service: &Service, guard: &rcu::Guard| {
        service.traffic.zero();
        for endpoint in service.endpoints(guard) {
            endpoint.traffic.zero();
        }
    };
    let named = [
        service::VIP_ADDR,
        service::VIP_PORT,
        service::VIP_PORT_LAST,
        service::PROTO,
    ];
    if named.iter().any(|id| req.attr(*id).is_some()) {
        let service = find_service(req, &forwarder, &service_key(req)?)?;
        zero(&service, &rcu::read_lock());
        return Ok(());
    }
    // None comes or goes meanwhile.
    let _lock = forwarder.config.lock();
    let (mut position, mut done) = (Position(0), false);
    while !done {
        let guard = rcu::read_lock();
        done = forwarder.services.scan(&guard, &mut position, |service| {
            zero(service, &guard);
            Scan::Continue
        });
    }
    Ok(())
}

pub(super) fn service_get(req: &Request<'_>) -> Result {
    let forwarder = forwarder(req)?;
    let service = find_service(req, &forwarder, &service_key(req)?)?;
    req.reply(|w| fill_service(w, &service))
}

pub(super) fn service_dump(dump: &mut Dump<'_>) -> Result {
    let forwarder = forwarder(dump.request())?;
    let table = &forwarder.services;
    dump.set_generation(table.generation());
    dump.put_table(
        |guard, position, f| table.scan(guard, position, |service| f(service)),
        fill_service,
    );
    Ok(())
}
