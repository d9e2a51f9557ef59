// SPDX-License-Identifier: GPL-2.0

//! Hooks at the ingress of devices: of packets that have just come in, before the network layer
//! has seen them.

use super::HookState;
use crate::{
    bindings,
    net::{
        netdevice::{
            DeviceEvent,
            DeviceNotifier,
            NetDevice,
            NotifierRegistration, //
        },
        skbuff::Arrival, //
    },
    sync::rcu, //
};
use core::{
    marker::PhantomData,
    mem::offset_of,
    ptr, //
};
use kernel::{
    error::to_result,
    new_mutex,
    prelude::*,
    sync::Mutex,
    types::Opaque, //
};

/// A hook at the ingress of devices.
///
/// Runs with softirqs disabled and under RCU; must not sleep.
pub trait IngressHook: 'static {
    /// Order among the hooks of a device, ascending; nftables have theirs about 0.
    const PRIORITY: i32;

    /// Whether the packets of this device shall pass the hook. Asked once, when the device is
    /// registered in its namespace.
    fn is_for(dev: &NetDevice) -> bool;

    /// A device of any kind goes, or leaves its namespace. Called with the RTNL held; may sleep.
    fn gone(dev: &NetDevice);

    /// Looks at a packet, and takes it or gives it back, so that it goes on its way.
    fn run(state: &HookState<'_>, packet: Arrival) -> Result<(), Arrival>;
}

/// Keeps an [`IngressHook`] on all devices that it is for, of all namespaces.
///
/// Dropping it waits until nobody is in the hook any more.
pub struct IngressRegistration<H: IngressHook>(Option<NotifierRegistration<Devices<H>>>);

impl<H: IngressHook> IngressRegistration<H> {
    /// Registers the hook. May sleep, takes the RTNL.
    pub fn new() -> Result<Self> {
        let devices = try_pin_init!(Devices {
            hooks <- new_mutex!(KVec::new()),
            _hook: PhantomData,
        }? Error);
        // On an error, too, hooks may have come and gone.
        let mut this = Self(None);
        this.0 = Some(NotifierRegistration::new(devices)?);
        Ok(this)
    }
}

impl<H: IngressHook> Drop for IngressRegistration<H> {
    fn drop(&mut self) {
        self.0 = None;
        rcu::synchronize();
        // Hooks of devices that have just gone are freed by code of this module.
        // SAFETY: A plain call; process context.
        unsafe { bindings::rcu_barrier() };
    }
}

/// The devices that have the hook.
#[pin_data]
struct Devices<H: IngressHook> {
    #[pin]
    hooks: Mutex<KVec<KBox<DeviceHook>>>,
    _hook: PhantomData<fn() -> H>,
}

/// A hook as the kernel wants it, for one device.
struct DeviceHook {
    ops: bindings::nf_hook_ops,
    rcu: Opaque<bindings::callback_head>,
}

// SAFETY: The device in it is only compared, and what is in a list is constant.
unsafe impl Send for DeviceHook {}

impl<H: IngressHook> Devices<H> {
    /// Errors: `ENOMEM`.
    fn add(&self, dev: &NetDevice) -> Result {
        // SAFETY: All zeroes are a valid `nf_hook_ops`: null pointers, `None` and numbers.
        let mut ops: bindings::nf_hook_ops = unsafe { core::mem::zeroed() };
        ops.hook = Some(callback::<H>);
        ops.dev = dev.as_raw();
        ops.pf = bindings::NFPROTO_NETDEV as u8;
        ops.hooknum = bindings::nf_dev_hooks_NF_NETDEV_INGRESS;
        ops.priority = H::PRIORITY;
        let hook = KBox::new(
            DeviceHook {
                ops,
                rcu: Opaque::uninit(),
            },
            GFP_KERNEL,
        )?;
        let mut hooks = self.hooks.lock();
        hooks.reserve(1, GFP_KERNEL)?;
        // SAFETY: The hook is filled, stays where it is, and is unregistered when the device goes,
        // or with the notifier.
        to_result(unsafe { bindings::nf_register_net_hook(dev.net().as_raw(), &hook.ops) })?;
        hooks.push_within_capacity(hook).map_err(|_| ENOMEM)
    }

    fn remove(&self, dev: &NetDevice) {
        let mut hooks = self.hooks.lock();
        let Some(index) = hooks
            .iter()
            .position(|hook| ptr::eq(hook.ops.dev, dev.as_raw()))
        else {
            return;
        };
        let Ok(hook) = hooks.remove(index) else {
            return;
        };
        let hook = KBox::into_raw(hook);
        // SAFETY: It was registered in this namespace: a device has to go from one before it comes
        // into another one. The hook is freed when no list can be under way to a reader any more.
        unsafe {
            bindings::nf_unregister_net_hook(dev.net().as_raw(), &(*hook).ops);
            bindings::call_rcu(
                Opaque::cast_into(&raw const (*hook).rcu),
                Some(free_callback),
            );
        }
    }
}

impl<H: IngressHook> DeviceNotifier for Devices<H> {
    fn event(&self, event: DeviceEvent, dev: &NetDevice) {
        match event {
            // Without memory its packets go the ordinary way.
            DeviceEvent::Register if H::is_for(dev) => drop(self.add(dev)),
            DeviceEvent::Unregister => {
                self.remove(dev);
                H::gone(dev);
            }
            _ => {}
        }
    }
}

/// # Safety
///
/// `head` must be the `rcu` of a [`DeviceHook`] that was unregistered, a grace period ago.
unsafe extern "C" fn free_callback(head: *mut bindings::callback_head) {
    // SAFETY: `Devices::remove` passed the `rcu` of one.
    let hook = unsafe { head.byte_sub(offset_of!(DeviceHook, rcu)) }.cast::<DeviceHook>();
    // SAFETY: It came from `KBox::into_raw`, and nobody has it any more.
    drop(unsafe { KBox::from_raw(hook) });
}

/// # Safety
///
/// Only called by netfilter at the ingress of a device, with a packet that is given away and a
/// valid state, under RCU.
unsafe extern "C" fn callback<H: IngressHook>(
    _priv: *mut c_void,
    skb: *mut bindings::sk_buff,
    state: *const bindings::nf_hook_state,
) -> c_uint {
    // SAFETY: The kernel passes a valid state, under RCU.
    let state = unsafe { HookState::from_raw(state) };
    // SAFETY: The kernel passes a packet, whose count is ours unless we return `NF_ACCEPT`. RCU
    // keeps its device, and packets arrive with softirqs off.
    let packet = unsafe { Arrival::from_raw(skb) };
    match H::run(&state, packet) {
        Err(packet) if ptr::eq(packet.as_raw(), skb) => {
            let _ = packet.into_raw();
            bindings::NF_ACCEPT
        }
        // The kernel cannot be given another packet than its own.
        Ok(()) | Err(_) => bindings::NF_STOLEN,
    }
}
