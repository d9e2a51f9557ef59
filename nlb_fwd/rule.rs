// SPDX-License-Identifier: GPL-2.0

//! Rules: whose packets a service does not take.
//!
//! They are for packets that have no route: those of connections that have one go on. The first rule
//! by priority counts, as with `ip rule`. What is compiled when rules change is for blocking lists:
//! of many rules with a source each, only those are looked at that have the packet's.

use crate::{
    state::Forwarder,
    stats::Counter,
    uapi::RuleAction, //
};
use kernel::{
    alloc::AllocError,
    prelude::*,
    sync::{
        atomic::Relaxed,
        rcu,
        Arc, //
    },
};
use nlb::{
    net::{
        ip::{
            tcp_checksum_is_valid,
            udp_checksum_is_valid,
            IcmpError, //
        },
        netfilter::{
            HookState,
            Verdict, //
        },
        skbuff::{
            DropReason,
            SkBuff, //
        },
        tcp::send_refusal, //
    },
    sync::percpu::PerCpuCounters,
    wire::{
        addr::{
            Addr,
            FourTuple,
            Proto, //
        },
        parse::Parsed,
        ports::Ports,
        prefixes::{
            self,
            Node,
            Prefix, //
        },
    },
};

/// Rules that a namespace may have.
pub(crate) const MAX_RULES: usize = 1024;

/// By how much the priority of a rule without one comes behind the last.
const STEP: u32 = 10;

/// Which packets a rule is for: those for which all that is said is so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    /// Where they come from: a network and its bits.
    pub(crate) from: Option<(Addr, u8)>,
    /// Where they go.
    pub(crate) vip: Option<Addr>,
    /// Ports there.
    pub(crate) ports: Option<Ports>,
    /// Their protocol.
    pub(crate) proto: Option<Proto>,
}

impl Selector {
    fn matches(&self, tuple: &FourTuple) -> bool {
        let client = tuple.client();
        self.from.is_none_or(|(network, bits)| {
            client.is_v4() == network.is_v4() && client.network(bits) == network
        }) && self.vip.is_none_or(|vip| vip == tuple.vip())
            && self
                .ports
                .is_none_or(|ports| ports.contains(tuple.vip_port()))
            && self.proto.is_none_or(|proto| proto == tuple.proto())
    }

    /// The prefix of the packets' sources. None if it is no prefix.
    fn prefix(&self) -> Option<Prefix> {
        match self.from {
            None => Some(Prefix::ALL),
            Some((network, bits)) => Prefix::new(network, bits),
        }
    }
}

/// A rule.
pub(crate) struct Rule {
    priority: u32,
    action: RuleAction,
    selector: Selector,
    /// Packets and bytes that it was the first for.
    traffic: PerCpuCounters<2>,
}

impl Rule {
    fn new(priority: u32, action: RuleAction, selector: Selector) -> Result<Arc<Self>> {
        let rule = Self {
            priority,
            action,
            selector,
            traffic: PerCpuCounters::new()?,
        };
        Ok(Arc::new(rule, GFP_KERNEL)?)
    }

    /// Its place among the rules; the lowest comes first.
    pub(crate) fn priority(&self) -> u32 {
        self.priority
    }

    /// What happens to a packet.
    pub(crate) fn action(&self) -> RuleAction {
        self.action
    }

    /// Which packets it is for.
    pub(crate) fn selector(&self) -> &Selector {
        &self.selector
    }

    /// Counts a packet that it was the first for.
    #[inline]
    pub(crate) fn count(&self, bytes: usize) {
        self.traffic.inc(0);
        self.traffic.add(1, bytes as u64);
    }

    /// Packets that it was the first for, and their bytes.
    pub(crate) fn traffic(&self) -> (u64, u64) {
        (self.traffic.sum(0), self.traffic.sum(1))
    }
}

/// Rules of one source.
struct Source {
    first: usize,
    end: usize,
}

/// The rules of a namespace, one at least. Never changes: it is replaced.
pub(crate) struct Rules {
    /// By priority.
    rules: KVec<Arc<Rule>>,
    /// The sources, in ascending order.
    nodes: KVec<Node>,
    /// As many: where the rules of each are in `order`.
    sources: KVec<Source>,
    /// Indices of rules, by source and priority.
    order: KVec<usize>,
}

