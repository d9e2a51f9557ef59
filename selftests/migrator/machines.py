# SPDX-License-Identifier: GPL-2.0
"""One program on several machines: sockets in the network namespaces of lib.sh."""

import collections
import contextlib
import ctypes
import ipaddress
import os
import pathlib
import socket
import struct
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import genl  # noqa: E402

Network = collections.namedtuple("Network", "family ip vip client host1 host2")
IPV4 = Network(socket.AF_INET, "ip", "192.0.2.10", "10.0.1.2", "10.0.2.2", "10.0.3.2")
IPV6 = Network(socket.AF_INET6, "ip6", "2001:db8:10::10", "2001:db8:1::2", "2001:db8:2::2", "2001:db8:3::2")
# With NLB_TEST_IPV6, what a program does with these it does over IPv6. IP is the protocol's name in nft.
HERE = IPV6 if os.environ.get("NLB_TEST_IPV6") else IPV4
FAMILY, IP, VIP, CLIENT, HOST1, HOST2 = HERE
ANY = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}
LIBC = ctypes.CDLL(None, use_errno=True)
SYS_BPF = 321
BPF_MAP_CREATE, BPF_MAP_UPDATE_ELEM, BPF_PROG_LOAD, BPF_LINK_CREATE = 0, 2, 5, 28
BPF_MAP_TYPE_SOCKMAP, BPF_MAP_TYPE_REUSEPORT_SOCKARRAY = 15, 20
BPF_PROG_TYPE_SK_REUSEPORT, BPF_PROG_TYPE_SK_LOOKUP, BPF_SK_LOOKUP = 21, 30, 36
TCP_MD5SIG, TCP_AO_ADD_KEY = 14, 38
ETH_P_ALL, PACKET_OUTGOING = 3, 4


@contextlib.contextmanager
def machine(name):
    """What is made meanwhile (sockets, netlink families) belongs to that machine."""
    with open("/proc/thread-self/ns/net", "rb") as here, open(f"/run/netns/{name}", "rb") as there:
        os.setns(there.fileno(), os.CLONE_NEWNET)
        try:
            yield
        finally:
            os.setns(here.fileno(), os.CLONE_NEWNET)


def sysctl(name, setting, value):
    """Sets net/SETTING of that machine; what it was before."""
    with machine(name):
        path = pathlib.Path("/proc/sys/net") / setting
        before = path.read_text(encoding="ascii").strip()
        path.write_text(str(value), encoding="ascii")
    return before


def counter(name, which):
    """A counter of the machine's stack, such as TCPTimeouts."""
    with machine(name), open("/proc/thread-self/net/netstat") as file:
        lines = [line.split() for line in file]
    for names, values in zip(lines[::2], lines[1::2]):
        if which in names:
            return int(values[names.index(which)])
    raise KeyError(which)


@contextlib.contextmanager
def with_sysctl(name, setting, value):
    before = sysctl(name, setting, value)
    try:
        yield
    finally:
        sysctl(name, setting, before)


