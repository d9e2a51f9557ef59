// SPDX-License-Identifier: MIT OR Apache-2.0

//! What distributes connections and is governed by plans: the kernel's forwarder, or a proxy of somebody else's.

use super::{
    allot::{Allotted, Orders},
    config::Panic,
    plan::{plan, AllGone, Cause, Change, Known, Place, Plan, Seat},
};
use nlb_netlink::{EndpointChange, EndpointState, ServiceKey};
use std::collections::BTreeSet;
use tracing::{debug, info};

/// How often a plan is made anew because endpoints were removed while it was carried out.
const ROUNDS: usize = 3;

/// One of those that can be governed. What it does may block.
pub(crate) trait Balancer: Send {
    /// What it has, and what that does.
    fn look(&mut self) -> Result<Seen, Trouble>;

    /// Has a change made, of an endpoint of those that were seen last.
    fn set(&mut self, change: &Change) -> Result<(), Refused>;

    /// Brings allotments, if it knows any, to what they shall be when the plan is carried out.
    fn allot(&mut self, _orders: &Orders, _known: &Known, _plan: &Plan) -> Allotted {
        Allotted::default()
    }

    /// What the endpoint of a change is called.
    fn named(&self, change: &Change) -> String {
        change.endpoint().to_string()
    }
}

/// What a balancer has.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) services: Vec<ServiceKey>,
    pub(crate) seats: Vec<Seat>,
    /// Some of it may have begun anew since it was seen before, and not do what it was told.
    pub(crate) is_new: bool,
}

/// Why nothing can be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) what: String,
    /// There is none, so that nobody is sent anything.
    pub(crate) is_absent: bool,
}

impl From<String> for Trouble {
    fn from(what: String) -> Self {
        let is_absent = false;
        Self { what, is_absent }
    }
}

/// Why a change was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Somebody has removed the endpoint meanwhile.
    Gone,
    /// That is no reason not to change others.
    This(String),
    /// Nor will any other be.
    All(String),
}

/// A state that was set, for those who are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Set {
    pub(crate) service: ServiceKey,
    /// What the endpoint is called.
    pub(crate) endpoint: String,
    pub(crate) state: EndpointState,
    pub(crate) cause: Cause,
}

/// What came of a plan.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    pub(crate) plan: Plan,
    /// What is gone, with what was done for it; also if something went wrong.
    pub(crate) gone: AllGone,
    /// What was changed; also if something went wrong.
    pub(crate) made: Vec<Change>,
    /// The states among them.
    pub(crate) set: Vec<Set>,
    /// All is as the plan says, but for what was refused.
    pub(crate) is_through: bool,
    /// Those whose endpoints the balancer would not change.
    pub(crate) refused: BTreeSet<Place>,
    /// Why the balancer is not as it should be.
    pub(crate) trouble: Option<String>,
    /// What came of allotments, if it was looked at them.
    pub(crate) allotted: Option<Allotted>,
}

/// Makes and carries out a plan, as far as that is possible. Blocks.
pub(crate) fn apply(
    balancer: &mut dyn Balancer,
    mut known: Known,
    panic: Panic,
    orders: &Orders,
) -> Applied {
    let mut applied = Applied::default();
    match try_apply(balancer, &mut known, panic, orders, &mut applied) {
        Ok(Some(refused)) => {
            applied.is_through = true;
            applied.trouble = told(&refused, |change| balancer.named(change));
            let changes = refused.iter().map(|(change, _)| change);
            applied.refused = applied.plan.refused(changes);
        }
        Ok(None) => applied.trouble = Some("endpoints are removed all the time".to_owned()),
        Err(Trouble { what, is_absent }) => {
            applied.is_through = is_absent;
            applied.trouble = Some(what);
        }
    }
    applied.gone = known.gone;
    applied
}

/// A change that was refused, and why.
type No = (Change, String);

