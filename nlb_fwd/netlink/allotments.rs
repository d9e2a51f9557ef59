// SPDX-License-Identifier: GPL-2.0

//! Commands about allotments.

use super::{
    fill::{
        fill_allotment,
        fill_share,
        notify_allotment,
        notify_no_allotment, //
    },
    find_service,
    forwarder,
    not_named_text,
    service_key_to, //
};
use crate::{
    allotment::{
        Allotment,
        Share,
        MAX_AGE_MS,
        MAX_PERCENT,
        MAX_TOKENS, //
    },
    endpoint::Endpoint,
    service::{
        Service,
        ServiceKey, //
    },
    uapi::{
        allotment,
        allotment_share,
        AllotmentScheme,
        AllotmentState,
        ServiceMode, //
    },
};
use kernel::{
    prelude::*,
    sync::rcu, //
};
use nlb::{
    net::genetlink::{
        Attr,
        Dump,
        Request, //
    },
    time,
    wire::addr::Addr,
};

/// What identifies the service in a request about its allotment.
fn service_key(req: &Request<'_>) -> Result<ServiceKey> {
    service_key_to(req, allotment::VIP_PORT_LAST)
}

pub(super) fn allotment_set(req: &Request<'_>) -> Result {
    let forwarder = forwarder(req)?;
    let key = service_key(req)?;
    let scheme = AllotmentScheme::from_u32(req.require_u32(allotment::SCHEME)?)
        .ok_or_else(|| req.bad_attr(EINVAL, allotment::SCHEME, c"no such scheme"))?;
    let age = req.require_u32(allotment::AGE)?;
    if age > MAX_AGE_MS {
        return Err(req.bad_attr(ERANGE, allotment::AGE, c"at most an hour (3600000 ms)"));
    }
    req.require(allotment::SHARE)?;
    let _lock = forwarder.config.lock();
    let service = find_service(req, &forwarder, &key)?;
    if service.mode() != ServiceMode::L4 {
        return Err(req.error(EINVAL, c"only mode l4 has allotments"));
    }
    let mut shares = KVec::new();
    for attr in req.attrs() {
        if attr.id() == allotment::SHARE {
            let share = share(req, &service, scheme, &attr)?;
            let is_it =
                |other: &Share<Endpoint>| other.endpoint().place() == share.endpoint().place();
            if shares.iter().any(is_it) {
                return Err(wrong(req, EINVAL, &attr, c"an endpoint has two shares"));
            }
            shares.push(share, GFP_KERNEL)?;
        }
    }
    let allotment = Allotment::new(scheme, age, shares, time::jiffies()).map_err(|error| {
        if error == EINVAL {
            return req.bad_attr(error, allotment::SHARE, c"nobody would get anything");
        }
        error
    })?;
    service.set_allotment(Some(allotment));
    forwarder.endpoints_changed();
    notify_allotment(req.net(), &service, AllotmentState::Valid);
    Ok(())
}

/// Points at one of several attributes with the same id.
fn wrong(req: &Request<'_>, code: Error, attr: &Attr<'_>, text: &'static CStr) -> Error {
    req.extack().set_attr(attr);
    req.error(code, text)
}

/// What an attribute says that an endpoint gets.
fn share(
    req: &Request<'_>,
    service: &Service,
    scheme: AllotmentScheme,
    attr: &Attr<'_>,
) -> Result<Share<Endpoint>> {
    let inside = attr.nested();
    let host = inside
        .bytes(allotment_share::HOST_ADDR)
        .and_then(Addr::from_octets)
        .ok_or_else(|| wrong(req, EINVAL, attr, c"a share needs the address of a host"))?;
    let amount = inside
        .u32(allotment_share::AMOUNT)
        .ok_or_else(|| wrong(req, EINVAL, attr, c"a share needs an amount"))?;
    match scheme {
        AllotmentScheme::Tokens if amount > MAX_TOKENS => {
            return Err(wrong(req, ERANGE, attr, c"at most 1000000 tokens"));
        }
        AllotmentScheme::Percentages if amount > MAX_PERCENT => {
            return Err(wrong(req, ERANGE, attr, c"at most 100 percent"));
        }
        _ => {}
    }
    let endpoint = service
        .endpoint(host, inside.be16(allotment_share::HOST_PORT))
        .map_err(|error| wrong(req, error, attr, not_named_text(error)))?;
    Ok(Share::new(endpoint, amount))
}

fn none(req: &Request<'_>) -> Error {
    req.error(ENOENT, c"the service has no allotment")
}

pub(super) fn allotment_del(req: &Request<'_>) -> Result {
    let forwarder = forwarder(req)?;
    let _lock = forwarder.config.lock();
    let service = find_service(req, &forwarder, &service_key(req)?)?;
    if service.allotment(&rcu::read_lock()).is_none() {
        return Err(none(req));
    }
    service.set_allotment(None);
    forwarder.endpoints_changed();
    notify_no_allotment(req.net(), &service);
    Ok(())
}

pub(super) fn allotment_get(req: &Request<'_>) -> Result {
    let forwarder = forwarder(req)?;
    let service = find_service(req, &forwarder, &service_key(req)?)?;
    if service.allotment(&rcu::read_lock()).is_none() {
        return Err(none(req));
    }
    req.reply(|w| {
        let guard = rcu::read_lock();
        // Gone meanwhile.
        let allotment = service.allotment(&guard).ok_or(ENOENT)?;
        fill_allotment(w, &service, allotment, allotment.state(time::jiffies()))
    })
}

pub(super) fn allotment_dump_start(dump: &mut Dump<'_>) -> Result {
    let req = dump.request();
    find_service(req, &*forwarder(req)?, &service_key(req)?).map(|_| ())
}

/// Dumps the shares of a service's allotment; without one, nothing.
pub(super) fn allotment_dump(dump: &mut Dump<'_>) -> Result {
    let forwarder = forwarder(dump.request())?;
    let key = service_key(dump.request())?;
    // What a chunk shows is of the generation that it is marked with.
    let _lock = forwarder.config.lock();
    dump.set_generation(forwarder.config_generation());
    let Some(service) = forwarder.service(&key) else {
        return Ok(());
    };
    let guard = rcu::read_lock();
    let Some(allotment) = service.allotment(&guard) else {
        return Ok(());
    };
    let [next, ..] = dump.state();
    let mut next = *next;
    for share in allotment.shares().iter().skip(next as usize) {
        if dump
            .put_entry(|w| fill_share(w, &service, allotment, share))
            .is_break()
        {
            break;
        }
        next += 1;
    }
    let [first, ..] = dump.state();
    *first = next;
    Ok(())
}
