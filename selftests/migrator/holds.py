#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""More early packets than a machine holds: holds.py SECRET CAPTURE

In the LBU's name, a peer says PREPARE for as many connections of the client as it takes to pass the bound of them all
together, no one of which passes its own; the capture has a PREPARE to begin with. What comes then of the client is held
up to the bound, and the rest dropped and counted. When the peer has gone, there is as much room as before.
"""

import contextlib
import pathlib
import socket
import struct
import sys
import types

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import peer  # noqa: E402
import replay  # noqa: E402
from machines import CLIENT, ETH_P_ALL, HOST1, VIP, Migrator, machine, wait_for  # noqa: E402
from scene import run  # noqa: E402

CONNECTIONS, EACH, SIZE = 40, 7, 60_000
# ROOM in nlb_migrator/hold.rs
BOUND = 16 << 20


@contextlib.contextmanager
def large_packets():
    """The wire takes what the peer sends without cutting it."""
    def mtu(size):
        run("lbu", f"ip link set host1 mtu {size}")
        run("host1", f"ip link set lbu mtu {size}")
    mtu(65535)
    try:
        yield
    finally:
        mtu(1500)


def prepared(payload, port):
    """PREPARE for another port of the client."""
    route = payload.index(struct.pack(">HH", 32, 24)) + 4
    payload = payload[:8] + struct.pack(">H", port) + payload[10:route + 16] + struct.pack(
        ">II", 61001 << 16 | port, 30_000) + payload[route + 24:]
    return peer.record(peer.PREPARE, payload, port)


def begin(secret, payload, ports):
    """The connection of a peer to whom the target is ready for each of them."""
    with machine("lbu"):
        sock = peer.connect(types.SimpleNamespace(address=HOST1, secret=secret, id=1))
    sock.sendall(peer.hello() + b"".join(prepared(payload, port) for port in ports))
    waiting = set(ports)
    while waiting:
        kind, number, text = peer.receive(sock)
        assert number not in waiting or kind == peer.READY, text
        waiting.discard(number)
    return sock


def early(port):
    """A segment of the client."""
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, SIZE, 0, 0, 64, 6, 0, socket.inet_aton(CLIENT), socket.inet_aton(VIP))
    ip = ip[:10] + struct.pack(">H", replay.checksum(ip)) + ip[12:]
    return ip + struct.pack(">HHIIBBHHH", port, 80, 1, 1, 0x50, 0x10, 1000, 0, 0) + bytes(SIZE - 40)


def changes(host, before):
    return {name: value - before[name] for name, value in host.counters().items()
            if name.startswith(("held", "drop-hold")) and value != before[name]}


def main():
    secret, capture = sys.argv[1:]
    payload, host = peer.prepare_of(capture), Migrator("host1")
    # From the LBU to host1.
    ethernet = next(peer.frames(capture))[:14]
    with machine("lbu"):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    wire.bind(("host1", 0))
    with contextlib.closing(wire), large_packets():
        for first, connections in ((20_000, CONNECTIONS), (21_000, 1)):
            before, ports = host.counters(), range(first, first + connections)
            with contextlib.closing(begin(secret, payload, ports)):
                for _ in range(EACH):
                    for port in ports:
                        wire.send(ethernet + early(port))
                sent = connections * EACH
                assert wait_for(lambda: sum(changes(host, before).get(name, 0) for name in ("held", "drop-hold-total")) == sent), \
                    changes(host, before)
                counts = changes(host, before)
            print(f"{sent} packets of {SIZE} bytes for {connections} connections: {counts}")
            held = counts.pop("held")
            assert counts.pop("held-now") == held and set(counts) == ({"drop-hold-total"} if connections > 1 else set())
            # What counts is the memory that a packet takes.
            assert held * SIZE <= BOUND and (connections == 1 or held * SIZE * 2 > BOUND)
            assert wait_for(lambda: host.counters()["held-now"] == 0)
            assert changes(host, before)["drop-hold-aborted"] == held


if __name__ == "__main__":
    main()
