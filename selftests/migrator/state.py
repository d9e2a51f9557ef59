#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What a connection may be in the middle of when it moves.

state.py [--times N] [--beside M] [--both]: scenarios as crowd.main() plays them.
"""

import fcntl
import json
import select
import socket
import struct
import termios
import time

import crowd
from carried import keepalive, learnt, options  # noqa: F401 scenarios
from machines import machine
from network import ecn, to_and_fro, tracked, tracked_before  # noqa: F401 scenarios
from scene import (CLOSE_WAIT, ESTABLISHED, Info, Scene, Writer, buffers, close, counters, expect, expect_end, fill,
                   loss, pattern, readable, run, wait_until, watch, with_sysctl, write_seq)

# include/uapi/linux/tcp.h: TCPI_OPT_USEC_TS
OPT_USEC_TS = 64
NODELAY = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def in_flight(sack="1"):
    """200 KB sent whose tail, or all, is lost, and as much that could not be sent."""
    scene = Scene()
    with with_sysctl("client", "ipv4/tcp_sack", sack):
        client, origin = scene.connect(lambda sock: buffers(sock, receive=4 << 20))
    buffers(origin, send=6 << 20)
    # The congestion window grows.
    first = pattern(200_000)
    writer = Writer(origin, first)
    expect(client, first)
    writer.done()
    data = pattern(450_000, 2)
    probes = counters(("host1", "TCPLossProbes"))[0]
    with loss("client", "prerouting", "iifname lbu tcp sport 80"):
        assert fill(origin, data) == len(data)
        info = Info(origin)
        crowd.note(f"in flight: {info.unacked} segments of {info.snd_mss}; not sent: {info.notsent}")
        assert info.unacked >= 10 and info.notsent > 100_000
        moved = scene.migrate(origin)
        more = pattern(100_000, 3)
        writer = Writer(moved, more)
        expect(client, data)
        expect(client, more)
        writer.done()
    if sack == "1":
        # By a probe, not by a timeout.
        probed = counters(("host1", "TCPLossProbes"))[0] - probes
        assert Info(moved).timeouts == 0 and probed >= crowd.size(), f"{Info(moved).timeouts} timeouts, {probed} probes"
    scene.finish(client, moved)


def in_flight_received():
    """Everything in flight has arrived, but its acknowledgements have not."""
    scene = Scene()
    client, origin = scene.connect()
    data, here = pattern(10_000), crowd.network()
    with loss("lbu", "prerouting", f"{here.ip} saddr {here.client} tcp dport 80"):
        origin.sendall(data)
        expect(client, data)
    # tcp_early_retrans is off at the LBU: it waits for a timeout of seconds.
    assert Info(origin).unacked > 0
    moved = scene.migrate(origin)
    wait_until("all is acknowledged", lambda: Info(moved).unacked == 0)
    assert Info(moved).timeouts == 0
    scene.finish(client, moved)


def in_flight_holes():
    """Every third segment is lost, before the move and (on the old way) after it."""
    scene = Scene()
    client, origin = scene.connect(lambda sock: buffers(sock, receive=4 << 20))
    buffers(origin, send=6 << 20)
    data = pattern(300_000)
    with loss("client", "prerouting", "iifname lbu tcp sport 80 numgen inc mod 3 0"):
        assert fill(origin, data) == len(data)
        wait_until("some are lost", lambda: Info(origin).unacked > 0 and Info(origin).bytes_retrans > 0)
        info = Info(origin)
        crowd.note(f"in flight: {info.unacked} segments, {info.sacked} reported, {info.bytes_retrans} bytes sent again")
        moved = scene.migrate(origin)
        expect(client, data)
    scene.finish(client, moved)


def unsent():
    """Nothing in flight, all that is unsent fits the window: it goes out at once."""
    scene = Scene()
    client, origin = scene.connect()
    # Nagle's algorithm keeps nothing back when nothing is in flight, TCP_CORK does.
    origin.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    origin.sendall(b"corked")
    info = Info(origin)
    assert (info.unacked, info.notsent) == (0, 6), f"{info.unacked} {info.notsent}"
    moved = scene.migrate(origin)
    expect(client, b"corked")
    scene.finish(client, moved)


def client_window_closed(update):
    """The client's window is closed with bytes to be sent; its opening may get lost."""
    scene = Scene()
    client, origin = scene.connect(lambda sock: sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 10_000))
    data = pattern(400_000)
    sent = fill(origin, data)
    wait_until("window is closed", lambda: Info(origin).unacked == 0 and Info(origin).notsent > 0)
    moved = scene.migrate(origin)
    assert Info(moved).notsent > 0
    if update == "lost":
        with loss("client", "output", "tcp dport 80"):
            time.sleep(0.05)
            got = client.recv(1 << 20)
        expect(client, data[len(got):sent])
        assert got == data[:len(got)]
    else:
        expect(client, data[:sent])
    scene.finish(client, moved)


