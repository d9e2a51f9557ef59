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
    sync::object::PartRef,
    wire::{
        addr::{
            Addr,
            FourTuple, //
        },
        flow_id::FlowId, //
    },
};
use nlb_tunnel::Mapping;

/// What sends the packets of a connection to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// A route of `nlb_fwd`: they come by a wire.
    Route,
    /// A relay of `nlb_tunnel`: they come out of the tunnel of another machine, which will send them to the
    /// target by itself when it knows.
    Relay,
}

impl Path {
    /// What there has to be for a connection of this machine, or why there can be nothing. Process context.
    pub(super) fn of(net: &Net, tuple: &FourTuple) -> Result<Self, Reason> {
        if nlb_tunnel::is_mapped(net, tuple) {
            return Ok(Self::Relay);
        }
        match plumb::with(|plumber| plumber.serves(net, tuple)) {
            Some(true) => Ok(Self::Route),
            Some(false) => Err(Code::NoService.into()),
            None => Err(Code::NoForwarder.into()),
        }
    }

    /// Sends packets to the target from now on, by a mapping that is the path's then.
    pub(super) fn plumb(
        self,
        net: &Net,
        tuple: &FourTuple,
        mapping: &PartRef<Mapping>,
    ) -> Result<(), Reason> {
        let done = match self {
            Self::Route => {
                let flow_id = mapping.flow_id().ok_or(Code::NoFlowId)?;
                plumb::with(|plumber| plumber.plumb(net, tuple, flow_id))
                    .ok_or(Code::NoForwarder)?
            }
            Self::Relay => nlb_tunnel::relay(net, tuple, mapping.clone()),
        };
        done.map_err(|error| {
            if error == ENOENT && self == Self::Route {
                Reason::from(Code::NoService)
            } else if error == EEXIST {
                Reason::from(Code::RouteExists)
            } else if error == EHOSTDOWN {
                Reason::from(Code::NotActive)
            } else if error == ENOMEM {
                Reason::from(Code::NoMemory)
            } else {
                let number = error.to_errno().wrapping_neg();
                Reason::with_detail(Code::NoRoute, fmt!("error {number}"))
            }
        })
    }

    /// Packets stay here again.
    pub(super) fn unplumb(self, net: &Net, tuple: &FourTuple, flow_id: FlowId) {
        match self {
            Self::Route => {
                plumb::with(|plumber| plumber.unplumb(net, tuple, flow_id));
            }
            Self::Relay => nlb_tunnel::end_relay(net, tuple, flow_id),
        }
    }

    /// The connection lives at the target.
    pub(super) fn settled(self, net: &Net, tuple: &FourTuple, flow_id: FlowId) {
        match self {
            Self::Route => {}
            Self::Relay => nlb_tunnel::settle_relay(net, tuple, flow_id),
        }
    }

    /// The connection has ended at the target.
    pub(super) fn closed(self, net: &Net, tuple: &FourTuple, flow_id: FlowId, host: Addr) {
        match self {
            Self::Route => {
                plumb::with(|plumber| plumber.closed(net, tuple, flow_id, host));
            }
            Self::Relay => nlb_tunnel::end_relay(net, tuple, flow_id),
        }
    }

    /// Nothing will be heard of its end.
    pub(super) fn unwatched(self, net: &Net, tuple: &FourTuple, flow_id: FlowId, host: Addr) {
        match self {
            Self::Route => {
                plumb::with(|plumber| plumber.unwatched(net, tuple, flow_id, host));
            }
            Self::Relay => nlb_tunnel::unwatch_relay(net, tuple, flow_id),
        }
    }
}
