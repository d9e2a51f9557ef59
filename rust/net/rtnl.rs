// SPDX-License-Identifier: GPL-2.0

//! Virtual network devices, made by `ip link add … type KIND`.
//!
//! C header: [`include/net/rtnetlink.h`](srctree/include/net/rtnetlink.h)

use super::{
    netdevice::NetDevice,
    skbuff::{
        DropReason,
        SkBuff, //
    },
};
use crate::bindings;
use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    mem::{
        align_of,
        size_of,
        MaybeUninit, //
    },
    ptr, //
};
use kernel::{
    error::{
        from_result,
        to_result, //
    },
    prelude::*,
    sync::atomic::{
        Atomic,
        Full,
        Release, //
    },
};

/// What became of a packet that a device was to send.
#[must_use]
pub enum TxOutcome {
    /// It is on its way.
    Sent,
    /// It is dropped for a reason, and counted.
    Dropped(SkBuff, DropReason),
}

/// A kind of virtual device: point-to-point or dummy-like, without a link layer, without a queue.
///
/// Devices start with `IFF_NOARP` set.
pub trait LinkDriver: Sized + 'static {
    /// The name of the kind; the module should have the alias `rtnl-link-KIND`.
    const KIND: &'static CStr;
    /// The MTU of a new device.
    const MTU: u32 = 1500;
    /// The largest MTU.
    const MAX_MTU: u32 = 65535;

    /// What the driver keeps in each device.
    type Private: Send + Sync;

    /// The one type of this driver.
    fn link_type() -> &'static LinkType<Self>;

    /// Makes the private data of a new device. RTNL.
    fn init(dev: &NetDevice) -> impl PinInit<Self::Private, Error>;

    /// Sends a packet, whose data starts at its network header. Softirqs are off.
    fn start_xmit(dev: &NetDevice, private: &Self::Private, skb: SkBuff) -> TxOutcome;
}

/// What is behind a device in memory, zeroed at first.
///
/// # Invariants
///
/// `private` is initialised if `ready` is set.
#[repr(C)]
struct Slot<P> {
    ready: bool,
    private: MaybeUninit<P>,
}

/// A kind of virtual device; a `static` in the module.
pub struct LinkType<D: LinkDriver> {
    ops: UnsafeCell<bindings::rtnl_link_ops>,
    registered: Atomic<bool>,
    _driver: PhantomData<fn(D)>,
}

// SAFETY: `ops` is written by `register`, which only one caller gets through to, and by the kernel
// under its locks.
unsafe impl<D: LinkDriver> Sync for LinkType<D> {}

