// SPDX-License-Identifier: GPL-2.0

//! Messages to user space.

use super::{
    request::Request,
    Family, //
};
use crate::{
    alloc::gfp,
    bindings,
    net::netns::Net, //
};
use core::{
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::{
        Deref,
        DerefMut, //
    },
    ptr::NonNull,
};
use kernel::{
    alloc::Flags,
    error::to_result,
    prelude::*, //
};

/// Length of `struct nlattr`.
const HDRLEN: usize = 4;

/// Appends attributes to a message.
///
/// All methods fail with `EMSGSIZE` if the message is full, and then leave it as it was.
///
/// # Invariants
///
/// `skb` is valid for `'a`, holds an unfinished message at its end, and is used by nobody else.
pub struct Writer<'a> {
    skb: NonNull<bindings::sk_buff>,
    _skb: PhantomData<&'a mut bindings::sk_buff>,
}

impl Writer<'_> {
    /// # Safety
    ///
    /// `skb` must fulfil the type invariant.
    pub(super) unsafe fn from_raw(skb: NonNull<bindings::sk_buff>) -> Self {
        // INVARIANT: By the contract of this function.
        Self {
            skb,
            _skb: PhantomData,
        }
    }

    /// Appends an attribute that consists of `parts`, one after the other.
    fn put(&mut self, id: u16, parts: &[&[u8]]) -> Result {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len > usize::from(u16::MAX) - HDRLEN {
            return Err(EMSGSIZE);
        }
        // SAFETY: `skb` is valid by the type invariant.
        let attr =
            unsafe { bindings::nla_reserve(self.skb.as_ptr(), c_int::from(id), len as c_int) };
        if attr.is_null() {
            return Err(EMSGSIZE);
        }
        // SAFETY: `nla_reserve()` made room for `HDRLEN + len` bytes at `attr`.
        let mut to = unsafe { attr.cast::<u8>().add(HDRLEN) };
        for part in parts {
            // SAFETY: The parts have `len` bytes together, which is the room there is; they cannot
            // overlap a buffer that is exclusively ours.
            unsafe {
                core::ptr::copy_nonoverlapping(part.as_ptr(), to, part.len());
                to = to.add(part.len());
            }
        }
        Ok(())
    }

    /// Appends bytes.
    pub fn put_bytes(&mut self, id: u16, value: &[u8]) -> Result {
        self.put(id, &[value])
    }

    /// Appends an 8-bit number.
    pub fn put_u8(&mut self, id: u16, value: u8) -> Result {
        self.put(id, &[&[value]])
    }

    /// Appends a 16-bit number in host byte order.
    pub fn put_u16(&mut self, id: u16, value: u16) -> Result {
        self.put(id, &[&value.to_ne_bytes()])
    }

    /// Appends a 32-bit number in host byte order.
    pub fn put_u32(&mut self, id: u16, value: u32) -> Result {
        self.put(id, &[&value.to_ne_bytes()])
    }

    /// Appends a 64-bit number in host byte order.
    pub fn put_u64(&mut self, id: u16, value: u64) -> Result {
        self.put(id, &[&value.to_ne_bytes()])
    }

    /// Appends a signed 32-bit number in host byte order.
    pub fn put_s32(&mut self, id: u16, value: i32) -> Result {
        self.put(id, &[&value.to_ne_bytes()])
    }

    /// Appends a 16-bit number in network byte order, given in the host's.
    pub fn put_be16(&mut self, id: u16, value: u16) -> Result {
        self.put(id, &[&value.to_be_bytes()])
    }

    /// Appends a 32-bit number in network byte order, given in the host's.
    pub fn put_be32(&mut self, id: u16, value: u32) -> Result {
        self.put(id, &[&value.to_be_bytes()])
    }

    /// Appends a number in host byte order with 32 bits if they do, else 64 (`nla_put_uint()`).
    pub fn put_uint(&mut self, id: u16, value: u64) -> Result {
        match u32::try_from(value) {
            Ok(small) => self.put_u32(id, small),
            Err(_) => self.put_u64(id, value),
        }
    }

    /// Appends an attribute without a value.
    pub fn put_flag(&mut self, id: u16) -> Result {
        self.put(id, &[])
    }

    /// Appends a string, with a NUL; what follows a NUL in `value` is left out.
    pub fn put_str(&mut self, id: u16, value: &str) -> Result {
        let bytes = value.as_bytes();
        let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
        self.put(id, &[bytes.get(..end).unwrap_or(bytes), &[0]])
    }

    /// Appends a nest with the attributes that `fill` appends; nothing if it fails.
    pub fn nest(&mut self, id: u16, fill: impl FnOnce(&mut Writer<'_>) -> Result) -> Result {
        // SAFETY: `skb` is valid by the type invariant.
        let start = unsafe { bindings::nla_nest_start(self.skb.as_ptr(), c_int::from(id)) };
        if start.is_null() {
            return Err(EMSGSIZE);
        }
        if let Err(error) = fill(self) {
            // SAFETY: `start` is the attribute that was begun above; what came after it goes, too.
            unsafe { bindings::nla_nest_cancel(self.skb.as_ptr(), start) };
            return Err(error);
        }
        // SAFETY: The attribute that was begun above, and what came after it.
        unsafe { bindings::nla_nest_end(self.skb.as_ptr(), start) };
        Ok(())
    }
}

