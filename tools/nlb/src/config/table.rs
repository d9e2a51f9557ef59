// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a file can say: the kinds of objects, and the attributes of each.
//!
//! The values are those that the command `add` of the kind takes: a file's entry is read by the
//! same parser. So a new keyword there needs one line here, and a test fails without it.

use std::fmt::Display;

use clap::ArgMatches;
use nlb_netlink::{
    Algorithm,
    Destination,
    Endpoint,
    EndpointState,
    Forward,
    Forwarder,
    Keep,
    Peer,
    PeerKey,
    Proto,
    Rule,
    RuleAction,
    Scheduler,
    Service,
    ServiceKey,
    ServiceMode, //
};

use super::{
    Entry,
    Setting, //
};
use crate::prefix::Source;

/// What a file manages, in the order in which it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Forwarder,
    Peer,
    Key,
    Keep,
    Rule,
    Service,
    Endpoint,
}

/// How a kind is written.
pub(crate) struct Shape {
    pub(crate) kind: Kind,
    /// Name of its tables in a file.
    pub(crate) table: &'static str,
    /// With an article, for messages.
    pub(crate) noun: &'static str,
    /// Key of a table's name, and what one looks like.
    pub(crate) name: (&'static str, &'static str),
    /// The object on the command line.
    pub(crate) object: &'static [&'static str],
    /// The keyword of the name, if it has one there; that of a part follows the owner's.
    pub(crate) keyword: Option<&'static str>,
    /// Name of the parts it has.
    pub(crate) part: Option<Kind>,
    /// The name that was parsed, as this program writes it.
    pub(crate) given: fn(&ArgMatches) -> Option<String>,
    pub(crate) attributes: &'static (dyn Attributes + Sync),
}

