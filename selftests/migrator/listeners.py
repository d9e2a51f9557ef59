#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Every way for an application to listen; none of them knows of migrations.

Run by test_listeners.sh, which has set up the machines.
"""

import contextlib
import ctypes
import errno
import http.client
import os
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
import scene  # noqa: E402
import uring  # noqa: E402
from machines import (CLIENT, HOST1, IPV4, IPV6, VIP, accepted, connect, exchange, genl, instruction,  # noqa: E402
                      listen, machine, receive, wait_for, with_sysctl)

SO_ATTACH_REUSEPORT_CBPF, SO_ATTACH_REUSEPORT_EBPF, SO_MARK = 51, 52, 36
REUSEPORT = (socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


class Bench:
    def __init__(self):
        self.ktap, self.lbu, self.host = genl.Ktap(), machines.Migrator("lbu"), machines.Migrator("host1")
        self.classifiers = {
            IPV4: listen("lbu"),
            IPV6: listen("lbu", family=IPV6.family, options=[(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)])}

    def move(self, first=b"hello", network=IPV4, source=None):
        """A connection of the client that has just been moved to host1, with `first` unread."""
        client = connect(address=network.vip, source=source)
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
    # Programs of eBPF replace it: one that chooses from the other end, and one that drops.
    array = machines.into_sockmap(*group, kind=machines.BPF_MAP_TYPE_REUSEPORT_SOCKARRAY)
    attach_to_group(group, choose_by_port(array))
    wrong = []
    for _ in range(16):
        client = bench.move()
        chosen = [group.index(one) for one in ready(group)]
        if chosen != [7 - client.getsockname()[1] % 8]:
            wrong.append((client.getsockname()[1], chosen))
        with contextlib.closing(accepted(group[chosen[0]])) as served:
            good = good and works(client, served)
            client.close()
    bench.result(good and not wrong, "an sk_reuseport program chooses", f"port and choice: {wrong}")
    attach_to_group(group, returns(0))
    stays(bench, "an sk_reuseport program that drops")
    os.close(array)
    finish(*group)


def attach_to_group(group, program):
    loaded = machines.load_program(machines.BPF_PROG_TYPE_SK_REUSEPORT, program)
    group[0].setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, loaded)
    os.close(loaded)


def returns(value):
    """r0 = value; exit"""
    return [instruction(0xb7, 0, value=value), instruction(0x95)]


def choose_by_port(array):
    """The listener with number 7 less the source port modulo 8, for a struct sk_reuseport_md."""
    select_reuseport = 82
    return [
        instruction(0x79, 7, 1),                # r7 = data
        instruction(0x79, 2, 1, 8),             # r2 = data_end
        instruction(0xbf, 3, 7),
        instruction(0x07, 3, value=2),
        instruction(0x2d, 3, 2, 13),            # if data + 2 > data_end, drop
        instruction(0x69, 7, 7),                # r7 = the first two bytes of the TCP header
        instruction(0xdc, 7, value=16),         # in host order
        instruction(0x57, 7, value=7),
        instruction(0xa7, 7, value=7),
        instruction(0x63, 10, 7, -4),           # the key
        instruction(0x18, 2, 1, value=array), instruction(0),
        instruction(0xbf, 3, 10),
        instruction(0x07, 3, value=-4),
        instruction(0xb7, 4),
        instruction(0x85, value=select_reuseport),
        *returns(1),
        *returns(0)]


def chosen_before(bench):
    """An sk_lookup program of the namespace chooses the listener, whatever address and port that has."""
    for network, family in ((IPV4, "IPv4"), (IPV6, "IPv6")):
        with contextlib.closing(listen("host1", family=network.family)) as usual, \
                contextlib.closing(listen("host1", 8080, 0, network.host1, network.family)) as other:
            try:
                sockets = machines.into_sockmap(other)
            except OSError as failure:
                bench.ktap.skip("an sk_lookup program chooses", f"this kernel has no sockmap ({failure})")
                return
            with sk_lookup(look_up(sockets)):
                good = gets(bench, network, other, usual)
            bench.result(good, f"an sk_lookup program chooses a listener of another address and port, {family}")
            os.close(sockets)
            bench.result(gets(bench, network, usual, other), f"without it, the usual one gets the connection, {family}")
            if network is IPV4:
                with sk_lookup(returns(0)):
                    stays(bench, "an sk_lookup program that drops")


def gets(bench, network, one, other):
    """Whether the one listener gets a connection that moves, and not the other."""
    client = bench.move(network=network)
    good = ready([one, other]) == [one]
    with contextlib.closing(accepted(one)) as served:
        good = good and served.getsockname()[:2] == (network.vip, 80) and works(client, served)
        client.close()
    return good


@contextlib.contextmanager
def sk_lookup(program):
    """The program is attached to host1 until the end of the block."""
    loaded = machines.load_program(machines.BPF_PROG_TYPE_SK_LOOKUP, program, machines.BPF_SK_LOOKUP)
    link = machines.attach_to_machine(loaded, "host1", machines.BPF_SK_LOOKUP)
    os.close(loaded)
    try:
        yield
    finally:
        os.close(link)


def look_up(sockets):
    """The first socket of a sockmap for all that goes to port 80, for a struct bpf_sk_lookup."""
    map_lookup_elem, sk_release, sk_assign = 1, 86, 124
    return [
        instruction(0xbf, 6, 1),
        instruction(0x61, 2, 1, 60),            # r2 = local_port
        instruction(0x55, 2, 0, 14, 80),        # if it is not 80, pass
        instruction(0x62, 10, 0, -4),           # the key
        instruction(0x18, 1, 1, value=sockets), instruction(0),
        instruction(0xbf, 2, 10),
        instruction(0x07, 2, value=-4),
        instruction(0x85, value=map_lookup_elem),
        instruction(0x15, 0, 0, 7),             # if there is none, pass
        instruction(0xbf, 7, 0),
        instruction(0xbf, 1, 6),
        instruction(0xbf, 2, 7),
        instruction(0xb7, 3),
        instruction(0x85, value=sk_assign),
        instruction(0xbf, 1, 7),
        instruction(0x85, value=sk_release),
        *returns(1)]


def stays(bench, name):
    """The stack would drop the client's packets: it is refused, and goes on where it is."""
    with contextlib.closing(connect()) as client, contextlib.closing(accepted(bench.classifiers[IPV4])) as served:
        answer = bench.lbu.migrate(served, HOST1)
        bench.result((answer.error, answer.text) == (errno.ECONNREFUSED, "target: no listener")
                     and exchange(client, served), f"{name}: refused", f"{answer.error} {answer.text}")


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


