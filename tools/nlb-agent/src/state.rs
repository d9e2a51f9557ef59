// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a restart of the agent must not lose: the applications that have registered, their health, capacity and load,
//! what shall get no new connections; and the number of this life. Without it nothing is worse than at first.

use crate::{
    app::Spec,
    request::{ClosedName, HealthName},
};
use nlb_daemon::state;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io,
    path::Path, //
};

/// What is kept.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Saved {
    pub(crate) epoch: u64,
    /// Which boot of the machine it was.
    pub(crate) boot: String,
    pub(crate) apps: BTreeMap<String, SavedApp>,
}

/// What is kept of an application.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct SavedApp {
    /// If it is not in the configuration file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) registered: Option<Registered>,
    /// What was reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) health: Option<HealthName>,
    /// The worst that its checks have found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) found: Option<Found>,
    /// If a program has told another than the configuration file has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) capacity: Option<Capacity>,
    /// If there was any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) load: Option<Load>,
    /// If it shall get no new connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<ClosedName>,
    /// The user with whose program it ends, if there is such a program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) holder: Option<u32>,
}

/// What checks have found, and of what.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Found {
    pub(crate) health: HealthName,
    pub(crate) spec: Spec,
}

/// The capacity of an application of the configuration file. It holds until the file has another one than then.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Capacity {
    pub(crate) of_file: u8,
    pub(crate) told: u8,
}

/// The load that load balancing units were told last, in percent.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Load {
    pub(crate) percent: u8,
    /// It was not only measured.
    pub(crate) is_reported: bool,
}

/// An application that has registered.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Registered {
    pub(crate) uid: u32,
    pub(crate) spec: Spec,
}

impl Saved {
    /// What of it holds in this boot. Applications of an earlier one have ended: what they have reported, and what was
    /// found and measured, says nothing of those that are there now.
    pub(crate) fn in_boot(mut self, boot: &str) -> Self {
        if self.boot != boot {
            self.boot = boot.to_owned();
            for app in self.apps.values_mut() {
                app.health = None;
                app.found = None;
                app.capacity = None;
                app.load = None;
            }
        }
        self
    }

    /// Reads it. A file that is not there is empty.
    pub(crate) fn load(path: &Path) -> io::Result<Self> {
        let remedy = "it is written anew, and applications have to register again";
        state::load(path, remedy)
    }
}
