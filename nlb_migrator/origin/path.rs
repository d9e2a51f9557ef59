// SPDX-License-Identifier: GPL-2.0

//! How a connection's packets get to where it has moved.

use crate::reason::{
    Code,
    Reason, //
};
use kernel::prelude::*;
use nlb::{
    errno::EHOSTDOWN,
    net::Net,
    plumb,
    wire::{
        addr::{
            Addr,
            FourTuple, //
        },
        flow_id::FlowId, //
    },
};

/// What sends the packets of a connection to the target: one or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Path {
    /// A route of `nlb_fwd`, for those that come by a wire.
    route: bool,
    /// A relay of `nlb_tunnel`, for those that come out of the tunnel of another machine, which will send them to
    /// the target by itself when it knows.
    relay: bool,
}

impl Path {
    /// What there has to be for a connection of this machine, or why there can be nothing. Process context.
    pub(super) fn of(net: &Net, tuple: &FourTuple) -> Result<Self, Reason> {
        let relay = nlb_tunnel::is_mapped(net, tuple);
        match plumb::with(|plumber| plumber.serves(net, tuple)) {
            Some(true) => Ok(Self { route: true, relay }),
            _ if relay => Ok(Self {
                route: false,
                relay,
            }),
            Some(false) => Err(Code::NoService.into()),
            None => Err(Code::NoForwarder.into()),
        }
    }

    /// Sends packets to the target from now on, by a flow id that is the path's then.
    pub(super) fn plumb(self, net: &Net, tuple: &FourTuple, flow_id: FlowId) -> Result<(), Reason> {
        if self.route {
            plumb::with(|plumber| plumber.plumb(net, tuple, flow_id))
                .ok_or(Code::NoForwarder)?
                .map_err(|error| reason(error, Code::NoService))?;
        }
        if self.relay {
            // What has stood for the connection may be gone; then there is nothing to send on.
            match nlb_tunnel::relay(net, tuple, flow_id, !self.route) {
                Err(ENOENT) if self.route => {}
                done => done.map_err(|error| {
                    if self.route {
                        plumb::with(|plumber| plumber.unplumb(net, tuple, flow_id));
                    }
                    reason(error, Code::NoRoute)
                })?,
            }
        }
        Ok(())
    }

    /// Packets stay here again.
    pub(super) fn unplumb(self, net: &Net, tuple: &FourTuple, flow_id: FlowId) {
        self.end_relay(net, tuple, flow_id);
        if self.route {
            plumb::with(|plumber| plumber.unplumb(net, tuple, flow_id));
        }
    }

    fn end_relay(self, net: &Net, tuple: &FourTuple, flow_id: FlowId) {
        if self.relay {
            nlb_tunnel::end_relay(net, tuple, flow_id);
        }
    }

    /// The connection lives at the target.
    pub(super) fn settled(self, net: &Net, tuple: &FourTuple, flow_id: FlowId) {
        if self.relay {
            nlb_tunnel::settle_relay(net, tuple, flow_id);
        }
    }

    /// The connection has ended at the target.
    pub(super) fn closed(self, net: &Net, tuple: &FourTuple, flow_id: FlowId, host: Addr) {
        self.end_relay(net, tuple, flow_id);
        if self.route {
            plumb::with(|plumber| plumber.closed(net, tuple, flow_id, host));
        }
    }

    /// Nothing will be heard of its end.
    pub(super) fn unwatched(self, net: &Net, tuple: &FourTuple, flow_id: FlowId, host: Addr) {
        if self.relay {
            nlb_tunnel::unwatch_relay(net, tuple, flow_id);
        }
        if self.route {
            plumb::with(|plumber| plumber.unwatched(net, tuple, flow_id, host));
        }
    }
}

/// Why there is no path; `absent` if what it needs is not there.
fn reason(error: Error, absent: Code) -> Reason {
    if error == ENOENT {
        absent.into()
    } else if error == EEXIST {
        Code::RouteExists.into()
    } else if error == EHOSTDOWN {
        Code::NotActive.into()
    } else if error == ENOMEM {
        Code::NoMemory.into()
    } else {
        let number = error.to_errno().wrapping_neg();
        Reason::with_detail(Code::NoRoute, fmt!("error {number}"))
    }
}
