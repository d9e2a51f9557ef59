#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Facts about TCP packets in captures, for the demo and the selftests.

pcap.py FACT FILE... prints one line; a fact that does not hold ends with
status 1. Captures are tcpdump's, Ethernet or raw IP.
"""

import argparse
import dataclasses
import heapq
import ipaddress
import itertools
import pathlib
import struct
import sys

FIN, SYN, RST, ACK = 1, 2, 4, 16
# By magic: nanoseconds per unit of the fraction, byte order.
MAGIC = {b"\xd4\xc3\xb2\xa1": (1000, "<"), b"\xa1\xb2\xc3\xd4": (1000, ">"),
         b"\x4d\x3c\xb2\xa1": (1, "<"), b"\xa1\xb2\x3c\x4d": (1, ">")}
# Ethernet, raw IP, Linux cooked v2: length of the header, offset of the protocol, of the sender.
LINKS = {1: (14, 12, 6), 101: (0, None, None), 276: (20, 0, 12)}


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


@dataclasses.dataclass(frozen=True)
class Frame:
    """A packet as captured, cut behind its link-layer header."""

    time: int  # ns since 1970
    sender: bytes  # link-layer address, empty where there is none
    data: bytes
    cut: int  # bytes of the packet that were not captured


def frames(path):
    """All IP packets of a capture, in order, one at a time."""
    with open(path, "rb") as capture:
        head = capture.read(24)
        scale, order = MAGIC.get(head[:4], (0, ""))
        if len(head) < 24 or not scale:
            raise ValueError(f"{path} is not a capture")
        link = struct.unpack(order + "I", head[20:24])[0] & 0xFFFF
        if link not in LINKS:
            raise ValueError(f"{path} is of link type {link}, which is not known here")
        skip, protocol_at, sender_at = LINKS[link]
        while record := capture.read(16):
            if len(record) < 16:
                raise ValueError(f"{path} ends in the middle of a packet")
            seconds, fraction, included, length = struct.unpack(order + "IIII", record)
            frame = capture.read(included)
            if len(frame) < included:
                raise ValueError(f"{path} ends in the middle of a packet")
            if protocol_at is not None and frame[protocol_at:protocol_at + 2] not in (b"\x08\x00", b"\x86\xdd"):
                continue
            sender = frame[sender_at:sender_at + 6] if sender_at is not None else b""
            yield Frame(seconds * 10**9 + fraction * scale, sender, frame[skip:], max(length - included, 0))


def read(path):
    """All TCP packets of a capture, in order; of IPv6, those without extension headers."""
    return [packet for packet in (parse(frame.data) for frame in frames(path)) if packet]


def parse(ip):
    # A segment the device has yet to cut may carry the length 0 (RFC 6864 aside,
    # Linux does so above 64 KiB); then the capture knows the length.
    if len(ip) >= 40 and ip[0] >> 4 == 4 and ip[9] == 6:
        head, source, destination, ttl = (ip[0] & 15) * 4, ip[12:16], ip[16:20], ip[8]
        length = struct.unpack(">H", ip[2:4])[0] or len(ip)
    elif len(ip) >= 60 and ip[0] >> 4 == 6 and ip[6] == 6:
        head, source, destination, ttl = 40, ip[8:24], ip[24:40], ip[7]
        length = 40 + (struct.unpack(">H", ip[4:6])[0] or len(ip) - 40)
    else:
        return None
    tcp = ip[head:]
    if len(tcp) < 20:
        return None
    sport, dport, seq, ack = struct.unpack(">HHII", tcp[:12])
    return Packet(
        str(ipaddress.ip_address(source)), sport, str(ipaddress.ip_address(destination)), dport,
        seq, ack, tcp[13], length - head - (tcp[12] >> 4) * 4, length, ttl,
    )


def resets(files, excused):
    """No packet has the RST flag, but those of which excused() says so, which is asked about each packet, in order of time."""
    total, found = 0, 0
    named = (zip(frames(path), itertools.repeat(path)) for path in files)
    for frame, path in heapq.merge(*named, key=lambda pair: pair[0].time):
        packet = parse(frame.data)
        if not packet:
            continue
        total += 1
        fine = excused(packet)
        if packet.flags & RST and not fine:
            found += 1
            print(f"{pathlib.Path(path).name}: {packet}")
    print(f"{total} packets, {found} with RST")
    return total > 0 and found == 0


def no_rst(files):
    """No packet in any of the captures has the RST flag."""
    return resets(files, lambda packet: False)


def no_early_rst(files):
    """No RST before both sides have closed: who has forgotten a connection answers so what is sent again (RFC 9293)."""
    closed = {}

    def both_have_closed(packet):
        ends = frozenset(((packet.source, packet.source_port), (packet.destination, packet.destination_port)))
        if packet.flags & SYN or ends not in closed:
            closed[ends] = set()
        if packet.flags & FIN:
            closed[ends].add(packet.source)
        return len(closed[ends]) == 2
    return resets(files, both_have_closed)


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


def batches(files):
    """Batches of segments go through the tunnel as they are: some are larger than a frame."""
    lengths = [packet.length for path in files for packet in read(path) if packet.source_port >= 61000]
    large = sum(length > 1500 for length in lengths)
    print(f"{len(lengths)} tunnelled packets, {large} of more than 1500 bytes")
    return large > 0


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


def one_rst(files, address):
    """There was one RST from this address, with the number that the client expected (RFC 5961)."""
    packets = [packet for path in files for packet in read(path)]
    resets = [(n, p) for n, p in enumerate(packets) if p.flags & RST and p.source == address]
    print(f"{len(packets)} packets, {len(resets)} with RST from {address}")
    for n, reset in resets:
        acks = [p.ack for p in packets[:n] if p.destination == address and p.flags & ACK
                and p.source_port == reset.destination_port and p.destination_port == reset.source_port]
        print(f"RST with seq {reset.seq}, last acknowledgment of the client before it {acks[-1] if acks else None}")
        if not acks or acks[-1] != reset.seq:
            return False
    return len(resets) == 1


def data_from(files, address):
    """How many bytes came from this address."""
    count = sum(p.payload for path in files for p in read(path) if p.source == address)
    print(f"{count} bytes of payload from {address}")
    return count > 0


# What each needs besides the files.
FACTS = {no_rst: (), no_early_rst: (), same_length: (), batches: (), pair: (),
         no_data_from: ("address",), data_from: ("address",), one_rst: ("address",)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    facts = parser.add_subparsers(required=True)
    for fact, words in FACTS.items():
        command = facts.add_parser(fact.__name__.replace("_", "-"))
        command.set_defaults(fact=fact)
        for word in words:
            command.add_argument(word)
        command.add_argument("files", nargs="+")
    args = vars(parser.parse_args())
    return 0 if args.pop("fact")(**args) else 1


if __name__ == "__main__":
    sys.exit(main())
