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
from genl import Case, Request, be16, ip, replaced, u8, u32  # noqa: E402

KEY = [("PEER_ADDR", ip("127.0.0.2"))]
SECRET = b"0123456789abcdef"
PEER = KEY + [("PEER_PORT", be16(4770)), ("PEER_SEND_ID", u8(1)), ("PEER_RECV_ID", u8(2)),
              ("PEER_ALGORITHM", u32(1)), ("PEER_SECRET", SECRET)]
NEW_KEY = KEY + [("PEER_SEND_ID", u8(3)), ("PEER_RECV_ID", u8(4)), ("PEER_ALGORITHM", u32(2)), ("PEER_SECRET", b"t" * 80)]
KEY_ID = KEY + [("PEER_SEND_ID", u8(1))]
VIP = [("KEEP_VIP_ADDR", ip("127.0.0.1")), ("KEEP_VIP_PORT", be16(80))]
KEEP = VIP + [("KEEP_BYTES", u32(4096))]
NO_ROOM = "no memory for the key, on the port (net.core.optmem_max) or at all"


def in_use():
    """How often the module is in use."""
    with open("/sys/module/nlb_migrator/refcnt", encoding="ascii") as file:
        return int(file.read())


def main():
    subprocess.run("modprobe nlb_migrator && ip link set lo up", shell=True, check=True)
    ktap = genl.Ktap()
    migrator = genl.Family("nlb-migrator")
    accepted = genl.accepting(ktap, migrator)
    stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    stream.set_inheritable(True)
    datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener = socket.create_server(("127.0.0.1", 0))
    migrate = [("MIGRATION_FD", u32(stream.fileno())), ("MIGRATION_PEER_ADDR", ip("127.0.0.2")),
               ("MIGRATION_TIMEOUT", u32(100))]
    by_tuple = [("MIGRATION_CLIENT_ADDR", ip("127.0.0.3")), ("MIGRATION_CLIENT_PORT", be16(4000)),
                ("MIGRATION_VIP_ADDR", ip("127.0.0.1")), ("MIGRATION_VIP_PORT", be16(80))] + migrate[1:]

    def state():
        """Peers and what is kept with all attributes; migrations by id."""
        return [sorted(str(genl.attributes(reply[4:])) for reply in migrator.dump("KEEP_GET").replies),
                sorted(str(genl.attributes(reply[4:])) for reply in migrator.dump("PEER_GET").replies),
                sorted(str(genl.attributes(reply[4:])[0]) for reply in migrator.dump("MIGRATION_GET").replies)]

    def with_id(number):
        """The new key, with this id both ways."""
        return replaced(replaced(NEW_KEY, "PEER_SEND_ID", u8(number)), "PEER_RECV_ID", u8(number))

    def peers():
        """The attributes of each peer, but for the keys."""
        return [dict(genl.attributes(reply[4:])) for reply in migrator.dump("PEER_GET").replies]

    requests = [
        Request("PEER_NEW", PEER, optional=("PEER_PORT", "PEER_RECV_ID", "PEER_ALGORITHM")),
        Request("PEER_DEL", KEY),
        Request("PEER_GET", KEY, privileged=False),
        Request("PEER_KEY_NEW", NEW_KEY, optional=("PEER_RECV_ID", "PEER_ALGORITHM")),
        Request("PEER_KEY_DEL", KEY_ID),
        Request("PEER_KEY_USE", KEY_ID),
        Request("MIGRATE", migrate, optional=("MIGRATION_TIMEOUT",)),
        Request("MIGRATE", by_tuple, optional=("MIGRATION_TIMEOUT",)),
        Request("MIGRATE", migrate + [("MIGRATION_READ_BYTES", u32(1))], optional=("MIGRATION_TIMEOUT",
                                                                                   "MIGRATION_READ_BYTES")),
        Request("KEEP_NEW", KEEP),
        Request("KEEP_DEL", VIP),
        Request("KEEP_GET", VIP, privileged=False),
    ]
    special = [
        Case("exists", "PEER_NEW", PEER, errno.EEXIST, "peer exists already"),
        Case("0.0.0.0", "PEER_NEW", replaced(PEER, "PEER_ADDR", ip("0.0.0.0")), errno.EINVAL,
             "not a unicast address", attr="PEER_ADDR"),
        Case("link-local", "PEER_NEW", replaced(PEER, "PEER_ADDR", ip("fe80::1")), errno.EINVAL,
             "not a unicast address", attr="PEER_ADDR"),
        Case("addresses of two families", "MIGRATE", replaced(by_tuple, "MIGRATION_CLIENT_ADDR", ip("2001:db8::1")),
             errno.EAFNOSUPPORT, "not of the VIP's address family", attr="MIGRATION_CLIENT_ADDR"),
        Case("neither key nor unauthenticated", "PEER_NEW", PEER[:2], errno.EINVAL,
             "peer needs a key, unless it is called unauthenticated"),
        Case("key and unauthenticated", "PEER_NEW", PEER + [("PEER_UNAUTHENTICATED", b"")], errno.EINVAL,
             "unauthenticated peer with a key", attr="PEER_SEND_ID"),
        Case("unauthenticated with a value", "PEER_NEW", PEER[:2] + [("PEER_UNAUTHENTICATED", b"1")], errno.ERANGE,
             "Attribute failed policy validation", attr="PEER_UNAUTHENTICATED"),
        Case("an id without a secret", "PEER_NEW", PEER[:3], errno.EINVAL, "missing attribute", missing="PEER_SECRET"),
        Case("a secret without an id", "PEER_NEW", PEER[:2] + PEER[-1:], errno.EINVAL, "missing attribute",
             missing="PEER_SEND_ID"),
        Case("algorithm 0", "PEER_NEW", replaced(PEER, "PEER_ALGORITHM", u32(0)), errno.EINVAL,
             "no such algorithm", attr="PEER_ALGORITHM"),
        Case("algorithm 4", "PEER_KEY_NEW", replaced(NEW_KEY, "PEER_ALGORITHM", u32(4)), errno.EINVAL,
             "no such algorithm", attr="PEER_ALGORITHM"),
        Case("id in use", "PEER_KEY_NEW", replaced(NEW_KEY, "PEER_SEND_ID", u8(1)), errno.EEXIST,
             "peer has a key with this id", attr="PEER_SEND_ID"),
        Case("id for what is received in use", "PEER_KEY_NEW", replaced(NEW_KEY, "PEER_RECV_ID", u8(2)), errno.EEXIST,
             "peer has a key with this id for what is received", attr="PEER_RECV_ID"),
        Case("unknown peer", "PEER_KEY_NEW", replaced(NEW_KEY, "PEER_ADDR", ip("127.0.0.9")), errno.ENOENT,
             "no such peer", attr="PEER_ADDR"),
        Case("unknown peer", "PEER_KEY_DEL", replaced(KEY_ID, "PEER_ADDR", ip("127.0.0.9")), errno.ENOENT,
             "no such peer", attr="PEER_ADDR"),
        Case("unknown", "PEER_KEY_DEL", replaced(KEY_ID, "PEER_SEND_ID", u8(2)), errno.ENOENT,
             "peer has no key with this id", attr="PEER_SEND_ID"),
        Case("unknown", "PEER_KEY_USE", replaced(KEY_ID, "PEER_SEND_ID", u8(2)), errno.ENOENT,
             "peer has no key with this id", attr="PEER_SEND_ID"),
        Case("the last", "PEER_KEY_DEL", KEY_ID, errno.EBUSY,
             "last key of the peer: add another one first, or remove the peer", attr="PEER_SEND_ID"),
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
        Case("0 bytes read", "MIGRATE", migrate + [("MIGRATION_READ_BYTES", u32(0))], errno.ERANGE,
             "integer out of range", attr="MIGRATION_READ_BYTES"),
        Case("all read, with a value", "MIGRATE", migrate + [("MIGRATION_READ_ALL", b"1")], errno.ERANGE,
             "Attribute failed policy validation", attr="MIGRATION_READ_ALL"),
        Case("some read, and all", "MIGRATE", migrate + [("MIGRATION_READ_BYTES", u32(5)), ("MIGRATION_READ_ALL", b"")],
             errno.EINVAL, "what was read goes along in one way only", attr="MIGRATION_READ_ALL"),
        Case("some read, and given back", "MIGRATE", migrate + [("MIGRATION_READ_BYTES", u32(5)),
                                                                ("MIGRATION_READ_DATA", b"x")],
             errno.EINVAL, "what was read goes along in one way only", attr="MIGRATION_READ_BYTES"),
        Case("exists", "KEEP_NEW", replaced(KEEP, "KEEP_BYTES", u32(1)), errno.EEXIST,
             "VIP and port have a setting already", attr="KEEP_VIP_ADDR"),
        Case("0.0.0.0", "KEEP_NEW", replaced(KEEP, "KEEP_VIP_ADDR", ip("0.0.0.0")), errno.EINVAL,
             "not a unicast address", attr="KEEP_VIP_ADDR"),
        Case("0 bytes", "KEEP_NEW", replaced(KEEP, "KEEP_BYTES", u32(0)), errno.ERANGE,
             "integer out of range", attr="KEEP_BYTES"),
        Case("too many bytes", "KEEP_NEW", replaced(KEEP, "KEEP_BYTES", u32(32768)), errno.ERANGE,
             "integer out of range", attr="KEEP_BYTES"),
        Case("unknown", "KEEP_DEL", replaced(VIP, "KEEP_VIP_PORT", be16(81)), errno.ENOENT,
             "nothing is kept for this VIP and port", attr="KEEP_VIP_ADDR"),
        Case("unknown", "KEEP_GET", replaced(VIP, "KEEP_VIP_ADDR", ip("127.0.0.9")), errno.ENOENT,
             "nothing is kept for this VIP and port", attr="KEEP_VIP_ADDR"),
        Case("timeout 0", "MIGRATE", replaced(migrate, "MIGRATION_TIMEOUT", u32(0)), errno.ERANGE,
             "integer out of range", attr="MIGRATION_TIMEOUT"),
        Case("timeout too long", "MIGRATE", replaced(migrate, "MIGRATION_TIMEOUT", u32(30001)), errno.ERANGE,
             "integer out of range", attr="MIGRATION_TIMEOUT"),
    ]

    ktap.result(state() == [[], [], []], "a new namespace has nothing", str(state()))
    ports = lambda: subprocess.run(["ss", "-Htln", "sport = :4770"], capture_output=True, text=True).stdout  # noqa: E731
    ktap.result(ports() == "", "no peer, no open port", ports())
    accepted("good", "PEER_NEW", PEER)
    ktap.result(ports() != "", "the first peer opens the port")
    accepted("good", "PEER_GET", KEY)
    accepted("good", "KEEP_NEW", KEEP)
    reply = accepted("good", "KEEP_GET", VIP).replies
    shown = {migrator.attr(name): value for name, value in KEEP}
    ktap.result([dict(genl.attributes(each[4:])) for each in reply] == [shown], "keep_get: what was set", str(reply))
    for request in requests:
        for case in genl.hostile(request):
            genl.refuse(ktap, migrator, case, state)
    for case in special:
        genl.refuse(ktap, migrator, case, state)
    genl.unprivileged(ktap, "nlb-migrator", requests, state)

    # Several keys at a time, but not any number; the listening socket has room for so many.
    optmem = pathlib.Path("/proc/sys/net/core/optmem_max")
    limit = optmem.read_text()
    optmem.write_text("300")
    for case in (Case("no room on the listener", "PEER_KEY_NEW", NEW_KEY, errno.ENOMEM, NO_ROOM),
                 Case("no room on the listener", "PEER_NEW", replaced(PEER, "PEER_ADDR", ip("127.0.0.3")),
                      errno.ENOMEM, NO_ROOM)):
        genl.refuse(ktap, migrator, case, state)
    optmem.write_text(limit)
    for number in range(3, 10):
        accepted(f"key {number}", "PEER_KEY_NEW", with_id(number))
    genl.refuse(ktap, migrator, Case("the ninth", "PEER_KEY_NEW", with_id(99), errno.ENOSPC,
                                     "peer has too many keys"), state)
    accepted("another", "PEER_KEY_USE", replaced(KEY_ID, "PEER_SEND_ID", u8(9)))
    for number in (9, 1, 4, 5, 6, 7, 8):
        accepted(f"key {number}", "PEER_KEY_DEL", replaced(KEY_ID, "PEER_SEND_ID", u8(number)))
    reply = migrator.do("PEER_GET", KEY).replies[0]
    keys = [dict(genl.attributes(value)) for kind, value in genl.attributes(reply[4:])
            if kind == migrator.attr("PEER_KEY")]
    ktap.result(len(keys) == 1 and keys[0][migrator.attr("KEY_SEND_ID")] == u8(3)
                and migrator.attr("KEY_PREFERRED") in keys[0], "the last key is the preferred one", str(keys))
    replies = b"".join(migrator.dump("PEER_GET").replies)
    ktap.result(b"ttttt" not in replies and SECRET not in replies and replies != b"", "no secret in a dump", str(replies))

    # Without a key, and then with one.
    other = ip("127.0.0.3")
    without = migrator.attr("PEER_UNAUTHENTICATED")
    accepted("unauthenticated", "PEER_NEW", [("PEER_ADDR", other), ("PEER_UNAUTHENTICATED", b"")])
    bare = [peer[migrator.attr("PEER_ADDR")] for peer in peers() if without in peer]
    ktap.result(bare == [other], "only the one is not authenticated", str(bare))
    accepted("the first of an unauthenticated peer", "PEER_KEY_NEW", replaced(NEW_KEY, "PEER_ADDR", other))
    ktap.result(all(without not in peer for peer in peers()), "then it is", str(peers()))
    accepted("good", "PEER_DEL", [("PEER_ADDR", other)])

    # Each family has a port of its own, as long as it has peers.
    six = [("PEER_ADDR", ip("2001:db8::9"))]
    accepted("the first of IPv6", "PEER_NEW", six + PEER[1:])
    both = ports()
    ktap.result("0.0.0.0:4770" in both and "[::]:4770" in both, "a port for each family", both)
    accepted("another key for it", "PEER_KEY_NEW", six + NEW_KEY[1:])
    accepted("the last of IPv6", "PEER_DEL", six)
    ktap.result("0.0.0.0:4770" in ports() and "[::]" not in ports(), "it is closed with its last peer", ports())

    # One for each address and port, but not any number; more than a message holds.
    accepted("good", "KEEP_DEL", VIP)
    ktap.result(migrator.dump("KEEP_GET").replies == [], "nothing is kept any more")
    for number in range(256):
        address = "127.0.0.1" if number % 2 else "2001:db8::1"
        answer = migrator.do("KEEP_NEW", replaced(replaced(KEEP, "KEEP_VIP_ADDR", ip(address)), "KEEP_VIP_PORT",
                                                  be16(1000 + number)))
        assert answer.error == 0, f"setting {number}: {answer.text}"
    found = {genl.attributes(reply[4:])[1][1] for reply in migrator.dump("KEEP_GET").replies}
    ktap.result(found == {be16(1000 + number) for number in range(256)}, "keep_get: all 256 in a dump", str(found))
    genl.refuse(ktap, migrator, Case("the 257th", "KEEP_NEW", KEEP, errno.ENOSPC, "too many settings"), state)
    for number in range(256):
        address = "127.0.0.1" if number % 2 else "2001:db8::1"
        migrator.do("KEEP_DEL", [("KEEP_VIP_ADDR", ip(address)), ("KEEP_VIP_PORT", be16(1000 + number))])

    # What is not a connection is refused by what it is.
    with open("/dev/null", "rb") as file:
        for name, fd, text in (
                ("a file", file.fileno(), "not a socket"),
                ("no descriptor", 999, "not a socket"),
                ("a descriptor out of range", 0xFFFFFFFF, "not a socket"),
                ("a UDP socket", datagram.fileno(), "not a TCP socket"),
                ("a listener", listener.fileno(), "socket is a listener, not a connection"),
                ("a socket that is not connected", stream.fileno(), "connection is not established")):
            before = state()[1]
            answer = migrator.do("MIGRATE", replaced(migrate, "MIGRATION_FD", u32(fd)))
            ktap.result(answer.error != 0 and answer.text == text and state()[1] == before,
                        f"migrate: refuses {name}", f"{genl.name_of(answer.error)} '{answer.text}'")
    answer = migrator.do("MIGRATE", replaced(migrate, "MIGRATION_PEER_ADDR", ip("127.0.0.9")))
    ktap.result(answer.error != 0 and answer.text != "", f"migrate: refuses an unknown peer: {answer.text}",
                f"{genl.name_of(answer.error)} '{answer.text}'")

    # It acts while it is sent, whether or not its answer is read.
    answer = migrator.send("MIGRATE", genl.NLM_F_ACK, migrate)
    ktap.result(answer.error == errno.EOPNOTSUPP, "migrate: only as a dump", genl.name_of(answer.error))
    before, use = state(), in_use()
    silent = genl.Family("nlb-migrator")
    silent.begin("MIGRATE", migrate)
    ktap.result((in_use(), state()) == (use + 1, before), "migrate: an answer that waits keeps the module",
                f"{use} users before, {in_use()} after")
    silent.sock.close()
    ktap.result((in_use(), state()) == (use, before), "migrate: nobody wants the answer", f"{in_use()} users")
    busy = genl.Family("nlb-migrator")
    busy.begin("MIGRATE", migrate)
    answer = busy.dump("PEER_GET")
    ktap.result(answer.error == errno.EBUSY, "migrate: no other dump over its socket", genl.name_of(answer.error))
    answer = busy.dump("PEER_GET")
    ktap.result(answer.error == 0 and len(answer.replies) == 1, "migrate: after it, the socket is as before",
                genl.name_of(answer.error))

    accepted("good", "PEER_DEL", KEY)
    ktap.result(ports() == "", "the last peer closes the port", ports())
    ktap.result(state()[:2] == [[], []], "all is gone again", str(state()))
    ktap.end()


if __name__ == "__main__":
    main()