def full(info):
    """Whether the other side takes no more: nothing is in flight, or a segment was refused for want of memory, and then
    the window is closed below it (ICSK_ACK_NOMEM in tcp_select_window())."""
    return info.snd_wnd < 2000 and (info.unacked == 0 or info.snd_wnd == 0)


def our_window_closed():
    """The receive queue is full, larger than tcp_rmem's default."""
    scene = Scene()
    client, origin = scene.connect(lambda sock: buffers(sock, send=1 << 20))
    buffers(origin, receive=200_000)
    data = pattern(1_200_000)
    writer = Writer(client, data)
    wait_until("window is closed", lambda: full(Info(client)))
    with machine("lbu"), open("/proc/sys/net/ipv4/tcp_rmem", encoding="ascii") as file:
        default = int(file.read().split()[1])
    unread = struct.unpack("i", fcntl.ioctl(origin, termios.FIONREAD, b"\0" * 4))[0]
    crowd.note(f"{unread} bytes unread, tcp_rmem's default is {default}")
    assert unread > 2 * default
    moved = scene.migrate(origin)
    expect(moved, data)
    writer.done()
    scene.finish(client, moved)


def partly_read():
    """Much received, some of it read: the next byte is the next one, and poll() knows."""
    scene = Scene()
    client, origin = scene.connect(lambda sock: buffers(sock, send=2 << 20))
    buffers(origin, receive=1 << 20)
    data, seen = pattern(500_000), 150_003
    client.sendall(data)
    expect(origin, data[:seen])
    wait_until("all has arrived", lambda: Info(client).unacked == 0)
    moved = scene.migrate(origin)
    assert readable(moved) == select.POLLIN
    assert struct.unpack("i", fcntl.ioctl(moved, termios.FIONREAD, b"\0" * 4))[0] == len(data) - seen
    expect(moved, data[seen:])
    assert readable(moved) == 0
    scene.finish(client, moved)


def holes(count, fin="", sack="1"):
    """`count` holes in what the client has sent, maybe its FIN behind them."""
    count = int(count)
    scene = Scene()
    # Long enough for everything here to be done before the client sends something again by itself.
    with with_sysctl("client", "ipv4/tcp_sack", sack), with_sysctl("client", "ipv4/tcp_rto_min_us", "20000000"):
        client, origin = scene.connect(lambda sock: buffers(sock, send=1 << 20))
    client.setsockopt(*NODELAY)
    # The congestion window grows, so that each part goes out at once, as a segment of its own; with Reno, for CUBIC's
    # HyStart would end slow start on a machine that is busy.
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
    wanted = 3 * count + 10
    # After a loss, by one in each round.
    for _ in range(500):
        client.sendall(pattern(wanted * 1500, 7))
        expect(origin, pattern(wanted * 1500, 7))
        if Info(client).cwnd >= wanted:
            break
    assert Info(client).cwnd >= wanted, f"{Info(client).cwnd} are less than {wanted}"
    size, start, port = 500, write_seq(client), client.getsockname()[1]
    data = pattern(size * 2 * count)
    chunks = [(start + n * size) & 0xFFFFFFFF for n in range(2 * count)]
    lost = ", ".join(str(seq) for seq in chunks[::2])
    arrived = ", ".join(str(seq) for seq in chunks[1::2])
    reneging, timeouts = counters(("client", "TCPSACKReneging")), Info(client).timeouts
    # Only what begins with a byte of a hole is lost: each is sent in one segment. Nor does the client hear of the first
    # holes before the last one is sent.
    with loss("lbu", "prerouting", f"tcp sport {port} tcp sequence {{ {lost} }}"), \
            loss("client", "prerouting", f"{scene.network.ip} saddr {scene.network.vip} tcp sport 80"), \
            with_sysctl("client", "ipv4/tcp_early_retrans", "0"):
        for at in range(0, len(data), size):
            client.sendall(data[at:at + size])
            # What waits would be put together with the next part.
            wait_until("it is sent", lambda: Info(client).notsent == 0)
        if fin:
            client.shutdown(socket.SHUT_WR)
        wait_until("the others have arrived", lambda: Info(origin).rcv_ooopack >= count + bool(fin))
    with watch("lbu", "prerouting", f"tcp sport {port} tcp sequence {{ {arrived} }}") as seen:
        if count > 32:
            answer = scene.attempt(origin)
            assert "out-of-order" in answer.text, answer.text
            moved = origin
        else:
            moved = scene.migrate(origin)
        if count > 32 or sack == "0":
            # Nobody tells the client, or only once: it has to hear of it three times (and not with a new window).
            for _ in range(8):
                client.sendall(b"more")
            data += b"more" * 8
        expect(moved, data)
        # Three of them fit into the segment with which the host begins to speak.
        if sack == "1" and count <= 3:
            assert seen() == 0, "what had arrived was sent again"
    # Nor did the client have to wait: the host has told it of the holes.
    assert Info(client).timeouts == timeouts
    assert counters(("client", "TCPSACKReneging")) == reneging
    if fin:
        expect_end(moved)
        moved.sendall(b"bye")
        moved.close()
        expect(client, b"bye")
        expect_end(client)
    else:
        scene.finish(client, moved)


