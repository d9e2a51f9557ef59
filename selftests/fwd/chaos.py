#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Services, endpoints, weights, states, schedulers, allotments and rules of the LBU change at random under load, one by
one or as a file says that is applied: chaos.py SECONDS [SEED].

TCP connections and UDP flows of the client get back what they send, byte by byte, all the time. What may cut a connection
off is that its endpoint becomes inactive or its service is deleted, which is noted beforehand; nothing else may. Each
service has one endpoint that always takes connections. What rules drop and reject is of other addresses of the client,
from which there comes something all the time. At the end all services go, under traffic.
"""

import contextlib
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time

VIP, VIP6 = "192.0.2.10", "2001:db8:10::10"
# The first one stays active; the ports are those of the host's program.
ENDPOINTS = {
    4: ["10.0.2.2", "10.0.2.3 via direct", "10.0.2.4 via ipip", "10.0.3.2 via half-nat port 8000", "10.0.3.3 via nat port 8000"],
    6: ["2001:db8:2::2", "2001:db8:2::3 via direct", "2001:db8:3::2 via half-nat port 8000", "2001:db8:3::3 via nat port 8000"],
}
# Where the kernel has GRE and GUE.
if os.environ.get("NLB_CARRIERS"):
    ENDPOINTS[4] += ["10.0.2.5 via gre tun-csum yes", "10.0.2.6 via gue"]
# Addresses of the client, and nobody's connections.
STRANGERS = {4: ["198.51.100.7", "198.51.100.8"], 6: ["2001:db8:f::7", "2001:db8:f::8"]}
SCHEDULERS = ["rr", "wrr", "lc", "wlc", "mh", "sh", "sed", "nq", "fo", "twos"]
failures = []
over = threading.Event()


def nlb(*words, text=None):
    done = subprocess.run(["nlb", "-n", "lbu", *words], check=False, capture_output=True, text=True, input=text)
    if done.returncode:
        raise SystemExit(f"nlb {' '.join(words)}: {done.stderr}\n{text or ''}")
    return done


class Service:
    def __init__(self, chance, family, proto):
        self.chance, self.family, self.proto = chance, family, proto
        self.to = (VIP if family == 4 else VIP6), 7000
        self.name = f"{VIP}:7000/{proto}" if family == 4 else f"[{VIP6}]:7000/{proto}"
        self.anchor, *self.others = ENDPOINTS[family]
        # Ports of clients whose connection may be cut off, and when the service was there the last time that it was not.
        self.excused, self.gone = set(), 0.0
        self.there = []
        self.traffic = self.cut = self.done = 0

    def create(self):
        nlb("service", "add", self.name, "scheduler", self.chance.choice(SCHEDULERS))
        nlb("endpoint", "add", self.name, "host", *self.anchor.split())
        for other in self.others:
            nlb("endpoint", "add", self.name, "host", *other.split())
        self.there = list(self.others)
        self.gone = time.monotonic()

    def delete(self):
        self.gone = float("inf")
        nlb("service", "del", self.name)

    def was_gone(self, since):
        """Whether it was not there at any time since then; with what it takes until it hears of that."""
        return self.gone >= since - 1

    def endpoint(self, command, which, *words):
        nlb("endpoint", command, self.name, "host", which.split()[0], *words)

    def cut_off(self, which):
        """No new connections, those that there are excused, and then none at all."""
        self.endpoint("set", which, "state", "draining")
        routes = json.loads(nlb("-j", "route", "show", self.name).stdout)
        self.excused |= {route["client_port"] for route in routes if route["host_addr"] == which.split()[0]}
        self.endpoint("set", which, "state", "inactive")

    def change(self):
        """One change at random; what it was."""
        chance = self.chance
        what = chance.choices(
            ["weight", "state", "cut-off", "endpoint", "limit", "backup", "scheduler", "affinity", "slow-start", "allotment",
             "service"], [6, 6, 3, 6, 3, 2, 4, 2, 2, 6, 1])[0]
        other = chance.choice(self.others)
        if what == "service":
            self.delete()
            self.create()
        elif what == "scheduler":
            nlb("service", "set", self.name, "scheduler", chance.choice(SCHEDULERS))
        elif what == "affinity":
            nlb("service", "set", self.name, "affinity", chance.choice(["0", "5"]))
        elif what == "slow-start":
            nlb("service", "set", self.name, "slow-start", chance.choice(["0", "3"]))
        elif what == "allotment":
            self.allot()
        elif what == "weight" and chance.random() < 0.3:
            self.endpoint("set", self.anchor, "weight", str(chance.choice([1, 100, 65535])))
        elif other not in self.there:
            nlb("endpoint", "add", self.name, "host", *other.split(), "weight", str(chance.choice([0, 1, 100, 65535])))
            self.there.append(other)
            what = "endpoint add"
        elif what == "endpoint":
            self.endpoint("del", other)
            self.there.remove(other)
            what = "endpoint del"
        elif what == "weight":
            self.endpoint("set", other, "weight", str(chance.choice([0, 1, 100, 65535])))
        elif what == "limit":
            most = chance.choice([0, 1, 5])
            self.endpoint("set", other, "max-routes", str(most), "resume-routes", str(chance.randint(0, most)))
        elif what == "backup":
            self.endpoint("set", other, "backup", chance.choice(["yes", "no"]))
        elif what == "state":
            self.endpoint("set", other, "state", chance.choice(["active", "active", "draining"]))
        else:
            self.cut_off(other)
        return what

    def allot(self):
        """Tokens, maybe fewer than there are connections, or percentages; endpoints that have none are passed over meanwhile."""
        chance = self.chance
        hosts = chance.sample([self.anchor, *self.there], chance.randint(1, 1 + len(self.there)))
        scheme = chance.choice(["tokens", "percentages"])
        shares = [chance.randint(1, 20) for _ in hosts]
        if scheme == "percentages":
            cuts = [0, *sorted(chance.sample(range(1, 100), len(hosts) - 1)), 100]
            shares = [end - begin for begin, end in zip(cuts, cuts[1:])]
        shares = [word for host, share in zip(hosts, shares) for word in ("share", f"{host.split()[0]}={share}")]
        nlb("allotment", "set", self.name, "scheme", scheme, "age", str(chance.choice([100, 1000, 5000])), *shares)

    def takes(self, host):
        """Whether a host of a file is to stay in it."""
        if host == self.anchor.split()[0] or self.chance.random() < 0.7:
            return True
        self.there = [other for other in self.there if other.split()[0] != host]
        return False


class Rules:
    """What is dropped, rejected and accepted."""

    def __init__(self, chance):
        self.chance, self.there, self.next = chance, [], 1

    def change(self):
        chance = self.chance
        if len(self.there) >= 8 or self.there and chance.random() < 0.4:
            nlb("rule", "del", "priority", self.there.pop(chance.randrange(len(self.there))))
            return "rule del"
        family = chance.choice([4, 6])
        action = chance.choice(["drop", "drop", "reject", "accept"])
        source = chance.choice(STRANGERS[family] + [["198.51.100.0/24", "2001:db8:f::/64"][family == 6]])
        if action == "accept":
            source = "any"
        vip = VIP if family == 4 else VIP6
        to = chance.choice([vip, f"{vip if family == 4 else f'[{vip}]'}:7000/{chance.choice(['tcp', 'udp'])}"])
        # Some before those that are there, some behind.
        priority = str(self.next * 1000 + chance.randrange(1000)) if chance.random() < 0.5 else str(1000 - self.next)
        self.next += 1
        nlb("rule", "add", action, "from", source, "to", to, "priority", priority)
        self.there.append(priority)
        return "rule add"


def apply(services, chance):
    """Another configuration than there is, as a file: weights, schedulers, hosts that go."""
    services, saved = {service.name: service for service in services}, nlb("save").stdout
    # A part for each table; those of a service's endpoints follow it.
    service, parts = None, []
    for part in re.split(r"^(?=\[\[)", saved, flags=re.MULTILINE):
        if part.startswith("[[service]]"):
            service = services[re.search(r'^vip = "(.*)"$', part, re.MULTILINE)[1]]
            part = re.sub(r'^scheduler = ".*"', lambda _: f'scheduler = "{chance.choice(SCHEDULERS)}"', part, flags=re.MULTILINE)
        elif part.startswith("[[service.endpoint]]"):
            if not service.takes(re.search(r'^host = "(.*)"$', part, re.MULTILINE)[1]):
                continue
            part = re.sub(r"^weight = \d+", lambda _: f"weight = {chance.randint(1, 100)}", part, flags=re.MULTILINE)
        parts.append(part)
    text = "".join(parts)
    nlb("apply", "-", text=text)
    left = nlb("apply", "-", "dry-run", text=text).stdout
    if left:
        failures.append(f"not as the file says: {left}")
        over.set()
    return "apply"


def strangers():
    """What rules may drop, from addresses without a way back."""
    while not over.is_set():
        for family, addresses in STRANGERS.items():
            for address in addresses:
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    with socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, kind) as sock:
                        sock.setblocking(False)
                        sock.bind((address, 0))
                        with contextlib.suppress(OSError):
                            sock.connect((VIP if family == 4 else VIP6, 7000))
                            sock.send(b"?")
        time.sleep(0.2)


def failed(service, port, text):
    failures.append(f"{service.name}, client's port {port}: {text}")
    over.set()


def exchange(sock, data):
    """What comes back, until all has or nothing more does."""
    sock.sendall(data)
    got = bytearray()
    while len(got) < len(data):
        part = sock.recv(1 << 16)
        if not part:
            raise ConnectionError("end of stream")
        got += part
    return got


def stream(service, chance):
    """One connection after the other."""
    while not over.is_set():
        began = time.monotonic()
        try:
            sock = socket.create_connection(service.to, timeout=20)
        except OSError as error:
            if not service.was_gone(began):
                failed(service, 0, f"no connection: {error}")
            time.sleep(0.05)
            continue
        port = sock.getsockname()[1]
        with sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                for _ in range(chance.choice([1, 5, 30])):
                    data = chance.randbytes(chance.choice([1, 700, 5000]))
                    if exchange(sock, data) != data:
                        failed(service, port, "other bytes than were sent")
                    service.traffic += len(data)
                    if over.is_set():
                        break
                    time.sleep(0.2)
                service.done += 1
                if chance.random() < 0.3:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            except OSError as error:
                if port in service.excused or service.was_gone(began):
                    service.cut += 1
                else:
                    failed(service, port, f"broken after {time.monotonic() - began:.2f} s: {error}")
        service.excused.discard(port)


def flow(service, chance):
    """One flow after the other; what is lost is sent again, but not for ever."""
    while not over.is_set():
        family = socket.AF_INET6 if ":" in service.to[0] else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect(service.to)
            sock.settimeout(1)
            port, last, lost = sock.getsockname()[1], time.monotonic(), 0
            for number in range(chance.choice([1, 5, 30])):
                data = b"%d " % number + chance.randbytes(chance.choice([0, 100, 1200, 3000]))
                while not over.is_set():
                    try:
                        sock.send(data)
                        while (got := sock.recv(65536)) != data:
                            if not got.startswith(b"%d " % (number - 1)):
                                failed(service, port, "other bytes than were sent")
                        last, lost = time.monotonic(), 0
                        service.traffic += len(data)
                        break
                    except OSError:
                        lost += 1
                        time.sleep(0.05)
                        if lost > 10 and time.monotonic() - last > 15 and not service.was_gone(last):
                            failed(service, port, f"no answer to {lost} datagrams")
                time.sleep(0.2)
            service.done += 1


def main(seconds, seed):
    print("seed", seed, flush=True)
    chance = random.Random(seed)
    services = [Service(random.Random(chance.random()), family, proto) for family in (4, 6) for proto in ("tcp", "udp")]
    for service in services:
        service.create()
    threads = []
    for service in services:
        for _ in range(4):
            run = stream if service.proto == "tcp" else flow
            thread = threading.Thread(target=run, args=(service, random.Random(chance.random())), daemon=True)
            thread.start()
            threads.append(thread)
    threads.append(threading.Thread(target=strangers, daemon=True))
    threads[-1].start()
    rules = Rules(random.Random(chance.random()))
    changes = {}
    end = time.monotonic() + seconds
    while time.monotonic() < end and not over.is_set():
        number = chance.random()
        if number < 0.1:
            what = rules.change()
        elif number < 0.15:
            what = apply(services, chance)
        else:
            what = chance.choice(services).change()
        changes[what] = changes.get(what, 0) + 1
        time.sleep(chance.random() * 0.05)
    print("changes:", changes, flush=True)
    counters = json.loads(nlb("-j", "stats", "show", "fwd").stdout)[0]["counters"]
    print("rules:", {name: counters[name] for name in ("drop-rule", "reject-rule")}, flush=True)
    # Each service has carried something to the end, and goes while there is traffic.
    before = [service.traffic for service in services]
    deadline = time.monotonic() + 20
    while not over.is_set() and not all(service.traffic > count for service, count in zip(services, before)):
        if time.monotonic() > deadline:
            failures.append("a service that stands still")
            break
        time.sleep(0.1)
    for service in services:
        service.delete()
    time.sleep(0.5)
    for kind in ("route", "mapping", "service"):
        left = json.loads(nlb("-j", kind, "show").stdout)
        if left:
            failures.append(f"{kind}s left: {left[:3]}")
    over.set()
    for thread in threads:
        thread.join(30)
    for service in services:
        print(f"{service.name}: {service.done} whole, {service.cut} cut off, {service.traffic} bytes", flush=True)
        if service.done < 5 or service.traffic < 10000:
            failures.append(f"{service.name} has hardly been used")
    print("\n".join(failures), flush=True)
    # Not all threads need have ended.
    os._exit(1 if failures else 0)


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2] if len(sys.argv) > 2 else random.randrange(1 << 32)))
