#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Migrations during which one memory allocation fails: the first, the second, and so on to the last.

faults.py SCENARIO origin | target
    what the connection is in the middle of, and whose allocations: those of the program that asks for the
    migration, or those of the target's kernel thread that serves the origin
faults.py reading
    those of a program that reads, while the kernel keeps a copy
faults.py holding
    of those that cannot wait, half fail, while the target holds early packets

Needs the kernel's fault injection (fail-nth in Documentation/fault-injection of the kernel), and from
test_faults.sh that packets with the class EXPEDITED are lost, with LOW_PRIORITY those of a HOLE's size. After each migration, whichever way it went,
every byte has to arrive, in both directions: by the host if the kernel said that the connection moved, by the
classifier if it said that it stayed.
"""

import argparse
import collections
import contextlib
import os
import pathlib
import socket
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "migrator"))
import machines  # noqa: E402
from machines import FAMILY, accepted, genl, listen, machine, receive  # noqa: E402
from scene import CLOSE_WAIT, SO_SNDBUFFORCE, Info, fill, pattern, wait_until  # noqa: E402

IPV6 = FAMILY == socket.AF_INET6
TCP, SOL = socket.IPPROTO_TCP, socket.SOL_SOCKET
CLASS = (socket.IPPROTO_IPV6, socket.IPV6_TCLASS) if IPV6 else (socket.IPPROTO_IP, socket.IP_TOS)
EXPEDITED, LOW_PRIORITY = 0xB8, 0x20
# More than any migration needs: the loop ends when there was nothing left to fail.
MOST = 2000
READ, UNREAD, HOLE, BEYOND = pattern(3000, 1), bytes(range(250)) * 40, b"hole" * 25, b"beyond" * 50
EARLY, MORE, DOWN, ANSWER = b"early" * 20, b"more" * 500, pattern(24_000, 2), b"answer" * 500
# How long the answers of the target take in test_faults.sh where there are early packets: in the middle of the
# second of them, the connection is frozen.
SLOW = 0.02
ALL = [("MIGRATION_READ_ALL", b"")]
OPTIONS = {(TCP, socket.TCP_KEEPIDLE): 700, (TCP, socket.TCP_NOTSENT_LOWAT): 12_345, (SOL, socket.SO_KEEPALIVE): 1,
           CLASS: 0x10}
DEBUGFS = pathlib.Path("/sys/kernel/debug")


def every_kind_of_allocation():
    for name in ("failslab", "fail_page_alloc"):
        (DEBUGFS / name / "verbose").write_text("0")
        (DEBUGFS / name / "ignore-gfp-wait").write_text("N")
    (DEBUGFS / "fail_page_alloc" / "ignore-gfp-highmem").write_text("N")
    (DEBUGFS / "fail_page_alloc" / "min-order").write_text("0")


def stay_in_memory():
    """This program's own page faults are not what shall fail."""
    threading.stack_size(1 << 18)
    current_and_future = 3
    if machines.LIBC.mlockall(current_and_future):
        raise OSError("mlockall")


@contextlib.contextmanager
def half_of_those_that_cannot_wait():
    def write(**settings):
        for name, value in settings.items():
            (DEBUGFS / "failslab" / name.replace("_", "-")).write_text(value)
    write(ignore_gfp_wait="Y", interval="1", times="-1", probability="50")
    try:
        yield
    finally:
        write(probability="0", times="1", ignore_gfp_wait="N")


class Fault:
    """The number-th allocation of a thread fails meanwhile; 0: none. Whether it has, is known afterwards."""

    def __init__(self, place, number):
        self.place, self.number, self.hit = place, number, False

    def __enter__(self):
        if self.number:
            self.handle = os.open(self.place, os.O_RDWR)
            os.write(self.handle, b"%d" % self.number)
        return self

    def __exit__(self, *_):
        if self.number:
            # A thread that has ended did so because of it.
            self.hit = True
            with contextlib.suppress(ProcessLookupError):
                self.hit = os.pread(self.handle, 32, 0).strip() == b"0"
                os.pwrite(self.handle, b"0", 0)
            os.close(self.handle)


OWN = "/proc/thread-self/fail-nth"


