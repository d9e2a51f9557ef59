#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""As many early packets as are asked for: early.py COUNT..., or early.py --large CONNECTIONS

The connection freezes; then the client sends COUNT segments, and the host gets
them once it has the connection. The answers of the host's migrator have to be
slow (slow_answers in lib.sh) and the client's congestion window wide.

--large: so many connections freeze at once, and each client sends packets of
64 KB, which only a network card would cut.
"""

import contextlib
import pathlib
import socket
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import scene  # noqa: E402
from machines import Migrator, accepted, connect, exchange, genl, listen, receive, wait_for  # noqa: E402

SEGMENT, LARGE = 100, 300_000
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
# ROOM in nlb_migrator/hold.rs
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


def move_many(count, watcher, host, listeners):
    """Moves connections with early bytes in large packets; what was wrong, and what the host has counted."""
    first, data, pairs, answers = bytes(200_000), (bytes(range(256)) * (LARGE // 256 + 1))[:LARGE], [], []
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            client = stack.enter_context(contextlib.closing(connect(options=[(socket.SOL_SOCKET, SO_SNDBUFFORCE, 1 << 20)])))
            served = stack.enter_context(contextlib.closing(accepted(listeners[0])))
            # The window becomes large enough.
            client.sendall(first)
            if receive(served, len(first)) != first:
                return "the first bytes did not come", {}
            pairs.append((client, served))
        movers = [threading.Thread(target=lambda side=Migrator("lbu"), sock=served: answers.append(
            side.migrate(sock, timeout=30000))) for _, served in pairs]
        before = host.counters()
        for mover in movers:
            mover.start()
        ports = {client.getsockname()[1] for client, _ in pairs}
        frozen = watcher.family.ids["NLB_MIGRATOR_PHASE_FROZEN"]

        def all_frozen():
            return sum(entry["client_port"] in ports and entry["phase"] >= frozen for entry in watcher.migrations()) == count
        if not wait_for(all_frozen):
            for mover in movers:
                mover.join()
            return None, {"sent": False, "not all frozen": True}
        for client, _ in pairs:
            client.sendall(data)
        # All has been sent, and not one segment is acknowledged: it is held.
        infos = [scene.Info(client) for client, _ in pairs]
        sent = all(info.notsent == 0 and info.unacked * 1000 > LARGE // 2 for info in infos)
        for mover in movers:
            mover.join()
        if texts := {answer.text for answer in answers if answer.error}:
            # On a machine that is busy, it may have taken too long.
            return None, {"sent": False, "not moved": texts}
        there = {}
        for _ in pairs:
            sock, (_, port, *_) = listeners[1].accept()
            sock.settimeout(20)
            there[port] = stack.enter_context(contextlib.closing(sock))
        for client, _ in pairs:
            served = there[client.getsockname()[1]]
            if receive(served, len(data)) != data or not exchange(client, served):
                return "other bytes arrived", {}
            client.shutdown(socket.SHUT_WR)
            served.recv(1)
    after = host.counters()
    return None, {"sent": sent} | {name: after[name] - before[name] for name in after
                                   if name.startswith(("held", "drop-hold")) and after[name] != before[name]}


def large(count, watcher, host, listeners):
    for _ in range(4):
        failure, counts = move_many(count, watcher, host, listeners)
        print(f"{count} connections, {LARGE} early bytes each: {failure or counts}")
        # On a machine that is busy, some may come too late to be early, or wait for too long.
        if failure or counts["sent"] and counts.keys() == {"sent", "held", "held-delivered"}:
            break
    # All was held, in packets that are much larger than a segment.
    return not failure and counts["sent"] and 0 < counts.get("held", 0) * 10_000 < count * LARGE and \
        counts["held"] == counts.get("held-delivered")


def main():
    lbu, watcher, host = Migrator("lbu"), Migrator("lbu"), Migrator("host1")
    good = True
    options = [(socket.SOL_SOCKET, SO_RCVBUFFORCE, 4 << 20)] if sys.argv[1] == "--large" else []
    with contextlib.closing(listen("lbu", options=options)) as one, contextlib.closing(listen("host1")) as other:
        if sys.argv[1] == "--large":
            return 0 if large(int(sys.argv[2]), watcher, host, (one, other)) else 1
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