def used_again(bench):
    """The server ends a connection, and the client opens another one from the same port."""
    with contextlib.closing(listen("host1")) as listener:
        client = bench.move()
        with contextlib.closing(accepted(listener)) as served:
            good, name = works(client, served), client.getsockname()
        good = good and client.recv(1) == b""
        client.close()

        def waits():
            return subprocess.run(["ip", "netns", "exec", "host1", "ss", "-Htn", "state", "time-wait", "dport", f"= :{name[1]}"],
                                  capture_output=True, check=True).stdout
        waited = wait_for(waits)
        client = bench.move(source=name)
        with contextlib.closing(accepted(listener)) as served:
            bench.result(good and waited and works(client, served) and not waits(), "addresses that are in TIME_WAIT")
            client.close()


def cookies(bench):
    """Whatever the host does to SYNs."""
    for value in (0, 2):
        with with_sysctl("host1", "ipv4/tcp_syncookies", value), contextlib.closing(listen("host1")) as listener:
            client = bench.move()
            with contextlib.closing(accepted(listener)) as served:
                bench.result(works(client, served), f"tcp_syncookies is {value}")
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


@contextlib.contextmanager
def hole(name, sender, receiver):
    """Of two segments, the first one gets lost on its way to that machine; so do the answers, until the caller is done."""
    port, to = sender.getsockname()[1], sender.getpeername()[1]
    sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    rules = [f"tcp sport {port} tcp dport {to} tcp sequence {scene.write_seq(sender)} drop"]
    undo = [scene.table(name, "hole", "prerouting", rules),
            scene.table(name, "silent", "output", [f"tcp sport {to} tcp dport {port} drop"])]
    try:
        sender.sendall(b"lost ")
        wait_for(lambda: scene.Info(sender).notsent == 0)
        sender.sendall(b"came")
        assert wait_for(lambda: scene.Info(receiver).rcv_ooopack > 0), "nothing came out of order"
        yield
    finally:
        for each in undo:
            each()


