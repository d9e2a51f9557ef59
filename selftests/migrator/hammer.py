#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Nonsense for the modules, from a given seed, while they work: hammer.py SEED COUNT CAPTURE.

Netlink: requests of all families with attributes that are missing, doubled, cut,
nested or out of range, and some that are right, on the LBU and on host1; among
them such that move a connection (a server listens on host1, port 8080).

Records: what an LBU once said to host1 (CAPTURE has that, from the first packet
of the connection on), said again by the LBU's address: whole, cut, out of
order, with bits changed, with other bytes and a checksum that is right.
"""

import pathlib
import random
import socket
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "netlink"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import genl  # noqa: E402
import invariants  # noqa: E402
import pcap  # noqa: E402
import test_fwd  # noqa: E402
import test_tunnel  # noqa: E402
from machines import HOST1, VIP, Migrator, accepted, connect, exchange, listen, machine, receive  # noqa: E402

OWN_PORT, TEXT = 8080, b"are you there?"
PORT, HEAD, LENGTH_AT, CRC_AT = 4770, 24, 8, 20
FAMILIES = ("nlb-fwd", "nlb-tunnel", "nlb-migrator")


def said(capture):
    """The records that the one who connected has said on the migrators' first connection."""
    stream, first = bytearray(), None
    for segment in filter(None, map(invariants.parse, pcap.frames(capture))):
        if segment.destination[1] != PORT:
            continue
        if first is None and segment.flags & invariants.SYN:
            first = segment
        elif first is not None and segment.source == first.source and segment.payload:
            at = (segment.seq - first.seq - 1) & 0xFFFFFFFF
            if at > len(stream):
                raise SystemExit("the capture is not complete")
            stream[at:at + len(segment.payload)] = segment.payload
    records = []
    while len(stream) >= HEAD:
        length = HEAD + struct.unpack_from(">I", stream, LENGTH_AT)[0]
        if length > len(stream):
            break
        records.append(bytes(stream[:length]))
        del stream[:length]
    return records


def crc32c(data, table=[]):  # noqa: B006 made once
    if not table:
        for byte in range(256):
            for _ in range(8):
                byte = (byte >> 1) ^ (0x82F63B78 & -(byte & 1))
            table.append(byte)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def sealed(record):
    """The record with length and checksum as they have to be."""
    record = bytearray(record)
    struct.pack_into(">I", record, LENGTH_AT, len(record) - HEAD)
    struct.pack_into(">I", record, CRC_AT, 0)
    struct.pack_into(">I", record, CRC_AT, crc32c(record))
    return bytes(record)


def changed(chance, record):
    """The record as it should not be."""
    record = bytearray(record)
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(record))
        how = chance.randrange(5)
        if how == 0:
            record[at] ^= 1 << chance.randrange(8)
        elif how == 1:
            record[at:at + 4] = chance.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0"))
        elif how == 2:
            del record[at:at + chance.randrange(1, 9)]
        elif how == 3:
            record[at:at] = chance.randbytes(chance.randrange(1, 9))
        else:
            record[at] = chance.randrange(256)
        if len(record) < HEAD:
            return bytes(record)
    # Mostly with a checksum that is right, for what comes behind it.
    return sealed(record) if chance.random() < 0.8 else bytes(record)


def conversation(chance, records):
    """What is said over one connection."""
    hello, rest = records[0], records[1:]
    how = chance.randrange(6)
    if how == 0:
        return changed(chance, hello)
    # A migration of long ago, from its PREPARE on.
    start = chance.randrange(len(rest))
    told = rest[start:start + chance.choice((1, 2, 3, 4, 12))]
    if how == 1:
        told = told + told
    elif how == 2:
        chance.shuffle(told)
    elif how >= 4:
        told = [changed(chance, record) if chance.random() < 0.5 else record for record in told]
    data = hello + b"".join(told)
    return data[:chance.randrange(len(data))] if how == 3 else data


def speak(data, chance):
    """Says it to host1 in the LBU's name; listens to the answers, sometimes."""
    try:
        with machine("lbu"), socket.create_connection((HOST1, PORT), timeout=5) as sock:
            sock.sendall(data)
            if chance.random() < 0.7:
                sock.shutdown(socket.SHUT_WR)
                sock.settimeout(2)
                while sock.recv(1 << 16):
                    pass
    except OSError:
        # Hanging up is its right.
        pass