impl Rules {
    /// Prepares rules, which are in the order of their priorities. `EINVAL` if a source is no prefix,
    /// `ENOMEM`.
    fn new(rules: KVec<Arc<Rule>>) -> Result<Self> {
        let mut by_source = KVec::with_capacity(rules.len(), GFP_KERNEL)?;
        for (index, rule) in rules.iter().enumerate() {
            let prefix = rule.selector.prefix().ok_or(EINVAL)?;
            by_source.push((prefix, index), GFP_KERNEL)?;
        }
        by_source.sort_unstable();
        let (mut nodes, mut sources) = (KVec::new(), KVec::<Source>::new());
        let mut order = KVec::with_capacity(rules.len(), GFP_KERNEL)?;
        let mut last = None;
        for (at, (prefix, index)) in by_source.iter().enumerate() {
            if last != Some(prefix) {
                nodes.push(Node::new(*prefix), GFP_KERNEL)?;
                sources.push(Source { first: at, end: at }, GFP_KERNEL)?;
                last = Some(prefix);
            }
            if let Some(source) = sources.last_mut() {
                source.end = at.saturating_add(1);
            }
            order.push(*index, GFP_KERNEL)?;
        }
        prefixes::link(&mut nodes);
        Ok(Self {
            rules,
            nodes,
            sources,
            order,
        })
    }

    /// All of them, by priority.
    pub(crate) fn all(&self) -> &[Arc<Rule>] {
        &self.rules
    }

    /// The place of a priority: that of its rule, or the one it would have.
    fn place(&self, priority: u32) -> Result<usize, usize> {
        self.rules
            .binary_search_by_key(&priority, |rule| rule.priority)
    }

    /// The rule with this priority.
    pub(crate) fn get(&self, priority: u32) -> Option<&Arc<Rule>> {
        self.rules.get(self.place(priority).ok()?)
    }

    /// The first rule that is for packets of a connection.
    pub(crate) fn first(&self, tuple: &FourTuple) -> Option<&Arc<Rule>> {
        let mut first: Option<usize> = None;
        for index in prefixes::of(&self.nodes, tuple.client()) {
            let Some(source) = self.sources.get(index) else {
                continue;
            };
            let order = self.order.get(source.first..source.end).unwrap_or_default();
            for index in order {
                if first.is_some_and(|first| first < *index) {
                    break;
                }
                let rule = self.rules.get(*index);
                if rule.is_some_and(|rule| rule.selector.matches(tuple)) {
                    first = Some(*index);
                    break;
                }
            }
        }
        self.rules.get(first?)
    }
}

/// Why a rule is not added.
#[derive(Debug)]
pub(crate) enum NoRule {
    /// Another one has the priority.
    Exists,
    /// There are as many as there may be.
    Full,
    /// No priority is behind the last.
    NoPriority,
    /// Memory was short, or the source is no prefix.
    Other(Error),
}

impl From<Error> for NoRule {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<AllocError> for NoRule {
    fn from(_: AllocError) -> Self {
        Self::Other(ENOMEM)
    }
}

/// Some rules and a new one, and that.
fn with(
    before: Option<&Rules>,
    priority: Option<u32>,
    action: RuleAction,
    selector: Selector,
) -> Result<(Rules, Arc<Rule>), NoRule> {
    let all = before.map_or(&[][..], |rules| rules.all());
    if all.len() >= MAX_RULES {
        return Err(NoRule::Full);
    }
    let last = || {
        all.last()
            .map_or(Some(STEP), |rule| rule.priority.checked_add(STEP))
    };
    let priority = priority.or_else(last).ok_or(NoRule::NoPriority)?;
    let place = match before.map_or(Err(0), |rules| rules.place(priority)) {
        Ok(_) => return Err(NoRule::Exists),
        Err(place) => place,
    };
    let rule = Rule::new(priority, action, selector)?;
    let mut rules = KVec::with_capacity(all.len().saturating_add(1), GFP_KERNEL)?;
    rules.extend_from_slice(all, GFP_KERNEL)?;
    rules
        .insert_within_capacity(place, rule.clone())
        .map_err(|_| ENOMEM)?;
    Ok((Rules::new(rules)?, rule))
}

/// Rules without the one that has this priority, and that; no rules if it was the last. `ENOENT`,
/// `ENOMEM`.
fn without(before: &Rules, priority: u32) -> Result<(Option<Rules>, Arc<Rule>)> {
    let rule = before.get(priority).ok_or(ENOENT)?.clone();
    let mut rules = KVec::with_capacity(before.rules.len(), GFP_KERNEL)?;
    rules.extend_from_slice(&before.rules, GFP_KERNEL)?;
    rules.retain(|other| other.priority != priority);
    let after = match rules.is_empty() {
        true => None,
        false => Some(Rules::new(rules)?),
    };
    Ok((after, rule))
}

impl Forwarder {
    /// Adds a rule; without a priority, behind all others. When this returns, it holds. The caller holds
    /// `config`.
    pub(crate) fn add_rule(
        &self,
        priority: Option<u32>,
        action: RuleAction,
        selector: Selector,
    ) -> Result<Arc<Rule>, NoRule> {
        let before = self.rules.get_arc();
        let (rules, rule) = with(before.as_deref(), priority, action, selector)?;
        self.set_rules(Some(Arc::new(rules, GFP_KERNEL)?));
        Ok(rule)
    }

