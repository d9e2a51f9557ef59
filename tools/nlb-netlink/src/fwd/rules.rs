// SPDX-License-Identifier: MIT OR Apache-2.0

//! Rules.

use std::net::IpAddr;

use super::Fwd;
use crate::{
    error::Result,
    message::Request,
    object::Rule,
    uapi::fwd::{
        cmd,
        rule,
        RuleAction, //
    },
    value::{
        Destination,
        Proto, //
    },
};

/// A rule to add. What is `None` does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewRule {
    /// Its place among the rules, the lowest of which that is for a packet decides; behind the last
    /// when `None`.
    pub priority: Option<u32>,
    /// What happens to its packets.
    pub action: RuleAction,
    /// Network that they come from, and its bits.
    pub from: Option<(IpAddr, u32)>,
    /// Where they go.
    pub to: Option<Destination>,
    /// Their protocol, if `to` does not say it.
    pub proto: Option<Proto>,
}

impl Fwd {
    /// Add a rule; it is returned, with its priority.
    pub fn rule_add(&mut self, new: &NewRule) -> Result<Rule> {
        self.connection
            .get(&rule_new(new), rule::NAMES, Rule::decode)
    }

    /// Remove the rule with this priority.
    pub fn rule_del(&mut self, priority: u32) -> Result<()> {
        let request = rule_request(cmd::RULE_DEL, priority);
        self.connection.execute(&request, rule::NAMES)
    }

    /// Remove all rules at once.
    pub fn rule_flush(&mut self) -> Result<()> {
        let request = Request::new(cmd::RULE_FLUSH);
        self.connection.execute(&request, rule::NAMES)
    }

    /// The rule with this priority.
    pub fn rule(&mut self, priority: u32) -> Result<Rule> {
        let request = rule_request(cmd::RULE_GET, priority);
        self.connection.get(&request, rule::NAMES, Rule::decode)
    }

    /// All rules, by priority.
    pub fn rules(&mut self) -> Result<Vec<Rule>> {
        let request = Request::new(cmd::RULE_GET);
        self.connection.dump(request, rule::NAMES, Rule::decode)
    }
}

fn rule_request(cmd: u8, priority: u32) -> Request {
    Request::new(cmd).u32(rule::PRIORITY, priority)
}

fn rule_new(new: &NewRule) -> Request {
    let mut request = Request::new(cmd::RULE_NEW).u32(rule::ACTION, new.action as u32);
    if let Some(priority) = new.priority {
        request = request.u32(rule::PRIORITY, priority);
    }
    if let Some((addr, bits)) = new.from {
        request = request
            .addr(rule::FROM_ADDR, addr)
            .u32(rule::FROM_PREFIX, bits);
    }
    let to = new.to.and_then(|to| to.ports);
    if let Some(to) = new.to {
        request = request.addr(rule::VIP_ADDR, to.vip);
    }
    if let Some((ports, _)) = to {
        request = request.port(rule::VIP_PORT, ports.first);
        if let Some(last) = ports.more() {
            request = request.port(rule::VIP_PORT_LAST, last);
        }
    }
    match to.map(|(_, proto)| proto).or(new.proto) {
        Some(proto) => request.u32(rule::PROTO, proto.0),
        None => request,
    }
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    #[test]
    fn rule_new_bytes() {
        let mut new = NewRule {
            priority: None,
            action: RuleAction::Reject,
            from: None,
            to: None,
            proto: Some(Proto::UDP),
        };
        let bytes = rule_new(&new).finish(0x23, 5).unwrap();
        #[rustfmt::skip]
        assert_eq!(bytes[20..], [
            8, 0, 2, 0, 2, 0, 0, 0,
            8, 0, 8, 0, 17, 0, 0, 0,
        ]);
        new = NewRule {
            priority: Some(7),
            action: RuleAction::Drop,
            from: Some(([198, 51, 100, 0].into(), 24)),
            to: Some("192.0.2.10:80-81/tcp".parse().unwrap()),
            proto: None,
        };
        let bytes = rule_new(&new).finish(0x23, 5).unwrap();
        #[rustfmt::skip]
        assert_eq!(bytes[20..], [
            8, 0, 2, 0, 1, 0, 0, 0,
            8, 0, 1, 0, 7, 0, 0, 0,
            8, 0, 3, 0, 198, 51, 100, 0,
            8, 0, 4, 0, 24, 0, 0, 0,
            8, 0, 5, 0, 192, 0, 2, 10,
            6, 0, 6, 0, 0, 80, 0, 0,
            6, 0, 7, 0, 0, 81, 0, 0,
            8, 0, 8, 0, 6, 0, 0, 0,
        ]);
    }
}
