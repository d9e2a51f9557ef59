#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""replay.py FILE ADDRESS PORT: send twice more what a capture has of this client.

All segments but SYN, RST and what the capture holds only in part: the late and
doubled packets that a network may bring. Prints how many, and how many seconds
it took, rounded up.
"""

import math
import pathlib
import socket
import struct
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import pcap  # noqa: E402


def checksum(data):
    """That of IP, ICMP and TCP."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def with_checksum(ip):
    """An IPv4 packet with TCP whose checksum may have been the device's to fill in."""
    head = (ip[0] & 15) * 4
    tcp = bytearray(ip[head:])
    tcp[16:18] = b"\0\0"
    tcp[16:18] = struct.pack(">H", checksum(ip[12:20] + struct.pack(">HH", 6, len(tcp)) + tcp))
    return ip[:head] + tcp


def segments(path, address, port):
    """(destination, packet) of each segment that can be sent again."""
    for frame in pcap.frames(path):
        ip, packet = frame.data, pcap.parse(frame.data)
        if (packet is None or packet.source != address or packet.source_port != port
                or packet.flags & (pcap.SYN | pcap.RST) or packet.length > len(ip)):
            continue
        yield packet.destination, with_checksum(ip[:packet.length])


def main():
    again = 2 * list(segments(sys.argv[1], sys.argv[2], int(sys.argv[3])))
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    begin = time.monotonic()
    for destination, packet in again:
        raw.sendto(packet, (destination, 0))
    print(len(again), math.ceil(time.monotonic() - begin))
    return 0 if again else 1


if __name__ == "__main__":
    sys.exit(main())
