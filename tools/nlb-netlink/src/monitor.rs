// SPDX-License-Identifier: MIT OR Apache-2.0

//! Notifications of all three families.

use std::{
    collections::VecDeque,
    os::fd::{
        AsFd,
        BorrowedFd, //
    },
    time::Duration, //
};

use serde::{
    ser::SerializeMap,
    Serialize,
    Serializer, //
};

use crate::{
    connection::{
        gone_family,
        Endpoint as Socket,
        Resolved,
        CTRL, //
    },
    error::{
        Error,
        Malformed,
        Result, //
    },
    message::{
        Message,
        Messages, //
    },
    object::{
        Allotment,
        Endpoint,
        Mapping,
        Migration,
        Miss,
        Route,
        Rule,
        Service,
        Stats, //
    },
    uapi::{
        fwd,
        migrator,
        tunnel, //
    },
};

/// Room for the notifications of a burst, in bytes; the kernel's limit may make it less.
const RECEIVE_BUFFER: usize = 4 << 20;

const ENOBUFS: i32 = 105;

/// A multicast group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Services, endpoints, allotments and rules of the forwarder, and the limits that it comes to.
    Services,
    /// Routes of the forwarder.
    Routes,
    /// Connections without a route that the forwarder asks about. Who joins says that the packets of
    /// services with a `miss_timeout` shall wait for an answer.
    Misses,
    /// Mappings of the tunnel.
    Mappings,
    /// Migrations.
    Migrations,
}

impl Group {
    /// All groups.
    pub const ALL: [Self; 5] = [
        Self::Services,
        Self::Routes,
        Self::Misses,
        Self::Mappings,
        Self::Migrations,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Routes => "routes",
            Self::Misses => "misses",
            Self::Mappings => "mappings",
            Self::Migrations => "migrations",
        }
    }

    /// Family and name of the group.
    pub fn source(self) -> (&'static str, &'static str) {
        match self {
            Self::Services => (fwd::FAMILY, fwd::MCGRP_EVENTS),
            Self::Routes => (fwd::FAMILY, fwd::MCGRP_ROUTES),
            Self::Misses => (fwd::FAMILY, fwd::MCGRP_MISSES),
            Self::Mappings => (tunnel::FAMILY, tunnel::MCGRP_MAPPINGS),
            Self::Migrations => (migrator::FAMILY, migrator::MCGRP_MIGRATIONS),
        }
    }
}

/// Something happened in the kernel. Serialised as the event's name and the object.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A service was added.
    Service(Service),
    /// A service was removed.
    ServiceDel(Service),
    /// An endpoint was added or changed.
    Endpoint(Endpoint),
    /// An endpoint was removed.
    EndpointDel(Endpoint),
    /// An allotment was set, or is low or over.
    Allotment(Allotment),
    /// An allotment was taken back.
    AllotmentDel(Allotment),
    /// A rule was added.
    Rule(Rule),
    /// A rule was removed.
    RuleDel(Rule),
    /// A route was added.
    Route(Route),
    /// A route was removed or expired.
    RouteDel(Route),
    /// A connection without a route is asked about.
    Miss(Miss),
    /// These limits of the forwarder have refused something in the last second; with what they have
    /// refused so far.
    Limit(Stats),
    /// A mapping was added or changed its state.
    Mapping(Mapping),
    /// A mapping was removed.
    MappingDel(Mapping),
    /// A migration reached its end or a migrated connection was closed.
    Migration(Box<Migration>),
    /// The receiver was too slow, and some events are lost.
    Overrun,
}

