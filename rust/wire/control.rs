// SPDX-License-Identifier: GPL-2.0

//! The datagrams by which a host learns a mapping, and a forwarder that its connection has moved on: UDP
//! port 4770, in both directions.
//!
//! ```text
//!  0               1               2               3
//! +-------+-------+---------------+-------------------------------+
//! |version| type  |   protocol    |          reserved, 0          |
//! +-------+-------+---------------+-------------------------------+
//! |                            flow id                            |
//! +---------------------------------------------------------------+
//! |                            cookie                             |
//! |                           (64 bits)                           |
//! +---------------------------------------------------------------+
//! ```
//!
//! All fields are big-endian. A LEARN goes on with the 4-tuple (client address, VIP, client port,
//! VIP port: 12 bytes, or 36 bytes in the LEARN6 of an IPv6 connection) and, if it fits, with the
//! whole inner packet; an ASK with the 4-tuple alone. A CARRY goes on with a whole IP packet, a MOVED
//! with the address of a host, 4 or 16 bytes.

mod learn;
#[cfg(test)]
mod tests;

pub use learn::{
    Learn,
    DATAGRAM6_LEN,
    DATAGRAM_LEN,
    LEARN6_LEN,
    LEARN_LEN, //
};

use super::{
    addr::{
        Addr,
        FourTuple,
        Proto, //
    },
    error::DropReason,
    field,
    flow_id::FlowId,
    ipv4,
    parse::{
        parse,
        Frame, //
    },
    report::Report, //
};

/// The UDP port of forwarders and hosts.
pub const PORT: u16 = 4770;

/// Bytes of CONFIRM, UNKNOWN and GONE, and of CARRY in front of the inner packet.
pub const HEADER_LEN: usize = 16;

/// Bytes of a MOVED to an IPv6 host.
pub const MOVED_LEN: usize = 32;

/// The same to an IPv4 host.
const MOVED4_LEN: usize = 20;

const VERSION: u8 = 1;
const LEARN: u8 = 1;
const CONFIRM: u8 = 2;
const UNKNOWN: u8 = 3;
const LEARN6: u8 = 4;
const CARRY: u8 = 5;
const MOVED: u8 = 6;
const GONE: u8 = 7;
const ASK: u8 = 8;
const ASK6: u8 = 9;

/// A control datagram without the inner packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Message {
    /// Forwarder to host: this flow id is this connection.
    Learn(Learn),
    /// Host to forwarder: the mapping is in place.
    Confirm {
        /// The flow id.
        flow_id: FlowId,
        /// The cookie of the LEARN.
        cookie: u64,
    },
    /// Host to forwarder: a packet came with this flow id and there is no mapping.
    Unknown {
        /// The flow id.
        flow_id: FlowId,
    },
    /// Forwarder to host: an ICMP error about what the host sent to the client of this connection.
    Carry {
        /// The flow id.
        flow_id: FlowId,
    },
    /// Host to forwarder: the connection of this flow id lives at another host now.
    Moved {
        /// The flow id.
        flow_id: FlowId,
        /// A number that the GONE is to have.
        cookie: u64,
        /// The other host.
        host: Addr,
    },
    /// Forwarder to host: nothing more is sent to this host with this flow id.
    Gone {
        /// The flow id.
        flow_id: FlowId,
        /// That of the MOVED.
        cookie: u64,
    },
    /// Forwarder to host: confirm this mapping if the connection lives with you.
    Ask(Learn),
}

#[inline(always)]
fn header(kind: u8, protocol: u8, flow_id: FlowId, cookie: u64) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    let first = u32::from(VERSION << 4 | kind) << 24 | u32::from(protocol) << 16;
    field::put(&mut bytes, 0, first.to_be_bytes());
    field::put(&mut bytes, 4, flow_id.value().to_be_bytes());
    field::put(&mut bytes, 8, cookie.to_be_bytes());
    bytes
}

/// The whole CONFIRM datagram.
pub fn confirm(flow_id: FlowId, cookie: u64) -> [u8; HEADER_LEN] {
    header(CONFIRM, 0, flow_id, cookie)
}

/// The whole UNKNOWN datagram.
pub fn unknown(flow_id: FlowId) -> [u8; HEADER_LEN] {
    header(UNKNOWN, 0, flow_id, 0)
}

/// Writes the whole MOVED datagram to `to`, and returns it.
pub fn moved(flow_id: FlowId, cookie: u64, host: Addr, to: &mut [u8; MOVED_LEN]) -> &[u8] {
    field::put(to, 0, header(MOVED, 0, flow_id, cookie));
    let len = match host.to_v4() {
        Some(host) => {
            field::put(to, HEADER_LEN, host);
            MOVED4_LEN
        }
        None => {
            field::put(to, HEADER_LEN, *host.as_bytes());
            MOVED_LEN
        }
    };
    field::range(to, 0, len)
}

/// The whole GONE datagram.
pub fn gone(flow_id: FlowId, cookie: u64) -> [u8; HEADER_LEN] {
    header(GONE, 0, flow_id, cookie)
}

/// The bytes of a CARRY in front of the inner packet.
pub fn carry(flow_id: FlowId) -> [u8; HEADER_LEN] {
    header(CARRY, 0, flow_id, 0)
}

