#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Every command of the family nlb-fwd, with good and with bad attributes."""

import errno
import os
import pathlib
import struct
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import genl  # noqa: E402
from genl import Case, Request, be16, ip, replaced, u32  # noqa: E402

VIP = [("SERVICE_VIP_ADDR", ip("192.0.2.10")), ("SERVICE_VIP_PORT", be16(80)), ("SERVICE_PROTO", u32(6))]
SERVICE = VIP + [("SERVICE_MODE", u32(2))]
UDP = VIP[:2] + [("SERVICE_PROTO", u32(17)), ("SERVICE_MODE", u32(2))]
HASHED = [("SERVICE_SCHEDULER", u32(5))]
AFFINE = [("SERVICE_AFFINITY_TIMEOUT", u32(300)), ("SERVICE_AFFINITY_PREFIX", u32(24))]
SLOW = [("SERVICE_SLOW_START", u32(60))]
KEPT = [("SERVICE_IDLE_TIMEOUT", u32(3600)), ("SERVICE_FIN_TIMEOUT", u32(30)), ("SERVICE_SYN_TIMEOUT", u32(10)),
        ("SERVICE_MISS_TIMEOUT", u32(500))]
TIMEOUTS = tuple(name for name, _ in KEPT)
PICKED = ("SERVICE_SCHEDULER", "SERVICE_AFFINITY_TIMEOUT", "SERVICE_AFFINITY_PREFIX", "SERVICE_SLOW_START")
PEEK = VIP + [("SERVICE_MODE", u32(1)), ("SERVICE_CLASSIFIER_PORT", be16(8080))]
WIDE = VIP[:1] + [("SERVICE_VIP_PORT", be16(8000)), ("SERVICE_VIP_PORT_LAST", be16(8999))] + SERVICE[2:]
OF = [("ENDPOINT_VIP_ADDR", ip("192.0.2.10")), ("ENDPOINT_VIP_PORT", be16(80)), ("ENDPOINT_PROTO", u32(6))]
HOST = OF + [("ENDPOINT_HOST_ADDR", ip("127.0.0.2"))]
ENDPOINT = HOST + [("ENDPOINT_SOURCE_ADDR", ip("127.0.0.1")), ("ENDPOINT_WEIGHT", u32(3))]
NAT = [("ENDPOINT_FORWARD", u32(5)), ("ENDPOINT_HOST_PORT", be16(8080))]
DRAINING = [("ENDPOINT_STATE", u32(2))]
LIMITED = [("ENDPOINT_MAX_ROUTES", u32(7)), ("ENDPOINT_BACKUP", u32(1)), ("ENDPOINT_RESUME_ROUTES", u32(5))]
CHANGES = ("ENDPOINT_WEIGHT", "ENDPOINT_STATE", "ENDPOINT_MAX_ROUTES", "ENDPOINT_BACKUP", "ENDPOINT_RESUME_ROUTES")
ALLOTTED = [("ALLOTMENT_VIP_ADDR", ip("192.0.2.10")), ("ALLOTMENT_VIP_PORT", be16(80)), ("ALLOTMENT_PROTO", u32(6))]
ALLOTMENT = ALLOTTED + [("ALLOTMENT_SCHEME", u32(1)), ("ALLOTMENT_AGE", u32(1000))]
TUPLE = [("ROUTE_PROTO", u32(6)), ("ROUTE_CLIENT_ADDR", ip("198.51.100.7")), ("ROUTE_CLIENT_PORT", be16(40000)),
         ("ROUTE_VIP_ADDR", ip("192.0.2.10")), ("ROUTE_VIP_PORT", be16(80))]
ROUTE = TUPLE + [("ROUTE_HOST_ADDR", ip("127.0.0.2"))]
PRIORITY = [("RULE_PRIORITY", u32(10))]
FROM = [("RULE_FROM_ADDR", ip("198.51.100.0")), ("RULE_FROM_PREFIX", u32(24))]
TO = [("RULE_VIP_ADDR", ip("192.0.2.10")), ("RULE_VIP_PORT", be16(80)), ("RULE_VIP_PORT_LAST", be16(81)),
      ("RULE_PROTO", u32(6))]
ACTION = [("RULE_ACTION", u32(1))]
RULE = PRIORITY + ACTION + FROM + TO

MISS = [(name.replace("ROUTE", "MISS"), value) for name, value in TUPLE]

REQUESTS = [
    Request("SERVICE_NEW", SERVICE + HASHED + AFFINE + SLOW + KEPT, optional=PICKED + TIMEOUTS),
    Request("SERVICE_NEW", PEEK, optional=("SERVICE_CLASSIFIER_PORT",)),
    Request("SERVICE_NEW", WIDE, optional=("SERVICE_VIP_PORT_LAST",)),
    Request("SERVICE_SET", VIP + HASHED + AFFINE + SLOW + KEPT, optional=PICKED + TIMEOUTS),
    Request("SERVICE_DEL", VIP),
    Request("SERVICE_ZERO", VIP),
    Request("SERVICE_GET", VIP, privileged=False),
    Request("ENDPOINT_NEW", ENDPOINT + DRAINING + LIMITED + NAT,
            optional=("ENDPOINT_SOURCE_ADDR", "ENDPOINT_FORWARD", "ENDPOINT_HOST_PORT") + CHANGES),
    Request("ENDPOINT_SET", HOST + [("ENDPOINT_WEIGHT", u32(5))] + DRAINING + LIMITED, optional=CHANGES),
    Request("ENDPOINT_DEL", HOST),
    Request("ENDPOINT_GET", HOST, privileged=False),
    # Without a share, which may come more than once.
    Request("ALLOTMENT_SET", ALLOTMENT),
    Request("ALLOTMENT_DEL", ALLOTTED),
    Request("ALLOTMENT_GET", ALLOTTED, privileged=False),
    Request("ROUTE_NEW", ROUTE),
    Request("ROUTE_DEL", TUPLE),
    Request("ROUTE_GET", TUPLE, privileged=False),
    # What depends on each other is among the special cases.
    Request("RULE_NEW", RULE, optional=tuple(name for name, _ in PRIORITY + FROM + TO)),
    Request("RULE_DEL", PRIORITY),
    Request("RULE_FLUSH", []),
    Request("RULE_GET", PRIORITY, privileged=False),
    Request("TRACE_GET", [(name.replace("ROUTE_", "TRACE_"), value) for name, value in TUPLE], privileged=False),
]


