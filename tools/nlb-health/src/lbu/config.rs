// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a load balancing unit is told, and what it tells.

use crate::{
    cache::{Limits, RowChange},
    row::{AppId, Row},
};
use std::{net::SocketAddr, time::Duration};

/// How a load balancing unit behaves. [`LbuConfig::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct LbuConfig {
    /// Its id, a number among load balancing units, not 0.
    pub lbu: u32,
    /// Its life: larger than in the life before, such as the time of the start; not 0.
    pub epoch: u64,
    /// Hosts may ask for a longer age limit, and do not get it.
    pub age_limit: Duration,
    /// How much may be cached.
    pub limits: Limits,
    /// What is missing may be under way: so long it is waited for before a snapshot is asked for.
    pub patience: Duration,
    /// Between a request and the next at first; then twice as long each time.
    pub retry: Duration,
    /// And at most.
    pub retry_max: Duration,
    /// A target is in force when the cache has it. Otherwise when [`super::Lbu::in_force`] says so: whoever plumbs
    /// the forwarder knows better.
    pub in_force_at_once: bool,
}

impl LbuConfig {
    /// The defaults for the unit `lbu` in the life `epoch`.
    pub fn new(lbu: u32, epoch: u64) -> Self {
        Self {
            lbu,
            epoch,
            age_limit: Duration::from_secs(30),
            limits: Limits::default(),
            patience: Duration::from_millis(50),
            retry: Duration::from_millis(250),
            retry_max: Duration::from_secs(5),
            in_force_at_once: false,
        }
    }
}

/// What somebody who follows the cache does. See [`super::Lbu::in_force`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InForce {
    /// The virtual address and the transport protocol of rows that concern it; nothing, if all do.
    pub service: Option<(SocketAddr, u8)>,
    /// The version of the cache up to which it does what these rows ask for,
    pub rows: u64,
    /// and the one up to which it has taken out those that are gone.
    pub removals: u64,
}

impl InForce {
    /// It does all of a version of the cache.
    pub fn all(version: u64) -> Self {
        Self {
            service: None,
            rows: version,
            removals: version,
        }
    }

    /// Whether it does what `row` asks for since the version `directed`, or the row does not concern it.
    pub(super) fn has(&self, row: &Row, directed: u64) -> bool {
        let app_type = &row.identity.app_type;
        let own = (app_type.vip, app_type.transport);
        directed <= self.rows || self.service.is_some_and(|service| service != own)
    }
}

/// Why nothing is known of a host any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Down {
    /// It has said goodbye.
    Goodbye,
    /// What is known of it is older than the age limit.
    Aged,
}

/// What the caller should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// All of a host's table is there: for the first time, or after a restart of the host.
    HostUp {
        /// The host.
        host: u32,
    },
    /// Nothing of it is there any more.
    HostDown {
        /// The host.
        host: u32,
        /// Why.
        why: Down,
    },
    /// A host has said what it is called.
    Name {
        /// The host.
        host: u32,
        /// Its DNS name.
        name: String,
    },
    /// A row has changed; [`super::Lbu::cache`] has what it is now.
    Row {
        /// The host.
        host: u32,
        /// The row.
        app: AppId,
        /// In which way.
        change: RowChange,
        /// The version of the cache, for [`super::Lbu::in_force`].
        version: u64,
    },
    /// A host's rows are more than may be cached, and are not.
    Full {
        /// The host.
        host: u32,
    },
    /// The caller has not asked for events for so long that some are gone: all of the cache has to be read.
    Overflow {
        /// The version that the cache has.
        version: u64,
    },
}
