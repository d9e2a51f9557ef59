// SPDX-License-Identifier: GPL-2.0

//! Commands about connections without a route that user space is asked about.

use super::{
    fill::fill_miss,
    forwarder,
    tuple, //
};
use crate::uapi::{
    miss,
    route,
    MissState, //
};
use kernel::{
    prelude::*,
    sync::rcu, //
};
use nlb::{
    net::genetlink::{
        Dump,
        Request, //
    },
    wire::addr::Proto, //
};

// A connection has the same attributes in all messages.
const _: () = assert!(miss::PROTO == route::PROTO);
const _: () = assert!(miss::CLIENT_ADDR == route::CLIENT_ADDR);
const _: () = assert!(miss::CLIENT_PORT == route::CLIENT_PORT);
const _: () = assert!(miss::VIP_ADDR == route::VIP_ADDR);
const _: () = assert!(miss::VIP_PORT == route::VIP_PORT);

fn nobody_asks(req: &Request<'_>) -> Error {
    req.error(ENOENT, c"the connection is not asked about")
}

pub(super) fn miss_get(req: &Request<'_>) -> Result {
    let forwarder = forwarder(req)?;
    let tuple = tuple(req)?;
    let miss = forwarder
        .misses
        .table()
        .get(&rcu::read_lock(), &tuple)
        .cloned()
        .ok_or_else(|| nobody_asks(req))?;
    req.reply(|w| fill_miss(w, &miss))
}

pub(super) fn miss_set(req: &Request<'_>) -> Result {
    let forwarder = forwarder(req)?;
    let tuple = tuple(req)?;
    if tuple.proto() != Proto::Tcp {
        return Err(req.bad_attr(EINVAL, miss::PROTO, c"only TCP is asked about"));
    }
    let state = match MissState::from_u32(req.require_u32(miss::STATE)?) {
        Some(state @ (MissState::Pass | MissState::Drop)) => state,
        _ => return Err(req.bad_attr(EINVAL, miss::STATE, c"the answer is pass or drop")),
    };
    if !forwarder
        .misses
        .answer(req.net(), &forwarder.stats, &tuple, state)
    {
        return Err(nobody_asks(req));
    }
    Ok(())
}

pub(super) fn miss_dump(dump: &mut Dump<'_>) -> Result {
    let forwarder = forwarder(dump.request())?;
    let table = forwarder.misses.table();
    dump.set_generation(table.generation());
    dump.put_table(
        |guard, position, f| table.scan(guard, position, |miss| f(miss)),
        fill_miss,
    );
    Ok(())
}
