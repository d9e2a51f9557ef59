// SPDX-License-Identifier: GPL-2.0

//! Network devices.
//!
//! C header: [`include/linux/netdevice.h`](srctree/include/linux/netdevice.h)

use super::{
    ip,
    skbuff::SkBuff,
    Net, //
};
use crate::{
    bindings,
    sync::lock::BottomHalfDisabled,
    wire::addr::Addr, //
};
use core::{
    ops::Deref,
    ptr::{
        self,
        NonNull, //
    }, //
};
use kernel::{
    error::to_result,
    prelude::*,
    sync::rcu,
    types::Opaque, //
};

/// A network device, `struct net_device`.
///
/// # Invariants
///
/// A `&NetDevice` points to a device which is kept, be it by a reference, by RCU or by the RTNL.
#[repr(transparent)]
pub struct NetDevice(Opaque<bindings::net_device>);

// SAFETY: Devices are used on all CPUs; what is accessed here is constant or made for that.
unsafe impl Send for NetDevice {}

// SAFETY: As above.
unsafe impl Sync for NetDevice {}

impl NetDevice {
    /// # Safety
    ///
    /// `ptr` must be null, or a device that stays for all of `'a`.
    #[inline]
    pub(crate) unsafe fn from_raw_opt<'a>(ptr: *mut bindings::net_device) -> Option<&'a Self> {
        // CAST: `NetDevice` is `repr(transparent)` over `struct net_device`.
        // SAFETY: By the safety requirements.
        unsafe { ptr.cast::<Self>().as_ref() }
    }

    /// # Safety
    ///
    /// `ptr` must be a device that stays for all of `'a`.
    #[inline]
    pub(crate) unsafe fn from_raw<'a>(ptr: *mut bindings::net_device) -> &'a Self {
        // CAST: As above.
        // SAFETY: By the safety requirements.
        unsafe { &*ptr.cast() }
    }

    /// The C object.
    #[inline]
    pub(crate) fn as_raw(&self) -> *mut bindings::net_device {
        self.0.get()
    }

    /// The device that `address` is configured on in `net`, if it is a local one.
    ///
    /// If several devices have it, the one that was given it last.
    pub fn of_ipv4<'a>(net: &'a Net, address: [u8; 4], _guard: &'a rcu::Guard) -> Option<&'a Self> {
        // SAFETY: Under RCU, which also keeps the device.
        unsafe {
            Self::from_raw_opt(bindings::__ip_dev_find(
                net.as_raw(),
                u32::from_ne_bytes(address),
                false,
            ))
        }
    }

    /// As [`NetDevice::of_ipv4`], for an address of either family.
    pub fn of_address<'a>(net: &'a Net, address: &Addr, guard: &'a rcu::Guard) -> Option<&'a Self> {
        if let Some(address) = address.to_v4() {
            return Self::of_ipv4(net, address, guard);
        }
        if !ip::has_ipv6() {
            return None;
        }
        let address = ip::in6_addr(address);
        // SAFETY: The namespace has IPv6. Under RCU, which also keeps the device.
        unsafe {
            Self::from_raw_opt(bindings::ipv6_dev_find(
                net.as_raw(),
                &address,
                ptr::null_mut(),
            ))
        }
    }