/// Reads the inner packet of a CARRY, which has `len` bytes, of which `header` are the first ones,
/// as [`Report::parse`] wants them.
///
/// It has to be an ICMP error as long as that, to the VIP of the connection `tuple`, about a packet
/// from there to the client; with IPv4, the checksum of its header has to be right. What is wrong
/// with it otherwise: [`DropReason::BadValue`] if it is about another connection.
pub fn carried(header: &[u8], len: usize, tuple: &FourTuple) -> Result<Report, DropReason> {
    let report = Report::parse(header, len)?;
    if report.total_len != len {
        return Err(DropReason::BadLength);
    }
    if ipv4::Packet::new_header(header).is_ok_and(|ip| !ip.verify_checksum()) {
        return Err(DropReason::BadChecksum);
    }
    if report.replied() != Some(*tuple) || !report.source.is_unicast() {
        return Err(DropReason::BadValue);
    }
    Ok(report)
}

impl Message {
    /// Reads the front of a datagram of `len` bytes (UDP payload).
    ///
    /// `head` are its first bytes: [`LEARN6_LEN`] of them, or all if there are fewer. The inner
    /// packet is not looked at. Anything not exactly as specified is refused: another version or
    /// type ([`DropReason::BadVersion`], [`DropReason::BadValue`]), reserved bits or an impossible
    /// protocol, cookie, address or port ([`DropReason::BadValue`]), a value that is no flow id
    /// ([`DropReason::BadFlowId`]), a wrong length ([`DropReason::Truncated`],
    /// [`DropReason::BadLength`]).
    pub fn parse_head(head: &[u8], len: usize) -> Result<Message, DropReason> {
        if head.len() < HEADER_LEN || len < HEADER_LEN {
            return Err(DropReason::Truncated);
        }
        let kind = field::u8(head, 0);
        if kind >> 4 != VERSION {
            return Err(DropReason::BadVersion);
        }
        if field::u16(head, 2) != 0 {
            return Err(DropReason::BadValue);
        }
        let flow_id = FlowId::new(field::u32(head, 4)).ok_or(DropReason::BadFlowId)?;
        let cookie = u64::from_be_bytes(field::array(head, 8));
        match (kind & 0x0f, field::u8(head, 1)) {
            (kind @ (LEARN | LEARN6 | ASK | ASK6), protocol) => {
                let proto = Proto::from_number(protocol).ok_or(DropReason::BadValue)?;
                let v4 = matches!(kind, LEARN | ASK);
                let front = match v4 {
                    true => LEARN_LEN,
                    false => LEARN6_LEN,
                };
                if head.len() < front || len < front {
                    return Err(DropReason::Truncated);
                }
                let asks = matches!(kind, ASK | ASK6);
                if asks && len != front {
                    return Err(DropReason::BadLength);
                }
                let learn = Learn {
                    flow_id,
                    cookie,
                    tuple: Learn::tuple(v4, proto, head)?,
                };
                Ok(match asks {
                    true => Message::Ask(learn),
                    false => Message::Learn(learn),
                })
            }
            (MOVED, 0) => {
                let host = match len {
                    MOVED_LEN => Addr::v6(field::array(head, HEADER_LEN)),
                    MOVED4_LEN => Addr::v4(field::array(head, HEADER_LEN)),
                    _ => return Err(DropReason::BadLength),
                };
                if !host.is_unicast() || host.is_v4() != (len == MOVED4_LEN) {
                    return Err(DropReason::BadValue);
                }
                Ok(Message::Moved {
                    flow_id,
                    cookie,
                    host,
                })
            }
            (CONFIRM | UNKNOWN | GONE, _) if len != HEADER_LEN => Err(DropReason::BadLength),
            (CONFIRM, 0) => Ok(Message::Confirm { flow_id, cookie }),
            (UNKNOWN, 0) if cookie == 0 => Ok(Message::Unknown { flow_id }),
            (GONE, 0) => Ok(Message::Gone { flow_id, cookie }),
            (CARRY, 0) if len == HEADER_LEN => Err(DropReason::Truncated),
            (CARRY, 0) if cookie == 0 => Ok(Message::Carry { flow_id }),
            _ => Err(DropReason::BadValue),
        }
    }

    /// Reads a whole datagram: the message and, for a LEARN that has one, the inner packet.
    ///
    /// An inner packet must parse, be of the connection that the LEARN names and fill the
    /// datagram ([`DropReason::BadLength`] or [`DropReason::BadValue`] otherwise). That of a CARRY
    /// is for [`carried`].
    pub fn parse(datagram: &[u8]) -> Result<(Message, Option<&[u8]>), DropReason> {
        let message = Message::parse_head(datagram, datagram.len())?;
        let Message::Learn(learn) = &message else {
            return Ok((message, None));
        };
        let inner = match datagram.get(learn.head_len()..) {
            None | Some([]) => return Ok((message, None)),
            Some(inner) => inner,
        };
        let parsed = parse(inner, Frame::complete(inner.len()))?;
        if parsed.total_len != inner.len() {
            return Err(DropReason::BadLength);
        }
        if parsed.tuple != learn.tuple {
            return Err(DropReason::BadValue);
        }
        Ok((message, Some(inner)))
    }
}
