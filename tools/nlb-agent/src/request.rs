// SPDX-License-Identifier: MIT OR Apache-2.0

//! What applications and people say over the local socket: a line of JSON each. `Documentation/health.rst` has them.

use nlb_health::row::{Directive, Health};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// A request.
#[derive(Debug, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Request {
    /// An application has started, or says anew what it is.
    Register {
        app: String,
        vip: String,
        physical: Option<SocketAddr>,
        protocol: Option<String>,
        detail: Option<String>,
        capacity: Option<u8>,
        health: Option<HealthName>,
        /// It ends with this connection.
        #[serde(default)]
        hold: bool,
    },
    /// It ends.
    Unregister { app: String },
    /// It works, or not.
    Health { app: String, health: HealthName },
    /// It is busy to so many percent.
    Load { app: String, load: u8 },
    /// What it can take, compared with others of its kind.
    Capacity { app: String, capacity: u8 },
    /// It shall get no new connections.
    Drain {
        app: String,
        #[serde(default)]
        state: ClosedName,
    },
    /// It shall get them again.
    Undo { app: String },
    /// What is in the table.
    Show {
        #[serde(default)]
        app: Option<String>,
    },
}

/// [`Health`] in words.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum HealthName {
    Unknown,
    Healthy,
    Failing,
}

impl From<HealthName> for Health {
    fn from(name: HealthName) -> Self {
        match name {
            HealthName::Unknown => Self::Unknown,
            HealthName::Healthy => Self::Healthy,
            HealthName::Failing => Self::Failing,
        }
    }
}

impl From<Health> for HealthName {
    fn from(health: Health) -> Self {
        match health {
            Health::Unknown => Self::Unknown,
            Health::Healthy => Self::Healthy,
            Health::Failing => Self::Failing,
        }
    }
}

/// The states in which an application gets no new connections.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ClosedName {
    /// Those that it has go on.
    #[default]
    Draining,
    /// They do not.
    Inactive,
}

impl From<ClosedName> for Directive {
    fn from(name: ClosedName) -> Self {
        match name {
            ClosedName::Draining => Self::Draining,
            ClosedName::Inactive => Self::Inactive,
        }
    }
}

impl ClosedName {
    /// The state, unless it is active.
    pub(crate) fn of(directive: Directive) -> Option<Self> {
        match directive {
            Directive::Active => None,
            Directive::Draining => Some(Self::Draining),
            Directive::Inactive => Some(Self::Inactive),
        }
    }
}
