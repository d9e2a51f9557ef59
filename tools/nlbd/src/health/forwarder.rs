// SPDX-License-Identifier: MIT OR Apache-2.0

//! The kernel's forwarder: what it has, and what it is told.

use super::{
    config::Panic,
    plan::{plan, AllGone, Change, Known, Place, Plan},
};
use nlb_netlink::{Endpoint, EndpointChange, Error, Event, Fwd, Group, Monitor, Service};
use std::{
    collections::BTreeSet,
    thread,
    time::Duration, //
};
use tokio::sync::mpsc;
use tracing::{debug, info};

const ENOENT: i32 = 2;

/// Events that are looked at between two looks at the forwarder. Who makes more does not wait for an answer.
const EVENTS_MAX: usize = 100_000;

/// How often a plan is made anew because endpoints were removed while it was carried out.
const ROUNDS: usize = 3;

/// What came of a plan.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    pub(crate) plan: Plan,
    /// What is gone, with what was done for it; also if something went wrong.
    pub(crate) gone: AllGone,
    /// All is as the plan says, but for what was refused.
    pub(crate) is_through: bool,
    /// Those whose endpoints the kernel would not change.
    pub(crate) refused: BTreeSet<Place>,
    /// Why the forwarder is not as it should be.
    pub(crate) trouble: Option<String>,
}

/// Handles that are opened when they are needed: the module may be loaded later, or anew. What has happened since the
/// last look is known before the next one.
#[derive(Default)]
pub(crate) struct Forwarder(Option<(Fwd, Monitor)>);

impl Forwarder {
    /// Makes and carries out a plan, as far as that is possible. Blocks.
    pub(crate) fn apply(&mut self, mut known: Known, panic: Panic) -> Applied {
        let mut applied = Applied::default();
        match self.try_apply(&mut known, panic, &mut applied.plan) {
            Ok(Some(refused)) => {
                applied.is_through = true;
                applied.trouble = told(&refused);
                applied.refused = refused_places(&applied.plan, &refused);
            }
            Ok(None) => applied.trouble = Some("endpoints are removed all the time".to_owned()),
            Err(error) => {
                // A module that was loaded anew has another number, and the kernel refuses the one of before.
                self.0 = None;
                // Where there is none, nobody is sent anything.
                applied.is_through = matches!(error, Error::FamilyMissing(_));
                applied.trouble = Some(error.to_string());
            }
        }
        applied.gone = known.gone;
        applied
    }

    /// What was refused, if all the rest is done.
    fn try_apply(
        &mut self,
        known: &mut Known,
        panic: Panic,
        last: &mut Plan,
    ) -> Result<Option<Vec<Refused>>, Error> {
        let (fwd, monitor) = match &mut self.0 {
            Some(open) => open,
            none => {
                // It may have been loaded anew, with endpoints that are as somebody has just made them.
                known.forget_made();
                let monitor = Monitor::open(&[Group::Services])?;
                none.insert((Fwd::open()?, monitor))
            }
        };
        for _ in 0..ROUNDS {
            let services: Vec<_> = fwd.services()?.iter().map(Service::key).collect();
            let endpoints: Vec<Endpoint> = fwd.endpoints(None)?;
            if has_removed(monitor)? {
                known.forget_made();
            }
            *last = plan(known, panic, &services, &endpoints);
            let mut made = Vec::new();
            let outcome = carry_out(&last.changes, &mut made, |change| {
                fwd.endpoint_set(&change.service, change.host, change.change)
            });
            known.credit(last, &made);
            if let Some(refused) = outcome? {
                return Ok(Some(refused));
            }
        }
        Ok(None)
    }
}

/// Whether some of what was there may have been removed since it was looked last: then it may be there anew, as somebody
/// has just made it.
fn has_removed(monitor: &mut Monitor) -> Result<bool, Error> {
    let mut has_removed = false;
    for _ in 0..EVENTS_MAX {
        let Some(event) = monitor.next(Some(Duration::ZERO))? else {
            return Ok(has_removed);
        };
        has_removed |= matches!(
            event,
            Event::ServiceDel(_) | Event::EndpointDel(_) | Event::Overrun
        );
    }
    Ok(true)
}

/// A change that was refused, and why.
type Refused = (Change, Error);

/// What is said of changes that were refused.
fn told(refused: &[Refused]) -> Option<String> {
    let ((change, error), others) = refused.split_first()?;
    let mut what = format!("{} {}: {error}", change.service, change.host);
    if !others.is_empty() {
        what.push_str(&format!(" (and {} others)", others.len()));
    }
    Some(what)
}

/// Where rows are that are not in force, because a change was refused. A weight is in nobody's way.
fn refused_places(plan: &Plan, refused: &[Refused]) -> BTreeSet<Place> {
    let states = refused.iter().filter(|(own, _)| own.change.state.is_some());
    let states: BTreeSet<_> = states.map(|(own, _)| (own.service, own.host)).collect();
    let effects = plan.effects.iter();
    let of =
        effects.filter(|(place, effect)| states.contains(&(effect.service, place.physical.ip())));
    of.map(|(place, _)| *place).collect()
}

