// SPDX-License-Identifier: GPL-2.0

//! The generic netlink family `nlb-migrator`.

mod migrate;

use crate::{
    auth::Refused,
    keep::{
        Setting,
        Vip, //
    },
    peer::{
        AddError,
        Peer, //
    },
    registry::Entry,
    state::{
        ChangeError,
        KeepError,
        State,
        STATE, //
    },
    stats::{
        self,
        Counter, //
    },
    uapi::{
        self,
        cmd,
        counter,
        keep,
        key,
        migration,
        peer,
        stats as stats_attr,
        Role, //
    }, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    }, //
};
use nlb::{
    errno,
    net::{
        genetlink::{
            Dump,
            Family,
            MulticastGroup,
            Op,
            Ops,
            Request,
            Writer, //
        },
        socket::auth::{
            Algorithm,
            Key,
            Secret, //
        },
        Net, //
    },
    sync::rhashtable::InsertError,
};

static GROUPS: [MulticastGroup; 1] = [MulticastGroup::new(uapi::MCGRP_MIGRATIONS)];
/// Place of the group `migrations` in [`GROUPS`].
const GROUP_MIGRATIONS: u8 = 0;

static OPS: Ops<15> = Ops::new([
    Op::doit(cmd::PEER_NEW, &uapi::PEER_NEW_DO, peer_new)
        .admin()
        .secret(peer::SECRET),
    Op::doit(cmd::PEER_DEL, &uapi::PEER_DEL_DO, peer_del).admin(),
    Op::doit(cmd::PEER_GET, &uapi::PEER_GET_DO, peer_get),
    Op::dump(cmd::PEER_GET, &uapi::PEER_GET_DUMP, peer_dump),
    Op::dump(cmd::MIGRATE, &uapi::MIGRATE_DUMP, migrate::answer)
        .start(migrate::start)
        .done(migrate::done)
        .admin(),
    Op::doit(cmd::MIGRATION_GET, &uapi::MIGRATION_GET_DO, migration_get),
    Op::dump(
        cmd::MIGRATION_GET,
        &uapi::MIGRATION_GET_DUMP,
        migration_dump,
    ),
    Op::doit(cmd::STATS_GET, &uapi::STATS_GET_DO, stats_get),
    Op::doit(cmd::PEER_KEY_NEW, &uapi::PEER_KEY_NEW_DO, peer_key_new)
        .admin()
        .secret(peer::SECRET),
    Op::doit(cmd::PEER_KEY_DEL, &uapi::PEER_KEY_DEL_DO, peer_key_del).admin(),
    Op::doit(cmd::PEER_KEY_USE, &uapi::PEER_KEY_USE_DO, peer_key_use).admin(),
    Op::doit(cmd::KEEP_NEW, &uapi::KEEP_NEW_DO, keep_new).admin(),
    Op::doit(cmd::KEEP_DEL, &uapi::KEEP_DEL_DO, keep_del).admin(),
    Op::doit(cmd::KEEP_GET, &uapi::KEEP_GET_DO, keep_get),
    Op::dump(cmd::KEEP_GET, &uapi::KEEP_GET_DUMP, keep_dump),
]);

pub(crate) static FAMILY: Family = Family::new(uapi::FAMILY, 1, &OPS, &GROUPS);

fn state(request: &Request<'_>) -> Result<Arc<State>> {
    // The namespace is on its way up or down.
    STATE.get_arc(request.net()).ok_or(ENODEV)
}

/// What is wrong with a key.
fn refused_key(request: &Request<'_>, refused: Refused) -> Error {
    match refused {
        Refused::Unknown => {
            request.bad_attr(ENOENT, peer::SEND_ID, c"peer has no key with this id")
        }
        Refused::SendId => request.bad_attr(EEXIST, peer::SEND_ID, c"peer has a key with this id"),
        Refused::RecvId => {
            let text = c"peer has a key with this id for what is received";
            // Where it came from if it was not given.
            let id = match request.attr(peer::RECV_ID) {
                Some(_) => peer::RECV_ID,
                None => peer::SEND_ID,
            };
            request.bad_attr(EEXIST, id, text)
        }
        Refused::TooMany => request.error(ENOSPC, c"peer has too many keys"),
        Refused::Last => {
            let text = c"last key of the peer: add another one first, or remove the peer";
            request.bad_attr(EBUSY, peer::SEND_ID, text)
        }
        Refused::NoMemory => {
            let text = c"no memory for the key, on the port (net.core.optmem_max) or at all";
            request.error(ENOMEM, text)
        }
        Refused::Other(error) if error == errno::EOPNOTSUPP => {
            request.error(error, c"kernel does not know TCP-AO or the algorithm")
        }
        Refused::Other(error) => error,
    }
}