def serving_thread():
    """The one at the target that serves the origin's connection, the youngest if there are several."""
    found = {}
    for status in pathlib.Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            name = status.read_text().rstrip("\n")
            if name.startswith("nlb-in/") and (":" in name) == IPV6:
                found[int(status.parent.name)] = status.parent / "fail-nth"
    return found[max(found)] if found else None


class Connection:
    """Both ends, and what has yet to arrive at each."""

    def __init__(self, world):
        self.client = machines.connect()
        self.served = accepted(world.classifier)
        # What the program has read goes along.
        self.read, self.unread, self.down = b"", b"", b""
        self.fin, self.early, self.attrs, self.options = False, b"", [], {}
        # In the middle of what it should be.
        self.is_there = True

    def arrived(self):
        return Info(self.served).bytes_received

    def send(self, data):
        before = self.arrived()
        self.client.sendall(data)
        wait_until("it has arrived", lambda: self.arrived() == before + len(data))
        self.unread += data

    def reply(self):
        """Some of it is on its way, where it is lost; the rest waits."""
        self.served.setsockopt(SOL, SO_SNDBUFFORCE, 1 << 18)
        self.served.setsockopt(*CLASS, EXPEDITED)
        sent = fill(self.served, DOWN)
        info = Info(self.served)
        assert sent == len(DOWN) and info.unacked and info.notsent, f"{sent=} {info.unacked=} {info.notsent=}"
        self.served.setsockopt(*CLASS, 0)
        self.served.settimeout(20)
        self.down = DOWN

    def close(self):
        self.client.shutdown(socket.SHUT_WR)
        self.fin = True

    def works(self, last, moved):
        """Wherever it is: all bytes arrive, once, in both directions."""
        self.client.setsockopt(*CLASS, 0)
        if moved:
            for option, value in self.options.items():
                assert last.getsockopt(*option) == value, f"{option} is {last.getsockopt(*option)}"
        wanted = (self.read if moved and self.attrs else b"") + self.unread + self.early
        if not self.fin:
            self.client.sendall(MORE)
            wanted += MORE
        expect(last, wanted)
        if self.fin and last.recv(1):
            raise AssertionError("bytes where the end should be")
        last.sendall(ANSWER)
        expect(self.client, self.down + ANSWER)
        for sock in (self.client, last, self.served):
            sock.close()


def expect(sock, wanted):
    got = receive(sock, len(wanted))
    if got != wanted:
        raise AssertionError(f"{len(got)} bytes are not the {len(wanted)} that were sent")


def unread(connection):
    """Bytes that nobody has read."""
    connection.send(UNREAD)


def closed(connection):
    """In CLOSE_WAIT, with unread bytes; the reply in flight, and in part not sent."""
    connection.send(UNREAD)
    connection.close()
    wait_until("the FIN has arrived", lambda: Info(connection.served).state == CLOSE_WAIT)
    connection.reply()


def all_queues(connection):
    """Read and kept, unread, beyond a hole with the FIN, in flight, not sent; and options."""
    client, served = connection.client, connection.served
    client.setsockopt(TCP, socket.TCP_NODELAY, 1)
    connection.send(READ)
    expect(served, READ)
    connection.read, connection.unread, connection.attrs = READ, b"", ALL
    connection.send(UNREAD)
    connection.reply()
    for option, value in OPTIONS.items():
        served.setsockopt(*option, value)
    served.setsockopt(TCP, socket.TCP_CONGESTION, b"reno")
    # getsockopt() takes the first four letters for a number.
    connection.options = OPTIONS | {(TCP, socket.TCP_CONGESTION): int.from_bytes(b"reno", sys.byteorder)}
    client.setsockopt(*CLASS, EXPEDITED)
    client.sendall(HOLE)
    client.setsockopt(*CLASS, LOW_PRIORITY)
    client.sendall(BEYOND)
    connection.close()
    # Nor does it come again before it is known how the migration ends.
    client.setsockopt(*CLASS, EXPEDITED)
    # Where the program was slow, the client's timer was faster.
    wait_until("what is beyond the hole has arrived",
               lambda: Info(served).rcv_ooopack or connection.arrived() > len(READ + UNREAD))
    connection.is_there = connection.arrived() == len(READ + UNREAD)
    connection.unread += HOLE + BEYOND


