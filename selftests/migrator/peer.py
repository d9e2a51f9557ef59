#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""A peer that can say anything: records over TCP, signed (TCP-AO) or not.

Each command prints what became of it, or ends with a traceback.
"""

import argparse
import collections
import json
import pathlib
import random
import socket
import struct
import sys
import threading
import time

PORT = 4770
TCP_AO_ADD_KEY = 38
HELLO, PREPARE, READY, REFUSED, STATE, COMMIT, FAILED, ABORT, ABORTED, PING, PONG = 1, 2, 3, 4, 5, 7, 9, 10, 11, 13, 14
UNKNOWN = 128
AO = 29


def crc_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 & -(byte & 1))
        table.append(byte)
    return table


TABLE = crc_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def record(kind, payload, number=7, length=None, magic=b"nlbm", version=1, crc=None):
    """A record of any kind; what is given replaces what would be right."""
    head = struct.pack(">4sBBHIQ", magic, version, kind, 0, len(payload) if length is None else length, number)
    good = crc32c(head + struct.pack(">I", 0) + payload)
    return head + struct.pack(">I", good if crc is None else crc) + payload


def hello(capabilities=0, versions=(1, 1)):
    return record(HELLO, struct.pack(">BBHIQ", *versions, 0, capabilities, 1), number=0)


def add_key(sock, address, secret, send_id, recv_id):
    """TCP_AO_ADD_KEY: struct tcp_ao_add."""
    where = struct.pack("=H2s4s", socket.AF_INET, b"", socket.inet_aton(address))
    sock.setsockopt(socket.IPPROTO_TCP, TCP_AO_ADD_KEY, struct.pack(
        "=128s64siIHBBBBBB80s", where, b"hmac(sha256)", 0, 0, 0, 32, send_id, recv_id, 0, 0, len(secret), secret))


def connect(args, timeout=15):
    sock = socket.socket()
    sock.settimeout(timeout)
    if getattr(args, "source", None):
        sock.bind((args.source, 0))
    if args.secret:
        add_key(sock, args.address, pathlib.Path(args.secret).read_bytes().rstrip(b"\n"), args.id, args.id)
    sock.connect((args.address, PORT))
    return sock


def receive(sock):
    """Kind, number and payload of the next record; None at the end."""
    head = sock.recv(24, socket.MSG_WAITALL)
    if not head:
        return None
    magic, _, kind, _, length, number, _ = struct.unpack(">4sBBHIQI", head)
    assert magic == b"nlbm", head
    return kind, number, sock.recv(length, socket.MSG_WAITALL) if length else b""


def text(payload):
    return payload[4:].decode()


def nothing(args):
    """A connection that is not answered at all."""
    try:
        connect(args, timeout=4)
    except TimeoutError:
        print("no answer")
        return
    sys.exit("connected")


def garbage(args):
    """Every kind of nonsense closes its connection."""
    r = random.Random(1)
    attempts = [b"", b"n", b"nlb", b"GET / HTTP/1.0\r\n\r\n", bytes(24), b"\xff" * 24,
                record(1, b"", magic=b"nlbn"), record(1, b"", version=9), record(1, b"", crc=1),
                record(99, b""), record(2, b""), record(5, b"\0" * 10), record(7, b"", length=0xFFFFFFFF),
                record(2, bytes(2000)), record(5, bytes(60000)), record(1, b"\0" * 65536)]
    attempts += [r.randbytes(r.randrange(1, 400)) for _ in range(40)]
    attempts += [record(r.randrange(256), r.randbytes(r.randrange(300))) for _ in range(60)]
    for data in attempts:
        sock = connect(args)
        sent = False
        try:
            sock.sendall(data)
            sent = True
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(4096):
                pass
        except TimeoutError:
            # In the middle of much data it may have been closed by a RST that got lost: Linux signs none for a socket
            # that is gone (tcp_ao_prepare_reset()), so there is no other one.
            if sent or not args.secret:
                raise
        except OSError:
            # It was closed before all was said.
            pass
        sock.close()
    print(len(attempts), "attempts")


def silent(args):
    """More connections than are allowed, without a word."""
    keep = []
    for _ in range(200):
        try:
            keep.append(connect(args, timeout=5))
        except OSError:
            pass
    assert keep
    print(len(keep), "connections")


def capabilities(args):
    """HELLO with some bits; prints PONG, or why the other side refuses."""
    sock = connect(args)
    sock.sendall(hello(args.bits, (args.version, args.version)))
    kind, _, _ = receive(sock)
    assert kind == HELLO, kind
    try:
        sock.sendall(record(PING, bytes(8), number=0))
    except OSError:
        pass
    # About migrations that have ended, there may be news first.
    number = None
    while number != 0:
        kind, number, payload = receive(sock)
    if kind == REFUSED:
        print("refused:", text(payload))
        assert receive(sock) is None
    else:
        assert kind == PONG, kind
        print("pong")


def refuser(args):
    """Answer HELLO and then refuse to talk, as a peer does that lacks a capability."""
    listener = socket.create_server((args.address, PORT))
    while True:
        sock, _ = listener.accept()
        sock.sendall(hello(0x0001_0000))
        sock.sendall(record(REFUSED, struct.pack(">I", 999) + b"not with you", number=0))


def slow_reader(address):
    """A listener whose connections take little before it is read."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    listener.bind((address, PORT))
    listener.listen()
    return listener