/// A message under construction, with room for about a page. Freed when dropped.
///
/// # Invariants
///
/// `writer` is of an sk_buff we own, with a message that begins at the generic netlink header
/// `header`.
pub struct Message {
    writer: Writer<'static>,
    header: *mut c_void,
    family: &'static Family,
}

impl Message {
    fn new(
        family: &'static Family,
        portid: u32,
        seq: u32,
        command: u8,
        flags: Flags,
    ) -> Result<Self> {
        // SAFETY: The function takes any flags.
        let skb = unsafe { bindings::genlmsg_new_default(gfp(flags)) };
        let skb = NonNull::new(skb).ok_or(ENOMEM)?;
        // SAFETY: `skb` is new, and only the kernel changes a family's id.
        let header = unsafe {
            bindings::genlmsg_put(skb.as_ptr(), portid, seq, family.as_raw(), 0, command)
        };
        if header.is_null() {
            // SAFETY: Ours, and not used afterwards.
            unsafe { bindings::nlmsg_free(skb.as_ptr()) };
            return Err(EMSGSIZE);
        }
        // INVARIANT: `skb` is ours, and the message was begun above.
        Ok(Self {
            // SAFETY: As above.
            writer: unsafe { Writer::from_raw(skb) },
            header,
            family,
        })
    }

    /// Begins an answer to `request`, with its command. May sleep.
    pub fn reply_to(request: &Request<'_>) -> Result<Self> {
        Self::new(
            request.family(),
            request.portid(),
            request.seq(),
            request.command(),
            GFP_KERNEL,
        )
    }

    /// Begins a message that no request asked for.
    pub fn notification(family: &'static Family, command: u8, flags: Flags) -> Result<Self> {
        Self::new(family, 0, 0, command, flags)
    }

    /// Ends the message, giving up the ownership of the sk_buff.
    fn end(self) -> NonNull<bindings::sk_buff> {
        let this = ManuallyDrop::new(self);
        let skb = this.writer.skb;
        // SAFETY: By the type invariant.
        unsafe { bindings::genlmsg_end(skb.as_ptr(), this.header) };
        skb
    }

    /// Sends the message to the sender of `request`.
    pub fn reply(self, request: &Request<'_>) -> Result {
        let skb = self.end();
        // SAFETY: `skb` is a finished message that we own and give away.
        to_result(unsafe { bindings::genlmsg_reply(skb.as_ptr(), request.as_raw()) })
    }

    /// Sends the message to those in `net` who listen to a group of the family, given by its place
    /// in the table; that nobody does is no error.
    pub fn multicast(self, net: &Net, group: u8, flags: Flags) -> Result {
        let family = self.family;
        if !family.has_listeners(net, group) {
            return Ok(());
        }
        let skb = self.end();
        // SAFETY: `skb` is a finished message that we own and give away; `has_listeners()` has
        // checked the rest.
        let ret = unsafe {
            bindings::genlmsg_multicast_netns(
                family.as_raw(),
                net.as_raw(),
                skb.as_ptr(),
                0,
                group.into(),
                gfp(flags),
            )
        };
        match to_result(ret) {
            // The last listener left meanwhile.
            Err(ESRCH) => Ok(()),
            other => other,
        }
    }
}

impl Deref for Message {
    type Target = Writer<'static>;

    fn deref(&self) -> &Self::Target {
        &self.writer
    }
}

impl DerefMut for Message {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.writer
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: Ours by the type invariant, and not used afterwards.
        unsafe { bindings::nlmsg_free(self.writer.skb.as_ptr()) };
    }
}
