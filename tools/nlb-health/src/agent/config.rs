// SPDX-License-Identifier: MIT OR Apache-2.0

//! What an agent is told, and what it tells.

use super::group::GroupConfig;
use crate::{
    load::LoadConfig,
    row::{AppId, Directive},
    wire::{AGE_LIMIT_MAX, AGE_LIMIT_MIN},
};
use std::{net::SocketAddr, time::Duration};

/// How an agent behaves. [`AgentConfig::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The host's id: "a unique (e.g., 32-bit) number that is selected at configuration time", not 0.
    pub host: u32,
    /// Its life: larger than in the life before, such as the time of the start; not 0.
    pub epoch: u64,
    /// Where load balancing units are.
    pub lbus: Vec<SocketAddr>,
    /// Multicast groups that load balancing units have joined: what is for all of them goes there, too. What is asked
    /// and answered does not.
    pub multicast: Vec<SocketAddr>,
    /// The host's DNS name.
    pub name: Option<String>,
    /// Every how many heartbeats it is sent.
    pub name_every: u32,
    /// Between two heartbeats.
    pub heartbeat_interval: Duration,
    /// How long anybody may use what a heartbeat has confirmed.
    pub age_limit: Duration,
    /// The longest that the network may delay a datagram; with a group, two of them, one behind the other, and half a
    /// second in which a leader may stand still. Who was not heard follows a directive so long after the age limit.
    pub margin: Duration,
    /// From a row change to the heartbeat that finds out where it was lost.
    pub recheck: Duration,
    /// From a row change to its first postulate.
    pub postulate_delay: Duration,
    /// Between two postulates, as long as they are wrong somewhere.
    pub postulate_interval: Duration,
    /// Load balancing units that were not heard for so long are asked whether they are there.
    pub presence_interval: Duration,
    /// And are forgotten after so long.
    pub forget_after: Duration,
    /// Between two snapshots for one load balancing unit.
    pub snapshot_interval: Duration,
    /// Of what load is made.
    pub load: LoadConfig,
    /// While an application is failing, its target is draining where it would be active.
    pub drain_when_failing: bool,
    /// The group that the host is in, whose leader passes on its heartbeats.
    pub group: Option<GroupConfig>,
    /// Of how many chunks the table is, 1 to [`crate::wire::CHUNKS_MAX`].
    pub chunks: u8,
    /// Most rows, at most [`crate::table::ROWS_MAX`].
    pub max_rows: usize,
    /// Most load balancing units.
    pub max_lbus: usize,
}

impl AgentConfig {
    /// The defaults for `host` in the life `epoch`.
    pub fn new(host: u32, epoch: u64, lbus: Vec<SocketAddr>) -> Self {
        Self {
            host,
            epoch,
            lbus,
            multicast: Vec::new(),
            name: None,
            name_every: 10,
            heartbeat_interval: Duration::from_secs(1),
            age_limit: Duration::from_secs(5),
            margin: Duration::from_secs(1),
            recheck: Duration::from_millis(200),
            postulate_delay: Duration::from_millis(100),
            postulate_interval: Duration::from_millis(500),
            presence_interval: Duration::from_secs(60),
            forget_after: Duration::from_secs(600),
            snapshot_interval: Duration::from_millis(100),
            load: LoadConfig::default(),
            drain_when_failing: true,
            group: None,
            chunks: 4,
            max_rows: 512,
            max_lbus: 64,
        }
    }

    pub(super) fn age_limit_ms(&self) -> u32 {
        u32::try_from(self.age_limit.as_millis())
            .unwrap_or(AGE_LIMIT_MAX)
            .clamp(AGE_LIMIT_MIN, AGE_LIMIT_MAX)
    }

    /// After so long nobody uses what it knew before.
    pub(super) fn lease(&self) -> Duration {
        Duration::from_millis(u64::from(self.age_limit_ms())) + self.margin
    }
}

/// What the caller should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// No load balancing unit does anything else with `app`: they have said so, or are silent and too long without
    /// confirmed knowledge of it to use any. If it is draining or inactive, it gets no new connection.
    DirectiveReached {
        /// The row.
        app: AppId,
        /// The current state, now that of the target.
        directive: Directive,
    },
    /// A load balancing unit asks for the first time.
    LbuFound {
        /// Its id.
        lbu: u32,
        /// Where.
        from: SocketAddr,
    },
    /// It was not heard for [`AgentConfig::forget_after`].
    LbuLost {
        /// Its id.
        lbu: u32,
    },
    /// Another host leads the group now, as far as is known here; or it is this one.
    Leader {
        /// It.
        host: u32,
        /// How many hosts are there, with this one.
        members: usize,
    },
    /// [`super::Agent::shut_down`] has done all it does.
    Gone,
}