def drips(args):
    """A target that is ready for everything and then reads STATE in drips."""
    with slow_reader(args.address) as listener:
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=drip, args=(sock,), daemon=True).start()


def drip(sock):
    sock.sendall(hello())
    while head := sock.recv(24, socket.MSG_WAITALL):
        _, _, kind, _, length, number, _ = struct.unpack(">4sBBHIQI", head)
        if kind == STATE:
            break
        sock.recv(length, socket.MSG_WAITALL)
        if kind == PREPARE:
            sock.sendall(record(READY, b"", number))
    print("reads in drips", flush=True)
    # Enough of them for TCP not to be silent.
    while sock.recv(2048):
        time.sleep(0.2)
    print("it is over", flush=True)


def late(args):
    """A target that is ready for everything, lets those wait who send STATE, and then hears all of it, to the end."""
    with slow_reader(args.address) as listener:
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=hear, args=(sock,), daemon=True).start()


def hear(sock):
    with sock:
        sock.sendall(hello())
        sequences, paused = collections.defaultdict(list), False
        while head := sock.recv(24, socket.MSG_WAITALL):
            _, _, kind, _, length, number, crc = struct.unpack(">4sBBHIQI", head)
            if kind == STATE and not paused:
                time.sleep(0.8)
                paused = True
            payload = sock.recv(length, socket.MSG_WAITALL)
            sequences[number].append(kind if crc == crc32c(head[:20] + bytes(4) + payload) else "cut")
            # An answer that nobody waits for any more would be answered with a RST.
            if kind == PREPARE and not paused:
                sock.sendall(record(READY, b"", number))
        print(json.dumps([kinds for number, kinds in sequences.items() if number]), flush=True)


def prepare_of(capture):
    """The payload of the first PREPARE in it."""
    data = pathlib.Path(capture).read_bytes()
    at = data.index(b"nlbm\x01\x02")
    length = struct.unpack(">I", data[at + 8:at + 12])[0]
    payload = data[at + 24:at + 24 + length]
    assert record(PREPARE, payload, struct.unpack(">Q", data[at + 12:at + 20])[0]) == data[at:at + 24 + length]
    return payload


def forge(args):
    """PREPARE of a capture with addresses replaced; prints what the target says."""
    payload = prepare_of(args.capture)
    for pair in args.replace:
        old, new = (socket.inet_aton(address) for address in pair.split("="))
        assert payload.count(old) == 1, (old, payload)
        payload = payload.replace(old, new)
    sock = connect(args)
    sock.sendall(hello())
    assert receive(sock)[0] == HELLO
    number = random.getrandbits(62) + 1
    sock.sendall(record(PREPARE, payload, number))
    # About migrations that have ended, there may be news first.
    while (answer := receive(sock)) and answer[1] != number:
        pass
    if answer is None:
        print("closed")
    else:
        print("refused:", text(answer[2])) if answer[0] == REFUSED else print("kind", answer[0])


