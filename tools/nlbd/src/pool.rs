// SPDX-License-Identifier: MIT OR Apache-2.0

//! Endpoints that do the same work.

use std::{
    net::IpAddr,
    sync::Mutex, //
};

/// The most that the weights of a pool may add up to.
const TOTAL_MAX: i64 = 1 << 32;

/// Endpoints and whose turn it is, by smooth weighted round robin.
#[derive(Debug)]
pub(crate) struct Pool {
    hosts: Vec<(IpAddr, u32)>,
    credit: Mutex<Vec<i64>>,
}

impl Pool {
    /// A pool of hosts with their weights. The error says what is wrong with them.
    pub(crate) fn new(hosts: Vec<(IpAddr, u32)>) -> Result<Self, String> {
        if hosts.is_empty() {
            return Err("it has no hosts; name at least one".into());
        }
        if hosts.iter().all(|(_, weight)| *weight == 0) {
            return Err("all weights are 0; give one host another".into());
        }
        if hosts
            .iter()
            .map(|(_, weight)| i64::from(*weight))
            .sum::<i64>()
            > TOTAL_MAX
        {
            return Err("the weights are too large".into());
        }
        for (index, (addr, _)) in hosts.iter().enumerate() {
            if hosts[..index].iter().any(|(other, _)| other == addr) {
                return Err(format!("host {addr} is there twice"));
            }
        }
        let credit = Mutex::new(vec![0; hosts.len()]);
        Ok(Self { hosts, credit })
    }

    /// The hosts in the order in which to try them: the one whose turn it is, then the others that
    /// have a weight.
    pub(crate) fn turn(&self) -> Vec<IpAddr> {
        let mut credit = match self.credit.lock() {
            Ok(credit) => credit,
            Err(poisoned) => poisoned.into_inner(),
        };
        let total: i64 = self
            .hosts
            .iter()
            .map(|(_, weight)| i64::from(*weight))
            .sum();
        for (credit, (_, weight)) in credit.iter_mut().zip(&self.hosts) {
            *credit += i64::from(*weight);
        }
        // Hosts without weight never gain credit, so there is always another with at least as much.
        let first = (0..self.hosts.len())
            .filter(|index| self.hosts[*index].1 > 0)
            .max_by_key(|index| (credit[*index], usize::MAX - index))
            .unwrap_or(0);
        credit[first] -= total;
        let others = (first + 1..self.hosts.len()).chain(0..first);
        std::iter::once(first)
            .chain(others.filter(|index| self.hosts[*index].1 > 0))
            .map(|index| self.hosts[index].0)
            .collect()
    }
}
