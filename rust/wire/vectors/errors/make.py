#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Prints ICMP errors before and behind a forwarder, byte by byte, and packets inside of others.

Every packet is composed by itself, with all checksums computed in full; nothing of the code under test is used. A line is
what happens to the error, its name, the error, and what comes of it: bytes in hexadecimal, or why it is none.
"""

import itertools
import socket
import struct

V4 = {"client": "192.0.2.1", "vip": "198.51.100.1", "forwarder": "10.0.0.1", "host": "10.0.1.2", "router": "10.0.9.9"}
V6 = {"client": "2001:db8::1", "vip": "2001:db8:10::10", "forwarder": "2001:db8:f::1", "host": "2001:db8:f:2::2",
      "router": "2001:db8:9::9"}
PORTS = {6: (40000, 80), 17: (5000, 53)}
HOST_PORT, NAT_PORT = 8080, 12345
GUE_SOURCE, GUE_PORT = 54321, 6080
TCP, UDP = 6, 17


def octets(address):
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def total(data):
    words = struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2))
    value = sum(words)
    while value >> 16:
        value = (value & 0xFFFF) + (value >> 16)
    return value


def checksum(data):
    return ~total(data) & 0xFFFF


def pseudo(source, destination, proto, length):
    return octets(source) + octets(destination) + struct.pack(">IHBB", length, 0, 0, proto)


def ip(source, destination, proto, payload, ttl, options=b"", fragment=0x4000):
    """A packet; options are those of IPv4, or extension headers behind each other, the first one of type 60."""
    if ":" in source:
        head = struct.pack(">IHBB", 0x60012345, len(options) + len(payload), 60 if options else proto, ttl)
        return head + octets(source) + octets(destination) + options + payload
    words = 5 + len(options) // 4
    head = struct.pack(">BBHHHBBH", 0x40 | words, 0x10, words * 4 + len(payload), 0x1234, fragment, ttl, proto, 0)
    head += octets(source) + octets(destination) + options
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + payload


def segment(source, destination, proto, sport, dport, data, sums=True):
    """A TCP segment with options, or a UDP datagram, with or without a checksum."""
    if proto == TCP:
        head = struct.pack(">HHIIBBHHH", sport, dport, 0x5F3A1001, 0x11223344, 0x80, 0x18, 501, 0, 0)
        head += bytes.fromhex("0101080a0102030405060708")
        check = checksum(pseudo(source, destination, proto, len(head + data)) + head + data)
        return head[:16] + struct.pack(">H", check) + head[18:] + data
    head = struct.pack(">HHHH", sport, dport, 8 + len(data), 0)
    check = checksum(pseudo(source, destination, proto, len(head + data)) + head + data) or 0xFFFF
    return head[:6] + struct.pack(">H", check if sums else 0) + data


def error(source, destination, kind, quote, ttl, wrong=0, length=0, extension=b""):
    """An ICMP error; `length` is that of the quote (RFC 4884), `wrong` is added to the checksum."""
    number, code, rest = kind
    v6 = ":" in source
    if length:
        rest = bytes([length]) + rest[1:] if v6 else rest[:1] + bytes([length]) + rest[2:]
    message = bytes([number, code, 0, 0]) + rest + quote + extension
    front = pseudo(source, destination, 58, len(message)) if v6 else b""
    check = checksum(front + message)
    # In the complement's arithmetic, as it is added to the sum.
    check = total(struct.pack(">HH", check, wrong))
    message = message[:2] + struct.pack(">H", check) + message[4:]
    if v6:
        return struct.pack(">IHBB", 0x60000000, len(message), 58, ttl) + octets(source) + octets(destination) + message
    head = struct.pack(">BBHHHBBH", 0x45, 0xC0, 20 + len(message), 0x7777, 0, ttl, 1, 0)
    head += octets(source) + octets(destination)
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + message


KINDS4 = {
    "host-unreachable": (3, 1, bytes(4)),
    "port-unreachable": (3, 3, bytes(4)),
    "too-big": (3, 4, struct.pack(">HH", 0, 1400)),
    "prohibited": (3, 13, bytes(4)),
    "time-exceeded": (11, 0, bytes(4)),
    "parameter-problem": (12, 0, b"\x14\0\0\0"),
}
KINDS6 = {
    "address-unreachable": (1, 3, bytes(4)),
    "port-unreachable": (1, 4, bytes(4)),
    "too-big": (2, 0, struct.pack(">I", 1300)),
    "prohibited": (1, 1, bytes(4)),
    "time-exceeded": (3, 0, bytes(4)),
    "parameter-problem": (4, 1, struct.pack(">I", 6)),
}
DATA = b"GET / HTTP/1.1\r\n!"
OPTIONS4 = bytes.fromhex("94040000")
OPTIONS6 = lambda proto: bytes([proto, 0, 1, 4, 0, 0, 0, 0])  # noqa: E731


class Packet:
    """The packet that an error quotes, as everybody on the way sees it: who is who changes, the rest does not."""

    def __init__(self, addresses, proto, data=DATA, sums=True, options=False, fragment=0x4000, cut=None):
        self.addresses, self.proto, self.data, self.sums = addresses, proto, data, sums
        self.fragment, self.cut = fragment, cut
        v6 = ":" in addresses["vip"]
        self.options = (OPTIONS6(proto) if v6 else OPTIONS4) if options else b""

    def quoted(self, sender, receiver, ttl=62):
        """As it is quoted: `sender` and `receiver` are pairs of a machine and a port."""
        source, destination = self.addresses[sender[0]], self.addresses[receiver[0]]
        payload = segment(source, destination, self.proto, sender[1], receiver[1], self.data, self.sums)
        whole = ip(source, destination, self.proto, payload, ttl, self.options, self.fragment)
        return whole[:len(whole) - len(payload) + self.cut] if self.cut else whole


def cases(addresses, name, kind, packet, **more):
    """What becomes of an error about this packet, or the opposite one, each way."""
    cport, vport = PORTS[packet.proto]
    client, vip = ("client", cport), ("vip", vport)
    host, forwarder = ("host", HOST_PORT), ("forwarder", NAT_PORT)
    a = addresses

    def make(source, destination, sender, receiver, ttl=61):
        return error(a[source], a[destination], kind, packet.quoted(sender, receiver), ttl, **more)

    about_reply = make("router", "vip", vip, client)
    straight = make("router", "vip", vip, client, 60)
    yield "direct-to-host", name, about_reply, straight
    v6 = ":" in a["vip"]
    outer = struct.pack(">IHBB", 0x60000000, len(straight), 41, 64) + octets(a["forwarder"]) + octets(a["host"])
    if not v6:
        outer = struct.pack(">BBHHHBBH", 0x45, 0xC0, 20 + len(straight), 0, 0, 64, 4, 0)
        outer += octets(a["forwarder"]) + octets(a["host"])
        outer = outer[:10] + struct.pack(">H", checksum(outer)) + outer[12:]
    yield "ipip-to-host", name, about_reply, outer + straight
    yield "half-nat-to-host", name, about_reply, make("router", "host", host, client, 60)
    yield "nat-to-host", name, about_reply, make("forwarder", "host", host, forwarder, 60)
    yield "half-nat-to-client", name, make("router", "client", client, host), make("vip", "client", client, vip, 60)
    yield "nat-to-client", name, make("router", "forwarder", forwarder, host), make("vip", "client", client, vip, 60)
    # The host itself says so.
    yield "nat-to-client", name + "-by-host", make("host", "forwarder", forwarder, host), make("vip", "client", client, vip, 60)
    if not more:
        inner = packet.quoted(client, vip)
        carrier = ip(a["forwarder"], a["host"], 41 if v6 else 4, inner, 63)
        yield "ipip-to-client", name, error(a["router"], a["forwarder"], kind, carrier, 61), inner


CARRIERS = ("gre", "gre+csum", "gue", "gue+csum")


def carried(addresses, carrier, inner, first, ttl):
    """A packet from forwarder to host with another one inside; `first` are the first bytes of its IP header but for
    lengths, and an identification with IPv4."""
    a, v6 = addresses, ":" in addresses["vip"]
    inside = struct.pack(">H", 0x86DD if v6 else 0x0800)
    if carrier.startswith("gre"):
        proto, payload = 47, bytes(2) + inside + inner
        if carrier == "gre+csum":
            front = b"\x80\0" + inside
            payload = front + struct.pack(">HH", checksum(front + bytes(4) + inner), 0) + inner
    else:
        proto, gue = UDP, bytes([0, 41 if v6 else 4, 0, 0])
        payload = segment(a["forwarder"], a["host"], UDP, GUE_SOURCE, GUE_PORT, gue + inner, carrier == "gue+csum")
    ends = octets(a["forwarder"]) + octets(a["host"])
    if v6:
        return first + struct.pack(">HBB", len(payload), proto, ttl) + ends + payload
    tos, ident, fragment = first
    head = struct.pack(">BBHHHBBH", 0x45, tos, 20 + len(payload), ident, fragment, ttl, proto, 0) + ends
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + payload


def inside():
    """What GRE and GUE carry: clients' packets, and errors about replies, to hosts; and errors about those packets."""
    for a, kinds in ((V4, KINDS4), (V6, KINDS6)):
        v6 = a is V6
        family = "v6" if v6 else "v4"
        for carrier, proto in itertools.product(CARRIERS, (TCP, UDP)):
            client, vip = ("client", PORTS[proto][0]), ("vip", PORTS[proto][1])
            name = f"{family}-{'tcp' if proto == TCP else 'udp'}"
            packets = {"": Packet(a, proto), "-options": Packet(a, proto, options=True),
                       "-even": Packet(a, proto, data=DATA[:-1]), "-long": Packet(a, proto, data=bytes(range(200)))}
            if proto == UDP:
                packets["-no-checksum"] = Packet(a, proto, sums=False)
            if not v6:
                packets["-may-be-fragmented"] = Packet(a, proto, fragment=0)
            for what, packet in packets.items():
                inner = packet.quoted(client, vip)
                first = bytes.fromhex("60000000") if v6 else (0x10, 0, packet.fragment)
                yield f"{carrier}-carried", name + what, inner, carried(a, carrier, inner, first, 64)
            quote = Packet(a, proto).quoted(vip, client)
            before, after = (error(a["router"], a["vip"], kinds["too-big"], quote, ttl) for ttl in (61, 60))
            first = bytes.fromhex("60000000") if v6 else (0xC0, 0, 0)
            yield f"{carrier}-to-host", f"{name}-too-big", before, carried(a, carrier, after, first, 64)
            # As a router sees it on its way, which has given it an identification.
            first = bytes.fromhex("60012345") if v6 else (0x10, 0x1234, 0x4000)
            inner = Packet(a, proto).quoted(client, vip)
            whole = carried(a, carrier, inner, first, 63)
            for kind, number in kinds.items():
                yield f"{carrier}-to-client", f"{name}-{kind}", error(a["router"], a["forwarder"], number, whole, 61), inner
            cut = Packet(a, proto, cut=8).quoted(client, vip)
            short = whole[:len(whole) - len(inner) + len(cut)]
            yield (f"{carrier}-to-client", f"{name}-eight-bytes",
                   error(a["router"], a["forwarder"], kinds["too-big"], short, 61), cut)


