// SPDX-License-Identifier: MIT OR Apache-2.0

//! systemd, the control manager of the host: what it says over D-Bus (org.freedesktop.systemd1) of the units that
//! applications are.
//!
//! Signals say when to look, and nothing else: a look asks for all units at once, so that none is lost, and what is not
//! seen in between does not matter.

use futures_core::Stream;
use serde::{de::DeserializeOwned, Serialize};
use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    future::poll_fn,
    pin::{pin, Pin},
    time::{Duration, Instant},
};
use tokio::{
    sync::mpsc,
    time::{interval_at, sleep, timeout, MissedTickBehavior},
};
use tracing::{info, warn};
use zbus::{
    connection::Builder,
    fdo::DBusProxy,
    message::Type,
    names::{BusName, OwnedUniqueName},
    zvariant::{self, DynamicType, ObjectPath, OwnedObjectPath, Value},
    Connection, MatchRule, Message, MessageStream,
};

const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const UNITS: &str = "/org/freedesktop/systemd1/unit";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const PEER: &str = "org.freedesktop.DBus.Peer";
const BUS: &str = "org.freedesktop.DBus";

/// Longest name of a unit, in bytes.
const NAME_MAX: usize = 255;
/// Units that may be what an application is.
const KINDS: [&str; 3] = ["service", "scope", "target"];
/// So long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// So often it is asked whether systemd answers.
const PING: Duration = Duration::from_secs(5);
/// After so many of them it is looked at the units, whatever signals have said.
const PINGS: u32 = 6;
/// Until it is tried again after a failure.
const RETRY: Duration = Duration::from_secs(1);
/// [`Watch::blind`], as of a check that looks each second.
pub(crate) const BLIND: Duration = Duration::from_secs(20);

/// Whether it may be the name of a unit that an application is; what is wrong, if not.
pub(crate) fn is_unit(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    let parts = name.rsplit_once('.');
    let (stem, kind) = parts.unwrap_or_default();
    let is_known = KINDS.contains(&kind) && !stem.is_empty() && !stem.starts_with('@');
    if !is_known || name.len() > NAME_MAX || !name.chars().all(fits) {
        return Err(format!(
            "unit is the name of a {} of systemd, such as \"nginx.service\"",
            KINDS.join(", ")
        ));
    }
    if stem.ends_with('@') {
        return Err(format!(
            "unit {name} is a template; name an instance, such as \"{stem}a.{kind}\""
        ));
    }
    Ok(())
}

/// What becomes of an application by its unit (FIG. 13A: a row comes and goes with the application).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It runs, and may get connections.
    Running,
    /// It is about to run.
    Starting,
    /// It is about to end, perhaps to begin anew.
    Stopping,
    /// It has ended, and should not have.
    Failed,
    /// It is not there.
    Inactive,
}

/// A unit as systemd describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct UnitState {
    /// Whether there is such a unit.
    pub(crate) load: String,
    pub(crate) active: String,
    pub(crate) sub: String,
    /// What systemd is about to do with it, if anything.
    pub(crate) job: String,
}

impl UnitState {
    pub(crate) fn phase(&self) -> Phase {
        let is_asked = matches!(self.job.as_str(), "stop" | "restart");
        match self.active.as_str() {
            // It has ended, and is started again after a while.
            "activating" if self.sub.starts_with("auto-restart") => Phase::Failed,
            "active" | "reloading" | "refreshing" | "activating" if is_asked => Phase::Stopping,
            "active" | "reloading" | "refreshing" => Phase::Running,
            "activating" => Phase::Starting,
            "deactivating" => Phase::Stopping,
            "inactive" => Phase::Inactive,
            // It is "failed", in "maintenance", or what later versions know.
            _ => Phase::Failed,
        }
    }
}

impl fmt::Display for UnitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.load != "loaded" && self.phase() == Phase::Inactive {
            return write!(f, "{}", self.load);
        }
        match self.job.as_str() {
            "" => write!(f, "{} ({})", self.active, self.sub),
            job => write!(f, "{} ({}), {job} job", self.active, self.sub),
        }
    }
}

/// What was seen of units.
#[derive(Debug)]
pub(crate) struct Sight {
    /// Since when units are these: each reading of the configuration counts.
    pub(crate) generation: u64,
    /// All of them; or why nobody can look any more.
    pub(crate) units: Result<Vec<(String, UnitState)>, String>,
}

/// Why nobody can look, in words.
#[derive(Debug)]
struct Trouble(String);

