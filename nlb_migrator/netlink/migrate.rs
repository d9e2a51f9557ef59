// SPDX-License-Identifier: GPL-2.0

//! The request `migrate`.
//!
//! Generic netlink holds a lock of all its families around a `do` and while a dump begins, so neither may
//! wait for another machine. The migration is made by the sender when that is over, before `sendmsg()`
//! returns; the answer is a dump, for a `do` has to have its answer at once.

use super::{
    fill_migration,
    remember,
    state, //
};
use crate::{
    origin::{
        ReadData,
        Wanted, //
    },
    reason::Reason,
    uapi::{
        migration,
        Phase, //
    },
};
use kernel::prelude::*;
use nlb::{
    errno,
    net::{
        genetlink::{
            Dump,
            Request, //
        },
        tcp::TcpSocket, //
    },
    wire::addr::{
        FourTuple,
        Proto, //
    },
};

/// How long to wait for each answer of a target if the request does not say.
const DEFAULT_TIMEOUT_MS: u32 = 2000;

/// The connection that a request is about.
fn connection(request: &Request<'_>) -> Result<TcpSocket> {
    let parts = [
        migration::CLIENT_ADDR,
        migration::CLIENT_PORT,
        migration::VIP_ADDR,
        migration::VIP_PORT,
    ];
    let named = parts.into_iter().find(|id| request.attr(*id).is_some());
    let found = match (request.u32(migration::FD), named) {
        (Some(_), Some(id)) => {
            let text = c"connection is named twice, by descriptor and by address";
            return Err(request.bad_attr(EINVAL, id, text));
        }
        (None, Some(_)) => {
            let client = request.require_unicast(migration::CLIENT_ADDR)?;
            let client_port = request.require_be16(migration::CLIENT_PORT)?;
            let vip = request.require_unicast(migration::VIP_ADDR)?;
            let vip_port = request.require_be16(migration::VIP_PORT)?;
            let tuple = FourTuple::new(client, client_port, vip, vip_port, Proto::Tcp);
            let tuple = tuple.ok_or_else(|| {
                let text = c"not of the VIP's address family";
                request.bad_attr(errno::EAFNOSUPPORT, migration::CLIENT_ADDR, text)
            })?;
            TcpSocket::from_tuple(request.net(), &tuple)
        }
        _ => TcpSocket::from_fd(request.net(), request.require_u32(migration::FD)?),
    };
    found.map_err(|refusal| {
        request.extack().set_reason(refusal.code());
        request.error(refusal, refusal.text())
    })
}

/// What a request says about bytes that the program has read.
fn read_data(request: &Request<'_>) -> Result<ReadData> {
    let parts = [
        migration::READ_DATA,
        migration::READ_BYTES,
        migration::READ_ALL,
    ];
    let mut said = parts.into_iter().filter(|id| request.attr(*id).is_some());
    if let (Some(_), Some(id)) = (said.next(), said.next()) {
        let text = c"what was read goes along in one way only";
        return Err(request.bad_attr(EINVAL, id, text));
    }
    if let Some(bytes) = request.bytes(migration::READ_DATA) {
        if request.attr(migration::FD).is_none() {
            let text = c"only the program itself can give back what it has read";
            return Err(request.bad_attr(EINVAL, migration::READ_DATA, text));
        }
        let mut given = KVVec::with_capacity(bytes.len(), GFP_KERNEL)?;
        given.extend_from_slice(bytes, GFP_KERNEL)?;
        return Ok(ReadData::Given(given));
    }
    Ok(match request.u32(migration::READ_BYTES) {
        Some(count) => ReadData::Kept(count),
        None if request.flag(migration::READ_ALL) => ReadData::AllKept,
        None => ReadData::Nothing,
    })
}

/// Finds out what it is about, and has the sender do it.
pub(super) fn start(dump: &mut Dump<'_>) -> Result {
    let request = dump.request();
    let peer = request.require_unicast(migration::PEER_ADDR)?;
    let timeout = request.u32(migration::TIMEOUT);
    let wanted = Wanted {
        read: read_data(request)?,
        socket: connection(request)?,
        peer,
        timeout_ms: timeout.unwrap_or(DEFAULT_TIMEOUT_MS),
    };
    let state = state(request)?;
    let shared = &state.shared;
    let begun = shared.handovers.begin(shared, request.net(), wanted);
    let id = begun.map_err(|reason| refuse(request, &reason, reason.errno(), ""))?;
    remember(dump, id);
    Ok(())
}

pub(super) fn done(dump: &mut Dump<'_>) {
    let [id, ..] = *dump.state();
    if let Ok(state) = state(dump.request()) {
        state.shared.handovers.forget(id);
    }
}

/// Tells what came of it: an empty object as long as that is not known.
pub(super) fn answer(dump: &mut Dump<'_>) -> Result {
    let state = state(dump.request())?;
    let [id, calls, ..] = dump.state();
    let (id, first) = (*id, *calls == 0);
    *calls = 1;
    let handover = state.shared.handovers.find(id).ok_or(EINVAL)?;
    let outcome = if first {
        handover.listen();
        None
    } else {
        handover.outcome()
    };
    let entry = match outcome {
        Some(Ok(entry)) => entry,
        Some(Err(reason)) => {
            return Err(refuse(dump.request(), &reason, reason.errno(), ""));
        }
        None => {
            dump.go_on_in_reader();
            return Ok(());
        }
    };
    // A dump's first entry has room.
    let _ = dump.put_entry(|w| fill_migration(w, &entry));
    let info = entry.info();
    let request = dump.request();
    match (info.phase, info.reason) {
        (Phase::Refused | Phase::Aborted, Some(reason)) => {
            Err(refuse(request, &reason, reason.errno(), ""))
        }
        (Phase::Reset, Some(reason)) => {
            let errno = errno::ECONNRESET.into();
            Err(refuse(request, &reason, errno, "connection was reset: "))
        }
        _ => Ok(()),
    }
}

/// Answers with a reason, as this error, and with this before its text.
fn refuse(request: &Request<'_>, reason: &Reason, errno: Error, before: &str) -> Error {
    request.extack().set_reason(reason.code());
    let text = reason.text();
    request.error_fmt(errno, fmt!("{before}{}", text.as_str()))
}
