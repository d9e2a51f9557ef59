#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Forged ICMP errors about the replies of a flow that the LBU translates.

VIP CLIENT MTU: of several that say that no more than MTU bytes can pass, host1 believes the last one only.
"""

import pathlib
import socket
import struct
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tunnel"))
from icmp import checksum, counters, family, packet, ports, send, too_big  # noqa: E402

PORT = 7003


def of_short_life(data):
    """The same, with a time to live that is used up behind the next router."""
    if data[0] >> 4 == 6:
        return data[:7] + b"\2" + data[8:]
    head = data[:8] + b"\2" + data[9:10] + b"\0\0" + data[12:20]
    return head[:10] + struct.pack(">H", checksum(head)) + data[12:]


def main(vip, client, mtu):
    sock = socket.socket(family(vip), socket.SOCK_DGRAM)
    sock.settimeout(20)
    sock.connect((vip, PORT))
    sock.send(b"there")
    assert sock.recv(100) == b"there"
    port = sock.getsockname()[1]
    reply = ports(vip, client, PORT, port, 17, bytes(100))
    ip = len(reply) - 108
    before = counters("lbu", "fwd")

    def knows():
        shown = subprocess.run(["ip", "-n", "host1", "route", "get", client], check=True, capture_output=True, text=True)
        return f"mtu {mtu}" in shown.stdout

    for data in (
        # A wrong checksum, which stays wrong.
        too_big(client, vip, mtu, reply, wrong=1),
        # That no router would pass on.
        of_short_life(too_big(client, vip, mtu, reply)),
        # About somebody else's packets: the local stack's. So is that which says too little or is about an error.
        too_big(client, vip, mtu, ports(vip, client, PORT, port ^ 1, 17, bytes(100))),
        too_big(client, vip, mtu, ports(vip, client, PORT, port, 6)),
        too_big(client, vip, mtu, reply[:ip + 7]),
        too_big(client, vip, mtu, too_big(vip, client, mtu, reply)),
        packet(client, vip, 58 if family(vip) == socket.AF_INET6 else 1, b"\x03\x04"),
    ):
        send(data)
    assert not knows(), "the host believes what is forged"
    sock.send(b"still")
    assert sock.recv(100) == b"still"
    assert not knows(), "the host believes what is forged"
    send(too_big(client, vip, mtu, reply))
    deadline = time.monotonic() + 20
    while not knows():
        assert time.monotonic() < deadline, "the host does not believe what is true"
        time.sleep(0.1)
    after = counters("lbu", "fwd")
    changed = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    # Traffic, and routes of earlier connections whose time has come.
    for name in ("packets", "bytes", "fast-packets", "reply-packets", "reply-bytes", "route-expired"):
        changed.pop(name, None)
    assert changed.pop("pass-protocol") == 5, changed
    assert changed == {"icmp-errors": 3, "drop-ttl-expired": 1}, changed


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
