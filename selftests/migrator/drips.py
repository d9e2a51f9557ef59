#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Connections with much to be sent move to a peer that takes it slowly, or not whole.

drips.py drips LOG
    host2 is a peer that reads STATE in drips (peer.py drips): each migration
    is over in its time all the same, those that wait for their turn as well,
    and the connections work as before
drips.py late LOG
    host2 is a peer that takes nothing until nobody waits any more (peer.py
    late): of what was begun it gets the rest, and then ABORT
drips.py signals
    signals keep the thread that migrates from waiting inside of the kernel's
    own functions: the connections move to host1, all bytes whole
"""

import collections
import contextlib
import json
import pathlib
import signal
import socket
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from machines import HOST2, Migrator, accepted, connect, exchange, listen, receive, wait_for  # noqa: E402
from peer import ABORT, PREPARE, STATE  # noqa: E402
from scene import SO_SNDBUFFORCE, fill, pattern  # noqa: E402

TIMEOUT = 2000


def loaded(listener, data):
    """Both ends of a connection whose server has much to send to a client that does not read yet."""
    client = connect()
    served = accepted(listener)
    served.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 6 << 20)
    assert fill(served, data) == len(data)
    return client, served


def none_moves(pairs, timeout):
    """Migrates all at once, for which there is one connection to the peer."""
    answers = []
    movers = [threading.Thread(target=lambda sock=served: answers.append(Migrator("lbu").migrate(sock, HOST2, timeout)),
                               daemon=True) for _, served in pairs]
    for mover in movers:
        mover.start()
    for mover in movers:
        mover.join(40)
        assert not mover.is_alive(), "a connection is frozen for as long as the peer likes"
    print(collections.Counter(answer.text for answer in answers))
    assert len(answers) == len(pairs) and all(answer.error for answer in answers)


def all_work(pairs, data):
    for client, served in pairs:
        assert receive(client, len(data)) == data and exchange(client, served)
        client.close()
        served.close()


def drips(log):
    with contextlib.closing(listen("lbu")) as listener:
        # Each has more than a record takes.
        data = pattern(200_000)
        pairs = [loaded(listener, data) for _ in range(12)]
        none_moves(pairs, TIMEOUT)
        ports = [client.getsockname()[1] for client, _ in pairs]
        frozen = [entry.get("freeze_ns", 0) // 1_000_000 for entry in Migrator("lbu").migrations()
                  if entry["client_port"] in ports]
        print("frozen for so many ms:", *sorted(frozen))
        # Twice as long as they may be, for a machine that is busy.
        assert 0 < max(frozen) < 4 * TIMEOUT
        assert pathlib.Path(log).read_text(encoding="ascii").startswith("reads in drips\n")
        all_work(pairs, data)


def late(log):
    with contextlib.closing(listen("lbu")) as listener:
        data = pattern(200_000)
        pairs = [loaded(listener, data) for _ in range(6)]
        none_moves(pairs, 500)
        all_work(pairs, data)
    heard = pathlib.Path(log)
    assert wait_for(heard.read_bytes), "the connection to the peer stays"
    print(heard.read_text(encoding="ascii"))
    # Over one connection, each record whole.
    migrations = json.loads(heard.read_text(encoding="ascii").splitlines()[0])
    assert len(migrations) == len(pairs) and all(kinds[-1] == ABORT for kinds in migrations)
    assert {kind for kinds in migrations for kind in kinds} == {PREPARE, STATE, ABORT}


def signals():
    signal.signal(signal.SIGALRM, lambda *_: None)
    lbu, data = Migrator("lbu"), pattern(3_000_000)
    with contextlib.closing(listen("lbu")) as listener, contextlib.closing(listen("host1")) as there:
        for _ in range(3):
            client, served = loaded(listener, data)
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
            answer = lbu.migrate(served, timeout=20000)
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert answer.error == 0, answer.text
            served.close()
            moved = accepted(there)
            assert receive(client, len(data)) == data and exchange(client, moved)
            client.close()
            moved.close()


if __name__ == "__main__":
    {"drips": drips, "late": late, "signals": signals}[sys.argv[1]](*sys.argv[2:])