def wait_for(condition, seconds=20):
    """Until `condition` holds; whether it came to that."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


class Migrator:
    """The netlink families of a machine."""

    def __init__(self, name):
        with machine(name):
            self.family = genl.Family("nlb-migrator")
            self.tunnel = genl.Family("nlb-tunnel")
        addresses = (dict(genl.attributes(reply[4:]))[self.family.attr("PEER_ADDR")]
                     for reply in self.family.dump("PEER_GET").replies)
        self.peers = {str(ipaddress.ip_address(address)) for address in addresses}

    def migrate(self, sock, peer=HOST1, timeout=5000, attrs=()):
        """By a socket of this process, or by client and VIP, each an address and a port."""
        if isinstance(sock, tuple):
            (client, client_port), (vip, vip_port) = sock
            which = [("MIGRATION_CLIENT_ADDR", genl.ip(client)), ("MIGRATION_CLIENT_PORT", genl.be16(client_port)),
                     ("MIGRATION_VIP_ADDR", genl.ip(vip)), ("MIGRATION_VIP_PORT", genl.be16(vip_port))]
        else:
            which = [("MIGRATION_FD", genl.u32(sock.fileno()))]
        return self.family.do("MIGRATE", which + [("MIGRATION_PEER_ADDR", genl.ip(peer)),
                                                  ("MIGRATION_TIMEOUT", genl.u32(timeout)), *attrs])

    def migrations(self):
        """One dictionary a migration, by the attributes' names."""
        names = {number: name[len("NLB_MIGRATOR_A_MIGRATION_"):].lower()
                 for name, number in self.family.ids.items() if name.startswith("NLB_MIGRATOR_A_MIGRATION_")}
        found = []
        for reply in self.family.dump("MIGRATION_GET").replies:
            entry = {}
            for kind, value in genl.attributes(reply[4:]):
                if names[kind].endswith("port"):
                    entry[names[kind]] = struct.unpack(">H", value)[0]
                elif names[kind] not in ("error", "peer_addr", "client_addr", "vip_addr"):
                    entry[names[kind]] = int.from_bytes(value, sys.byteorder)
            found.append(entry)
        return found

    def phase(self, port, role="ORIGIN"):
        """The phase of the last migration of the client's port, by its name."""
        ids = self.family.ids
        for entry in reversed(self.migrations()):
            if entry["client_port"] == port and entry["role"] == ids[f"NLB_MIGRATOR_ROLE_{role}"]:
                number = entry["phase"]
                return next(name[len("NLB_MIGRATOR_PHASE_"):].lower() for name, value in ids.items()
                            if name.startswith("NLB_MIGRATOR_PHASE_") and value == number)
        return None

    def mappings(self):
        return len(self.tunnel.dump("MAPPING_GET").replies)

    def peer(self, address, wanted):
        """Makes that machine a peer, with the key of `cluster`, or no peer."""
        if (address in self.peers) != wanted:
            attrs = [("PEER_ADDR", genl.ip(address))]
            if wanted:
                secret = pathlib.Path(os.environ["NLB_SECRET_FILE"]).read_bytes()
                attrs += [("PEER_SEND_ID", genl.u8(1)), ("PEER_SECRET", secret)]
            answer = self.family.do("PEER_NEW" if wanted else "PEER_DEL", attrs)
            if answer.error:
                raise OSError(answer.error, answer.text)
            self.peers ^= {address}

    def counters(self):
        """All counters of the migrator by name; one that was never used is 0."""
        found = collections.Counter()
        for reply in self.family.do("STATS_GET").replies:
            for _, counter in genl.attributes(reply[4:]):
                entry = dict(genl.attributes(counter))
                name = entry[self.family.attr("COUNTER_NAME")].rstrip(b"\0").decode()
                found[name] = int.from_bytes(entry[self.family.attr("COUNTER_VALUE")], sys.byteorder)
        return found


def listen(name, port=80, protocol=0, address=None, family=FAMILY, options=(), backlog=128):
    """A listener on that machine; options: (level, name, value)."""
    with machine(name):
        sock = socket.socket(family, socket.SOCK_STREAM, protocol)
    sock.settimeout(20)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for option in options:
        sock.setsockopt(*option)
    sock.bind((address or ANY[family], port))
    sock.listen(backlog)
    return sock


def connect(port=80, protocol=0, options=(), address=VIP, source=None):
    """A connection from the client, maybe from a certain port."""
    with machine("client"):
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, protocol)
    sock.settimeout(20)
    for option in options:
        sock.setsockopt(*option)
    if source:
        sock.bind(source)
    sock.connect((address, port))
    return sock


def accepted(listener):
    sock = listener.accept()[0]
    sock.settimeout(20)
    return sock


def receive(sock, count):
    """Exactly so many bytes, or those before the end."""
    data = b""
    while len(data) < count and (part := sock.recv(count - len(data))):
        data += part
    return data