def share(host=None, amount=None):
    """An attribute "share" with these attributes inside."""
    inside = [(1, ip(host))] if host else []
    inside += [(2, u32(amount))] if amount is not None else []
    nested = 1 << 15
    return (6 | nested, b"".join(genl.attribute(kind, value) for kind, value in inside))


# What only these commands can get wrong. The namespace has the service, the
# endpoint and the route above when they run.
SPECIAL = [
    Case("exists", "SERVICE_NEW", SERVICE, errno.EEXIST, "service exists"),
    Case("last port before the first", "SERVICE_NEW", replaced(WIDE, "SERVICE_VIP_PORT_LAST", be16(7999)), errno.EINVAL,
         "the last port is before the first", attr="SERVICE_VIP_PORT_LAST"),
    Case("last port 0", "SERVICE_NEW", replaced(WIDE, "SERVICE_VIP_PORT_LAST", be16(0)), errno.ERANGE,
         "integer out of range", attr="SERVICE_VIP_PORT_LAST"),
    Case("several ports that begin at those of another", "SERVICE_GET", VIP + [("SERVICE_VIP_PORT_LAST", be16(81))],
         errno.ENOENT, "no such service"),
    Case("several ports that begin at those of another", "ENDPOINT_DEL", HOST + [("ENDPOINT_VIP_PORT_LAST", be16(81))],
         errno.ENOENT, "no such service"),
    Case("several ports that begin at those of another", "ALLOTMENT_GET",
         ALLOTTED + [("ALLOTMENT_VIP_PORT_LAST", be16(81))], errno.ENOENT, "no such service"),
    Case("several ports without a classifier", "SERVICE_NEW", replaced(WIDE, "SERVICE_MODE", u32(1)), errno.EINVAL,
         "mode peek with several ports needs a classifier port", attr="SERVICE_VIP_PORT_LAST"),
    Case("a classifier on one of several ports", "SERVICE_NEW",
         replaced(WIDE, "SERVICE_MODE", u32(1)) + [("SERVICE_CLASSIFIER_PORT", be16(8080))], errno.EINVAL,
         "the classifier's port must not be the service's", attr="SERVICE_CLASSIFIER_PORT"),
    Case("mode 3", "SERVICE_NEW", replaced(SERVICE, "SERVICE_MODE", u32(3)), errno.ERANGE,
         "integer out of range", attr="SERVICE_MODE"),
    Case("mode 0", "SERVICE_NEW", replaced(SERVICE, "SERVICE_MODE", u32(0)), errno.ERANGE,
         "integer out of range", attr="SERVICE_MODE"),
    Case("without a share", "ALLOTMENT_SET", ALLOTMENT, errno.EINVAL, "missing attribute", missing="ALLOTMENT_SHARE"),
    Case("scheme 3", "ALLOTMENT_SET", replaced(ALLOTMENT, "ALLOTMENT_SCHEME", u32(3)), errno.ERANGE,
         "integer out of range", attr="ALLOTMENT_SCHEME"),
    Case("more than an hour", "ALLOTMENT_SET", replaced(ALLOTMENT, "ALLOTMENT_AGE", u32(3600001)), errno.ERANGE,
         "at most an hour (3600000 ms)", attr="ALLOTMENT_AGE"),
    Case("no time", "ALLOTMENT_SET", replaced(ALLOTMENT, "ALLOTMENT_AGE", u32(0)), errno.ERANGE,
         "integer out of range", attr="ALLOTMENT_AGE"),
    Case("a share without host", "ALLOTMENT_SET", ALLOTMENT + [share(amount=1)], errno.EINVAL,
         "a share needs the address of a host", attr="ALLOTMENT_SHARE"),
    Case("a share without amount", "ALLOTMENT_SET", ALLOTMENT + [share("127.0.0.2")], errno.EINVAL,
         "a share needs an amount", attr="ALLOTMENT_SHARE"),
    Case("two shares of a host", "ALLOTMENT_SET", ALLOTMENT + [share("127.0.0.2", 1), share("127.0.0.2", 2)],
         errno.EINVAL, "an endpoint has two shares", attr="ALLOTMENT_SHARE"),
    Case("nothing for anybody", "ALLOTMENT_SET", ALLOTMENT + [share("127.0.0.2", 0)], errno.EINVAL,
         "nobody would get anything", attr="ALLOTMENT_SHARE"),
    Case("a host without endpoint", "ALLOTMENT_SET", ALLOTMENT + [share("127.0.0.9", 1)], errno.ENOENT,
         "no such endpoint", attr="ALLOTMENT_SHARE"),
    Case("too many tokens", "ALLOTMENT_SET", ALLOTMENT + [share("127.0.0.2", 1000001)], errno.ERANGE,
         "at most 1000000 tokens", attr="ALLOTMENT_SHARE"),
    Case("101 percent", "ALLOTMENT_SET",
         replaced(ALLOTMENT, "ALLOTMENT_SCHEME", u32(2)) + [share("127.0.0.2", 101)], errno.ERANGE,
         "at most 100 percent", attr="ALLOTMENT_SHARE"),
    Case("without service", "ALLOTMENT_SET", replaced(ALLOTMENT, "ALLOTMENT_VIP_PORT", be16(9)) + [share("127.0.0.2", 1)],
         errno.ENOENT, "no such service"),
    Case("none there", "ALLOTMENT_DEL", ALLOTTED, errno.ENOENT, "the service has no allotment"),
    Case("none there", "ALLOTMENT_GET", ALLOTTED, errno.ENOENT, "the service has no allotment"),
    Case("action 0", "RULE_NEW", [("RULE_ACTION", u32(0))], errno.ERANGE, "integer out of range", attr="RULE_ACTION"),
    Case("action 4", "RULE_NEW", [("RULE_ACTION", u32(4))], errno.ERANGE, "integer out of range", attr="RULE_ACTION"),
    Case("a prefix without address", "RULE_NEW", ACTION + FROM[1:], errno.EINVAL, "a prefix without an address",
         attr="RULE_FROM_PREFIX"),
    Case("a prefix of 33 bits", "RULE_NEW", ACTION + replaced(FROM, "RULE_FROM_PREFIX", u32(33)), errno.ERANGE,
         "longer than the address", attr="RULE_FROM_PREFIX"),
    Case("a prefix of 129 bits", "RULE_NEW", ACTION + replaced(FROM, "RULE_FROM_PREFIX", u32(129)), errno.ERANGE,
         "integer out of range", attr="RULE_FROM_PREFIX"),
    Case("bits behind the prefix", "RULE_NEW", ACTION + replaced(FROM, "RULE_FROM_PREFIX", u32(20)), errno.EINVAL,
         "has bits behind its prefix", attr="RULE_FROM_ADDR"),
    Case("a port without address", "RULE_NEW", ACTION + TO[1:2] + TO[3:], errno.EINVAL,
         "a port is one of an address and a protocol", attr="RULE_VIP_PORT"),
    Case("a port without protocol", "RULE_NEW", ACTION + TO[:2], errno.EINVAL,
         "a port is one of an address and a protocol", attr="RULE_VIP_PORT"),
    Case("a last port alone", "RULE_NEW", ACTION + TO[:1] + TO[2:], errno.EINVAL, "a last port without a first",
         attr="RULE_VIP_PORT_LAST"),
    Case("last port before the first", "RULE_NEW", replaced(RULE, "RULE_VIP_PORT_LAST", be16(79)), errno.EINVAL,
         "the last port is before the first", attr="RULE_VIP_PORT_LAST"),
    Case("of two families", "RULE_NEW", ACTION + [("RULE_FROM_ADDR", ip("2001:db8::"))] + TO[:1], errno.EAFNOSUPPORT,
         "not of the VIP's address family", attr="RULE_FROM_ADDR"),
    Case("to a multicast address", "RULE_NEW", ACTION + [("RULE_VIP_ADDR", ip("224.0.0.1"))], errno.EINVAL,
         "not a unicast address", attr="RULE_VIP_ADDR"),
    Case("protocol ICMP", "RULE_NEW", ACTION + [("RULE_PROTO", u32(1))], errno.EINVAL,
         "protocol must be TCP (6) or UDP (17)", attr="RULE_PROTO"),
    Case("unknown", "RULE_DEL", PRIORITY, errno.ENOENT, "no such rule"),
    Case("unknown", "RULE_GET", PRIORITY, errno.ENOENT, "no such rule"),
    Case("an attribute", "RULE_FLUSH", PRIORITY, errno.EINVAL, "Unknown attribute type"),
    Case("protocol ICMP", "SERVICE_NEW", replaced(SERVICE, "SERVICE_PROTO", u32(1)), errno.EINVAL,
         "protocol must be TCP (6) or UDP (17)", attr="SERVICE_PROTO"),
    Case("protocol 256", "SERVICE_NEW", replaced(SERVICE, "SERVICE_PROTO", u32(256)), errno.ERANGE,
         "integer out of range", attr="SERVICE_PROTO"),
    Case("peek at UDP", "SERVICE_NEW", replaced(replaced(SERVICE, "SERVICE_PROTO", u32(17)), "SERVICE_MODE", u32(1)),
         errno.EINVAL, "mode peek needs TCP", attr="SERVICE_MODE"),
    Case("classifier of mode l4", "SERVICE_NEW", replaced(PEEK, "SERVICE_MODE", u32(2)), errno.EINVAL,
         "only mode peek has a classifier", attr="SERVICE_CLASSIFIER_PORT"),
    Case("classifier on the service's port", "SERVICE_NEW", replaced(PEEK, "SERVICE_CLASSIFIER_PORT", be16(80)),
         errno.EINVAL, "the classifier's port must not be the service's", attr="SERVICE_CLASSIFIER_PORT"),
    Case("scheduler of mode peek", "SERVICE_NEW", PEEK + HASHED, errno.EINVAL, "only mode l4 has a scheduler",
         attr="SERVICE_SCHEDULER"),
    Case("scheduler 0", "SERVICE_NEW", SERVICE + [("SERVICE_SCHEDULER", u32(0))], errno.ERANGE,
         "integer out of range", attr="SERVICE_SCHEDULER"),
    Case("scheduler 11", "SERVICE_SET", VIP + [("SERVICE_SCHEDULER", u32(11))], errno.ERANGE,
         "integer out of range", attr="SERVICE_SCHEDULER"),
    Case("mode", "SERVICE_SET", SERVICE + HASHED, errno.EINVAL, "Attribute failed policy validation",
         attr="SERVICE_MODE"),
    Case("nothing", "SERVICE_SET", VIP, errno.EINVAL, "nothing to change"),
    Case("affinity of mode peek", "SERVICE_NEW", PEEK + AFFINE[:1], errno.EINVAL, "only mode l4 has affinity",
         attr="SERVICE_AFFINITY_TIMEOUT"),
    Case("prefix of mode peek", "SERVICE_NEW", PEEK + AFFINE[1:], errno.EINVAL, "only mode l4 has affinity",
         attr="SERVICE_AFFINITY_PREFIX"),
    Case("affinity of 31 days and a second", "SERVICE_SET", VIP + HASHED + [("SERVICE_AFFINITY_TIMEOUT", u32(2678401))],
         errno.ERANGE, "at most 31 days (2678400 seconds)", attr="SERVICE_AFFINITY_TIMEOUT"),
    Case("slow start of mode peek", "SERVICE_NEW", PEEK + SLOW, errno.EINVAL, "only mode l4 has a slow start",
         attr="SERVICE_SLOW_START"),
    Case("slow start of more than an hour", "SERVICE_SET", VIP + HASHED + [("SERVICE_SLOW_START", u32(3601))],
         errno.ERANGE, "integer out of range", attr="SERVICE_SLOW_START"),
    Case("timeout of 31 days and a second", "SERVICE_SET", VIP + [("SERVICE_IDLE_TIMEOUT", u32(2678401))],
         errno.ERANGE, "at most 31 days (2678400 seconds)", attr="SERVICE_IDLE_TIMEOUT"),
    Case("timeout after FIN for UDP", "SERVICE_NEW", UDP + KEPT[1:2], errno.EINVAL, "only TCP has this timeout",
         attr="SERVICE_FIN_TIMEOUT"),
    Case("timeout after SYN for UDP", "SERVICE_NEW", UDP + KEPT[2:3], errno.EINVAL, "only TCP has this timeout",
         attr="SERVICE_SYN_TIMEOUT"),
    Case("timeout of misses for UDP", "SERVICE_NEW", UDP + KEPT[3:], errno.EINVAL, "only TCP has this timeout",
         attr="SERVICE_MISS_TIMEOUT"),
    Case("timeout of misses of more than 5 s", "SERVICE_SET", VIP + [("SERVICE_MISS_TIMEOUT", u32(5001))],
         errno.ERANGE, "integer out of range", attr="SERVICE_MISS_TIMEOUT"),
    Case("an answer that is none", "MISS_SET", MISS + [("MISS_STATE", u32(1))], errno.EINVAL,
         "the answer is pass or drop", attr="MISS_STATE"),
    Case("an answer that there is not", "MISS_SET", MISS + [("MISS_STATE", u32(4))], errno.ERANGE,
         "integer out of range", attr="MISS_STATE"),
    Case("an answer to what nobody has asked", "MISS_SET", MISS + [("MISS_STATE", u32(3))], errno.ENOENT,
         "the connection is not asked about"),
    Case("what nobody has asked", "MISS_GET", MISS, errno.ENOENT, "the connection is not asked about"),
    Case("prefix 0", "SERVICE_SET", VIP + [("SERVICE_AFFINITY_PREFIX", u32(0))], errno.ERANGE,
         "integer out of range", attr="SERVICE_AFFINITY_PREFIX"),
    Case("prefix 33 of IPv4", "SERVICE_SET", VIP + HASHED + [("SERVICE_AFFINITY_PREFIX", u32(33))], errno.ERANGE,
         "longer than the VIP's address", attr="SERVICE_AFFINITY_PREFIX"),
    Case("prefix 129", "SERVICE_SET", VIP + [("SERVICE_AFFINITY_PREFIX", u32(129))], errno.ERANGE,
         "integer out of range", attr="SERVICE_AFFINITY_PREFIX"),
    Case("unknown", "SERVICE_SET", replaced(VIP, "SERVICE_VIP_PORT", be16(81)) + HASHED, errno.ENOENT,
         "no such service"),
    Case("VIP 0.0.0.0", "SERVICE_NEW", replaced(SERVICE, "SERVICE_VIP_ADDR", ip("0.0.0.0")), errno.EINVAL,
         "not a unicast address", attr="SERVICE_VIP_ADDR"),
    Case("VIP multicast", "SERVICE_NEW", replaced(SERVICE, "SERVICE_VIP_ADDR", ip("224.0.0.1")), errno.EINVAL,
         "not a unicast address", attr="SERVICE_VIP_ADDR"),
    Case("unknown", "SERVICE_DEL", replaced(VIP, "SERVICE_VIP_PORT", be16(81)), errno.ENOENT, "no such service"),
    Case("unknown", "SERVICE_GET", replaced(VIP, "SERVICE_VIP_PORT", be16(81)), errno.ENOENT, "no such service"),
    Case("exists", "ENDPOINT_NEW", ENDPOINT, errno.EEXIST, "endpoint exists"),
    Case("unknown service", "ENDPOINT_NEW", replaced(ENDPOINT, "ENDPOINT_VIP_PORT", be16(81)), errno.ENOENT,
         "no such service"),
    Case("weight 65536", "ENDPOINT_NEW", replaced(ENDPOINT, "ENDPOINT_WEIGHT", u32(65536)), errno.ERANGE,
         "at most 65535", attr="ENDPOINT_WEIGHT"),
    Case("state 0", "ENDPOINT_NEW", ENDPOINT + [("ENDPOINT_STATE", u32(0))], errno.ERANGE,
         "integer out of range", attr="ENDPOINT_STATE"),
    Case("state 4", "ENDPOINT_SET", HOST + [("ENDPOINT_STATE", u32(4))], errno.ERANGE,
         "integer out of range", attr="ENDPOINT_STATE"),
    Case("nothing", "ENDPOINT_SET", HOST, errno.EINVAL, "nothing to change"),
    Case("more to resume", "ENDPOINT_SET", HOST + LIMITED[:1] + [("ENDPOINT_RESUME_ROUTES", u32(8))], errno.ERANGE,
         "resume-routes is more than max-routes", attr="ENDPOINT_RESUME_ROUTES"),
    Case("backup 2", "ENDPOINT_SET", HOST + [("ENDPOINT_BACKUP", u32(2))], errno.ERANGE,
         "integer out of range", attr="ENDPOINT_BACKUP"),
    Case("backup 2", "ENDPOINT_NEW", replaced(ENDPOINT, "ENDPOINT_HOST_ADDR", ip("127.0.0.9")) +
         [("ENDPOINT_BACKUP", u32(2))], errno.ERANGE, "integer out of range", attr="ENDPOINT_BACKUP"),
    Case("forward 0", "ENDPOINT_NEW", ENDPOINT + [("ENDPOINT_FORWARD", u32(0))], errno.ERANGE,
         "integer out of range", attr="ENDPOINT_FORWARD"),
    Case("forward 8", "ENDPOINT_NEW", ENDPOINT + [("ENDPOINT_FORWARD", u32(8))], errno.ERANGE,
         "integer out of range", attr="ENDPOINT_FORWARD"),
    Case("a source with direct", "ENDPOINT_NEW", ENDPOINT + [("ENDPOINT_FORWARD", u32(2))], errno.EINVAL,
         "the client's address stays the source", attr="ENDPOINT_SOURCE_ADDR"),
    Case("a source with half-nat", "ENDPOINT_NEW", ENDPOINT + [("ENDPOINT_FORWARD", u32(4))], errno.EINVAL,
         "the client's address stays the source", attr="ENDPOINT_SOURCE_ADDR"),
    Case("a port with the tunnel", "ENDPOINT_NEW", ENDPOINT + [("ENDPOINT_HOST_PORT", be16(80))], errno.EINVAL,
         "only half-nat and nat change the port", attr="ENDPOINT_HOST_PORT"),
    Case("a port of the tunnel with nat", "ENDPOINT_NEW", replaced(HOST, "ENDPOINT_HOST_ADDR", ip("10.9.9.9")) +
         replaced(NAT, "ENDPOINT_HOST_PORT", be16(61000)), errno.EINVAL,
         "replies from ports above 60999 look like the tunnel's", attr="ENDPOINT_HOST_PORT"),
    Case("a port with ipip", "ENDPOINT_NEW", ENDPOINT + replaced(NAT, "ENDPOINT_FORWARD", u32(3)), errno.EINVAL,
         "only half-nat and nat change the port", attr="ENDPOINT_HOST_PORT"),
    *(Case(f"this machine by way {number}", "ENDPOINT_NEW", HOST + [("ENDPOINT_FORWARD", u32(number))], errno.EINVAL,
           "not the address of another machine", attr="ENDPOINT_HOST_ADDR") for number in (2, 3, 4, 5, 6, 7)),
    Case("a host on no link", "ENDPOINT_NEW", replaced(HOST, "ENDPOINT_HOST_ADDR", ip("10.9.9.9")) +
         [("ENDPOINT_FORWARD", u32(2))], errno.EHOSTUNREACH, "the host is on no link of this machine",
         attr="ENDPOINT_HOST_ADDR"),
    Case("a host without a route", "ENDPOINT_NEW", replaced(HOST, "ENDPOINT_HOST_ADDR", ip("10.9.9.9")) + NAT,
         errno.EHOSTUNREACH, "no route to the host", attr="ENDPOINT_HOST_ADDR"),
    Case("a way", "ENDPOINT_SET", HOST + [("ENDPOINT_WEIGHT", u32(5)), ("ENDPOINT_FORWARD", u32(1))], errno.EINVAL,
         "Attribute failed policy validation", attr="ENDPOINT_FORWARD"),
    Case("host 0.0.0.0", "ENDPOINT_NEW", replaced(ENDPOINT, "ENDPOINT_HOST_ADDR", ip("0.0.0.0")), errno.EINVAL,
         "not a unicast address", attr="ENDPOINT_HOST_ADDR"),
    Case("VIP link-local", "SERVICE_NEW", replaced(SERVICE, "SERVICE_VIP_ADDR", ip("fe80::1")), errno.EINVAL,
         "not a unicast address", attr="SERVICE_VIP_ADDR"),
    Case("unknown IPv6 VIP", "SERVICE_GET", replaced(VIP, "SERVICE_VIP_ADDR", ip("2001:db8::1")), errno.ENOENT,
         "no such service"),
    Case("IPv6 host", "ENDPOINT_NEW", replaced(ENDPOINT, "ENDPOINT_HOST_ADDR", ip("2001:db8::2")),
         errno.EAFNOSUPPORT, "not of the VIP's address family", attr="ENDPOINT_HOST_ADDR"),
    Case("IPv6 source", "ENDPOINT_NEW", replaced(ENDPOINT, "ENDPOINT_SOURCE_ADDR", ip("2001:db8::2")),
         errno.EAFNOSUPPORT, "not of the VIP's address family", attr="ENDPOINT_SOURCE_ADDR"),
    Case("IPv6 client", "ROUTE_NEW", replaced(ROUTE, "ROUTE_CLIENT_ADDR", ip("2001:db8::7")),
         errno.EAFNOSUPPORT, "not of the VIP's address family", attr="ROUTE_CLIENT_ADDR"),
    Case("IPv6 client", "TRACE_GET", [(name.replace("ROUTE_", "TRACE_"), value) for name, value in
         replaced(TUPLE, "ROUTE_CLIENT_ADDR", ip("2001:db8::7"))], errno.EAFNOSUPPORT,
         "not of the VIP's address family", attr="TRACE_CLIENT_ADDR"),
    Case("IPv6 host", "ROUTE_NEW", replaced(ROUTE, "ROUTE_HOST_ADDR", ip("2001:db8::2")),
         errno.EAFNOSUPPORT, "not of the VIP's address family", attr="ROUTE_HOST_ADDR"),
    Case("unknown host", "ENDPOINT_SET", replaced(HOST, "ENDPOINT_HOST_ADDR", ip("127.0.0.9")) +
         [("ENDPOINT_WEIGHT", u32(5))], errno.ENOENT, "no such endpoint"),
    Case("unknown host", "ENDPOINT_DEL", replaced(HOST, "ENDPOINT_HOST_ADDR", ip("127.0.0.9")), errno.ENOENT,
         "no such endpoint"),
    Case("unknown host", "ENDPOINT_GET", replaced(HOST, "ENDPOINT_HOST_ADDR", ip("127.0.0.9")), errno.ENOENT,
         "no such endpoint"),
    Case("exists", "ROUTE_NEW", ROUTE, errno.EEXIST, "route exists"),
    Case("unknown service", "ROUTE_NEW", replaced(ROUTE, "ROUTE_VIP_PORT", be16(81)), errno.ENOENT,
         "no such service"),
    Case("unknown", "ROUTE_DEL", replaced(TUPLE, "ROUTE_CLIENT_PORT", be16(1)), errno.ENOENT, "no such route"),
    Case("unknown", "ROUTE_GET", replaced(TUPLE, "ROUTE_CLIENT_PORT", be16(1)), errno.ENOENT, "no such route"),
    Case("not a request: weight of a service", "SERVICE_DEL", VIP + [("SERVICE_CONNECTIONS", b"\0" * 8)],
         errno.EINVAL, "Attribute failed policy validation", attr="SERVICE_CONNECTIONS"),
]


