#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Programs for test_icmp.sh: what clients, routers and forgers do.

echo    UDP: sends back what it gets
hops    UDP: sends with hop limits 1 to 3, and looks at what comes back from whom
large   UDP: datagrams in fragments
closed  UDP: answers find nobody any more
options UDP: datagrams with IP options
lives   TCP: a connection whose host cannot be reached for a while goes on
forge   ICMP errors about packets that nobody has sent, and CARRYs that no forwarder would send
"""

import argparse
import json
import socket
import struct
import subprocess
import sys
import time


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def octets(address):
    return socket.inet_pton(family(address), address)


def counters(machine, name):
    shown = subprocess.run(["nlb", "-n", machine, "-j", "stats", "show", name], check=True, capture_output=True)
    return json.loads(shown.stdout)[0]["counters"]


def echo(args):
    sock = socket.socket(family(args.address), socket.SOCK_DGRAM)
    sock.bind((args.address, args.port))
    while True:
        data, peer = sock.recvfrom(65536)
        sock.sendto(data, peer)


def ask(sock, data):
    """Send until it comes back: the first datagrams of a flow may be lost to a smaller MTU."""
    for _ in range(10):
        sock.send(data)
        try:
            if sock.recv(65536) == data:
                return
        except OSError as error:
            print(f"again: {len(data)} bytes, {error}")
    raise SystemExit(f"no answer to {len(data)} bytes")


def hops(args):
    v6 = family(args.address) == socket.AF_INET6
    level, limit, recverr, exceeded = (socket.IPPROTO_IPV6, 16, 25, 3) if v6 else (socket.IPPROTO_IP, 2, 11, 11)
    sock = socket.socket(family(args.address), socket.SOCK_DGRAM)
    sock.settimeout(10)
    sock.connect((args.address, args.port))
    # The host knows the flow after this.
    ask(sock, b"learn")
    ask(sock, b"known")
    sock.setsockopt(level, recverr, 1)
    for hop in (1, 2):
        sock.setsockopt(level, limit, hop)
        sock.send(b"hop %d" % hop)
        deadline = time.monotonic() + 10
        while True:
            try:
                data, notes, _, _ = sock.recvmsg(100, 1000, socket.MSG_ERRQUEUE)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise SystemExit(f"hop {hop}: nobody says anything") from None
                time.sleep(0.01)
        origin, kind, code = struct.unpack_from("=4xBBB", notes[0][2])
        print(f"hop {hop}: {data}, origin {origin}, type {kind}, code {code}")
        assert (data, kind, code) == (b"hop %d" % hop, exceeded, 0)
    sock.setsockopt(level, limit, 3)
    ask(sock, b"hop 3")


def large(args):
    """Datagrams that go in fragments, from the first one of a flow on, between such as do not."""
    sock = socket.socket(family(args.address), socket.SOCK_DGRAM)
    sock.settimeout(5)
    sock.connect((args.address, args.port))
    if not sock.family == socket.AF_INET6:
        # IP_MTU_DISCOVER, IP_PMTUDISC_WANT: no fragments but where they are needed.
        sock.setsockopt(socket.IPPROTO_IP, 10, 1)
    for number, size in enumerate((8192, 100, 8192, 1400, 4000, 60000)):
        ask(sock, bytes([number]) * size)


def closed(args):
    """Flows whose client is gone when the answer comes, until one answer was too late."""
    before = counters("host1", "tunnel")["carry-received"]
    for _ in range(50):
        with socket.socket(family(args.address), socket.SOCK_DGRAM) as sock:
            sock.sendto(b"gone", (args.address, args.port))
        time.sleep(0.2)
        if counters("host1", "tunnel")["carry-received"] > before:
            return
    raise SystemExit("no ICMP error came to the host")


def options(args):
    """Datagrams with IP options, or with hop-by-hop and destination options."""
    v6 = family(args.address) == socket.AF_INET6
    sock = socket.socket(family(args.address), socket.SOCK_DGRAM)
    sock.settimeout(5)
    sock.connect((args.address, args.port))
    if v6:
        # IPV6_HOPOPTS, IPV6_DSTOPTS: padding.
        for option in (54, 59):
            sock.setsockopt(socket.IPPROTO_IPV6, option, b"\0\0\1\4\0\0\0\0")
    else:
        # IP_OPTIONS: router alert.
        sock.setsockopt(socket.IPPROTO_IP, 4, b"\x94\4\0\0")
    for size in (1, 100, 1200, 5000):
        ask(sock, bytes(size))
    if not v6:
        # A source route that leads on from the VIP: the local stack's, which refuses it.
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.IPPROTO_IP, 4, b"\x83\7\4" + octets(args.address) + b"\0")
        before = counters("lbu", "fwd")
        sock.sendto(b"astray", ("10.0.9.9", args.port))
        deadline = time.monotonic() + 10
        while counters("lbu", "fwd")["pass-protocol"] == before["pass-protocol"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert counters("lbu", "fwd")["packets"] == before["packets"]


def lives(args):
    sock = socket.create_connection((args.address, args.port), timeout=40)

    def back(data):
        got = b""
        while len(got) < len(data):
            part = sock.recv(len(data) - len(got))
            assert part, "end of stream"
            got += part
        assert got == data

    sock.sendall(b"before")
    back(b"before")
    before = counters("lbu", "tunnel")["icmp-told"]
    subprocess.run(["ip", "-n", "host2", "route", "replace", "unreachable", args.host], check=True)
    sock.sendall(b"during")
    deadline = time.monotonic() + 30
    while counters("lbu", "tunnel")["icmp-told"] == before:
        assert time.monotonic() < deadline, "the client was told nothing"
        time.sleep(0.1)
    subprocess.run(["ip", "-n", "host2", "route", "replace", *args.route.split()], check=True)
    back(b"during")
    sock.sendall(b"after")
    back(b"after")


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def pseudo(source, destination, proto, length):
    return octets(source) + octets(destination) + struct.pack(">IHBB", length, 0, 0, proto)


def packet(source, destination, proto, payload):
    if family(source) == socket.AF_INET6:
        return struct.pack(">IHBB", 6 << 28, len(payload), proto, 64) + octets(source) + octets(destination) + payload
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, proto, 0) + octets(source) + octets(destination)
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + payload


def ports(source, destination, sport, dport, proto, payload=b""):
    """A packet of TCP, or of UDP with a checksum."""
    if proto == 6:
        segment = struct.pack(">HHIIBBHHH", sport, dport, 1, 1, 0x50, 0x10, 500, 0, 0) + payload
    else:
        segment = struct.pack(">HHHH", sport, dport, 8 + len(payload), 0) + payload
        total = checksum(pseudo(source, destination, 17, len(segment)) + segment)
        segment = segment[:6] + struct.pack(">H", total) + segment[8:]
    return packet(source, destination, proto, segment)


def too_big(source, destination, mtu, quoted, wrong=0):
    """ICMP: the quoted packet is longer than that."""
    if family(source) == socket.AF_INET6:
        message = struct.pack(">BBHI", 2, 0, 0, mtu) + quoted
        total = checksum(pseudo(source, destination, 58, len(message)) + message)
        return packet(source, destination, 58, message[:2] + struct.pack(">H", total ^ wrong) + message[4:])
    message = struct.pack(">BBHHH", 3, 4, 0, 0, mtu) + quoted
    return packet(source, destination, 1, message[:2] + struct.pack(">H", checksum(message) ^ wrong) + message[4:])


def send(data):
    v6 = data[0] >> 4 == 6
    destination = socket.inet_ntop(socket.AF_INET6, data[24:40]) if v6 else socket.inet_ntoa(data[16:20])
    sock = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    sock.sendto(data, (destination, 0))


def forge(args):
    """Each has to count once, as what the first argument says."""
    here, host, vip, client = args.here, args.host, args.vip, args.client
    flow = int(args.flow, 16)
    half = flow >> 16, flow & 0xFFFF
    mtu = 1290 if family(here) == socket.AF_INET6 else 600
    v6 = family(here) == socket.AF_INET6

    def learn(cookie):
        head = struct.pack(">BBHIQ", 0x14 if v6 else 0x11, 6, 0, flow, cookie)
        return head + octets(client) + octets(vip) + struct.pack(">HH", args.port, args.vport)

    def carry(flow_id, quoted):
        return struct.pack(">BBHIQ", 0x15, 0, 0, flow_id, 0) + too_big(client, vip, mtu, quoted)

    mine = ports(vip, client, args.vport, args.port, 6)
    errors = [
        (host, too_big(client, here, mtu, ports(here, "2001:db8:3::77" if v6 else "10.0.3.77", *half, 6))),
        (host, too_big(client, here, mtu, ports(here, host, half[0], half[1] ^ 0x8000 or 1, 6))),
        (host, too_big(client, here, mtu, ports(here, host, *half, 17))),
        (host, too_big(client, here, mtu, ports(here, host, *half, 6), wrong=1)),
        (host, too_big(client, here, mtu, ports(here, host, 4770, 4770, 17, learn(1)))),
    ]
    if args.role == "errors":
        for _, data in errors:
            send(data)
        return
    for data in {
        # From a machine that is no forwarder; of a flow that there is not; about somebody else's connection; broken.
        "stranger": [ports(here, host, 4770, 4770, 17, carry(flow, mine))],
        "forwarder": [
            ports(here, host, 4770, 4770, 17, carry(flow ^ 0x8000, mine)),
            ports(here, host, 4770, 4770, 17, carry(flow, ports(vip, client, args.vport, args.port ^ 1, 6))),
            ports(here, host, 4770, 4770, 17, carry(flow, mine)[:-1]),
            ports(here, host, 4770, 4770, 17, carry(flow, mine)[:16]),
        ],
    }[args.role]:
        send(data)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_subparsers(dest="what", required=True)
    for name, function, names in (("echo", echo, []), ("hops", hops, []), ("large", large, []),
                                  ("closed", closed, []), ("options", options, []), ("lives", lives, ["host", "route"])):
        one = what.add_parser(name)
        one.set_defaults(function=function)
        one.add_argument("address")
        one.add_argument("port", type=int)
        for more in names:
            one.add_argument(more)
    one = what.add_parser("forge")
    one.set_defaults(function=forge)
    one.add_argument("role", choices=["errors", "stranger", "forwarder"])
    for name in ("here", "host", "flow", "client", "vip"):
        one.add_argument(name)
    one.add_argument("port", type=int, help="the client's")
    one.add_argument("vport", type=int, help="the VIP's")
    args = parser.parse_args()
    return args.function(args)


if __name__ == "__main__":
    sys.exit(main())