def payload(chance):
    """Something that may be taken for an address, a number, a name, attributes."""
    how = chance.randrange(9)
    if how == 0:
        return genl.ip(f"{chance.choice(('198.51.100', '203.0.113'))}.{chance.randrange(256)}")
    if how == 1:
        return genl.u32(chance.choice((0, 1, 2, 100, 0x7FFFFFFF, 0xFFFFFFFF, chance.randrange(1 << 32))))
    if how == 2:
        return genl.be16(chance.choice((0, 1, 81, 4770, 65535)))
    if how == 3:
        return bytes([chance.choice((0, 1, 2, 6, 17, 255))])
    if how == 4:
        return struct.pack("=Q", chance.randrange(1 << 64))
    if how == 5:
        return genl.ip("2001:db8::%x" % chance.randrange(16))
    if how == 6:
        return genl.attribute(chance.randrange(30), payload(chance)) + chance.randbytes(chance.randrange(3))
    return chance.randbytes(chance.choice((0, 1, 2, 4, 5, 8, 16, 17, 300)))


def fitting(chance, name, ipv6):
    """A good value for the attribute, of objects that no test uses."""
    if name.endswith("ADDR"):
        network = ("2001:db8:fffe::", "2001:db8:ffff::") if ipv6 else ("198.51.100.", "203.0.113.")
        return genl.ip(f"{network['VIP' not in name]}{chance.randrange(1, 5)}")
    if name.endswith("_ID") and name.startswith("PEER"):
        return genl.u8(chance.randrange(4))
    if name.endswith("ALGORITHM"):
        return genl.u32(chance.randrange(1, 4))
    if name.endswith("SECRET") or name.endswith("READ_DATA"):
        return chance.randbytes(chance.randrange(16, 81))
    if name.endswith("READ_ALL"):
        return b""
    if name.endswith("PORT"):
        return genl.be16(chance.randrange(81, 85))
    if name.endswith("FLOW_ID"):
        return genl.u32((61000 << 16) + chance.randrange(1, 9))
    if name.endswith("PROTO"):
        return genl.u32(chance.choice((6, 17)))
    return genl.u32(chance.randrange(1, 101 if name.endswith("WEIGHT") else 3))


KEY_ATTRIBUTES = ["PEER_SEND_ID", "PEER_RECV_ID", "PEER_ALGORITHM", "PEER_SECRET"]
# Command and attributes of requests that are right in form.
TEMPLATES = {
    "nlb-fwd": [(request.command, [name for name, _ in request.good]) for request in test_fwd.REQUESTS],
    "nlb-tunnel": [(request.command, [name for name, _ in request.good]) for request in test_tunnel.REQUESTS],
    "nlb-migrator": [("PEER_NEW", ["PEER_ADDR", "PEER_PORT"]), ("PEER_DEL", ["PEER_ADDR"]), ("PEER_GET", ["PEER_ADDR"]),
                     ("PEER_NEW", ["PEER_ADDR", *KEY_ATTRIBUTES]), ("PEER_KEY_NEW", ["PEER_ADDR", *KEY_ATTRIBUTES]),
                     ("PEER_KEY_DEL", ["PEER_ADDR", "PEER_SEND_ID"]), ("PEER_KEY_USE", ["PEER_ADDR", "PEER_SEND_ID"]),
                     ("KEEP_NEW", ["KEEP_VIP_ADDR", "KEEP_VIP_PORT", "KEEP_BYTES"]),
                     ("KEEP_DEL", ["KEEP_VIP_ADDR", "KEEP_VIP_PORT"]), ("KEEP_GET", ["KEEP_VIP_ADDR", "KEEP_VIP_PORT"]),
                     ("MIGRATE", ["MIGRATION_FD", "MIGRATION_PEER_ADDR", "MIGRATION_TIMEOUT"]),
                     ("MIGRATION_GET", []), ("STATS_GET", [])],
}


def spoiled(chance, attrs):
    """One of them is missing, doubled, or something else."""
    at = chance.randrange(len(attrs))
    return attrs[:at] + chance.choice(([], [attrs[at]] * 2, [(attrs[at][0], payload(chance))])) + attrs[at + 1:]


def taken_along(attrs, read):
    """What a request that went through has taken along of the bytes that were read. Of doubled attributes, the last
    counts."""
    last = dict(attrs)
    if "MIGRATION_READ_ALL" in last:
        return read
    if "MIGRATION_READ_BYTES" in last:
        return read[len(read) - int.from_bytes(last["MIGRATION_READ_BYTES"], sys.byteorder):]
    return last.get("MIGRATION_READ_DATA", b"")