def in_ipv6(attrs, host, source):
    """The same request with IPv6 addresses."""
    map6 = {ip("192.0.2.10"): ip("2001:db8:10::10"), ip("198.51.100.7"): ip("2001:db8:1::7"),
            ip("127.0.0.2"): host, ip("127.0.0.1"): source}
    return [(name, map6.get(value, value)) for name, value in attrs]


def ipv6(ktap, fwd, accepted, state, empty):
    """A service, an endpoint and a route in IPv6, and every way to get them wrong."""
    here = ip("2001:db8:2::1")
    there = ip("2001:db8:2::2")
    subprocess.run("ip link add far type dummy && ip link set far up && ip addr add 2001:db8:2::1/64 dev far nodad",
                   shell=True, check=True)
    for command, attrs in (("SERVICE_NEW", SERVICE), ("ENDPOINT_NEW", ENDPOINT), ("ROUTE_NEW", ROUTE)):
        good = in_ipv6(attrs, there, here)
        accepted("IPv6", command, good)
        optional = ("ENDPOINT_SOURCE_ADDR", "ENDPOINT_WEIGHT") if command == "ENDPOINT_NEW" else ()
        for case in genl.hostile(Request(command, good, optional)):
            genl.refuse(ktap, fwd, case, state)
    for command, attrs in (("SERVICE_GET", VIP), ("ENDPOINT_GET", HOST), ("ROUTE_GET", TUPLE)):
        attrs = in_ipv6(attrs, there, here)
        answer = accepted("IPv6", command, attrs)
        got = dict(genl.attributes(answer.replies[0][4:])) if answer.replies else {}
        ktap.result(all(got.get(fwd.attr(key)) == value for key, value in attrs),
                    f"{command.lower()}: the reply names the IPv6 object", str(got))
    ktap.result([len(entries) for entries in state().values()] == [1, 1, 1, 0], "dumps have the IPv6 entries", str(state()))
    accepted("IPv6, with endpoint and route", "SERVICE_DEL", in_ipv6(VIP, there, here))
    ktap.result(state() == empty, "all of IPv6 is gone again", str(state()))