/// What was refused, if all the rest is done.
fn try_apply(
    balancer: &mut dyn Balancer,
    known: &mut Known,
    panic: Panic,
    orders: &Orders,
    applied: &mut Applied,
) -> Result<Option<Vec<No>>, Trouble> {
    for _ in 0..ROUNDS {
        let seen = balancer.look()?;
        if seen.is_new {
            known.forget_made();
        }
        applied.plan = plan(known, panic, &seen.services, &seen.seats);
        let mut made = Vec::new();
        let outcome = carry_out(&applied.plan.changes, &mut made, |change| {
            balancer.set(change)?;
            applied.set.extend(tell(change, balancer.named(change)));
            Ok(())
        });
        known.credit(&applied.plan, &made);
        applied.made.append(&mut made);
        if let Some(refused) = outcome? {
            // That something was refused is no reason to go by what is old.
            applied.allotted = Some(balancer.allot(orders, known, &applied.plan));
            return Ok(Some(refused));
        }
    }
    Ok(None)
}

/// What is said of changes that were refused.
fn told(refused: &[No], named: impl Fn(&Change) -> String) -> Option<String> {
    let ((change, why), others) = refused.split_first()?;
    let mut what = format!("{} {}: {why}", change.service, named(change));
    if !others.is_empty() {
        what.push_str(&format!(" (and {} others)", others.len()));
    }
    Some(what)
}

/// Has changes made, all that can be: what was refused, if all endpoints were there. `made` are those that were made.
fn carry_out(
    changes: &[Change],
    made: &mut Vec<Change>,
    mut set: impl FnMut(&Change) -> Result<(), Refused>,
) -> Result<Option<Vec<No>>, String> {
    let mut is_whole = true;
    let mut refused = Vec::new();
    for change in changes {
        match set(change) {
            Ok(()) => made.push(*change),
            Err(Refused::Gone) => is_whole = false,
            Err(Refused::This(why)) => refused.push((*change, why)),
            Err(Refused::All(what)) => return Err(what),
        }
    }
    Ok(is_whole.then_some(refused))
}

/// Says what was changed; the state, if it is another.
fn tell(change: &Change, endpoint: String) -> Option<Set> {
    let (service, cause) = (change.service, change.cause);
    let EndpointChange { state, weight, .. } = change.change;
    if let Some(state) = state {
        info!(%service, host = endpoint, "endpoint is {state}: {}", cause.name());
    } else if let Some(weight) = weight {
        debug!(%service, host = endpoint, "endpoint has weight {weight}");
    }
    state.map(|state| Set {
        service,
        endpoint,
        state,
        cause,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(last: u8) -> Change {
        Change {
            number: last.into(),
            service: "192.0.2.10:80/tcp".parse().unwrap(),
            host: [10, 0, 0, last].into(),
            port: None,
            change: EndpointChange {
                state: Some(EndpointState::Draining),
                ..EndpointChange::default()
            },
            cause: Cause::Failing,
        }
    }

    #[test]
    fn one_endpoint_that_is_refused_does_not_stop_others() {
        let changes: Vec<_> = (1..=4).map(change).collect();
        let all = |of: &dyn Fn(u8) -> Result<(), Refused>| {
            let mut made = Vec::new();
            let mut numbers = 1..;
            let outcome = carry_out(&changes, &mut made, |_| of(numbers.next().unwrap()));
            let told = |all: Vec<No>| told(&all, |change| change.host.to_string());
            (outcome.map(|refused| refused.map(told)), made)
        };
        assert_eq!(all(&|_| Ok(())), (Ok(Some(None)), changes.clone()));
        // Who is gone needs another plan.
        let of = |number: u8| match number {
            2 => Err(Refused::Gone),
            _ => Ok(()),
        };
        let others = vec![changes[0], changes[2], changes[3]];
        assert_eq!(all(&of), (Ok(None), others));
        // The first reason is told, and what it was about.
        let of = |number: u8| match number {
            1 | 3 => Err(Refused::This(format!("no {number}"))),
            _ => Ok(()),
        };
        let what = "192.0.2.10:80/tcp 10.0.0.1: no 1 (and 1 others)".to_owned();
        let others = vec![changes[1], changes[3]];
        assert_eq!(all(&of), (Ok(Some(Some(what))), others));
        // Where there is nobody to ask, nothing more is asked.
        let of = |number: u8| match number {
            2 => Err(Refused::All("no answer".to_owned())),
            _ => Ok(()),
        };
        assert_eq!(all(&of), (Err("no answer".to_owned()), vec![changes[0]]));
    }
}
