#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What a program has read goes along from the kernel's copy, or is refused.

Run by test_keep.sh, which has set up the machines. With the argument `unload`,
the modules go at the end.
"""

import errno
import fcntl
import os
import pathlib
import resource
import socket
import struct
import subprocess
import sys
import termios
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from machines import (FAMILY, HOST1, VIP, Migrator, accepted, connect, exchange, genl, listen, machine,  # noqa: E402
                      receive)
from scene import CLOSE_WAIT, ESTABLISHED, Info, expect, expect_end, pattern, readable, run, wait_until  # noqa: E402

KEEP, MOST, BOUND = 8000, 32767, 16 << 20
MSG_TRUNC = 0x20
NOT_KEPT = errno.ENODATA, "bytes that were read are not kept"


def read(sock, count):
    """That many bytes."""
    data = receive(sock, count)
    assert len(data) == count, f"end of stream after {len(data)} of {count} bytes"
    return data


class Bench:
    """Listeners on the VIP at the LBU and on all addresses of the host, and the LBU's migrator."""

    def __init__(self):
        self.lbu, self.listener = listen("lbu", address=VIP), listen("host1")
        self.side = Migrator("lbu")
        self.migrator = self.side.family
        self.vip = [("KEEP_VIP_ADDR", genl.ip(VIP)), ("KEEP_VIP_PORT", genl.be16(80))]

    def keep(self, count=KEEP):
        answer = self.migrator.do("KEEP_NEW", self.vip + [("KEEP_BYTES", genl.u32(count))])
        assert answer.error == 0, f"{genl.name_of(answer.error)}: {answer.text}"

    def keep_no_more(self):
        assert self.migrator.do("KEEP_DEL", self.vip).error == 0

    def count(self, name):
        return self.side.counters()[name]

    def connect(self):
        """Both ends of a connection from the client to the LBU."""
        client = connect()
        origin = accepted(self.lbu)
        # The hash table has it before the handshake is done.
        wait_until("origin is established", lambda: Info(origin).state == ESTABLISHED)
        return client, origin

    def with_data(self, data):
        """A connection by which the client has sent this, and it has arrived."""
        client, origin = self.connect()
        client.sendall(data)
        wait_until("all has arrived", lambda: Info(origin).bytes_received == len(data))
        return client, origin

    def ask(self, origin, attrs, by_address=False):
        which = [("MIGRATION_FD", genl.u32(origin.fileno()))]
        if by_address:
            (client, port), (vip, _) = origin.getpeername()[:2], origin.getsockname()[:2]
            which = [("MIGRATION_CLIENT_ADDR", genl.ip(client)), ("MIGRATION_CLIENT_PORT", genl.be16(port)),
                     ("MIGRATION_VIP_ADDR", genl.ip(vip)), ("MIGRATION_VIP_PORT", genl.be16(80))]
        return self.migrator.do("MIGRATE", which + [
            ("MIGRATION_PEER_ADDR", genl.ip(HOST1)), ("MIGRATION_TIMEOUT", genl.u32(10000))] + attrs)

    def moves(self, client, origin, attrs, data, by_address=False, finish=True):
        """It moves, and the program there reads exactly this."""
        answer = self.ask(origin, attrs, by_address)
        assert answer.error == 0, f"{genl.name_of(answer.error)}: {answer.text}"
        origin.close()
        moved = accepted(self.listener)
        expect(moved, data)
        if finish:
            self.finish(client, moved)
        return moved

    def finish(self, client, moved):
        """Both directions still work, then both ends close."""
        assert exchange(client, moved)
        client.shutdown(socket.SHUT_WR)
        expect_end(moved)
        moved.close()
        expect_end(client)
        client.close()

    def stays(self, client, origin, attrs=None, error=NOT_KEPT[0], text=NOT_KEPT[1]):
        """It is refused, and goes on as if nobody had asked."""
        attrs = attrs or [("MIGRATION_READ_ALL", b"")]
        before = self.side.counters()
        answer = self.ask(origin, attrs)
        assert (answer.error, answer.text) == (error, text), f"{genl.name_of(answer.error)}: {answer.text}"
        after = self.side.counters()
        assert (before["kept-now"], before["out-aborted"]) == (after["kept-now"], after["out-aborted"]), "was begun"
        left = struct.unpack("=i", fcntl.ioctl(origin, termios.FIONREAD, b"\0" * 4))[0]
        read(origin, left)
        assert exchange(client, origin), "the connection does not work any more"
        client.close()
        origin.close()

    def nothing_kept(self):
        wait_until("nothing is kept", lambda: self.count("kept-now") == 0 and self.count("kept-bytes-now") == 0)