def half_closed(count, seen=""):
    """`count` unread bytes and the client's FIN, which the program here may have seen."""
    scene = Scene()
    client, origin = scene.connect(lambda sock: buffers(sock, send=4 << 20))
    buffers(origin, receive=2 << 20)
    data = pattern(int(count))
    client.sendall(data)
    client.shutdown(socket.SHUT_WR)
    wait_until("the FIN has arrived", lambda: Info(origin).state == CLOSE_WAIT)
    if seen:
        expect_end(origin)
    moved = scene.migrate(origin)
    assert Info(moved).state == CLOSE_WAIT
    assert readable(moved) == select.POLLIN | select.POLLRDHUP
    assert struct.unpack("i", fcntl.ioctl(moved, termios.FIONREAD, b"\0" * 4))[0] == len(data)
    expect(moved, data)
    expect_end(moved)
    reply = pattern(100_000, 4)
    writer = Writer(moved, reply, shutdown=True)
    expect(client, reply)
    expect_end(client)
    writer.done()
    client.close()
    moved.close()


def half_closed_with_reply():
    """The client has closed, the reply is in flight and in the send queue."""
    scene = Scene()
    client, origin = scene.connect(lambda sock: buffers(sock, receive=4 << 20))
    buffers(origin, send=4 << 20)
    client.sendall(b"request")
    client.shutdown(socket.SHUT_WR)
    wait_until("the FIN has arrived", lambda: Info(origin).state == CLOSE_WAIT)
    reply = pattern(300_000)
    with loss("client", "prerouting", "iifname lbu tcp sport 80"):
        assert fill(origin, reply) == len(reply)
        assert Info(origin).unacked > 0
        moved = scene.migrate(origin)
        expect(moved, b"request")
        expect_end(moved)
        moved.close()
        expect(client, reply)
        expect_end(client)
    client.close()


def shut_down():
    """Our direction is closed: refused, and what the program wanted happens."""
    scene = Scene()
    for first in (True, False):
        client, origin = scene.connect()
        if not first:
            client.shutdown(socket.SHUT_WR)
            wait_until("the FIN has arrived", lambda sock=origin: Info(sock).state == CLOSE_WAIT)
        origin.sendall(b"last words")
        origin.shutdown(socket.SHUT_WR)
        assert scene.attempt(origin).error != 0
        expect(client, b"last words")
        expect_end(client)
        if first:
            client.sendall(b"answer")
            expect(origin, b"answer")
        client.close()
        origin.close()


def window_scales(theirs, ours, mtu="1500"):
    """Windows of client and LBU with these scales ("each": of 15 side by side, one has each), which the host would not
    choose by itself."""
    theirs, ours = crowd.number() % 15 if theirs == "each" else int(theirs), int(ours)
    with links(mtu):
        scene = Scene()
        # The most that a window may become, 64 KB << scale, decides about the scale.
        limit(scene.lbu.sock, ours)
        with with_sysctl("client", "ipv4/tcp_rmem", "4096 131072 1073741824"), \
                with_sysctl("lbu", "ipv4/tcp_rmem", "4096 131072 1073741824"):
            client, origin = scene.connect(lambda sock: limit(sock, theirs))
        before = Info(origin)
        crowd.note(f"segments of {before.snd_mss}")
        assert (before.wscales & 15, before.wscales >> 4) == (theirs, ours), f"{before.wscales:#x}"
        data = pattern(150_000)
        upload, download = Writer(client, data), Writer(origin, data[::-1])
        expect(client, data[::-1])
        download.done()
        wait_until("some has arrived", lambda: Info(origin).bytes_received > 1000)
        moved = scene.migrate(origin)
        after = Info(moved)
        assert (before.wscales, before.options & 7) == (after.wscales, after.options & 7)
        assert before.snd_mss == after.snd_mss, f"{before.snd_mss} became {after.snd_mss}"
        expect(moved, data)
        upload.done()
        download = Writer(moved, data)
        expect(client, data)
        download.done()
        scene.finish(client, moved)


