#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Two processors that open the same flows at the same time: race.py PORT FLOWS ROUNDS.

Each process, on a processor of its own, has a socket for each flow, with the same addresses and ports as the other's,
and sends a datagram from each of them in each round: whoever is first makes the route. They wait for each other before
each round.
"""

import contextlib
import multiprocessing
import os
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "migrator"))
from machines import CLIENT, VIP  # noqa: E402

FIRST = 20000


def play(processor, barrier, port, flows, rounds):
    os.sched_setaffinity(0, {processor})
    socks = []
    for flow in range(flows):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((CLIENT, FIRST + flow))
        sock.connect((VIP, port))
        socks.append(sock)
    for _ in range(rounds):
        barrier.wait(60)
        for sock in socks:
            # Nobody listens, and hosts say so.
            with contextlib.suppress(ConnectionRefusedError):
                sock.send(b"?")
    barrier.wait(60)


def main():
    port, flows, rounds = map(int, sys.argv[1:])
    processors = sorted(os.sched_getaffinity(0))[:2]
    if len(processors) < 2:
        sys.exit("race.py: one processor is not enough for a race")
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    players = [context.Process(target=play, args=(processors[n], barrier, port, flows, rounds))
               for n in range(2)]
    for player in players:
        player.start()
    for player in players:
        player.join()
    sys.exit(any(player.exitcode for player in players))


if __name__ == "__main__":
    main()