    /// The first of the devices in `net` that is as `condition` says.
    pub fn find<'a>(
        net: &'a Net,
        _guard: &'a rcu::Guard,
        condition: impl Fn(&Self) -> bool,
    ) -> Option<&'a Self> {
        // SAFETY: The namespace is valid.
        let head = unsafe { &raw const (*net.as_raw()).dev_base_head };
        let mut at = head;
        loop {
            // SAFETY: Under RCU, which keeps the members of the list; each has a pointer, written in one
            // piece, to the next one, and the last one to the head.
            at = unsafe { (&raw const (*at).next).read_volatile() }.cast_const();
            if ptr::eq(at, head) {
                return None;
            }
            // SAFETY: As above; the members are in devices.
            let dev: &'a Self = unsafe {
                let offset = core::mem::offset_of!(bindings::net_device, dev_list);
                Self::from_raw(at.byte_sub(offset).cast_mut().cast())
            };
            if condition(dev) {
                return Some(dev);
            }
        }
    }

    /// Whether an address is configured on this device of `net`, perhaps among others.
    pub fn has_address(&self, net: &Net, address: &Addr, _guard: &rcu::Guard) -> bool {
        let Some(octets) = address.to_v4() else {
            let address = ip::in6_addr(address);
            if !ip::has_ipv6() {
                return false;
            }
            // SAFETY: The device is valid and in the namespace, which has IPv6.
            return unsafe { bindings::ipv6_chk_addr(net.as_raw(), &address, self.as_raw(), 1) }
                != 0;
        };
        let local = u32::from_ne_bytes(octets);
        // SAFETY: The device is valid. Under RCU, which keeps what it has of IPv4, and the members of the
        // list; the pointers are written in one piece.
        unsafe {
            let in_dev = bindings::__in_dev_get_rcu(self.as_raw());
            if in_dev.is_null() {
                return false;
            }
            let mut at = (&raw const (*in_dev).ifa_list).read_volatile();
            while !at.is_null() {
                if (*at).ifa_local == local {
                    return true;
                }
                at = (&raw const (*at).ifa_next).read_volatile();
            }
        }
        false
    }

    /// The device with this index in `net`.
    pub fn by_index<'a>(net: &'a Net, index: u32, _guard: &'a rcu::Guard) -> Option<&'a Self> {
        let index = c_int::try_from(index).ok()?;
        // SAFETY: Under RCU, which also keeps the device.
        unsafe { Self::from_raw_opt(bindings::dev_get_by_index_rcu(net.as_raw(), index)) }
    }

    /// The namespace the device is in at the moment.
    #[inline]
    pub fn net(&self) -> &Net {
        // SAFETY: By the type invariants; a device leaves its namespace before that ends.
        unsafe { Net::from_raw(bindings::dev_net(self.as_raw())) }
    }

    /// The interface index, unique within the namespace.
    #[inline]
    pub fn ifindex(&self) -> u32 {
        // SAFETY: By the type invariants.
        unsafe { ptr::addr_of!((*self.as_raw()).ifindex).read_volatile() as u32 }
    }

    /// The flags, `IFF_*`.
    #[inline]
    pub fn flags(&self) -> u32 {
        // SAFETY: By the type invariants; changed in one piece.
        unsafe { ptr::addr_of!((*self.as_raw()).flags).read_volatile() }
    }

    /// Whether the device is up (`ip link set … up`).
    #[inline]
    pub fn is_up(&self) -> bool {
        self.flags() & bindings::net_device_flags_IFF_UP != 0
    }

    /// Whether the device answers no address resolution (`ip link set … arp off`).
    #[inline]
    pub fn is_noarp(&self) -> bool {
        self.flags() & bindings::net_device_flags_IFF_NOARP != 0
    }

    /// Whether the device is the loopback.
    #[inline]
    pub fn is_loopback(&self) -> bool {
        self.flags() & bindings::net_device_flags_IFF_LOOPBACK != 0
    }

    /// Whether its link layer is Ethernet's, as with many virtual devices.
    #[inline]
    pub fn is_ethernet(&self) -> bool {
        // SAFETY: By the type invariants; changed in one piece.
        let kind = unsafe { ptr::addr_of!((*self.as_raw()).type_).read_volatile() };
        u32::from(kind) == bindings::ARPHRD_ETHER
    }

    /// The largest packet the device sends, in bytes.
    #[inline]
    pub fn mtu(&self) -> u32 {
        // SAFETY: By the type invariants; changed in one piece.
        unsafe { ptr::addr_of!((*self.as_raw()).mtu).read_volatile() }
    }

    /// Bytes in front of a packet that the header of the link layer may need: `LL_RESERVED_SPACE()`.
    #[inline]
    pub(crate) fn link_headroom(&self) -> u32 {
        const HH_DATA_MOD: u32 = 16;
        // SAFETY: By the type invariants; changed in one piece.
        let (header, needed) = unsafe {
            (
                (&raw const (*self.as_raw()).hard_header_len).read_volatile(),
                (&raw const (*self.as_raw()).needed_headroom).read_volatile(),
            )
        };
        ((u32::from(header) + u32::from(needed)) & !(HH_DATA_MOD - 1)) + HH_DATA_MOD
    }

    /// An address of this device for talking to `destination`, as ARP announces it; `None` if there
    /// is none of global or link scope.
    pub fn select_ipv4(&self, destination: [u8; 4]) -> Option<[u8; 4]> {
        // SAFETY: By the type invariants; takes RCU itself.
        let address = unsafe {
            bindings::inet_select_addr(
                self.as_raw(),
                u32::from_ne_bytes(destination),
                bindings::rt_scope_t_RT_SCOPE_LINK as c_int,
            )
        };
        (address != 0).then(|| address.to_ne_bytes())
    }

    /// Receives a packet, whose data starts at its network header, as if it had come in by this
    /// device. Counts it there. Any context but hard interrupts.
    ///
    /// A route that is set is kept if it could be counted: then the packet is delivered by it.
    pub fn receive(&self, mut skb: SkBuff) {
        let len = skb.len();
        skb.force_dst();
        skb.reset_mac_header();
        skb.reset_network_header();
        skb.set_dev_raw(self.as_raw());
        let _bh = BottomHalfDisabled::new();
        // SAFETY: The device is kept by the type invariants, and packets that wait for their
        // delivery are taken away when it goes. Counting needs the softirqs off.
        unsafe {
            if bindings::netif_rx(skb.into_raw()) == bindings::NET_RX_SUCCESS as c_int {
                bindings::dev_dstats_rx_add(self.as_raw(), len);
            } else {
                bindings::dev_dstats_rx_dropped(self.as_raw());
            }
        }
    }
}

