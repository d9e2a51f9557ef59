// SPDX-License-Identifier: MIT OR Apache-2.0

//! The sockets of the protocol of health and load: one of each address family, and those of multicast groups.

mod multicast;

pub use multicast::{Membership, Multicast, MULTICAST_MAX};

use multicast::Members;
use nlb_health::wire::DATAGRAM_MAX;
use rustix::{
    fd::OwnedFd,
    io::Errno,
    net::{sockopt, AddressFamily, SendFlags, SocketFlags, SocketType},
};
use std::{
    collections::BTreeMap,
    future::poll_fn,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdSocket},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    task::Poll,
    time::{Duration, Instant},
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

/// How much came and went.
#[derive(Debug, Default)]
pub struct Traffic {
    received: AtomicU64,
    received_bytes: AtomicU64,
    sent: AtomicU64,
    sent_bytes: AtomicU64,
    not_sent: AtomicU64,
}

impl Traffic {
    /// Name (of a metric, without its prefix), meaning and value of each counter.
    pub(crate) fn all(&self) -> [(&'static str, &'static str, u64); 5] {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            (
                "datagrams_received_total",
                "Datagrams that came, from whomever.",
                value(&self.received),
            ),
            (
                "received_bytes_total",
                "Bytes of datagrams that came, without headers of UDP and IP.",
                value(&self.received_bytes),
            ),
            (
                "datagrams_sent_total",
                "Datagrams that were sent.",
                value(&self.sent),
            ),
            (
                "sent_bytes_total",
                "Bytes of datagrams that were sent, without headers of UDP and IP.",
                value(&self.sent_bytes),
            ),
            (
                "datagrams_not_sent_total",
                "Datagrams that the kernel has refused to send.",
                value(&self.not_sent),
            ),
        ]
    }
}

fn count(datagrams: &AtomicU64, bytes: &AtomicU64, len: usize) {
    datagrams.fetch_add(1, Ordering::Relaxed);
    bytes.fetch_add(len as u64, Ordering::Relaxed);
}

/// Sockets.
#[derive(Debug)]
pub struct Sockets {
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    members: Members,
    /// How what is sent to multicast groups leaves.
    ways: BTreeMap<SocketAddr, Multicast>,
    /// Which socket is looked at first the next time.
    turn: AtomicUsize,
    traffic: Traffic,
}

