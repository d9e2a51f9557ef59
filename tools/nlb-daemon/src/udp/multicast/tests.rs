// SPDX-License-Identifier: MIT OR Apache-2.0

//! Groups at the loopback, with the kernel's sockets. What IPv6 does is in the selftests.

use super::*;
use crate::udp::{Buffer, Sockets};
use nlb_health::wire::DATAGRAM_MAX;
use std::net::UdpSocket as StdSocket;

fn membership(group: SocketAddr, interface: &str) -> Membership {
    Membership {
        group,
        interface: interface.to_owned(),
    }
}

fn groups(port: u16) -> [SocketAddr; 2] {
    ["239.192.0.71", "ff15::71"].map(|ip| SocketAddr::new(ip.parse().unwrap(), port))
}

/// A port that nobody has.
fn free_port() -> u16 {
    let socket = StdSocket::bind("[::]:0").unwrap();
    socket.local_addr().unwrap().port()
}

fn block_on(future: impl std::future::Future) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(future);
}

/// Somebody who sends to groups by the loopback.
fn sender(groups: &[SocketAddr]) -> Sockets {
    let own = ["127.0.0.1:0", "[::1]:0"].map(|at| at.parse().unwrap());
    let mut sockets = Sockets::bind(&own).unwrap();
    let way = |group: &SocketAddr| Multicast {
        to: membership(*group, "lo"),
        hops: 1,
    };
    let ways: Vec<_> = groups.iter().map(way).collect();
    sockets.send_by(&ways);
    sockets
}

/// What comes next, and whether from where it was sent.
async fn next(sockets: &Sockets) -> (Vec<u8>, SocketAddr) {
    let mut buffer: Buffer = [0; DATAGRAM_MAX + 1];
    let (len, from) = sockets.receive(&mut buffer).await;
    (buffer[..len].to_vec(), from)
}

/// Nothing has come: what is sent afterwards to the socket's own address is the next.
async fn hears_nothing(sockets: &Sockets, own: SocketAddr) {
    let probe = StdSocket::bind((own.ip(), 0)).unwrap();
    probe.send_to(b"probe", own).unwrap();
    assert_eq!(next(sockets).await.0, b"probe");
}

/// By the machine's own socket, if that is at all addresses with the group's port, else by one of the group's.
#[test]
fn groups_are_heard_and_left() {
    block_on(async {
        for own in [["127.0.0.1", "::1"], ["0.0.0.0", "::"]] {
            let port = free_port();
            let own = own.map(|ip| SocketAddr::new(ip.parse().unwrap(), port));
            let mut sockets = Sockets::bind(&own).unwrap();
            let groups = groups(port);
            let sender = sender(&groups);
            let memberships = groups.map(|group| membership(group, "lo"));
            let now = Instant::now();
            assert_eq!(sockets.look_at(now), None);
            sockets.hear(&memberships);
            assert_eq!(sockets.look_at(now), Some(now));
            assert!(sockets.look(now) && !sockets.look(now));
            assert_eq!(sockets.look_at(now), Some(now + AGAIN));
            let all = memberships.clone().map(|of| (of, None));
            assert_eq!(sockets.memberships(), all);
            // By the loopback, IPv6 has no way to a group.
            sender.send(groups[0], b"all").unwrap();
            let (datagram, from) = next(&sockets).await;
            assert_eq!(datagram, b"all");
            assert!(from.ip().is_loopback(), "{from}");
            // The answer goes there.
            sockets.send(from, b"one").unwrap();
            assert_eq!(next(&sender).await.0, b"one");
            // Again nothing is joined twice, and nothing is lost.
            assert!(sockets.look(now + AGAIN));
            assert_eq!(sockets.memberships(), all);
            sender.send(groups[0], b"all").unwrap();
            assert_eq!(next(&sockets).await.0, b"all");
            sockets.hear(&memberships[1..]);
            assert!(sockets.look(now));
            sender.send(groups[0], b"all").unwrap();
            let ip = if own[0].ip().is_unspecified() {
                Ipv4Addr::LOCALHOST.into()
            } else {
                own[0].ip()
            };
            hears_nothing(&sockets, (ip, port).into()).await;
        }
    });
}

/// Who has not joined a group does not hear it because somebody else on the machine has.
#[test]
fn groups_of_others_are_not_heard() {
    block_on(async {
        let port = free_port();
        let own: SocketAddr = (Ipv4Addr::UNSPECIFIED, port).into();
        let sockets = Sockets::bind(&[own]).unwrap();
        let [group, _] = groups(port);
        let other = StdSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let IpAddr::V4(ip) = group.ip() else {
            unreachable!()
        };
        other.join_multicast_v4(&ip, &Ipv4Addr::LOCALHOST).unwrap();
        sender(&[group]).send(group, b"all").unwrap();
        hears_nothing(&sockets, (Ipv4Addr::LOCALHOST, port).into()).await;
    });
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    block_on(async {
        let [group, _] = groups(free_port());
        let mut sockets = Sockets::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
        let of = membership(group, "nlb-none");
        sockets.hear(std::slice::from_ref(&of));
        assert!(sockets.look(Instant::now()));
        let [(_, Some(trouble))] = &sockets.memberships()[..] else {
            panic!("there is no such interface");
        };
        assert!(trouble.starts_with("interface nlb-none: "), "{trouble}");
        sockets.send_by(&[Multicast { to: of, hops: 1 }]);
        let error = sockets.send(group, b"all").unwrap_err().to_string();
        assert!(error.starts_with("interface nlb-none: "), "{error}");
        // It is the group that is lost, and nothing else.
        let other = StdSocket::bind("127.0.0.1:0").unwrap();
        sockets.send(other.local_addr().unwrap(), b"one").unwrap();
    });
}

#[test]
fn groups_that_anybody_may_choose() {
    for good in [
        "239.192.0.71:4771",
        "224.0.1.1:1",
        "233.252.0.1:4771",
        "[ff15::71]:4771",
        "[ff1e::71]:4771",
        "[ff08::71]:4771",
    ] {
        assert!(is_group(&good.parse().unwrap()), "{good}");
    }
    for bad in [
        "239.192.0.71:0",
        "224.0.0.251:4771",
        "232.1.1.1:4771",
        "10.0.2.1:4771",
        "255.255.255.255:4771",
        "[ff02::71]:4771",
        "[ff11::71]:4771",
        "[ff35::71]:4771",
        "[ff1f::71]:4771",
        "[ff15::71%3]:4771",
        "[2001:db8::1]:4771",
        "[ff15::71]:0",
    ] {
        assert!(!is_group(&bad.parse().unwrap()), "{bad}");
    }
}
