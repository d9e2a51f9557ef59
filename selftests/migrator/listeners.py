#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Every way for an application to listen; none of them knows of migrations.

Run by test_listeners.sh, which has set up the machines.
"""

import contextlib
import ctypes
import http.client
import pathlib
import select
import socket
import struct
import subprocess
import sys
import tempfile
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import machines  # noqa: E402
import uring  # noqa: E402
from machines import (CLIENT, IPV4, IPV6, VIP, accepted, connect, exchange, genl, listen, machine,  # noqa: E402
                      receive, wait_for, with_sysctl)

SO_ATTACH_REUSEPORT_CBPF, SO_MARK = 51, 36
REUSEPORT = (socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


class Bench:
    def __init__(self):
        self.ktap, self.lbu, self.host = genl.Ktap(), machines.Migrator("lbu"), machines.Migrator("host1")
        self.classifiers = {
            IPV4: listen("lbu"),
            IPV6: listen("lbu", family=IPV6.family, options=[(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)])}

    def move(self, first=b"hello", network=IPV4):
        """A connection of the client that has just been moved to host1, with `first` unread."""
        client = connect(address=network.vip)
        client.sendall(first)
        with contextlib.closing(accepted(self.classifiers[network])) as served:
            wait_for(lambda: len(served.recv(len(first), socket.MSG_PEEK)) == len(first))
            answer = self.lbu.migrate(served, network.host1)
        if answer.error:
            raise OSError(answer.error, f"migrate: {answer.text}")
        return client

    def result(self, good, name, *notes):
        self.ktap.result(good, name, *notes)


def ready(listeners, seconds=10):
    """The listeners that have a connection to be accepted."""
    return select.select(listeners, [], [], seconds)[0]


def works(client, served, first=b"hello"):
    return receive(served, len(first)) == first and exchange(client, served)


def finish(*socks):
    """The client ends first, so that nothing is left in TIME_WAIT at the host."""
    for sock in socks:
        sock.close()


def reuseport(bench):
    """Eight listeners share the connections."""
    group = [listen("host1", options=[REUSEPORT]) for _ in range(8)]
    share = [0] * len(group)
    good = True
    for _ in range(96):
        client = bench.move()
        chosen = ready(group)
        good = good and len(chosen) == 1
        with contextlib.closing(accepted(chosen[0])) as served:
            good = good and works(client, served)
            share[group.index(chosen[0])] += 1
            client.close()
    bench.result(good and min(share) > 0, "SO_REUSEPORT: each of 8 listeners gets some of 96", str(share))
    # A program that looks at the packet: the listener number is the source port modulo 8.
    net = -0x100000 & 0xFFFFFFFF
    program = (ctypes.c_char * 24).from_buffer_copy(
        struct.pack("=HBBI", 0x28, 0, 0, (net + 20) & 0xFFFFFFFF)  # ldh [source port]
        + struct.pack("=HBBI", 0x54, 0, 0, 7)                      # and 7
        + struct.pack("=HBBI", 0x16, 0, 0, 0))                     # ret a
    group[0].setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF,
                        struct.pack("=HxxxxxxQ", 3, ctypes.addressof(program)))
    wrong = []
    for _ in range(16):
        client = bench.move()
        chosen = [group.index(one) for one in ready(group)]
        if chosen != [client.getsockname()[1] % 8]:
            wrong.append((client.getsockname()[1], chosen))
        with contextlib.closing(accepted(group[chosen[0]])) as served:
            good = good and works(client, served)
            client.close()
    bench.result(good and not wrong, "a BPF program of the group chooses", f"port and choice: {wrong}")
    finish(*group)


def closed_before_accept(bench):
    """The listener goes while the connection is in its queue."""
    with with_sysctl("host1", "ipv4/tcp_migrate_req", 1):
        group = [listen("host1", options=[REUSEPORT]) for _ in range(2)]
        client = bench.move()
        chosen = ready(group)
        group.remove(chosen[0])
        chosen[0].close()
        found = ready(group)
        with contextlib.closing(accepted(group[0])) as served:
            bench.result(bool(found) and works(client, served), "listener closed before accept(): another takes it")
            client.close()
        finish(*group)
    with contextlib.closing(listen("host1")):
        client = bench.move()
        port = client.getsockname()[1]
        wait_for(lambda: bench.host.phase(port, "TARGET") == "active")
    try:
        said = client.recv(1)
    except ConnectionResetError:
        said = "reset"
    bench.result(said == "reset", "listener closed before accept(), alone: the client is reset", f"got {said}")
    bench.result(wait_for(lambda: bench.lbu.phase(port) == "closed"), "and the LBU is told of the end",
                 str(bench.lbu.phase(port)))
    client.close()


def dual_stack(bench):
    with contextlib.closing(listen("host1", address="::", family=socket.AF_INET6)) as listener:
        client = bench.move()
        served, peer = listener.accept()
        served.settimeout(20)
        with contextlib.closing(served):
            bench.result(peer[0] == f"::ffff:{CLIENT}" and served.getsockname()[0] == f"::ffff:{VIP}"
                         and works(client, served), "a listener on :: gets it as IPv4-mapped", f"{peer}")
            client.close()


def inherited(bench):
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
               (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77), (socket.SOL_SOCKET, SO_MARK, 5),
               (socket.IPPROTO_IP, socket.IP_TOS, 0x10), (socket.IPPROTO_TCP, 18, 12345)]
    with contextlib.closing(listen("host1", options=options)) as listener:
        client = bench.move()
        with contextlib.closing(accepted(listener)) as served:
            got = [(level, name, served.getsockopt(level, name)) for level, name, _ in options]
            bench.result(got == options and works(client, served), "options of the listener are inherited", str(got))
            client.close()


def edge_triggered(bench):
    """One edge for each connection, and one for its unread bytes."""
    with contextlib.closing(listen("host1")) as listener, contextlib.closing(select.epoll()) as poll:
        listener.setblocking(False)
        poll.register(listener, select.EPOLLIN | select.EPOLLET)
        good, quiet = True, not poll.poll(0)
        for _ in range(3):
            client = bench.move()
            good = good and poll.poll(10) == [(listener.fileno(), select.EPOLLIN)]
            with contextlib.closing(listener.accept()[0]) as served:
                served.settimeout(20)
                with contextlib.suppress(BlockingIOError):
                    listener.accept()
                    good = False
                poll.register(served, select.EPOLLIN | select.EPOLLET)
                good = good and poll.poll(10) == [(served.fileno(), select.EPOLLIN)] and not poll.poll(0)
                good = good and works(client, served)
                poll.unregister(served)
                client.close()
        bench.result(good and quiet, "epoll, edge-triggered")


def io_uring(bench):
    with contextlib.closing(listen("host1")) as listener:
        try:
            ring = uring.Acceptor(listener)
        except OSError as failure:
            bench.ktap.skip("io_uring accept", failure)
            return
        with contextlib.closing(ring):
            good = True
            for _ in range(3):
                client, got = bench.move(), []
                wait_for(lambda: got.append(ring.accepted()) or got[-1])
                served = got[-1]
                served.settimeout(20)
                with contextlib.closing(served):
                    good = good and works(client, served)
                    client.close()
            bench.result(good, "io_uring, multishot accept")


@contextlib.contextmanager
def daemon(*command):
    """A server on host1, until the end of the block."""
    with subprocess.Popen(["ip", "netns", "exec", "host1", *command], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            def listens():
                return subprocess.run(["ip", "netns", "exec", "host1", "ss", "-Htln", "sport = :80"],
                                      capture_output=True, check=True).stdout
            if not wait_for(listens, 60):
                process.kill()
                raise OSError(f"{command[0]} does not listen: {process.stdout.read()}")
            yield
        finally:
            process.kill()


def redis(bench):
    def command(*words):
        return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
    value = bytes(range(256)) * 400
    with daemon("redis-server", "--bind", "0.0.0.0", "--port", "80", "--protected-mode", "no", "--save", "",
                "--appendonly", "no"):
        client = bench.move(command(b"PING"))
        good = receive(client, 7) == b"+PONG\r\n"
        client.sendall(command(b"SET", b"key", value) + command(b"GET", b"key") + command(b"CLIENT", b"INFO"))
        good = good and receive(client, 5) == b"+OK\r\n"
        expected = b"$%d\r\n%s\r\n" % (len(value), value)
        good = good and receive(client, len(expected)) == expected
        info = client.recv(1000)
        bench.result(good and f"addr={CLIENT}:{client.getsockname()[1]}".encode() in info, "redis", str(info[:200]))
        client.close()


def haproxy(bench):
    config = pathlib.Path("/tmp/haproxy.cfg")
    config.write_text("""defaults
  mode http
  timeout client 20s
  timeout server 20s
  timeout connect 20s
