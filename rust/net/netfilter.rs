// SPDX-License-Identifier: GPL-2.0

//! Netfilter hooks, and packets taken out of one for a while.
//!
//! C header: [`include/linux/netfilter.h`](srctree/include/linux/netfilter.h)

mod conntrack;
mod held;
mod ingress;
mod installed;

pub use conntrack::Tracked;
pub use held::{
    HeldPacket,
    HeldQueue,
    HeldTotal,
    NoRoom,
    Room, //
};
pub use ingress::{
    IngressHook,
    IngressRegistration, //
};

use super::{
    netdevice::NetDevice,
    skbuff::{
        DropReason,
        SkBuff, //
    },
    Net, //
};
use crate::bindings;
use core::{
    marker::PhantomData,
    ptr::{
        self,
        NonNull, //
    }, //
};
use kernel::{
    error::to_result,
    prelude::*,
    sync::rcu, //
};

/// The protocol family of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Family {
    /// IPv4 packets.
    Ipv4 = bindings::NFPROTO_IPV4 as u8,
    /// IPv6 packets.
    Ipv6 = bindings::NFPROTO_IPV6 as u8,
    /// ARP packets.
    Arp = bindings::NFPROTO_ARP as u8,
}

/// The place of a hook in the path of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum HookNum {
    /// Every arriving IP packet, before it is routed.
    PreRouting = bindings::nf_inet_hooks_NF_INET_PRE_ROUTING,
    /// IP packets for this machine.
    LocalIn = bindings::nf_inet_hooks_NF_INET_LOCAL_IN,
    /// IP packets that pass through.
    Forward = bindings::nf_inet_hooks_NF_INET_FORWARD,
    /// IP packets made by this machine.
    LocalOut = bindings::nf_inet_hooks_NF_INET_LOCAL_OUT,
    /// IP packets about to leave.
    PostRouting = bindings::nf_inet_hooks_NF_INET_POST_ROUTING,
}

impl HookNum {
    /// Arriving ARP packets, with [`Family::Arp`] (`NF_ARP_IN`).
    pub const ARP_IN: HookNum = HookNum::PreRouting;
    /// Leaving ARP packets, with [`Family::Arp`] (`NF_ARP_OUT`).
    pub const ARP_OUT: HookNum = HookNum::LocalIn;
}

// The two numberings overlap.
const _: () = assert!(bindings::NF_ARP_IN == HookNum::ARP_IN as u32);
const _: () = assert!(bindings::NF_ARP_OUT == HookNum::ARP_OUT as u32);

/// What becomes of a packet.
#[must_use]
pub enum Verdict {
    /// It goes on its way. Must be the packet that the hook was given.
    Accept(SkBuff),
    /// It is freed, for this reason.
    Drop(SkBuff, DropReason),
    /// The hook has sent it on itself, or keeps it.
    Stolen,
}

/// A netfilter hook.
///
/// Runs in softirq or with softirqs disabled as a rule (in process context on the way out), under
/// RCU; must not sleep.
pub trait Hook: 'static {
    /// Protocol family.
    const FAMILY: Family;
    /// Place.
    const HOOKNUM: HookNum;
    /// Order among the hooks of a place, ascending.
    const PRIORITY: i32;

    /// Judges one packet, whose data starts at its network header (with [`Family::Arp`] on the way
    /// out: at its link-layer header).
    fn run(state: &HookState<'_>, skb: SkBuff) -> Verdict;
}

/// Hook `H` at the same place for packets of IPv6.
pub struct OverIpv6<H>(PhantomData<H>);

impl<H: Hook> Hook for OverIpv6<H> {
    const FAMILY: Family = Family::Ipv6;
    const HOOKNUM: HookNum = H::HOOKNUM;
    const PRIORITY: i32 = H::PRIORITY;

    #[inline]
    fn run(state: &HookState<'_>, skb: SkBuff) -> Verdict {
        H::run(state, skb)
    }
}

/// A [`Hook`] as the kernel wants it, see [`PerNet::HOOKS`](super::netns::PerNet::HOOKS).
///
/// # Invariants
///
/// The callback fits to all other fields, and reads none of the private pointer.
#[repr(transparent)]
pub struct HookOps(bindings::nf_hook_ops);

// SAFETY: Constant after it was made, on the C side too; the pointers in it are null.
unsafe impl Sync for HookOps {}

// SAFETY: As above.
unsafe impl Send for HookOps {}