ALL = [("MIGRATION_READ_ALL", b"")]


def last(count):
    return [("MIGRATION_READ_BYTES", genl.u32(count))]


def all_of_it(bench):
    data = pattern(6000)
    for sizes in ([6000], [1] * 300, [1, 7, 255, 1, 256, 1000, 4096]):
        client, origin = bench.with_data(data)
        got = b""
        for size in sizes:
            assert len(origin.recv(size + 3, socket.MSG_PEEK)) <= size + 3
            got += read(origin, size)
        assert got == data[:len(got)]
        # The other bytes arrive as ever.
        client.sendall(data)
        bench.moves(client, origin, ALL, data + data)


def by_address(bench):
    client, origin = bench.with_data(pattern(700))
    read(origin, 600)
    bench.moves(client, origin, ALL, pattern(700), by_address=True)


def the_last(bench):
    data = pattern(7000)
    for count in (1, 299, 300):
        client, origin = bench.with_data(data)
        read(origin, 200)
        read(origin, 100)
        bench.moves(client, origin, last(count), data[300 - count:])


def nothing_said(bench):
    client, origin = bench.with_data(pattern(500))
    read(origin, 200)
    bench.moves(client, origin, [], pattern(500)[200:])


def nothing_read(bench):
    client, origin = bench.with_data(pattern(500))
    origin.recv(100, socket.MSG_PEEK)
    assert bench.count("kept-now") == 0
    bench.moves(client, origin, ALL, pattern(500))


def in_pieces(bench):
    """Segments that are merged in the queue, and some that come out of order."""
    data = pattern(KEEP)
    client, origin = bench.connect()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for at in range(0, 2000, 40):
        client.sendall(data[at:at + 40])
    wait_until("some have arrived", lambda: Info(origin).bytes_received == 2000)
    read(origin, 333)
    run("lbu", "nft -f -", """table inet loss {
        chain loss {
            type filter hook prerouting priority -400;
            tcp dport 80 drop
        }
    }""")
    client.sendall(data[2000:3000])
    run("lbu", "nft delete table inet loss")
    client.sendall(data[3000:])
    got = read(origin, KEEP - 333 - 10)
    assert got == data[333:-10]
    bench.moves(client, origin, ALL, data)


def with_the_end(bench):
    for seen in (False, True):
        client, origin = bench.with_data(pattern(900))
        client.shutdown(socket.SHUT_WR)
        wait_until("the FIN has arrived", lambda: Info(origin).state == CLOSE_WAIT)
        read(origin, 900)
        if seen:
            expect_end(origin)
            # Nothing is read here.
            assert origin.recv(10) == b""
        moved = bench.moves(client, origin, ALL, pattern(900), finish=False)
        expect_end(moved)
        moved.sendall(b"reply")
        moved.close()
        expect(client, b"reply")
        expect_end(client)
        client.close()


def discarded(bench):
    """MSG_TRUNC of TCP throws away what it would return."""
    client, origin = bench.with_data(pattern(900))
    buffer = bytearray(1)
    assert origin.recv_into(buffer, 1) == 1
    assert len(origin.recv(500, MSG_TRUNC)) == 500
    bench.moves(client, origin, ALL, pattern(900))


def again(bench):
    """What moves is not read: a second migration may take it again."""
    client, origin = bench.with_data(pattern(900))
    read(origin, 900)
    moved = bench.moves(client, origin, ALL, b"", finish=False)
    assert Info(moved).bytes_received == 900
    expect(moved, pattern(900))
    bench.finish(client, moved)


