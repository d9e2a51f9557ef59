// SPDX-License-Identifier: GPL-2.0

//! How packets get to an endpoint, as requests say it.

use super::target;
use crate::{
    endpoint::Method,
    service::{
        Service,
        ServiceKey, //
    },
    uapi::{
        endpoint,
        Forward,
        ServiceMode, //
    },
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use nlb::{
    errno::EHOSTUNREACH,
    net::{
        genetlink::Request,
        ip, //
    },
    wire::{
        addr::Addr,
        carrier::{
            Carrier,
            GUE_PORT, //
        },
        flow_id::FlowId, //
    }, //
};
use nlb_tunnel::Target;

/// How packets get to a new endpoint at `host`, as far as that can be right without its service.
pub(super) fn method(req: &Request<'_>, key: &ServiceKey, host: Addr) -> Result<Method> {
    let forward = match req.u32(endpoint::FORWARD) {
        None => Forward::Tunnel,
        Some(number) => Forward::from_u32(number)
            .ok_or_else(|| req.bad_attr(EINVAL, endpoint::FORWARD, c"no such way of forwarding"))?,
    };
    let keeps_source = matches!(forward, Forward::Direct | Forward::HalfNat);
    if keeps_source && req.attr(endpoint::SOURCE_ADDR).is_some() {
        let text = c"the client's address stays the source";
        return Err(req.bad_attr(EINVAL, endpoint::SOURCE_ADDR, text));
    }
    let has_port = matches!(forward, Forward::HalfNat | Forward::Nat);
    let port = req.be16(endpoint::HOST_PORT).filter(|port| *port != 0);
    if port.is_some() && !has_port {
        let text = c"only half-nat and nat change the port";
        return Err(req.bad_attr(EINVAL, endpoint::HOST_PORT, text));
    }
    // Packets would come back here and be forwarded again. The tunnel may end where it begins.
    if forward != Forward::Tunnel && !ip::is_elsewhere(req.net(), &host) {
        let text = c"not the address of another machine";
        return Err(req.bad_attr(EINVAL, endpoint::HOST_ADDR, text));
    }
    // Of several ports each stays what it is.
    let port = port.or(key.ports.single().filter(|_| has_port));
    // Both machines may be forwarders.
    if forward == Forward::Nat && port.unwrap_or(key.ports.last()) >= FlowId::SOURCE_MIN {
        let text = c"replies from ports above 60999 look like the tunnel's";
        return Err(req.bad_attr(EINVAL, endpoint::HOST_PORT, text));
    }
    Ok(Method {
        forward,
        host_port: port,
        carrier: carrier(req, forward, host)?,
    })
}

/// What packets travel in, as a request says. Datagrams over IPv6 have a checksum unless it says
/// otherwise: there is none in the IP header that would keep them from a wrong machine (RFC 6935).
fn carrier(req: &Request<'_>, forward: Forward, host: Addr) -> Result<Carrier> {
    let port = req.be16(endpoint::TUN_PORT);
    if port.is_some() && forward != Forward::Gue {
        let text = c"only gue has a port";
        return Err(req.bad_attr(EINVAL, endpoint::TUN_PORT, text));
    }
    let checksum = req.u32(endpoint::TUN_CSUM).map(|checksum| checksum != 0);
    if checksum.is_some() && !matches!(forward, Forward::Gre | Forward::Gue) {
        let text = c"only gre and gue have a checksum";
        return Err(req.bad_attr(EINVAL, endpoint::TUN_CSUM, text));
    }
    Ok(match forward {
        Forward::Gre => Carrier::Gre {
            checksum: checksum.unwrap_or(false),
        },
        Forward::Gue => Carrier::Gue {
            checksum: checksum.unwrap_or(!host.is_v4()),
            port: port.unwrap_or(GUE_PORT),
        },
        _ => Carrier::Ipip,
    })
}

/// Whether endpoints of a service may have this way of forwarding.
pub(super) fn check_service(req: &Request<'_>, service: &Service, forward: Forward) -> Result {
    // Migrations need it.
    if service.mode() == ServiceMode::Peek && forward != Forward::Tunnel {
        let text = c"mode peek needs the tunnel";
        return Err(req.bad_attr(EINVAL, endpoint::FORWARD, text));
    }
    // Their replies are known by routes.
    if service.is_one_packet() && matches!(forward, Forward::HalfNat | Forward::Nat) {
        let text = c"half-nat and nat need routes, and the service makes none";
        return Err(req.bad_attr(EINVAL, endpoint::FORWARD, text));
    }
    Ok(())
}

/// The way to a host.
pub(super) fn target_by(
    req: &Request<'_>,
    forward: Forward,
    host: Addr,
    source: Option<Addr>,
) -> Result<Arc<Target>> {
    if forward != Forward::Direct {
        return target(req, host, source);
    }
    nlb_tunnel::neighbour(req.net(), host).map_err(|error| {
        if error == EHOSTUNREACH {
            let text = c"the host is on no link of this machine";
            req.bad_attr(error, endpoint::HOST_ADDR, text)
        } else {
            error
        }
    })
}
