// SPDX-License-Identifier: MIT OR Apache-2.0

//! The kernel's forwarder: what it has, and what it is told.

use super::{
    balancer::{Balancer, Refused, Seen, Trouble},
    plan::{Change, Seat},
};
use nlb_netlink::{Error, Event, Fwd, Group, Monitor, Service};
use std::{
    thread,
    time::Duration, //
};
use tokio::sync::mpsc;

const ENOENT: i32 = 2;

/// Events that are looked at between two looks at the forwarder. Who makes more does not wait for an answer.
const EVENTS_MAX: usize = 100_000;

/// Handles that are opened when they are needed: the module may be loaded later, or anew. The kernel refuses those of
/// before then. What has happened since the last look is known before the next one.
#[derive(Default)]
pub(crate) struct Forwarder(Option<(Fwd, Monitor)>);

impl Forwarder {
    fn try_look(&mut self) -> Result<Seen, Error> {
        // It may have been loaded anew, with endpoints that are as somebody has just made them.
        let mut is_new = self.0.is_none();
        let (fwd, monitor) = match &mut self.0 {
            Some(open) => open,
            none => {
                let monitor = Monitor::open(&[Group::Services])?;
                none.insert((Fwd::open()?, monitor))
            }
        };
        let services = fwd.services()?.iter().map(Service::key).collect();
        let seats = fwd.endpoints(None)?.iter().map(Seat::from).collect();
        is_new |= has_removed(monitor)?;
        Ok(Seen {
            services,
            seats,
            is_new,
        })
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

impl Balancer for Forwarder {
    fn look(&mut self) -> Result<Seen, Trouble> {
        self.try_look().map_err(|error| {
            self.0 = None;
            Trouble {
                what: error.to_string(),
                is_absent: matches!(error, Error::FamilyMissing(_)),
            }
        })
    }

    fn set(&mut self, change: &Change) -> Result<(), Refused> {
        let Some((fwd, _)) = &mut self.0 else {
            return Err(Refused::All(Error::NoAnswer.to_string()));
        };
        match fwd.endpoint_set(&change.service, change.host, change.change) {
            Ok(()) => Ok(()),
            Err(Error::Refused(refusal)) if refusal.errno == ENOENT => Err(Refused::Gone),
            Err(error @ Error::Refused(_)) => Err(Refused::This(error.to_string())),
            Err(error) => {
                self.0 = None;
                Err(Refused::All(error.to_string()))
            }
        }
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