def ways(ktap, fwd, accepted, state):
    """An endpoint of each way of forwarding and a route to it, as they are shown; with the device of ipv6()."""
    subprocess.run("ip addr add 10.7.0.1/24 dev far && ip route add 10.8.0.0/24 via 10.7.0.9 && "
                   "ip route add 2001:db8:8::/64 via 2001:db8:2::9", shell=True, check=True)

    def shown(command, attrs, *names):
        answer = accepted("as it was made", command, attrs)
        found = dict(genl.attributes(answer.replies[0][4:])) if answer.replies else {}
        return [found.get(fwd.attr(name)) for name in names]

    here, there, behind = "10.7.0.1", "10.7.0.2", "10.8.0.2"
    for family, convert in (("IPv4", lambda attrs: attrs), ("IPv6", lambda attrs: in_ipv6(attrs, None, None))):
        if family == "IPv6":
            here, there, behind = "2001:db8:2::1", "2001:db8:2::2", "2001:db8:8::2"
        accepted(family, "SERVICE_NEW", convert(SERVICE))
        host = replaced(convert(HOST), "ENDPOINT_HOST_ADDR", ip(there))
        route = replaced(convert(ROUTE), "ROUTE_HOST_ADDR", ip(there))
        genl.refuse(ktap, fwd, Case(f"{family}: a host behind a gateway", "ENDPOINT_NEW", replaced(
            host, "ENDPOINT_HOST_ADDR", ip(behind)) + [("ENDPOINT_FORWARD", u32(2))], errno.EHOSTUNREACH,
            "the host is on no link of this machine", attr="ENDPOINT_HOST_ADDR"), state)
        for number, source, port in ((1, ip(here), None), (2, None, None), (3, ip(here), None), (4, None, be16(80)),
                                     (4, None, be16(8080)), (5, ip(here), be16(80)), (5, ip(here), be16(8080)),
                                     (6, ip(here), None), (7, ip(here), None)):
            given = [("ENDPOINT_HOST_PORT", port)] if port == be16(8080) else []
            accepted(f"{family}, way {number}", "ENDPOINT_NEW", host + [("ENDPOINT_FORWARD", u32(number))] + given)
            found = shown("ENDPOINT_GET", host, "ENDPOINT_FORWARD", "ENDPOINT_SOURCE_ADDR", "ENDPOINT_HOST_PORT")
            ktap.result(found == [u32(number), source, port], f"{family}, way {number}: the endpoint says so", str(found))
            accepted(f"{family}, way {number}", "ROUTE_NEW", route)
            found = shown("ROUTE_GET", route[:-1], "ROUTE_FORWARD", "ROUTE_HOST_ADDR", "ROUTE_FORWARDER_ADDR")
            ktap.result(found == [u32(number), ip(there), source], f"{family}, way {number}: the route says so", str(found))
            found = [value is not None for value in shown("ROUTE_GET", route[:-1], "ROUTE_FLOW_ID", "ROUTE_FORWARDER_PORT")]
            ktap.result(found == [number == 1, number == 5], f"{family}, way {number}: flow id or port", str(found))
            if number == 4:
                # The same client's port to another service with this host and port.
                other = [(name, be16(81) if name.endswith("VIP_PORT") else value) for name, value in convert(SERVICE)]
                accepted("another", "SERVICE_NEW", other)
                accepted("another", "ENDPOINT_NEW", replaced(host, "ENDPOINT_VIP_PORT", be16(81)) +
                         [("ENDPOINT_FORWARD", u32(4)), ("ENDPOINT_HOST_PORT", port)])
                genl.refuse(ktap, fwd, Case(f"{family}: the same replies", "ROUTE_NEW", replaced(
                    route, "ROUTE_VIP_PORT", be16(81)), errno.EADDRINUSE, "no port is free"), state)
                accepted("another", "SERVICE_DEL", [entry for entry in other if entry[0] != "SERVICE_MODE"])
            accepted(f"{family}, way {number}", "ROUTE_DEL", route[:-1])
            accepted(f"{family}, way {number}", "ENDPOINT_DEL", host)
        accepted(family, "SERVICE_DEL", convert(VIP))


