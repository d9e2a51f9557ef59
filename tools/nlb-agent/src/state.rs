// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a restart of the agent must not lose: the applications that have registered, their health, what shall get no
//! new connections; and the number of this life. Without it nothing is worse than at first.

use crate::{
    app::Spec,
    request::{ClosedName, HealthName},
};
use nlb_daemon::state;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
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

/// An application that has registered.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Registered {
    pub(crate) uid: u32,
    pub(crate) spec: Spec,
}

/// Which boot of the machine this is, as the kernel names it.
pub(crate) fn boot() -> io::Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let read = fs::read_to_string(path);
    read.map(|boot| boot.trim().to_owned())
        .map_err(|error| io::Error::new(error.kind(), format!("cannot read {path}: {error}")))
}

impl Saved {
    /// What of it holds in this boot. Applications of an earlier one have ended: what they have reported, and what was
    /// found, says nothing of those that are there now.
    pub(crate) fn in_boot(mut self, boot: &str) -> Self {
        if self.boot != boot {
            self.boot = boot.to_owned();
            for app in self.apps.values_mut() {
                app.health = None;
                app.found = None;
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
