// SPDX-License-Identifier: GPL-2.0

//! Dumps: answers of many messages, written piece by piece as the reader makes room.

use super::{
    message::Writer,
    request::Request, //
};
use crate::{
    bindings,
    net::netns::Net,
    sync::{
        percpu::{
            possible_cpus,
            Cpu, //
        },
        rhashtable::{
            Position,
            Scan, //
        },
    },
};
use core::{
    ops::ControlFlow,
    ptr::NonNull, //
};
use kernel::{
    prelude::*,
    sync::rcu, //
};

/// Words of state that a dump keeps between two calls.
const STATE_WORDS: usize = 6;

/// One call of a dump: a buffer to write entries into, and where the last call stopped.
///
/// # Invariants
///
/// `cb` is valid for `'a` and its `ctx` used by nobody else; `skb` is valid for `'a`, or null in
/// the callbacks for its start and its end, which cannot write entries.
pub struct Dump<'a> {
    skb: *mut bindings::sk_buff,
    cb: NonNull<bindings::netlink_callback>,
    request: Request<'a>,
    outcome: Result,
}

impl<'a> Dump<'a> {
    /// # Safety
    ///
    /// `skb` and `cb` must be what generic netlink passes to the callbacks of a dump of a
    /// [`super::Family`], and stay so for `'a`.
    pub(super) unsafe fn from_raw(
        skb: *mut bindings::sk_buff,
        cb: *mut bindings::netlink_callback,
    ) -> Result<Self> {
        let cb = NonNull::new(cb).ok_or(EINVAL)?;
        // SAFETY: `genl_start()` set up what this reads.
        let info = unsafe { bindings::genl_info_dump(cb.as_ptr()) };
        let info = NonNull::new(info.cast_mut()).ok_or(EINVAL)?;
        // INVARIANT: By the contract of this function.
        Ok(Self {
            skb,
            cb,
            // SAFETY: The request of a dump is kept until the dump is done.
            request: unsafe { Request::from_raw(info) },
            outcome: Ok(()),
        })
    }

    /// The request, the same on every call.
    pub fn request(&self) -> &Request<'a> {
        &self.request
    }

    /// The network namespace of the socket that reads the dump.
    pub fn net(&self) -> &'a Net {
        self.request.net()
    }

    /// What the dump remembers from call to call, zero on the first: where to go on.
    pub fn state(&mut self) -> &mut [u64; STATE_WORDS] {
        // SAFETY: By the type invariant. `ctx` has 48 bytes (`NETLINK_CTX_SIZE`) in a union with
        // `long`, hence is aligned for this type on the 64-bit machines Rust is supported on; it
        // was zeroed by `__netlink_dump_start()`.
        unsafe {
            let ctx = &raw mut (*self.cb.as_ptr()).__bindgen_anon_1;
            &mut *ctx.cast::<[u64; STATE_WORDS]>()
        }
    }

    /// Says which generation of the table the entries that follow are of. If it changes before the
    /// dump is through, the reader is told that the dump is inconsistent (`NLM_F_DUMP_INTR`).
    pub fn set_generation(&mut self, generation: impl Into<u64>) {
        // CAST: It is only compared.
        let generation = generation.into() as u32;
        // SAFETY: By the type invariant. 0 means that there are no generations.
        unsafe { (*self.cb.as_ptr()).seq = generation.max(1) };
    }

    /// Ends this call of the dump and has another one made, in the reader's `recvmsg()`, after an empty
    /// message.
    ///
    /// That is for an answer that has to be waited for: the first call is made in the sender's `sendmsg()`
    /// with the lock of all generic netlink families held, and none should take long (see
    /// [`super::DumpFn`]).
    pub fn go_on_in_reader(&mut self) {
        // A buffer that is called full brings on the next call if there is something in it.
        self.outcome = self.try_put(|_| Ok(())).and(Err(EMSGSIZE));
    }

    /// Writes one entry, a message of the request's command that `fill` makes.
    ///
    /// `Break` means that the function of the dump has to return: the buffer is full, and the
    /// dump goes on with this entry in another call; or `fill` failed, and the dump ends with its
    /// error. Does not sleep if `fill` does not.
    #[must_use = "when the buffer is full, the entry has to come again"]
    pub fn put_entry(&mut self, fill: impl FnOnce(&mut Writer<'_>) -> Result) -> ControlFlow<()> {
        if self.outcome.is_err() {
            return ControlFlow::Break(());
        }
        self.outcome = self.try_put(fill);
        match self.outcome {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }

    /// Writes an entry for each value that `scan` shows, such as
    /// [`RcuHashTable::scan`](crate::sync::rhashtable::RcuHashTable::scan), from where the last call
    /// stopped, which the first word of the [state](Self::state) says. True when all have been written.
    pub fn put_table<V>(
        &mut self,
        scan: impl Fn(&rcu::Guard, &mut Position, &mut dyn FnMut(&V) -> Scan) -> bool,
        fill: impl Fn(&mut Writer<'_>, &V) -> Result,
    ) -> bool {
        let [word, ..] = self.state();
        let mut position = Position(*word);
        let (mut full, mut done) = (false, false);
        while !done && !full {
            done = scan(&rcu::read_lock(), &mut position, &mut |value| {
                if self.put_entry(|w| fill(w, value)).is_break() {
                    full = true;
                    return Scan::Stop;
                }
                Scan::Continue
            });
        }
        let [word, ..] = self.state();
        *word = position.0;
        done
    }

    /// Writes an entry for each possible CPU, from where the last call stopped, which the first word
    /// of the [state](Self::state) says.
    pub fn put_cpus(&mut self, fill: impl Fn(&mut Writer<'_>, Cpu) -> Result) {
        let [first, ..] = self.state();
        let (first, mut next) = (*first, *first);
        for cpu in possible_cpus().filter(|cpu| u64::from(cpu.number()) >= first) {
            if self.put_entry(|w| fill(w, cpu)).is_break() {
                break;
            }
            next = u64::from(cpu.number()).saturating_add(1);
        }
        let [word, ..] = self.state();
        *word = next;
    }

    fn try_put(&mut self, fill: impl FnOnce(&mut Writer<'_>) -> Result) -> Result {
        let skb = NonNull::new(self.skb).ok_or(EINVAL)?;
        // SAFETY: `skb` is valid by the type invariant, the family is registered.
        let header = unsafe {
            bindings::genlmsg_put(
                skb.as_ptr(),
                self.request.portid(),
                self.request.seq(),
                self.request.family().as_raw(),
                bindings::NLM_F_MULTI as c_int,
                self.request.command(),
            )
        };
        if header.is_null() {
            return Err(EMSGSIZE);
        }
        // SAFETY: `skb` is valid, and ours for the duration of the callback.
        let mut writer = unsafe { Writer::from_raw(skb) };
        if let Err(error) = fill(&mut writer) {
            // SAFETY: `header` is the place where the message began.
            unsafe { bindings::genlmsg_cancel(skb.as_ptr(), header) };
            return Err(error);
        }
        // SAFETY: As above; `cb` is valid by the type invariant.
        unsafe {
            bindings::genl_dump_check_consistent(self.cb.as_ptr(), header);
            bindings::genlmsg_end(skb.as_ptr(), header);
        }
        Ok(())
    }

    /// The result of the call: an error, of which `EMSGSIZE` has `netlink_dump()` call again if
    /// the buffer is not empty; success ends the dump.
    pub(super) fn finish(self) -> Result {
        self.outcome
    }
}
