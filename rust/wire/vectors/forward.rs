// SPDX-License-Identifier: GPL-2.0

//! Packets with their exact bytes behind each way of forwarding but the flow-id tunnel, for the
//! tests on the host and in the kernel.
//!
//! As with the tunnel's, every packet was composed by itself with all checksums computed in full.

mod ipv4;
mod ipv6;

use super::{
    super::{
        addr::{
            Addr,
            FourTuple, //
        },
        error::DropReason,
        ipip::MAX_HEADER_LEN,
        parse::{
            parse,
            Frame, //
        }, //
    },
    check,
    FORWARDER,
    FORWARDER_V6,
    HOST,
    HOST_V6,
    MAX_LEN, //
};

pub use ipv4::{
    FORWARDED,
    REPLIED, //
};
pub use ipv6::{
    FORWARDED_V6,
    REPLIED_V6, //
};

/// The host's port.
pub const HOST_PORT: u16 = 8080;

/// The forwarder's port towards the host.
pub const NAT_PORT: u16 = 12345;

/// A packet of a client, and what the host gets. The forwarder counts as a router: one is taken off
/// the TTL.
#[derive(Debug)]
pub struct Forwarded {
    /// What the case is about.
    pub name: &'static str,
    /// The packet as it comes from the client.
    pub client: &'static [u8],
    /// As it is.
    pub direct: &'static [u8],
    /// Inside an IP packet from the forwarder to the host.
    pub ipip: &'static [u8],
    /// From the client to the host and [`HOST_PORT`].
    pub half_nat: &'static [u8],
    /// From the forwarder and [`NAT_PORT`] to the host and [`HOST_PORT`].
    pub nat: &'static [u8],
}

/// A packet of a host, and what the client gets.
#[derive(Debug)]
pub struct Replied {
    /// What the case is about.
    pub name: &'static str,
    /// The packet as it comes from a host that got the client's address.
    pub half_nat: &'static [u8],
    /// The packet as it comes from a host that got the forwarder's address.
    pub nat: &'static [u8],
    /// The packet as the client gets it.
    pub reply: &'static [u8],
}

/// The ends of the packets of a vector.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// The connection.
    pub tuple: FourTuple,
    /// The forwarder's address.
    pub forwarder: Addr,
    /// The host's address.
    pub host: Addr,
}

impl Ends {
    fn of(packet: &[u8]) -> Result<Self, DropReason> {
        let tuple = parse(packet, Frame::complete(packet.len()))?.tuple;
        let (forwarder, host) = if tuple.is_v4() {
            (FORWARDER, HOST)
        } else {
            (FORWARDER_V6, HOST_V6)
        };
        Ok(Self {
            tuple,
            forwarder,
            host,
        })
    }
}

/// A change of addresses and ports.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Change {
    /// None: the TTL alone.
    Direct,
    /// Of a client's packet, whose source stays.
    HalfNat,
    /// Of a client's packet.
    Nat,
    /// Of a host's packet that is for the client.
    HalfNatReply,
    /// Of a host's packet that is for the forwarder.
    NatReply,
}

/// How many packets of clients there are, of both families.
pub const COUNT: usize = FORWARDED.len() + FORWARDED_V6.len();

/// How many packets of hosts there are, of both families.
pub const REPLY_COUNT: usize = REPLIED.len() + REPLIED_V6.len();

/// Runs `apply(change, packet, ends)` over all vectors and all changes.
///
/// Returns how many times, or the name of the vector that came out wrong.
pub fn check_changes(
    mut apply: impl FnMut(Change, &mut [u8], &Ends) -> Result<(), DropReason>,
) -> Result<usize, &'static str> {
    for vector in FORWARDED.iter().chain(FORWARDED_V6) {
        let ends = Ends::of(vector.client).map_err(|_| vector.name)?;
        for (change, after) in [
            (Change::Direct, vector.direct),
            (Change::HalfNat, vector.half_nat),
            (Change::Nat, vector.nat),
        ] {
            check(vector.name, vector.client, after, |packet| {
                apply(change, packet, &ends)
            })?;
        }
    }
    for vector in REPLIED.iter().chain(REPLIED_V6) {
        let reply = Ends::of(vector.reply).map_err(|_| vector.name)?;
        let (from, to) = (reply.tuple.vip(), reply.tuple.client());
        let (port, vip_port) = (reply.tuple.vip_port(), reply.tuple.client_port());
        let proto = reply.tuple.proto();
        let tuple = FourTuple::new(from, port, to, vip_port, proto).ok_or(vector.name)?;
        let ends = Ends { tuple, ..reply };
        for (change, before) in [
            (Change::HalfNatReply, vector.half_nat),
            (Change::NatReply, vector.nat),
        ] {
            check(vector.name, before, vector.reply, |packet| {
                apply(change, packet, &ends)
            })?;
        }
    }
    Ok(3 * COUNT + 2 * REPLY_COUNT)
}

/// Runs `emit(packet, forwarder, host, buffer)` over all packets that go inside an IP packet, whose
/// header it has to return.
///
/// Returns how many there were, or the name of the vector that came out wrong.
pub fn check_ipip(
    emit: impl for<'a> Fn(
        &[u8],
        Addr,
        Addr,
        &'a mut [u8; MAX_HEADER_LEN],
    ) -> Result<&'a [u8], DropReason>,
) -> Result<usize, &'static str> {
    for vector in FORWARDED.iter().chain(FORWARDED_V6) {
        let ends = Ends::of(vector.client).map_err(|_| vector.name)?;
        let mut buffer = [0; MAX_HEADER_LEN];
        let header = emit(vector.direct, ends.forwarder, ends.host, &mut buffer);
        let inner = header
            .ok()
            .and_then(|header| vector.ipip.strip_prefix(header));
        if inner != Some(vector.direct) || vector.ipip.len() > MAX_LEN {
            return Err(vector.name);
        }
    }
    Ok(COUNT)
}
