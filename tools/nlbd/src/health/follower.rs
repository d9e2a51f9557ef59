// SPDX-License-Identifier: MIT OR Apache-2.0

//! A balancer that follows the cache: what it was told, what it has to be told still, and a plan under way.
//!
//! Each has its own, so that one that does not answer keeps none of the others from following.

use super::{
    allot::Orders,
    balancer::{apply, Applied, Balancer},
    config::Panic,
    events::Events,
    forwarder::Forwarder,
    haproxy::{Entry, Haproxy},
    metrics::Tally,
    plan::{worse, AllGone, Effect, Gone, Known, Place, Plan},
};
use nlb_health::{lbu::InForce, row::Directive};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::{poll_fn, Future},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

/// Places of rows that are gone, whose endpoints are to get nothing still. As many as rows there may be.
const GONE_MAX: usize = 100_000;
/// How long after it could not be told again.
const AGAIN: Duration = Duration::from_secs(1);
/// Between a plan and the next, so that what comes together is done together.
const PAUSE: Duration = Duration::from_millis(20);

/// Which balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Forwarder,
    Haproxy(Entry),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forwarder => f.write_str("the forwarder"),
            Self::Haproxy(entry) => {
                write!(
                    f,
                    "HAProxy's backend {} at {}",
                    entry.backend, entry.address
                )
            }
        }
    }
}

impl Kind {
    fn balancer(&self) -> Box<dyn Balancer> {
        match self {
            Self::Forwarder => Box::new(Forwarder::default()),
            Self::Haproxy(entry) => Box::new(Haproxy::new(entry.clone())),
        }
    }

    /// The virtual address and transport protocol of what it may have endpoints of; nothing, if it may have any.
    fn service(&self) -> Option<(SocketAddr, u8)> {
        match self {
            Self::Forwarder => None,
            // It is one port of TCP.
            Self::Haproxy(entry) => {
                let own = entry.service;
                let transport = u8::try_from(own.proto.0).unwrap_or_default();
                Some((SocketAddr::new(own.vip, own.ports.first), transport))
            }
        }
    }

    /// Whether it may have endpoints of that service.
    fn serves(&self, vip: SocketAddr, transport: u8) -> bool {
        self.service().is_none_or(|own| own == (vip, transport))
    }

    /// How often it is looked at although nobody has said that anything is another. The forwarder says so itself;
    /// HAProxy may have been started anew.
    fn look(&self) -> Duration {
        match self {
            Self::Forwarder => Duration::from_secs(10),
            Self::Haproxy(_) => Duration::from_secs(1),
        }
    }
}

/// What a job gives back: the balancer, what was gone when it was begun, and what has come of it.
pub(super) type Done = (Box<dyn Balancer>, AllGone, Applied);

/// A plan under way, and the version of the cache that it was made of.
struct Job {
    version: u64,
    running: JoinHandle<Done>,
}

/// A balancer, and what is done about it.
pub(super) struct Follower {
    pub(super) kind: Kind,
    /// Unless a job has it.
    balancer: Option<Box<dyn Balancer>>,
    gone: AllGone,
    /// Those whose endpoints it would not change.
    refused: BTreeSet<Place>,
    effects: BTreeMap<Place, Effect>,
    /// Why it is not as it should be.
    trouble: Option<String>,
    /// The version of the cache that it has been told.
    applied: u64,
    /// The version that has last brought something that concerns it.
    concerned: u64,
    /// The version in which such a row has last gone.
    bereft: u64,
    is_dirty: bool,
    job: Option<Job>,
    not_before: Instant,
    /// When it is looked at in any case.
    look_at: Instant,
    /// When allotments have to be looked at.
    allot_at: Option<Instant>,
    /// Why allotments are not as they should be.
    allot_trouble: Option<String>,
}

impl Follower {
    pub(super) fn new(kind: Kind) -> Self {
        let now = Instant::now();
        Self {
            balancer: Some(kind.balancer()),
            kind,
            gone: AllGone::new(),
            refused: BTreeSet::new(),
            effects: BTreeMap::new(),
            trouble: None,
            applied: 0,
            concerned: 0,
            bereft: 0,
            is_dirty: true,
            job: None,
            not_before: now,
            look_at: now,
            allot_at: None,
            allot_trouble: None,
        }
    }

    pub(super) fn gone(&self) -> &AllGone {
        &self.gone
    }

    /// Those that are not in force, whatever it was told.
    pub(super) fn refused(&self) -> &BTreeSet<Place> {
        &self.refused
    }

    /// What the endpoint of a row does.
    pub(super) fn effect(&self, place: &Place) -> Option<&Effect> {
        self.effects.get(place)
    }

    /// What the endpoints of all rows do.
    pub(super) fn effects(&self) -> impl Iterator<Item = &Effect> {
        self.effects.values()
    }

