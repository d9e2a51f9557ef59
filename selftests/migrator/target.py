#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""A target that is played by hand: it says HELLO, and else what the test has it say, when the test wants it.

target.py owed   an ABORT that is owed is told over a connection that was there already, and told once over each
target.py busy   COMMIT cannot be repeated, for another one is sending: the connection stands still no longer for that

Both are about the LBU as an origin, whose unauthenticated peer is host2. Run by test_doubt.sh.
"""

import collections
import contextlib
import errno
import pathlib
import socket
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import peer  # noqa: E402
from drips import loaded  # noqa: E402
from machines import (HOST2, VIP, Migrator, accepted, connect, exchange, genl, listen, machine,  # noqa: E402
                      receive, with_sysctl)
from peer import ABORT, PREPARE, READY, STATE  # noqa: E402
from scene import expect_end, pattern, wait_until  # noqa: E402

STAGED, COMMIT, ABORTED = 6, 7, 11
# What was said over which connection, the first one being 0, about which migration.
Said = collections.namedtuple("Said", "link kind number")


class Target:
    """All connections of the LBU's migrator to it, and what comes over them."""

    def __init__(self, name="host2", address=HOST2):
        with machine(name):
            self.listener = peer.slow_reader(address)
        self.links, self.heard, self.begun, self.slow = [], [], set(), set()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            link, _ = self.listener.accept()
            link.sendall(peer.hello())
            self.links.append(link)
            threading.Thread(target=self.read, args=(link, len(self.links) - 1), daemon=True).start()

    def read(self, link, number):
        with contextlib.suppress(OSError):
            while record := peer.receive(link):
                kind, migration, _ = record
                self.heard.append(Said(number, kind, migration))
                # Enough of it for TCP not to be silent: a record of 64 KiB takes six seconds.
                while number in self.slow and link.recv(2048):
                    time.sleep(0.2)

    def say(self, link, kind, migration):
        self.links[link].sendall(peer.record(kind, b"", migration))

    def hang_up(self, link):
        # Not close(), for another thread is reading.
        self.links[link].shutdown(socket.SHUT_RDWR)

    def until(self, link, kind, migration):
        said = Said(link, kind, migration)
        wait_until(lambda: f"{said} among {self.heard}", lambda: said in self.heard)

    def prepared(self, link):
        """The migration that was begun last, by this connection."""
        def new():
            return [said for said in list(self.heard) if said.kind == PREPARE and said.number not in self.begun]
        wait_until("PREPARE comes", new)
        (said,) = new()
        assert said.link == link, f"{said}, expected over {link}"
        self.begun.add(said.number)
        return said.number


class Moving(threading.Thread):
    """A connection of which the LBU is asked to move it."""

    def __init__(self, pair, timeout):
        super().__init__(daemon=True)
        self.client, self.served = pair
        self.timeout, self.answer = timeout, None
        self.migrator = Migrator("lbu")
        self.migrator.family.sock.settimeout(60)
        self.start()

    def run(self):
        self.answer = self.migrator.migrate(self.served, HOST2, self.timeout)

    def failed(self, number, text):
        self.join(60)
        assert self.answer, "the request hangs"
        assert self.answer.error == number and text in self.answer.text, \
            f"{genl.name_of(self.answer.error)}: {self.answer.text}"

    def entry(self):
        port = self.client.getsockname()[1]
        return next(entry for entry in self.migrator.migrations() if entry["client_port"] == port)

    def works(self):
        assert exchange(self.client, self.served), "the connection does not work any more"
        self.client.close()
        self.served.close()

    def was_reset(self):
        try:
            expect_end(self.client)
            raise AssertionError("the client has seen the end instead of a reset")
        except ConnectionResetError:
            pass


def pair_of(listener):
    client = connect()
    return client, accepted(listener)


