// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a balancer has to be told, by what is known of applications and what it does now. Nothing here does anything.
//!
//! An endpoint is a host of a service of the forwarder, or a server of a proxy; several rows may be about one, such as
//! of two programs that answer for different URLs. It is as bad as the worst of them. Endpoints that no row is about,
//! and none was, are left alone.

use super::config::Panic;
use nlb_health::row::{Directive, Health, Row, Status};
use nlb_netlink::{
    Endpoint, EndpointChange, EndpointId, EndpointState, Named, Ports, Proto, ServiceKey,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
};

/// Where a row says that its application is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(crate) struct Place {
    pub(crate) vip: SocketAddr,
    pub(crate) transport: u8,
    pub(crate) physical: SocketAddr,
}

impl Place {
    pub(crate) fn of(row: &Row) -> Self {
        let app_type = &row.identity.app_type;
        Self {
            vip: app_type.vip,
            transport: app_type.transport,
            physical: row.identity.physical,
        }
    }
}

/// An endpoint as its balancer shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) service: ServiceKey,
    pub(crate) host: IpAddr,
    /// Its own port; `None`: that of the connection.
    pub(crate) port: Option<u16>,
    pub(crate) state: EndpointState,
    /// `None`: it has none that could be set.
    pub(crate) weight: Option<u32>,
}

impl From<&Endpoint> for Seat {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            service: endpoint.service(),
            host: endpoint.host_addr,
            port: endpoint.host_port,
            state: match endpoint.state {
                Some(Named::Known(state)) => state,
                // A newer kernel's: nobody knows what it does.
                _ => EndpointState::Active,
            },
            weight: Some(endpoint.weight.unwrap_or(1)),
        }
    }
}

/// What is left of rows that are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gone {
    /// What was to be done, at worst, if what is known is too old; nothing, if their host has said that they go.
    pub(crate) silent: Option<Directive>,
    /// What the endpoint was told to do since. Nothing, if it is not there, or is another one of the same name.
    pub(crate) set: Option<EndpointState>,
}

/// By where they were, and of which host.
pub(crate) type AllGone = BTreeMap<(Place, u32), Gone>;

/// All that is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub(crate) rows: Vec<(Place, Status)>,
    pub(crate) gone: AllGone,
}

impl Known {
    /// What was done for what is gone is nobody else's doing when it is looked at again: `made` are those changes of the
    /// plan that were made. Of endpoints that somebody else has changed nothing is left to do.
    pub(crate) fn credit(&mut self, plan: &Plan, made: &[Change]) {
        let mut undone = states(&plan.changes);
        for number in states(made) {
            undone.remove(&number);
        }
        let undone = plan.places_of(&undone);
        self.gone.retain(|(place, _), gone| {
            match plan.effects.get(place) {
                None => gone.set = None,
                Some(effect) if !undone.contains(place) => gone.set = Some(effect.state),
                Some(_) => {}
            }
            !plan.by_hand.contains(place)
        });
    }

    /// Endpoints may be others, of the same names: what they do is nobody's decision.
    pub(crate) fn forget_made(&mut self) {
        self.gone.values_mut().for_each(|gone| gone.set = None);
    }
}

/// The endpoints whose state changes.
fn states<'a>(changes: impl IntoIterator<Item = &'a Change>) -> HashSet<usize> {
    let changes = changes.into_iter();
    let changes = changes.filter(|own| own.change.state.is_some());
    changes.map(|own| own.number).collect()
}

/// Why an endpoint does what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// All that is said of it is good.
    Healthy,
    /// It is not known to be healthy, and gets connections because too many are not.
    Panic,
    /// Nobody has said yet how it is.
    Unknown,
    /// It is said to be failing.
    Failing,
    /// Its host asks for it, or did before it was silent.
    Directive,
    /// Its host is silent: what is known is too old.
    Silent,
    /// Its row is gone: its host has taken it out, or has said goodbye.
    Gone,
}

impl Cause {
    /// The word for it, in the log, in answers and in events.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Panic => "panic",
            Self::Unknown => "unknown",
            Self::Failing => "failing",
            Self::Directive => "directive",
            Self::Silent => "silent",
            Self::Gone => "gone",
        }
    }
}

impl From<Health> for Cause {
    fn from(health: Health) -> Self {
        match health {
            Health::Healthy => Self::Healthy,
            Health::Unknown => Self::Unknown,
            Health::Failing => Self::Failing,
        }
    }
}

