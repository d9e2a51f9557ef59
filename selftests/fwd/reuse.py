#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""One connection after the other from the same port of a client to the same port of a VIP.

serve PORT...               TCP of both families: sends back what it gets, closes when the client has, or first when told to
again TIMES SOURCE=VIP:PORT...
                            so many connections each, and each opened as soon as the last one is over; the client closes
                            first, then the server, and so on. All at once; SOURCE is the client's address.
"""

import contextlib
import errno
import os
import pathlib
import socket
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from modes import address  # noqa: E402

PORT = 5555
# Of a connection that was reopened at once nothing may have been sent twice.
QUIET = "TCPSynRetrans", "TCPTimeouts"
CLOSE = b"close"


def answer(connection):
    with connection:
        while (data := connection.recv(1 << 16)) and data != CLOSE:
            connection.sendall(data)
        if data:
            connection.shutdown(socket.SHUT_WR)
            # The client's end comes before that of this socket, or what it still sends would be answered by RST.
            connection.recv(1)


def serve(ports):
    def accept(listener):
        while True:
            threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    for port in map(int, ports):
        listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=100)
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()


def connected(family, source, to):
    """As soon as the port is free again: it is not before the last connection's FIN is answered."""
    deadline = time.monotonic() + 20
    while True:
        sock = socket.socket(family)
        sock.settimeout(20)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((source, PORT))
            sock.connect(to)
            return sock
        except OSError as error:
            sock.close()
            if error.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL) or time.monotonic() > deadline:
                raise


def one(sock, number, server_first):
    sock.settimeout(20)
    data = b"number %d" % number
    sock.sendall(data)
    got = sock.recv(100)
    assert got == data, f"{got} instead of {data}"
    if server_first:
        sock.sendall(CLOSE)
    else:
        sock.shutdown(socket.SHUT_WR)
    assert sock.recv(1) == b"", "more than was sent"


def again(arguments):
    times, failures = int(arguments[0]), []

    def play(target):
        source, _, where = target.partition("=")
        family, to = address(where)
        try:
            for number in range(times):
                with connected(family, source, to) as sock:
                    one(sock, number, number // 2 % 2)
        except (OSError, AssertionError) as error:
            failures.append(f"{where}, connection {number}: {error}")

    before = counters()
    players = [threading.Thread(target=play, args=(target,)) for target in arguments[1:]]
    for player in players:
        player.start()
    for player in players:
        player.join()
    after = counters()
    failures += [f"{name}: {before[name]} before, then {after[name]}" for name in QUIET if after[name] != before[name]]
    sys.exit("\n".join(failures))


def counters():
    """Those of the stack here."""
    found = {}
    with open("/proc/thread-self/net/netstat", encoding="ascii") as file, contextlib.suppress(StopIteration):
        while True:
            found.update(zip(next(file).split(), next(file).split()))
    return {name: int(found[name]) for name in QUIET}


if __name__ == "__main__":
    # What two processors send may change its order on the way: a host that gets the SYN before the last acknowledgement
    # of the connection before may not take it, whoever is between.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    {"serve": serve, "again": again}[sys.argv[1]](sys.argv[2:])