impl Sockets {
    /// Binds to `addresses`, at most one of a family.
    pub fn bind(addresses: &[SocketAddr]) -> io::Result<Self> {
        let mut sockets = Self {
            v4: None,
            v6: None,
            members: Members::default(),
            ways: BTreeMap::new(),
            turn: AtomicUsize::new(0),
            traffic: Traffic::default(),
        };
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

    /// Binds to `port` of all addresses, of the families that the kernel has.
    pub fn bind_all(port: u16) -> io::Result<Self> {
        let mut all: Vec<SocketAddr> = vec![
            (Ipv4Addr::UNSPECIFIED, port).into(),
            (Ipv6Addr::UNSPECIFIED, port).into(),
        ];
        all.retain(|address| match socket(*address) {
            Err(Errno::AFNOSUPPORT) => {
                warn!("cannot bind to {address}/udp: this kernel has no such addresses");
                false
            }
            _ => true,
        });
        if all.is_empty() {
            return Err(Errno::AFNOSUPPORT.into());
        }
        Self::bind(&all)
    }

    /// The next datagram: its length, and who it says it is from.
    pub async fn receive(&self, buffer: &mut Buffer) -> (usize, SocketAddr) {
        loop {
            let socket = self.readable().await;
            match socket.try_recv_from(buffer) {
                Ok((len, from)) => {
                    count(&self.traffic.received, &self.traffic.received_bytes, len);
                    return (len, from);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    debug!("cannot receive: {error}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    /// A socket that has something to read, perhaps; never, without sockets. None of them keeps the others waiting.
    async fn readable(&self) -> &UdpSocket {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        poll_fn(|context| {
            let own = self.v4.iter().chain(&self.v6);
            let all: Vec<_> = own.chain(self.members.sockets()).collect();
            for index in 0..all.len() {
                let socket = all[(first + index) % all.len()];
                // What is wrong with it is found out by reading.
                if socket.poll_recv_ready(context).is_ready() {
                    return Poll::Ready(socket);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// From now on what goes to these multicast groups leaves as they say.
    pub fn send_by(&mut self, ways: &[Multicast]) {
        let ways = ways.iter().map(|way| (way.to.group, way.clone()));
        self.ways = ways.collect();
    }

    /// From now on these multicast groups are to be heard, no others: [`Self::look`] joins them.
    pub fn hear(&mut self, memberships: &[Membership]) {
        self.members.set(memberships, [&self.v4, &self.v6]);
    }

    /// When [`Self::look`] is to be called again.
    pub fn look_at(&self, now: Instant) -> Option<Instant> {
        self.members.look_at(now)
    }

    /// Joins multicast groups where they are not joined: interfaces may come and go. Whether it was time to.
    pub fn look(&mut self, now: Instant) -> bool {
        self.members.look(now, [&self.v4, &self.v6])
    }

    /// The multicast groups that are to be heard, and why one is not.
    pub fn memberships(&self) -> Vec<(Membership, Option<String>)> {
        self.members.all()
    }

    /// How much came and went.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Whether there is a socket by which `to` may be reached.
    pub fn has_family_of(&self, to: &SocketAddr) -> bool {
        match to {
            SocketAddr::V4(_) => self.v4.is_some(),
            SocketAddr::V6(_) => self.v6.is_some(),
        }
    }

    /// Sends a datagram. What cannot be sent at once is lost, as everything may be on the way.
    pub fn send(&self, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        let socket = match to {
            SocketAddr::V4(_) => &self.v4,
            SocketAddr::V6(_) => &self.v6,
        };
        if let (Some(socket), Some(way)) = (socket, self.ways.get(&to)) {
            if let Err(error) = way.aim(socket) {
                return self.not_sent(error);
            }
        }
        let sent = match socket {
            Some(socket) => rustix::net::sendto(socket, datagram, SendFlags::DONTWAIT, &to),
            None => return self.not_sent(io::ErrorKind::Unsupported.into()),
        };
        match sent {
            Ok(len) => {
                count(&self.traffic.sent, &self.traffic.sent_bytes, len);
                Ok(())
            }
            Err(error) => self.not_sent(error.into()),
        }
    }

    fn not_sent(&self, error: io::Error) -> io::Result<()> {
        self.traffic.not_sent.fetch_add(1, Ordering::Relaxed);
        Err(error)
    }
}

fn socket(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(family, SocketType::DGRAM, flags, None)
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(address)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    // Whatever the limit, for those who may.
    if sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
        sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER)?;
    }
    multicast::only_joined(&socket, address);
    rustix::net::bind(&socket, &address)?;
    UdpSocket::from_std(StdSocket::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What has no room is lost, and nobody waits for it; what has come is there.
    #[test]
    fn datagrams_are_sent_at_once() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let at: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
            let one = Sockets::bind(&[at]).unwrap();
            let other = UdpSocket::bind(at).await.unwrap();
            let to = other.local_addr().unwrap();
            one.send(to, b"first").unwrap();
            let mut buffer: Buffer = [0; DATAGRAM_MAX + 1];
            let (len, from) = other.recv_from(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..len], b"first");
            other.send_to(b"second", from).await.unwrap();
            assert_eq!(one.receive(&mut buffer).await, (6, to));
            let far: SocketAddr = (Ipv6Addr::LOCALHOST, 9).into();
            let error = one.send(far, b"x").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
            assert!(one.has_family_of(&to) && !one.has_family_of(&far));
        });
    }

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
