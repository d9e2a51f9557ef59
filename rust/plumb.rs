// SPDX-License-Identifier: GPL-2.0

//! Where a migration meets the forwarder.
//!
//! A migrator must work on hosts, which have no forwarder, and so must not depend on `nlb_fwd`. Yet
//! the connection it moves needs a route. `nlb_fwd` offers its route table here when it is loaded,
//! and `nlb_migrator` finds it here.

use crate::{
    net::Net,
    wire::{
        addr::{
            Addr,
            FourTuple, //
        },
        flow_id::FlowId, //
    }, //
};
use kernel::prelude::*;

/// A table of routes.
///
/// All functions are called in process context, with a mutex held that keeps the plumber from being
/// unregistered.
pub trait Plumber: Sync {
    /// Whether there is a service in namespace `net` that connections to the VIP of `tuple` belong
    /// to.
    fn serves(&self, net: &Net, tuple: &FourTuple) -> bool;

    /// The host that packets of the connection are sent to by a route in namespace `net`, if there is one.
    fn routed_to(&self, net: &Net, tuple: &FourTuple) -> Option<Addr>;

    /// Lets packets of the connection travel by the mapping of `flow_id`, from now on.
    ///
    /// The route owns the mapping then and releases it at its end. Errors: `EEXIST`, `ENOENT` (no
    /// such mapping, or no service), `EHOSTDOWN` (the host is an endpoint that gets no new
    /// connections), `ENOSPC`, `ENOMEM`.
    fn plumb(&self, net: &Net, tuple: &FourTuple, flow_id: FlowId) -> Result;

    /// Removes the route at once: packets go to the local stack again.
    fn unplumb(&self, net: &Net, tuple: &FourTuple, flow_id: FlowId);

    /// The connection has come back from `host`: removes the route that leads there at once.
    fn returned(&self, net: &Net, tuple: &FourTuple, host: Addr);

    /// The connection has ended at `host`, if the route by this flow id still leads there: it goes as soon as
    /// nothing of the connection can come any more, and does not stand in the way of a new one with this
    /// tuple.
    fn closed(&self, net: &Net, tuple: &FourTuple, flow_id: FlowId, host: Addr);

    /// Nobody will say when the connection has ended at `host`, if the route still leads there: it has to find
    /// out by itself.
    fn unwatched(&self, net: &Net, tuple: &FourTuple, flow_id: FlowId, host: Addr);

    /// The source of this machine's tunnel packets to `host`, if that is an endpoint, by the tunnel, of the
    /// service whose route sends the connection by this flow id; and may be sent to.
    fn source_to(&self, net: &Net, tuple: &FourTuple, flow_id: FlowId, host: Addr) -> Option<Addr>;

    /// Lets packets of the connection go to another endpoint, at `host`, by the same flow id, from now on.
    /// Nobody will say when it has ended there. Errors: `ENOENT` if there is no such route, or no such endpoint
    /// (see [`Plumber::source_to`]), `ENOMEM`.
    fn reroute(&self, net: &Net, tuple: &FourTuple, flow_id: FlowId, host: Addr) -> Result;
}

kernel::sync::global_lock! {
    // SAFETY: `init` is called when this module is loaded, before others can use it.
    unsafe(uninit) static PLUMBER: Mutex<Option<&'static dyn Plumber>> = None;
}

/// Prepares the registration.
///
/// # Safety
///
/// Must be called exactly once, before anything else here.
pub(crate) unsafe fn init() {
    // SAFETY: By the safety requirements.
    unsafe { PLUMBER.init() };
}

/// A plumber that can be found; no more once this is dropped.
pub struct Registration(());

impl Registration {
    /// Registers the one plumber there can be. `EBUSY`: there is one.
    pub fn new(plumber: &'static dyn Plumber) -> Result<Self> {
        let mut slot = PLUMBER.lock();
        if slot.is_some() {
            return Err(EBUSY);
        }
        *slot = Some(plumber);
        Ok(Self(()))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // Waits for a call that is under way.
        *PLUMBER.lock() = None;
    }
}

/// Calls the plumber; `None` if there is none.
///
/// May sleep. `f` must not drop or make a [`Registration`].
pub fn with<R>(f: impl FnOnce(&dyn Plumber) -> R) -> Option<R> {
    let slot = PLUMBER.lock();
    slot.map(f)
}
