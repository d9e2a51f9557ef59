# SPDX-License-Identifier: GPL-2.0
"""A client, an LBU and a host in one program, for what has to happen in order.

One thread plays all machines, and so decides what happens before a migration,
and what after.
"""

import contextlib
import pathlib
import select
import socket
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from machines import ANY, FAMILY, HOST1, HOST2, VIP, genl, machine  # noqa: E402

HOSTS = {"host1": HOST1, "host2": HOST2}
PATIENCE = 60

ESTABLISHED, CLOSE_WAIT = 1, 8
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33


def pattern(count, seed=1):
    """Bytes that are different everywhere."""
    return b"".join(struct.pack(">I", (n * 2654435761 + seed) & 0xFFFFFFFF) for n in range(count // 4 + 1))[:count]


def run(name, command, text=None):
    """A command on a machine."""
    return subprocess.run(["ip", "netns", "exec", name] + command.split(), check=True, input=text, text=True,
                          stdout=subprocess.PIPE).stdout


@contextlib.contextmanager
def loss(name, hook, rule):
    """Packets that match the rule of nft are lost on that machine meanwhile."""
    run(name, "nft -f -", f"""table inet loss {{
        chain loss {{
            type filter hook {hook} priority -400;
            {rule} drop
        }}
    }}""")
    try:
        yield
    finally:
        run(name, "nft delete table inet loss")


def counter(name, which):
    """A counter of the machine's stack, such as TCPTimeouts."""
    with machine(name), open("/proc/thread-self/net/netstat") as file:
        lines = [line.split() for line in file]
    for names, values in zip(lines[::2], lines[1::2]):
        if which in names:
            return int(values[names.index(which)])
    raise KeyError(which)


class Info:
    """TCP_INFO (struct tcp_info in include/uapi/linux/tcp.h)."""

    def __init__(self, sock):
        data = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        words = struct.unpack_from("=24I", data, 8)
        self.state, self.ca_state = data[0], data[1]
        self.options, self.wscales = data[5], data[6]
        self.snd_mss, self.unacked, self.sacked, self.cwnd = words[2], words[4], words[5], words[18]
        self.bytes_acked, self.bytes_received = struct.unpack_from("=2Q", data, 120)
        self.notsent = struct.unpack_from("=I", data, 144)[0]
        self.bytes_retrans = struct.unpack_from("=Q", data, 208)[0]
        self.rcv_ooopack, self.snd_wnd = struct.unpack_from("=2I", data, 224)


def wait_until(what, true):
    """Until it is true, which has to be soon."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, f"did not happen: {what}"
        time.sleep(0.01)


def read(sock, count):
    """That many bytes."""
    data = bytearray()
    while len(data) < count:
        part = sock.recv(min(1 << 16, count - len(data)))
        assert part, f"end of stream after {len(data)} of {count} bytes"
        data += part
    return bytes(data)


def expect(sock, data):
    """The next bytes are these."""
    got = read(sock, len(data))
    at = next((n for n, (a, b) in enumerate(zip(got, data)) if a != b), None)
    assert at is None, f"wrong byte at {at} of {len(data)}"


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
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while sent < len(data):
            sent += sock.send(data[sent:])
    sock.settimeout(PATIENCE)
    return sent


class Scene:
    """Listeners on the VIP at the LBU and on all addresses of the host."""

    def __init__(self, host="host1"):
        self.host = host
        with machine("lbu"):
            self.lbu = socket.create_server((VIP, 80), family=FAMILY, backlog=64)
            self.migrator = genl.Family("nlb-migrator")
        with machine(host):
            self.listener = socket.create_server((ANY[FAMILY], 80), family=FAMILY, backlog=64)
        self.lbu.settimeout(PATIENCE)
        self.listener.settimeout(PATIENCE)

    def connect(self, prepare=None):
        """A connection from the client to the LBU: both ends."""
        with machine("client"):
            client = socket.socket(FAMILY)
        client.settimeout(PATIENCE)
        if prepare:
            prepare(client)
        client.connect((VIP, 80))
        print(f"# port {client.getsockname()[1]}")
        origin, _ = self.lbu.accept()
        origin.settimeout(PATIENCE)
        # The hash table has it before the handshake is done.
        wait_until("origin is established", lambda: Info(origin).state == ESTABLISHED)
        return client, origin

    def attempt(self, origin, fd=None):
        return self.migrator.do("MIGRATE", [
            ("MIGRATION_FD", genl.u32(origin.fileno() if fd is None else fd)),
            ("MIGRATION_PEER_ADDR", genl.ip(HOSTS[self.host])),
            ("MIGRATION_TIMEOUT", genl.u32(10000))])

    def migrate(self, origin):
        """Moves the connection; the new end, from accept()."""
        name = origin.getpeername()
        answer = self.attempt(origin)
        assert answer.error == 0, f"{genl.name_of(answer.error)}: {answer.text}"
        origin.close()
        moved, peer = self.listener.accept()
        assert peer == name, f"accepted {peer} instead of {name}"
        assert moved.getsockname()[:2] == (VIP, 80)
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

