// SPDX-License-Identifier: GPL-2.0

//! What is looked after once a second: ends of connections, silence, clients
//! that are to be reset, lost connections to peers.

use crate::{
    state::Shared,
    transport, //
};
use kernel::sync::Arc;

/// Milliseconds between two looks.
pub(crate) const PERIOD_MS: u32 = 1000;

/// Takes a look. `false` if there is nothing more to look after.
pub(crate) fn look(shared: &Arc<Shared>) -> bool {
    let Some(net) = shared.weak.upgrade() else {
        return false;
    };
    shared.arrivals.tidy(shared, &net);
    shared.tombstones.tick(&net, &shared.stats);
    let mut next = 0;
    while let Some((peer, after)) = shared.peers.first_from(next) {
        transport::reconnect(shared, &peer, &net);
        transport::catch_up(shared, &peer);
        next = after;
    }
    !(shared.peers.is_empty() && shared.arrivals.is_empty() && shared.tombstones.is_empty())
}
