// SPDX-License-Identifier: GPL-2.0

//! ICMP errors about packets of connections, before and behind the forwarder, each way but the tunnel; and
//! packets inside of others.
//!
//! They are in a file that `make.py` has written, which composes every packet by itself.

use super::{
    super::{
        addr::{
            Addr,
            FourTuple,
            Proto, //
        },
        carrier::{
            Carrier,
            GUE_PORT,
            IPPROTO_UDP,
            MAX_HEADER_LEN, //
        },
        checksum,
        error::DropReason,
        field,
        ipip::Outer,
        parse::addresses,
        report::Report, //
    },
    forward::{
        HOST_PORT,
        NAT_PORT, //
    },
    ipv6::{
        CLIENT as CLIENT_V6,
        VIP as VIP_V6, //
    },
    CLIENT,
    FORWARDER,
    FORWARDER_V6,
    HOST,
    HOST_V6,
    VIP, //
};

/// The file: in each line what happens to the error, its name, its bytes, and what comes of it.
const PACKETS: &str = include_str!("errors/packets.txt");

/// No packet here is longer.
pub const MAX_LEN: usize = 340;

/// Source port of datagrams with packets inside.
pub const GUE_SOURCE: u16 = 54321;

/// New ends of an error and of the packet that it quotes, whose sender is the `client` of the tuple.
pub type Ends = ((Addr, Addr), FourTuple);

/// One line.
struct Case<'a> {
    way: &'static str,
    packet: &'a [u8],
    /// Bytes in hexadecimal, or a reason.
    result: &'static str,
}

/// Calls `f` with each of them. How many there were, or the name of the one for which it failed.
fn each(mut f: impl FnMut(&Case<'_>) -> Option<bool>) -> Result<usize, &'static str> {
    let mut count = 0usize;
    for line in PACKETS.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split(' ');
        let mut word = || words.next().ok_or(line);
        let (way, name, packet, result) = (word()?, word()?, word()?, word()?);
        let mut bytes = [0; MAX_LEN];
        let case = Case {
            way,
            packet: decoded(packet, &mut bytes).ok_or(name)?,
            result,
        };
        match f(&case) {
            Some(true) => count = count.saturating_add(1),
            Some(false) => {}
            None => return Err(name),
        }
    }
    Ok(count)
}

/// How many there are.
pub fn count() -> usize {
    each(|_| Some(true)).unwrap_or(0)
}

/// Calls `f` with each error as it comes.
pub fn each_packet(mut f: impl FnMut(&[u8])) {
    let _ = each(|case| {
        f(case.packet);
        Some(true)
    });
}

/// The bytes that are written in hexadecimal.
fn decoded<'a>(text: &str, buffer: &'a mut [u8; MAX_LEN]) -> Option<&'a [u8]> {
    let mut len = 0usize;
    for (to, digits) in buffer.iter_mut().zip(text.as_bytes().chunks(2)) {
        *to = u8::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok()?;
        len = len.saturating_add(1);
    }
    (len.saturating_mul(2) == text.len()).then_some(())?;
    buffer.get(..len)
}

/// What carries packets in a case, and what happens there.
fn carrier<'a>(case: &Case<'a>) -> Option<(Carrier, &'a str)> {
    let (name, what) = case.way.split_once('-')?;
    let carrier = match name {
        "ipip" => Carrier::Ipip,
        "gre" => Carrier::Gre { checksum: false },
        "gre+csum" => Carrier::Gre { checksum: true },
        "gue" | "gue+csum" => Carrier::Gue {
            checksum: name == "gue+csum",
            port: GUE_PORT,
        },
        _ => return None,
    };
    Some((carrier, what))
}

/// The ends of packets from forwarder to host.
fn outer_ends(is_v4: bool) -> (Addr, Addr) {
    match is_v4 {
        true => (FORWARDER, HOST),
        false => (FORWARDER_V6, HOST_V6),
    }
}

/// Whether a packet behind this header, whose checksum is zero, is what a case says.
fn is_carried(case: &Case<'_>, carrier: Carrier, header: &[u8], inner: &[u8]) -> Option<bool> {
    let mut bytes = [0; MAX_LEN];
    let end = header.len().saturating_add(inner.len());
    let packet = bytes.get_mut(..end)?;
    let (front, behind) = packet.split_at_mut_checked(header.len())?;
    front.copy_from_slice(header);
    behind.copy_from_slice(inner);
    let (source, destination) = addresses(packet)?;
    let start = header.len().checked_sub(carrier.header_len())?;
    let segment = packet.get_mut(start..)?;
    match carrier {
        Carrier::Gre { checksum: true } => {
            let check = checksum::checksum(segment);
            field::put(segment, 4, check.to_be_bytes());
        }
        Carrier::Gue { checksum: true, .. } => {
            let check = checksum::transport(source, destination, IPPROTO_UDP, segment);
            field::put(segment, 6, checksum::udp_nonzero(check).to_be_bytes());
        }
        _ => {}
    }
    Some(is_result(case, packet))
}