    /// Why it is not as it should be, in words.
    pub(super) fn trouble(&self) -> Option<String> {
        let what = self.trouble.as_ref()?;
        Some(format!("{} does not follow: {what}", self.kind))
    }

    /// Whether allotments are as they should be.
    pub(super) fn is_allotted(&self) -> bool {
        self.allot_trouble.is_none()
    }

    /// The version of the cache that has been told, if something that concerns it has not.
    pub(super) fn behind(&self) -> Option<u64> {
        (self.applied < self.concerned).then_some(self.applied)
    }

    /// What it does, if `version` is that of the cache. What does not concern it, nobody waits for it.
    pub(super) fn in_force(&self, version: u64) -> InForce {
        let is_behind = self.applied < self.bereft;
        InForce {
            service: self.kind.service(),
            rows: self.behind().unwrap_or(version),
            removals: if is_behind { self.applied } else { version },
        }
    }

    /// Whether it may have endpoints of that service.
    pub(super) fn serves(&self, vip: SocketAddr, transport: u8) -> bool {
        self.kind.serves(vip, transport)
    }

    /// Whether it may have an endpoint there.
    pub(super) fn concerns(&self, place: &Place) -> bool {
        self.serves(place.vip, place.transport)
    }

    /// Has it told, or looked at.
    pub(super) fn dirty(&mut self) {
        self.is_dirty = true;
    }

    /// `version` of the cache has something new of a place.
    pub(super) fn concern(&mut self, place: &Place, version: u64) {
        if self.concerns(place) {
            self.concerned = version;
            self.is_dirty = true;
        }
    }

    /// A row of a host is gone in this version of the cache; `silent` is what was to be done, if nobody has said why.
    pub(super) fn has_gone(
        &mut self,
        place: Place,
        host: u32,
        silent: Option<Directive>,
        version: u64,
    ) {
        if !self.concerns(&place) {
            return;
        }
        self.concern(&place, version);
        self.bereft = version;
        let key = (place, host);
        if self.gone.len() >= GONE_MAX && !self.gone.contains_key(&key) {
            // Those that have no endpoint here are missed least.
            self.gone.retain(|_, gone| gone.set.is_some());
            if self.gone.len() >= GONE_MAX {
                return;
            }
        }
        let old = self.gone.get(&key).and_then(|gone| gone.silent);
        let silent = match (old, silent) {
            (Some(old), Some(new)) => Some(worse(old, new)),
            (old, new) => new.or(old),
        };
        self.gone.insert(key, Gone { silent, set: None });
    }

    /// Hosts have said goodbye: also that of which they were silent has left.
    pub(super) fn has_left(&mut self, hosts: &BTreeSet<u32>) {
        let all = self.gone.iter_mut();
        let all = all.filter(|((_, host), _)| hosts.contains(host));
        all.for_each(|(_, gone)| gone.silent = None);
    }

    /// There is a row of `host` at a place: nobody else who was there has a say any more, but of whom `stays` says so.
    /// Whether the next life has to know something else.
    pub(super) fn speaks(
        &mut self,
        place: Place,
        host: u32,
        stays: impl Fn(u32, Option<Directive>) -> bool,
    ) -> bool {
        let here = self.gone.range((place, 0)..=(place, u32::MAX));
        let over = here.filter(|((_, other), gone)| {
            (*other != host || gone.silent.is_none()) && !stays(*other, gone.silent)
        });
        let over: Vec<_> = over.map(|(key, _)| *key).collect();
        for key in &over {
            self.gone.remove(key);
        }
        !over.is_empty()
    }

    /// A host whose table is here is not silent: what is in none of `rows` of it has left. What `proxies` have as well is
    /// theirs alone then, whatever becomes of the host. Whether the next life has to know something else.
    pub(super) fn settle(
        &mut self,
        rows: &BTreeSet<(Place, u32)>,
        proxies: &BTreeSet<u32>,
        is_whole: impl Fn(u32) -> bool,
    ) -> bool {
        let mut is_other = false;
        let mut whole = BTreeMap::new();
        self.gone.retain(|key, gone| {
            if !*whole.entry(key.1).or_insert_with(|| is_whole(key.1)) {
                return true;
            }
            let mut hosts = proxies.iter().chain([&key.1]);
            let is_over = hosts.any(|host| rows.contains(&(key.0, *host)));
            is_other |= is_over || gone.silent.is_some();
            gone.silent = None;
            !is_over
        });
        is_other
    }

