#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""The programs at both ends of the ways of forwarding.

serve PORT...             echoes TCP and UDP of both families; to the datagram "who" it says who asked
ask BYTES SEEN=VIP:PORT...
                          bytes there and back, up to so many, each compared; who the server says is asking has to be SEEN
big MTU=VIP:PORT...       a datagram that does not fit into MTU bytes: the error says so, and the next one fits
late HOPS VIP:PORT...     a datagram whose time to live ends at the router so far away: the error says so
refused VIP:PORT...       a datagram to a port of the host where nobody is: the error comes from the VIP
gone VIP:PORT             datagrams whose sender is not there any more when the answer comes
pieces VIP:PORT...        datagrams in fragments there and back
keep VIP:PORT             one connection, byte by byte there and back until it is killed
"""

import errno
import random
import socket
import struct
import sys
import threading
import time

# linux/in.h, linux/in6.h, linux/errqueue.h
IP_RECVERR, IPV6_RECVERR = 11, 25
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_PROBE = 10, 23, 3
FROM_ICMP, FROM_ICMP6 = 2, 3


def address(text):
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    return socket.AF_INET6 if ":" in host else socket.AF_INET, (host, int(port))


def echo(connection):
    with connection:
        while data := connection.recv(1 << 16):
            connection.sendall(data)


def serve_udp(port):
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    # The answer has to come from the address that was asked.
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    sock.bind(("::", port))
    while True:
        data, ancillary, _, peer = sock.recvmsg(65536, 200)
        if data == b"who":
            data = peer[0].removeprefix("::ffff:").encode()
        here = [(level, kind, value[:16] + bytes(4)) for level, kind, value in ancillary
                if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO)]
        sock.sendmsg([data], here, 0, peer)


def serve(ports):
    for port in map(int, ports):
        listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1000)
        threading.Thread(target=serve_udp, args=(port,), daemon=True).start()

        def accept(listener=listener):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=echo, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()


def connected(family, to):
    sock = socket.create_connection(to, timeout=20)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def there_and_back(sock, data):
    sender = threading.Thread(target=sock.sendall, args=(data,))
    sender.start()
    got = bytearray()
    while len(got) < len(data):
        part = sock.recv(1 << 18)
        assert part, f"end of stream after {len(got)} bytes"
        got += part
    sender.join()
    assert got == data, "other bytes than were sent"


def datagrams(family, to):
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.settimeout(20)
    sock.connect(to)
    return sock


def ask(arguments):
    chance = random.Random(1)
    most, targets = int(arguments[0]), arguments[1:]
    for seen, _, where in (target.partition("=") for target in targets):
        family, to = address(where)
        for size in (1, 1000, most):
            with connected(family, to) as sock:
                there_and_back(sock, chance.randbytes(size))
                sock.shutdown(socket.SHUT_WR)
                assert sock.recv(1) == b"", "more bytes than were sent"
        for _ in range(3):
            with datagrams(family, to) as sock:
                for size in (0, 1, 7, 100, 1200):
                    data = chance.randbytes(size)
                    sock.send(data)
                    assert sock.recv(65536) == data, f"other bytes than the {size} sent"
                sock.send(b"who")
                who = sock.recv(100).decode()
                assert who == seen, f"{where} was asked by {who}"
        print(where, "ok", flush=True)


def icmp_error(sock):
    """Number, type, and what else the ICMP error says, and who says it."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            ancillary = sock.recvmsg(2000, 500, socket.MSG_ERRQUEUE)[1]
        except BlockingIOError:
            time.sleep(0.02)
            continue
        for _, kind, value in ancillary:
            if kind in (IP_RECVERR, IPV6_RECVERR):
                number, origin, icmp, _, _, info = struct.unpack("=IBBBBI", value[:12])
                assert origin in (FROM_ICMP, FROM_ICMP6), f"error of origin {origin}"
                at = 24 if kind == IPV6_RECVERR else 20
                said_by = socket.inet_ntop(sock.family, value[at:at + (16 if kind == IPV6_RECVERR else 4)])
                return number, icmp, info, said_by
    raise SystemExit("no ICMP error came")


def listening(family, to):
    sock = datagrams(family, to)
    if family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)
    return sock


def big(targets):
    for mtu, _, where in (target.partition("=") for target in targets):
        family, to = address(where)
        headers = 28 if family == socket.AF_INET else 48
        with listening(family, to) as sock:
            sock.send(bytes(int(mtu) - headers + 1))
            number, _, info, _ = icmp_error(sock)
            assert (number, info) == (errno.EMSGSIZE, int(mtu)), f"{where}: error {number}, MTU {info}"
            fits = bytes(int(mtu) - headers)
            # Answers may be too long for their own way, which the host has to learn then.
            sock.settimeout(2)
            for attempt in range(10):
                sock.send(fits)
                try:
                    assert sock.recv(65536) == fits
                    break
                except TimeoutError:
                    assert attempt < 9, f"{where}: no answer"
        print(where, "told of", mtu, flush=True)


def pieces(targets):
    for where in targets:
        with datagrams(*address(where)) as sock:
            data = random.randbytes(4000)
            for _ in range(3):
                sock.send(data)
                assert sock.recv(65536) == data, f"{where}: other bytes"
        print(where, "ok", flush=True)


def late(arguments):
    hops, targets = int(arguments[0]), arguments[1:]
    for where in targets:
        family, to = address(where)
        with listening(family, to) as sock:
            if family == socket.AF_INET:
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
            else:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hops)
            sock.send(b"late")
            number, icmp, _, said_by = icmp_error(sock)
            assert (number, icmp) == (errno.EHOSTUNREACH, 11 if family == socket.AF_INET else 3), (number, icmp)
        print(where, "told by", said_by, flush=True)


def refused(targets):
    for where in targets:
        family, to = address(where)
        with listening(family, to) as sock:
            sock.send(b"anybody?")
            number, _, _, said_by = icmp_error(sock)
            assert (number, said_by) == (errno.ECONNREFUSED, to[0]), (number, said_by)
        print(where, "told", flush=True)


def gone(targets):
    for _ in range(10):
        with datagrams(*address(targets[0])) as sock:
            sock.send(b"gone")


def keep(targets):
    sock = connected(*address(targets[0]))
    print(sock.getsockname()[1], flush=True)
    while True:
        there_and_back(sock, random.randbytes(1000))
        print("ok", flush=True)
        time.sleep(0.05)


if __name__ == "__main__":
    {"serve": serve, "ask": ask, "big": big, "pieces": pieces, "late": late,
     "refused": refused, "gone": gone, "keep": keep}[sys.argv[1]](sys.argv[2:])
