# SPDX-License-Identifier: GPL-2.0
"""A client, an LBU and a host in one program, for what has to happen in order.

One thread plays all machines, and so decides what happens before a migration,
and what after; several do so side by side (crowd.py).
"""

import array
import contextlib
import functools
import pathlib
import select
import socket
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import crowd  # noqa: E402
from machines import ANY, counter, genl, machine, sysctl  # noqa: E402

PATIENCE = 60

ESTABLISHED, CLOSE_WAIT = 1, 8
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33


@functools.lru_cache(maxsize=64)
def pattern(count, seed=1):
    """Bytes that are different everywhere."""
    words = array.array("I", ((n * 2654435761 + seed) & 0xFFFFFFFF for n in range(count // 4 + 1)))
    words.byteswap()
    return words.tobytes()[:count]


def run(name, command, text=None):
    """A command on a machine."""
    return subprocess.run(["ip", "netns", "exec", name] + command.split(), check=True, input=text, text=True,
                          stdout=subprocess.PIPE).stdout


def table(name, which, hook, rules):
    """Rules of nft on that machine; what removes them."""
    lines = "\n".join(dict.fromkeys(rules))
    run(name, "nft -f -", f"""table inet {which} {{
        chain {which} {{
            type filter hook {hook} priority -400;
            {lines}
        }}
    }}""")
    return lambda: run(name, f"nft delete table inet {which}")


def loss(name, hook, rule):
    """Packets that match the rule of nft are lost on that machine meanwhile."""
    return crowd.meanwhile(lambda rules: table(name, "loss", hook, [f"{rule} drop" for rule in rules]), rule)


@contextlib.contextmanager
def watch(name, hook, rule):
    """Gives a function that says how many packets have matched the rules of all on that machine, when all ask it."""
    def count(_):
        words = run(name, "nft list table inet watch").split()
        return sum(int(words[n + 2]) for n, word in enumerate(words) if word == "counter")
    with crowd.meanwhile(lambda rules: table(name, "watch", hook, [f"{rule} counter" for rule in rules]), rule):
        yield lambda: crowd.once(count)


def with_sysctl(name, setting, value):
    """net/SETTING of that machine is another one meanwhile."""
    def change(_):
        before = sysctl(name, setting, value)
        return lambda: sysctl(name, setting, before)
    return crowd.meanwhile(change)


def counters(*wanted):
    """What counter() says of each (machine, name), when all have come here."""
    return crowd.once(lambda _: [counter(*each) for each in wanted])


class Info:
    """TCP_INFO (struct tcp_info in include/uapi/linux/tcp.h)."""

    def __init__(self, sock):
        data = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        words = struct.unpack_from("=24I", data, 8)
        self.state, self.ca_state = data[0], data[1]
        self.options, self.wscales = data[5], data[6]
        self.snd_mss, self.unacked, self.sacked, self.cwnd = words[2], words[4], words[5], words[18]
        self.rto, self.rtt, self.rttvar = words[0], words[15], words[16]
        self.ssthresh, self.reordering = words[17], words[20]
        self.bytes_acked, self.bytes_received = struct.unpack_from("=2Q", data, 120)
        self.notsent, self.min_rtt = struct.unpack_from("=2I", data, 144)
        self.bytes_retrans = struct.unpack_from("=Q", data, 208)[0]
        self.rcv_ooopack, self.snd_wnd = struct.unpack_from("=2I", data, 224)
        self.timeouts = struct.unpack_from("=H", data, 240)[0]


def buffers(sock, send=0, receive=0):
    if send:
        sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, send)
    if receive:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, receive)


def wait_until(what, true):
    """Until it is true, which has to be soon; `what` may be a function that says it when it is not."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, f"did not happen: {what() if callable(what) else what}"
        time.sleep(0.01)


def expect(sock, data):
    """The next bytes are these."""
    at = 0
    while at < len(data):
        part = sock.recv(min(1 << 16, len(data) - at))
        assert part, f"end of stream after {at} of {len(data)} bytes"
        if not data.startswith(part, at):
            wrong = next(n for n, byte in enumerate(part) if byte != data[at + n])
            raise AssertionError(f"wrong byte at {at + wrong} of {len(data)}")
        at += len(part)


def expect_end(sock):
    assert sock.recv(1) == b"", "bytes where the end should be"


class Writer(threading.Thread):
    """Sends bytes as the other side takes them."""

    def __init__(self, sock, data, shutdown=False):
        super().__init__(daemon=True)
        self.sock, self.data, self.shutdown, self.failure = sock, data, shutdown, None
        self.start()

    def run(self):
        try:
            self.sock.sendall(self.data)
            if self.shutdown:
                self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.failure = error

    def done(self):
        self.join(PATIENCE)
        assert not self.is_alive() and self.failure is None, f"sending: {self.failure or 'hangs'}"


def fill(sock, data):
    """Send what goes without waiting; how much that was."""
    sock.setblocking(False)
    data, sent = memoryview(data), 0
    with contextlib.suppress(BlockingIOError):
        while sent < len(data):
            sent += sock.send(data[sent:])
    sock.settimeout(PATIENCE)
    return sent


class Listener:
    """A listening socket from which each thread accepts its own connection."""

    def __init__(self, name, family, address):
        with machine(name):
            self.sock = socket.create_server((address, 80), family=family, backlog=64)
        self.sock.settimeout(PATIENCE)
        self.lock, self.waiting = threading.Lock(), {}

    def accept(self, peer):
        """The connection with that peer. Each has to come, and to come once."""
        while True:
            with self.lock:
                if peer in self.waiting:
                    return self.waiting.pop(peer)
                sock, other = self.sock.accept()
                assert other not in self.waiting, f"{other} twice"
                self.waiting[other] = sock

    def close(self):
        self.sock.close()
        assert not self.waiting, f"accepted, and nobody knows them: {list(self.waiting)}"


def close(listeners):
    """What all have given to crowd.once(): each one has that of its network."""
    for listener in set(listeners):
        listener.close()


class Scene:
    """Listeners on the VIP at the LBU and on all addresses of the host."""

    def __init__(self, host="host1"):
        self.host, self.network = host, crowd.network()
        with machine("lbu"):
            self.migrator = genl.Family("nlb-migrator")
        self.lbu, self.listener = crowd.once(self.listen)[self.network]

    def listen(self, _):
        listeners = {}
        for there in crowd.networks():
            listeners[there] = (Listener("lbu", there.family, there.vip),
                                Listener(self.host, there.family, ANY[there.family]))
            for listener in listeners[there]:
                crowd.until_the_end(listener.close)
        return listeners

    def connect(self, prepare=None):
        """A connection from the client to the LBU: both ends."""
        with machine("client"):
            client = socket.socket(self.network.family)
        client.settimeout(PATIENCE)
        if prepare:
            prepare(client)
        client.connect((self.network.vip, 80))
        crowd.note(f"port {client.getsockname()[1]}")
        origin = self.lbu.accept(client.getsockname())
        origin.settimeout(PATIENCE)
        # The hash table has it before the handshake is done.
        wait_until("origin is established", lambda: Info(origin).state == ESTABLISHED)
        return client, origin

    def attempt(self, origin, fd=None):
        return self.migrator.do("MIGRATE", [
            ("MIGRATION_FD", genl.u32(origin.fileno() if fd is None else fd)),
            ("MIGRATION_PEER_ADDR", genl.ip(getattr(self.network, self.host))),
            ("MIGRATION_TIMEOUT", genl.u32(30000))])

    def migrate(self, origin):
        """Moves the connection; the new end, from accept()."""
        name = origin.getpeername()
        answer = self.attempt(origin)
        assert answer.error == 0, f"{genl.name_of(answer.error)}: {answer.text}"
        origin.close()
        moved = self.listener.accept(name)
        assert moved.getsockname()[:2] == (self.network.vip, 80)
        moved.settimeout(PATIENCE)
        return moved

    def finish(self, client, moved, also=b"and so on"):
        """Both directions still work, then both ends close."""
        client.sendall(also)
        expect(moved, also)
        moved.sendall(also[::-1])
        expect(client, also[::-1])
        client.shutdown(socket.SHUT_WR)
        expect_end(moved)
        moved.close()
        expect_end(client)
        client.close()


def readable(sock):
    poller = select.poll()
    poller.register(sock, select.POLLIN | select.POLLRDHUP)
    return dict(poller.poll(0)).get(sock.fileno(), 0)


def write_seq(sock):
    """The sequence number of the next byte that is written."""
    repair, queue, seq, send_queue = 19, 20, 21, 2
    sock.setsockopt(socket.IPPROTO_TCP, repair, 1)
    sock.setsockopt(socket.IPPROTO_TCP, queue, send_queue)
    number = sock.getsockopt(socket.IPPROTO_TCP, seq)
    # Off, without a window probe.
    sock.setsockopt(socket.IPPROTO_TCP, repair, -1)
    # Repair has forgotten it, and nobody could listen on the port any more.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return number & 0xFFFFFFFF