/// What an attribute is when a file does not name it.
#[derive(Clone, Copy)]
pub(crate) enum Otherwise {
    /// Absent in the kernel, too.
    Nothing,
    /// What this machine has chosen.
    Any,
    /// What `add` makes of it.
    Is(&'static str),
    /// The same, but only in this mode of a service, and absent in others.
    IsInMode(&'static str, &'static str),
    /// The same, but only for services of TCP.
    IsForTcp(&'static str),
    /// The same, but only for services of UDP in mode l4.
    IsForUdp(&'static str),
    /// The number of bits of a service's address, in mode l4.
    Bits,
    /// The object's name.
    Name,
}

/// What is done when an attribute of an object is another one than a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is set.
    Set,
    /// The object is removed and added.
    Anew,
    /// Nothing: it cannot be seen.
    Unseen,
}

/// An attribute of objects that the kernel shows as a `T`.
pub(crate) struct Attribute<T> {
    keyword: &'static str,
    otherwise: Otherwise,
    change: Change,
    /// What the kernel says, as this program writes it.
    read: fn(&T) -> Option<String>,
    /// What was parsed, as this program writes it.
    given: fn(&ArgMatches, &str) -> Option<String>,
}

/// An attribute whose value the command line parses into a `V`.
const fn attribute<V, T>(
    keyword: &'static str,
    otherwise: Otherwise,
    change: Change,
    read: fn(&T) -> Option<String>,
) -> Attribute<T>
where
    V: Display + Clone + Send + Sync + 'static,
{
    Attribute {
        keyword,
        otherwise,
        change,
        read,
        given: given::<V>,
    }
}

/// A keyword without value.
const fn flag<T>(
    keyword: &'static str,
    change: Change,
    read: fn(&T) -> Option<String>,
) -> Attribute<T> {
    Attribute {
        keyword,
        otherwise: Otherwise::Nothing,
        change,
        read,
        given: |matches, id| set(matches.get_flag(id)),
    }
}

/// The argument `id` as this program writes it.
fn given<V>(matches: &ArgMatches, id: &str) -> Option<String>
where
    V: Display + Clone + Send + Sync + 'static,
{
    text(matches.get_one::<V>(id))
}

fn text<V: Display>(value: Option<V>) -> Option<String> {
    value.map(|value| value.to_string())
}

fn yes_or_no(value: Option<bool>) -> Option<String> {
    text(value.map(|value| if value { "yes" } else { "no" }))
}

fn set(flag: bool) -> Option<String> {
    flag.then(|| "true".to_owned())
}

use Change::{
    Anew,
    Set,
    Unseen, //
};
use Otherwise::{
    Any,
    Bits,
    Is,
    IsForTcp,
    IsForUdp,
    IsInMode,
    Name,
    Nothing, //
};

const FORWARDER: &[Attribute<Forwarder>] = &[];

const PEER: &[Attribute<Peer>] = &[
    attribute::<u16, _>("port", Is("4770"), Anew, |peer| text(peer.port)),
    flag("unauthenticated", Anew, |peer| set(peer.unauthenticated)),
];

const KEY: &[Attribute<PeerKey>] = &[
    attribute::<u8, _>("recv-id", Name, Anew, |key| text(Some(key.recv_id))),
    attribute::<Algorithm, _>("algorithm", Is("hmac-sha256"), Anew, |key| {
        text(key.algorithm)
    }),
    Attribute {
        keyword: "secret-file",
        otherwise: Nothing,
        change: Unseen,
        read: |_| None,
        given: |matches, id| {
            let path = matches.get_one::<std::path::PathBuf>(id)?;
            Some(path.to_str()?.to_owned())
        },
    },
];

const KEEP: &[Attribute<Keep>] = &[attribute::<u32, _>("bytes", Nothing, Anew, |keep| {
    text(keep.bytes)
})];

const RULE: &[Attribute<Rule>] = &[
    attribute::<RuleAction, _>(BARE, Nothing, Anew, |rule| text(rule.action)),
    attribute::<Source, _>("from", Is("any"), Anew, |rule| text(Some(Source::of(rule)))),
    attribute::<Destination, _>("to", Nothing, Anew, |rule| text(rule.to())),
    attribute::<Proto, _>("proto", Nothing, Anew, |rule| match rule.vip_port {
        Some(_) => None,
        None => text(rule.proto),
    }),
];

const SERVICE: &[Attribute<Service>] = &[
    attribute::<ServiceMode, _>("mode", Is("l4"), Anew, |service| text(service.mode)),
    attribute::<Scheduler, _>("scheduler", IsInMode("l4", "wrr"), Set, |service| {
        text(service.scheduler)
    }),
    attribute::<u32, _>("affinity", IsInMode("l4", "0"), Set, |service| {
        text(service.affinity_timeout)
    }),
    attribute::<u32, _>("prefix", Bits, Set, |service| text(service.affinity_prefix)),
    attribute::<u32, _>("slow-start", IsInMode("l4", "0"), Set, |service| {
        text(service.slow_start)
    }),
    attribute::<u32, _>("idle-timeout", Is("0"), Set, |service| {
        text(service.idle_timeout)
    }),
    attribute::<u32, _>("fin-timeout", IsForTcp("0"), Set, |service| {
        text(service.fin_timeout)
    }),
    attribute::<u32, _>("syn-timeout", IsForTcp("0"), Set, |service| {
        text(service.syn_timeout)
    }),
    attribute::<u32, _>("miss-timeout", IsForTcp("0"), Set, |service| {
        text(service.miss_timeout)
    }),
    Attribute {
        keyword: "one-packet",
        otherwise: IsForUdp("no"),
        change: Set,
        read: |service| yes_or_no(service.one_packet),
        given: |matches, id| yes_or_no(matches.get_one::<bool>(id).copied()),
    },
    attribute::<u16, _>("classifier", Nothing, Anew, |service| {
        text(service.classifier_port)
    }),
];

const ENDPOINT: &[Attribute<Endpoint>] = &[
    attribute::<Forward, _>("via", Is("tunnel"), Anew, |endpoint| text(endpoint.forward)),
    attribute::<u16, _>("port", Any, Anew, |endpoint| text(endpoint.host_port)),
    attribute::<u16, _>("tun-port", Any, Anew, |endpoint| text(endpoint.tun_port)),
    Attribute {
        keyword: "tun-csum",
        otherwise: Any,
        change: Anew,
        read: |endpoint| yes_or_no(endpoint.tun_csum),
        given: |matches, id| yes_or_no(matches.get_one::<bool>(id).copied()),
    },
    attribute::<u32, _>("weight", Is("1"), Set, |endpoint| text(endpoint.weight)),
    attribute::<EndpointState, _>("state", Is("active"), Set, |endpoint| text(endpoint.state)),
    attribute::<u32, _>("max-routes", Is("0"), Set, |endpoint| {
        text(endpoint.max_routes)
    }),
    attribute::<u32, _>("resume-routes", Is("0"), Set, |endpoint| {
        text(endpoint.resume_routes)
    }),
    Attribute {
        keyword: "backup",
        otherwise: Is("no"),
        change: Set,
        read: |endpoint| yes_or_no(endpoint.backup),
        given: |matches, id| yes_or_no(matches.get_one::<bool>(id).copied()),
    },
    attribute::<std::net::IpAddr, _>("source", Any, Anew, |endpoint| text(endpoint.source_addr)),
];

/// The attribute that the command line has without its keyword.
pub(crate) const BARE: &str = "action";

/// Numbers that are smaller than the largest of their type.
pub(crate) const LIMITS: &[(&str, u64)] = &[
    ("weight", 65535),
    ("affinity", 31 * 24 * 3600),
    ("prefix", 128),
    ("slow-start", 3600),
    ("idle-timeout", 31 * 24 * 3600),
    ("fin-timeout", 31 * 24 * 3600),
    ("syn-timeout", 31 * 24 * 3600),
    ("miss-timeout", 5000),
];

/// All kinds; [`Kind`] is the index.
pub(crate) static SHAPES: [Shape; 7] = [
    Shape {
        kind: Kind::Forwarder,
        table: "forwarder",
        noun: "a forwarder",
        name: ("addr", "\"10.0.2.1\""),
        object: &["forwarder"],
        keyword: None,
        part: None,
        given: |matches| given::<std::net::IpAddr>(matches, "addr"),
        attributes: &FORWARDER,
    },
    Shape {
        kind: Kind::Peer,
        table: "peer",
        noun: "a peer",
        name: ("addr", "\"10.0.2.2\""),
        object: &["peer"],
        keyword: None,
        part: Some(Kind::Key),
        given: |matches| given::<std::net::IpAddr>(matches, "addr"),
        attributes: &PEER,
    },
    Shape {
        kind: Kind::Key,
        table: "key",
        noun: "a key",
        name: ("id", "1"),
        object: &["peer", "key"],
        keyword: Some("id"),
        part: None,
        given: |matches| given::<u8>(matches, "id"),
        attributes: &KEY,
    },
    Shape {
        kind: Kind::Keep,
        table: "keep",
        noun: "a keep",
        name: ("vip", "\"192.0.2.10:80\""),
        object: &["keep"],
        keyword: None,
        part: None,
        given: |matches| given::<std::net::SocketAddr>(matches, "vip"),
        attributes: &KEEP,
    },
    Shape {
        kind: Kind::Rule,
        table: "rule",
        noun: "a rule",
        name: ("priority", "10"),
        object: &["rule"],
        keyword: Some("priority"),
        part: None,
        given: |matches| given::<u32>(matches, "priority"),
        attributes: &RULE,
    },
    Shape {
        kind: Kind::Service,
        table: "service",
        noun: "a service",
        name: ("vip", "\"192.0.2.10:80/tcp\""),
        object: &["service"],
        keyword: None,
        part: Some(Kind::Endpoint),
        given: |matches| given::<ServiceKey>(matches, "service"),
        attributes: &SERVICE,
    },
    Shape {
        kind: Kind::Endpoint,
        table: "endpoint",
        noun: "an endpoint",
        name: ("host", "\"10.0.2.2\""),
        object: &["endpoint"],
        keyword: Some("host"),
        part: None,
        given: |matches| given::<std::net::IpAddr>(matches, "host"),
        attributes: &ENDPOINT,
    },
];

impl Kind {
    /// How it is written.
    pub(crate) fn shape(self) -> &'static Shape {
        let [forwarder, peer, key, keep, rule, service, endpoint] = &SHAPES;
        match self {
            Self::Forwarder => forwarder,
            Self::Peer => peer,
            Self::Key => key,
            Self::Keep => keep,
            Self::Rule => rule,
            Self::Service => service,
            Self::Endpoint => endpoint,
        }
    }

    /// The kinds that are no parts of others.
    pub(crate) fn wholes() -> impl Iterator<Item = Self> {
        let all = SHAPES.iter().map(|shape| shape.kind);
        all.filter(|kind| kind.owner().is_none())
    }

    /// The kind whose parts these are.
    pub(crate) fn owner(self) -> Option<Self> {
        let mut owners = SHAPES.iter().filter(|shape| shape.part == Some(self));
        owners.next().map(|shape| shape.kind)
    }
}

/// The attributes of a kind, whatever the kernel shows its objects as.
pub(crate) trait Attributes {
    /// Their keywords.
    fn keywords(&self) -> Vec<&'static str>;
    /// What was parsed, with what is not named filled in. `id` is the argument's with a keyword.
    fn given(
        &self,
        name: &str,
        matches: &ArgMatches,
        id: &dyn Fn(&str) -> Option<String>,
    ) -> Vec<Setting>;
}

impl<T> Attributes for &'static [Attribute<T>] {
    fn keywords(&self) -> Vec<&'static str> {
        self.iter().map(|attribute| attribute.keyword).collect()
    }

    fn given(
        &self,
        name: &str,
        matches: &ArgMatches,
        id: &dyn Fn(&str) -> Option<String>,
    ) -> Vec<Setting> {
        let mut settings: Vec<Setting> = Vec::with_capacity(self.len());
        for attribute in *self {
            let given = id(attribute.keyword).and_then(|id| (attribute.given)(matches, &id));
            let in_mode = |wanted| {
                let mut modes = settings.iter().filter(|own| own.keyword == "mode");
                modes.any(|mode| mode.value.as_deref() == Some(wanted))
            };
            let value = given.or_else(|| match attribute.otherwise {
                Nothing | Any => None,
                Is(value) => Some(value.to_owned()),
                IsInMode(mode, value) => in_mode(mode).then(|| value.to_owned()),
                IsForTcp(value) => name.ends_with("/tcp").then(|| value.to_owned()),
                IsForUdp(value) => {
                    let is_udp = name.ends_with("/udp") && in_mode("l4");
                    is_udp.then(|| value.to_owned())
                }
                Bits if !in_mode("l4") => None,
                Bits => Some(if name.starts_with('[') { "128" } else { "32" }.to_owned()),
                Name => Some(name.to_owned()),
            });
            let any = value.is_none() && matches!(attribute.otherwise, Any);
            settings.push(Setting {
                keyword: attribute.keyword,
                value,
                any,
                change: attribute.change,
            });
        }
        settings
    }
}

