// SPDX-License-Identifier: GPL-2.0

//! Which hooks others have.

use super::{
    Family,
    HookNum, //
};
use crate::{
    bindings,
    net::{
        skbuff::SkBuff,
        Net, //
    }, //
};
use kernel::sync::rcu;

/// Whether a hook is one of the kernel itself, and no chain of nftables or program of BPF.
#[inline]
fn is_of_kernel(ops: &bindings::nf_hook_ops) -> bool {
    ops.hook_ops_type() == bindings::nf_hook_ops_type_NF_HOOK_OP_UNDEFINED
}

impl Net {
    /// The first of the hooks in a place, for packets of IPv4 or else of IPv6, that is as `condition`
    /// says.
    #[inline]
    fn find_hook<'a>(
        &self,
        v4: bool,
        place: HookNum,
        _guard: &'a rcu::Guard,
        condition: impl Fn(&bindings::nf_hook_ops) -> bool,
    ) -> Option<&'a bindings::nf_hook_ops> {
        let net = self.as_raw();
        let place = place as usize;
        // SAFETY: The namespace is valid, and has a pointer for each place. Hooks are replaced under
        // RCU, which is held; the array of their descriptions lies behind them and is as long, and
        // these are freed after a grace period, too.
        unsafe {
            let places: *const *mut bindings::nf_hook_entries = match v4 {
                true => (&raw const (*net).nf.hooks_ipv4).cast(),
                false => (&raw const (*net).nf.hooks_ipv6).cast(),
            };
            let entries = places.add(place).read_volatile();
            if entries.is_null() {
                return None;
            }
            let count = usize::from((*entries).num_hook_entries);
            // `nf_hook_entries_get_hook_ops()`.
            let ops = (*entries)
                .hooks
                .as_ptr()
                .add(count)
                .cast::<*const bindings::nf_hook_ops>();
            (0..count)
                .map(|index| &*ops.add(index).read_volatile())
                .find(|ops| condition(ops))
        }
    }

    /// Shows a packet to the hook of the kernel itself that has this priority, as if it were on its way
    /// there. It is not given back if there is no such hook, or if it did not let it pass.
    ///
    /// The packet has the headers of that way, which begin at its data.
    pub(super) fn show(
        &self,
        v4: bool,
        place: HookNum,
        guard: &rcu::Guard,
        priority: i32,
        skb: SkBuff,
    ) -> Option<SkBuff> {
        let ops = self.find_hook(v4, place, guard, |ops| {
            is_of_kernel(ops) && ops.priority == priority
        })?;
        let family = if v4 { Family::Ipv4 } else { Family::Ipv6 };
        let state = bindings::nf_hook_state {
            hook: place as u8,
            pf: family as u8,
            net: self.as_raw(),
            ..Default::default()
        };
        let hook = ops.hook?;
        let skb = skb.into_raw();
        // SAFETY: This is how netfilter calls a hook: under RCU, with its own private pointer, a valid
        // packet, and a state that lives as long as the call.
        let verdict = unsafe { hook(ops.priv_, skb, &state) };
        match verdict & bindings::NF_VERDICT_MASK {
            bindings::NF_STOLEN => None,
            verdict => {
                // SAFETY: Unless it steals the packet, a hook leaves it to its caller.
                let skb = unsafe { SkBuff::from_raw(skb) };
                (verdict == bindings::NF_ACCEPT).then_some(skb)
            }
        }
    }

    /// Whether anybody wants to see packets of IPv4, or else IPv6, that are about to leave; AppArmor
    /// and Smack aside, which have their hooks always and judge packets of sockets. (SELinux, which has
    /// another priority, judges packets that are forwarded, too.)
    #[inline]
    pub fn has_post_routing(&self, v4: bool, guard: &rcu::Guard) -> bool {
        self.has_hook(v4, HookNum::PostRouting, guard)
    }

    /// As [`Net::has_post_routing`], of those that begin here.
    #[inline]
    pub fn has_local_out(&self, v4: bool, guard: &rcu::Guard) -> bool {
        self.has_hook(v4, HookNum::LocalOut, guard)
    }

    #[inline]
    fn has_hook(&self, v4: bool, place: HookNum, guard: &rcu::Guard) -> bool {
        let found = self.find_hook(v4, place, guard, |ops| {
            let first = bindings::nf_ip_hook_priorities_NF_IP_PRI_SELINUX_FIRST;
            !(is_of_kernel(ops) && ops.priority == first)
        });
        found.is_some()
    }
}
