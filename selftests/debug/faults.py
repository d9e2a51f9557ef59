#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Migrations during which one memory allocation fails: the first, the second, and so on to the last.

faults.py origin | target
    whose allocations: those of the program that asks for the migration, or those of the target's kernel
    thread that serves the origin

Needs the kernel's fault injection (fail-nth in Documentation/fault-injection of the kernel). After each
migration, whichever way it went, every byte has to arrive, in both directions: by the host if the kernel
said that the connection moved, by the classifier if it said that it stayed.
"""

import argparse
import collections
import contextlib
import os
import pathlib
import socket
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "migrator"))
import machines  # noqa: E402
from machines import accepted, genl, listen, machine, receive  # noqa: E402

# The thread that serves the LBU's connection in host1.
SERVING = "nlb-in/10.0.2.1"
# More than any migration needs: the loop ends when there was nothing left to fail.
MOST = 2000
REQUEST, MORE, ANSWER = bytes(range(250)) * 40, b"more" * 500, b"answer" * 500


def every_kind_of_allocation():
    debugfs = pathlib.Path("/sys/kernel/debug")
    for name in ("failslab", "fail_page_alloc"):
        (debugfs / name / "verbose").write_text("0")
        (debugfs / name / "ignore-gfp-wait").write_text("N")
    (debugfs / "fail_page_alloc" / "ignore-gfp-highmem").write_text("N")
    (debugfs / "fail_page_alloc" / "min-order").write_text("0")


def serving_thread():
    for status in pathlib.Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            if status.read_text().rstrip("\n") == SERVING:
                return status.parent / "fail-nth"
    return None


class World:
    def __init__(self):
        self.server, self.classifier = listen("host1"), listen("lbu")
        self.migrator = machines.Migrator("lbu")

    def connect(self):
        client = machines.connect()
        served = accepted(self.classifier)
        client.sendall(REQUEST)
        return client, served

    def migrate(self, served):
        """None if it went through, else what was said."""
        try:
            answer = self.migrator.migrate(served, timeout=2000)
        except OSError as error:
            # The request itself could not be sent or answered, and its socket may be in the middle of that.
            self.migrator = machines.Migrator("lbu")
            return f"netlink: {error.strerror}"
        return f"{genl.name_of(answer.error)}: {answer.text}" if answer.error else None

    def round(self, place, number):
        """One migration with the number-th allocation failing; 0: with none. Whether one did fail, and what was said."""
        client, served = self.connect()
        while len(served.recv(1 << 16, socket.MSG_PEEK)) < len(REQUEST):
            pass
        hit = False
        if number:
            handle = os.open(place, os.O_RDWR)
            os.write(handle, b"%d" % number)
        said = self.migrate(served)
        if number:
            hit = os.pread(handle, 32, 0).strip() == b"0"
            os.pwrite(handle, b"0", 0)
            os.close(handle)
        moved, last = self.whereabouts(served, said)
        try:
            exchange(client, last)
        except (AssertionError, OSError) as error:
            raise AssertionError(f"{said=}, {moved=}: {error!r}") from error
        for sock in (client, last, served):
            sock.close()
        return hit, said, moved

    def whereabouts(self, served, said):
        """Who has the connection now: whether it moved, and the socket."""
        if said is None:
            return True, accepted(self.server)
        if not said.startswith("netlink:"):
            return False, served
        # Nobody said what became of it. The socket does: it is dead where it was, or it is not.
        error = served.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return (True, accepted(self.server)) if error else (False, served)


def expect(sock, wanted):
    got = receive(sock, len(wanted))
    if got != wanted:
        raise AssertionError(f"{len(got)} bytes are not the {len(wanted)} that were sent")


def exchange(client, server):
    client.sendall(MORE)
    expect(server, REQUEST + MORE)
    server.sendall(ANSWER)
    expect(client, ANSWER)


def sockets():
    """Sockets and their memory, per namespace; TIME_WAIT passes by itself."""
    found = {}
    for namespace in ("client", "lbu", "host1"):
        with machine(namespace):
            for line in pathlib.Path("/proc/thread-self/net/sockstat").read_text().splitlines():
                if line.startswith("TCP:"):
                    words = line.split()
                    found[namespace] = {key: int(value) for key, value in zip(words[1::2], words[2::2]) if key != "tw"}
    return found


def settled(before):
    """The sockets now, when they have come down to what they were, or after 20 s."""
    end = time.monotonic() + 20
    while (now := sockets()) != before and time.monotonic() < end:
        time.sleep(0.2)
    return now


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("side", choices=("origin", "target"))
    side = parser.parse_args().side
    every_kind_of_allocation()
    world = World()
    if world.round(None, 0)[1] is not None:
        raise AssertionError("no migration works without a fault")
    before = settled(sockets())
    outcomes = collections.Counter()
    for number in range(1, MOST):
        place = "/proc/thread-self/fail-nth" if side == "origin" else serving_thread()
        if place is None:
            # The failure before has cost the connection between the migrators; it comes back by itself.
            said = world.round(None, 0)[1]
            place = serving_thread()
            if said or place is None:
                raise AssertionError(f"after allocation {number - 1} had failed, no migration works any more: {said}")
        try:
            hit, said, moved = world.round(place, number)
        except (AssertionError, OSError) as error:
            raise AssertionError(f"allocation {number}: {error}") from error
        outcomes[said or "moved"] += hit
        print(f"# allocation {number}: {'fails' if hit else 'not reached'}, {said or 'moved'}, {moved=}", flush=True)
        if not hit:
            if said:
                raise AssertionError(f"nothing failed, and it says {said}")
            break
    else:
        raise AssertionError(f"{MOST} allocations and no end")
    for said, count in outcomes.most_common():
        print(f"# {count:4} x {said}")
    if number < 20:
        raise AssertionError(f"only {number - 1} allocations failed: is this the right thread?")
    after = settled(before)
    if after != before:
        raise AssertionError(f"sockets are left: {before} -> {after}")


if __name__ == "__main__":
    main()