/// What the endpoint of a row does, or will when the plan is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Effect {
    /// Which of the endpoints it is that the plan was made for.
    pub(crate) number: usize,
    pub(crate) service: ServiceKey,
    pub(crate) state: EndpointState,
    pub(crate) weight: Option<u32>,
    pub(crate) cause: Cause,
}

impl Change {
    /// The endpoint, as the forwarder knows it.
    pub(crate) fn endpoint(&self) -> EndpointId {
        EndpointId::new(self.host, Some(self.port.unwrap_or(0)))
    }
}

impl Effect {
    /// It is not healthy, and gets connections because too many are not.
    pub(crate) fn is_panic(&self) -> bool {
        self.cause == Cause::Panic
    }
}

/// A change of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// Which of the endpoints it is that the plan was made for.
    pub(crate) number: usize,
    pub(crate) service: ServiceKey,
    pub(crate) host: IpAddr,
    pub(crate) port: Option<u16>,
    pub(crate) change: EndpointChange,
    pub(crate) cause: Cause,
}

/// What has to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Those first by which somebody gets connections.
    pub(crate) changes: Vec<Change>,
    pub(crate) effects: BTreeMap<Place, Effect>,
    /// Those that somebody else has changed since they were gone.
    pub(crate) by_hand: BTreeSet<Place>,
    /// What each endpoint does, if a row is about it.
    pub(crate) by_seat: Vec<Option<Effect>>,
    /// Which endpoints are those of a row.
    seats: Vec<(Place, usize)>,
}

impl Plan {
    /// Where rows are that are not in force, if these changes are refused. A weight is in nobody's way.
    pub(crate) fn refused<'a>(
        &self,
        changes: impl IntoIterator<Item = &'a Change>,
    ) -> BTreeSet<Place> {
        self.places_of(&states(changes))
    }

    fn places_of(&self, numbers: &HashSet<usize>) -> BTreeSet<Place> {
        let seats = self.seats.iter();
        let seats = seats.filter(|(_, number)| numbers.contains(number));
        seats.map(|(place, _)| *place).collect()
    }
}

/// What is said of an endpoint, all together.
#[derive(Clone, Copy, Debug)]
enum Said {
    Status {
        target: Directive,
        health: Health,
        weight: u32,
    },
    Gone(Gone),
}

/// Weight of an application: what is left of its capacity, rounded up, so that one that is busy is not thought
/// to be none.
pub(crate) fn weight(status: &Status) -> u32 {
    let free = 100 - u32::from(status.load.min(100));
    let capacity = u32::from(status.capacity);
    (capacity * free).div_ceil(100).max(u32::from(capacity > 0))
}

fn badness(directive: Directive) -> u8 {
    match directive {
        Directive::Active => 0,
        Directive::Draining => 1,
        Directive::Inactive => 2,
    }
}

pub(super) fn worse(one: Directive, other: Directive) -> Directive {
    if badness(one) < badness(other) {
        other
    } else {
        one
    }
}

fn sicker(one: Health, other: Health) -> Health {
    let all = [Health::Failing, Health::Unknown, Health::Healthy];
    let is_one = |health: &Health| [one, other].contains(health);
    all.into_iter().find(is_one).unwrap_or(one)
}

impl Said {
    fn with(self, other: Self) -> Self {
        match (self, other) {
            (
                Self::Status {
                    target,
                    health,
                    weight,
                },
                Self::Status {
                    target: target2,
                    health: health2,
                    weight: weight2,
                },
            ) => Self::Status {
                target: worse(target, target2),
                health: sicker(health, health2),
                weight: weight.min(weight2),
            },
            (
                Self::Status {
                    target,
                    health,
                    weight,
                },
                Self::Gone(gone),
            )
            | (
                Self::Gone(gone),
                Self::Status {
                    target,
                    health,
                    weight,
                },
            ) => Self::Status {
                // Who has asked for no connections, and was not heard of since, has none.
                target: gone.silent.map_or(target, |silent| worse(target, silent)),
                health,
                weight,
            },
            (Self::Gone(one), Self::Gone(other)) => Self::Gone(Gone {
                silent: match (one.silent, other.silent) {
                    (Some(one), Some(other)) => Some(worse(one, other)),
                    (one, other) => one.or(other),
                },
                set: one.set.filter(|_| one.set == other.set),
            }),
        }
    }
}

