# SPDX-License-Identifier: GPL-2.0
"""Scenarios of state.py: what the network does to a connection that moves."""

import contextlib
import ipaddress
import pathlib
import socket

import crowd
from machines import CLIENT, VIP, genl, machine
from scene import (PATIENCE, SO_SNDBUFFORCE, Info, Scene, Writer, buffers, expect, expect_end, pattern, run,  # noqa: E402
                   table, wait_until, with_sysctl)

# include/uapi/linux/tcp.h: TCPI_OPT_ECN
OPT_ECN = 8


# How nft marks a packet. Of IPv6's header the kernel lets nobody write the second byte alone, as "ip6 ecn set ce" would.
MARK = {"ip": "ip ecn set ce", "ip6": "@nh,0,16 set @nh,0,16 | 0x30"}


def congestion(name, port):
    """What that machine sends from or to the port meets congestion: it is marked."""
    ip = crowd.network().ip
    return crowd.meanwhile(lambda rules: table(name, "congestion", "output", rules),
                           f"tcp {port} 80 {ip} ecn != not-ect {MARK[ip]}")


@contextlib.contextmanager
def flags(name, port):
    """Gives a function that says how many segments with ECE, and how many with CWR, that machine has sent."""
    rules = [f"tcp {port} 80 tcp flags & (syn | {flag}) == {flag} counter" for flag in ("ecn", "cwr")]

    def count(_):
        words = run(name, "nft list table inet ece").split()
        return [int(words[n + 2]) for n, word in enumerate(words) if word == "counter"]
    with crowd.meanwhile(lambda _: table(name, "ece", "output", rules)):
        yield lambda: crowd.once(count)


def ecn():
    """A mark is echoed until the sender has answered it, and that once, whoever has the connection by then."""
    scene = Scene()
    with with_sysctl("client", "ipv4/tcp_ecn", "1"):
        client, origin = scene.connect()
    assert Info(client).options & Info(origin).options & OPT_ECN
    data = pattern(5000)

    def send(sock, other):
        sock.sendall(data)
        expect(other, data)
        wait_until("all is acknowledged", lambda: Info(sock).unacked == 0)

    # Both know of congestion, and neither has sent anything since.
    with congestion("client", "dport"):
        send(client, origin)
    with congestion("lbu", "sport"):
        send(origin, client)
    moved = scene.migrate(origin)
    assert Info(moved).options & OPT_ECN
    with flags("host1", "sport") as target, flags("client", "dport") as source:
        for _ in range(2):
            before = target()
            send(moved, client)
            echoes, answers = (now - then for now, then in zip(target(), before))
            assert echoes >= crowd.size(), "the target does not echo what was marked"
            assert answers == crowd.size(), f"the target has answered {answers} times"
            before = source()
            send(client, moved)
            echoes, answers = (now - then for now, then in zip(source(), before))
            assert echoes == 0, "the client has not heard an answer"
            assert answers == crowd.size(), f"the client has answered {answers} times"
            before = target()
            send(moved, client)
            assert target() == before, "the target goes on after the answer"
            # Once more, and all of it here.
            with congestion("client", "dport"):
                send(client, moved)
            with congestion("host1", "sport"):
                send(moved, client)
    scene.finish(client, moved)


def tracking(name, exempt):
    """Connections are tracked on that machine, and what the tracker calls invalid is dropped; or they are exempt."""
    return crowd.meanwhile(lambda _: tracker(name, exempt))


def tracker(name, exempt):
    lines = []
    for first, then, before, after, end in ("prerouting", "input", "early", "in", "d"), ("output", "output", "own", "out", "s"):
        ours = [f"{there.ip} {end}addr {there.vip} tcp {end}port 80" for there in crowd.networks()]
        if exempt:
            lines += [f"chain {before} {{ type filter hook {first} priority raw;", *(f"{packets} notrack" for packets in ours), "}"]
        lines += [f"chain {after} {{ type filter hook {then} priority 0;",
                  *(f"{packets} ct state invalid counter drop" for packets in ours), "}"]
    run(name, "nft -f -", "table inet tracker {\n" + "\n".join(lines) + "\n}")
    return lambda: run(name, "nft delete table inet tracker")


def invalid(name):
    """How many packets were dropped there for being invalid."""
    words = run(name, "nft list table inet tracker").split()
    return sum(int(words[n + 2]) for n, word in enumerate(words) if word == "counter")


def tracks(name, client, expected):
    """Whether it is as expected that that machine tracks the client's connection, or not; user-mode Linux does not say."""
    address, port = client.getsockname()[:2]
    address = ipaddress.ip_address(address).exploded
    table = pathlib.Path("/proc/net/nf_conntrack")
    if not table.exists():
        return True
    lines = crowd.once(lambda _: run(name, f"cat {table}")).splitlines()
    return expected == any(f" src={address} " in line and f" sport={port} dport=80 " in line for line in lines)