/// Has changes made, all that can be: what was refused, if all endpoints were there. `made` are those that were made.
fn carry_out(
    changes: &[Change],
    made: &mut Vec<Change>,
    mut set: impl FnMut(&Change) -> Result<(), Error>,
) -> Result<Option<Vec<Refused>>, Error> {
    let mut is_whole = true;
    let mut refused = Vec::new();
    for change in changes {
        match set(change) {
            Ok(()) => {
                tell(change.service, change.host, &change.change);
                made.push(*change);
            }
            // Somebody has removed it meanwhile.
            Err(Error::Refused(refusal)) if refusal.errno == ENOENT => is_whole = false,
            // That is no reason not to change the others.
            Err(error @ Error::Refused(_)) => refused.push((*change, error)),
            Err(error) => return Err(error),
        }
    }
    Ok(is_whole.then_some(refused))
}

fn tell(service: nlb_netlink::ServiceKey, host: std::net::IpAddr, change: &EndpointChange) {
    match (change.state, change.weight) {
        (Some(state), _) => info!(%service, %host, "endpoint is {state}"),
        (None, Some(weight)) => debug!(%service, %host, "endpoint has weight {weight}"),
        (None, None) => {}
    }
}

/// Says, for as long as somebody listens, that services or endpoints are others.
pub(crate) fn watch(changed: mpsc::Sender<()>) -> std::io::Result<()> {
    let watch = move || loop {
        if let Ok(mut monitor) = Monitor::open(&[Group::Services]) {
            // What was before is not known. A module that was loaded anew sends to nobody of before.
            let mut event = Ok(Some(Event::Overrun));
            while let Ok(Some(what)) = event {
                let concerns = matches!(
                    what,
                    Event::Service(_)
                        | Event::ServiceDel(_)
                        | Event::Endpoint(_)
                        | Event::EndpointDel(_)
                        | Event::Overrun
                );
                if concerns {
                    if let Err(mpsc::error::TrySendError::Closed(())) = changed.try_send(()) {
                        return;
                    }
                }
                event = monitor.next(Some(Duration::from_secs(30)));
            }
        }
        thread::sleep(Duration::from_secs(1));
    };
    thread::Builder::new()
        .name("watch".into())
        .spawn(watch)
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::{super::plan::Effect, *};
    use nlb_netlink::{EndpointState, Refusal};

    fn refused(errno: i32) -> Error {
        Error::Refused(Refusal {
            errno,
            text: None,
            attribute: None,
            code: None,
        })
    }

    fn change(last: u8) -> Change {
        Change {
            service: "192.0.2.10:80/tcp".parse().unwrap(),
            host: [10, 0, 0, last].into(),
            change: EndpointChange {
                state: Some(EndpointState::Draining),
                ..EndpointChange::default()
            },
        }
    }

    #[test]
    fn what_is_refused_concerns_its_own_rows() {
        let place = |last: u8| Place {
            vip: "192.0.2.10:80".parse().unwrap(),
            transport: 6,
            physical: ([10, 0, 0, last], 80).into(),
        };
        let mut plan = Plan::default();
        for last in 1..=3 {
            let effect = Effect {
                service: "192.0.2.10:80/tcp".parse().unwrap(),
                state: EndpointState::Draining,
                weight: 1,
                panic: false,
            };
            plan.effects.insert(place(last), effect);
        }
        let mut heavy = change(2);
        heavy.change = EndpointChange {
            weight: Some(3),
            ..EndpointChange::default()
        };
        let all = [(change(1), refused(22)), (heavy, refused(22))];
        assert_eq!(refused_places(&plan, &all), [place(1)].into());
        assert_eq!(refused_places(&plan, &[]), [].into());
    }

    #[test]
    fn one_endpoint_that_is_refused_does_not_stop_others() {
        let changes: Vec<_> = (1..=4).map(change).collect();
        let all = |of: &dyn Fn(u8) -> Result<(), Error>| {
            let mut made = Vec::new();
            let mut numbers = 1..;
            let outcome = carry_out(&changes, &mut made, |_| of(numbers.next().unwrap()));
            let outcome = outcome.map_err(|error| error.errno());
            (outcome.map(|refused| refused.map(|all| told(&all))), made)
        };
        assert_eq!(all(&|_| Ok(())), (Ok(Some(None)), changes.clone()));
        // Who is gone needs another plan.
        let of = |number: u8| {
            if number == 2 {
                Err(refused(ENOENT))
            } else {
                Ok(())
            }
        };
        let others = vec![changes[0], changes[2], changes[3]];
        assert_eq!(all(&of), (Ok(None), others));
        // The first reason is told, and what it was about.
        let of = |number: u8| match number {
            1 | 3 => Err(refused(20 + i32::from(number))),
            _ => Ok(()),
        };
        let (outcome, made) = all(&of);
        let what = outcome.unwrap().unwrap().unwrap();
        let expected = format!("192.0.2.10:80/tcp 10.0.0.1: {} (and 1 others)", refused(21));
        assert_eq!((what, made), (expected, vec![changes[1], changes[3]]));
        // Where there is nobody to ask, nothing more is asked.
        let of = |number: u8| {
            if number == 2 {
                Err(Error::NoAnswer)
            } else {
                Ok(())
            }
        };
        assert_eq!(all(&of), (Err(None), vec![changes[0]]));
    }
}
