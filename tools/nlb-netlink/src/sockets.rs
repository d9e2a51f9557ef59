// SPDX-License-Identifier: MIT OR Apache-2.0

//! The TCP connections of a network namespace, and how many wait to be taken, as the kernel's `sock_diag` lists them for `ss`.
//!
//! Source: `include/uapi/linux/inet_diag.h`, `include/uapi/linux/sock_diag.h`.

use std::net::{
    IpAddr,
    Ipv4Addr,
    Ipv6Addr,
    SocketAddr, //
};

use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use crate::{
    attr,
    connection::Endpoint,
    error::{
        Malformed,
        Result, //
    },
    message::{
        NLMSG_HDRLEN,
        NLM_F_DUMP,
        NLM_F_REQUEST, //
    },
};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const TCP_ESTABLISHED: u8 = 1;
const TCP_CLOSE_WAIT: u8 = 8;
const TCP_LISTEN: u8 = 10;
const CONNECTIONS: u32 = 1 << TCP_ESTABLISHED | 1 << TCP_CLOSE_WAIT;
const LISTENERS: u32 = 1 << TCP_LISTEN;

/// Length of `struct inet_diag_req_v2`.
const REQUEST_LEN: usize = 56;
/// Length of `struct inet_diag_msg`.
const ANSWER_LEN: usize = 72;

/// A TCP connection that a program may still write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TcpConnection {
    /// Address and port on this machine. IPv4-mapped addresses are written as IPv4.
    pub local: SocketAddr,
    /// Address and port of the other side.
    pub remote: SocketAddr,
}

impl TcpConnection {
    /// Parse a `struct inet_diag_msg`. `None` for another address family.
    fn decode(body: &[u8]) -> Result<Option<Self>, Malformed> {
        let body = body.get(..ANSWER_LEN).ok_or(Malformed::Message)?;
        let field = |at: usize, len: usize| body.get(at..at + len).unwrap_or_default();
        let family = body.first().copied();
        let addr = |at| {
            let octets: [u8; 16] = field(at, 16).try_into().ok()?;
            match family {
                Some(AF_INET) => {
                    let [a, b, c, d, ..] = octets;
                    Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
                }
                Some(AF_INET6) => Some(IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()),
                _ => None,
            }
        };
        let socket = |addr_at, port_at| {
            let port = attr::be16(field(port_at, 2))?;
            Some(SocketAddr::new(addr(addr_at)?, port))
        };
        let (local, remote) = (socket(8, 4), socket(24, 6));
        Ok(local
            .zip(remote)
            .map(|(local, remote)| Self { local, remote }))
    }
}

/// The sockets that listen at a port, all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AcceptQueue {
    /// Connections that the program has not taken yet.
    pub waiting: u64,
    /// As many may wait.
    pub room: u64,
}

/// A handle that lists connections of the network namespace it was opened in.
pub struct TcpConnections {
    endpoint: Endpoint,
}

impl TcpConnections {
    /// Open a handle in the calling thread's network namespace.
    pub fn open() -> Result<Self> {
        let endpoint = Endpoint::open_protocol(NETLINK_SOCK_DIAG)?;
        Ok(Self { endpoint })
    }

    /// The connections in ESTABLISHED and CLOSE_WAIT whose local address is `local`, an unspecified
    /// one standing for every address of its family, and `[::]` for those of IPv4 as well.
    ///
    /// While connections come and go, one that is there may be missing, and one may be listed twice.
    pub fn at(&mut self, local: SocketAddr) -> Result<Vec<TcpConnection>> {
        let mut found = Vec::new();
        self.dump(CONNECTIONS, local.port(), |body| {
            found.extend(TcpConnection::decode(body)?);
            Ok(())
        })?;
        let ip = local.ip().to_canonical();
        found.retain(|connection| {
            let own = connection.local.ip();
            own == ip || (ip.is_unspecified() && (ip.is_ipv6() || own.is_ipv4()))
        });
        Ok(found)
    }

    /// How many connections there are in these states at `port` of one of these addresses.
    pub fn count(&mut self, addresses: &[IpAddr], port: u16) -> Result<u64> {
        let mut count = 0;
        self.dump(CONNECTIONS, port, |body| {
            let own = TcpConnection::decode(body)?;
            count += u64::from(own.is_some_and(|own| addresses.contains(&own.local.ip())));
            Ok(())
        })?;
        Ok(count)
    }

