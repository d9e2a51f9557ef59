// SPDX-License-Identifier: MIT OR Apache-2.0

//! What can be said of an application. `Documentation/health.rst` has the lines that this becomes.

use crate::{json::Text, Error};
use std::{fmt, net::SocketAddr};

/// Whether an application works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// It is not known; it gets no new connections.
    Unknown,
    /// It handles requests.
    #[default]
    Healthy,
    /// It does not; it gets no new connections.
    Failing,
}

impl Health {
    /// As requests and answers have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Failing => "failing",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        let all = [Self::Unknown, Self::Healthy, Self::Failing];
        all.into_iter().find(|health| health.name() == name)
    }
}

/// A state in which an application gets no new connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Closed {
    /// Those that it has go on.
    #[default]
    Draining,
    /// They are cut off.
    Inactive,
}

impl Closed {
    /// As requests and answers have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Inactive => "inactive",
        }
    }
}

/// What an application is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Its name on this host: 1 to 63 letters, digits, "-", "_" and ".".
    pub app: String,
    /// The service, as load balancing units name it: "192.0.2.10:80/tcp"; with "*" for the port, all of its ports.
    pub vip: String,
    /// Where it listens: the host's address and the service's port, if nothing is said.
    pub physical: Option<SocketAddr>,
    /// What is spoken, such as "http".
    pub protocol: Option<String>,
    /// What tells it from others at the same port, such as a pattern of URLs.
    pub detail: Option<String>,
    /// What it can take, compared with others of its kind: 0 to 99; 50 if nothing is said.
    pub capacity: Option<u8>,
    /// Whether it works.
    pub health: Health,
    /// It ends with the connection, when the program ends or crashes.
    pub hold: bool,
}

impl Registration {
    /// A healthy application that ends with its connection.
    pub fn new(app: impl Into<String>, vip: impl Into<String>) -> Self {
        Self {
            app: app.into(),
            vip: vip.into(),
            physical: None,
            protocol: None,
            detail: None,
            capacity: None,
            health: Health::Healthy,
            hold: true,
        }
    }
}

/// A request. As text ([`Display`](fmt::Display)) it is the line that goes to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// There is such an application, or it is something else now.
    Register(&'a Registration),
    /// The application of this name is not there any more.
    Unregister(&'a str),
    /// It works, or not.
    Health(&'a str, Health),
    /// It is busy to so many percent of its capacity, 0 to 100.
    Load(&'a str, u8),
    /// What it can take, 0 to 99.
    Capacity(&'a str, u8),
    /// It shall get no new connections.
    Drain(&'a str, Closed),
    /// It shall get them again.
    Undo(&'a str),
    /// What is in the table: of one, or of all.
    Show(Option<&'a str>),
}

impl Request<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Register(_) => "register",
            Self::Unregister(_) => "unregister",
            Self::Health(..) => "health",
            Self::Load(..) => "load",
            Self::Capacity(..) => "capacity",
            Self::Drain(..) => "drain",
            Self::Undo(_) => "undo",
            Self::Show(_) => "show",
        }
    }
}

impl fmt::Display for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, r#"{{"command":"{}""#, self.name())?;
        let mut text = |name: &str, text: &str| write!(f, r#","{name}":{}"#, Text(text));
        match self {
            Self::Register(own) => {
                text("app", &own.app)?;
                text("vip", &own.vip)?;
                if let Some(physical) = own.physical {
                    text("physical", &physical.to_string())?;
                }
                if let Some(protocol) = &own.protocol {
                    text("protocol", protocol)?;
                }
                if let Some(detail) = &own.detail {
                    text("detail", detail)?;
                }
                text("health", own.health.name())?;
                if let Some(capacity) = own.capacity {
                    write!(f, r#","capacity":{capacity}"#)?;
                }
                write!(f, r#","hold":{}"#, own.hold)?;
            }
            Self::Health(app, health) => {
                text("app", app)?;
                text("health", health.name())?;
            }
            Self::Load(app, load) => {
                text("app", app)?;
                write!(f, r#","load":{load}"#)?;
            }
            Self::Capacity(app, capacity) => {
                text("app", app)?;
                write!(f, r#","capacity":{capacity}"#)?;
            }
            Self::Drain(app, state) => {
                text("app", app)?;
                text("state", state.name())?;
            }
            Self::Unregister(app) | Self::Undo(app) | Self::Show(Some(app)) => text("app", app)?,
            Self::Show(None) => {}
        }
        f.write_str("}")
    }
}

/// `value`, if it is one that the agent takes.
pub(crate) fn up_to(max: u8, what: &str, value: u8) -> Result<u8, Error> {
    if value > max {
        let what = format!("{what} is {value}; it is a number from 0 to {max}");
        return Err(Error::Argument(what));
    }
    Ok(value)
}
