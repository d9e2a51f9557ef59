// SPDX-License-Identifier: MIT OR Apache-2.0

//! Multicast groups: those that a load balancing unit hears, and those that a host sends to.
//!
//! Both name an interface, for what the kernel would choose changes with its routes. An interface may come late, or go and
//! come again as another one: then groups are joined anew.

use crate::config::{Mistake, Source};
use rustix::net::{netdevice, sockopt};
use socket2::SockRef;
use std::{
    collections::BTreeMap,
    fmt, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::AsFd,
    time::{Duration, Instant},
};
use tokio::net::UdpSocket;
use toml::Spanned;
use tracing::{info, warn};

/// Most groups of a machine; the kernel takes 20 at a socket.
pub const MULTICAST_MAX: usize = 16;
/// Longest name of an interface.
const INTERFACE_MAX: usize = 15;
/// How often it is looked whether interfaces are there.
const AGAIN: Duration = Duration::from_secs(1);

/// A group, and an interface by which it is heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Its address, and the port.
    pub group: SocketAddr,
    /// The interface's name.
    pub interface: String,
}

impl fmt::Display for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "multicast group {} at {}", self.group, self.interface)
    }
}

/// A group, and how what is sent to it leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Multicast {
    /// The group, and the interface by which it is reached.
    pub to: Membership,
    /// Time to live, or hop limit: 1 reaches the machines of this network.
    pub hops: u8,
}

impl Multicast {
    /// What `socket` sends to groups next leaves in this way.
    pub(super) fn aim(&self, socket: &UdpSocket) -> io::Result<()> {
        let index = index(socket, &self.to.interface)?;
        if self.to.group.is_ipv4() {
            let any = Ipv4Addr::UNSPECIFIED;
            sockopt::set_ip_multicast_if_with_ifindex(socket, &any, &any, index)?;
            sockopt::set_ip_multicast_ttl(socket, self.hops.into())?;
        } else {
            sockopt::set_ipv6_multicast_if(socket, index)?;
            sockopt::set_ipv6_multicast_hops(socket, self.hops.into())?;
        }
        Ok(())
    }
}

impl Membership {
    /// Checks `group` and `interface` of an entry of a configuration file.
    pub fn check(
        source: &Source,
        group: &Spanned<SocketAddr>,
        interface: &Spanned<String>,
    ) -> Result<Self, Mistake> {
        let (to, name) = (*group.get_ref(), interface.get_ref());
        if !is_group(&to) {
            let what = format!(
                "group is {to}; choose one of 239.0.0.0/8 or ff15::/16, the same in all files, and the port at which nlbd \
                 hears it, such as \"239.192.0.71:4771\" or \"[ff15::71]:4771\""
            );
            return Err(source.mistake(Some(group.span()), what));
        }
        let fits = |c: u8| c.is_ascii_graphic() && c != b'/' && c != b':';
        if name.is_empty() || name.len() > INTERFACE_MAX || !name.bytes().all(fits) {
            let what =
                "interface is no name of an interface; write one that `ip link` shows, such as \"eth0\"";
            return Err(source.mistake(Some(interface.span()), what));
        }
        Ok(Self {
            group: to,
            interface: name.clone(),
        })
    }
}

/// Whether anybody may choose this group, and it means the same whatever the interface.
fn is_group(address: &SocketAddr) -> bool {
    address.port() != 0
        && match address {
            SocketAddr::V4(v4) => {
                let [first, second, third, _] = v4.ip().octets();
                // Not those of the network's own protocols, and of single sources.
                v4.ip().is_multicast() && [first, second, third] != [224, 0, 0] && first != 232
            }
            SocketAddr::V6(v6) => {
                let (flags, scope) = (v6.ip().octets()[1] >> 4, v6.ip().octets()[1] & 15);
                // From admin-local to global; not of single sources.
                let is_wide = (4..15).contains(&scope) && flags & 2 == 0;
                v6.ip().is_multicast() && is_wide && v6.scope_id() == 0 && v6.flowinfo() == 0
            }
        }
}

fn index(socket: &UdpSocket, interface: &str) -> io::Result<u32> {
    netdevice::name_to_index(socket, interface).map_err(|error| {
        let error = io::Error::from(error);
        io::Error::new(error.kind(), format!("interface {interface}: {error}"))
    })
}

/// What is for groups that others of this machine have joined does not come to `socket`, where the kernel can do that.
pub(super) fn only_joined(socket: &impl AsFd, address: SocketAddr) {
    let socket = SockRef::from(socket);
    let set = match address {
        SocketAddr::V4(_) => socket.set_multicast_all_v4(false),
        SocketAddr::V6(_) => socket.set_multicast_all_v6(false),
    };
    // It would be one more copy, which the protocol drops.
    let _ = set;
}

/// A machine's own sockets, one of each address family.
pub(super) type Own<'a> = [&'a Option<UdpSocket>; 2];