impl<E: std::error::Error> From<E> for Trouble {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// A watch over units.
pub(crate) struct Watch {
    /// The address of the bus; the system's, if there is none.
    pub(crate) bus: Option<String>,
    pub(crate) units: Vec<String>,
    /// See [`Sight::generation`].
    pub(crate) generation: u64,
    /// So long nobody could look before nothing is known any more.
    pub(crate) blind: Duration,
    pub(crate) sights: mpsc::Sender<Sight>,
}

impl Watch {
    /// Watches for ever, and tells what changes.
    pub(crate) async fn run(self) {
        // Since when nobody can look, and whether that was told.
        let mut blind: Option<(Instant, bool)> = None;
        loop {
            let Err(Trouble(why)) = self.session(&mut blind).await;
            let (since, is_told) = blind.get_or_insert_with(|| {
                warn!("cannot ask systemd for units: {why}; it is tried again");
                (Instant::now(), false)
            });
            if !*is_told && since.elapsed() >= self.blind {
                *is_told = true;
                self.tell(Err(why)).await;
            }
            sleep(RETRY).await;
        }
    }

    /// Who is told may be gone.
    async fn tell(&self, units: Result<Vec<(String, UnitState)>, String>) {
        let generation = self.generation;
        let _ = self.sights.send(Sight { generation, units }).await;
    }

    /// Looks when there is something to see, for as long as bus and systemd are there.
    async fn session(&self, blind: &mut Option<(Instant, bool)>) -> Result<Infallible, Trouble> {
        let begun = Session::begin(self.bus.as_deref());
        let mut session = timeout(ANSWER, begun).await??;
        let mut pings = interval_at(tokio::time::Instant::now() + PING, PING);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut until_look = PINGS;
        loop {
            if std::mem::take(&mut session.is_due) {
                let before: Vec<_> = session.states().cloned().collect();
                session.look(&self.units).await?;
                if blind.take().is_some() {
                    info!("systemd can be asked for units again");
                }
                if !session.states().eq(&before) {
                    let names = self.units.iter().cloned();
                    let units = names.zip(session.states().cloned());
                    self.tell(Ok(units.collect())).await;
                }
                continue;
            }
            tokio::select! {
                message = next(&mut session.messages) => session.note(message)?,
                _ = pings.tick() => {
                    session.call::<_, ()>(PEER, "Ping", &()).await?;
                    until_look -= 1;
                    if until_look == 0 {
                        until_look = PINGS;
                        session.is_due = true;
                    }
                }
            }
        }
    }
}

/// An answer of ListUnitsByNames has of each unit: name, description, load, active and sub state, whom it follows, its
/// object, and number, type and object of its job.
type Listed = (
    String,
    String,
    String,
    String,
    String,
    String,
    OwnedObjectPath,
    u32,
    String,
    OwnedObjectPath,
);

/// A unit as it was seen last.
struct Seen {
    state: UnitState,
    /// Its name in signals, which may be another one: names of units may be aliases.
    id: String,
    object: OwnedObjectPath,
    /// The number of its job, or 0.
    job: u32,
}

/// A connection to the bus.
struct Session {
    connection: Connection,
    messages: MessageStream,
    /// Who systemd is there: others may send signals to anybody.
    owner: OwnedUniqueName,
    /// In the order of units.
    seen: Vec<Seen>,
    /// Something may have changed.
    is_due: bool,
}

impl Session {
    /// Connects, and has systemd send signals.
    async fn begin(bus: Option<&str>) -> Result<Self, Trouble> {
        let builder = match bus {
            Some(address) => Builder::address(address)?,
            None => Builder::system()?,
        };
        let connection = builder.method_timeout(ANSWER).build().await?;
        let bus = DBusProxy::new(&connection).await?;
        let signals = || MatchRule::builder().msg_type(Type::Signal);
        let owners = signals().sender(BUS)?.member("NameOwnerChanged")?;
        let manager = |member| {
            let signals = signals().sender(NAME)?.path(PATH)?.interface(MANAGER)?;
            zbus::Result::Ok(signals.member(member)?.build())
        };
        // Of all units: how many rules there may be is limited.
        let units = signals().sender(NAME)?.path_namespace(UNITS)?;
        let units = units.interface(PROPERTIES)?.member("PropertiesChanged")?;
        let rules = [
            owners.add_arg(NAME)?.build(),
            manager("JobNew")?,
            manager("JobRemoved")?,
            manager("Reloading")?,
            units.add_arg(UNIT)?.build(),
        ];
        for rule in rules {
            bus.add_match_rule(rule).await?;
        }
        // Before it is asked who systemd is, so that no change of it gets lost.
        let messages = MessageStream::from(&connection);
        let owner = bus.get_name_owner(BusName::try_from(NAME)?).await?;
        let mut session = Self {
            messages,
            connection,
            owner,
            seen: Vec::new(),
            is_due: true,
        };
        session.call::<_, ()>(MANAGER, "Subscribe", &()).await?;
        Ok(session)
    }

