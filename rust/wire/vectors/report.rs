// SPDX-License-Identifier: GPL-2.0

//! ICMP errors with their exact bytes, made as the other packets.

mod carry;
mod ipv4;
mod ipv6;
mod refused;

use super::{
    super::{
        addr::{
            FourTuple,
            Proto, //
        },
        control,
        error::DropReason,
        flow_id::FlowId,
        icmp::Kind,
        report::{
            About,
            Report, //
        }, //
    },
    ipv6::{
        CLIENT as CLIENT_V6,
        VIP as VIP_V6, //
    },
    Refused,
    CLIENT,
    VIP, //
};

pub use carry::CARRIED;
pub use refused::{
    NO_REPORTS,
    OTHERS, //
};

/// The cookie of all LEARNs here.
const COOKIE: u64 = 0x0123_4567_89ab_cdef;

/// An ICMP error about a packet of the tunnel.
#[derive(Debug)]
pub struct ReportVector {
    /// What the case is about.
    pub name: &'static str,
    /// The value of the flow id.
    pub flow_id: u32,
    /// The connection.
    pub tuple: FourTuple,
    /// The error as it comes to the forwarder.
    pub report: &'static [u8],
    /// What happened.
    pub kind: Kind,
    /// The code.
    pub code: u8,
    /// Whether the packet was a LEARN datagram.
    pub learning: bool,
    /// The client's packet as far as it is quoted, with its own addresses and ports: what the
    /// forwarder tells the client about. None if too little is quoted.
    pub quote: Option<&'static [u8]>,
}

/// An ICMP error about a packet from a host to a client.
#[derive(Debug)]
pub struct CarryVector {
    /// What the case is about.
    pub name: &'static str,
    /// The value of the flow id.
    pub flow_id: u32,
    /// The connection.
    pub tuple: FourTuple,
    /// The error as it comes to the forwarder.
    pub report: &'static [u8],
    /// The CARRY (UDP payload) that the forwarder sends: TTL one less.
    pub datagram: &'static [u8],
}

/// An ICMP error about something that is no packet of the tunnel.
#[derive(Debug)]
pub struct Other {
    /// What the case is about.
    pub name: &'static str,
    /// The error.
    pub report: &'static [u8],
}

/// No packet here is longer.
pub const MAX_LEN: usize = 224;

/// ICMP errors about packets of the tunnel, of both families.
pub fn all() -> impl Iterator<Item = &'static ReportVector> {
    ipv4::ABOUT_V4.iter().chain(ipv6::ABOUT_V6)
}

/// How many there are of [`all`].
pub const COUNT: usize = ipv4::ABOUT_V4.len() + ipv6::ABOUT_V6.len();

/// Whether what was read of a vector's report is what stands there.
fn is_read(vector: &ReportVector, report: &Report, about: &About) -> bool {
    let proto = if vector.learning {
        Proto::Udp
    } else {
        vector.tuple.proto()
    };
    let of_packet = match about {
        About::Compact(flow_id) => !vector.learning && flow_id.value() == vector.flow_id,
        About::Learn(learn, inner) => {
            vector.learning
                && learn.flow_id.value() == vector.flow_id
                && (learn.tuple, learn.cookie) == (vector.tuple, COOKIE)
                && inner.is_some() == vector.quote.is_some()
        }
    };
    of_packet
        && (report.kind, report.code) == (vector.kind, vector.code)
        && report.total_len == vector.report.len()
        && report.destination == report.quoted.tuple.client()
        && report.quoted.tuple.proto() == proto
}

/// Runs `expose(packet, report, about, 4-tuple)` over all reports: it leaves in `packet` what the
/// client is told about, and returns how many bytes that are, or None if too little is quoted.
///
/// Returns how many there were, or the name of the one that came out wrong.
pub fn check_reports(
    mut expose: impl FnMut(&mut [u8], &Report, &About, &FourTuple) -> Result<Option<usize>, DropReason>,
) -> Result<usize, &'static str> {
    for vector in all() {
        let name = vector.name;
        let bytes = vector.report;
        let report = Report::parse(bytes, bytes.len()).map_err(|_| name)?;
        let about = report.about(bytes).ok_or(name)?;
        if !is_read(vector, &report, &about) {
            return Err(name);
        }
        let mut packet = [0; MAX_LEN];
        let packet = packet.get_mut(..bytes.len()).ok_or("vector too long")?;
        packet.copy_from_slice(bytes);
        let len = expose(packet, &report, &about, &vector.tuple).map_err(|_| name)?;
        let left = len.and_then(|len| packet.get(..len));
        if left != vector.quote {
            return Err(name);
        }
    }
    Ok(COUNT)
}

/// Runs `carry(packet, datagram, report, flow id)` over all errors about replies: it writes the CARRY
/// to `datagram`, and returns its length.
///
/// What comes out is also read as a host does. Returns how many there were, or the name of the one
/// that came out wrong.
pub fn check_carried(
    mut carry: impl FnMut(&[u8], &mut [u8], &Report, FlowId) -> Result<usize, DropReason>,
) -> Result<usize, &'static str> {
    for vector in CARRIED {
        let name = vector.name;
        let bytes = vector.report;
        let report = Report::parse(bytes, bytes.len()).map_err(|_| name)?;
        let flow_id = FlowId::new(vector.flow_id).ok_or(name)?;
        let mut datagram = [0; MAX_LEN];
        let len = carry(bytes, &mut datagram, &report, flow_id).map_err(|_| name)?;
        if report.replied() != Some(vector.tuple) || datagram.get(..len) != Some(vector.datagram) {
            return Err(name);
        }
        let inner = vector.datagram.get(control::HEADER_LEN..).ok_or(name)?;
        let head = control::Message::parse_head(vector.datagram, len);
        let carried = control::carried(inner, inner.len(), &vector.tuple);
        if head != Ok(control::Message::Carry { flow_id }) || carried.is_err() {
            return Err(name);
        }
    }
    Ok(CARRIED.len())
}

/// Runs `parse(packet)` over packets that are no reports.
///
/// Returns how many there were, or the name of the one that came out wrong.
pub fn check_no_reports(
    mut parse: impl FnMut(&[u8]) -> Result<Report, DropReason>,
) -> Result<usize, &'static str> {
    for refused in NO_REPORTS {
        if parse(refused.packet) != Err(refused.reason) {
            return Err(refused.name);
        }
    }
    for other in OTHERS {
        match parse(other.report) {
            Ok(report) if report.about(other.report).is_none() => {}
            _ => return Err(other.name),
        }
    }
    // However short they are cut, they are no good ones, nor is anything read behind their ends.
    for vector in all() {
        for len in 0..vector.report.len() {
            if parse(vector.report.get(..len).unwrap_or_default()).is_ok() {
                return Err(vector.name);
            }
        }
    }
    Ok(NO_REPORTS.len().saturating_add(OTHERS.len()))
}
