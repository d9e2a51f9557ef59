// SPDX-License-Identifier: MIT OR Apache-2.0

//! The kernel's forwarder: what it has, and what it is told.

use super::{
    allot::{self, Act, Allotted, Orders, Weights},
    balancer::{Balancer, Refused, Seen, Trouble},
    plan::{Change, Known, Plan, Seat},
};
use nlb_netlink::{
    AllotmentState, Endpoint, Error, Event, Fwd, Group, Monitor, Named, NewAllotment, Service,
    ServiceKey,
};
use std::{
    collections::BTreeMap,
    thread,
    time::Duration, //
};
use tokio::sync::mpsc;
use tracing::{debug, info};

const ENOENT: i32 = 2;

/// After this it is tried again to allot what could not be allotted.
const AGAIN: Duration = Duration::from_secs(1);

/// Events that are looked at between two looks at the forwarder. Who makes more does not wait for an answer.
const EVENTS_MAX: usize = 100_000;

/// The kernel's forwarder.
#[derive(Default)]
pub(crate) struct Forwarder {
    /// Handles that are opened when they are needed: the module may be loaded later, or anew. The kernel refuses those of
    /// before then. What has happened since the last look is known before the next one.
    open: Option<(Fwd, Monitor)>,
    /// The endpoints that were seen last.
    endpoints: Vec<Endpoint>,
    /// The allotments that were set last.
    sent: BTreeMap<ServiceKey, NewAllotment>,
}

impl Forwarder {
    fn try_look(&mut self) -> Result<Seen, Error> {
        // It may have been loaded anew, with endpoints that are as somebody has just made them.
        let mut is_new = self.open.is_none();
        let (fwd, monitor) = match &mut self.open {
            Some(open) => open,
            none => {
                let monitor = Monitor::open(&[Group::Services])?;
                none.insert((Fwd::open()?, monitor))
            }
        };
        let services = fwd.services()?.iter().map(Service::key).collect();
        self.endpoints = fwd.endpoints(None)?;
        let seats = self.endpoints.iter().map(Seat::from).collect();
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
        let was_open = self.open.is_some();
        let seen = self.try_look().or_else(|error| {
            self.open = None;
            // The module may have been loaded anew.
            if was_open {
                self.try_look()
            } else {
                Err(error)
            }
        });
        seen.map_err(|error| {
            self.open = None;
            Trouble {
                what: error.to_string(),
                is_absent: matches!(error, Error::FamilyMissing(_)),
            }
        })
    }

    fn set(&mut self, change: &Change) -> Result<(), Refused> {
        let Some((fwd, _)) = &mut self.open else {
            return Err(Refused::All(Error::NoAnswer.to_string()));
        };
        match fwd.endpoint_set(&change.service, change.endpoint(), change.change) {
            Ok(()) => Ok(()),
            Err(Error::Refused(refusal)) if refusal.errno == ENOENT => Err(Refused::Gone),
            Err(error @ Error::Refused(_)) => Err(Refused::This(error.to_string())),
            Err(error) => {
                self.open = None;
                Err(Refused::All(error.to_string()))
            }
        }
    }

    fn allot(&mut self, orders: &Orders, known: &Known, plan: &Plan) -> Allotted {
        let mut allotted = Allotted::default();
        if let Some((fwd, _)) = &mut self.open {
            let weights = allot::weights(orders, known, plan, &self.endpoints);
            allot_all(fwd, orders, &weights, &mut self.sent, &mut allotted);
        }
        allotted
    }
}

/// Brings allotments to what they shall be. What is wrong with one is no reason not to look at the others.
fn allot_all(
    fwd: &mut Fwd,
    orders: &Orders,
    weights: &BTreeMap<ServiceKey, Weights>,
    sent: &mut BTreeMap<ServiceKey, NewAllotment>,
    allotted: &mut Allotted,
) {
    let others = sent.keys().filter(|service| !orders.contains_key(*service));
    for service in others.copied().collect::<Vec<_>>() {
        sent.remove(&service);
        // It may be gone.
        let _ = fwd.allotment_del(&service);
    }
    for (service, order) in orders {
        let after = allot_one(fwd, service, order, weights.get(service), sent, allotted);
        let after = after.unwrap_or_else(|error| {
            let what = || format!("allotment of {service}: {error}");
            allotted.trouble.get_or_insert_with(what);
            Some(AGAIN)
        });
        allotted.again = [allotted.again, after].into_iter().flatten().min();
    }
}

/// The allotment of one service; after how long it has to be looked at again.
fn allot_one(
    fwd: &mut Fwd,
    service: &ServiceKey,
    order: &allot::Order,
    weights: Option<&Weights>,
    sent: &mut BTreeMap<ServiceKey, NewAllotment>,
    allotted: &mut Allotted,
) -> Result<Option<Duration>, Error> {
    let present = match fwd.allotment(service) {
        Ok(present) => Some(present),
        // There is none, or no such service.
        Err(error) if error.errno() == Some(ENOENT) => None,
        Err(error) => return Err(error),
    };
    match allot::act(order, weights, sent.get(service), present.as_ref()) {
        Act::Set(next) => {
            fwd.allotment_set(service, &next)?;
            debug!(%service, "allotted: {:?}", next.shares);
            allotted.set += 1;
            sent.insert(*service, next);
            Ok(Some(order.age / 2))
        }
        Act::Delete => {
            sent.remove(service);
            info!(%service, "nothing to allot by: the scheduler picks");
            match fwd.allotment_del(service) {
                Err(error) if error.errno() != Some(ENOENT) => Err(error),
                _ => Ok(None),
            }
        }
        Act::Wait(after) => Ok(Some(after)),
        Act::Nothing => {
            sent.remove(service);
            Ok(None)
        }
    }
}

/// Says, for as long as somebody listens, that services, endpoints or allotments are others.
pub(crate) fn watch(changed: mpsc::Sender<()>) -> std::io::Result<()> {
    let watch = move || {
        while !changed.is_closed() {
            if let Ok(mut monitor) = Monitor::open(&[Group::Services]) {
                follow(&mut monitor, &changed);
            }
            // The module may be loaded later, or anew.
            thread::sleep(Duration::from_secs(1));
        }
    };
    thread::Builder::new()
        .name("watch".into())
        .spawn(watch)
        .map(drop)
}

/// The same, for as long as nlb_fwd is there.
fn follow(monitor: &mut Monitor, changed: &mpsc::Sender<()>) {
    // What was before is not known.
    let mut event = Ok(Some(Event::Overrun));
    while !changed.is_closed() {
        let concerns = match &event {
            Ok(Some(
                Event::Service(_)
                | Event::ServiceDel(_)
                | Event::Endpoint(_)
                | Event::EndpointDel(_)
                | Event::AllotmentDel(_)
                | Event::Overrun,
            )) => true,
            // Another one is asked for.
            Ok(Some(Event::Allotment(now))) => {
                now.state != Some(Named::Known(AllotmentState::Valid))
            }
            Ok(_) => false,
            Err(error) => {
                if matches!(error, Error::FamilyGone(_)) {
                    info!("nlb_fwd was unloaded");
                }
                true
            }
        };
        if concerns {
            // It is asked already, or nobody is there.
            let _ = changed.try_send(());
        }
        if event.is_err() {
            return;
        }
        event = monitor.next(Some(Duration::from_secs(30)));
    }
}