impl HookOps {
    /// Describes hook `H`.
    pub const fn new<H: Hook>() -> Self {
        // SAFETY: All zeroes are a valid `nf_hook_ops`: null pointers, `None` and numbers.
        let mut ops: bindings::nf_hook_ops = unsafe { core::mem::zeroed() };
        ops.hook = Some(hook_callback::<H>);
        ops.pf = H::FAMILY as u8;
        ops.hooknum = H::HOOKNUM as u32;
        ops.priority = H::PRIORITY;
        Self(ops)
    }

    /// Registers hooks in one namespace, all or none.
    ///
    /// # Safety
    ///
    /// [`HookOps::unregister_all`] must be called before `net` ends and before the code of the
    /// hooks goes away, with an RCU grace period in between.
    pub(crate) unsafe fn register_all(hooks: &'static [HookOps], net: &Net) -> Result {
        // CAST: `HookOps` is `repr(transparent)` over `nf_hook_ops`.
        // SAFETY: The array is static; by the type invariants its entries are filled.
        to_result(unsafe {
            bindings::nf_register_net_hooks(net.as_raw(), hooks.as_ptr().cast(), hooks.len() as u32)
        })
    }

    /// Unregisters what [`HookOps::register_all`] registered.
    ///
    /// # Safety
    ///
    /// They are registered in `net`.
    pub(crate) unsafe fn unregister_all(hooks: &'static [HookOps], net: &Net) {
        // SAFETY: By the safety requirements.
        unsafe {
            bindings::nf_unregister_net_hooks(
                net.as_raw(),
                hooks.as_ptr().cast(),
                hooks.len() as u32,
            )
        };
    }
}

/// # Safety
///
/// Only called by netfilter, with a packet that is given away and a valid state, under RCU.
unsafe extern "C" fn hook_callback<H: Hook>(
    _priv: *mut c_void,
    skb: *mut bindings::sk_buff,
    state: *const bindings::nf_hook_state,
) -> c_uint {
    // SAFETY: The kernel passes a valid state, under RCU.
    let state = unsafe { HookState::from_raw(state) };
    // SAFETY: The kernel passes a packet, which is ours unless we return `NF_ACCEPT`.
    let owned = unsafe { SkBuff::from_raw(skb) };
    match H::run(&state, owned) {
        Verdict::Accept(owned) if ptr::eq(owned.as_raw(), skb) => {
            let _ = owned.into_raw();
            bindings::NF_ACCEPT
        }
        // The kernel cannot be given another packet than its own.
        Verdict::Accept(other) => {
            other.drop_reason(DropReason::NETFILTER_DROP);
            bindings::NF_STOLEN
        }
        Verdict::Drop(owned, reason) => {
            owned.drop_reason(reason);
            bindings::NF_STOLEN
        }
        Verdict::Stolen => bindings::NF_STOLEN,
    }
}

/// The circumstances of a packet in a hook.
///
/// # Invariants
///
/// The pointer is to a valid `nf_hook_state` for `'a`, and the RCU read side is held for `'a`.
pub struct HookState<'a>(
    NonNull<bindings::nf_hook_state>,
    PhantomData<&'a rcu::Guard>,
);

impl<'a> HookState<'a> {
    /// # Safety
    ///
    /// As the invariants say.
    #[inline]
    unsafe fn from_raw(ptr: *const bindings::nf_hook_state) -> Self {
        // SAFETY: A valid pointer is not null.
        let state = unsafe { NonNull::new_unchecked(ptr.cast_mut()) };
        // INVARIANT: By the safety requirements.
        Self(state, PhantomData)
    }

    #[inline]
    fn state(&self) -> &'a bindings::nf_hook_state {
        // SAFETY: By the type invariants.
        unsafe { self.0.as_ref() }
    }

    /// The network namespace.
    #[inline]
    pub fn net(&self) -> &'a Net {
        // SAFETY: Packets and hooks are gone before their namespace is.
        unsafe { Net::from_raw(self.state().net) }
    }

    /// Evidence that hooks run under RCU.
    #[inline]
    pub fn rcu(&self) -> &'a rcu::Guard {
        const { assert!(size_of::<rcu::Guard>() == 0) };
        // SAFETY: A zero-sized type needs no memory, and by the type invariants the read side is
        // held, which is all that the guard's invariants ask for. It is never dropped.
        unsafe { NonNull::<rcu::Guard>::dangling().as_ref() }
    }

    /// The device that the packet came in by.
    #[inline]
    pub fn in_dev(&self) -> Option<&'a NetDevice> {
        // SAFETY: The device stays for as long as the hook runs.
        unsafe { NetDevice::from_raw_opt(self.state().in_) }
    }

    /// The device that the packet shall leave by.
    #[inline]
    pub fn out_dev(&self) -> Option<&'a NetDevice> {
        // SAFETY: As above.
        unsafe { NetDevice::from_raw_opt(self.state().out) }
    }
}
