#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Messages between the migrators that come late, twice or never, and packets of the client that come early.

lost.py [--times N] [--beside M]: scenarios as crowd.main() plays them, at most PEERS beside each other. Each
connection moves by a peer of its own (peers in test_lost.sh): the messages of one do not wait for those of another.
While it is on its way, the client goes on sending.
"""

import functools
import pathlib
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "migrator"))
import crowd  # noqa: E402
from machines import Migrator, genl  # noqa: E402
from scene import Info, Scene, expect, expect_end, loss, pattern, run, wait_until  # noqa: E402

PEERS = 50
# Types of records (migration-protocol.rst), and who says them.
PREPARE, READY, STATE, STAGED, COMMIT, INJECTED, CLOSED = 2, 3, 5, 6, 7, 8, 12
BY_ORIGIN = PREPARE, STATE, COMMIT
NAMES = {"PREPARE": PREPARE, "READY": READY, "STATE": STATE, "STAGED": STAGED, "COMMIT": COMMIT,
         "INJECTED": INJECTED}
# Patience in milliseconds: longer than a record is lost here; such that COMMIT goes a second time soon; for a connection
# to come to the host, but not for long; and not even for that.
LONG, AGAIN, SHORT, NONE = 20_000, 12_000, 4000, 1000


def record(kind):
    """Segments that begin with such a record are lost at the LBU. TCP sends them again, and nothing behind them passes."""
    hook, port = ("output", "dport") if kind in BY_ORIGIN else ("input", "sport")
    return loss("lbu", hook, f"tcp {port} 4770 @ih,40,8 {kind}")


@functools.cache
def migrator(machine):
    """Of which one at a time may ask."""
    return Migrator(machine)


def counters(machine, *names):
    """Of the migrator there, when all have come here."""
    found = crowd.once(lambda _: migrator(machine).counters())
    return [found[name] for name in names]


class Request(threading.Thread):
    """The request to move a connection, which waits for its answer."""

    def __init__(self, family, sock, peer, timeout):
        super().__init__(daemon=True)
        self.family, self.answer = family, None
        self.attrs = [("MIGRATION_FD", genl.u32(sock.fileno())), ("MIGRATION_PEER_ADDR", genl.ip(peer)),
                      ("MIGRATION_TIMEOUT", genl.u32(timeout))]
        self.start()

    def run(self):
        self.answer = self.family.do("MIGRATE", self.attrs)

    def error(self):
        """None if the connection has moved, else why not."""
        self.join(2 * LONG / 1000)
        assert self.answer, "the request hangs"
        return f"{genl.name_of(self.answer.error)}: {self.answer.text}" if self.answer.error else None


class Moving:
    """A connection with unread bytes, about to move."""

    def __init__(self, timeout=LONG):
        self.scene = Scene()
        self.client, self.origin = self.scene.connect()
        self.name = self.client.getsockname()
        self.up = pattern(3000, crowd.number() + 1)
        self.client.sendall(self.up)
        wait_until("the bytes have arrived", lambda: Info(self.origin).bytes_received == len(self.up))
        self.request = Request(self.scene.migrator, self.origin, f"10.1.{crowd.number() % PEERS}.2", timeout)

    def send(self, data):
        self.client.sendall(data)
        self.up += data

    def until(self, here, there=None):
        """All have come to these phases at the LBU and at the host, and are not further."""
        def all_are(ports):
            for machine, role, phase in ("lbu", "ORIGIN", here), ("host1", "TARGET", there):
                if phase:
                    found = functools.partial(phases, migrator(machine), role, ports)
                    wait_until(lambda: f"all are {phase} at {machine}, but {found()}", lambda: found() == {phase})
        crowd.once(all_are, self.name[1])

    def moved(self):
        """It is at the host now, with all its bytes, and works."""
        error = self.request.error()
        assert error is None, error
        self.origin.close()
        there = self.scene.listener.accept(self.name)
        there.settimeout(self.client.gettimeout())
        expect(there, self.up)
        return there

    def stayed(self, text):
        """It is still at the LBU, with all its bytes, and works."""
        error = self.request.error()
        assert error and text in error, error
        expect(self.origin, self.up)
        self.scene.finish(self.client, self.origin)


def phases(where, role, ports):
    """Those of the last migrations of these ports of the client."""
    ids = where.family.ids
    names = {value: name[len("NLB_MIGRATOR_PHASE_"):].lower() for name, value in ids.items()
             if name.startswith("NLB_MIGRATOR_PHASE_")}
    last = {entry["client_port"]: names[entry["phase"]] for entry in where.migrations()
            if entry["role"] == ids[f"NLB_MIGRATOR_ROLE_{role}"]}
    return {last.get(port) for port in ports}


def swallow(links_are, others):
    """From now on, all that goes over the connections that the migrators have now is lost at the LBU, and nothing else."""
    lines = run("lbu", "ss -Htn state established dport = :4770").splitlines()
    links = ", ".join(line.split()[2].rpartition(":")[2] for line in lines)
    run("lbu", "nft -f -", f"flush chain inet loss loss\nadd rule inet loss loss {links_are} {{ {links} }} {others} drop")


def hang_up(*machines):
    """These end the connections between the migrators."""
    own = {"lbu": 2, "host1": 1}
    for wanted in False, True:
        for machine in machines:
            for number in range(PEERS):
                migrator(machine).peer(f"10.1.{number}.{own[machine]}", wanted)


def with_new_connections(scenario):
    """The next one begins with new connections between the migrators. What is lost on them may have gone on for so long
    that only one side takes them for alive, or that TCP is about to give up: that would cost a migration its time."""
    def play(*arguments):
        scenario(*arguments)
        crowd.once(lambda _: hang_up("lbu", "host1"))
    return play


def early(*counts):
    """Segments that wait at the host for the connection, and come to it in order: one connection so many of them, the
    next so many."""
    names = "held", "held-delivered", "drop-hold-age"
    count = int(counts[crowd.number() % len(counts)])
    before = counters("host1", *names)
    with record(COMMIT):
        moving = Moving()
        moving.until("committed", "staged")
        for number in range(count):
            moving.send(pattern(100, number))
        everything = crowd.once(sum, count)
        crowd.once(lambda _: wait_until("all are held",
                                        lambda: migrator("host1").counters()["held"] - before[0] >= everything))
    there = moving.moved()
    held, delivered, aged = (after - then for after, then in zip(counters("host1", *names), before))
    crowd.note(f"{delivered} of {held}")
    # On a machine that is busy, some wait for too long, and come once more.
    assert held == delivered + aged and delivered * 2 >= everything, f"{everything} early: {held=}, {delivered=}, {aged=}"
    moving.scene.finish(moving.client, there)
    moving.until("closed")


def rolled_back(name):
    """A record before COMMIT never comes: the connection stays."""
    with record(NAMES[name]):
        moving = Moving(NONE)
        moving.send(b"while it is on its way")
        moving.stayed("no answer")


def late(name):
    """A record comes late. The client's packets go to the host meanwhile."""
    with record(NAMES[name]):
        moving = Moving()
        moving.until("committed", {"COMMIT": "staged", "INJECTED": "active"}[name])
        moving.send(b"and so on")
    moving.scene.finish(moving.client, moving.moved())
    moving.until("closed")


