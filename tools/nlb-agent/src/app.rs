// SPDX-License-Identifier: MIT OR Apache-2.0

//! An application: what it is, who has said so, and how it is.

use crate::{check::Check, load::Measure, systemd::Phase};
use nlb_health::row::{AppId, AppType, Directive, Health, Identity};
use nlb_netlink::{Proto, ServiceKey};
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, time::Instant};

/// What an application is, in the terms of FIG. 13A.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Spec {
    pub(crate) vip: SocketAddr,
    pub(crate) transport: u8,
    pub(crate) physical: SocketAddr,
    pub(crate) protocol: String,
    pub(crate) detail: String,
    pub(crate) capacity: u8,
}

impl Spec {
    /// Whether it is the same endpoint, whatever its capacity.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }

    pub(crate) fn identity(&self) -> Identity {
        Identity {
            app_type: AppType {
                vip: self.vip,
                transport: self.transport,
                protocol: self.protocol.clone(),
                detail: self.detail.clone(),
            },
            physical: self.physical,
        }
    }

    /// Whether load balancing units may take both for the same endpoint: a host of a service, whatever its port there.
    pub(crate) fn shares_endpoint(&self, other: &Self) -> bool {
        let of = |spec: &Self| (spec.vip.ip(), spec.transport, spec.physical.ip());
        let (one, two) = (self.vip.port(), other.vip.port());
        of(self) == of(other) && (one == two || one == 0 || two == 0)
    }

    /// The service, as load balancing units name it.
    pub(crate) fn service(&self) -> ServiceKey {
        ServiceKey::at(self.vip, Proto(self.transport.into()))
    }
}

/// Who has said that there is such an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The configuration file, which may name a user, and has this capacity.
    File { uid: Option<u32>, capacity: u8 },
    /// A user, and the connection with which it ends.
    Registered { uid: u32, held_by: Option<u64> },
}

fn badness(health: Health) -> u8 {
    match health {
        Health::Healthy => 0,
        Health::Unknown => 1,
        Health::Failing => 2,
    }
}

/// The unit of systemd that an application is, and what is known of it.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) name: String,
    /// As it was seen last, in this life.
    pub(crate) phase: Option<Phase>,
    /// What that says of the application, and why it is not running; nothing, if nobody can look.
    pub(crate) verdict: Option<(Health, Option<String>)>,
}

/// An application, and all that is said of it.
#[derive(Debug)]
pub(crate) struct App {
    /// Its row in the table, which goes with its unit.
    pub(crate) row: Option<AppId>,
    pub(crate) spec: Spec,
    pub(crate) origin: Origin,
    pub(crate) unit: Option<Unit>,
    pub(crate) checks: Vec<Check>,
    pub(crate) verdicts: Vec<(Health, Option<String>)>,
    pub(crate) reported: Option<Health>,
    pub(crate) measure: Option<Measure>,
    /// When its load was reported last.
    pub(crate) load_at: Option<Instant>,
    pub(crate) wanted: Directive,
}

impl App {
    /// What its checks and its unit say.
    fn verdicts(&self) -> impl Iterator<Item = &(Health, Option<String>)> {
        let unit = self.unit.as_ref();
        let unit = unit.and_then(|unit| unit.verdict.as_ref());
        self.verdicts.iter().chain(unit)
    }

    /// The worst that anybody says; unknown, if nobody says anything.
    pub(crate) fn health(&self) -> Health {
        let all = self.verdicts().map(|(health, _)| *health);
        all.chain(self.reported)
            .max_by_key(|health| badness(*health))
            .unwrap_or(Health::Unknown)
    }

    /// The worst that checks and the unit have found, and why; without them, what was reported.
    pub(crate) fn found(&self) -> (Health, Option<String>) {
        let worst = self.verdicts().max_by_key(|(health, _)| badness(*health));
        let reported = || (self.reported.unwrap_or(Health::Unknown), None);
        worst.cloned().unwrap_or_else(reported)
    }

    /// The worst that checks and the unit have found, if all have found something.
    pub(crate) fn worst_found(&self) -> Option<Health> {
        let all = || self.verdicts().map(|(health, _)| *health);
        let worst = all().max_by_key(|health| badness(*health));
        let is_blind = |unit: &Unit| unit.verdict.is_none();
        worst.filter(|_| {
            all().all(|health| health != Health::Unknown)
                && !self.unit.as_ref().is_some_and(is_blind)
        })
    }

    /// Whether it is in the table: not if its unit is seen to be inactive.
    pub(crate) fn is_there(&self) -> bool {
        let phase = self.unit.as_ref().and_then(|unit| unit.phase);
        phase != Some(Phase::Inactive)
    }

    /// What load balancing units shall do: what somebody wants, and no new connections unless its unit runs. That it does
    /// not is no opinion, as a check's is: there is nobody to take them, however many others are failing.
    pub(crate) fn target(&self) -> Directive {
        let phase = self.unit.as_ref().and_then(|unit| unit.phase);
        match self.wanted {
            Directive::Active if phase.is_some_and(|phase| phase != Phase::Running) => {
                Directive::Draining
            }
            wanted => wanted,
        }
    }

    /// The user with whose program it ends.
    pub(crate) fn holder(&self) -> Option<u32> {
        match self.origin {
            Origin::Registered { uid, held_by } => held_by.map(|_| uid),
            Origin::File { .. } => None,
        }
    }

    /// Why it is not healthy, or shall get nothing, in words.
    pub(crate) fn why(&self) -> Option<String> {
        if self.reported == Some(Health::Failing) {
            return Some("it was reported".to_owned());
        }
        let unit = self.unit.as_ref();
        // The unit first: checks of what does not run find nothing else.
        let verdicts = unit.and_then(|unit| unit.verdict.as_ref()).into_iter();
        let mut all = verdicts.chain(&self.verdicts);
        all.find_map(|(_, why)| why.clone()).or_else(|| {
            let unit = unit.filter(|unit| unit.verdict.is_none())?;
            Some(format!("nothing is known of unit {}", unit.name))
        })
    }

    pub(crate) fn is_of(&self, uid: u32) -> bool {
        match self.origin {
            Origin::File { uid: owner, .. } => owner == Some(uid),
            Origin::Registered { uid: owner, .. } => owner == uid,
        }
    }
}