def limit(sock, scale):
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, 65535 << scale)


def links(mtu, *ends):
    """Packets of the links between these machines are no longer than that."""
    ends = ends or ("client", "lbu", "host1")

    def change(to):
        for name in ends:
            for device in set(ends) - {name}:
                run(name, f"ip link set {device} mtu {to}")

    def begin(_):
        change(mtu)
        return lambda: change("1500")
    return crowd.meanwhile(begin)


def smaller_mtu():
    """Segments that are in flight, on their way and to come are too large for the host's links."""
    scene = Scene()
    client, origin = scene.connect(lambda sock: buffers(sock, receive=4 << 20))
    buffers(origin, send=6 << 20)
    # Both congestion windows grow, and with them the batches.
    data = pattern(300_000)
    for one, other in ((client, origin), (origin, client)):
        writer = Writer(one, data)
        expect(other, data)
        writer.done()
    before = Info(origin)
    with links("1300", "lbu", "host1"), links("1300", "client", "host1"):
        told = crowd.once(dropped_as_too_big)
        with loss("client", "prerouting", "iifname lbu tcp sport 80"):
            assert fill(origin, data) == len(data)
            moved = scene.migrate(origin)
            upload = Writer(client, data[::-1])
            expect(client, data)
            expect(moved, data[::-1])
            upload.done()
        crowd.note(f"segments of {before.snd_mss}, then of {Info(moved).snd_mss}, the client's of {Info(client).snd_mss}")
        assert before.snd_mss > 1300 > Info(moved).snd_mss > 1200
        # The tunnel's link has told the client.
        assert 1300 > Info(client).snd_mss > 1200 and crowd.once(dropped_as_too_big) > told
        scene.finish(client, moved)
    crowd.once(lambda _: [run("client", f"ip {family} route flush cache") for family in ("-4", "-6")])


def dropped_as_too_big(_):
    [stats] = json.loads(run("lbu", "nlb -j stats show tunnel"))
    return stats["counters"]["drop-too-big"]


def routes_in_microseconds(_):
    """A feature of the LBU's routes to the client."""
    there = crowd.networks()

    def each(command, features=""):
        for network in there:
            run("lbu", f"ip route {command} {network.client} dev client {features}")
    each("add", "features tcp_usec_ts")
    return lambda: each("del")


def microseconds():
    """Timestamps of the origin count microseconds; those of the target go on so."""
    scene = Scene()
    with crowd.meanwhile(routes_in_microseconds):
        client, origin = scene.connect()
    assert Info(origin).options & OPT_USEC_TS
    up, down = pattern(30_000), pattern(300_000, 5)
    paws = counters(("client", "PAWSEstab"))
    writer = Writer(origin, down)
    expect(client, down)
    writer.done()
    client.sendall(up)
    before = Clock(origin)
    moved = scene.migrate(origin)
    after = Clock(moved)
    assert Info(moved).options & OPT_USEC_TS
    # It stands still on the way, and does not go back.
    assert 0 <= after.since(before) <= after.most(before), f"{before} {after}"
    writer = Writer(moved, down)
    expect(moved, up)
    expect(client, down)
    writer.done()
    assert counters(("client", "PAWSEstab")) == paws
    now = Clock(moved)
    assert now.least(after) <= now.since(after) <= now.most(after), f"{after} {now}"
    scene.finish(client, moved)


class Clock:
    """TSval of a segment that a socket would send now, in microseconds, between two times of this machine's clock.

    The lowest bit of what the kernel says is the unit, so that it may be off by one.
    """

    def __init__(self, sock):
        self.early = time.monotonic_ns()
        self.tsval = sock.getsockopt(socket.IPPROTO_TCP, TIMESTAMP)
        self.late = time.monotonic_ns()

    def __repr__(self):
        return f"{self.tsval & 0xFFFFFFFF} at {self.early} to {self.late}"

    def since(self, before):
        return (self.tsval - before.tsval) & 0xFFFFFFFF

    def least(self, before):
        return (self.early - before.late) // 1000 - 2

    def most(self, before):
        return (self.late - before.early) // 1000 + 2


