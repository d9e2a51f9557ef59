// SPDX-License-Identifier: MIT OR Apache-2.0

//! Netlink and generic netlink messages as bytes: requests are built, answers are parsed.
//!
//! Source: `include/uapi/linux/netlink.h`, `include/uapi/linux/genetlink.h`,
//! `Documentation/userspace-api/netlink/intro.rst`.

use std::net::IpAddr;

use crate::{
    attr::{
        self,
        align,
        Attrs, //
    },
    error::{
        Error,
        Malformed,
        Offender,
        Refusal,
        Result, //
    },
};

/// Length of `struct nlmsghdr`.
pub(crate) const NLMSG_HDRLEN: usize = 16;
/// Length of `struct genlmsghdr`.
pub(crate) const GENL_HDRLEN: usize = 4;

/// The message is a request.
pub(crate) const NLM_F_REQUEST: u16 = 0x1;
/// The request wants an acknowledgement.
pub(crate) const NLM_F_ACK: u16 = 0x4;
/// The dump may miss entries or show some twice: the table changed.
pub(crate) const NLM_F_DUMP_INTR: u16 = 0x10;
/// The request wants the whole table.
pub(crate) const NLM_F_DUMP: u16 = 0x300;
/// An error message holds only the header of the request.
const NLM_F_CAPPED: u16 = 0x100;
/// An error message or the end of a dump holds an extended acknowledgement.
const NLM_F_ACK_TLVS: u16 = 0x200;

/// An acknowledgement; with an error number other than 0 a refusal.
pub(crate) const NLMSG_ERROR: u16 = 2;
/// The end of a dump.
pub(crate) const NLMSG_DONE: u16 = 3;
/// Types below are control messages.
pub(crate) const NLMSG_MIN_TYPE: u16 = 0x10;

const NLMSGERR_ATTR_MSG: u16 = 1;
const NLMSGERR_ATTR_OFFS: u16 = 2;
const NLMSGERR_ATTR_COOKIE: u16 = 3;
const NLMSGERR_ATTR_MISS_TYPE: u16 = 5;

/// A request under construction.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    cmd: u8,
    version: u8,
    flags: u16,
    attrs: Vec<u8>,
    too_long: bool,
}

impl Request {
    /// A request without attributes, version 1 of its family.
    pub(crate) fn new(cmd: u8) -> Self {
        Self {
            cmd,
            version: 1,
            flags: NLM_F_REQUEST | NLM_F_ACK,
            attrs: Vec::new(),
            too_long: false,
        }
    }

    /// The same request, asking for the whole table.
    pub(crate) fn dump(mut self) -> Self {
        self.flags |= NLM_F_DUMP;
        self
    }

    /// The same request with another version in its generic netlink header.
    pub(crate) fn version(mut self, version: u8) -> Self {
        self.version = version;
        self
    }

    /// Append an attribute; [`finish`](Self::finish) reports it if it is too long.
    pub(crate) fn put(mut self, kind: u16, payload: &[u8]) -> Self {
        self.too_long |= !attr::put(&mut self.attrs, kind, payload);
        self
    }

    /// Append an address.
    pub(crate) fn addr(self, kind: u16, addr: IpAddr) -> Self {
        self.put(kind, &attr::addr_bytes(&addr))
    }

    /// Append a port.
    pub(crate) fn port(self, kind: u16, port: u16) -> Self {
        self.put(kind, &port.to_be_bytes())
    }

    /// Append a byte.
    pub(crate) fn u8(self, kind: u16, value: u8) -> Self {
        self.put(kind, &[value])
    }

    /// Append a `u32`.
    pub(crate) fn u32(self, kind: u16, value: u32) -> Self {
        self.put(kind, &value.to_ne_bytes())
    }

    /// Append a `u64`.
    pub(crate) fn u64(self, kind: u16, value: u64) -> Self {
        self.put(kind, &value.to_ne_bytes())
    }

