# SPDX-License-Identifier: GPL-2.0
"""A generic netlink client that can say anything, also what is wrong.

It shares no code with the tools, so that a test with it is a second opinion.
Attribute and command ids come from the uAPI headers.
"""

import collections
import errno
import functools
import os
import pathlib
import re
import socket
import struct

NLM_F_REQUEST, NLM_F_ACK, NLM_F_ROOT, NLM_F_MATCH = 1, 4, 0x100, 0x200
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200
NLMSG_ERROR, NLMSG_DONE = 2, 3
NETLINK_GENERIC, GENL_ID_CTRL, CTRL_CMD_GETFAMILY = 16, 16, 3
CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME, CTRL_ATTR_MCAST_GROUPS = 1, 2, 7
NLMSGERR_MSG, NLMSGERR_OFFS, NLMSGERR_MISS_TYPE = 1, 2, 5
SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NETLINK_CAP_ACK = 270, 1, 10
NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 11, 12

Answer = collections.namedtuple("Answer", "error text attr missing replies")


def u32(value):
    return struct.pack("=I", value)


def u8(value):
    return struct.pack("=B", value)


def be16(value):
    return struct.pack(">H", value)


def ip(text):
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    return socket.inet_pton(family, text)


def attribute(kind, payload):
    data = struct.pack("=HH", 4 + len(payload), kind) + payload
    return data + b"\0" * (-len(data) % 4)


def attributes(data):
    """(type, payload) of each attribute."""
    found = []
    while len(data) >= 4:
        length, kind = struct.unpack("=HH", data[:4])
        if length < 4 or length > len(data):
            raise ValueError("malformed attributes from the kernel")
        found.append((kind & 0x3FFF, data[4:length]))
        data = data[(length + 3) & ~3:]
    return found


@functools.cache
def header_ids(name):
    """Every enumerator of a uAPI header with its number."""
    for top in pathlib.Path(__file__).resolve().parents:
        path = top / "include" / "uapi" / "linux" / name
        if path.exists():
            break
    else:
        raise FileNotFoundError(name)
    text = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.S)
    ids = {}
    for body in re.findall(r"enum\s*\w*\s*{(.*?)}", text, flags=re.S):
        value = -1
        for entry in filter(None, (part.strip() for part in body.split(","))):
            key, _, given = (part.strip() for part in entry.partition("="))
            value = int(given) if given.isdigit() else value + 1
            ids[key] = value
    return ids


# Commands that act, and answer by a dump.
ANSWERED_BY_DUMP = ("MIGRATE",)


