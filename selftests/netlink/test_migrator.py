#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Every command of the family nlb-migrator, with good and with bad attributes.

What `migrate` does with a connection is tested in migrator/; here, what it
refuses without one.
"""

import errno
import pathlib
import socket
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import genl  # noqa: E402
from genl import Case, Request, be16, ip, u32  # noqa: E402

KEY = [("PEER_ADDR", ip("127.0.0.2"))]
PEER = KEY + [("PEER_PORT", be16(4770))]


def replaced(attrs, name, value):
    return [(key, value if key == name else old) for key, old in attrs]


def main():
    subprocess.run("modprobe nlb_migrator && ip link set lo up", shell=True, check=True)
    ktap = genl.Ktap()
    migrator = genl.Family("nlb-migrator")
    stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    stream.set_inheritable(True)
    datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener = socket.create_server(("127.0.0.1", 0))
    migrate = [("MIGRATION_FD", u32(stream.fileno())), ("MIGRATION_PEER_ADDR", ip("127.0.0.2")),
               ("MIGRATION_TIMEOUT", u32(100))]
    by_tuple = [("MIGRATION_CLIENT_ADDR", ip("127.0.0.3")), ("MIGRATION_CLIENT_PORT", be16(4000)),
                ("MIGRATION_VIP_ADDR", ip("127.0.0.1")), ("MIGRATION_VIP_PORT", be16(80))] + migrate[1:]

    def state():
        """Peers by address and port; migrations by id."""
        return [sorted(str(genl.attributes(reply[4:])[:2]) for reply in migrator.dump("PEER_GET").replies),
                sorted(str(genl.attributes(reply[4:])[0]) for reply in migrator.dump("MIGRATION_GET").replies)]

    def accepted(name, command, attrs):
        answer = migrator.do(command, attrs)
        ktap.result(answer.error == 0, f"{command.lower()}: {name}", f"{genl.name_of(answer.error)} {answer.text}")
        return answer

    requests = [
        Request("PEER_NEW", PEER, optional=("PEER_PORT",)),
        Request("PEER_DEL", KEY),
        Request("PEER_GET", KEY, privileged=False),
        Request("MIGRATE", migrate, optional=("MIGRATION_TIMEOUT",)),
        Request("MIGRATE", by_tuple, optional=("MIGRATION_TIMEOUT",)),
    ]
    special = [
        Case("exists", "PEER_NEW", PEER, errno.EEXIST, "peer exists already"),
        Case("0.0.0.0", "PEER_NEW", replaced(PEER, "PEER_ADDR", ip("0.0.0.0")), errno.EINVAL,
             "not a unicast address", attr="PEER_ADDR"),
        Case("unknown", "PEER_DEL", replaced(KEY, "PEER_ADDR", ip("127.0.0.9")), errno.ENOENT, "no such peer"),
        Case("unknown", "PEER_GET", replaced(KEY, "PEER_ADDR", ip("127.0.0.9")), errno.ENOENT, "no such peer"),
        Case("unknown", "MIGRATION_GET", [("MIGRATION_ID", b"\xff" * 8), ("MIGRATION_ROLE", u32(1))], errno.ENOENT,
             "no such migration"),
        Case("role 3", "MIGRATION_GET", [("MIGRATION_ID", b"\xff" * 8), ("MIGRATION_ROLE", u32(3))], errno.EINVAL,
             "neither origin nor target", attr="MIGRATION_ROLE"),
        Case("no such connection", "MIGRATE", by_tuple, errno.ENOENT, "no such connection"),
        Case("by descriptor and by address", "MIGRATE", migrate + by_tuple[2:3], errno.EINVAL,
             "connection is named twice, by descriptor and by address", attr="MIGRATION_VIP_ADDR"),
        Case("0.0.0.0", "MIGRATE", replaced(by_tuple, "MIGRATION_CLIENT_ADDR", ip("0.0.0.0")), errno.EINVAL,
             "not a unicast address", attr="MIGRATION_CLIENT_ADDR"),
        Case("given back by address", "MIGRATE", by_tuple + [("MIGRATION_READ_DATA", b"x")], errno.EINVAL,
             "only the program itself can give back what it has read", attr="MIGRATION_READ_DATA"),
        Case("nothing given back", "MIGRATE", migrate + [("MIGRATION_READ_DATA", b"")], errno.ERANGE,
             "binary attribute size out of range", attr="MIGRATION_READ_DATA"),
        Case("too much given back", "MIGRATE", migrate + [("MIGRATION_READ_DATA", b"x" * 32768)], errno.ERANGE,
             "binary attribute size out of range", attr="MIGRATION_READ_DATA"),
        Case("timeout 0", "MIGRATE", replaced(migrate, "MIGRATION_TIMEOUT", u32(0)), errno.ERANGE,
             "integer out of range", attr="MIGRATION_TIMEOUT"),
        Case("timeout too long", "MIGRATE", replaced(migrate, "MIGRATION_TIMEOUT", u32(30001)), errno.ERANGE,
             "integer out of range", attr="MIGRATION_TIMEOUT"),
    ]

    ktap.result(state() == [[], []], "a new namespace has nothing", str(state()))
    ports = lambda: subprocess.run(["ss", "-Htln", "sport = :4770"], capture_output=True, text=True).stdout  # noqa: E731
    ktap.result(ports() == "", "no peer, no open port", ports())
    accepted("good", "PEER_NEW", PEER)
    ktap.result(ports() != "", "the first peer opens the port")
    accepted("good", "PEER_GET", KEY)
    for request in requests:
        for case in genl.hostile(request):
            genl.refuse(ktap, migrator, case, state)
    for case in special:
        genl.refuse(ktap, migrator, case, state)
    genl.unprivileged(ktap, "nlb-migrator", requests, state)

    # What is not a connection is refused by what it is.
    with open("/dev/null", "rb") as file:
        for name, fd, text in (
                ("a file", file.fileno(), "not a socket"),
                ("no descriptor", 999, "not a socket"),
                ("a descriptor out of range", 0xFFFFFFFF, "not a socket"),
                ("a UDP socket", datagram.fileno(), "not a TCP socket"),
                ("a listener", listener.fileno(), "socket is a listener, not a connection"),
                ("a socket that is not connected", stream.fileno(), "connection is not established")):
            before = state()[0]
            answer = migrator.do("MIGRATE", replaced(migrate, "MIGRATION_FD", u32(fd)))
            ktap.result(answer.error != 0 and answer.text == text and state()[0] == before,
                        f"migrate: refuses {name}", f"{genl.name_of(answer.error)} '{answer.text}'")
    answer = migrator.do("MIGRATE", replaced(migrate, "MIGRATION_PEER_ADDR", ip("127.0.0.9")))
    ktap.result(answer.error != 0 and answer.text != "", f"migrate: refuses an unknown peer: {answer.text}",
                f"{genl.name_of(answer.error)} '{answer.text}'")

    accepted("good", "PEER_DEL", KEY)
    ktap.result(ports() == "", "the last peer closes the port", ports())
    ktap.result(state()[0] == [], "all is gone again", str(state()))
    ktap.end()


if __name__ == "__main__":
    main()