impl Event {
    /// The notification's name in the specification, without `-ntf`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Service(_) => "service",
            Self::ServiceDel(_) => "service-del",
            Self::Endpoint(_) => "endpoint",
            Self::EndpointDel(_) => "endpoint-del",
            Self::Allotment(_) => "allotment",
            Self::AllotmentDel(_) => "allotment-del",
            Self::Rule(_) => "rule",
            Self::RuleDel(_) => "rule-del",
            Self::Route(_) => "route",
            Self::RouteDel(_) => "route-del",
            Self::Miss(_) => "miss",
            Self::Limit(_) => "limit",
            Self::Mapping(_) => "mapping",
            Self::MappingDel(_) => "mapping-del",
            Self::Migration(_) => "migration",
            Self::Overrun => "overrun",
        }
    }

    /// Parse a message of the family. `None` for a command this crate does not know.
    fn decode(family: &str, cmd: u8, attrs: &[u8]) -> Result<Option<Self>, Malformed> {
        let event = match (family, cmd) {
            (fwd::FAMILY, fwd::cmd::SERVICE_NTF) => Self::Service(Service::decode(attrs)?),
            (fwd::FAMILY, fwd::cmd::SERVICE_DEL_NTF) => Self::ServiceDel(Service::decode(attrs)?),
            (fwd::FAMILY, fwd::cmd::ENDPOINT_NTF) => Self::Endpoint(Endpoint::decode(attrs)?),
            (fwd::FAMILY, fwd::cmd::ENDPOINT_DEL_NTF) => {
                Self::EndpointDel(Endpoint::decode(attrs)?)
            }
            (fwd::FAMILY, fwd::cmd::ALLOTMENT_NTF) => Self::Allotment(Allotment::decode(attrs)?),
            (fwd::FAMILY, fwd::cmd::ALLOTMENT_DEL_NTF) => {
                Self::AllotmentDel(Allotment::decode(attrs)?)
            }
            (fwd::FAMILY, fwd::cmd::RULE_NTF) => Self::Rule(Rule::decode(attrs)?),
            (fwd::FAMILY, fwd::cmd::RULE_DEL_NTF) => Self::RuleDel(Rule::decode(attrs)?),
            (fwd::FAMILY, fwd::cmd::ROUTE_NTF) => Self::Route(Route::decode(attrs)?),
            (fwd::FAMILY, fwd::cmd::ROUTE_DEL_NTF) => Self::RouteDel(Route::decode(attrs)?),
            (fwd::FAMILY, fwd::cmd::MISS_NTF) => Self::Miss(Miss::decode(attrs)?),
            (fwd::FAMILY, fwd::cmd::LIMIT_NTF) => Self::Limit(Stats::decode(fwd::FAMILY, attrs)?),
            (tunnel::FAMILY, tunnel::cmd::MAPPING_NTF) => Self::Mapping(Mapping::decode(attrs)?),
            (tunnel::FAMILY, tunnel::cmd::MAPPING_DEL_NTF) => {
                Self::MappingDel(Mapping::decode(attrs)?)
            }
            (migrator::FAMILY, migrator::cmd::MIGRATION_NTF) => {
                Self::Migration(Box::new(Migration::decode(attrs)?))
            }
            _ => return Ok(None),
        };
        Ok(Some(event))
    }
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("event", self.name())?;
        match self {
            Self::Service(service) | Self::ServiceDel(service) => {
                map.serialize_entry("service", service)?;
            }
            Self::Endpoint(endpoint) | Self::EndpointDel(endpoint) => {
                map.serialize_entry("endpoint", endpoint)?;
            }
            Self::Allotment(allotment) | Self::AllotmentDel(allotment) => {
                map.serialize_entry("allotment", allotment)?;
            }
            Self::Rule(rule) | Self::RuleDel(rule) => map.serialize_entry("rule", rule)?,
            Self::Route(route) | Self::RouteDel(route) => map.serialize_entry("route", route)?,
            Self::Miss(miss) => map.serialize_entry("miss", miss)?,
            Self::Limit(stats) => map.serialize_entry("limit", stats)?,
            Self::Mapping(mapping) | Self::MappingDel(mapping) => {
                map.serialize_entry("mapping", mapping)?;
            }
            Self::Migration(migration) => map.serialize_entry("migration", migration)?,
            Self::Overrun => {}
        }
        map.end()
    }
}

