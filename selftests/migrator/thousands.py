#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Thousands of connections, moved by one command, many of them at the same time.

thousands.py COUNT JOBS: what `nlb migration drain` does with COUNT connections, JOBS at a time, over one connection of
the migrators. Run by test_drain_many.sh.
"""

import json
import pathlib
import resource
import socket
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from machines import FAMILY, HOST1, VIP, accepted, listen, machine, receive, sysctl  # noqa: E402


def room(count):
    """For the sockets here, and in the accept queues."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (3 * count + 1000,) * 2)
    for name in ("lbu", "host1"):
        sysctl(name, "core/somaxconn", count)


def connections(count, listener):
    """The client's ends, each of which has said its number, by their addresses; and the others."""
    clients, served = {}, []
    with machine("client"):
        for number in range(count):
            client = socket.socket(FAMILY)
            client.settimeout(60)
            client.connect((VIP, 80))
            client.sendall(b"%08d" % number)
            clients[client.getsockname()] = client, b"%08d" % number
            served.append(accepted(listener))
    return clients, served


def drain(jobs):
    """Moves what there is to the host; the report."""
    command = f"ip netns exec lbu nlb -j migration drain from {VIP}:80 to {HOST1} jobs {jobs} timeout 30000"
    done = subprocess.run(command.split(), stdout=subprocess.PIPE, check=False)
    report = json.loads(done.stdout)
    print(report)
    assert done.returncode == 0, "some have stayed"
    return report


def main():
    count, jobs = map(int, sys.argv[1:])
    room(count)
    lbu, host = listen("lbu", backlog=count), listen("host1", backlog=count)
    clients, served = connections(count, lbu)
    print(f"{count} connections")
    report = drain(jobs)
    # At the first try each: nothing broke off, nobody was turned away.
    moved = {name: report[name] for name in ("connections", "moved", "passes")}
    assert moved == {"connections": count, "moved": count, "passes": 1}, "some have stayed for a while"
    for sock in served:
        sock.close()
    for _ in range(count):
        sock = accepted(host)
        client, number = clients.pop(sock.getpeername())
        assert receive(sock, 8) == number
        sock.sendall(number[::-1])
        assert receive(client, 8) == number[::-1]
        # The client's side first: it keeps TIME_WAIT, and the host nothing.
        client.close()
        assert sock.recv(1) == b""
        sock.close()
    assert not clients


if __name__ == "__main__":
    main()