/// The groups that are heard.
///
/// Where a machine's own socket has the group's port at all addresses, that one joins the group. Otherwise the group has a
/// socket of its own, bound to it. So no two of them have the same address, and none has to be shared, by which other
/// users of the machine could take what is for this one.
#[derive(Debug, Default)]
pub(super) struct Members {
    members: Vec<Member>,
    sockets: BTreeMap<SocketAddr, UdpSocket>,
    looked: Option<Instant>,
}

#[derive(Debug)]
struct Member {
    of: Membership,
    /// The number of the interface at which the group is joined.
    index: Option<u32>,
    trouble: Option<String>,
}

impl Members {
    pub(super) fn sockets(&self) -> impl Iterator<Item = &UdpSocket> {
        self.sockets.values()
    }

    pub(super) fn all(&self) -> Vec<(Membership, Option<String>)> {
        let all = self.members.iter();
        all.map(|member| (member.of.clone(), member.trouble.clone()))
            .collect()
    }

    pub(super) fn set(&mut self, new: &[Membership], own: Own<'_>) {
        for member in self.members.iter_mut() {
            if !new.contains(&member.of) {
                member.leave(&self.sockets, own);
                info!("{} is not heard any more", member.of);
            }
        }
        self.members.retain(|member| new.contains(&member.of));
        for of in new {
            if !self.members.iter().any(|member| member.of == *of) {
                self.members.push(Member {
                    of: of.clone(),
                    index: None,
                    trouble: None,
                });
            }
        }
        self.sockets
            .retain(|group, _| new.iter().any(|of| of.group == *group));
        self.looked = None;
    }

    /// When [`Self::look`] has something to do.
    pub(super) fn look_at(&self, now: Instant) -> Option<Instant> {
        let at = self.looked.map_or(now, |at| at + AGAIN);
        (!self.members.is_empty()).then_some(at)
    }

    /// Whether it was time.
    pub(super) fn look(&mut self, now: Instant, own: Own<'_>) -> bool {
        if self.look_at(now).is_none_or(|at| at > now) {
            return false;
        }
        self.looked = Some(now);
        for member in &mut self.members {
            let outcome = member.join(&mut self.sockets, own);
            member.note(outcome);
        }
        true
    }
}

/// The socket that hears `group`, if there is one.
fn socket_of<'a>(
    group: &SocketAddr,
    sockets: &'a BTreeMap<SocketAddr, UdpSocket>,
    own: Own<'a>,
) -> Option<&'a UdpSocket> {
    let hears = |at: SocketAddr| {
        at.ip().is_unspecified() && at.is_ipv4() == group.is_ipv4() && at.port() == group.port()
    };
    let mut own = own.into_iter().flatten();
    own.find(|own| own.local_addr().is_ok_and(hears))
        .or_else(|| sockets.get(group))
}

impl Member {
    fn leave(&mut self, sockets: &BTreeMap<SocketAddr, UdpSocket>, own: Own<'_>) {
        let socket = socket_of(&self.of.group, sockets, own);
        if let (Some(index), Some(socket)) = (self.index.take(), socket) {
            // The interface may be gone, and the membership with it.
            let _ = match self.of.group.ip() {
                IpAddr::V4(group) => {
                    let any = Ipv4Addr::UNSPECIFIED;
                    sockopt::set_ip_drop_membership_with_ifindex(socket, &group, &any, index)
                }
                IpAddr::V6(group) => sockopt::set_ipv6_drop_membership(socket, &group, index),
            };
        }
    }

    /// Joins the group, if it is not joined at the interface that is there now.
    fn join(
        &mut self,
        sockets: &mut BTreeMap<SocketAddr, UdpSocket>,
        own: Own<'_>,
    ) -> io::Result<()> {
        let group = self.of.group;
        if socket_of(&group, sockets, own).is_none() {
            sockets.insert(group, super::bind(group)?);
        }
        let Some(socket) = socket_of(&group, sockets, own) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let index = index(socket, &self.of.interface);
        if self.index.is_some() && self.index == index.as_ref().ok().copied() {
            return Ok(());
        }
        self.leave(sockets, own);
        let index = index?;
        match group.ip() {
            IpAddr::V4(group) => {
                let any = Ipv4Addr::UNSPECIFIED;
                sockopt::set_ip_add_membership_with_ifindex(socket, &group, &any, index)
            }
            IpAddr::V6(group) => sockopt::set_ipv6_add_membership(socket, &group, index),
        }?;
        self.index = Some(index);
        info!("{} is heard", self.of);
        Ok(())
    }

    /// Says what has come of it, once.
    fn note(&mut self, outcome: io::Result<()>) {
        let trouble = outcome.err().map(|error| error.to_string());
        if let Some(what) = trouble.as_ref().filter(|_| self.trouble != trouble) {
            warn!(
                "{} is not heard, which is tried again each second: {what}",
                self.of
            );
        }
        self.trouble = trouble;
    }
}

#[cfg(test)]
mod tests;
