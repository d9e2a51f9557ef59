// SPDX-License-Identifier: GPL-2.0

//! Allotments: which endpoints get a service's next connections, by somebody who knows their health
//! and load (FIG. 18 and 30 of the specification).
//!
//! Tokens are used up one by one, percentages hold for a time; both grow old. Whoever has allotted is
//! told before that, and again when it has come to that, because a new connection has come: without
//! any, nobody has to know. Until another allotment comes, the scheduler picks.

use crate::{
    endpoint::Endpoint,
    netlink,
    scheduler::{
        turns,
        Candidate,
        LOOKS, //
    },
    service::Service,
    state::{
        Forwarder,
        STATE, //
    },
    uapi::{
        AllotmentScheme,
        AllotmentState, //
    },
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        rcu,
        Arc, //
    },
};
use nlb::{
    net::netns::WeakNet,
    sync::rhashtable::{
        Position,
        Scan, //
    },
    time,
    wire::wrr,
    work::{
        DelayedWork,
        Trigger, //
    },
};

/// Longest time that an allotment may hold, in milliseconds.
pub(crate) const MAX_AGE_MS: u32 = 3600 * 1000;
/// Most tokens for an endpoint.
pub(crate) const MAX_TOKENS: u32 = 1_000_000;
/// All of something, in percent.
pub(crate) const MAX_PERCENT: u32 = 100;

/// Another allotment is asked for when this part is left of the tokens, or of the time.
const LOW_PART: u32 = 4;

/// What one endpoint gets.
pub(crate) struct Share<E> {
    endpoint: Arc<E>,
    amount: u32,
    left: Atomic<u32>,
}

impl<E> Share<E> {
    /// So many tokens, or so many percent, for this endpoint.
    pub(crate) fn new(endpoint: Arc<E>, amount: u32) -> Self {
        Self {
            endpoint,
            amount,
            left: Atomic::new(amount),
        }
    }

    /// Whose it is.
    pub(crate) fn endpoint(&self) -> &Arc<E> {
        &self.endpoint
    }

    /// Tokens that are left, or percent.
    pub(crate) fn left(&self) -> u32 {
        self.left.load(Relaxed)
    }

    /// Takes a token, if there is one.
    fn take(&self) -> bool {
        let mut before = self.left();
        while let Some(after) = before.checked_sub(1) {
            match self.left.cmpxchg(before, after, Relaxed) {
                Ok(_) => return true,
                Err(other) => before = other,
            }
        }
        false
    }
}

/// What the endpoints of a service get. Never changes, but for the tokens: it is replaced.
pub(crate) struct Allotment<E> {
    scheme: AllotmentScheme,
    age_ms: u32,
    /// Jiffies.
    expires: u64,
    shares: KVec<Share<E>>,
    /// Indices of shares, one round.
    turns: KVec<u16>,
    turn: Atomic<u32>,
    /// Tokens of all.
    left: Atomic<u32>,
    low: u32,
    /// The state that has been noticed, and that of which user space has been told.
    noticed: Atomic<u32>,
    told: Atomic<u32>,
}

impl<E: Candidate> Allotment<E> {
    /// These shares, at most 65535, from `now` (jiffies) on. May sleep. `EINVAL` if nobody gets
    /// anything, `E2BIG` if there are too many, `ENOMEM`.
    pub(crate) fn new(
        scheme: AllotmentScheme,
        age_ms: u32,
        shares: KVec<Share<E>>,
        now: u64,
    ) -> Result<Arc<Self>> {
        let total = shares
            .iter()
            .fold(0u32, |total, share| total.saturating_add(share.amount));
        if total == 0 {
            return Err(EINVAL);
        }
        let allotment = Self {
            scheme,
            age_ms,
            expires: now.saturating_add(time::ms_to_jiffies(age_ms)),
            turns: turns(&shares, |share| share.amount)?,
            turn: Atomic::new(0),
            left: Atomic::new(total),
            low: total / LOW_PART,
            shares,
            noticed: Atomic::new(AllotmentState::Valid as u32),
            told: Atomic::new(AllotmentState::Valid as u32),
        };
        Ok(Arc::new(allotment, GFP_KERNEL)?)
    }

    /// What is allotted.
    pub(crate) fn scheme(&self) -> AllotmentScheme {
        self.scheme
    }

    /// For how many milliseconds it holds.
    pub(crate) fn age_ms(&self) -> u32 {
        self.age_ms
    }

    /// Tokens of all endpoints that are left; none without tokens.
    pub(crate) fn left(&self) -> Option<u32> {
        (self.scheme == AllotmentScheme::Tokens).then(|| self.left.load(Relaxed))
    }

    /// Milliseconds from `now` (jiffies) on for which it still holds.
    pub(crate) fn expires_ms(&self, now: u64) -> u64 {
        time::jiffies_to_ms(self.expires.saturating_sub(now))
    }

    /// What each endpoint gets.
    pub(crate) fn shares(&self) -> &[Share<E>] {
        &self.shares
    }

