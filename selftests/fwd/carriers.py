#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Packets inside of GRE and GUE, for test_carriers.sh.

wire FILE PORT=CARRIER,CARRIER6...
                          each packet of a capture that carries one for a service's port carries it so (gre, gre+csum,
                          gue:PORT, gue+csum:PORT), with checksums that are right, and none too many
forge VIP PORT CLIENT FORWARDER HOST GUE
                          ICMP errors about datagrams that the LBU cannot have sent, and one about such as it has
unreachable VIP:PORT...   datagrams of which the sender hears that nobody can be reached
"""

import collections
import errno
import pathlib
import socket
import struct
import sys
import time

top = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(top), str(top / "tunnel")]
from icmp import counters, family, packet, ports, send, too_big  # noqa: E402
from modes import address, icmp_error, listening  # noqa: E402
from pcap import frames  # noqa: E402

ICMP, TCP, UDP, GRE, ICMP6 = 1, 6, 17, 47, 58


def total(data):
    """The sum of all words: 0xffff with a right checksum."""
    value = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while value >> 16:
        value = (value & 0xFFFF) + (value >> 16)
    return value


def network(data):
    """Addresses as they are in the packet, protocol, what is behind the header; all of it is judged."""
    if data[0] >> 4 == 6:
        length, proto = struct.unpack(">HB", data[4:7])
        assert len(data) == 40 + length, "not as long as it says"
        return data[8:40], proto, data[40:]
    assert data[0] == 0x45 and total(data[:20]) == 0xFFFF, "a bad IP header"
    assert len(data) == struct.unpack(">H", data[2:4])[0], "not as long as it says"
    return data[12:20], data[9], data[20:]


def transport_sum(addresses, proto, segment):
    return total(addresses + struct.pack(">IHBB", len(segment), 0, 0, proto) + segment)


def opened(data):
    """What carries a packet, its source port, and the packet; None of those by themselves."""
    addresses, proto, rest = network(data)
    v6 = len(addresses) == 32
    if proto == GRE:
        flags, inside = struct.unpack(">HH", rest[:4])
        assert flags in (0, 0x8000) and inside == (0x86DD if v6 else 0x0800), (flags, inside)
        if not flags:
            return "gre", None, rest[4:]
        assert total(rest) == 0xFFFF and rest[6:8] == b"\0\0", "a wrong checksum of GRE"
        return "gre+csum", None, rest[8:]
    if proto != UDP:
        return None
    source, to, length, check = struct.unpack(">HHHH", rest[:8])
    assert length == len(rest), "a datagram that is not as long as it says"
    assert not check or transport_sum(addresses, UDP, rest) == 0xFFFF, "a wrong checksum of UDP"
    assert rest[8:12] == bytes([0, 41 if v6 else 4, 0, 0]), rest[8:12]
    return f"gue{'+csum' if check else ''}:{to}", source, rest[12:]


def wire(file, *services):
    want = {}
    for service in services:
        port, _, by = service.partition("=")
        want[int(port), False], want[int(port), True] = by.split(",")
    seen, sources = collections.Counter(), collections.defaultdict(set)
    for frame in frames(file):
        assert not frame.cut, "cut"
        # Without what the link layer adds.
        v6 = frame.data[0] >> 4 == 6
        length = 40 + struct.unpack(">H", frame.data[4:6])[0] if v6 else struct.unpack(">H", frame.data[2:4])[0]
        assert length <= 1400, f"{length} bytes"
        carried = opened(frame.data[:length])
        if carried is None:
            continue
        carrier, source, inner = carried
        addresses, proto, segment = network(inner)
        if proto in (ICMP, ICMP6):
            continue
        assert proto in (TCP, UDP), proto
        assert transport_sum(addresses, proto, segment) == 0xFFFF, "a wrong checksum inside"
        port = struct.unpack(">H", segment[2:4])[0]
        assert carrier == want[port, v6], f"{carrier} in place of {want[port, v6]} to port {port}"
        seen[port, v6, len(segment) > 1000] += 1
        if source is not None:
            assert 32768 <= source < 61000, source
            sources[addresses, proto, segment[:4]].add(source)
    for port, v6 in want:
        assert seen[port, v6, True] > 20 and seen[port, v6, False] > 5, f"too few packets: {seen}"
    # One for a connection, but where the client's TCP takes another hash because it got no answer; and not one for all.
    assert sum(len(ports) == 1 for ports in sources.values()) > 0.8 * len(sources), sources
    assert len(set.union(*sources.values())) > 10, sources
    print(sum(seen.values()), "packets")


def forge(vip, port, client, forwarder, host, gue):
    port, gue = int(port), int(gue)
    sock = socket.socket(family(vip), socket.SOCK_DGRAM)
    sock.settimeout(20)
    sock.connect((vip, port))
    sock.send(b"there")
    assert sock.recv(100) == b"there"
    own = sock.getsockname()[1]
    v6 = family(vip) == socket.AF_INET6
    mtu = 1290 if v6 else 600
    inner = ports(client, vip, own, port, UDP, bytes(1400))

    def error(inner=inner, to=gue, source=forwarder, destination=host, head=bytes([0, 41 if v6 else 4, 0, 0]), wrong=0):
        quoted = ports(source, destination, 40000, to, UDP, head + inner)[:400]
        return too_big("2001:db8:3::2" if v6 else "10.0.3.2", forwarder, mtu, quoted, wrong)

    gre = packet(forwarder, host, GRE, struct.pack(">HH", 0, 0x86DD if v6 else 0x0800) + inner)[:400]
    told = counters("lbu", "fwd")["icmp-told"]
    for data in (
        error(wrong=1),
        error(to=gue + 1),
        error(destination="2001:db8:2::2" if v6 else "10.0.2.2"),
        error(inner=ports(client, vip, own ^ 1, port, UDP, bytes(1400))),
        error(head=bytes([0, 41 if v6 else 4, 0x80, 0])),
        error(head=bytes([0x40, 41 if v6 else 4, 0, 0])),
        too_big("2001:db8:3::2" if v6 else "10.0.3.2", forwarder, mtu, gre),
    ):
        send(data)
    sock.send(b"still")
    assert sock.recv(100) == b"still"
    assert counters("lbu", "fwd")["icmp-told"] == told, "a forged error is believed"
    send(error())
    deadline = time.monotonic() + 20
    while counters("lbu", "fwd")["icmp-told"] != told + 1:
        assert time.monotonic() < deadline, "a true error is not believed"
        time.sleep(0.1)


def unreachable(*targets):
    for where in targets:
        with listening(*address(where)) as sock:
            # The second one is told of what has become of the first one.
            for _ in range(10):
                try:
                    sock.send(b"anybody?")
                except OSError as error:
                    assert error.errno == errno.EHOSTUNREACH, error
                    break
                time.sleep(0.1)
            number, _, _, said_by = icmp_error(sock)
            assert number == errno.EHOSTUNREACH, number
        print(where, "told by", said_by, flush=True)


if __name__ == "__main__":
    {"wire": wire, "forge": forge, "unreachable": unreachable}[sys.argv[1]](*sys.argv[2:])