    /// Append bytes as they are, which need not be an attribute.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.attrs.extend_from_slice(bytes);
        self
    }

    /// The command.
    pub(crate) fn cmd(&self) -> u8 {
        self.cmd
    }

    /// The bytes to send to the family with this id.
    pub(crate) fn finish(&self, family: u16, seq: u32) -> Result<Vec<u8>> {
        let len = NLMSG_HDRLEN + GENL_HDRLEN + self.attrs.len();
        let Ok(len_field) = u32::try_from(len) else {
            return Err(Error::TooLong);
        };
        if self.too_long {
            return Err(Error::TooLong);
        }
        let mut out = Vec::with_capacity(len);
        out.extend_from_slice(&len_field.to_ne_bytes());
        out.extend_from_slice(&family.to_ne_bytes());
        out.extend_from_slice(&self.flags.to_ne_bytes());
        out.extend_from_slice(&seq.to_ne_bytes());
        // The kernel fills in the port of the sender.
        out.extend_from_slice(&0u32.to_ne_bytes());
        out.extend_from_slice(&[self.cmd, self.version, 0, 0]);
        out.extend_from_slice(&self.attrs);
        Ok(out)
    }
}

/// One message of a datagram from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    /// Family, or control message type.
    pub(crate) kind: u16,
    /// `NLM_F_*`.
    pub(crate) flags: u16,
    /// Sequence number of the request it answers; 0 in notifications.
    pub(crate) seq: u32,
    /// What follows the header.
    pub(crate) body: &'a [u8],
}

impl<'a> Message<'a> {
    /// Command and attributes of a generic netlink message.
    pub(crate) fn genl(&self) -> Result<(u8, &'a [u8]), Malformed> {
        let cmd = *self.body.first().ok_or(Malformed::Message)?;
        let attrs = self.body.get(GENL_HDRLEN..).ok_or(Malformed::Message)?;
        Ok((cmd, attrs))
    }

