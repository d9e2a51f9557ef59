#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Packets from the middle of connections that the LBU has no route of.

misses.py SCENARIO: on the machines of lib.sh, where host1 echoes on port 80, and the service asks. The LBU loses
what it knows by `nlb route del`.
"""

import contextlib
import json
import pathlib
import socket
import struct
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "migrator"))
from machines import (CLIENT, HOST1, VIP, Sniffer, connect, exchange, genl, listen, machine, receive,  # noqa: E402
                      wait_for)
import pcap  # noqa: E402
from replay import with_checksum  # noqa: E402

SERVICE = f"[{VIP}]:80/tcp" if ":" in VIP else f"{VIP}:80/tcp"


def nlb(line, check=True):
    return subprocess.run(["ip", "netns", "exec", "lbu", "nlb", "-j"] + line.split(), check=check, text=True,
                          capture_output=True)


def counter(name):
    return json.loads(nlb("stats show fwd").stdout)[0]["counters"][name]


def of(client):
    address, port = client.getsockname()[:2]
    return f"{SERVICE} client " + (f"[{address}]:{port}" if ":" in address else f"{address}:{port}")


def lost():
    """A connection to host1 that the LBU knows nothing of any more."""
    client = connect()
    # What it acknowledges later would be asked about, too.
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    assert exchange(client, client)
    nlb(f"route del {of(client)}")
    return client


def asked(client):
    """What the LBU says of the client's connection."""
    port = client.getsockname()[1]
    found = [miss for miss in json.loads(nlb("miss show").stdout) if miss["client_port"] == port]
    return found[0] if found else None


@contextlib.contextmanager
def listening():
    """Somebody may answer; gives what is printed."""
    command = ["ip", "netns", "exec", "lbu", "nlb", "-j", "monitor", "misses"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as monitor:
        assert "Watching misses" in monitor.stderr.readline()
        try:
            yield monitor.stdout
        finally:
            monitor.terminate()


def asked_by(events, **wanted):
    """Waits for the event about that connection: others may have something to say again."""
    for line in events:
        event = json.loads(line)
        assert event["event"] == "miss", event
        if wanted.items() <= event["miss"].items():
            return
    raise AssertionError("the events have ended")


def settimeout(ms):
    nlb(f"service set {SERVICE} miss-timeout {ms}")


@contextlib.contextmanager
def waiting(ms):
    """A connection that the LBU asks about, and waits so long for an answer; somebody listens meanwhile."""
    settimeout(ms)
    with listening() as events:
        client = lost()
        client.sendall(b"do you know me?")
        asked_by(events, client_port=client.getsockname()[1])
        yield client


def is_reset(client, text=b""):
    """Whether that is the answer, maybe to the acknowledgement of what came before."""
    try:
        client.sendall(text)
        client.recv(1)
    except ConnectionResetError:
        return True
    return False


def route():
    """A route is an answer: what has waited arrives, and the connection goes on."""
    with waiting(5000) as client:
        assert wait_for(lambda: asked(client)["held"] >= 1)
        assert asked(client)["state"] == "asked"
        nlb(f"route add {of(client)} host {HOST1}")
        assert receive(client, 15) == b"do you know me?"
        assert asked(client) is None
        client.sendall(b"again")
        assert receive(client, 5) == b"again"
        client.close()


def drop():
    """Dropped without a word, until the answer is another one."""
    with waiting(5000) as client:
        dropped = counter("drop-miss")
        nlb(f"miss set {of(client)} state drop")
        # What had waited, and what the client sends again.
        assert wait_for(lambda: counter("drop-miss") >= dropped + 3)
        assert asked(client)["state"] == "drop" and asked(client)["held"] == 0
        client.settimeout(0.001)
        try:
            raise AssertionError(client.recv(1))
        except TimeoutError:
            client.settimeout(20)
        nlb(f"miss set {of(client)} state pass")
        assert is_reset(client)


def passes():
    """As if nobody had been asked: the local stack knows no such connection."""
    with waiting(5000) as client:
        nlb(f"miss set {of(client)} state pass")
        assert is_reset(client)


def no_answer():
    """The same when time is over."""
    with waiting(100) as client:
        assert is_reset(client)
        assert asked(client)["state"] == "pass"


def nobody():
    """Nothing waits when nobody listens, or when the service does not ask."""
    settimeout(5000)
    before = counter("misses"), counter("pass-mid-stream")
    client = lost()
    assert is_reset(client, b"do you know me?")
    settimeout(0)
    with listening():
        client = lost()
        assert is_reset(client, b"do you know me?")
    assert counter("misses") == before[0] and counter("pass-mid-stream") >= before[1] + 2


def acknowledgements(port, count):
    """So many from that port of the client, of a connection that nobody has."""
    with machine("client"), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for number in range(count):
            segment = struct.pack(">HHIIBBHHH", port, 80, 1, number, 5 << 4, pcap.ACK, 100, 0, 0)
            head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, 64, socket.IPPROTO_TCP, 0)
            raw.sendto(with_checksum(head + genl.ip(CLIENT) + genl.ip(VIP) + segment), (VIP, 0))


