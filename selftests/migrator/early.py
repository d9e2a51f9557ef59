#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""As many early packets as are asked for: early.py COUNT...

The connection freezes; then the client sends COUNT segments, and the host gets
them once it has the connection. The answers of the host's migrator have to be
slow (slow_answers in lib.sh) and the client's congestion window wide.
"""

import contextlib
import pathlib
import socket
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from machines import Migrator, accepted, connect, exchange, genl, listen, receive, wait_for  # noqa: E402

SEGMENT = 100
# MAX_PACKETS in nlb_migrator/hold.rs
BOUND = 256


def move(count, lbu, watcher, host, listeners):
    """Moves one connection with `count` early segments; what was wrong, and how many were held."""
    with contextlib.closing(connect()) as client, contextlib.closing(accepted(listeners[0])) as served:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        port = client.getsockname()[1]
        client.sendall(b"first")
        if not wait_for(lambda: len(served.recv(5, socket.MSG_PEEK)) == 5):
            return "the first bytes did not come", 0
        answers = []
        mover = threading.Thread(target=lambda: answers.append(lbu.migrate(served, timeout=20000)))
        mover.start()
        frozen = wait_for(lambda: watcher.phase(port) == "frozen")
        segments = [bytes([number & 0xFF]) * SEGMENT for number in range(count)]
        for segment in segments:
            client.sendall(segment)
        mover.join()
        if not frozen or answers[0].error:
            return f"frozen: {frozen}, {genl.name_of(answers[0].error)} '{answers[0].text}'", 0
        with contextlib.closing(accepted(listeners[1])) as there:
            got = receive(there, 5 + count * SEGMENT)
            if got != b"first" + b"".join(segments):
                return f"other bytes arrived, {len(got)} of them", 0
            if not exchange(client, there):
                return "the connection does not work", 0
            client.shutdown(socket.SHUT_WR)
            there.recv(1)
        held = [entry.get("held_packets", 0) for entry in host.migrations() if entry["client_port"] == port]
        return None, max(held, default=0)


def main():
    lbu, watcher, host = Migrator("lbu"), Migrator("lbu"), Migrator("host1")
    good = True
    with contextlib.closing(listen("lbu")) as one, contextlib.closing(listen("host1")) as other:
        for count in map(int, sys.argv[1:]):
            # On a machine that is busy, some may come too late to be early.
            for _ in range(4):
                before = host.counters()
                failure, held = move(count, lbu, watcher, host, (one, other))
                if failure or held >= min(count, BOUND):
                    break
            after = host.counters()
            dropped = {name: value - before[name] for name, value in after.items()
                       if name.startswith("drop-hold") and value != before[name]}
            fits = count <= BOUND
            fine = (not failure and held >= min(count, BOUND) and (not dropped if fits else
                                                                  dropped.get("drop-hold-packets", 0) > 0))
            empty = wait_for(lambda: host.counters()["held-now"] == 0)
            print(f"{count} early segments: {failure or 'all bytes in order'}, {held} held, dropped {dropped}, "
                  f"empty afterwards: {empty}")
            good = good and fine and empty
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