    /// The sockets that listen at `port` of one of these addresses, or of all; `None` if there is none.
    pub fn queue(&mut self, addresses: &[IpAddr], port: u16) -> Result<Option<AcceptQueue>> {
        let mut found = None;
        self.dump(LISTENERS, port, |body| {
            let Some(TcpConnection { local, .. }) = TcpConnection::decode(body)? else {
                return Ok(());
            };
            if local.ip().is_unspecified() || addresses.contains(&local.ip()) {
                let number = |at: usize| attr::u32(body.get(at..at + 4)?);
                let queue: &mut AcceptQueue = found.get_or_insert_default();
                // idiag_rqueue and idiag_wqueue.
                queue.waiting += u64::from(number(56).unwrap_or(0));
                queue.room += u64::from(number(60).unwrap_or(0));
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// What the kernel says of each socket with one of these states, by number, and this local port.
    fn dump(
        &mut self,
        states: u32,
        port: u16,
        mut each: impl FnMut(&[u8]) -> Result<(), Malformed>,
    ) -> Result<()> {
        // A connection over IPv4 may belong to a socket of either family.
        for family in [AF_INET, AF_INET6] {
            self.endpoint.exchange(
                |seq| Ok(request(family, states, port, seq)),
                &[],
                &mut |message| Ok(each(message.body)?),
            )?;
        }
        Ok(())
    }
}

/// A request for a dump of the sockets in these states with this local port.
fn request(family: u8, states: u32, port: u16, seq: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(NLMSG_HDRLEN + REQUEST_LEN);
    out.extend_from_slice(&((NLMSG_HDRLEN + REQUEST_LEN) as u32).to_ne_bytes());
    out.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    out.extend_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    out.extend_from_slice(&seq.to_ne_bytes());
    out.extend_from_slice(&0u32.to_ne_bytes());
    out.extend_from_slice(&[family, IPPROTO_TCP, 0, 0]);
    out.extend_from_slice(&states.to_ne_bytes());
    out.extend_from_slice(&port.to_be_bytes());
    // The rest of `struct inet_diag_sockid` does not matter in a dump.
    out.resize(NLMSG_HDRLEN + REQUEST_LEN, 0);
    out
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    fn connections_at(local: &str) -> Vec<TcpConnection> {
        let mut connections = TcpConnections::open().unwrap();
        connections.at(local.parse().unwrap()).unwrap()
    }

    // These two cross the real kernel.

    #[test]
    fn a_connection_is_listed_until_it_is_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        assert_eq!(connections_at(&local.to_string()), []);
        let client = TcpStream::connect(local).unwrap();
        let remote = client.local_addr().unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let own = TcpConnection { local, remote };
        assert_eq!(connections_at(&local.to_string()), [own]);
        assert_eq!(connections_at(&format!("0.0.0.0:{}", local.port())), [own]);
        assert_eq!(connections_at(&format!("[::]:{}", local.port())), [own]);
        assert_eq!(connections_at(&format!("127.0.0.2:{}", local.port())), []);
        let count = |addresses: &[&str]| {
            let addresses: Vec<_> = addresses.iter().map(|own| own.parse().unwrap()).collect();
            let mut connections = TcpConnections::open().unwrap();
            connections.count(&addresses, local.port()).unwrap()
        };
        assert_eq!(count(&["127.0.0.2", "127.0.0.1", "127.0.0.1"]), 1);
        assert_eq!(count(&["127.0.0.2", "::1"]), 0);
        drop((client, accepted));
        assert_eq!(connections_at(&local.to_string()), []);
    }

    #[test]
    fn connections_wait_until_they_are_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        let queue = |address: &str| {
            let mut connections = TcpConnections::open().unwrap();
            let addresses = [address.parse().unwrap()];
            connections.queue(&addresses, local.port()).unwrap()
        };
        let empty = queue("127.0.0.1").unwrap();
        assert!(empty.waiting == 0 && empty.room > 3, "{empty:?}");
        let _clients = [(); 3].map(|()| TcpStream::connect(local).unwrap());
        let waiting = |waiting| Some(AcceptQueue { waiting, ..empty });
        // A client may be through before the server's side is.
        let deadline = Instant::now() + Duration::from_secs(20);
        while queue("127.0.0.1") != waiting(3) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(queue("127.0.0.1"), waiting(3));
        assert_eq!(queue("127.0.0.2"), None);
        let _taken = listener.accept().unwrap();
        assert_eq!(queue("127.0.0.1"), waiting(2));
        drop(listener);
        assert_eq!(queue("127.0.0.1"), None);
    }

    #[test]
    fn mapped_addresses_are_written_as_ipv4() {
        // A machine without IPv6 has no such sockets.
        let Ok(listener) = TcpListener::bind("[::]:0") else {
            return;
        };
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let own = TcpConnection {
            local: SocketAddr::new([127, 0, 0, 1].into(), port),
            remote: client.local_addr().unwrap(),
        };
        assert_eq!(connections_at(&format!("127.0.0.1:{port}")), [own]);
        assert_eq!(connections_at(&format!("[::1]:{port}")), []);
    }

    #[test]
    fn answers_are_checked() {
        assert_eq!(
            TcpConnection::decode(&[AF_INET; ANSWER_LEN - 1]),
            Err(Malformed::Message)
        );
        assert_eq!(TcpConnection::decode(&[99; ANSWER_LEN]), Ok(None));
    }
}
