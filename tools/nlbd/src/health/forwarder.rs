// SPDX-License-Identifier: MIT OR Apache-2.0

//! The kernel's forwarder: what it has, and what it is told.

use super::{
    config::Panic,
    plan::{plan, Change, Gone, Known, Place, Plan},
};
use nlb_netlink::{Endpoint, EndpointChange, Error, Event, Fwd, Group, Monitor, Service};
use std::{
    collections::BTreeMap,
    thread,
    time::Duration, //
};
use tokio::sync::mpsc;
use tracing::{debug, info};

const ENOENT: i32 = 2;

/// How often a plan is made anew because endpoints were removed while it was carried out.
const ROUNDS: usize = 3;

/// What came of a plan.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    pub(crate) plan: Plan,
    /// What is gone, with what was done for it; also if something went wrong.
    pub(crate) gone: BTreeMap<Place, Gone>,
    /// Why the forwarder is not as it should be.
    pub(crate) trouble: Option<String>,
}

/// A handle that is opened when it is needed: the module may be loaded later, or anew.
#[derive(Default)]
pub(crate) struct Forwarder(Option<Fwd>);

impl Forwarder {
    /// Makes and carries out a plan, as far as that is possible. Blocks.
    pub(crate) fn apply(&mut self, mut known: Known, panic: Panic) -> Applied {
        let mut plan = Plan::default();
        let trouble = match self.try_apply(&mut known, panic, &mut plan) {
            Ok(true) => None,
            Ok(false) => Some("endpoints are removed all the time".to_owned()),
            Err(error) => {
                // A module that was loaded anew has another number, and the kernel refuses the one of before.
                self.0 = None;
                Some(error.to_string())
            }
        };
        Applied {
            plan,
            gone: known.gone,
            trouble,
        }
    }

    /// Whether all of it is done.
    fn try_apply(
        &mut self,
        known: &mut Known,
        panic: Panic,
        last: &mut Plan,
    ) -> Result<bool, Error> {
        let fwd = match &mut self.0 {
            Some(fwd) => fwd,
            none => none.insert(Fwd::open()?),
        };
        for _ in 0..ROUNDS {
            let services: Vec<_> = fwd.services()?.iter().map(Service::key).collect();
            let endpoints: Vec<Endpoint> = fwd.endpoints(None)?;
            *last = plan(known, panic, &services, &endpoints);
            let mut made = Vec::new();
            let outcome = carry_out(&last.changes, &mut made, |change| {
                fwd.endpoint_set(&change.service, change.host, change.change)
            });
            known.credit(last, &made);
            if outcome? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Has changes made, all that can be: whether all endpoints were there, or else what went wrong first. `made` are those
/// that were made.
fn carry_out(
    changes: &[Change],
    made: &mut Vec<Change>,
    mut set: impl FnMut(&Change) -> Result<(), Error>,
) -> Result<bool, Error> {
    let mut is_whole = true;
    let mut first = None;
    for change in changes {
        match set(change) {
            Ok(()) => {
                tell(change.service, change.host, &change.change);
                made.push(*change);
            }
            // Somebody has removed it meanwhile.
            Err(Error::Refused(refusal)) if refusal.errno == ENOENT => is_whole = false,
            // That is no reason not to change the others.
            Err(error @ Error::Refused(_)) => first = first.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    first.map_or(Ok(is_whole), Err)
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
    use super::*;
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
    fn one_endpoint_that_is_refused_does_not_stop_others() {
        let changes: Vec<_> = (1..=4).map(change).collect();
        let all = |of: &dyn Fn(u8) -> Result<(), Error>| {
            let mut made = Vec::new();
            let mut numbers = 1..;
            let outcome = carry_out(&changes, &mut made, |_| of(numbers.next().unwrap()));
            (outcome.map_err(|error| error.errno()), made)
        };
        assert_eq!(all(&|_| Ok(())), (Ok(true), changes.clone()));
        // Who is gone needs another plan.
        let of = |number: u8| {
            if number == 2 {
                Err(refused(ENOENT))
            } else {
                Ok(())
            }
        };
        let others = vec![changes[0], changes[2], changes[3]];
        assert_eq!(all(&of), (Ok(false), others));
        // The first reason is told.
        let of = |number: u8| match number {
            1 | 3 => Err(refused(20 + i32::from(number))),
            2 => Err(refused(ENOENT)),
            _ => Ok(()),
        };
        assert_eq!(all(&of), (Err(Some(21)), vec![changes[3]]));
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