def injected_last():
    """The connection has come to its end when INJECTED comes: CLOSED is right behind."""
    with record(INJECTED):
        moving = Moving()
        moving.until("committed", "active")
        there = moving.scene.listener.accept(moving.name)
        there.settimeout(moving.client.gettimeout())
        expect(there, moving.up)
        moving.scene.finish(moving.client, there)
        moving.until("committed", "closed")
    assert moving.request.error() is None, moving.request.error()
    moving.until("closed")


def injected_lost():
    """A connection swallows INJECTED; COMMIT goes once more, by another one, and the answer is the same."""
    repeated = counters("lbu", "commits-repeated")[0]
    with record(INJECTED):
        moving = Moving(AGAIN)
        moving.until("committed", "active")
        moving.send(b"and so on")
        crowd.once(lambda _: swallow("tcp dport", "tcp sport 4770"))
        there = moving.moved()
    assert counters("lbu", "commits-repeated")[0] - repeated >= crowd.size()
    moving.scene.finish(moving.client, there)
    moving.until("closed")


def commit_lost(seconds="0"):
    """The host does not hear it, hangs up, and gives up; nobody reaches it for so many seconds. It says so when it is
    asked."""
    with record(COMMIT):
        moving = Moving()
        moving.until("committed", "staged")
        moving.send(b"and so on")
        crowd.once(lambda _: hang_up("host1"))
        moving.until("committed", "aborted")
        time.sleep(float(seconds))
    moving.stayed("origin lost")


def commit_doubled():
    """A connection swallows COMMIT, which goes by another one then. In the end the first comes, too."""
    with record(COMMIT):
        moving = Moving(AGAIN)
        moving.until("committed", "staged")
        moving.send(b"and so on")
        crowd.once(lambda _: swallow("tcp sport", "tcp dport 4770"))
        there = moving.moved()
    moving.scene.finish(moving.client, there)
    moving.until("closed")


def closed_late():
    """The LBU lets go of the connection when it hears of its end."""
    moving = Moving()
    there = moving.moved()
    with record(CLOSED):
        moving.scene.finish(moving.client, there)
        moving.until("active", "closed")
    moving.until("closed")


def never():
    """Nobody hears from the host any more: the client is told, and the host as soon as it can be."""
    with record(INJECTED):
        moving = Moving(SHORT)
        there = moving.scene.listener.accept(moving.name)
        there.settimeout(moving.client.gettimeout())
        moving.send(b"and so on")
        expect(there, moving.up)
        error = moving.request.error()
        assert error and "ECONNRESET" in error and "no answer" in error, error
        try:
            expect_end(moving.client)
            raise AssertionError("the client has seen the end instead of a reset")
        except ConnectionResetError:
            pass
    try:
        expect_end(there)
        raise AssertionError("the server has seen the end instead of an error")
    except ConnectionError:
        pass
    for sock in (moving.client, moving.origin, there):
        sock.close()


if __name__ == "__main__":
    crowd.main({"never": never} | {scenario.__name__: with_new_connections(scenario) for scenario in (
        early, rolled_back, late, injected_last, injected_lost, commit_lost, commit_doubled, closed_late)})