class Own:
    """A connection to a service of the hammer's own, for requests that may well move it to host1."""

    def __init__(self, listener):
        self.listener, self.client, self.served, self.read = listener, None, None, b""

    def ask(self, chance, family):
        """Asks to migrate it, maybe with what was read; whether it moved. Wherever it is, it has its bytes, and works."""
        if self.client is None:
            self.client = connect(OWN_PORT)
            self.served = accepted(self.listener)
            self.read = b""
        self.client.sendall(b"0123456789")
        assert receive(self.served, 7) == b"0123456"
        self.read += b"0123456"
        which = [("MIGRATION_FD", genl.u32(self.served.fileno()))]
        if chance.random() < 0.5:
            (client, port), vip = self.client.getsockname(), genl.ip(VIP)
            which = [("MIGRATION_CLIENT_ADDR", genl.ip(client)), ("MIGRATION_CLIENT_PORT", genl.be16(port)),
                     ("MIGRATION_VIP_ADDR", vip), ("MIGRATION_VIP_PORT", genl.be16(OWN_PORT))]
        read = chance.choice(([], [("MIGRATION_READ_ALL", b"")], [("MIGRATION_READ_BYTES", genl.u32(chance.randrange(12)))],
                              [("MIGRATION_READ_DATA", chance.randbytes(chance.randrange(12)))]))
        attrs = which + read + [("MIGRATION_PEER_ADDR", genl.ip(HOST1)), ("MIGRATION_TIMEOUT", genl.u32(5000))]
        asked = spoiled(chance, attrs) if chance.random() < 0.4 else attrs
        answer = family.do("MIGRATE", asked)
        if answer.error:
            assert receive(self.served, 3) == b"789" and exchange(self.client, self.served, TEXT), "it does not work any more"
            self.read += b"789" + TEXT
            return False
        self.client.sendall(TEXT)
        self.client.shutdown(socket.SHUT_WR)
        # The server sends everything back, to the end.
        wanted = taken_along(asked, self.read) + b"789" + TEXT
        got = receive(self.client, len(wanted) + 1)
        assert got == wanted, f"{asked}: it has sent back {got} instead of {wanted}"
        self.client.close()
        self.served.close()
        self.client = None
        return True


def ask(chance, family):
    """One request; whatever it is, there is an answer."""
    if chance.random() < 0.6:
        command, names = chance.choice(TEMPLATES[family.name])
        ipv6 = chance.random() < 0.3
        attrs = [(name, fitting(chance, name, ipv6)) for name in names]
        return family.do(command, spoiled(chance, attrs) if attrs and chance.random() < 0.4 else attrs)
    attrs = [(chance.randrange(1, 26) | chance.choice((0, 0, 0, 0x8000, 0x4000)), payload(chance))
             for _ in range(chance.choice((0, 1, 2, 3, 4, 5, 8)))]
    command = chance.randrange(18)
    tail = chance.randbytes(chance.choice((0, 0, 0, 1, 3, 4, 8)))
    if chance.random() < 0.2:
        return family.dump(command, attrs)
    return family.do(command, attrs, tail)


def main():
    seed, count, capture = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    chance = random.Random(seed)
    records = said(capture)
    families = []
    for name in ("lbu", "host1"):
        with machine(name):
            families += [genl.Family(family) for family in FAMILIES if (name, family) != ("host1", "nlb-fwd")]
    host = Migrator("host1")
    before, done = host.counters(), {"requests": 0, "accepted": 0, "moved": 0, "conversations": 0, "bytes": 0}
    own, migrator = Own(listen("lbu", OWN_PORT)), Migrator("lbu").family
    for _ in range(count):
        done["moved"] += own.ask(chance, migrator)
        for family in families:
            for _ in range(4):
                done["requests"] += 1
                done["accepted"] += ask(chance, family).error == 0
        data = conversation(chance, records)
        speak(data, chance)
        done["conversations"] += 1
        done["bytes"] += len(data)
    after = host.counters()
    moved = {name: value - before[name] for name, value in after.items() if value != before[name]}
    print(f"seed {seed}, {len(records)} records to begin with: {done}")
    print(f"counters of host1: {moved}")
    # It was heard, not only sent: what was no record, and what was one and made no sense.
    heard = moved.get("bad-records", 0) > 0 and any(moved.get(name, 0) > 0 for name in ("records-ignored", "in-refused"))
    return 0 if heard and 0 < done["accepted"] < done["requests"] and 0 < done["moved"] < count else 1


if __name__ == "__main__":
    sys.exit(main())