    /// When [`Self::begin`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        match (&self.job, self.is_dirty) {
            (Some(_), _) => None,
            (None, true) => Some(self.not_before),
            (None, false) => {
                let allot = self.allot_at.map(|at| at.max(self.not_before));
                [Some(self.look_at), allot].into_iter().flatten().min()
            }
        }
    }

    /// Has it told what is to be done. `version` of the cache is what is known.
    pub(super) fn begin(&mut self, known: Known, version: u64, panic: Panic, orders: Arc<Orders>) {
        let Some(mut balancer) = self.balancer.take() else {
            return;
        };
        self.is_dirty = false;
        self.allot_at = None;
        let running = tokio::task::spawn_blocking(move || {
            let gone = known.gone.clone();
            let applied = apply(balancer.as_mut(), known, panic, &orders);
            (balancer, gone, applied)
        });
        self.job = Some(Job { version, running });
    }

    /// It was told. Whether the next life has to know something else now.
    pub(super) fn end(
        &mut self,
        version: u64,
        done: Result<Done, String>,
        tally: &mut Tally,
        events: &mut Events,
    ) -> bool {
        self.look_at = Instant::now() + self.kind.look();
        let (begun, applied) = match done {
            Ok((balancer, begun, applied)) => {
                self.balancer = Some(balancer);
                (begun, applied)
            }
            Err(what) => {
                self.balancer = Some(self.kind.balancer());
                let trouble = Some(what);
                let applied = Applied {
                    trouble,
                    ..Applied::default()
                };
                (AllGone::new(), applied)
            }
        };
        tally.count(&applied);
        events.set(&self.kind, &applied.set);
        let Applied {
            mut plan,
            gone,
            is_through,
            refused,
            trouble,
            allotted,
            ..
        } = applied;
        if let Some(allotted) = allotted {
            self.allot_at = allotted.again.map(|after| Instant::now() + after);
            self.tell_allotments(allotted.trouble);
        }
        let is_other = self.note(&begun, &gone);
        self.not_before = Instant::now() + PAUSE;
        if is_through {
            plan.effects.retain(|place, _| !refused.contains(place));
            self.refused = refused;
            self.applied = version;
            self.tell_panics(&plan, events);
            self.effects = plan.effects;
        }
        match trouble {
            None => {
                if self.trouble.take().is_some() {
                    info!("{} follows again", self.kind);
                }
            }
            Some(what) => {
                if self.trouble.as_ref() != Some(&what) {
                    error!("{} does not follow: {what}", self.kind);
                }
                self.trouble = Some(what);
                self.is_dirty = true;
                self.not_before = Instant::now() + AGAIN;
            }
        }
        is_other
    }

    /// What was done for what is gone: `begun` is what it was before, `gone` what it is now. Where somebody else has
    /// decided, it is forgotten. Whether anything is.
    fn note(&mut self, begun: &AllGone, gone: &AllGone) -> bool {
        let mut is_other = false;
        for (key, before) in begun {
            if self.gone.get(key) != Some(before) {
                continue;
            }
            match gone.get(key) {
                Some(now) => {
                    self.gone.insert(*key, *now);
                }
                None => {
                    self.gone.remove(key);
                    is_other = true;
                }
            }
        }
        is_other
    }

    fn tell_allotments(&mut self, trouble: Option<String>) {
        match &trouble {
            Some(what) if self.allot_trouble != trouble => error!("{what}"),
            None if self.allot_trouble.is_some() => info!("all that is to be allotted is allotted"),
            _ => {}
        }
        self.allot_trouble = trouble;
    }

    fn tell_panics(&self, plan: &Plan, events: &mut Events) {
        let of = |effects: &BTreeMap<Place, Effect>| -> BTreeSet<_> {
            let all = effects.values().filter(|effect| effect.is_panic());
            all.map(|effect| effect.service).collect()
        };
        let (old, new) = (of(&self.effects), of(&plan.effects));
        for service in new.difference(&old) {
            events.panic(service, true);
            warn!(%service, "too many endpoints are not healthy: they get connections all the same");
        }
        // Of those that are gone there is nothing to say.
        let here: BTreeSet<_> = plan.effects.values().map(|own| own.service).collect();
        for service in old.difference(&new).filter(|own| here.contains(own)) {
            events.panic(service, false);
            info!(%service, "enough endpoints are healthy again");
        }
    }
}

/// Which of them was told, of which version of the cache, and what has come of it; never, while none is.
pub(super) async fn finished(followers: &mut [Follower]) -> (usize, u64, Result<Done, String>) {
    poll_fn(|context| {
        for (number, follower) in followers.iter_mut().enumerate() {
            let Some(job) = &mut follower.job else {
                continue;
            };
            if let Poll::Ready(done) = Pin::new(&mut job.running).poll(context) {
                let version = job.version;
                follower.job = None;
                return Poll::Ready((number, version, done.map_err(|error| error.to_string())));
            }
        }
        Poll::Pending
    })
    .await
}
