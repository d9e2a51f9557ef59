#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What is refused because of IPv6, as refusals.py does it; and what is not.

Run by test_ipv6.sh, which has set up the machines and NLB_TEST_IPV6.
"""

import contextlib
import errno
import pathlib
import socket
import subprocess
import sys
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from machines import HOST1, accepted, connect, exchange, listen, machine, receive, wait_for  # noqa: E402
from refusals import Bench, connection  # noqa: E402

VIP4, HOST1_4 = "192.0.2.10", "10.0.2.2"
IPV6_DSTOPTS = 59
V6ONLY = (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)


@contextlib.contextmanager
def nft(name, rules, table):
    """Rules that are there meanwhile."""
    def run(command):
        subprocess.run(["ip", "netns", "exec", name, "nft", command], check=True)
    run(rules)
    try:
        yield
    finally:
        run(f"delete table {table}")


@contextlib.contextmanager
def ipv4_connection():
    """Client and LBU over IPv4, by a socket of IPv6 at the LBU."""
    with contextlib.closing(listen("lbu")) as listener, \
            contextlib.closing(connect(address=VIP4)) as client, \
            contextlib.closing(accepted(listener)) as served:
        yield client, served


def moves(bench, name, pair, to, target_options=()):
    """The counterpart of all refusals."""
    bench.lbu.peer(to, True)
    with contextlib.closing(listen("host1", options=target_options)) as target, pair as (client, served):
        client.sendall(b"hello")
        wait_for(lambda: len(served.recv(5, socket.MSG_PEEK)) == 5)
        answer = bench.lbu.migrate(served, to)
        good, got = not answer.error, answer.text
        if good:
            with contextlib.closing(accepted(target)) as moved:
                good = receive(moved, 5) == b"hello" and exchange(client, moved)
                client.shutdown(socket.SHUT_WR)
                good = good and moved.recv(1) == b""
        bench.ktap.result(good, name, got)


def addresses(bench):
    for name, device, address in (("client", "lbu", "fe80::c/64"), ("lbu", "client", "fe80::b/64")):
        subprocess.run(["ip", "-n", name, "addr", "add", address, "dev", device, "nodad"], check=True)
    with contextlib.closing(listen("lbu")) as listener, machine("client"):
        scope = socket.if_nametoindex("lbu")
        with contextlib.closing(socket.socket(socket.AF_INET6)) as client:
            client.settimeout(20)
            client.connect(("fe80::b", 80, 0, scope))
            with contextlib.closing(accepted(listener)) as served:
                bench.refused("link-local addresses", served, errno.EADDRNOTAVAIL,
                              "link-local addresses do not lead to another machine", lambda: exchange(client, served))
    with connection() as (client, served):
        bench.refused("an IPv6 connection to an IPv4 peer", served, errno.EAFNOSUPPORT,
                      "peer is not of the connection's address family", lambda: exchange(client, served), True, HOST1_4)
    with ipv4_connection() as (client, served):
        bench.refused("an IPv4 connection to an IPv6 peer", served, errno.EAFNOSUPPORT,
                      "peer is not of the connection's address family", lambda: exchange(client, served), True)


def headers(bench):
    with connection() as (client, served):
        # Destination options: four bytes of padding.
        served.setsockopt(socket.IPPROTO_IPV6, IPV6_DSTOPTS, bytes([0, 0, 1, 4, 0, 0, 0, 0]))
        bench.refused("extension headers", served, errno.EOPNOTSUPP, "socket sends IPv6 extension headers",
                      lambda: exchange(client, served))
        served.setsockopt(socket.IPPROTO_IPV6, IPV6_DSTOPTS, b"")
        moves(bench, "extension headers that are gone", contextlib.nullcontext((client, served)), HOST1)


def translation(bench):
    with nft("lbu", "add table ip6 nat; add chain ip6 nat pre { type nat hook prerouting priority -100; }", "ip6 nat"):
        with connection() as (client, served):
            bench.refused("NAT of IPv6 in the namespace", served, errno.EOPNOTSUPP,
                          "IPv6 NAT is in use, the connection may be translated", lambda: exchange(client, served))
        moves(bench, "an IPv4 connection beside it", ipv4_connection(), HOST1_4)
    with nft("lbu", "add table ip6 near; add chain ip6 near pre { type filter hook prerouting priority -100; }; "
             "add rule ip6 near pre ct state established accept", "ip6 near"):
        moves(bench, "a filter in the place of NAT, and connection tracking", connection(), HOST1)


def listeners(bench):
    with ipv4_connection() as (client, served), contextlib.closing(listen("host1", options=[V6ONLY])):
        bench.refused("an IPv4 connection, the listener is for IPv6 only", served, errno.ECONNREFUSED,
                      "target: no listener", lambda: exchange(client, served), to=HOST1_4)
    with connection() as (client, served), contextlib.closing(listen("host1", family=socket.AF_INET)):
        bench.refused("an IPv6 connection, the listener is for IPv4", served, errno.ECONNREFUSED,
                      "target: no listener", lambda: exchange(client, served))
    moves(bench, "an IPv4 connection to a listener for both", ipv4_connection(), HOST1_4)
    moves(bench, "an IPv6 connection to a listener for both", connection(), HOST1)
    moves(bench, "an IPv6 connection to a listener for IPv6 only", connection(), HOST1, [V6ONLY])
    with contextlib.closing(listen("host1")), connection() as (client, served):
        with machine("host1"):
            subprocess.run(["ip", "addr", "del", "2001:db8:10::10/128", "dev", "nlb0"], check=True)
        bench.refused("the host has not the VIP", served, errno.EADDRNOTAVAIL, "target: VIP is not on an nlb device there",
                      lambda: exchange(client, served))
        with machine("host1"):
            subprocess.run(["ip", "addr", "add", "2001:db8:10::10/128", "dev", "nlb0"], check=True)


def main():
    bench = Bench()
    for part in (addresses, headers, translation, listeners):
        try:
            part(bench)
        except Exception:  # noqa: BLE001 the other parts have their say as well
            bench.ktap.result(False, f"{part.__name__} comes to its end", *traceback.format_exc().splitlines())
    for peer in (HOST1, HOST1_4):
        bench.lbu.peer(peer, True)
    return bench.ktap.end()


if __name__ == "__main__":
    sys.exit(main())
