// SPDX-License-Identifier: MIT OR Apache-2.0

//! The sockets of the protocol of health and load: one of each address family.

use nlb_health::wire::DATAGRAM_MAX;
use rustix::net::{sockopt, AddressFamily, SocketFlags, SocketType};
use std::{
    io,
    net::{SocketAddr, UdpSocket as StdSocket},
    time::Duration,
};
use tokio::net::UdpSocket;
use tracing::debug;

/// Where load balancing units listen, unless something else is said.
pub const PORT: u16 = 4771;

/// Room for a datagram, and for one byte more, which shows that it is too long.
pub type Buffer = [u8; DATAGRAM_MAX + 1];

/// For the datagrams of many hosts that come at once; the kernel's limit may make it less.
const RECEIVE_BUFFER: usize = 4 << 20;

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