def zero(addresses):
    """Data with which the checksum of a datagram from client to VIP is zero, which is written as all ones."""
    cport, vport = PORTS[UDP]
    base = segment(addresses["client"], addresses["vip"], UDP, cport, vport, b"\0\0")
    return base[6:8]


def good():
    for addresses, kinds in ((V4, KINDS4), (V6, KINDS6)):
        v6 = addresses is V6
        family = "v6" if v6 else "v4"
        for proto, (kind, number) in itertools.product((TCP, UDP), kinds.items()):
            name = f"{family}-{'tcp' if proto == TCP else 'udp'}-{kind}"
            yield from cases(addresses, name, number, Packet(addresses, proto))
        big = kinds["too-big"]
        unreachable = kinds["port-unreachable"]
        for proto in (TCP, UDP):
            name = f"{family}-{'tcp' if proto == TCP else 'udp'}"
            yield from cases(addresses, f"{name}-eight-bytes", big, Packet(addresses, proto, cut=8))
            yield from cases(addresses, f"{name}-odd-cut", big, Packet(addresses, proto, cut=23))
            yield from cases(addresses, f"{name}-options", big, Packet(addresses, proto, options=True))
            yield from cases(addresses, f"{name}-wrong-checksum", big, Packet(addresses, proto), wrong=0x1234)
            data = bytes(range(200))
            packet = Packet(addresses, proto, data=data, cut=128 - (40 if v6 else 20))
            yield from cases(addresses, f"{name}-extensions", unreachable, packet, length=16 if v6 else 32,
                             extension=bytes.fromhex("2000f7f600080101") + b"\1\2\3\4")
            if not v6:
                yield from cases(addresses, f"{name}-first-fragment", unreachable, Packet(addresses, proto, fragment=0x2000))
        yield from cases(addresses, f"{family}-udp-no-checksum", big, Packet(addresses, UDP, sums=False))
        yield from cases(addresses, f"{family}-udp-zero-checksum", big, Packet(addresses, UDP, data=zero(addresses)))