impl<D: LinkDriver> LinkType<D> {
    const NETDEV_OPS: &'static bindings::net_device_ops = &{
        // SAFETY: All zeroes are valid: a structure of optional functions.
        let mut ops: bindings::net_device_ops = unsafe { core::mem::zeroed() };
        ops.ndo_init = Some(Self::init_callback);
        ops.ndo_start_xmit = Some(Self::start_xmit_callback);
        ops
    };

    /// Makes a type that is not registered.
    #[expect(clippy::new_without_default, reason = "only useful in a static")]
    pub const fn new() -> Self {
        // `netdev_priv()` is aligned to this.
        assert!(align_of::<Slot<D::Private>>() <= 32);
        Self {
            // SAFETY: All zeroes are valid: null pointers, `None` and numbers. The lists and locks
            // in it are initialised at registration.
            ops: UnsafeCell::new(unsafe { core::mem::zeroed() }),
            registered: Atomic::new(false),
            _driver: PhantomData,
        }
    }

    /// Registers the type. May sleep, takes the RTNL.
    ///
    /// Errors: `EBUSY` if it is registered already, `EINVAL` if it is not the one of
    /// [`LinkDriver::link_type`], `EEXIST` if there is another of this kind.
    pub fn register(&'static self) -> Result<Registration<D>> {
        if !ptr::eq(self, D::link_type()) {
            return Err(EINVAL);
        }
        if self.registered.xchg(true, Full) {
            return Err(EBUSY);
        }
        let ops = self.ops.get();
        // SAFETY: It was not registered, so nobody else has access.
        unsafe {
            (*ops).kind = D::KIND.as_char_ptr();
            (*ops).priv_size = size_of::<Slot<D::Private>>();
            (*ops).setup = Some(Self::setup_callback);
        }
        // SAFETY: `ops` is in a static and filled; the callbacks fit to it.
        if let Err(e) = to_result(unsafe { bindings::rtnl_link_register(ops) }) {
            self.registered.store(false, Release);
            return Err(e);
        }
        Ok(Registration(self))
    }

    /// Whether `dev` is of this type.
    #[inline]
    pub fn owns(&self, dev: &NetDevice) -> bool {
        // SAFETY: The device is kept; the field is written in one piece.
        let ops = unsafe { (&raw const (*dev.as_raw()).rtnl_link_ops).read_volatile() };
        ptr::eq(ops, self.ops.get())
    }

    /// The private data of `dev`, if it is of this type.
    pub fn private<'a>(&self, dev: &'a NetDevice) -> Option<&'a D::Private> {
        if !self.owns(dev) {
            return None;
        }
        // SAFETY: The memory behind a device of this type is that. Whoever has got the device found
        // it after it was listed, hence initialised, and it is kept.
        let slot = unsafe { &*bindings::netdev_priv(dev.as_raw()).cast::<Slot<D::Private>>() };
        if !slot.ready {
            return None;
        }
        // SAFETY: By the invariants of `Slot`.
        Some(unsafe { slot.private.assume_init_ref() })
    }

    /// # Safety
    ///
    /// Only called by the kernel, with a device that it has just allocated for this type.
    unsafe extern "C" fn setup_callback(dev: *mut bindings::net_device) {
        // SAFETY: The device has just been allocated, and only the caller has it.
        let dev = unsafe { &mut *dev };
        dev.netdev_ops = Self::NETDEV_OPS;
        dev.priv_destructor = Some(Self::destructor_callback);
        dev.needs_free_netdev = true;
        dev.type_ = bindings::ARPHRD_NONE as u16;
        dev.flags = bindings::net_device_flags_IFF_NOARP;
        dev.mtu = D::MTU;
        dev.min_mtu = bindings::IPV4_MIN_MTU;
        dev.max_mtu = D::MAX_MTU;
        dev.set_pcpu_stat_type(bindings::netdev_stat_type_NETDEV_PCPU_STAT_DSTATS);
        // Whatever arrives is passed on as it is.
        let features = FEATURES.iter().fold(0, |all, bit| all | 1u64 << *bit);
        dev.features |= features;
        dev.hw_features |= features;
        // SAFETY: Both variants of the union are the same bits.
        unsafe {
            let flags = &mut dev.__bindgen_anon_1.__bindgen_anon_1;
            flags.set_priv_flags(
                flags.priv_flags() | bindings::netdev_priv_flags_IFF_NO_QUEUE as c_ulong,
            );
            flags.set_lltx(1);
        }
    }

    /// # Safety
    ///
    /// Only called by the kernel, as `ndo_init` of a device of this type.
    unsafe extern "C" fn init_callback(dev: *mut bindings::net_device) -> c_int {
        from_result(|| {
            // SAFETY: The kernel registers this device, under the RTNL.
            let slot = unsafe { bindings::netdev_priv(dev) }.cast::<Slot<D::Private>>();
            // SAFETY: As above.
            let init = D::init(unsafe { NetDevice::from_raw(dev) });
            // SAFETY: The memory is the device's and as large; it is used by nobody yet, and does
            // not move. `destructor_callback` drops what is in it.
            unsafe {
                init.__pinned_init((&raw mut (*slot).private).cast())?;
                (*slot).ready = true;
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Only called by the kernel, as `priv_destructor` of a device of this type.
    unsafe extern "C" fn destructor_callback(dev: *mut bindings::net_device) {
        // SAFETY: The kernel frees this device, of which nobody has a reference any more.
        let slot = unsafe { &mut *bindings::netdev_priv(dev).cast::<Slot<D::Private>>() };
        if core::mem::take(&mut slot.ready) {
            // SAFETY: By the invariants of `Slot`.
            unsafe { slot.private.assume_init_drop() };
        }
    }

    /// # Safety
    ///
    /// Only called by the kernel, as `ndo_start_xmit` of a device of this type.
    unsafe extern "C" fn start_xmit_callback(
        skb: *mut bindings::sk_buff,
        dev: *mut bindings::net_device,
    ) -> bindings::netdev_tx_t {
        // SAFETY: The kernel gives the packet to this device, and keeps that for the call.
        let (mut skb, dev) = unsafe { (SkBuff::from_raw(skb), NetDevice::from_raw(dev)) };
        skb.orphan();
        let outcome = match D::link_type().private(dev) {
            Some(private) => D::start_xmit(dev, private, skb),
            None => TxOutcome::Dropped(skb, DropReason::DEV_READY),
        };
        if let TxOutcome::Dropped(skb, reason) = outcome {
            skb.drop_reason(reason);
            // SAFETY: The device has such counters; softirqs are off.
            unsafe { bindings::dev_dstats_tx_dropped(dev.as_raw()) };
        }
        bindings::netdev_tx_NETDEV_TX_OK
    }
}

/// Features: what the stack may leave undone in packets, as nothing of it is needed.
const FEATURES: [u32; 6] = [
    bindings::NETIF_F_SG_BIT,
    bindings::NETIF_F_FRAGLIST_BIT,
    bindings::NETIF_F_HIGHDMA_BIT,
    bindings::NETIF_F_HW_CSUM_BIT,
    bindings::NETIF_F_TSO_BIT,
    bindings::NETIF_F_TSO6_BIT,
];

/// Keeps a [`LinkType`] registered; dropping it removes all its devices.
pub struct Registration<D: LinkDriver>(&'static LinkType<D>);

impl<D: LinkDriver> Drop for Registration<D> {
    fn drop(&mut self) {
        // SAFETY: It is registered. This waits until the devices have gone.
        unsafe { bindings::rtnl_link_unregister(self.0.ops.get()) };
        // SAFETY: The type is not on any list any more. Zeroed as at first, it may be registered
        // again.
        unsafe { self.0.ops.get().write_bytes(0, 1) };
        self.0.registered.store(false, Release);
    }
}