def tracked(loose, exempt=""):
    """LBU and host track connections, and do without what does not fit; the host sees this one from the middle on.

    At the LBU nothing is left of it.
    """
    works, scene = loose == "1" or exempt, Scene()
    with tracking("lbu", ""), tracking("host1", exempt), with_sysctl("host1", "netfilter/nf_conntrack_tcp_loose", loose):
        client, origin = scene.connect()
        up, down = pattern(200_000), pattern(200_000, 2)
        origin.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 1 << 20)
        upload = Writer(client, up)
        origin.sendall(down[:100_000])
        expect(client, down[:50_000])
        expect(origin, up[:50_000])
        assert tracks("lbu", client, True), "the LBU does not track it"
        moved = scene.migrate(origin)
        assert tracks("lbu", client, False), "the LBU tracks it still"
        if works:
            download = Writer(moved, down[100_000:])
            expect(moved, up[50_000:])
            expect(client, down[50_000:])
            assert invalid("lbu") == 0 and invalid("host1") == 0, "something was dropped"
            assert tracks("host1", client, not exempt), "the host tracks what is exempt, or does not track it"
            assert tracks("lbu", client, False), "the LBU tracks it again"
        else:
            wait_until("packets are dropped", lambda: invalid("host1") > 0)
            crowd.note(f"{invalid('host1')} packets are dropped at the host")
    if not works:
        # They come again.
        download = Writer(moved, down[100_000:])
        expect(moved, up[50_000:])
        expect(client, down[50_000:])
    upload.done()
    download.done()
    scene.finish(client, moved)


# As LBU and host1 know each other.
ADDRESSES = {"lbu": "10.0.2.1", "host1": "10.0.2.2"}
SO_MARK = 36


def lead(client, name):
    """From now on, packets of the client's socket go to that machine first (test_state.sh has made the rule)."""
    client.setsockopt(socket.SOL_SOCKET, SO_MARK, int(name == "host1"))


def tracked_before():
    """The host has tracked another connection with these addresses, from its SYN on. What comes does not fit that."""
    scene, name = Scene(), (CLIENT, 30_000 + crowd.number())
    with tracking("host1", ""):
        with machine("client"):
            client = socket.socket()
        lead(client, "host1")
        client.bind(name)
        client.connect((VIP, 80))
        scene.listener.accept(name).close()
        expect_end(client)
        client.close()
        client, origin = scene.connect(lambda sock: sock.bind(name))
        moved = scene.migrate(origin)
        client.sendall(b"more")
        wait_until("packets are dropped", lambda: invalid("host1") > 0)
        with with_sysctl("host1", "netfilter/nf_conntrack_tcp_be_liberal", "1"):
            expect(moved, b"more")
            scene.finish(client, moved)


def to_and_fro(times):
    """The path of the client's packets changes, and the connection follows, many times: LBU and host take turns. Bytes of
    both directions wait on their way each time: the client sends more than is read, and has no room for what it is sent.
    """
    times, part, scene = int(times), 8000, Scene()
    sides = [Side("lbu", "host1", scene.listener), Side("host1", "lbu", scene.lbu)]
    client, here = scene.connect(lambda sock: buffers(sock, receive=4096))
    up, down = (pattern(part * times, 2 * crowd.number() + direction) for direction in (1, 2))
    writer = Writer(client, up)
    for turn in range(times):
        now = slice(part * turn, part * (turn + 1))
        expect(here, up[now])
        here.sendall(down[now])
        # Not all of it fits in the client's window, whatever was acknowledged meanwhile.
        assert Info(here).notsent + Info(here).unacked, "nothing is on its way to the client"
        here = sides[turn % 2].migrate(client, here)
        expect(client, down[now])
    writer.done()
    scene.finish(client, here)


class Side:
    """A machine from which connections move to a listener on another, and their packets after them."""

    def __init__(self, name, to, listener):
        self.name, self.to, self.listener = name, to, listener
        with machine(name):
            self.migrator, self.forwarder = genl.Family("nlb-migrator"), genl.Family("nlb-fwd")

    def migrate(self, client, sock):
        name = sock.getpeername()
        answer = self.migrator.do("MIGRATE", [("MIGRATION_FD", genl.u32(sock.fileno())),
                                              ("MIGRATION_PEER_ADDR", genl.ip(ADDRESSES[self.to])),
                                              ("MIGRATION_TIMEOUT", genl.u32(30000))])
        assert answer.error == 0, f"from {self.name}: {genl.name_of(answer.error)}: {answer.text}"
        sock.close()
        moved = self.listener.accept(name)
        moved.settimeout(PATIENCE)
        lead(client, self.to)
        # What the route was for is over, and the connection may come back by the wire.
        answer = self.forwarder.do("ROUTE_DEL", [("ROUTE_PROTO", genl.u32(socket.IPPROTO_TCP)),
                                                 ("ROUTE_CLIENT_ADDR", genl.ip(name[0])),
                                                 ("ROUTE_CLIENT_PORT", genl.be16(name[1])),
                                                 ("ROUTE_VIP_ADDR", genl.ip(VIP)), ("ROUTE_VIP_PORT", genl.be16(80))])
        assert answer.error == 0, f"route of {self.name}: {genl.name_of(answer.error)}: {answer.text}"
        return moved
