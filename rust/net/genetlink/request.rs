// SPDX-License-Identifier: GPL-2.0

//! A request, and the extended acknowledgement that tells its sender what was wrong with it.

use super::{
    attr::{
        Attr,
        Attrs, //
    },
    message::{
        Message,
        Writer, //
    },
    Family, //
};
use crate::{
    bindings,
    net::netns::Net,
    wire::addr::{
        Addr,
        Proto, //
    }, //
};
use core::{
    fmt::Write,
    marker::PhantomData,
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    fmt,
    prelude::*, //
};

/// A request that passed the policy of its operation.
///
/// Gives the attributes by [`Attrs`]'s methods.
///
/// # Invariants
///
/// `info` is valid for `'a`, as are the message it describes (checked by the kernel to be as long
/// as its header says), its family, which is part of a [`Family`], and its network namespace.
pub struct Request<'a> {
    info: NonNull<bindings::genl_info>,
    attrs: Attrs<'a>,
    _info: PhantomData<&'a bindings::genl_info>,
}

impl<'a> Deref for Request<'a> {
    type Target = Attrs<'a>;

    fn deref(&self) -> &Attrs<'a> {
        &self.attrs
    }
}

macro_rules! require {
    ($($name:ident, $getter:ident -> $ty:ty;)*) => {
        $(
            #[doc = concat!(
                "As [`Attrs::", stringify!($getter), "`]; `EINVAL`, with the id reported to the ",
                "sender, if the attribute is absent."
            )]
            pub fn $name(&self, id: u16) -> Result<$ty> {
                let attr = self.require(id)?;
                attr.$getter().ok_or_else(|| {
                    self.bad_attr(EINVAL, id, c"invalid attribute")
                })
            }
        )*
    };
}

impl<'a> Request<'a> {
    /// # Safety
    ///
    /// `info` must be what generic netlink passes to a callback of a [`Family`], and stay so for
    /// `'a`.
    pub(super) unsafe fn from_raw(info: NonNull<bindings::genl_info>) -> Self {
        // SAFETY: `info` is valid by the contract of this function.
        let header = unsafe { (*info.as_ptr()).nlhdr };
        // SAFETY: The header of the request outlives the callback.
        let total = unsafe { (*header).nlmsg_len } as usize;
        let skip = size_of::<bindings::nlmsghdr>() + size_of::<bindings::genlmsghdr>();
        let data = match total.checked_sub(skip) {
            // SAFETY: `netlink_rcv_skb()` checked that `nlmsg_len` bytes are there, and
            // `genl_family_rcv_msg()` that they hold both headers; families of this module have
            // no header of their own. The message is not written while it is processed.
            Some(len) => unsafe { core::slice::from_raw_parts(header.cast::<u8>().add(skip), len) },
            None => &[],
        };
        // INVARIANT: By the contract of this function.
        Self {
            info,
            attrs: Attrs::new(data),
            _info: PhantomData,
        }
    }

    fn info(&self) -> &bindings::genl_info {
        // SAFETY: By the type invariant; nobody else writes to it during the callback.
        unsafe { self.info.as_ref() }
    }

    pub(super) fn as_raw(&self) -> *mut bindings::genl_info {
        self.info.as_ptr()
    }