/// What is wrong with a peer.
fn refused_change(request: &Request<'_>, error: ChangeError) -> Error {
    match error {
        ChangeError::NoPeer => request.bad_attr(ENOENT, peer::ADDR, c"no such peer"),
        ChangeError::Peer(AddError::Exists) => {
            request.bad_attr(EEXIST, peer::ADDR, c"peer exists already")
        }
        ChangeError::Peer(AddError::TooMany) => request.error(ENOSPC, c"too many peers"),
        ChangeError::Peer(AddError::Key(refused)) | ChangeError::Key(refused) => {
            refused_key(request, refused)
        }
        ChangeError::Port(error) if error == errno::EADDRINUSE => {
            request.error(error, c"migrator port 4770 is in use")
        }
        ChangeError::Port(error) => error,
    }
}

/// The key in a request.
fn require_key(request: &Request<'_>) -> Result<Key> {
    let send_id = request.require_u8(peer::SEND_ID)?;
    let algorithm = match request.u32(peer::ALGORITHM).map(uapi::Algorithm::from_u32) {
        None | Some(Some(uapi::Algorithm::HmacSha256)) => Algorithm::HmacSha256,
        Some(Some(uapi::Algorithm::HmacSha1)) => Algorithm::HmacSha1,
        Some(Some(uapi::Algorithm::Aes128Cmac)) => Algorithm::Aes128Cmac,
        Some(None) => {
            return Err(request.bad_attr(EINVAL, peer::ALGORITHM, c"no such algorithm"));
        }
    };
    Ok(Key {
        send_id,
        recv_id: request.u8(peer::RECV_ID).unwrap_or(send_id),
        algorithm,
        secret: Secret::new(request.require_bytes(peer::SECRET)?)?,
    })
}

fn peer_new(request: &Request<'_>) -> Result {
    let addr = request.require_unicast(peer::ADDR)?;
    let port = request.be16(peer::PORT).unwrap_or(uapi::PORT);
    let parts = [peer::SEND_ID, peer::RECV_ID, peer::ALGORITHM, peer::SECRET];
    let part = parts.into_iter().find(|id| request.flag(*id));
    let key = match (request.flag(peer::UNAUTHENTICATED), part) {
        (true, None) => None,
        (true, Some(id)) => {
            return Err(request.bad_attr(EINVAL, id, c"unauthenticated peer with a key"));
        }
        (false, Some(_)) => Some(require_key(request)?),
        (false, None) => {
            let text = c"peer needs a key, unless it is called unauthenticated";
            return Err(request.error(EINVAL, text));
        }
    };
    state(request)?
        .add_peer(request.net(), addr, port, key)
        .map_err(|error| refused_change(request, error))
}

fn peer_del(request: &Request<'_>) -> Result {
    let addr = request.require_unicast(peer::ADDR)?;
    state(request)?
        .remove_peer(request.net(), addr)
        .map_err(|error| refused_change(request, error))
}

fn peer_key_new(request: &Request<'_>) -> Result {
    let addr = request.require_unicast(peer::ADDR)?;
    let key = require_key(request)?;
    state(request)?
        .change_keys(addr, |keys, listener| keys.add(listener, key))
        .map_err(|error| refused_change(request, error))
}

fn peer_key_del(request: &Request<'_>) -> Result {
    let addr = request.require_unicast(peer::ADDR)?;
    let send_id = request.require_u8(peer::SEND_ID)?;
    state(request)?
        .change_keys(addr, |keys, listener| keys.remove(listener, send_id))
        .map_err(|error| refused_change(request, error))
}

fn peer_key_use(request: &Request<'_>) -> Result {
    let addr = request.require_unicast(peer::ADDR)?;
    let send_id = request.require_u8(peer::SEND_ID)?;
    state(request)?
        .change_keys(addr, |keys, _| keys.prefer(send_id))
        .map_err(|error| refused_change(request, error))
}

