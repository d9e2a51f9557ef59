// SPDX-License-Identifier: GPL-2.0

//! Packets taken out of a hook for a while, within bounds.

use super::{
    super::{
        netdevice::{
            DeviceRef,
            NetDevice, //
        },
        skbuff::{
            DropReason,
            SkBuff, //
        },
        Net, //
    },
    HookState, //
};
use crate::{
    bindings,
    sync::lock::BottomHalfDisabled, //
};
use core::ptr::{
    self,
    NonNull, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        rcu, //
    }, //
};

impl HookState<'_> {
    /// Takes a packet out of the hook; [`HeldPacket::resume`] lets it go on behind it, and
    /// [`HeldPacket::begin_again`] has it arrive once more.
    ///
    /// A socket that an early lookup has put on the packet is taken off, and will be looked up
    /// again. Refused, with the packet given back, where it cannot be held: on the way out of a
    /// socket, or if its route has gone.
    fn hold(&self, mut skb: SkBuff) -> Result<HeldPacket, SkBuff> {
        let state = self.state();
        let Some(okfn) = state.okfn else {
            return Err(skb);
        };
        if !state.sk.is_null() || !skb.force_dst() {
            return Err(skb);
        }
        skb.orphan();
        // INVARIANT: The references to the devices are taken here.
        Ok(HeldPacket {
            in_dev: self.in_dev().map(DeviceRef::new),
            out_dev: self.out_dev().map(DeviceRef::new),
            // SAFETY: The packet's device stays for as long as the hook runs.
            skb_dev: unsafe { NetDevice::from_raw_opt(skb.dev_raw()) }.map(DeviceRef::new),
            net: NonNull::from(self.net()),
            okfn,
            skb,
        })
    }
}

/// A packet that was taken out of a hook.
///
/// Dropping it frees the packet. It keeps its devices, whose end waits for that: whoever keeps it must
/// drop it within seconds, or when one of them is unregistered ([`HeldQueue::drop_of`]), and in any
/// case when the namespace ends.
///
/// # Invariants
///
/// The packet's route is counted, and the devices it refers to are kept by `in_dev`, `out_dev` and
/// `skb_dev`.
pub struct HeldPacket {
    skb: SkBuff,
    net: NonNull<Net>,
    in_dev: Option<DeviceRef>,
    out_dev: Option<DeviceRef>,
    skb_dev: Option<DeviceRef>,
    okfn: unsafe extern "C" fn(
        *mut bindings::net,
        *mut bindings::sock,
        *mut bindings::sk_buff,
    ) -> c_int,
}

// SAFETY: A packet may be used on any CPU; `net` is only compared.
unsafe impl Send for HeldPacket {}

impl HeldPacket {
    /// Whether the packet keeps this device.
    fn uses(&self, dev: &NetDevice) -> bool {
        [&self.in_dev, &self.out_dev, &self.skb_dev]
            .into_iter()
            .flatten()
            .any(|held| ptr::eq::<NetDevice>(&**held, dev))
    }

    /// Sends the packet on its way, behind the hook it was taken out of.
    ///
    /// In another namespace than its own it is freed. Any context but hard interrupts.
    pub fn resume(self, net: &Net) {
        if !ptr::eq(self.net.as_ptr(), net) {
            return self.drop_reason(DropReason::NETFILTER_DROP);
        }
        // The stack expects packets with softirqs disabled and under RCU.
        let _bh = BottomHalfDisabled::new();
        let _rcu = rcu::Guard::new();
        // SAFETY: The function is what the hook would have gone on with; by the type invariants
        // what it needs has been kept, and the packet is handed over.
        unsafe { (self.okfn)(net.as_raw(), ptr::null_mut(), self.skb.into_raw()) };
    }

    /// Has the packet, taken out of a hook before routing, arrive by its device once more, ahead of
    /// all hooks: for when what they know has changed. Packet sockets and the filters of the device
    /// see it again.
    ///
    /// In another namespace than its own it is freed. Any context but hard interrupts.
    pub fn begin_again(self, net: &Net) {
        if !ptr::eq(self.net.as_ptr(), net) || self.skb_dev.is_none() {
            return self.drop_reason(DropReason::NETFILTER_DROP);
        }
        // As from a driver, the data begins at the network header. The device takes what is queued
        // here with it when it goes (flush_all_backlogs()).
        // SAFETY: The packet is handed over, and its device is kept by `skb_dev` until it is queued.
        unsafe { bindings::netif_rx(self.skb.into_raw()) };
    }

