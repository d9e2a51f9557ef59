#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""A client whose migrated connection has ended connects again, at once and from the same port.

The end is one by the host, of which the LBU hears within a second. Until then
its route leads to the host, whose application is no classifier: it must not get
the new connection. Run by test_ends.sh.
"""

import contextlib
import pathlib
import select
import socket
import struct
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from machines import CLIENT, HOST1, VIP, Migrator, accepted, connect, exchange, listen  # noqa: E402

REUSE = [(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)]


def opened(listeners, port):
    """A connection from this port: both ends, and which listener has it."""
    client = connect(options=REUSE, source=(CLIENT, port))
    ready, _, _ = select.select(listeners, [], [], 20)
    assert ready, "connected, and nobody has it"
    return client, accepted(ready[0]), listeners.index(ready[0])


def reset(client, moved):
    """The host resets it."""
    moved.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    moved.close()
    try:
        assert not client.recv(1), "bytes instead of a reset"
    except ConnectionResetError:
        pass
    client.close()


def closed(client, moved):
    """The host closes first, and has TIME_WAIT."""
    moved.close()
    assert client.recv(1) == b""
    client.close()


def again(end, port, pause, lbu, listeners):
    client, served, where = opened(listeners, port)
    assert where == 0
    answer = lbu.migrate(served, HOST1)
    assert answer.error == 0, answer.text
    served.close()
    moved = accepted(listeners[1])
    assert exchange(client, moved)
    end(client, moved)
    time.sleep(pause)
    client, served, where = opened(listeners, port)
    assert where == 0, f"{end.__name__}, then {pause} s: the host has it"
    answer = lbu.migrate(served, HOST1)
    assert answer.error == 0, answer.text
    served.close()
    served = accepted(listeners[1])
    assert exchange(client, served)
    return client, served


def main():
    lbu = Migrator("lbu")
    with contextlib.closing(listen("lbu", address=VIP)) as one, contextlib.closing(listen("host1")) as other:
        kinds = [(end, pause) for end in (reset, closed) for pause in (0, 0.3, 1.5)]
        pairs = [again(end, 40_000 + number, pause, lbu, (one, other)) for number, (end, pause) in enumerate(kinds)]
        # When all that was left of those before has gone, 5 s after their end.
        time.sleep(7)
        for client, served in pairs:
            assert exchange(client, served)
            client.close()
            assert served.recv(1) == b""
            served.close()


if __name__ == "__main__":
    main()