/// A subscription to notifications of the calling thread's network namespace.
pub struct Monitor {
    socket: Socket,
    groups: Vec<Group>,
    families: Vec<(u16, &'static str)>,
    pending: VecDeque<Result<Event>>,
}

impl Monitor {
    /// Subscribe to groups. Families whose module is not loaded are left out; if that leaves
    /// nothing, it is the error.
    pub fn open(groups: &[Group]) -> Result<Self> {
        let socket = Socket::open()?;
        // A smaller buffer only makes an overrun likelier, and that is reported.
        let _ = socket.socket().set_rx_buf_sz(RECEIVE_BUFFER);
        // Who waits for an answer reads past what is told meanwhile.
        let mut resolver = Socket::open()?;
        // First, so that none of the families goes unheard.
        let (control, notify) = CTRL;
        join(&socket, &resolver.resolve(control)?, notify)?;
        let mut families = Vec::new();
        let mut joined = Vec::new();
        let mut missing = None;
        for group in groups {
            let (family, name) = group.source();
            let resolved = match resolver.resolve(family) {
                Ok(resolved) => resolved,
                Err(error @ Error::FamilyMissing(_)) => {
                    missing = Some(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            join(&socket, &resolved, name)?;
            families.push((resolved.id, family));
            joined.push(*group);
        }
        match missing {
            Some(error) if families.is_empty() => Err(error),
            _ => Ok(Self {
                socket,
                groups: joined,
                families,
                pending: VecDeque::new(),
            }),
        }
    }

    /// The groups that were joined.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The next event, or `None` when the time is over. No time means for ever.
    ///
    /// After [`Error::FamilyGone`], nothing of that family comes any more, also if its module is loaded anew: open
    /// another one.
    pub fn next(&mut self, timeout: Option<Duration>) -> Result<Option<Event>> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return event.map(Some);
            }
            match self.socket.receive(timeout) {
                Ok(None) => return Ok(None),
                Ok(Some(datagram)) => {
                    for message in Messages::new(datagram) {
                        let event = message
                            .map_err(Error::from)
                            .and_then(|message| decode(&self.families, &message));
                        self.pending.extend(event.transpose());
                    }
                }
                Err(error) if error.errno() == Some(ENOBUFS) => {
                    self.look_for_the_gone()?;
                    return Ok(Some(Event::Overrun));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// What was lost may have been that a family is gone.
    fn look_for_the_gone(&mut self) -> Result<()> {
        let mut resolver = Socket::open()?;
        let mut families = self.families.clone();
        families.dedup();
        for (id, family) in families {
            match resolver.resolve(family) {
                Ok(resolved) if resolved.id == id => {}
                Ok(_) | Err(Error::FamilyMissing(_)) => {
                    let gone = Error::FamilyGone(family.to_owned());
                    self.pending.push_back(Err(gone));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.socket().as_fd()
    }
}

/// Has the socket get what is sent to a group of a family.
fn join(socket: &Socket, family: &Resolved, name: &'static str) -> Result<()> {
    let id = family.groups.iter().find(|(other, _)| other == name);
    let (_, id) = id.ok_or(Error::GroupMissing(name))?;
    let joined = socket.socket().add_membership(*id);
    joined.map_err(|error| Error::Io("cannot join a multicast group", error))
}

fn decode(families: &[(u16, &'static str)], message: &Message<'_>) -> Result<Option<Event>> {
    let family_of = |id: u16| {
        let own = families.iter().find(|(other, _)| *other == id);
        own.map(|(_, family)| *family)
    };
    if let Some(gone) = gone_family(message)? {
        return match family_of(gone) {
            Some(family) => Err(Error::FamilyGone(family.to_owned())),
            // Somebody else's.
            None => Ok(None),
        };
    }
    let Some(family) = family_of(message.kind) else {
        return Ok(None);
    };
    let (cmd, attrs) = message.genl()?;
    Ok(Event::decode(family, cmd, attrs)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::Request;

    #[test]
    fn a_notification_becomes_an_event() {
        let bytes = Request::new(tunnel::cmd::MAPPING_DEL_NTF)
            .u32(tunnel::mapping::SIDE, 2)
            .u32(tunnel::mapping::FLOW_ID, 0xee48_0001)
            .finish(0x22, 0)
            .unwrap();
        let message = Messages::new(&bytes).next().unwrap().unwrap();
        let families = [(0x21, fwd::FAMILY), (0x22, tunnel::FAMILY)];
        let event = decode(&families, &message).unwrap().unwrap();
        assert_eq!(
            serde_json::to_string(&event).unwrap(),
            r#"{"event":"mapping-del","mapping":{"side":"host","flow_id":"0xee480001","static":false}}"#
        );
        assert!(decode(&families[..1], &message).unwrap().is_none());
        // The migrator has no command with this number.
        assert!(decode(&[(0x22, migrator::FAMILY)], &message)
            .unwrap()
            .is_none());
    }

    #[test]
    fn a_family_that_is_gone_is_an_error() {
        // CTRL_CMD_DELFAMILY of the controller, with CTRL_ATTR_FAMILY_ID.
        let bytes = Request::new(2).put(1, &0x22u16.to_ne_bytes());
        let bytes = bytes.finish(0x10, 0).unwrap();
        let message = Messages::new(&bytes).next().unwrap().unwrap();
        let families = [(0x21, fwd::FAMILY), (0x22, tunnel::FAMILY)];
        match decode(&families, &message) {
            Err(Error::FamilyGone(family)) => assert_eq!(family, tunnel::FAMILY),
            other => panic!("{other:?}"),
        }
        assert!(decode(&families[..1], &message).unwrap().is_none());
    }

    #[test]
    fn after_an_overrun_it_is_known_who_is_gone() {
        let monitor = |families| Monitor {
            socket: Socket::open().unwrap(),
            groups: Vec::new(),
            families,
            pending: VecDeque::new(),
        };
        let (control, _) = CTRL;
        // The controller is always there, by the same number.
        let mut there = monitor(vec![(0x10, control), (0x10, control)]);
        there.look_for_the_gone().unwrap();
        assert!(there.pending.is_empty());
        let mut gone = monitor(vec![
            (0x10, control),
            (0x11, control),
            (0x21, "nlb-not-there"),
        ]);
        gone.look_for_the_gone().unwrap();
        for family in [control, "nlb-not-there"] {
            match gone.next(Some(Duration::ZERO)) {
                Err(Error::FamilyGone(name)) => assert_eq!(name, family),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn without_modules_the_family_is_named() {
        // Runs on machines with and without the modules.
        match Monitor::open(&[Group::Migrations]) {
            Ok(_) => assert!(crate::family_is_loaded(migrator::FAMILY).unwrap()),
            Err(Error::FamilyMissing(family)) => assert_eq!(family, migrator::FAMILY),
            Err(other) => panic!("{other}"),
        }
    }

    proptest! {
        #[test]
        fn no_notification_panics(cmd in any::<u8>(), attrs in proptest::collection::vec(any::<u8>(), 0..80)) {
            for family in [fwd::FAMILY, tunnel::FAMILY, migrator::FAMILY] {
                let _ = Event::decode(family, cmd, &attrs);
            }
        }
    }
}