    /// Removes a rule, as above. `ENOENT`, `ENOMEM`.
    pub(crate) fn remove_rule(&self, priority: u32) -> Result<Arc<Rule>> {
        let before = self.rules.get_arc().ok_or(ENOENT)?;
        let (rules, rule) = without(&before, priority)?;
        let rules = match rules {
            Some(rules) => Some(Arc::new(rules, GFP_KERNEL)?),
            None => None,
        };
        self.set_rules(rules);
        Ok(rule)
    }

    /// Removes all rules, as above, and returns them.
    pub(crate) fn remove_rules(&self) -> Option<Arc<Rules>> {
        let before = self.rules.get_arc()?;
        self.set_rules(None);
        Some(before)
    }

    fn set_rules(&self, rules: Option<Arc<Rules>>) {
        self.rules.replace(rules);
        self.rule_changes.fetch_add(1u32, Relaxed);
    }

    /// Changes whenever rules come or go.
    pub(crate) fn rule_generation(&self) -> u64 {
        self.rule_changes.load(Relaxed).into()
    }

    /// The rule that lets a packet without a route go on, if there is one for it, which counts it when it
    /// does. `Err`: another one comes first, which decides otherwise.
    #[inline]
    pub(crate) fn accepting<'a>(
        &'a self,
        guard: &'a rcu::Guard,
        tuple: &FourTuple,
    ) -> Result<Option<&'a Rule>, &'a Rule> {
        match self.rules.get(guard).and_then(|rules| rules.first(tuple)) {
            Some(rule) if rule.action != RuleAction::Accept => Err(rule),
            rule => Ok(rule.map(|rule| &**rule)),
        }
    }

    /// Does with a packet what a rule says that lets none go on.
    pub(crate) fn stop(
        &self,
        rule: &Rule,
        state: &HookState<'_>,
        mut skb: SkBuff,
        parsed: &Parsed,
    ) -> Verdict {
        rule.count(parsed.total_len);
        if rule.action == RuleAction::Reject {
            self.stats.inc(Counter::RejectRule);
            refuse(state, &mut skb, parsed);
        } else {
            self.stats.inc(Counter::DropRule);
        }
        Verdict::Drop(skb, DropReason::NETFILTER_DROP)
    }
}

/// Tells the sender of a packet that nobody is there: what the machine itself would say, and
/// nftables with `reject`, or `reject with tcp reset`. A packet with a wrong checksum gets no answer.
#[cold]
fn refuse(state: &HookState<'_>, skb: &mut SkBuff, parsed: &Parsed) {
    // CAST: Headers are short.
    let l4_offset = parsed.l4_offset as u16;
    match parsed.tuple.proto() {
        Proto::Tcp => {
            if tcp_checksum_is_valid(skb, l4_offset) {
                // Without a way back or memory there is no answer.
                let _ = send_refusal(state.net(), skb, parsed);
            }
        }
        Proto::Udp => {
            if udp_checksum_is_valid(skb, l4_offset) {
                nlb_tunnel::tell_client(state, skb, IcmpError::PortUnreachable);
            }
        }
    }
}

#[kunit_tests(nlb_fwd_rule)]
mod tests {
    use super::*;

    fn from(network: [u8; 4], bits: u8) -> Selector {
        Selector {
            from: Some((Addr::v4(network), bits)),
            ..Selector::default()
        }
    }

    fn to(port: u16) -> Selector {
        Selector {
            vip: Some(Addr::v4([192, 0, 2, 10])),
            ports: Ports::new(port, port),
            proto: Some(Proto::Tcp),
            ..Selector::default()
        }
    }

    fn added(rules: &[(u32, RuleAction, Selector)]) -> Result<Option<Rules>, NoRule> {
        let mut all = None;
        for (priority, action, selector) in rules {
            let priority = Some(*priority).filter(|priority| *priority > 0);
            all = Some(with(all.as_ref(), priority, *action, *selector)?.0);
        }
        Ok(all)
    }

    fn first(rules: Option<&Rules>, client: [u8; 4], port: u16) -> Option<u32> {
        let tuple = FourTuple::v4(client, 40000, [192, 0, 2, 10], port, Proto::Tcp);
        rules?.first(&tuple).map(|rule| rule.priority)
    }