def peek(ktap, fwd, accepted, state):
    """What a classifier does is not the kernel's to schedule."""
    other = ("SERVICE_VIP_PORT", be16(81))
    accepted("mode peek", "SERVICE_NEW", replaced(PEEK, *other))
    genl.refuse(ktap, fwd, Case("mode peek", "SERVICE_SET", replaced(VIP, *other) + HASHED, errno.EINVAL,
                                "only mode l4 has a scheduler", attr="SERVICE_SCHEDULER"), state)
    endpoint = replaced(replaced(HOST, "ENDPOINT_VIP_PORT", be16(81)), "ENDPOINT_HOST_ADDR", ip("10.9.9.9"))
    for number in (2, 3, 4, 5, 6, 7):
        genl.refuse(ktap, fwd, Case(f"mode peek by way {number}", "ENDPOINT_NEW",
                                    endpoint + [("ENDPOINT_FORWARD", u32(number))], errno.EINVAL,
                                    "mode peek needs the tunnel", attr="ENDPOINT_FORWARD"), state)
    accepted("mode peek", "SERVICE_DEL", replaced(VIP, *other))


def picked(ktap, fwd, accepted, listener):
    """What a change of a service leaves out stays as it is, and a notification has all of it."""
    for name, attrs, want in (
            ("another scheduler", HASHED, (5, 0, 32, 0)),
            ("affinity", AFFINE[:1], (5, 300, 32, 0)),
            ("a prefix", AFFINE[1:], (5, 300, 24, 0)),
            ("a slow start", SLOW, (5, 300, 24, 60)),
            ("all the longest", [("SERVICE_AFFINITY_TIMEOUT", u32(2678400)), ("SERVICE_AFFINITY_PREFIX", u32(32)),
                                 ("SERVICE_SLOW_START", u32(3600))], (5, 2678400, 32, 3600)),
            ("no affinity", [("SERVICE_AFFINITY_TIMEOUT", u32(0))], (5, 0, 32, 3600)),
            ("no slow start", [("SERVICE_SLOW_START", u32(0))], (5, 0, 32, 0))):
        accepted(name, "SERVICE_SET", VIP + attrs)
        events = [dict(event[1]) for event in listener.events()]
        found = [tuple(event.get(fwd.attr(attr)) for attr in PICKED) for event in events]
        ktap.result(found == [tuple(map(u32, want))], f"service_ntf: {name}", str(events))


