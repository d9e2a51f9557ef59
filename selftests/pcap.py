#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Facts about TCP packets in captures, for the demo and the selftests.

pcap.py FACT FILE... prints one line; a fact that does not hold ends with
status 1. Captures are tcpdump's, Ethernet or raw IP, IPv4 only.
"""

import argparse
import dataclasses
import ipaddress
import struct
import sys

FIN, SYN, RST, ACK = 1, 2, 4, 16
ETHERNET, RAW = 1, 101


@dataclasses.dataclass(frozen=True)
class Packet:
    """A TCP segment as captured; `length` is the IP total length."""

    source: str
    source_port: int
    destination: str
    destination_port: int
    seq: int
    ack: int
    flags: int
    payload: int
    length: int
    ttl: int

    @property
    def content(self):
        """What a tunnel must not change, and what tells segments apart."""
        return (self.seq, self.ack, self.flags, self.payload)


def read(path):
    """All TCP over IPv4 packets of a capture, in order."""
    with open(path, "rb") as capture:
        data = capture.read()
    if len(data) < 24:
        raise ValueError(f"{path} is not a capture")
    magic = data[:4]
    order = {b"\xd4\xc3\xb2\xa1": "<", b"\xa1\xb2\xc3\xd4": ">"}.get(magic)
    if order is None:
        raise ValueError(f"{path} is not a capture with microseconds")
    link = struct.unpack(order + "I", data[20:24])[0] & 0xFFFF
    skip = {ETHERNET: 14, RAW: 0}[link]
    packets, at = [], 24
    while at + 16 <= len(data):
        included = struct.unpack(order + "I", data[at + 8 : at + 12])[0]
        frame = data[at + 16 : at + 16 + included]
        at += 16 + included
        packet = parse(frame[skip:])
        if packet and (skip == 0 or frame[12:14] == b"\x08\x00"):
            packets.append(packet)
    return packets


def parse(ip):
    if len(ip) < 40 or ip[0] >> 4 != 4 or ip[9] != 6:
        return None
    head = (ip[0] & 15) * 4
    tcp = ip[head:]
    if len(tcp) < 20:
        return None
    # A segment the device has yet to cut may carry 0 here (RFC 6864 aside,
    # Linux does so above 64 KiB); then the capture knows the length.
    length = struct.unpack(">H", ip[2:4])[0] or len(ip)
    sport, dport, seq, ack = struct.unpack(">HHII", tcp[:12])
    return Packet(
        str(ipaddress.IPv4Address(ip[12:16])), sport,
        str(ipaddress.IPv4Address(ip[16:20])), dport,
        seq, ack, tcp[13], length - head - (tcp[12] >> 4) * 4, length, ip[8],
    )


def no_rst(files):
    """No packet in any of the captures has the RST flag."""
    total, resets = 0, 0
    for path in files:
        for packet in read(path):
            total += 1
            resets += bool(packet.flags & RST)
    print(f"{total} packets, {resets} with RST")
    return total > 0 and resets == 0


def same_length(files):
    """Every tunnelled packet (2nd file) is as long as its original (1st file)."""
    # Segments that differ in nothing but a SACK option count as one.
    before = {}
    for packet in read(files[0]):
        before.setdefault(packet.content, set()).add(packet.length)
    pairs, longer, ids = 0, 0, set()
    for packet in read(files[1]):
        if packet.source_port < 61000 or packet.content not in before:
            continue
        pairs += 1
        longer += packet.length not in before[packet.content]
        ids.add((packet.source_port << 16) | packet.destination_port)
    print(f"{pairs} tunnelled packets with {len(ids)} flow ids, {longer} of another length than the original")
    return pairs > 0 and longer == 0


def pair(files):
    """Show one packet with payload as it came (1st file) and in the tunnel (2nd)."""
    before = {packet.content: packet for packet in read(files[0])}
    for packet in read(files[1]):
        if packet.payload and packet.source_port >= 61000 and packet.content in before:
            for name, shown in (("before", before[packet.content]), ("in the tunnel", packet)):
                print(f"{name + ':':15}{shown.source}:{shown.source_port} > "
                      f"{shown.destination}:{shown.destination_port}  seq {shown.seq}  "
                      f"payload {shown.payload}  length {shown.length}  ttl {shown.ttl}")
            flow_id = packet.source_port << 16 | packet.destination_port
            print(f"{'flow id:':15}{flow_id:#x} = {packet.source_port} << 16 | {packet.destination_port}")
            return True
    print("no tunnelled packet with payload")
    return False


def no_data_from(files, address):
    """Nobody sent payload from this address over the captured link."""
    total, data = 0, 0
    for path in files:
        for packet in read(path):
            total += 1
            data += packet.source == address and packet.payload > 0
    print(f"{total} packets, {data} with payload from {address}")
    return total > 0 and data == 0


def data_from(files, address):
    """How many bytes came from this address."""
    count = sum(p.payload for path in files for p in read(path) if p.source == address)
    print(f"{count} bytes of payload from {address}")
    return count > 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    facts = parser.add_subparsers(dest="fact", required=True)
    for name, needs_address in (("no-rst", False), ("same-length", False), ("pair", False),
                                ("no-data-from", True), ("data-from", True)):
        fact = facts.add_parser(name)
        if needs_address:
            fact.add_argument("address")
        fact.add_argument("files", nargs="+")
    args = parser.parse_args()
    if args.fact == "no-rst":
        holds = no_rst(args.files)
    elif args.fact == "same-length":
        holds = same_length(args.files)
    elif args.fact == "pair":
        holds = pair(args.files)
    elif args.fact == "no-data-from":
        holds = no_data_from(args.files, args.address)
    else:
        holds = data_from(args.files, args.address)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