    /// How it is at `now` (jiffies).
    pub(crate) fn state(&self, now: u64) -> AllotmentState {
        let left = self.left();
        let low_from = self
            .expires
            .saturating_sub(time::ms_to_jiffies(self.age_ms) / u64::from(LOW_PART));
        if now >= self.expires || left == Some(0) {
            AllotmentState::Over
        } else if now >= low_from || left.is_some_and(|left| left <= self.low) {
            AllotmentState::Low
        } else {
            AllotmentState::Valid
        }
    }

    /// The endpoint for a new connection at `now` (jiffies), which takes a token of it; none if it is
    /// over, or if nobody who has something left takes connections. And whether user space has
    /// something to be told.
    pub(crate) fn pick(&self, now: u64) -> (Option<&Arc<E>>, bool) {
        let picked = match self.state(now) {
            AllotmentState::Over => None,
            AllotmentState::Valid | AllotmentState::Low => {
                self.next(&self.turn, |share| self.take_token(share))
            }
        };
        let state = match picked {
            Some(_) => self.state(now),
            None => AllotmentState::Over,
        };
        (picked, self.notice(state))
    }

    /// Whether a state has not been noticed before, nor one that comes after it.
    fn notice(&self, state: AllotmentState) -> bool {
        // The numbers are in the order in which the states come.
        let state = state as u32;
        let mut before = self.noticed.load(Relaxed);
        while before < state {
            match self.noticed.cmpxchg(before, state, Relaxed) {
                Ok(_) => return true,
                Err(other) => before = other,
            }
        }
        false
    }

    /// The endpoint that a connection would get at `now` (jiffies) which there is not: it takes no token,
    /// and nobody's turn passes.
    pub(crate) fn would_pick(&self, now: u64) -> Option<&Arc<E>> {
        match self.state(now) {
            AllotmentState::Over => None,
            AllotmentState::Valid | AllotmentState::Low => {
                let turn = Atomic::new(self.turn.load(Relaxed));
                self.next(&turn, |share| share.left() > 0)
            }
        }
    }

    /// The endpoint whose turn it is, of those that take connections and have what `take` wants of them.
    fn next(&self, turn: &Atomic<u32>, take: impl Fn(&Share<E>) -> bool) -> Option<&Arc<E>> {
        let may = |share: &Share<E>| {
            share.amount > 0 && share.endpoint.keeps_clients() && take(share) //
        };
        for _ in 0..LOOKS {
            let slot = wrr::pick(&self.turns, turn.fetch_add(1u32, Relaxed))?;
            let share = self.shares.get(usize::from(slot))?;
            if may(share) {
                return Some(&share.endpoint);
            }
        }
        let share = self.shares.iter().find(|share| may(share))?;
        Some(&share.endpoint)
    }

    /// Takes a token of a share, where there are tokens.
    fn take_token(&self, share: &Share<E>) -> bool {
        if self.scheme == AllotmentScheme::Tokens {
            if !share.take() {
                return false;
            }
            let _ = self.left.fetch_sub(1u32, Relaxed);
        }
        true
    }

    /// The last state that was noticed, if user space was not told of it. It is told now.
    fn take_news(&self) -> Option<AllotmentState> {
        let noticed = self.noticed.load(Relaxed);
        if self.told.xchg(noticed, Relaxed) == noticed {
            return None;
        }
        AllotmentState::from_u32(noticed)
    }
}

/// The work of a namespace that tells user space, for a packet has no time for that.
pub(crate) fn work(weak: WeakNet) -> Result<DelayedWork> {
    DelayedWork::new(move |_: &Trigger| {
        let Some(net) = weak.upgrade() else {
            return;
        };
        let Some(forwarder) = STATE.get_arc(&net) else {
            return;
        };
        let mut position = Position::default();
        loop {
            let mut due: Option<(Arc<Service>, AllotmentState)> = None;
            let done = forwarder
                .services
                .scan(&rcu::read_lock(), &mut position, |service| {
                    let guard = rcu::read_lock();
                    let news = service.allotment(&guard).and_then(Allotment::take_news);
                    due = news.map(|state| (service.clone(), state));
                    match due {
                        Some(_) => Scan::Stop,
                        None => Scan::Continue,
                    }
                });
            match due {
                Some((service, state)) => netlink::notify_allotment(&net, &service, state),
                None if done => return,
                None => {}
            }
        }
    })
}

impl Forwarder {
    /// The endpoint that the service's allotment has for a new connection, if it has an allotment,
    /// and that anybody.
    pub(crate) fn pick_allotted<'a>(
        &self,
        service: &'a Service,
        guard: &'a rcu::Guard,
    ) -> Option<&'a Arc<Endpoint>> {
        let (picked, news) = service.allotment(guard)?.pick(time::jiffies());
        if news {
            self.allotments.schedule(0);
        }
        picked
    }
}

#[kunit_tests(nlb_fwd_allotment)]
mod tests {
    use super::*;
    use crate::scheduler::tests::Host;