frontend web
  bind *:80
  http-request return status 200 content-type text/plain lf-string "%[src]:%[src_port] asks for %[path]"
""", encoding="ascii")
    with daemon("haproxy", "-db", "-f", str(config)):
        client = bench.move(b"GET /one HTTP/1.1\r\nHost: a\r\n\r\n")
        good, answer = True, b""
        for path in ("/one", "/two"):
            expected = f"{CLIENT}:{client.getsockname()[1]} asks for {path}".encode()
            answer = b""
            while expected not in answer and (part := client.recv(1000)):
                answer += part
            good = good and answer.startswith(b"HTTP/1.1 200") and answer.endswith(expected)
            if path == "/one":
                client.sendall(b"GET /two HTTP/1.1\r\nHost: a\r\n\r\n")
        bench.result(good, "haproxy, two requests", str(answer))
        client.close()


def request(path):
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


def response(client):
    """The body of the next response, on a connection that goes on."""
    with contextlib.closing(http.client.HTTPResponse(client)) as answer:
        answer.begin()
        return answer.read()


def websocketd(bench):
    """The runtime of Go: its own poller and accept(), and one listener for both families."""
    page = bytes(range(256)) * 4000
    with tempfile.TemporaryDirectory() as folder:
        script, static = pathlib.Path(folder, "cgi/who"), pathlib.Path(folder, "www")
        script.parent.mkdir()
        script.write_text("#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n%s' \"$REMOTE_ADDR $REMOTE_PORT\"",
                          encoding="ascii")
        script.chmod(0o755)
        static.mkdir()
        (static / "page").write_bytes(page)
        with daemon("websocketd", "--port=80", f"--cgidir={script.parent}", f"--staticdir={static}"):
            for network, family in ((IPV4, "IPv4"), (IPV6, "IPv6")):
                client = bench.move(request("/who"), network)
                said = [response(client)]
                for path in ("/page", "/who"):
                    client.sendall(request(path))
                    said.append(response(client))
                name = "{} {}".format(*client.getsockname()).encode()
                bench.result(said == [name, page, name], f"Go, a listener for both families, {family}, three requests",
                             f"{said[0]}, {len(said[1])} bytes, {said[2]}; not {name}")
                client.close()


def main():
    bench = Bench()
    for part in (reuseport, closed_before_accept, dual_stack, inherited, edge_triggered, io_uring, redis, haproxy,
                 websocketd):
        try:
            part(bench)
        except Exception:  # noqa: BLE001 the other parts have their say as well
            bench.result(False, f"{part.__name__} comes to its end", *traceback.format_exc().splitlines())
    bench.result(wait_for(lambda: bench.host.mappings() == 0, 30), "nothing is left at the host")
    bench.ktap.end()


if __name__ == "__main__":
    main()