    /// The family the request was sent to.
    pub(super) fn family(&self) -> &'static Family {
        // SAFETY: By the type invariant.
        unsafe { Family::from_raw(self.info().family) }
    }

    /// The network namespace of the socket that sent the request.
    pub fn net(&self) -> &'a Net {
        // SAFETY: By the type invariant; the helper reads a field.
        let net = unsafe { bindings::genl_info_net(self.info.as_ptr()) };
        // SAFETY: The socket of the sender holds a reference, for as long as the callback runs at
        // least.
        unsafe { Net::from_raw(net) }
    }

    /// The command.
    pub fn command(&self) -> u8 {
        // SAFETY: The message is valid by the type invariant, and this header in it was checked.
        unsafe { (*self.info().genlhdr).cmd }
    }

    /// Port of the socket that sent the request.
    pub fn portid(&self) -> u32 {
        self.info().snd_portid
    }

    /// Sequence number of the request.
    pub fn seq(&self) -> u32 {
        self.info().snd_seq
    }

    /// All attributes.
    pub fn attrs(&self) -> Attrs<'a> {
        self.attrs
    }

    /// The extended acknowledgement.
    pub fn extack(&self) -> ExtAck<'_> {
        ExtAck {
            raw: self.info().extack,
            _request: PhantomData,
        }
    }

    /// Reports `text` and returns the error code, for `return Err(…)`.
    pub fn error(&self, code: impl Into<Error>, text: &'static CStr) -> Error {
        self.extack().error(code, text)
    }

    /// As [`Self::error`], with a text made at run time; see [`ExtAck::set_fmt`].
    pub fn error_fmt(&self, code: impl Into<Error>, text: fmt::Arguments<'_>) -> Error {
        self.extack().set_fmt(text);
        code.into()
    }

    /// As [`Self::error`], and points the sender at attribute `id`.
    pub fn bad_attr(&self, code: impl Into<Error>, id: u16, text: &'static CStr) -> Error {
        if let Some(attr) = self.attr(id) {
            self.extack().set_attr(&attr);
        }
        self.error(code, text)
    }

    /// Attribute `id`; `EINVAL`, with the id reported to the sender, if it is absent.
    pub fn require(&self, id: u16) -> Result<Attr<'a>> {
        self.attr(id).ok_or_else(|| {
            self.extack().set_missing(id);
            EINVAL
        })
    }

    require! {
        require_u8, u8 -> u8;
        require_u16, u16 -> u16;
        require_u32, u32 -> u32;
        require_u64, u64 -> u64;
        require_s32, s32 -> i32;
        require_be16, be16 -> u16;
        require_be32, be32 -> u32;
        require_uint, uint -> u64;
        require_string, string -> &'a str;
    }

    /// The bytes of attribute `id`; `EINVAL`, with the id reported to the sender, if it is absent.
    pub fn require_bytes(&self, id: u16) -> Result<&'a [u8]> {
        Ok(self.require(id)?.bytes())
    }

    /// The IPv4 (4 bytes) or IPv6 address (16 bytes) in attribute `id`, `None` if it is absent.
    ///
    /// `EINVAL` with a text if it has another length, or is an IPv4 address in 16 bytes.
    pub fn addr(&self, id: u16) -> Result<Option<Addr>> {
        let Some(bytes) = self.bytes(id) else {
            return Ok(None);
        };
        match (Addr::from_octets(bytes), bytes.len()) {
            (Some(addr), _) => Ok(Some(addr)),
            (None, 16) => Err(self.bad_attr(EINVAL, id, c"IPv4 addresses have 4 bytes")),
            _ => Err(self.bad_attr(EINVAL, id, c"invalid address length")),
        }
    }

    /// As [`Self::addr`]; `EINVAL`, with the id reported to the sender, if it is absent.
    pub fn require_addr(&self, id: u16) -> Result<Addr> {
        self.require(id)?;
        self.addr(id)?.ok_or(EINVAL)
    }

    /// As [`Self::require_addr`]; `EINVAL`, with a text, if it is no unicast address.
    pub fn require_unicast(&self, id: u16) -> Result<Addr> {
        let addr = self.require_addr(id)?;
        if !addr.is_unicast() {
            return Err(self.bad_attr(EINVAL, id, c"not a unicast address"));
        }
        Ok(addr)
    }

    /// The transport protocol in an attribute; `EINVAL`, with a text, if it is neither TCP nor UDP.
    pub fn require_proto(&self, id: u16) -> Result<Proto> {
        u8::try_from(self.require_u32(id)?)
            .ok()
            .and_then(Proto::from_number)
            .ok_or_else(|| self.bad_attr(EINVAL, id, c"protocol must be TCP (6) or UDP (17)"))
    }

    /// Overwrites the values of attribute `id`, the last thing that happens to a request. What is
    /// reported about it points at headers of attributes, which stay.
    pub(super) fn wipe(self, id: u16) {
        // SAFETY: By the type invariant.
        let header = unsafe { (*self.info.as_ptr()).nlhdr };
        let places = |nth| {
            let mut found = self.attrs.iter().filter(|attr| attr.id() == id);
            let value = found.nth(nth)?.bytes();
            let at = (value.as_ptr() as usize).checked_sub(header as usize)?;
            Some((at, value.len()))
        };
        let mut nth = 0;
        while let Some((at, len)) = places(nth) {
            // SAFETY: The attribute lies in the message, at this distance from its header, and
            // the message is in memory of the kernel that may be written (as WireGuard does for its
            // keys): a request that came by a socket is a copy. This consumes the request, so no
            // reference into it is left in the operation, and none is in use here.
            unsafe {
                bindings::memzero_explicit(header.cast_mut().cast::<u8>().add(at).cast(), len)
            };
            nth += 1;
        }
    }

    /// Answers with one message of the request's command that `fill` writes. May sleep.
    ///
    /// Fails with what `fill` returns, `ENOMEM`, or an error of `netlink_unicast()`.
    pub fn reply(&self, fill: impl FnOnce(&mut Writer<'_>) -> Result) -> Result {
        let mut message = Message::reply_to(self)?;
        fill(&mut message)?;
        message.reply(self)
    }
}

/// The extended acknowledgement of a request: why it failed, in words, and which attribute is to
/// blame.
///
/// Does nothing where the kernel offers none.
///
/// # Invariants
///
/// `raw` is null or valid for `'a`, and only used by the thread that processes the request.
#[derive(Clone, Copy)]
pub struct ExtAck<'a> {
    raw: *mut bindings::netlink_ext_ack,
    _request: PhantomData<&'a ()>,
}