/// What the kernel shows.
fn shown<T>(kind: Kind, attributes: &[Attribute<T>], name: String, object: &T) -> Entry {
    let setting = |attribute: &Attribute<T>| Setting {
        keyword: attribute.keyword,
        value: (attribute.read)(object),
        any: false,
        change: attribute.change,
    };
    Entry {
        kind,
        name,
        port: 0,
        shares_name: false,
        settings: attributes.iter().map(setting).collect(),
        parts: Vec::new(),
        place: None,
    }
}

impl From<&Forwarder> for Entry {
    fn from(forwarder: &Forwarder) -> Self {
        let name = forwarder.addr.to_string();
        shown(Kind::Forwarder, FORWARDER, name, forwarder)
    }
}

impl From<&Peer> for Entry {
    fn from(peer: &Peer) -> Self {
        let mut entry = shown(Kind::Peer, PEER, peer.addr.to_string(), peer);
        let mut keys: Vec<_> = peer.keys.iter().collect();
        keys.sort_by_key(|key| !key.preferred);
        let key = |key: &PeerKey| shown(Kind::Key, KEY, key.send_id.to_string(), key);
        entry.parts = keys.into_iter().map(key).collect();
        entry
    }
}

impl From<&Keep> for Entry {
    fn from(keep: &Keep) -> Self {
        let vip = std::net::SocketAddr::new(keep.vip_addr, keep.vip_port);
        shown(Kind::Keep, KEEP, vip.to_string(), keep)
    }
}

impl From<&Rule> for Entry {
    fn from(rule: &Rule) -> Self {
        shown(Kind::Rule, RULE, rule.priority.to_string(), rule)
    }
}

impl From<&Service> for Entry {
    fn from(service: &Service) -> Self {
        shown(Kind::Service, SERVICE, service.key().to_string(), service)
    }
}

impl From<&Endpoint> for Entry {
    fn from(endpoint: &Endpoint) -> Self {
        let name = endpoint.host_addr.to_string();
        let mut entry = shown(Kind::Endpoint, ENDPOINT, name, endpoint);
        entry.note_port(Some(&endpoint.service().to_string()), endpoint.host_port);
        entry
    }
}