class Family:
    """One family, over a socket of its own."""

    def __init__(self, name):
        self.name = name
        self.ids = header_ids(f"{name.replace('-', '_')}.h")
        self.prefix = name.replace("-", "_").upper()
        self.sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC)
        self.sock.bind((0, 0))
        self.sock.settimeout(20)
        self.sock.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        self.sock.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        self.seq = 0
        reply = self._request(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 2, NLM_F_ACK,
                              attribute(CTRL_ATTR_FAMILY_NAME, name.encode() + b"\0"))
        if reply.error:
            raise OSError(reply.error, f"no family {name}: {os.strerror(reply.error)}")
        info = dict(attributes(reply.replies[0][4:]))
        self.id = struct.unpack("=H", info[CTRL_ATTR_FAMILY_ID])[0]
        self.groups = {}
        for _, group in attributes(info.get(CTRL_ATTR_MCAST_GROUPS, b"")):
            entry = dict(attributes(group))
            self.groups[entry[1].rstrip(b"\0").decode()] = struct.unpack("=I", entry[2])[0]

    def attr(self, name):
        """Id of an attribute, named as in the header after FAMILY_A_."""
        return self.ids[f"{self.prefix}_A_{name}"]

    def join(self, group):
        self.sock.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, self.groups[group])

    def do(self, command, attrs=(), tail=b""):
        """attrs: (name or number, payload) pairs, sent exactly so."""
        if self._number(command) not in [self.ids.get(f"{self.prefix}_CMD_{name}") for name in ANSWERED_BY_DUMP]:
            return self.send(command, NLM_F_ACK, attrs, tail)
        answer = self.dump(command, attrs, tail)
        # What says only that there is more to be read.
        return answer._replace(replies=[body for body in answer.replies if len(body) > 4])

    def dump(self, command, attrs=(), tail=b""):
        return self.send(command, NLM_F_ROOT | NLM_F_MATCH, attrs, tail)

    def begin(self, command, attrs=()):
        """Ask for a dump, and read nothing."""
        self._post(self.id, self._number(command), 1, NLM_F_ROOT | NLM_F_MATCH, self._payload(attrs))

    def events(self):
        """Commands and attributes of the notifications that have arrived."""
        found = []
        self.sock.settimeout(1)
        try:
            while True:
                for kind, _, body in self._messages():
                    if kind == self.id:
                        found.append((body[0], attributes(body[4:])))
        except (TimeoutError, socket.timeout):
            pass
        self.sock.settimeout(20)
        return found

    def _payload(self, attrs):
        return b"".join(
            attribute(self.attr(kind) if isinstance(kind, str) else kind, value)
            for kind, value in attrs)

    def send(self, command, flags, attrs=(), tail=b""):
        """With any flags."""
        return self._request(self.id, self._number(command), 1, flags, self._payload(attrs) + tail)

    def _number(self, command):
        return command if isinstance(command, int) else self.ids[f"{self.prefix}_CMD_{command}"]

    def _request(self, kind, command, version, flags, payload):
        self._post(kind, command, version, flags, payload)
        replies = []
        while True:
            for kind_in, seq, body in self._messages():
                if seq != self.seq:
                    continue
                if kind_in == NLMSG_ERROR:
                    return self._error(body, replies, 20)
                if kind_in == NLMSG_DONE:
                    return self._error(body, replies, 4)
                replies.append(body)

    def _post(self, kind, command, version, flags, payload):
        self.seq += 1
        body = struct.pack("=BBH", command, version, 0) + payload
        self.request = struct.pack("=IHHII", 16 + len(body), kind, NLM_F_REQUEST | flags,
                                   self.seq, 0) + body
        self.sock.send(self.request)

    def _messages(self):
        data = self.sock.recv(1 << 17)
        while len(data) >= 16:
            length, kind, self.flags, seq, _ = struct.unpack("=IHHII", data[:16])
            yield kind, seq, data[16:length]
            data = data[(length + 3) & ~3:]

    def _error(self, body, replies, fixed):
        code = -struct.unpack("=i", body[:4])[0]
        text, bad, missing = "", None, None
        if self.flags & NLM_F_ACK_TLVS:
            skip = fixed
            if fixed == 20 and not self.flags & NLM_F_CAPPED:
                skip = 4 + ((struct.unpack("=I", body[4:8])[0] + 3) & ~3)
            for kind, value in attributes(body[skip:]):
                if kind == NLMSGERR_MSG:
                    text = value.rstrip(b"\0").decode()
                elif kind == NLMSGERR_OFFS:
                    offset = struct.unpack("=I", value)[0]
                    if offset + 4 <= len(self.request):
                        bad = struct.unpack("=H", self.request[offset + 2:offset + 4])[0] & 0x3FFF
                elif kind == NLMSGERR_MISS_TYPE:
                    missing = struct.unpack("=I", value)[0]
        return Answer(code, text, bad, missing, replies)


class Ktap:
    """Results in KTAP; exit status as the shell tests have it."""

    def __init__(self):
        self.count, self.failed = 0, 0
        print("KTAP version 1", flush=True)

    def result(self, good, name, *notes):
        self.count += 1
        self.failed += not good
        if not good:
            for note in notes:
                print(f"# {note}")
        print(f"{'ok' if good else 'not ok'} {self.count} {name}", flush=True)

    def skip(self, name, why):
        self.count += 1
        print(f"ok {self.count} {name} # SKIP {why}", flush=True)

    def end(self):
        print(f"1..{self.count}")
        raise SystemExit(1 if self.failed or not self.count else 0)


def name_of(code):
    return errno.errorcode.get(code, str(code))