    #[test]
    fn the_lowest_priority_decides() -> Result<(), NoRule> {
        let all = added(&[
            (30, RuleAction::Drop, from([10, 0, 0, 0], 8)),
            (10, RuleAction::Accept, from([10, 1, 0, 0], 16)),
            (20, RuleAction::Reject, from([10, 1, 1, 1], 32)),
            (40, RuleAction::Drop, to(80)),
            (5, RuleAction::Drop, to(81)),
        ])?;
        let of = |client, port| first(all.as_ref(), client, port);
        assert_eq!(of([10, 9, 9, 9], 443), Some(30));
        assert_eq!(of([10, 1, 9, 9], 443), Some(10));
        // The longer prefix comes behind the shorter one here.
        assert_eq!(of([10, 1, 1, 1], 443), Some(10));
        assert_eq!(of([10, 1, 1, 1], 81), Some(5));
        assert_eq!(of([11, 1, 1, 1], 80), Some(40));
        assert_eq!(of([11, 1, 1, 1], 443), None);
        let all = without(all.as_ref().ok_or(EINVAL)?, 10)?.0;
        assert_eq!(first(all.as_ref(), [10, 1, 1, 1], 443), Some(20));
        assert_eq!(first(all.as_ref(), [10, 1, 9, 9], 443), Some(30));
        assert!(without(all.as_ref().ok_or(EINVAL)?, 10).is_err());
        Ok(())
    }

    #[test]
    fn all_that_is_said_has_to_be_so() -> Result<(), NoRule> {
        let both = Selector {
            from: Some((Addr::v4([10, 0, 0, 0]), 8)),
            ports: Ports::new(80, 89),
            ..to(80)
        };
        let v6 = Selector {
            from: Some((Addr::v6([0; 16]), 0)),
            ..Selector::default()
        };
        let all = added(&[(1, RuleAction::Drop, both), (2, RuleAction::Drop, v6)])?;
        let of = |client, port| first(all.as_ref(), client, port);
        assert_eq!(
            [of([10, 0, 0, 1], 80), of([10, 0, 0, 1], 89)],
            [Some(1), Some(1)]
        );
        assert_eq!([of([10, 0, 0, 1], 90), of([11, 0, 0, 1], 80)], [None, None]);
        let udp = FourTuple::v4([10, 0, 0, 1], 1, [192, 0, 2, 10], 80, Proto::Udp);
        assert!(all.as_ref().and_then(|all| all.first(&udp)).is_none());
        let client = Addr::v6([0x20; 16]);
        let tuple = FourTuple::new(client, 1, client, 80, Proto::Udp).ok_or(EINVAL)?;
        assert!(all.as_ref().and_then(|all| all.first(&tuple)).is_some());
        Ok(())
    }

    #[test]
    fn priorities() -> Result<(), NoRule> {
        let drop = |priority| (priority, RuleAction::Drop, Selector::default());
        let all = added(&[drop(0), drop(0), drop(7), drop(0)])?;
        let all = all.as_ref().ok_or(EINVAL)?;
        let mut found = all.all().iter().map(|rule| rule.priority);
        assert!([7, 10, 20, 30].into_iter().eq(found.by_ref()));
        assert!(matches!(added(&[drop(7), drop(7)]), Err(NoRule::Exists)));
        let last = added(&[drop(u32::MAX), drop(0)]);
        assert!(matches!(last, Err(NoRule::NoPriority)));
        assert!(without(all, 7)?.0.is_some());
        let one = added(&[drop(7)])?;
        assert!(without(one.as_ref().ok_or(EINVAL)?, 7)?.0.is_none());
        Ok(())
    }

    #[test]
    fn there_is_a_bound() -> Result<(), NoRule> {
        let mut all: Option<Rules> = None;
        for number in 0..MAX_RULES as u32 {
            let [.., high, low] = number.to_be_bytes();
            let selector = from([10, 0, high, low], 32);
            all = Some(with(all.as_ref(), None, RuleAction::Drop, selector)?.0);
        }
        let more = with(all.as_ref(), None, RuleAction::Drop, Selector::default());
        assert!(matches!(more, Err(NoRule::Full)));
        for number in [0u32, 1, 511, 1023] {
            let [.., high, low] = number.to_be_bytes();
            let found = first(all.as_ref(), [10, 0, high, low], 80);
            assert_eq!(found, Some((number + 1) * STEP));
        }
        assert_eq!(first(all.as_ref(), [10, 0, 4, 0], 80), None);
        Ok(())
    }
}
