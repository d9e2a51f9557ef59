// SPDX-License-Identifier: GPL-2.0

//! Commands about rules.

use super::{
    fill::{
        fill_rule,
        notify_rule, //
    },
    forwarder,
    other_family, //
};
use crate::{
    rule::{
        NoRule,
        Selector, //
    },
    uapi::{
        cmd,
        rule,
        RuleAction, //
    },
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
    wire::{
        addr::Addr,
        ports::Ports,
        prefixes::Prefix, //
    },
};

pub(super) fn rule_new(req: &Request<'_>) -> Result {
    let forwarder = forwarder(req)?;
    let action = RuleAction::from_u32(req.require_u32(rule::ACTION)?)
        .ok_or_else(|| req.bad_attr(EINVAL, rule::ACTION, c"no such action"))?;
    let selector = selector(req)?;
    let added = {
        let _lock = forwarder.config.lock();
        forwarder.add_rule(req.u32(rule::PRIORITY), action, selector)
    };
    let rule = added.map_err(|error| match error {
        NoRule::Exists => req.bad_attr(EEXIST, rule::PRIORITY, c"another rule has this priority"),
        NoRule::Full => req.error(ENOSPC, c"too many rules"),
        NoRule::NoPriority => req.error(ERANGE, c"no priority is behind the last, name one"),
        NoRule::Other(error) => error,
    })?;
    notify_rule(req.net(), cmd::RULE_NTF, &rule);
    req.reply(|w| fill_rule(w, &rule))
}

/// Which packets a request is about.
fn selector(req: &Request<'_>) -> Result<Selector> {
    let from = from(req)?;
    let vip = match req.attr(rule::VIP_ADDR) {
        Some(_) => Some(req.require_unicast(rule::VIP_ADDR)?),
        None => None,
    };
    match (from, vip) {
        (Some((network, _)), Some(vip)) if network.is_v4() != vip.is_v4() => {
            return Err(other_family(req, rule::FROM_ADDR));
        }
        _ => {}
    }
    let proto = match req.attr(rule::PROTO) {
        Some(_) => Some(req.require_proto(rule::PROTO)?),
        None => None,
    };
    let ports = ports(req)?;
    if ports.is_some() && (vip.is_none() || proto.is_none()) {
        let text = c"a port is one of an address and a protocol";
        return Err(req.bad_attr(EINVAL, rule::VIP_PORT, text));
    }
    Ok(Selector {
        from,
        vip,
        ports,
        proto,
    })
}

fn from(req: &Request<'_>) -> Result<Option<(Addr, u8)>> {
    let prefix = req.u32(rule::FROM_PREFIX);
    let Some(network) = req.addr(rule::FROM_ADDR)? else {
        return match prefix {
            Some(_) => Err(req.bad_attr(EINVAL, rule::FROM_PREFIX, c"a prefix without an address")),
            None => Ok(None),
        };
    };
    let all = if network.is_v4() { 32 } else { 128 };
    let bits = prefix.map_or(Some(all), |bits| u8::try_from(bits).ok());
    let bits = bits.filter(|bits| *bits <= all).ok_or_else(|| {
        let text = c"longer than the address";
        req.bad_attr(ERANGE, rule::FROM_PREFIX, text)
    })?;
    if Prefix::new(network, bits).is_none() {
        let text = c"has bits behind its prefix";
        return Err(req.bad_attr(EINVAL, rule::FROM_ADDR, text));
    }
    Ok(Some((network, bits)))
}

fn ports(req: &Request<'_>) -> Result<Option<Ports>> {
    match (req.be16(rule::VIP_PORT), req.be16(rule::VIP_PORT_LAST)) {
        (None, None) => Ok(None),
        (Some(port), None) => Ok(Some(Ports::one(port))),
        (None, Some(_)) => {
            Err(req.bad_attr(EINVAL, rule::VIP_PORT_LAST, c"a last port without a first"))
        }
        (Some(first), Some(last)) => {
            let text = c"the last port is before the first";
            Ports::new(first, last)
                .map(Some)
                .ok_or_else(|| req.bad_attr(EINVAL, rule::VIP_PORT_LAST, text))
        }
    }
}

fn none(req: &Request<'_>) -> Error {
    req.error(ENOENT, c"no such rule")
}

pub(super) fn rule_del(req: &Request<'_>) -> Result {
    let forwarder = forwarder(req)?;
    let priority = req.require_u32(rule::PRIORITY)?;
    let removed = {
        let _lock = forwarder.config.lock();
        forwarder.remove_rule(priority)
    };
    let rule = removed.map_err(|error| match error {
        ENOENT => none(req),
        error => error,
    })?;
    notify_rule(req.net(), cmd::RULE_DEL_NTF, &rule);
    Ok(())
}

pub(super) fn rule_flush(req: &Request<'_>) -> Result {
    let forwarder = forwarder(req)?;
    let removed = {
        let _lock = forwarder.config.lock();
        forwarder.remove_rules()
    };
    for rule in removed.iter().flat_map(|rules| rules.all()) {
        notify_rule(req.net(), cmd::RULE_DEL_NTF, rule);
    }
    Ok(())
}

pub(super) fn rule_get(req: &Request<'_>) -> Result {
    let forwarder = forwarder(req)?;
    let priority = req.require_u32(rule::PRIORITY)?;
    let rules = forwarder.rules.get_arc();
    let rule = rules.as_ref().and_then(|rules| rules.get(priority));
    let rule = rule.ok_or_else(|| none(req))?;
    req.reply(|w| fill_rule(w, rule))
}

/// Dumps all rules. What the dump remembers is the priority of the next one.
pub(super) fn rule_dump(dump: &mut Dump<'_>) -> Result {
    let forwarder = forwarder(dump.request())?;
    // What a chunk shows is of the generation that it is marked with.
    let _lock = forwarder.config.lock();
    dump.set_generation(forwarder.rule_generation());
    let [next, ..] = dump.state();
    let begin = *next;
    let mut next = begin;
    let guard = rcu::read_lock();
    let all = forwarder
        .rules
        .get(&guard)
        .map_or(&[][..], |rules| rules.all());
    for rule in all
        .iter()
        .filter(|rule| u64::from(rule.priority()) >= begin)
    {
        if dump.put_entry(|w| fill_rule(w, rule)).is_break() {
            break;
        }
        next = u64::from(rule.priority()).saturating_add(1);
    }
    let [first, ..] = dump.state();
    *first = next;
    Ok(())
}
