#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Two processors that open the same flows at the same time: race.py PORT FLOWS ROUNDS.

So many flows each of UDP and TCP, over IPv4 and IPv6. Each process, on a processor of its own, sends a packet of each flow
in each round, with the same addresses and ports as the other's: whoever is first makes the route. Those of TCP, which
nobody answers, are SYNs in the first round, and then one ends the connection that the other opens. They wait for each
other before each round.
"""

import contextlib
import multiprocessing
import os
import pathlib
import socket
import sys

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1] / name) for name in ("migrator", "tunnel")]
from icmp import ports  # noqa: E402
from machines import IPV4, IPV6  # noqa: E402

FIRST = 20000
FIN, SYN, RST, ACK = 1, 2, 4, 16
# By processor and round.
FLAGS = (SYN, ACK, FIN | ACK, RST), (SYN, FIN | ACK)


def datagrams(network, port, flows):
    """A function that sends one of each flow."""
    socks = []
    for flow in range(flows):
        sock = socket.socket(network.family, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((network.client, FIRST + flow))
        sock.connect((network.vip, port))
        socks.append(sock)

    def play(_):
        for sock in socks:
            # Nobody listens, and hosts say so.
            with contextlib.suppress(ConnectionRefusedError):
                sock.send(b"?")
    return play


def segments(network, port, flows, all_flags):
    """The same. Two sockets of TCP cannot have the same addresses and ports; these packets have none."""
    def with_flags(packet, flags):
        return packet[:-7] + bytes([flags]) + packet[-6:]

    sock = socket.socket(network.family, socket.SOCK_RAW, socket.IPPROTO_RAW)
    plain = [ports(network.client, network.vip, FIRST + flow, port, socket.IPPROTO_TCP) for flow in range(flows)]
    packets = [[with_flags(packet, flags) for packet in plain] for flags in all_flags]

    def play(number):
        for packet in packets[number % len(packets)]:
            sock.sendto(packet, (network.vip, 0))
    return play


def play(processor, flags, barrier, port, flows, rounds):
    os.sched_setaffinity(0, {processor})
    plays = [datagrams(network, port, flows) for network in (IPV4, IPV6)]
    plays += [segments(network, port, flows, flags) for network in (IPV4, IPV6)]
    for number in range(rounds):
        for one in plays:
            barrier.wait(60)
            one(number)
    barrier.wait(60)


def main():
    port, flows, rounds = map(int, sys.argv[1:])
    processors = sorted(os.sched_getaffinity(0))[:2]
    if len(processors) < 2:
        sys.exit("race.py: one processor is not enough for a race")
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    players = [context.Process(target=play, args=(processors[n], FLAGS[n], barrier, port, flows, rounds))
               for n in range(2)]
    for player in players:
        player.start()
    for player in players:
        player.join()
    sys.exit(any(player.exitcode for player in players))


if __name__ == "__main__":
    main()
