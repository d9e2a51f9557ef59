// SPDX-License-Identifier: MIT OR Apache-2.0

//! The kernel's forwarder: what it has, and what it is told.

use super::{
    config::Panic,
    plan::{plan, Known, Plan}, //
};
use nlb_netlink::{Endpoint, EndpointChange, Error, Event, Fwd, Group, Monitor, Service};
use std::{
    thread,
    time::Duration, //
};
use tokio::sync::mpsc;
use tracing::{debug, info};

const ENOENT: i32 = 2;

/// A handle that is opened when it is needed: the module may be loaded later, or anew.
#[derive(Default)]
pub(crate) struct Forwarder(Option<Fwd>);

impl Forwarder {
    /// Makes and carries out a plan. If that was not possible, why; some of it may be done. Blocks.
    pub(crate) fn apply(&mut self, known: &Known, panic: Panic) -> Result<Plan, String> {
        let outcome = self.try_apply(known, panic);
        if !matches!(outcome, Ok(_) | Err(Error::Refused(_))) {
            self.0 = None;
        }
        outcome.map_err(|error| error.to_string())
    }

    fn try_apply(&mut self, known: &Known, panic: Panic) -> Result<Plan, Error> {
        let fwd = match &mut self.0 {
            Some(fwd) => fwd,
            none => none.insert(Fwd::open()?),
        };
        loop {
            let services: Vec<_> = fwd.services()?.iter().map(Service::key).collect();
            let endpoints: Vec<Endpoint> = fwd.endpoints(None)?;
            let plan = plan(known, panic, &services, &endpoints);
            let mut is_whole = true;
            for change in &plan.changes {
                match fwd.endpoint_set(&change.service, change.host, change.change) {
                    Ok(()) => tell(change.service, change.host, &change.change),
                    // Somebody has removed it meanwhile.
                    Err(Error::Refused(refusal)) if refusal.errno == ENOENT => is_whole = false,
                    Err(error) => return Err(error),
                }
            }
            if is_whole {
                return Ok(plan);
            }
        }
    }
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