/// Without connections that are new, and without taking away others.
fn closed(now: EndpointState) -> EndpointState {
    match now {
        EndpointState::Active => EndpointState::Draining,
        other => other,
    }
}

/// The endpoints by what rows say of them.
struct Index<'a> {
    services: HashMap<(IpAddr, Proto), Vec<Ports>>,
    endpoints: HashMap<(ServiceKey, IpAddr), Vec<(usize, &'a Seat)>>,
}

impl<'a> Index<'a> {
    fn new(services: &[ServiceKey], endpoints: &'a [Seat]) -> Self {
        let mut index = Self {
            services: HashMap::new(),
            endpoints: HashMap::new(),
        };
        for key in services {
            let ports = index.services.entry((key.vip, key.proto)).or_default();
            ports.push(key.ports);
        }
        for (number, endpoint) in endpoints.iter().enumerate() {
            let own = index.endpoints.entry((endpoint.service, endpoint.host));
            own.or_default().push((number, endpoint));
        }
        index
    }

    /// As the forwarder looks for the service of a packet: by its own port, by several, by all.
    fn service(&self, place: &Place) -> Option<ServiceKey> {
        let (vip, port) = (place.vip.ip(), place.vip.port());
        let proto = Proto(place.transport.into());
        let own = self.services.get(&(vip, proto))?;
        let is_own = |ports: &&Ports| match port {
            0 => **ports == Ports::ALL,
            port => ports.contains(port),
        };
        let ports = own.iter().filter(is_own);
        let ports = ports.min_by_key(|ports| u32::from(ports.last) - u32::from(ports.first))?;
        Some(ServiceKey::new(vip, *ports, proto))
    }

    fn find<'b>(&'b self, place: &'b Place) -> impl Iterator<Item = usize> + use<'a, 'b> {
        let key = self.service(place).map(|key| (key, place.physical.ip()));
        let own = key.and_then(|key| self.endpoints.get(&key));
        let own = own.map(Vec::as_slice).unwrap_or_default();
        // Beside an endpoint with that very port, another one there is somebody else's.
        let port = place.physical.port();
        let is_named = port > 0 && own.iter().any(|(_, seat)| seat.port == Some(port));
        let own = own.iter().filter(move |(_, endpoint)| {
            let is_its = |port| [0, port].contains(&place.physical.port());
            endpoint.port.map_or(!is_named, is_its)
        });
        own.map(|(number, _)| *number)
    }
}

/// Makes a plan. `services` and `endpoints` are what the balancer has.
pub(crate) fn plan(
    known: &Known,
    panic: Panic,
    services: &[ServiceKey],
    endpoints: &[Seat],
) -> Plan {
    let index = Index::new(services, endpoints);
    let mut said: Vec<Option<Said>> = vec![None; endpoints.len()];
    let mut places = Vec::new();
    let rows = known.rows.iter().map(|(place, status)| {
        let said = Said::Status {
            target: status.target,
            health: status.health,
            weight: weight(status),
        };
        (place, said)
    });
    let gone = known.gone.iter();
    let gone = gone.map(|((place, _), gone)| (place, Said::Gone(*gone)));
    for (place, more) in rows.chain(gone) {
        for number in index.find(place) {
            places.push((*place, number));
            if let Some(said) = said.get_mut(number) {
                *said = Some(said.map_or(more, |said| said.with(more)));
            }
        }
    }
    let mut plan = Plan::default();
    for (place, number) in &places {
        let (Some(said), Some(endpoint)) = (said.get_mut(*number), endpoints.get(*number)) else {
            continue;
        };
        match said {
            Some(Said::Gone(Gone { set: Some(set), .. })) if *set != endpoint.state => {
                *said = None;
            }
            Some(_) => continue,
            // Another row was there.
            None => {}
        }
        plan.by_hand.insert(*place);
    }
    let panics = panics(&said, panic, endpoints);
    let effects: Vec<_> = said
        .iter()
        .zip(endpoints)
        .enumerate()
        .map(|(number, (said, endpoint))| {
            let panics = panics.get(&endpoint.service).copied();
            said.map(|said| effect(said, number, endpoint, panics.unwrap_or_default()))
        })
        .collect();
    for (effect, endpoint) in effects.iter().zip(endpoints) {
        let change = effect.and_then(|effect| change(&effect, endpoint));
        plan.changes.extend(change);
    }
    let closes = |change: &Change| {
        change
            .change
            .state
            .is_some_and(|s| s != EndpointState::Active)
    };
    plan.changes.sort_by_key(closes);
    for (place, number) in &places {
        if let Some(Some(effect)) = effects.get(*number) {
            plan.effects.insert(*place, *effect);
        }
    }
    plan.seats = places;
    plan.by_seat = effects;
    plan
}