    fn allotment(scheme: AllotmentScheme, amounts: &[u32]) -> Result<Arc<Allotment<Host>>> {
        let mut shares = KVec::new();
        for (number, amount) in (1..).zip(amounts) {
            shares.push(Share::new(Host::new(number)?, *amount), GFP_KERNEL)?;
        }
        // A second at any rate of ticks.
        Allotment::new(scheme, 1000, shares, 1000)
    }

    /// Picks so many times at this moment; how many were picked.
    fn picks(allotment: &Allotment<Host>, count: u32, now: u64) -> u32 {
        let mut picked = 0;
        for _ in 0..count {
            if let (Some(host), _) = allotment.pick(now) {
                host.active.fetch_add(1u32, Relaxed);
                picked += 1;
            }
        }
        picked
    }

    fn got(allotment: &Allotment<Host>, of: usize) -> u32 {
        let share = allotment.shares().get(of);
        share.map_or(u32::MAX, |share| share.endpoint().active.load(Relaxed))
    }

    #[test]
    fn tokens_are_used_up() -> Result {
        let allotment = allotment(AllotmentScheme::Tokens, &[40, 35, 25, 0])?;
        assert_eq!(picks(&allotment, 20, 1000), 20);
        // In turns, not one after the other.
        for of in 0..3 {
            assert!(got(&allotment, of) >= 4);
        }
        assert_eq!(allotment.state(1000), AllotmentState::Valid);
        assert_eq!(picks(&allotment, 55, 1000), 55);
        assert_eq!(allotment.left(), Some(25));
        assert_eq!(allotment.state(1000), AllotmentState::Low);
        assert_eq!(picks(&allotment, 100, 1000), 25);
        assert_eq!(allotment.state(1000), AllotmentState::Over);
        for (of, count) in [40, 35, 25, 0].into_iter().enumerate() {
            assert_eq!(got(&allotment, of), count);
        }
        Ok(())
    }

    #[test]
    fn percentages_hold_for_a_time() -> Result {
        let allotment = allotment(AllotmentScheme::Percentages, &[40, 35, 25])?;
        // 64 slots for each percent would be 6400, which are 8192.
        assert_eq!(picks(&allotment, 8192, 1000), 8192);
        for (of, percent) in [40u32, 35, 25].into_iter().enumerate() {
            assert!(got(&allotment, of).abs_diff(8192 * percent / 100) <= 1);
        }
        assert_eq!(allotment.left(), None);
        let over = 1000 + time::HZ;
        let low = over - time::HZ / 4;
        assert_eq!(allotment.state(low - 1), AllotmentState::Valid);
        assert_eq!(allotment.state(low), AllotmentState::Low);
        assert_eq!(picks(&allotment, 1, over - 1), 1);
        assert_eq!(picks(&allotment, 1, over), 0);
        assert_eq!(allotment.state(over), AllotmentState::Over);
        Ok(())
    }

    #[test]
    fn who_only_asks_takes_nothing() -> Result {
        let allotment = allotment(AllotmentScheme::Tokens, &[2, 1])?;
        for left in [3, 2, 1] {
            assert_eq!(allotment.left(), Some(left));
            let would = allotment.would_pick(1000).map(Arc::as_ptr);
            assert_eq!(would, allotment.would_pick(1000).map(Arc::as_ptr));
            assert_eq!(would, allotment.pick(1000).0.map(Arc::as_ptr));
        }
        assert!(allotment.would_pick(1000).is_none());
        assert_eq!(allotment.take_news(), Some(AllotmentState::Over));
        Ok(())
    }

    #[test]
    fn each_state_is_told_once() -> Result {
        let allotment = allotment(AllotmentScheme::Tokens, &[4])?;
        assert_eq!(allotment.take_news(), None);
        let mut told = KVec::new();
        for _ in 0..10 {
            let (_, new) = allotment.pick(1000);
            let news = allotment.take_news();
            assert_eq!(new, news.is_some());
            if let Some(state) = news {
                told.push(state, GFP_KERNEL)?;
            }
        }
        assert_eq!(&told[..], &[AllotmentState::Low, AllotmentState::Over]);
        Ok(())
    }

    #[test]
    fn who_takes_none_is_passed_over() -> Result {
        let allotment = allotment(AllotmentScheme::Tokens, &[2, 3])?;
        let takes = |of: usize, takes| {
            if let Some(share) = allotment.shares().get(of) {
                share.endpoint().keeps_clients.store(takes, Relaxed);
            }
        };
        takes(0, false);
        assert_eq!(picks(&allotment, 10, 1000), 3);
        // As long as nobody takes what is left, that is as if nothing were.
        assert_eq!(allotment.take_news(), Some(AllotmentState::Over));
        assert_eq!(allotment.state(1000), AllotmentState::Valid);
        takes(0, true);
        assert_eq!(picks(&allotment, 10, 1000), 2);
        Ok(())
    }

    #[test]
    fn nothing_for_anybody_is_none() {
        assert!(matches!(
            allotment(AllotmentScheme::Tokens, &[0, 0]),
            Err(EINVAL)
        ));
        assert!(matches!(
            allotment(AllotmentScheme::Percentages, &[]),
            Err(EINVAL)
        ));
    }
}