# include/uapi/linux/tcp.h
REPAIR, REPAIR_QUEUE, QUEUE_SEQ, REPAIR_OPTIONS, TIMESTAMP, REPAIR_WINDOW = 19, 20, 21, 22, 24, 29
RECV_QUEUE, SEND_QUEUE = 1, 2
OPT_MSS, OPT_WINDOW, OPT_SACK, OPT_TIMESTAMP = 2, 3, 4, 8


def wrap():
    """All numbers pass 2^32 soon after, or before, the move: both ends are made for it."""
    here = crowd.network()
    for base, before in ((20_000, 100), (22_000, 20_000), (24_000, 200_000)):
        scene = Scene()
        crowd.once(close, scene.lbu)
        ends = {}
        for name in ("client", "lbu"):
            with machine(name):
                ends[name] = socket.socket(here.family)
        client, origin = ends["client"], ends["lbu"]
        ours, theirs = 2 ** 32 - before, 2 ** 32 - before // 2
        for sock, send, receive in ((client, theirs, ours), (origin, ours, theirs)):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.IPPROTO_TCP, REPAIR, 1)
            for queue, seq in ((SEND_QUEUE, send), (RECV_QUEUE, receive)):
                sock.setsockopt(socket.IPPROTO_TCP, REPAIR_QUEUE, queue)
                sock.setsockopt(socket.IPPROTO_TCP, QUEUE_SEQ, struct.pack("=I", seq))
        # Each its own, for the LBU remembers those of before for a while.
        port = base + crowd.number()
        client.bind((here.client, port))
        origin.bind((here.vip, 80))
        client.connect((here.vip, 80))
        origin.connect((here.client, port))
        for sock in (client, origin):
            options = [(OPT_SACK, 0), (OPT_WINDOW, 7 | 7 << 16), (OPT_TIMESTAMP, 0), (OPT_MSS, 1460)]
            packed = b"".join(struct.pack("=II", *option) for option in options)
            sock.setsockopt(socket.IPPROTO_TCP, REPAIR_OPTIONS, packed)
            # Milliseconds: 50 of them are left.
            sock.setsockopt(socket.IPPROTO_TCP, TIMESTAMP, struct.pack("=I", 2 ** 32 - 50))
            # snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup
            receive = ours if sock is client else theirs
            window = struct.pack("=5I", (receive - 1) & 0xFFFFFFFF, 60_000, 60_000, 60_000, receive & 0xFFFFFFFF)
            sock.setsockopt(socket.IPPROTO_TCP, REPAIR_WINDOW, window)
        for sock in (client, origin):
            sock.setsockopt(socket.IPPROTO_TCP, REPAIR, -1)
            sock.settimeout(60)
        # All of it is written while nothing is acknowledged.
        buffers(origin, send=1 << 20)
        up, down = pattern(50_000), pattern(50_000, 5)
        client.sendall(up[:1000])
        expect(origin, up[:400])
        paws = counters(("client", "PAWSEstab"))
        with loss("client", "prerouting", "iifname lbu tcp sport 80"):
            origin.sendall(down)
            assert Info(origin).state == ESTABLISHED
            moved = scene.migrate(origin)
        upload = Writer(client, up[1000:])
        expect(client, down)
        expect(moved, up[400:])
        upload.done()
        down = pattern(300_000, 6)
        download = Writer(moved, down)
        expect(client, down)
        download.done()
        assert counters(("client", "PAWSEstab")) == paws
        scene.finish(client, moved)
        crowd.once(close, scene.listener)


def rolled_back():
    """An attempt that fails leaves all queues as they were."""
    scene = Scene()
    client, origin = scene.connect(lambda sock: buffers(sock, receive=4 << 20))
    buffers(origin, send=6 << 20)
    down, up = pattern(1_000_000, 2), pattern(20_000, 3)
    client.sendall(up)
    with loss("client", "prerouting", "iifname lbu tcp sport 80"):
        fill(origin, down)
        crowd.once(close, scene.listener)
        answer = scene.attempt(origin)
        assert "no listener" in answer.text, answer.text
    expect(client, down)
    expect(origin, up)
    scene.finish(client, origin)


if __name__ == "__main__":
    crowd.main(globals())
