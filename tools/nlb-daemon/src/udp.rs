// SPDX-License-Identifier: MIT OR Apache-2.0

//! The sockets of the protocol of health and load: one of each address family.

use nlb_health::wire::DATAGRAM_MAX;
use rustix::net::{sockopt, AddressFamily, SocketFlags, SocketType};
use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, UdpSocket as StdSocket},
    time::Duration,
};
use tokio::net::UdpSocket;
use tracing::{debug, info, warn};

/// Where load balancing units listen, unless something else is said.
pub const PORT: u16 = 4771;

/// Room for a datagram, and for one byte more, which shows that it is too long.
pub type Buffer = [u8; DATAGRAM_MAX + 1];

/// For the datagrams of many hosts that come at once; the kernel's limit may make it less.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Addresses whose trouble is remembered.
const TROUBLES_MAX: usize = 4096;

/// To whom nothing can be sent, and why, so that it is said once and not of each datagram.
#[derive(Debug, Default)]
pub struct Troubles(BTreeMap<SocketAddr, String>);

impl Troubles {
    /// What has come of sending. Whether that was another than before.
    pub fn note(&mut self, to: SocketAddr, outcome: io::Result<()>) -> bool {
        let Err(error) = outcome else {
            let is_new = self.0.remove(&to).is_some();
            if is_new {
                info!(%to, "can be sent to again");
            }
            return is_new;
        };
        let what = error.to_string();
        let old = self.0.get(&to);
        if old == Some(&what) || (old.is_none() && self.0.len() >= TROUBLES_MAX) {
            debug!(%to, "cannot send: {what}");
            return false;
        }
        warn!(%to, "cannot send: {what}");
        self.0.insert(to, what);
        true
    }
}

/// Sockets.
#[derive(Debug)]
pub struct Sockets {
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
}

impl Sockets {
    /// Binds to `addresses`, at most one of a family.
    pub fn bind(addresses: &[SocketAddr]) -> io::Result<Self> {
        let mut sockets = Self { v4: None, v6: None };
        for address in addresses {
            let socket = bind(*address).map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("cannot bind to {address}/udp: {error}"),
                )
            })?;
            match address {
                SocketAddr::V4(_) => sockets.v4 = Some(socket),
                SocketAddr::V6(_) => sockets.v6 = Some(socket),
            }
        }
        Ok(sockets)
    }

    /// The next datagram: its length, and who it says it is from.
    pub async fn receive(&self, buffer: &mut Buffer) -> (usize, SocketAddr) {
        loop {
            let socket = tokio::select! {
                socket = readable(&self.v4) => socket,
                socket = readable(&self.v6) => socket,
            };
            match socket.try_recv_from(buffer) {
                Ok(received) => return received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    debug!("cannot receive: {error}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    /// Whether there is a socket by which `to` may be reached.
    pub fn has_family_of(&self, to: &SocketAddr) -> bool {
        match to {
            SocketAddr::V4(_) => self.v4.is_some(),
            SocketAddr::V6(_) => self.v6.is_some(),
        }
    }

    /// Sends a datagram. What cannot be sent is lost, as everything may be on the way.
    pub async fn send(&self, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        let socket = match to {
            SocketAddr::V4(_) => &self.v4,
            SocketAddr::V6(_) => &self.v6,
        };
        let Some(socket) = socket else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        socket.send_to(datagram, to).await.map(drop)
    }
}

async fn readable(socket: &Option<UdpSocket>) -> &UdpSocket {
    match socket {
        Some(socket) => {
            // What is wrong with it is found out by reading.
            let _ = socket.readable().await;
            socket
        }
        None => std::future::pending().await,
    }
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER)?;
    rustix::net::bind(&socket, &address)?;
    UdpSocket::from_std(StdSocket::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_told_once() {
        let to = |last: u16| SocketAddr::from(([10, 0, 0, 1], last));
        let lost = || Err(io::ErrorKind::NetworkUnreachable.into());
        let mut troubles = Troubles::default();
        assert!(!troubles.note(to(1), Ok(())));
        assert!(troubles.note(to(1), lost()));
        assert!(!troubles.note(to(1), lost()));
        assert!(troubles.note(to(1), Err(io::ErrorKind::PermissionDenied.into())));
        assert!(troubles.note(to(1), Ok(())));
        for port in 0..TROUBLES_MAX as u16 {
            assert!(troubles.note(to(port), lost()));
        }
        assert!(!troubles.note(to(u16::MAX), lost()));
        assert!(troubles.note(to(0), Ok(())));
        assert!(troubles.note(to(u16::MAX), lost()));
    }
}
