#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Hundreds of connections at a time, each program in one thread.

server  echoes what it gets; knows nothing of migrations
keeper  accepts and leaves everything unread
client  sends on each connection while it reads the bytes back, checks each one

Each prints one JSON object on its standard output: server and keeper when they
are told to end (SIGTERM), with the errors that their connections ended by.
"""

import argparse
import collections
import errno
import heapq
import json
import os
import pathlib
import resource
import select
import signal
import socket
import sys
import time

PERIOD = 1 << 16
# So often the client looks around, in seconds.
POLL = 0.02
PATTERN = bytes(i * 7 + (i >> 8) * 13 & 255 for i in range(PERIOD)) * 3


def stream(seed, start, length):
    """Bytes of an endless stream, another one for each seed; up to PERIOD of them."""
    at = (start + seed * 257) % PERIOD
    return PATTERN[at:at + length]


def name_of(error):
    return errno.errorcode.get(error.errno, str(error))


def report(**facts):
    print(json.dumps(facts), flush=True)


class Service:
    """server and keeper."""

    def __init__(self, args):
        self.args = args
        self.counts = collections.Counter()
        self.connections = {}
        family = socket.AF_INET6 if ":" in args.address else socket.AF_INET
        self.listener = socket.socket(family)
        if family == socket.AF_INET6:
            self.listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((args.address, args.port))
        self.listener.listen(4096)
        self.listener.setblocking(False)
        self.epoll = select.epoll()
        self.epoll.register(self.listener, select.EPOLLIN)
        signal.signal(signal.SIGTERM, self.end)

    def end(self, *_):
        report(place=self.args.role, **self.counts)
        os._exit(0)

    def run(self):
        while True:
            for fd, _ in self.epoll.poll():
                if fd == self.listener.fileno():
                    self.accept()
                else:
                    self.serve(self.connections[fd])

    def accept(self):
        connection, _ = self.listener.accept()
        # What is sent is small, the socket's buffer takes it.
        connection.settimeout(10)
        self.counts["accepted"] += 1
        self.connections[connection.fileno()] = connection
        # Errors and the end (EPOLLERR, EPOLLHUP) show without being asked for.
        self.epoll.register(connection, select.EPOLLIN if self.args.role == "server" else 0)

    def serve(self, connection):
        try:
            if data := connection.recv(PERIOD):
                self.counts["bytes"] += len(data)
                connection.sendall(data)
                return
            self.counts["finished"] += 1
        except OSError as error:
            self.counts[name_of(error)] += 1
        self.epoll.unregister(connection)
        del self.connections[connection.fileno()]
        connection.close()


class Connection:
    """One connection of the client."""

    def __init__(self, args, seed):
        self.args, self.seed = args, seed
        self.sent = self.got = 0
        self.failure = None
        self.connected = self.finished = False
        self.sock = socket.socket(socket.AF_INET6 if ":" in args.address else socket.AF_INET)
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.connect_ex((args.address, args.port))

    def fail(self, text):
        self.failure = f"{text} (sent {self.sent}, got {self.got})"
        self.finished = True

    def connect(self):
        error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self.fail(f"connect: {errno.errorcode[error]}")
        self.connected = not error

    def send(self, gate_is_open):
        """The next chunk; in how many seconds there may be another one, None if that was the last."""
        if self.sent and not gate_is_open:
            return POLL
        try:
            size = min(self.args.chunk, self.args.bytes - self.sent)
            self.sent += self.sock.send(stream(self.seed, self.sent, size))
        except BlockingIOError:
            pass
        except OSError as error:
            self.fail(f"send: {name_of(error)}")
        return max(self.args.pause, 0.001) if self.sent < self.args.bytes else None

    def receive(self):
        try:
            data = self.sock.recv(PERIOD)
        except BlockingIOError:
            return
        except OSError as error:
            self.fail(f"recv: {name_of(error)}")
            return
        if not data:
            self.finished = True
            if self.got < self.args.bytes:
                self.fail("end of stream")
        elif self.got + len(data) > self.sent or data != stream(self.seed, self.got, len(data)):
            self.fail("wrong bytes")
        else:
            self.got += len(data)
            if self.got == self.args.bytes:
                self.sock.shutdown(socket.SHUT_WR)


def client(args):
    begin = time.monotonic()
    epoll = select.epoll()
    left, ended, started = {}, [], 0
    due = []  # a heap: when, and which connection sends next

    def end(one):
        epoll.unregister(one.sock)
        del left[one.sock.fileno()]
        one.sock.close()
        ended.append(one)

    while started < args.count or left:
        now = time.monotonic()
        if now > begin + args.patience:
            for one in left.values():
                one.fail("took too long")
            ended += left.values()
            break
        while started < args.count and now >= begin + started * args.every:
            one = Connection(args, started)
            left[one.sock.fileno()] = one
            epoll.register(one.sock, select.EPOLLOUT)
            started += 1
        for fd, _ in epoll.poll(POLL):
            one = left[fd]
            if one.connected:
                one.receive()
            else:
                one.connect()
                epoll.modify(fd, select.EPOLLIN)
                heapq.heappush(due, (now, one.seed, one))
            if one.finished:
                end(one)
        gate_is_open = not args.gate or os.path.exists(args.gate)
        while due and due[0][0] <= now:
            _, _, one = heapq.heappop(due)
            if one.finished:
                continue
            later = one.send(gate_is_open)
            if one.finished:
                end(one)
            elif later:
                heapq.heappush(due, (now + later, one.seed, one))
        if args.ready and started == args.count and all(one.got >= args.chunk for one in left.values()):
            pathlib.Path(args.ready).touch()
            args.ready = None
    failures = collections.Counter(one.failure for one in ended if one.failure)
    good = sum(1 for one in ended if not one.failure)
    report(place="client", connections=args.count, good=good, failures=failures)
    return 0 if good == args.count else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    roles = parser.add_subparsers(dest="role", required=True)
    for name in ("server", "keeper", "client"):
        role = roles.add_parser(name)
        role.add_argument("address")
        role.add_argument("port", type=int)
        if name == "client":
            role.add_argument("--count", type=int, default=100)
            role.add_argument("--every", type=float, default=0, help="seconds between two connections")
            role.add_argument("--bytes", type=int, default=20_000)
            role.add_argument("--chunk", type=int, default=1000)
            role.add_argument("--pause", type=float, default=0.05, help="seconds between two chunks")
            role.add_argument("--ready", help="file to make when the first chunk of each has come back")
            role.add_argument("--gate", help="send no second chunk before this file is there")
            role.add_argument("--patience", type=float, default=120)
    args = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 16, 1 << 16))
    if args.role == "client":
        return client(args)
    return Service(args).run()


if __name__ == "__main__":
    sys.exit(main())