def too_much(bench):
    before = bench.count("drop-keep-bytes")
    client, origin = bench.with_data(pattern(KEEP + 1))
    read(origin, KEEP)
    assert bench.count("kept-now") == 1 and bench.count("drop-keep-bytes") == before
    read(origin, 1)
    assert bench.count("kept-now") == 0 and bench.count("drop-keep-bytes") == before + 1
    bench.stays(client, origin)
    client, origin = bench.with_data(pattern(KEEP + 1))
    read(origin, KEEP + 1)
    bench.stays(client, origin, last(1))


def more_than_read(bench):
    client, origin = bench.with_data(pattern(100))
    read(origin, 100)
    bench.stays(client, origin, last(101), errno.EINVAL, "more bytes are given back than were read")


def unseen(bench):
    """Bytes that go from the socket into a pipe are not copied to the program."""
    for before in (0, 100):
        client, origin = bench.with_data(pattern(900))
        read(origin, before)
        assert bench.count("kept-now") == bool(before)
        reading, writing = os.pipe()
        assert os.splice(origin.fileno(), writing, 900 - before) == 900 - before
        assert bench.count("kept-now") == 0
        client.sendall(pattern(20))
        read(origin, 10)
        assert bench.count("kept-now") == 0
        bench.stays(client, origin)
        os.close(reading)
        os.close(writing)


def urgent(bench):
    for out_of_band in (True, False):
        client, origin = bench.with_data(pattern(100))
        read(origin, 100)
        client.send(b"!", socket.MSG_OOB)
        client.sendall(pattern(100))
        wait_until("all has arrived", lambda: Info(origin).bytes_received == 201)
        if out_of_band:
            assert origin.recv(1, socket.MSG_OOB) == b"!"
        got = read(origin, 50)
        assert got == pattern(50), got
        bench.stays(client, origin)


def not_from_the_start(bench):
    bench.keep_no_more()
    client, origin = bench.with_data(pattern(300))
    read(origin, 300)
    bench.keep()
    client.sendall(pattern(300))
    read(origin, 100)
    assert bench.count("kept-now") == 0
    bench.stays(client, origin)


def setting_gone(bench):
    client, origin = bench.with_data(pattern(300))
    read(origin, 300)
    assert bench.count("kept-now") == 1
    bench.keep_no_more()
    assert bench.count("kept-now") == 0
    bench.keep()
    client.sendall(pattern(300))
    read(origin, 100)
    bench.stays(client, origin)


def ended(bench):
    """Whoever ends the connection, and however."""
    def close(client, origin):
        origin.close()
        client.close()

    def reset(client, origin):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
        client.close()
        wait_until("it is over", lambda: readable(origin))
        origin.close()

    def half_close(client, origin):
        origin.shutdown(socket.SHUT_WR)
        bench.nothing_kept()
        close(client, origin)

    for end in (close, reset, half_close):
        client, origin = bench.with_data(pattern(300))
        read(origin, 100)
        assert bench.count("kept-now") == 1
        end(client, origin)
        bench.nothing_kept()


def elsewhere(bench):
    """Another port of the VIP, and the same one in another namespace."""
    with machine("lbu"):
        another = socket.create_server((VIP, 81), family=FAMILY)
    for name, listener in (("lbu", another), ("host1", bench.listener)):
        with machine(name):
            client = socket.socket(FAMILY)
        client.connect((VIP, listener.getsockname()[1]))
        served, _ = listener.accept()
        client.sendall(b"x" * 100)
        assert read(served, 100) == b"x" * 100
        assert bench.count("kept-now") == 0
        served.close()
        client.close()
    another.close()