def early(connection):
    """Unread bytes, and more that come while it is frozen."""
    connection.client.setsockopt(TCP, socket.TCP_NODELAY, 1)
    connection.send(UNREAD)
    connection.early = EARLY * 12


class World:
    def __init__(self, scenario):
        self.scenario = scenario
        self.server, self.classifier = listen("host1"), listen("lbu")
        self.migrator, self.host = machines.Migrator("lbu"), machines.Migrator("host1")

    def connect(self):
        for _ in range(20):
            connection = Connection(self)
            self.scenario(connection)
            if connection.is_there:
                return connection
            connection.works(connection.served, False)
        raise AssertionError("this machine is too slow")

    def migrate(self, connection, attrs):
        """None if it went through, else what was said."""
        try:
            answer = self.migrator.migrate(connection.served, timeout=2000, attrs=attrs)
        except OSError as error:
            # The request itself could not be sent or answered, and its socket may be in the middle of that.
            self.migrator = machines.Migrator("lbu")
            return f"netlink: {error.strerror}"
        return f"{genl.name_of(answer.error)}: {answer.text}" if answer.error else None

    def round(self, place=None, number=0, beside=contextlib.nullcontext):
        """One migration with the number-th allocation failing; 0: with none. Whether one did fail, and what was said."""
        connection = self.connect()

        def send_early():
            time.sleep(SLOW * 1.5)
            with beside():
                for _ in range(len(connection.early) // len(EARLY)):
                    connection.client.sendall(EARLY)

        sender = threading.Thread(target=send_early)
        if connection.early:
            sender.start()
        with Fault(place, number) as fault:
            said = self.migrate(connection, connection.attrs)
        if connection.early:
            sender.join()
        moved, last = self.whereabouts(connection.served, said)
        try:
            connection.works(last, moved)
        except (AssertionError, OSError) as error:
            raise AssertionError(f"{said=}, {moved=}: {error!r}") from error
        return fault.hit, said, moved

    def whereabouts(self, served, said):
        """Who has the connection now: whether it moved, and the socket."""
        if said is None:
            return True, accepted(self.server)
        if not said.startswith("netlink:"):
            return False, served
        # Nobody said what became of it. The socket does: it is dead where it was, or it is not.
        error = served.getsockopt(SOL, socket.SO_ERROR)
        return (True, accepted(self.server)) if error else (False, served)


def sockets():
    """Sockets and their memory, per namespace; TIME_WAIT passes by itself."""
    found = {}
    for namespace in ("client", "lbu", "host1"):
        with machine(namespace):
            for name in ("sockstat", "sockstat6"):
                for line in pathlib.Path("/proc/thread-self/net", name).read_text().splitlines():
                    if line.startswith("TCP"):
                        words = line.split()
                        found[namespace, name] = {key: int(value) for key, value in zip(words[1::2], words[2::2])
                                                  if key != "tw"}
    return found


def settled(before):
    """The sockets now, when they have come down to what they were, or after 20 s."""
    end = time.monotonic() + 20
    while (now := sockets()) != before and time.monotonic() < end:
        time.sleep(0.2)
    return now


def one_after_the_other(world, side):
    """Migrations until there is no allocation left to fail."""
    outcomes, waited = collections.Counter(), 0
    for number in range(1, MOST):
        place = OWN if side == "origin" else serving_thread()
        if place is None:
            # The failure before has cost the connection between the migrators; it comes back by itself.
            _, said, _ = world.round()
            place = serving_thread()
            if said or place is None:
                raise AssertionError(f"after allocation {number - 1} had failed, no migration works any more: {said}")
        held = world.host.counters()["held"]
        try:
            hit, said, moved = world.round(place, number)
        except (AssertionError, OSError) as error:
            raise AssertionError(f"allocation {number}: {error}") from error
        held = world.host.counters()["held"] - held
        outcomes[said or "moved"] += hit
        waited += moved and held > 0
        print(f"# allocation {number}: {'fails' if hit else 'not reached'}, {said or 'moved'}, {moved=}, {held=}", flush=True)
        if not hit:
            if said:
                raise AssertionError(f"nothing failed, and it says {said}")
            break
    else:
        raise AssertionError(f"{MOST} allocations and no end")
    if number < 20:
        raise AssertionError(f"only {number - 1} allocations failed: is this the right thread?")
    if world.scenario is early:
        print(f"# {waited} connections moved with packets that were early")
        if waited * 2 < outcomes["moved"]:
            raise AssertionError("packets were early too seldom")
    return outcomes


def reading(world):
    """What could not be kept is not there, and that is known; the reader does not notice."""
    outcomes = collections.Counter()
    drops = world.migrator.counters()["drop-keep-total"]
    # After some of them, a later read finds all bytes still there, and keeps them. Where each allocation is differs from
    # one time to the next, for a read may have to acknowledge: one pass over all of them may miss some.
    for _ in range(5):
        every_read(world, outcomes)
        outcomes["drop-keep-total"] = world.migrator.counters()["drop-keep-total"] - drops
        if outcomes["drop-keep-total"] >= 4 and outcomes["not kept"] and outcomes["kept"]:
            return outcomes
    raise AssertionError(f"{outcomes}: is this the right thread?")


def every_read(world, outcomes):
    """Reads in which one allocation fails, the next one each time, until there are no more."""
    buffer = memoryview(bytearray(len(UNREAD)))
    for number in range(1, MOST):
        connection = world.connect()
        at = 0
        with Fault(OWN, number) as fault:
            # Each needs more memory than there is already.
            for size in (100, 1000, 3000):
                at += connection.served.recv_into(buffer[at:at + size])
        assert buffer[:at] == UNREAD[:at], "wrong bytes were read"
        connection.unread, connection.attrs = UNREAD[at:], ALL
        said = world.migrate(connection, ALL)
        print(f"# allocation {number}: {'fails' if fault.hit else 'not reached'}, {said or 'kept'}", flush=True)
        if said:
            assert fault.hit and said.startswith("ENODATA"), said
            connection.attrs = []
            said = world.migrate(connection, [])
            assert not said, said
            outcomes["not kept"] += 1
        else:
            connection.read = UNREAD[:at]
            outcomes["kept all the same" if fault.hit else "kept"] += 1
        connection.works(accepted(world.server), True)
        if not fault.hit:
            break
    else:
        raise AssertionError(f"{MOST} allocations and no end")


def holding(world):
    outcomes = collections.Counter()
    before = world.host.counters()
    for _ in range(30):
        _, said, moved = world.round(beside=half_of_those_that_cannot_wait)
        outcomes[said or "moved"] += 1
        print(f"# {said or 'moved'}, {moved=}", flush=True)
    after = world.host.counters()
    for name in ("held", "held-delivered", "drop-hold-total"):
        outcomes[name] = after[name] - before[name]
        if not outcomes[name]:
            raise AssertionError(f"{name} is what it was")
    return outcomes


def nothing_kept(world):
    for side, name in ((world.host, "held-now"), (world.migrator, "kept-now")):
        if not machines.wait_for(lambda side=side, name=name: side.counters()[name] == 0):
            raise AssertionError(f"{name} is {side.counters()[name]}")


SCENARIOS = {"unread": unread, "closed": closed, "all-queues": all_queues, "early": early,
             "reading": unread, "holding": early}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("side", nargs="?", choices=("origin", "target"))
    args = parser.parse_args()
    every_kind_of_allocation()
    world = World(SCENARIOS[args.scenario])
    if (said := world.round()[1]) is not None:
        raise AssertionError(f"no migration works without a fault: {said}")
    # Those of that round end.
    time.sleep(1)
    before = sockets()
    stay_in_memory()
    if args.side:
        outcomes = one_after_the_other(world, args.side)
    else:
        outcomes = {"reading": reading, "holding": holding}[args.scenario](world)
    for said, count in outcomes.most_common():
        print(f"# {count:4} x {said}")
    nothing_kept(world)
    after = settled(before)
    if after != before:
        raise AssertionError(f"sockets are left: {before} -> {after}")


if __name__ == "__main__":
    main()
