// SPDX-License-Identifier: MIT OR Apache-2.0

//! Allotments (FIG. 18): which endpoints of a service get its next connections, by the capacity that is left. What is
//! to be done about them; nothing here does anything.
//!
//! The forwarder gives an allotment up when its age is over, and here another one is made in time, of what is known
//! then: so nobody goes by what this unit knew before it ended, or before it could not tell the forwarder any more.

use super::plan::{Known, Plan};
use nlb_netlink::{
    Allotment, AllotmentScheme, AllotmentShare, AllotmentState, Endpoint, EndpointId,
    EndpointState, Named, NewAllotment, ServiceKey,
};
use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

/// How a service is allotted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) scheme: AllotmentScheme,
    /// Of all endpoints together: tokens, or 100 percent.
    pub(crate) total: u32,
    /// For how long it holds.
    pub(crate) age: Duration,
}

/// Those of all services that have one.
pub(crate) type Orders = BTreeMap<ServiceKey, Order>;

/// What endpoints can take.
pub(crate) type Weights = Vec<(EndpointId, u32)>;

/// Of each service that can be allotted, what its endpoints can take once the plan is carried out: those that hosts
/// speak of by what is left of their capacity, others by their weight. Not of services of which no host speaks, and
/// of those in which health does not count.
pub(crate) fn weights(
    orders: &Orders,
    known: &Known,
    plan: &Plan,
    endpoints: &[Endpoint],
) -> BTreeMap<ServiceKey, Weights> {
    let mut all = BTreeMap::new();
    if orders.is_empty() {
        return all;
    }
    let rows = known.rows.iter();
    let spoken: HashSet<_> = rows
        .filter_map(|(place, _)| Some(plan.effects.get(place)?.service))
        .collect();
    let effects = plan.by_seat.iter().flatten();
    let panics: HashSet<_> = effects
        .filter(|effect| effect.is_panic())
        .map(|effect| effect.service)
        .collect();
    for (number, endpoint) in endpoints.iter().enumerate() {
        let service = endpoint.service();
        if !orders.contains_key(&service)
            || !spoken.contains(&service)
            || panics.contains(&service)
            || endpoint.backup == Some(true)
        {
            continue;
        }
        let weight = match plan.by_seat.get(number).copied().flatten() {
            Some(effect) => effect
                .weight
                .filter(|_| effect.state == EndpointState::Active),
            None => Some(endpoint.share()),
        };
        if let Some(weight) = weight.filter(|weight| *weight > 0) {
            let weights: &mut Weights = all.entry(service).or_default();
            weights.push((endpoint.id(), weight));
        }
    }
    all
}

/// Parts of `total` in proportion, which are whole numbers and together `total`; whoever can take anything gets one at
/// least, as long as there are enough.
pub(crate) fn shares(weights: &[(EndpointId, u32)], total: u32) -> Vec<AllotmentShare> {
    let sum: u64 = weights.iter().map(|(_, weight)| u64::from(*weight)).sum();
    if sum == 0 {
        return Vec::new();
    }
    // What is lost by rounding down goes to those who lose most.
    let mut parts: Vec<_> = weights
        .iter()
        .filter(|(_, weight)| *weight > 0)
        .map(|(endpoint, weight)| {
            let part = u64::from(*weight) * u64::from(total);
            (*endpoint, part / sum, part % sum)
        })
        .collect();
    let given: u64 = parts.iter().map(|(_, part, _)| part).sum();
    let mut order: Vec<_> = (0..parts.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(parts[*index].2));
    for index in order.into_iter().take((u64::from(total) - given) as usize) {
        parts[index].1 += 1;
    }
    for index in 0..parts.len() {
        if parts[index].1 == 0 {
            let richest = parts.iter_mut().max_by_key(|(_, part, _)| *part);
            if let Some((_, part, _)) = richest.filter(|(_, part, _)| *part > 1) {
                *part -= 1;
                parts[index].1 = 1;
            }
        }
    }
    let parts = parts.into_iter().filter(|(_, part, _)| *part > 0);
    parts
        .map(|(endpoint, part, _)| AllotmentShare::new(endpoint, part as u32))
        .collect()
}

/// What came of allotments.
#[derive(Debug, Default)]
pub(crate) struct Allotted {
    /// How many were set.
    pub(crate) set: u64,
    /// After so long they have to be looked at again.
    pub(crate) again: Option<Duration>,
    /// Why some are not as they should be, which is no reason not to confirm anything to hosts.
    pub(crate) trouble: Option<String>,
}

/// What to do about the allotment of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// This is the next one.
    Set(NewAllotment),
    /// It says what does not hold any more.
    Delete,
    /// The one that is there holds; after so long another one is due.
    Wait(Duration),
    /// There is none, and none to be made.
    Nothing,
}

/// `weights` are those of the endpoints that may have something; `sent` is what was set here last, and `present` what
/// the forwarder has.
pub(crate) fn act(
    order: &Order,
    weights: Option<&Weights>,
    sent: Option<&NewAllotment>,
    present: Option<&Allotment>,
) -> Act {
    let shares = weights.map(|weights| shares(weights, order.total));
    let Some(shares) = shares.filter(|shares| !shares.is_empty()) else {
        // One that somebody else has set is not known here.
        return match (sent, present) {
            (Some(_), Some(_)) => Act::Delete,
            _ => Act::Nothing,
        };
    };
    let next = NewAllotment {
        scheme: order.scheme,
        age: u32::try_from(order.age.as_millis()).unwrap_or(u32::MAX),
        shares,
    };
    let expires = present
        .filter(|present| present.state == Some(Named::Known(AllotmentState::Valid)))
        .and_then(|present| present.expires)
        .map(Duration::from_millis);
    match expires {
        Some(expires) if expires > order.age / 2 && sent == Some(&next) => {
            Act::Wait(expires - order.age / 2)
        }
        _ => Act::Set(next),
    }
}
