#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""The age of ts_recent goes along: when a client was silent for long, its timestamps may have wrapped (RFC 7323, 5.5),
and are no reason any more to drop its segments. For Linux that is after 36 minutes (TCP_PAWS_WRAP; 24 days in older
kernels).

Nobody waits for that. So the LBU's migrator tells all to a program here (PORT of host1), which has the key of both
and passes it on to host1's with another age in it; and the client's clock of timestamps is set. Run by test_age.sh.
"""

import contextlib
import os
import pathlib
import socket
import struct
import sys
import threading
import time
import types

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import peer  # noqa: E402
from machines import (HOST1, VIP, Migrator, accepted, connect, counter, exchange, genl, listen, machine,  # noqa: E402
                      receive)
from peer import PREPARE, STATE  # noqa: E402
from scene import expect_end, wait_until  # noqa: E402

PORT = 4771
TCP_REPAIR, TCP_TIMESTAMP = 19, 24
DAY = 24 * 3600
# include/net/tcp.h: TCP_PAWS_WRAP, in which microseconds wrap; and milliseconds do
LONG_AGO, LONGER_AGO = (1 << 31) // 1_000_000, 24 * DAY
TIMESTAMPS = 5  # section of PREPARE and STATE


class Between:
    """Stands between the LBU's migrator and host1's."""

    def __init__(self):
        self.age, self.seen = None, {}
        with machine("host1"):
            self.listener = socket.create_server((HOST1, PORT))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            link, _ = self.listener.accept()
            with machine("lbu"):
                further = peer.connect(types.SimpleNamespace(address=HOST1, secret=os.environ["NLB_SECRET_FILE"], id=1))
            further.settimeout(None)
            threading.Thread(target=self.pass_on, args=(link, further), daemon=True).start()
            threading.Thread(target=give_back, args=(further, link), daemon=True).start()

    def pass_on(self, link, further):
        with contextlib.suppress(OSError):
            while head := link.recv(24, socket.MSG_WAITALL):
                kind, length = head[5], struct.unpack(">I", head[8:12])[0]
                payload = bytearray(link.recv(length, socket.MSG_WAITALL) if length else b"")
                if kind in (PREPARE, STATE):
                    self.change(kind, payload)
                crc = peer.crc32c(head[:20] + bytes(4) + payload)
                further.sendall(head[:20] + struct.pack(">I", crc) + payload)
            further.shutdown(socket.SHUT_RDWR)

    def change(self, kind, payload):
        at = 0
        while at < len(payload):
            section, length = struct.unpack_from(">HH", payload, at)
            if section == TIMESTAMPS:
                self.seen[kind] = struct.unpack_from(">I", payload, at + 12)[0]
                if self.age is not None:
                    struct.pack_into(">I", payload, at + 12, self.age)
            at += 4 + length


def give_back(further, link):
    with contextlib.suppress(OSError):
        while data := further.recv(1 << 16):
            link.sendall(data)
        link.shutdown(socket.SHUT_RDWR)


def set_clock(client, milliseconds):
    """The client's clock of timestamps goes on by so much."""
    client.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    now = client.getsockopt(socket.IPPROTO_TCP, TCP_TIMESTAMP) & 0xFFFFFFFF
    later = (now + milliseconds) & 0xFFFFFFFF
    client.setsockopt(socket.IPPROTO_TCP, TCP_TIMESTAMP, struct.pack("=I", later))
    # Off, without a window probe.
    client.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, -1)


def rejected():
    """Segments that host1's stack has dropped for their timestamp."""
    return counter("host1", "PAWSEstab")


def moved_at_age(between, listeners, age):
    """A connection that moves with that age, or its own, and whose client's clock goes on by 25 days; both ends."""
    client = connect()
    served = accepted(listeners[0])
    assert exchange(client, served)
    # What comes from the client from now on comes with data.
    time.sleep(0.3 if age is not None else 2.5)
    between.age = age
    answer = Migrator("lbu").migrate(served, timeout=20000)
    assert answer.error == 0, f"{genl.name_of(answer.error)}: {answer.text}"
    served.close()
    moved = accepted(listeners[1])
    set_clock(client, 25 * DAY * 1000)
    return client, moved


def finish(client, moved):
    assert exchange(client, moved)
    client.shutdown(socket.SHUT_WR)
    expect_end(moved)
    moved.close()
    expect_end(client)
    client.close()


def old(between, listeners, age):
    before = rejected()
    client, moved = moved_at_age(between, listeners, age)
    client.sendall(b"after so long")
    assert receive(moved, 13) == b"after so long"
    assert rejected() == before, "a segment was dropped for its timestamp"
    # That is the client's timestamp now.
    set_clock(client, -DAY * 1000)
    client.sendall(b"back again")
    wait_until("the segment is dropped", lambda: rejected() > before)
    set_clock(client, DAY * 1000)
    assert receive(moved, 10) == b"back again"
    finish(client, moved)


def young(between, listeners, age):
    before = rejected()
    client, moved = moved_at_age(between, listeners, age)
    client.sendall(b"too early")
    # Once more each time it is sent again.
    wait_until("the segment is dropped, and again", lambda: rejected() >= before + 2)
    moved.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        raise AssertionError(f"{moved.recv(9)} has come through")
    moved.settimeout(20)
    set_clock(client, -25 * DAY * 1000)
    assert receive(moved, 9) == b"too early"
    finish(client, moved)


def main():
    ktap, between = genl.Ktap(), Between()
    with contextlib.closing(listen("lbu", address=VIP)) as here, contextlib.closing(listen("host1")) as there:
        for name, part, age in (("its own age", young, None), ("ten minutes less", young, LONG_AGO - 600),
                                ("36 minutes", old, LONG_AGO), ("24 days", old, LONGER_AGO),
                                ("more than there can be", old, 0xFFFFFFFF)):
            try:
                part(between, (here, there), age)
                if age is None:
                    # So long the client had been silent.
                    assert between.seen[PREPARE] >= 2 and between.seen[STATE] >= 2, between.seen
                ktap.result(True, name)
            except (AssertionError, OSError) as failure:
                ktap.result(False, name, *str(failure).splitlines())
    ktap.end()


if __name__ == "__main__":
    main()