    fn states(&self) -> impl Iterator<Item = &UnitState> {
        self.seen.iter().map(|seen| &seen.state)
    }

    /// Calls a method of systemd. Messages are noted meanwhile, as the answer would not come before they are read.
    async fn call<B, R>(&mut self, interface: &str, method: &str, body: &B) -> Result<R, Trouble>
    where
        B: Serialize + DynamicType + Sync,
        R: DeserializeOwned + zvariant::Type,
    {
        let connection = self.connection.clone();
        let call = connection.call_method(Some(NAME), PATH, Some(interface), method, body);
        let mut call = pin!(call);
        loop {
            tokio::select! {
                // What comes behind the answer is compared with what it says.
                biased;
                answer = &mut call => return Ok(answer?.body().deserialize()?),
                message = next(&mut self.messages) => self.note(message)?,
            }
        }
    }

    /// Looks at all units.
    async fn look(&mut self, units: &[String]) -> Result<(), Trouble> {
        // It loads units that are not, and reads their files for it: not to be done without need.
        let listed: Vec<Listed> = self.call(MANAGER, "ListUnitsByNames", &(units,)).await?;
        if listed.len() != units.len() {
            return Err(Trouble("systemd has answered of other units".to_owned()));
        }
        let seen = |(id, _, load, active, sub, _, object, job, kind, _): Listed| Seen {
            state: UnitState {
                load,
                active,
                sub,
                job: kind,
            },
            id,
            object,
            job,
        };
        self.seen = listed.into_iter().map(seen).collect();
        Ok(())
    }

    /// Whether there is something to see.
    fn note(&mut self, message: Option<zbus::Result<Message>>) -> Result<(), Trouble> {
        let end = || Trouble("the bus has ended the connection".to_owned());
        let message = message.ok_or_else(end)??;
        let header = message.header();
        let (Type::Signal, Some(sender), Some(member)) =
            (header.message_type(), header.sender(), header.member())
        else {
            return Ok(());
        };
        let body = message.body();
        if sender.as_str() == BUS && member.as_str() == "NameOwnerChanged" {
            let (name, ..): (&str, &str, &str) = body.deserialize()?;
            return match name {
                NAME => Err(Trouble("systemd is about to be another one".to_owned())),
                _ => Ok(()),
            };
        }
        if *sender != *self.owner {
            return Ok(());
        }
        self.is_due |= match member.as_str() {
            "JobNew" => {
                let (_, _, id): (u32, ObjectPath<'_>, &str) = body.deserialize()?;
                self.seen.iter().any(|seen| seen.id == id)
            }
            "JobRemoved" => {
                let (_, _, id, _): (u32, ObjectPath<'_>, &str, &str) = body.deserialize()?;
                self.seen.iter().any(|seen| seen.id == id)
            }
            "Reloading" => true,
            "PropertiesChanged" => {
                let (_, changed, _): (&str, HashMap<&str, Value<'_>>, Vec<&str>) =
                    body.deserialize()?;
                let mut seen = self.seen.iter();
                seen.any(|seen| header.path() == Some(&*seen.object) && seen.differs(&changed))
            }
            _ => false,
        };
        Ok(())
    }
}

impl Seen {
    /// Whether properties are not what was seen. A unit that is not running comes and goes with each look, which is no
    /// reason to look again.
    fn differs(&self, changed: &HashMap<&str, Value<'_>>) -> bool {
        let text = |key, known: &str| {
            let value = changed.get(key);
            value.is_some_and(|value| !matches!(value, Value::Str(text) if text.as_str() == known))
        };
        let job = changed.get("Job").map(|job| match job {
            Value::Structure(job) => job.fields().first() == Some(&Value::U32(self.job)),
            _ => false,
        });
        text("ActiveState", &self.state.active)
            || text("SubState", &self.state.sub)
            || text("LoadState", &self.state.load)
            || job == Some(false)
    }
}

/// The next message.
async fn next(messages: &mut MessageStream) -> Option<zbus::Result<Message>> {
    poll_fn(|context| Pin::new(&mut *messages).poll_next(context)).await
}
