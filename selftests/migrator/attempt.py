# SPDX-License-Identifier: GPL-2.0
"""How refusals.py tries to move a connection, and what must not have changed afterwards."""

import contextlib
import errno
import pathlib
import socket
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import machines  # noqa: E402
from machines import accepted, connect, exchange, genl, listen, receive, wait_for  # noqa: E402

TCP = socket.IPPROTO_TCP


class Bench:
    """The machines, and what must not change; connections and peers are of `network`."""

    def __init__(self):
        self.ktap, self.network = genl.Ktap(), machines.HERE
        self.lbu, self.host = machines.Migrator("lbu"), machines.Migrator("host1")
        self.sniffers = [machines.Sniffer("lbu"), machines.Sniffer("host1")]

    def result(self, good, name, *notes):
        self.ktap.result(good, name, *notes)

    def listen(self, name, port=80, protocol=0, options=()):
        return listen(name, port, protocol, family=self.network.family, options=options)

    @contextlib.contextmanager
    def connection(self, listener_options=(), client_options=(), protocol=0, port=80, vip=None):
        """Both ends of a connection between client and LBU."""
        with contextlib.closing(self.listen("lbu", 80, protocol, listener_options)) as listener, \
                contextlib.closing(connect(port, protocol, client_options, vip or self.network.vip)) as client, \
                contextlib.closing(accepted(listener)) as served:
            yield client, served

    def tables(self):
        """Live migrations and mappings of both machines."""
        live = [sum(entry["phase"] <= self.lbu.family.ids["NLB_MIGRATOR_PHASE_ACTIVE"] for entry in side.migrations())
                for side in (self.lbu, self.host)]
        return live + [self.lbu.mappings(), self.host.mappings()]

    def quiet(self):
        for sniffer in self.sniffers:
            sniffer.packets(wait=0.15)

    def refused(self, name, sock, error, text, works=None, peer=False, to=None):
        """One attempt. `works` tells whether the connection does, afterwards."""
        to = to or self.network.host1
        asks_peer = peer or text.startswith("target: ")
        # What the LBU finds itself, it finds before it looks for the peer.
        self.lbu.peer(to, asks_peer)
        self.quiet()
        before = self.tables()
        answer = self.lbu.migrate(sock, to)
        after = self.tables()
        # To the peer goes only what has to be asked there.
        sent = [ports for sniffer in self.sniffers for ports in sniffer.packets(wait=0.05)
                if not asks_peer or 4770 not in ports]
        notes = [f"got {genl.name_of(answer.error)} '{answer.text}', expected {errno.errorcode[error]} '{text}'"]
        good = answer.error == error and answer.text == text
        if sent:
            good = False
            notes.append(f"packets were sent (source and destination port): {sent}")
        # What an earlier connection has left may go meanwhile.
        if any(now > then for then, now in zip(before, after)):
            good = False
            notes.append(f"tables changed: {before} -> {after}")
        try:
            if works is not None and not works():
                good = False
                notes.append("the connection does not work any more")
        except OSError as failure:
            good = False
            notes.append(f"the connection does not work any more: {failure}")
        self.result(good, name, *notes)


@contextlib.contextmanager
def rules(table, *added):
    """What is added to the table of nft on the LBU is there meanwhile."""
    def nft(text):
        subprocess.run(["ip", "netns", "exec", "lbu", "nft", text], check=True)
    nft("; ".join([f"add table {table}"] + [f"add {kind} {table} {rest}" for kind, _, rest in
                                            (line.partition(" ") for line in added)]))
    try:
        yield
    finally:
        nft(f"delete table {table}")


def silenced():
    """What the LBU sends from port 80 gets lost before it reaches a device."""
    return rules("inet silent", "chain out { type filter hook output priority 0; }",
                 "rule out tcp sport 80 drop")


def state(sock):
    """tcpi_state: a number of include/net/tcp_states.h."""
    return sock.getsockopt(TCP, socket.TCP_INFO, 1)[0]


ESTABLISHED, FIN_WAIT1, FIN_WAIT2, LAST_ACK, CLOSING = 1, 4, 5, 9, 11


def moves(bench, name, pair=None, to=None, target_options=()):
    """The counterpart of all refusals: `pair`, or a new connection, moves to a listener on host1."""
    to = to or bench.network.host1
    bench.lbu.peer(to, True)
    with contextlib.closing(bench.listen("host1", options=target_options)) as target, \
            pair or bench.connection() as (client, served):
        client.sendall(b"hello")
        receive_peek(served, 5)
        answer = bench.lbu.migrate(served, to)
        good, notes = answer.error == 0, [f"{genl.name_of(answer.error)} '{answer.text}'"]
        if good:
            with contextlib.closing(accepted(target)) as there:
                good = receive(there, 5) == b"hello" and exchange(client, there)
                client.shutdown(socket.SHUT_WR)
                good = good and there.recv(1) == b""
        bench.result(good, f"moves: {name}", *notes)
    wait_for(lambda: bench.tables()[:2] == [0, 0])


def receive_peek(sock, count):
    return wait_for(lambda: len(sock.recv(count, socket.MSG_PEEK)) >= count)