def bad():
    """What is no ICMP error about a packet with ports. None of them is one about IP in IP either."""
    for a, kinds in ((V4, KINDS4), (V6, KINDS6)):
        v6 = a is V6
        family = "v6" if v6 else "v4"
        big = kinds["too-big"]
        cport, vport = PORTS[TCP]
        ends = ("vip", vport), ("client", cport)
        quote = Packet(a, TCP).quoted(*ends)
        head = 40 if v6 else 20

        def make(data, kind=big, to="vip", ttl=61):
            return error(a["router"], a[to], kind, data, ttl)

        def other(data, at, value):
            return data[:at] + value + data[at + len(value):]

        whole = make(quote)
        yield f"{family}-echo-request", make(b"ping", (128 if v6 else 8, 0, bytes(4))), "bad-value"
        yield f"{family}-echo-reply", make(quote, (129 if v6 else 0, 0, bytes(4))), "bad-value"
        yield f"{family}-redirect", make(quote, (137 if v6 else 5, 1, bytes(4))), "bad-value"
        yield f"{family}-about-an-error", make(make(quote)), "protocol"
        yield f"{family}-about-something-else", make(ip(a["vip"], a["client"], 47, DATA, 62)), "protocol"
        yield f"{family}-nothing-quoted", make(b""), "truncated"
        yield f"{family}-half-a-header", make(quote[:head - 1]), "truncated"
        yield f"{family}-no-ports", make(quote[:head]), "truncated"
        yield f"{family}-seven-bytes", make(quote[:head + 7]), "truncated"
        yield f"{family}-quote-version-5", make(other(quote, 0, b"\x55")), "bad-version"
        yield f"{family}-cut", whole[:-1], "truncated"
        yield f"{family}-half-a-message", whole[:head + 5], "truncated"
        yield f"{family}-half-a-packet", whole[:head - 3], "truncated"
        yield f"{family}-version-7", other(whole, 0, b"\x75"), "bad-version"
        yield f"{family}-no-icmp", quote, "protocol"
        carrier = ip(a["forwarder"], a["host"], 41 if v6 else 4, quote, 63)
        yield f"{family}-ipip-cut-in-the-ports", make(carrier[:2 * head + 7], to="forwarder"), "protocol"
        other_family = Packet(V4 if v6 else V6, TCP).quoted(*ends)
        wrong = ip(a["forwarder"], a["host"], 41 if v6 else 4, other_family, 63)
        yield f"{family}-ipip-of-the-other-family", make(wrong, to="forwarder"), "protocol"
        for what, front in (("key", "2000"), ("sequence", "1000"), ("version", "0001"), ("other", "0000")):
            gre = bytes.fromhex(front) + struct.pack(">H", 0x6558 if what == "other" else 0x86DD if v6 else 0x0800)
            strange = ip(a["forwarder"], a["host"], 47, gre + (bytes(4) if front > "0001" else b"") + quote, 63)
            yield f"{family}-gre-{what}", make(strange, to="forwarder"), "protocol"
        if v6:
            yield f"{family}-of-the-other-family", make(other_family), "family"
            fragment = bytes([TCP, 0, 0, 8, 0, 0, 0, 1])
            later = ip(a["vip"], a["client"], TCP, quote[40:], 62)
            later = other(later[:40], 6, b"\x2c") + fragment + later[40:]
            yield f"{family}-later-fragment", make(other(later, 4, struct.pack(">H", len(later) - 40))), "fragment"
            routing = bytes([TCP, 2, 0, 1, 0, 0, 0, 0]) + octets(a["host"])
            routed = other(quote[:40], 6, b"\x2b") + routing + quote[40:]
            yield f"{family}-source-route", make(other(routed, 4, struct.pack(">H", len(routed) - 40))), "protocol"
            chain = bytes([60, 0, 1, 4, 0, 0, 0, 0]) * 9
            chained = other(quote[:40], 6, b"\x3c") + chain + quote[40:]
            yield f"{family}-too-many-headers", make(other(chained, 4, struct.pack(">H", len(chained) - 40))), "bad-header-length"
            mapped = other(quote, 8, bytes(10) + b"\xff\xff" + octets(V4["vip"]))
            yield f"{family}-mapped-address", make(mapped), "bad-value"
            yield f"{family}-short-length", make(other(quote, 4, struct.pack(">H", 7))), "bad-length"
        else:
            yield f"{family}-of-the-other-family", make(other_family), "family"
            yield f"{family}-later-fragment", make(Packet(a, TCP, fragment=0x0010).quoted(*ends)), "fragment"
            yield f"{family}-fragment-of-an-error", other(whole, 6, b"\x20\x00"), "fragment"
            yield f"{family}-header-length-4", make(other(quote, 0, b"\x44")), "bad-header-length"
            yield f"{family}-header-longer-than-the-quote", make(other(quote[:40], 0, b"\x4f")), "truncated"
            yield f"{family}-short-length", make(other(quote, 2, struct.pack(">H", 27))), "bad-length"


def main():
    print("# SPDX-License-Identifier: GPL-2.0")
    print("# Made by make.py, which is checked by scripts/check.")
    for way, name, before, after in good():
        print(way, name, before.hex(), after.hex())
    for way, name, before, after in inside():
        print(way, name, before.hex(), after.hex())
    for name, packet, reason in bad():
        print("none", name, packet.hex(), reason)


if __name__ == "__main__":
    main()