    /// Frees the packet for a reason.
    pub fn drop_reason(self, reason: DropReason) {
        self.skb.drop_reason(reason);
    }
}

/// How much may be held.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Packets of one queue.
    pub packets: usize,
    /// Memory of one queue's packets, in bytes.
    pub bytes: usize,
    /// Memory of the packets of all queues together, in bytes.
    pub total: usize,
}

/// Why there is no room for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// The queue has as many packets as it may have.
    Packets,
    /// The queue's packets have as much memory as they may have.
    Bytes,
    /// All queues together have; or there is no memory, or the packet cannot be held.
    Total,
}

/// What several queues hold together.
pub struct HeldTotal {
    bytes: Atomic<usize>,
    packets: Atomic<usize>,
}

impl HeldTotal {
    /// Nothing.
    #[expect(clippy::new_without_default, reason = "one way to make it is enough")]
    pub const fn new() -> Self {
        Self {
            bytes: Atomic::new(0),
            packets: Atomic::new(0),
        }
    }

    /// Packets that are held now.
    pub fn packets(&self) -> usize {
        self.packets.load(Relaxed)
    }

    /// One more is held, of so many bytes.
    fn come(&self, bytes: usize) {
        self.bytes.add(bytes, Relaxed);
        self.packets.add(1, Relaxed);
    }

    /// So many are held no more, of so many bytes together.
    fn gone(&self, packets: usize, bytes: usize) {
        let _ = self.bytes.fetch_sub(bytes, Relaxed);
        let _ = self.packets.fetch_sub(packets, Relaxed);
    }
}

/// Packets that wait, in the order in which they came. Its owner has a lock.
pub struct HeldQueue {
    packets: KVec<HeldPacket>,
    bytes: usize,
}

impl HeldQueue {
    /// An empty one.
    #[expect(clippy::new_without_default, reason = "one way to make it is enough")]
    pub const fn new() -> Self {
        Self {
            packets: KVec::new(),
            bytes: 0,
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Packets that wait.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Takes a packet out of the hook and puts it behind the others, if there is room for it. Else
    /// gives it back.
    pub fn push(
        &mut self,
        state: &HookState<'_>,
        skb: SkBuff,
        room: &Room,
        total: &HeldTotal,
    ) -> Result<(), (SkBuff, NoRoom)> {
        let size = skb.truesize() as usize;
        if self.packets.len() >= room.packets {
            return Err((skb, NoRoom::Packets));
        }
        if self.bytes.saturating_add(size) > room.bytes {
            return Err((skb, NoRoom::Bytes));
        }
        if total.bytes.load(Relaxed).saturating_add(size) > room.total
            || self.packets.reserve(1, GFP_ATOMIC).is_err()
        {
            return Err((skb, NoRoom::Total));
        }
        let packet = state.hold(skb).map_err(|skb| (skb, NoRoom::Total))?;
        // There is room: it was reserved above.
        if self.packets.push_within_capacity(packet).is_ok() {
            self.bytes = self.bytes.saturating_add(size);
            total.come(size);
        }
        Ok(())
    }

    /// Drops those that keep a device, which goes. How many there were.
    pub fn drop_of(&mut self, dev: &NetDevice, total: &HeldTotal) -> usize {
        let before = self.packets.len();
        let mut bytes = 0usize;
        self.packets.retain(|packet| {
            if packet.uses(dev) {
                bytes = bytes.saturating_add(packet.skb.truesize() as usize);
                return false;
            }
            true
        });
        let dropped = before.saturating_sub(self.packets.len());
        self.bytes = self.bytes.saturating_sub(bytes);
        total.gone(dropped, bytes);
        dropped
    }

    /// All of them, to be worked on without the lock.
    pub fn take(&mut self, total: &HeldTotal) -> KVec<HeldPacket> {
        let bytes = core::mem::take(&mut self.bytes);
        let packets = core::mem::replace(&mut self.packets, KVec::new());
        total.gone(packets.len(), bytes);
        packets
    }
}