/// Who in a service gets connections without being known to be healthy, if it should get some.
#[derive(Clone, Copy, Debug, Default)]
struct Panics {
    /// Those that are not healthy: too many are not.
    sick: bool,
    /// Those that are silent: nobody else is left. One that is silent is most likely dead, and says nothing of the
    /// others.
    stale: bool,
}

/// The services in which health does not count.
fn panics(said: &[Option<Said>], panic: Panic, endpoints: &[Seat]) -> HashMap<ServiceKey, Panics> {
    // Of each service, the endpoints that should get connections, and those of them that are not healthy. Of those
    // that are silent nobody knows.
    let mut counts: HashMap<ServiceKey, (u64, u64)> = HashMap::new();
    for (said, endpoint) in said.iter().zip(endpoints) {
        let (is_wanted, is_sick) = match said {
            None => {
                let takes = endpoint.weight != Some(0);
                (takes && endpoint.state == EndpointState::Active, false)
            }
            // With a weight of 0 it gets nothing, whatever its health.
            Some(Said::Status {
                target,
                health,
                weight,
            }) => {
                let is_sick = *health != Health::Healthy;
                (*target == Directive::Active && *weight > 0, is_sick)
            }
            Some(Said::Gone(_)) => (false, false),
        };
        let (wanted, sick) = counts.entry(endpoint.service).or_default();
        *wanted += u64::from(is_wanted);
        *sick += u64::from(is_wanted && is_sick);
    }
    let of = |(wanted, sick): (u64, u64)| Panics {
        sick: sick * 100 > panic.threshold * wanted,
        stale: panic.stale && panic.threshold < 100 && sick == wanted,
    };
    let services = counts.into_iter();
    services.map(|(key, counts)| (key, of(counts))).collect()
}

fn effect(said: Said, number: usize, endpoint: &Seat, panics: Panics) -> Effect {
    let old_weight = endpoint.weight;
    let new_weight = |weight| old_weight.and(Some(weight));
    let (state, weight, cause) = match said {
        Said::Status {
            target: Directive::Active,
            health,
            weight,
        } => {
            let (state, cause) = match health {
                Health::Healthy => (EndpointState::Active, health.into()),
                _ if panics.sick => (EndpointState::Active, Cause::Panic),
                _ => (EndpointState::Draining, health.into()),
            };
            (state, new_weight(weight), cause)
        }
        Said::Status { target, weight, .. } => {
            let state = match target {
                Directive::Inactive => EndpointState::Inactive,
                _ => EndpointState::Draining,
            };
            (state, new_weight(weight), Cause::Directive)
        }
        Said::Gone(gone) if gone.silent == Some(Directive::Active) && panics.stale => {
            (EndpointState::Active, old_weight, Cause::Panic)
        }
        Said::Gone(gone) => {
            let cause = gone.silent.map_or(Cause::Gone, |_| Cause::Silent);
            (closed(endpoint.state), old_weight, cause)
        }
    };
    Effect {
        number,
        service: endpoint.service,
        state,
        weight,
        cause,
    }
}

/// How the endpoint comes to that, unless it is so already. The weight of one that gets no connections waits.
fn change(effect: &Effect, endpoint: &Seat) -> Option<Change> {
    let is_active = effect.state == EndpointState::Active;
    let weight = effect.weight.filter(|_| is_active);
    let change = EndpointChange {
        weight: weight.filter(|weight| endpoint.weight != Some(*weight)),
        state: (endpoint.state != effect.state).then_some(effect.state),
        ..EndpointChange::default()
    };
    (change != EndpointChange::default()).then_some(Change {
        number: effect.number,
        service: effect.service,
        host: endpoint.host,
        port: endpoint.port,
        change,
        cause: effect.cause,
    })
}