def more_than_fits(bench):
    """In a namespace: what is kept stays, what does not fit any more is not kept."""
    bench.keep_no_more()
    bench.keep(MOST)
    before, pairs = bench.count("drop-keep-total"), []
    while bench.count("drop-keep-total") == before:
        assert len(pairs) * MOST < BOUND + (1 << 20), "there is no bound"
        client = connect()
        origin = accepted(bench.lbu)
        client.sendall(pattern(MOST))
        read(origin, MOST)
        pairs.append((client, origin))
    kept = len(pairs) - 1
    assert bench.count("kept-now") == kept
    assert BOUND - 2 * MOST < bench.count("kept-bytes-now") <= BOUND, bench.count("kept-bytes-now")
    bench.stays(*pairs.pop())
    # Its place is another one's, once its memory has come back, which takes a grace period longer.
    full = bench.count("kept-bytes-now")
    bench.moves(*pairs.pop(), ALL, pattern(MOST))
    wait_until("one is kept less", lambda: bench.count("kept-now") == kept - 1)
    wait_until("its memory is there", lambda: bench.count("kept-bytes-now") <= full - MOST)
    client, origin = bench.with_data(pattern(1000))
    read(origin, 1000)
    bench.moves(client, origin, ALL, pattern(1000))
    for client, origin in pairs:
        client.close()
        origin.close()
    bench.nothing_kept()
    bench.keep_no_more()
    bench.keep()


def with_its_namespace(_):
    """A namespace goes, of which something is kept: nobody has its name any more, then the last sockets are closed."""
    for command in ("netns add passing", "-n passing link set lo up"):
        subprocess.run(["ip", *command.split()], check=True)
    with machine("passing"):
        listener = socket.create_server(("127.0.0.1", 80))
        client = socket.create_connection(listener.getsockname())
    origin, _ = listener.accept()
    side = Migrator("passing")
    vip = [("KEEP_VIP_ADDR", genl.ip("127.0.0.1")), ("KEEP_VIP_PORT", genl.be16(80)), ("KEEP_BYTES", genl.u32(500))]
    assert side.family.do("KEEP_NEW", vip).error == 0
    client.sendall(pattern(300))
    read(origin, 100)
    subprocess.run(["ip", "netns", "del", "passing"], check=True)
    read(origin, 100)
    counts = side.counters()
    assert (counts["kept-now"], counts["kept-bytes-now"] >= 200) == (1, True), counts
    # Nobody waits for the last packets: the client's end is a reset.
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
    for sock in (side.family.sock, side.tunnel.sock, listener, client, origin):
        sock.close()


def unloaded(bench):
    """The modules go; the socket, whose bytes they had kept, does not notice."""
    with machine("lbu"):
        listener = socket.create_server(("127.0.0.1", 80))
        client = socket.create_connection(listener.getsockname())
    origin, _ = listener.accept()
    client.sendall(pattern(300))
    vip = [("KEEP_VIP_ADDR", genl.ip("127.0.0.1")), ("KEEP_VIP_PORT", genl.be16(80)), ("KEEP_BYTES", genl.u32(500))]
    assert bench.migrator.do("KEEP_NEW", vip).error == 0
    assert read(origin, 100) == pattern(100)
    assert bench.count("kept-now") == 1
    library = pathlib.Path(__file__).resolve().parents[1] / "lib.sh"
    subprocess.run(["bash", "-c", f". {library}; unload_modules"], check=True)
    assert read(origin, 200) == pattern(300)[100:]
    assert exchange(client, origin)


def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    ktap = genl.Ktap()
    bench = Bench()
    bench.keep()
    parts = [all_of_it, by_address, the_last, nothing_said, nothing_read, in_pieces, with_the_end, discarded, again,
             too_much, more_than_read, unseen, urgent, not_from_the_start, setting_gone, ended, elsewhere]
    if FAMILY == socket.AF_INET:
        parts += [more_than_fits, with_its_namespace]
    if "unload" in sys.argv:
        parts.append(unloaded)
    for part in parts:
        try:
            part(bench)
            if part is not unloaded:
                bench.nothing_kept()
            ktap.result(True, part.__name__)
        except Exception:  # noqa: BLE001 the other parts have their say as well
            ktap.result(False, part.__name__, *traceback.format_exc().splitlines())
    ktap.end()


if __name__ == "__main__":
    main()
