#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""A migration whose target is silent keeps nobody waiting but the thread that asked for it.

waits.py COMMAND...
    COMMAND lets the target speak again. LBU and host1 have a connection between their migrators, over which
    nothing comes through; at host1, a server sends back what it gets
"""

import contextlib
import copy
import errno
import pathlib
import subprocess
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from machines import VIP, Migrator, accepted, connect, genl, listen, receive, wait_for  # noqa: E402

TEXT = bytes(range(250)) * 4


def main():
    mover, watcher = Migrator("lbu"), Migrator("lbu")
    listener = listen("lbu", address=VIP)
    client = connect()
    served = accepted(listener)
    client.sendall(TEXT)
    phase = lambda: watcher.phase(client.getsockname()[1])  # noqa: E731

    def migrate():
        # Its socket is closed before it could read the answer.
        with contextlib.suppress(OSError):
            mover.migrate(served, timeout=20000)

    thread = threading.Thread(target=migrate)
    thread.start()
    assert wait_for(lambda: phase() == "preparing"), f"the migration is {phase()}"

    # Another request over its socket, by another thread, which also reads what there is of the answer.
    answer = copy.copy(mover.family).dump("PEER_GET")
    assert answer.error == errno.EBUSY, f"a second dump: {genl.name_of(answer.error)}"
    assert phase() == "preparing", f"after the second dump the migration is {phase()}"

    # To register a family is to keep everybody out of generic netlink who comes after those that are at work.
    if subprocess.run(["modprobe", "-n", "psample"], stderr=subprocess.DEVNULL, check=False).returncode == 0:
        subprocess.run(["modprobe", "psample"], check=True)
        subprocess.run(["rmmod", "psample"], check=True)
        assert phase() == "preparing", f"after a module was loaded the migration is {phase()}"
    else:
        print("# this kernel has no module psample")

    # Nobody wants its answer any more, and it goes on.
    mover.family.sock.close()
    assert phase() == "preparing", f"with its socket closed the migration is {phase()}"
    subprocess.run(sys.argv[1:], check=True)
    assert wait_for(lambda: phase() == "active"), f"at the end the migration is {phase()}"
    thread.join()
    client.sendall(TEXT)
    assert receive(client, 2 * len(TEXT)) == 2 * TEXT, "not what was sent comes back"


if __name__ == "__main__":
    main()
