#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Connections that move while something is in their way that has nothing to do with their state.

Run by test_limits.sh, which has set up the machines.
"""

import contextlib
import errno
import pathlib
import select
import socket
import struct
import subprocess
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import replay  # noqa: E402
from machines import (CLIENT, ETH_P_ALL, HOST1, PACKET_OUTGOING, VIP, Migrator, accepted, connect, exchange, genl,  # noqa: E402
                      listen, machine, receive, wait_for)
from scene import SO_RCVBUFFORCE, SO_SNDBUFFORCE, pattern, run, table  # noqa: E402

IP_RECVERR = 11
# run.sh has put it there.
FIRST_NAMESPACE = "/run/nlb-first-net"


def error_waits(lbu, listeners):
    """An error that the program has not read: the connection stays, and with it the error."""
    client = connect()
    served = accepted(listeners[0])
    served.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    line = Line(client.getsockname()[1])
    undo = table("client", "unreachable", "prerouting", ["tcp sport 80 drop"])
    served.sendall(b"lost")
    assert wait_for(lambda: line.look() or line.got)
    # Host unreachable.
    report = struct.pack(">BBHI", 3, 1, 0, 0) + line.got[0][:28]
    report = report[:2] + struct.pack(">H", replay.checksum(report)) + report[4:]
    with machine("client"), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as icmp:
        icmp.sendto(report, (VIP, 0))
    poller = select.poll()
    poller.register(served, 0)
    assert poller.poll(20_000), "no error came"
    undo()
    answer = lbu.migrate(served)
    assert (answer.error, answer.text) == (errno.EPIPE, "socket has a pending error"), answer
    assert served.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EHOSTUNREACH
    assert receive(client, 4) == b"lost" and exchange(client, served)
    moves(lbu, listeners, client, served)


def moves(lbu, listeners, client, served):
    """Now nothing is in the way."""
    answer = lbu.migrate(served, timeout=20000)
    assert answer.error == 0, answer.text
    served.close()
    with contextlib.closing(accepted(listeners[1])) as moved, contextlib.closing(client):
        assert exchange(client, moved)


def tcp_memory(value=None):
    """net.ipv4.tcp_mem of all machines together: how much it is, or shall be."""
    command = ["nsenter", f"--net={FIRST_NAMESPACE}", "sysctl", "-n", "net.ipv4.tcp_mem"]
    if value:
        command[3:] = ["-qw", f"net.ipv4.tcp_mem={value}"]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout.strip()


def hog():
    """Connections that have more memory than the processors keep in reserve, which tcp_mem does not count."""
    with contextlib.closing(listen("host2", 81, options=[(socket.SOL_SOCKET, SO_RCVBUFFORCE, 32 << 20)])) as listener:
        with machine("host2"):
            one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 32 << 20)
        one.connect(("127.0.0.1", 81))
        one.sendall(bytes(8 << 20))
        return one, accepted(listener)


def no_memory(lbu, listeners):
    """TCP has no memory left when the target, whose answers are slow, has the state. A connection with unread bytes stays
    where it is; to be sent they may be nevertheless, for that is what the kernel's limit says of a sender who cannot
    wait (__sk_mem_raise_allocated()). No byte is lost."""
    usual, data, host, answers = tcp_memory(), pattern(400_000), Migrator("host1"), []
    hogs = hog()
    for unread, unsent in ((len(data), 0), (0, len(data))):
        client = connect()
        served = accepted(listeners[0])
        for sock in (client, served):
            for option in (SO_RCVBUFFORCE, SO_SNDBUFFORCE):
                sock.setsockopt(socket.SOL_SOCKET, option, 4 << 20)
        client.sendall(data[:unread])
        if unread:
            assert wait_for(lambda: len(served.recv(1 << 20, socket.MSG_PEEK)) == unread)
        undo = table("client", "lost", "prerouting", ["tcp sport 80 drop"]) if unsent else lambda: None
        served.sendall(data[:unsent])
        mover = threading.Thread(target=lambda sock=served: answers.append(lbu.migrate(sock, timeout=20000)))
        mover.start()
        port = client.getsockname()[1]
        there = wait_for(lambda: host.phase(port, "TARGET") == "staged")
        tcp_memory("1 1 1")
        mover.join()
        tcp_memory(usual)
        undo()
        answer = answers.pop()
        print(f"{unread} bytes unread, {unsent} not sent: {genl.name_of(answer.error)} {answer.text}")
        assert there and (answer.error, answer.text) in ((errno.ENOMEM, "target: out of memory"), (0, ""))
        if not answer.error:
            assert not unread
            served.close()
            served = accepted(listeners[1])
        assert receive(served, unread) == data[:unread] and receive(client, unsent) == data[:unsent]
        assert exchange(client, served)
        if answer.error:
            moves(lbu, listeners, client, served)
        else:
            client.close()
            served.close()
    for sock in hogs:
        sock.close()


class Line:
    """The packets of a connection as the client sees them, and whether it is reset."""

    def __init__(self, port):
        self.port, self.sent, self.got, self.reset = port, [], [], False
        with machine("client"):
            self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
            self.raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self.sock.settimeout(0.1)

    def look(self):
        """Takes down what has passed since the last time."""
        with contextlib.suppress(TimeoutError):
            while True:
                packet, (_, _, kind, *_) = self.sock.recvfrom(1 << 16)
                if len(packet) < 40 or packet[9] != socket.IPPROTO_TCP:
                    continue
                source, destination = struct.unpack_from(">HH", packet, 20)
                flags = packet[33]
                self.reset |= self.port in (source, destination) and bool(flags & 4)
                if source == self.port and kind == PACKET_OUTGOING and not flags & 2:
                    self.sent.append(packet)
                elif destination == self.port:
                    self.got.append(packet)

    def again(self):
        """Sends all of it again; how many packets."""
        packets = [replay.with_checksum(packet) for packet in self.sent]
        for packet in packets:
            self.raw.sendto(packet, (VIP, 0))
        return len(packets)


def late_packets(lbu, listeners):
    """Those of a connection that has moved come again: without a route to the machine that it left, with one to the
    other. It is reset by neither."""
    client = connect()
    served, port = accepted(listeners[0]), client.getsockname()[1]
    line = Line(port)
    for number in range(10):
        assert exchange(client, served, bytes([number]) * 100)
    line.look()
    answer = lbu.migrate(served)
    assert answer.error == 0, answer.text
    name = f"{VIP}:80/tcp client {CLIENT}:{port}"
    run("lbu", f"nlb route del {name}")
    before = lbu.counters()["drop-tombstone"]
    count = line.again()
    assert count >= 10
    assert wait_for(lambda: lbu.counters()["drop-tombstone"] >= before + count), "not all were dropped"
    run("lbu", f"nlb route add {name} host {HOST1}")
    served.close()
    moved = accepted(listeners[1])
    for _ in range(2):
        line.again()
        assert exchange(client, moved)
    line.look()
    assert not line.reset
    client.close()
    assert moved.recv(1) == b""
    moved.close()


def main():
    lbu = Migrator("lbu")
    with contextlib.closing(listen("lbu", address=VIP)) as one, contextlib.closing(listen("host1")) as other:
        globals()[sys.argv[1]](lbu, (one, other))


if __name__ == "__main__":
    main()