def states(ktap, fwd, accepted, state):
    """An endpoint that drains keeps its route; one that is inactive has none and gets none."""
    def shown():
        answer = accepted("good", "ENDPOINT_GET", HOST)
        found = dict(genl.attributes(answer.replies[0][4:])) if answer.replies else {}
        names = ("WEIGHT", "STATE", "ROUTES", "ACTIVE_ROUTES", "MAX_ROUTES", "BACKUP")
        return [found.get(fwd.attr(f"ENDPOINT_{name}")) for name in names]

    def result(name, *want):
        found = shown()
        ktap.result(found == [u32(value) for value in (want + (0, 0))[:6]], name, str(found))

    result("an endpoint is active, with a route", 5, 1, 1, 1)
    accepted("draining", "ENDPOINT_SET", HOST + DRAINING)
    result("a draining endpoint keeps weight and route", 5, 2, 1, 1)
    accepted("inactive", "ENDPOINT_SET", HOST + [("ENDPOINT_STATE", u32(3))])
    result("an inactive endpoint has no route", 5, 3, 0, 0)
    genl.refuse(ktap, fwd, Case("to an inactive endpoint", "ROUTE_NEW", ROUTE, errno.EHOSTDOWN,
                                "the endpoint is inactive", attr="ROUTE_HOST_ADDR"), state)
    accepted("weight alone", "ENDPOINT_SET", HOST + [("ENDPOINT_WEIGHT", u32(7))])
    result("another weight leaves the state", 7, 3, 0, 0)
    accepted("a limit", "ENDPOINT_SET", HOST + LIMITED[:1])
    accepted("a backup", "ENDPOINT_SET", HOST + LIMITED[1:2])
    result("neither changes another", 7, 3, 0, 0, 7, 1)
    accepted("no limit", "ENDPOINT_SET", HOST + [("ENDPOINT_MAX_ROUTES", u32(0))])
    result("a limit can be lifted", 7, 3, 0, 0, 0, 1)
    accepted("no backup", "ENDPOINT_SET", HOST + [("ENDPOINT_BACKUP", u32(0))])
    accepted("active and a weight", "ENDPOINT_SET", HOST + [("ENDPOINT_WEIGHT", u32(5)), ("ENDPOINT_STATE", u32(1))])
    accepted("to an active endpoint", "ROUTE_NEW", ROUTE)
    result("it is active again", 5, 1, 1, 1)
    accepted("good", "ENDPOINT_DEL", HOST)
    accepted("draining from the beginning", "ENDPOINT_NEW", ENDPOINT + DRAINING)
    result("a route to an endpoint before is none of a new one", 3, 2, 0, 0)


