#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Every reason for leaving a connection where it is.

For each: the exact error and text, not one packet of the connection or to the
peer, nothing new in any table, and the connection works afterwards. Run by
test_refusals.sh, and for IPv6 by test_refusals_ipv6.sh, which have set up the
machines: what the kernel has other code for is tried over both.
"""

import contextlib
import errno
import fcntl
import os
import pathlib
import select
import socket
import struct
import subprocess
import sys
import termios
import threading
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import machines  # noqa: E402
import scene  # noqa: E402
from attempt import (CLOSING, FIN_WAIT1, FIN_WAIT2, LAST_ACK, Bench, moves, rules, silenced, state)  # noqa: E402
from machines import (IPV4, IPV6, accepted, ao_key, connect, exchange, genl, listen, machine,  # noqa: E402
                      md5_key, receive, wait_for, with_sysctl)

IPPROTO_MPTCP, IPPROTO_SMC = 262, 256
IPV6_DSTOPTS = 59
V6ONLY = (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
TCP_REPAIR, TCP_ULP, TCP_FASTOPEN, MSG_FASTOPEN, MSG_ZEROCOPY, SO_ZEROCOPY = 19, 31, 23, 0x20000000, 0x4000000, 60
TCP_REPAIR_OFF_NO_WP = -1
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
TCP = socket.IPPROTO_TCP


def not_connections(bench):
    with machine("lbu"):
        others = [("an AF_UNIX stream", socket.socketpair()[0]),
                  ("an AF_UNIX datagram socket", socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)),
                  ("a UDP socket", socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)),
                  ("a raw socket", socket.socket(socket.AF_INET, socket.SOCK_RAW, TCP)),
                  ("a packet socket", socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
                  ("a netlink socket", socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))]
    for name, sock in others:
        with contextlib.closing(sock):
            bench.refused(name, sock, errno.EPROTONOSUPPORT, "not a TCP socket")
    with contextlib.closing(bench.listen("lbu")) as listener:
        bench.refused("a listener", listener, errno.EISCONN, "socket is a listener, not a connection")


def other_namespace(bench):
    """A connection within host2, of which the descriptor is here."""
    with contextlib.closing(bench.listen("host2", 81)) as listener:
        with machine("host2"):
            one = socket.create_connection(("127.0.0.1", 81), timeout=20)
        with contextlib.closing(one), contextlib.closing(accepted(listener)) as other:
            bench.refused("a connection of another namespace", other, errno.EXDEV,
                          "socket belongs to another network namespace", lambda: exchange(one, other))


def ends(bench):
    """Every state that is no longer, or not yet, ESTABLISHED."""
    text = "connection is closing"
    with bench.connection() as (client, served):
        served.shutdown(socket.SHUT_WR)
        wait_for(lambda: state(served) == FIN_WAIT2)
        bench.refused("FIN_WAIT2", served, errno.EPIPE, text,
                      lambda: not client.sendall(b"on") and receive(served, 2) == b"on" and client.recv(1) == b"")
    with bench.connection() as (client, served):
        with silenced():
            served.shutdown(socket.SHUT_WR)
            wait_for(lambda: state(served) == FIN_WAIT1)
            bench.refused("FIN_WAIT1", served, errno.EPIPE, text)
            client.shutdown(socket.SHUT_WR)
            wait_for(lambda: state(served) == CLOSING)
            bench.refused("CLOSING", served, errno.EPIPE, text)
        bench.result(client.recv(1) == b"" and wait_for(lambda: state(served) == 7),
                     "CLOSING: the connection comes to its end")
    with bench.connection() as (client, served):
        client.shutdown(socket.SHUT_WR)
        receive(served, 1)
        with silenced():
            served.shutdown(socket.SHUT_WR)
            wait_for(lambda: state(served) == LAST_ACK)
            bench.refused("LAST_ACK", served, errno.EPIPE, text)
        bench.result(client.recv(1) == b"", "LAST_ACK: the connection comes to its end")
        wait_for(lambda: state(served) == 7)
        bench.refused("a closed connection", served, errno.ENOTCONN, "connection is not established")
    with bench.connection() as (client, served):
        served.shutdown(socket.SHUT_RD)
        bench.refused("a direction that was shut down", served, errno.EPIPE, "socket has been shut down",
                      lambda: not served.sendall(b"on") and receive(client, 2) == b"on")


def half_open(bench):
    with machine("lbu"):
        sock = socket.socket()
    with contextlib.closing(sock), silenced():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((IPV4.vip, 80))
        sock.setblocking(False)
        sock.connect_ex((IPV4.client, 9))
        bench.refused("SYN_SENT", sock, errno.ENOTCONN, "connection is not established")
    with with_sysctl("lbu", "ipv4/tcp_fastopen", 0x202), with_sysctl("client", "ipv4/tcp_fastopen", 5), \
            contextlib.closing(bench.listen("lbu", options=((TCP, TCP_FASTOPEN, 16),))) as listener, \
            machine("client"), contextlib.closing(socket.socket()) as client:
        client.settimeout(20)
        with silenced():
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.sendto(b"early", MSG_FASTOPEN, (IPV4.vip, 80))
            served = accepted(listener)
            bench.refused("SYN_RECV of TCP Fast Open", served, errno.EBUSY, "TCP Fast Open is in progress")
        client.settimeout(20)
        bench.result(receive(served, 5) == b"early" and exchange(client, served),
                     "SYN_RECV of TCP Fast Open: the connection works")
        served.close()


def by_addresses(bench):
    """What has no descriptor can be named by its addresses."""
    # The migrators' own connection; the move before has opened it.
    option = "-4Htn" if bench.network is IPV4 else "-6Htn"
    links = subprocess.run(["ip", "netns", "exec", "lbu", "ss", option, "state", "established", "dport = :4770"],
                           capture_output=True, text=True, check=True).stdout.split()
    address, _, port = links[2].rpartition(":")
    bench.refused("a connection of the kernel", ((bench.network.host1, 4770), (address.strip("[]"), int(port))),
                  errno.EOPNOTSUPP, "socket belongs to the kernel", peer=True)
    vip = bench.network.vip, 80
    with contextlib.closing(bench.listen("lbu")) as listener, contextlib.closing(connect(address=vip[0])) as client:
        def accept_now():
            with contextlib.closing(accepted(listener)) as served:
                return exchange(client, served)
        bench.refused("a connection that nobody has accepted", (client.getsockname()[:2], vip), errno.EAGAIN,
                      "no program has accepted the connection yet", accept_now)
    # (The listener sends its SYN-ACK again meanwhile.)
    with contextlib.closing(bench.listen("lbu")) as listener:
        with rules("inet half", "chain in { type filter hook prerouting priority -400; }",
                   "rule in tcp dport 80 tcp flags & (syn | ack) == ack drop"):
            client = connect(address=vip[0])
            answer = bench.lbu.migrate((client.getsockname()[:2], vip), bench.network.host1)
        client.sendall(b"complete")
        with contextlib.closing(client), contextlib.closing(accepted(listener)) as served:
            good = receive(served, 8) == b"complete" and exchange(client, served)
        bench.result(good and (answer.error, answer.text) == (errno.ENOTCONN, "connection is not established"),
                     "a handshake that is not complete", str(answer))
    bench.refused("a connection that does not exist", ((bench.network.client, 1), vip), errno.ENOENT,
                  "no such connection")


def mptcp(bench):
    try:
        with bench.connection(protocol=IPPROTO_MPTCP) as (client, served):
            bench.refused("an MPTCP connection", served, errno.EOPNOTSUPP, "MPTCP is not supported",
                          lambda: exchange(client, served))
    except OSError as failure:
        if failure.errno != errno.EPROTONOSUPPORT:
            raise
        bench.ktap.skip("an MPTCP connection", "this kernel has no MPTCP")


def smc(bench, name):
    """Whether there are sockets of SMC; if not, a test is skipped."""
    try:
        with machine("lbu"):
            socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_SMC).close()
    except OSError as failure:
        bench.ktap.skip(name, f"this kernel has none ({failure})")
        return False
    return True


UPPER_LAYER = "socket has an upper layer protocol (kTLS, ...)"


def kernel_tls(bench):
    with bench.connection() as (client, served):
        served.setsockopt(TCP, TCP_ULP, b"tls")
        bench.refused("kernel TLS", served, errno.EOPNOTSUPP, UPPER_LAYER, lambda: exchange(client, served))


def upper_layers(bench):
    with bench.connection() as (client, served):
        try:
            served.setsockopt(TCP, TCP_ULP, b"espintcp")
        except OSError as failure:
            bench.ktap.skip("ESP in TCP", f"this kernel has none ({failure})")
        else:
            bench.refused("ESP in TCP", served, errno.EOPNOTSUPP, UPPER_LAYER)
    if smc(bench, "SMC"):
        with bench.connection(protocol=IPPROTO_SMC) as (client, served):
            bench.refused("SMC", served, errno.EOPNOTSUPP, "SMC is not supported", lambda: exchange(client, served))


def redirected(bench):
    name = "a socket in a sockmap"
    with bench.connection() as (client, served):
        try:
            kept = machines.into_sockmap(served)
        except OSError as failure:
            bench.ktap.skip(name, f"this kernel has no sockmap ({failure})")
            return
        bench.refused(name, served, errno.EOPNOTSUPP, "socket is in a sockmap", lambda: exchange(client, served))
        os.close(kept)


def authenticated(bench):
    for name, key in (("TCP-MD5", md5_key), ("TCP-AO", ao_key)):
        with bench.connection([key(bench.network.client)], [key(bench.network.vip)]) as (client, served):
            bench.refused(name, served, errno.EOPNOTSUPP, "TCP-MD5 and TCP-AO are not supported",
                          lambda: exchange(client, served))


def device(name):
    """Option: bound to a device."""
    return socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name


BOUND = "socket is bound to a device"


def bound(bench):
    with bench.connection() as (client, served):
        served.setsockopt(*device(b"client"))
        bench.refused("a socket bound to a device", served, errno.EOPNOTSUPP, BOUND, lambda: exchange(client, served))
        served.setsockopt(*device(b""))
        moves(bench, "a socket that is bound no more", contextlib.nullcontext((client, served)))
    with bench.connection([device(b"client")]) as (client, served):
        bench.refused("accepted by a listener bound to a device", served, errno.EOPNOTSUPP, BOUND,
                      lambda: exchange(client, served))
        bench.refused("the same by its addresses", (client.getsockname()[:2], (bench.network.vip, 80)), errno.ENOENT,
                      "no such connection", lambda: exchange(client, served))


def in_vrf(bench):
    name = "a connection in a VRF"

    def ip(*words):
        subprocess.run(["ip", "-n", "lbu", *words], check=True)
    try:
        ip("link", "add", "red", "type", "vrf", "table", "77")
    except subprocess.CalledProcessError:
        bench.ktap.skip(name, "this kernel has no VRF")
        return
    try:
        ip("link", "set", "red", "up")
        ip("addr", "add", IPV4.vip + "/32", "dev", "red")
        # The device goes down and up with it, and would lose its addresses of IPv6.
        with with_sysctl("lbu", "ipv6/conf/client/keep_addr_on_down", 1):
            ip("link", "set", "client", "master", "red")
            try:
                with bench.connection([device(b"red")]) as (client, served):
                    bench.refused(name, served, errno.EOPNOTSUPP, BOUND, lambda: exchange(client, served))
            finally:
                ip("link", "set", "client", "nomaster")
    finally:
        ip("link", "del", "red")


def pending(bench):
    with bench.connection() as (client, served):
        client.send(b"!", socket.MSG_OOB)
        select.select([], [], [served], 20)
        served.settimeout(None)
        bench.refused("urgent data", served, errno.EBUSY, "urgent data is pending",
                      lambda: served.recv(1, socket.MSG_OOB) == b"!" and exchange(client, served))
    with bench.connection() as (client, served):
        served.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
        pages = bytes(range(256)) * 64
        with silenced():
            served.sendall(pages, MSG_ZEROCOPY)
            bench.refused("data of MSG_ZEROCOPY", served, errno.EBUSY, "data in flight is in zero-copy memory")
        bench.result(receive(client, len(pages)) == pages and exchange(client, served),
                     "data of MSG_ZEROCOPY: it arrives")
    with bench.connection() as (client, served):
        served.setsockopt(TCP, TCP_REPAIR, 1)
        bench.refused("TCP_REPAIR", served, errno.EBUSY, "socket is in repair mode")
        served.setsockopt(TCP, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP)
        # Repair has forgotten it.
        served.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bench.result(exchange(client, served), "TCP_REPAIR: the connection works")
    with bench.connection([(socket.SOL_SOCKET, SO_RCVBUFFORCE, 32 << 20)]) as (client, served):
        data = bytes(range(256)) * (5 << 12)
        client.sendall(data)
        wait_for(lambda: unread(served) == len(data))
        bench.refused("5 MiB unread", served, errno.EFBIG, "too much unread data",
                      lambda: receive(served, len(data)) == data and exchange(client, served))
    with bench.connection([(socket.SOL_SOCKET, SO_SNDBUFFORCE, 16 << 20)]) as (client, served):
        data = bytes(range(256)) * (4 << 12) + b"!"
        with silenced():
            served.sendall(data)
            bench.refused("4 MiB and a byte in the send queue", served, errno.EBUSY,
                          "too much data in flight towards the client")
        bench.result(receive(client, len(data)) == data and exchange(client, served),
                     "4 MiB and a byte in the send queue: they arrive")
    beyond_a_hole(bench)
    with with_sysctl("lbu", "ipv4/tcp_ecn", 3), with_sysctl("client", "ipv4/tcp_ecn", 3), \
            bench.connection() as (client, served):
        bench.refused("accurate ECN", served, errno.EOPNOTSUPP, "accurate ECN is not supported",
                      lambda: exchange(client, served))


def unread(sock):
    return struct.unpack("=i", fcntl.ioctl(sock, termios.FIONREAD, b"\0" * 4))[0]


def at_the_limits(bench):
    """4 MiB unread and 4 MiB in the send queue: as much as there may be moves."""
    data, (large, larger) = bytes(range(256)) * (4 << 12), ((socket.SOL_SOCKET, SO_RCVBUFFORCE, n << 20) for n in (16, 64))
    bench.lbu.peer(bench.network.host1, True)
    with contextlib.closing(bench.listen("host1", options=[larger])) as target, \
            bench.connection([large, (socket.SOL_SOCKET, SO_SNDBUFFORCE, 16 << 20)]) as (client, served):
        client.sendall(data)
        wait_for(lambda: unread(served) == len(data))
        with silenced():
            served.sendall(data)
            answer = bench.lbu.migrate(served, bench.network.host1, timeout=30000)
        assert not answer.error, answer.text
        with contextlib.closing(accepted(target)) as there:
            good = receive(there, len(data)) == data and receive(client, len(data)) == data and exchange(client, there)
            bench.result(good, "moves: 4 MiB unread and 4 MiB in the send queue")
            client.shutdown(socket.SHUT_WR)
            receive(there, 1)
    wait_for(lambda: bench.tables()[:2] == [0, 0])


def beyond_a_hole(bench):
    """More than 1 MiB behind a byte that was lost."""
    data, at_last = bytes(range(256)) * 4800, contextlib.ExitStack()
    way = f"ip -n client route change {bench.network.vip} via 10.0.1.1".split()
    subprocess.run([*way, "initcwnd", "1000"], check=True)
    at_last.callback(subprocess.run, way, check=True)
    with at_last, bench.connection([(socket.SOL_SOCKET, SO_RCVBUFFORCE, 32 << 20)], [
            (socket.SOL_SOCKET, SO_SNDBUFFORCE, 4 << 20), (TCP, socket.TCP_NODELAY, 1)]) as (client, served):
        # The window grows.
        for _ in range(4):
            client.sendall(data)
            receive(served, len(data))
        with rules("inet hole", "chain in { type filter hook prerouting priority -400; }",
                   f"rule in tcp dport 80 tcp sequence {scene.write_seq(client)} drop"):
            client.sendall(b"?")
            client.sendall(data)
            wait_for(lambda: scene.Info(served).rcv_ooopack * 1400 > 1 << 20)
            bench.refused("more than 1 MiB out of order", served, errno.EBUSY, "too much out-of-order data is queued")
        bench.result(receive(served, 1 + len(data)) == b"?" + data and exchange(client, served),
                     "more than 1 MiB out of order: all arrives")


def doubled(bench):
    """Of two requests at the same time one moves the connection."""
    other, answers = machines.Migrator("lbu"), []
    # By then the migrators are connected.
    moves(bench, "one request")
    with contextlib.closing(bench.listen("host1")) as target, bench.connection() as (client, served):
        # The answers of the host come when it is over.
        with rules("inet late", "chain in { type filter hook input priority 0; }", "rule in tcp sport 4770 drop"):
            first = threading.Thread(target=lambda: answers.append(bench.lbu.migrate(served, timeout=20000)))
            first.start()
            wait_for(lambda: other.phase(client.getsockname()[1]) == "preparing")
            for name, sock in (("by descriptor", served), ("by its addresses", (client.getsockname(), (bench.network.vip, 80)))):
                answer = other.migrate(sock, bench.network.host1)
                bench.result((answer.error, answer.text) == (errno.EBUSY, "connection is being migrated already"),
                             f"a second request, {name}", f"{genl.name_of(answer.error)} '{answer.text}'")
        first.join()
        with contextlib.closing(accepted(target)) as there:
            bench.result(not answers[0].error and exchange(client, there), "the first request moves the connection")
            bench.refused("the socket of a connection that has moved", served, errno.ENOTCONN,
                          "connection is not established", lambda: exchange(client, there))


def translated(bench):
    """Connections that the client knows by another address, or the LBU the client."""
    text, network = "connection is translated by NAT", bench.network
    # Nobody has it; what is translated to it comes back by the way to the client's link.
    other = network.client[:-1] + "99"
    with rules(f"{network.ip} nat", "chain pre { type nat hook prerouting priority -100; }",
               "chain in { type nat hook input priority 100; }",
               # At the place of connection tracking.
               "chain out { type filter hook output priority -200; }", "rule pre tcp dport 8080 redirect to :80",
               f"rule pre tcp dport 8081 dnat to {end(network.vip)}:80", f"rule in tcp sport 34567 snat to {end(other)}"):
        # REDIRECT takes the device's address, not the VIP.
        for name, port in (("REDIRECT", 8080), ("DNAT", 8081)):
            with bench.connection(port=port) as (client, served):
                bench.refused(f"{name} on the LBU", served, errno.EOPNOTSUPP, text, lambda: exchange(client, served))
        with contextlib.closing(bench.listen("lbu")) as listener, machine("client"), \
                contextlib.closing(socket.create_connection((network.vip, 80), 20, ("", 34567))) as client, \
                contextlib.closing(accepted(listener)) as served:
            bench.result(served.getpeername()[0] == other, "SNAT on the LBU: the test translates",
                         str(served.getpeername()))
            bench.refused("SNAT on the LBU", served, errno.EOPNOTSUPP, text, lambda: exchange(client, served))
        # Tracked, but not translated: that is no reason.
        moves(bench, "a connection that is tracked, but not translated")


def small_segments(bench):
    """A client that announces an MSS of 60."""
    with rules("inet small", "chain pre { type filter hook prerouting priority -150; }",
               "rule pre tcp dport 80 tcp flags & (syn | ack) == syn tcp option maxseg size set 60"), \
            bench.connection() as (client, served):
        bench.refused("a client that takes small segments only", served, errno.EOPNOTSUPP,
                      "client wants segments of less than 88 bytes", lambda: exchange(client, served))


def end(address):
    """As nft has it before a port."""
    return f"[{address}]" if ":" in address else address


def targets(bench):
    """What the host refuses."""
    def attempt(name, error, text, listener, before=lambda client: None):
        with contextlib.closing(listener), bench.connection() as (client, served):
            kept = before(client)
            bench.refused(f"target: {name}", served, error, f"target: {text}", lambda: exchange(client, served))
            bench.result(bench.host.counters()["held-now"] == 0, f"target: {name}: nothing is held")
            if kept is not None:
                kept.close()

    attempt("MPTCP listener", errno.EOPNOTSUPP, "listener uses MPTCP", bench.listen("host1", protocol=IPPROTO_MPTCP))
    for name, key in (("TCP-MD5", md5_key), ("TCP-AO", ao_key)):
        attempt(f"listener with {name}", errno.EOPNOTSUPP, "listener uses TCP-MD5 or TCP-AO",
                bench.listen("host1", options=[key(bench.network.client)]))
    attempt("listener bound to the device of the VIP", errno.EOPNOTSUPP, "listener is bound to a device",
            bench.listen("host1", options=[device(b"nlb0")]))
    attempt("listener bound to another device", errno.ECONNREFUSED, "no listener",
            bench.listen("host1", options=[device(b"lbu")]))
    with with_sysctl("host1", "ipv4/tcp_rmem", "4096 4096 4096"):
        attempt("tcp_rmem too small", errno.ENOBUFS, "receive window does not fit net.ipv4.tcp_rmem",
                bench.listen("host1"))

    if smc(bench, "target: SMC listener"):
        attempt("SMC listener", errno.EOPNOTSUPP, "listener has an upper layer protocol (SMC, ...)",
                bench.listen("host1", protocol=IPPROTO_SMC))

    def twin_of(client):
        """A connection of the same name, made without a packet."""
        with machine("host1"):
            twin = socket.socket(bench.network.family)
        twin.setsockopt(TCP, TCP_REPAIR, 1)
        twin.bind((bench.network.vip, 80))
        twin.connect(client.getsockname())
        return twin
    attempt("connection exists already", errno.EADDRINUSE, "connection exists already", bench.listen("host1"), twin_of)
    attempt("nothing listens", errno.ECONNREFUSED, "no listener", bench.listen("host1", 81))


def other_family(bench):
    """Peers, and listeners, of one family and connections of the other; the listener on the LBU is for both."""
    text = "peer is not of the connection's address family"
    with bench.connection() as (client, served):
        bench.refused("an IPv6 connection to an IPv4 peer", served, errno.EAFNOSUPPORT, text,
                      lambda: exchange(client, served), True, IPV4.host1)
    with bench.connection(vip=IPV4.vip) as (client, served):
        bench.refused("an IPv4 connection to an IPv6 peer", served, errno.EAFNOSUPPORT, text,
                      lambda: exchange(client, served), True)
        with contextlib.closing(bench.listen("host1", options=[V6ONLY])):
            bench.refused("an IPv4 connection, the listener is for IPv6 only", served, errno.ECONNREFUSED,
                          "target: no listener", lambda: exchange(client, served), to=IPV4.host1)
    with bench.connection() as (client, served), contextlib.closing(listen("host1", family=socket.AF_INET)):
        bench.refused("an IPv6 connection, the listener is for IPv4", served, errno.ECONNREFUSED,
                      "target: no listener", lambda: exchange(client, served))
    moves(bench, "an IPv4 connection to a listener for both", bench.connection(vip=IPV4.vip), IPV4.host1)
    moves(bench, "an IPv6 connection to a listener for IPv6 only", target_options=[V6ONLY])


def addresses(bench):
    for name, at, address in (("client", "lbu", "fe80::c/64"), ("lbu", "client", "fe80::b/64")):
        subprocess.run(["ip", "-n", name, "addr", "add", address, "dev", at, "nodad"], check=True)
    with contextlib.closing(bench.listen("lbu")) as listener, machine("client"):
        scope = socket.if_nametoindex("lbu")
        with contextlib.closing(socket.socket(socket.AF_INET6)) as client:
            client.settimeout(20)
            client.connect(("fe80::b", 80, 0, scope))
            with contextlib.closing(accepted(listener)) as served:
                bench.refused("link-local addresses", served, errno.EADDRNOTAVAIL,
                              "link-local addresses do not lead to another machine", lambda: exchange(client, served))
    with contextlib.closing(bench.listen("host1")), bench.connection() as (client, served):
        vip = [f"{IPV6.vip}/128", "dev", "nlb0"]
        subprocess.run(["ip", "-n", "host1", "addr", "del", *vip], check=True)
        bench.refused("the host has not the VIP", served, errno.EADDRNOTAVAIL,
                      "target: VIP is not on an nlb device there", lambda: exchange(client, served))
        subprocess.run(["ip", "-n", "host1", "addr", "add", *vip], check=True)


def headers(bench):
    with bench.connection() as (client, served):
        # Destination options: four bytes of padding.
        served.setsockopt(socket.IPPROTO_IPV6, IPV6_DSTOPTS, bytes([0, 0, 1, 4, 0, 0, 0, 0]))
        bench.refused("extension headers", served, errno.EOPNOTSUPP, "socket sends IPv6 extension headers",
                      lambda: exchange(client, served))
        served.setsockopt(socket.IPPROTO_IPV6, IPV6_DSTOPTS, b"")
        moves(bench, "extension headers that are gone", contextlib.nullcontext((client, served)))


BOTH = (by_addresses, kernel_tls, redirected, authenticated, bound, targets, translated, small_segments, at_the_limits)
PARTS = {
    IPV4: BOTH + (not_connections, other_namespace, ends, half_open, mptcp, upper_layers, in_vrf, pending, doubled),
    IPV6: BOTH + (other_family, addresses, headers)}


def main():
    bench = Bench()
    moves(bench, "an ordinary connection, before")
    for part in PARTS[bench.network]:
        try:
            part(bench)
        except Exception:  # noqa: BLE001 the other parts have their say as well
            bench.result(False, f"{part.__name__} comes to its end", *traceback.format_exc().splitlines())
    moves(bench, "an ordinary connection, after")
    bench.ktap.end()


if __name__ == "__main__":
    main()
