#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""stream.py MEGABYTES: as much in each direction over one connection, which moves in the middle of it.

Every eight bytes are their own number, so that none is missed, doubled or taken
for another, and not one needs to be kept.
"""

import contextlib
import errno
import pathlib
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from machines import VIP, Migrator, accepted, connect, listen, receive  # noqa: E402
from scene import SO_RCVBUFFORCE  # noqa: E402

BLOCK = 1 << 16
PATIENCE = 120


def block(number):
    """So many bytes of the stream, from number * BLOCK on."""
    first = number * BLOCK // 8
    return struct.pack(f">{BLOCK // 8}Q", *range(first, first + BLOCK // 8))


class Side:
    """One end: what it has sent and got."""

    def __init__(self):
        self.sent, self.got, self.failure = 0, 0, None

    def send(self, sock, until):
        while self.sent < until:
            sock.sendall(block(self.sent))
            self.sent += 1

    def receive(self, sock, until):
        while self.got < until:
            data = receive(sock, BLOCK)
            assert data == block(self.got), f"{len(data)} bytes that are others, after {self.got * BLOCK}"
            self.got += 1

    def attempt(self, function, *arguments):
        try:
            function(*arguments)
        except (OSError, AssertionError) as failure:
            self.failure = failure

    def start(self, sock, until):
        """Both directions, up to that block."""
        sock.settimeout(PATIENCE)
        threads = [threading.Thread(target=self.attempt, args=(function, sock, until), daemon=True)
                   for function in (self.send, self.receive)]
        for thread in threads:
            thread.start()
        return threads

    def done(self, threads):
        for thread in threads:
            thread.join()
        assert self.failure is None, self.failure


def migrate(lbu, served):
    """What is in flight at the moment may be too much."""
    for attempts in range(1, 1000):
        answer = lbu.migrate(served, timeout=20000)
        if answer.error != errno.EBUSY:
            break
        time.sleep(0.005)
    assert answer.error == 0, answer.text
    print(f"moved at the attempt {attempts}")


def main():
    blocks = int(sys.argv[1]) * (1 << 20) // BLOCK
    lbu = Migrator("lbu")
    # The longer a stream, the larger its window; no more may be unread than can move.
    options = [(socket.SOL_SOCKET, SO_RCVBUFFORCE, 2 << 20)]
    with contextlib.closing(listen("lbu", address=VIP, options=options)) as one, contextlib.closing(listen("host1")) as other:
        client, served = connect(), accepted(one)
        here, there = Side(), Side()
        threads = here.start(client, blocks)
        there.done(there.start(served, blocks // 3))
        migrate(lbu, served)
        served.close()
        served = accepted(other)
        there.done(there.start(served, blocks))
        here.done(threads)
        print(f"{here.sent * BLOCK} bytes up, {here.got * BLOCK} down")
        client.shutdown(socket.SHUT_WR)
        assert served.recv(1) == b""
        served.close()
        assert client.recv(1) == b""
        client.close()


if __name__ == "__main__":
    main()
