// SPDX-License-Identifier: GPL-2.0

//! Which hooks others have.

use super::HookNum;
use crate::{
    bindings,
    net::Net, //
};
use kernel::sync::rcu;

impl Net {
    /// Whether one of the hooks in a place, for packets of IPv4 or else of IPv6, is as `condition`
    /// says.
    #[inline]
    pub(crate) fn any_hook(
        &self,
        v4: bool,
        place: HookNum,
        _guard: &rcu::Guard,
        condition: impl Fn(&bindings::nf_hook_ops) -> bool,
    ) -> bool {
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
                return false;
            }
            let count = usize::from((*entries).num_hook_entries);
            // `nf_hook_entries_get_hook_ops()`.
            let ops = (*entries)
                .hooks
                .as_ptr()
                .add(count)
                .cast::<*const bindings::nf_hook_ops>();
            (0..count).any(|index| condition(&*ops.add(index).read_volatile()))
        }
    }

    /// Whether anybody wants to see packets of IPv4, or else IPv6, that are about to leave; AppArmor
    /// and Smack aside, which have their hooks always and judge packets of sockets. (SELinux, which has
    /// another priority, judges packets that are forwarded, too.)
    #[inline]
    pub fn has_post_routing(&self, v4: bool, guard: &rcu::Guard) -> bool {
        self.any_hook(v4, HookNum::PostRouting, guard, |ops| {
            // Of the kernel itself, and no chain of nftables or program of BPF.
            let of_kernel = ops.hook_ops_type() == bindings::nf_hook_ops_type_NF_HOOK_OP_UNDEFINED;
            let first = bindings::nf_ip_hook_priorities_NF_IP_PRI_SELINUX_FIRST;
            !(of_kernel && ops.priority == first)
        })
    }
}