impl ExtAck<'_> {
    /// One that goes nowhere.
    pub fn none() -> Self {
        // INVARIANT: `raw` is null.
        Self {
            raw: core::ptr::null_mut(),
            _request: PhantomData,
        }
    }

    /// Sets the text: lower case, without a full stop, saying which thing is wrong.
    pub fn set(&self, text: &'static CStr) {
        if !self.raw.is_null() {
            // SAFETY: By the type invariant. The text outlives the acknowledgement: it is static,
            // in a module that cannot go before the request is done.
            unsafe { (*self.raw)._msg = text.as_char_ptr() };
        }
    }

    /// Sets a text made at run time. What exceeds 79 bytes is cut off, on a character boundary;
    /// so is all that follows a NUL.
    pub fn set_fmt(&self, text: fmt::Arguments<'_>) {
        if self.raw.is_null() {
            return;
        }
        // SAFETY: By the type invariant; this is the only reference into it.
        let buffer = unsafe { &mut (*self.raw)._msg_buf };
        let mut line = Line { buffer, len: 0 };
        // A text that does not fit is cut, which is the only error there is.
        let _ = line.write_fmt(text);
        line.finish();
        // SAFETY: By the type invariant. The text is in the same structure.
        unsafe { (*self.raw)._msg = (&raw const (*self.raw)._msg_buf).cast() };
    }

    /// Sets a number for programs, which tells refusals with the same error code apart. It goes as
    /// `NLMSGERR_ATTR_COOKIE`, four bytes in the machine's order.
    pub fn set_reason(&self, reason: u32) {
        if self.raw.is_null() {
            return;
        }
        let bytes = reason.to_ne_bytes();
        // SAFETY: By the type invariant; this is the only reference into it.
        let cookie = unsafe { &mut (*self.raw).cookie };
        if let Some((room, _)) = cookie.split_first_chunk_mut() {
            *room = bytes;
            // SAFETY: By the type invariant.
            unsafe { (*self.raw).cookie_len = bytes.len() as u8 };
        }
    }

    /// Sets the text and returns the error code, for `return Err(…)`.
    pub fn error(&self, code: impl Into<Error>, text: &'static CStr) -> Error {
        self.set(text);
        code.into()
    }

    /// Says that `attr`, an attribute of the request, is to blame.
    pub fn set_attr(&self, attr: &Attr<'_>) {
        if !self.raw.is_null() {
            // SAFETY: By the type invariant; `netlink_ack()` checks that the pointer lies in the
            // request before it uses it.
            unsafe {
                (*self.raw).bad_attr = attr.as_raw().cast();
                (*self.raw).policy = core::ptr::null_mut();
            }
        }
    }

    /// Says that attribute `id` is missing at the outermost level (`NL_SET_ERR_ATTR_MISS()`).
    pub fn set_missing(&self, id: u16) {
        if !self.raw.is_null() {
            // SAFETY: By the type invariant.
            unsafe {
                (*self.raw).miss_type = id;
                (*self.raw).miss_nest = core::ptr::null();
            }
        }
        self.set(c"missing attribute");
    }
}

/// A buffer of a fixed size that takes as much of a text as fits.
struct Line<'a> {
    buffer: &'a mut [c_char],
    len: usize,
}

impl Line<'_> {
    /// Ends the text with a NUL, for which `write_str` left room.
    fn finish(&mut self) {
        if let Some(end) = self.buffer.get_mut(self.len) {
            *end = 0;
        }
    }
}

impl Write for Line<'_> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let room = self.buffer.len().saturating_sub(self.len + 1);
        let mut end = text.len().min(room);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let Some(target) = self.buffer.get_mut(self.len..self.len + end) else {
            return Err(core::fmt::Error);
        };
        for (to, from) in target.iter_mut().zip(text.bytes()) {
            *to = from as c_char;
        }
        self.len += end;
        if end < text.len() {
            return Err(core::fmt::Error);
        }
        Ok(())
    }
}

#[kunit_tests(nlb_genetlink_extack)]
mod tests {
    use super::*;

    fn line(text: &str, size: usize) -> Result<KVec<u8>> {
        let mut buffer = KVec::from_elem(0xa5 as c_char, size, GFP_KERNEL)?;
        let mut line = Line {
            buffer: &mut buffer,
            len: 0,
        };
        let _ = line.write_str(text);
        line.finish();
        let mut out = KVec::new();
        for &c in buffer.iter().take_while(|&&c| c != 0) {
            out.push(c as u8, GFP_KERNEL)?;
        }
        Ok(out)
    }

    #[test]
    fn cut() -> Result {
        assert_eq!(&line("peer refused", 80)?[..], b"peer refused");
        assert_eq!(&line("peer refused", 5)?[..], b"peer");
        // No half character: the second byte of "é" would be the last that fits.
        assert_eq!(&line("caf\u{e9}s", 5)?[..], b"caf");
        assert_eq!(&line("", 1)?[..], b"");
        Ok(())
    }
}