def rules(ktap, fwd, accepted, listener):
    """Rules as they are shown, by priority; the one beyond the last, in a namespace that is thrown away then."""
    def shown():
        return [dict(genl.attributes(reply[4:])) for reply in fwd.dump("RULE_GET").replies]

    answer = accepted("whole", "RULE_NEW", RULE)
    sent = {fwd.attr(key): value for key, value in RULE}
    got = dict(genl.attributes(answer.replies[0][4:])) if answer.replies else {}
    ktap.result(sent.items() <= got.items() and [got] == shown(), "rule_new: the answer is the rule", str(got))
    accepted("of all", "RULE_NEW", ACTION + [("RULE_PRIORITY", u32(3))])
    accepted("without priority", "RULE_NEW", ACTION + [("RULE_FROM_ADDR", ip("2001:db8::1"))])
    got = [(rule[fwd.attr("RULE_PRIORITY")], rule.get(fwd.attr("RULE_FROM_PREFIX"))) for rule in shown()]
    ktap.result(got == [(u32(3), None), (u32(10), u32(24)), (u32(20), u32(128))], "rules are by priority", str(got))
    answer = fwd.do("RULE_NEW", RULE)
    ktap.result(answer.error == errno.EEXIST and answer.text == "another rule has this priority", "rule_new: exists")
    accepted("the one in the middle", "RULE_DEL", PRIORITY)
    accepted("last of all priorities", "RULE_NEW", ACTION + [("RULE_PRIORITY", u32(0xffffffff))])
    answer = fwd.do("RULE_NEW", ACTION)
    ktap.result(answer.error == errno.ERANGE and answer.text == "no priority is behind the last, name one",
                "rule_new: behind the last", answer.text)
    listener.events()
    accepted("all", "RULE_FLUSH", [])
    events = [event[0] for event in listener.events()]
    ktap.result(shown() == [] and events == [fwd.ids["NLB_FWD_CMD_RULE_DEL_NTF"]] * 3, "rule_flush: all are gone", str(events))
    accepted("none", "RULE_FLUSH", [])

    def full():
        os.unshare(os.CLONE_NEWNET)
        own = genl.Family("nlb-fwd")
        said = {own.do("RULE_NEW", ACTION + [("RULE_FROM_ADDR", struct.pack(">I", 0x0a000000 + number))]).error
                for number in range(1024)}
        answer = own.do("RULE_NEW", ACTION)
        return said, len(own.dump("RULE_GET").replies), genl.name_of(answer.error), answer.text

    said = genl.in_child(full)
    ktap.result(said == str(({0}, 1024, "ENOSPC", "too many rules")), "rules have a bound", said)