/// A counted reference to a device.
///
/// It delays the end of the device: give it back when the device is being unregistered.
///
/// # Invariants
///
/// Owns a count of the device.
pub struct DeviceRef(NonNull<NetDevice>);

// SAFETY: `NetDevice` is `Send + Sync`, and counting is atomic.
unsafe impl Send for DeviceRef {}

// SAFETY: As above.
unsafe impl Sync for DeviceRef {}

impl DeviceRef {
    /// Takes a reference.
    pub fn new(dev: &NetDevice) -> Self {
        // INVARIANT: The count is taken here.
        // SAFETY: The device is kept by its type invariants.
        unsafe { bindings::dev_hold(dev.as_raw()) };
        Self(NonNull::from(dev))
    }
}

impl Clone for DeviceRef {
    fn clone(&self) -> Self {
        Self::new(self)
    }
}

impl Deref for DeviceRef {
    type Target = NetDevice;

    fn deref(&self) -> &NetDevice {
        // SAFETY: By the type invariants.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for DeviceRef {
    fn drop(&mut self) {
        // SAFETY: By the type invariants; the count is given back.
        unsafe { bindings::dev_put(self.as_raw()) };
    }
}

/// What happens to a device, `NETDEV_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceEvent {
    /// It has come up.
    Up,
    /// It is down.
    Down,
    /// It was registered, or came into this namespace.
    Register,
    /// It goes, or leaves this namespace: references to it must be given back.
    Unregister,
    /// Something else.
    Other(u32),
}

/// Somebody who wants to know what happens to the devices of all namespaces.
pub trait DeviceNotifier: Send + Sync + 'static {
    /// Called with the RTNL held; may sleep.
    ///
    /// When a notifier is registered it hears of all devices that there are, and that they go when
    /// it is unregistered. That a device goes may be said more than once.
    fn event(&self, event: DeviceEvent, dev: &NetDevice);
}

/// Keeps a [`DeviceNotifier`] registered.
pub struct NotifierRegistration<T: DeviceNotifier>(Pin<KBox<Notifier<T>>>);

#[pin_data]
#[repr(C)]
struct Notifier<T> {
    block: Opaque<bindings::notifier_block>,
    #[pin]
    notifier: T,
}

// SAFETY: The block is only used to unregister it, which may be done by any thread.
unsafe impl<T: DeviceNotifier> Send for NotifierRegistration<T> {}

// SAFETY: Nothing can be done with a shared reference.
unsafe impl<T: DeviceNotifier> Sync for NotifierRegistration<T> {}

impl<T: DeviceNotifier> NotifierRegistration<T> {
    /// Registers a notifier. May sleep, takes the RTNL.
    pub fn new(notifier: impl PinInit<T, Error>) -> Result<Self> {
        let this = KBox::try_pin_init(
            try_pin_init!(Notifier {
                block: Opaque::new(bindings::notifier_block {
                    notifier_call: Some(Self::callback),
                    next: ptr::null_mut(),
                    priority: 0,
                }),
                notifier <- notifier,
            }? Error),
            GFP_KERNEL,
        )?;
        // SAFETY: The block stays where it is until it is unregistered by `drop`.
        to_result(unsafe { bindings::register_netdevice_notifier(this.block.get()) })?;
        Ok(Self(this))
    }

    /// # Safety
    ///
    /// Only called by the kernel as a notifier of devices, with the RTNL held and the block of a
    /// [`Notifier`].
    unsafe extern "C" fn callback(
        block: *mut bindings::notifier_block,
        event: c_ulong,
        info: *mut c_void,
    ) -> c_int {
        let event = match event as u32 {
            bindings::netdev_cmd_NETDEV_UP => DeviceEvent::Up,
            bindings::netdev_cmd_NETDEV_DOWN => DeviceEvent::Down,
            bindings::netdev_cmd_NETDEV_REGISTER => DeviceEvent::Register,
            bindings::netdev_cmd_NETDEV_UNREGISTER => DeviceEvent::Unregister,
            other => DeviceEvent::Other(other),
        };
        // SAFETY: Notifiers of devices get this structure, and the RTNL keeps the device.
        let dev =
            unsafe { NetDevice::from_raw(bindings::netdev_notifier_info_to_dev(info.cast())) };
        // CAST: The block is the first field.
        // SAFETY: By the safety requirements; it stays until the block is unregistered.
        let this = unsafe { &*block.cast::<Notifier<T>>() };
        this.notifier.event(event, dev);
        bindings::NOTIFY_DONE as c_int
    }
}

impl<T: DeviceNotifier> Drop for NotifierRegistration<T> {
    fn drop(&mut self) {
        // SAFETY: It was registered by `new`.
        unsafe { bindings::unregister_netdevice_notifier(self.0.block.get()) };
    }
}