def bounds():
    """So many packets wait, and no more; those that do all arrive, in their order."""
    settimeout(5000)
    with listening() as events:
        answers = Sniffer("lbu")
        dropped = counter("drop-miss")
        acknowledgements(33333, 30)
        asked_by(events, client_port=33333)
        assert counter("drop-miss") == dropped + 14
        nlb(f"miss set {SERVICE} client {CLIENT}:33333 state pass")
        # To each of them a RST.
        resets = answers.packets(wait=2).count((80, 33333))
        assert resets == 16, resets


def rules():
    """What waits counts once for a rule that accepts it, and is judged again by those that came meanwhile."""
    settimeout(5000)
    nlb("rule add accept from any priority 10")

    def counted(priority):
        """Five of them, once: ten would be twice. Something late of another connection may be among them."""
        return 5 <= json.loads(nlb(f"rule show priority {priority}").stdout)[0]["packets"] < 10

    with contextlib.ExitStack() as undo, listening() as events:
        undo.callback(nlb, "rule flush")
        answers = Sniffer("lbu")

        def held(port):
            return [miss["held"] for miss in json.loads(nlb("miss show").stdout) if miss["client_port"] == port]

        def wait(port, answer, count=5):
            acknowledgements(port, count)
            asked_by(events, client_port=port)
            assert wait_for(lambda: held(port) == [count]), held(port)
            for line in answer:
                nlb(line.replace("CONNECTION", f"{SERVICE} client {CLIENT}:{port}"))

        def routed():
            shown = json.loads(nlb(f"route show {SERVICE} client {CLIENT}:33335").stdout)
            return shown and shown[0]["packets"] == 5

        wait(33334, ["miss set CONNECTION state pass"])
        assert wait_for(lambda: counted(10))
        # The route has them, or the answer, and not the rule.
        wait(33335, [f"route add CONNECTION host {HOST1}"])
        assert wait_for(routed)
        wait(33336, ["miss set CONNECTION state drop"])
        before = counter("drop-rule"), counter("reject-rule")
        wait(33337, [f"rule add drop from {CLIENT} priority 5", "miss set CONNECTION state pass"])
        assert wait_for(lambda: counter("drop-rule") >= before[0] + 5)
        assert counted(5)
        nlb("rule del priority 5")
        wait(33338, [f"rule add reject from {CLIENT} priority 5", "miss set CONNECTION state pass"])
        assert wait_for(lambda: counter("reject-rule") >= before[1] + 5)
        assert counted(5)
        resets = [port for source, port in answers.packets(wait=2) if source == 80]
        assert [resets.count(port) for port in (33334, 33336, 33337, 33338)] == [5, 0, 0, 5], resets
        assert counted(10)
    nlb(f"route del {SERVICE} client {CLIENT}:33335")


def classifier():
    """In mode peek, connections that this machine has are not asked about, and others are."""
    service = SERVICE.replace(":80/", ":81/")
    nlb(f"service add {service} mode peek miss-timeout 5000")
    with listening() as events:
        listener = listen("lbu", 81)
        client = connect(81)
        server = listener.accept()[0]
        assert exchange(client, server)
        # It goes without a word: the client's next packet has no connection here, nor a route.
        assert asked(client) is None
        repair(server)
        server.close()
        client.sendall(b"do you know me?")
        asked_by(events, vip_port=81)
        nlb(f"miss set {of(client).replace(SERVICE, service)} state pass")
        assert is_reset(client)
        client.close()
    nlb(f"service del {service}")


def repair(sock):
    """From now on the socket sends nothing, not even a FIN."""
    TCP_REPAIR = 19
    sock.setsockopt(6, TCP_REPAIR, 1)


def syn():
    """A new connection has nothing to do with what waits of an old one."""
    with waiting(5000) as client:
        source = client.getsockname()
        repair(client)
        client.close()
        dropped = counter("drop-miss")
        again = connect(source=source)
        again.sendall(b"anew")
        assert receive(again, 4) == b"anew"
        assert counter("drop-miss") >= dropped + 1
        again.close()


def gone(how):
    """What waits goes with the device, or with the module."""
    with waiting(5000) as client:
        assert wait_for(lambda: asked(client)["held"] >= 1)
        dropped = counter("drop-miss")
        if how == "device":
            subprocess.run("ip -n lbu link set client netns spare".split(), check=True)
            assert counter("drop-miss") > dropped and asked(client)["held"] == 0
            for line in ("-n spare link set client netns lbu", "-n lbu addr add 10.0.1.1/24 dev client",
                         "-n lbu link set client up"):
                subprocess.run(["ip"] + line.split(), check=True)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
