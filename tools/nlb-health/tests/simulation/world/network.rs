// SPDX-License-Identifier: MIT OR Apache-2.0

//! The network: what it loses, doubles, delays and plays again.

use super::{multicast_group, unit_address, World, DELAY_MAX, RECORDED};
use nlb_health::Transmit;
use std::{
    cmp::Reverse,
    collections::BTreeSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

/// A datagram under way.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Datagram {
    pub(super) at: Instant,
    order: u64,
    sent: Instant,
    pub(super) from: SocketAddr,
    to: SocketAddr,
    pub(super) bytes: Arc<[u8]>,
}

#[derive(Default)]
pub(crate) struct Faults {
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) late: u64,
    /// From, to.
    pub(crate) cut: BTreeSet<(SocketAddr, SocketAddr)>,
    /// Units to which the network does not carry the multicast group.
    pub(crate) deaf: BTreeSet<usize>,
}

impl World {
    /// What goes to the multicast group has a way of its own to each unit.
    pub(super) fn send(&mut self, from: SocketAddr, transmit: Transmit) {
        if transmit.to != multicast_group() {
            return self.send_one(from, transmit);
        }
        for index in 0..self.units.len() {
            if !self.faults.deaf.contains(&index) {
                let to = unit_address(index);
                let datagram = transmit.datagram.clone();
                self.send_one(from, Transmit { to, datagram });
            }
        }
    }

    fn send_one(&mut self, from: SocketAddr, transmit: Transmit) {
        let copies = 1 + u64::from(self.random.percent(self.faults.doubled));
        for _ in 0..copies {
            if self.random.percent(self.faults.lost)
                || self.faults.cut.contains(&(from, transmit.to))
            {
                continue;
            }
            let most = if self.random.percent(self.faults.late) {
                DELAY_MAX
            } else {
                Duration::from_millis(2)
            };
            let at = self.now + self.random.up_to(most);
            self.put(at, from, transmit.to, transmit.datagram.clone());
        }
    }

    fn put(&mut self, at: Instant, from: SocketAddr, to: SocketAddr, bytes: Arc<[u8]>) {
        self.order += 1;
        self.net.push(Reverse(Datagram {
            at,
            order: self.order,
            sent: self.now,
            from,
            to,
            bytes,
        }));
    }

    /// Something that was delivered before comes again, perhaps changed.
    pub(crate) fn replay(&mut self) {
        if self.recorded.is_empty() {
            return;
        }
        let index = self.random.below(self.recorded.len());
        let old = self.recorded[index].clone();
        let mut bytes = old.bytes.to_vec();
        if self.random.percent(30) {
            let at = self.random.below(bytes.len());
            bytes[at] ^= 1 << self.random.below(8);
        }
        // From somewhere else.
        let from = SocketAddr::from(([10, 9, 0, 1], 9));
        self.put(self.now, from, old.to, bytes.into());
    }

    pub(super) fn deliver(&mut self, datagram: Datagram) {
        let (from, to) = (datagram.from, datagram.to);
        let genuine = !from.ip().to_string().starts_with("10.9.");
        if let Some(index) = self.host_at(to) {
            if genuine {
                self.truth.arrive(self.now, &datagram.bytes);
            }
            let host = &mut self.hosts[index];
            if host.still.is_some() {
                host.waiting.push(datagram.clone());
            } else if let Some(agent) = host.running() {
                agent.handle_datagram(self.now, from, &datagram.bytes);
            }
        } else if let Some(index) = (0..self.units.len()).find(|i| unit_address(*i) == to) {
            let is_of_host = self.host_at(from).is_some();
            let unit = &mut self.units[index];
            if let Some(lbu) = &mut unit.lbu {
                lbu.handle_datagram(self.now, from, &datagram.bytes);
                if is_of_host {
                    for (host, at) in self.truth.said(datagram.sent, &datagram.bytes) {
                        let heard = unit.heard.entry(host).or_insert(at);
                        *heard = at.max(*heard);
                    }
                }
            }
        }
        if genuine {
            if self.recorded.len() < RECORDED {
                self.recorded.push(datagram);
            } else {
                let index = self.random.below(RECORDED);
                self.recorded[index] = datagram;
            }
        }
    }

    /// Whose address it is.
    fn host_at(&self, address: SocketAddr) -> Option<usize> {
        let SocketAddr::V4(address) = address else {
            return None;
        };
        let [10, 0 | 3, 0, number] = address.ip().octets() else {
            return None;
        };
        usize::from(number).checked_sub(1)
    }
}