/// Runs `emit(carrier, packet, ends, source_port, buffer)` over all clients' packets that are carried: it
/// returns what comes in front, with checksums that are zero.
///
/// Returns how many there were, or the name of the one that came out wrong.
pub fn check_carried(
    emit: impl for<'a> Fn(
        Carrier,
        &[u8],
        (Addr, Addr),
        u16,
        &'a mut [u8; MAX_HEADER_LEN],
    ) -> Result<&'a [u8], DropReason>,
) -> Result<usize, &'static str> {
    each_carried(|carrier, inner, ends, case| {
        let mut buffer = [0; MAX_HEADER_LEN];
        let header = emit(carrier, inner, ends, GUE_SOURCE, &mut buffer).ok()?;
        is_carried(case, carrier, header, inner)
    })
}

/// Calls `is(carrier, packet, outer)` with all clients' packets that are carried, and what is to come of
/// them: whether that is so.
///
/// Returns how many there were, or the name of the one that came out wrong.
pub fn check_carried_whole(
    mut is: impl FnMut(Carrier, &[u8], (Addr, Addr), &[u8]) -> Option<bool>,
) -> Result<usize, &'static str> {
    each_carried(|carrier, inner, ends, case| {
        let mut buffer = [0; MAX_LEN];
        is(carrier, inner, ends, decoded(case.result, &mut buffer)?)
    })
}

fn each_carried(
    mut is: impl FnMut(Carrier, &[u8], (Addr, Addr), &Case<'_>) -> Option<bool>,
) -> Result<usize, &'static str> {
    each(|case| match carrier(case) {
        Some((carrier, "carried")) => {
            let is_v4 = addresses(case.packet)?.0.is_v4();
            is(carrier, case.packet, outer_ends(is_v4), case)?.then_some(true)
        }
        _ => Some(false),
    })
}

/// Whether `bytes` are what a case says.
fn is_result(case: &Case<'_>, bytes: &[u8]) -> bool {
    let mut buffer = [0; MAX_LEN];
    decoded(case.result, &mut buffer) == Some(bytes)
}

/// What becomes of the ends of an error that goes this way; as it is, for `None`.
fn ends(way: &str, report: &Report) -> Option<Option<Ends>> {
    let is_v4 = report.source.is_v4();
    let pick = |v4: Addr, v6: Addr| if is_v4 { v4 } else { v6 };
    let client = pick(Addr::v4(CLIENT), CLIENT_V6);
    let vip = pick(Addr::v4(VIP), VIP_V6);
    let (forwarder, host) = (pick(FORWARDER, FORWARDER_V6), pick(HOST, HOST_V6));
    let proto = report.quoted.tuple.proto();
    let (client_port, vip_port) = match proto {
        Proto::Tcp => (40000, 80),
        Proto::Udp => (5000, 53),
    };
    Some(match way {
        "direct-to-host" => None,
        "half-nat-to-host" => Some((
            (report.source, host),
            FourTuple::new(host, HOST_PORT, client, client_port, proto)?,
        )),
        "nat-to-host" => Some((
            (forwarder, host),
            FourTuple::new(host, HOST_PORT, forwarder, NAT_PORT, proto)?,
        )),
        "half-nat-to-client" | "nat-to-client" => Some((
            (vip, client),
            FourTuple::new(client, client_port, vip, vip_port, proto)?,
        )),
        // Inside of another packet.
        _ if way.ends_with("-to-host") => None,
        _ => return None,
    })
}

/// Runs `apply(packet, report, ends)`, which makes an error in place what it has to be behind the
/// forwarder, over all that are passed on.
///
/// Returns how many there were, or the name of the one that came out wrong.
pub fn check_passed_on(
    mut apply: impl FnMut(&mut [u8], &Report, Option<Ends>) -> Result<(), DropReason>,
) -> Result<usize, &'static str> {
    each(|case| {
        let carrier = carrier(case);
        if case.way == "none" || matches!(carrier, Some((_, "to-client" | "carried"))) {
            return Some(false);
        }
        let report = Report::parse(case.packet, case.packet.len()).ok()?;
        // The forwarder finds the connection by this.
        let tuple = report.replied()?;
        let about_vip = tuple.vip() == Addr::v4(VIP) || tuple.vip() == VIP_V6;
        (about_vip == case.way.ends_with("-to-host")).then_some(())?;
        let mut bytes = [0; MAX_LEN];
        let packet = bytes.get_mut(..case.packet.len())?;
        packet.copy_from_slice(case.packet);
        apply(packet, &report, ends(case.way, &report)?).ok()?;
        if let Some((carrier, _)) = carrier {
            let ends = outer_ends(report.source.is_v4());
            let mut buffer = [0; MAX_HEADER_LEN];
            let header = carrier
                .emit(packet, packet.len(), ends, GUE_SOURCE, &mut buffer)
                .ok()?;
            return is_carried(case, carrier, header, packet)?.then_some(true);
        }
        is_result(case, packet).then_some(true)
    })
}