fn fill_peer(w: &mut Writer<'_>, state: &State, peer: &Peer) -> Result {
    w.put_bytes(peer::ADDR, peer.addr.octets())?;
    w.put_be16(peer::PORT, peer.port)?;
    w.put_u32(peer::STATE, peer.state() as u32)?;
    w.put_uint(peer::MIGRATIONS_OUT, peer.migrations_out.load(Relaxed))?;
    w.put_uint(peer::MIGRATIONS_IN, peer.migrations_in.load(Relaxed))?;
    w.put_uint(peer::REFUSED, peer.refused.load(Relaxed))?;
    w.put_uint(peer::BAD_RECORDS, peer.bad_records.load(Relaxed))?;
    if !peer.keys.authenticate() {
        w.put_flag(peer::UNAUTHENTICATED)?;
    }
    state.show_keys(peer, |shown| {
        w.nest(peer::KEY, |w| {
            let algorithm = match shown.algorithm {
                Algorithm::HmacSha256 => uapi::Algorithm::HmacSha256,
                Algorithm::HmacSha1 => uapi::Algorithm::HmacSha1,
                Algorithm::Aes128Cmac => uapi::Algorithm::Aes128Cmac,
            };
            w.put_u8(key::SEND_ID, shown.send_id)?;
            w.put_u8(key::RECV_ID, shown.recv_id)?;
            w.put_u32(key::ALGORITHM, algorithm as u32)?;
            if shown.preferred {
                w.put_flag(key::PREFERRED)?;
            }
            w.put_uint(key::SENDING, shown.sending)?;
            w.put_uint(key::GOOD, shown.good)?;
            w.put_uint(key::BAD, shown.bad)
        })
    })
}

fn peer_get(request: &Request<'_>) -> Result {
    let addr = request.require_unicast(peer::ADDR)?;
    let state = state(request)?;
    let found = state.shared.peers.find(addr);
    let peer = found.ok_or_else(|| refused_change(request, ChangeError::NoPeer))?;
    request.reply(|w| fill_peer(w, &state, &peer))
}

fn peer_dump(dump: &mut Dump<'_>) -> Result {
    let state = state(dump.request())?;
    let peers = &state.shared.peers;
    dump.set_generation(peers.generation());
    let [mut next, ..] = *dump.state();
    while let Some((peer, after)) = peers.first_from(next) {
        if dump.put_entry(|w| fill_peer(w, &state, &peer)).is_break() {
            break;
        }
        next = after;
    }
    remember(dump, next);
    Ok(())
}

/// Where the next call of a dump goes on.
fn remember(dump: &mut Dump<'_>, next: u64) {
    let [place, ..] = dump.state();
    *place = next;
}

fn fill_migration(w: &mut Writer<'_>, entry: &Entry) -> Result {
    let info = entry.info();
    w.put_u64(migration::ID, entry.id)?;
    w.put_u32(migration::ROLE, entry.role as u32)?;
    w.put_bytes(migration::PEER_ADDR, entry.peer.octets())?;
    w.put_u32(migration::PHASE, info.phase as u32)?;
    w.put_u32(migration::PROTO, entry.tuple.proto().number().into())?;
    w.put_bytes(migration::CLIENT_ADDR, entry.tuple.client().octets())?;
    w.put_be16(migration::CLIENT_PORT, entry.tuple.client_port())?;
    w.put_bytes(migration::VIP_ADDR, entry.tuple.vip().octets())?;
    w.put_be16(migration::VIP_PORT, entry.tuple.vip_port())?;
    if info.flow_id != 0 {
        w.put_u32(migration::FLOW_ID, info.flow_id)?;
    }
    w.put_uint(migration::UNREAD_BYTES, info.unread_bytes)?;
    w.put_uint(migration::AGE, entry.age_ms())?;
    if entry.role == Role::Origin {
        w.put_uint(migration::EXPORT_NS, info.export_ns)?;
        w.put_uint(migration::FREEZE_NS, info.freeze_ns)?;
    }
    // The origin has them from the target.
    w.put_uint(migration::HELD_PACKETS, info.held_packets)?;
    w.put_uint(migration::INJECT_NS, info.inject_ns)?;
    w.put_uint(migration::TOTAL_NS, info.total_ns)?;
    if let Some(reason) = info.reason {
        w.put_str(migration::ERROR, reason.text().as_str())?;
    }
    Ok(())
}

/// Tells those who listen about a migration that has come to an end or that has closed.
pub(crate) fn notify(net: &Net, entry: &Entry) {
    // Without memory nobody hears of it; the table still tells.
    let _ = FAMILY.multicast(net, GROUP_MIGRATIONS, cmd::MIGRATION_NTF, GFP_KERNEL, |w| {
        fill_migration(w, entry)
    });
}