def exchange(one, other, text=b"are you there?"):
    """Whether bytes pass in both directions."""
    one.sendall(text)
    there = receive(other, len(text))
    other.sendall(there.upper())
    return receive(one, len(text)) == text.upper()


def sockaddr(address):
    """A struct sockaddr_storage without a port."""
    if ":" in address:
        return struct.pack("=HHI16s", socket.AF_INET6, 0, 0, genl.ip(address)).ljust(128, b"\0")
    return struct.pack("=HH4s", socket.AF_INET, 0, genl.ip(address)).ljust(128, b"\0")


def md5_key(address, key=b"a key"):
    """Option: TCP-MD5 for an address."""
    where = sockaddr(address)
    return socket.IPPROTO_TCP, TCP_MD5SIG, where + struct.pack("=BBHi80s", 0, 0, len(key), 0, key)


def ao_key(address, key=b"a key"):
    """Option: TCP-AO for an address."""
    where = sockaddr(address)
    return socket.IPPROTO_TCP, TCP_AO_ADD_KEY, where + struct.pack(
        "=64siIHBBBBBB80s", b"hmac(sha1)", 0, 0, 0, 128 if ":" in address else 32, 100, 100, 12, 0, len(key), key)


def bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"))
    result = LIBC.syscall(SYS_BPF, command, buffer, 128)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf({command}): {os.strerror(ctypes.get_errno())}")
    return result


def into_sockmap(*socks, kind=BPF_MAP_TYPE_SOCKMAP):
    """Puts sockets into a new sockmap, or another kind of array; its descriptor, which keeps them there."""
    fd = bpf(BPF_MAP_CREATE, struct.pack("=IIIII", kind, 4, 4, len(socks), 0))
    for number, sock in enumerate(socks):
        key, value = ctypes.c_uint32(number), ctypes.c_uint32(sock.fileno())
        bpf(BPF_MAP_UPDATE_ELEM, struct.pack("=IIQQQ", fd, 0, ctypes.addressof(key), ctypes.addressof(value), 0))
    return fd


def instruction(code, dst=0, src=0, offset=0, value=0):
    """One of a BPF program (struct bpf_insn)."""
    return struct.pack("=BBhi", code, src << 4 | dst, offset, value)


def load_program(kind, instructions, attach=0):
    """The descriptor of a BPF program."""
    code, text = b"".join(instructions), ctypes.create_string_buffer(b"GPL")
    memory = ctypes.create_string_buffer(code, len(code))
    # What comes between: the log of the verifier, the kernel's version, flags, name, device.
    return bpf(BPF_PROG_LOAD, struct.pack("=IIQQ44xI", kind, len(code) // 8, ctypes.addressof(memory),
                                          ctypes.addressof(text), attach))


def attach_to_machine(program, name, attach):
    """Attaches a BPF program to a network namespace; the descriptor, which keeps it there."""
    with open(f"/run/netns/{name}", "rb") as namespace:
        return bpf(BPF_LINK_CREATE, struct.pack("=IIII", program, namespace.fileno(), attach, 0))


class Sniffer:
    """The TCP packets that leave a machine."""

    def __init__(self, name):
        with machine(name):
            self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))

    def packets(self, wait=0.0):
        """Source and destination port of those that have left since the last call, after `wait` seconds of silence."""
        found = []
        self.sock.settimeout(wait or 0.001)
        while True:
            try:
                data, (_, _, kind, *_) = self.sock.recvfrom(200)
            except TimeoutError:
                return found
            if kind != PACKET_OUTGOING or len(data) < 40:
                continue
            head = (data[0] & 15) * 4 if data[0] >> 4 == 4 else 40
            protocol = data[9] if data[0] >> 4 == 4 else data[6]
            if protocol == socket.IPPROTO_TCP and len(data) >= head + 4:
                found.append(struct.unpack(">HH", data[head:head + 4]))