def was_connection(bench):
    """A listener that was a connection itself, to which something had come out of order."""
    with machine("host1"), contextlib.closing(socket.create_server(("127.0.0.1", 81))) as server, \
            contextlib.closing(socket.socket()) as listener, with_sysctl("client", "ipv4/tcp_rto_min_us", "20000000"), \
            with_sysctl("client", "ipv4/tcp_early_retrans", "0"):
        listener.settimeout(20)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("", 80))
        listener.connect(("127.0.0.1", 81))
        with contextlib.closing(server.accept()[0]) as other, hole("host1", other, listener):
            # AF_UNSPEC
            machines.LIBC.connect(listener.fileno(), bytes(16), 16)
            # What was there is somebody else's memory now.
            other.sendall(bytes(1 << 16))
        listener.listen()
        client = connect()
        with contextlib.closing(accepted(bench.classifiers[IPV4])) as served, hole("lbu", client, served):
            answer = bench.lbu.migrate(served, HOST1)
            assert answer.error == 0, answer.text
        with contextlib.closing(accepted(listener)) as moved:
            bench.result(receive(moved, 9) == b"lost came" and exchange(client, moved),
                         "a listener that was a connection, and has forgotten what came out of order")
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


PAGE = bytes(range(256)) * 4000


def both_families(bench, runtime, mapped=""):
    """Three requests by either family to a server that says who asks (IPv4 behind `mapped`), and has a page."""
    for network, family in ((IPV4, "IPv4"), (IPV6, "IPv6")):
        client = bench.move(request("/who"), network)
        said = [response(client)]
        for path in ("/page", "/who"):
            client.sendall(request(path))
            said.append(response(client))
        name = "{}{} {}".format(mapped if network == IPV4 else "", *client.getsockname()).encode()
        bench.result(said == [name, PAGE, name], f"{runtime}, a listener for both families, {family}, three requests",
                     f"{said[0]}, {len(said[1])} bytes, {said[2]}; not {name}")
        client.close()


def nodejs(bench):
    """The runtime of Node: libuv's loop and accept()."""
    with daemon("node", "-e", """
        const page = Buffer.alloc(1024000, Uint8Array.from(Array(256).keys()));
        require("http").createServer(({url, socket}, answer) => answer.end(
            url == "/page" ? page : `${socket.remoteAddress} ${socket.remotePort}`)).listen(80, "::");"""):
        both_families(bench, "Node", "::ffff:")


def websocketd(bench):
    """The runtime of Go: its own poller and accept()."""
    with tempfile.TemporaryDirectory() as folder:
        script, static = pathlib.Path(folder, "cgi/who"), pathlib.Path(folder, "www")
        script.parent.mkdir()
        script.write_text("#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n%s' \"$REMOTE_ADDR $REMOTE_PORT\"",
                          encoding="ascii")
        script.chmod(0o755)
        static.mkdir()
        (static / "page").write_bytes(PAGE)
        with daemon("websocketd", "--port=80", f"--cgidir={script.parent}", f"--staticdir={static}"):
            both_families(bench, "Go")


def main():
    bench = Bench()
    for part in (reuseport, chosen_before, closed_before_accept, used_again, cookies, dual_stack, inherited, was_connection, edge_triggered, io_uring, redis, haproxy,
                 websocketd, nodejs):
        try:
            part(bench)
        except Exception:  # noqa: BLE001 the other parts have their say as well
            bench.result(False, f"{part.__name__} comes to its end", *traceback.format_exc().splitlines())
    bench.result(wait_for(lambda: bench.host.mappings() == 0, 30), "nothing is left at the host")
    bench.ktap.end()


if __name__ == "__main__":
    main()