def streams(path, address):
    """What a capture has of each connection to the address, from its SYN on."""
    first, segments = {}, collections.defaultdict(dict)
    for frame in frames(path):
        ip, tcp = 14, 14 + (frame[14] & 15) * 4
        if frame[ip + 16:ip + 20] == socket.inet_aton(address):
            port, _, number = struct.unpack(">HHI", frame[tcp:tcp + 8])
            if frame[tcp + 13] & 2:
                first[port] = number + 1
            elif port in first:
                end = ip + struct.unpack(">H", frame[ip + 2:ip + 4])[0]
                segments[port][(number - first[port]) % 2**32] = frame[tcp + (frame[tcp + 12] >> 4) * 4:end]
    for parts in segments.values():
        data = b""
        for at, part in sorted(parts.items()):
            if at <= len(data):
                data += part[len(data) - at:]
        yield data


def old(args):
    """STATE of a capture, sent to ADDRESS, and COMMIT and ABORT behind it: to who does not know the migration (any more)."""
    records = []
    for data in streams(args.capture, args.address):
        while len(data) >= 24:
            length = 24 + struct.unpack(">I", data[8:12])[0]
            if data[5] == STATE and length <= len(data):
                records.append(data[:length])
            data = data[length:]
    assert len(records) == 1, f"{len(records)} records in the capture"
    state = records[0]
    number = struct.unpack(">Q", state[12:20])[0]
    sock = connect(args)
    sock.sendall(hello() + state + record(COMMIT, b"", number) + record(ABORT, b"", number))
    assert receive(sock)[0] == HELLO
    answers = []
    while len(answers) < 3:
        kind, about, payload = receive(sock)
        # About migrations that have ended, there may be news first.
        if about == number:
            answers.append((kind, struct.unpack(">I", payload[:4])[0] if payload else None))
    assert answers == [(REFUSED, UNKNOWN), (FAILED, UNKNOWN), (ABORTED, None)], answers
    print(f"migration {number} is not known")


def frames(path):
    data = pathlib.Path(path).read_bytes()
    assert data[:4] == b"\xd4\xc3\xb2\xa1", "not a capture"
    at = 24
    while at + 16 <= len(data):
        length = struct.unpack("<I", data[at + 8:at + 12])[0]
        yield data[at + 16:at + 16 + length]
        at += 16 + length


def options(frame):
    """Kinds of the TCP options."""
    tcp = 14 + (frame[14] & 15) * 4
    rest = frame[tcp + 20:tcp + (frame[tcp + 12] >> 4) * 4]
    kinds = []
    while rest and rest[0] != 0:
        kinds.append(rest[0])
        rest = rest[1:] if rest[0] == 1 else rest[rest[1]:]
    return kinds


def signed(args):
    """Every segment of a capture has the option, with one of the ids."""
    ids, count = set(), 0
    for frame in frames(args.capture):
        assert options(frame).count(AO) == 1, frame.hex()
        tcp = 14 + (frame[14] & 15) * 4
        header = frame[tcp + 20:tcp + (frame[tcp + 12] >> 4) * 4]
        while header[0] != AO:
            header = header[1:] if header[0] == 1 else header[header[1]:]
        ids.add(header[2])
        count += 1
    assert count
    print(count, "segments, keys", *sorted(ids))


def replay(args):
    """Send the frames of a capture again, those to the port."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sock.bind((args.device, 0))
    count = 0
    for frame in frames(args.capture):
        tcp = 14 + (frame[14] & 15) * 4
        if struct.unpack(">H", frame[tcp + 2:tcp + 4])[0] == PORT:
            sock.send(frame)
            count += 1
    assert count
    print(count, "frames")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    roles = parser.add_subparsers(dest="role", required=True)
    for function in (nothing, garbage, silent, capabilities, refuser, drips, late, forge, old):
        role = roles.add_parser(function.__name__)
        role.set_defaults(function=function)
        role.add_argument("address")
        role.add_argument("--secret", help="file with the secret of the key")
        role.add_argument("--id", type=int, default=1, help="its id")
        if function is capabilities:
            role.add_argument("--bits", type=lambda number: int(number, 0), default=0)
            role.add_argument("--version", type=int, default=1)
        if function is old:
            role.add_argument("capture")
            role.add_argument("--source", help="the address that it comes from")
        if function is forge:
            role.add_argument("capture")
            role.add_argument("replace", nargs="+", help="ADDR=ADDR")
    role = roles.add_parser("signed")
    role.set_defaults(function=signed)
    role.add_argument("capture")
    role = roles.add_parser("replay")
    role.set_defaults(function=replay)
    role.add_argument("device")
    role.add_argument("capture")
    args = parser.parse_args()
    args.function(args)


if __name__ == "__main__":
    main()