def in_child(function):
    """What `function` returns in a child process."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            said = function()
        except Exception as error:
            said = repr(error)
        os.write(write, str(said).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


def without_privilege(function):
    """What `function` returns in a child process that has no capability."""
    def unprivileged():
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        return function()
    return in_child(unprivileged)


def replaced(attrs, name, value):
    return [(key, value if key == name else old) for key, old in attrs]


def accepting(ktap, family):
    """A function that makes a request which has to be accepted, and returns the answer."""
    def accepted(name, command, attrs):
        answer = family.do(command, attrs)
        ktap.result(answer.error == 0, f"{command.lower()}: {name}", f"{name_of(answer.error)} {answer.text}")
        return answer

    return accepted


class Case:
    """A request that has to be refused, and what has to be said."""

    def __init__(self, name, command, attrs, error, text="", attr=None, missing=None, tail=b""):
        self.name, self.command, self.attrs, self.tail = name, command, attrs, tail
        self.error, self.text, self.attr, self.missing = error, text, attr, missing


def refuse(ktap, family, case, state):
    """Run a case; `state` returns what must not change."""
    before = state()
    answer = family.do(case.command, case.attrs, case.tail)
    notes = [f"got {name_of(answer.error)} '{answer.text}' attribute {answer.attr} missing {answer.missing}",
             f"expected {name_of(case.error)} '{case.text}' attribute {case.attr} missing {case.missing}"]
    good = answer.error == case.error and case.text == answer.text
    if case.attr is not None:
        good = good and answer.attr == family.attr(case.attr)
    if case.missing is not None:
        good = good and answer.missing == family.attr(case.missing)
    after = state()
    if before != after:
        good = False
        notes.append(f"the refused request changed something: {before} -> {after}")
    ktap.result(good, f"{case.command.lower()}: {case.name}", *notes)


class Request:
    """A good request, from which the bad ones of `hostile` are made."""

    def __init__(self, command, good, optional=(), privileged=True):
        self.command, self.good = command, good
        self.optional, self.privileged = optional, privileged

    def without(self, name):
        return [(key, value) for key, value in self.good if key != name]

    def with_(self, name, value):
        return replaced(self.good, name, value)


def hostile(request):
    """Every way to get one attribute wrong, and what the kernel has to say."""
    for name, value in request.good:
        if name not in request.optional:
            yield Case(f"without {name}", request.command, request.without(name),
                       errno.EINVAL, "missing attribute", missing=name)
        yield Case(f"{name} given twice", request.command, request.good + [(name, value)],
                   errno.EINVAL, "duplicate attribute", attr=name)
        if name.endswith("ADDR"):
            for length in (0, 3, 17):
                yield Case(f"{name} of {length} bytes", request.command, request.with_(name, b"\1" * length),
                           errno.ERANGE, "binary attribute size out of range", attr=name)
            yield Case(f"{name} of 5 bytes", request.command, request.with_(name, b"\1\2\3\4\5"),
                       errno.EINVAL, "invalid address length", attr=name)
            yield Case(f"{name} is IPv4 in 16 bytes", request.command, request.with_(name, ip("::ffff:192.0.2.10")),
                       errno.EINVAL, "IPv4 addresses have 4 bytes", attr=name)
        elif name.endswith("SECRET"):
            for length in (0, 15, 81):
                yield Case(f"{name} of {length} bytes", request.command, request.with_(name, b"s" * length),
                           errno.ERANGE, "binary attribute size out of range", attr=name)
        else:
            for wrong in (b"", value[:-1], value + b"\0"):
                yield Case(f"{name} of {len(wrong)} bytes", request.command, request.with_(name, wrong),
                           errno.EINVAL, "invalid attribute length", attr=name)
        # That of a host may be the service's own.
        if name.endswith("PORT") and not name.endswith("HOST_PORT"):
            yield Case(f"{name} is 0", request.command, request.with_(name, be16(0)),
                       errno.ERANGE, "integer out of range", attr=name)
    yield Case("unknown attribute", request.command, request.good + [(99, u32(1))],
               errno.EINVAL, "Unknown attribute type")
    yield Case("trailing bytes", request.command, request.good, errno.EINVAL,
               "bytes leftover after parsing attributes", tail=b"\1")


def unprivileged(ktap, name, requests, state):
    """Nobody without CAP_NET_ADMIN may change anything."""
    for request in (entry for entry in requests if entry.privileged):
        before = state()
        said = without_privilege(lambda: Family(name).do(request.command, request.good).error)
        ktap.result(said == str(errno.EPERM) and state() == before,
                    f"{request.command.lower()}: refused without privilege", f"got {said}")