def silent(target, listener, commits, timeout, staged_after=0):
    """A migration to whose COMMIT there is no answer, however often it is sent; its number. (It goes over another
    connection each quarter of the time.)"""
    moving = Moving(pair_of(listener), timeout)
    number = target.prepared(0)
    target.say(0, READY, number)
    target.until(0, STATE, number)
    time.sleep(staged_after)
    target.say(0, STAGED, number)
    for link in range(commits):
        target.until(link, COMMIT, number)
    return moving, number


def another_link(target, listener, pair, link):
    """Somebody finds the last connection, with this number, silent, and so another migration goes by the next one."""
    impatient = Moving(pair_of(listener), 10)
    target.prepared(link)
    impatient.failed(errno.ETIMEDOUT, "no answer")
    other = Moving(pair, 30_000)
    return impatient, other, target.prepared(link + 1)


def owed():
    timeout = 12_000
    with contextlib.closing(listen("lbu", address=VIP)) as listener:
        target = Target()
        moving, number = silent(target, listener, 4, timeout)
        impatient, other, _ = another_link(target, listener, pair_of(listener), 3)
        assert Said(3, ABORT, number) not in target.heard, "this machine is too slow: it is over already"
        # It has not used this one, which does not come after it either.
        moving.failed(errno.ECONNRESET, "no answer")
        moving.was_reset()
        target.until(3, ABORT, number)
        target.until(4, ABORT, number)
        # The LBU looks each second at what it owes.
        time.sleep(4)
        assert target.heard.count(Said(4, ABORT, number)) == 1, target.heard
        target.hang_up(4)
        other.failed(errno.ECONNABORTED, "connection to the target lost")
        # There is none now, so it sets one up.
        target.until(5, ABORT, number)
        target.say(5, ABORTED, number)
        time.sleep(4)
        assert target.heard.count(Said(5, ABORT, number)) == 1, target.heard
        target.hang_up(5)
        time.sleep(5)
        assert len(target.links) == 6, "it has connected, and owes nothing any more"
        impatient.works()
        last = Moving((other.client, other.served), 4000)
        target.prepared(6)
        last.failed(errno.ETIMEDOUT, "no answer")
        assert Said(6, ABORT, number) not in target.heard, target.heard
        last.works()


def busy():
    timeout, data = 8000, pattern(2_000_000)
    # What is sent does not go into the socket's buffer, but little by little.
    with with_sysctl("lbu", "ipv4/tcp_wmem", "4096 16384 16384"), contextlib.closing(listen("lbu")) as listener:
        target = Target()
        before = Migrator("lbu").counters()["commits-repeated"]
        moving, number = silent(target, listener, 3, timeout, staged_after=timeout / 2000)
        impatient, first, large = another_link(target, listener, loaded(listener, data), 2)
        # Two of them take turns, so that a third one waits for twelve seconds.
        second = Moving(loaded(listener, data), 30_000)
        target.say(3, READY, target.prepared(3))
        target.slow.add(3)
        target.say(3, READY, large)
        wait_until("both are sending", lambda: {said.kind for said in target.heard if said.link == 3} >= {STATE})
        assert moving.is_alive(), "this machine is too slow: it is over already"
        moving.failed(errno.ECONNRESET, "no answer")
        moving.was_reset()
        frozen = moving.entry()["freeze_ns"] / 1e6
        print(f"frozen for {frozen:.0f} ms")
        assert frozen <= 2 * timeout, "for longer than it may be"
        assert Migrator("lbu").counters()["commits-repeated"] - before == 2, "COMMIT has gone a third time"
        assert first.is_alive() and second.is_alive() and len(target.links) == 4, "the others are not sending any more"
        target.hang_up(3)
        for other in first, second:
            other.join(60)
            assert other.answer.error, "it has moved"
            assert receive(other.client, len(data)) == data
            other.works()
        impatient.works()


if __name__ == "__main__":
    {"owed": owed, "busy": busy}[sys.argv[1]]()