    /// What an `NLMSG_ERROR` or `NLMSG_DONE` says about the request: done, or refused.
    ///
    /// `names` are the names of the request's attributes, by id, from 1.
    pub(crate) fn outcome(&self, request: &[u8], names: &[&'static str]) -> Result<()> {
        let (code, rest) = match self.body.split_first_chunk::<4>() {
            Some((code, rest)) => (i32::from_ne_bytes(*code), rest),
            // Old kernels end a dump without an error number.
            None if self.kind == NLMSG_DONE => (0, self.body),
            None => return Err(Malformed::Message.into()),
        };
        if code == 0 {
            return Ok(());
        }
        let mut refusal = Refusal {
            errno: code.checked_neg().unwrap_or(i32::MAX),
            text: None,
            attribute: None,
            code: None,
        };
        if self.flags & NLM_F_ACK_TLVS != 0 {
            let echoed = if self.kind == NLMSG_DONE {
                0
            } else if self.flags & NLM_F_CAPPED != 0 {
                NLMSG_HDRLEN
            } else {
                let len = rest.get(..4).and_then(attr::u32);
                align(
                    len.and_then(|len| usize::try_from(len).ok())
                        .unwrap_or(usize::MAX),
                )
            };
            let tlvs = rest.get(echoed..).ok_or(Malformed::Message)?;
            parse_extack(tlvs, request, names, &mut refusal)?;
        }
        Err(Error::Refused(refusal))
    }
}

/// Fill in text and attribute from the attributes of an extended acknowledgement.
fn parse_extack(
    tlvs: &[u8],
    request: &[u8],
    names: &[&'static str],
    refusal: &mut Refusal,
) -> Result<(), Malformed> {
    for attr in Attrs::new(tlvs) {
        let attr = attr?;
        match attr.id {
            NLMSGERR_ATTR_MSG => refusal.text = attr::string(attr.payload),
            NLMSGERR_ATTR_OFFS => {
                let offset = attr::u32(attr.payload).and_then(|at| usize::try_from(at).ok());
                if let Some(id) = offset.and_then(|offset| attribute_at(request, offset)) {
                    refusal.attribute = Some(offender(id, names, false));
                }
            }
            NLMSGERR_ATTR_COOKIE => refusal.code = attr::u32(attr.payload),
            NLMSGERR_ATTR_MISS_TYPE => {
                let id = attr::u32(attr.payload).and_then(|id| u16::try_from(id).ok());
                if let Some(id) = id {
                    refusal.attribute = Some(offender(id, names, true));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn offender(id: u16, names: &[&'static str], missing: bool) -> Offender {
    let index = usize::from(id).checked_sub(1);
    Offender {
        id,
        name: index.and_then(|index| names.get(index)).copied(),
        missing,
    }
}

/// Id of the outermost attribute of `request` in which the byte at `offset` lies.
fn attribute_at(request: &[u8], offset: usize) -> Option<u16> {
    let mut start = NLMSG_HDRLEN + GENL_HDRLEN;
    for attr in Attrs::new(request.get(start..)?) {
        let attr = attr.ok()?;
        let end = start + align(attr::HEADER_LEN + attr.payload.len());
        if (start..end).contains(&offset) {
            return Some(attr.id);
        }
        start = end;
    }
    None
}

/// The messages of a datagram, in order; ends after the first malformed one.
pub(crate) struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    /// The messages in `datagram`.
    pub(crate) fn new(datagram: &'a [u8]) -> Self {
        Self { rest: datagram }
    }

    fn parse(bytes: &'a [u8]) -> Option<(Message<'a>, usize)> {
        let len = usize::try_from(attr::u32(bytes.get(0..4)?)?).ok()?;
        let message = Message {
            kind: attr::u16(bytes.get(4..6)?)?,
            flags: attr::u16(bytes.get(6..8)?)?,
            seq: attr::u32(bytes.get(8..12)?)?,
            body: bytes.get(NLMSG_HDRLEN..len)?,
        };
        Some((message, len))
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match Self::parse(self.rest) {
            Some((message, len)) => {
                self.rest = self.rest.get(align(len)..).unwrap_or_default();
                Some(Ok(message))
            }
            None => {
                self.rest = &[];
                Some(Err(Malformed::Message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::uapi::reason::Reason;

    const NAMES: &[&str] = &["vip-addr", "vip-port"];

    fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&(u32::try_from(NLMSG_HDRLEN + body.len()).unwrap()).to_ne_bytes());
        out.extend_from_slice(&kind.to_ne_bytes());
        out.extend_from_slice(&flags.to_ne_bytes());
        out.extend_from_slice(&7u32.to_ne_bytes());
        out.extend_from_slice(&0u32.to_ne_bytes());
        out.extend_from_slice(body);
        out
    }

    fn request() -> Vec<u8> {
        Request::new(4)
            .addr(1, [192, 0, 2, 10].into())
            .port(2, 80)
            .finish(0x20, 7)
            .unwrap()
    }

    fn refusal(datagram: &[u8]) -> Refusal {
        let message = Messages::new(datagram).next().unwrap().unwrap();
        match message.outcome(&request(), NAMES) {
            Err(Error::Refused(refusal)) => refusal,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn request_bytes() {
        #[rustfmt::skip]
        assert_eq!(request(), [
            36, 0, 0, 0, 0x20, 0, 5, 0, 7, 0, 0, 0, 0, 0, 0, 0,
            4, 1, 0, 0,
            8, 0, 1, 0, 192, 0, 2, 10,
            6, 0, 2, 0, 0, 80, 0, 0,
        ]);
        let dump = Request::new(4).dump().finish(0x20, 7).unwrap();
        assert_eq!(&dump[4..8], [0x20, 0, 5, 3]);
    }

    #[test]
    fn refusals_with_and_without_text() {
        // Without any extended acknowledgement, the request echoed in full.
        let mut body = (-1i32).to_ne_bytes().to_vec();
        body.extend_from_slice(&request());
        let plain = refusal(&message(NLMSG_ERROR, 0, &body));
        assert_eq!((plain.errno, plain.text, plain.attribute), (1, None, None));

        // Echoed in full, then text and the offset of the second attribute.
        let mut tlvs = Vec::new();
        assert!(attr::put(&mut tlvs, NLMSGERR_ATTR_MSG, b"bad port\0"));
        assert!(attr::put(
            &mut tlvs,
            NLMSGERR_ATTR_OFFS,
            &28u32.to_ne_bytes()
        ));
        body.extend_from_slice(&tlvs);
        let full = refusal(&message(NLMSG_ERROR, NLM_F_ACK_TLVS, &body));
        assert_eq!(full.text.as_deref(), Some("bad port"));
        assert_eq!(full.attribute.unwrap().name, Some("vip-port"));

        // Only the header echoed; an attribute is missing.
        let mut body = (-22i32).to_ne_bytes().to_vec();
        body.extend_from_slice(&request()[..NLMSG_HDRLEN]);
        assert!(attr::put(
            &mut body,
            NLMSGERR_ATTR_MISS_TYPE,
            &1u32.to_ne_bytes()
        ));
        let capped = refusal(&message(NLMSG_ERROR, NLM_F_CAPPED | NLM_F_ACK_TLVS, &body));
        let offender = capped.attribute.unwrap();
        assert_eq!((offender.name, offender.missing), (Some("vip-addr"), true));

        // At the end of a dump.
        let mut body = (-95i32).to_ne_bytes().to_vec();
        assert!(attr::put(&mut body, NLMSGERR_ATTR_MSG, b"no\0"));
        let code = 68u32.to_ne_bytes();
        assert!(attr::put(&mut body, NLMSGERR_ATTR_COOKIE, &code));
        let done = refusal(&message(NLMSG_DONE, NLM_F_ACK_TLVS, &body));
        assert_eq!((done.errno, done.text.as_deref()), (95, Some("no")));
        assert_eq!(done.reason(), Some(Reason::AcceptQueueFull));
        assert!(!done.cost_the_connection());
    }

    #[test]
    fn acknowledgement_is_success() {
        let bytes = message(NLMSG_ERROR, 0, &0i32.to_ne_bytes());
        let ack = Messages::new(&bytes).next().unwrap().unwrap();
        assert!(ack.outcome(&request(), NAMES).is_ok());
        assert_eq!(ack.seq, 7);
    }

    #[test]
    fn offsets_name_the_outermost_attribute() {
        let request = request();
        assert_eq!(attribute_at(&request, 20), Some(1));
        assert_eq!(attribute_at(&request, 27), Some(1));
        assert_eq!(attribute_at(&request, 28), Some(2));
        for outside in [0, 19, 36, usize::MAX] {
            assert_eq!(attribute_at(&request, outside), None);
        }
        assert_eq!(offender(3, NAMES, false).name, None);
        assert_eq!(offender(0, NAMES, false).label(), "0");
    }

    #[test]
    fn two_messages_in_a_datagram() {
        let mut bytes = message(0x20, 2, &[1, 1, 0, 0, 0]);
        bytes.resize(align(bytes.len()), 0);
        bytes.extend_from_slice(&message(NLMSG_DONE, 2, &0i32.to_ne_bytes()));
        let kinds: Vec<_> = Messages::new(&bytes).map(|m| m.unwrap().kind).collect();
        assert_eq!(kinds, [0x20, NLMSG_DONE]);
    }

    #[test]
    fn a_short_generic_header_is_malformed() {
        let bytes = message(0x20, 0, &[1, 1]);
        let message = Messages::new(&bytes).next().unwrap().unwrap();
        assert_eq!(message.genl(), Err(Malformed::Message));
    }

    proptest! {
        #[test]
        fn any_datagram_is_walked_to_an_end(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
            small in any::<bool>(),
            kind in prop_oneof![Just(NLMSG_ERROR), Just(NLMSG_DONE), any::<u16>()],
        ) {
            if small && bytes.len() >= 6 {
                // Most random lengths are far too long; make one that is nearly right.
                let len = u32::from(bytes[0]);
                bytes[..4].copy_from_slice(&len.to_ne_bytes());
                bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            }
            for message in Messages::new(&bytes).flatten() {
                let _ = message.genl();
                let _ = message.outcome(&request(), NAMES);
                let _ = message.outcome(&bytes, NAMES);
            }
        }
    }
}