def hashed(ktap):
    """The 257th service for consistent hashing is refused, in a namespace that is thrown away then."""
    def answers():
        os.unshare(os.CLONE_NEWNET)
        fwd = genl.Family("nlb-fwd")

        def do(command, port, *attrs):
            answer = fwd.do(command, replaced(VIP, "SERVICE_VIP_PORT", be16(port)) + list(attrs))
            return f"{genl.name_of(answer.error)} {answer.text}".rstrip()

        mode = ("SERVICE_MODE", u32(2))
        said = {do("SERVICE_NEW", port, mode, *HASHED) for port in range(1, 257)}
        yield "256 services with scheduler mh", said, "{'0'}"
        full = "EDQUOT too many services with scheduler mh or sh"
        yield "one more", do("SERVICE_NEW", 257, mode, *HASHED), full
        yield "one with another", do("SERVICE_NEW", 257, mode), "0"
        yield "which cannot change", do("SERVICE_SET", 257, *HASHED), full
        yield "one that has it already", do("SERVICE_SET", 1, *HASHED), "0"
        yield "one takes another", do("SERVICE_SET", 1, ("SERVICE_SCHEDULER", u32(1))), "0"
        yield "which leaves room", do("SERVICE_SET", 257, *HASHED), "0"
        yield "for one", do("SERVICE_SET", 1, *HASHED), full
        yield "one goes", do("SERVICE_DEL", 257), "0"
        yield "which leaves room, too", do("SERVICE_SET", 1, *HASHED), "0"

    said = genl.in_child(lambda: "\n".join(f"{name}: {said}" for name, said, want in answers() if str(said) != want))
    ktap.result(said == "", "services with scheduler mh have a bound", said)


def main():
    subprocess.run(["modprobe", "nlb_fwd"], check=True)
    ktap = genl.Ktap()
    fwd = genl.Family("nlb-fwd")
    accepted = genl.accepting(ktap, fwd)
    shown = {
        "SERVICE_GET": ("VIP_ADDR", "VIP_PORT", "PROTO", "MODE", "SCHEDULER", "AFFINITY_TIMEOUT", "AFFINITY_PREFIX",
                        "SLOW_START", "IDLE_TIMEOUT", "FIN_TIMEOUT", "SYN_TIMEOUT",
                        "MISS_TIMEOUT"),
        "ENDPOINT_GET": ("VIP_ADDR", "VIP_PORT", "PROTO", "HOST_ADDR", "SOURCE_ADDR", "WEIGHT", "STATE",
                         "MAX_ROUTES", "BACKUP", "FORWARD", "HOST_PORT"),
        "ROUTE_GET": ("PROTO", "CLIENT_ADDR", "CLIENT_PORT", "VIP_ADDR", "VIP_PORT", "HOST_ADDR"),
        "RULE_GET": ("PRIORITY", "ACTION", "FROM_ADDR", "FROM_PREFIX", "VIP_ADDR", "VIP_PORT", "VIP_PORT_LAST", "PROTO"),
    }

    def state():
        """What was asked for when services, endpoints and routes were made or changed."""
        found = {}
        for command, names in shown.items():
            kinds = {fwd.attr(f"{command.removesuffix('_GET')}_{name}") for name in names}
            found[command] = sorted(
                str([(kind, value) for kind, value in genl.attributes(reply[4:]) if kind in kinds])
                for reply in fwd.dump(command).replies)
        return found

    empty = state()
    ktap.result(empty == {key: [] for key in shown}, "a new namespace has nothing", str(empty))
    listener = genl.Family("nlb-fwd")
    listener.join("events")
    listener.join("routes")
    accepted("good", "SERVICE_NEW", SERVICE)
    accepted("good", "ENDPOINT_NEW", ENDPOINT)
    accepted("good", "ROUTE_NEW", ROUTE)
    events = listener.events()
    for name in ("SERVICE_NTF", "ENDPOINT_NTF", "ROUTE_NTF"):
        ktap.result(fwd.ids[f"NLB_FWD_CMD_{name}"] in [event[0] for event in events],
                    f"{name.lower()} is sent", str(events))

    full = state()
    del full["RULE_GET"]
    ktap.result(all(len(entries) == 1 for entries in full.values()), "each dump has one entry", str(full))
    for command, attrs in (("SERVICE_GET", VIP), ("ENDPOINT_GET", HOST), ("ROUTE_GET", TUPLE)):
        answer = accepted("good", command, attrs)
        sent = {fwd.attr(key): value for key, value in attrs}
        got = dict(genl.attributes(answer.replies[0][4:])) if answer.replies else {}
        ktap.result(sent.items() <= got.items(), f"{command.lower()}: the reply names the object", f"{got}")

    for request in REQUESTS:
        for case in genl.hostile(request):
            genl.refuse(ktap, fwd, case, state)
    for case in SPECIAL:
        genl.refuse(ktap, fwd, case, state)
    genl.unprivileged(ktap, "nlb-fwd", REQUESTS, state)
    ktap.result(genl.without_privilege(lambda: len(genl.Family("nlb-fwd").dump("SERVICE_GET").replies)) == "1",
                "looking needs no privilege")

    picked(ktap, fwd, accepted, listener)
    peek(ktap, fwd, accepted, state)
    rules(ktap, fwd, accepted, listener)
    hashed(ktap)

    accepted("a new weight", "ENDPOINT_SET", HOST + [("ENDPOINT_WEIGHT", u32(5))])
    weights = [dict(genl.attributes(reply[4:]))[fwd.attr("ENDPOINT_WEIGHT")] for reply in fwd.dump("ENDPOINT_GET").replies]
    ktap.result(weights == [u32(5)], "the weight has changed", str(weights))
    states(ktap, fwd, accepted, state)
    stats = fwd.do("STATS_GET")
    counters = [genl.attributes(value) for _, value in genl.attributes(stats.replies[0][4:])] if stats.replies else []
    ktap.result(stats.error == 0 and len(counters) > 3 and all(len(entry) == 2 for entry in counters),
                "stats_get: named counters", str(counters))

    listener.events()
    accepted("good", "ROUTE_DEL", TUPLE)
    accepted("good", "ENDPOINT_DEL", HOST)
    accepted("good", "SERVICE_DEL", VIP)
    events = [event[0] for event in listener.events()]
    for name in ("SERVICE_DEL_NTF", "ENDPOINT_DEL_NTF", "ROUTE_DEL_NTF"):
        ktap.result(fwd.ids[f"NLB_FWD_CMD_{name}"] in events, f"{name.lower()} is sent", str(events))
    ktap.result(state() == empty, "all is gone again", str(state()))
    accepted("good", "SERVICE_NEW", SERVICE)
    accepted("good", "ENDPOINT_NEW", ENDPOINT)
    accepted("good", "ROUTE_NEW", ROUTE)
    accepted("with endpoint and route", "SERVICE_DEL", VIP)
    ktap.result(state() == empty, "service_del takes endpoints and routes along", str(state()))
    ipv6(ktap, fwd, accepted, state, empty)
    ways(ktap, fwd, accepted, state)
    ktap.result(state() == empty, "all ways are gone again", str(state()))
    ktap.end()


if __name__ == "__main__":
    main()
