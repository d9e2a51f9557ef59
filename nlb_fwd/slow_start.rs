// SPDX-License-Identifier: GPL-2.0

//! The work that makes schedules anew while endpoints have a slow start.

use crate::{
    service::Service,
    state::{
        Forwarder,
        STATE, //
    },
};
use kernel::{
    prelude::*,
    sync::{
        rcu,
        Arc, //
    },
};
use nlb::{
    net::netns::WeakNet,
    sync::rhashtable::{
        Position,
        Scan, //
    },
    time,
    work::{
        DelayedWork,
        Trigger, //
    },
};

/// How often steps are taken, if any are due.
const INTERVAL_MS: u32 = 250;

/// The work of a namespace, which waits until [`begin`] is called.
pub(crate) fn work(weak: WeakNet) -> Result<DelayedWork> {
    DelayedWork::new(move |trigger: &Trigger| {
        let Some(net) = weak.upgrade() else {
            return;
        };
        // Not held while the schedules are made: that waits for readers.
        let Some(forwarder) = STATE.get_arc(&net) else {
            return;
        };
        if forwarder.take_steps() {
            trigger.schedule(INTERVAL_MS);
        }
    })
}

/// Has the work begin, if the service has a slow start.
pub(crate) fn begin(forwarder: &Forwarder, service: &Service) {
    let now = time::jiffies();
    let starts = service.slow_starts(&rcu::read_lock(), now);
    if starts.due || starts.under_way {
        forwarder.slow_start.schedule(INTERVAL_MS);
    }
}

impl Forwarder {
    /// Makes the schedules anew in which a step is due. Whether there will be more to do.
    fn take_steps(&self) -> bool {
        let mut position = Position::default();
        let mut under_way = false;
        // The same for all, so that a service is due once at most.
        let now = time::jiffies();
        loop {
            let mut due: Option<Arc<Service>> = None;
            let done = self
                .services
                .scan(&rcu::read_lock(), &mut position, |service| {
                    let starts = service.slow_starts(&rcu::read_lock(), now);
                    under_way |= starts.under_way;
                    if starts.due {
                        due = Some(service.clone());
                        return Scan::Stop;
                    }
                    Scan::Continue
                });
            if let Some(service) = due {
                let _lock = self.config.lock();
                // Without memory, the next time.
                if service.step(now).is_err() {
                    return true;
                }
                under_way = true;
            } else if done {
                return under_way;
            }
        }
    }
}
