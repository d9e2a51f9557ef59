#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Every reason for leaving a connection where it is.

For each: the exact error and text, not one packet of the connection or to the
peer, nothing new in any table, and the connection works afterwards. Run by
test_refusals.sh, which has set up the machines.
"""

import contextlib
import ctypes
import errno
import fcntl
import pathlib
import select
import socket
import struct
import subprocess
import sys
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import machines  # noqa: E402
from machines import (CLIENT, LIBC, VIP, accepted, ao_key, connect, exchange, genl, listen, machine,  # noqa: E402
                      md5_key, receive, wait_for, with_sysctl)

IPPROTO_MPTCP, IPPROTO_SMC = 262, 256
TCP_REPAIR, TCP_ULP, TCP_FASTOPEN, MSG_FASTOPEN, MSG_ZEROCOPY, SO_ZEROCOPY = 19, 31, 23, 0x20000000, 0x4000000, 60
TCP_REPAIR_OFF_NO_WP = -1
SO_RCVBUFFORCE = 33
TCP = socket.IPPROTO_TCP


class Bench:
    """The machines, and what must not change."""

    def __init__(self):
        self.ktap = genl.Ktap()
        self.lbu, self.host = machines.Migrator("lbu"), machines.Migrator("host1")
        self.sniffers = [machines.Sniffer("lbu"), machines.Sniffer("host1")]

    def tables(self):
        """Live migrations and mappings of both machines."""
        live = [sum(entry["phase"] <= self.lbu.family.ids["NLB_MIGRATOR_PHASE_ACTIVE"] for entry in side.migrations())
                for side in (self.lbu, self.host)]
        return live + [self.lbu.mappings(), self.host.mappings()]

    def quiet(self):
        for sniffer in self.sniffers:
            sniffer.packets(wait=0.15)

    def refused(self, name, sock, error, text, works=None, peer=False, to=machines.HOST1):
        """One attempt. `works` tells whether the connection does, afterwards."""
        asks_peer = peer or text.startswith("target: ")
        # What the LBU finds itself, it finds before it looks for the peer.
        self.lbu.peer(to, asks_peer)
        self.quiet()
        before = self.tables()
        answer = self.lbu.migrate(sock, to)
        after = self.tables()
        # To the peer goes only what has to be asked there.
        sent = [ports for sniffer in self.sniffers for ports in sniffer.packets(wait=0.05)
                if not asks_peer or 4770 not in ports]
        notes = [f"got {genl.name_of(answer.error)} '{answer.text}', expected {errno.errorcode[error]} '{text}'"]
        good = answer.error == error and answer.text == text
        if sent:
            good = False
            notes.append(f"packets were sent (source and destination port): {sent}")
        # What an earlier connection has left may go meanwhile.
        if any(now > then for then, now in zip(before, after)):
            good = False
            notes.append(f"tables changed: {before} -> {after}")
        try:
            if works is not None and not works():
                good = False
                notes.append("the connection does not work any more")
        except OSError as failure:
            good = False
            notes.append(f"the connection does not work any more: {failure}")
        self.ktap.result(good, name, *notes)

    def skip(self, name, why):
        self.ktap.count += 1
        print(f"ok {self.ktap.count} {name} # SKIP {why}", flush=True)


@contextlib.contextmanager
def connection(listener_options=(), client_options=(), protocol=0, port=80):
    """Both ends of a connection between client and LBU."""
    with contextlib.closing(listen("lbu", 80, protocol, options=listener_options)) as listener, \
            contextlib.closing(connect(port, protocol, client_options)) as client, \
            contextlib.closing(accepted(listener)) as served:
        yield client, served


@contextlib.contextmanager
def silenced():
    """What the LBU sends from port 80 gets lost before it reaches a device."""
    def nft(rules):
        subprocess.run(["ip", "netns", "exec", "lbu", "nft", rules], check=True)
    nft("add table ip silent; add chain ip silent out { type filter hook output priority 0; };"
        "add rule ip silent out tcp sport 80 drop")
    try:
        yield
    finally:
        nft("delete table ip silent")


def state(sock):
    """tcpi_state: a number of include/net/tcp_states.h."""
    return sock.getsockopt(TCP, socket.TCP_INFO, 1)[0]


ESTABLISHED, FIN_WAIT1, FIN_WAIT2, LAST_ACK, CLOSING = 1, 4, 5, 9, 11


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
    with contextlib.closing(listen("lbu")) as listener:
        bench.refused("a listener", listener, errno.EISCONN, "socket is a listener, not a connection")


def other_namespace(bench):
    """A connection within host2, of which the descriptor is here."""
    with contextlib.closing(listen("host2", 81)) as listener:
        with machine("host2"):
            one = socket.create_connection(("127.0.0.1", 81), timeout=20)
        with contextlib.closing(one), contextlib.closing(accepted(listener)) as other:
            bench.refused("a connection of another namespace", other, errno.EXDEV,
                          "socket belongs to another network namespace", lambda: exchange(one, other))


def ends(bench):
    """Every state that is no longer, or not yet, ESTABLISHED."""
    text = "connection is closing"
    with connection() as (client, served):
        served.shutdown(socket.SHUT_WR)
        wait_for(lambda: state(served) == FIN_WAIT2)
        bench.refused("FIN_WAIT2", served, errno.EPIPE, text,
                      lambda: not client.sendall(b"on") and receive(served, 2) == b"on" and client.recv(1) == b"")
    with connection() as (client, served):
        with silenced():
            served.shutdown(socket.SHUT_WR)
            wait_for(lambda: state(served) == FIN_WAIT1)
            bench.refused("FIN_WAIT1", served, errno.EPIPE, text)
            client.shutdown(socket.SHUT_WR)
            wait_for(lambda: state(served) == CLOSING)
            bench.refused("CLOSING", served, errno.EPIPE, text)
        bench.ktap.result(client.recv(1) == b"" and wait_for(lambda: state(served) == 7),
                          "CLOSING: the connection comes to its end")
    with connection() as (client, served):
        client.shutdown(socket.SHUT_WR)
        receive(served, 1)
        with silenced():
            served.shutdown(socket.SHUT_WR)
            wait_for(lambda: state(served) == LAST_ACK)
            bench.refused("LAST_ACK", served, errno.EPIPE, text)
        bench.ktap.result(client.recv(1) == b"", "LAST_ACK: the connection comes to its end")
        wait_for(lambda: state(served) == 7)
        bench.refused("a closed connection", served, errno.ENOTCONN, "connection is not established")
    with connection() as (client, served):
        served.shutdown(socket.SHUT_RD)
        bench.refused("a direction that was shut down", served, errno.EPIPE, "socket has been shut down",
                      lambda: not served.sendall(b"on") and receive(client, 2) == b"on")


def half_open(bench):
    with machine("lbu"):
        sock = socket.socket()
    with contextlib.closing(sock), silenced():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((VIP, 80))
        sock.setblocking(False)
        sock.connect_ex((CLIENT, 9))
        bench.refused("SYN_SENT", sock, errno.ENOTCONN, "connection is not established")
    with with_sysctl("lbu", "ipv4/tcp_fastopen", 0x202), with_sysctl("client", "ipv4/tcp_fastopen", 5), \
            contextlib.closing(listen("lbu", options=((TCP, TCP_FASTOPEN, 16),))) as listener, machine("client"), \
            contextlib.closing(socket.socket()) as client:
        client.settimeout(20)
        with silenced():
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.sendto(b"early", MSG_FASTOPEN, (VIP, 80))
            served = accepted(listener)
            bench.refused("SYN_RECV of TCP Fast Open", served, errno.EBUSY, "TCP Fast Open is in progress")
        client.settimeout(20)
        bench.ktap.result(receive(served, 5) == b"early" and exchange(client, served),
                          "SYN_RECV of TCP Fast Open: the connection works")
        served.close()


def by_addresses(bench):
    """What has no descriptor can be named by its addresses."""
    # The migrators' own connection; the move before has opened it.
    links = subprocess.run(["ip", "netns", "exec", "lbu", "ss", "-Htn", "state", "established", "dport = :4770"],
                           capture_output=True, text=True, check=True).stdout.split()
    address, _, port = links[2].rpartition(":")
    bench.refused("a connection of the kernel", ((machines.HOST1, 4770), (address, int(port))), errno.EOPNOTSUPP,
                  "socket belongs to the kernel", peer=True)
    with contextlib.closing(listen("lbu")) as listener, contextlib.closing(connect()) as client:
        def accept_now():
            with contextlib.closing(accepted(listener)) as served:
                return exchange(client, served)
        bench.refused("a connection that nobody has accepted", (client.getsockname(), (VIP, 80)), errno.EAGAIN,
                      "no program has accepted the connection yet", accept_now)
    bench.refused("a connection that does not exist", ((CLIENT, 1), (VIP, 80)), errno.ENOENT, "no such connection")


def mptcp(bench):
    try:
        with connection(protocol=IPPROTO_MPTCP) as (client, served):
            bench.refused("an MPTCP connection", served, errno.EOPNOTSUPP, "MPTCP is not supported",
                          lambda: exchange(client, served))
    except OSError as failure:
        if failure.errno != errno.EPROTONOSUPPORT:
            raise
        bench.skip("an MPTCP connection", "this kernel has no MPTCP")


def upper_layers(bench):
    text = "socket has an upper layer protocol (kTLS, SMC, ...)"
    with connection() as (client, served):
        served.setsockopt(TCP, TCP_ULP, b"tls")
        bench.refused("kernel TLS", served, errno.EOPNOTSUPP, text, lambda: exchange(client, served))
    with connection() as (client, served):
        try:
            served.setsockopt(TCP, TCP_ULP, b"espintcp")
        except OSError as failure:
            bench.skip("ESP in TCP", f"this kernel has none ({failure})")
        else:
            bench.refused("ESP in TCP", served, errno.EOPNOTSUPP, text)
    try:
        with machine("lbu"):
            socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_SMC).close()
    except OSError as failure:
        bench.skip("SMC", f"this kernel has none ({failure})")
    else:
        with connection(protocol=IPPROTO_SMC) as (client, served):
            bench.refused("SMC", served, errno.EPROTONOSUPPORT, "not a TCP socket", lambda: exchange(client, served))


def redirected(bench):
    with connection() as (client, served):
        kept = machines.into_sockmap(served)
        bench.refused("a socket in a sockmap", served, errno.EOPNOTSUPP, "socket is in a sockmap",
                      lambda: exchange(client, served))
        LIBC.close(kept)


def authenticated(bench):
    for name, key in (("TCP-MD5", md5_key), ("TCP-AO", ao_key)):
        with connection([key(CLIENT)], [key(VIP)]) as (client, served):
            bench.refused(name, served, errno.EOPNOTSUPP, "TCP-MD5 and TCP-AO are not supported",
                          lambda: exchange(client, served))


def pending(bench):
    with connection() as (client, served):
        client.send(b"!", socket.MSG_OOB)
        select.select([], [], [served], 20)
        served.settimeout(None)
        bench.refused("urgent data", served, errno.EBUSY, "urgent data is pending",
                      lambda: served.recv(1, socket.MSG_OOB) == b"!" and exchange(client, served))
    with connection() as (client, served):
        served.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
        pages = bytes(range(256)) * 64
        with silenced():
            served.sendall(pages, MSG_ZEROCOPY)
            bench.refused("data of MSG_ZEROCOPY", served, errno.EBUSY, "data in flight is in zero-copy memory")
        bench.ktap.result(receive(client, len(pages)) == pages and exchange(client, served),
                          "data of MSG_ZEROCOPY: it arrives")
    with connection() as (client, served):
        served.setsockopt(TCP, TCP_REPAIR, 1)
        bench.refused("TCP_REPAIR", served, errno.EBUSY, "socket is in repair mode")
        served.setsockopt(TCP, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP)
        # Repair has forgotten it.
        served.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bench.ktap.result(exchange(client, served), "TCP_REPAIR: the connection works")
    with connection([(socket.SOL_SOCKET, SO_RCVBUFFORCE, 32 << 20)]) as (client, served):
        data = bytes(range(256)) * (5 << 12)
        client.sendall(data)
        wait_for(lambda: struct.unpack("=i", fcntl.ioctl(served, 0x541B, b"\0" * 4))[0] == len(data))
        bench.refused("5 MiB unread", served, errno.EFBIG, "too much unread data",
                      lambda: receive(served, len(data)) == data and exchange(client, served))
    with with_sysctl("lbu", "ipv4/tcp_ecn", 3), with_sysctl("client", "ipv4/tcp_ecn", 3), \
            connection() as (client, served):
        bench.refused("accurate ECN", served, errno.EOPNOTSUPP, "accurate ECN is not supported",
                      lambda: exchange(client, served))


def translated(bench):
    """Connections that the client knows by another address, or the LBU the client."""
    def nft(rules):
        subprocess.run(["ip", "netns", "exec", "lbu", "nft", rules], check=True)
    text = "connection is translated by NAT"
    nft("add table ip nat; add chain ip nat pre { type nat hook prerouting priority -100; };"
        "add chain ip nat in { type nat hook input priority 100; };"
        "add rule ip nat pre tcp dport 8080 redirect to :80; add rule ip nat pre tcp dport 8081 dnat to 192.0.2.10:80;"
        "add rule ip nat in tcp sport 34567 snat to 10.0.1.99")
    try:
        # REDIRECT takes the device's address, not the VIP.
        for name, port, options in (("REDIRECT", 8080, ()), ("DNAT", 8081, ())):
            with connection(port=port, client_options=options) as (client, served):
                bench.refused(f"{name} on the LBU", served, errno.EOPNOTSUPP, text, lambda: exchange(client, served))
        with contextlib.closing(listen("lbu")) as listener, machine("client"), \
                contextlib.closing(socket.create_connection((VIP, 80), 20, ("", 34567))) as client, \
                contextlib.closing(accepted(listener)) as served:
            bench.ktap.result(served.getpeername()[0] == "10.0.1.99", "SNAT on the LBU: the test translates",
                              str(served.getpeername()))
            bench.refused("SNAT on the LBU", served, errno.EOPNOTSUPP, text, lambda: exchange(client, served))
        # Tracked, but not translated: that is no reason.
        moves(bench, "a connection that is tracked, but not translated")
    finally:
        nft("delete table ip nat")


def moves(bench, name):
    """The counterpart of all refusals."""
    bench.lbu.peer(machines.HOST1, True)
    with contextlib.closing(listen("host1")) as target, connection() as (client, served):
        client.sendall(b"hello")
        receive_peek(served, 5)
        answer = bench.lbu.migrate(served)
        good, notes = answer.error == 0, [f"{genl.name_of(answer.error)} '{answer.text}'"]
        if good:
            with contextlib.closing(accepted(target)) as there:
                good = receive(there, 5) == b"hello" and exchange(client, there)
                client.shutdown(socket.SHUT_WR)
                there.recv(1)
        bench.ktap.result(good, f"moves: {name}", *notes)
    wait_for(lambda: bench.tables()[:2] == [0, 0])


def receive_peek(sock, count):
    return wait_for(lambda: len(sock.recv(count, socket.MSG_PEEK)) >= count)


def targets(bench):
    """What the host refuses."""
    def attempt(name, error, text, listener, before=lambda client: None):
        with contextlib.closing(listener), connection() as (client, served):
            kept = before(client)
            bench.refused(f"target: {name}", served, error, f"target: {text}", lambda: exchange(client, served))
            bench.ktap.result(bench.host.counters()["held-now"] == 0, f"target: {name}: nothing is held")
            if kept is not None:
                kept.close()

    attempt("MPTCP listener", errno.EOPNOTSUPP, "listener uses MPTCP", listen("host1", protocol=IPPROTO_MPTCP))
    in_map = listen("host1")
    kept = machines.into_sockmap(in_map)
    attempt("listener in a sockmap", errno.EOPNOTSUPP, "listener has an upper layer protocol (SMC, sockmap, ...)", in_map)
    LIBC.close(kept)
    for name, key in (("TCP-MD5", md5_key), ("TCP-AO", ao_key)):
        attempt(f"listener with {name}", errno.EOPNOTSUPP, "listener uses TCP-MD5 or TCP-AO",
                listen("host1", options=[key(CLIENT)]))
    with with_sysctl("host1", "ipv4/tcp_rmem", "4096 4096 4096"):
        attempt("tcp_rmem too small", errno.ENOBUFS, "receive window does not fit net.ipv4.tcp_rmem", listen("host1"))

    def doubled(client):
        """A connection of the same name, made without a packet."""
        with machine("host1"):
            twin = socket.socket()
        twin.setsockopt(TCP, TCP_REPAIR, 1)
        twin.bind((VIP, 80))
        twin.connect(client.getsockname())
        return twin
    attempt("connection exists already", errno.EADDRINUSE, "connection exists already", listen("host1"), doubled)
    attempt("nothing listens", errno.ECONNREFUSED, "no listener", listen("host1", 81))


def main():
    LIBC.close.argtypes = [ctypes.c_int]
    bench = Bench()
    moves(bench, "an ordinary connection, before")
    for part in (by_addresses, not_connections, other_namespace, ends, half_open, mptcp, upper_layers, redirected, authenticated,
                 pending, translated, targets):
        try:
            part(bench)
        except Exception:  # noqa: BLE001 the other parts have their say as well
            bench.ktap.result(False, f"{part.__name__} comes to its end", *traceback.format_exc().splitlines())
    moves(bench, "an ordinary connection, after")
    bench.ktap.end()


if __name__ == "__main__":
    main()