fn migration_get(request: &Request<'_>) -> Result {
    let id = request.require_u64(migration::ID)?;
    let role = match request.u32(migration::ROLE) {
        None => None,
        Some(role) => Some(Role::from_u32(role).ok_or_else(|| {
            request.bad_attr(EINVAL, migration::ROLE, c"neither origin nor target")
        })?),
    };
    let entry = state(request)?
        .shared
        .registry
        .find(id, role)
        .ok_or_else(|| request.bad_attr(ENOENT, migration::ID, c"no such migration"))?;
    request.reply(|w| fill_migration(w, &entry))
}

fn migration_dump(dump: &mut Dump<'_>) -> Result {
    let state = state(dump.request())?;
    let registry = &state.shared.registry;
    dump.set_generation(registry.generation());
    let [mut next, ..] = *dump.state();
    while let Some((entry, after)) = registry.first_from(next) {
        if dump.put_entry(|w| fill_migration(w, &entry)).is_break() {
            break;
        }
        next = after;
    }
    remember(dump, next);
    Ok(())
}

/// The address and port that a setting is about.
fn require_vip(request: &Request<'_>) -> Result<Vip> {
    Ok(Vip {
        addr: request.require_unicast(keep::VIP_ADDR)?,
        port: request.require_be16(keep::VIP_PORT)?,
    })
}

fn no_setting(request: &Request<'_>) -> Error {
    request.bad_attr(
        ENOENT,
        keep::VIP_ADDR,
        c"nothing is kept for this VIP and port",
    )
}

fn keep_new(request: &Request<'_>) -> Result {
    let setting = Setting {
        vip: require_vip(request)?,
        bytes: request.require_u32(keep::BYTES)?,
    };
    let added = state(request)?.keep(request.net(), setting);
    added.map_err(|error| match error {
        KeepError::Table(InsertError::Exists) => {
            let text = c"VIP and port have a setting already";
            request.bad_attr(EEXIST, keep::VIP_ADDR, text)
        }
        KeepError::Table(InsertError::Full) => request.error(ENOSPC, c"too many settings"),
        KeepError::Table(error) => error.into(),
        KeepError::Watch(error) if error == errno::EOPNOTSUPP => {
            request.error(error, c"kernel was built without tracepoints")
        }
        KeepError::Watch(error) => error,
    })
}

fn keep_del(request: &Request<'_>) -> Result {
    let vip = require_vip(request)?;
    if !state(request)?.keep_no_more(&vip) {
        return Err(no_setting(request));
    }
    Ok(())
}

fn fill_keep(w: &mut Writer<'_>, setting: &Setting) -> Result {
    w.put_bytes(keep::VIP_ADDR, setting.vip.addr.octets())?;
    w.put_be16(keep::VIP_PORT, setting.vip.port)?;
    w.put_u32(keep::BYTES, setting.bytes)
}

fn keep_get(request: &Request<'_>) -> Result {
    let vip = require_vip(request)?;
    let found = state(request)?.shared.keeps.find(&vip);
    let setting = found.ok_or_else(|| no_setting(request))?;
    request.reply(|w| fill_keep(w, &setting))
}

fn keep_dump(dump: &mut Dump<'_>) -> Result {
    let state = state(dump.request())?;
    let table = &state.shared.keeps.settings;
    dump.set_generation(table.generation());
    dump.put_table(
        |guard, position, f| table.scan(guard, position, f),
        fill_keep,
    );
    Ok(())
}

fn stats_get(request: &Request<'_>) -> Result {
    let state = state(request)?;
    let shared = &state.shared;
    let auth = state.auth_counters();
    let put = |w: &mut Writer<'_>, name: &str, value: u64| {
        w.nest(stats_attr::COUNTER, |w| {
            w.put_str(counter::NAME, name)?;
            w.put_uint(counter::VALUE, value)
        })
    };
    request.reply(|w| {
        for &counter in Counter::ALL {
            let live = stats::of_auth(&auth, counter);
            let value = shared.stats.get(counter).saturating_add(live);
            put(w, counter.name(), value)?;
        }
        put(w, "held-now", shared.holds.packets())?;
        put(w, "tombstones-now", shared.tombstones.len())?;
        put(w, "kept-now", shared.keeps.connections())?;
        put(w, "kept-bytes-now", shared.keeps.bytes())
    })
}
