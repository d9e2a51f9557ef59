// SPDX-License-Identifier: MIT OR Apache-2.0

//! Endpoints that do the same work.

use crate::endpoints;
use serde::Deserialize;
use std::{
    net::IpAddr,
    sync::Mutex, //
};

/// The most that the weights of a pool may add up to.
const TOTAL_MAX: i64 = 1 << 32;

/// Which weights count.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Weights {
    /// Those of the configuration.
    #[default]
    File,
    /// Those of the endpoints of the connection's service, as far as the hosts are some.
    Endpoints,
}

/// Endpoints and whose turn it is, by smooth weighted round robin.
#[derive(Debug)]
pub(crate) struct Pool {
    hosts: Vec<(IpAddr, u32)>,
    weights: Weights,
    credit: Mutex<Vec<i64>>,
}

impl Pool {
    /// A pool of hosts with their weights. The error says what is wrong with them.
    pub(crate) fn new(hosts: Vec<(IpAddr, u32)>, weights: Weights) -> Result<Self, String> {
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
        Ok(Self {
            hosts,
            weights,
            credit,
        })
    }

    /// Whether it goes by the weights of endpoints.
    pub(crate) fn follows(&self) -> bool {
        self.weights == Weights::Endpoints
    }

    /// The hosts in the order in which to try them: the one whose turn it is, then the others that
    /// have a weight. `endpoints` are those of the connection's service, if there are some.
    pub(crate) fn turn(&self, endpoints: Option<&endpoints::Weights>) -> Vec<IpAddr> {
        let endpoints = endpoints.filter(|_| self.follows());
        let weight_of = |&(addr, weight): &(IpAddr, u32)| {
            i64::from(
                endpoints
                    .and_then(|all| all.get(&addr).copied())
                    .unwrap_or(weight),
            )
        };
        let weights: Vec<i64> = self.hosts.iter().map(weight_of).collect();
        let total: i64 = weights.iter().sum();
        let mut credit = match self.credit.lock() {
            Ok(credit) => credit,
            Err(poisoned) => poisoned.into_inner(),
        };
        for (credit, weight) in credit.iter_mut().zip(&weights) {
            // What was earned by larger weights is not a debt for long. Who has none now earns nothing.
            *credit = match weight {
                0 => 0,
                weight => (*credit).clamp(-total, total) + weight,
            };
        }
        let has_weight = |index: &usize| weights[*index] > 0;
        let first = (0..self.hosts.len())
            .filter(has_weight)
            .max_by_key(|index| (credit[*index], usize::MAX - index));
        let Some(first) = first else {
            return Vec::new();
        };
        credit[first] -= total;
        let others = (first + 1..self.hosts.len()).chain(0..first);
        std::iter::once(first)
            .chain(others.filter(has_weight))
            .map(|index| self.hosts[index].0)
            .collect()
    }
}