/// Runs `expose(packet, report, outer)` over all errors about packets inside of others: it leaves in
/// `packet` what is quoted of the inner one, and returns how many bytes that are.
///
/// Returns how many there were, or the name of the one that came out wrong.
pub fn check_exposed(
    mut expose: impl FnMut(&mut [u8], &Report, &Outer) -> Result<usize, DropReason>,
) -> Result<usize, &'static str> {
    each(|case| {
        let Some((carrier, "to-client")) = carrier(case) else {
            return Some(false);
        };
        // It is not one about a packet with ports, but for the outer one's.
        let plain = Report::parse(case.packet, case.packet.len());
        (plain.is_ok() == matches!(carrier, Carrier::Gue { .. })).then_some(())?;
        let (report, outer) = Report::parse_carrier(case.packet, case.packet.len()).ok()?;
        let quoted = &report.quoted.tuple;
        let ends = outer_ends(quoted.is_v4());
        let is_ours = (outer.source, outer.destination) == ends && outer.carrier == carrier;
        (is_ours && report.destination == ends.0).then_some(())?;
        let mut bytes = [0; MAX_LEN];
        let packet = bytes.get_mut(..case.packet.len())?;
        packet.copy_from_slice(case.packet);
        let len = expose(packet, &report, &outer).ok()?;
        let inner = packet.get(..len)?;
        (addresses(inner) == Some((quoted.client(), quoted.vip()))).then_some(())?;
        is_result(case, inner).then_some(true)
    })
}

/// Runs `parse(packet)` over packets that are no errors about packets with ports; nor may they be about
/// packets inside of others.
///
/// Returns how many there were, or the name of the one that came out wrong.
pub fn check_none(
    mut parse: impl FnMut(&[u8]) -> Result<Report, DropReason>,
) -> Result<usize, &'static str> {
    each(|case| {
        if case.way != "none" {
            return Some(false);
        }
        let reason = parse(case.packet).err()?;
        Report::parse_carrier(case.packet, case.packet.len()).err()?;
        (reason.as_str() == case.result).then_some(true)
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::report::{
            decrement_ttl,
            translate, //
        },
        *, //
    };

    fn pass_on(packet: &mut [u8], report: &Report, ends: Option<Ends>) -> Result<(), DropReason> {
        match ends {
            Some((ends, quoted)) => translate(packet, report, ends, &quoted),
            None => decrement_ttl(packet),
        }
    }

    #[test]
    fn exact_bytes() {
        let passed = check_passed_on(pass_on).unwrap();
        let exposed = check_exposed(|packet, report, outer| {
            let start = report.quote_offset + outer.offset;
            let end = report.quote_offset + report.quote_len;
            packet.copy_within(start..end, 0);
            Ok(end - start)
        })
        .unwrap();
        let none = check_none(|packet| Report::parse(packet, packet.len())).unwrap();
        std::println!("{passed} errors passed on, {exposed} about packets inside of others, {none} that are none");
        assert!(passed >= 300 && exposed >= 40 && none >= 40);
        assert!(check_passed_on(|_, _, _| Ok(())).is_err());
        assert!(check_exposed(|packet, _, _| Ok(packet.len())).is_err());
        assert!(check_none(|_| Err(DropReason::NoSpace)).is_err());
    }

    /// However short they are cut, nothing is read behind their ends, and nothing changes.
    #[test]
    fn cut_packets() {
        let all = each(|case| {
            for len in 0..case.packet.len() {
                let cut = case.packet.get(..len)?;
                Report::parse(cut, len).err()?;
                Report::parse_carrier(cut, len).err()?;
            }
            Some(true)
        });
        assert!(all.is_ok_and(|all| all >= 400), "{all:?}");
    }

    #[test]
    fn a_refused_translation_changes_nothing() {
        let mut used_up = 0;
        let checked = check_passed_on(|packet, report, ends| {
            let before = packet.to_vec();
            if let Some((ends, quoted)) = ends {
                let other = match report.source.is_v4() {
                    true => HOST_V6,
                    false => HOST,
                };
                for ends in [(other, ends.1), (ends.0, other), (other, other)] {
                    let refused = translate(packet, report, ends, &quoted);
                    assert_eq!(refused, Err(DropReason::Family));
                }
                let quoted = FourTuple::new(other, 1, other, 1, Proto::Tcp).unwrap();
                let refused = translate(packet, report, ends, &quoted);
                assert_eq!(refused, Err(DropReason::Family));
                let late = Report { ttl: 1, ..*report };
                let refused = translate(packet, &late, ends, &quoted);
                assert_eq!(refused, Err(DropReason::TtlExpired));
                used_up += 1;
            }
            assert_eq!(packet, before);
            pass_on(packet, report, ends)
        });
        assert!(checked.is_ok() && used_up > 100);
    }
}
